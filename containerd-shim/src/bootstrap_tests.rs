use super::*;
use crate::options::{CRI, RUNC};
use crate::wire::{Extension, RuncOptions};

fn args(id: &str, namespace: &str) -> Args {
    Args { id: id.into(), namespace: namespace.into(), address: "/run/c.sock".into(), ..Args::default() }
}

fn options() -> Any {
    Any::of(RUNC, &RuncOptions { systemd_cgroup: true, ..RuncOptions::default() })
}

/// Of 1.6 to 2.2, by hand: field 1 a text, field 2 bytes with field 9 a true.
const ANY: &[u8] = b"\x0a\x1acontainerd.runc.v1.Options\x12\x02\x48\x01";

#[test]
fn options_of_old_containerds_are_no_parameters() {
    let wanted = parse(&args("a", "default"), Some("/run/c.sock.ttrpc".into()), ANY).unwrap();
    assert_eq!(wanted.dialect, Dialect::Flags);
    assert_eq!(wanted.options, Some(options()));
    assert_eq!(
        (wanted.ttrpc_address.as_str(), wanted.socket_dir.as_str()),
        ("/run/c.sock.ttrpc", "/run/containerd/s")
    );
    assert_eq!(parse(&args("a", "default"), None, b"").unwrap().options, None);
}

#[test]
fn parameters_come_before_flags() {
    let params = BootstrapParams {
        instance_id: "a".into(),
        namespace: "default".into(),
        log_level: -4,
        ttrpc_address: "/run/other.ttrpc".into(),
        grpc_address: "/run/other".into(),
        extensions: vec![
            Extension { value: Some(Any { type_url: "something.else".into(), value: vec![] }) },
            Extension { value: Some(options()) },
        ],
        socket_dir: "/run/s".into(),
    };
    let wanted = parse(&args("a", "default"), None, &params.encode_to_vec()).unwrap();
    assert_eq!((wanted.dialect, wanted.debug), (Dialect::Params, true));
    assert_eq!((wanted.grpc_address.as_str(), wanted.socket_dir.as_str()), ("/run/other", "/run/s"));
    assert_eq!(wanted.options, Some(options()));
}

#[test]
fn input_that_is_neither_is_refused() {
    let failure = parse(&args("a", "default"), None, b"\xff\xff\xff").unwrap_err();
    assert!(failure.text.starts_with("options on standard input: "), "{failure}");
    assert!(parse(&args("", "default"), None, b"").is_err());
}

#[test]
fn every_caller_gets_what_it_understands() {
    let address = "unix:///run/s/x";
    assert_eq!(answer(Dialect::Flags, address, true), address.as_bytes());
    let json = String::from_utf8(answer(Dialect::Flags, address, false)).unwrap();
    assert_eq!(json, r#"{"version":3,"address":"unix:///run/s/x","protocol":"ttrpc"}"#);
    let result = answer(Dialect::Params, address, true);
    assert_eq!(result, b"\x08\x03\x12\x0funix:///run/s/x\x1a\x05ttrpc");
    assert_eq!(CRI, "runtimeoptions.v1.Options");
}

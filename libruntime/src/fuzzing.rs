//! What a fuzzer calls, for code that is not public. Compiled with `--cfg fuzzing` alone; ../../fuzz has
//! the targets. Each function takes any bytes, must not panic, and asserts what has to hold of the result.

use crate::config::{Config, parse_process, parse_resources};
use crate::host::{CgroupMount, Host};
use crate::plan::Plan;
use crate::plan::request::Request;
use crate::state::State;
use crate::step::{Header, REPORT_SIZE, Report, Step};
use crate::{cgroup, network, plan, seccomp};
use oci_spec::runtime::Spec;

pub use crate::network::fuzz_netlink as netlink;
pub use cgroup::fuzz_dbus as dbus;

/// Hosts that planning tells apart: root on v2 and v1, root of a user namespace, and a user.
fn hosts() -> Vec<Host> {
    let mount = |name: &str, v2| CgroupMount {
        name: name.into(),
        v2,
        options: vec![],
        host_path: "/sys/fs/cgroup/box".into(),
        links: vec![],
    };
    let root = Host {
        capabilities: (1 << 41) - 1,
        rlimits: (0..16).map(|resource| (resource, (1024, 4096))).collect(),
        ..Host::default()
    };
    vec![
        Host { cgroup_mounts: vec![mount("", true)], ..root.clone() },
        Host {
            cgroup_mounts: vec![mount("pids", false), mount("memory", false)],
            cgroup_tasks: vec!["/sys/fs/cgroup/pids/box/tasks".into()],
            ..root.clone()
        },
        Host { in_user_namespace: true, groups_are_fixed: true, ..root.clone() },
        Host { uid: 1000, capabilities: 0, attach_first: true, ..root },
    ]
}

fn request(console: bool) -> Request {
    Request {
        id: "box".into(),
        bundle: "/bundle".into(),
        directory: "/run/box".into(),
        console_socket: console,
        ..Request::default()
    }
}

/// A configuration that is accepted is accepted again, and each host has a plan for it, or an error.
pub fn config(bytes: &[u8]) {
    let Ok(read) = Config::parse(bytes) else { return };
    let again = serde_json::to_vec(&read.spec).expect("what was read can be written");
    assert_eq!(Config::parse(&again).expect("what was accepted is accepted again").spec, read.spec);
    let profile = read.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let filter = match profile.map(|profile| seccomp::compile(profile, &mut Vec::new())).transpose() {
        Ok(filter) => filter,
        Err(findings) => return assert!(!findings.is_empty()),
    };
    let _ = network::wanted(&read.spec, &[], true);
    for host in hosts() {
        let request = request(read.spec.process().as_ref().is_some_and(|one| one.terminal() == Some(true)));
        match plan::create::create(&read.spec, &host, &request, filter.as_ref()) {
            Ok(plan) => check(&plan),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        joined(&read.spec, &host, &request);
    }
}

/// The plan by which the configuration's process joins its container.
fn joined(spec: &Spec, host: &Host, request: &Request) {
    let Some(process) = spec.process() else { return };
    match plan::exec::exec(spec, process, host, request, None) {
        Ok(plan) => check(&plan),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The stage reads the steps that were planned, all of them; people can read them too.
fn check(plan: &Plan) {
    let fds: Vec<i32> = (0..plan.handed.len() as i32).collect();
    let bytes = plan.encode(&fds, None).expect("a plan that was made can be encoded");
    let (header, mut rest) = postcard::take_from_bytes::<Header<&[u8]>>(&bytes).expect("a header");
    assert_eq!(header.fds.len(), 4 * fds.len());
    let mut steps = 0;
    while !rest.is_empty() {
        rest = postcard::take_from_bytes::<Step<&[u8]>>(rest).expect("a step").1;
        steps += 1;
    }
    assert_eq!(steps, plan.steps().len());
    assert!(!plan.to_text().is_empty() && plan.to_json().is_object());
}

/// The process of `exec --process`.
pub fn process(bytes: &[u8]) {
    let Ok((process, _)) = parse_process(bytes) else { return };
    let mut spec = Spec::default();
    spec.set_process(Some(process));
    for host in hosts() {
        joined(&spec, &host, &request(true));
    }
}

/// The limits of `update --resources`.
pub fn resources(bytes: &[u8]) {
    let Ok((resources, _)) = parse_resources(bytes) else { return };
    cgroup::fuzz_resources(&resources);
}

/// `state.json`, as a process of another version or a full disk may have left it.
pub fn state(bytes: &[u8]) {
    let Ok(state) = serde_json::from_slice::<State>(bytes) else { return };
    let again = serde_json::to_vec(&state).expect("what was read can be written");
    let _: State = serde_json::from_slice(&again).expect("what was written can be read");
}

/// Plans as the stage reads them, and reports as the library does.
pub fn steps(bytes: &[u8]) {
    if let Some(report) = Report::decode(bytes) {
        assert_eq!(bytes.len(), REPORT_SIZE);
        assert_eq!(Report::decode(&report.encode()), Some(report));
    }
    let Ok((_, mut rest)) = postcard::take_from_bytes::<Header<&[u8]>>(bytes) else { return };
    while let Ok((step, after)) = postcard::take_from_bytes::<Step<&[u8]>>(rest) {
        assert!(after.len() < rest.len(), "a step takes no bytes");
        let _ = format!("{step:?}");
        rest = after;
    }
}

/// What `--network`, `--publish` and the annotations take: what is accepted can be shown.
pub fn networks(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (network, publish) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(mut network) = crate::Network::parse(network, "network") else { return };
    let _ = network.add_publish(publish);
    let _ = network.set_bandwidth(publish);
    assert!(!network.to_string().is_empty());
}

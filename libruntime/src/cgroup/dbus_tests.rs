use super::*;
use std::os::unix::net::UnixListener;

#[test]
fn a_call_is_what_the_specification_says() {
    let bytes = encode(7, ["a.b", "/p", "i.f", "M"], &["x".into(), Value::U64(1)]);
    // Body: "x" is 4 + 1 + 1 bytes, then 2 of padding before the 8 of the number.
    let body = [1, 0, 0, 0, b'x', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    assert!(bytes.ends_with(&body));
    assert_eq!(bytes[..12], [b'l', 1, 0, 1, 16, 0, 0, 0, 7, 0, 0, 0]);
    // The first field: path (1), an object path, "/p".
    assert_eq!(bytes[16..27], [1, 1, b'o', 0, 2, 0, 0, 0, b'/', b'p', 0]);
    assert_eq!((bytes.len() - body.len()) % 8, 0);
    assert_eq!(length(bytes[..16].try_into().unwrap()), Some(bytes.len()));
    let message = decode(&bytes).unwrap();
    assert_eq!((message.kind, message.member.as_str(), message.signature.as_str()), (CALL, "M", "st"));
    assert_eq!(message.body, body);
}

#[test]
fn arrays_count_their_content_without_the_first_padding() {
    let mut writer = Writer::default();
    writer.value(&Value::Properties(vec![("A".into(), Value::Bool(true))]));
    // Length, padding to 8, then a struct: string (4+1+1), signature (1+1+1), padding to 12, bool.
    let expected = [16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'A', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0];
    assert_eq!(writer.0, expected);
    let mut writer = Writer::default();
    writer.value(&Value::NoUnits);
    assert_eq!(writer.0, [0; 8]);
}

#[test]
fn hostile_lengths_are_refused() {
    let good = encode(1, ["a.b", "/p", "i.f", "M"], &["x".into()]);
    let start = |edit: &dyn Fn(&mut [u8; 16])| {
        let mut start: [u8; 16] = good[..16].try_into().unwrap();
        edit(&mut start);
        length(&start)
    };
    assert_eq!(start(&|s| s[4..8].fill(0xff)), None);
    assert_eq!(start(&|s| s[12..16].fill(0xff)), None);
    assert_eq!(start(&|s| s[0] = b'B'), None);
    // Every truncation and every changed byte of the header is an answer or a refusal, not a panic.
    for end in 0..good.len() {
        let _ = decode(&good[..end]);
    }
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] = 0xff;
        let _ = decode(&bytes).and_then(|message| message.strings());
    }
}

#[test]
fn addresses() {
    assert_eq!(
        parse_address("tcp:host=x;unix:path=/run%2fbus,guid=1").unwrap().path(),
        Some(std::path::Path::new("/run/bus"))
    );
    assert_eq!(parse_address("unix:abstract=/a").unwrap().as_abstract(), Some(b"/a".as_slice()));
    assert_eq!(parse_address("unix:path=/a%"), None);
    assert_eq!(parse_address("/run/bus"), None);
}

#[test]
fn a_bus_that_does_not_answer_or_hangs_up_is_an_error_in_time() {
    let scratch = crate::cgroup::files::tests::Scratch::new("bus");
    let path = scratch.0.join("bus");
    let listener = UnixListener::bind(&path).unwrap();
    let address = format!("unix:path={}", path.display());
    let start = Instant::now();
    let error = Bus::connect(&address, Duration::from_millis(200)).err().unwrap().to_string();
    assert!(error.contains("did not answer"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
    let silent = listener.accept().unwrap();
    let end = std::thread::spawn(move || drop(listener.accept()));
    assert!(Bus::connect(&address, Duration::from_secs(60)).is_err());
    end.join().unwrap();
    drop(silent);
}

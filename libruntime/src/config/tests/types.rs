//! Text that does not fit the types: where, what was found, what is allowed.

use super::{changed, check};
use crate::config::Config;

fn error(text: &str) -> String {
    Config::parse(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn broken_json_is_named_with_line_and_column() {
    assert_eq!(
        error("{\n  \"a\": 1,\n  x\n}"),
        "config.json is not JSON: key must be a string at line 3 column 3"
    );
    assert_eq!(error(""), "config.json is not JSON: EOF while parsing a value at line 1 column 0");
    assert_eq!(error("{\"a\":[1,2"), "config.json is not JSON: EOF while parsing a list at line 1 column 9");
    assert_eq!(error("{} x"), "config.json is not JSON: trailing characters at line 1 column 4");
    assert!(error("\u{feff}{}").contains("line 1 column 1"));
    // What is unknown is skipped, however deep; what is known has a limit.
    assert!(error(&"{\"a\":".repeat(100_000)).contains("EOF"));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    check(&format!("x = {}", "[]"), "");
    let text = changed("x = 1").replace("\"x\":1", &format!("\"x\":{deep}"));
    assert!(Config::parse(text.as_bytes()).is_ok());
    let wrong = text.replace("\"cwd\":\"/\"", "\"cwd\":7");
    assert!(
        error(&wrong).starts_with("config.json: invalid type: integer `7`, expected path string at line 1")
    );
    assert!(error(&deep).contains("config.json: invalid type: sequence, expected struct Spec at line 1"));
    let bytes = b"{\"ociVersion\":\"\xff\"}";
    assert!(Config::parse(bytes).unwrap_err().to_string().contains("line 1 column"));
}

#[test]
fn a_config_is_an_object() {
    assert_eq!(error("[]"), "invalid config: config.json: is a list; expected an object");
    assert_eq!(error("7"), "invalid config: config.json: is 7; expected an object");
    assert_eq!(error("null"), "invalid config: config.json: is null; expected an object");
}

#[test]
fn every_wrong_type_is_found_with_its_place() {
    check(
        "process.user.uid = \"x\"
         process.cwd = 7
         process.args = [\"a\",1,\"b\",2,3]
         mounts = [{\"destination\":\"/a\",\"type\":\"tmpfs\"},{\"destination\":\"/b\",\"options\":\"ro\"},7,{\"type\":\"x\"}]
         linux.namespaces[2].type = \"net\"
         linux.resources = {\"memory\":{\"limit\":1.5}}
         annotations = {\"a\":1}
         hooks = []",
        "annotations.a: is 1; expected a string
         hooks: is a list; expected an object
         linux.namespaces[2].type: unknown value \"net\"
         linux.resources.memory.limit: is 1.5; expected a whole number from -9223372036854775808
         mounts[1].options: is a string; expected a list
         mounts[2]: is 7; expected an object
         mounts[3].destination: missing, but required
         process.args[1]: is 1; expected a string
         process.args[3]: is 2; expected a string
         process.args[4]: is 3; expected a string
         process.cwd: is 7; expected a string
         process.user.uid: is a string; expected a whole number from 0 to 4294967295",
    );
}

#[test]
fn a_list_is_no_object_and_an_object_no_name() {
    for place in
        ["root", "process", "process.user", "process.capabilities", "linux", "linux.resources", "hooks"]
    {
        for list in ["[]", "[\"a\"]", "[null]"] {
            check(&format!("{place} = {list}"), &format!("{place}: is a list; expected an object"));
        }
    }
    check("mounts = [[\"/a\"]]", "mounts[0]: is a list; expected an object");
    check(
        "linux.namespaces = [{\"type\":{\"pid\":null}}]",
        "linux.namespaces[0].type: is an object; expected a string",
    );
}

#[test]
fn the_hint_has_the_allowed_values() {
    let text = error(&changed("linux.namespaces[2].type = \"net\""));
    let hint = "hint: linux.namespaces[2].type: one of mount, cgroup, uts, ipc, user, pid, network, time";
    let words = "namespace {\"net\" \"\"} does not exist: ";
    let problem = "invalid config: linux.namespaces[2].type: unknown value \"net\"";
    assert!(text.starts_with(&format!("{words}{problem}")), "{text}");
    assert!(text.ends_with(hint), "{text}");
    let text = error(&changed(r#"process.scheduler = {"policy":"SCHED_OTHER","flags":["X"]}"#));
    assert!(text.contains("SCHED_FLAG_DL_OVERRUN") && !text.contains("D_L"), "{text}");
}

#[test]
fn a_property_given_twice_is_refused() {
    let text = changed("").replacen("{", "{\"ociVersion\":\"1.0.0\",", 1);
    assert!(error(&text).starts_with("invalid config: ociVersion: is given twice, at line 1 column "));
    let text = changed("").replace("\"cwd\":\"/\"", "\"cwd\":\"/\",\"cwd\":\"/tmp\"");
    assert!(error(&text).starts_with("invalid config: cwd: is given twice, at line 1 column "));
}

/// A config of many megabytes is either read or refused in a time that fits its size.
#[test]
fn big_configs_take_no_quadratic_time() {
    let start = std::time::Instant::now();
    let many =
        |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(",");
    let devices = many(30_000, &|i| format!("{{\"path\":\"/dev/{i}\",\"type\":\"p\"}}"));
    let network = many(30_000, &|i| format!("\"eth{i}\":{{\"name\":\"net{i}\"}}"));
    let pages = many(30_000, &|i| format!("{{\"pageSize\":\"{}MB\",\"limit\":1}}", i + 1));
    check(
        &format!(
            "linux.devices = [{devices}]\nlinux.netDevices = {{{network}}}
             linux.resources = {{\"hugepageLimits\":[{pages}]}}"
        ),
        "",
    );
    let wrong = many(100_000, &|i| i.to_string());
    assert!(
        error(&changed(&format!("process.args = [{wrong}]")))
            .contains("process.args[0]: is 0; expected a string")
    );
    let huge = changed(&format!("process.args = [{:?},7]", "x".repeat(17 << 20)));
    assert!(error(&huge).starts_with("config.json: invalid type: integer `7`, expected a string at line 1"));
    assert!(start.elapsed().as_secs() < 20);
}

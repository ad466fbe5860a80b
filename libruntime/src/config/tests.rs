//! What is accepted, refused and warned about, as tables: a change to a minimal config, and every finding
//! that it must give. One function touches the API; the cases do not.

mod corpus;
mod fuzz;
mod linux;
mod load;
mod process;
mod properties;
mod resources;
mod top;
mod types;

use super::Config;
use crate::error::Diagnostic;
use serde_json::{Value, json};
use std::path::PathBuf;

fn minimal() -> Value {
    json!({
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/"},
        "linux": {"namespaces": [
            {"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "ipc"}, {"type": "network"},
            {"type": "cgroup"}, {"type": "time"}
        ]}
    })
}

/// `change` is lines of `path = JSON`, or `path` alone to remove a property. `expect` is lines of
/// `place: part of the text`, with `warning ` before those that are no problem; none means accepted.
fn check(change: &str, expect: &str) {
    let text = changed(change);
    compare(change, &findings(&text), expect);
}

fn changed(change: &str) -> String {
    let mut config = minimal();
    for line in change.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.split_once(" = ") {
            Some((path, value)) => {
                let value = serde_json::from_str(value).unwrap_or_else(|e| panic!("{line}: {e}"));
                *place(&mut config, path) = value;
            }
            None => remove(&mut config, line),
        }
    }
    config.to_string()
}

fn place<'v>(mut value: &'v mut Value, path: &str) -> &'v mut Value {
    for part in path.split('.') {
        let (key, indices) = part.split_once('[').map_or((part, ""), |(key, rest)| (key, rest));
        value = &mut value[key];
        for index in indices.split_terminator(']') {
            value = &mut value[index.trim_start_matches('[').parse::<usize>().unwrap()];
        }
    }
    value
}

fn remove(config: &mut Value, path: &str) {
    let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
    let parent = if parent.is_empty() { config } else { place(config, parent) };
    parent.as_object_mut().unwrap().remove(key).unwrap_or_else(|| panic!("no {path} to remove"));
}

/// Problems, or the warnings of a config that is accepted.
/// Sorted: whether serde_json keeps the order of a file is another crate's choice.
fn findings(text: &str) -> Vec<String> {
    let mut found: Vec<String> = match Config::parse(text.as_bytes()) {
        Ok(config) => config.warnings.iter().map(|finding| format!("warning {finding}")).collect(),
        Err(error) if error.diagnostics().is_empty() => vec![error.to_string()],
        Err(error) => error.diagnostics().iter().map(Diagnostic::to_string).collect(),
    };
    found.sort();
    found
}

fn compare(case: &str, found: &[String], expect: &str) {
    let mut expect: Vec<&str> = expect.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    expect.sort_unstable();
    let all = found.len() == expect.len()
        && found.iter().zip(&expect).all(|(found, expect)| match expect.split_once(": ") {
            Some((place, part)) => {
                found.strip_prefix(place).is_some_and(|text| text.starts_with(": ") && text.contains(part))
            }
            None => panic!("{expect:?} has no place"),
        });
    assert!(all, "{case}\n  found:  {found:#?}\n  expect: {expect:#?}");
}

#[test]
fn the_minimal_config_is_accepted() {
    check("", "");
}

#[test]
fn a_check_that_expects_the_wrong_thing_fails() {
    for (change, expect) in
        [("", "root: x"), ("root", ""), ("root", "process: missing"), ("root", "root: zz")]
    {
        assert!(std::panic::catch_unwind(|| check(change, expect)).is_err(), "{change} / {expect}");
    }
}

/// Configs and process objects that engines wrote, by a part of the file's name.
fn corpus_files(kind: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../conformance/corpus"));
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().contains(kind))
        .collect();
    files.sort();
    files
}

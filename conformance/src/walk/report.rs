//! What a container's program finds, in a form that is the same for every run: without numbers that the
//! kernel gives out. A run with a fault that ends with 0 has to find what a run without one finds.

use serde_json::{Map, Value};

/// Members that say when or as which number something was made.
const PASSING: &[&str] = &["pid", "ppid", "sid", "pgid", "keyring", "boottime", "monotonic", "ns"];

/// The report without what differs from run to run. `own` are the namespaces of the suite: a namespace is
/// the host's, or another one.
pub fn steady(mut report: Value, own: &Value) -> Value {
    let namespaces: Map<String, Value> = report["ns"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(kind, link)| (kind.clone(), Value::Bool(*link == own[kind])))
        .collect();
    if let Some(members) = report.as_object_mut() {
        members.retain(|name, _| !PASSING.contains(&name.as_str()));
        members.insert("host's namespaces".into(), namespaces.into());
    }
    if let Some(mounts) = report["mounts"].as_array_mut() {
        for line in mounts {
            *line = mount(line.as_str().unwrap_or_default()).into();
        }
    }
    if let Some(open) = report["fds"].as_object_mut() {
        for target in open.values_mut() {
            // Outputs are unlinked files with names of their own.
            let text = target.as_str().unwrap_or_default();
            *target = text.split("/.st").next().unwrap_or_default().into();
        }
    }
    report
}

/// A line of mountinfo without ids and the number of the superblock.
fn mount(line: &str) -> String {
    let mut fields: Vec<&str> = line.split(' ').skip(3).collect();
    fields.retain(|field| !["shared:", "master:"].iter().any(|tag| field.starts_with(tag)));
    fields.join(" ")
}

/// What differs, for a message.
pub fn differences(wanted: &Value, found: &Value) -> Vec<String> {
    let mut all = Vec::new();
    compare("", wanted, found, &mut all);
    all
}

fn compare(place: &str, wanted: &Value, found: &Value, all: &mut Vec<String>) {
    match (wanted, found) {
        (Value::Object(left), Value::Object(right)) => {
            let names = left.keys().chain(right.keys().filter(|name| !left.contains_key(*name)));
            for name in names {
                compare(&format!("{place}/{name}"), &wanted[name], &found[name], all);
            }
        }
        (Value::Array(left), Value::Array(right)) => {
            let missing =
                left.iter().filter(|item| !right.contains(item)).map(|item| format!("{place}: no {item}"));
            let more =
                right.iter().filter(|item| !left.contains(item)).map(|item| format!("{place}: has {item}"));
            all.extend(missing.chain(more));
        }
        _ if wanted != found => all.push(format!("{place}: {found}, not {wanted}")),
        _ => {}
    }
}

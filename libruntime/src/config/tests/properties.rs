//! Invariant "nothing ignored", its first half: every property of the spec arrives in the typed
//! configuration. `data/properties.txt` is the list, `data/full.json` a config that uses all of it but the
//! few that exclude each other.

use crate::config::Config;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const LIST: &str = include_str!("../../../tests/data/properties.txt");
const FULL: &str = include_str!("../../../tests/data/full.json");

/// Objects whose keys are names that the user chooses.
const MAPS: [&str; 6] = [
    "annotations",
    "linux.timeOffsets",
    "linux.netDevices",
    "linux.resources.rdma",
    "linux.resources.unified",
    "linux.sysctl",
];
const SECTIONS: [&str; 4] = ["solaris", "windows", "vm", "zos"];

fn rows() -> Vec<(&'static str, &'static str)> {
    let lines = LIST.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split_once(' ').map(|(path, what)| (path, what.trim())).unwrap()).collect()
}

fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        _ if SECTIONS.contains(&path) => drop(found.insert(path.to_owned())),
        Value::Object(map) => {
            for (key, value) in map {
                let key = if MAPS.contains(&path) { "*" } else { key };
                leaves(value, &if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }, found);
            }
        }
        Value::Array(list) if list.is_empty() => drop(found.insert(format!("{path}[]"))),
        Value::Array(list) => list.iter().for_each(|value| leaves(value, &format!("{path}[]"), found)),
        _ => drop(found.insert(path.to_owned())),
    }
}

/// All values at a path of the list; list elements in any order.
fn values(value: &Value, path: &str) -> Vec<Value> {
    let steps = path.replace("[]", ".[]");
    let mut found = vec![value.clone()];
    for step in steps.split('.').filter(|step| !step.is_empty()) {
        found = found
            .iter()
            .flat_map(|value| match (step, value) {
                ("[]", Value::Array(list)) => list.clone(),
                ("*", Value::Object(map)) => map.values().cloned().collect(),
                (key, value) => value.get(key).cloned().into_iter().collect(),
            })
            .collect();
    }
    found.sort_by_key(Value::to_string);
    found
}

/// The full config, and a second one for the priority that SCHED_DEADLINE has no use for.
fn configs() -> [Value; 2] {
    let full: Value = serde_json::from_str(FULL).unwrap();
    let mut other = full.clone();
    other["process"]["scheduler"] = json!({"policy": "SCHED_RR", "priority": 17});
    [full, other]
}

#[test]
fn the_list_and_the_full_config_have_the_same_properties() {
    let mut used = BTreeSet::new();
    configs().iter().for_each(|config| leaves(config, "", &mut used));
    let listed: BTreeSet<String> = rows().iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(listed.len(), rows().len(), "a property is listed twice");
    assert_eq!(used, listed);
}

#[test]
fn every_row_says_what_becomes_of_the_property() {
    for (path, what) in rows() {
        assert!(["applied", "refused", "warned"].contains(&what), "{path}: {what}");
    }
}

#[test]
fn every_property_survives_types_and_text() {
    for config in configs() {
        let parsed = Config::parse(config.to_string().as_bytes()).unwrap();
        let typed = serde_json::to_value(&parsed.spec).unwrap();
        let again = Config::parse(typed.to_string().as_bytes()).unwrap();
        assert_eq!(again.spec, parsed.spec);
        for (path, _) in rows().iter().filter(|(_, what)| what.starts_with("applied")) {
            // The types add numbers to devices that have none.
            let kept = values(&typed, path);
            assert!(values(&config, path).iter().all(|value| kept.contains(value)), "{path}: {kept:?}");
        }
    }
}

/// Each property alone: the typed configuration differs when it is taken out.
#[test]
fn no_property_is_dropped_by_the_types() {
    let [full, other] = configs();
    for (path, what) in rows().into_iter().filter(|(_, what)| what.starts_with("applied")) {
        let from = if values(&full, path).is_empty() { &other } else { &full };
        let mut without = from.clone();
        assert!(take_out(&mut without, &path.replace("[]", ".[]")), "{path} ({what}) is in no config");
        let whole = Config::parse(from.to_string().as_bytes()).unwrap().spec;
        if let Ok(parsed) = Config::parse(without.to_string().as_bytes()) {
            assert_ne!(parsed.spec, whole, "{path}");
        }
    }
}

fn take_out(value: &mut Value, path: &str) -> bool {
    let (step, rest) = path.split_once('.').unwrap_or((path, ""));
    match (step, value) {
        ("[]", Value::Array(list)) if rest.is_empty() => !std::mem::take(list).is_empty(),
        ("[]", Value::Array(list)) => list.iter_mut().fold(false, |any, value| take_out(value, rest) | any),
        ("*", Value::Object(map)) if rest.is_empty() => !std::mem::take(map).is_empty(),
        ("*", Value::Object(map)) => map.values_mut().fold(false, |any, value| take_out(value, rest) | any),
        (key, Value::Object(map)) if rest.is_empty() => map.remove(key).is_some(),
        (key, Value::Object(map)) => map.get_mut(key).is_some_and(|value| take_out(value, rest)),
        _ => false,
    }
}

#[test]
fn warned_properties_are_warned_about_and_refused_ones_refused() {
    let [full, _] = configs();
    let warnings = Config::parse(full.to_string().as_bytes()).unwrap().warnings;
    let warned: BTreeSet<&str> = warnings.iter().map(|finding| finding.config_path.as_str()).collect();
    let listed = rows().into_iter().filter(|(_, what)| *what == "warned").map(|(path, _)| path).collect();
    assert_eq!(warned, listed);
    for (path, _) in rows().iter().filter(|(_, what)| *what == "refused") {
        assert_eq!(*path, "linux.personality.flags[]", "a row without a case here");
        let mut config = full.clone();
        config["linux"]["personality"]["flags"] = json!(["ADDR_NO_RANDOMIZE"]);
        let error = Config::parse(config.to_string().as_bytes()).unwrap_err();
        assert_eq!(error.diagnostics()[0].config_path, "linux.personality.flags[0]");
    }
}

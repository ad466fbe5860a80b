//! What an update means for a container that already has limits.
//!
//! Pure. Some properties are halves of one setting: `memory.swap` counts memory too, and a CPU quota is a part of a
//! period. `apply.rs` writes the result of [`completed`], and the container's configuration gets that of [`merged`].
//! Must not restore a limit that the update does not name: others may have changed it meanwhile (`systemctl
//! set-property`, an engine that writes to the cgroup itself).

use crate::error::{Error, Result};
use oci_spec::runtime::{LinuxMemory, LinuxResources};
use serde_json::{Map, Value};

/// Properties for which Go's programs write 0 when nothing was set.
const ZERO_IS_ABSENT: &[(&str, &[&str])] = &[
    ("memory", &["limit", "swap", "reservation", "kernel", "kernelTCP"]),
    ("cpu", &["shares", "quota", "period", "realtimeRuntime", "realtimePeriod"]),
    ("blockIO", &["weight", "leafWeight"]),
];

/// The limits after the update.
pub(crate) fn merged(before: &LinuxResources, change: &LinuxResources) -> Result<LinuxResources> {
    let mut change = clean(change)?;
    // Memory without a limit, under an old limit of memory and swap, would still be limited.
    if let Some(Value::Object(memory)) = change.get_mut("memory")
        && memory.get("limit") == Some(&(-1).into())
        && !memory.contains_key("swap")
    {
        memory.insert("swap".into(), (-1).into());
    }
    let mut merged = clean(before)?;
    add(&mut merged, change);
    serde_json::from_value(merged.into()).map_err(failed)
}

/// The update, completed by the other half of each setting that it has one half of. `with_bandwidth` is for systemd,
/// which keeps a CPU quota as a part of a second.
pub(super) fn completed(
    before: &LinuxResources,
    change: &LinuxResources,
    v2: bool,
    with_bandwidth: bool,
) -> Result<LinuxResources> {
    let after = merged(before, change)?;
    let mut completed = change.clone();
    // On v1 memory and swap together have a file of their own, with the same meaning as in the configuration.
    if let (true, Some(memory), Some(whole)) = (v2, change.memory(), after.memory())
        && (is_set(memory.limit()) || is_set(memory.swap()))
    {
        let mut memory: LinuxMemory = *memory;
        memory.set_limit(whole.limit()).set_swap(whole.swap());
        completed.set_memory(Some(memory));
    }
    // An idle cgroup has no weight; making it idle has lost the old one.
    if let (Some(cpu), Some(whole)) = (change.cpu(), after.cpu())
        && cpu.idle() == Some(0)
    {
        let mut cpu = cpu.clone();
        cpu.set_shares(whole.shares());
        completed.set_cpu(Some(cpu));
    }
    if let (true, Some(cpu), Some(whole)) = (with_bandwidth, completed.cpu(), after.cpu())
        && (is_set(cpu.quota()) || cpu.period().is_some_and(|period| period != 0))
    {
        let mut cpu = cpu.clone();
        cpu.set_quota(whole.quota()).set_period(whole.period());
        completed.set_cpu(Some(cpu));
    }
    Ok(completed)
}

fn is_set(value: Option<i64>) -> bool {
    value.is_some_and(|value| value != 0)
}

fn failed(error: serde_json::Error) -> Error {
    Error::external(format!("cannot encode the limits: {error}"))
}

/// As JSON, without properties that set nothing.
fn clean(resources: &LinuxResources) -> Result<Map<String, Value>> {
    let Value::Object(mut object) = serde_json::to_value(resources).map_err(failed)? else {
        return Ok(Map::new());
    };
    for (section, names) in ZERO_IS_ABSENT {
        if let Some(Value::Object(section)) = object.get_mut(*section) {
            section.retain(|name, value| !(names.contains(&name.as_str()) && *value == 0));
        }
    }
    Ok(object)
}

fn add(old: &mut Map<String, Value>, new: Map<String, Value>) {
    for (name, value) in new {
        match (old.get_mut(&name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => add(old, new),
            // Device rules are replaced as a whole, because each depends on those before it.
            (Some(Value::Array(old)), Value::Array(new)) if name != "devices" => add_entries(old, new),
            (_, value) => drop(old.insert(name, value)),
        }
    }
}

/// Adds entries; each replaces one for the same device, page size or interface.
fn add_entries(old: &mut Vec<Value>, new: Vec<Value>) {
    let key = |entry: &Value| ["major", "minor", "pageSize", "name"].map(|name| entry.get(name).cloned());
    for entry in new {
        match old.iter_mut().find(|other| key(other) == key(&entry)) {
            Some(same) => *same = entry,
            None => old.push(entry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(json: &str) -> LinuxResources {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_an_update_does_not_name_stays() {
        let before = r#"{"memory":{"limit":100,"swap":200,"swappiness":0},"cpu":{"shares":5,"idle":0},
            "devices":[{"allow":false,"access":"rwm"}],"unified":{"memory.high":"50"},
            "hugepageLimits":[{"pageSize":"2MB","limit":1},{"pageSize":"1GB","limit":2}],
            "blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}]}}"#;
        let change = r#"{"memory":{"limit":0,"swap":300},"cpu":{"shares":0,"quota":7},"devices":[],
            "unified":{"memory.low":"9"},"hugepageLimits":[{"pageSize":"2MB","limit":0}],
            "blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":16,"rate":5}]}}"#;
        let expected = r#"{"memory":{"limit":100,"swap":300,"swappiness":0},
            "cpu":{"shares":5,"idle":0,"quota":7},"devices":[],
            "unified":{"memory.high":"50","memory.low":"9"},
            "hugepageLimits":[{"pageSize":"2MB","limit":0},{"pageSize":"1GB","limit":2}],
            "blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1},{"major":8,"minor":16,"rate":5}]}}"#;
        assert_eq!(merged(&resources(before), &resources(change)).unwrap(), resources(expected));
    }

    /// What runc 1.3.6 was seen to write to memory.max and memory.swap.max, one update after the other.
    #[test]
    fn memory_and_swap_are_halves_as_runc_has_them() {
        let mut now = resources("{}");
        for (change, limit, swap) in [
            (r#"{"limit":100}"#, Some(100), None),
            (r#"{"swap":200}"#, Some(100), Some(100)),
            (r#"{"limit":150}"#, Some(150), Some(50)),
            (r#"{"limit":-1}"#, Some(-1), Some(-1)),
            (r#"{"limit":300,"swap":300}"#, Some(300), Some(0)),
            (r#"{"limit":300,"swap":-1}"#, Some(300), Some(-1)),
            (r#"{"swap":500}"#, Some(300), Some(200)),
            (r#"{"limit":50}"#, Some(50), Some(450)),
        ] {
            let change = resources(&format!(r#"{{"memory":{change}}}"#));
            let completed = completed(&now, &change, true, false).unwrap();
            let memory = completed.memory().unwrap();
            assert_eq!(
                (memory.limit(), crate::cgroup::v2::swap_max(&memory).unwrap()),
                (limit, swap),
                "{change:?}"
            );
            now = merged(&now, &change).unwrap();
        }
        let too_small = resources(r#"{"memory":{"limit":400,"swap":300}}"#);
        let completed = completed(&now, &too_small, true, false).unwrap();
        assert!(crate::cgroup::v2::swap_max(&completed.memory().unwrap()).is_err());
    }

    #[test]
    fn only_systemd_needs_both_halves_of_a_bandwidth() {
        let before = resources(r#"{"cpu":{"quota":5000,"period":50000,"shares":9}}"#);
        let change = resources(r#"{"cpu":{"quota":9000}}"#);
        assert_eq!(completed(&before, &change, true, false).unwrap(), change);
        let both = resources(r#"{"cpu":{"quota":9000,"period":50000}}"#);
        assert_eq!(completed(&before, &change, true, true).unwrap(), both);
        let awake = resources(r#"{"cpu":{"idle":0}}"#);
        let weighted = resources(r#"{"cpu":{"idle":0,"shares":9}}"#);
        assert_eq!(completed(&before, &awake, true, false).unwrap(), weighted);
        let other = resources(r#"{"pids":{"limit":3}}"#);
        assert_eq!(completed(&before, &other, true, true).unwrap(), other);
    }
}

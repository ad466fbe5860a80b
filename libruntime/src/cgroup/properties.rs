//! Limits and annotations as properties of a systemd unit. Pure; `systemd.rs` sends them.
//!
//! A limit that systemd has no property for is not here: its file is written by `apply.rs` alone.

use super::dbus::Value;
use super::devices::Policy;
use super::v2::{io_weight, swap_max, weight_of_shares};
use crate::error::{Diagnostic, Error, Result};
use oci_spec::runtime::{LinuxCpu, LinuxDeviceCgroup, LinuxMemory, LinuxResources};
use std::collections::HashMap;

/// How systemd says that there is no limit.
const INFINITY: u64 = u64::MAX;
const ANNOTATION: &str = "org.systemd.property.";

/// The properties that an annotation may set. The author of annotations (of an image or a pod) is not the host's
/// administrator, so none of the properties runs, starts or stops anything else (CVE-2024-3154), opens a file, takes
/// memory or CPU time from others (`MemoryMin`, `CPUWeight`) or keeps a process from being killed (`KillMode`,
/// `SendSIGKILL`). The container's limits are in `linux.resources`.
const ANNOTATED: [&str; 14] = [
    "After",
    "Before",
    "CollectMode",
    "DefaultDependencies",
    "Description",
    "KillSignal",
    "ManagedOOMMemoryPressure",
    "ManagedOOMSwap",
    "MemoryHigh",
    "OOMPolicy",
    "RestartKillSignal",
    "RuntimeMaxUSec",
    "SendSIGHUP",
    "TimeoutStopUSec",
];

/// Accounting, which makes systemd enable the controllers, and gives figures to `systemctl status`.
pub(super) fn accounting(v2: bool) -> &'static [&'static str] {
    match v2 {
        true => &["MemoryAccounting", "IOAccounting", "TasksAccounting"],
        false => &["MemoryAccounting", "CPUAccounting", "BlockIOAccounting", "TasksAccounting"],
    }
}

/// On v1 systemd writes a list of devices of its own, and without these properties would allow all devices at its next
/// reload. On v2 nothing is needed, because an access has to pass both its program and the library's.
pub(super) fn devices(rules: &[LinuxDeviceCgroup]) -> Result<Vec<(String, Value)>> {
    let (policy, list) = match Policy::new(rules)?.device_allow()? {
        Some(list) => ("strict", list),
        None => ("auto", Vec::new()),
    };
    // An empty list first removes the entries from before.
    let lists = [Vec::new(), list].map(|list| ("DeviceAllow".to_owned(), Value::Pairs(list)));
    Ok(std::iter::once(("DevicePolicy".to_owned(), policy.into())).chain(lists).collect())
}

/// The properties that undo an update: those of the limits before it, and systemd's default where there was no limit.
pub(super) fn undo(
    changed: &[(String, Value)],
    before: &LinuxResources,
    v2: bool,
) -> Result<Vec<(String, Value)>> {
    let old = limits(before, v2)?;
    let value = |name: &str| match old.iter().find(|(known, _)| known == name) {
        Some((_, value)) => value.clone(),
        None if name.starts_with("Allowed") => Value::Bytes(Vec::new()),
        None if name == "MemoryLow" || name == "MemoryMin" => Value::U64(0),
        None => Value::U64(INFINITY),
    };
    Ok(changed.iter().map(|(name, _)| (name.clone(), value(name))).collect())
}

/// `linux.resources`, as far as systemd has properties for it.
pub(super) fn limits(resources: &LinuxResources, v2: bool) -> Result<Vec<(String, Value)>> {
    let mut list = Vec::new();
    if let Some(memory) = resources.memory() {
        self::memory(memory, v2, &mut list)?;
    }
    if let Some(cpu) = resources.cpu() {
        self::cpu(cpu, v2, &mut list)?;
    }
    if let Some(pids) = resources.pids() {
        let limit = match pids.limit() {
            ..0 => INFINITY,
            // systemd cannot express a limit of no tasks.
            limit => limit.max(1) as u64,
        };
        list.push(("TasksMax", Value::U64(limit)));
    }
    let weight = resources.block_io().as_ref().and_then(|block| block.weight()).filter(|&weight| weight != 0);
    list.extend(weight.map(|weight| match v2 {
        true => ("IOWeight", Value::U64(io_weight(weight))),
        false => ("BlockIOWeight", Value::U64(weight.into())),
    }));
    for (key, value) in resources.unified().iter().flatten().filter(|_| v2) {
        list.extend(unified(key, value));
    }
    Ok(list.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

type List = Vec<(&'static str, Value)>;

fn memory(memory: &LinuxMemory, v2: bool, list: &mut List) -> Result<()> {
    let bytes = |value: i64| Value::U64(u64::try_from(value).unwrap_or(INFINITY));
    let limit = memory.limit().filter(|&value| value != 0);
    list.extend(limit.map(|value| (if v2 { "MemoryMax" } else { "MemoryLimit" }, bytes(value))));
    if v2 {
        let reservation = memory.reservation().filter(|&value| value != 0);
        list.extend(reservation.map(|value| ("MemoryLow", bytes(value))));
        list.extend(swap_max(memory)?.map(|value| ("MemorySwapMax", bytes(value))));
    }
    Ok(())
}

fn cpu(cpu: &LinuxCpu, v2: bool, list: &mut List) -> Result<()> {
    let shares = cpu.shares().filter(|&shares| shares != 0);
    list.extend(match (v2, cpu.idle(), shares) {
        // 0 makes a cgroup idle in systemd.
        (true, Some(1), _) => Some(("CPUWeight", Value::U64(0))),
        (true, Some(_), None) => Some(("CPUWeight", Value::U64(INFINITY))),
        (true, _, Some(shares)) => Some(("CPUWeight", Value::U64(weight_of_shares(shares)))),
        (false, _, Some(shares)) => Some(("CPUShares", Value::U64(shares.clamp(2, 262_144)))),
        _ => None,
    });
    let period = cpu.period().filter(|&period| period != 0);
    list.extend(period.map(|period| ("CPUQuotaPeriodUSec", Value::U64(period))));
    if let Some(quota) = cpu.quota().filter(|&quota| quota != 0) {
        list.push(("CPUQuotaPerSecUSec", Value::U64(quota_per_second(quota, period.unwrap_or(100_000)))));
    }
    if v2 {
        let sets = [("AllowedCPUs", cpu.cpus(), "cpus"), ("AllowedMemoryNodes", cpu.mems(), "mems")];
        for (name, text, field) in sets {
            if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
                let bits = bit_set(text).ok_or_else(|| {
                    let at = format!("linux.resources.cpu.{field}");
                    Error::invalid(vec![Diagnostic::new(at, format!("{text:?} is not a list like 0-2,5"))])
                })?;
                list.push((name, Value::Bytes(bits)));
            }
        }
    }
    Ok(())
}

/// systemd keeps hundredths of a CPU. Rounded up, so that a small quota does not become none.
fn quota_per_second(quota: i64, period: u64) -> u64 {
    match u64::try_from(quota) {
        Ok(quota) => (u128::from(quota) * 1_000_000 / u128::from(period)).next_multiple_of(10_000) as u64,
        Err(_) => INFINITY,
    }
}

/// The properties for a file of `linux.resources.unified`. Values that the file does not accept are left to the kernel
/// to refuse.
fn unified(key: &str, value: &str) -> List {
    let value = value.trim();
    let name = match key {
        "memory.max" => "MemoryMax",
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        "cpu.weight" => "CPUWeight",
        "cpu.idle" if value == "1" => return vec![("CPUWeight", Value::U64(0))],
        "cpu.max" => return bandwidth(value).unwrap_or_default(),
        "cpuset.cpus" | "cpuset.mems" => {
            let name = if key == "cpuset.cpus" { "AllowedCPUs" } else { "AllowedMemoryNodes" };
            return bit_set(value).map(|bits| (name, Value::Bytes(bits))).into_iter().collect();
        }
        "io.weight" => {
            let weight = value.strip_prefix("default").unwrap_or(value).trim().parse();
            return weight.map(|weight| ("IOWeight", Value::U64(weight))).into_iter().collect();
        }
        _ => return Vec::new(),
    };
    let number = if value == "max" { Some(INFINITY) } else { value.parse().ok() };
    number.map(|number| (name, Value::U64(number))).into_iter().collect()
}

/// `cpu.max`: a quota or `max`, and perhaps a period.
fn bandwidth(value: &str) -> Option<List> {
    let mut words = value.split_whitespace();
    let (quota, period) = (words.next()?, words.next());
    let quota: i64 = if quota == "max" { -1 } else { quota.parse().ok()? };
    let period: Option<u64> = period.map(str::parse).transpose().ok()?;
    let period = period.filter(|&period| period != 0);
    let mut list: List = Vec::new();
    list.extend(period.map(|period| ("CPUQuotaPeriodUSec", Value::U64(period))));
    list.push(("CPUQuotaPerSecUSec", Value::U64(quota_per_second(quota, period.unwrap_or(100_000)))));
    Some(list)
}

/// `0-2,5` as bytes of bits, the first CPU being the lowest bit of the first byte.
fn bit_set(text: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        // The kernel has at most 8192 CPUs; this bounds what a hostile list makes the library allocate.
        if first > last || last > 0xffff {
            return None;
        }
        for number in first..=last {
            if bits.len() <= number / 8 {
                bits.resize(number / 8 + 1, 0);
            }
            bits[number / 8] |= 1 << (number % 8);
        }
    }
    Some(bits)
}

/// `org.systemd.property.NAME` annotations. A property that is not on the list is an error.
pub(super) fn annotated(annotations: &HashMap<String, String>) -> Result<Vec<(String, Value)>> {
    let mut entries: Vec<_> =
        annotations.iter().filter_map(|(key, value)| Some((key.strip_prefix(ANNOTATION)?, value))).collect();
    entries.sort();
    let mut list = Vec::new();
    let mut findings = Vec::new();
    for (name, text) in entries {
        let at = format!("annotations.{ANNOTATION}{name}");
        // FooSec in seconds is FooUSec in microseconds, as in unit files.
        let seconds = name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U'));
        let real = seconds.map_or(name.to_owned(), |stem| format!("{stem}USec"));
        if !ANNOTATED.contains(&real.as_str()) {
            findings.push(Diagnostic::new(at, "this property cannot be set for a container"));
            continue;
        }
        let value = match seconds {
            Some(_) => microseconds(text),
            None => parse(text),
        };
        match value {
            Some(value) => list.push((real, value)),
            None => {
                findings.push(Diagnostic::new(at, format!("{text:?} is not a value in GVariant text format")))
            }
        }
    }
    if findings.is_empty() { Ok(list) } else { Err(Error::invalid(findings)) }
}

fn microseconds(text: &str) -> Option<Value> {
    let number = text.trim().rsplit(' ').next()?;
    let seconds: f64 = number.parse().ok()?;
    (seconds.is_finite() && seconds >= 0.0).then_some(Value::U64((seconds * 1e6) as u64))
}

/// The values that the properties above have, in GVariant text format: `true`, `5`, `uint64 5`, `@t 5`,
/// `'text'`, `['a', 'b']`.
fn parse(text: &str) -> Option<Value> {
    let text = text.trim();
    if text.starts_with('[') {
        return strings(text);
    }
    if let Some(text) = quoted(text) {
        return Some(Value::Str(text));
    }
    let Some((kind, value)) = text.split_once(' ') else {
        return text.parse().ok().map(Value::Bool).or(text.parse().ok().map(Value::I32));
    };
    let value = value.trim();
    match kind {
        "uint32" | "@u" => value.parse().ok().map(Value::U32),
        "uint64" | "@t" => value.parse().ok().map(Value::U64),
        "int32" | "@i" => value.parse().ok().map(Value::I32),
        "boolean" | "@b" => value.parse().ok().map(Value::Bool),
        "string" | "@s" => quoted(value).map(Value::Str),
        "@as" => strings(value),
        _ => None,
    }
}

fn strings(text: &str) -> Option<Value> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let parts = inner.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(quoted).collect::<Option<_>>().map(Value::Strs)
}

/// A text in quotes. A backslash may escape only the two quotes and itself here.
fn quoted(text: &str) -> Option<String> {
    let mark = text.chars().next().filter(|mark| "'\"".contains(*mark))?;
    let (mut found, mut rest) = (String::new(), text[1..].chars());
    loop {
        match rest.next()? {
            '\\' => found.push(rest.next().filter(|next| "'\"\\".contains(*next))?),
            end if end == mark => return rest.next().is_none().then_some(found),
            other => found.push(other),
        }
    }
}

//! Checks of `linux.resources`: what no kernel accepts. What this host's cgroup version lacks is found by `cgroup.rs`.
//! Values that engines send for "not set" (0, and -1 as an unsigned number) are accepted.

use super::devices::{MAX_MAJOR, MAX_MINOR};
use super::found::{Found, each, sorted};
use super::list::number_list;
use super::version::is_before;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxPids, LinuxResources,
};
use std::collections::HashMap;

const AT: &str = "linux.resources";

pub(crate) fn check(resources: &LinuxResources, found: &mut Found) {
    for (i, rule) in each(resources.devices()).iter().enumerate() {
        device_rule(rule, i, found);
    }
    if let Some(memory) = resources.memory() {
        self::memory(memory, found);
    }
    if let Some(cpu) = resources.cpu() {
        self::cpu(cpu, found);
    }
    if let Some(pids) = resources.pids().filter(|pids| pids.limit() < -1) {
        let text =
            format_args!("{} is less than -1, which means unlimited; it is read as that", pids.limit());
        found.warning(format_args!("{AT}.pids.limit"), text);
    }
    if let Some(io) = resources.block_io() {
        block_io(io, found);
    }
    hugepages(resources, found);
    named(resources, found);
}

/// Before 1.3 "no limit" was the default of `pids.limit`, and so 0 meant it; since then 0 is a limit. Every number below
/// -1 means no limit, as with runc and crun.
pub(crate) fn as_of(version: &str, resources: &mut LinuxResources) {
    let unlimited = |limit: i64| limit < -1 || limit == 0 && is_before(version, 3);
    if resources.pids().is_some_and(|pids| unlimited(pids.limit())) {
        let mut unlimited = LinuxPids::default();
        unlimited.set_limit(-1);
        resources.set_pids(Some(unlimited));
    }
}

/// As [`as_of`], of an update: there the 0 of before 1.3 was a limit that is not named, with runc and crun.
pub(crate) fn update_as_of(version: &str, resources: &mut LinuxResources) {
    if is_before(version, 3) && resources.pids().is_some_and(|pids| pids.limit() == 0) {
        resources.set_pids(None);
    }
    as_of(version, resources);
}

/// Rules about several properties at once; an update may name only one of them.
pub(crate) fn check_together(resources: &LinuxResources, found: &mut Found) {
    let Some(memory) = resources.memory() else { return };
    let limit = memory.limit().unwrap_or(0);
    // limit 0 is "not set"; swap counts memory and swap together.
    match memory.swap().unwrap_or(0) {
        swap if swap > 0 && limit == 0 => found.problem(
            format_args!("{AT}.memory.swap"),
            "needs a memory limit; it is the sum of memory and swap",
        ),
        // Without a memory limit it limits swap alone, as with the peers.
        swap if swap > 0 && swap < limit => {
            let text = format_args!(
                "{swap} is less than the memory limit, {limit}; it is the sum of memory and swap"
            );
            found.problem(format_args!("{AT}.memory.swap"), text)
        }
        _ => {}
    }
}

fn device_rule(rule: &LinuxDeviceCgroup, i: usize, found: &mut Found) {
    if matches!(rule.typ(), Some(LinuxDeviceType::U | LinuxDeviceType::P)) {
        found.problem(format_args!("{AT}.devices[{i}].type"), "is not one of a, b, c");
    }
    for (value, name, max) in [(rule.major(), "major", MAX_MAJOR), (rule.minor(), "minor", MAX_MINOR)] {
        // -1 is how engines write "any".
        if let Some(value) = value.filter(|value| !(-1..=max).contains(value)) {
            found.problem(
                format_args!("{AT}.devices[{i}].{name}"),
                format_args!("{value} is not from -1 to {max}"),
            );
        }
    }
    let access = rule.access().as_deref().unwrap_or_default();
    let twice = access.char_indices().any(|(i, c)| access[..i].contains(c));
    if access.is_empty() || twice || access.contains(|c| !"rwm".contains(c)) {
        let text = format_args!("{access:?} is not made of r, w and m, each at most once");
        found.problem(format_args!("{AT}.devices[{i}].access"), text);
    }
}

#[allow(deprecated)] // kernel memory limits are deprecated, and still properties
fn memory(memory: &LinuxMemory, found: &mut Found) {
    for (value, name) in [
        (memory.limit(), "limit"),
        (memory.reservation(), "reservation"),
        (memory.swap(), "swap"),
        (memory.kernel(), "kernel"),
        (memory.kernel_tcp(), "kernelTCP"),
    ] {
        if let Some(value) = value.filter(|value| *value < -1) {
            let text = format_args!("{value} is less than -1, which means unlimited");
            found.problem(format_args!("{AT}.memory.{name}"), text);
        }
    }
    if let Some(value) = memory.swappiness().filter(|value| *value > 100 && *value != u64::MAX) {
        found.problem(format_args!("{AT}.memory.swappiness"), format_args!("{value} is not from 0 to 100"));
    }
}

fn cpu(cpu: &LinuxCpu, found: &mut Found) {
    let at = |name| format!("{AT}.cpu.{name}");
    let quota = cpu.quota().unwrap_or(0);
    if quota < -1 || (1..1000).contains(&quota) {
        found.problem(at("quota"), format_args!("{quota} is neither -1 (unlimited) nor at least 1000 (µs)"));
    }
    if let Some(period) = cpu.period().filter(|period| *period != 0 && !(1000..=1_000_000).contains(period)) {
        found.problem(at("period"), format_args!("{period} is not from 1000 to 1000000 (µs)"));
    }
    if let Some(burst) = cpu.burst().filter(|burst| quota > 0 && *burst > quota as u64) {
        found.problem(at("burst"), format_args!("{burst} is more than the quota, {quota}"));
    }
    if let Some(idle) = cpu.idle().filter(|idle| !(0..=1).contains(idle)) {
        found.problem(at("idle"), format_args!("{idle} is neither 0 nor 1"));
    }
    // The kernel clamps other values; Kubernetes sends larger ones on big machines.
    if let Some(shares) = cpu.shares().filter(|shares| *shares == 1 || *shares > 262_144) {
        found.warning(
            at("shares"),
            format_args!("{shares} is not from 2 to 262144; the nearest of these is used"),
        );
    }
    let runtime = cpu.realtime_runtime().unwrap_or(0);
    if runtime < -1 {
        found
            .problem(at("realtimeRuntime"), format_args!("{runtime} is less than -1, which means unlimited"));
    }
    if let Some(period) =
        cpu.realtime_period().filter(|period| *period != 0 && runtime > 0 && *period < runtime as u64)
    {
        found.problem(at("realtimeRuntime"), format_args!("{runtime} is more than the period, {period}"));
    }
    for (list, name) in [(cpu.cpus(), "cpus"), (cpu.mems(), "mems")] {
        // An empty list is how engines say "not set".
        if let Some(Err(text)) =
            list.as_deref().map(str::trim).filter(|list| !list.is_empty()).map(number_list)
        {
            found.problem(at(name), text);
        }
    }
}

fn block_io(io: &LinuxBlockIo, found: &mut Found) {
    // Docker sends 0 for "not set".
    let weight = |value: Option<u16>, at: std::fmt::Arguments, found: &mut Found| {
        if let Some(value) = value.filter(|value| *value != 0 && !(10..=1000).contains(value)) {
            found.problem(at, format_args!("{value} is not from 10 to 1000"));
        }
    };
    weight(io.weight(), format_args!("{AT}.blockIO.weight"), found);
    weight(io.leaf_weight(), format_args!("{AT}.blockIO.leafWeight"), found);
    for (i, device) in each(io.weight_device()).iter().enumerate() {
        weight(device.weight(), format_args!("{AT}.blockIO.weightDevice[{i}].weight"), found);
        weight(device.leaf_weight(), format_args!("{AT}.blockIO.weightDevice[{i}].leafWeight"), found);
        block_device(device.major(), device.minor(), format_args!("{AT}.blockIO.weightDevice[{i}]"), found);
    }
    for (list, name) in [
        (io.throttle_read_bps_device(), "throttleReadBpsDevice"),
        (io.throttle_write_bps_device(), "throttleWriteBpsDevice"),
        (io.throttle_read_iops_device(), "throttleReadIOPSDevice"),
        (io.throttle_write_iops_device(), "throttleWriteIOPSDevice"),
    ] {
        for (i, device) in each(list).iter().enumerate() {
            block_device(device.major(), device.minor(), format_args!("{AT}.blockIO.{name}[{i}]"), found);
        }
    }
}

fn block_device(major: i64, minor: i64, at: std::fmt::Arguments, found: &mut Found) {
    for (value, name, max) in [(major, "major", MAX_MAJOR), (minor, "minor", MAX_MINOR)] {
        if !(0..=max).contains(&value) {
            found.problem(format_args!("{at}.{name}"), format_args!("{value} is not from 0 to {max}"));
        }
    }
}

/// The size is a part of a file's name: `hugetlb.2MB.max`.
fn hugepages(resources: &LinuxResources, found: &mut Found) {
    let limits = each(resources.hugepage_limits());
    let mut seen = HashMap::new();
    for (i, limit) in limits.iter().enumerate() {
        let size = limit.page_size();
        let digits = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit)).unwrap_or_default();
        if digits.is_empty() || digits.starts_with('0') || digits.contains(|c: char| !c.is_ascii_digit()) {
            let text = format_args!("{size:?} is not a size such as 64KB, 2MB or 1GB");
            found.problem(format_args!("{AT}.hugepageLimits[{i}].pageSize"), text);
        }
        if limit.limit() < 0 {
            found.problem(format_args!("{AT}.hugepageLimits[{i}].limit"), "is less than 0");
        }
        let first = *seen.entry(size).or_insert(i);
        if first != i {
            let text = format_args!("{size} is already in {AT}.hugepageLimits[{first}]");
            found.problem(format_args!("{AT}.hugepageLimits[{i}].pageSize"), text);
        }
    }
}

/// Names and values that become file names and lines of control files.
fn named(resources: &LinuxResources, found: &mut Found) {
    let one_word = |name: &str| !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '\0');
    let priorities = resources.network().as_ref().map_or(&[][..], |network| each(network.priorities()));
    for (i, priority) in priorities.iter().enumerate().filter(|(_, priority)| !one_word(priority.name())) {
        let text = format_args!("{:?} is not the name of an interface", priority.name());
        found.problem(format_args!("{AT}.network.priorities[{i}].name"), text);
    }
    for (name, _) in sorted(resources.rdma()).into_iter().filter(|(name, _)| !one_word(name)) {
        found.problem(format_args!("{AT}.rdma"), format_args!("{name:?} is not the name of a device"));
    }
    for (key, value) in sorted(resources.unified()) {
        if !one_word(key) || key.contains('/') || key.starts_with('.') || !key.contains('.') {
            let text = format_args!("{key:?} is not the name of a control file such as memory.high");
            found.problem(format_args!("{AT}.unified"), text);
        }
        found.text(value, format_args!("{AT}.unified.{key}"));
    }
}

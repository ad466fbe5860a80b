//! cgroup v2: the directory with its controllers, and `linux.resources` as the contents of v2's files.
//!
//! [`operations`] is pure. Files and their values are those of the kernel's
//! `Documentation/admin-guide/cgroup-v2.rst`. What v2 has no file for is refused by name. `apply.rs`
//! writes the values; `v1.rs` is its sibling.

use super::files;
use super::hierarchy::{Hierarchy, NewDirs, read_pids};
use super::v1::{RACES, cpuset, huge_pages, mkdir_error, pids_max, rdma};
use super::write::{Missing, Op, Undo, Value, Write};
use crate::error::{Diagnostic, Error, Result};
use nix::errno::Errno;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};
use std::collections::HashMap;
use std::path::Path;

/// Makes the directory, and enables in each cgroup on the way down to it every controller that the mount's root has. A
/// controller that cannot be enabled matters only when a limit needs it.
pub(super) fn create(hierarchy: &Hierarchy, made: &mut NewDirs) -> Result<()> {
    let path = hierarchy.mount.join("cgroup.controllers");
    let controllers = files::read(&path).map_err(|errno| {
        files::failed("read", &path, errno).with_hint("is the cgroup filesystem hidden here?")
    })?;
    let all: String = controllers.split_whitespace().map(|name| format!("+{name} ")).collect();
    let mut dirs: Vec<&Path> = hierarchy.dir.ancestors().take_while(|dir| *dir != hierarchy.mount).collect();
    dirs.push(&hierarchy.mount);
    let mut refused = false;
    let mut tries = 0;
    // Pairs of a cgroup and its child, from the root down. Starts again when a failing creation of another container
    // has removed an ancestor.
    let mut pairs = dirs.windows(2).rev();
    while let Some(pair) = pairs.next() {
        let (child, parent) = (pair[0], pair[1]);
        refused |= !all.is_empty() && !enable(parent, all.trim_end());
        match made.mkdir(child) {
            Ok(_) => {}
            Err(Errno::ENOENT) if tries < RACES => {
                tries += 1;
                refused = false;
                pairs = dirs.windows(2).rev();
            }
            Err(errno) => return Err(mkdir_error(child, errno)),
        }
    }
    // Only then can the type of the cgroup be other than "domain".
    if refused { check_type(&hierarchy.dir) } else { Ok(()) }
}

/// The controllers that threads of one process can be divided among.
const THREADED: [&str; 4] = ["+cpu", "+cpuset", "+perf_event", "+pids"];

/// Enables as many controllers as possible, and returns whether all are enabled. A cgroup with processes of its own
/// refuses most controllers, but accepts the four threaded ones and then turns its children into threaded cgroups, in
/// which no container can be. So none is enabled there.
fn enable(dir: &Path, all: &str) -> bool {
    let path = dir.join("cgroup.subtree_control");
    let harmless = all.split(' ').any(|one| !THREADED.contains(&one));
    if harmless || !has_own_processes(dir) {
        match files::write(&path, all) {
            Ok(()) => return true,
            // The cgroup belongs to somebody else, who has enabled what is delegated.
            Err(Errno::EACCES | Errno::EPERM | Errno::EROFS | Errno::EBUSY) => return false,
            Err(_) => {}
        }
    }
    !has_own_processes(dir) && all.split(' ').filter(|one| files::write(&path, one).is_err()).count() == 0
}

/// The root cgroup may have both processes and controllers; it is the one without the file `cgroup.type`.
fn has_own_processes(dir: &Path) -> bool {
    dir.join("cgroup.type").exists() && !read_pids(dir).unwrap_or_default().is_empty()
}

fn check_type(dir: &Path) -> Result<()> {
    let path = dir.join("cgroup.type");
    match files::read(&path).as_deref().map(str::trim_end) {
        Ok("domain invalid") => Err(Error::unsupported(format!(
            "{} is in a threaded part of the hierarchy, where no container's processes can be",
            dir.display()
        ))
        .at("linux.cgroupsPath")
        .with_hint("choose a place whose ancestors' cgroup.type is domain")),
        _ => Ok(()),
    }
}

/// Why a process cannot be put into a cgroup.
pub(super) fn attach_hint(hierarchy: &Hierarchy, errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::ESRCH => "the process has ended",
        Errno::EBUSY if hierarchy.is_v2() => {
            "a v2 cgroup with controllers enabled for its children accepts no processes"
        }
        Errno::EOPNOTSUPP if hierarchy.is_v2() => {
            "its cgroup.type is threaded or invalid: choose another linux.cgroupsPath"
        }
        Errno::ENOSPC => "its cpuset is empty: cpuset.cpus and cpuset.mems must be set",
        Errno::EACCES | Errno::EPERM => {
            "the cgroup, and the nearest one above it and the caller's own, must be delegated to the user"
        }
        _ => return None,
    })
}

/// What to write for `linux.resources`, without the device rules.
pub(super) fn operations(resources: &LinuxResources) -> Result<Vec<Op>> {
    let mut list = Vec::new();
    if let Some(memory) = resources.memory() {
        self::memory(memory, &mut list)?;
    }
    if let Some(cpu) = resources.cpu() {
        self::cpu(cpu, &mut list)?;
    }
    if let Some(pids) = resources.pids() {
        list.push(pids_max(pids.limit()));
    }
    if let Some(block) = resources.block_io() {
        block_io(block, &mut list)?;
    }
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        list.extend(huge_pages(limit, index, "rsvd.max", "max")?);
    }
    if let Some(network) = resources.network() {
        let field = match (network.class_id(), network.priorities().as_deref()) {
            (Some(_), _) => Some("classID"),
            (None, Some([_, ..])) => Some("priorities"),
            _ => None,
        };
        if let Some(field) = field {
            return Err(only_v1("net_cls and net_prio", &format!("network.{field}"))
                .with_hint("use nftables with \"socket cgroupv2\", or tc, instead"));
        }
    }
    list.extend(rdma(resources)?);
    list.extend(unified(resources.unified().as_ref())?);
    Ok(list)
}

fn only_v1(what: &str, field: &str) -> Error {
    Error::unsupported(format!("cgroup v2 has no {what}")).at(format!("linux.resources.{field}"))
}

fn memory(memory: &LinuxMemory, list: &mut Vec<Op>) -> Result<()> {
    let refused = [
        (memory.swappiness().is_some(), "swappiness of a cgroup", "swappiness"),
        (memory.kernel().is_some_and(|v| v > 0), "separate limit for kernel memory", "kernel"),
        (memory.kernel_tcp().is_some_and(|v| v > 0), "separate limit for TCP buffers", "kernelTCP"),
        (memory.disable_oom_killer() == Some(true), "way to disable the OOM killer", "disableOOMKiller"),
        (memory.use_hierarchy() == Some(false), "accounting without hierarchy", "useHierarchy"),
    ];
    if let Some((_, what, field)) = refused.iter().find(|(set, ..)| *set) {
        return Err(
            only_v1(what, &format!("memory.{field}")).with_hint("remove it, or use a host with cgroup v1")
        );
    }
    let set = |file, value: i64, field| {
        let value = if value < 0 { "max".to_owned() } else { value.to_string() };
        Write::new("memory", file, value, format!("linux.resources.memory.{field}"))
    };
    let limit = memory.limit().filter(|&value| value != 0);
    if let (Some(limit), Some(true)) = (limit, memory.check_before_update()) {
        let at = "linux.resources.memory.limit";
        list.push(Op::AtLeastUsage { controller: "memory", file: "memory.current", limit, at });
    }
    // Swap first: lowering memory pushes pages out to what swap there may be.
    if let Some(value) = swap_max(memory)? {
        let write = set("memory.swap.max", value, "swap");
        // A kernel without swap has no such file; there, a limit of zero and no limit need no write.
        list.push(Op::Set(match value {
            ..=0 => write.missing(Missing::Skip),
            _ => write.missing(Missing::Fail(Some("the kernel has no swap accounting (swapaccount=1)"))),
        }));
    }
    list.extend(limit.map(|value| Op::Set(set("memory.max", value, "limit"))));
    let reservation = memory.reservation().filter(|&value| value != 0);
    list.extend(reservation.map(|value| Op::Set(set("memory.low", value, "reservation"))));
    Ok(())
}

/// The configuration counts memory and swap together, v2 swap alone; -1 is no limit.
pub(super) fn swap_max(memory: &LinuxMemory) -> Result<Option<i64>> {
    let invalid =
        |problem: &str| Err(Error::invalid(vec![Diagnostic::new("linux.resources.memory.swap", problem)]));
    let limit = memory.limit().unwrap_or(0);
    match memory.swap().unwrap_or(0) {
        0 => Ok((limit == -1).then_some(-1)),
        ..0 => Ok(Some(-1)),
        _ if limit == 0 => invalid("counts memory and swap together, so it needs memory.limit"),
        swap if limit < 0 => Ok(Some(swap)),
        swap if swap < limit => invalid("counts memory and swap together: it must not be below memory.limit"),
        swap => Ok(Some(swap - limit)),
    }
}

/// `cpu.shares` (2 to 262144, 1024 being usual) as `cpu.weight` (1 to 10000, 100): the smooth curve through those three
/// points that crun since 1.23 and runc since 1.3.2 use. It replaced a straight line on which the usual 1024 became 39,
/// so that a container got less CPU time than processes with the default weight.
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

fn cpu(cpu: &LinuxCpu, list: &mut Vec<Op>) -> Result<()> {
    let realtime = [
        (cpu.realtime_runtime().is_some_and(|v| v != 0), "realtimeRuntime"),
        (cpu.realtime_period().is_some_and(|v| v != 0), "realtimePeriod"),
    ];
    if let Some((_, field)) = realtime.iter().find(|(set, _)| *set) {
        return Err(only_v1("realtime budget of a cgroup", &format!("cpu.{field}"))
            .with_hint("remove it, or use a host with cgroup v1"));
    }
    let set =
        |file, value: String, field| Write::new("cpu", file, value, format!("linux.resources.cpu.{field}"));
    let shares = cpu.shares().filter(|&value| value != 0);
    let weight =
        shares.map(|value| Op::Set(set("cpu.weight", weight_of_shares(value).to_string(), "shares")));
    let idle = cpu.idle().map(|value| Op::Set(set("cpu.idle", value.to_string(), "idle")));
    // An idle cgroup refuses a weight, and systemd makes it idle before this. `completed` adds the weight again
    // when that ends.
    list.extend(idle.into_iter().chain(weight.filter(|_| cpu.idle() != Some(1))));
    let quota = cpu.quota().filter(|&value| value != 0).map(|quota| match quota {
        ..0 => "max".to_owned(),
        quota => quota.to_string(),
    });
    let period = cpu.period().filter(|&value| value != 0);
    let mut bandwidth = Vec::new();
    match (quota, period) {
        // Without a period the kernel keeps the present one.
        (Some(quota), None) => bandwidth.push(set("cpu.max", quota, "quota")),
        (Some(quota), Some(period)) => bandwidth.push(set("cpu.max", format!("{quota} {period}"), "quota")),
        (None, Some(period)) => {
            let mut write = set("cpu.max", String::new(), "period");
            write.value = Value::AfterFirstWord(period.to_string());
            bandwidth.push(write);
        }
        (None, None) => {}
    }
    bandwidth.extend(cpu.burst().map(|value| {
        let missing = if value == 0 { Missing::Skip } else { Missing::Fail(Some("needs Linux 5.14")) };
        set("cpu.max.burst", value.to_string(), "burst").missing(missing)
    }));
    if !bandwidth.is_empty() {
        list.push(Op::Coupled(bandwidth));
    }
    list.extend(cpuset(cpu));
    Ok(())
}

/// v1's 10 to 1000 as v2's 1 to 10000, a straight line as runc and crun have it.
pub(super) fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990
}

fn block_io(block: &LinuxBlockIo, list: &mut Vec<Op>) -> Result<()> {
    const AT: &str = "linux.resources.blockIO";
    if block.leaf_weight().is_some_and(|v| v != 0) {
        return Err(only_v1("leaf weight", "blockIO.leafWeight"));
    }
    // BFQ has v1's range, io.cost its own.
    let weight = |key: &str, value: u16, at: String| {
        let needs = Missing::Fail(Some("weights need the io controller with BFQ or io.cost"));
        let undo = Undo::Keyed(key.to_owned(), if key == "default" { "100" } else { "default" });
        let plain = Write::new("io", "io.weight", format!("{key} {}", io_weight(value)), at.clone());
        let plain = plain.undo(undo.clone()).missing(needs);
        let bfq = Write::new("io", "io.bfq.weight", format!("{key} {value}"), at);
        Op::Set(bfq.undo(undo).missing(Missing::Instead(Box::new(plain))))
    };
    if let Some(value) = block.weight().filter(|&value| value != 0) {
        list.push(weight("default", value, format!("{AT}.weight")));
    }
    for (index, device) in block.weight_device().iter().flatten().enumerate() {
        if device.leaf_weight().is_some() {
            return Err(only_v1("leaf weight", &format!("blockIO.weightDevice[{index}].leafWeight")));
        }
        if let Some(value) = device.weight() {
            let key = format!("{}:{}", device.major(), device.minor());
            list.push(weight(&key, value, format!("{AT}.weightDevice[{index}].weight")));
        }
    }
    let throttles = [
        (block.throttle_read_bps_device(), "rbps", "throttleReadBpsDevice"),
        (block.throttle_write_bps_device(), "wbps", "throttleWriteBpsDevice"),
        (block.throttle_read_iops_device(), "riops", "throttleReadIOPSDevice"),
        (block.throttle_write_iops_device(), "wiops", "throttleWriteIOPSDevice"),
    ];
    for (devices, word, field) in throttles {
        for (index, device) in devices.iter().flatten().enumerate() {
            let key = format!("{}:{}", device.major(), device.minor());
            // In v1 0 means no limit; v2 refuses it.
            let rate = if device.rate() == 0 { "max".into() } else { device.rate().to_string() };
            let value = format!("{key} {word}={rate}");
            let undo = Undo::Keyed(key, "rbps=max wbps=max riops=max wiops=max");
            list.push(Op::Set(
                Write::new("io", "io.max", value, format!("{AT}.{field}[{index}]")).undo(undo),
            ));
        }
    }
    Ok(())
}

/// Files that move, stop or kill processes are not settings.
const NOT_SETTINGS: [&str; 7] = [
    "cgroup.procs",
    "cgroup.threads",
    "cgroup.kill",
    "cgroup.freeze",
    "cgroup.type",
    "cgroup.subtree_control",
    "cgroup.events",
];

fn unified(map: Option<&HashMap<String, String>>) -> Result<Vec<Op>> {
    let mut entries: Vec<_> = map.into_iter().flatten().collect();
    entries.sort();
    let mut list = Vec::new();
    for (key, value) in entries {
        let at = format!("linux.resources.unified.{key}");
        let problem = match key.split_once('.') {
            _ if key.contains('/') => "must be the name of one file, without a slash",
            Some((controller, name)) if !controller.is_empty() && !name.is_empty() => {
                if NOT_SETTINGS.contains(&key.as_str()) {
                    "is not a setting: it acts on processes"
                } else {
                    list.push(Op::Set(Write::new(controller, key, value, at)));
                    continue;
                }
            }
            _ => "must be a file name like memory.high: controller, dot, setting",
        };
        return Err(Error::invalid(vec![Diagnostic::new(at, problem)]));
    }
    Ok(list)
}

#[cfg(test)]
#[path = "v2_tests.rs"]
mod tests;

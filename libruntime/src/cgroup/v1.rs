//! cgroup v1: a hierarchy's directory, and `linux.resources` as the contents of v1's files.
//!
//! [`operations`] is pure. Files and their values are those of the kernel's
//! `Documentation/admin-guide/cgroup-v1`. `apply.rs` writes them; `v2.rs` is its sibling.

use super::files;
use super::hierarchy::{Hierarchy, NewDirs};
use super::write::{Missing, Op, Undo, Write};
use crate::error::{Diagnostic, Error, Result};
use nix::errno::Errno;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxResources};
use std::path::Path;

/// How often a creation starts again when an ancestor is removed meanwhile.
pub(super) const RACES: u32 = 10;

/// Makes the directory, with its ancestors where they are missing.
pub(super) fn create(hierarchy: &Hierarchy, made: &mut NewDirs) -> Result<()> {
    let dir = &hierarchy.dir;
    let mut tries = 0;
    let new = loop {
        match made.mkdir(dir) {
            // A failing creation of another container may have removed an ancestor.
            Err(Errno::ENOENT) if tries < RACES => tries += 1,
            result => break result.map_err(|errno| mkdir_error(dir, errno))?,
        }
        match make_ancestors(hierarchy, made) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(mkdir_error(dir, errno)),
        }
    };
    if hierarchy.controllers.iter().any(|name| name == "cpuset") {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            inherit(dir, &hierarchy.mount, file, new)?;
        }
    }
    Ok(())
}

fn make_ancestors(hierarchy: &Hierarchy, made: &mut NewDirs) -> std::result::Result<(), Errno> {
    let ancestors: Vec<&Path> =
        hierarchy.dir.ancestors().skip(1).take_while(|dir| *dir != hierarchy.mount).collect();
    ancestors.iter().rev().try_for_each(|dir| made.mkdir(dir).map(drop))
}

pub(super) fn mkdir_error(dir: &Path, errno: Errno) -> Error {
    let error = files::failed("mkdir", dir, errno);
    match errno {
        Errno::EACCES | Errno::EPERM => {
            error.with_hint("the parent cgroup must be delegated to the calling user")
        }
        Errno::EROFS => error.with_hint("the cgroup filesystem is mounted read-only here"),
        Errno::ENOENT => {
            error.with_hint("another mount hides the cgroup filesystem, or it went away meanwhile")
        }
        Errno::EAGAIN => error.with_hint("cgroup.max.depth or cgroup.max.descendants of a parent is reached"),
        _ => error,
    }
}

/// A new cpuset is empty and accepts no process: it gets its parent's values.
fn inherit(dir: &Path, mount: &Path, file: &str, new: bool) -> Result<String> {
    let path = dir.join(file);
    let own = match new {
        true => String::new(),
        false => files::read(&path).map_err(|errno| files::failed("read", &path, errno))?,
    };
    let own = own.trim_end();
    match dir.parent() {
        Some(parent) if own.is_empty() && dir != mount => {
            let value = inherit(parent, mount, file, false)?;
            files::write(&path, &value)
                .map_err(|errno| Error::os(format!("write {value} to {}", path.display()), errno))?;
            Ok(value)
        }
        _ => Ok(own.to_owned()),
    }
}

/// What to write for `linux.resources`, without the device rules.
pub(super) fn operations(resources: &LinuxResources) -> Result<Vec<Op>> {
    let mut list = Vec::new();
    if let Some(memory) = resources.memory() {
        self::memory(memory, &mut list);
    }
    if let Some(cpu) = resources.cpu() {
        self::cpu(cpu, &mut list);
    }
    if let Some(pids) = resources.pids() {
        list.push(pids_max(pids.limit()));
    }
    if let Some(block) = resources.block_io() {
        block_io(block, &mut list);
    }
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        list.extend(huge_pages(limit, index, "rsvd.limit_in_bytes", "limit_in_bytes")?);
    }
    if let Some(network) = resources.network() {
        let at = "linux.resources.network";
        if let Some(id) = network.class_id() {
            list.push(Op::Set(Write::new("net_cls", "net_cls.classid", id, format!("{at}.classID"))));
        }
        for (index, entry) in network.priorities().iter().flatten().enumerate() {
            let value = format!("{} {}", entry.name(), entry.priority());
            let undo = Undo::Keyed(entry.name().clone(), "0");
            let write =
                Write::new("net_prio", "net_prio.ifpriomap", value, format!("{at}.priorities[{index}]"));
            list.push(Op::Set(write.undo(undo)));
        }
    }
    list.extend(rdma(resources)?);
    if let Some(key) = resources.unified().iter().flat_map(|map| map.keys()).min() {
        return Err(Error::unsupported("this host has cgroup v1, which has no such files")
            .at(format!("linux.resources.unified.{key}"))
            .with_hint("use the properties of linux.resources, or a host with cgroup v2"));
    }
    Ok(list)
}

fn memory(memory: &LinuxMemory, list: &mut Vec<Op>) {
    let at = |field: &str| format!("linux.resources.memory.{field}");
    let set = |file, value: i64, field| Write::new("memory", file, value, at(field));
    let limit = memory.limit().filter(|&value| value != 0);
    // Memory without a limit, under an old limit of memory and swap, would still be limited.
    let implied = limit.filter(|&value| value == -1);
    let swap = memory.swap().filter(|&value| value != 0).or(implied);
    if let (Some(limit), Some(true)) = (limit, memory.check_before_update()) {
        let at = "linux.resources.memory.limit";
        list.push(Op::AtLeastUsage { controller: "memory", file: "memory.usage_in_bytes", limit, at });
    }
    let mut both = Vec::new();
    both.extend(limit.map(|value| set("memory.limit_in_bytes", value, "limit")));
    both.extend(swap.map(|value| {
        let missing = match value {
            -1 => Missing::Skip,
            _ => Missing::Fail(Some("the kernel does not account swap: boot it with swapaccount=1")),
        };
        set("memory.memsw.limit_in_bytes", value, "swap").missing(missing)
    }));
    if !both.is_empty() {
        list.push(Op::Coupled(both));
    }
    let others = [
        (memory.reservation(), "memory.soft_limit_in_bytes", "reservation"),
        (memory.kernel(), "memory.kmem.limit_in_bytes", "kernel"),
        (memory.kernel_tcp(), "memory.kmem.tcp.limit_in_bytes", "kernelTCP"),
    ];
    for (value, file, field) in others {
        list.extend(value.filter(|&value| value != 0).map(|value| Op::Set(set(file, value, field))));
    }
    if let Some(value) = memory.swappiness() {
        list.push(Op::Set(Write::new("memory", "memory.swappiness", value, at("swappiness"))));
    }
    if let Some(value) = memory.use_hierarchy() {
        list.push(Op::Set(Write::new("memory", "memory.use_hierarchy", u8::from(value), at("useHierarchy"))));
    }
    if let Some(value) = memory.disable_oom_killer() {
        let write = Write::new("memory", "memory.oom_control", u8::from(value), at("disableOOMKiller"));
        // A new cgroup has `false` already. It matters only in an update, where it is written.
        list.push(Op::Set(write.undo(Undo::SecondWord).missing(if value {
            Missing::Fail(None)
        } else {
            Missing::Skip
        })));
    }
}

fn cpu(cpu: &LinuxCpu, list: &mut Vec<Op>) {
    let set =
        |file, value: String, field| Write::new("cpu", file, value, format!("linux.resources.cpu.{field}"));
    let shares = cpu.shares().filter(|&value| value != 0);
    let shares = shares.map(|value| Op::Set(set("cpu.shares", value.to_string(), "shares")));
    let idle = cpu.idle().map(|value| Op::Set(set("cpu.idle", value.to_string(), "idle")));
    // An idle cgroup refuses a weight, so the weight is written while the cgroup is not idle.
    match cpu.idle() {
        Some(1) => list.extend(shares.into_iter().chain(idle)),
        _ => list.extend(idle.into_iter().chain(shares)),
    }
    let positive = |value: Option<u64>| value.filter(|&value| value != 0).map(|value| value.to_string());
    let mut bandwidth = Vec::new();
    bandwidth.extend(positive(cpu.period()).map(|value| set("cpu.cfs_period_us", value, "period")));
    let quota = cpu.quota().filter(|&value| value != 0).map(|value| value.max(-1).to_string());
    bandwidth.extend(quota.map(|value| set("cpu.cfs_quota_us", value, "quota")));
    bandwidth.extend(cpu.burst().map(|value| {
        let missing = if value == 0 { Missing::Skip } else { Missing::Fail(Some("needs Linux 5.14")) };
        set("cpu.cfs_burst_us", value.to_string(), "burst").missing(missing)
    }));
    let mut realtime = Vec::new();
    let needs = || Missing::Fail(Some("needs a kernel with CONFIG_RT_GROUP_SCHED"));
    realtime.extend(
        positive(cpu.realtime_period())
            .map(|value| set("cpu.rt_period_us", value, "realtimePeriod").missing(needs())),
    );
    realtime.extend(
        cpu.realtime_runtime()
            .filter(|&value| value != 0)
            .map(|value| set("cpu.rt_runtime_us", value.to_string(), "realtimeRuntime").missing(needs())),
    );
    if let Some(runtime) = cpu.realtime_runtime().filter(|&value| value > 0) {
        let period = cpu.realtime_period().filter(|&value| value != 0);
        list.push(Op::RaiseParentBudgets { runtime, period });
    }
    for group in [bandwidth, realtime] {
        if !group.is_empty() {
            list.push(Op::Coupled(group));
        }
    }
    list.extend(cpuset(cpu));
}

/// The same files in v1 and v2.
pub(super) fn cpuset(cpu: &LinuxCpu) -> Vec<Op> {
    [("cpuset.cpus", cpu.cpus(), "cpus"), ("cpuset.mems", cpu.mems(), "mems")]
        .into_iter()
        .filter_map(|(file, value, field)| {
            let value = value.as_deref().filter(|value| !value.is_empty())?;
            Some(Op::Set(Write::new("cpuset", file, value, format!("linux.resources.cpu.{field}"))))
        })
        .collect()
}

/// -1 is no limit. 0 allows no process; systemd cannot express 0, and 1 has the same effect (it is the container's
/// first process), so both drivers set 1, as runc does.
pub(super) fn pids_max(limit: i64) -> Op {
    let value = match limit {
        ..0 => "max".into(),
        0 => "1".into(),
        limit => limit.to_string(),
    };
    Op::Set(Write::new("pids", "pids.max", value, "linux.resources.pids.limit"))
}

fn block_io(block: &LinuxBlockIo, list: &mut Vec<Op>) {
    const AT: &str = "linux.resources.blockIO";
    let weight = |name: &str, value: &str, at: String, undo: Undo| {
        // BFQ has its own name for it; CFQ, whose files have the plain name, ended with Linux 5.0.
        let needs = Missing::Fail(Some("weights need the BFQ scheduler (CONFIG_BFQ_GROUP_IOSCHED) or CFQ"));
        let bfq = Write::new("blkio", format!("blkio.bfq.{name}"), value, at.clone());
        let bfq = bfq.undo(undo.clone()).missing(needs);
        let plain = Write::new("blkio", format!("blkio.{name}"), value, at);
        Op::Set(plain.undo(undo).missing(Missing::Instead(Box::new(bfq))))
    };
    for (value, name, field) in
        [(block.weight(), "weight", "weight"), (block.leaf_weight(), "leaf_weight", "leafWeight")]
    {
        if let Some(value) = value.filter(|&value| value != 0) {
            list.push(weight(name, &value.to_string(), format!("{AT}.{field}"), Undo::Whole));
        }
    }
    for (index, device) in block.weight_device().iter().flatten().enumerate() {
        let key = format!("{}:{}", device.major(), device.minor());
        let values = [
            (device.weight(), "weight_device", "weight"),
            (device.leaf_weight(), "leaf_weight_device", "leafWeight"),
        ];
        for (value, name, field) in values {
            if let Some(value) = value {
                let at = format!("{AT}.weightDevice[{index}].{field}");
                list.push(weight(name, &format!("{key} {value}"), at, Undo::Keyed(key.clone(), "0")));
            }
        }
    }
    let throttles = [
        (block.throttle_read_bps_device(), "read_bps", "throttleReadBpsDevice"),
        (block.throttle_write_bps_device(), "write_bps", "throttleWriteBpsDevice"),
        (block.throttle_read_iops_device(), "read_iops", "throttleReadIOPSDevice"),
        (block.throttle_write_iops_device(), "write_iops", "throttleWriteIOPSDevice"),
    ];
    for (devices, name, field) in throttles {
        for (index, device) in devices.iter().flatten().enumerate() {
            let key = format!("{}:{}", device.major(), device.minor());
            let value = format!("{key} {}", device.rate());
            let file = format!("blkio.throttle.{name}_device");
            let write = Write::new("blkio", file, value, format!("{AT}.{field}[{index}]"));
            list.push(Op::Set(write.undo(Undo::Keyed(key, "0"))));
        }
    }
}

/// `reserved` and `faulted` are the ends of the two files' names; the first is newer than v1.
pub(super) fn huge_pages(
    limit: &LinuxHugepageLimit,
    index: usize,
    reserved: &str,
    faulted: &str,
) -> Result<Vec<Op>> {
    let at = format!("linux.resources.hugepageLimits[{index}]");
    let size = limit.page_size();
    let unit = size.trim_start_matches(|c: char| c.is_ascii_digit());
    if !["KB", "MB", "GB"].contains(&unit) || size.len() == unit.len() || size.starts_with('0') {
        let problem = format!("{size:?} is not of the form 64KB, 2MB, 1GB");
        return Err(Error::invalid(vec![Diagnostic::new(format!("{at}.pageSize"), problem)]));
    }
    // The type is signed and the property is not: a value above the signed maximum means no limit.
    let value = if limit.limit() < 0 { i64::MAX } else { limit.limit() };
    let hint = Missing::Fail(Some("the host has no huge pages of this size, or not this controller"));
    Ok(vec![
        Op::Set(
            Write::new("hugetlb", format!("hugetlb.{size}.{reserved}"), value, at.clone())
                .missing(Missing::Skip),
        ),
        Op::Set(Write::new("hugetlb", format!("hugetlb.{size}.{faulted}"), value, at).missing(hint)),
    ])
}

/// The same file in v1 and v2.
pub(super) fn rdma(resources: &LinuxResources) -> Result<Vec<Op>> {
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_by_key(|(name, _)| name.as_str());
    let mut list = Vec::new();
    for (name, limits) in devices {
        let at = format!("linux.resources.rdma.{name}");
        let values = [("hca_handle", limits.hca_handles()), ("hca_object", limits.hca_objects())];
        let words: Vec<_> =
            values.iter().filter_map(|(key, value)| Some(format!("{key}={}", (*value)?))).collect();
        if words.is_empty() {
            return Err(Error::invalid(vec![Diagnostic::new(at, "needs hcaHandles, hcaObjects or both")]));
        }
        let undo = Undo::Keyed(name.clone(), "hca_handle=max hca_object=max");
        list.push(Op::Set(
            Write::new("rdma", "rdma.max", format!("{name} {}", words.join(" ")), at).undo(undo),
        ));
    }
    Ok(list)
}

#[cfg(test)]
#[path = "v1_tests.rs"]
mod tests;

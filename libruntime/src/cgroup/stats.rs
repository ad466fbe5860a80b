//! What a container has used: one type for cgroup v1 and v2, read in one go.
//!
//! A value that this host or kernel does not have is absent; a limit that is absent is none. Must not
//! change anything. `runc_stats.rs` turns it into the JSON of `runc events --stats`; `psi` and the
//! other small formats are parsed here, purely.

use super::{Cgroup, Layout, files};
use crate::error::{Error, Result};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The statistics of a container's cgroup and network interfaces.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Stats {
    /// The version of the hierarchies: 1 (also hybrid) or 2.
    pub version: u8,
    /// Time of processors.
    pub cpu: Cpu,
    /// The files of the controller, by name without `cpuset.`.
    pub cpuset: BTreeMap<String, String>,
    /// Memory and swap, in bytes.
    pub memory: Memory,
    /// Processes and threads.
    pub pids: Pids,
    /// Block devices.
    pub io: Io,
    /// By page size, `2MB`.
    pub hugetlb: BTreeMap<String, HugePages>,
    /// By device, then resource (`hca_handle`).
    pub rdma: BTreeMap<String, BTreeMap<String, u64>>,
    /// By resource (`sev`): in use now.
    pub misc: BTreeMap<String, u64>,
    /// The interfaces of the container's network namespace; none where that is the caller's own.
    pub network: Vec<Interface>,
}

/// The counters of an interface; the loopback interface is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Interface {
    /// Such as `eth0`.
    pub name: String,
    /// From the network.
    pub received: Traffic,
    /// To the network.
    pub sent: Traffic,
}

/// One direction of an interface (proc_pid_net(5), `dev`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets with errors.
    pub errors: u64,
    /// Packets that were dropped.
    pub dropped: u64,
}

/// Times are nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Cpu {
    /// User and kernel together.
    pub total: u64,
    /// In programs.
    pub user: u64,
    /// In the kernel, for them.
    pub kernel: u64,
    /// v1 only, as the next two.
    pub per_cpu: Vec<u64>,
    /// In programs, by processor.
    pub per_cpu_user: Vec<u64>,
    /// In the kernel, by processor.
    pub per_cpu_kernel: Vec<u64>,
    /// Periods of the quota that have passed.
    pub periods: u64,
    /// The periods in which the quota was used up.
    pub throttled_periods: u64,
    /// How long processes have waited for a new quota.
    pub throttled_time: u64,
    /// Periods in which a burst was used.
    pub bursts: u64,
    /// How long bursts have run.
    pub burst_time: u64,
    /// v2, where the kernel accounts it.
    pub pressure: Option<Pressure>,
}

/// Memory of a container, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Memory {
    /// Memory.
    pub usage: Counter,
    /// v1: memory and swap together. v2: swap alone.
    pub swap: Counter,
    /// v1 only, as the next.
    pub kernel: Counter,
    /// v1: buffers of TCP.
    pub kernel_tcp: Counter,
    /// How often low, high, max, oom, oom_kill … happened.
    pub events: BTreeMap<String, u64>,
    /// All of `memory.stat`.
    pub stat: BTreeMap<String, u64>,
    /// v2, where the kernel accounts it.
    pub pressure: Option<Pressure>,
}

/// A resource with a limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Counter {
    /// Now.
    pub current: Option<u64>,
    /// The most there has been.
    pub peak: Option<u64>,
    /// None: no limit.
    pub limit: Option<u64>,
    /// v1: how often the limit was hit.
    pub failures: Option<u64>,
}

/// Processes and threads of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Pids {
    /// Now.
    pub current: Option<u64>,
    /// The most there have been.
    pub peak: Option<u64>,
    /// None: no limit.
    pub limit: Option<u64>,
}

/// v2 has the first two members only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Io {
    /// Bytes read and written.
    pub service_bytes: Vec<IoEntry>,
    /// Operations.
    pub serviced: Vec<IoEntry>,
    /// Operations that wait now.
    pub queued: Vec<IoEntry>,
    /// From dispatch to completion, in nanoseconds.
    pub service_time: Vec<IoEntry>,
    /// In the scheduler's queues, in nanoseconds.
    pub wait_time: Vec<IoEntry>,
    /// Operations that were merged into others.
    pub merged: Vec<IoEntry>,
    /// Time of the disk, in milliseconds.
    pub time: Vec<IoEntry>,
    /// Sectors of 512 bytes.
    pub sectors: Vec<IoEntry>,
    /// v2, where the kernel accounts it.
    pub pressure: Option<Pressure>,
}

/// A number of one block device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IoEntry {
    /// The device's major number.
    pub major: u64,
    /// Its minor number.
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total`, or nothing.
    pub op: String,
    /// The number.
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct HugePages {
    /// In use.
    pub faulted: Counter,
    /// Reserved for mappings.
    pub reserved: Counter,
}

/// Pressure stall information (`Documentation/accounting/psi.rst`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pressure {
    /// Time in which some process waited.
    pub some: Stall,
    /// Time in which all of them waited.
    pub full: Stall,
}

/// Percent of the last 10, 60 and 300 seconds; microseconds in total.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stall {
    /// Percent of the last 10 seconds.
    pub avg10: f64,
    /// Percent of the last minute.
    pub avg60: f64,
    /// Percent of the last 5 minutes.
    pub avg300: f64,
    /// Microseconds.
    pub total: u64,
}

impl Stats {
    /// Those of a cgroup that is no container's, such as a pod's, and of the network interfaces that a process sees.
    /// `path` has the form of `linux.cgroupsPath`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) where there is no such cgroup.
    pub fn of_cgroup(path: &Path, process: i32) -> Result<Self> {
        let cgroup = Cgroup::plan(&Layout::probe()?, Some(path), "")?;
        if !cgroup.exists() {
            let missing = format!("the cgroup {} does not exist", path.display());
            return Err(Error::new(crate::error::ErrorKind::NotFound, missing));
        }
        Ok(Self { network: network_of(process), ..cgroup.stats()? })
    }
}

impl Cgroup {
    /// Reads all statistics. A cgroup that is gone is an error.
    pub fn stats(&self) -> Result<Stats> {
        if !self.exists() {
            return Err(Error::new(
                crate::error::ErrorKind::NotFound,
                "the container's cgroup does not exist",
            ));
        }
        let source = Source { cgroup: self };
        let mut stats = Stats { version: if self.is_v2() { 2 } else { 1 }, ..Stats::default() };
        match self.is_v2() {
            true => read_v2(&source, &mut stats)?,
            false => read_v1(&source, &mut stats)?,
        }
        if let Some(text) = source.text("rdma", "rdma.current")? {
            stats.rdma = nested(&text);
        }
        stats.misc = source.flat("misc", "misc.current")?;
        (stats.pids.current, stats.pids.peak) =
            (source.number("pids", "pids.current")?, source.number("pids", "pids.peak")?);
        stats.pids.limit = source.number("pids", "pids.max")?;
        // On a hybrid host the v2 hierarchy has no controllers, but it has the pressure.
        stats.cpu.pressure = source.pressure("cpu.pressure")?;
        stats.memory.pressure = source.pressure("memory.pressure")?;
        stats.io.pressure = source.pressure("io.pressure")?;
        Ok(stats)
    }
}

/// The files of one cgroup; each reading gives `None` where there is no such file.
struct Source<'a> {
    cgroup: &'a Cgroup,
}

impl Source<'_> {
    fn text(&self, controller: &str, file: &str) -> Result<Option<String>> {
        self.cgroup.dir_of(controller).map_or(Ok(None), |dir| read(&dir.join(file)))
    }

    /// `max` is no number.
    fn number(&self, controller: &str, file: &str) -> Result<Option<u64>> {
        Ok(self.text(controller, file)?.and_then(|text| text.trim_end().parse().ok()))
    }

    fn flat(&self, controller: &str, file: &str) -> Result<BTreeMap<String, u64>> {
        Ok(self.text(controller, file)?.map(|text| flat(&text)).unwrap_or_default())
    }

    fn pressure(&self, file: &str) -> Result<Option<Pressure>> {
        let v2 = self.cgroup.hierarchies.iter().find(|hierarchy| hierarchy.is_v2());
        let text = v2.map_or(Ok(None), |hierarchy| read(&hierarchy.dir.join(file)))?;
        Ok(text.and_then(|text| pressure(&text)))
    }

    fn counter_v1(&self, controller: &str, prefix: &str) -> Result<Counter> {
        let number = |name: &str| self.number(controller, &format!("{prefix}{name}"));
        Ok(Counter {
            current: number("usage_in_bytes")?,
            peak: number("max_usage_in_bytes")?,
            // The largest multiple of a page is how v1 says that there is no limit.
            limit: number("limit_in_bytes")?.filter(|&limit| limit < i64::MAX as u64 - 0xf_ffff),
            failures: number("failcnt")?,
        })
    }

    fn counter_v2(&self, controller: &str, prefix: &str) -> Result<Counter> {
        let number = |name: &str| self.number(controller, &format!("{prefix}{name}"));
        Ok(Counter {
            current: number("current")?,
            peak: number("peak")?,
            limit: number("max")?,
            failures: None,
        })
    }

    fn cpusets(&self, names: &[&str]) -> Result<BTreeMap<String, String>> {
        let mut values = BTreeMap::new();
        for name in names {
            if let Some(text) = self.text("cpuset", &format!("cpuset.{name}"))? {
                values.insert((*name).to_owned(), text.trim_end().to_owned());
            }
        }
        Ok(values)
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    match files::read(path) {
        Ok(text) => Ok(Some(text)),
        // EOPNOTSUPP: pressure is switched off (psi=0, or for this cgroup). EINVAL, EIO: the
        // controller is compiled in and not there (rdma without devices, blkio without scheduler).
        Err(Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP | Errno::EINVAL | Errno::EIO) => Ok(None),
        Err(errno) => Err(files::failed("read", path, errno)),
    }
}

fn read_v2(source: &Source, stats: &mut Stats) -> Result<()> {
    let cpu = source.flat("cpu", "cpu.stat")?;
    let get = |key: &str| cpu.get(key).copied().unwrap_or(0);
    stats.cpu = Cpu {
        total: get("usage_usec") * 1000,
        user: get("user_usec") * 1000,
        kernel: get("system_usec") * 1000,
        periods: get("nr_periods"),
        throttled_periods: get("nr_throttled"),
        throttled_time: get("throttled_usec") * 1000,
        bursts: get("nr_bursts"),
        burst_time: get("burst_usec") * 1000,
        ..Cpu::default()
    };
    stats.cpuset = source.cpusets(&["cpus.effective", "mems.effective"])?;
    stats.memory = Memory {
        usage: source.counter_v2("memory", "memory.")?,
        swap: source.counter_v2("memory", "memory.swap.")?,
        stat: source.flat("memory", "memory.stat")?,
        events: source.flat("memory", "memory.events")?,
        ..Memory::default()
    };
    if let Some(text) = source.text("io", "io.stat")? {
        io_stat(&text, &mut stats.io);
    }
    for size in huge_page_sizes() {
        let mut faulted = source.counter_v2("hugetlb", &format!("hugetlb.{size}."))?;
        faulted.failures = source.flat("hugetlb", &format!("hugetlb.{size}.events"))?.get("max").copied();
        let reserved = source.counter_v2("hugetlb", &format!("hugetlb.{size}.rsvd."))?;
        if faulted.current.is_some() {
            stats.hugetlb.insert(size, HugePages { faulted, reserved });
        }
    }
    Ok(())
}

fn read_v1(source: &Source, stats: &mut Stats) -> Result<()> {
    /// cpuacct.stat counts in USER_HZ, which is 100 on every architecture.
    const TICK: u64 = 1_000_000_000 / 100;
    let cpu = source.flat("cpu", "cpu.stat")?;
    let times = source.flat("cpuacct", "cpuacct.stat")?;
    let get = |map: &BTreeMap<String, u64>, key: &str| map.get(key).copied().unwrap_or(0);
    let per_cpu = source.text("cpuacct", "cpuacct.usage_percpu")?.unwrap_or_default();
    let (per_cpu_user, per_cpu_kernel) =
        per_cpu_all(&source.text("cpuacct", "cpuacct.usage_all")?.unwrap_or_default());
    stats.cpu = Cpu {
        total: source.number("cpuacct", "cpuacct.usage")?.unwrap_or(0),
        user: get(&times, "user") * TICK,
        kernel: get(&times, "system") * TICK,
        per_cpu: per_cpu.split_whitespace().filter_map(|word| word.parse().ok()).collect(),
        per_cpu_user,
        per_cpu_kernel,
        periods: get(&cpu, "nr_periods"),
        throttled_periods: get(&cpu, "nr_throttled"),
        throttled_time: get(&cpu, "throttled_time"),
        bursts: get(&cpu, "nr_bursts"),
        burst_time: get(&cpu, "burst_time"),
        pressure: None,
    };
    stats.cpuset = source.cpusets(&CPUSET_V1)?;
    let control = source.flat("memory", "memory.oom_control")?;
    stats.memory = Memory {
        usage: source.counter_v1("memory", "memory.")?,
        swap: source.counter_v1("memory", "memory.memsw.")?,
        kernel: source.counter_v1("memory", "memory.kmem.")?,
        kernel_tcp: source.counter_v1("memory", "memory.kmem.tcp.")?,
        stat: source.flat("memory", "memory.stat")?,
        events: control.into_iter().filter(|(key, _)| key == "oom_kill").collect(),
        pressure: None,
    };
    read_blkio(source, &mut stats.io)?;
    for size in huge_page_sizes() {
        let faulted = source.counter_v1("hugetlb", &format!("hugetlb.{size}."))?;
        let reserved = source.counter_v1("hugetlb", &format!("hugetlb.{size}.rsvd."))?;
        if faulted.current.is_some() {
            stats.hugetlb.insert(size, HugePages { faulted, reserved });
        }
    }
    Ok(())
}

/// The scheduler's own numbers where it keeps any, else the throttling layer's two.
fn read_blkio(source: &Source, io: &mut Io) -> Result<()> {
    for (list, name) in [
        (&mut io.service_bytes, "io_service_bytes_recursive"),
        (&mut io.serviced, "io_serviced_recursive"),
        (&mut io.queued, "io_queued_recursive"),
        (&mut io.service_time, "io_service_time_recursive"),
        (&mut io.wait_time, "io_wait_time_recursive"),
        (&mut io.merged, "io_merged_recursive"),
        (&mut io.time, "time_recursive"),
        (&mut io.sectors, "sectors_recursive"),
    ] {
        for prefix in ["blkio.bfq.", "blkio.throttle."] {
            if list.is_empty() {
                *list = source
                    .text("blkio", &format!("{prefix}{name}"))?
                    .map(|text| blkio(&text))
                    .unwrap_or_default();
            }
        }
    }
    Ok(())
}

pub(super) const CPUSET_V1: [&str; 12] = [
    "cpus",
    "cpu_exclusive",
    "mems",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
    "sched_relax_domain_level",
    "effective_cpus",
];

/// Lines of `KEY NUMBER`; others are left out.
pub(super) fn flat(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

/// Lines of `KEY A=1 B=2`.
fn nested(text: &str) -> BTreeMap<String, BTreeMap<String, u64>> {
    text.lines()
        .filter_map(|line| {
            let (key, rest) = line.split_once(' ')?;
            let pairs = rest.split_whitespace().filter_map(|word| {
                let (name, value) = word.split_once('=')?;
                Some((name.to_owned(), value.parse().ok()?))
            });
            Some((key.to_owned(), pairs.collect()))
        })
        .collect()
}

fn pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let (kind, rest) = line.split_once(' ')?;
        let value = |name: &str| {
            rest.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
        };
        let average = |name: &str| value(name).and_then(|text| text.parse().ok()).unwrap_or(0.0);
        let stall = Stall {
            avg10: average("avg10"),
            avg60: average("avg60"),
            avg300: average("avg300"),
            total: value("total")?.parse().ok()?,
        };
        match kind {
            "some" => pressure.some = stall,
            "full" => pressure.full = stall,
            _ => return None,
        }
    }
    Some(pressure)
}

/// v2's `8:0 rbytes=1 wbytes=2 rios=3 …`.
fn io_stat(text: &str, io: &mut Io) {
    for (device, values) in nested(text) {
        let Some((major, minor)) = device_number(&device) else { continue };
        let entry = |op: &str, value| IoEntry { major, minor, op: op.into(), value };
        for (name, op) in [("r", "Read"), ("w", "Write"), ("d", "Discard")] {
            io.service_bytes.extend(values.get(&format!("{name}bytes")).map(|&value| entry(op, value)));
            io.serviced.extend(values.get(&format!("{name}ios")).map(|&value| entry(op, value)));
        }
    }
}

/// v1's `8:0 Read 1`, or `8:0 1`; the last line is a total over all devices.
fn blkio(text: &str) -> Vec<IoEntry> {
    text.lines()
        .filter_map(|line| {
            let (device, rest) = line.split_once(' ')?;
            let (major, minor) = device_number(device)?;
            let (op, value) = rest.rsplit_once(' ').unwrap_or(("", rest));
            Some(IoEntry { major, minor, op: op.into(), value: value.parse().ok()? })
        })
        .collect()
}

/// The interfaces in the network namespace of a process; none where that is the caller's.
pub(crate) fn network_of(pid: i32) -> Vec<Interface> {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    if namespace("self") == namespace(&pid.to_string()) {
        return Vec::new();
    }
    std::fs::read_to_string(format!("/proc/{pid}/net/dev")).map(|text| interfaces(&text)).unwrap_or_default()
}

/// `/proc/PID/net/dev`: two lines of titles, then a name and eight numbers for each direction.
fn interfaces(text: &str) -> Vec<Interface> {
    let rows = text.lines().skip(2).filter_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let traffic = |at: usize| match numbers.get(at..at + 4) {
            Some(&[bytes, packets, errors, dropped]) => Some(Traffic { bytes, packets, errors, dropped }),
            _ => None,
        };
        Some(Interface { name: name.trim().into(), received: traffic(0)?, sent: traffic(8)? })
    });
    rows.filter(|interface| interface.name != "lo").collect()
}

fn device_number(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `cpuacct.usage_all`: a title, then `CPU USER SYSTEM` a line, in nanoseconds.
fn per_cpu_all(text: &str) -> (Vec<u64>, Vec<u64>) {
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1).map(|word| word.parse::<u64>().ok());
            Some((words.next()??, words.next()??))
        })
        .unzip()
}

/// The sizes that this host has, as the controller's files spell them.
fn huge_page_sizes() -> Vec<String> {
    let mut sizes: Vec<String> = std::fs::read_dir(Path::new("/sys/kernel/mm/hugepages"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let kib: u64 = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            Some(huge_page_size(kib))
        })
        .collect();
    sizes.sort();
    sizes
}

fn huge_page_size(kib: u64) -> String {
    match kib {
        _ if kib.is_multiple_of(1 << 20) => format!("{}GB", kib >> 20),
        _ if kib.is_multiple_of(1 << 10) => format!("{}MB", kib >> 10),
        _ => format!("{kib}KB"),
    }
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;

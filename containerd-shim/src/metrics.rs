//! `Stats`: what the library has counted as containerd's messages, `io.containerd.cgroups.v1.Metrics` (also of hybrid
//! hosts) or `v2.Metrics`. Tables of field numbers (`metrics.proto` of containerd/cgroups). Pure; reads no file.
//!
//! Times are nanoseconds in v1, as in the library, and microseconds in v2. A limit that is absent is the largest number.

use crate::wire::Any;
use libruntime::Stats;
use libruntime::stats::{Counter, Cpu, HugePages, Interface, IoEntry, Memory, Pressure, Stall};
use prost::encoding::{bytes, double, string, uint64};
use std::collections::BTreeMap;

/// A message under construction. As in proto3, what is zero is left out.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn number(mut self, tag: u32, value: u64) -> Self {
        if value != 0 {
            uint64::encode(tag, &value, &mut self.0);
        }
        self
    }

    fn decimal(mut self, tag: u32, value: f64) -> Self {
        if value != 0.0 {
            double::encode(tag, &value, &mut self.0);
        }
        self
    }

    fn text(mut self, tag: u32, value: &str) -> Self {
        if !value.is_empty() {
            string::encode(tag, &value.to_string(), &mut self.0);
        }
        self
    }

    fn message(mut self, tag: u32, message: Self) -> Self {
        bytes::encode(tag, &message.0, &mut self.0);
        self
    }

    fn all(self, tag: u32, messages: impl IntoIterator<Item = Self>) -> Self {
        messages.into_iter().fold(self, |fields, one| fields.message(tag, one))
    }

    /// By name, each under its number.
    fn named(self, values: &BTreeMap<String, u64>, names: &[(u32, &str)]) -> Self {
        let value = |name: &str| values.get(name).copied().unwrap_or(0);
        names.iter().fold(self, |fields, (tag, name)| fields.number(*tag, value(name)))
    }
}

fn limit(value: Option<u64>) -> u64 {
    value.unwrap_or(u64::MAX)
}

pub fn of(stats: &Stats) -> Any {
    let (version, fields) = if stats.version == 2 { (2, v2(stats)) } else { (1, v1(stats)) };
    Any { type_url: format!("io.containerd.cgroups.v{version}.Metrics"), value: fields.0 }
}

fn v2(stats: &Stats) -> Fields {
    let pids =
        Fields::default().number(1, stats.pids.current.unwrap_or(0)).number(2, limit(stats.pids.limit));
    let events: &[_] =
        &[(1, "low"), (2, "high"), (3, "max"), (4, "oom"), (5, "oom_kill"), (6, "oom_group_kill")];
    Fields::default()
        .message(1, pids)
        .message(2, cpu_v2(&stats.cpu))
        .message(4, memory_v2(&stats.memory))
        .message(5, rdma(stats))
        .message(6, pressure(Fields::default().all(1, devices(stats)), 2, &stats.io.pressure))
        .all(7, stats.hugetlb.iter().map(|(size, pages)| huge_pages_v2(size, pages)))
        .message(8, Fields::default().named(&stats.memory.events, events))
        .all(9, stats.network.iter().map(interface))
}

fn cpu_v2(cpu: &Cpu) -> Fields {
    let micro = |nanoseconds: u64| nanoseconds / 1000;
    let fields = Fields::default()
        .number(1, micro(cpu.total))
        .number(2, micro(cpu.user))
        .number(3, micro(cpu.kernel))
        .number(4, cpu.periods)
        .number(5, cpu.throttled_periods)
        .number(6, micro(cpu.throttled_time));
    pressure(fields, 7, &cpu.pressure).number(8, cpu.bursts).number(9, micro(cpu.burst_time))
}

const MEMORY_V2: &[(u32, &str)] = &[
    (1, "anon"),
    (2, "file"),
    (3, "kernel_stack"),
    (4, "slab"),
    (5, "sock"),
    (6, "shmem"),
    (7, "file_mapped"),
    (8, "file_dirty"),
    (9, "file_writeback"),
    (10, "anon_thp"),
    (11, "inactive_anon"),
    (12, "active_anon"),
    (13, "inactive_file"),
    (14, "active_file"),
    (15, "unevictable"),
    (16, "slab_reclaimable"),
    (17, "slab_unreclaimable"),
    (18, "pgfault"),
    (19, "pgmajfault"),
    (22, "workingset_nodereclaim"),
    (23, "pgrefill"),
    (24, "pgscan"),
    (25, "pgsteal"),
    (26, "pgactivate"),
    (27, "pgdeactivate"),
    (28, "pglazyfree"),
    (29, "pglazyfreed"),
    (30, "thp_fault_alloc"),
    (31, "thp_collapse_alloc"),
];

fn memory_v2(memory: &Memory) -> Fields {
    // Since Linux 5.9 there are two of each.
    let both = |name: &str| -> u64 {
        let names = [name.to_string(), format!("{name}_anon"), format!("{name}_file")];
        names.iter().filter_map(|name| memory.stat.get(name)).sum()
    };
    let fields = Fields::default()
        .named(&memory.stat, MEMORY_V2)
        .number(20, both("workingset_refault"))
        .number(21, both("workingset_activate"))
        .number(32, memory.usage.current.unwrap_or(0))
        .number(33, limit(memory.usage.limit))
        .number(34, memory.swap.current.unwrap_or(0))
        .number(35, limit(memory.swap.limit))
        .number(36, memory.usage.peak.unwrap_or(0))
        .number(37, memory.swap.peak.unwrap_or(0));
    pressure(fields, 38, &memory.pressure)
}

fn pressure(fields: Fields, tag: u32, pressure: &Option<Pressure>) -> Fields {
    let stall = |stall: &Stall| {
        let averages =
            Fields::default().decimal(1, stall.avg10).decimal(2, stall.avg60).decimal(3, stall.avg300);
        averages.number(4, stall.total)
    };
    match pressure {
        None => fields,
        Some(Pressure { some, full, .. }) => {
            fields.message(tag, Fields::default().message(1, stall(some)).message(2, stall(full)))
        }
    }
}

/// One for each device, of entries with an operation each.
fn devices(stats: &Stats) -> Vec<Fields> {
    let mut devices: BTreeMap<(u64, u64), [u64; 4]> = BTreeMap::new();
    for (first, entries) in [(0, &stats.io.service_bytes), (2, &stats.io.serviced)] {
        for entry in entries {
            let at = match entry.op.to_ascii_lowercase().as_str() {
                "read" => first,
                "write" => first + 1,
                _ => continue,
            };
            devices.entry((entry.major, entry.minor)).or_default()[at] += entry.value;
        }
    }
    let fields = |((major, minor), values): ((u64, u64), [u64; 4])| {
        let [read_bytes, written, reads, writes] = values;
        let device = Fields::default().number(1, major).number(2, minor).number(3, read_bytes);
        device.number(4, written).number(5, reads).number(6, writes)
    };
    devices.into_iter().map(fields).collect()
}

fn huge_pages_v2(size: &str, pages: &HugePages) -> Fields {
    let used = Fields::default().number(1, pages.faulted.current.unwrap_or(0));
    used.number(2, limit(pages.faulted.limit)).text(3, size)
}

fn rdma(stats: &Stats) -> Fields {
    let entry = |(device, values): (&String, &BTreeMap<String, u64>)| {
        Fields::default().text(1, device).named(values, &[(2, "hca_handle"), (3, "hca_object")])
    };
    Fields::default().all(1, stats.rdma.iter().map(entry))
}

fn interface(of: &Interface) -> Fields {
    let (to, from) = (&of.received, &of.sent);
    Fields::default()
        .text(1, &of.name)
        .number(2, to.bytes)
        .number(3, to.packets)
        .number(4, to.errors)
        .number(5, to.dropped)
        .number(6, from.bytes)
        .number(7, from.packets)
        .number(8, from.errors)
        .number(9, from.dropped)
}

fn v1(stats: &Stats) -> Fields {
    // Here no limit is 0, as in Go's library.
    let pids =
        Fields::default().number(1, stats.pids.current.unwrap_or(0)).number(2, stats.pids.limit.unwrap_or(0));
    let oom = Fields::default()
        .named(&stats.memory.events, &[(1, "oom_kill_disable"), (2, "under_oom"), (3, "oom_kill")]);
    Fields::default()
        .all(1, stats.hugetlb.iter().map(|(size, pages)| huge_pages_v1(size, pages)))
        .message(2, pids)
        .message(3, cpu_v1(&stats.cpu))
        .message(4, memory_v1(&stats.memory))
        .message(5, block_v1(stats))
        .message(6, rdma(stats))
        .all(7, stats.network.iter().map(interface))
        .message(9, oom)
}

fn cpu_v1(cpu: &Cpu) -> Fields {
    let usage = Fields::default().number(1, cpu.total).number(2, cpu.kernel).number(3, cpu.user);
    let mut usage = usage;
    uint64::encode_packed(4, &cpu.per_cpu, &mut usage.0);
    let throttling = Fields::default().number(1, cpu.periods).number(2, cpu.throttled_periods);
    Fields::default().message(1, usage).message(2, throttling.number(3, cpu.throttled_time))
}

/// Under 1 to 15; the total of each 17 numbers later.
const MEMORY_V1: [&str; 15] = [
    "cache",
    "rss",
    "rss_huge",
    "mapped_file",
    "dirty",
    "writeback",
    "pgpgin",
    "pgpgout",
    "pgfault",
    "pgmajfault",
    "inactive_anon",
    "active_anon",
    "inactive_file",
    "active_file",
    "unevictable",
];

fn memory_v1(memory: &Memory) -> Fields {
    let value = |name: &str| memory.stat.get(name).copied().unwrap_or(0);
    let mut fields = Fields::default();
    for (tag, name) in (1..).zip(MEMORY_V1) {
        fields = fields.number(tag, value(name)).number(tag + 17, value(&format!("total_{name}")));
    }
    let limits = [(16, "hierarchical_memory_limit"), (17, "hierarchical_memsw_limit")];
    fields
        .named(&memory.stat, &limits)
        .message(33, counter(&memory.usage))
        .message(34, counter(&memory.swap))
        .message(35, counter(&memory.kernel))
        .message(36, counter(&memory.kernel_tcp))
}

fn counter(counter: &Counter) -> Fields {
    let now = Fields::default().number(1, limit(counter.limit)).number(2, counter.current.unwrap_or(0));
    now.number(3, counter.peak.unwrap_or(0)).number(4, counter.failures.unwrap_or(0))
}

fn huge_pages_v1(size: &str, pages: &HugePages) -> Fields {
    let used = Fields::default().number(1, pages.faulted.current.unwrap_or(0));
    used.number(2, pages.faulted.peak.unwrap_or(0))
        .number(3, pages.faulted.failures.unwrap_or(0))
        .text(4, size)
}

fn block_v1(stats: &Stats) -> Fields {
    let io = &stats.io;
    let lists = [
        &io.service_bytes,
        &io.serviced,
        &io.queued,
        &io.service_time,
        &io.wait_time,
        &io.merged,
        &io.time,
        &io.sectors,
    ];
    let entry = |entry: &IoEntry| {
        let device = Fields::default().text(1, &entry.op).number(3, entry.major).number(4, entry.minor);
        device.number(5, entry.value)
    };
    (1..).zip(lists).fold(Fields::default(), |fields, (tag, list)| fields.all(tag, list.iter().map(entry)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(version: u8) -> Stats {
        let json = serde_json::json!({
            "version": version,
            "cpu": { "total": 5_000_000, "perCpu": [1, 300] },
            "memory": { "stat": { "anon": 7, "rss": 9, "total_rss": 8 }, "usage": { "current": 3 } },
            "pids": { "current": 2 },
        });
        serde_json::from_value(json).unwrap()
    }

    /// Written by hand from the `.proto`.
    #[test]
    fn times_are_microseconds_in_v2_and_a_missing_limit_is_the_largest_number() {
        let any = of(&stats(2));
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
        let max: &[u8] = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        let pids = [b"\x0a\x0d\x08\x02\x10", max].concat();
        assert_eq!(any.value[..15], pids);
        assert_eq!(&any.value[15..20], b"\x12\x03\x08\x88\x27");
        let memory = [b"\x08\x07\x80\x02\x03\x88\x02", max].concat();
        assert!(any.value.windows(memory.len()).any(|part| part == memory), "{:x?}", any.value);
    }

    #[test]
    fn times_are_nanoseconds_in_v1() {
        let any = of(&stats(1));
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        assert_eq!(&any.value[..4], b"\x12\x02\x08\x02");
        assert_eq!(&any.value[4..19], b"\x1a\x0e\x0a\x0a\x08\xc0\x96\xb1\x02\x22\x03\x01\xac\x02\x12");
        assert!(any.value.windows(5).any(|part| part == b"\x10\x09\x98\x01\x08"), "{:x?}", any.value);
    }
}

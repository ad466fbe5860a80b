//! [`Stats`] as the `data` of one line of `runc events --stats`, which containerd and others read.
//!
//! Pure; the form is what runc 1.1 (v1) and 1.3 (v2) were seen to print: zero values are left out but for `limit` and
//! `failcnt`, and no limit is the largest number that the kernel uses for it.

use super::stats::{Counter, Cpu, Interface, IoEntry, Memory, Pressure, Stats};
use serde_json::{Map, Value, json};

impl Stats {
    /// The `data` of `runc events --stats`.
    pub fn to_runc(&self) -> Value {
        let mut pids = Map::new();
        add(&mut pids, "current", self.pids.current);
        add(&mut pids, "limit", self.pids.limit);
        json!({
            "cpu": cpu(&self.cpu),
            "cpuset": self.runc_cpuset(),
            "memory": self.runc_memory(),
            "pids": pids,
            "blkio": self.runc_blkio(),
            "hugetlb": self.runc_hugetlb(),
            "intel_rdt": {},
            "network_interfaces": network(&self.network),
        })
    }

    fn runc_cpuset(&self) -> Value {
        let mut object = Map::new();
        // In runc's order, for people who compare lines.
        for name in super::stats::CPUSET_V1.iter().filter(|name| **name != "effective_cpus") {
            let text = self.cpuset.get(*name).map(String::as_str);
            if !matches!(*name, "cpus" | "mems") {
                let value: i64 = text.and_then(|text| text.parse().ok()).unwrap_or(0);
                object.insert((*name).into(), value.into());
            } else if let Some(numbers) = text.map(list).filter(|numbers| !numbers.is_empty()) {
                object.insert((*name).into(), json!(numbers));
            }
        }
        object.into()
    }

    fn runc_memory(&self) -> Value {
        let memory = &self.memory;
        let mut object = Map::new();
        let cache = memory.stat.get(if self.version == 2 { "file" } else { "cache" });
        add(&mut object, "cache", cache.copied());
        let swap = if self.version == 2 { with_memory(memory) } else { memory.swap.clone() };
        for (name, counter) in [
            ("usage", &memory.usage),
            ("swap", &swap),
            ("kernel", &memory.kernel),
            ("kernelTCP", &memory.kernel_tcp),
        ] {
            object.insert(name.into(), self.runc_counter(counter));
        }
        object.insert("raw".into(), json!(memory.stat));
        if let Some(pressure) = self.shown_pressure(&memory.pressure) {
            object.insert("psi".into(), pressure);
        }
        object.into()
    }

    fn runc_counter(&self, counter: &Counter) -> Value {
        let unlimited = match (self.version, counter.current) {
            // This version of cgroup does not have it.
            (_, None) => 0,
            (2, Some(_)) => u64::MAX,
            _ => (i64::MAX as u64) & !0xfff,
        };
        let mut object = Map::new();
        object.insert("limit".into(), counter.limit.unwrap_or(unlimited).into());
        add(&mut object, "usage", counter.current);
        add(&mut object, "max", counter.peak);
        object.insert("failcnt".into(), counter.failures.unwrap_or(0).into());
        object.into()
    }

    fn runc_blkio(&self) -> Value {
        let io = &self.io;
        let mut object = Map::new();
        for (name, entries) in [
            ("ioServiceBytesRecursive", &io.service_bytes),
            ("ioServicedRecursive", &io.serviced),
            ("ioQueueRecursive", &io.queued),
            ("ioServiceTimeRecursive", &io.service_time),
            ("ioWaitTimeRecursive", &io.wait_time),
            ("ioMergedRecursive", &io.merged),
            ("ioTimeRecursive", &io.time),
            ("sectorsRecursive", &io.sectors),
        ] {
            if !entries.is_empty() {
                object.insert(name.into(), entries.iter().map(entry).collect());
            }
        }
        if let Some(pressure) = self.shown_pressure(&io.pressure) {
            object.insert("psi".into(), pressure);
        }
        object.into()
    }

    fn runc_hugetlb(&self) -> Value {
        let pages = self.hugetlb.iter().map(|(size, pages)| {
            let counter = if pages.reserved.current.is_some() { &pages.reserved } else { &pages.faulted };
            let mut object = Map::new();
            add(&mut object, "usage", counter.current);
            add(&mut object, "max", counter.peak);
            object.insert("failcnt".into(), pages.faulted.failures.unwrap_or(0).into());
            (size.clone(), Value::from(object))
        });
        Value::Object(pages.collect())
    }

    /// runc prints pressure on v2 only.
    fn shown_pressure(&self, pressure: &Option<Pressure>) -> Option<Value> {
        pressure.as_ref().filter(|_| self.version == 2).map(|pressure| json!(pressure))
    }
}

fn cpu(cpu: &Cpu) -> Value {
    let mut usage = Map::new();
    add(&mut usage, "total", Some(cpu.total));
    for (name, values) in
        [("percpu", &cpu.per_cpu), ("percpu_kernel", &cpu.per_cpu_kernel), ("percpu_user", &cpu.per_cpu_user)]
    {
        if !values.is_empty() {
            usage.insert(name.into(), json!(values));
        }
    }
    usage.insert("kernel".into(), cpu.kernel.into());
    usage.insert("user".into(), cpu.user.into());
    let mut throttling = Map::new();
    add(&mut throttling, "periods", Some(cpu.periods));
    add(&mut throttling, "throttledPeriods", Some(cpu.throttled_periods));
    add(&mut throttling, "throttledTime", Some(cpu.throttled_time));
    let mut object = json!({ "usage": usage, "throttling": throttling });
    // Only on v2: on v1 runc prints lists by CPU instead.
    if let (Some(pressure), true) = (&cpu.pressure, cpu.per_cpu.is_empty()) {
        object["psi"] = json!(pressure);
    }
    object
}

/// runc gives these no JSON names, so they have those of the Go fields.
fn network(interfaces: &[Interface]) -> Value {
    if interfaces.is_empty() {
        return Value::Null;
    }
    let row = |Interface { name, received, sent }: &Interface| {
        json!({
            "Name": name,
            "RxBytes": received.bytes,
            "RxPackets": received.packets,
            "RxErrors": received.errors,
            "RxDropped": received.dropped,
            "TxBytes": sent.bytes,
            "TxPackets": sent.packets,
            "TxErrors": sent.errors,
            "TxDropped": sent.dropped,
        })
    };
    interfaces.iter().map(row).collect()
}

/// v1 counts memory and swap together, and so does runc's JSON on v2.
fn with_memory(memory: &Memory) -> Counter {
    let sum = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_add(b?));
    Counter {
        current: sum(memory.usage.current, memory.swap.current),
        peak: None,
        limit: sum(memory.usage.limit, memory.swap.limit),
        failures: None,
    }
}

fn entry(entry: &IoEntry) -> Value {
    let mut object = Map::new();
    add(&mut object, "major", Some(entry.major));
    add(&mut object, "minor", Some(entry.minor));
    if !entry.op.is_empty() {
        object.insert("op".into(), entry.op.as_str().into());
    }
    add(&mut object, "value", Some(entry.value));
    object.into()
}

/// Adds a member, unless its value is empty, as Go's `omitempty` does.
fn add(object: &mut Map<String, Value>, key: &str, value: Option<u64>) {
    if let Some(value) = value.filter(|&value| value != 0) {
        object.insert(key.into(), value.into());
    }
}

/// `0-2,5` as numbers.
fn list(text: &str) -> Vec<u16> {
    text.split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.trim().parse::<u16>().ok()?..=last.trim().parse::<u16>().ok()?)
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Stats;

    /// Fails where serde_json sorts members: its feature `preserve_order` belongs to this crate.
    #[test]
    fn members_are_in_the_order_of_runc() {
        let text = Stats::default().to_runc().to_string();
        let places = ["\"cpu\":", "\"cpuset\":", "\"memory\":", "\"pids\":", "\"blkio\":", "\"hugetlb\":"];
        let places: Vec<_> = places.iter().map(|name| text.find(name)).collect();
        assert!(places.is_sorted() && !places.contains(&None), "{text}");
    }
}

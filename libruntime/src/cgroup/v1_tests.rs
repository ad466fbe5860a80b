use super::*;
use crate::cgroup::write::Value;

/// The operations as lines: `file=value`, groups in brackets.
fn lines(json: &str) -> Result<Vec<String>> {
    fn line(write: &Write) -> String {
        match &write.value {
            Value::Is(value) => format!("{}={value}", write.file),
            Value::AfterFirstWord(value) => format!("{}=… {value}", write.file),
        }
    }
    let resources: LinuxResources = serde_json::from_str(json).unwrap();
    let list = operations(&resources)?;
    Ok(list
        .iter()
        .map(|op| match op {
            Op::Set(write) => line(write),
            Op::Coupled(writes) => format!("[{}]", writes.iter().map(line).collect::<Vec<_>>().join(" ")),
            Op::AtLeastUsage { file, limit, .. } => format!("{file}<={limit}"),
            Op::RaiseParentBudgets { runtime, period } => format!("down {runtime}/{period:?}"),
        })
        .collect())
}

fn check(json: &str, expected: &[&str]) {
    assert_eq!(lines(json).unwrap(), expected, "{json}");
}

#[test]
fn memory() {
    check(
        r#"{"memory":{"limit":1000,"swap":3000}}"#,
        &["[memory.limit_in_bytes=1000 memory.memsw.limit_in_bytes=3000]"],
    );
    check(r#"{"memory":{"limit":-1}}"#, &["[memory.limit_in_bytes=-1 memory.memsw.limit_in_bytes=-1]"]);
    check(r#"{"memory":{"limit":0,"swap":0}}"#, &[]);
    check(
        r#"{"memory":{"limit":5,"checkBeforeUpdate":true}}"#,
        &["memory.usage_in_bytes<=5", "[memory.limit_in_bytes=5]"],
    );
    check(
        r#"{"memory":{"reservation":7,"kernel":8,"kernelTCP":9,"swappiness":0,"useHierarchy":true,"disableOOMKiller":true}}"#,
        &[
            "memory.soft_limit_in_bytes=7",
            "memory.kmem.limit_in_bytes=8",
            "memory.kmem.tcp.limit_in_bytes=9",
            "memory.swappiness=0",
            "memory.use_hierarchy=1",
            "memory.oom_control=1",
        ],
    );
}

#[test]
fn cpu() {
    check(
        r#"{"cpu":{"shares":512,"quota":50000,"period":100000,"burst":10,"cpus":"0-1","mems":"0"}}"#,
        &[
            "cpu.shares=512",
            "[cpu.cfs_period_us=100000 cpu.cfs_quota_us=50000 cpu.cfs_burst_us=10]",
            "cpuset.cpus=0-1",
            "cpuset.mems=0",
        ],
    );
    check(r#"{"cpu":{"shares":512,"idle":1}}"#, &["cpu.shares=512", "cpu.idle=1"]);
    check(r#"{"cpu":{"shares":512,"idle":0}}"#, &["cpu.idle=0", "cpu.shares=512"]);
    check(r#"{"cpu":{"shares":0,"quota":0,"period":0}}"#, &[]);
    check(r#"{"cpu":{"quota":-1}}"#, &["[cpu.cfs_quota_us=-1]"]);
    check(
        r#"{"cpu":{"realtimePeriod":1000000,"realtimeRuntime":950000}}"#,
        &["down 950000/Some(1000000)", "[cpu.rt_period_us=1000000 cpu.rt_runtime_us=950000]"],
    );
}

#[test]
fn pids_zero_is_one_and_minus_one_is_max() {
    check(r#"{"pids":{"limit":20}}"#, &["pids.max=20"]);
    check(r#"{"pids":{"limit":0}}"#, &["pids.max=1"]);
    check(r#"{"pids":{"limit":-1}}"#, &["pids.max=max"]);
}

#[test]
fn block_io() {
    check(
        r#"{"blockIO":{"weight":500,"leafWeight":300,"weightDevice":[{"major":8,"minor":16,"weight":5,"leafWeight":6}],
            "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":600}],
            "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":300}]}}"#,
        &[
            "blkio.weight=500",
            "blkio.leaf_weight=300",
            "blkio.weight_device=8:16 5",
            "blkio.leaf_weight_device=8:16 6",
            "blkio.throttle.read_bps_device=8:0 600",
            "blkio.throttle.write_iops_device=8:0 300",
        ],
    );
    check(r#"{"blockIO":{"weight":0}}"#, &[]);
}

#[test]
fn huge_pages_network_rdma() {
    check(
        r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4096}]}"#,
        &["hugetlb.2MB.rsvd.limit_in_bytes=4096", "hugetlb.2MB.limit_in_bytes=4096"],
    );
    check(
        r#"{"network":{"classID":1048577,"priorities":[{"name":"eth0","priority":5}]}}"#,
        &["net_cls.classid=1048577", "net_prio.ifpriomap=eth0 5"],
    );
    check(
        r#"{"rdma":{"b":{"hcaObjects":9},"a":{"hcaHandles":3,"hcaObjects":10}}}"#,
        &["rdma.max=a hca_handle=3 hca_object=10", "rdma.max=b hca_object=9"],
    );
}

#[test]
fn what_cannot_be_meant_is_refused_by_name() {
    for (json, place) in [
        (
            r#"{"hugepageLimits":[{"pageSize":"../2MB","limit":1}]}"#,
            "linux.resources.hugepageLimits[0].pageSize",
        ),
        (r#"{"hugepageLimits":[{"pageSize":"MB","limit":1}]}"#, "linux.resources.hugepageLimits[0].pageSize"),
        (r#"{"rdma":{"a":{}}}"#, "linux.resources.rdma.a"),
        (r#"{"unified":{"memory.high":"1"}}"#, "linux.resources.unified.memory.high"),
    ] {
        let error = lines(json).unwrap_err();
        let found = error
            .config_path()
            .map(str::to_owned)
            .or(error.diagnostics().first().map(|f| f.config_path.clone()));
        assert_eq!(found.as_deref(), Some(place));
    }
}

use super::*;

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

/// What runc 1.3.6 and crun 1.28 were seen to write to cpu.weight.
#[test]
fn shares_become_weights_on_the_curve_of_crun_and_runc() {
    for (shares, weight) in [
        (0, 1),
        (1, 1),
        (2, 1),
        (3, 2),
        (4, 2),
        (10, 4),
        (50, 10),
        (100, 17),
        (256, 35),
        (512, 59),
        (768, 80),
        (1000, 99),
        (1023, 100),
        (1024, 100),
        (1025, 101),
        (1536, 138),
        (2048, 174),
        (4096, 303),
        (8192, 532),
        (10240, 639),
        (65536, 3023),
        (100_000, 4340),
        (200_000, 7899),
        (262_143, 10000),
        (262_144, 10000),
        (u64::MAX, 10000),
    ] {
        assert_eq!(weight_of_shares(shares), weight, "{shares}");
    }
}

#[test]
fn swap_is_what_is_above_memory() {
    check(r#"{"memory":{"limit":1000,"swap":3000}}"#, &["memory.swap.max=2000", "memory.max=1000"]);
    check(r#"{"memory":{"limit":1000,"swap":1000}}"#, &["memory.swap.max=0", "memory.max=1000"]);
    check(r#"{"memory":{"limit":1000,"swap":-1}}"#, &["memory.swap.max=max", "memory.max=1000"]);
    check(r#"{"memory":{"limit":-1}}"#, &["memory.swap.max=max", "memory.max=max"]);
    check(r#"{"memory":{"limit":1000}}"#, &["memory.max=1000"]);
    check(r#"{"memory":{"reservation":7}}"#, &["memory.low=7"]);
    check(
        r#"{"memory":{"limit":5,"checkBeforeUpdate":true,"disableOOMKiller":false,"useHierarchy":true}}"#,
        &["memory.current<=5", "memory.max=5"],
    );
}

#[test]
fn cpu() {
    check(r#"{"cpu":{"quota":50000,"period":100000}}"#, &["[cpu.max=50000 100000]"]);
    check(r#"{"cpu":{"quota":50000}}"#, &["[cpu.max=50000]"]);
    check(r#"{"cpu":{"quota":-1,"burst":10}}"#, &["[cpu.max=max cpu.max.burst=10]"]);
    check(r#"{"cpu":{"period":20000}}"#, &["[cpu.max=… 20000]"]);
    check(r#"{"cpu":{"shares":1024,"idle":1}}"#, &["cpu.idle=1"]);
    check(r#"{"cpu":{"cpus":"0","mems":"","shares":0}}"#, &["cpuset.cpus=0"]);
}

#[test]
fn block_io() {
    check(
        r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":16,"weight":10}],
            "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":600}],
            "throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":0}],
            "throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":3}]}}"#,
        &[
            "io.bfq.weight=default 500",
            "io.bfq.weight=8:16 10",
            "io.max=8:0 rbps=600",
            "io.max=8:0 wbps=max",
            "io.max=8:0 riops=3",
        ],
    );
    // As runc 1.3.6 and crun 1.28 write it to io.weight.
    let weights = [10, 11, 50, 100, 500, 999, 1000].map(io_weight);
    assert_eq!(weights, [1, 11, 405, 910, 4950, 9989, 10000]);
}

#[test]
fn unified_files_are_written_in_order_of_their_names() {
    check(
        r#"{"unified":{"memory.high":"5","io.max":"8:0 rbps=1\n8:16 rbps=2"}}"#,
        &["io.max=8:0 rbps=1\n8:16 rbps=2", "memory.high=5"],
    );
}

#[test]
fn what_v2_has_not_or_cannot_be_meant_is_refused_by_name() {
    for (json, place) in [
        (r#"{"memory":{"swappiness":10}}"#, "memory.swappiness"),
        (r#"{"memory":{"kernel":10}}"#, "memory.kernel"),
        (r#"{"memory":{"kernelTCP":10}}"#, "memory.kernelTCP"),
        (r#"{"memory":{"disableOOMKiller":true}}"#, "memory.disableOOMKiller"),
        (r#"{"memory":{"swap":10}}"#, "memory.swap"),
        (r#"{"memory":{"limit":11,"swap":10}}"#, "memory.swap"),
        (r#"{"cpu":{"realtimeRuntime":10}}"#, "cpu.realtimeRuntime"),
        (r#"{"cpu":{"realtimePeriod":10}}"#, "cpu.realtimePeriod"),
        (r#"{"blockIO":{"leafWeight":10}}"#, "blockIO.leafWeight"),
        (r#"{"network":{"classID":1}}"#, "network.classID"),
        (r#"{"network":{"priorities":[{"name":"a","priority":1}]}}"#, "network.priorities"),
        (r#"{"unified":{"../memory.max":"1"}}"#, "unified.../memory.max"),
        (r#"{"unified":{"memory":"1"}}"#, "unified.memory"),
        (r#"{"unified":{".x":"1"}}"#, "unified..x"),
        (r#"{"unified":{"..":"1"}}"#, "unified..."),
        (r#"{"unified":{"cgroup.procs":"1"}}"#, "unified.cgroup.procs"),
    ] {
        let error = lines(json).unwrap_err();
        let found = error
            .config_path()
            .map(str::to_owned)
            .or(error.diagnostics().first().map(|f| f.config_path.clone()));
        assert_eq!(found.as_deref(), Some(format!("linux.resources.{place}").as_str()));
    }
}

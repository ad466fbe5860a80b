//! Privileges and priorities of the program: capabilities, no_new_privs, scheduling, I/O priority,
//! processors, personality, memory policy. Ids and limits are in process.rs.

use crate::case::Need::{Kernel, Root};
use crate::case::{Case, Outcome, case, check, same};
use crate::test::Test;
use serde_json::{Value, json};

pub const CASES: &[Case] = &[
    case!(capability_sets_are_exactly_those_configured),
    case!(no_capabilities_in_the_configuration_means_none),
    case!(ambient_capabilities_are_set, [Root]),
    case!(a_user_other_than_root_keeps_no_ambient_capabilities, [Root]),
    case!(a_user_other_than_root_has_the_effective_set_of_the_configuration, [Root]),
    case!(all_capabilities_of_the_caller_can_be_given),
    case!(an_unknown_capability_is_no_error),
    case!(no_new_privs_follows_the_configuration),
    case!(a_program_without_no_new_privs_can_gain_ids, [Root]),
    case!(scheduler_batch_with_nice_is_set),
    case!(scheduler_fifo_with_priority_is_set, [Root]),
    case!(scheduler_round_robin_with_reset_on_fork_is_set, [Root]),
    case!(scheduler_idle_is_set),
    case!(scheduler_deadline_is_set, [Root]),
    case!(scheduler_with_an_unknown_policy_is_refused),
    case!(io_priority_is_set),
    case!(io_priority_of_the_idle_class_is_set),
    case!(io_priority_with_an_unknown_class_is_refused),
    case!(personality_linux32_is_set),
    case!(personality_with_an_unknown_domain_is_refused),
    case!(personality_flags_are_refused),
    case!(memory_policy_is_set, [Kernel(5, 15)]),
    case!(memory_policy_with_an_unknown_mode_is_refused),
    case!(exec_cpu_affinity_applies_to_exec_only),
];

const CHOWN: u64 = 1 << 0;
const KILL: u64 = 1 << 5;
const NET_RAW: u64 = 1 << 13;
const SYS_ADMIN: u64 = 1 << 21;

/// A capability set as the probe saw it.
fn set(probe: &Value, name: &str) -> u64 {
    u64::from_str_radix(probe[name].as_str().unwrap_or_default(), 16).unwrap_or(u64::MAX)
}

fn capability_sets_are_exactly_those_configured(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set(
        "process.capabilities",
        json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SYS_ADMIN"],
            "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
            "effective": ["CAP_CHOWN", "CAP_NET_RAW"],
            "inheritable": ["CAP_KILL"],
        }),
    );
    config.set("process.noNewPrivileges", false);
    let probe = t.probe(&config, &[])?;
    same("bounding", set(&probe, "CapBnd"), CHOWN | KILL | NET_RAW | SYS_ADMIN)?;
    same("inheritable", set(&probe, "CapInh"), KILL)?;
    same("ambient", set(&probe, "CapAmb"), 0)?;
    // The exec of a program as root gives root all of the bounding set.
    same("permitted", set(&probe, "CapPrm"), CHOWN | KILL | NET_RAW | SYS_ADMIN)
}

fn no_capabilities_in_the_configuration_means_none(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("process.capabilities", json!({}));
    let probe = t.probe(&config, &[])?;
    for name in ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"] {
        same(name, set(&probe, name), 0)?;
    }
    Ok(())
}

fn ambient_capabilities_are_set(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("process.user", json!({ "uid": 1000, "gid": 1000 }));
    for name in ["bounding", "permitted", "effective", "inheritable", "ambient"] {
        config.set(&format!("process.capabilities.{name}"), json!(["CAP_CHOWN", "CAP_NET_RAW"]));
    }
    let probe = t.probe(&config, &[])?;
    for name in ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"] {
        same(name, set(&probe, name), CHOWN | NET_RAW)?;
    }
    Ok(())
}

fn a_user_other_than_root_keeps_no_ambient_capabilities(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("process.user", json!({ "uid": 1000, "gid": 1000 }));
    let probe = t.probe(&config, &[])?;
    // CVE-2016-8867: after exec such a user has nothing, whatever permitted and effective say.
    for name in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        same(name, set(&probe, name), 0)?;
    }
    check!(set(&probe, "CapBnd") != 0, "the bounding set is empty");
    Ok(())
}

fn a_user_other_than_root_has_the_effective_set_of_the_configuration(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("process.user", json!({ "uid": 1000, "gid": 1000 }));
    config.set(
        "process.capabilities",
        json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_CHOWN", "CAP_KILL"], "inheritable": ["CAP_CHOWN", "CAP_KILL"],
            "ambient": ["CAP_KILL"]
        }),
    );
    let probe = t.probe(&config, &[])?;
    same("ambient", set(&probe, "CapAmb"), KILL)?;
    same("effective", set(&probe, "CapEff"), KILL)
}

fn all_capabilities_of_the_caller_can_be_given(t: &Test) -> Outcome {
    let names = capability_names();
    let have: Vec<&str> =
        (0..names.len()).filter(|n| t.host.capabilities & (1 << n) != 0).map(|n| names[n]).collect();
    let mut config = t.config();
    config.capabilities(&have);
    let probe = t.probe(&config, &[])?;
    let mask = (1u64 << names.len()) - 1;
    same("effective", set(&probe, "CapEff"), t.host.capabilities & mask)?;
    same("bounding", set(&probe, "CapBnd"), t.host.capabilities & mask)
}

/// By number, as capabilities(7) has them.
fn capability_names() -> Vec<&'static str> {
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID \
     CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW \
     CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT \
     CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD \
     CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG \
     CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE"
        .split_whitespace()
        .collect()
}

fn an_unknown_capability_is_no_error(t: &Test) -> Outcome {
    // Any value which cannot be mapped to a relevant kernel interface MUST be logged as a warning (spec).
    let mut config = t.config();
    // Before 1.1 the spec wanted an error.
    config.set("ociVersion", "1.1.0");
    config.capabilities(&["CAP_KILL", "CAP_OF_TOMORROW"]);
    same("effective", set(&t.probe(&config, &[])?, "CapEff"), KILL)
}

fn no_new_privs_follows_the_configuration(t: &Test) -> Outcome {
    let mut config = t.config();
    for (value, wanted) in [(true, "1"), (false, "0")] {
        config.set("process.noNewPrivileges", value);
        same("NoNewPrivs", t.probe(&config, &[])?["NoNewPrivs"].as_str(), Some(wanted))?;
    }
    Ok(())
}

fn a_program_without_no_new_privs_can_gain_ids(t: &Test) -> Outcome {
    let flags = nix::sys::statvfs::statvfs(&t.dir)?.flags();
    if flags.contains(nix::sys::statvfs::FsFlags::ST_NOSUID) {
        return crate::case::skip("needs a TMPDIR that is not nosuid");
    }
    for (value, wanted) in [(false, "[1000, 0]"), (true, "[1000, 1000]")] {
        let mut config = t.config();
        config.set("process.noNewPrivileges", value).set("process.user", json!({ "uid": 1000, "gid": 1000 }));
        config.args(&["/setuid"]);
        let c = t.container(&config)?;
        std::fs::copy(c.path("/probe"), c.path("/setuid"))?;
        std::fs::set_permissions(c.path("/setuid"), std::os::unix::fs::PermissionsExt::from_mode(0o4755))?;
        let uid = c.run()?.ok()?.json()?["uid"].clone();
        same("real and effective", format!("[{}, {}]", uid[0], uid[1]).as_str(), wanted)?;
    }
    Ok(())
}

fn scheduling(t: &Test, scheduler: Value) -> Outcome<Value> {
    let policy = scheduler["policy"].as_str().unwrap_or_default();
    let realtime = ["SCHED_FIFO", "SCHED_RR"].contains(&policy);
    if realtime && t.host.cgroup("cpu", "cpu.rt_runtime_us").exists() {
        return crate::case::skip("a new cgroup has no real-time budget on this kernel (RT_GROUP_SCHED)");
    }
    let mut config = t.config();
    config.set("process.scheduler", scheduler);
    if t.host.root {
        config.push("process.capabilities.bounding", "CAP_SYS_NICE");
        config.push("process.capabilities.permitted", "CAP_SYS_NICE");
        config.push("process.capabilities.effective", "CAP_SYS_NICE");
    }
    Ok(t.probe(&config, &[])?["scheduler"].clone())
}

fn scheduler_batch_with_nice_is_set(t: &Test) -> Outcome {
    let found = scheduling(t, json!({ "policy": "SCHED_BATCH", "nice": 7 }))?;
    same("policy and nice", (found["policy"].as_i64(), found["nice"].as_i64()), (Some(3), Some(7)))
}

fn scheduler_fifo_with_priority_is_set(t: &Test) -> Outcome {
    let found = scheduling(t, json!({ "policy": "SCHED_FIFO", "priority": 9 }))?;
    same("policy and priority", (found["policy"].as_i64(), found["priority"].as_i64()), (Some(1), Some(9)))
}

fn scheduler_round_robin_with_reset_on_fork_is_set(t: &Test) -> Outcome {
    let wanted = json!({ "policy": "SCHED_RR", "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"] });
    let found = scheduling(t, wanted)?;
    same("policy and flags", (found["policy"].as_i64(), found["flags"].as_i64()), (Some(2), Some(1)))
}

fn scheduler_idle_is_set(t: &Test) -> Outcome {
    same("policy", scheduling(t, json!({ "policy": "SCHED_IDLE" }))?["policy"].as_i64(), Some(5))
}

fn scheduler_deadline_is_set(t: &Test) -> Outcome {
    let wanted = json!({
        "policy": "SCHED_DEADLINE", "runtime": 2_000_000, "deadline": 20_000_000, "period": 40_000_000
    });
    let found = scheduling(t, wanted)?;
    let times = (found["runtime"].as_i64(), found["deadline"].as_i64(), found["period"].as_i64());
    same("policy", found["policy"].as_i64(), Some(6))?;
    same("times", times, (Some(2_000_000), Some(20_000_000), Some(40_000_000)))
}

fn scheduler_with_an_unknown_policy_is_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("process.scheduler", json!({ "policy": "SCHED_FAIREST" }));
    t.run(&config)?.refused()?;
    Ok(())
}

fn io_priority_is_set(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("process.ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 }));
    same("ioprio", t.probe(&config, &[])?["ioprio"].as_i64(), Some(2 << 13 | 6))
}

fn io_priority_of_the_idle_class_is_set(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("process.ioPriority", json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 }));
    same("ioprio", t.probe(&config, &[])?["ioprio"].as_i64(), Some(3 << 13))
}

fn io_priority_with_an_unknown_class_is_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("process.ioPriority", json!({ "class": "IOPRIO_CLASS_BEST", "priority": 0 }));
    t.run(&config)?.refused()?;
    Ok(())
}

fn personality_linux32_is_set(t: &Test) -> Outcome {
    let mut config = t.config();
    for (domain, number) in [("LINUX", 0), ("LINUX32", 8)] {
        config.set("linux.personality", json!({ "domain": domain }));
        same(domain, t.probe(&config, &[])?["personality"].as_i64(), Some(number))?;
    }
    Ok(())
}

fn personality_with_an_unknown_domain_is_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.personality", json!({ "domain": "HURD" }));
    t.run(&config)?.refused()?;
    Ok(())
}

fn personality_flags_are_refused(t: &Test) -> Outcome {
    // No flag value is supported by the spec: "MUST generate an error for unsupported values".
    let mut config = t.config();
    config.set("linux.personality", json!({ "domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"] }));
    t.run(&config)?.refused()?;
    Ok(())
}

fn memory_policy_is_set(t: &Test) -> Outcome {
    let mut config = t.config();
    for (mode, flags, number) in [
        ("MPOL_BIND", vec![], 2),
        ("MPOL_INTERLEAVE", vec!["MPOL_F_STATIC_NODES"], 3 | 1 << 15),
        ("MPOL_PREFERRED", vec!["MPOL_F_RELATIVE_NODES"], 1 | 1 << 14),
    ] {
        config.set("linux.memoryPolicy", json!({ "mode": mode, "nodes": "0", "flags": flags }));
        let found = t.probe(&config, &[])?["memoryPolicy"].clone();
        same(mode, (found["mode"].as_i64(), found["nodes"].as_i64()), (Some(number), Some(1)))?;
    }
    Ok(())
}

fn memory_policy_with_an_unknown_mode_is_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.memoryPolicy", json!({ "mode": "MPOL_NEAR", "nodes": "0" }));
    t.run(&config)?.refused()?;
    Ok(())
}

fn exec_cpu_affinity_applies_to_exec_only(t: &Test) -> Outcome {
    let all = t.probe(&t.config(), &[])?["affinity"].clone();
    let count = all.as_array().map_or(0, Vec::len);
    if count < 2 {
        return crate::case::skip("needs two processors");
    }
    let mut config = t.sleeper();
    config.set("process.execCPUAffinity", json!({ "initial": "0-1", "final": "1" }));
    let c = t.detached(&config)?;
    same("of exec", &c.exec_probe(&[])?["affinity"], &json!([1]))?;
    config.args(&["/probe"]);
    same("of the container", &t.run(&config)?.ok()?.json()?["affinity"], &all)
}

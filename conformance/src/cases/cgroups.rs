//! Cgroups: limits as the files say them, on v1 and v2, the path, devices, freezing, update, and that
//! nothing is left. The command line of `update` is here, that of other verbs in cli.rs.

use crate::case::Need::{Capability, Cgroup, Controller, Root, V1, V2};
use crate::case::{Case, Outcome, case, check, contains, same};
use crate::process;
use crate::test::{Container, Test, pause};
use serde_json::{Value, json};
use std::fs;

/// For a score below the caller's own.
const CAP_SYS_RESOURCE: u32 = 24;

pub const CASES: &[Case] = &[
    case!(the_process_is_in_the_configured_cgroup, [Cgroup]),
    case!(without_a_path_a_cgroup_is_made, [Cgroup]),
    case!(a_relative_path_is_below_something, [Cgroup]),
    case!(the_cgroup_is_gone_after_delete, [Cgroup]),
    case!(the_cgroup_is_gone_after_a_failed_create, [Cgroup]),
    case!(pids_limit_v1, [Root, V1, Controller("pids")]),
    case!(pids_limit_v2, [Cgroup, V2, Controller("pids")]),
    case!(pids_limit_of_minus_one_is_unlimited, [Cgroup, Controller("pids")]),
    case!(pids_limit_of_zero_was_unlimited, [Cgroup, Controller("pids")]),
    case!(pids_limit_of_zero_was_none_in_an_update, [Cgroup, Controller("pids")]),
    case!(pids_limit_of_one_is_enough, [Cgroup, Controller("pids")]),
    case!(pids_limit_is_enforced, [Cgroup, Controller("pids")]),
    case!(memory_limits_v1, [Root, V1, Controller("memory")]),
    case!(memory_limits_v2, [Cgroup, V2, Controller("memory")]),
    case!(memory_limit_ends_a_program_that_takes_more, [Cgroup, Controller("memory")]),
    case!(memory_limit_too_low_to_start_in_is_an_error, [Cgroup, V2, Controller("memory")]),
    case!(
        memory_that_is_used_up_ends_no_runtime_in_an_exec,
        [Cgroup, V2, Controller("memory"), Capability(CAP_SYS_RESOURCE)]
    ),
    case!(memory_swap_of_minus_one_is_unlimited_v2, [Cgroup, V2, Controller("memory")]),
    case!(memory_swappiness_v1, [Root, V1, Controller("memory")]),
    case!(memory_disable_oom_killer_v1, [Root, V1, Controller("memory")]),
    case!(cpu_shares_and_quota_v1, [Root, V1, Controller("cpu")]),
    case!(cpu_weight_and_max_v2, [Cgroup, V2, Controller("cpu")]),
    case!(cpu_weight_of_the_ends_of_shares_v2, [Cgroup, V2, Controller("cpu")]),
    case!(cpu_quota_of_minus_one_is_unlimited, [Cgroup, Controller("cpu")]),
    case!(cpu_burst_is_set, [Cgroup, Controller("cpu")]),
    case!(cpu_idle_is_set, [Cgroup, Controller("cpu")]),
    case!(cpuset_is_set, [Cgroup, Controller("cpuset")]),
    case!(hugepage_limits_are_set, [Root, Controller("hugetlb")]),
    case!(block_weight_v1, [Root, V1, Controller("blkio")]),
    case!(unified_files_are_written, [Cgroup, V2, Controller("pids")]),
    case!(unified_with_an_unknown_file_is_refused, [Cgroup, V2]),
    case!(unified_with_a_path_is_refused, [Cgroup, V2]),
    case!(unified_on_v1_is_refused, [Root, V1]),
    case!(a_limit_that_the_kernel_refuses_is_an_error, [Cgroup, Controller("pids")]),
    case!(an_unknown_hugepage_size_is_refused, [Controller("hugetlb")]),
    case!(devices_are_denied_unless_allowed, [Root, Capability(27)]),
    case!(devices_allowed_for_reading_only, [Root, Capability(27)]),
    case!(devices_default_ones_stay_usable),
    case!(devices_later_rules_win, [Root, Capability(27)]),
    case!(devices_with_wildcards, [Root, Capability(27)]),
    case!(pause_and_resume_stop_and_go_on, [Cgroup]),
    case!(pause_twice_and_resume_of_a_running_one, [Cgroup]),
    case!(kill_of_a_paused_container, [Cgroup]),
    case!(delete_force_of_a_paused_container, [Cgroup]),
    case!(update_from_a_file, [Cgroup, Controller("pids")]),
    case!(update_from_standard_input, [Cgroup, Controller("memory")]),
    case!(update_by_options, [Cgroup, Controller("memory")]),
    case!(update_with_a_bad_value_is_refused, [Cgroup]),
    case!(update_of_a_created_container, [Cgroup, Controller("pids")]),
    case!(kill_all_reaches_processes_without_pid_namespace, [Root]),
    case!(delete_ends_processes_left_in_the_cgroup, [Root]),
    case!(cgroup_mount_shows_the_own_cgroup_v2, [Cgroup, V2]),
    case!(cgroup_mount_shows_the_controllers_v1, [Root, V1]),
    case!(cgroup_mount_is_read_only_with_ro, [Cgroup]),
    case!(cgroup_mount_without_a_cgroup_namespace_v1, [Root, V1]),
    case!(cgroup_of_a_user_namespace_is_delegated_v2, [Root, V2]),
    case!(events_gives_statistics, [Cgroup]),
];

fn limited(t: &Test, resources: Value) -> Outcome<Container> {
    let mut config = t.sleeper();
    config.set("linux.resources", resources);
    t.detached(&config)
}

/// A file of the container's cgroup has the value.
fn has(t: &Test, c: &Container, controller: &str, file: &str, wanted: &str) -> Outcome {
    same(&format!("{controller} {file}"), t.limit(c, controller, file)?.as_str(), wanted)
}

fn the_process_is_in_the_configured_cgroup(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let wanted = format!("{}/{}", t.cgroup, c.id);
    let text = fs::read_to_string(format!("/proc/{}/cgroup", c.pid()?))?;
    for controller in ["pids", "memory", "freezer", "devices", "cpu"] {
        let line = text.lines().find(|line| {
            line.starts_with("0::") && t.host.unified
                || line.split(':').nth(1).is_some_and(|names| names.split(',').any(|name| name == controller))
        });
        if let Some(line) = line {
            check!(line.ends_with(&wanted), "{controller}: {line}, wanted {wanted}");
        }
    }
    Ok(())
}

fn without_a_path_a_cgroup_is_made(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("linux.cgroupsPath", false);
    // The name of the cgroup will be made of the id, next to those of everybody else.
    let mut c = t.container(&config)?;
    c.id = format!("conformance-{}", std::process::id());
    c.run_with(&["--detach"])?.ok()?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", c.pid()?))?;
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let of = |text: &str| {
        text.lines().find(|line| line.contains(":pids:") || line.starts_with("0::")).map(str::to_owned)
    };
    check!(of(&text) != of(&own), "it is in the caller's cgroup: {text}");
    contains("path", &text, &c.id)?;
    let pids = of(&text).unwrap_or_default();
    let path = pids.splitn(3, ':').nth(2).unwrap_or_default().to_owned();
    c.delete_force()?.ok()?;
    check!(!t.host.cgroup("pids", &path).exists(), "{path} is left");
    Ok(())
}

fn a_relative_path_is_below_something(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    let relative = format!("{}/relative", t.cgroup.trim_start_matches('/'));
    config.set("linux.cgroupsPath", relative.as_str());
    let c = t.detached(&config)?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", c.pid()?))?;
    contains("path", &text, &relative)?;
    c.delete_force()?.ok()?;
    // A runtime may put it below the cgroup that it runs in, which differs by hierarchy; what it made
    // above is nobody's then.
    for line in text.lines() {
        let [_, controllers, path] = line.splitn(3, ':').collect::<Vec<_>>()[..] else { continue };
        let dir = t.host.cgroup(controllers.split(',').next().unwrap_or_default(), path);
        check!(!dir.exists(), "{} is left", dir.display());
        if !path.starts_with(&t.cgroup) {
            dir.ancestors().skip(1).take(2).for_each(|above| drop(fs::remove_dir(above)));
        }
    }
    Ok(())
}

fn cgroups_of(t: &Test, c: &Container) -> Vec<std::path::PathBuf> {
    let all = t.host.cgroups(&format!("{}/{}", t.cgroup, c.id));
    all.into_iter().filter(|path| path.exists()).collect()
}

fn the_cgroup_is_gone_after_delete(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    check!(!cgroups_of(t, &c).is_empty(), "no cgroup");
    c.stop()?;
    c.delete()?.ok()?;
    same("left", cgroups_of(t, &c), Vec::<std::path::PathBuf>::new())
}

fn the_cgroup_is_gone_after_a_failed_create(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.bind(&t.dir.join("not-there"), "/x", &[]);
    let c = t.container(&config)?;
    c.create()?.refused()?;
    same("left", cgroups_of(t, &c), Vec::<std::path::PathBuf>::new())
}

fn pids_limit_v1(t: &Test) -> Outcome {
    has(t, &limited(t, json!({ "pids": { "limit": 77 } }))?, "pids", "pids.max", "77")
}

fn pids_limit_v2(t: &Test) -> Outcome {
    has(t, &limited(t, json!({ "pids": { "limit": 77 } }))?, "pids", "pids.max", "77")
}

fn pids_limit_of_minus_one_is_unlimited(t: &Test) -> Outcome {
    has(t, &limited(t, json!({ "pids": { "limit": -1 } }))?, "pids", "pids.max", "max")
}

/// Before 1.3 of the spec, and engines of then write it.
fn pids_limit_of_zero_was_unlimited(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("ociVersion", "1.0.2").set("linux.resources", json!({ "pids": { "limit": 0 } }));
    has(t, &t.detached(&config)?, "pids", "pids.max", "max")
}

/// Go's programs write it where nothing is to be changed.
fn pids_limit_of_zero_was_none_in_an_update(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("ociVersion", "1.0.2").set("linux.resources", json!({ "pids": { "limit": 50 } }));
    let c = t.detached(&config)?;
    let update = |flag, value: &str| t.runtime.call(&["update", flag, value, &c.id])?.ok();
    update("--pids-limit", "0")?;
    has(t, &c, "pids", "pids.max", "50")?;
    let file = t.dir.join("resources.json");
    fs::write(&file, json!({ "pids": { "limit": 0 } }).to_string())?;
    update("--resources", &file.display().to_string())?;
    has(t, &c, "pids", "pids.max", "50")?;
    update("--pids-limit", "-1")?;
    has(t, &c, "pids", "pids.max", "max")
}

fn pids_limit_of_one_is_enough(t: &Test) -> Outcome {
    has(t, &limited(t, json!({ "pids": { "limit": 1 } }))?, "pids", "pids.max", "1")
}

fn pids_limit_is_enforced(t: &Test) -> Outcome {
    let mut config = t.shell("for n in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 2 & done; wait");
    config.set("linux.resources", json!({ "pids": { "limit": 6 } }));
    let output = t.run(&config)?;
    let text = output.stderr.to_lowercase();
    check!(text.contains("fork"), "twelve children with a limit of six: {}", output.text());
    Ok(())
}

const MIB: u64 = 1 << 20;

fn memory_limits_v1(t: &Test) -> Outcome {
    let c = limited(t, json!({ "memory": { "limit": 64 * MIB, "reservation": 32 * MIB } }))?;
    has(t, &c, "memory", "memory.limit_in_bytes", &(64 * MIB).to_string())?;
    has(t, &c, "memory", "memory.soft_limit_in_bytes", &(32 * MIB).to_string())
}

fn memory_limits_v2(t: &Test) -> Outcome {
    let c =
        limited(t, json!({ "memory": { "limit": 64 * MIB, "reservation": 32 * MIB, "swap": 80 * MIB } }))?;
    has(t, &c, "memory", "memory.max", &(64 * MIB).to_string())?;
    has(t, &c, "memory", "memory.low", &(32 * MIB).to_string())?;
    // The configuration's swap is memory and swap together.
    has(t, &c, "memory", "memory.swap.max", &(16 * MIB).to_string())
}

fn memory_swap_of_minus_one_is_unlimited_v2(t: &Test) -> Outcome {
    let c = limited(t, json!({ "memory": { "limit": 64 * MIB, "swap": -1 } }))?;
    has(t, &c, "memory", "memory.swap.max", "max")
}

fn memory_limit_ends_a_program_that_takes_more(t: &Test) -> Outcome {
    let mut config = t.config();
    config.args(&["/probe", "memory", "200"]);
    let mut memory = json!({ "limit": 32 * MIB });
    let swap = fs::read_to_string("/proc/swaps")?.lines().count() > 1;
    if swap {
        memory["swap"] = json!(32 * MIB);
    }
    config.set("linux.resources", json!({ "memory": memory }));
    t.run(&config)?.exits(128 + 9)?;
    Ok(())
}

/// The kernel ends what has more memory than its cgroup may have, and all that shares it; the runtime must not be among
/// that.
fn memory_limit_too_low_to_start_in_is_an_error(t: &Test) -> Outcome {
    for limit in [4096, 16384] {
        let mut config = t.config();
        config.set("linux.resources", json!({ "memory": { "limit": limit } }));
        let c = t.container(&config)?;
        c.create()?.refused()?;
        check!(c.state().is_err(), "{limit} bytes: there is a container");
    }
    Ok(())
}

/// The same while the container runs. Its own process is spared, so that the kernel looks for another one to end.
fn memory_that_is_used_up_ends_no_runtime_in_an_exec(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("process.oomScoreAdj", -1000);
    let c = t.detached(&config)?;
    let max = t.host.cgroup("memory", &format!("{}/{}", t.cgroup, c.id)).join("memory.max");
    fs::write(max, "0")?;
    for try_ in 1..=30 {
        let output = c.exec_with(&["--detach"], &["/bin/true"])?;
        check!(output.code != 128 + 9, "try {try_}: the runtime ended with {}", output.code);
    }
    Ok(())
}

fn memory_swappiness_v1(t: &Test) -> Outcome {
    has(t, &limited(t, json!({ "memory": { "swappiness": 17 } }))?, "memory", "memory.swappiness", "17")
}

fn memory_disable_oom_killer_v1(t: &Test) -> Outcome {
    let c = limited(t, json!({ "memory": { "limit": 64 * MIB, "disableOOMKiller": true } }))?;
    contains("memory.oom_control", &t.limit(&c, "memory", "memory.oom_control")?, "oom_kill_disable 1")
}

fn cpu_shares_and_quota_v1(t: &Test) -> Outcome {
    let c = limited(t, json!({ "cpu": { "shares": 512, "quota": 30000, "period": 60000 } }))?;
    has(t, &c, "cpu", "cpu.shares", "512")?;
    has(t, &c, "cpu", "cpu.cfs_quota_us", "30000")?;
    has(t, &c, "cpu", "cpu.cfs_period_us", "60000")
}

fn cpu_weight_and_max_v2(t: &Test) -> Outcome {
    let c = limited(t, json!({ "cpu": { "shares": 1024, "quota": 30000, "period": 60000 } }))?;
    has(t, &c, "cpu", "cpu.max", "30000 60000")?;
    // Two conversions of shares are in use; the newer one makes 1024 the default, 100.
    let weight = t.limit(&c, "cpu", "cpu.weight")?;
    check!(weight == "39" || weight == "100", "cpu.weight of 1024 shares: {weight}");
    Ok(())
}

fn cpu_weight_of_the_ends_of_shares_v2(t: &Test) -> Outcome {
    has(t, &limited(t, json!({ "cpu": { "shares": 2 } }))?, "cpu", "cpu.weight", "1")?;
    has(t, &limited(t, json!({ "cpu": { "shares": 262_144 } }))?, "cpu", "cpu.weight", "10000")
}

fn cpu_quota_of_minus_one_is_unlimited(t: &Test) -> Outcome {
    let c = limited(t, json!({ "cpu": { "quota": -1, "period": 50000 } }))?;
    if t.host.unified {
        has(t, &c, "cpu", "cpu.max", "max 50000")
    } else {
        has(t, &c, "cpu", "cpu.cfs_quota_us", "-1")
    }
}

fn cpu_burst_is_set(t: &Test) -> Outcome {
    let c = limited(t, json!({ "cpu": { "quota": 30000, "period": 60000, "burst": 10000 } }))?;
    let file = if t.host.unified { "cpu.max.burst" } else { "cpu.cfs_burst_us" };
    has(t, &c, "cpu", file, "10000")
}

fn cpu_idle_is_set(t: &Test) -> Outcome {
    has(t, &limited(t, json!({ "cpu": { "idle": 1 } }))?, "cpu", "cpu.idle", "1")
}

fn cpuset_is_set(t: &Test) -> Outcome {
    let c = limited(t, json!({ "cpu": { "cpus": "0", "mems": "0" } }))?;
    has(t, &c, "cpuset", "cpuset.cpus", "0")?;
    has(t, &c, "cpuset", "cpuset.mems", "0")?;
    same("affinity", &c.exec_probe(&[])?["affinity"], &json!([0]))
}

fn hugepage_limits_are_set(t: &Test) -> Outcome {
    let c = limited(t, json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 * MIB }] }))?;
    let file = if t.host.unified { "hugetlb.2MB.max" } else { "hugetlb.2MB.limit_in_bytes" };
    has(t, &c, "hugetlb", file, &(4 * MIB).to_string())
}

fn an_unknown_hugepage_size_is_refused(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("linux.resources", json!({ "hugepageLimits": [{ "pageSize": "3MB", "limit": 0 }] }));
    t.container(&config)?.create()?.refused()?;
    Ok(())
}

fn block_weight_v1(t: &Test) -> Outcome {
    let top = t.host.cgroup("blkio", "/");
    let file = ["blkio.weight", "blkio.bfq.weight"].into_iter().find(|file| top.join(file).exists());
    let Some(file) = file else { return crate::case::skip("the kernel has no block weights") };
    contains(file, &t.limit(&limited(t, json!({ "blockIO": { "weight": 200 } }))?, "blkio", file)?, "200")
}

fn unified_files_are_written(t: &Test) -> Outcome {
    let c = limited(t, json!({ "unified": { "pids.max": "55", "memory.high": "50331648" } }))?;
    has(t, &c, "pids", "pids.max", "55")?;
    has(t, &c, "memory", "memory.high", "50331648")
}

fn unified_with_an_unknown_file_is_refused(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("linux.resources", json!({ "unified": { "memory.of_elephants": "1" } }));
    t.container(&config)?.create()?.refused()?;
    Ok(())
}

fn unified_with_a_path_is_refused(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("linux.resources", json!({ "unified": { "../cgroup.procs": "1" } }));
    t.container(&config)?.create()?.refused()?;
    Ok(())
}

fn unified_on_v1_is_refused(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("linux.resources", json!({ "unified": { "pids.max": "55" } }));
    t.container(&config)?.create()?.refused()?;
    Ok(())
}

fn a_limit_that_the_kernel_refuses_is_an_error(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("linux.resources", json!({ "cpu": { "cpus": "4000-4001" } }));
    t.container(&config)?.create()?.refused()?;
    Ok(())
}

/// Makes a device of that number in the container, and how opening it ended: mknod, read, write.
fn device(t: &Test, rules: Value, major: u32, minor: u32) -> Outcome<[String; 3]> {
    let mut config = t.config();
    let (major, minor) = (major.to_string(), minor.to_string());
    config.set("linux.resources.devices", rules).args(&["/probe", "mknod", "/tmp/device", &major, &minor]);
    let output = t.run(&config)?.ok()?.json()?;
    Ok(["mknod", "read", "write"].map(|key| output[key].as_str().unwrap_or_default().to_owned()))
}

fn rule(allow: bool, numbers: Option<(i64, i64)>, access: &str) -> Value {
    let mut rule = json!({ "allow": allow, "access": access });
    if let Some((major, minor)) = numbers {
        rule["type"] = json!("c");
        rule["major"] = json!(major);
        rule["minor"] = json!(minor);
    }
    rule
}

fn devices_are_denied_unless_allowed(t: &Test) -> Outcome {
    // 1:11 is /dev/kmsg.
    let deny = rule(false, None, "rwm");
    let [_, read, write] = device(t, json!([deny.clone()]), 1, 11)?;
    same("denied", (read.as_str(), write.as_str()), ("EPERM", "EPERM"))?;
    let [made, _, write] = device(t, json!([deny, rule(true, Some((1, 11)), "rwm")]), 1, 11)?;
    same("allowed", (made.as_str(), write.as_str()), ("ok", "ok"))
}

fn devices_allowed_for_reading_only(t: &Test) -> Outcome {
    // 10:229 is /dev/fuse: anybody may open it, and where there is none the errno is another one.
    let rules = json!([rule(false, None, "rwm"), rule(true, Some((10, 229)), "rm")]);
    let [made, read, write] = device(t, rules, 10, 229)?;
    same("made", made.as_str(), "ok")?;
    check!(read != "EPERM", "reading: {read}");
    same("writing", write.as_str(), "EPERM")
}

fn devices_default_ones_stay_usable(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.resources.devices", json!([rule(false, None, "rwm")]));
    let probe = t.probe(
        &config,
        &["--write", "/dev/null", "--read", "/dev/zero", "--read", "/dev/urandom", "--write", "/dev/ptmx"],
    )?;
    same("null", probe["write"]["/dev/null"].as_str(), Some("ok"))?;
    same("zero", probe["read"]["/dev/zero"].as_str(), Some("ok"))?;
    same("urandom", probe["read"]["/dev/urandom"].as_str(), Some("ok"))?;
    same("ptmx", probe["write"]["/dev/ptmx"].as_str(), Some("ok"))
}

fn devices_later_rules_win(t: &Test) -> Outcome {
    let allow = rule(true, Some((10, 229)), "rwm");
    let rules = json!([rule(false, None, "rwm"), allow, rule(false, Some((10, 229)), "w")]);
    let [_, read, write] = device(t, rules, 10, 229)?;
    check!(read != "EPERM", "reading: {read}");
    same("writing", write.as_str(), "EPERM")
}

fn devices_with_wildcards(t: &Test) -> Outcome {
    let mut any_minor = rule(true, Some((1, 0)), "rwm");
    any_minor["minor"] = json!(-1);
    let rules = json!([rule(false, None, "rwm"), any_minor]);
    same("major 1", device(t, rules.clone(), 1, 11)?[2].as_str(), "ok")?;
    same("major 10", device(t, rules, 10, 229)?[2].as_str(), "EPERM")?;
    let [_, _, write] = device(t, json!([rule(true, None, "rwm")]), 1, 11)?;
    same("everything", write.as_str(), "ok")
}

/// A container that counts in a file.
fn counter(t: &Test) -> Outcome<Container> {
    let c = t.detached(&t.shell(
        "n=0; while :; do n=$((n+1)); echo $n > /count.tmp; mv /count.tmp /count; sleep 0.02; done",
    ))?;
    c.await_file("/count")?;
    Ok(c)
}

fn count(c: &Container) -> Outcome<u64> {
    Ok(c.await_file("/count")?.trim().parse()?)
}

fn pause_and_resume_stop_and_go_on(t: &Test) -> Outcome {
    let c = counter(t)?;
    c.call("pause", &[])?.ok()?;
    same("status", c.status()?.as_str(), "paused")?;
    let before = count(&c)?;
    pause(200);
    same("while paused", count(&c)?, before)?;
    c.call("resume", &[])?.ok()?;
    same("status", c.status()?.as_str(), "running")?;
    process::until("it counts again", || Ok(count(&c)? > before))
}

fn pause_twice_and_resume_of_a_running_one(t: &Test) -> Outcome {
    let c = counter(t)?;
    c.call("resume", &[])?.refused()?;
    c.call("pause", &[])?.ok()?;
    let again = c.call("pause", &[])?;
    c.call("resume", &[])?.ok()?;
    again.refused().map(drop)
}

fn kill_of_a_paused_container(t: &Test) -> Outcome {
    let c = counter(t)?;
    c.call("pause", &[])?.ok()?;
    c.kill("KILL")?.ok()?;
    // On v1 the signal arrives when it is resumed.
    if c.status()? == "paused" {
        let _ = c.call("resume", &[])?;
    }
    c.await_status("stopped")
}

fn delete_force_of_a_paused_container(t: &Test) -> Outcome {
    let c = counter(t)?;
    c.call("pause", &[])?.ok()?;
    c.delete_force()?.ok()?;
    c.call("state", &[])?.refused()?;
    Ok(())
}

fn memory_file(t: &Test) -> &'static str {
    if t.host.unified { "memory.max" } else { "memory.limit_in_bytes" }
}

fn update_from_a_file(t: &Test) -> Outcome {
    let c = limited(t, json!({ "pids": { "limit": 50 } }))?;
    let file = t.dir.join("resources.json");
    fs::write(&file, json!({ "pids": { "limit": 60 } }).to_string())?;
    t.runtime.call(&["update", "--resources", &file.display().to_string(), &c.id])?.ok()?;
    has(t, &c, "pids", "pids.max", "60")?;
    t.runtime.call(&["update", &format!("--resources={}", file.display()), &c.id])?.ok()?;
    Ok(())
}

fn update_from_standard_input(t: &Test) -> Outcome {
    let c = limited(t, json!({ "memory": { "limit": 64 * MIB }, "pids": { "limit": 50 } }))?;
    let file = t.dir.join("resources.json");
    fs::write(&file, json!({ "memory": { "limit": 96 * MIB } }).to_string())?;
    let mut command = t.runtime.command();
    command.args(["update", "--resources", "-", &c.id]).stdin(fs::File::open(&file)?);
    process::start(&mut command, &t.dir)?.finish(process::LIMIT)?.ok()?;
    has(t, &c, "memory", memory_file(t), &(96 * MIB).to_string())?;
    has(t, &c, "pids", "pids.max", "50")
}

fn update_by_options(t: &Test) -> Outcome {
    let c = limited(t, json!({ "memory": { "limit": 64 * MIB } }))?;
    let memory = (128 * MIB).to_string();
    t.runtime.call(&["update", "--memory", &memory, "--pids-limit", "40", &c.id])?.ok()?;
    has(t, &c, "memory", memory_file(t), &memory)?;
    has(t, &c, "pids", "pids.max", "40")?;
    t.runtime
        .call(&["update", "--cpu-quota", "20000", "--cpu-period", "40000", "--cpuset-cpus", "0", &c.id])?
        .ok()?;
    has(t, &c, "cpuset", "cpuset.cpus", "0")?;
    if t.host.unified {
        has(t, &c, "cpu", "cpu.max", "20000 40000")
    } else {
        has(t, &c, "cpu", "cpu.cfs_quota_us", "20000")
    }
}

fn update_with_a_bad_value_is_refused(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    t.runtime.call(&["update", "--cpu-quota", "lots", &c.id])?.refused()?;
    let file = t.dir.join("resources.json");
    for text in ["{", "{\"pids\": {\"limit\": \"many\"}}"] {
        fs::write(&file, text)?;
        t.runtime.call(&["update", "--resources", &file.display().to_string(), &c.id])?.refused()?;
    }
    same("status", c.status()?.as_str(), "running")
}

fn update_of_a_created_container(t: &Test) -> Outcome {
    let c = t.container(&t.sleeper())?;
    c.create()?.ok()?;
    t.runtime.call(&["update", "--pids-limit", "33", &c.id])?.ok()?;
    has(t, &c, "pids", "pids.max", "33")?;
    c.start()?.ok()?;
    has(t, &c, "pids", "pids.max", "33")
}

fn kill_all_reaches_processes_without_pid_namespace(t: &Test) -> Outcome {
    let mut config = t.shell("sleep 1000 & sleep 1000 & echo up > /mark; exec sleep 1000");
    config.no_namespace("pid");
    let c = t.detached(&config)?;
    c.await_file("/mark")?;
    t.runtime.call(&["kill", "--all", &c.id, "KILL"])?.ok()?;
    c.await_status("stopped")?;
    c.delete()?.ok()?;
    Ok(())
}

fn delete_ends_processes_left_in_the_cgroup(t: &Test) -> Outcome {
    // Without a pid namespace the end of the first process ends nobody else.
    let mut config = t.shell("sleep 1000 & sleep 1000 & echo up > /mark; sleep 0.3");
    config.no_namespace("pid");
    let c = t.detached(&config)?;
    c.await_file("/mark")?;
    c.await_status("stopped")?;
    c.delete_force()?.ok()?;
    same("left", cgroups_of(t, &c), Vec::<std::path::PathBuf>::new())
}

fn with_cgroup_mount(t: &Test, options: &[&str]) -> crate::bundle::Config {
    let mut config = t.config();
    config.namespace("cgroup").mount("/sys/fs/cgroup", "cgroup", "cgroup", options);
    config
}

fn cgroup_mount_shows_the_own_cgroup_v2(t: &Test) -> Outcome {
    let mut config = with_cgroup_mount(t, &["nosuid", "noexec", "nodev", "relatime"]);
    config.set("linux.resources", json!({ "pids": { "limit": 88 } }));
    let output = t.script(
        &config,
        "cat /sys/fs/cgroup/pids.max; mkdir /sys/fs/cgroup/below && echo made; cat /proc/self/cgroup",
    )?;
    same("seen", output.as_str(), "88\nmade\n0::/")
}

fn cgroup_mount_shows_the_controllers_v1(t: &Test) -> Outcome {
    let mut config = with_cgroup_mount(t, &["nosuid", "noexec", "nodev", "relatime", "ro"]);
    config.set("linux.resources", json!({ "pids": { "limit": 88 } }));
    let output = t.script(
        &config,
        "cat /sys/fs/cgroup/pids/pids.max; ls /sys/fs/cgroup | grep -c -x -e memory -e cpu -e freezer",
    )?;
    same("seen", output.as_str(), "88\n3")
}

fn cgroup_mount_is_read_only_with_ro(t: &Test) -> Outcome {
    let config = with_cgroup_mount(t, &["nosuid", "noexec", "nodev", "relatime", "ro"]);
    let place = if t.host.unified { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" };
    let probe = t.probe(&config, &["--write", place])?;
    same("write", probe["write"][place].as_str(), Some("EROFS"))
}

fn cgroup_mount_without_a_cgroup_namespace_v1(t: &Test) -> Outcome {
    // CRI and docker on v1 do this: the container sees its own cgroup, not the host's tree.
    let mut config = t.config();
    config.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]);
    config.set("linux.resources", json!({ "pids": { "limit": 88 } }));
    same("seen", t.script(&config, "cat /sys/fs/cgroup/pids/pids.max")?.as_str(), "88")
}

fn cgroup_of_a_user_namespace_is_delegated_v2(t: &Test) -> Outcome {
    let mut config = with_cgroup_mount(t, &["nosuid", "noexec", "nodev", "relatime", "rw"]);
    config.user_namespace(100_000, 65_536);
    let output =
        t.script(&config, "mkdir /sys/fs/cgroup/below && echo made; stat -c %u /sys/fs/cgroup/cgroup.procs")?;
    same("seen", output.as_str(), "made\n0")
}

fn events_gives_statistics(t: &Test) -> Outcome {
    t.needs_verb("events")?;
    let c = t.detached(&t.sleeper())?;
    let event = t.runtime.call(&["events", "--stats", &c.id])?.ok()?.json()?;
    same("type", event["type"].as_str(), Some("stats"))?;
    same("id", event["id"].as_str(), Some(c.id.as_str()))?;
    check!(event["data"]["pids"]["current"].as_i64().is_some_and(|n| n >= 1), "pids: {event}");
    check!(event["data"]["cpu"]["usage"]["total"].as_i64().is_some(), "cpu: {event}");
    check!(event["data"]["memory"]["usage"]["usage"].as_i64().is_some(), "memory: {event}");
    Ok(())
}

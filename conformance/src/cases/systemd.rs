//! `--systemd-cgroup`: the container is in a transient scope of the system's manager, or of the user's.
//! What cgroups do without systemd is in cgroups.rs. The names of properties are those of systemctl(1).

use crate::bundle::Config;
use crate::case::Need::{Cgroup, Controller, Root, Systemd, V1, V2};
use crate::case::{Case, Outcome, case, check, contains, fail, same};
use crate::process::{self, Output, until};
use crate::test::{Container, Test};
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

pub const CASES: &[Case] = &[
    case!(the_container_is_in_a_scope_of_its_slice, [Systemd, Cgroup]),
    case!(limits_are_in_the_files_and_in_the_unit_v2, [Systemd, Cgroup, V2, Controller("memory")]),
    case!(update_changes_the_files_and_the_unit_v2, [Systemd, Cgroup, V2, Controller("memory")]),
    case!(limits_are_in_the_files_and_in_the_unit_v1, [Root, Systemd, V1, Controller("memory")]),
    case!(an_idle_cgroup_gets_its_weight_when_that_ends, [Systemd, Cgroup, V2, Root, Controller("cpu")]),
    case!(limits_survive_a_reload_of_the_manager, [Systemd, Cgroup, Controller("pids")]),
    case!(exec_is_in_the_scope, [Systemd, Cgroup]),
    case!(pause_and_resume_work_in_a_scope, [Systemd, Cgroup]),
    case!(the_scope_is_gone_after_delete, [Systemd, Cgroup]),
    case!(the_scope_is_gone_after_a_failed_create, [Systemd, Cgroup]),
    case!(a_scope_of_another_container_is_refused, [Systemd, Cgroup]),
    case!(a_path_that_is_no_triple_is_refused, [Systemd, Cgroup]),
    case!(without_a_path_there_is_a_scope_too, [Systemd, Cgroup]),
];

/// The unit of a container: names in systemd are everybody's, so they have the suite's and the case's in them.
fn unit(t: &Test, c: &Container) -> (String, String) {
    let case = t.cgroup.trim_start_matches('/').replace('/', "-");
    let case = case.rsplit_once("conformance-").map_or(case.clone(), |(_, last)| last.to_owned());
    let name = format!("{case}-{}", c.id);
    (format!("conformance.slice:conformance:{name}"), format!("conformance-{name}.scope"))
}

fn call(c: &Container, verb: &str, options: &[&str]) -> Outcome<Output> {
    let mut command = c.runtime.command();
    command.args(["--systemd-cgroup", verb, "--bundle"]).arg(&c.bundle).args(options).arg(&c.id);
    process::run(&mut command, &c.runtime.dir)
}

/// A container with its cgroup by systemd, not yet made, and its unit.
fn prepared(t: &Test, config: &Config) -> Outcome<(Container, String)> {
    let c = t.container(config)?;
    let (path, unit) = unit(t, &c);
    let mut config = config.clone();
    config.set("linux.cgroupsPath", path);
    t.write_config(&c, &config)?;
    Ok((c, unit))
}

fn running(t: &Test, config: &Config) -> Outcome<(Container, String)> {
    let (c, unit) = prepared(t, config)?;
    call(&c, "run", &["--detach"])?.ok()?;
    Ok((c, unit))
}

fn systemctl(t: &Test, args: &[&str]) -> Outcome<String> {
    let mut command = Command::new("systemctl");
    if !t.host.root {
        command.arg("--user");
    }
    Ok(process::run(command.args(args), &t.dir)?.ok()?.stdout.trim().to_owned())
}

fn property(t: &Test, unit: &str, name: &str) -> Outcome<String> {
    systemctl(t, &["show", "--value", "--property", name, unit])
}

/// Where the container's process is, in one hierarchy of v1 or in that of v2.
fn cgroup(c: &Container) -> Outcome<String> {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", c.pid()?))?;
    let line = text.lines().find(|line| line.contains(":pids:") || line.starts_with("0::"));
    Ok(line.and_then(|line| line.splitn(3, ':').nth(2)).unwrap_or_default().to_owned())
}

fn file(t: &Test, c: &Container, controller: &str, name: &str) -> Outcome<String> {
    let path: PathBuf = t.host.cgroup(controller, &cgroup(c)?).join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => fail(format!("{}: {error}", path.display())),
    }
}

fn is_gone(t: &Test, unit: &str) -> Outcome {
    until(&format!("{unit} is gone"), || Ok(property(t, unit, "LoadState")? == "not-found"))
}

fn the_container_is_in_a_scope_of_its_slice(t: &Test) -> Outcome {
    let (c, unit) = running(t, &t.sleeper())?;
    let path = cgroup(&c)?;
    check!(path.ends_with(&format!("/conformance.slice/{unit}")), "{path} is not that of {unit}");
    same("state", property(t, &unit, "ActiveState")?.as_str(), "active")?;
    same("slice", property(t, &unit, "Slice")?.as_str(), "conformance.slice")?;
    same("delegated", property(t, &unit, "Delegate")?.as_str(), "yes")?;
    // systemd counts with the path that the process is in.
    same("control group", property(t, &unit, "ControlGroup")?, path)
}

fn limited(t: &Test) -> Config {
    let mut config = t.sleeper();
    config.set("linux.resources.memory", json!({ "limit": 64 << 20 }));
    config.set("linux.resources.pids", json!({ "limit": 77 }));
    config.set("linux.resources.cpu", json!({ "quota": 50000, "period": 100_000 }));
    config
}

fn limits_are_in_the_files_and_in_the_unit_v2(t: &Test) -> Outcome {
    let (c, unit) = running(t, &limited(t))?;
    same("memory.max", file(t, &c, "memory", "memory.max")?.as_str(), "67108864")?;
    same("pids.max", file(t, &c, "pids", "pids.max")?.as_str(), "77")?;
    same("cpu.max", file(t, &c, "cpu", "cpu.max")?.as_str(), "50000 100000")?;
    same("MemoryMax", property(t, &unit, "MemoryMax")?.as_str(), "67108864")?;
    same("TasksMax", property(t, &unit, "TasksMax")?.as_str(), "77")?;
    same("CPUQuotaPerSecUSec", property(t, &unit, "CPUQuotaPerSecUSec")?.as_str(), "500ms")
}

fn limits_are_in_the_files_and_in_the_unit_v1(t: &Test) -> Outcome {
    let (c, unit) = running(t, &limited(t))?;
    same("memory.limit_in_bytes", file(t, &c, "memory", "memory.limit_in_bytes")?.as_str(), "67108864")?;
    same("MemoryLimit", property(t, &unit, "MemoryLimit")?.as_str(), "67108864")?;
    same("TasksMax", property(t, &unit, "TasksMax")?.as_str(), "77")?;
    same("CPUQuotaPerSecUSec", property(t, &unit, "CPUQuotaPerSecUSec")?.as_str(), "500ms")?;
    c.runtime.call(&["update", "--memory", "50331648", "--pids-limit", "88", &c.id])?.ok()?;
    same("memory.limit_in_bytes", file(t, &c, "memory", "memory.limit_in_bytes")?.as_str(), "50331648")?;
    same("MemoryLimit", property(t, &unit, "MemoryLimit")?.as_str(), "50331648")?;
    same("TasksMax", property(t, &unit, "TasksMax")?.as_str(), "88")
}

fn update_changes_the_files_and_the_unit_v2(t: &Test) -> Outcome {
    let (c, unit) = running(t, &limited(t))?;
    let options = ["update", "--memory", "50331648", "--pids-limit", "88", "--cpu-quota", "25000", &c.id];
    c.runtime.call(&options)?.ok()?;
    same("memory.max", file(t, &c, "memory", "memory.max")?.as_str(), "50331648")?;
    same("pids.max", file(t, &c, "pids", "pids.max")?.as_str(), "88")?;
    same("cpu.max", file(t, &c, "cpu", "cpu.max")?.as_str(), "25000 100000")?;
    same("MemoryMax", property(t, &unit, "MemoryMax")?.as_str(), "50331648")?;
    same("TasksMax", property(t, &unit, "TasksMax")?.as_str(), "88")?;
    same("CPUQuotaPerSecUSec", property(t, &unit, "CPUQuotaPerSecUSec")?.as_str(), "250ms")
}

fn an_idle_cgroup_gets_its_weight_when_that_ends(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("linux.resources.cpu", json!({ "shares": 2048, "idle": 1 }));
    let (c, unit) = running(t, &config)?;
    same("cpu.idle", file(t, &c, "cpu", "cpu.idle")?.as_str(), "1")?;
    same("CPUWeight", property(t, &unit, "CPUWeight")?.as_str(), "idle")?;
    c.runtime.call(&["update", "--cpu-idle", "0", &c.id])?.ok()?;
    same("cpu.idle", file(t, &c, "cpu", "cpu.idle")?.as_str(), "0")?;
    let weight = file(t, &c, "cpu", "cpu.weight")?;
    check!(weight.parse().unwrap_or(0) > 100, "2048 shares are more than the usual weight, not {weight}");
    same("CPUWeight", property(t, &unit, "CPUWeight")?, weight)
}

/// systemd writes again what it knows; what it was not told would be lost.
fn limits_survive_a_reload_of_the_manager(t: &Test) -> Outcome {
    let (c, _) = running(t, &limited(t))?;
    systemctl(t, &["daemon-reload"])?;
    same("pids.max", file(t, &c, "pids", "pids.max")?.as_str(), "77")?;
    let (controller, name) = if t.host.unified { ("cpu", "cpu.max") } else { ("cpu", "cpu.cfs_quota_us") };
    if t.host.has_controller(controller) {
        contains(name, &file(t, &c, controller, name)?, "50000")?;
    }
    Ok(())
}

fn exec_is_in_the_scope(t: &Test) -> Outcome {
    let (c, unit) = running(t, &t.sleeper())?;
    let probe = c.exec(&["/bin/cat", "/proc/self/cgroup"])?.ok()?.stdout;
    contains("cgroup", &probe, &unit)
}

fn pause_and_resume_work_in_a_scope(t: &Test) -> Outcome {
    let (c, _) = running(t, &t.sleeper())?;
    c.call("pause", &[])?.ok()?;
    c.await_status("paused")?;
    c.call("resume", &[])?.ok()?;
    c.await_status("running")
}

fn the_scope_is_gone_after_delete(t: &Test) -> Outcome {
    let (c, unit) = running(t, &t.sleeper())?;
    let path = cgroup(&c)?;
    c.delete_force()?.ok()?;
    is_gone(t, &unit)?;
    check!(!t.host.cgroup("pids", &path).exists(), "{path} is left");
    Ok(())
}

fn the_scope_is_gone_after_a_failed_create(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.bind(&t.dir.join("not-there"), "/x", &[]);
    let (c, unit) = prepared(t, &config)?;
    call(&c, "create", &[])?.refused()?;
    is_gone(t, &unit)
}

fn a_scope_of_another_container_is_refused(t: &Test) -> Outcome {
    let (first, unit) = running(t, &t.sleeper())?;
    let (second, _) = prepared(t, &t.sleeper())?;
    fs::copy(first.bundle.join("config.json"), second.bundle.join("config.json"))?;
    call(&second, "create", &[])?.refused()?;
    same("state of the first", property(t, &unit, "ActiveState")?.as_str(), "active")?;
    same("status of the first", first.status()?.as_str(), "running")
}

fn a_path_that_is_no_triple_is_refused(t: &Test) -> Outcome {
    for path in ["/a/path", "a:b", "a/../b.slice:c:d"] {
        let mut config = t.sleeper();
        config.set("linux.cgroupsPath", path);
        call(&t.container(&config)?, "create", &[])?.refused()?;
    }
    Ok(())
}

fn without_a_path_there_is_a_scope_too(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("linux.cgroupsPath", false);
    let mut c = t.container(&config)?;
    c.id = format!("conformance-{}", std::process::id());
    call(&c, "run", &["--detach"])?.ok()?;
    let path = cgroup(&c)?;
    let unit = path.rsplit('/').next().unwrap_or_default().to_owned();
    check!(unit.ends_with(".scope") && unit.contains(&c.id), "{path} is no scope of its own");
    same("state", property(t, &unit, "ActiveState")?.as_str(), "active")?;
    c.delete_force()?.ok()?;
    is_gone(t, &unit)
}

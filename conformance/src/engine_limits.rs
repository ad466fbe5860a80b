//! Whether a process has the limits that an engine was asked for: in the files of its cgroup and, under systemd, in
//! the properties of its unit, which systemd would write again.

use crate::case::{Outcome, Stop, fail, same};
use crate::engine;
use crate::host::Host;
use crate::process;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// What is looked for; a missing one is not looked at.
#[derive(Clone, Copy, Default)]
pub struct Limits {
    /// In bytes.
    pub memory: Option<u64>,
    pub pids: Option<u64>,
    /// Of a period of 100000.
    pub quota: Option<u64>,
}

/// 64 MiB, 50 processes and half a processor.
pub const USUAL: Limits = Limits { memory: Some(64 << 20), pids: Some(50), quota: Some(50_000) };

/// Fails unless the cgroup of the process and its unit have these limits.
pub fn expect(host: &Host, pid: i32, wanted: Limits) -> Outcome {
    if let Some(memory) = wanted.memory {
        let (file, property) =
            if host.unified { ("memory.max", "MemoryMax") } else { ("memory.limit_in_bytes", "MemoryLimit") };
        one(host, pid, "memory", (file, &memory.to_string()), (property, &memory.to_string()))?;
    }
    if let Some(pids) = wanted.pids {
        one(host, pid, "pids", ("pids.max", &pids.to_string()), ("TasksMax", &pids.to_string()))?;
    }
    if let Some(quota) = wanted.quota {
        let (file, text) = if host.unified {
            ("cpu.max", format!("{quota} 100000"))
        } else {
            ("cpu.cfs_quota_us", quota.to_string())
        };
        let unit = format!("{}ms", quota / 100);
        one(host, pid, "cpu", (file, &text), ("CPUQuotaPerSecUSec", &unit))?;
    }
    Ok(())
}

fn one(host: &Host, pid: i32, controller: &str, file: (&str, &str), property: (&str, &str)) -> Outcome {
    let path = cgroup(host, pid, controller)?;
    same(file.0, value(host, pid, controller, file.0)?.as_str(), file.1)?;
    let unit = path.split('/').rfind(|part| part.ends_with(".scope"));
    let Some(unit) = unit.filter(|_| engine::systemd()) else { return Ok(()) };
    same("ActiveState", show(unit, "ActiveState")?.as_str(), "active")?;
    same(property.0, show(unit, property.0)?.as_str(), property.1)
}

/// A file of the cgroup of a process.
pub fn value(host: &Host, pid: i32, controller: &str, file: &str) -> Outcome<String> {
    let path: PathBuf = host.cgroup(controller, &cgroup(host, pid, controller)?).join(file);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => fail(format!("{}: {error}", path.display())),
    }
}

/// The cgroup of a process, in the hierarchy of a controller.
pub fn cgroup(host: &Host, pid: i32, controller: &str) -> Outcome<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let of_it = |line: &&str| {
        let controllers = line.split(':').nth(1).unwrap_or_default();
        if host.unified { line.starts_with("0::") } else { controllers.split(',').any(|c| c == controller) }
    };
    let found = text.lines().find(of_it).and_then(|line| line.splitn(3, ':').nth(2));
    found.map(str::to_owned).ok_or_else(|| Stop::Fail(format!("process {pid} has no cgroup of {controller}")))
}

fn show(unit: &str, property: &str) -> Outcome<String> {
    let mut command = Command::new("systemctl");
    if !nix::unistd::geteuid().is_root() {
        command.arg("--user");
    }
    let output = process::ask(command.args(["show", "--value", "--property", property, unit]))?;
    Ok(output.stdout.trim().to_owned())
}

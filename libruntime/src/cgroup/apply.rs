//! Writes the values that `v1.rs`, `v2.rs` and `devices.rs` have worked out, in order; names the place in the
//! configuration when one fails, and can restore the old values.
//!
//! Must not know what a value means. The device rules are installed here too, because they are not one value in one
//! file.

use super::devices::{Policy, V1};
use super::files::has_host_root;
use super::write::{Journal, Missing, Op, Undo, Value, Write};
use super::{Cgroup, files, merge, properties, realtime, v1, v2};
use crate::error::{Diagnostic, Error, Result};
use crate::sys::bpf;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};
use std::os::fd::AsFd;
use std::path::Path;

const AT_DEVICES: &str = "linux.resources.devices";

impl Cgroup {
    /// Sets all limits of a cgroup made by [`Cgroup::create`], and its device rules. A limit that cannot be set is an
    /// error; the findings name what an unprivileged caller may not enforce.
    pub fn apply(&self, resources: &LinuxResources) -> Result<Vec<Diagnostic>> {
        self.run_all(&self.operations(resources)?, &mut None)?;
        let devices = resources.devices().as_deref().unwrap_or_default();
        self.set_devices(devices, true).map(|finding| finding.into_iter().collect())
    }

    /// As [`Cgroup::apply`], for a cgroup in use with the limits `before`: only what `change` has is written, and if
    /// one write fails everything is restored. Device rules are changed only where given.
    pub fn update(&self, before: &LinuxResources, change: &LinuxResources) -> Result<Vec<Diagnostic>> {
        let v2 = self.is_v2();
        let change = merge::completed(before, change, v2, self.unit.is_some())?;
        let operations = self.operations(&change)?;
        let unit = self.unit.as_ref();
        let properties = unit.map_or(Ok(Vec::new()), |unit| unit.properties(&change, v2))?;
        let undo = properties::undo(&properties, before, v2)?;
        // On v1 systemd empties the list of devices before it fills it again, which processes must not notice.
        let freeze = unit.is_some() && !v2 && change.devices().is_some() && !self.is_frozen()?;
        if freeze {
            self.freeze()?;
        }
        let mut journal = Some(Vec::new());
        let mut told = false;
        let result = self.run_all(&operations, &mut journal).and_then(|()| {
            if let Some(unit) = unit {
                // systemd rounds the values that it writes to these files, so they are written once more.
                unit.set(properties)?;
                told = true;
                self.run_all(&operations, &mut None)?;
            }
            change.devices().as_ref().map_or(Ok(None), |devices| self.set_devices(devices, false))
        });
        if result.is_err() {
            // The first error is the one to report. Files last, because systemd writes them too.
            if change.devices().is_some() {
                let _ = self.set_devices(before.devices().as_deref().unwrap_or_default(), false);
            }
            let _ = unit.filter(|_| told).map(|unit| unit.set(undo));
            for (path, value) in journal.unwrap_or_default().iter().rev() {
                let _ = files::write(path, value);
            }
        }
        if freeze {
            self.thaw()?;
        }
        result.map(|finding| finding.into_iter().collect())
    }

    fn operations(&self, resources: &LinuxResources) -> Result<Vec<Op>> {
        if self.is_v2() { v2::operations(resources) } else { v1::operations(resources) }
    }

    /// The directory that a controller's files are in.
    pub(super) fn dir_of(&self, controller: &str) -> Option<&Path> {
        let v2 = self.is_v2();
        self.hierarchies
            .iter()
            .find(|h| v2 || h.controllers.iter().any(|name| name == controller))
            .map(|h| h.dir.as_path())
    }

    fn run_all(&self, operations: &[Op], journal: &mut Journal) -> Result<()> {
        for operation in operations {
            match operation {
                Op::Set(write) => self.set(write, journal)?,
                Op::Coupled(writes) => self.set_coupled(writes, journal)?,
                Op::AtLeastUsage { controller, file, limit, at } => {
                    self.check_usage(controller, file, *limit).map_err(|error| error.at(*at))?;
                }
                Op::RaiseParentBudgets { runtime, period } => {
                    let cpu = self.hierarchies.iter().find(|h| h.controllers.iter().any(|c| c == "cpu"));
                    let handed =
                        cpu.map(|cpu| realtime::raise_parent_budgets(cpu, *runtime, *period, journal));
                    let at = "linux.resources.cpu.realtimeRuntime";
                    handed.unwrap_or(Ok(())).map_err(|error| error.at(at))?;
                }
            }
        }
        Ok(())
    }

    fn set_coupled(&self, writes: &[Write], journal: &mut Journal) -> Result<()> {
        let mut left: Vec<&Write> = writes.iter().collect();
        while !left.is_empty() {
            let before = left.len();
            let mut last_error = None;
            let mut again = Vec::new();
            for write in left {
                match self.set(write, journal) {
                    Ok(()) => {}
                    Err(error) if error.errno() == Some(Errno::EINVAL as i32) => {
                        last_error.get_or_insert(error);
                        again.push(write);
                    }
                    Err(error) => return Err(error),
                }
            }
            left = again;
            match last_error {
                Some(error) if left.len() == before => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn set(&self, write: &Write, journal: &mut Journal) -> Result<()> {
        let dir = match (self.dir_of(&write.controller), &write.missing) {
            (Some(dir), _) => dir,
            (None, Missing::Skip) => return Ok(()),
            (None, _) => return Err(self.no_controller(&write.controller).at(&write.at)),
        };
        let path = dir.join(&write.file);
        match write_value(&path, write, journal) {
            Ok(()) => Ok(()),
            Err((_, Errno::ENOENT)) => match &write.missing {
                Missing::Skip => Ok(()),
                Missing::Instead(other) => self.set(other, journal),
                Missing::Fail(hint) => Err(self.no_file(&path, write, *hint)),
            },
            Err((value, errno)) => {
                let error = Error::os(format!("write {value:?} to {}", path.display()), errno).at(&write.at);
                Err(match hint(&write.file, errno) {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                })
            }
        }
    }

    fn no_file(&self, path: &Path, write: &Write, hint: Option<&'static str>) -> Error {
        let error = Error::unsupported(format!(
            "{} does not exist: the cgroup controller {} is not available there or lacks this setting",
            path.display(),
            write.controller
        ))
        .at(&write.at);
        match hint {
            Some(hint) => error.with_hint(hint),
            None if self.is_v2() => error.with_hint(
                "see cgroup.controllers and cgroup.subtree_control of the cgroups above; \
                 one with processes in it cannot enable controllers for its children",
            ),
            None => error.with_hint("the running kernel does not have it; remove the setting"),
        }
    }

    fn check_usage(&self, controller: &str, file: &str, limit: i64) -> Result<()> {
        let path = self.dir_of(controller).ok_or_else(|| self.no_controller(controller))?.join(file);
        let text = files::read(&path).map_err(|errno| files::failed("read", &path, errno))?;
        match text.trim_end().parse::<u64>() {
            Ok(usage) if u64::try_from(limit).is_ok_and(|limit| limit < usage) => Err(Error::new(
                crate::error::ErrorKind::InvalidConfig,
                format!("the limit {limit} is below the present usage of {usage} ({})", path.display()),
            )
            .with_hint("checkBeforeUpdate asks to refuse this")),
            _ => Ok(()),
        }
    }

    pub(super) fn no_controller(&self, name: &str) -> Error {
        let hint = if !has_host_root() {
            "without root this takes cgroup v2, and a part of it that is the caller's: \
             see onggi check, and --systemd-cgroup"
                .into()
        } else if self.is_none() {
            "the container was created without a cgroup".into()
        } else {
            format!("mount it: mount -t cgroup -o {name} none /sys/fs/cgroup/{name}")
        };
        Error::unsupported(format!("no usable cgroup hierarchy has the controller {name}")).with_hint(hint)
    }

    fn set_devices(&self, devices: &[LinuxDeviceCgroup], fresh: bool) -> Result<Option<Diagnostic>> {
        let policy = Policy::new(devices)?;
        let result = match self.dir_of("devices") {
            Some(dir) if self.is_v2() => set_program(dir, &policy, fresh),
            Some(dir) => set_lists(dir, &policy.v1()?, fresh),
            None if policy.allows_everything() => Ok(()),
            None if self.is_none() && has_host_root() => {
                return Ok(Some(Diagnostic::warning(
                    AT_DEVICES,
                    "not enforced: the container has no cgroup",
                )));
            }
            None => Err(self.no_controller("devices")),
        };
        match result {
            Ok(()) => Ok(None),
            // Nothing was asked for, and without privileges a container cannot make device nodes.
            Err(error) if cannot_be_privileged(&error) && devices.is_empty() => Ok(None),
            Err(error) if cannot_be_privileged(&error) => Ok(Some(Diagnostic::warning(
                AT_DEVICES,
                "not enforced: this needs privileges over the whole host; without them the container \
                 cannot make device nodes anyway",
            ))),
            Err(error) => Err(error.at(AT_DEVICES)),
        }
    }
}

/// A failed write with the value that it tried.
fn write_value(
    path: &Path,
    write: &Write,
    journal: &mut Journal,
) -> std::result::Result<(), (String, Errno)> {
    let mut old = None;
    if journal.is_some() || matches!(write.value, Value::AfterFirstWord(_)) {
        old = Some(files::read(path).map_err(|errno| (String::new(), errno))?);
    }
    let value = match &write.value {
        Value::Is(value) => value.clone(),
        Value::AfterFirstWord(rest) => {
            let text = old.as_deref().unwrap_or_default();
            format!("{} {rest}", text.split_whitespace().next().unwrap_or("max"))
        }
    };
    // Before the write: when a later line fails, earlier lines may be in effect.
    if let (Some(journal), Some(old)) = (journal, old) {
        journal.push((path.to_owned(), old_value(&write.undo, &old)));
    }
    // The file accepts one line in each write(2).
    value.lines().try_for_each(|line| files::write(path, line).map_err(|errno| (line.to_owned(), errno)))
}

fn old_value(undo: &Undo, old: &str) -> String {
    match undo {
        Undo::Whole => old.trim_end().to_owned(),
        Undo::SecondWord => old.split_whitespace().nth(1).unwrap_or_default().to_owned(),
        Undo::Keyed(key, absent) => {
            let line = old.lines().find(|line| line.split_whitespace().next() == Some(key));
            line.map_or_else(|| format!("{key} {absent}"), str::to_owned)
        }
    }
}

/// A hint for a refused value, by file and error.
fn hint(file: &str, errno: Errno) -> Option<&'static str> {
    Some(match (file, errno) {
        ("cpuset.cpus" | "cpuset.mems", Errno::EINVAL | Errno::EACCES | Errno::ERANGE | Errno::ENODEV) => {
            "the list must be of CPUs (nodes) that exist and that the parent cgroup has"
        }
        ("memory.limit_in_bytes" | "memory.memsw.limit_in_bytes", Errno::EBUSY) => {
            "more than the new limit is in use and cannot be reclaimed"
        }
        ("memory.limit_in_bytes" | "memory.memsw.limit_in_bytes", Errno::EINVAL) => {
            "swap counts memory and swap together: it must not be below memory.limit"
        }
        ("cpu.rt_runtime_us" | "cpu.rt_period_us", Errno::EINVAL) => {
            "the parent cgroups must have this much realtime budget"
        }
        (
            "cpu.cfs_quota_us" | "cpu.cfs_period_us" | "cpu.cfs_burst_us" | "cpu.max" | "cpu.max.burst",
            Errno::EINVAL,
        ) => {
            "period is 1000 to 1000000, quota at least 1000 and within the parent's, burst at most the quota"
        }
        ("cpu.weight" | "cpu.shares", Errno::EINVAL) => "a cgroup with cpu.idle 1 has no weight of its own",
        (_, Errno::EACCES | Errno::EPERM | Errno::EROFS) => {
            "the cgroup must be delegated to the calling user, and its filesystem writable"
        }
        (file, Errno::ENODEV) if file.starts_with("blkio.") || file.starts_with("io.") => {
            "there is no such whole-disk block device; partitions have no limits of their own"
        }
        _ => return None,
    })
}

/// Whether a refusal is only due to the caller's lack of privileges over the whole host; for a caller who has them it
/// is an error.
fn cannot_be_privileged(error: &Error) -> bool {
    let refused = [Errno::EPERM, Errno::EACCES].iter().any(|&errno| error.errno() == Some(errno as i32));
    let missing = error.errno().is_none() && error.kind() == crate::error::ErrorKind::Unsupported;
    (refused || missing) && !has_host_root()
}

/// v2: attaches an eBPF program to the directory. On a cgroup in use it replaces the old one atomically.
fn set_program(dir: &Path, policy: &Policy, fresh: bool) -> Result<()> {
    if fresh && policy.allows_everything() {
        return Ok(());
    }
    let call = |name: &str| {
        let text = format!("bpf {name} on {}", dir.display());
        move |errno| Error::os(text, errno)
    };
    let cgroup = files::open(dir, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
        .map_err(|errno| files::failed("open", dir, errno))?;
    let old = match fresh {
        true => Vec::new(),
        false => bpf::attached_device_programs(&cgroup).map_err(call("BPF_PROG_QUERY"))?,
    };
    // Other programs belong to systemd or an administrator; the kernel asks each of them.
    let old: Vec<_> = old.into_iter().filter(|program| bpf::is_ours(program.as_fd())).collect();
    let program = bpf::load_device_program(&policy.program()).map_err(call("BPF_PROG_LOAD"))?;
    let replaced = old.first().map(AsFd::as_fd);
    bpf::attach_device_program(cgroup.as_fd(), program.as_fd(), replaced).map_err(call("BPF_PROG_ATTACH"))?;
    for extra in old.iter().skip(1) {
        bpf::detach_device_program(cgroup.as_fd(), extra.as_fd()).map_err(call("BPF_PROG_DETACH"))?;
    }
    Ok(())
}

/// v1: writes the default and its exceptions. On a cgroup in use, new rules are allowed before old ones are denied, and
/// the default is written only if it differs, so that running processes see no gap.
fn set_lists(dir: &Path, wanted: &V1, fresh: bool) -> Result<()> {
    let (same, other) = match wanted.allow {
        true => ("devices.allow", "devices.deny"),
        false => ("devices.deny", "devices.allow"),
    };
    let listed = |dir: &Path| -> Result<Vec<String>> {
        let path = dir.join("devices.list");
        let text = files::read(&path).map_err(|errno| files::failed("read", &path, errno))?;
        Ok(text.lines().map(str::to_owned).collect())
    };
    let mut present = Vec::new();
    if !fresh {
        present = listed(dir)?;
        let allows = present.iter().any(|line| line.starts_with("a "));
        // The kernel does not list the exceptions of a cgroup that allows by default.
        if allows || wanted.allow {
            present.clear();
        }
        if allows && wanted.allow && wanted.exceptions.is_empty() {
            return Ok(());
        }
    }
    if present.is_empty() {
        write_lines(dir, same, ["a"].into_iter())?;
    }
    let new = wanted.exceptions.iter().filter(|line| !present.contains(line));
    write_lines(dir, other, new.map(String::as_str))?;
    let gone = present.iter().filter(|line| !wanted.exceptions.contains(line));
    write_lines(dir, same, gone.map(String::as_str))
}

fn write_lines<'a>(dir: &Path, file: &str, mut lines: impl Iterator<Item = &'a str>) -> Result<()> {
    let Some(first) = lines.next() else { return Ok(()) };
    let path = dir.join(file);
    let fd = files::open(&path, OFlag::O_WRONLY).map_err(|errno| files::failed("open", &path, errno))?;
    for line in std::iter::once(first).chain(lines) {
        files::write_fd(&fd, line).map_err(|errno| {
            let error = Error::os(format!("write {line:?} to {}", path.display()), errno);
            match errno {
                Errno::EPERM => error.with_hint("the parent cgroup must allow what its children allow"),
                Errno::EINVAL => error.with_hint("a cgroup with children cannot change its default"),
                _ => error,
            }
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_values_are_spelled_as_the_file_takes_them() {
        let keyed = |key: &str, absent| Undo::Keyed(key.to_owned(), absent);
        for (undo, old, expected) in [
            (Undo::Whole, "max 100000\n", "max 100000"),
            (Undo::SecondWord, "oom_kill_disable 1\nunder_oom 0\n", "1"),
            (keyed("8:16", "0"), "8:0 5\n8:16 7\n", "8:16 7"),
            (keyed("8:1", "0"), "8:16 7\n", "8:1 0"),
            (keyed("default", "100"), "default 50\n8:0 7\n", "default 50"),
        ] {
            assert_eq!(old_value(&undo, old), expected);
        }
    }

    #[test]
    fn a_cgroup_without_hierarchies_says_what_it_cannot_limit() {
        let cgroup: Cgroup = serde_json::from_str(r#"{"hierarchies":[],"optional":true}"#).unwrap();
        let limit = serde_json::from_str(r#"{"pids":{"limit":5}}"#).unwrap();
        let error = cgroup.apply(&limit).unwrap_err();
        assert_eq!(error.config_path(), Some("linux.resources.pids.limit"));
        assert!(error.to_string().contains("controller pids"), "{error}");
    }
}

//! What a case must leave as it was: processes, mounts, cgroups, the runtime's state, the canary
//! directory and the host's devices. `Before::look` remembers, `left_behind` compares, `sweep` removes.
//! Every case is checked, so that each of them is a test for leaks too.

use crate::case::{Outcome, fail};
use crate::host::Host;
use crate::process;
use crate::test::Test;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub struct Before {
    mounts: Vec<String>,
    canary: Vec<String>,
    devices: Vec<String>,
    /// Those of an engine.
    processes: Vec<i32>,
}

const DEVICES: &[&str] =
    &["/dev/null", "/dev/zero", "/dev/ptmx", "/dev/tty", "/dev/console", "/dev", "/dev/pts"];

impl Before {
    pub fn look(test: &Test) -> Self {
        let processes = process::descendants(std::process::id() as i32);
        Self { mounts: mounts(), canary: tree(&test.canary()), devices: devices(), processes }
    }

    /// Things that end by themselves get a moment, those of an engine a longer one; what stays is a failure.
    pub fn nothing_left(&self, test: &Test) -> Outcome {
        let mut left = Vec::new();
        for _ in 0..if test.has_engine() { 600 } else { 100 } {
            left = self.left_behind(test);
            if left.is_empty() {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        fail(format!("left behind: {}", left.join("; ")))
    }

    /// Everything that is there and was not, or is not as it was.
    fn left_behind(&self, test: &Test) -> Vec<String> {
        let mut found = differences("mount", &self.mounts, &mounts());
        // A mount vanishes from every namespace when somebody removes the directory that it is on.
        let place = |line: &str| line.split(": ").nth(1)?.split(' ').nth(4).map(str::to_owned);
        found.retain(|line| {
            !line.starts_with("mount gone") || place(line).is_some_and(|at| Path::new(&at).exists())
        });
        found.extend(differences("canary", &self.canary, &tree(&test.canary())));
        found.extend(differences("device", &self.devices, &devices()));
        for state in std::iter::once(&test.runtime.state).chain(test.states()) {
            for entry in fs::read_dir(state).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                // crun keeps compiled filters there, which is no container's state.
                if !name.starts_with('.') {
                    found.push(format!("state {name}"));
                }
            }
        }
        for cgroup in test.host.cgroups(&test.cgroup) {
            // Podman has one for its monitors, Docker one above those of a build's steps, for ever.
            let of_engine = |path: &str| {
                test.has_engine() && ["/conmon", "/buildkit"].iter().any(|end| path.ends_with(end))
            };
            for entry in directories(&cgroup).into_iter().filter(|entry| !of_engine(entry)) {
                found.push(format!("cgroup {entry}"));
            }
        }
        let mut processes = process::descendants(std::process::id() as i32);
        processes.retain(|pid| !self.processes.contains(pid));
        for pid in processes {
            let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            found.push(format!("process {pid} {}", words.replace('\0', " ").trim()));
        }
        found
    }
}

/// Removes containers, processes, mounts and cgroups of the case, whatever state they are in.
pub fn sweep(test: &Test) {
    delete_containers(test);
    for pid in process::descendants(std::process::id() as i32) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    // An engine's directory is beside that of the case.
    let dir = if test.has_engine() { test.dir.parent().unwrap_or(&test.dir) } else { &test.dir };
    for line in mounts().iter().rev() {
        let target = line.split(' ').nth(4).unwrap_or_default();
        if Path::new(target).starts_with(dir) {
            let _ = nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH);
        }
    }
    end_cgroups(&test.host, &test.cgroup);
}

/// Ends what is in the cgroups of that name and removes them, with those below.
pub fn end_cgroups(host: &Host, name: &str) {
    for cgroup in host.cgroups(name) {
        for _ in 0..20 {
            remove_cgroups(&cgroup);
            if !cgroup.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// `delete --force` of whatever is left, as an engine would.
pub fn delete_containers(test: &Test) {
    for entry in fs::read_dir(&test.runtime.state).into_iter().flatten().flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        if !id.starts_with('.') {
            let _ = test.runtime.call(&["delete", "--force", &id]);
        }
    }
}

fn remove_cgroups(dir: &Path) {
    for entry in directories(dir) {
        remove_cgroups(Path::new(&entry));
    }
    // A frozen group ends no process.
    let _ = fs::write(dir.join("freezer.state"), "THAWED");
    let _ = fs::write(dir.join("cgroup.freeze"), "0");
    // All of them are the suite's: nobody else puts a process into a cgroup of this name.
    for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Ok(pid) = pid.parse::<i32>()
            && pid > 1
        {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    let _ = fs::remove_dir(dir);
}

fn directories(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.map(|entry| entry.path().display().to_string()).collect()
}

pub fn mounts() -> Vec<String> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mountinfo.lines().map(|line| without_options_of_all(line).to_owned()).collect()
}

/// The options of cgroup2 are the same for all mounts of it, and the CRIU of another case changes them for a while.
fn without_options_of_all(line: &str) -> &str {
    const KIND: &str = " - cgroup2 ";
    line.find(KIND).map_or(line, |at| &line[..at + KIND.len()])
}

fn devices() -> Vec<String> {
    let line = |path: &&str| {
        let meta = fs::symlink_metadata(path).ok()?;
        Some(format!("{path} {:o} {}:{} {:x}", meta.mode(), meta.uid(), meta.gid(), meta.rdev()))
    };
    DEVICES.iter().filter_map(line).collect()
}

/// One line for each file below `dir`, with what can be changed about it.
pub fn tree(dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let Ok(meta) = fs::symlink_metadata(dir) else { return lines };
    let content = if meta.is_file() { fs::read(dir).unwrap_or_default().len() } else { 0 };
    let changed = if meta.is_file() { meta.mtime_nsec() } else { 0 };
    let owner = format!("{}:{}", meta.uid(), meta.gid());
    lines.push(format!("{} {:o} {owner} {content} {changed}", dir.display(), meta.mode()));
    if meta.is_dir() {
        let mut entries: Vec<_> =
            fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
        entries.sort();
        lines.extend(entries.iter().flat_map(|entry| tree(entry)));
    }
    lines
}

fn differences(what: &str, before: &[String], after: &[String]) -> Vec<String> {
    let new = after.iter().filter(|line| !before.contains(line)).map(|line| format!("{what} new: {line}"));
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("{what} gone: {line}"));
    new.chain(gone).collect()
}

//! The machine's cgroup hierarchies, and the directory in each of them that the bench works below.
//!
//! Must not touch anything outside that directory but v2's `cgroup.subtree_control`, which every runtime
//! sets as well. `floor_plan.rs` turns the hierarchies into floor's lines.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

pub struct Hierarchy {
    pub mount: PathBuf,
    /// The mount data that selects this hierarchy in cgroup v1, `cpu,cpuacct`; None is cgroup v2.
    pub v1: Option<String>,
}

/// What `/proc/self/mountinfo` shows below `/sys/fs/cgroup`.
pub fn hierarchies() -> Result<Vec<Hierarchy>, String> {
    let mounts =
        fs::read_to_string("/proc/self/mountinfo").map_err(|e| format!("/proc/self/mountinfo: {e}"))?;
    let found: Vec<Hierarchy> = mounts.lines().filter_map(parse).collect();
    if found.is_empty() { Err("no cgroup hierarchy below /sys/fs/cgroup".to_owned()) } else { Ok(found) }
}

fn parse(line: &str) -> Option<Hierarchy> {
    let (left, right) = line.split_once(" - ")?;
    let mount = PathBuf::from(left.split(' ').nth(4)?);
    if !mount.starts_with("/sys/fs/cgroup") {
        return None;
    }
    let mut fields = right.split(' ');
    let v1 = match fields.next()? {
        "cgroup2" => None,
        "cgroup" => {
            let named = fields.nth(1)?.split(',').filter(|option| !matches!(*option, "rw" | "ro" | "xattr"));
            let named: Vec<&str> = named.filter(|option| !option.starts_with("release_agent")).collect();
            Some(named.join(","))
        }
        _ => return None,
    };
    Some(Hierarchy { mount, v1 })
}

/// `v1`, `v2`, or `v1 hybrid`: v1 with an empty unified hierarchy beside it.
pub fn layout(hierarchies: &[Hierarchy]) -> &'static str {
    let v2 = hierarchies.iter().filter(|one| one.v1.is_none()).count();
    match (v2, hierarchies.len()) {
        (0, _) => "v1",
        (v2, all) if v2 == all => "v2",
        _ => "v1 hybrid",
    }
}

/// The bench's own directory in every hierarchy, removed with everything in it when dropped.
pub struct Parent<'a> {
    hierarchies: &'a [Hierarchy],
    pub name: String,
}

impl<'a> Parent<'a> {
    pub fn new(hierarchies: &'a [Hierarchy], name: &str) -> Result<Self, String> {
        let parent = Self { hierarchies, name: name.to_owned() };
        for hierarchy in hierarchies {
            let dir = hierarchy.mount.join(name);
            fs::create_dir(&dir).map_err(|e| format!("mkdir {}: {e}", dir.display()))?;
            match &hierarchy.v1 {
                Some(controllers) if controllers.split(',').any(|one| one == "cpuset") => {
                    for (file, value) in cpuset(hierarchy)? {
                        write(&dir.join(file), &value)?;
                    }
                }
                Some(_) => {}
                None => delegate(&hierarchy.mount, &dir),
            }
        }
        Ok(parent)
    }
}

/// A v1 cpuset takes no process before these two are set; they are the parent's.
pub fn cpuset(hierarchy: &Hierarchy) -> Result<Vec<(&'static str, String)>, String> {
    let read = |file| {
        let path = hierarchy.mount.join(file);
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok((file, text.trim().to_owned()))
    };
    ["cpuset.cpus", "cpuset.mems"].into_iter().map(read).collect()
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

/// Gives the leaves below `dir` the controllers that a runtime would give them, so that every contestant's
/// cgroup costs the same. A controller that cannot be enabled is absent for all of them.
fn delegate(root: &Path, dir: &Path) {
    let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        for level in [root, dir] {
            let _ = write(&level.join("cgroup.subtree_control"), &format!("+{controller}"));
        }
    }
}

/// A bench that was killed could not clean: its directories carry a pid that no longer exists.
pub fn remove_stale(hierarchies: &[Hierarchy], prefix: &str, temporary: &Path) {
    let roots = hierarchies.iter().map(|one| one.mount.as_path());
    for root in roots.chain([temporary]) {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.strip_prefix(prefix).and_then(|pid| pid.parse::<u32>().ok());
            match pid.filter(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                Some(_) if root == temporary => drop(fs::remove_dir_all(entry.path())),
                Some(_) => drop(remove(&entry.path())),
                None => {}
            }
        }
    }
}

impl Drop for Parent<'_> {
    fn drop(&mut self) {
        for hierarchy in self.hierarchies {
            let dir = hierarchy.mount.join(&self.name);
            if !remove(&dir) {
                eprintln!("benches: {} is still busy and stays", dir.display());
            }
        }
    }
}

/// Kills what is left below `dir` (only containers of this bench can be there) and removes it.
fn remove(dir: &Path) -> bool {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    for _ in 0..100 {
        if fs::remove_dir(dir).is_ok() || !dir.exists() {
            return true;
        }
        for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
            if let Ok(pid) = pid.parse() {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
            }
        }
        sleep(Duration::from_millis(10));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_controllers_are_the_super_options_without_flags() {
        let line = "40 30 0:35 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct";
        let found = parse(line).expect("a cgroup mount");
        assert_eq!(found.v1.as_deref(), Some("cpu,cpuacct"));
        let named = "41 30 0:36 / /sys/fs/cgroup/systemd rw - cgroup systemd rw,xattr,name=systemd";
        assert_eq!(parse(named).and_then(|one| one.v1).as_deref(), Some("name=systemd"));
    }

    #[test]
    fn v2_has_no_controllers_and_other_mounts_are_ignored() {
        let line = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
        assert!(parse(line).is_some_and(|one| one.v1.is_none()));
        assert!(parse("30 20 0:26 / /proc rw - proc proc rw").is_none());
        assert!(parse("30 20 0:26 / /srv/cgroup rw - cgroup2 cgroup2 rw").is_none());
    }
}

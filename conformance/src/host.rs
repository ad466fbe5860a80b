//! Facts about the host that decide which cases can run: user, kernel, cgroup layout. Nothing is
//! changed but in `delegate`, which moves this process. case.rs has what a case can need.

use std::fs;
use std::path::{Path, PathBuf};

pub struct Host {
    pub root: bool,
    /// True where /sys/fs/cgroup is cgroup v2 alone.
    pub unified: bool,
    pub capabilities: u64,
    pub kernel: (u32, u32),
    /// The cgroup below which the suite makes its own: the root, or what a user was given.
    pub own_cgroup: Option<String>,
    /// v1: (controllers, mount point) of every hierarchy; v2: the available controllers, one mount point.
    hierarchies: Vec<(Vec<String>, PathBuf)>,
}

impl Host {
    pub fn look() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default()
        };
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|text| text.parse().unwrap_or(0));
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let root = nix::unistd::geteuid().is_root();
        let own_cgroup = if root { Some(String::new()) } else { delegated() };
        Self {
            root,
            unified,
            capabilities: u64::from_str_radix(field("CapEff:"), 16).unwrap_or(0),
            kernel: (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)),
            hierarchies: if unified {
                unified_hierarchy(own_cgroup.as_deref().unwrap_or_default())
            } else {
                mounted_hierarchies()
            },
            own_cgroup,
        }
    }

    pub fn has_controller(&self, name: &str) -> bool {
        self.hierarchies.iter().any(|(names, _)| names.iter().any(|have| have == name))
    }

    /// Where the cgroup `path` is in the hierarchy of `controller`.
    pub fn cgroup(&self, controller: &str, path: &str) -> PathBuf {
        let found = self.hierarchies.iter().find(|(names, _)| names.iter().any(|have| have == controller));
        let top = found.or(self.hierarchies.first()).map_or(Path::new("/sys/fs/cgroup"), |(_, top)| top);
        top.join(path.trim_start_matches('/'))
    }

    /// Every place where a cgroup of that name can be.
    pub fn cgroups(&self, path: &str) -> Vec<PathBuf> {
        self.hierarchies.iter().map(|(_, top)| top.join(path.trim_start_matches('/'))).collect()
    }
}

/// The leaf that the suite is in while its parent, the user's, has the cgroups of the cases.
const LEAF: &str = "/conformance-suite";

fn unified_path() -> Option<String> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

fn delegated() -> Option<String> {
    unified_path()?.strip_suffix(LEAF).map(str::to_owned)
}

/// A user on cgroup v2 may have been given the cgroup that this is started in, as by systemd's
/// `Delegate=`. A cgroup with controllers for its children has no processes: this one moves to a leaf.
pub fn delegate() {
    let Some(path) = unified_path() else { return };
    if nix::unistd::geteuid().is_root() || path.ends_with(LEAF) || path == "/" {
        return;
    }
    let top = PathBuf::from(format!("/sys/fs/cgroup{path}"));
    let leaf = PathBuf::from(format!("/sys/fs/cgroup{path}{LEAF}"));
    let names = fs::read_to_string(top.join("cgroup.controllers")).unwrap_or_default();
    let enabled: Vec<String> = names.split_whitespace().map(|name| format!("+{name}")).collect();
    let moved = fs::create_dir(&leaf)
        .and_then(|()| fs::write(leaf.join("cgroup.procs"), "0"))
        .and_then(|()| fs::write(top.join("cgroup.subtree_control"), enabled.join(" ")));
    if moved.is_err() {
        // Others are in it, or it is not the user's: the cases that want a cgroup say so.
        let _ = fs::write(top.join("cgroup.procs"), "0");
        let _ = fs::remove_dir(&leaf);
    }
}

fn unified_hierarchy(own: &str) -> Vec<(Vec<String>, PathBuf)> {
    let names = fs::read_to_string(format!("/sys/fs/cgroup{own}/cgroup.controllers")).unwrap_or_default();
    let mut names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
    // Parts of the core that v1 has as controllers.
    names.extend(["freezer", "devices"].map(str::to_owned));
    vec![(names, PathBuf::from("/sys/fs/cgroup"))]
}

fn mounted_hierarchies() -> Vec<(Vec<String>, PathBuf)> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found = Vec::new();
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let Some(dash) = fields.iter().position(|field| *field == "-") else { continue };
        let kind = fields.get(dash + 1).copied().unwrap_or_default();
        let options = fields.get(dash + 3).copied().unwrap_or_default();
        if matches!(kind, "cgroup" | "cgroup2") {
            let names = options.split(',').map(str::to_owned).collect();
            found.push((names, PathBuf::from(fields[4])));
        }
    }
    found
}

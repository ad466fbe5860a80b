//! A picture of what a container could leave behind: descriptors, children, mounts, cgroups, state.

use super::bundle::{Bundle, prefix};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[derive(Debug, PartialEq, Eq)]
pub struct World {
    /// What each descriptor of this process is.
    fds: Vec<String>,
    children: BTreeSet<String>,
    mounts: Vec<String>,
    cgroups: BTreeSet<String>,
    state: Vec<String>,
}

impl World {
    pub fn of(bundle: &Bundle) -> Self {
        let mut cgroups = BTreeSet::new();
        find_cgroups(Path::new("/sys/fs/cgroup"), 0, &mut cgroups);
        let directory = bundle.directory.display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        Self {
            fds: fds(),
            children: children(),
            mounts: mounts.lines().filter(|line| line.contains(&directory)).map(String::from).collect(),
            cgroups,
            state: names(&bundle.store),
        }
    }
}

impl World {
    /// Without the store, in which a network's lock may stay.
    pub fn outside_store(bundle: &Bundle) -> Self {
        Self { state: Vec::new(), ..Self::of(bundle) }
    }

    /// Less is fine: a child of an earlier test, dropped while it ran, is reaped by whoever comes next.
    pub fn assert_nothing_beyond(&self, before: &Self) {
        // The library makes its one descriptor with the first start, which may be this one.
        let is_stage = |fd: &&String| fd.contains("/memfd:onggi-stage");
        let first = self.fds.iter().filter(|_| !before.fds.iter().any(|fd| is_stage(&fd))).find(is_stage);
        let is_new = |fd: &&String| !before.fds.contains(fd) && Some(*fd) != first;
        let fds: Vec<_> = self.fds.iter().filter(is_new).collect();
        assert!(fds.is_empty(), "descriptors are left: {fds:?}");
        let children: Vec<_> = self.children.difference(&before.children).collect();
        assert!(children.is_empty(), "children are left: {children:?}");
        assert_eq!(
            (&self.mounts, &self.cgroups, &self.state),
            (&before.mounts, &before.cgroups, &before.state)
        );
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Numbers and targets, without the one that reads the directory.
pub fn fds() -> Vec<String> {
    let link = |name: &String| {
        Some(format!("{name} {}", fs::read_link(format!("/proc/self/fd/{name}")).ok()?.display()))
    };
    let own = format!("/proc/{}/fd", std::process::id());
    names(Path::new("/proc/self/fd")).iter().filter_map(link).filter(|line| !line.ends_with(&own)).collect()
}

/// The names of this process's children, dead ones included, with their pids.
pub fn children() -> BTreeSet<String> {
    let own = std::process::id().to_string();
    let stat = |name: &String| {
        let text = fs::read_to_string(format!("/proc/{name}/stat")).ok()?;
        let (start, rest) = text.rsplit_once(')')?;
        let parent = rest.split_ascii_whitespace().nth(1)?;
        (parent == own).then(|| start.to_string())
    };
    names(Path::new("/proc"))
        .iter()
        .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        .filter_map(stat)
        .collect()
}

fn find_cgroups(directory: &Path, depth: u32, found: &mut BTreeSet<String>) {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let path = entry.path();
        if entry.file_name().to_string_lossy().contains(&prefix()) {
            found.insert(path.display().to_string());
        }
        if depth < 6 {
            find_cgroups(&path, depth + 1, found);
        }
    }
}

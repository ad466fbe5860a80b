//! The directory of a cgroup in one hierarchy: where it is, which processes are in it, and the directories that a
//! creation makes.

use super::freezer::Freezer;
use super::layout::Mount;
use super::{files, tree};
use crate::error::{Error, ErrorKind, Result};
use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::UnlinkatFlags;
use serde::{Deserialize, Serialize};
use std::path::{Component, Path, PathBuf};

pub(super) const AT_PATH: &str = "linux.cgroupsPath";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hierarchy {
    pub mount: PathBuf,
    pub dir: PathBuf,
    /// v1: the controllers of the hierarchy. Empty: the v2 hierarchy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controllers: Vec<String>,
}

impl Hierarchy {
    pub fn is_v2(&self) -> bool {
        self.controllers.is_empty()
    }

    /// Whether systemd watches it for the processes of its units.
    pub fn is_watched(&self) -> bool {
        self.is_v2() || self.controllers.iter().any(|name| name == "name=systemd")
    }
}

/// The directories that a creation has made so far. Dropping this removes them.
#[derive(Default)]
pub struct NewDirs {
    pub(super) dirs: Vec<PathBuf>,
}

impl NewDirs {
    /// Keeps the directories, because the creation is complete.
    pub fn keep(&mut self) {
        self.dirs.clear();
    }

    pub fn one_is_gone(&self) -> bool {
        self.dirs.iter().any(|dir| !dir.exists())
    }

    /// mkdir(2); `false` when the directory is there already.
    pub(super) fn mkdir(&mut self, dir: &Path) -> std::result::Result<bool, Errno> {
        match nix::unistd::mkdir(dir, Mode::from_bits_truncate(0o755)) {
            Ok(()) => {
                self.dirs.push(dir.to_owned());
                Ok(true)
            }
            Err(Errno::EEXIST) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

impl Drop for NewDirs {
    fn drop(&mut self) {
        for dir in self.dirs.iter().rev() {
            // Best effort: an ancestor may have another container's cgroup in it meanwhile.
            let _ = nix::unistd::unlinkat(nix::fcntl::AT_FDCWD, dir, UnlinkatFlags::RemoveDir);
        }
    }
}

/// The directory, below a mount point, of a cgroup in the terms of `/proc/PID/cgroup`.
pub(super) fn below(mount: &Mount, cgroup: &Path) -> Result<PathBuf> {
    let outside = cgroup.components().any(|part| part == Component::ParentDir);
    match cgroup.strip_prefix(&mount.root) {
        Ok(relative) if !outside => Ok(mount.point.join(relative)),
        // The parent of a mount's own root: in a container's view there is nothing above that root.
        _ if mount.root.starts_with(cgroup) && !outside => Ok(mount.point.clone()),
        _ => Err(Error::unsupported(format!(
            "the cgroup {} is not visible below {}",
            cgroup.display(),
            mount.point.display()
        ))
        .at(AT_PATH)
        .with_hint("use an absolute linux.cgroupsPath")),
    }
}

/// An existing directory may become a container's only if no process is in it.
pub(super) fn refuse_used(hierarchy: &Hierarchy) -> Result<()> {
    let pids = read_all_pids(&hierarchy.dir)?;
    let dir = hierarchy.dir.display();
    if let Some(pid) = pids.first() {
        return Err(Error::new(
            ErrorKind::WrongState,
            format!("{dir} is in use, the first process is {pid}"),
        )
        .within(format!("container's cgroup is not empty: {} process(es) found", pids.len()))
        .at("linux.cgroupsPath")
        .with_hint("another container has it, or an old one was not deleted"));
    }
    let freezer = match hierarchy {
        v2 if v2.is_v2() => Freezer::V2(&hierarchy.dir),
        v1 if v1.controllers.iter().any(|name| name == "freezer") => Freezer::V1(&hierarchy.dir),
        _ => return Ok(()),
    };
    match freezer.is_frozen()? {
        false => Ok(()),
        true => Err(Error::new(ErrorKind::WrongState, format!("{dir} exists and is frozen"))
            .within("container's cgroup unexpectedly frozen")
            .at("linux.cgroupsPath")
            .with_hint(format!("nothing could run in it; remove it: rmdir {dir}"))),
    }
}

/// In a new directory below a frozen one nothing would ever run, not even the stage to its first call.
pub(super) fn refuse_below_frozen(hierarchy: &Hierarchy) -> Result<()> {
    let (file, sign) = match hierarchy {
        v2 if v2.is_v2() => ("cgroup.events", "frozen 1"),
        v1 if v1.controllers.iter().any(|name| name == "freezer") => ("freezer.state", "FR"),
        _ => return Ok(()),
    };
    // A cgroup's own file also says whether one above it is frozen; the root cannot be frozen.
    if hierarchy.dir.parent() == Some(&hierarchy.mount) {
        return Ok(());
    }
    match files::read(&hierarchy.dir.join(file)) {
        Ok(text) if text.lines().any(|line| line.starts_with(sign)) => {
            let dir = hierarchy.dir.display();
            Err(Error::new(ErrorKind::WrongState, format!("a cgroup above {dir} is frozen"))
                .within("container's cgroup unexpectedly frozen")
                .at("linux.cgroupsPath")
                .with_hint(
                    "thaw it first: write 0 to its cgroup.freeze (v2), or THAWED to its freezer.state",
                ))
        }
        // A kernel without the file cannot freeze.
        _ => Ok(()),
    }
}

/// The pids in one cgroup. A cgroup that is gone has none.
pub(super) fn read_pids(dir: &Path) -> Result<Vec<i32>> {
    let path = dir.join("cgroup.procs");
    pids_in(files::read(&path)).map_err(|errno| files::failed("read", &path, errno))
}

/// The pids in a cgroup and in all below it.
pub(super) fn read_all_pids(dir: &Path) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    let read = tree::each(dir, |dir| {
        pids.extend(pids_in(tree::read(dir, "cgroup.procs"))?);
        Ok(())
    });
    read.map_err(|errno| files::failed("list the processes below", dir, errno))?;
    Ok(pids)
}

fn pids_in(text: std::result::Result<String, Errno>) -> std::result::Result<Vec<i32>, Errno> {
    match text {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(Vec::new()),
        // A threaded v2 cgroup has threads only; its processes are listed further up.
        Err(Errno::EOPNOTSUPP) => Ok(Vec::new()),
        Err(errno) => Err(errno),
    }
}

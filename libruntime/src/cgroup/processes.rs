//! The processes of a cgroup: lists them, signals them until none is left, freezes them.
//!
//! Must not use a pid that may have been reused: signals go through pidfds that are checked against a second reading of
//! the list.

use super::freezer::Freezer;
use super::hierarchy::{Hierarchy, below, read_all_pids, read_pids};
use super::layout::{self, Layout};
use super::{Cgroup, files, tree};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{pidfd_open, pidfd_send_signal};
use nix::errno::Errno;
use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long freezing and killing may take before it is an error.
const DEADLINE: Duration = Duration::from_secs(8);

impl Cgroup {
    /// The processes in the cgroup itself, with `recursive` also in those below it.
    pub fn pids(&self, recursive: bool) -> Result<Vec<i32>> {
        let Some(hierarchy) = self.listing() else { return Ok(Vec::new()) };
        let mut pids = if recursive { read_all_pids(&hierarchy.dir)? } else { read_pids(&hierarchy.dir)? };
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Sends a signal to every process in the cgroup and below. SIGKILL is sent until only processes are left that the
    /// kernel is still ending; other signals are sent once to each process.
    pub fn kill_all(&self, signal: i32) -> Result<()> {
        self.signal_all(signal)?;
        if signal == libc::SIGKILL { self.let_killed_end() } else { Ok(()) }
    }

    /// Thaws what is frozen, because a v1 freezer keeps even killed processes from ending; thawed, they do nothing
    /// else. The container may have frozen cgroups of its own below.
    pub fn let_killed_end(&self) -> Result<()> {
        let Ok(Freezer::V1(dir)) = self.freezer() else { return Ok(()) };
        let thaw = |dir: &OwnedFd| match tree::write(dir, "freezer.state", "THAWED") {
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(()),
            other => other,
        };
        tree::each(dir, thaw).map_err(|errno| files::failed("write THAWED to freezer.state in", dir, errno))
    }

    fn signal_all(&self, signal: i32) -> Result<()> {
        let Some(hierarchy) = self.listing() else { return Ok(()) };
        if signal == libc::SIGKILL && hierarchy.is_v2() {
            match files::write(&hierarchy.dir.join("cgroup.kill"), "1") {
                Ok(()) => {
                    // `cgroup.kill` signals thread group leaders alone: where a leader has ended before its threads,
                    // these live on. Best effort, because the caller may not signal processes of other users.
                    let _ = self.signal(&self.pids(true)?, signal);
                    return Ok(());
                }
                Err(Errno::ENODEV) => return Ok(()),
                // No such file: the cgroup is gone, or the kernel is older than 5.14.
                Err(_) => {}
            }
        }
        let deadline = Instant::now() + DEADLINE;
        let mut done = HashSet::new();
        loop {
            let fresh: Vec<i32> = self.pids(true)?.into_iter().filter(|pid| !done.contains(pid)).collect();
            if fresh.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Error::external(format!(
                    "new processes appear in {} faster than they can be killed",
                    hierarchy.dir.display()
                ))
                .with_hint("freeze the container (pause) first"));
            }
            self.signal(&fresh, signal)?;
            done.extend(fresh);
        }
    }

    /// Sends a signal to each process; returns the first error.
    fn signal(&self, pids: &[i32], signal: i32) -> Result<()> {
        if pids.is_empty() {
            return Ok(());
        }
        let mut result = Ok(());
        let open: Vec<_> = pids.iter().filter_map(|&pid| Some((pid, pidfd_open(pid).ok()?))).collect();
        // A pid that was reused outside the cgroup before pidfd_open is not in this list.
        let still: HashSet<i32> = self.pids(true)?.into_iter().collect();
        for (pid, fd) in open.iter().filter(|(pid, _)| still.contains(pid)) {
            match pidfd_send_signal(fd.as_fd(), signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => {
                    result = result.and(Err(Error::os(format!("pidfd_send_signal to {pid}"), errno)));
                }
            }
        }
        result
    }

    /// Stops every process in the cgroup and below, and waits until they are stopped.
    pub fn freeze(&self) -> Result<()> {
        self.freezer()?.freeze()
    }

    /// The reverse of [`Cgroup::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.freezer()?.thaw()
    }

    /// Whether it is frozen or freezing; a cgroup that is gone is not.
    pub fn is_frozen(&self) -> Result<bool> {
        match self.freezer() {
            Ok(freezer) => freezer.is_frozen(),
            // Without any freezer nothing can be frozen.
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The hierarchy that lists the processes: v2 where there is one, because of `cgroup.kill`.
    pub(super) fn listing(&self) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|h| h.is_v2()).or_else(|| self.hierarchies.first())
    }

    fn freezer(&self) -> Result<Freezer<'_>> {
        let v1 = self.hierarchies.iter().find(|h| h.controllers.iter().any(|name| name == "freezer"));
        let v2 = self.hierarchies.iter().find(|h| h.is_v2());
        match (v1, v2) {
            (Some(hierarchy), _) => Ok(Freezer::V1(&hierarchy.dir)),
            (None, Some(hierarchy)) => Ok(Freezer::V2(&hierarchy.dir)),
            (None, None) => Err(self.no_controller("freezer")),
        }
    }
}

/// Whether the cgroup that a process is in, or one above, keeps it frozen; false where that cannot be told.
pub(crate) fn keeps_frozen(pid: i32) -> bool {
    let Ok(text) = files::read(Path::new(&format!("/proc/{pid}/cgroup"))) else { return false };
    let Ok(layout) = Layout::probe() else { return false };
    let is_frozen = |(controllers, path): &(Vec<String>, PathBuf)| {
        let mount = layout.mounts.iter().find(|mount| mount.controllers == *controllers)?;
        let directory = below(mount, path).ok()?;
        let (file, frozen) = match controllers.is_empty() {
            true => ("cgroup.events", "frozen 1"),
            false => ("freezer.state", "FROZEN"),
        };
        let text = files::read(&directory.join(file)).ok()?;
        Some(text.lines().any(|line| line == frozen))
    };
    layout::hierarchies(&text).iter().any(|one| is_frozen(one) == Some(true))
}

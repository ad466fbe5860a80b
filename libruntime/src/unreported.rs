//! Processes that the stage has cloned, and that have not reported themselves: nothing but what is here would end or reap
//! them.

use crate::child::{self, Child};
use crate::error::{Error, Result};
use crate::executed::name_of_dead_clone;
use crate::stage::Executable;
use crate::sys;
use nix::sys::wait::WaitPidFlag;
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

/// The stage's end of the channel, by which its processes are told from those of other starts.
pub(crate) struct EndOfStage {
    /// Its number in the stage.
    number: RawFd,
    /// As procfs shows it (proc_pid_fd(5)).
    link: String,
}

impl EndOfStage {
    pub fn of(channel: &OwnedFd, number: RawFd) -> Result<Self> {
        let found = nix::sys::stat::fstat(channel).map_err(|errno| Error::os("fstat the channel", errno))?;
        Ok(Self { number, link: format!("socket:[{}]", found.st_ino) })
    }

    /// The pid of a living child of ours that has it, and no handle.
    pub fn pid(&self) -> Option<i32> {
        let has_it = |pid: &i32| {
            let link = std::fs::read_link(format!("/proc/{pid}/fd/{}", self.number));
            link.is_ok_and(|link| link.as_os_str() == self.link.as_str())
        };
        child::without_handle().into_iter().find(has_it)
    }

    /// A handle of it. In a frozen cgroup a process cannot report itself.
    pub fn find(&self) -> Option<Child> {
        let pid = self.pid()?;
        Some(Child::new(pid, sys::pidfd_open(pid).ok()?))
    }
}

/// Reaps a process that was killed before it could report its pid, because its pid namespace could not end otherwise.
/// The process need not be dead yet when its channel is closed.
pub(crate) fn reap(stage: Executable) {
    let names = stage.names();
    let is_lost = |pid: &i32| name_of_dead_clone(*pid).is_some_and(|name| names.contains(&name));
    for _ in 0..50 {
        if let Some(pid) = child::without_handle().into_iter().find(is_lost) {
            // A host that reaps all children may have been first.
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

//! Signals while a process runs in the foreground, to which they are passed on.
//!
//! They are blocked and read from a descriptor, so that one loop can wait for everything and no
//! handler runs at a bad moment.

use crate::failure::Failure;
use libruntime::Cancel;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use std::os::fd::{AsFd, BorrowedFd};

/// The signals of a stack that has overflowed: std has handlers for them that say so. The other faults of the command
/// itself end it although their signals are blocked (signal(7)), and so does abort(3).
const OURS: &[Signal] = &[Signal::SIGBUS, Signal::SIGSEGV];

pub struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// Blocks them from now on. A process that is started meanwhile gets them once it runs.
    pub fn block() -> Result<Self, Failure> {
        let mut set = SigSet::all();
        OURS.iter().for_each(|signal| set.remove(*signal));
        set.thread_block().map_err(|errno| Failure::os("sigprocmask", errno))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let fd = SignalFd::with_flags(&set, flags).map_err(|errno| Failure::os("signalfd", errno))?;
        Ok(Self { fd })
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The number of the next signal that has come.
    pub fn next(&self) -> Option<i32> {
        self.fd.read_signal().ok().flatten().map(|info| info.ssi_signo as i32)
    }
}

/// The signals that ask the command to end. They are blocked, and cancel the library's waits instead, so that a verb
/// rolls back what it has done.
pub struct Interrupt;

impl Interrupt {
    /// Blocks them until [`Interrupt::release`] or the end: a second signal must not keep an error from being printed.
    pub fn block() -> Result<Cancel, Failure> {
        let set = Self::signals();
        set.thread_block().map_err(|errno| Failure::os("sigprocmask", errno))?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        Ok(Cancel::when_readable(fd.map_err(|errno| Failure::os("signalfd", errno))?.into()))
    }

    /// Unblocks them, before a wait that is not the library's.
    pub fn release() -> Result<(), Failure> {
        Self::signals().thread_unblock().map_err(|errno| Failure::os("sigprocmask", errno))
    }

    fn signals() -> SigSet {
        let asking = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
        // A signal that the caller ignores, as nohup(1) does, stays ignored: blocked, it would be read.
        asking.into_iter().filter(|signal| !libruntime::is_ignored(*signal as i32)).collect()
    }
}

/// Reaps adopted children (prctl(2), PR_SET_CHILD_SUBREAPER), but not `main`.
pub fn reap_others(main: i32) {
    let any = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    loop {
        let pid = match waitid(Id::All, any) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => pid,
            Err(Errno::EINTR) => continue,
            _ => return,
        };
        if pid.as_raw() == main || waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_err() {
            return;
        }
    }
}

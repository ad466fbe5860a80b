//! Signals while something runs in the foreground: they are for it, so they are passed on.
//!
//! They are blocked and read from a descriptor, so that one loop can wait for everything and no
//! handler runs at a bad moment.

use crate::failure::Failure;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use std::os::fd::{AsFd, BorrowedFd};

/// Those of our own mistakes stay as they are.
const OURS: &[Signal] = &[
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
];

pub struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// From now on; the process that is started meanwhile gets them when it runs.
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

    /// The next one that has come, by its number.
    pub fn next(&self) -> Option<i32> {
        self.fd.read_signal().ok().flatten().map(|info| info.ssi_signo as i32)
    }
}

/// Those that ask us to end. They are blocked, and end our waits in the library instead, so that what
/// has been done so far is undone.
pub struct Interrupt {
    fd: SignalFd,
}

impl Interrupt {
    /// From now on, until [`Interrupt::release`] or the end: one that comes later must not keep an error
    /// from being told.
    pub fn block() -> Result<Self, Failure> {
        let set = Self::signals();
        set.thread_block().map_err(|errno| Failure::os("sigprocmask", errno))?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        Ok(Self { fd: fd.map_err(|errno| Failure::os("signalfd", errno))? })
    }

    /// Lets them end us again, before a wait that is not the library's.
    pub fn release() -> Result<(), Failure> {
        Self::signals().thread_unblock().map_err(|errno| Failure::os("sigprocmask", errno))
    }

    fn signals() -> SigSet {
        let asking = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
        // A blocked signal would come although the caller wants it ignored, as nohup(1) does.
        asking.into_iter().filter(|signal| !libruntime::is_ignored(*signal as i32)).collect()
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Reaps what has become our child (prctl(2), PR_SET_CHILD_SUBREAPER), but not `main`.
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

/// A signal's number from its name, with or without `SIG`, or from its number.
pub fn parse(text: &str) -> Result<i32, Failure> {
    let unknown = || Failure::new(format!("unknown signal {text:?}"));
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|number| *number <= RTMAX).ok_or_else(unknown);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let realtime = |base: &str, sign: i32| {
        let rest = name.strip_prefix(base)?;
        let offset = if rest.is_empty() { 0 } else { rest.strip_prefix(['+', '-'])?.parse::<i32>().ok()? };
        (0..=RTMAX - RTMIN).contains(&offset).then_some(sign * offset)
    };
    if let Some(offset) = realtime("RTMIN", 1) {
        return Ok(RTMIN + offset);
    }
    if let Some(offset) = realtime("RTMAX", -1) {
        return Ok(RTMAX + offset);
    }
    let name = match name {
        "CLD" => "CHLD",
        "IOT" => "ABRT",
        "POLL" => "IO",
        name => name,
    };
    format!("SIG{name}").parse::<Signal>().map(|signal| signal as i32).map_err(|_| unknown())
}

/// As kill(1) counts them: the C library keeps the first two of the kernel's.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

#[cfg(test)]
mod tests {
    #[test]
    fn signals_have_names_and_numbers() {
        let parse = |text| super::parse(text).ok();
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("9", 9),
            ("RTMIN+1", 35),
            ("SIGRTMAX", 64),
            ("64", 64),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in ["NOSUCH", "65", "999", "9x", "-9", "", "SIG", "RTMIN+31", "RTMIN1"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

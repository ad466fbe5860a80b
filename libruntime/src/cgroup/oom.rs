//! Being told when the kernel runs out of memory in a container's cgroup.
//!
//! v1 has an eventfd for it, v2 a file whose changes can be polled. Must not kill or change anything.

use super::{Cgroup, files, stats};
use crate::error::{Error, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What a wait ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oom {
    /// Memory ran out. `killed` processes have been killed for it so far; v1 tells of the event
    /// before the kernel has chosen one.
    Happened {
        killed: u64,
    },
    /// The cgroup is gone, or (v2) no process is left in it: no event will come.
    Gone,
    TimedOut,
}

/// The events since it was made.
pub struct OomEvents {
    source: Source,
    /// `memory.oom_control` or `memory.events`.
    path: PathBuf,
    counts: OwnedFd,
    seen: u64,
}

enum Source {
    V1(EventFd),
    /// `cgroup.events`.
    V2(OwnedFd),
}

impl Cgroup {
    pub fn oom_events(&self) -> Result<OomEvents> {
        let dir = self.dir_of("memory").ok_or_else(|| {
            Error::unsupported("no cgroup hierarchy of the container has the memory controller")
        })?;
        let open = |name: &str| {
            let path = dir.join(name);
            files::open(&path, OFlag::O_RDONLY).map_err(|errno| files::failed("open", &path, errno))
        };
        let name = if self.is_v2() { "memory.events" } else { "memory.oom_control" };
        let counts = open(name)?;
        let source = if self.is_v2() {
            Source::V2(open("cgroup.events")?)
        } else {
            let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
                .map_err(|errno| Error::os("eventfd", errno))?;
            let path = dir.join("cgroup.event_control");
            let line = format!("{} {}", event.as_fd().as_raw_fd(), counts.as_raw_fd());
            files::write(&path, &line)
                .map_err(|errno| Error::os(format!("write {line:?} to {}", path.display()), errno))?;
            Source::V1(event)
        };
        let mut events = OomEvents { source, path: dir.join(name), counts, seen: 0 };
        events.seen = events.killed()?.unwrap_or(0);
        Ok(events)
    }
}

impl OomEvents {
    /// Waits for the next event; without a time-out until there is one or the cgroup is gone.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Oom> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            if let Source::V2(_) = self.source
                && let Some(event) = self.changed_v2()?
            {
                return Ok(event);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let ready = self.poll(left)?;
            if let (Source::V1(event), true) = (&self.source, ready) {
                // Also written to when the cgroup is removed. Nobody else reads it: EAGAIN is no error.
                let _ = event.read();
                return Ok(self.killed()?.map_or(Oom::Gone, |killed| Oom::Happened { killed }));
            }
            if !ready
                && left.is_some_and(|left| left.is_zero() || deadline.is_some_and(|d| Instant::now() >= d))
            {
                return Ok(Oom::TimedOut);
            }
        }
    }

    fn changed_v2(&mut self) -> Result<Option<Oom>> {
        match self.killed()? {
            None => return Ok(Some(Oom::Gone)),
            Some(killed) if killed > self.seen => {
                self.seen = killed;
                return Ok(Some(Oom::Happened { killed }));
            }
            Some(_) => {}
        }
        let Source::V2(fd) = &self.source else { return Ok(None) };
        match files::read_fd(fd) {
            Ok(text) if text.lines().any(|line| line == "populated 0") => Ok(Some(Oom::Gone)),
            Ok(_) => Ok(None),
            Err(Errno::ENODEV) => Ok(Some(Oom::Gone)),
            Err(errno) => Err(files::failed("read", &self.path, errno)),
        }
    }

    /// `None` when the cgroup is gone.
    fn killed(&self) -> Result<Option<u64>> {
        match files::read_fd(&self.counts) {
            Ok(text) => Ok(Some(stats::flat(&text).get("oom_kill").copied().unwrap_or(0))),
            Err(Errno::ENODEV) => Ok(None),
            Err(errno) => Err(files::failed("read", &self.path, errno)),
        }
    }

    fn poll(&self, left: Option<Duration>) -> Result<bool> {
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            // Up, so that the wait does not spin through the last fraction of a millisecond.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = match &self.source {
            Source::V1(event) => vec![PollFd::new(event.as_fd(), PollFlags::POLLIN)],
            Source::V2(events) => vec![
                PollFd::new(self.counts.as_fd(), PollFlags::POLLPRI),
                PollFd::new(events.as_fd(), PollFlags::POLLPRI),
            ],
        };
        match poll(&mut fds, timeout) {
            Ok(count) => Ok(count > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(files::failed("poll", &self.path, errno)),
        }
    }
}

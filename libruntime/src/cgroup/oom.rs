//! Notifications that a container's cgroup runs out of memory.
//!
//! v1 has an eventfd for it, v2 a file whose changes can be polled. Must not kill or change anything.

use super::{Cgroup, files, stats};
use crate::error::{Error, Result};
use crate::wait::{Wait, Woken};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// The result of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Oom {
    /// The cgroup ran out of memory. `killed` processes have been killed for it so far; on v1 the event comes before
    /// the kernel has chosen a process.
    Happened {
        /// Since the cgroup was made.
        killed: u64,
    },
    /// The cgroup is gone, or (v2) no process is left in it: no event will come.
    Gone,
    /// No event has come in the given time.
    TimedOut,
}

/// An event for each time that a container runs out of memory, from [`crate::Container::oom_events`] on. Its descriptor
/// ([`AsFd`]) is readable when there may be an event for [`OomEvents::try_next`].
#[derive(Debug)]
pub struct OomEvents {
    source: Source,
    /// `memory.oom_control` or `memory.events`.
    path: PathBuf,
    counts: OwnedFd,
    seen: u64,
}

#[derive(Debug)]
enum Source {
    V1(EventFd),
    /// `cgroup.events`, and the epoll that watches it and `memory.events`.
    V2(OwnedFd, Epoll),
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
            let (events, epoll) = (open("cgroup.events")?, Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC));
            let epoll = epoll.map_err(|errno| Error::os("epoll_create1", errno))?;
            for file in [&counts, &events] {
                epoll
                    .add(file, EpollEvent::new(EpollFlags::EPOLLPRI, 0))
                    .map_err(|errno| Error::os("epoll_ctl", errno))?;
            }
            Source::V2(events, epoll)
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
    ///
    /// # Errors
    /// The cgroup's files cannot be read.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Oom> {
        let wait = timeout.map_or(Wait::default(), Wait::at_most);
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(event);
            }
            match wait.poll(&[(self.as_fd(), PollFlags::POLLIN)])? {
                Woken::Ready(_) => {}
                Woken::Late => return Ok(self.try_next()?.unwrap_or(Oom::TimedOut)),
                Woken::Ended(ended) => return Err(ended.error("the next OOM event".into())),
            }
        }
    }

    /// The next event, if there is one by now.
    ///
    /// # Errors
    /// As [`OomEvents::wait`].
    pub fn try_next(&mut self) -> Result<Option<Oom>> {
        match &self.source {
            Source::V2(..) => self.changed_v2(),
            Source::V1(event) => match event.read() {
                // The kernel also signals the eventfd when the cgroup is removed.
                Ok(_) => Ok(Some(self.killed()?.map_or(Oom::Gone, |killed| Oom::Happened { killed }))),
                Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
                Err(errno) => Err(Error::os("read an eventfd", errno)),
            },
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
        let Source::V2(fd, _) = &self.source else { return Ok(None) };
        match files::read_fd(fd) {
            Ok(text) if text.lines().any(|line| line == "populated 0") => Ok(Some(Oom::Gone)),
            Ok(_) => Ok(None),
            Err(Errno::ENODEV) => Ok(Some(Oom::Gone)),
            Err(errno) => Err(files::failed("read", &self.path, errno)),
        }
    }

    /// How many processes have been killed for it so far; `None` when the cgroup is gone. The last ones are counted
    /// also after the container's end.
    ///
    /// # Errors
    /// As [`OomEvents::wait`].
    pub fn killed(&self) -> Result<Option<u64>> {
        match files::read_fd(&self.counts) {
            Ok(text) => Ok(Some(stats::flat(&text).get("oom_kill").copied().unwrap_or(0))),
            Err(Errno::ENODEV) => Ok(None),
            Err(errno) => Err(files::failed("read", &self.path, errno)),
        }
    }
}

impl AsFd for OomEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            Source::V1(event) => event.as_fd(),
            Source::V2(_, epoll) => epoll.0.as_fd(),
        }
    }
}

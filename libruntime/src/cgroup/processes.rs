//! The processes of a cgroup: listing, signalling until none is left, freezing.
//!
//! Must not use a pid after it could have been reused: signals go through pidfds that are checked
//! against a second reading of the list.

use super::{Cgroup, Hierarchy, files};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{pidfd_open, pidfd_send_signal};
use crate::wait::{self, Wait, Woken};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long freezing and killing may take before it is an error.
const DEADLINE: Duration = Duration::from_secs(8);

impl Cgroup {
    /// The processes in the cgroup itself, with `recursive` also in those below it.
    pub fn pids(&self, recursive: bool) -> Result<Vec<i32>> {
        let Some(hierarchy) = self.listing() else { return Ok(Vec::new()) };
        let mut pids = Vec::new();
        collect(&hierarchy.dir, recursive, &mut pids)?;
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Sends a signal to every process in the cgroup and below. SIGKILL is sent until none is left
    /// but those that the kernel is still ending, other signals once to each process.
    pub fn kill_all(&self, signal: i32) -> Result<()> {
        self.signal_all(signal)?;
        if signal == libc::SIGKILL { self.let_killed_end() } else { Ok(()) }
    }

    /// A v1 freezer keeps even killed processes from ending; they do nothing else once thawed.
    pub fn let_killed_end(&self) -> Result<()> {
        match self.freezer() {
            Ok(Freezer::V1(dir)) => {
                let path = dir.join("freezer.state");
                match files::write(&path, "THAWED") {
                    Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => Ok(()),
                    Err(errno) => Err(files::failed("write THAWED to", &path, errno)),
                }
            }
            _ => Ok(()),
        }
    }

    fn signal_all(&self, signal: i32) -> Result<()> {
        let Some(hierarchy) = self.listing() else { return Ok(()) };
        if signal == libc::SIGKILL && hierarchy.is_v2() {
            match files::write(&hierarchy.dir.join("cgroup.kill"), "1") {
                Ok(()) => {
                    // The kernel sends it to leaders alone: where one has ended before its threads they
                    // live on. Those of other users were only the kernel's to end.
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

    /// To each of them; the error is the first.
    fn signal(&self, pids: &[i32], signal: i32) -> Result<()> {
        if pids.is_empty() {
            return Ok(());
        }
        let mut result = Ok(());
        let open: Vec<_> = pids.iter().filter_map(|&pid| Some((pid, pidfd_open(pid).ok()?))).collect();
        // A pid that ended and was given to a process outside before pidfd_open is not listed now.
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
        match self.freezer()? {
            Freezer::V1(dir) => freeze_v1(dir),
            Freezer::V2(dir) => set_frozen_v2(dir, true),
        }
    }

    /// The reverse of [`Cgroup::freeze`].
    pub fn thaw(&self) -> Result<()> {
        match self.freezer()? {
            Freezer::V1(dir) => write(&dir.join("freezer.state"), "THAWED"),
            Freezer::V2(dir) => set_frozen_v2(dir, false),
        }
    }

    /// Whether it is frozen, or was asked to be; a cgroup that is gone is not.
    pub fn is_frozen(&self) -> Result<bool> {
        match self.freezer() {
            Ok(freezer) => freezer.is_frozen(),
            // Without any freezer nothing can be frozen.
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The hierarchy to ask for processes: v2 where there is one, for `cgroup.kill`.
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

enum Freezer<'a> {
    V1(&'a Path),
    V2(&'a Path),
}

impl Freezer<'_> {
    fn is_frozen(&self) -> Result<bool> {
        let (path, thawed) = match self {
            Self::V1(dir) => (dir.join("freezer.state"), "THAWED"),
            Self::V2(dir) => (dir.join("cgroup.freeze"), "0"),
        };
        match files::read(&path) {
            Ok(state) => Ok(state.trim_end() != thawed),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
            Err(errno) => Err(files::failed("read", &path, errno)),
        }
    }
}

/// An existing directory may become a container's only when nobody uses it.
pub(super) fn refuse_used(hierarchy: &Hierarchy) -> Result<()> {
    let mut pids = Vec::new();
    collect(&hierarchy.dir, true, &mut pids)?;
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
    // That of its own says whether one above is; the root of all cannot be.
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
        // A kernel without the file does not freeze.
        _ => Ok(()),
    }
}

/// The pids of one directory. A cgroup that is gone has none.
pub(super) fn read_pids(dir: &Path) -> Result<Vec<i32>> {
    let path = dir.join("cgroup.procs");
    match files::read(&path) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(Vec::new()),
        // A threaded v2 cgroup has threads only; its processes are listed further up.
        Err(Errno::EOPNOTSUPP) => Ok(Vec::new()),
        Err(errno) => Err(files::failed("read", &path, errno)),
    }
}

fn collect(dir: &Path, recursive: bool, pids: &mut Vec<i32>) -> Result<()> {
    pids.extend(read_pids(dir)?);
    if recursive {
        for child in files::children(dir) {
            collect(&child, true, pids)?;
        }
    }
    Ok(())
}

fn write(path: &Path, value: &str) -> Result<()> {
    files::write(path, value)
        .map_err(|errno| Error::os(format!("write {value} to {}", path.display()), errno))
}

/// A v1 freezer may stay in FREEZING while processes fork or sit in the kernel; asking again makes
/// it try again, and a thaw in between lets what blocks it move on.
fn freeze_v1(dir: &Path) -> Result<()> {
    let path = dir.join("freezer.state");
    let deadline = Instant::now() + DEADLINE;
    let mut tries = 0u32;
    while Instant::now() < deadline {
        if let Err(error) = wait::check(|| format!("freeze {}", dir.display())) {
            write(&path, "THAWED")?;
            return Err(error);
        }
        write(&path, "FROZEN")?;
        match files::read(&path).map_err(|errno| files::failed("read", &path, errno))?.trim_end() {
            "FROZEN" => return Ok(()),
            _ => std::thread::sleep(Duration::from_micros(if tries < 20 { 50 } else { 2000 })),
        }
        tries += 1;
        if tries.is_multiple_of(100) {
            write(&path, "THAWED")?;
        }
    }
    write(&path, "THAWED")?;
    Err(Error::external(format!("{} did not become FROZEN in {} s", path.display(), DEADLINE.as_secs()))
        .with_hint("a process sleeps uninterruptibly; see /proc/PID/stack"))
}

/// Writes `cgroup.freeze` and waits for `cgroup.events` to say so.
fn set_frozen_v2(dir: &Path, frozen: bool) -> Result<()> {
    let path = dir.join("cgroup.events");
    let events = files::open(&path, OFlag::O_RDONLY).map_err(|errno| files::failed("open", &path, errno))?;
    write(&dir.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
    let wanted = if frozen { "frozen 1" } else { "frozen 0" };
    let wait = Wait::at_most(DEADLINE);
    let woken = loop {
        let text = files::read_fd(&events).map_err(|errno| files::failed("read", &path, errno))?;
        if text.lines().any(|line| line == wanted) {
            return Ok(());
        }
        // kernfs wakes POLLPRI waiters when the text has changed since it was read.
        match wait.poll(&[(events.as_fd(), PollFlags::POLLPRI)])? {
            Woken::Ready(_) => {}
            woken => break woken,
        }
    };
    if frozen {
        write(&dir.join("cgroup.freeze"), "0")?;
    }
    Err(match woken {
        Woken::Ended(ended) => ended.error(format!("freeze or thaw {}", dir.display())),
        _ => {
            Error::external(format!("{} did not say {wanted:?} in {} s", path.display(), DEADLINE.as_secs()))
        }
    })
}

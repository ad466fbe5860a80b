//! Freezing and thawing of a cgroup, by the v1 controller and by v2.

use super::files;
use crate::error::{Error, Result};
use crate::wait::{self, Wait, Woken};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long freezing may take before it is an error.
const DEADLINE: Duration = Duration::from_secs(8);

/// The directory that freezes a cgroup.
pub(super) enum Freezer<'a> {
    V1(&'a Path),
    V2(&'a Path),
}

impl Freezer<'_> {
    pub fn freeze(&self) -> Result<()> {
        match self {
            Self::V1(dir) => freeze_v1(dir),
            Self::V2(dir) => set_frozen_v2(dir, true),
        }
    }

    pub fn thaw(&self) -> Result<()> {
        match self {
            Self::V1(dir) => write(&dir.join("freezer.state"), "THAWED"),
            Self::V2(dir) => set_frozen_v2(dir, false),
        }
    }

    pub fn is_frozen(&self) -> Result<bool> {
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

fn write(path: &Path, value: &str) -> Result<()> {
    files::write(path, value)
        .map_err(|errno| Error::os(format!("write {value} to {}", path.display()), errno))
}

/// A v1 freezer may stay in FREEZING while processes fork or sleep in the kernel. Writing the state again makes it
/// retry, and a thaw in between lets the processes that block it go on.
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

//! Child processes of the library. This module alone reaps them, so that a dropped handle leaves no zombie, which would
//! keep its pid namespace from ending.

use crate::error::{Error, ErrorKind, Result};
use crate::state::Directory;
use crate::sys::{self, ExitStatus};
use crate::wait::{DEADLINE, Wait, Woken};
use nix::errno::Errno;
use nix::poll::PollFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

/// A process that the library has started, or that the stage has cloned as its sibling.
#[derive(Debug)]
pub(crate) struct Child(Arc<Process>);

#[derive(Debug)]
struct Process {
    pid: i32,
    pidfd: OwnedFd,
    /// Set once it is reaped.
    ended: Mutex<Option<ExitStatus>>,
    /// The directory of the container whose init it is, where its exit status is recorded for others.
    container: OnceLock<Directory>,
    /// Whether its end is left to the process that adopts it.
    left: AtomicBool,
}

/// The children that are not reaped yet, with and without a handle.
static ALL: Mutex<Vec<Arc<Process>>> = Mutex::new(Vec::new());

/// Nothing that holds a lock here can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Process {
    /// Reaps it, if it has ended. Something else may have reaped it before: a host that waits for any child, or the
    /// kernel where the host ignores SIGCHLD. Then its pidfd still has the exit status (Linux 6.15).
    fn reap(&self) -> Result<Option<ExitStatus>> {
        let mut ended = lock(&self.ended);
        if ended.is_none() {
            *ended = match sys::wait_pidfd(self.pidfd.as_fd(), false) {
                Ok(exit) => exit,
                Err(Errno::ECHILD) => Some(sys::exit_of_reaped(self.pidfd.as_fd()).map_err(|_| self.lost())?),
                Err(errno) => return Err(Error::os("waitid", errno)),
            };
            if let (Some(exit), Some(container)) = (*ended, self.container.get()) {
                // Best effort: the container may be deleted, or the disk full, and the caller gets the status anyway.
                let _ = container.write_exit(exit);
            }
        }
        Ok(*ended)
    }

    fn lost(&self) -> Error {
        Error::new(ErrorKind::Reaped, format!("process {} was reaped by somebody else", self.pid)).with_hint(
            "the calling program waits for all children or ignores SIGCHLD; before Linux 6.15 the exit code is lost",
        )
    }

    /// Nothing of it is left to be waited for.
    fn is_over(&self) -> bool {
        !matches!(self.reap(), Ok(None))
    }
}

impl Child {
    pub fn new(pid: i32, pidfd: OwnedFd) -> Self {
        let process = Arc::new(Process {
            pid,
            pidfd,
            ended: Mutex::new(None),
            container: OnceLock::new(),
            left: AtomicBool::new(false),
        });
        let mut all = lock(&ALL);
        // Nothing else reaps a child without a handle.
        all.retain(|one| Arc::strong_count(one) > 1 || !one.is_over());
        all.push(process.clone());
        Self(process)
    }

    pub fn pid(&self) -> i32 {
        self.0.pid
    }

    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.0.pidfd.as_fd()
    }

    /// Whether its exit status is known here.
    pub fn is_reaped(&self) -> bool {
        lock(&self.0.ended).is_some()
    }

    /// Has its exit status recorded in the container's directory once it is reaped.
    pub fn is_init_of(&self, container: Directory) {
        let _ = self.0.container.set(container);
    }

    /// Waits for its end, as long as it takes: a program runs for days.
    pub fn wait(&self) -> Result<ExitStatus> {
        let ended = self.wait_within(&Wait::default())?;
        ended.ok_or_else(|| Error::external("poll returned without an end"))
    }

    /// Its exit status, without waiting; `None` while it runs.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        self.0.reap()
    }

    /// `None` where it has not ended in time.
    pub fn wait_within(&self, wait: &Wait) -> Result<Option<ExitStatus>> {
        loop {
            if let Some(exit) = self.0.reap()? {
                self.forget();
                return Ok(Some(exit));
            }
            match wait.poll(&[(self.pidfd(), PollFlags::POLLIN)])? {
                Woken::Ready(_) => {}
                Woken::Late => return self.0.reap(),
                Woken::Ended(ended) => return Err(ended.error(format!("the end of process {}", self.pid()))),
            }
            if self.0.reap()?.is_none() {
                // A tracer holds the zombie, and no event tells when it has reaped it.
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Waits for its end and reaps the library's other children meanwhile: zombies in its pid namespace would keep it
    /// from ending.
    pub fn wait_beside_others(&self, wait: &Wait) -> Result<Option<ExitStatus>> {
        match self.try_wait()? {
            None if await_end(self.pidfd(), wait)? => self.wait_within(wait),
            ended => Ok(ended),
        }
    }

    /// From now on a dropped handle does not reap it: its end is left to the process that adopts it after this one.
    pub fn leave(&self) {
        self.0.left.store(true, Ordering::Relaxed);
        self.forget();
    }

    fn forget(&self) {
        lock(&ALL).retain(|one| !Arc::ptr_eq(one, &self.0));
    }

    /// Kills it. If it is stuck in the kernel, it is reaped later.
    pub fn kill(&self) {
        // It may be dead already.
        let _ = sys::pidfd_send_signal(self.pidfd(), libc::SIGKILL);
        let _ = self.wait_within(&Wait::at_any_rate(DEADLINE));
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // If it still runs, the next start or deletion of a process reaps it.
        if !self.0.left.load(Ordering::Relaxed) && self.0.is_over() {
            self.forget();
        }
    }
}

/// The pids of our children that have no handle (proc_pid_task(5), `children`).
pub(crate) fn without_handle() -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let all: Vec<i32> = lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    let held: Vec<i32> = lock(&ALL).iter().map(|one| one.pid).collect();
    all.into_iter().filter(|pid| !held.contains(pid)).collect()
}

/// Reaps what has ended and returns the rest. The lock is released, so that a wait for these does not keep other
/// threads from starting processes.
fn still_running() -> Vec<Arc<Process>> {
    let mut all = lock(&ALL);
    all.retain(|one| !one.is_over());
    all.clone()
}

/// Waits until the process of `pidfd` has ended, and reaps the library's children meanwhile: the init of a pid
/// namespace ends only after everything in it is reaped. Returns whether it ended in time.
pub(crate) fn await_end(pidfd: BorrowedFd, wait: &Wait) -> Result<bool> {
    loop {
        let all = still_running();
        let pidfds = all.iter().map(|one| (one.pidfd.as_fd(), PollFlags::POLLIN));
        let wanted: Vec<_> = std::iter::once((pidfd, PollFlags::POLLIN)).chain(pidfds).collect();
        match wait.poll(&wanted)? {
            Woken::Ready(ready) if ready.first() == Some(&true) => {
                // It may be a child of ours without a handle.
                lock(&ALL).retain(|one| !one.is_over());
                return Ok(true);
            }
            // Only zombies that a tracer holds, as above.
            Woken::Ready(_) if !all.iter().any(|one| one.is_over()) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Woken::Ready(_) => {}
            Woken::Late => return Ok(false),
            Woken::Ended(ended) => return Err(ended.error("the end of a process".into())),
        }
    }
}

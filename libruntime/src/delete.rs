//! The end of a container: its signals, and its deletion.

use crate::child;
use crate::container::Container;
use crate::error::{Diagnostic, Error, ErrorKind, Result};
use crate::hook_stdio::HookStdio;
use crate::signal::Signal;
use crate::state::{ProcessId, State};
use crate::status::Status;
use crate::transaction::unmount_rootfs;
use crate::wait::{self, DEADLINE, Wait};
use crate::{hooks, network, resctrl, sys, trace};
use nix::errno::Errno;
use oci_spec::runtime::LinuxNamespaceType;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

impl Container {
    /// Sends a signal to its init (runtime.md, "Kill"). Without a pid namespace of its own,
    /// [`Signal::KILL`] goes to all of its processes, which would not end with init.
    ///
    /// # Errors
    /// [`ErrorKind::WrongState`] when it has ended.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        wait::limited(&self.limits, || self.send(signal.0))
    }

    /// Sends a signal to each of its processes.
    ///
    /// # Errors
    /// It has no cgroup to find them by.
    pub fn kill_all(&self, signal: Signal) -> Result<()> {
        // In its own pid namespace, all processes end with init.
        if signal == Signal::KILL && self.state.cgroup.is_none() && self.has_own(LinuxNamespaceType::Pid)? {
            return self.kill(signal);
        }
        let number = || signal.0.to_string();
        wait::limited(&self.limits, || {
            trace::part("send to all processes signal", number, || self.cgroup_of_all()?.kill_all(signal.0))
        })
    }

    fn send(&self, signal: i32) -> Result<()> {
        let sent = self.running_init().and_then(|pidfd| {
            sys::pidfd_send_signal(pidfd, signal).map_err(|errno| match errno {
                Errno::ESRCH => self.not_running(),
                errno => Error::os(format!("pidfd_send_signal {signal}"), errno),
            })
        });
        if signal != libc::SIGKILL {
            return sent;
        }
        if self.has_own(LinuxNamespaceType::Pid)? {
            sent?;
            // One of the processes that would end with init may trace it, and so keep it from ending.
            let is_traced = self.state.init.is_some_and(ProcessId::is_traced);
            let cgroup = &self.state.cgroup;
            return if is_traced { cgroup.kill_all(signal) } else { cgroup.let_killed_end() };
        }
        // Without a pid namespace of its own, the others do not end with init.
        if self.state.cgroup.pids(true)?.is_empty() {
            return sent;
        }
        self.state.cgroup.kill_all(signal)
    }

    /// Removes a container (runtime.md, "Delete") that has stopped or was only created. Returns the errors of poststop
    /// hooks, in spite of which the container is removed.
    ///
    /// Once the container has ended, it waits for nothing but hooks: an event loop kills the container, waits until its
    /// descriptor is readable ([`Container::as_fd`](AsFd)), and then deletes it.
    ///
    /// # Errors
    /// [`ErrorKind::WrongState`] while it runs; [`ErrorKind::NotFound`] when it was deleted meanwhile.
    pub fn delete(&self) -> Result<Vec<Diagnostic>> {
        wait::limited(&self.limits, || self.delete_by(false))
    }

    /// Ends and removes a container in any state, even if its creation was interrupted. It is no error if the container
    /// is gone.
    ///
    /// # Errors
    /// One of its processes does not end within eight seconds, or something of it cannot be removed. The deletion can
    /// be tried again.
    pub fn delete_force(&self) -> Result<Vec<Diagnostic>> {
        wait::limited(&self.limits, || self.delete_by(true))
    }

    fn delete_by(&self, force: bool) -> Result<Vec<Diagnostic>> {
        self.check_deletable(force)?;
        if force {
            self.end_creation();
            // Before the lock: another verb may hold it while it waits for a process of the container.
            if self.running_init().is_ok() {
                let _ = self.send(libc::SIGKILL);
            }
        }
        let lock = match self.directory.lock() {
            Err(error) if force && error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        if self.state.init.is_none()
            && let Some(whole) = self.created_meanwhile()?
        {
            whole.check_deletable(force)?;
            return whole.delete_locked(&lock);
        }
        self.delete_locked(&lock)
    }

    /// This container with its whole state, where its creation was completed after this handle was loaded.
    fn created_meanwhile(&self) -> Result<Option<Self>> {
        let Some(settings) = &self.settings else { return Ok(None) };
        match Self::load(settings, self.id()) {
            Ok(container) if container.state.init.is_some() => Ok(Some(container)),
            _ => Ok(None),
        }
    }

    fn delete_locked(&self, lock: &crate::state::Lock) -> Result<Vec<Diagnostic>> {
        if self.status() == Status::Paused {
            self.state.cgroup.thaw()?;
        }
        trace::plain("wait for the end of init", || self.end_for_deletion())?;
        self.remove_parts()?;
        let spec = self.spec().ok();
        let after = spec.and_then(|spec| spec.hooks().as_ref()?.poststop().as_deref());
        let stdio = HookStdio::outside(&self.state, Status::Stopped, self.allows_hook_output());
        let limits = hooks::Limits::of_poststop();
        let site = hooks::Site::Runtime { bundle: &self.state.bundle };
        let failed = hooks::run_each(after.unwrap_or_default(), "hooks.poststop", &stdio, &site, limits);
        trace::plain("remove the container's directory", || self.directory.remove(lock))?;
        Ok(failed.iter().map(Diagnostic::of_error).collect())
    }

    fn check_deletable(&self, force: bool) -> Result<()> {
        let status = self.status();
        if force || matches!(status, Status::Stopped | Status::Created) {
            return Ok(());
        }
        Err(self.wrong_state("delete", status).with_hint("kill it first, or delete it by force"))
    }

    /// Kills its init, waits for its end, and reaps it where it is a child of this process.
    fn end_for_deletion(&self) -> Result<()> {
        let Ok(pidfd) = self.running_init() else {
            self.reap();
            return Ok(());
        };
        match sys::pidfd_send_signal(pidfd, libc::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => self.await_end(pidfd),
            Err(errno) => Err(Error::os("pidfd_send_signal SIGKILL", errno)),
        }
    }

    /// Kills the init of a creation that another process is still busy with: that creation then fails, and releases the
    /// lock.
    fn end_creation(&self) {
        if self.state.init.is_none()
            && let Ok(State { init: Some(init), .. }) = self.directory.read_prepared_state()
            && let Ok(pidfd) = sys::pidfd_open(init.pid)
            && init.is_alive()
        {
            let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
        }
    }

    /// Removes everything outside its directory.
    fn remove_parts(&self) -> Result<()> {
        let connected = network::begin_tear_down(self.store(), &self.state.id);
        trace::plain("remove the cgroup", || self.state.cgroup.kill_and_remove())?;
        if connected {
            let ends = self.has_own(LinuxNamespaceType::Network).unwrap_or(false);
            let disconnect = || network::tear_down(self.store(), &self.state.id, ends);
            trace::plain("disconnect networks", disconnect)?;
        }
        resctrl::remove(&self.state.resctrl);
        if self.state.mounted_on_host {
            unmount_rootfs(&self.state.rootfs);
        }
        Ok(())
    }

    /// Waits for the end of its init after SIGKILL, and reaps it where it is a child of this process.
    pub(crate) fn await_end(&self, pidfd: BorrowedFd) -> Result<()> {
        const USUAL: Duration = Duration::from_millis(200);
        let mut ended = child::await_end(pidfd, &Wait::at_most(USUAL))?;
        if !ended {
            // Its other processes can keep it from ending: by a v1 freezer cgroup of their own, or as its tracer
            // (ptrace(2), PTRACE_EVENT_EXIT). Best effort: only the end of init counts here.
            let _ = self.state.cgroup.kill_all(libc::SIGKILL);
            ended = child::await_end(pidfd, &Wait::at_most(DEADLINE))?;
        }
        if ended {
            self.reap();
            return Ok(());
        }
        Err(Error::external(format!("the init of container {} does not end", self.id()))
            .with_hint("it may be stuck in the kernel; see /proc/PID/stack"))
    }

    /// Reaps its init. The exit status is kept for later; it makes no difference here if something else has reaped it.
    fn reap(&self) {
        if let Some(child) = self.child() {
            let _ = child.wait_within(&Wait::at_any_rate(DEADLINE));
        }
    }
}

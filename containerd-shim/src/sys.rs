//! The calls that no crate has; the shim's only unsafe code.
#![allow(unsafe_code)]

pub mod mounts;
pub mod pod_init;
mod pod_program;

use nix::errno::Errno;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// ioctl_tty(2), TIOCSWINSZ.
pub fn set_terminal_size(terminal: impl AsFd, rows: u16, columns: u16) -> nix::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel reads one winsize at the address, which lives until the call returns.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })
        .map(drop)
}

/// Takes a child that has ended without reaping it, of this thread alone: waitid(2), __WNOTHREAD and WNOWAIT.
pub fn ended_child() -> Option<i32> {
    // SAFETY: all zeros are a siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL | libc::__WNOTHREAD;
    // SAFETY: the kernel writes one siginfo_t at the address.
    let waited = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) };
    // SAFETY: waitid(2) has filled in the fields of SIGCHLD, or the zeros are left.
    let pid = unsafe { info.si_pid() };
    (waited == 0 && pid > 0).then_some(pid)
}

/// Reaps it.
pub fn reap(pid: i32) {
    // SAFETY: no status is asked for.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG | libc::__WALL) };
}

/// A core scheduling cookie for the caller's process group (prctl(2), PR_SCHED_CORE): children inherit it.
pub fn share_core_in_group() -> nix::Result<()> {
    const GROUP: libc::c_ulong = 2;
    // SAFETY: numbers only.
    let made = unsafe { libc::prctl(libc::PR_SCHED_CORE, libc::PR_SCHED_CORE_CREATE, 0, GROUP, 0) };
    Errno::result(made).map(drop)
}

/// pidfd_send_signal(2).
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> nix::Result<()> {
    let (pidfd, none) = (pidfd.as_fd().as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: numbers, and no siginfo_t.
    Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, none, 0) }).map(drop)
}

/// madvise(2), MADV_DONTNEED. idle.rs gives the addresses of pages that are in their file as they are in memory.
pub fn give_back(pages: Range<usize>) -> nix::Result<()> {
    let from = std::ptr::without_provenance_mut::<libc::c_void>(pages.start);
    // SAFETY: at the next access the kernel maps the same contents again.
    Errno::result(unsafe { libc::madvise(from, pages.len(), libc::MADV_DONTNEED) }).map(drop)
}

/// pidfd_open(2). Of a child that nobody has reaped: else the pid may be another process's.
pub fn pidfd_open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: numbers.
    let made = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: a new descriptor, which is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(made as i32) })
}

/// fcntl(2), F_DUPFD_CLOEXEC: a copy whose number is above that one.
pub fn duplicate_above(descriptor: impl AsFd, number: i32) -> nix::Result<OwnedFd> {
    let descriptor = descriptor.as_fd().as_raw_fd();
    // SAFETY: numbers.
    let made = Errno::result(unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, number + 1) })?;
    // SAFETY: a new descriptor, which is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// ioctl_nsfs(2), NS_GET_USERNS: the user namespace that the namespace belongs to.
pub fn owner_of_namespace(namespace: impl AsFd) -> nix::Result<OwnedFd> {
    const GET_USERNS: u32 = 0xb701;
    // SAFETY: numbers.
    let made = Errno::result(unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), GET_USERNS as _) })?;
    // SAFETY: a new descriptor, which is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

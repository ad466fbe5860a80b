//! Dispositions of signals, for a program that is the library's only user: see [`reset_sigchld`].

use std::ptr;

/// Whether the process ignores `signal` (sigaction(2)).
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: zeros are a value of this structure, and without a new action nothing changes.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: `action` is ours and large enough.
    let known = unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) } == 0;
    known && action.sa_sigaction == libc::SIG_IGN
}

/// Resets an inherited SIG_IGN of SIGCHLD, with which the kernel reaps all children (waitid(2), NOTES). Only for a
/// program that owns its process: the library never changes its caller's signals.
pub fn reset_sigchld() {
    // SAFETY: the default action runs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

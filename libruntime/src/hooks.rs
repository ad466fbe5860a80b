//! `hooks`: programs that run at points of a container's life, with its state on their input.
//!
//! Those of the runtime's namespaces are started like any program. Those of the container's
//! (createContainer, startContainer) are started by the stage, which joins it: see [`crate::parent`].

use crate::error::{Error, Result};
use crate::sys;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::Hook;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How much of a hook's messages an error carries.
const LONGEST_MESSAGE: u64 = 4096;

/// Runs hooks in the runtime's namespaces, one after the other; the first that fails ends it.
/// `place` is the list, such as `hooks.poststop`.
pub(crate) fn run_all(hooks: &[Hook], place: &str, state: &[u8]) -> Result<()> {
    hooks.iter().enumerate().try_for_each(|(at, hook)| run(hook, &format!("{place}[{at}]"), state))
}

/// The time that a hook may take.
pub(crate) fn timeout(hook: &Hook) -> Option<Duration> {
    hook.timeout().map(|seconds| Duration::from_secs(seconds.max(0) as u64))
}

fn run(hook: &Hook, place: &str, state: &[u8]) -> Result<()> {
    let path = hook.path();
    let mut command = Command::new(path);
    if let Some((name, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(rest);
    }
    command.env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.envs(hook.env().iter().flatten().filter_map(|entry| entry.split_once('=')));
    let failed = |error| Error::io(format!("execve {}", path.display()), error).at(format!("{place}.path"));
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read its input.
        let _ = stdin.write_all(state);
    }
    let messages = child.stderr.take();
    let pidfd = sys::pidfd_open(child.id() as i32).map_err(|errno| Error::os("pidfd_open", errno))?;
    let ended = wait_in_time(pidfd.as_fd(), timeout(hook), place, path.display().to_string());
    let status = child.wait().map_err(|error| Error::io("wait", error))?;
    ended?;
    if status.success() {
        return Ok(());
    }
    Err(said(messages.map(OwnedFd::from), format!("hook {} failed: {status}", path.display())).at(place))
}

/// An error with what the hook wrote. Not waited for: a process of the hook may still hold the pipe.
pub(crate) fn said(messages: Option<OwnedFd>, what: String) -> Error {
    let mut text = String::new();
    if let Some(fd) = messages {
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        let _ = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(flags));
        let mut bytes = Vec::new();
        let _ = std::fs::File::from(fd).take(LONGEST_MESSAGE).read_to_end(&mut bytes);
        text = String::from_utf8_lossy(&bytes).trim().to_string();
    }
    Error::external(if text.is_empty() { what } else { format!("{what}: {text}") })
}

/// Waits for the end of a process, and kills one that takes too long.
pub(crate) fn wait_in_time(
    pidfd: BorrowedFd,
    limit: Option<Duration>,
    place: &str,
    name: String,
) -> Result<()> {
    let begin = Instant::now();
    loop {
        let left = limit.map(|limit| limit.saturating_sub(begin.elapsed()));
        let milliseconds = left.map(|left| left.as_millis().min(i32::MAX as u128) as i32);
        let timeout = match milliseconds {
            None => PollTimeout::NONE,
            Some(milliseconds) => PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX),
        };
        match poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], timeout) {
            Ok(0) if left.is_some_and(|left| left.is_zero()) || limit.is_some() => {
                let _ = sys::pidfd_send_signal(pidfd, libc::SIGKILL);
                let seconds = limit.unwrap_or_default().as_secs();
                return Err(Error::external(format!(
                    "hook {name} took longer than {seconds} s and was killed"
                ))
                .at(format!("{place}.timeout")));
            }
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(Error::os("poll", errno)),
        }
    }
}

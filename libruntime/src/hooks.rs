//! `hooks`: programs that run at points of a container's life, with its state on their input.
//!
//! All of them are started by the stage: nothing of the caller's stays open in them, their signals
//! are reset, and those of the container's namespaces (createContainer, startContainer) join it.

use crate::error::{Error, Result};
use crate::parent::{Child, Event, Given, Launch, Stage};
use crate::{plan, sys};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use oci_spec::runtime::{Hook, Spec};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use sys::Exit;

/// How much of a hook's messages an error carries.
const LONGEST_MESSAGE: u64 = 4096;

/// The container that a hook joins: its configuration and its init.
pub(crate) type Inside<'a> = Option<(&'a Spec, BorrowedFd<'a>)>;

/// Runs hooks one after the other; the first that fails ends it. `place` is the list, such as
/// `hooks.createRuntime`.
pub(crate) fn run_all(hooks: &[Hook], place: &str, state: &[u8], inside: Inside) -> Result<()> {
    let mut all = hooks.iter().enumerate();
    all.try_for_each(|(at, hook)| run(hook, &format!("{place}[{at}]"), state, inside))
}

/// Runs every hook, whatever happens to the others, and returns what failed.
pub(crate) fn run_each(hooks: &[Hook], place: &str, state: &[u8]) -> Vec<Error> {
    let all = hooks.iter().enumerate();
    all.filter_map(|(at, hook)| run(hook, &format!("{place}[{at}]"), state, None).err()).collect()
}

fn run(hook: &Hook, place: &str, state: &[u8], inside: Inside) -> Result<()> {
    let plan = plan::exec::hook(hook, place, inside.map(|(spec, _)| spec))?;
    let failed = |errno| Error::os("pipe", errno).at(place.to_string());
    let (stdin, feed) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    let (messages, stderr) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    let null = File::options().write(true).open("/dev/null");
    let null = null.map_err(|error| Error::io("open /dev/null", error))?;
    let launch = Launch {
        stdio: [stdin.as_fd(), null.as_fd(), stderr.as_fd()],
        preserve_fds: 0,
        cgroup: None,
        given: Given { pidfd: inside.map(|(_, pidfd)| pidfd), ..Given::default() },
    };
    let mut stage = Stage::launch(&plan, &launch)?;
    drop((stdin, stderr));
    // The state of a container is smaller than a pipe; a hook need not read it.
    let _ = File::from(feed).write_all(state);
    while !matches!(stage.next()?, Event::End) {}
    let not_started = || Error::external("the hook was not started").at(place.to_string());
    end(hook, place, &stage.into_init().ok_or_else(not_started)?, messages)
}

fn end(hook: &Hook, place: &str, child: &Child, messages: OwnedFd) -> Result<()> {
    let name = hook.path().display().to_string();
    let limit = hook.timeout().map(|seconds| Duration::from_secs(seconds.max(0) as u64));
    let in_time = wait_in_time(child, limit, place, &name);
    let ended = sys::wait_pidfd(child.pidfd.as_fd(), true).map_err(|errno| Error::os("waitid", errno))?;
    in_time?;
    let how = match ended {
        Some(Exit::Code(0)) => return Ok(()),
        Some(Exit::Code(code)) => format!("exit code {code}"),
        Some(Exit::Signal(signal)) => format!("killed by signal {signal}"),
        None => "it is gone".to_string(),
    };
    Err(said(messages, format!("hook {name} failed: {how}")).at(place.to_string()))
}

/// An error with what the hook wrote. Not waited for: a process of the hook may still hold the pipe.
fn said(messages: OwnedFd, what: String) -> Error {
    let _ = fcntl(&messages, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
    let mut bytes = Vec::new();
    let _ = File::from(messages).take(LONGEST_MESSAGE).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).trim().to_string();
    Error::external(if text.is_empty() { what } else { format!("{what}: {text}") })
}

/// Waits for the end of a process, and kills one that takes too long.
fn wait_in_time(child: &Child, limit: Option<Duration>, place: &str, name: &str) -> Result<()> {
    let begin = Instant::now();
    loop {
        let left = limit.map(|limit| limit.saturating_sub(begin.elapsed()));
        let milliseconds = left.map(|left| left.as_millis().min(i32::MAX as u128) as i32);
        let timeout = match milliseconds {
            None => PollTimeout::NONE,
            Some(milliseconds) => PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX),
        };
        match poll(&mut [PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if left.is_some_and(|left| left.is_zero()) || limit.is_some() => {
                // It leads a session, so that what it has started goes with it.
                let _ = killpg(Pid::from_raw(child.pid), Signal::SIGKILL);
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

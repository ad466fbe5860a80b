//! `hooks`: programs that run at points of a container's life, with its state on their input.
//!
//! All of them are started by the stage: nothing of the caller's stays open in them, their signals
//! are reset, and those of the container's namespaces (createContainer, startContainer) join it.
//! The program of a startContainer hook is the image's, so it runs as the container's process does.

use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::parent::{Child, Event, Given, Launch, Stage};
use crate::{notify, plan, sys};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use oci_spec::runtime::{Hook, Spec};
use onggi_stage::SyncPoint;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};
use sys::Exit;

/// How much of a hook's messages an error carries.
const LONGEST_MESSAGE: u64 = 4096;

/// Where a hook runs (config.md, "POSIX-platform Hooks").
pub(crate) enum Site<'a> {
    /// In the runtime's namespaces.
    Runtime,
    /// In those of a container whose root is not entered yet, at that root.
    Container { spec: &'a Spec, init: &'a Child },
    /// In the container, with its process's user, capabilities, filter and cgroup.
    Process(&'a Container),
}

/// Runs hooks one after the other; the first that fails ends it. `place` is the list, such as
/// `hooks.createRuntime`.
pub(crate) fn run_all(hooks: &[Hook], place: &str, state: &[u8], site: &Site) -> Result<()> {
    let mut all = hooks.iter().enumerate();
    all.try_for_each(|(at, hook)| run(hook, &format!("{place}[{at}]"), state, site))
}

/// Runs every hook, whatever happens to the others, and returns what failed.
pub(crate) fn run_each(hooks: &[Hook], place: &str, state: &[u8]) -> Vec<Error> {
    let all = hooks.iter().enumerate();
    all.filter_map(|(at, hook)| run(hook, &format!("{place}[{at}]"), state, &Site::Runtime).err()).collect()
}

fn run(hook: &Hook, place: &str, state: &[u8], site: &Site) -> Result<()> {
    let plan = match site {
        Site::Runtime => plan::exec::hook(hook, place)?,
        Site::Container { spec, .. } => plan::exec::hook_at_root(hook, place, spec)?,
        Site::Process(container) => container.plan_hook(hook, place)?,
    };
    let joined = Joined::open(site)?;
    let failed = |errno| Error::os("pipe", errno).at(place.to_string());
    let (stdin, feed) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    let (messages, stderr) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    let null = File::options().write(true).open("/dev/null");
    let null = null.map_err(|error| Error::io("open /dev/null", error))?;
    let launch = Launch {
        stdio: [stdin.as_fd(), null.as_fd(), stderr.as_fd()],
        preserve_fds: 0,
        cgroup: joined.born_in.as_ref().map(AsFd::as_fd),
        given: Given {
            pidfd: joined.init.as_ref().map(AsFd::as_fd),
            directory: joined.root.as_ref().map(AsFd::as_fd),
            cgroup: site.cgroup(),
            ..Given::default()
        },
    };
    let mut stage = Stage::launch(&plan, &launch)?;
    drop((stdin, stderr));
    // The state of a container is smaller than a pipe; a hook need not read it.
    let _ = File::from(feed).write_all(state);
    while !answer(&mut stage, site)? {}
    let not_started = || Error::external("the hook was not started").at(place.to_string());
    end(hook, place, &stage.into_init().ok_or_else(not_started)?, messages)
}

impl<'a> Site<'a> {
    fn cgroup(&self) -> Option<&'a Cgroup> {
        match self {
            Self::Process(container) => Some(&container.state.cgroup),
            _ => None,
        }
    }
}

/// What a hook that joins a container is given of it.
#[derive(Default)]
struct Joined {
    init: Option<OwnedFd>,
    root: Option<OwnedFd>,
    born_in: Option<OwnedFd>,
}

impl Joined {
    fn open(site: &Site) -> Result<Self> {
        match site {
            Site::Runtime => Ok(Self::default()),
            Site::Container { init, .. } => {
                // The stage works in the root, wherever that is mounted until it is entered.
                let path = format!("/proc/{}/cwd", init.pid);
                let opened = File::options().read(true).custom_flags(libc::O_PATH).open(&path);
                let root = opened.map_err(|error| Error::io(format!("open {path}"), error))?;
                let pidfd = init.pidfd.try_clone().map_err(|error| Error::io("dup", error))?;
                Ok(Self { init: Some(pidfd), root: Some(root.into()), born_in: None })
            }
            Site::Process(container) => {
                let born_in = container.state.cgroup.open_dir()?;
                Ok(Self { init: Some(container.open_init()?), root: None, born_in })
            }
        }
    }
}

/// Does what the stage of a hook waits for; whether it has executed the hook.
fn answer(stage: &mut Stage, site: &Site) -> Result<bool> {
    match (stage.next()?, site) {
        (Event::End, _) => return Ok(true),
        (Event::At(SyncPoint::Attached), Site::Process(container)) => {
            container.state.cgroup.attach(stage.pid())?;
            stage.answer()?;
        }
        (Event::At(_), _) => stage.answer()?,
        (Event::Listener(listener), Site::Process(container)) => {
            notify::send(&container.directory, container, listener)?;
        }
        (Event::Listener(_) | Event::Cloned, _) => {}
    }
    Ok(false)
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

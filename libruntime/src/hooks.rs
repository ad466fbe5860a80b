//! `hooks`: programs that run at points of a container's life, with its state on their standard input.
//!
//! The stage starts all of them: no descriptor of the caller's stays open in them, their signals are reset, and
//! createContainer and startContainer hooks join the container's namespaces. The program of a startContainer hook is
//! the image's, so it is confined as the container's process is.
//!
//! Nothing that a hook does keeps the library waiting beyond the hook's timeout: its input and its messages go through
//! non-blocking pipes, and a process that it leaves behind is not waited for. A hook without a timeout is waited for
//! until the caller's limits, because the specification sets no other limit.

use crate::cgroup::Cgroup;
use crate::child::Child;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::hook_stdio::HookStdio;
use crate::launch::{Given, Launch};
use crate::parent::{Event, Stage};
use crate::status::Status;
use crate::step::SyncPoint;
use crate::sys::{self, ExitStatus};
use crate::wait::{self, DEADLINE, Wait, Woken};
use crate::{notify, plan, trace};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use oci_spec::runtime::{Hook, Spec};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// How much of the beginning and of the end of a hook's messages an error carries.
const MESSAGE_PART: usize = 2048;

/// For a poststop hook without a timeout: a container that cannot be deleted is worse than one that
/// is deleted without its hook's work.
const POSTSTOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a hook runs (config.md, "POSIX-platform Hooks").
pub(crate) enum Site<'a> {
    /// In the runtime's namespaces. Relative names are those of the bundle, as with runc and crun.
    Runtime { bundle: &'a Path },
    /// In the container's namespaces, at its root, which is not entered yet.
    Container { spec: &'a Spec, init: &'a Child },
    /// In the container, with its process's user, capabilities, filter and cgroup.
    Process(&'a Container),
}

/// What ends the wait for a hook.
#[derive(Clone, Copy, Default)]
pub(crate) struct Limits<'a> {
    /// For hooks without `timeout`.
    timeout: Option<Duration>,
    /// The container's init, whose end ends the wait.
    init: Option<BorrowedFd<'a>>,
}

impl<'a> Limits<'a> {
    /// The wait also ends with the container's init, so that a container whose hook hangs can be killed or deleted.
    pub fn with_init(init: BorrowedFd<'a>) -> Self {
        Self { init: Some(init), timeout: None }
    }

    pub fn of_poststop() -> Self {
        Self { timeout: Some(POSTSTOP_TIMEOUT), init: None }
    }
}

/// Runs hooks one after the other, up to the first that fails. `place` is the list, such as `hooks.createRuntime`.
pub(crate) fn run_all(
    hooks: &[Hook],
    place: &str,
    stdio: &HookStdio,
    site: &Site,
    limits: Limits,
) -> Result<()> {
    let mut all = hooks.iter().enumerate();
    all.try_for_each(|(at, hook)| named(hook, place, at, |place| run(hook, place, stdio, site, limits)))
}

/// Runs every hook, even if others fail, and returns the errors.
pub(crate) fn run_each(
    hooks: &[Hook],
    place: &str,
    stdio: &HookStdio,
    site: &Site,
    limits: Limits,
) -> Vec<Error> {
    let all = hooks.iter().enumerate();
    let failed = |(at, hook)| named(hook, place, at, |place| run(hook, place, stdio, site, limits)).err();
    all.filter_map(failed).collect()
}

/// Runs the hook number `at` of a list. Its error names both, in the words that runc has for it.
fn named(hook: &Hook, list: &str, at: usize, run: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    let name = list.trim_start_matches("hooks.");
    let path = || hook.path().display().to_string();
    trace::hook(name, at, path, || run(&format!("{list}[{at}]")))
        .map_err(|error| error.within(format!("error running {name} hook #{at}")))
}

fn run(hook: &Hook, place: &str, stdio: &HookStdio, site: &Site, limits: Limits) -> Result<()> {
    let given = hook.timeout().map(|seconds| Duration::from_secs(seconds.max(0) as u64));
    let timeout = given.or(limits.timeout);
    let wait = timeout.map_or(Wait::default(), Wait::at_most);
    let (child, mut pipes) = start(hook, place, stdio, site, &wait)?;
    pipes.init = limits.init;
    let mut said = Said::default();
    let ended = pipes.attend(&child, &wait, &mut said)?;
    pipes.take_messages(&mut said);
    let name = hook.path().display();
    let how = match ended {
        Ended::Exit(ExitStatus::Code(0)) => return Ok(()),
        Ended::Exit(ExitStatus::Code(code)) => format!("exit status {code}"),
        Ended::Exit(ExitStatus::Signal(signal)) => format!("signal: {signal}"),
        Ended::WithInit => {
            let what = format!("hook {name} was killed, because the container's init has ended");
            return Err(said.error(what).at(place.to_string()));
        }
        Ended::Late => return Err(late(&name.to_string(), place, given, timeout)),
        Ended::ByCaller(ended) => {
            return Err(ended.error(format!("hook {name} was killed")).at(place.to_string()));
        }
    };
    Err(said.error(format!("{name}: {how}")).at(place.to_string()))
}

/// Starts a hook, with a pipe each for its input and its messages.
fn start<'s>(
    hook: &Hook,
    place: &str,
    stdio: &'s HookStdio,
    site: &Site,
    wait: &Wait,
) -> Result<(Child, Pipes<'s>)> {
    let joined = Joined::open(site)?;
    let plan = match site {
        Site::Runtime { .. } => plan::exec::hook(&with_environment(hook), place, joined.root.is_some())?,
        Site::Container { spec, init } => {
            plan::exec::hook_at_root(&with_environment(hook), place, spec, init.pid())?
        }
        Site::Process(container) => container.plan_hook(hook, place)?,
    };
    let failed = |errno| Error::os("pipe", errno).at(place.to_string());
    let (stdin, feed) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    let (messages, stderr) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    for end in [&feed, &messages] {
        fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
    }
    // Not a pipe, because a process that stays behind may go on writing.
    let stdout = match stdio.stdout()? {
        Some(file) => file,
        None => null()?,
    };
    let log = stdio.stderr()?;
    let launch = Launch {
        stdio: [stdin.as_fd(), stdout.as_fd(), log.as_ref().map_or(stderr.as_fd(), AsFd::as_fd)],
        passed: &[],
        cgroup: joined.born_in.as_ref().map(AsFd::as_fd),
        given: Given {
            pidfd: joined.init.as_ref().map(AsFd::as_fd),
            directory: joined.root.as_ref().map(AsFd::as_fd),
            cgroup: site.cgroup(),
            ..Given::default()
        },
    };
    let mut stage = Stage::launch(&plan, &launch)?;
    drop(stderr);
    while !answer(&mut stage, site, wait).map_err(|error| error.at(place.to_string()))? {}
    let not_started = || Error::external("the hook was not started").at(place.to_string());
    let child = stage.into_init().ok_or_else(not_started)?;
    let (feed, messages) = (Some(feed.into()), Some(messages.into()));
    Ok((child, Pipes { _reader: stdin, feed, state: &stdio.state, messages, init: None }))
}

fn null() -> Result<File> {
    File::options().write(true).open("/dev/null").map_err(|error| Error::io("open /dev/null", error))
}

/// A hook without `env` gets the caller's environment, as with runc and crun; an empty list is an environment.
fn with_environment(hook: &Hook) -> Hook {
    let mut hook = hook.clone();
    if hook.env().is_none() {
        let variables = std::env::vars_os().map(|(mut entry, value)| {
            entry.push("=");
            entry.push(value);
            // A string of the configuration is UTF-8.
            entry.into_string().ok()
        });
        hook.set_env(Some(variables.flatten().collect()));
    }
    hook
}

impl<'a> Site<'a> {
    fn cgroup(&self) -> Option<&'a Cgroup> {
        match self {
            Self::Process(container) => Some(&container.state.cgroup),
            _ => None,
        }
    }
}

/// Descriptors of the container for a hook that joins it.
#[derive(Default)]
struct Joined {
    init: Option<OwnedFd>,
    root: Option<OwnedFd>,
    born_in: Option<OwnedFd>,
}

impl Joined {
    fn open(site: &Site) -> Result<Self> {
        let dup = |error| Error::io("dup a pidfd", error);
        match site {
            // A bundle that is gone by now keeps no hook from running.
            Site::Runtime { bundle } => Ok(Self { root: sys::open_path(bundle).ok(), ..Self::default() }),
            Site::Container { init, .. } => {
                // The stage works in the root, wherever that is mounted until it is entered.
                let path = format!("/proc/{}/cwd", init.pid());
                let opened = sys::open_path(path.as_ref());
                let root = opened.map_err(|errno| Error::os(format!("open {path}"), errno))?;
                let pidfd = init.pidfd().try_clone_to_owned().map_err(dup)?;
                Ok(Self { init: Some(pidfd), root: Some(root), born_in: None })
            }
            Site::Process(container) => {
                let born_in = container.state.cgroup.open_dir()?;
                Ok(Self {
                    init: Some(container.running_init()?.try_clone_to_owned().map_err(dup)?),
                    root: None,
                    born_in,
                })
            }
        }
    }
}

/// Does what the stage of a hook waits for. Returns whether the hook was executed.
fn answer(stage: &mut Stage, site: &Site, wait: &Wait) -> Result<bool> {
    match (stage.next(wait)?, site) {
        (Event::End, _) => return Ok(true),
        (Event::At(SyncPoint::Attached), Site::Process(container)) => {
            container.state.cgroup.attach(stage.pid())?;
            stage.answer()?;
        }
        (Event::At(_), _) => stage.answer()?,
        (Event::Listener(listener), Site::Process(container)) => {
            let of = (stage.pid(), Status::Created);
            notify::send(&container.directory, &container.state, of, listener)?;
        }
        (Event::Listener(_) | Event::InCgroup | Event::Cloned, _) => {}
    }
    Ok(false)
}

fn late(name: &str, place: &str, given: Option<Duration>, timeout: Option<Duration>) -> Error {
    let seconds = timeout.unwrap_or_default().as_secs();
    let error =
        Error::external(format!("hook ran past specified timeout of {seconds}.0s and was killed: {name}"));
    match given {
        Some(_) => error.at(format!("{place}.timeout")),
        None => error
            .at(place.to_string())
            .with_hint(format!("a poststop hook without a timeout gets {seconds} s; set its timeout")),
    }
}

enum Ended {
    Exit(ExitStatus),
    Late,
    ByCaller(wait::Ended),
    WithInit,
}

/// The library's ends of a hook's standard input and standard error; neither blocks.
struct Pipes<'a> {
    /// A write to a pipe without any reader would send us SIGPIPE.
    _reader: OwnedFd,
    /// Closed when everything is written: the hook waits for the end of its input.
    feed: Option<File>,
    state: &'a [u8],
    /// Closed at the end of file.
    messages: Option<File>,
    init: Option<BorrowedFd<'a>>,
}

impl Pipes<'_> {
    /// Works until the hook itself has ended, even if other processes still hold its pipes.
    fn attend(&mut self, child: &Child, wait: &Wait, said: &mut Said) -> Result<Ended> {
        loop {
            self.write_state();
            let mut wanted = vec![(child.pidfd(), PollFlags::POLLIN)];
            wanted.extend(self.init.map(|init| (init, PollFlags::POLLIN)));
            wanted.extend(self.messages.iter().map(|pipe| (pipe.as_fd(), PollFlags::POLLIN)));
            wanted.extend(self.feed.iter().map(|pipe| (pipe.as_fd(), PollFlags::POLLOUT)));
            let ended = match wait.poll(&wanted)? {
                Woken::Ready(ready) if ready.first() == Some(&true) => return child.wait().map(Ended::Exit),
                Woken::Ready(ready) if self.init.is_some() && ready.get(1) == Some(&true) => {
                    Some(Ended::WithInit)
                }
                Woken::Ready(_) => None,
                Woken::Late => Some(Ended::Late),
                Woken::Ended(ended) => Some(Ended::ByCaller(ended)),
            };
            if let Some(ended) = ended {
                kill_session(child);
                return Ok(ended);
            }
            self.take_messages(said);
        }
    }

    /// Writes as much as the pipe holds. A hook need not read it.
    fn write_state(&mut self) {
        while let (Some(pipe), [_, ..]) = (&mut self.feed, self.state) {
            match pipe.write(self.state) {
                Ok(length) => self.state = &self.state[length..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.feed = None;
    }

    /// Reads what is in the pipe, so that the hook does not block on a full one; a bounded amount, because a hook may
    /// write for ever.
    fn take_messages(&mut self, said: &mut Said) {
        const AT_ONCE: usize = 1 << 20;
        let (mut bytes, mut taken) = ([0; 4096], 0);
        while let Some(pipe) = &mut self.messages
            && taken < AT_ONCE
        {
            match pipe.read(&mut bytes) {
                Ok(0) => self.messages = None,
                Ok(length) => {
                    said.take(&bytes[..length]);
                    taken += length;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.messages = None,
            }
        }
    }
}

/// Kills a hook with everything that it has started: it leads a session.
fn kill_session(child: &Child) {
    let _ = killpg(Pid::from_raw(child.pid()), Signal::SIGKILL);
    let _ = sys::pidfd_send_signal(child.pidfd(), libc::SIGKILL);
    // A hook that is stuck in the kernel is reaped later.
    let _ = child.wait_within(&Wait::at_any_rate(DEADLINE));
}

/// The beginning and the end of what a hook wrote.
#[derive(Default)]
struct Said {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    is_cut: bool,
}

impl Said {
    fn take(&mut self, bytes: &[u8]) {
        let (first, rest) = bytes.split_at(bytes.len().min(MESSAGE_PART - self.head.len()));
        self.head.extend(first);
        self.tail.extend(rest);
        let surplus = self.tail.len().saturating_sub(MESSAGE_PART);
        self.is_cut |= surplus > 0;
        self.tail.drain(..surplus);
    }

    fn error(&self, what: String) -> Error {
        let mut bytes = self.head.clone();
        if self.is_cut {
            bytes.extend(" [...] ".bytes());
        }
        bytes.extend(&self.tail);
        let text = String::from_utf8_lossy(&bytes).trim().to_string();
        Error::external(if text.is_empty() { what } else { format!("{what}, stderr: {text}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_long_messages_the_beginning_and_the_end_are_kept() {
        let mut said = Said::default();
        said.take(b"first ");
        (0..1000).for_each(|_| said.take(&[b'x'; 1000]));
        said.take(b" last\n");
        let text = said.error("hook".into()).to_string();
        assert!(text.starts_with("hook, stderr: first x") && text.ends_with("x last"), "{text}");
        assert!(text.contains("x [...] x") && text.len() < 2 * MESSAGE_PART + 32, "{}", text.len());
    }

    #[test]
    fn short_messages_are_kept_whole() {
        let mut said = Said::default();
        said.take(b"one\n");
        said.take(b"two\n");
        assert_eq!(said.error("hook".into()).to_string(), "hook, stderr: one\ntwo");
    }

    /// Needs no root: a hook is any program, and the stage is started before its namespaces matter.
    #[test]
    fn a_poststop_hook_without_a_timeout_has_one_all_the_same() {
        let hook: Hook =
            serde_json::from_value(serde_json::json!({"path": "/bin/sleep", "args": ["sleep", "100"]}))
                .unwrap();
        let limits = Limits { timeout: Some(Duration::from_secs(1)), ..Limits::default() };
        let stdio = HookStdio::outside(&crate::state::State::unknown("id"), Status::Stopped, false);
        let begin = std::time::Instant::now();
        let failed =
            run_each(&[hook], "hooks.poststop", &stdio, &Site::Runtime { bundle: Path::new("/") }, limits);
        assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
        let text = failed.first().map(ToString::to_string).unwrap_or_default();
        let words = "error running poststop hook #0: hook ran past specified timeout of 1.0s";
        assert!(text.starts_with(words) && text.contains("at hooks.poststop[0]"), "{text}");
    }
}

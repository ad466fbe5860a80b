//! `start`: has the program of a created container executed, or reports why it was not.
//!
//! The stage waits on a socket in the container's directory. The first process that connects starts the container;
//! `parent.rs` describes the messages. Where only the process that has created it may start it, the stage waits on the
//! channel of the creation in place of a socket.

use crate::container::Container;
use crate::error::{Diagnostic, Error, ErrorKind, Result};
use crate::hook_stdio::HookStdio;
use crate::hooks::Site;
use crate::parent;
use crate::plan::start::StartProgram;
use crate::program::Program;
use crate::starter::Starter;
use crate::status::Status;
use crate::step::{Report, START_PIECE};
use crate::wait::{self, DEADLINE, Wait, Woken};
use crate::{executed, hooks, notify, plan, sys, trace};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr};
use nix::sys::time::{TimeVal, TimeValLike};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

impl Container {
    /// Runs the program of a created container (runtime.md, "Start"). A poststart hook that fails is an error,
    /// and the container is deleted.
    ///
    /// # Errors
    /// Also what the program's execution fails with. A container that somebody else has started
    /// meanwhile is [`ErrorKind::WrongState`].
    pub fn start(&self) -> Result<()> {
        wait::limited(&self.limits, || self.start_now(None))
    }

    /// Runs another program than the one that the container was created with: containers can be created ahead, before
    /// it is known what they will run.
    ///
    /// It is confined as the program of the configuration would be, and has the same user, limits and streams.
    /// `process` of the configuration stays as it is, and [`Container::exec`] starts from that.
    ///
    /// # Errors
    /// Those of [`Container::start`]. An invalid program is refused before anything is done. A missing working
    /// directory or program ends the container.
    pub fn start_program(&self, program: &Program) -> Result<()> {
        wait::limited(&self.limits, || self.start_now(Some(&self.given(program)?)))
    }

    /// The program as it is sent to the stage.
    fn given(&self, program: &Program) -> Result<StartProgram> {
        if !self.state.takes_program {
            let what = format!("container {} cannot be started with another program", self.id());
            return Err(Error::unsupported(what).with_hint(
                "it was created by an older version, or with a program that is given by descriptor",
            ));
        }
        let mut process = self.process()?;
        let own = process.env().iter().flatten().filter(|_| !program.without_env).cloned();
        let env = own.chain(program.env.iter().cloned()).collect();
        process.set_args(Some(program.args.clone())).set_env(Some(env));
        if let Some(cwd) = &program.cwd {
            process.set_cwd(cwd.clone());
        }
        crate::config::check_process(&process)?;
        let notify = self.state.notify_socket.as_ref().map(|_| plan::readiness::variable());
        plan::start::program(&process, notify, program.cwd.is_some())
    }

    fn start_now(&self, program: Option<&StartProgram>) -> Result<()> {
        self.check_startable()?;
        let spec = self.spec()?;
        if spec.process().is_none() {
            return Err(Error::invalid(vec![Diagnostic::new("process", "is required to start a container")]));
        }
        let starter = match self.take_starter() {
            Some(starter) => starter,
            None => self.reach_init()?,
        };
        let all = spec.hooks().as_ref();
        if let Some(inside) = all.and_then(|all| all.start_container().as_deref()) {
            let stdio = HookStdio::inside(&self.state, Status::Created);
            let limits = hooks::Limits::with_init(self.running_init()?);
            hooks::run_all(inside, "hooks.startContainer", &stdio, &Site::Process(self), limits)
                .inspect_err(|_| self.end_init())?;
        }
        let is_told = match program {
            None => let_go(starter.fd())?,
            Some(program) => send(starter.fd(), program)?,
        };
        let executed = || match self.await_program(&starter) {
            Ok(()) if !is_told => Err(self.wrong_state("start", self.status())),
            other => other,
        };
        let executed =
            trace::plain("execute the program", executed).inspect(|()| self.directory.mark_started());
        self.report_steps();
        executed?;
        let after = all.and_then(|all| all.poststart().as_deref()).unwrap_or_default();
        let stdio = HookStdio::outside(&self.state, Status::Running, self.allows_hook_output());
        let limits = hooks::Limits::default();
        let site = Site::Runtime { bundle: &self.state.bundle };
        hooks::run_all(after, "hooks.poststart", &stdio, &site, limits).inspect_err(|_| {
            // The hook's error is the one to report; the container can be deleted again.
            let _ = self.without_limits().delete_force();
        })
    }

    fn check_startable(&self) -> Result<()> {
        let status = match self.has_starter() {
            false => self.status(),
            // If its init is dead, the channel says so.
            true if matches!(self.state.cgroup.is_frozen(), Ok(true)) => Status::Paused,
            true => Status::Created,
        };
        if status == Status::Created { Ok(()) } else { Err(self.wrong_state("start", status)) }
    }

    /// Connects to the socket of its init, and waits until it is this caller's turn.
    fn reach_init(&self) -> Result<Starter> {
        let connection = trace::plain("connect to the container's init", || self.connect())?;
        self.await_turn(connection.as_fd())?;
        Ok(Starter::new(Arc::new(connection), None))
    }

    fn connect(&self) -> Result<OwnedFd> {
        let failed = |errno| match errno {
            Errno::ENOENT => self
                .wrong_state("start", self.status())
                .with_hint("only the process that has created it can start it, with `run`"),
            Errno::ECONNREFUSED => self.wrong_state("start", self.status()),
            // The queue of connections is full: init accepts none.
            Errno::EAGAIN => self.not_answered(),
            errno => Error::os(format!("connect {}/start", self.directory.path.display()), errno),
        };
        let connection =
            socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
                .map_err(failed)?;
        let limit = TimeVal::seconds(DEADLINE.as_secs() as i64);
        socket::setsockopt(&connection, socket::sockopt::SendTimeout, &limit).map_err(failed)?;
        let address = UnixAddr::new(&self.directory.magic_path().join("start")).map_err(failed)?;
        wait::again(|| socket::connect(connection.as_raw_fd(), &address)).map_err(failed)?;
        Ok(connection)
    }

    /// Waits until its init says that it is this caller's turn to start it.
    fn await_turn(&self, connection: BorrowedFd) -> Result<()> {
        let wait = Wait::at_most(DEADLINE);
        match wait.poll(&[(connection, PollFlags::POLLIN)])? {
            Woken::Ready(_) => {}
            Woken::Late => return Err(self.not_answered()),
            Woken::Ended(ended) => return Err(ended.error(format!("start of container {}", self.id()))),
        }
        match parent::receive(connection)?.report {
            Some(Report::YourTurn) => Ok(()),
            _ => Err(self.wrong_state("start", self.status())),
        }
    }

    fn not_answered(&self) -> Error {
        self.is_held().unwrap_or_else(|| {
            let seconds = DEADLINE.as_secs();
            Error::external(format!("the init of container {} did not answer in {seconds} s", self.id()))
                .with_hint("another start is running its hooks, a cgroup above is frozen, or the host has no memory left")
        })
    }

    /// The error where its init does not run because a signal or a tracer has stopped it.
    fn is_held(&self) -> Option<Error> {
        let init = self.state.init?;
        if self.status() == Status::Paused {
            return Some(self.wrong_state("start", Status::Paused));
        }
        if !init.is_stopped() {
            return None;
        }
        let what =
            format!("the init of container {}, process {}, is stopped by a signal", self.id(), init.pid);
        Some(Error::new(ErrorKind::WrongState, what).with_hint(format!("kill -CONT {}", init.pid)))
    }

    /// Waits until the program is executed or the stage reports why it was not. There is no deadline, because a seccomp
    /// agent or a file server may have to answer first; but a stopped stage is not waited for. That the connection ends
    /// is not relied on: others that may trace init can have a copy of its end (pidfd_getfd(2)).
    fn await_program(&self, starter: &Starter) -> Result<()> {
        const TICK: Duration = Duration::from_secs(1);
        let connection = starter.fd();
        let mut silent = Duration::ZERO;
        loop {
            let wait = Wait::at_most(TICK);
            match wait.poll(&[(connection, PollFlags::POLLIN)])? {
                Woken::Ready(_) => {}
                // The program may run by now: then the start has succeeded, and the caller can end the container.
                Woken::Ended(_) if wait::is_ready(connection) => {}
                Woken::Ended(ended) => {
                    // It must not run after a start that has failed.
                    self.end_init();
                    return Err(ended.error(format!("start of container {}", self.id())));
                }
                Woken::Late if self.is_done() && !wait::is_ready(connection) => return self.check_executed(),
                Woken::Late => {
                    silent += TICK;
                    if silent >= DEADLINE
                        && let Some(error) = self.is_held()
                    {
                        self.end_init();
                        return Err(error);
                    }
                    continue;
                }
            }
            let received = parent::receive(connection)?;
            match (received.report, received.fd) {
                (_, Some(listener)) => {
                    let of = (self.pid().unwrap_or(0), Status::Created);
                    notify::send(&self.directory, &self.state, of, listener)?;
                }
                (Some(Report::Failed { step, call, errno }), _) => {
                    return Err(self.failed_after_start(starter, (step, call, errno)));
                }
                (None, _) => return self.check_executed(),
                (Some(_), _) => {
                    self.end_init();
                    let what = format!("an unexpected message from the init of container {}", self.id());
                    return Err(Error::external(what));
                }
            }
        }
    }

    fn is_done(&self) -> bool {
        self.state.init.is_some_and(|init| init.has_executed(self.state.stage) != Some(false))
    }

    /// Uses the last steps as creation has recorded them: a new plan would depend on the limits of this process.
    fn failed_after_start(&self, starter: &Starter, (step, call, errno): (u32, u32, i32)) -> Error {
        let steps = starter.after_start.clone().or_else(|| self.directory.read_after_start().ok());
        let steps = steps.and_then(|bytes| plan::decode_after_start(&bytes)).unwrap_or_default();
        let failed = steps.iter().find(|(number, ..)| *number == step);
        parent::step_error(failed.map(|(_, step, origin)| (step, origin.as_ref())), None, step, call, errno)
    }

    fn check_executed(&self) -> Result<()> {
        let Some(init) = self.state.init else { return Ok(()) };
        if executed::has_executed(init.pid, self.state.stage) {
            return Ok(());
        }
        let message =
            format!("the init of container {} was killed before it executed the program", self.id());
        let filter = self.directory.read_filter().ok();
        Err(Error::external(message).with_hint(parent::killed_hint(filter.as_ref())))
    }

    /// Kills its init, and the other processes where these do not end with init.
    fn end_init(&self) {
        if let Ok(pidfd) = self.running_init() {
            let _ = sys::pidfd_send_signal(pidfd, libc::SIGKILL);
        }
        let _ = self.state.cgroup.kill_all(libc::SIGKILL);
    }
}

/// Has init go on. Returns whether it is there; otherwise it may have reported why it has ended.
fn let_go(connection: BorrowedFd) -> Result<bool> {
    match parent::answer(connection) {
        Err(error) if error.errno() == Some(Errno::EPIPE as i32) => Ok(false),
        other => other.map(|()| true),
    }
}

/// Sends the header and then the program, in pieces. Returns whether all was sent.
fn send(connection: BorrowedFd, program: &StartProgram) -> Result<bool> {
    let header = program.header.encode();
    for piece in std::iter::once(&header[..]).chain(program.bytes.chunks(START_PIECE)) {
        let sent = wait::again(|| socket::send(connection.as_raw_fd(), piece, MsgFlags::MSG_NOSIGNAL));
        match sent {
            Ok(_) => {}
            // The stage has refused it meanwhile; its report says why.
            Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(false),
            Err(errno) => return Err(Error::os("send the program to the stage", errno)),
        }
    }
    Ok(true)
}

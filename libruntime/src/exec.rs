//! Processes that join a container: `exec`.

use crate::cgroup::Cgroup;
use crate::child::Child;
use crate::console::{Terminal, TerminalSize};
use crate::container::Container;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::launch::{Given, Launch};
use crate::options::{self, ProcessOptions};
use crate::parent::{self, Event, Stage};
use crate::plan::Plan;
use crate::plan::request::Request;
use crate::signal::Signal;
use crate::status::Status;
use crate::stdio::{Console, Output, Passed, SharedEnds, Stdio, Streams};
use crate::step::SyncPoint;
use crate::sys::{self, ExitStatus};
use crate::wait::{self, Cancel, HELD_UP, Limits, Wait};
use crate::{executed, notify, plan, seccomp, trace};
use nix::errno::Errno;
use oci_spec::runtime::{Hook, Process, Spec};
use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A process that is to join a container, from [`Container::exec`] or [`Container::exec_process`]. What is not set is
/// as in the container's own process; by default its standard streams are the caller's.
#[derive(Debug)]
#[must_use = "nothing is done before spawn or output"]
pub struct NewProcess {
    container: Container,
    wanted: Wanted,
    env: Vec<String>,
    cwd: Option<PathBuf>,
    user: Option<(u32, u32)>,
    options: ProcessOptions,
    /// Cgroups below the container's: of one controller each, or of all.
    cgroup: Vec<(Option<String>, PathBuf)>,
    ignore_paused: bool,
}

#[derive(Debug)]
enum Wanted {
    Args(Vec<String>),
    Process(Box<Process>),
}

impl NewProcess {
    fn new(container: &Container, wanted: Wanted) -> Self {
        Self {
            container: container.clone(),
            wanted,
            env: Vec::new(),
            cwd: None,
            user: None,
            options: ProcessOptions::default(),
            cgroup: Vec::new(),
            ignore_paused: false,
        }
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push(format!("{name}={value}"));
        self
    }

    /// Its working directory, in the container.
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cwd = Some(directory.into());
        self
    }

    /// The user and group that it runs as, by their ids in the container; it gets no additional groups.
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = Some((uid, gid));
        self
    }

    /// Its standard input; by default the caller's.
    pub fn stdin(mut self, stdin: Stdio) -> Self {
        self.options.stdio[0] = Some(stdin);
        self
    }

    /// Its standard output; by default the caller's.
    pub fn stdout(mut self, stdout: Stdio) -> Self {
        self.options.stdio[1] = Some(stdout);
        self
    }

    /// Its standard error; by default the caller's.
    pub fn stderr(mut self, stderr: Stdio) -> Self {
        self.options.stdio[2] = Some(stderr);
        self
    }

    /// Gives it a terminal of this size in place of the three streams. [`ExecProcess::take_terminal`] returns the
    /// terminal's master.
    pub fn terminal(mut self, size: TerminalSize) -> Self {
        self.options.console = Console::Own(size);
        self
    }

    /// A connected unix stream socket to which the terminal's master is sent (`terminal` of the process).
    pub fn console_socket(mut self, socket: impl Into<OwnedFd>) -> Self {
        self.options.console = Console::Socket(socket.into());
        self
    }

    /// As [`NewContainer::relay_terminal`](crate::NewContainer::relay_terminal).
    pub fn relay_terminal(mut self) -> Self {
        self.options.relayed_console = true;
        self
    }

    /// Passes a file descriptor to it, as number `number`, which is 3 or above.
    pub fn pass_fd(mut self, descriptor: impl Into<OwnedFd>, number: u32) -> Self {
        self.options.passed.push(Passed::To(descriptor.into(), number));
        self
    }

    /// As [`NewContainer::inherit_fds`](crate::NewContainer::inherit_fds).
    pub fn inherit_fds(mut self, count: u32) -> Self {
        self.options.inherit(count);
        self
    }

    /// Puts it into a cgroup below the container's: of one v1 controller, or of all hierarchies.
    pub fn cgroup(mut self, controller: Option<&str>, path: impl Into<PathBuf>) -> Self {
        self.cgroup.push((controller.map(Into::into), path.into()));
        self
    }

    /// Allows a paused container: the process then starts when the container is resumed.
    pub fn ignore_paused(mut self, ignore: bool) -> Self {
        self.ignore_paused = ignore;
        self
    }

    /// Keeps the caller's session keyring (keyrings(7)).
    pub fn no_new_keyring(mut self, no_new_keyring: bool) -> Self {
        self.options.no_new_keyring = no_new_keyring;
        self
    }

    /// Ends the start early once `cancel` is cancelled. It also ends waits for the process's end.
    pub fn cancel(mut self, cancel: Cancel) -> Self {
        self.container.limits.cancel = Some(cancel);
        self
    }

    /// Starts it, under the container's seccomp filter and in its cgroup. Its program is executed when this returns.
    ///
    /// # Errors
    /// Also an error of the program's execution. [`ErrorKind::WrongState`] unless the container is running or created.
    pub fn spawn(mut self) -> Result<ExecProcess> {
        let process = self.process()?;
        let passed = options::passed(&self.options.passed)?;
        let (status, console) = (self.container.status(), !matches!(self.options.console, Console::None));
        match status {
            Status::Running | Status::Created => {}
            Status::Paused if self.ignore_paused => {}
            Status::Paused => {
                return Err(self.container.wrong_state("exec", Status::Paused).with_hint("resume it first"));
            }
            status => return Err(self.container.wrong_state("exec", status)),
        }
        let request = Request {
            id: self.container.id().to_string(),
            bundle: self.container.state.bundle.clone(),
            passed: passed.iter().map(|(_, number)| *number).collect(),
            console_socket: console,
            relayed_console: self.options.relayed_console,
            no_new_keyring: self.options.no_new_keyring,
            keyring_secret: self.container.state.keyring_secret.clone(),
            ..Request::default()
        };
        let (streams, ends) = self.options.open()?;
        let ignore_paused = self.ignore_paused;
        let join = Join { process, request, passed, streams, cgroup: self.cgroup, ignore_paused };
        let container = self.container;
        let child = wait::limited(&container.limits, || container.join(&join))
            .map_err(|error| error.within("unable to start container process"))?;
        let ends = ends.finish(join.streams)?;
        let limits = container.limits.without_deadline();
        Ok(ExecProcess { child: Arc::new(child), ends: SharedEnds::new(ends), limits })
    }

    /// Runs it to its end. Standard output and standard error are returned unless they were set; standard input is
    /// empty unless it was set.
    ///
    /// # Errors
    /// Those of [`NewProcess::spawn`] and [`ExecProcess::wait`].
    pub fn output(mut self) -> Result<Output> {
        self.options.capture_output();
        self.spawn()?.output()
    }

    fn process(&mut self) -> Result<Process> {
        let mut process = match std::mem::replace(&mut self.wanted, Wanted::Args(Vec::new())) {
            Wanted::Process(process) => *process,
            Wanted::Args(args) => {
                let mut process = self.container.process()?;
                process.set_args(Some(args)).set_terminal(Some(false));
                process
            }
        };
        if !self.env.is_empty() {
            // Of two entries with one name the last counts.
            let env = process.env().iter().flatten().cloned().chain(self.env.drain(..));
            let env = env.collect();
            process.set_env(Some(env));
        }
        if let Some(cwd) = self.cwd.take() {
            process.set_cwd(cwd);
        }
        if let Some((uid, gid)) = self.user {
            let mut user = process.user().clone();
            user.set_uid(uid).set_gid(gid).set_additional_gids(None);
            process.set_user(user);
        }
        self.options.apply_to(&mut process);
        Ok(process)
    }
}

/// Everything that [`Container::join`] needs.
struct Join {
    process: Process,
    request: Request,
    passed: Vec<(RawFd, u32)>,
    streams: Streams,
    cgroup: Vec<(Option<String>, PathBuf)>,
    ignore_paused: bool,
}

/// A process that has joined a container. It lives on when its handle is dropped; handles are clones of each other.
#[derive(Clone, Debug)]
pub struct ExecProcess {
    child: Arc<Child>,
    ends: SharedEnds,
    limits: Limits,
}

impl ExecProcess {
    /// Its pid in the caller's pid namespace.
    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// A pidfd of it (pidfd_open(2)), readable when it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd()
    }

    /// Gives up the handle and leaves the process's end to whoever adopts it: for a program that ends before the
    /// process, and whose subreaper (PR_SET_CHILD_SUBREAPER(2const)) wants to know how it ended. In a program that goes on,
    /// the process stays a zombie until that waits for it itself.
    pub fn detach(self) {
        self.child.leave();
    }

    /// Waits for its end, as long as that takes, from any number of threads.
    ///
    /// # Errors
    /// [`ErrorKind::Reaped`] where the calling program has reaped it, on a kernel older than Linux 6.15.
    pub fn wait(&self) -> Result<ExitStatus> {
        wait::limited(&self.limits, || self.child.wait())
    }

    /// How it ended, without waiting; `None` while it runs.
    ///
    /// # Errors
    /// As [`ExecProcess::wait`].
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end, for at most `limit`; `None` where it has not ended by then.
    ///
    /// # Errors
    /// As [`ExecProcess::wait`].
    pub fn wait_timeout(&self, limit: Duration) -> Result<Option<ExitStatus>> {
        wait::limited(&self.limits, || self.child.wait_within(&Wait::at_most(limit)))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// ESRCH when it has ended.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        sys::pidfd_send_signal(self.child.pidfd(), signal.0)
            .map_err(|errno| Error::os(format!("pidfd_send_signal {}", signal.0), errno))
    }

    /// The writing end of its standard input, where it is a pipe; the first caller gets it.
    pub fn take_stdin(&self) -> Option<PipeWriter> {
        self.ends.take_stdin()
    }

    /// The reading end of its standard output, where it is a pipe; the first caller gets it.
    pub fn take_stdout(&self) -> Option<PipeReader> {
        self.ends.take_stdout()
    }

    /// The reading end of its standard error, where it is a pipe; the first caller gets it.
    pub fn take_stderr(&self) -> Option<PipeReader> {
        self.ends.take_stderr()
    }

    /// The master of its terminal, if it was started with [`NewProcess::terminal`]; the first caller gets it.
    pub fn take_terminal(&self) -> Option<Terminal> {
        self.ends.take_terminal()
    }

    /// Waits for its end, and returns what it wrote to its pipes until then. Its input, if it is a pipe that nobody
    /// has taken, is closed first.
    ///
    /// # Errors
    /// As [`ExecProcess::wait`]; a pipe cannot be read.
    pub fn output(&self) -> Result<Output> {
        let what = format!("process {}", self.pid());
        let written = wait::limited(&self.limits, || self.ends.read_to_end(self.pidfd(), &what))?;
        Ok(Output::new(self.wait()?, written))
    }
}

/// Readable when it has ended.
impl AsFd for ExecProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd()
    }
}

impl Container {
    /// The process that the container was created with: what `exec` starts from.
    pub fn process(&self) -> Result<Process> {
        let process = self.spec()?.process().clone();
        process.ok_or_else(|| Error::new(ErrorKind::InvalidConfig, "the container's config has no process"))
    }

    /// Another process in the container: a program, which is looked for in the container's `PATH`, and its
    /// arguments. Without `process.user.umask` in the configuration it has the caller's umask.
    ///
    /// Its set-up is given up after 60 s: files of the container may be on a filesystem that does not answer.
    ///
    /// ```no_run
    /// # let container = libruntime::Runtime::new("/run/example").load("web")?;
    /// let output = container.exec(["cat", "/etc/hostname"]).output()?;
    /// print!("{}", String::from_utf8_lossy(&output.stdout));
    /// # Ok::<(), libruntime::Error>(())
    /// ```
    pub fn exec<A: Into<String>>(&self, args: impl IntoIterator<Item = A>) -> NewProcess {
        NewProcess::new(self, Wanted::Args(args.into_iter().map(Into::into).collect()))
    }

    /// Another process in the container, from a whole `process` object (config.md, "Process"): nothing is taken from
    /// the container's own process.
    pub fn exec_process(&self, process: Process) -> NewProcess {
        NewProcess::new(self, Wanted::Process(Box::new(process)))
    }

    fn join(&self, options: &Join) -> Result<Child> {
        let spec = self.spec()?;
        let has_profile = spec.linux().as_ref().is_some_and(|linux| linux.seccomp().is_some());
        let filter = if has_profile { Some(self.directory.read_filter()?) } else { None };
        let joining = Joining { container: self, options, spec, init: self.running_init()?, filter };
        let mut cgroup = self.state.cgroup.clone();
        for (controller, path) in &options.cgroup {
            cgroup = cgroup.below(controller.as_deref(), path)?;
        }
        match joining.run(&cgroup) {
            Err(Refused::Cgroup(_)) if options.cgroup.is_empty() => joining.run(&self.cgroup_of_init()?),
            other => other,
        }
        .map_err(Refused::into_error)
    }

    pub(crate) fn plan_hook(&self, hook: &Hook, place: &str) -> Result<Plan> {
        let spec = self.spec()?;
        let has_profile = spec.linux().as_ref().is_some_and(|linux| linux.seccomp().is_some());
        let filter = if has_profile { Some(self.directory.read_filter()?) } else { None };
        let process = self.process()?;
        let host = self.host_of(spec, &process, &self.state.cgroup)?;
        let (id, bundle) = (self.id().to_string(), self.state.bundle.clone());
        let keyring_secret = self.state.keyring_secret.clone();
        let request = Request { id, bundle, keyring_secret, ..Request::default() };
        plan::exec::hook_as_process(hook, place, spec, &process, &host, &request, filter.as_ref())
    }

    /// The facts of the host for the plan of a process that joins it.
    fn host_of(&self, spec: &Spec, process: &Process, cgroup: &Cgroup) -> Result<Host> {
        let mut host = Host::probe(spec, &self.layout()?, cgroup)?;
        host.probe_rlimits(process)?;
        Ok(host)
    }

    /// The cgroup that init is in now. An init system moves itself to a cgroup below; and systemd moves processes out
    /// of cgroups in a v1 hierarchy that it manages, and removes these.
    fn cgroup_of_init(&self) -> Result<Cgroup> {
        match self.state.init {
            Some(init) => self.state.cgroup.of_process(init.pid),
            None => Ok(self.state.cgroup.clone()),
        }
    }
}

/// One call of `exec`, while its process is set up.
struct Joining<'a> {
    container: &'a Container,
    options: &'a Join,
    spec: &'a Spec,
    init: BorrowedFd<'a>,
    filter: Option<seccomp::Filter>,
}

/// Why a process was not started in a cgroup.
enum Refused {
    /// The cgroup takes no processes, or is gone.
    Cgroup(Error),
    Other(Error),
}

impl Refused {
    fn into_error(self) -> Error {
        let (Self::Cgroup(error) | Self::Other(error)) = self;
        error
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Joining<'_> {
    /// A cgroup that has reached its `pids.max` refuses clones, but not processes that are moved into it
    /// (Documentation/admin-guide/cgroup-v2.rst, PID). So where a clone is refused, the process is cloned outside and
    /// moved. With a terminal this is always done, because its master cannot be sent twice.
    fn run(&self, cgroup: &Cgroup) -> std::result::Result<Child, Refused> {
        let (first, limited) = cgroup.split_at_pids();
        if self.options.streams.console().is_none() {
            match self.run_in(cgroup, None) {
                Err(Refused::Other(error)) if error.errno() == Some(Errno::EAGAIN as i32) => {}
                other => return other,
            }
        }
        self.run_in(&first, Some(&limited))
    }

    /// Runs it in `cgroup`, and moves it to `late` when everything is set up.
    fn run_in(&self, cgroup: &Cgroup, late: Option<&Cgroup>) -> std::result::Result<Child, Refused> {
        let plan = trace::plain("plan", || self.plan(cgroup))?;
        let mut stage = self.launch(&plan, cgroup)?;
        if self.options.ignore_paused {
            stage.wait_for_thaw();
        }
        // Where nothing is done when it is ready, it need not wait then: the answer is there already.
        if late.is_none() && plan.waits_only_when_ready() {
            stage.answer_ahead();
        }
        let wait = if self.options.ignore_paused { Wait::default() } else { Wait::at_most(HELD_UP) };
        let mut enters = plan.enters_cgroup();
        loop {
            let refused = |error| if enters { of_cgroup(error) } else { Refused::Other(error) };
            match stage.next(&wait).map_err(refused)? {
                Event::InCgroup => enters = false,
                Event::Cloned | Event::At(SyncPoint::Created | SyncPoint::Cgroups | SyncPoint::Entered) => {}
                Event::At(SyncPoint::Attached) => {
                    cgroup.attach(stage.pid())?;
                    stage.answer()?;
                }
                Event::At(SyncPoint::Ready) => break,
                Event::Listener(_) | Event::End => return Err(stage.died().into()),
            }
        }
        if let Some(late) = late {
            self.move_into(late, stage.pid())?;
        }
        if !stage.is_answered() {
            stage.answer()?;
        }
        Ok(self.await_program(stage, &wait)?)
    }

    /// Moves a process into `cgroup`, or to where init has moved from there.
    fn move_into(&self, cgroup: &Cgroup, pid: i32) -> Result<()> {
        match cgroup.attach(pid) {
            Err(error) if self.options.cgroup.is_empty() && is_elsewhere(&error) => {
                self.container.cgroup_of_init()?.split_at_pids().1.attach(pid)
            }
            other => other,
        }
    }

    /// Waits until the process has executed its program.
    fn await_program(&self, mut stage: Stage, wait: &Wait) -> Result<Child> {
        loop {
            match stage.next(wait)? {
                Event::Listener(listener) => {
                    let of = (stage.pid(), self.container.status());
                    notify::send(&self.container.directory, &self.container.state, of, listener)?;
                }
                Event::End if executed::has_executed(stage.pid(), None) => break,
                Event::End => {
                    let what = "the process was killed before it executed the program";
                    return Err(Error::external(what).with_hint(parent::killed_hint(self.filter.as_ref())));
                }
                _ => {
                    return Err(Error::external(
                        "an unexpected message from the process that joins the container",
                    ));
                }
            }
        }
        stage.into_init().ok_or_else(|| Error::external("the process was not cloned"))
    }

    fn plan(&self, cgroup: &Cgroup) -> Result<Plan> {
        let Join { process, request, .. } = self.options;
        let host = self.container.host_of(self.spec, process, cgroup)?;
        plan::exec::exec(self.spec, process, &host, request, self.filter.as_ref())
    }

    fn launch<'p>(&self, plan: &'p Plan, cgroup: &Cgroup) -> std::result::Result<Stage<'p>, Refused> {
        let Join { streams, passed, .. } = self.options;
        let pidfd = Some(self.init);
        let given = Given { console: streams.console(), pidfd, cgroup: Some(cgroup), ..Given::default() };
        let born_in = cgroup.open_dir().map_err(of_cgroup)?;
        let launch =
            Launch { stdio: streams.stdio(), passed, cgroup: born_in.as_ref().map(AsFd::as_fd), given };
        let steps = || format!("with {} steps", plan.steps().len());
        trace::part("start the stage", steps, || Stage::launch(plan, &launch)).map_err(of_cgroup)
    }
}

/// An error of opening a cgroup, or of a clone into it.
fn of_cgroup(error: Error) -> Refused {
    if is_elsewhere(&error) { Refused::Cgroup(error) } else { Refused::Other(error) }
}

/// The cgroup takes no processes, or is gone.
fn is_elsewhere(error: &Error) -> bool {
    [Errno::EBUSY, Errno::EOPNOTSUPP, Errno::ENOENT, Errno::ENODEV]
        .iter()
        .any(|errno| error.errno() == Some(*errno as i32))
}

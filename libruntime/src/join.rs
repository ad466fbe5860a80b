//! Processes that join a container: `exec`.

use crate::cgroup::{Cgroup, Layout};
use crate::child::Child;
use crate::container::{Container, Exit, Status};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::parent::{self, Event, Given, Launch, Stage};
use crate::plan::Plan;
use crate::plan::create::Request;
use crate::seccomp;
use crate::step::SyncPoint;
use crate::wait::Wait;
use crate::{notify, plan, sys, trace};
use nix::errno::Errno;
use oci_spec::runtime::{Hook, Process, Spec};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What [`Container::exec`] runs, and how.
pub struct Exec<'a> {
    pub process: Process,
    /// A connected unix stream socket that gets the terminal's master (`terminal`).
    pub console_socket: Option<BorrowedFd<'a>>,
    /// The caller passes what the terminal prints on to one of its own, which adds carriage returns itself.
    pub relayed_console: bool,
    pub stdio: [BorrowedFd<'a>; 3],
    /// Descriptors 3 to 2 + n stay open in the process; each of them must be open.
    pub preserve_fds: u32,
    /// Below the container's cgroup; of one controller, or of all.
    pub cgroup: Vec<(Option<String>, std::path::PathBuf)>,
    /// Run in a paused container: the process starts when that is resumed.
    pub ignore_paused: bool,
    pub no_new_keyring: bool,
    /// Ends the wait for the start of the process when it is readable, such as a signalfd(2).
    pub interrupt: Option<BorrowedFd<'a>>,
}

impl Exec<'_> {
    /// With the caller's standard descriptors, and nothing special.
    pub fn new(process: Process) -> Self {
        Self {
            process,
            console_socket: None,
            relayed_console: false,
            stdio: sys::standard_fds(),
            preserve_fds: 0,
            cgroup: Vec::new(),
            ignore_paused: false,
            no_new_keyring: false,
            interrupt: None,
        }
    }
}

/// A process that [`Container::exec`] has started.
#[derive(Debug)]
pub struct Executed {
    child: Child,
}

impl Executed {
    /// In the caller's pid namespace.
    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd()
    }

    pub fn wait(&self) -> Result<Exit> {
        self.child.wait()
    }

    pub fn kill(&self, signal: i32) -> Result<()> {
        sys::pidfd_send_signal(self.child.pidfd(), signal)
            .map_err(|errno| Error::os(format!("pidfd_send_signal {signal}"), errno))
    }
}

impl Container {
    /// The process that the container was created with: what `exec` starts from.
    pub fn process(&self) -> Result<Process> {
        let process = self.spec()?.process().clone();
        process.ok_or_else(|| Error::new(ErrorKind::InvalidConfig, "the container's config has no process"))
    }

    /// Runs another process in the container, under its seccomp filter and in its cgroup.
    ///
    /// # Errors
    /// Also what the program's execution fails with.
    pub fn exec(&self, options: &Exec) -> Result<Executed> {
        parent::check_preserved(options.preserve_fds)?;
        match self.status() {
            Status::Running | Status::Created => {}
            Status::Paused if options.ignore_paused => {}
            Status::Paused => {
                return Err(self.wrong_state("exec", Status::Paused).with_hint("resume it first"));
            }
            status => return Err(self.wrong_state("exec", status)),
        }
        self.join(options).map_err(|error| error.within("unable to start container process"))
    }

    fn join(&self, options: &Exec) -> Result<Executed> {
        let spec = self.spec()?;
        let has_profile = spec.linux().as_ref().is_some_and(|linux| linux.seccomp().is_some());
        let filter = if has_profile { Some(self.directory.read_filter()?) } else { None };
        let joining = Joining { container: self, options, spec, init: self.open_init()?, filter };
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

    /// The plan of a startContainer hook.
    pub(crate) fn plan_hook(&self, hook: &Hook, place: &str) -> Result<Plan> {
        let spec = self.spec()?;
        let has_profile = spec.linux().as_ref().is_some_and(|linux| linux.seccomp().is_some());
        let filter = if has_profile { Some(self.directory.read_filter()?) } else { None };
        let process = self.process()?;
        let host = host_of(spec, &process, &self.state.cgroup)?;
        let (id, bundle) = (self.id().to_string(), self.state.bundle.clone());
        let request = Request { id, bundle, ..Request::default() };
        plan::exec::hook_as_process(hook, place, spec, &process, &host, &request, filter.as_ref())
    }

    /// Init may have moved itself to a cgroup below, as an init system does; or systemd has moved it
    /// out of one of a v1 hierarchy that it thinks its own, and removed that.
    fn cgroup_of_init(&self) -> Result<Cgroup> {
        match self.state.init {
            Some(init) => self.state.cgroup.of_process(init.pid),
            None => Ok(self.state.cgroup.clone()),
        }
    }
}

/// What a process that joins a container is planned with.
fn host_of(spec: &Spec, process: &Process, cgroup: &Cgroup) -> Result<Host> {
    let mut host = Host::probe(spec, &Layout::probe()?, cgroup)?;
    if process.rlimits().is_some() {
        host.probe_rlimits()?;
    }
    Ok(host)
}

/// One call of `exec`, while its process is set up.
struct Joining<'a> {
    container: &'a Container,
    options: &'a Exec<'a>,
    spec: &'a Spec,
    init: OwnedFd,
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
    /// A `pids.max` that is reached refuses clones in the cgroup, but no process that comes from outside
    /// (Documentation/admin-guide/cgroup-v2.rst, PID): then the process is cloned outside, and moved. It always is
    /// with a terminal, whose master cannot be sent twice.
    fn run(&self, cgroup: &Cgroup) -> std::result::Result<Executed, Refused> {
        let (first, limited) = cgroup.split_at_pids();
        if self.options.console_socket.is_none() {
            match self.run_in(cgroup, None) {
                Err(Refused::Other(error)) if error.errno() == Some(Errno::EAGAIN as i32) => {}
                other => return other,
            }
        }
        self.run_in(&first, Some(&limited))
    }

    /// In `cgroup` from the beginning, in `late` when all is set up.
    fn run_in(&self, cgroup: &Cgroup, late: Option<&Cgroup>) -> std::result::Result<Executed, Refused> {
        let plan = trace::plain("plan", || self.plan(cgroup))?;
        let mut stage = self.launch(&plan, cgroup)?;
        let wait = Wait::default().interrupted_by(self.options.interrupt);
        loop {
            match stage.next(&wait)? {
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
        Ok(self.execute(stage, &wait)?)
    }

    /// Or to where init has gone from there.
    fn move_into(&self, cgroup: &Cgroup, pid: i32) -> Result<()> {
        match cgroup.attach(pid) {
            Err(error) if self.options.cgroup.is_empty() && is_elsewhere(&error) => {
                self.container.cgroup_of_init()?.split_at_pids().1.attach(pid)
            }
            other => other,
        }
    }

    /// Lets the process go, and waits until it has executed its program.
    fn execute(&self, mut stage: Stage, wait: &Wait) -> Result<Executed> {
        let name = parent::name_of(stage.pid());
        stage.answer()?;
        loop {
            match stage.next(wait)? {
                Event::Listener(listener) => {
                    let of = (stage.pid(), self.container.status());
                    notify::send(&self.container.directory, self.container, of, listener)?;
                }
                Event::End if parent::has_executed(stage.pid(), name.as_deref()) => break,
                Event::End => return Err(stage.died()),
                _ => {}
            }
        }
        let child = stage.into_init().ok_or_else(|| Error::external("the process was not cloned"))?;
        Ok(Executed { child })
    }

    fn plan(&self, cgroup: &Cgroup) -> Result<Plan> {
        let (container, options) = (self.container, self.options);
        let host = host_of(self.spec, &options.process, cgroup)?;
        let request = Request {
            id: container.id().to_string(),
            bundle: container.state.bundle.clone(),
            preserve_fds: options.preserve_fds,
            console_socket: options.console_socket.is_some(),
            relayed_console: options.relayed_console,
            no_new_keyring: options.no_new_keyring,
            ..Request::default()
        };
        plan::exec::exec(self.spec, &options.process, &host, &request, self.filter.as_ref())
    }

    fn launch<'p>(&self, plan: &'p Plan, cgroup: &Cgroup) -> std::result::Result<Stage<'p>, Refused> {
        let options = self.options;
        let (stdio, preserve_fds, console) = (options.stdio, options.preserve_fds, options.console_socket);
        let given =
            Given { console, pidfd: Some(self.init.as_fd()), cgroup: Some(cgroup), ..Given::default() };
        let born_in = cgroup.open_dir().map_err(of_cgroup)?;
        let launch = Launch { stdio, preserve_fds, cgroup: born_in.as_ref().map(AsFd::as_fd), given };
        let steps = || format!("with {} steps", plan.steps().len());
        trace::part("start the stage", steps, || Stage::launch(plan, &launch)).map_err(of_cgroup)
    }
}

/// Of its opening, or of a clone into it.
fn of_cgroup(error: Error) -> Refused {
    if is_elsewhere(&error) { Refused::Cgroup(error) } else { Refused::Other(error) }
}

/// The cgroup takes no processes, or is gone.
fn is_elsewhere(error: &Error) -> bool {
    [Errno::EBUSY, Errno::EOPNOTSUPP, Errno::ENOENT].iter().any(|errno| error.errno() == Some(*errno as i32))
}

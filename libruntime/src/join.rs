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
        let init = self.open_init()?;
        let has_profile = spec.linux().as_ref().is_some_and(|linux| linux.seccomp().is_some());
        let filter = if has_profile { Some(self.directory.read_filter()?) } else { None };
        let mut cgroup = self.state.cgroup.clone();
        for (controller, path) in &options.cgroup {
            cgroup = cgroup.below(controller.as_deref(), path)?;
        }
        let plan = trace::plain("plan", || self.plan_exec(spec, options, filter.as_ref(), &cgroup))?;
        let moved;
        let mut stage = match launch(&plan, options, &cgroup, &init) {
            Err(error) if options.cgroup.is_empty() && is_elsewhere(&error) => {
                cgroup = self.cgroup_of_init()?;
                moved = self.plan_exec(spec, options, filter.as_ref(), &cgroup)?;
                launch(&moved, options, &cgroup, &init)?
            }
            other => other?,
        };
        let wait = Wait::default().interrupted_by(options.interrupt);
        loop {
            match stage.next(&wait)? {
                Event::Cloned | Event::At(SyncPoint::Created | SyncPoint::Cgroups | SyncPoint::Entered) => {}
                Event::At(SyncPoint::Attached) => {
                    cgroup.attach(stage.pid())?;
                    stage.answer()?;
                }
                Event::At(SyncPoint::Ready) => break,
                Event::Listener(_) | Event::End => return Err(stage.died()),
            }
        }
        let name = parent::name_of(stage.pid());
        stage.answer()?;
        loop {
            match stage.next(&wait)? {
                Event::Listener(listener) => notify::send(&self.directory, self, listener)?,
                Event::End if parent::has_executed(stage.pid(), name.as_deref()) => break,
                Event::End => return Err(stage.died()),
                _ => {}
            }
        }
        let child = stage.into_init().ok_or_else(|| Error::external("the process was not cloned"))?;
        Ok(Executed { child })
    }

    fn plan_exec(
        &self,
        spec: &Spec,
        options: &Exec,
        filter: Option<&seccomp::Filter>,
        cgroup: &Cgroup,
    ) -> Result<Plan> {
        let host = host_of(spec, &options.process, cgroup)?;
        let request = Request {
            id: self.id().to_string(),
            bundle: self.state.bundle.clone(),
            preserve_fds: options.preserve_fds,
            console_socket: options.console_socket.is_some(),
            relayed_console: options.relayed_console,
            no_new_keyring: options.no_new_keyring,
            ..Request::default()
        };
        plan::exec::exec(spec, &options.process, &host, &request, filter)
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

fn launch<'a>(plan: &'a Plan, options: &Exec, cgroup: &Cgroup, init: &OwnedFd) -> Result<Stage<'a>> {
    let (stdio, preserve_fds, console) = (options.stdio, options.preserve_fds, options.console_socket);
    let given = Given { console, pidfd: Some(init.as_fd()), cgroup: Some(cgroup), ..Given::default() };
    let born_in = cgroup.open_dir()?;
    let launch = Launch { stdio, preserve_fds, cgroup: born_in.as_ref().map(AsFd::as_fd), given };
    let steps = || format!("with {} steps", plan.steps().len());
    trace::part("start the stage", steps, || Stage::launch(plan, &launch))
}

/// The cgroup takes no processes, or is gone.
fn is_elsewhere(error: &Error) -> bool {
    [Errno::EBUSY, Errno::EOPNOTSUPP, Errno::ENOENT].iter().any(|errno| error.errno() == Some(*errno as i32))
}

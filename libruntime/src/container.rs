//! A container that exists: its handle, its state, and how it ended. The verbs are in files of their own: `start.rs`,
//! `exec.rs`, `delete.rs`, `update.rs`, `checkpoint.rs`.

use crate::cgroup::{Cgroup, OomEvents, Stats, network_of};
use crate::child::{self, Child};
use crate::error::{Diagnostic, Error, ErrorKind, Result};
use crate::namespaces;
use crate::network::{self, InterfaceStatus};
use crate::options::Options;
use crate::settings::Settings;
use crate::starter::Starter;
use crate::state::{Directory, ProcessId, State as Record};
use crate::status::Status;
use crate::stdio::{Ends, Output, SharedEnds};
use crate::sys::{self, ExitStatus};
use crate::trace::StageSteps;
use crate::wait::{self, Cancel, Limits, Wait};
use crate::words;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// A handle of a container, which lives on when the handle is dropped. Handles are clones of each other, or come from
/// [`Runtime::load`](crate::Runtime::load). Each can be used from several threads at once.
///
/// Every verb fails with [`ErrorKind::NotFound`] or [`ErrorKind::WrongState`] once the container is deleted.
#[derive(Clone, Debug)]
pub struct Container {
    pub(crate) settings: Option<Arc<Settings>>,
    pub(crate) directory: Directory,
    pub(crate) state: Arc<Record>,
    init: Init,
    warnings: Arc<[Diagnostic]>,
    /// Read when it is first needed.
    spec: Arc<OnceLock<Spec>>,
    ends: SharedEnds,
    /// The steps of the stage that waits for `start`, where an observer wants their times.
    steps: Option<Arc<Mutex<StageSteps>>>,
    /// What the container is started with, where nobody else may start it.
    starter: Arc<Mutex<Option<Starter>>>,
    pub(crate) limits: Limits,
}

/// How a handle refers to the container's init.
#[derive(Clone, Debug)]
enum Init {
    /// This process has created it.
    Child(Arc<Child>),
    /// Another process has created it; its pidfd.
    Other(Arc<OwnedFd>),
    /// It had ended, or there was none, when the container was loaded: a descriptor that is always readable.
    Ended(Arc<OwnedFd>),
}

/// The state of a container (runtime.md, "State"), with what runc adds to it. Its JSON form is that of `runc state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct State {
    /// The version of the specification that the configuration is written in.
    pub oci_version: String,
    /// Unique in its store.
    pub id: String,
    /// In the caller's pid namespace; 0 for a container that has stopped, or has no process yet.
    pub pid: i32,
    /// What it is doing.
    pub status: Status,
    /// Absolute.
    pub bundle: PathBuf,
    /// Absolute; of the host.
    pub rootfs: PathBuf,
    /// When it was created: RFC 3339, in UTC.
    pub created: String,
    /// The annotations of the configuration.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The name of the user who created it, or the number.
    pub owner: String,
    /// The scope that systemd has made, with [`crate::CgroupDriver::Systemd`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub systemd_unit: Option<String>,
    /// The networks that the library has connected it to; absent without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<InterfaceStatus>>,
}

impl Container {
    /// One that was created just now.
    pub(crate) fn created(
        directory: Directory,
        state: Record,
        init: Child,
        warnings: Vec<Diagnostic>,
    ) -> Self {
        init.is_init_of(directory.clone());
        Self::new(directory, state, Init::Child(Arc::new(init)), warnings)
    }

    fn new(directory: Directory, state: Record, init: Init, warnings: Vec<Diagnostic>) -> Self {
        Self {
            settings: None,
            directory,
            state: Arc::new(state),
            init,
            warnings: warnings.into(),
            spec: Arc::default(),
            ends: SharedEnds::default(),
            steps: None,
            starter: Arc::default(),
            limits: Limits::default(),
        }
    }

    /// Keeps what later verbs need of the creation's options.
    pub(crate) fn keep(&mut self, options: Options, spec: Spec, ends: Ends) {
        self.settings = Some(options.settings);
        self.limits = options.limits;
        self.spec = Arc::new(spec.into());
        self.ends = SharedEnds::new(ends);
    }

    pub(crate) fn with_steps(mut self, steps: Option<StageSteps>) -> Self {
        self.steps = steps.map(|steps| Arc::new(Mutex::new(steps)));
        self
    }

    pub(crate) fn with_starter(mut self, starter: Option<Starter>) -> Self {
        self.starter = Arc::new(Mutex::new(starter));
        self
    }

    pub(crate) fn has_starter(&self) -> bool {
        self.starter.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Given once.
    pub(crate) fn take_starter(&self) -> Option<Starter> {
        self.starter.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Reports to an observer the steps that the stage has done since the last report.
    pub(crate) fn report_steps(&self) {
        if let Some((steps, init)) = self.steps.as_ref().zip(self.state.init) {
            steps.lock().unwrap_or_else(PoisonError::into_inner).report(init.pid);
        }
    }

    pub(crate) fn load(settings: &Arc<Settings>, id: &str) -> Result<Self> {
        let directory = Self::open(&settings.store, id)?;
        match directory.read_state() {
            Err(error) if error.errno() == Some(Errno::ENOENT as i32) => {
                let message = format!("container {id} has no state.json");
                Err(Error::external(message).with_hint("deletion by force removes the container"))
            }
            state => Self::loaded(settings, directory, state?, Vec::new()),
        }
    }

    pub(crate) fn load_damaged(settings: &Arc<Settings>, id: &str) -> Result<Self> {
        let directory = Self::open(&settings.store, id)?;
        let why = match directory.read_state() {
            Ok(state) => return Self::loaded(settings, directory, state, Vec::new()),
            Err(error) => error,
        };
        let known = directory.read_first_state();
        if known.is_err() && !directory.is_of_container() {
            return Err(why);
        }
        let found = match &known {
            Ok(_) => "what creation had planned is removed".to_string(),
            Err(also) => format!("only its directory is removed, a cgroup of it is not known ({also})"),
        };
        let warning = Diagnostic::warning("state.json", format!("{why}; {found}"));
        Self::loaded(settings, directory, known.unwrap_or_else(|_| Record::unknown(id)), vec![warning])
    }

    fn loaded(
        settings: &Arc<Settings>,
        directory: Directory,
        state: Record,
        warnings: Vec<Diagnostic>,
    ) -> Result<Self> {
        let init = Init::of(state.init)?;
        let mut container = Self::new(directory, state, init, warnings);
        container.settings = Some(settings.clone());
        Ok(container)
    }

    /// Whether annotations may name files for the output of hooks.
    pub(crate) fn allows_hook_output(&self) -> bool {
        self.settings.as_ref().is_some_and(|settings| settings.hook_output_annotations)
    }

    /// Whether a directory of the store is a container's, even if nothing in it can be read.
    pub(crate) fn has_directory(settings: &Settings, id: &str) -> bool {
        matches!(Directory::open(&settings.store, id), Ok(Some(directory)) if directory.is_of_container())
    }

    fn open(store: &Path, id: &str) -> Result<Directory> {
        Directory::open(store, id)?.ok_or_else(|| {
            Directory::sweep(store, id);
            Error::new(ErrorKind::NotFound, format!("container does not exist: {id}"))
        })
    }

    /// This handle, whose verbs end early when `cancel` is cancelled; other handles stay as they are.
    pub fn with_cancel(&self, cancel: Cancel) -> Self {
        let limits = Limits { cancel: Some(cancel), ..self.limits.clone() };
        Self { limits, ..self.clone() }
    }

    /// This handle with a deadline: a verb that waits for anything but the container's end fails with
    /// [`ErrorKind::TimedOut`] after `limit`. Other handles stay as they are.
    pub fn with_deadline(&self, limit: Duration) -> Self {
        let limits = Limits { deadline: Some(limit), ..self.limits.clone() };
        Self { limits, ..self.clone() }
    }

    /// This handle without deadline and [`Cancel`], for what has to be done after a verb was cancelled.
    pub fn without_limits(&self) -> Self {
        Self { limits: Limits::default(), ..self.clone() }
    }

    /// Unique in its store.
    pub fn id(&self) -> &str {
        &self.state.id
    }

    /// The warnings of its creation, or of loading it.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// The pid of its init in the caller's pid namespace, while that runs.
    pub fn pid(&self) -> Option<i32> {
        self.state.init.filter(|init| init.is_alive()).map(|init| init.pid)
    }

    /// The pid that its init has or had; another process may have it after the container's end.
    pub fn init_pid(&self) -> Option<i32> {
        self.state.init.map(|init| init.pid)
    }

    /// Its status now, which is asked for at each call.
    pub fn status(&self) -> Status {
        let Some(init) = self.state.init else { return Status::Creating };
        if self.has_ended() {
            return Status::Stopped;
        }
        let Some(has_executed) = init.has_executed(self.state.stage) else { return Status::Stopped };
        // First, because a paused container can neither start nor end, whatever its init does.
        if let Ok(true) = self.state.cgroup.is_frozen() {
            return Status::Paused;
        }
        // A program that has got at the stage, for example by CAP_SYS_PTRACE, can execute it.
        let is_running = has_executed || self.state.restored || self.directory.is_started();
        if is_running { Status::Running } else { Status::Created }
    }

    /// The state of the specification (runtime.md, "Query State"), with what runc adds to it.
    pub fn state(&self) -> State {
        let status = self.status();
        let record = &self.state;
        State {
            oci_version: record.oci_version.clone(),
            id: record.id.clone(),
            pid: self.init_pid().filter(|_| status != Status::Stopped).unwrap_or(0),
            status,
            bundle: record.bundle.clone(),
            rootfs: record.rootfs.clone(),
            created: record.created.clone(),
            annotations: record.annotations.clone(),
            owner: user_name(record.owner),
            systemd_unit: record.cgroup.systemd_unit().map(Into::into),
            networks: self.networks(),
        }
    }

    /// The networks that the library has connected it to.
    fn networks(&self) -> Option<Vec<InterfaceStatus>> {
        network::read_record(self.store(), self.id()).ok().flatten().map(|attached| attached.status())
    }

    pub(crate) fn store(&self) -> &Path {
        self.directory.path.parent().unwrap_or(Path::new("/"))
    }

    /// The hierarchies of cgroups on this host.
    pub(crate) fn layout(&self) -> Result<crate::cgroup::Layout> {
        match &self.settings {
            Some(settings) => settings.layout().cloned(),
            None => crate::cgroup::Layout::probe(),
        }
    }

    /// The configuration that it was created with; in a handle that was loaded, with what updates had changed of it at the
    /// first call.
    ///
    /// # Errors
    /// The container's directory is damaged.
    pub fn spec(&self) -> Result<&Spec> {
        if let Some(spec) = self.spec.get() {
            return Ok(spec);
        }
        let spec = self.directory.read_spec()?;
        Ok(self.spec.get_or_init(|| spec))
    }

    /// Whether it has a new namespace of this kind.
    pub(crate) fn has_own(&self, kind: LinuxNamespaceType) -> Result<bool> {
        Ok(namespaces::is_new(namespaces::listed(self.spec()?), kind))
    }

    pub(crate) fn wrong_state(&self, verb: &str, found: Status) -> Error {
        Error::new(ErrorKind::WrongState, words::of_state(verb, &self.state.id, found))
    }

    /// A pidfd of its init, where that runs.
    pub(crate) fn running_init(&self) -> Result<BorrowedFd<'_>> {
        match self.state.init {
            Some(init) if !self.has_ended() && init.is_alive() => Ok(self.as_fd()),
            _ => Err(self.not_running()),
        }
    }

    /// Whether this handle knows it without asking the kernel.
    fn has_ended(&self) -> bool {
        match &self.init {
            Init::Child(child) => child.is_reaped(),
            Init::Other(_) => false,
            Init::Ended(_) => true,
        }
    }

    pub(crate) fn not_running(&self) -> Error {
        Error::new(ErrorKind::WrongState, format!("container not running: {}", self.id()))
    }

    /// Its init as a child of this process.
    pub(crate) fn child(&self) -> Option<&Child> {
        match &self.init {
            Init::Child(child) => Some(child),
            _ => None,
        }
    }

    /// A pidfd of its init (pidfd_open(2)), held since creation or loading; readable when it has ended. For a container
    /// that had already ended when it was loaded, it is another descriptor, which is always readable.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        match &self.init {
            Init::Child(child) => child.pidfd(),
            Init::Other(pidfd) | Init::Ended(pidfd) => pidfd.as_fd(),
        }
    }

    /// Gives up the handle and leaves the end of its init to whoever adopts that: for a program that ends before the
    /// container, and whose subreaper (PR_SET_CHILD_SUBREAPER(2const)) wants to know how it ended. In a program that goes
    /// on, the init stays a zombie until that waits for it itself.
    pub fn detach(self) {
        if let Some(child) = self.child() {
            child.leave();
        }
    }

    /// Waits for the end of its init, as long as that takes, from any number of threads. A container that another
    /// process has created can be waited for as well.
    ///
    /// # Errors
    /// [`ErrorKind::Reaped`] where its exit status is lost: something else has reaped it, and the kernel is older than
    /// Linux 6.15. [`ErrorKind::Interrupted`] by the handle's [`Cancel`]; the handle's deadline does not apply.
    pub fn wait(&self) -> Result<ExitStatus> {
        let ended = self.wait_by(&Wait::default())?;
        ended.ok_or_else(|| Error::internal("a wait without a deadline has ended"))
    }

    /// How it ended, without waiting; `None` while it runs or has not been started.
    ///
    /// # Errors
    /// As [`Container::wait`].
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        self.wait_by(&Wait::at_any_rate(Duration::ZERO))
    }

    /// Waits for its end, for at most `limit`; `None` where it has not ended by then.
    ///
    /// # Errors
    /// As [`Container::wait`].
    pub fn wait_timeout(&self, limit: Duration) -> Result<Option<ExitStatus>> {
        self.wait_by(&Wait::at_most(limit))
    }

    fn wait_by(&self, wait: &Wait) -> Result<Option<ExitStatus>> {
        wait::limited(&self.limits.without_deadline(), || match &self.init {
            Init::Child(child) => child.wait_beside_others(wait),
            Init::Ended(_) => self.recorded_exit(None).map(Some),
            Init::Other(pidfd) => match child::await_end(pidfd.as_fd(), wait)? {
                true => self.recorded_exit(Some(pidfd.as_fd())).map(Some),
                false => Ok(None),
            },
        })
    }

    /// The exit status of another process's child: its parent has recorded it, or the kernel knows it once it is
    /// reaped.
    fn recorded_exit(&self, pidfd: Option<BorrowedFd>) -> Result<ExitStatus> {
        // Its parent may be about to reap it.
        for pause in [0, 1, 4, 16, 64, 256, 512] {
            std::thread::sleep(Duration::from_millis(pause));
            let kernel = |pidfd| sys::exit_of_reaped(pidfd).ok();
            if let Some(exit) = self.directory.read_exit().ok().or_else(|| pidfd.and_then(kernel)) {
                return Ok(exit);
            }
            if pidfd.is_none() {
                break;
            }
        }
        let message = format!("container {} has ended, and its exit status is lost", self.id());
        Err(Error::new(ErrorKind::Reaped, message)
            .with_hint("its exit status is known to the process that created it"))
    }

    /// The writing end of the program's standard input, where it is a pipe; the first caller gets it.
    pub fn take_stdin(&self) -> Option<PipeWriter> {
        self.ends.take_stdin()
    }

    /// The reading end of the program's standard output, where it is a pipe; the first caller gets it.
    pub fn take_stdout(&self) -> Option<PipeReader> {
        self.ends.take_stdout()
    }

    /// The reading end of the program's standard error, where it is a pipe; the first caller gets it.
    pub fn take_stderr(&self) -> Option<PipeReader> {
        self.ends.take_stderr()
    }

    /// The master of its terminal, if it was created with one of the caller's; the first caller gets it.
    pub fn take_terminal(&self) -> Option<crate::Terminal> {
        self.ends.take_terminal()
    }

    /// Waits for its end, and returns what it wrote to its pipes until then. Its input, if it is a pipe that nobody has
    /// taken, is closed first.
    ///
    /// # Errors
    /// As [`Container::wait`]; a pipe cannot be read.
    pub fn output(&self) -> Result<Output> {
        let what = format!("container {}", self.id());
        let limits = self.limits.without_deadline();
        let written = wait::limited(&limits, || self.ends.read_to_end(self.pidfd(), &what))?;
        Ok(Output::new(self.wait()?, written))
    }

    /// The pids of all its processes, as the caller sees them.
    ///
    /// # Errors
    /// It has no cgroup.
    pub fn processes(&self) -> Result<Vec<i32>> {
        self.cgroup_of_all()?.pids(true)
    }

    /// The cgroup, where its processes have one of their own.
    pub(crate) fn cgroup_of_all(&self) -> Result<&Cgroup> {
        match self.state.cgroup.is_none() {
            true => Err(Error::unsupported(format!(
                "container {} has no cgroup to find its processes in",
                self.id()
            ))),
            false => Ok(&self.state.cgroup),
        }
    }

    /// The statistics of its cgroup and of its network interfaces.
    ///
    /// # Errors
    /// The cgroup is gone or cannot be read.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = self.state.cgroup.stats()?;
        stats.network = self.pid().map(network_of).unwrap_or_default();
        Ok(stats)
    }

    /// Reports each time, from now on, that the container runs out of memory.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] without the memory controller.
    pub fn oom_events(&self) -> Result<OomEvents> {
        self.state.cgroup.oom_events()
    }

    /// The directories of its cgroup, by controller; the one in the hierarchy of cgroup v2 has the empty name.
    pub fn cgroup_paths(&self) -> impl Iterator<Item = (String, PathBuf)> {
        self.state.cgroup.paths().into_iter()
    }
}

/// Readable when the container's init has ended: for poll(2), epoll(7) and event loops. The init of a pid namespace
/// ends only after every process of it is reaped (pid_namespaces(7)), so an event loop watches its processes of
/// [`Container::exec`] as well, and calls `try_wait` for those that have ended. [`Container::wait`] does so itself.
impl AsFd for Container {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd()
    }
}

impl Init {
    /// Opens a pidfd first and compares the start time then: the pidfd cannot belong to a later process with the same
    /// pid.
    fn of(init: Option<ProcessId>) -> Result<Self> {
        if let Some(init) = init {
            match sys::pidfd_open(init.pid) {
                Ok(pidfd) if init.is_alive() => return Ok(Self::Other(Arc::new(pidfd))),
                // EINVAL: it is a thread now.
                Ok(_) | Err(Errno::ESRCH | Errno::EINVAL) => {}
                Err(errno) => return Err(Error::os(format!("pidfd_open {}", init.pid), errno)),
            }
        }
        let readable = EventFd::from_value_and_flags(1, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        readable.map(|event| Self::Ended(Arc::new(event.into()))).map_err(|errno| Error::os("eventfd", errno))
    }
}

pub(crate) fn user_name(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid));
    user.ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

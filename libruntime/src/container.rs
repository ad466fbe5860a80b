//! A container that exists: what its state is, and the verbs on it.

use crate::cgroup::{Cgroup, OomEvents, Stats, merged, network_of};
use crate::child::{self, Child};
use crate::create::take_off;
use crate::error::{Error, ErrorKind, Finding, Result};
use crate::state::{Directory, State};
use crate::wait::{DEADLINE, Wait};
use crate::{config, hooks, network, resctrl, sys, trace, words};
use nix::errno::Errno;
use oci_spec::runtime::{LinuxNamespaceType, LinuxResources, Spec};
use serde::Serialize;
use serde_json::{Value, json};
use std::cell::OnceCell;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

pub use crate::sys::Exit;

/// The states of the spec (runtime.md, "State"), and the one that pausing adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.pad(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// A container, by the state that is kept of it. It lives on when this is dropped.
#[derive(Debug)]
pub struct Container {
    pub(crate) directory: Directory,
    pub(crate) state: State,
    /// Its init, where this process has created it.
    pub(crate) child: Option<Child>,
    pub(crate) warnings: Vec<Finding>,
    /// Read when it is first needed.
    pub(crate) spec: OnceCell<Spec>,
    /// The caller's, which ends waits for hooks.
    interrupt: Option<OwnedFd>,
}

impl Container {
    pub(crate) fn new(directory: Directory, state: State) -> Self {
        Self { directory, state, child: None, warnings: Vec::new(), spec: OnceCell::new(), interrupt: None }
    }

    /// The container `id` of a store.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none.
    pub fn load(store: &Path, id: &str) -> Result<Self> {
        let directory = Self::open(store, id)?;
        match directory.read_state() {
            Err(error) if error.errno() == Some(Errno::ENOENT as i32) => {
                let message = format!("container {id} has no state.json");
                Err(Error::external(message).with_hint("delete --force removes the container"))
            }
            state => Ok(Self::new(directory, state?)),
        }
    }

    /// The same, for a deletion by force: where the state cannot be read, it is what creation wrote before
    /// it made anything, and [`Container::warnings`] say so.
    ///
    /// # Errors
    /// Where the directory with this name is no container's.
    pub fn load_damaged(store: &Path, id: &str) -> Result<Self> {
        let directory = Self::open(store, id)?;
        let why = match directory.read_state() {
            Ok(state) => return Ok(Self::new(directory, state)),
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
        let warning = Finding::new("state.json", format!("{why}; {found}"));
        let mut container = Self::new(directory, known.unwrap_or_else(|_| State::unknown(id)));
        container.warnings.push(warning);
        Ok(container)
    }

    fn open(store: &Path, id: &str) -> Result<Directory> {
        Directory::open(store, id)?.ok_or_else(|| {
            Directory::sweep(store, id);
            Error::new(ErrorKind::NotFound, format!("container does not exist: {id}"))
        })
    }

    /// The containers of a store, sorted by id; a store that does not exist has none. One that is
    /// being deleted meanwhile is left out.
    pub fn list(store: &Path) -> Result<Vec<Self>> {
        let entries = match std::fs::read_dir(store) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|error| Error::io(format!("open {}", store.display()), error))?,
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort();
        Ok(names.iter().filter_map(|id| Self::load(store, id).ok()).collect())
    }

    /// Those whose id, or a part of it, matches an extended regular expression (regex(7)).
    pub fn matching(store: &Path, pattern: &str) -> Result<Vec<Self>> {
        let wrong = |why: String| {
            Error::new(ErrorKind::InvalidConfig, format!("{pattern:?} is no regular expression: {why}"))
        };
        let text = CString::new(pattern).map_err(|_| wrong("it has a NUL byte".into()))?;
        let pattern = sys::Pattern::new(&text).map_err(wrong)?;
        let is_meant = |one: &Self| CString::new(one.id()).is_ok_and(|id| pattern.matches(&id));
        Ok(Self::list(store)?.into_iter().filter(is_meant).collect())
    }

    /// From now on, `interrupt` ends waits for hooks when it is readable, such as a signalfd(2): the hook
    /// is killed, and the verb fails with [`ErrorKind::Interrupted`].
    pub fn interrupt_by(&mut self, interrupt: BorrowedFd) -> Result<()> {
        let copy = interrupt.try_clone_to_owned();
        self.interrupt = Some(copy.map_err(|error| Error::io("duplicate the interrupt", error))?);
        Ok(())
    }

    pub(crate) fn interrupt(&self) -> Option<BorrowedFd<'_>> {
        self.interrupt.as_ref().map(AsFd::as_fd)
    }

    pub fn id(&self) -> &str {
        &self.state.id
    }

    /// What creating it was worth a warning.
    pub fn warnings(&self) -> &[Finding] {
        &self.warnings
    }

    pub fn bundle(&self) -> &Path {
        &self.state.bundle
    }

    /// RFC 3339, in UTC.
    pub fn created(&self) -> &str {
        &self.state.created
    }

    /// The uid that created it.
    pub fn owner(&self) -> u32 {
        self.state.owner
    }

    /// The pid of its init in the caller's pid namespace; `None` when it does not run.
    pub fn pid(&self) -> Option<i32> {
        self.state.init.filter(|init| init.is_alive()).map(|init| init.pid)
    }

    /// The pid that its init has or had; another process may have it after the container's end.
    pub fn init_pid(&self) -> Option<i32> {
        self.state.init.map(|init| init.pid)
    }

    /// What it is now: asked, not remembered.
    pub fn status(&self) -> Status {
        let Some(init) = self.state.init else { return Status::Creating };
        let Some(has_executed) = init.has_executed() else { return Status::Stopped };
        // Before all: a paused container can neither start nor end, whatever its init is.
        if let Ok(true) = self.state.cgroup.is_frozen() {
            return Status::Paused;
        }
        // The stage is cloned, and executes nothing but the container's program.
        if has_executed || self.state.restored { Status::Running } else { Status::Created }
    }

    /// The state of the spec, with what runc adds to it.
    pub fn state(&self) -> Value {
        let status = self.status();
        let pid = if status == Status::Stopped { 0 } else { self.state.init.map_or(0, |init| init.pid) };
        let mut state = json!({
            "ociVersion": self.state.oci_version,
            "id": self.state.id,
            "pid": pid,
            "status": status,
            "bundle": self.state.bundle,
            "rootfs": self.state.rootfs,
            "created": self.state.created,
            "annotations": self.state.annotations,
            "owner": user_name(self.state.owner),
        });
        if self.state.annotations.is_empty()
            && let Some(members) = state.as_object_mut()
        {
            // `remove` alone would put the last member in its place.
            members.shift_remove("annotations");
        }
        if let Some(unit) = self.state.cgroup.systemd_unit() {
            state["systemdUnit"] = unit.into();
        }
        if let Ok(Some(attached)) = network::read_record(self.store(), &self.state.id) {
            state["networks"] = attached.to_json();
        }
        state
    }

    pub(crate) fn store(&self) -> &Path {
        self.directory.path.parent().unwrap_or(Path::new("/"))
    }

    /// What hooks and seccomp agents get.
    pub(crate) fn hook_state(&self, status: Status) -> Vec<u8> {
        let mut state = json!({
            "ociVersion": self.state.oci_version,
            "id": self.state.id,
            "status": status,
            "bundle": self.state.bundle,
            "annotations": self.state.annotations,
        });
        if let Some(init) = self.state.init {
            state["pid"] = init.pid.into();
        }
        state.to_string().into_bytes()
    }

    pub(crate) fn spec(&self) -> Result<&Spec> {
        if let Some(spec) = self.spec.get() {
            return Ok(spec);
        }
        let spec = self.directory.read_spec()?;
        Ok(self.spec.get_or_init(|| spec))
    }

    pub(crate) fn wrong_state(&self, verb: &str, found: Status) -> Error {
        Error::new(ErrorKind::WrongState, words::of_state(verb, &self.state.id, found))
    }

    /// Its init, which cannot become another process while this is held.
    pub(crate) fn open_init(&self) -> Result<OwnedFd> {
        let not_running =
            || Error::new(ErrorKind::WrongState, format!("container not running: {}", self.id()));
        let init = self.state.init.ok_or_else(not_running)?;
        let pidfd = sys::pidfd_open(init.pid).map_err(|errno| match errno {
            Errno::ESRCH | Errno::EINVAL => not_running(),
            errno => Error::os(format!("pidfd_open {}", init.pid), errno),
        })?;
        if init.is_alive() { Ok(pidfd) } else { Err(not_running()) }
    }

    /// Sends a signal to its init (runtime.md, "Kill"), or with `all` to each of its processes.
    pub fn kill(&self, signal: i32, all: bool) -> Result<()> {
        // With its own pid namespace, all end with init.
        let with_init = all && signal == libc::SIGKILL && self.state.cgroup.is_none();
        let all = all && !(with_init && self.has_own(LinuxNamespaceType::Pid)?);
        if all {
            let number = || signal.to_string();
            return trace::part("send to all processes signal", number, || {
                self.cgroup_of_all()?.kill_all(signal)
            });
        }
        let sent = self.open_init().and_then(|pidfd| {
            sys::pidfd_send_signal(pidfd.as_fd(), signal).map_err(|errno| match errno {
                Errno::ESRCH => {
                    Error::new(ErrorKind::WrongState, format!("container not running: {}", self.id()))
                }
                errno => Error::os(format!("pidfd_send_signal {signal}"), errno),
            })
        });
        if signal != libc::SIGKILL {
            return sent;
        }
        if self.has_own(LinuxNamespaceType::Pid)? {
            sent?;
            return self.state.cgroup.let_killed_end();
        }
        // Without a pid namespace of its own, the others do not end with init.
        if self.state.cgroup.pids(true)?.is_empty() {
            return sent;
        }
        self.state.cgroup.kill_all(signal)
    }

    /// Whether it has a new namespace of this kind.
    fn has_own(&self, kind: LinuxNamespaceType) -> Result<bool> {
        let spec = self.spec()?;
        let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        let mut all = namespaces.into_iter().flatten();
        Ok(all.any(|namespace| namespace.typ() == kind && namespace.path().is_none()))
    }

    /// Removes a container (runtime.md, "Delete") that is stopped or was only created; with
    /// `force` one in any state. Returns what poststop hooks failed with, to be logged: the
    /// container is gone all the same.
    ///
    /// # Errors
    /// Without `force` [`ErrorKind::NotFound`] when somebody else has deleted it meanwhile.
    pub fn delete(mut self, force: bool) -> Result<Vec<Error>> {
        self.check_deletable(force)?;
        if force {
            self.end_creation();
        }
        let lock = match self.directory.lock() {
            Err(error) if force && error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        if self.state.init.is_none()
            && let Ok(state) = self.directory.read_state()
        {
            // Its creation has come to its end while we waited for it.
            self.state = state;
            self.check_deletable(force)?;
        }
        if self.status() == Status::Paused {
            self.state.cgroup.thaw()?;
        }
        trace::plain("wait for the end of init", || self.end_for_deletion())?;
        self.remove_parts()?;
        self.child = None;
        let spec = self.spec().ok();
        let after = spec.and_then(|spec| spec.hooks().as_ref()?.poststop().as_deref());
        let state = self.hook_state(Status::Stopped);
        let limits = hooks::Limits::of_poststop(self.interrupt());
        let failed = hooks::run_each(after.unwrap_or_default(), "hooks.poststop", &state, limits);
        trace::plain("remove the container's directory", || self.directory.remove(&lock))?;
        Ok(failed)
    }

    fn check_deletable(&self, force: bool) -> Result<()> {
        let status = self.status();
        if force || matches!(status, Status::Stopped | Status::Created) {
            return Ok(());
        }
        let error = self.wrong_state("delete", status);
        Err(error.with_hint("kill it first, or use --force"))
    }

    /// Kills its init and waits for its end; one that has ended is reaped where it is a child.
    fn end_for_deletion(&self) -> Result<()> {
        let pidfd = match self.open_init() {
            Err(error) if error.kind() == ErrorKind::WrongState => {
                let _ = self.child.as_ref().map(|child| child.wait_within(&Wait::at_most(DEADLINE)));
                return Ok(());
            }
            opened => opened?,
        };
        match sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => self.await_end(pidfd.as_fd()),
            Err(errno) => Err(Error::os("pidfd_send_signal SIGKILL", errno)),
        }
    }

    /// A creation that another process is at holds the lock; without its init it fails and lets go.
    fn end_creation(&self) {
        if self.state.init.is_none()
            && let Ok(State { init: Some(init), .. }) = self.directory.read_prepared_state()
            && let Ok(pidfd) = sys::pidfd_open(init.pid)
            && init.is_alive()
        {
            let _ = sys::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
        }
    }

    /// Everything outside its directory.
    fn remove_parts(&self) -> Result<()> {
        network::begin_tear_down(self.store(), &self.state.id);
        trace::plain("remove the cgroup", || self.state.cgroup.kill_and_remove())?;
        let ends = self.has_own(LinuxNamespaceType::Network).unwrap_or(false);
        let disconnect = || network::tear_down(self.store(), &self.state.id, ends);
        trace::plain("disconnect networks", disconnect)?;
        resctrl::remove(&self.state.resctrl);
        if self.state.mounted_on_host {
            take_off(&self.state.rootfs);
        }
        Ok(())
    }

    /// Waits for the end of its init, which is killed; one of ours is reaped.
    pub(crate) fn await_end(&self, pidfd: BorrowedFd) -> Result<()> {
        if child::await_end(pidfd, &Wait::at_most(DEADLINE))? {
            // How it ended is nobody's question any more.
            let _ = self.child.as_ref().map(|child| child.wait_within(&Wait::at_most(DEADLINE)));
            return Ok(());
        }
        Err(Error::external(format!("the init of container {} does not end", self.id()))
            .with_hint("it may be stuck in the kernel; see /proc/PID/stack"))
    }

    /// Freezes every process of it.
    pub fn pause(&self) -> Result<()> {
        let _turn = self.directory.lock()?;
        match self.status() {
            Status::Running | Status::Created => self.state.cgroup.freeze(),
            status => Err(self.wrong_state("pause", status)),
        }
    }

    pub fn resume(&self) -> Result<()> {
        let _turn = self.directory.lock()?;
        match self.status() {
            Status::Paused => self.state.cgroup.thaw(),
            status => Err(self.wrong_state("resume", status)),
        }
    }

    /// The pids of all its processes, as the caller sees them.
    pub fn processes(&self) -> Result<Vec<i32>> {
        self.cgroup_of_all()?.pids(true)
    }

    /// The cgroup, where its processes have one of their own.
    fn cgroup_of_all(&self) -> Result<&Cgroup> {
        match self.state.cgroup.is_none() {
            true => Err(Error::unsupported(format!(
                "container {} has no cgroup to find its processes in",
                self.id()
            ))),
            false => Ok(&self.state.cgroup),
        }
    }

    /// Changes its limits, all or none; what `resources` does not name stays. They are remembered.
    pub fn update(&self, resources: &LinuxResources) -> Result<Vec<Finding>> {
        if self.status() == Status::Stopped {
            return Err(self.wrong_state("update", Status::Stopped));
        }
        let _turn = self.directory.lock()?;
        // As it is now: another process may have changed it.
        let old = self.directory.read_spec()?;
        let before = old.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default();
        let mut resources = resources.clone();
        config::resources::as_of(&self.state.oci_version, &mut resources);
        let new = with_resources(&old, &merged(&before, &resources)?)?;
        // First, because the disk may be full.
        self.directory.replace_spec(&new)?;
        self.state.cgroup.update(&before, &resources).inspect_err(|_| {
            // The error to report is the first one.
            let _ = self.directory.replace_spec(&old);
        })
    }

    /// Other schemata for its class of cache and memory bandwidth (`linux.intelRdt`), which it must
    /// have been created with. They are remembered.
    pub fn update_schemata(&self, l3_cache: Option<&str>, memory_bandwidth: Option<&str>) -> Result<()> {
        if self.status() == Status::Stopped {
            return Err(self.wrong_state("update", Status::Stopped));
        }
        let _turn = self.directory.lock()?;
        let mut object = json!({});
        for (name, value) in [("l3CacheSchema", l3_cache), ("memBwSchema", memory_bandwidth)] {
            if let Some(value) = value {
                object[name] = value.into();
            }
        }
        let failed = |error| Error::external(format!("cannot encode the schemata: {error}"));
        let new = serde_json::from_value(object.clone()).map_err(failed)?;
        let spec = self.directory.read_spec()?;
        resctrl::update(&spec, self.id(), &new)?;
        let mut stored = serde_json::to_value(&spec).map_err(failed)?;
        for (name, value) in object.as_object().into_iter().flatten() {
            stored["linux"]["intelRdt"][name] = value.clone();
        }
        self.directory.replace_spec(&serde_json::from_value(stored).map_err(failed)?)
    }

    /// What its cgroup and its interfaces have counted.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = self.state.cgroup.stats()?;
        stats.network = self.pid().map(network_of).unwrap_or_default();
        Ok(stats)
    }

    /// Tells of each time from now on that it runs out of memory.
    pub fn oom_events(&self) -> Result<OomEvents> {
        self.state.cgroup.oom_events()
    }

    /// The directories of its cgroup, by controller; that of cgroup v2 has the empty name.
    pub fn cgroup_paths(&self) -> impl Iterator<Item = (String, PathBuf)> {
        self.state.cgroup.paths().into_iter()
    }

    /// Where its init is known to this process: it is ready to read when that ends.
    pub fn pidfd(&self) -> Result<OwnedFd> {
        match &self.child {
            // Also of one that has ended meanwhile.
            Some(child) => {
                child.pidfd().try_clone_to_owned().map_err(|error| Error::io("dup a pidfd", error))
            }
            None => self.open_init(),
        }
    }

    /// Waits for the end of a container that this process has created.
    pub fn wait(&self) -> Result<Exit> {
        let child = self.child.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::WrongState, format!("container {} is no child of this process", self.id()))
        })?;
        child.wait()
    }
}

/// As JSON: the default of `linux` has namespaces in it that nobody asked for.
fn with_resources(spec: &Spec, resources: &LinuxResources) -> Result<Spec> {
    let failed = |error| Error::external(format!("cannot encode config.json: {error}"));
    let mut object = serde_json::to_value(spec).map_err(failed)?;
    object["linux"]["resources"] = serde_json::to_value(resources).map_err(failed)?;
    serde_json::from_value(object).map_err(failed)
}

pub(crate) fn user_name(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid));
    user.ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

//! `create`: a container from its bundle, up to the moment before its program runs.
//! What has been made so far is undone when anything fails.

use crate::cgroup::{Cgroup, Layout, NewDirs};
use crate::child::Child;
use crate::config::Config;
use crate::container::{Container, Status};
use crate::error::{Error, Finding, Result};
use crate::hooks::Site;
use crate::host::Host;
use crate::network::{self, Network};
use crate::parent::{Event, Given, Launch, Stage};
use crate::plan::Plan;
use crate::plan::create::{CgroupDriver, Request};
use crate::seccomp::{self, Filter};
use crate::state::{Directory, Lock, ProcessId, State};
use crate::step::SyncPoint;
use crate::wait::Wait;
use crate::{hooks, netdevices, notify, parent, plan, readiness, resctrl, trace};
use nix::mount::MntFlags;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::Mode;
use oci_spec::runtime::{Hooks, LinuxNamespaceType, Spec};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What [`create`] makes, and from what.
pub struct Create<'a> {
    /// The directory that holds the state of containers, such as `/run/onggi`.
    pub store: &'a Path,
    /// Letters, digits, `_`, `+`, `-` and `.`; unique in the store.
    pub id: &'a str,
    pub bundle: &'a Path,
    /// Used in place of the bundle's `config.json`.
    pub spec: Option<Spec>,
    /// A connected unix stream socket that gets the terminal's master (`process.terminal`).
    pub console_socket: Option<BorrowedFd<'a>>,
    /// The caller passes what the terminal prints on to one of its own, which adds carriage returns itself.
    pub relayed_console: bool,
    /// The container's standard input, output and error, unless it has a terminal.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Descriptors 3 to 2 + n stay open in the container; each of them must be open.
    pub preserve_fds: u32,
    /// Move the root over `/` where pivot_root(2) cannot be used (on an initial RAM filesystem).
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// Networks to connect it to, beside those of its annotations.
    pub networks: Vec<Network>,
    /// Annotations `org.onggi.network.*` ask for networks too. Engines copy annotations from images and pods,
    /// whose authors could then have bridges, ports and routes of the host: by default there is only a warning.
    pub network_annotations: bool,
    /// The socket of a supervisor that is to hear when the container's program is ready (sd_notify(3));
    /// see [`Container::readiness`].
    pub notify_socket: Option<&'a Path>,
    /// Who makes the cgroup.
    pub cgroup_driver: CgroupDriver,
    /// Ends the wait for hooks, and for the container, when it is readable, such as a signalfd(2);
    /// see [`Container::interrupt_by`].
    pub interrupt: Option<BorrowedFd<'a>>,
}

impl<'a> Create<'a> {
    /// With the caller's standard descriptors, and nothing special.
    pub fn new(store: &'a Path, id: &'a str, bundle: &'a Path) -> Self {
        Self {
            store,
            id,
            bundle,
            spec: None,
            console_socket: None,
            relayed_console: false,
            stdio: crate::sys::standard_fds(),
            preserve_fds: 0,
            no_pivot: false,
            no_new_keyring: false,
            notify_socket: None,
            cgroup_driver: CgroupDriver::default(),
            networks: Vec::new(),
            network_annotations: false,
            interrupt: None,
        }
    }

    fn request(&self, bundle: PathBuf) -> Request {
        Request {
            id: self.id.to_string(),
            bundle,
            preserve_fds: self.preserve_fds,
            console_socket: self.console_socket.is_some(),
            relayed_console: self.relayed_console,
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            notify_socket: self.notify_socket.map(Path::to_path_buf),
            cgroup_driver: self.cgroup_driver,
            network_requested: !self.networks.is_empty(),
            network_annotations: self.network_annotations,
            directory: std::path::absolute(self.store).unwrap_or(self.store.into()).join(self.id),
            network_files: Vec::new(),
        }
    }
}

/// Everything that is decided before anything is done.
pub(crate) struct Prepared {
    pub spec: Spec,
    pub plan: Plan,
    pub host: Host,
    pub filter: Option<Filter>,
    pub cgroup: Cgroup,
    pub request: Request,
    pub networks: Vec<Network>,
    pub warnings: Vec<Finding>,
}

/// Reads, checks and plans. Needs no privileges and changes nothing.
pub(crate) fn prepare(options: &Create) -> Result<Prepared> {
    prepare_for(options, options.console_socket.is_some())
}

pub(crate) fn prepare_for(options: &Create, console_socket: bool) -> Result<Prepared> {
    crate::config::check_id(options.id)?;
    let failed = |error| Error::io(format!("open {}", options.bundle.display()), error);
    let bundle = options.bundle.canonicalize().map_err(failed)?;
    let config = match &options.spec {
        Some(spec) => Config::from_spec(spec.clone())?,
        None => Config::load(&bundle)?,
    };
    let request = Request { console_socket, ..options.request(bundle) };
    let mut prepared = prepare_spec(config.spec, request, &options.networks)?;
    prepared.warnings.splice(0..0, config.warnings);
    Ok(prepared)
}

/// crun's annotation: a call in the seccomp profile that is not known is an error.
fn fails_on_unknown_calls(spec: &Spec) -> bool {
    const NAME: &str = "run.oci.seccomp_fail_unknown_syscall";
    let value = spec.annotations().as_ref().and_then(|annotations| annotations.get(NAME));
    value.is_some_and(|value| value != "0")
}

/// `typed` are the networks beside those of annotations.
fn prepare_spec(spec: Spec, mut request: Request, typed: &[Network]) -> Result<Prepared> {
    let mut warnings = Vec::new();
    let linux = spec.linux().as_ref();
    let profile = linux.and_then(|linux| linux.seccomp().as_ref());
    if let Some(profile) = profile.filter(|_| fails_on_unknown_calls(&spec)) {
        let unknown = seccomp::unknown_calls(profile);
        if !unknown.is_empty() {
            return Err(Error::invalid(unknown));
        }
    }
    let filter = profile.map(|profile| seccomp::compile(profile, &mut warnings).map_err(Error::invalid));
    let filter = filter.transpose()?;
    let layout = Layout::probe()?;
    let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let cgroup = match request.cgroup_driver {
        CgroupDriver::Cgroupfs => Cgroup::plan(&layout, path, &request.id)?.without_refused(),
        CgroupDriver::Systemd => {
            let resources = linux.and_then(|linux| linux.resources().as_ref());
            let annotations = spec.annotations().clone().unwrap_or_default();
            Cgroup::plan_systemd(&layout, path, &request.id, resources, &annotations)?
        }
        CgroupDriver::None => Cgroup::none(),
    };
    let mut host = Host::probe(&spec, &layout, &cgroup)?;
    let networks = network::wanted(&spec, typed, request.network_annotations)?;
    if !request.network_annotations {
        warnings.extend(network::ignored(&spec));
    }
    if request.network_files.is_empty() {
        request.network_files = network::files(&spec, &networks, &request.directory)?;
    }
    host.network_requested = request.network_requested || !networks.is_empty();
    let mut plan = plan::create::create(&spec, &host, &request, filter.as_ref())?;
    warnings.append(&mut plan.warnings);
    Ok(Prepared { spec, plan, host, filter, cgroup, request, networks, warnings })
}

/// What a failed creation leaves, until it is dropped.
struct Made {
    id: String,
    directory: Directory,
    /// Nobody else deletes what is not whole yet.
    lock: Lock,
    cgroup: Option<Cgroup>,
    /// Dropped after the cgroup has been emptied.
    cgroup_dirs: NewDirs,
    resctrl: Vec<PathBuf>,
    /// The store in which networks of the container are recorded.
    network: Option<PathBuf>,
    /// The root that is mounted over itself in the host's mounts.
    mounted: Option<PathBuf>,
    /// Hooks have run, so those after the end run as well.
    after: Option<(Vec<oci_spec::runtime::Hook>, Vec<u8>)>,
    kept: bool,
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.kept {
            self.cgroup_dirs.keep();
            return;
        }
        // Best effort on the way out of an error, which is what the caller has to hear of.
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.kill_all(libc::SIGKILL);
            let _ = cgroup.remove();
        }
        resctrl::remove(&self.resctrl);
        let unconnected =
            self.network.as_ref().is_none_or(|store| network::tear_down(store, &self.id, false).is_ok());
        if let Some(rootfs) = &self.mounted {
            take_off(rootfs);
        }
        if let Some((hooks, state)) = &self.after {
            hooks::run_each(hooks, "hooks.poststop", state, hooks::Limits::of_poststop(None));
        }
        // What is left of a network is found by its record; `delete --force` tries again.
        if unconnected {
            let _ = self.directory.remove(&self.lock);
        }
    }
}

/// Creates a container (runtime.md, "Create"): all is set up, and its program waits for
/// [`Container::start`].
///
/// # Errors
/// One that names the place in `config.json`, the call and its errno; nothing is left behind.
pub fn create(options: &Create) -> Result<Container> {
    parent::check_preserved(options.preserve_fds)?;
    let prepared = trace::plain("read config.json and plan", || prepare(options))?;
    let creation = Creation::begin(options, &prepared)?;
    let mut container =
        creation.run(options).map_err(|error| error.within("unable to start container process"))?;
    container.spec = prepared.spec.into();
    Ok(container)
}

/// A creation under way: what it has made so far is undone when it is dropped before its end.
pub(crate) struct Creation<'a> {
    prepared: &'a Prepared,
    pub state: State,
    /// Ends before what has been made is undone.
    connecting: Option<network::Connecting>,
    made: Made,
    warnings: Vec<Finding>,
}

impl<'a> Creation<'a> {
    /// Claims the id.
    pub fn begin(options: &Create, prepared: &'a Prepared) -> Result<Self> {
        let state = first_state(&prepared.spec, &prepared.request, &prepared.cgroup)?;
        let (directory, lock) = trace::part(
            "make the container's directory in",
            || options.store.display().to_string(),
            || Directory::create(options.store, &state, &prepared.spec),
        )?;
        let made = Made {
            id: options.id.into(),
            directory,
            lock,
            cgroup: None,
            cgroup_dirs: NewDirs::default(),
            resctrl: Vec::new(),
            network: None,
            mounted: None,
            after: None,
            kept: false,
        };
        let warnings = prepared.warnings.clone();
        Ok(Self { prepared, state, connecting: None, made, warnings })
    }

    fn run(mut self, options: &Create) -> Result<Container> {
        let Prepared { spec, plan, filter, .. } = self.prepared;
        let directory = self.made.directory.clone();
        if let Some(filter) = filter {
            directory.write_filter(filter)?;
        }
        if options.notify_socket.is_some() {
            readiness::make_directory(&directory)?;
        }
        self.make_v2_cgroup().map_err(cgroup_failed)?;
        // What it is not born in is made while the stage starts, unless its first steps need it.
        let first = self.state.cgroup.is_v2() || !has_namespace(spec, LinuxNamespaceType::Cgroup);
        if first {
            self.make_cgroup().map_err(cgroup_failed)?;
        }
        self.begin_network(options)?;
        directory.write_after_start(&plan.encode_after_start())?;
        let listener = listen(&directory)?;
        let born_in = self.state.cgroup.open_dir()?;
        let launch = Launch {
            stdio: options.stdio,
            preserve_fds: options.preserve_fds,
            cgroup: born_in.as_ref().map(AsFd::as_fd),
            given: Given {
                listener: Some(listener.as_fd()),
                console: options.console_socket,
                ..Given::default()
            },
        };
        let steps = || format!("with {} steps", plan.steps().len());
        let mut stage = trace::part("start the stage", steps, || Stage::launch(plan, &launch))?;
        if !first {
            self.make_cgroup().map_err(cgroup_failed)?;
        }
        let in_init = |error: Error| error.within("error during container init");
        while !self.answer(&mut stage, options.interrupt).map_err(in_init)? {}
        let mut container = Container::new(directory.clone(), self.state.clone());
        // It may fail, which is undone only as long as the container is not kept.
        if let Some(interrupt) = options.interrupt {
            container.interrupt_by(interrupt)?;
        }
        // From here on a crash of ours leaves a container that is whole.
        trace::plain("record the container", || directory.commit_state())?;
        stage.answer()?;
        self.made.kept = true;
        container.child = stage.into_init();
        container.warnings = self.warnings;
        Ok(container)
    }

    pub fn make_v2_cgroup(&mut self) -> Result<()> {
        self.state.cgroup.create_v2(&mut self.made.cgroup_dirs)?;
        self.made.cgroup = Some(self.state.cgroup.only_v2());
        Ok(())
    }

    /// Sets up the host's side of the networks, beside what comes next.
    pub fn begin_network(&mut self, options: &Create) -> Result<()> {
        if !self.prepared.networks.is_empty() {
            self.made.network = Some(options.store.into());
            self.connecting =
                Some(network::Connecting::begin(options.store, options.id, &self.prepared.networks)?);
        }
        Ok(())
    }

    /// Connects the network namespace of a process and waits until that is done.
    pub fn finish_network(&mut self, pid: i32) -> Result<()> {
        let Some(mut connecting) = self.connecting.take() else { return Ok(()) };
        let path = format!("/proc/{pid}/ns/net");
        let netns = File::open(&path).map_err(|error| Error::io(format!("open {path}"), error))?;
        connecting.enter(netns.into());
        connecting.finish()
    }

    /// Moves a process into the cgroup that only gets its limits then.
    pub fn attach(&mut self, pid: i32) -> Result<()> {
        self.state.cgroup.attach(pid)?;
        self.limit()
    }

    /// prestart and createRuntime hooks: the namespaces exist, and the program does not run.
    pub fn run_early_hooks(&mut self, interrupt: Option<BorrowedFd>) -> Result<()> {
        let spec = &self.prepared.spec;
        let container = Container::new(self.made.directory.clone(), self.state.clone());
        self.made.after = poststop(spec, &container);
        early_hooks(spec, &container, hooks::Limits::interrupted_by(interrupt))
    }

    /// The container is whole; a crash from here on leaves it so.
    pub fn finish(mut self, init: Child) -> Result<Container> {
        self.made.directory.prepare_state(&self.state)?;
        self.made.directory.commit_state()?;
        self.made.kept = true;
        self.made.cgroup_dirs.keep();
        let mut container = Container::new(self.made.directory.clone(), self.state.clone());
        container.child = Some(init);
        container.warnings = std::mem::take(&mut self.warnings);
        Ok(container)
    }

    /// Makes what is left of the cgroup, and limits it.
    pub fn make_cgroup(&mut self) -> Result<()> {
        let paths = all_paths(&self.state.cgroup);
        let (cgroup, dirs) = (&mut self.state.cgroup, &mut self.made.cgroup_dirs);
        trace::part("make the cgroup", paths, || cgroup.create_v1(dirs))?;
        self.made.cgroup = Some(self.state.cgroup.clone());
        // systemd makes the cgroup only when it gets a process.
        if self.state.cgroup.is_attached_to() { Ok(()) } else { self.limit() }
    }

    /// Does what the stage waits for next; whether that is the end.
    fn answer(&mut self, stage: &mut Stage, interrupt: Option<BorrowedFd>) -> Result<bool> {
        let spec = &self.prepared.spec;
        match stage.next(&Wait::default().interrupted_by(interrupt))? {
            Event::Cloned if self.state.init.is_some() => {
                // What was done for its parent holds for it.
                self.state.init = Some(ProcessId::of(stage.pid())?);
                self.made.directory.prepare_state(&self.state)?;
            }
            Event::Cloned => self.entered(stage)?,
            Event::At(SyncPoint::Entered) => {
                self.entered(stage)?;
                stage.answer()?;
            }
            Event::At(SyncPoint::Attached) => {
                self.attach(stage.pid())?;
                stage.answer()?;
            }
            Event::At(SyncPoint::Cgroups) => stage.give_cgroups(&self.state.cgroup)?,
            Event::At(SyncPoint::Created) => {
                self.connecting.take().map_or(Ok(()), network::Connecting::finish)?;
                let container = Container::new(self.made.directory.clone(), self.state.clone());
                self.made.after = poststop(spec, &container);
                before_pivot(spec, &container, stage, interrupt)?;
                stage.answer()?;
            }
            Event::At(SyncPoint::Ready) => return Ok(true),
            Event::Listener(listener) => {
                let container = Container::new(self.made.directory.clone(), self.state.clone());
                let of = (stage.pid(), Status::Creating);
                notify::send(&self.made.directory, &container, of, listener)?;
            }
            Event::End => return Err(stage.died()),
        }
        Ok(false)
    }

    /// The stage is in the container's namespaces.
    fn entered(&mut self, stage: &Stage) -> Result<()> {
        // A stage that is gone by now says why next.
        if let Some(connecting) = &mut self.connecting
            && let Ok(netns) = File::open(format!("/proc/{}/ns/net", stage.pid()))
        {
            connecting.enter(netns.into());
        }
        if self.state.mounted_on_host {
            self.made.mounted = Some(self.state.rootfs.clone());
        }
        self.state.init = Some(ProcessId::of(stage.pid())?);
        self.state.resctrl = resctrl::join(&self.prepared.spec, &self.state.id, stage.pid())?;
        self.made.resctrl = self.state.resctrl.clone();
        // While the stage mounts; it counts once all is set up.
        self.made.directory.prepare_state(&self.state)
    }

    /// Every container has limits on devices, if no others.
    fn limit(&mut self) -> Result<()> {
        let linux = self.prepared.spec.linux().as_ref();
        let resources = linux.and_then(|linux| linux.resources().clone()).unwrap_or_default();
        let apply = || self.state.cgroup.apply(&resources);
        self.warnings.extend(trace::plain("limit the cgroup", apply)?);
        delegate(&self.prepared.spec, &self.state.cgroup)
    }
}

/// Takes a container's root off the host's mounts, with all that is mounted below it.
pub(crate) fn take_off(rootfs: &Path) {
    // It is not there any more when something else has taken it off.
    let _ = nix::mount::umount2(rootfs, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
}

fn has_namespace(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.into_iter().flatten().any(|namespace| namespace.typ() == kind)
}

/// The cgroup's directories, for an observer.
fn all_paths(cgroup: &Cgroup) -> impl FnOnce() -> String + use<> {
    let paths = cgroup.paths();
    move || paths.values().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn cgroup_failed(error: Error) -> Error {
    error.within("unable to apply cgroup configuration")
}

fn first_state(spec: &Spec, request: &Request, cgroup: &Cgroup) -> Result<State> {
    let root = spec.root().as_ref().map(|root| request.bundle.join(root.path()));
    let annotations = spec.annotations().iter().flatten();
    Ok(State {
        id: request.id.clone(),
        oci_version: spec.version().clone(),
        bundle: request.bundle.clone(),
        rootfs: root.unwrap_or_default(),
        created: crate::state::now(),
        owner: nix::unistd::geteuid().as_raw(),
        annotations: annotations.map(|(key, value)| (key.clone(), value.clone())).collect(),
        init: None,
        cgroup: cgroup.clone(),
        resctrl: Vec::new(),
        mounted_on_host: !has_namespace(spec, LinuxNamespaceType::Mount),
        restored: false,
        notify_socket: request.notify_socket.clone(),
    })
}

/// The socket on which the container's init hears `start`.
fn listen(directory: &Directory) -> Result<OwnedFd> {
    let failed = |what: &str| {
        let call = format!("{what} {}/start", directory.path.display());
        move |errno| Error::os(call, errno)
    };
    let path = directory.magic_path().join("start");
    let socket = socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
        .map_err(failed("socket"))?;
    let address = UnixAddr::new(&path).map_err(failed("bind"))?;
    socket::bind(socket.as_raw_fd(), &address).map_err(failed("bind"))?;
    // Only the owner of the store may start a container, whatever the caller's umask is.
    let flags = nix::sys::stat::FchmodatFlags::FollowSymlink;
    nix::sys::stat::fchmodat(nix::fcntl::AT_FDCWD, &path, Mode::S_IRWXU, flags).map_err(failed("chmod"))?;
    socket::listen(&socket, Backlog::new(16).unwrap_or(Backlog::MAXCONN)).map_err(failed("listen"))?;
    Ok(socket)
}

/// "Cgroup ownership" of the spec: a container with its own user and cgroup namespaces, and a
/// writable cgroup mount, gets its cgroup.
fn delegate(spec: &Spec, cgroup: &Cgroup) -> Result<()> {
    use oci_spec::runtime::LinuxNamespaceType as Ns;
    let Some(linux) = spec.linux() else { return Ok(()) };
    let is_new = |kind| {
        let mut all = linux.namespaces().iter().flatten();
        all.any(|namespace| namespace.typ() == kind && namespace.path().is_none())
    };
    let writable = spec.mounts().iter().flatten().any(|mount| {
        let options = plan::mount_options(mount.options().as_deref().unwrap_or_default());
        let readonly = options.set & libc::MOUNT_ATTR_RDONLY != 0;
        mount.destination() == Path::new("/sys/fs/cgroup") && !readonly
    });
    if !(is_new(Ns::User) && is_new(Ns::Cgroup) && writable) {
        return Ok(());
    }
    let outside = |maps: &Option<Vec<oci_spec::runtime::LinuxIdMapping>>| {
        maps.iter().flatten().find(|row| row.container_id() == 0).map(|row| row.host_id())
    };
    match outside(linux.uid_mappings()) {
        Some(uid) => cgroup.set_owner(uid, outside(linux.gid_mappings())),
        None => Ok(()),
    }
}

fn poststop(spec: &Spec, container: &Container) -> Option<(Vec<oci_spec::runtime::Hook>, Vec<u8>)> {
    let hooks = spec.hooks().as_ref()?.poststop().clone()?;
    Some((hooks, container.hook_state(Status::Stopped)))
}

/// What happens between the container's namespaces and its root: interfaces, and three kinds of hooks.
fn before_pivot(
    spec: &Spec,
    container: &Container,
    stage: &Stage,
    interrupt: Option<BorrowedFd>,
) -> Result<()> {
    let init = stage.current().ok_or_else(|| Error::external("the container has no init"))?;
    netdevices::move_all(spec, init)?;
    let limits = hooks::Limits::interrupted_by(interrupt).with_init(init.pidfd());
    early_hooks(spec, container, limits)?;
    let all = spec.hooks().as_ref();
    let inside = all.and_then(|all| all.create_container().as_deref()).unwrap_or_default();
    let state = container.hook_state(Status::Creating);
    hooks::run_all(inside, "hooks.createContainer", &state, &Site::Container { spec, init }, limits)
}

fn early_hooks(spec: &Spec, container: &Container, limits: hooks::Limits) -> Result<()> {
    let Some(all) = spec.hooks() else { return Ok(()) };
    let state = container.hook_state(Status::Creating);
    #[allow(deprecated)] // engines still use prestart
    let prestart = all.prestart();
    // Specs that had no other hook before the program gave them the state of a created container.
    let created = container.hook_state(Status::Created);
    hooks::run_all(
        prestart.as_deref().unwrap_or_default(),
        "hooks.prestart",
        &created,
        &Site::Runtime,
        limits,
    )?;
    hooks::run_all(create_runtime(all), "hooks.createRuntime", &state, &Site::Runtime, limits)
}

fn create_runtime(hooks: &Hooks) -> &[oci_spec::runtime::Hook] {
    hooks.create_runtime().as_deref().unwrap_or_default()
}

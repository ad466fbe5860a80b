//! `create`: a container from its bundle, up to the moment before its program runs.
//! What has been made so far is undone when anything fails.

use crate::cgroup::{Cgroup, NewDirs};
use crate::child::Child;
use crate::container::Container;
use crate::error::{Diagnostic, Error, Result};
use crate::hooks::Site;
use crate::network;
use crate::options::Options;
use crate::parent::{Event, Given, Launch, Stage};
use crate::plan::request::Request;
use crate::prepare::{Prepared, prepare};
use crate::state::{Directory, Lock, ProcessId, State};
use crate::status::Status;
use crate::stdio::Streams;
use crate::step::SyncPoint;
use crate::wait::{self, Wait};
use crate::{hooks, netdevices, notify, plan, readiness, resctrl, trace};
use nix::mount::MntFlags;
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::Mode;
use oci_spec::runtime::{Hooks, LinuxNamespaceType, LinuxPids, LinuxResources, Spec};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

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
    after: Option<AfterEnd>,
    kept: bool,
}

/// What poststop hooks are run with.
struct AfterEnd {
    hooks: Vec<oci_spec::runtime::Hook>,
    state: Vec<u8>,
    bundle: PathBuf,
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.kept {
            self.cgroup_dirs.keep();
            return;
        }
        wait::unlimited(|| self.undo());
    }
}

impl Made {
    /// Best effort on the way out of an error, which is what the caller has to hear of.
    fn undo(&mut self) {
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
        if let Some(AfterEnd { hooks, state, bundle }) = &self.after {
            let (site, limits) = (Site::Runtime { bundle }, hooks::Limits::of_poststop());
            hooks::run_each(hooks, "hooks.poststop", state, &site, limits);
        }
        // What is left of a network is found by its record; `delete --force` tries again.
        if unconnected {
            let _ = self.directory.remove(&self.lock);
        }
    }
}

/// Creates a container: all is set up, and its program waits for `start`. Nothing is left behind by a failure.
pub(crate) fn create(mut options: Options) -> Result<Container> {
    let limits = options.limits.clone();
    wait::limited(&limits, || {
        let prepared = trace::plain("read config.json and plan", || prepare(&options))?;
        let (streams, ends) = options.process.open()?;
        let creation = Creation::begin(&options, &prepared)?;
        let mut container = creation
            .run(&options, &streams)
            .map_err(|error| error.within("unable to start container process"))?;
        container.keep(options, prepared.spec, ends.finish(streams)?);
        Ok(container)
    })
}

/// A creation under way: what it has made so far is undone when it is dropped before its end.
pub(crate) struct Creation<'a> {
    prepared: &'a Prepared,
    pub state: State,
    /// Ends before what has been made is undone.
    connecting: Option<network::Connecting>,
    made: Made,
    warnings: Vec<Diagnostic>,
}

impl<'a> Creation<'a> {
    /// Claims the id.
    pub fn begin(options: &Options, prepared: &'a Prepared) -> Result<Self> {
        let state = first_state(&prepared.spec, &prepared.request, &prepared.cgroup)?;
        let store = &options.settings.store;
        let (directory, lock) = trace::part(
            "make the container's directory in",
            || store.display().to_string(),
            || Directory::create(store, &state, &prepared.spec),
        )?;
        let made = Made {
            id: options.id.clone(),
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

    fn run(mut self, options: &Options, streams: &Streams) -> Result<Container> {
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
            stdio: streams.stdio(),
            passed: &self.prepared.passed,
            cgroup: born_in.as_ref().map(AsFd::as_fd),
            given: Given {
                listener: Some(listener.as_fd()),
                console: streams.console(),
                program: options.init.as_ref().map(|init| init.descriptor.as_fd()),
                ..Given::default()
            },
        };
        let steps = || format!("with {} steps", plan.steps().len());
        let mut stage = trace::part("start the stage", steps, || Stage::launch(plan, &launch))?;
        if !first {
            self.make_cgroup().map_err(cgroup_failed)?;
        }
        let in_init = |error: Error| error.within("error during container init");
        while !self.answer(&mut stage).map_err(in_init)? {}
        // After a crash of ours there is a container with all that it has in its state, which can be deleted: as a
        // stopped one, until the stage has our answer.
        trace::plain("record the container", || directory.commit_state())?;
        stage.answer()?;
        self.made.kept = true;
        let steps = stage.take_steps();
        let init = stage.into_init().ok_or_else(|| Error::internal("the container has no init"))?;
        let warnings = std::mem::take(&mut self.warnings);
        Ok(Container::created(directory, self.state.clone(), init, warnings).with_steps(steps))
    }

    pub fn make_v2_cgroup(&mut self) -> Result<()> {
        self.state.cgroup.create_v2(&mut self.made.cgroup_dirs)?;
        self.made.cgroup = Some(self.state.cgroup.only_v2());
        Ok(())
    }

    /// Sets up the host's side of the networks, beside what comes next.
    pub fn begin_network(&mut self, options: &Options) -> Result<()> {
        if !self.prepared.networks.is_empty() {
            let store = &options.settings.store;
            self.made.network = Some(store.clone());
            self.connecting = Some(network::Connecting::begin(store, &options.id, &self.prepared.networks)?);
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
    pub fn run_early_hooks(&mut self) -> Result<()> {
        let spec = &self.prepared.spec;
        self.made.after = poststop(spec, &self.state);
        early_hooks(spec, &self.state, hooks::Limits::default())
    }

    /// The container is whole; a crash from here on leaves it so.
    pub fn finish(mut self, init: Child) -> Result<Container> {
        self.made.directory.prepare_state(&self.state)?;
        self.made.directory.commit_state()?;
        self.made.kept = true;
        self.made.cgroup_dirs.keep();
        let (directory, state) = (self.made.directory.clone(), self.state.clone());
        Ok(Container::created(directory, state, init, std::mem::take(&mut self.warnings)))
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
    fn answer(&mut self, stage: &mut Stage) -> Result<bool> {
        let spec = &self.prepared.spec;
        match stage.next(&Wait::default())? {
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
                self.made.after = poststop(spec, &self.state);
                before_pivot(spec, &self.state, stage)?;
                stage.answer()?;
            }
            Event::At(SyncPoint::Ready) => return self.limit_to_one().map(|()| true),
            Event::Listener(listener) => {
                let of = (stage.pid(), Status::Creating);
                notify::send(&self.made.directory, &self.state, of, listener)?;
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

    /// Nothing of it clones any more.
    fn limit_to_one(&mut self) -> Result<()> {
        let linux = self.prepared.spec.linux().as_ref();
        match linux.and_then(|linux| linux.resources().as_ref()) {
            Some(resources) if is_one_process(resources) => {
                let (mut before, mut after) = (LinuxResources::default(), LinuxResources::default());
                before.set_pids(Some(pids(TWO)));
                after.set_pids(Some(pids(1)));
                self.warnings.extend(self.state.cgroup.update(&before, &after)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Every container has limits on devices, if no others.
    fn limit(&mut self) -> Result<()> {
        let linux = self.prepared.spec.linux().as_ref();
        let mut resources = linux.and_then(|linux| linux.resources().clone()).unwrap_or_default();
        if is_one_process(&resources) {
            resources.set_pids(Some(pids(TWO)));
        }
        let apply = || self.state.cgroup.apply(&resources);
        self.warnings.extend(trace::plain("limit the cgroup", apply)?);
        delegate(&self.prepared.spec, &self.state.cgroup)
    }
}

/// A `pids.limit` of one process: the stage and its clone are two, until the stage has ended.
fn is_one_process(resources: &LinuxResources) -> bool {
    resources.pids().is_some_and(|pids| pids.limit() == 1)
}

const TWO: i64 = 2;

fn pids(limit: i64) -> LinuxPids {
    let mut pids = LinuxPids::default();
    pids.set_limit(limit);
    pids
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
        keyring_secret: request.keyring_secret.clone(),
        takes_program: !request.init_program,
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

fn poststop(spec: &Spec, state: &State) -> Option<AfterEnd> {
    let hooks = spec.hooks().as_ref()?.poststop().clone()?;
    Some(AfterEnd { hooks, state: state.for_hooks(Status::Stopped), bundle: state.bundle.clone() })
}

/// What happens between the container's namespaces and its root: interfaces, and three kinds of hooks.
fn before_pivot(spec: &Spec, state: &State, stage: &Stage) -> Result<()> {
    let init = stage.current().ok_or_else(|| Error::external("the container has no init"))?;
    netdevices::move_all(spec, init)?;
    let limits = hooks::Limits::with_init(init.pidfd());
    early_hooks(spec, state, limits)?;
    let all = spec.hooks().as_ref();
    let inside = all.and_then(|all| all.create_container().as_deref()).unwrap_or_default();
    let state = state.for_hooks(Status::Creating);
    hooks::run_all(inside, "hooks.createContainer", &state, &Site::Container { spec, init }, limits)
}

fn early_hooks(spec: &Spec, of: &State, limits: hooks::Limits) -> Result<()> {
    let Some(all) = spec.hooks() else { return Ok(()) };
    let state = of.for_hooks(Status::Creating);
    #[allow(deprecated)] // engines still use prestart
    let prestart = all.prestart();
    let site = Site::Runtime { bundle: &of.bundle };
    let prestart = prestart.as_deref().unwrap_or_default();
    hooks::run_all(prestart, "hooks.prestart", &state, &site, limits)?;
    hooks::run_all(create_runtime(all), "hooks.createRuntime", &state, &site, limits)
}

fn create_runtime(hooks: &Hooks) -> &[oci_spec::runtime::Hook] {
    hooks.create_runtime().as_deref().unwrap_or_default()
}

//! What a container consists of besides its processes, and how a failed creation is rolled back: its directory in the
//! store, cgroups, networks, resctrl groups, the root in the host's mounts, and the hooks that have run.
//!
//! `create` and `restore` share it, and differ in who makes the processes: the stage, or CRIU. Whoever makes them:
//!
//! 1. [`begin`](Transaction::begin) claims the id. From here on, dropping the transaction rolls back.
//! 2. Cgroups and networks are made, and [`entered`](Transaction::entered) writes down the first process in the
//!    container's namespaces, beside the state that counts.
//! 3. [`record`](Transaction::record), before the program can run: the state with that process counts. After a crash
//!    from here on the container can be loaded, and deleted as any other.
//! 4. [`commit`](Transaction::commit), once the processes have been let go: nothing is rolled back any more.

use crate::cgroup::{Cgroup, NewDirs};
use crate::child::Child;
use crate::container::Container;
use crate::error::{Diagnostic, Error, Result};
use crate::hook_stdio::HookStdio;
use crate::hooks::{self, Site};
use crate::namespaces::{has, is_new, listed};
use crate::prepare::Prepared;
use crate::state::{Directory, Lock, ProcessId, State};
use crate::status::Status;
use crate::{network, plan, resctrl, trace, wait};
use nix::mount::MntFlags;
use oci_spec::runtime::{Hook, LinuxIdMapping, LinuxNamespaceType as Ns, LinuxPids, LinuxResources, Spec};
use std::fs::File;
use std::path::{Path, PathBuf};

/// What rolls back when it is dropped, unless it is told to keep everything.
struct Rollback {
    id: String,
    directory: Directory,
    /// Held so that nobody else deletes a container that is not whole yet.
    lock: Lock,
    cgroup: Option<Cgroup>,
    /// Dropped after the cgroup has been emptied.
    cgroup_dirs: NewDirs,
    resctrl: Vec<PathBuf>,
    /// The store in which networks of the container are recorded.
    network: Option<PathBuf>,
    /// The root that is mounted over itself in the host's mounts.
    mounted: Option<PathBuf>,
    /// Hooks have run, so the poststop hooks have to run as well.
    poststop: Option<Poststop>,
    keep: bool,
}

struct Poststop {
    hooks: Vec<Hook>,
    stdio: HookStdio,
    bundle: PathBuf,
}

impl Drop for Rollback {
    fn drop(&mut self) {
        if self.keep {
            self.cgroup_dirs.keep();
            return;
        }
        wait::unlimited(|| self.roll_back());
    }
}

impl Rollback {
    /// Best effort: the caller has to see the error that led here, not one of these.
    fn roll_back(&mut self) {
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.kill_all(libc::SIGKILL);
            let _ = cgroup.remove();
        }
        resctrl::remove(&self.resctrl);
        let disconnected =
            self.network.as_ref().is_none_or(|store| network::tear_down(store, &self.id, false).is_ok());
        if let Some(rootfs) = &self.mounted {
            unmount_rootfs(rootfs);
        }
        if let Some(Poststop { hooks, stdio, bundle }) = &self.poststop {
            let (site, limits) = (Site::Runtime { bundle }, hooks::Limits::of_poststop());
            hooks::run_each(hooks, "hooks.poststop", stdio, &site, limits);
        }
        // The record in the directory says what is left of a network; a deletion by force tries again.
        if disconnected {
            let _ = self.directory.remove(&self.lock);
        }
    }
}

/// A creation or restoration under way.
pub(crate) struct Transaction<'a> {
    prepared: &'a Prepared,
    pub state: State,
    /// Dropped, and so ended, before the rollback.
    connecting: Option<network::Connecting>,
    rollback: Rollback,
    warnings: Vec<Diagnostic>,
    is_recorded: bool,
}

impl<'a> Transaction<'a> {
    /// Claims the id.
    pub fn begin(store: &Path, prepared: &'a Prepared) -> Result<Self> {
        let state = first_state(prepared)?;
        let (directory, lock) = trace::part(
            "make the container's directory in",
            || store.display().to_string(),
            || Directory::create(store, &state, &prepared.spec),
        )?;
        let rollback = Rollback {
            id: state.id.clone(),
            directory,
            lock,
            cgroup: None,
            cgroup_dirs: NewDirs::default(),
            resctrl: Vec::new(),
            network: None,
            mounted: None,
            poststop: None,
            keep: false,
        };
        let warnings = prepared.warnings.clone();
        Ok(Self { prepared, state, connecting: None, rollback, warnings, is_recorded: false })
    }

    pub fn directory(&self) -> &Directory {
        &self.rollback.directory
    }

    /// Makes the cgroup of the v2 hierarchy, in which the first process is born.
    pub fn make_v2_cgroup(&mut self) -> Result<()> {
        self.state.cgroup.create_v2(&mut self.rollback.cgroup_dirs).map_err(cgroup_failed)?;
        self.rollback.cgroup = Some(self.state.cgroup.only_v2());
        Ok(())
    }

    /// Makes the rest of the cgroup, and limits it.
    pub fn make_cgroup(&mut self) -> Result<()> {
        let paths = all_paths(&self.state.cgroup);
        let (cgroup, dirs) = (&mut self.state.cgroup, &mut self.rollback.cgroup_dirs);
        trace::part("make the cgroup", paths, || cgroup.create_v1(dirs)).map_err(cgroup_failed)?;
        self.rollback.cgroup = Some(self.state.cgroup.clone());
        // systemd makes the cgroup only when it gets a process.
        if self.state.cgroup.needs_attach() { Ok(()) } else { self.limit().map_err(cgroup_failed) }
    }

    /// Whether a cgroup that was made is gone.
    pub fn has_lost_a_cgroup(&self) -> bool {
        self.rollback.cgroup_dirs.one_is_gone()
    }

    /// Moves a process into the cgroup, which has no limits before that.
    pub fn attach(&mut self, pid: i32) -> Result<()> {
        self.state.cgroup.attach(pid)?;
        self.limit()
    }

    /// Every container has limits on devices, if no others.
    fn limit(&mut self) -> Result<()> {
        let mut resources = resources(&self.prepared.spec).cloned().unwrap_or_default();
        if is_one_process(&resources) {
            resources.set_pids(Some(pids(TWO)));
        }
        let apply = || self.state.cgroup.apply(&resources);
        self.warnings.extend(trace::plain("limit the cgroup", apply)?);
        delegate(&self.prepared.spec, &self.state.cgroup)
    }

    /// Sets a `pids.limit` of one process, once nothing of the container's set-up clones any more.
    pub fn limit_to_one(&mut self) -> Result<()> {
        if resources(&self.prepared.spec).is_some_and(is_one_process) {
            let (mut before, mut after) = (LinuxResources::default(), LinuxResources::default());
            before.set_pids(Some(pids(TWO)));
            after.set_pids(Some(pids(1)));
            self.warnings.extend(self.state.cgroup.update(&before, &after)?);
        }
        Ok(())
    }

    /// Sets up the host's side of the networks, on a thread.
    pub fn begin_network(&mut self) -> Result<()> {
        let networks = &self.prepared.networks;
        if !networks.is_empty() {
            let directory = &self.rollback.directory.path;
            let store = directory.parent().unwrap_or(Path::new("/"));
            self.rollback.network = Some(store.into());
            self.connecting = Some(network::Connecting::begin(store, &self.state.id, networks)?);
        }
        Ok(())
    }

    /// Passes the network namespace of a process to that thread.
    pub fn enter_network(&mut self, pid: i32) -> Result<()> {
        if let Some(connecting) = &mut self.connecting {
            let path = format!("/proc/{pid}/ns/net");
            let netns = File::open(&path).map_err(|error| Error::io(format!("open {path}"), error))?;
            connecting.enter(netns.into());
        }
        Ok(())
    }

    pub fn finish_network(&mut self) -> Result<()> {
        self.connecting.take().map_or(Ok(()), network::Connecting::finish)
    }

    /// To be called when a process is in the container's namespaces, before it clones others.
    pub fn entered(&mut self, pid: i32) -> Result<()> {
        if self.state.mounted_on_host {
            self.rollback.mounted = Some(self.state.rootfs.clone());
        }
        self.state.resctrl = resctrl::join(&self.prepared.spec, &self.state.id, pid)?;
        self.rollback.resctrl = self.state.resctrl.clone();
        self.set_init(pid)
    }

    /// Writes down which process is the container's init; it counts from [`Transaction::record`] on.
    pub fn set_init(&mut self, pid: i32) -> Result<()> {
        self.state.init = Some(ProcessId::of(pid)?);
        self.directory().prepare_state(&self.state)
    }

    /// prestart and createRuntime hooks: the namespaces exist, and the program does not run.
    pub fn run_early_hooks(&mut self, limits: hooks::Limits) -> Result<()> {
        let Some(all) = self.prepared.spec.hooks() else { return Ok(()) };
        let (bundle, of) = (self.state.bundle.clone(), &self.state);
        self.rollback.poststop = all.poststop().clone().map(|hooks| {
            let stdio = HookStdio::outside(of, Status::Stopped, self.prepared.hook_output);
            Poststop { hooks, stdio, bundle: bundle.clone() }
        });
        let stdio = HookStdio::outside(of, Status::Creating, self.prepared.hook_output);
        let site = Site::Runtime { bundle: &bundle };
        #[allow(deprecated)] // engines still use prestart
        let prestart = all.prestart().as_deref().unwrap_or_default();
        hooks::run_all(prestart, "hooks.prestart", &stdio, &site, limits)?;
        let create_runtime = all.create_runtime().as_deref().unwrap_or_default();
        hooks::run_all(create_runtime, "hooks.createRuntime", &stdio, &site, limits)
    }

    /// Writes the filter that later processes of the container get, and hooks within it.
    pub fn write_filter(&self, prepared: &Prepared) -> Result<()> {
        prepared.filter.as_ref().map_or(Ok(()), |filter| self.directory().write_filter(filter))
    }

    /// Makes the state with the container's init the one that counts, while its program does not run yet. A crash
    /// before this leaves a container that is being created, and one after this a container that can be deleted.
    pub fn record(&mut self) -> Result<()> {
        trace::plain("record the container", || self.directory().commit_state())?;
        self.is_recorded = true;
        Ok(())
    }

    /// Keeps everything: the container is whole, and its processes have been let go.
    pub fn commit(mut self, init: Child) -> Result<Container> {
        if !self.is_recorded {
            return Err(Error::internal("a container runs that is not recorded"));
        }
        self.rollback.keep = true;
        let directory = self.rollback.directory.clone();
        Ok(Container::created(directory, self.state, init, self.warnings))
    }
}

fn first_state(prepared: &Prepared) -> Result<State> {
    let Prepared { spec, request, cgroup, .. } = prepared;
    let root = spec.root().as_ref().map(|root| request.bundle.join(root.path()));
    let annotations = spec.annotations().iter().flatten();
    Ok(State {
        version: crate::state::VERSION,
        id: request.id.clone(),
        oci_version: spec.version().clone(),
        bundle: request.bundle.clone(),
        rootfs: root.unwrap_or_default(),
        created: crate::date::now(),
        owner: prepared.host.uid,
        annotations: annotations.map(|(key, value)| (key.clone(), value.clone())).collect(),
        init: None,
        cgroup: cgroup.clone(),
        resctrl: Vec::new(),
        mounted_on_host: !has(listed(spec), Ns::Mount),
        stage: None,
        restored: false,
        keyring_secret: request.keyring_secret.clone(),
        takes_program: !request.init_program,
        notify_socket: request.notify_socket.clone(),
    })
}

/// Unmounts a container's root in the host's mounts, with all that is mounted below it.
pub(crate) fn unmount_rootfs(rootfs: &Path) {
    // It is not mounted any more when something else has unmounted it.
    let _ = nix::mount::umount2(rootfs, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
}

/// The cgroup's directories, for an observer.
fn all_paths(cgroup: &Cgroup) -> impl FnOnce() -> String + use<> {
    let paths = cgroup.paths();
    move || paths.values().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn cgroup_failed(error: Error) -> Error {
    error.within("unable to apply cgroup configuration")
}

fn resources(spec: &Spec) -> Option<&LinuxResources> {
    spec.linux().as_ref()?.resources().as_ref()
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

/// config-linux.md, "Cgroup ownership semantics": a container with new user and cgroup namespaces and a writable cgroup
/// mount owns its cgroup.
fn delegate(spec: &Spec, cgroup: &Cgroup) -> Result<()> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    let writable = spec.mounts().iter().flatten().any(|mount| {
        let options = plan::mount_options(mount.options().as_deref().unwrap_or_default());
        let readonly = options.set & libc::MOUNT_ATTR_RDONLY != 0;
        mount.destination() == Path::new("/sys/fs/cgroup") && !readonly
    });
    let is_new = |kind| is_new(listed(spec), kind);
    if !(is_new(Ns::User) && is_new(Ns::Cgroup) && writable) {
        return Ok(());
    }
    let outside = |maps: &Option<Vec<LinuxIdMapping>>| {
        maps.iter().flatten().find(|row| row.container_id() == 0).map(|row| row.host_id())
    };
    match outside(linux.uid_mappings()) {
        Some(uid) => cgroup.set_owner(uid, outside(linux.gid_mappings())),
        None => Ok(()),
    }
}

//! One container's cgroup, on cgroup v1, hybrid and v2 hosts: creates it, moves processes in, limits it, kills its
//! processes and removes it.
//!
//! [`Layout`] says what the host has and [`Cgroup::plan`] where the container's directories are; all
//! other functions work from a [`Cgroup`] alone, which is stored in the container's state, so that a
//! later process (also after a crash) can use and remove it. Nothing here reads `config.json` outside
//! `linux.cgroupsPath` and `linux.resources`.
//!
//! Next: `layout.rs` (mounts), `v1.rs` and `v2.rs` (resources to file contents, pure), `apply.rs`
//! (writes them), `devices.rs` (device rules), `processes.rs` (pids, signals, freezing),
//! `stats.rs` and `oom.rs` (what happened in it).

mod apply;
mod dbus;
mod devices;
mod files;
mod freezer;
mod hierarchy;
mod layout;
mod merge;
mod oom;
pub(crate) mod options;
mod processes;
mod properties;
mod realtime;
mod runc_stats;
pub mod stats;
mod systemd;
mod tree;
mod unit;
mod v1;
mod v2;
mod write;

pub use layout::Layout;
pub(crate) use merge::merged;
pub use oom::{Oom, OomEvents};
pub(crate) use processes::keeps_frozen;
pub use stats::Stats;
pub(crate) use stats::network_of;
pub(crate) use unit::ask as ask_systemd;

#[cfg(fuzzing)]
pub use dbus::fuzz as fuzz_dbus;

/// What would be written to the cgroup filesystems and sent to systemd; or an error with every problem.
#[cfg(fuzzing)]
pub(crate) fn fuzz_resources(resources: &oci_spec::runtime::LinuxResources) {
    let told = [
        v1::operations(resources).map(drop),
        v2::operations(resources).map(drop),
        properties::limits(resources, false).map(drop),
        properties::limits(resources, true).map(drop),
        merged(resources, resources).map(drop),
    ];
    told.into_iter().filter_map(Result::err).for_each(|error| assert!(!error.to_string().is_empty()));
}

use crate::error::{Diagnostic, Error, ErrorKind, Result};
pub use files::{has_host_root, is_in_host_user_namespace};
pub use hierarchy::NewDirs;
use hierarchy::{AT_PATH, Hierarchy, below};
use layout::Mount;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::unistd::{Gid, Uid, UnlinkatFlags};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// The file of a v1 cgroup that takes single threads.
const TASKS: &str = "tasks";

/// How long a removal waits for processes that are still exiting.
const REMOVE_DEADLINE: Duration = Duration::from_secs(5);

/// Where one container's cgroup is: a directory in each hierarchy of the host.
///
/// A planned cgroup need not exist. After [`Cgroup::create`] the value is what must be stored: on a
/// host where an unprivileged caller may not use a hierarchy, that one is no longer in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    hierarchies: Vec<Hierarchy>,
    /// No path was asked for: hierarchies that an unprivileged caller may not use are left out.
    optional: bool,
    /// With the systemd driver: the unit that the cgroup belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit: Option<unit::Unit>,
}

impl Cgroup {
    /// Pure. `cgroups_path` is `linux.cgroupsPath`, with the same meaning as in runc: an absolute path starts at the
    /// hierarchy's root as it is mounted; a relative one at the caller's own cgroup on v1, and beside it on v2, where a
    /// cgroup with processes cannot have children with controllers; an absent one is the relative path `id`.
    /// `slice:prefix:name` is a path like any other. A `..` leads no further up than to where the path starts.
    pub fn plan(layout: &Layout, cgroups_path: Option<&Path>, id: &str) -> Result<Self> {
        let given = cgroups_path.filter(|path| !path.as_os_str().is_empty());
        let path = &cleaned(given.unwrap_or(Path::new(id)));
        check_path(path).map_err(|problem| match given {
            Some(path) => Error::invalid(vec![Diagnostic::new(AT_PATH, format!("{path:?} {problem}"))]),
            None => Error::new(ErrorKind::InvalidConfig, format!("the container id {id:?} {problem}")),
        })?;
        let relative: PathBuf =
            path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        let hierarchies = layout
            .mounts
            .iter()
            .map(|mount| {
                let dir = if path.is_absolute() { mount.point.clone() } else { own_dir(mount, layout)? };
                Ok(Hierarchy {
                    mount: mount.point.clone(),
                    dir: dir.join(&relative),
                    controllers: mount.controllers.clone(),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { hierarchies, optional: given.is_none(), unit: None })
    }

    /// No cgroup, for a container that stays in the caller's.
    pub fn none() -> Self {
        Self { hierarchies: Vec::new(), optional: true, unit: None }
    }

    /// The caller's own cgroup, as far as it is visible.
    pub fn of_caller(layout: &Layout) -> Self {
        let hierarchy = |mount: &Mount| {
            let dir = below(mount, &mount.own).ok()?;
            Some(Hierarchy { mount: mount.point.clone(), dir, controllers: mount.controllers.clone() })
        };
        Self { hierarchies: layout.mounts.iter().filter_map(hierarchy).collect(), ..Self::none() }
    }

    /// Leaves out the hierarchies that a caller without the host's privileges may not use, where no path was asked for:
    /// then nothing is planned with them.
    pub fn only_usable(mut self) -> Self {
        if self.optional && !has_host_root() {
            self.hierarchies.retain(|hierarchy| {
                let above = hierarchy.dir.ancestors().skip(1).find(|dir| dir.exists());
                above.is_some_and(|dir| nix::unistd::access(dir, nix::unistd::AccessFlags::W_OK).is_ok())
            });
        }
        self
    }

    pub fn is_v2(&self) -> bool {
        self.hierarchies.iter().all(Hierarchy::is_v2)
    }

    /// Makes the directory in the v2 hierarchy, with its controllers. An existing one is used if it is empty, because
    /// engines reuse theirs. New directories are added to `made`. With the systemd driver the first [`Cgroup::attach`]
    /// makes it.
    pub fn create_v2(&mut self, made: &mut NewDirs) -> Result<()> {
        if self.unit.is_some() {
            return self.refuse_used_unit();
        }
        self.create_in(Hierarchy::is_v2, made)
    }

    /// Makes the directories in the v1 hierarchies, with the cpuset that processes in them need.
    pub fn create_v1(&mut self, made: &mut NewDirs) -> Result<()> {
        if self.unit.is_some() {
            return Ok(());
        }
        self.create_in(|hierarchy| !hierarchy.is_v2(), made)
    }

    #[cfg(test)]
    fn create_all(&mut self) -> Result<()> {
        let mut made = NewDirs::default();
        self.create_v2(&mut made)?;
        self.create_v1(&mut made)?;
        made.keep();
        Ok(())
    }

    fn create_in(&mut self, wanted: impl Fn(&Hierarchy) -> bool, made: &mut NewDirs) -> Result<()> {
        // On a hybrid host the v2 hierarchy has no controllers to enable: it gets a directory, like the others.
        let create = if self.is_v2() { v2::create } else { v1::create };
        let mut refused = Vec::new();
        for hierarchy in self.hierarchies.iter().filter(|hierarchy| wanted(hierarchy)) {
            match create(hierarchy, made) {
                Ok(()) => {}
                // Also for root in a user namespace, as which rootless Podman starts the runtime.
                Err(error) if self.optional && not_permitted(&error) && !has_host_root() => {
                    refused.push(hierarchy.clone());
                }
                Err(error) => return Err(error),
            }
        }
        let usable = |hierarchy: &Hierarchy| !refused.contains(hierarchy);
        // Only now, because only now it is known which of the directories existed before.
        let existed = |hierarchy: &Hierarchy| !made.dirs.contains(&hierarchy.dir);
        for hierarchy in self.hierarchies.iter().filter(|one| wanted(one) && usable(one) && existed(one)) {
            hierarchy::refuse_used(hierarchy)?;
        }
        for hierarchy in self.hierarchies.iter().filter(|one| wanted(one) && usable(one)) {
            hierarchy::refuse_below_frozen(hierarchy)?;
        }
        self.hierarchies.retain(usable);
        Ok(())
    }

    /// The same cgroup without its v1 hierarchies.
    pub fn only_v2(&self) -> Self {
        let mut cgroup = self.clone();
        cgroup.hierarchies.retain(Hierarchy::is_v2);
        cgroup
    }

    /// Splits off the hierarchies that have a `pids.max`: returns the cgroup without them, and with them alone.
    pub fn split_at_pids(&self) -> (Self, Self) {
        let all_at_once = self.needs_attach() || self.is_v2();
        let counts = |one: &Hierarchy| all_at_once || one.controllers.iter().any(|name| name == "pids");
        let (limited, rest) = self.hierarchies.iter().cloned().partition(counts);
        (
            Self { hierarchies: rest, unit: None, ..self.clone() },
            Self { hierarchies: limited, ..self.clone() },
        )
    }

    /// Moves a process in, by one write for each hierarchy. With the systemd driver the first call after planning
    /// starts the unit.
    pub fn attach(&self, pid: i32) -> Result<()> {
        let started = self.start_unit(pid)?;
        let value = pid.to_string();
        // The process that systemd has started a unit with is already in its v2 cgroup.
        for hierarchy in self.hierarchies.iter().filter(|hierarchy| !(started && hierarchy.is_v2())) {
            let path = hierarchy.dir.join("cgroup.procs");
            let error = match (files::write(&path, &value), &self.unit) {
                (Ok(()), _) => continue,
                (Err(Errno::EACCES | Errno::EPERM), Some(unit)) => return unit.attach(pid),
                (Err(errno), _) => {
                    let error = Error::os(format!("write {pid} to {}", path.display()), errno);
                    v2::attach_hint(hierarchy, errno).into_iter().fold(error, Error::with_hint)
                }
            };
            return Err(error);
        }
        Ok(())
    }

    /// Whether [`Cgroup::attach`] is the only way in: for a systemd unit that is not started, or belongs to a user's
    /// systemd. Otherwise a process is cloned into [`Cgroup::open_dir`] and joins [`Cgroup::tasks`].
    pub fn needs_attach(&self) -> bool {
        self.unit.as_ref().is_some_and(|unit| !unit.can_be_cloned_into())
    }

    /// The directory in the v2 hierarchy, if there is one, to clone a process straight into
    /// (CLONE_INTO_CGROUP).
    pub fn open_dir(&self) -> Result<Option<OwnedFd>> {
        let v2 = self.hierarchies.iter().find(|hierarchy| hierarchy.is_v2() && !self.needs_attach());
        let open = |hierarchy: &Hierarchy| {
            files::open(&hierarchy.dir, OFlag::O_PATH | OFlag::O_DIRECTORY)
                .map_err(|errno| files::failed("open", &hierarchy.dir, errno))
        };
        v2.map(open).transpose()
    }

    /// Whether a process that is cloned into [`Cgroup::open_dir`] may be ended by the kernel's OOM killer: there is a v2
    /// hierarchy, and none of v1 that limits memory.
    pub fn limits_memory_in_v2(&self) -> bool {
        let in_v1 = |hierarchy: &Hierarchy| hierarchy.controllers.iter().any(|name| name == "memory");
        !self.needs_attach()
            && self.hierarchies.iter().any(Hierarchy::is_v2)
            && !self.hierarchies.iter().any(in_v1)
    }

    /// The files `tasks` of the v1 hierarchies. A process that writes "0" into one moves itself, and
    /// only itself: unlike a write to `cgroup.procs`, for which the kernel stops all forks on the
    /// host and waits for a grace period of RCU, which takes milliseconds.
    pub fn tasks(&self) -> Vec<PathBuf> {
        self.v1_dirs().iter().map(|dir| dir.join(TASKS)).collect()
    }

    /// The directories of [`Cgroup::tasks`].
    pub fn v1_dirs(&self) -> Vec<PathBuf> {
        let v1 = self.hierarchies.iter().filter(|hierarchy| !hierarchy.is_v2() && !self.needs_attach());
        v1.map(|hierarchy| hierarchy.dir.clone()).collect()
    }

    /// Opens one of [`Cgroup::tasks`]. For a hierarchy that the caller may not use, it is a file that accepts the same
    /// write and ignores it.
    pub(crate) fn open_tasks(&self, tasks: &Path) -> Result<OwnedFd> {
        let usable = self.hierarchies.iter().any(|hierarchy| tasks.parent() == Some(&hierarchy.dir));
        let path = if usable { tasks } else { Path::new("/dev/null") };
        files::open(path, OFlag::O_WRONLY).map_err(|errno| files::failed("open", path, errno))
    }

    /// The cgroups that `pid` is in now, in the hierarchies of this container. An exec uses it where
    /// the container's init has moved itself deeper (systemd in a container does), because a v2
    /// cgroup with controllers enabled for its children accepts no processes.
    pub fn of_process(&self, pid: i32) -> Result<Self> {
        let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let text = files::read(&path).map_err(|errno| files::failed("open", &path, errno))?;
        let layout = Layout::probe()?;
        let found = layout::hierarchies(&text);
        let mut cgroup = Self { unit: None, ..self.clone() };
        for hierarchy in &mut cgroup.hierarchies {
            let mount = layout.mounts.iter().find(|mount| mount.point == hierarchy.mount);
            let here = found.iter().find(|(names, _)| *names == hierarchy.controllers);
            if let (Some(mount), Some((_, path))) = (mount, here) {
                hierarchy.dir = below(mount, path)?;
            }
        }
        Ok(cgroup)
    }

    /// A cgroup below this one, in all hierarchies or in that of one controller: `exec --cgroup`.
    pub fn below(&self, controller: Option<&str>, path: &Path) -> Result<Self> {
        // "/" is the container's own cgroup.
        if path != Path::new("/") {
            let wrong = |problem| Error::new(ErrorKind::InvalidConfig, format!("cgroup {path:?} {problem}"));
            check_path(path).map_err(wrong)?;
        }
        let relative: PathBuf =
            path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        let mut cgroup = Self { unit: None, ..self.clone() };
        let mut any = false;
        for hierarchy in &mut cgroup.hierarchies {
            let named = |name: &str| hierarchy.controllers.iter().any(|c| c == name);
            if controller.is_none_or(named) {
                hierarchy.dir.push(&relative);
                any = true;
            }
        }
        match any {
            true => Ok(cgroup),
            false => {
                let name = controller.unwrap_or_default();
                Err(Error::unsupported(format!("no cgroup hierarchy has the controller {name:?}")))
            }
        }
    }

    /// Whether the container has no cgroup, because none was wanted or because an unprivileged caller may use no
    /// hierarchy. Its processes cannot be listed, frozen or all killed then.
    pub fn is_none(&self) -> bool {
        self.hierarchies.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.pids(true).is_ok_and(|pids| pids.is_empty())
    }

    /// Whether the directory exists, in any hierarchy.
    pub fn exists(&self) -> bool {
        self.hierarchies.iter().any(|hierarchy| hierarchy.dir.is_dir())
    }

    /// The absolute directory of each controller; the v2 hierarchy's key is the empty string.
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        let mut paths = BTreeMap::new();
        for hierarchy in &self.hierarchies {
            if hierarchy.is_v2() {
                paths.insert(String::new(), hierarchy.dir.clone());
            }
            for controller in &hierarchy.controllers {
                paths.insert(controller.clone(), hierarchy.dir.clone());
            }
        }
        paths
    }

    /// The path of each controller's cgroup as the kernel names it, from the root of its hierarchy.
    pub fn kernel_paths(&self) -> BTreeMap<String, PathBuf> {
        let from_root = |hierarchy: &Hierarchy| {
            Path::new("/").join(hierarchy.dir.strip_prefix(&hierarchy.mount).unwrap_or(&hierarchy.dir))
        };
        let named = |hierarchy: &Hierarchy| (hierarchy.controllers.join(","), from_root(hierarchy));
        self.hierarchies.iter().map(named).collect()
    }

    /// Gives the directory to a user of the container (config-linux.md, "Cgroup ownership semantics"). Only v2 is safe
    /// to delegate; on v1 nothing is changed.
    pub fn set_owner(&self, uid: u32, gid: Option<u32>) -> Result<()> {
        let Some(hierarchy) = self.hierarchies.iter().find(|h| h.is_v2() && self.is_v2()) else {
            return Ok(());
        };
        let dir = files::open(&hierarchy.dir, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
            .map_err(|errno| files::failed("open", &hierarchy.dir, errno))?;
        let (uid, gid) = (Some(Uid::from_raw(uid)), gid.map(Gid::from_raw));
        nix::unistd::fchown(&dir, uid, gid).map_err(|errno| files::failed("chown", &hierarchy.dir, errno))?;
        let listed = files::read(Path::new("/sys/kernel/cgroup/delegate"))
            .unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".into());
        for name in listed.lines() {
            match nix::unistd::fchownat(&dir, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW) {
                // The list has the files of all kernels; this cgroup need not have each of them.
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(files::failed("chown", &hierarchy.dir.join(name), errno)),
            }
        }
        Ok(())
    }

    /// Kills the processes that are left, and removes it.
    pub fn kill_and_remove(&self) -> Result<()> {
        // Usually it is empty; then it can be removed at once.
        let listing = self.listing().filter(|_| self.unit.is_none());
        let removed = listing.filter(|hierarchy| {
            nix::unistd::unlinkat(nix::fcntl::AT_FDCWD, &hierarchy.dir, UnlinkatFlags::RemoveDir).is_ok()
        });
        let is_empty = self.unit.is_none() && (removed.is_some() || self.listing().is_none());
        if !is_empty && self.exists() {
            self.kill_all(libc::SIGKILL)?;
        }
        self.remove_but(removed)
    }

    /// Removes the directory and those below it from every hierarchy. It is no error if they are gone; processes that
    /// are still exiting are waited for, up to a deadline.
    pub fn remove(&self) -> Result<()> {
        self.remove_but(None)
    }

    /// The same, where one hierarchy is done.
    fn remove_but(&self, removed: Option<&Hierarchy>) -> Result<()> {
        let deadline = Instant::now() + REMOVE_DEADLINE;
        let unit = self.unit.as_ref().filter(|_| self.exists());
        let unanswered = unit.and_then(|unit| unit.stop().err());
        // Where systemd does not answer, the directory that it watches stays: systemd later notices that the cgroup is
        // empty and drops the scope, but it would not notice that the cgroup is gone.
        let left = unanswered.is_some() && self.is_empty();
        let mut first_error = unanswered.filter(|_| !left);
        // A hierarchy that cannot be removed must not keep the others.
        for hierarchy in self.hierarchies.iter().filter(|one| removed != Some(*one)) {
            let dirs = match left && hierarchy.is_watched() {
                true => files::children(&hierarchy.dir),
                false => vec![hierarchy.dir.clone()],
            };
            for dir in dirs {
                if let Err(error) = remove_tree(&dir, deadline) {
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.map_or(Ok(()), Err)
    }
}

fn not_permitted(error: &Error) -> bool {
    [Errno::EACCES, Errno::EPERM, Errno::EROFS].iter().any(|&errno| error.errno() == Some(errno as i32))
}

/// Without `..`, which is taken as text: no directory is looked at.
fn cleaned(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

fn check_path(path: &Path) -> std::result::Result<(), &'static str> {
    if !path.components().any(|part| matches!(part, Component::Normal(_))) {
        return Err("names the root of the hierarchy; a container needs a cgroup of its own");
    }
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.iter().any(|&byte| byte == 0 || byte == b'\n') {
        return Err("must not have a NUL or a line end in it");
    }
    Ok(())
}

/// Where relative paths start in one hierarchy.
fn own_dir(mount: &Mount, layout: &Layout) -> Result<PathBuf> {
    let own = if layout.is_v2() { mount.own.parent().unwrap_or(Path::new("/")) } else { &mount.own };
    below(mount, own)
}

fn remove_tree(dir: &Path, deadline: Instant) -> Result<()> {
    let mut pause = Duration::from_millis(1);
    let mut is_late = false;
    loop {
        match nix::unistd::unlinkat(nix::fcntl::AT_FDCWD, dir, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY) if is_late => {
                let pids = hierarchy::read_all_pids(dir).unwrap_or_default();
                return Err(files::failed("rmdir", dir, Errno::EBUSY)
                    .with_hint(format!("processes are in it still: {pids:?}")));
            }
            Err(Errno::EBUSY) => {}
            Err(errno) => return Err(files::failed("rmdir", dir, errno)),
        }
        // There are cgroups below it, or processes in it.
        let removed = tree::remove_below(dir);
        let removed = removed.map_err(|errno| files::failed("rmdir a cgroup below", dir, errno))?;
        is_late = Instant::now() >= deadline;
        if removed == 0 && !is_late {
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

#[cfg(test)]
mod tests;

//! What a pod without a pause container has: its namespaces, held by a thread of the shim, whose id containerd takes for
//! the pod's pid; and its files, in the bundle, which its containers have mounted. Runs on workers. A thread cannot hold
//! a pid namespace, and cannot make a user namespace: pods that share one have an init, whose pid is the pod's.

use crate::failure::{Failure, Result};
use crate::metrics;
use crate::pod_config::{NetworkNamespace, Users, Wanted};
use crate::sys::{
    self,
    pod_init::{Place, PodInit},
};
use crate::wire::Any;
use crate::{rootfs, worker};
use libruntime::{Spec, Stats};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::json;
use std::fs::{DirBuilder, File, Metadata};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

/// Its shared memory, unless it uses the host's.
const SHM: &str = "shm";
const SHM_OPTIONS: &str = "mode=1777,size=65536k";
const STACK: usize = 64 << 10;

/// On disk, unlike the bundle, where containerd has made it: containers may write to the files.
const WORK: &str = "work";

/// Files that the containers of a pod have, with the host's that stands in.
const FILES: [(&str, &str); 3] =
    [("hostname", "/etc/hostname"), ("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")];

/// A pod's namespaces, as long as it is not released.
pub struct Held {
    pub pid: u32,
    /// Of its init.
    pub pidfd: Option<OwnedFd>,
    bundle: PathBuf,
    cgroup: Option<PathBuf>,
    thread: JoinHandle<()>,
    ending: mpsc::Sender<()>,
}

pub fn hold(wanted: Wanted, bundle: &Path) -> Result<Held> {
    write_files(&wanted, bundle)?;
    if wanted.has_ipc {
        mount_shm(bundle, wanted.users.as_ref())?;
    }
    hold_namespaces(wanted, bundle).inspect_err(|_| remove_mounts(bundle))
}

fn hold_namespaces(wanted: Wanted, bundle: &Path) -> Result<Held> {
    let (said, result) = mpsc::channel();
    let (ending, ended) = mpsc::channel::<()>();
    let cgroup = wanted.cgroup.as_ref().map(PathBuf::from);
    let hold = move || {
        // What has failed is dropped here: an init is a child of this thread.
        let mut init = None;
        let _ = said.send(enter(&wanted, &mut init));
        // Until the other end is dropped.
        let _ = ended.recv();
        drop(init);
    };
    let thread =
        Builder::new().name("sandbox".into()).stack_size(STACK).spawn(hold).map_err(worker::refused)?;
    let entered = result.recv().map_err(|_| Failure::unknown("a thread has panicked"))?;
    match entered {
        Ok((pid, pidfd)) => Ok(Held { pid, pidfd, bundle: bundle.into(), cgroup, thread, ending }),
        Err(failure) => {
            drop(ending);
            let _ = thread.join();
            Err(failure)
        }
    }
}

/// In the thread. Returns the pod's pid.
fn enter(wanted: &Wanted, init: &mut Option<PodInit>) -> Result<(u32, Option<OwnedFd>)> {
    match &wanted.users {
        Some(users) => join(init.insert(begin_with_users(wanted, users)?), wanted)?,
        None => enter_own(wanted)?,
    }
    if wanted.network != NetworkNamespace::Host && !wanted.hostname.is_empty() {
        write("/proc/sys/kernel/hostname", &wanted.hostname)?;
    }
    for (name, value) in &wanted.sysctls {
        write(format!("/proc/sys/{}", name.replace('.', "/")), value)?;
    }
    if wanted.has_pids && init.is_none() {
        init.insert(begin(CloneFlags::empty(), None)?).go().map_err(failed)?;
    }
    match init {
        Some(init) => {
            let pidfd = init.pidfd().try_clone_to_owned();
            Ok((init.pid as u32, Some(pidfd.map_err(|error| Failure::os("dup a pidfd", error))?)))
        }
        None => Ok((nix::unistd::gettid().as_raw() as u32, None)),
    }
}

fn enter_own(wanted: &Wanted) -> Result<()> {
    if let NetworkNamespace::Path(path) = &wanted.network {
        let namespace = File::open(path).map_err(|error| Failure::os(format!("open {path}"), error))?;
        refuse_own(&namespace, path)?;
        setns(&namespace, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Failure::os(format!("setns {path}"), errno))?;
        unshare(CloneFlags::CLONE_NEWUTS).map_err(|errno| Failure::os("unshare CLONE_NEWUTS", errno))?;
    }
    if wanted.has_ipc {
        unshare(CloneFlags::CLONE_NEWIPC).map_err(|errno| Failure::os("unshare CLONE_NEWIPC", errno))?;
    }
    Ok(())
}

/// An init in namespaces of the caller, and in new ones.
fn begin(namespaces: CloneFlags, joined: Option<[BorrowedFd; 2]>) -> Result<PodInit> {
    PodInit::new(&Place { namespaces: namespaces.bits(), joined }).map_err(failed)
}

fn failed((call, errno): (&str, Errno)) -> Failure {
    Failure::os(format!("the pod's init: {call}"), errno)
}

/// All namespaces of the pod belong to its user namespace, and so they are the init's.
fn begin_with_users(wanted: &Wanted, users: &Users) -> Result<PodInit> {
    let mut namespaces = CloneFlags::empty();
    namespaces.set(CloneFlags::CLONE_NEWIPC, wanted.has_ipc);
    namespaces.set(CloneFlags::CLONE_NEWUTS, wanted.network != NetworkNamespace::Host);
    let mut init = match &wanted.network {
        NetworkNamespace::Path(path) => {
            let network = File::open(path).map_err(|error| Failure::os(format!("open {path}"), error))?;
            let user = owner(&network, path)?;
            begin(namespaces, Some([user.as_fd(), network.as_fd()]))?
        }
        other => {
            namespaces |= CloneFlags::CLONE_NEWUSER;
            namespaces.set(CloneFlags::CLONE_NEWNET, *other == NetworkNamespace::New);
            let init = begin(namespaces, None)?;
            for (name, map) in [("uid_map", &users.uids), ("gid_map", &users.gids)] {
                write(format!("/proc/{}/{name}", init.pid), map)?;
            }
            init
        }
    };
    init.go().map_err(failed)?;
    Ok(init)
}

/// The user namespace that containerd has made with the network namespace.
fn owner(network: &File, path: &str) -> Result<File> {
    const OWN: &str = "/proc/self/ns/user";
    let user = sys::owner_of_namespace(network)
        .map_err(|errno| Failure::os(format!("ioctl {path} NS_GET_USERNS"), errno))?;
    let user = File::from(user);
    let file = |found: std::io::Result<Metadata>| found.map(|found| (found.dev(), found.ino())).ok();
    match file(user.metadata()) == file(std::fs::metadata(OWN)) {
        true => Err(Failure::invalid(format!("netns_path: {path} belongs to the shim's own user namespace"))
            .hint("a pod with a user namespace needs a network namespace of it, or none")),
        false => Ok(user),
    }
}

fn join(init: &PodInit, wanted: &Wanted) -> Result<()> {
    let has_network = wanted.network != NetworkNamespace::Host;
    for (name, kind, is_own) in [
        ("net", CloneFlags::CLONE_NEWNET, has_network),
        ("uts", CloneFlags::CLONE_NEWUTS, has_network),
        ("ipc", CloneFlags::CLONE_NEWIPC, wanted.has_ipc),
    ] {
        if is_own {
            let path = format!("/proc/{}/ns/{name}", init.pid);
            let namespace = File::open(&path).map_err(|error| Failure::os(format!("open {path}"), error))?;
            setns(namespace, kind).map_err(|errno| Failure::os(format!("setns {path}"), errno))?;
        }
    }
    Ok(())
}

/// Namespaces are compared, not paths: sysctls of a pod, and whatever its containers do, would change the host's network.
fn refuse_own(namespace: &File, path: &str) -> Result<()> {
    const OWN: &str = "/proc/thread-self/ns/net";
    let file = |found: std::io::Result<Metadata>, name: &str| {
        let found = found.map_err(|error| Failure::os(format!("stat {name}"), error))?;
        Ok::<_, Failure>((found.dev(), found.ino()))
    };
    match file(namespace.metadata(), path)? == file(std::fs::metadata(OWN), OWN)? {
        true => Err(Failure::invalid(format!("netns_path: {path} is the network namespace of the shim"))
            .hint("a pod that uses the host's network has no netns_path")),
        false => Ok(()),
    }
}

fn write(path: impl AsRef<Path>, text: &str) -> Result<()> {
    let path = path.as_ref();
    std::fs::write(path, text).map_err(|error| Failure::os(format!("write {}", path.display()), error))
}

fn write_files(wanted: &Wanted, bundle: &Path) -> Result<()> {
    for (name, of_host) in FILES {
        let own = match name {
            "hostname" if wanted.network != NetworkNamespace::Host => Some(format!("{}\n", wanted.hostname)),
            "resolv.conf" => wanted.resolver.clone(),
            _ => None,
        };
        // A host may lack its own.
        let text = own.unwrap_or_else(|| std::fs::read_to_string(of_host).unwrap_or_default());
        let path = directory(bundle).join(name);
        write(&path, &text)?;
        // Whatever the umask is: containers of any user read it.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))
            .map_err(|error| Failure::os(format!("chmod {}", path.display()), error))?;
        if let Some(Users { root: (uid, gid), .. }) = wanted.users {
            chown(&path, Some(uid), Some(gid))
                .map_err(|error| Failure::os(format!("chown {}", path.display()), error))?;
        }
    }
    Ok(())
}

fn directory(bundle: &Path) -> PathBuf {
    let work = bundle.join(WORK);
    if work.is_dir() { work } else { bundle.into() }
}

fn mount_shm(bundle: &Path, users: Option<&Users>) -> Result<()> {
    let path = bundle.join(SHM);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
    made.map_err(|error| Failure::os(format!("mkdir {}", path.display()), error))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    let owner = users.map(|users| format!(",uid={},gid={}", users.root.0, users.root.1));
    let options = format!("{SHM_OPTIONS}{}", owner.unwrap_or_default());
    mount(Some("shm"), &path, Some("tmpfs"), flags, Some(options.as_str()))
        .map_err(|errno| Failure::os(format!("mount {}", path.display()), errno))
}

/// Also those of a shim that is gone.
pub fn remove_mounts(bundle: &Path) {
    rootfs::unmount(&bundle.join(SHM));
}

impl Held {
    pub fn bundle(&self) -> &Path {
        &self.bundle
    }

    /// What reads the statistics of its cgroup, which is that of all its containers. May block.
    pub fn measure(&self) -> impl FnOnce() -> Result<Any> + Send + use<> {
        let (cgroup, pid) = (self.cgroup.clone(), self.pid as i32);
        move || {
            let cgroup = cgroup.ok_or_else(|| {
                Failure::precondition("the pod has no cgroup to measure: its linux.cgroup_parent is empty")
            })?;
            Ok(metrics::of(&Stats::of_cgroup(&cgroup, pid)?))
        }
    }

    /// The namespaces go with the last container in them.
    pub fn release(self) {
        drop(self.ending);
        let _ = self.thread.join();
        remove_mounts(&self.bundle);
    }
}

/// Gives a container what it shares with its pod, where its configuration names nothing else.
pub fn share(spec: &mut Spec, bundle: &Path) -> Result<()> {
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    let is_read_only = spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or(false));
    let mut add = |source: PathBuf, destination: &str, flag: &str| {
        let options = ["rbind", "rprivate", flag];
        let mount =
            json!({ "destination": destination, "type": "bind", "source": source, "options": options });
        let mount = serde_json::from_value(mount);
        mount.map(|mount| mounts.push(mount)).map_err(|error| Failure::unknown(error.to_string()))
    };
    let given = spec.mounts().clone().unwrap_or_default();
    let has = |destination: &str| given.iter().any(|mount| mount.destination() == Path::new(destination));
    for (name, destination) in FILES {
        if !has(destination) {
            add(directory(bundle).join(name), destination, if is_read_only { "ro" } else { "rw" })?;
        }
    }
    // containerd gives each container memory of its own where the pod has no directory for it.
    let shm = Path::new("/dev/shm");
    let is_own =
        |mount: &&libruntime::Mount| mount.destination() == shm && mount.typ().as_deref() == Some("tmpfs");
    if bundle.join(SHM).exists() && (given.iter().any(|mount| is_own(&mount)) || !has("/dev/shm")) {
        add(bundle.join(SHM), "/dev/shm", "rw")?;
        let own = mounts.iter().position(|mount| is_own(&mount));
        own.into_iter().for_each(|at| drop(mounts.remove(at)));
    }
    spec.set_mounts(Some(mounts));
    Ok(())
}

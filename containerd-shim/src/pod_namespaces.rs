//! What a pod without a pause container has: its namespaces, held by a thread of the shim, whose id containerd takes for
//! the pod's pid; and its files, in the bundle, which its containers have mounted. Runs on workers. A thread cannot hold
//! a pid namespace, and cannot make a user namespace.

use crate::failure::{Failure, Result};
use crate::pod_config::Wanted;
use crate::{rootfs, worker};
use libruntime::Spec;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::json;
use std::fs::{DirBuilder, File, Metadata};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
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
    bundle: PathBuf,
    thread: JoinHandle<()>,
    ending: mpsc::Sender<()>,
}

pub fn hold(wanted: Wanted, bundle: &Path) -> Result<Held> {
    write_files(&wanted, bundle)?;
    let has_ipc = wanted.has_ipc;
    if has_ipc {
        mount_shm(bundle)?;
    }
    hold_namespaces(wanted, bundle).inspect_err(|_| remove_mounts(bundle))
}

fn hold_namespaces(wanted: Wanted, bundle: &Path) -> Result<Held> {
    let (said, result) = mpsc::channel();
    let (ending, ended) = mpsc::channel::<()>();
    let hold = move || {
        let _ = said.send(enter(&wanted).map(|()| nix::unistd::gettid().as_raw() as u32));
        // Until the other end is dropped.
        let _ = ended.recv();
    };
    let thread =
        Builder::new().name("sandbox".into()).stack_size(STACK).spawn(hold).map_err(worker::refused)?;
    let pid = result.recv().map_err(|_| Failure::unknown("a thread has panicked"))?;
    Ok(Held { pid: pid?, bundle: bundle.into(), thread, ending })
}

/// In the thread.
fn enter(wanted: &Wanted) -> Result<()> {
    if let Some(path) = &wanted.network {
        let namespace = File::open(path).map_err(|error| Failure::os(format!("open {path}"), error))?;
        refuse_own(&namespace, path)?;
        setns(&namespace, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Failure::os(format!("setns {path}"), errno))?;
        unshare(CloneFlags::CLONE_NEWUTS).map_err(|errno| Failure::os("unshare CLONE_NEWUTS", errno))?;
        if !wanted.hostname.is_empty() {
            write("/proc/sys/kernel/hostname", &wanted.hostname)?;
        }
    }
    if wanted.has_ipc {
        unshare(CloneFlags::CLONE_NEWIPC).map_err(|errno| Failure::os("unshare CLONE_NEWIPC", errno))?;
    }
    for (name, value) in &wanted.sysctls {
        write(format!("/proc/sys/{}", name.replace('.', "/")), value)?;
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
            "hostname" if wanted.network.is_some() => Some(format!("{}\n", wanted.hostname)),
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
    }
    Ok(())
}

fn directory(bundle: &Path) -> PathBuf {
    let work = bundle.join(WORK);
    if work.is_dir() { work } else { bundle.into() }
}

fn mount_shm(bundle: &Path) -> Result<()> {
    let path = bundle.join(SHM);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
    made.map_err(|error| Failure::os(format!("mkdir {}", path.display()), error))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    mount(Some("shm"), &path, Some("tmpfs"), flags, Some(SHM_OPTIONS))
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

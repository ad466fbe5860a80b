//! What workers do: the verbs of the library, which may block. Must not touch the table.

use crate::failure::{Failure, Result};
use crate::model::Outcome;
use crate::record::{Record, group_of, replace};
use crate::stdio::{self, Ends, Named, Owner};
use crate::wire::{CreateTask, ExecTask, RuncOptions};
use crate::{metrics, options, pod_namespaces, rootfs};
use libruntime::oci_spec::runtime::LinuxNamespaceType;
use libruntime::{Config, Container, ErrorKind, ExecProcess, NewContainer, OomEvents, Signal, TerminalSize};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// That of the configuration, if it says one.
const SIZE: TerminalSize = TerminalSize { rows: 0, columns: 0 };

/// Opens the streams that a request names, and gives them to what is to be made. Requests of `Create` and `Exec` have
/// the same fields, and the library's builders the same methods, but no type in common.
macro_rules! with_streams {
    ($new:expr, $task:expr, $namespace:expr, $owner:expr) => {{
        let (new, task) = ($new, $task);
        let named = Named {
            stdin: &task.stdin,
            stdout: &task.stdout,
            stderr: &task.stderr,
            terminal: task.terminal,
            id: &task.id,
            namespace: $namespace,
        };
        let ([stdin, stdout, stderr], ends) = stdio::open(&named, $owner)?;
        let new = match task.terminal {
            true => new.terminal(SIZE),
            false => new.stdin(stdin).stdout(stdout).stderr(stderr),
        };
        (new, ends)
    }};
}

/// A container, and what else of it a verb needs.
#[derive(Clone)]
pub struct Made {
    pub container: Container,
    pub bundle: PathBuf,
    pub options: Arc<RuncOptions>,
    /// containerd's.
    pub namespace: Arc<str>,
}

impl Made {
    fn owner(&self) -> Owner {
        Owner { uid: self.options.io_uid, gid: self.options.io_gid }
    }
}

pub struct Created {
    pub made: Made,
    pub ends: Ends,
    pub terminal: Option<OwnedFd>,
    pub oom: Option<OomEvents>,
    pub outcome: Outcome,
    /// Takes it back where it cannot be watched.
    pub undo: fn(&Made) -> Result<Outcome>,
}

/// What a request to create a container says, read.
pub struct Wanted<'a> {
    pub task: &'a CreateTask,
    pub namespace: &'a str,
    pub options: RuncOptions,
    pub bundle: PathBuf,
    record: Record,
    /// The bundle of its pod, if that has no pause container.
    pod: Option<PathBuf>,
}

impl<'a> Wanted<'a> {
    pub fn of(task: &'a CreateTask, namespace: &'a str, pod: Option<PathBuf>) -> Result<Self> {
        let options = options::parse(task.options.as_ref())?;
        check_checkpoint(task, &options)?;
        let bundle = PathBuf::from(&task.bundle);
        let record = Record::new(&options, namespace, &group_of(&bundle, &task.id));
        Ok(Self { task, namespace, options, bundle, record, pod })
    }

    pub fn root(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    /// Returns how many mounts there are. The record is written first: `delete` needs it where the shim is killed.
    pub fn mount(&self) -> Result<usize> {
        self.record.write(&self.bundle)?;
        rootfs::mount_all(&self.task.rootfs, &self.root())
    }

    /// The container, to be made, with its streams.
    pub fn container(&self) -> Result<(NewContainer, Ends)> {
        let options = &self.options;
        let mut new = self.record.runtime().container(&self.task.id).bundle(&self.bundle);
        if let Some(pod) = &self.pod {
            let mut spec = Config::load(&self.bundle)?.spec;
            pod_namespaces::share(&mut spec, pod)?;
            new = new.spec(spec);
        }
        let new = new.no_pivot(options.no_pivot_root).no_new_keyring(options.no_new_keyring);
        let owner = Owner { uid: options.io_uid, gid: options.io_gid };
        Ok(with_streams!(new, self.task, self.namespace, owner))
    }

    /// Of a container that was made just now.
    pub fn finish(
        self,
        container: Container,
        ends: Ends,
        undo: fn(&Made) -> Result<Outcome>,
    ) -> Result<Created> {
        let pid = container.init_pid().unwrap_or(0);
        let written = replace(&self.bundle.join("init.pid"), &pid.to_string());
        let has_own_pids = has_own_pids(&container);
        written.inspect_err(|_| {
            // The first error is the one to report.
            let _ = container.delete_force();
        })?;
        let (bundle, options, namespace) = (self.bundle, Arc::new(self.options), self.namespace.into());
        Ok(Created {
            terminal: container.take_terminal().map(OwnedFd::from),
            // Without the memory controller there is nothing to be told.
            oom: container.oom_events().ok(),
            outcome: Outcome::Created { pid: pid as u32, has_own_pids },
            ends,
            made: Made { container, bundle, options, namespace },
            undo,
        })
    }
}

/// Only the request names a checkpoint: where a client gives the option, containerd copies it there.
fn check_checkpoint(task: &CreateTask, options: &RuncOptions) -> Result<()> {
    let (given, path) = (&options.criu_image_path, &task.checkpoint);
    if !task.parent_checkpoint.is_empty() {
        return Err(Failure::invalid("parent_checkpoint: only a whole checkpoint can be restored"));
    }
    if !given.is_empty() && given != path {
        return Err(Failure::invalid(format!("CriuImagePath {given:?}: the request is for {path:?}")));
    }
    Ok(())
}

pub fn create(task: &CreateTask, namespace: &str, pod: Option<PathBuf>) -> Result<Created> {
    create_now(task, namespace, pod).map_err(|failure| failure.within("OCI runtime create failed"))
}

fn create_now(task: &CreateTask, namespace: &str, pod: Option<PathBuf>) -> Result<Created> {
    let wanted = Wanted::of(task, namespace, pod)?;
    let (mounts, root) = (wanted.mount()?, wanted.root());
    let made = wanted.container().and_then(|(new, ends)| wanted.finish(new.create()?, ends, delete));
    made.inspect_err(|_| rootfs::unmount_last(&root, mounts))
}

fn has_own_pids(container: &Container) -> bool {
    let Ok(spec) = container.spec() else { return false };
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let is_own = |kind: LinuxNamespaceType| kind == LinuxNamespaceType::Pid;
    namespaces.into_iter().flatten().any(|one| is_own(one.typ()) && one.path().is_none())
}

pub struct Executed {
    pub process: ExecProcess,
    pub ends: Ends,
    pub terminal: Option<OwnedFd>,
}

pub fn exec(made: &Made, task: &ExecTask) -> Result<Executed> {
    exec_now(made, task).map_err(|failure| failure.within("OCI runtime exec failed"))
}

fn exec_now(made: &Made, task: &ExecTask) -> Result<Executed> {
    let spec = task.spec.as_ref().map(|any| any.value.as_slice()).unwrap_or_default();
    let mut process = libruntime::parse_process(spec)?.0;
    process.set_terminal(Some(task.terminal));
    let new = made.container.exec_process(process).no_new_keyring(made.options.no_new_keyring);
    let (new, ends) = with_streams!(new, task, &made.namespace, made.owner());
    let process = new.spawn()?;
    Ok(Executed { terminal: process.take_terminal().map(OwnedFd::from), process, ends })
}

pub fn start(made: &Made) -> Result<Outcome> {
    made.container.start().map_err(|error| Failure::from(error).within("OCI runtime start failed"))?;
    Ok(Outcome::Pid(made.container.init_pid().unwrap_or(0) as u32))
}

pub fn delete(made: &Made) -> Result<Outcome> {
    match made.container.delete_force() {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    rootfs::unmount(&made.bundle.join("rootfs"));
    Ok(Outcome::Nothing)
}

pub fn kill_all(made: &Made, signal: i32) -> Result<Outcome> {
    made.container.kill_all(Signal(signal))?;
    Ok(Outcome::Nothing)
}

/// A frozen container is thawed, and without a pid namespace all of it is killed.
pub fn kill_rest(made: &Made) -> Result<Outcome> {
    // Its init may have ended by now, which is what is wanted.
    let _ = made.container.kill(Signal::KILL);
    Ok(Outcome::Nothing)
}

pub fn pids(made: &Made) -> Result<Outcome> {
    let all = made.container.processes()?;
    Ok(Outcome::Pids(all.into_iter().map(|pid| pid as u32).collect()))
}

pub fn pause(made: &Made) -> Result<Outcome> {
    made.container.pause()?;
    Ok(Outcome::Nothing)
}

pub fn resume(made: &Made) -> Result<Outcome> {
    made.container.resume()?;
    Ok(Outcome::Nothing)
}

pub fn update(made: &Made, resources: &[u8]) -> Result<Outcome> {
    made.container.update(&libruntime::parse_resources(resources)?.0)?;
    Ok(Outcome::Nothing)
}

pub fn stats(made: &Made) -> Result<Outcome> {
    Ok(Outcome::Stats(metrics::of(&made.container.stats()?)))
}

/// What is left of a container whose shim is gone. Returns the pid that its init had; fails where the container is
/// still there.
pub fn remove(record: &Record, bundle: &Path, id: &str, limit: Duration) -> Result<u32> {
    let written = std::fs::read_to_string(bundle.join("init.pid")).ok();
    let mut pid = written.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let loaded = record.runtime().load_damaged(id);
    let removed = loaded.and_then(|container| {
        pid = container.init_pid().map_or(pid, |pid| pid as u32);
        container.with_deadline(limit).delete_force()
    });
    rootfs::unmount(&bundle.join("rootfs"));
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Failure::from(error).within(&format!("delete container {id}")))
        }
        _ => Ok(pid),
    }
}

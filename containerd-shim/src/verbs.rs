//! What workers do: the verbs of the library, which may block. Must not touch the table.

use crate::failure::{Failure, Result};
use crate::model::Outcome;
use crate::record::{Record, group_of, replace};
use crate::stdio::{self, Ends, Named, Owner};
use crate::wire::{CreateTask, ExecTask, RuncOptions};
use crate::{metrics, options, rootfs};
use libruntime::oci_spec::runtime::LinuxNamespaceType;
use libruntime::{Container, ErrorKind, ExecProcess, OomEvents, Signal, TerminalSize};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// That of the configuration, if it says one.
const SIZE: TerminalSize = TerminalSize { rows: 0, columns: 0 };

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
}

pub fn create(task: &CreateTask, namespace: &str) -> Result<Created> {
    create_now(task, namespace).map_err(|failure| failure.within("OCI runtime create failed"))
}

fn create_now(task: &CreateTask, namespace: &str) -> Result<Created> {
    if !task.checkpoint.is_empty() || !task.parent_checkpoint.is_empty() {
        return Err(Failure::new(crate::failure::Code::Unimplemented, "restoring is not supported yet"));
    }
    let options = options::parse(task.options.as_ref())?;
    let bundle = PathBuf::from(&task.bundle);
    let record = Record::new(&options, namespace, &group_of(&bundle, &task.id));
    record.write(&bundle)?;
    let root = bundle.join("rootfs");
    let mounts = rootfs::mount_all(&task.rootfs, &root)?;
    let made = create_mounted(task, namespace, &record, bundle, options);
    made.inspect_err(|_| rootfs::unmount_last(&root, mounts))
}

fn create_mounted(
    task: &CreateTask,
    namespace: &str,
    record: &Record,
    bundle: PathBuf,
    options: RuncOptions,
) -> Result<Created> {
    let named = Named {
        stdin: &task.stdin,
        stdout: &task.stdout,
        stderr: &task.stderr,
        terminal: task.terminal,
        id: &task.id,
        namespace,
    };
    let (streams, ends) = stdio::open(&named, Owner { uid: options.io_uid, gid: options.io_gid })?;
    let new = record.runtime().container(&task.id).bundle(&bundle);
    let mut new = new.no_pivot(options.no_pivot_root).no_new_keyring(options.no_new_keyring);
    if task.terminal {
        new = new.terminal(SIZE);
    } else {
        let [stdin, stdout, stderr] = streams;
        new = new.stdin(stdin).stdout(stdout).stderr(stderr);
    }
    let container = new.create()?;
    let pid = container.init_pid().unwrap_or(0);
    let written = replace(&bundle.join("init.pid"), &pid.to_string());
    let has_own_pids = has_own_pids(&container);
    written.inspect_err(|_| {
        // The first error is the one to report.
        let _ = container.delete_force();
    })?;
    Ok(Created {
        terminal: container.take_terminal().map(OwnedFd::from),
        // Without the memory controller there is nothing to be told.
        oom: container.oom_events().ok(),
        outcome: Outcome::Created { pid: pid as u32, has_own_pids },
        ends,
        made: Made { container, bundle, options: Arc::new(options), namespace: namespace.into() },
    })
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
    let named = Named {
        stdin: &task.stdin,
        stdout: &task.stdout,
        stderr: &task.stderr,
        terminal: task.terminal,
        id: &task.id,
        namespace: &made.namespace,
    };
    let (streams, ends) = stdio::open(&named, made.owner())?;
    let mut new = made.container.exec_process(process).no_new_keyring(made.options.no_new_keyring);
    if task.terminal {
        new = new.terminal(SIZE);
    } else {
        let [stdin, stdout, stderr] = streams;
        new = new.stdin(stdin).stdout(stdout).stderr(stderr);
    }
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

//! Containers from checkpoints. `Create` makes the mounts alone, and `Start` restores the processes: they run as soon as
//! they exist. Must not touch the table.

use crate::failure::{Failure, Result};
use crate::model::Outcome;
use crate::rootfs;
use crate::verbs::{Created, Made, Wanted};
use crate::wire::CreateTask;
use libruntime::{Cancel, CheckpointOptions, ErrorKind, Stdio};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Of CRIU's log, below the bundle: containers may be restored from one checkpoint at the same time.
const WORK: &str = "criu";

/// `Create`, on a worker.
pub fn prepare(task: &CreateTask, namespace: &str) -> Result<Outcome> {
    prepare_now(task, namespace).map_err(|failure| failure.within("OCI runtime create failed"))
}

fn prepare_now(task: &CreateTask, namespace: &str) -> Result<Outcome> {
    let wanted = Wanted::of(task, namespace, None)?;
    // Before anything is made: a wrong path is the most frequent mistake.
    std::fs::read_dir(&task.checkpoint)
        .map_err(|error| Failure::os(format!("open the checkpoint {}", task.checkpoint), error))?;
    wanted.mount()?;
    Ok(Outcome::Created { pid: 0, has_own_pids: true })
}

/// `Start`, on a worker. After a failure it can be tried again, or the container be deleted.
pub fn restore(task: &CreateTask, namespace: &str, pod: Option<PathBuf>, cancel: Cancel) -> Result<Created> {
    restore_now(task, namespace, pod, cancel).map_err(|failure| failure.within("OCI runtime restore failed"))
}

fn restore_now(task: &CreateTask, namespace: &str, pod: Option<PathBuf>, cancel: Cancel) -> Result<Created> {
    let wanted = Wanted::of(task, namespace, pod)?;
    let mut options = CheckpointOptions::new(&task.checkpoint);
    let work = match wanted.options.criu_work_path.as_str() {
        "" => wanted.bundle.join(WORK),
        path => path.into(),
    };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&work);
    made.map_err(|error| Failure::os(format!("mkdir {}", work.display()), error))?;
    options.work_path = Some(work);
    let (mut new, ends) = wanted.container()?;
    // What was no pipe cannot become one. Without a stream, the shim has given it /dev/null.
    let [stdin, stdout, stderr] = options.file_streams()?;
    if !task.terminal && stdin {
        new = new.stdin(Stdio::null());
    }
    if !task.terminal && stdout {
        new = new.stdout(Stdio::null());
    }
    if !task.terminal && stderr {
        new = new.stderr(Stdio::null());
    }
    // From here on it is ended by its own verbs.
    let container = new.cancel(cancel).restore(&options)?.without_limits();
    wanted.finish(container, ends, undo)
}

/// The mounts stay for another `Start`.
fn undo(made: &Made) -> Result<Outcome> {
    match made.container.delete_force() {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(Outcome::Nothing),
    }
}

/// `Delete` of what was not restored, on a worker.
pub fn delete(task: &CreateTask) -> Result<Outcome> {
    rootfs::unmount(&Path::new(&task.bundle).join("rootfs"));
    Ok(Outcome::Nothing)
}

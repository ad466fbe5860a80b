//! Whether a process that the library has started executes its program, or still the stage. `ProcessId::has_executed` says
//! it of one that runs.

use crate::stage::Executable;
use crate::state::{FORKED_NO_EXEC, ProcessId, stat};
use nix::errno::Errno;
use std::fs;

/// Whether a process has executed its program or has ended, without the end of its channel: others that may trace it can
/// have a copy of that (pidfd_getfd(2)).
pub(crate) fn is_done(pid: i32, stage: Option<Executable>) -> bool {
    match ProcessId::of(pid) {
        Ok(process) => process.has_executed(stage) != Some(false),
        Err(error) => error.errno() == Some(Errno::ESRCH as i32),
    }
}

/// Whether a stage that has closed its channel has executed its program; otherwise it was killed. Once it is reaped
/// nothing tells the two apart, and it counts as executed: a program may end at once.
pub(crate) fn has_executed(pid: i32, stage: Option<Executable>) -> bool {
    match fs::read_link(format!("/proc/{pid}/exe")) {
        // Only a process that has ended has no executable.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => has_ever_executed(pid, stage),
        _ => true,
    }
}

/// Whether a dead process had executed a program, apart from the stage that it may have been started as; true where
/// there is none. A program that has the stage's name is taken for the stage, to its own harm.
fn has_ever_executed(pid: i32, stage: Option<Executable>) -> bool {
    match (stat(pid), stage) {
        (Ok(Some(found)), _) if found.flags & FORKED_NO_EXEC != 0 => false,
        (Ok(Some(found)), Some(stage)) => !stage.names().contains(&found.name),
        _ => true,
    }
}

/// The name of a dead process that has never executed a program and is not reaped yet.
pub(crate) fn name_of_dead_clone(pid: i32) -> Option<String> {
    let found = stat(pid).ok()??;
    (found.state == 'Z' && found.flags & FORKED_NO_EXEC != 0).then_some(found.name)
}

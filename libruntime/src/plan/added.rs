//! The plans that change the mounts of a running container.
//!
//! The stage enters the container's mount namespace, and its network and IPC namespaces, whose filesystems may be
//! mounted. It does not enter the user namespace, because sources of the host can only be cloned outside of it. It
//! executes nothing, and ends after the last [`SyncPoint::Ready`].
//!
//! The container's processes can change its directories meanwhile, so no target is reached through a symbolic link: a
//! link could lead to a mount over `/proc`, or to the removal of a mount that masks something.

use super::mounts::Mounts;
use super::{Handed, Plan, Text, mounts, process};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::step::{NamespaceFlags, Step, SyncPoint};
use oci_spec::runtime::{Mount, Spec};
use std::path::{Path, PathBuf};

/// Mounts `added` in the container of `spec`, which runs as the process behind [`Handed::Pidfd`], `pid`.
pub(crate) fn add(added: &[Mount], spec: &Spec, host: &Host, bundle: &Path, pid: i32) -> Result<Plan> {
    let mut plan = begin();
    let steps = Mounts::added(&mut plan, added, spec, host, bundle, pid)?;
    // A mount can only be cloned in its own namespace.
    let (clones, steps): (Vec<_>, Vec<_>) =
        steps.into_iter().partition(|(_, step)| matches!(step, Step::CloneSource { .. }));
    clones.into_iter().for_each(|(origin, step)| plan.push(origin, step));
    enter(&mut plan);
    for (origin, mut step) in steps {
        match &mut step {
            Step::Mount { strict, .. } | Step::MoveMount { strict, .. } => *strict = true,
            Step::MountProcfs { .. } => {}
            _ => {
                let what = "this kind of mount in a container that runs";
                return Err(Error::unsupported(what).at(origin));
            }
        }
        plan.push(origin, step);
    }
    end(plan)
}

/// Unmounts the topmost mount at each of `destinations`.
pub(crate) fn remove(destinations: &[PathBuf]) -> Result<Plan> {
    let mut plan = begin();
    enter(&mut plan);
    for (at, path) in destinations.iter().enumerate() {
        let step = Step::Unmount { target: Text::path(&mounts::absolute(path)) };
        plan.push(format!("mounts[{at}].destination"), step);
    }
    end(plan)
}

fn begin() -> Plan {
    let mut plan = Plan::new();
    process::reset_signals_and_umask(&mut plan);
    // In a pid namespace that the container shares, its processes would see the stage.
    plan.push("", Step::NotDumpable);
    plan
}

fn enter(plan: &mut Plan) {
    let fd = plan.hand("", Handed::Pidfd);
    let namespaces = NamespaceFlags((libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC) as u64);
    plan.push("linux.namespaces", Step::Setns { fd, namespaces });
    plan.push("root.path", Step::OpenRoot { path: Text::of("/") });
}

fn end(mut plan: Plan) -> Result<Plan> {
    plan.push("", Step::Sync { point: SyncPoint::Ready });
    plan.check_limits()?;
    Ok(plan)
}

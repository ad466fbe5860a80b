//! What the stage is started with: the caller's descriptors, and those that the plan has the library open.

use crate::cgroup::Cgroup;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{Handed, Plan};
use crate::{sys, userns};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

/// Descriptors that only the caller of a verb can provide.
#[derive(Default)]
pub(crate) struct Given<'a> {
    pub listener: Option<BorrowedFd<'a>>,
    pub console: Option<BorrowedFd<'a>>,
    pub pidfd: Option<BorrowedFd<'a>>,
    pub directory: Option<BorrowedFd<'a>>,
    /// A mount namespace with next to no mounts.
    pub bare_mounts: Option<BorrowedFd<'a>>,
    /// The container's program, where the caller gives it.
    pub program: Option<BorrowedFd<'a>>,
    pub cgroup: Option<&'a Cgroup>,
    /// Descriptors that the program gets under numbers that the plan chooses.
    pub placed: &'a [BorrowedFd<'a>],
}

/// How the stage is started.
pub(crate) struct Launch<'a> {
    pub stdio: [BorrowedFd<'a>; 3],
    /// Descriptors that the program gets, with their numbers there, which are above 2.
    pub passed: &'a [(RawFd, u32)],
    /// The directory of the v2 cgroup that the stage is started in, or enters by its first step.
    pub cgroup: Option<BorrowedFd<'a>>,
    pub given: Given<'a>,
}

/// A procfs on which nothing can be mounted. Where the kernel refuses one (in a user namespace, if something is mounted
/// below /proc), the caller's `/proc` is used, if it is a procfs.
pub(crate) fn private_procfs() -> Result<OwnedFd> {
    if let Ok(procfs) = sys::detached_procfs() {
        return Ok(procfs);
    }
    let failed = |error| Error::io("open /proc", error);
    let procfs = File::open("/proc").map_err(failed)?;
    let kind = nix::sys::statfs::fstatfs(&procfs).map_err(|errno| Error::os("fstatfs /proc", errno))?;
    if kind.filesystem_type() != nix::sys::statfs::PROC_SUPER_MAGIC {
        return Err(Error::unsupported("/proc is no procfs").with_hint("mount -t proc proc /proc"));
    }
    Ok(procfs.into())
}

/// A descriptor to hand over: one to close afterwards, or the caller's.
pub(crate) enum Opened<'a> {
    Owned(OwnedFd),
    Borrowed(BorrowedFd<'a>),
    /// Sent to the stage later.
    Later,
}

impl AsRawFd for Opened<'_> {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Owned(fd) => fd.as_raw_fd(),
            Self::Borrowed(fd) => fd.as_raw_fd(),
            Self::Later => -1,
        }
    }
}

pub(crate) fn open_handed<'a>(
    plan: &Plan,
    launch: &'a Launch,
    channel: &'a OwnedFd,
    procfs: &'a OwnedFd,
) -> Result<Vec<Opened<'a>>> {
    let given = |fd: Option<BorrowedFd<'a>>, what: &str| {
        fd.map(Opened::Borrowed).ok_or_else(|| Error::external(format!("no {what} was given")))
    };
    let open = |(what, place): &(Handed, crate::plan::Origin)| {
        let opened = match what {
            Handed::Channel => Ok(Opened::Borrowed(channel.as_fd())),
            Handed::Procfs => Ok(Opened::Borrowed(procfs.as_fd())),
            Handed::Listener => given(launch.given.listener, "listener"),
            Handed::ConsoleSocket => given(launch.given.console, "console socket"),
            Handed::Pidfd => given(launch.given.pidfd, "pidfd"),
            Handed::BareMounts => given(launch.given.bare_mounts, "mount namespace"),
            Handed::Cgroup => given(launch.cgroup, "cgroup"),
            Handed::Directory => given(launch.given.directory, "directory"),
            Handed::Program => given(launch.given.program, "program"),
            Handed::Placed(at) => given(launch.given.placed.get(usize::from(*at)).copied(), "descriptor"),
            Handed::Namespace(path) => open_namespace(path).map(Opened::Owned),
            Handed::UserNamespace => user_namespace(plan).map(Opened::Owned),
            Handed::CgroupTasks(tasks) => match launch.given.cgroup {
                Some(cgroup) => cgroup.open_tasks(tasks).map(Opened::Owned),
                None => Ok(Opened::Later),
            },
            Handed::IdMap(at) => userns::make(&plan.id_maps[*at]).map(Opened::Owned),
        };
        opened.map_err(|error: Error| if place.is_empty() { error } else { error.at(place.to_string()) })
    };
    plan.handed.iter().map(open).collect()
}

fn open_namespace(path: &Path) -> Result<OwnedFd> {
    // Magic links such as /proc/PID/ns/net are followed: the path comes from the caller.
    File::open(path)
        .map(OwnedFd::from)
        .map_err(|error| Error::io(format!("open {}", path.display()), error).within("namespace path"))
}

fn user_namespace(plan: &Plan) -> Result<OwnedFd> {
    match (&plan.new_user_namespace, &plan.joined_user_namespace) {
        (Some(maps), _) => userns::make(maps),
        (None, Some(path)) => open_namespace(path),
        (None, None) => Err(Error::new(ErrorKind::InvalidConfig, "no user namespace")),
    }
}

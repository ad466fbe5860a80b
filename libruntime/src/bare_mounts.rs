//! A mount namespace of the host that has next to no mounts.
//!
//! A new mount namespace is a copy of the caller's, which costs as much as that has mounts. One that begins as a copy of
//! this one costs the same on every host. The kernel's thread `kdevtmpfs` makes it when the host starts, with one mount,
//! and before any process exists: it is the one after the initial namespace. It is never changed, only copied.

use crate::cgroup::HOST_USER_NAMESPACE;
use crate::sys::{self, Neighbour};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::fstat;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// More than kdevtmpfs has on any kernel, and too few to cost anything.
const FEW: u32 = 8;

/// Opens it. There is none before Linux 6.12, for a caller that is not the host's root, and in a pid namespace of its own,
/// where process 2 is not `kthreadd`, which stays in the initial namespace.
pub(crate) fn find() -> Option<OwnedFd> {
    let initial = sys::open(Path::new("/proc/2/ns/mnt"), OFlag::O_RDONLY).ok()?;
    let before = sys::neighbour_of_mount_namespace(initial.as_fd(), Neighbour::Previous);
    if before.err() != Some(Errno::ENOENT) {
        return None;
    }
    let (found, mounts) = sys::neighbour_of_mount_namespace(initial.as_fd(), Neighbour::Next).ok()?;
    // One of another user namespace would have mounts that cannot be taken off.
    let owner = fstat(sys::owner_of_namespace(found.as_fd()).ok()?).ok()?;
    (mounts <= FEW && owner.st_ino == HOST_USER_NAMESPACE).then_some(found)
}

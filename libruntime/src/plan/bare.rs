//! Whether a container begins with a mount namespace that has next to no mounts.

use super::create::has_hooks_before_pivot;
use super::request::Request;
use super::{capabilities, mount_options};
use crate::host::Host;
use crate::namespaces;
use oci_spec::runtime::{LinuxNamespaceType as Ns, Mount, Spec};

/// What setns(2) wants for a mount namespace.
const ENTERS_MOUNTS: u64 = capabilities::SYS_CHROOT | capabilities::SYS_ADMIN;

/// Whether the container can be made from a mount namespace with next to no mounts, in place of a copy of the caller's:
/// everything that it needs of the caller's is opened before that is entered. A copy costs as much as the host has mounts.
pub fn wants_bare_mounts(spec: &Spec, host: &Host, request: &Request) -> bool {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    !host.rootless()
        && !host.in_user_namespace
        && host.capabilities & ENTERS_MOUNTS == ENTERS_MOUNTS
        && namespaces::is_new(namespaces::listed(spec), Ns::Mount)
        // It leaves what is below the container's root where it is.
        && !request.no_pivot
        // These may enter the container's mounts, and expect the host's there.
        && !has_hooks_before_pivot(spec)
        && !mounts.iter().any(names_files_of_caller)
}

/// Whether a mount has names of files that are looked up when it is made: in the layers of an overlay, or as its device.
fn names_files_of_caller(mount: &Mount) -> bool {
    const WITHOUT: [&str; 14] = [
        "bind",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "hugetlbfs",
        "mqueue",
        "proc",
        "ramfs",
        "securityfs",
        "sysfs",
        "tmpfs",
    ];
    let options = mount_options::parse(mount.options().as_deref().unwrap_or_default());
    let fstype = mount.typ().as_deref().unwrap_or_default();
    !options.bind && !options.remount && !WITHOUT.contains(&fstype)
}

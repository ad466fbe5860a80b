//! Idmapped copies of mounts: the ids of the files are shown through a map, which is that of a user namespace.

use crate::failure::{Failure, Result};
use crate::mount_options::IdMaps;
use crate::sys::mounts::{self, NamespaceHolder};
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::OwnedFd;

/// A user namespace with these maps. Must be called on a worker: the holder of the namespace is a child of the caller.
pub fn user_namespace(maps: &IdMaps) -> Result<OwnedFd> {
    let holder = NamespaceHolder::new().map_err(|errno| Failure::os("clone3 CLONE_NEWUSER", errno))?;
    for (name, map) in [("uid_map", &maps.uids), ("gid_map", &maps.gids)] {
        let lines = map.trim_end().replace('\n', ",");
        fs::write(format!("/proc/{}/{name}", holder.0), map)
            .map_err(|error| Failure::os(format!("write {lines} to {name}"), error))?;
    }
    let path = format!("/proc/{}/ns/user", holder.0);
    File::open(&path).map(OwnedFd::from).map_err(|error| Failure::os(format!("open {path}"), error))
}

/// A copy of what is mounted there, attached nowhere; idmapped where there is a user namespace.
pub fn clone(path: &str, user_namespace: Option<&OwnedFd>, recursive: bool) -> Result<OwnedFd> {
    let name = CString::new(path).map_err(|_| Failure::invalid(format!("{path:?} has a zero byte")))?;
    let copy = mounts::clone_mount(&name, recursive)
        .map_err(|errno| Failure::os(format!("open_tree {path}"), errno))?;
    if let Some(user_namespace) = user_namespace {
        mounts::set_id_map(&copy, user_namespace, recursive).map_err(|errno| {
            let failure = Failure::os(format!("mount_setattr {path} MOUNT_ATTR_IDMAP"), errno);
            match errno {
                nix::errno::Errno::EINVAL => {
                    failure.hint("its file system has no idmapped mounts on this kernel")
                }
                _ => failure,
            }
        })?;
    }
    Ok(copy)
}

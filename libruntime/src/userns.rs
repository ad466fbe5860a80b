//! Making a user namespace with given id maps (user_namespaces(7)).

use crate::error::{Error, Result};
use crate::plan::{IdMap, IdMaps};
use crate::sys;
use nix::errno::Errno;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

/// A new user namespace with these maps; it lives as long as its descriptor.
pub(crate) fn make(maps: &IdMaps) -> Result<OwnedFd> {
    let holder = sys::hold_user_namespace().map_err(|errno| {
        let hint = match errno {
            Errno::ENOSPC => "the limit is sysctl user.max_user_namespaces",
            _ => "see sysctl kernel.unprivileged_userns_clone and user.max_user_namespaces",
        };
        Error::os("clone3 CLONE_NEWUSER", errno).at("linux.namespaces").with_hint(hint)
    })?;
    let pid = holder.pid;
    if nix::unistd::geteuid().is_root() {
        write_map(pid, "uid_map", &maps.uids, "linux.uidMappings")?;
        write_map(pid, "gid_map", &maps.gids, "linux.gidMappings")?;
    } else {
        write_or_help(pid, maps)?;
    }
    let path = format!("/proc/{pid}/ns/user");
    File::open(&path).map(OwnedFd::from).map_err(|error| Error::io(format!("open {path}"), error))
}

fn write_map(pid: i32, file: &str, map: &IdMap, place: &str) -> Result<()> {
    let rows: String =
        map.iter().map(|[inside, outside, count]| format!("{inside} {outside} {count}\n")).collect();
    let path = format!("/proc/{pid}/{file}");
    fs::write(&path, rows).map_err(|error| {
        Error::io(format!("write {path}"), error).at(place.to_string()).with_hint(
            "rows must not overlap, and their ids on the host must be mapped in our own user namespace",
        )
    })
}

/// Without privileges a process may map only its own id; newuidmap(1) maps those of /etc/subuid.
fn write_or_help(pid: i32, maps: &IdMaps) -> Result<()> {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let own = |map: &IdMap, id: u32| matches!(map[..], [[_, outside, 1]] if outside == id);
    if own(&maps.uids, uid) {
        write_map(pid, "uid_map", &maps.uids, "linux.uidMappings")?;
    } else {
        help("newuidmap", pid, &maps.uids, "linux.uidMappings", "/etc/subuid")?;
    }
    if own(&maps.gids, gid) {
        let path = format!("/proc/{pid}/setgroups");
        fs::write(&path, "deny").map_err(|error| Error::io(format!("write {path}"), error))?;
        return write_map(pid, "gid_map", &maps.gids, "linux.gidMappings");
    }
    help("newgidmap", pid, &maps.gids, "linux.gidMappings", "/etc/subgid")
}

fn help(program: &str, pid: i32, map: &IdMap, place: &str, file: &str) -> Result<()> {
    let mut command = Command::new(program);
    command.arg(pid.to_string()).args(map.iter().flatten().map(u32::to_string)).stdin(Stdio::null());
    let output = command.output().map_err(|error| {
        Error::io(format!("execve {program}"), error)
            .at(place.to_string())
            .with_hint("install the package uidmap (or shadow-utils)")
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
    Err(Error::external(format!("{program}: {said}"))
        .at(place.to_string())
        .with_hint(format!("{file} must give this user the ids of the map")))
}

//! Making a user namespace with given id maps (user_namespaces(7)).

use crate::error::{Error, Result};
use crate::plan::{IdMap, IdMaps};
use crate::sys;
use nix::errno::Errno;
use nix::sys::prctl;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// A new user namespace with these maps; it lives as long as its descriptor.
pub(crate) fn make(maps: &IdMaps) -> Result<OwnedFd> {
    let _hidden = Hidden::new();
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

/// While it lives, this process and the holder, which shares its memory, are not dumpable. The holder's namespace
/// belongs to our uid: root of a container in our pid namespace, without any capability, could else write to our
/// memory through it (user_namespaces(7), ptrace(2)).
struct Hidden(bool);

/// How many there are, of all threads.
static HIDDEN: Mutex<usize> = Mutex::new(0);

impl Hidden {
    /// Without CAP_SYS_PTRACE, or where the files of the holder in /proc would not be ours any more (proc(5)), we could
    /// not use it either.
    fn new() -> Self {
        const SYS_PTRACE: u64 = 1 << 19;
        let may_trace = sys::own_capabilities().is_ok_and(|(effective, _)| effective & SYS_PTRACE != 0);
        let mut count = HIDDEN.lock().unwrap_or_else(PoisonError::into_inner);
        if *count == 0 {
            // One that is not dumpable already stays so.
            if !may_trace || !prctl::get_dumpable().unwrap_or(false) || prctl::set_dumpable(false).is_err() {
                return Self(false);
            }
            let caller = nix::unistd::geteuid().as_raw();
            if fs::metadata("/proc/self").map(|own| own.uid()).ok() != Some(caller) {
                let _ = prctl::set_dumpable(true);
                return Self(false);
            }
        }
        *count += 1;
        Self(true)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let mut count = HIDDEN.lock().unwrap_or_else(PoisonError::into_inner);
        *count -= usize::from(self.0);
        if self.0 && *count == 0 {
            // It was so before; otherwise there is no core dump, and no more.
            let _ = prctl::set_dumpable(true);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// As root of a container in our pid namespace, which has no capability: on a thread of its own.
    fn may_be_used_without_capabilities(pid: i32) -> bool {
        std::thread::spawn(move || {
            sys::drop_capabilities_of_thread().unwrap();
            fs::read_link(format!("/proc/{pid}/root")).is_ok()
        })
        .join()
        .unwrap()
    }

    #[test]
    #[ignore = "needs root"]
    fn nobody_without_capabilities_may_use_the_holder() {
        let hidden = [Hidden::new(), Hidden::new()];
        let holder = sys::hold_user_namespace().unwrap();
        assert!(!may_be_used_without_capabilities(holder.pid));
        drop(holder);
        drop(hidden);
        assert_eq!(prctl::get_dumpable(), Ok(true));
    }
}

//! Who and where the process is: namespaces, ids, capabilities, limits, scheduling.

use crate::kernel::*;
use linux_raw_sys::general as k;
use linux_raw_sys::prctl as p;
use onggi_stage::{Capabilities, NamespaceFlags};

/// `CLONE_CLEAR_SIGHAND` leaves ignored signals ignored (clone(2)), and most callers ignore SIGPIPE.
pub fn reset_signals(procfs: i32) -> Done {
    // SIGKILL and SIGSTOP cannot be set, nor ignored.
    const UNSETTABLE: u64 = 1 << (9 - 1) | 1 << (19 - 1);
    let ignored = ignored_signals(procfs).unwrap_or(!UNSETTABLE);
    for signal in (1..=64).filter(|signal| ignored & 1 << (signal - 1) != 0) {
        set_default_action(signal)?;
    }
    unblock_all_signals()
}

/// `SigIgn` of proc_pid_status(5). `None` where that cannot be read, or comes after a long list of groups.
fn ignored_signals(procfs: i32) -> Option<u64> {
    const KEY: &[u8] = b"\nSigIgn:\t";
    let file = openat(procfs, b"self/status\0", k::O_RDONLY).ok()?;
    let mut status = [0u8; 4096];
    let length = read(file, &mut status);
    close_later(file);
    let status = status.get(..length.ok()?)?;
    let at = status.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let digits = status.get(at..at + 16)?;
    digits.iter().try_fold(0, |mask, digit| Some(mask << 4 | u64::from(char::from(*digit).to_digit(16)?)))
}

/// The kernel ignores signals without a handler for the init of a pid namespace. A container that waits for its start
/// has to end by the signals that ask for that, as with runc, so these get handlers. execve(2) removes them.
pub fn end_on_signals() -> Done {
    const ASK_FOR_AN_END: [u32; 4] = [k::SIGHUP, k::SIGINT, k::SIGQUIT, k::SIGTERM];
    for signal in ASK_FOR_AN_END {
        set_handler(signal, ended)?;
    }
    Ok(())
}

extern "C" fn ended(signal: i32) -> ! {
    exit(128 + signal)
}

/// This process's own pid in the procfs that was handed over, in whichever pid namespace it is.
pub fn own_pid(procfs: i32, into: &mut [u8; 12]) -> Done<usize> {
    Ok(readlinkat(procfs, b"self\0", into)?.len())
}

pub fn write_process(procfs: i32, path: &[u8], value: &[u8]) -> Done {
    let mut name = [0u8; 128];
    let mut pid = [0u8; 12];
    let length = own_pid(procfs, &mut pid)?;
    let joined = pid.iter().take(length).chain(b"/").chain(path);
    for (byte, from) in name.iter_mut().zip(joined) {
        *byte = *from;
    }
    write_proc(procfs, &name, value)
}

/// "0" means the writing process.
pub fn join_cgroup(tasks: i32) -> Done {
    write(tasks, b"0")?;
    close_later(tasks);
    Ok(())
}

pub fn write_sysctl(procfs: i32, path: &[u8], value: &[u8]) -> Done {
    write_proc(procfs, path, value)
}

/// No symbolic link and no other mount may be on the path (the procfs could be the host's own).
fn write_proc(procfs: i32, path: &[u8], value: &[u8]) -> Done {
    let flags = k::O_WRONLY | k::O_CLOEXEC;
    let resolve = k::RESOLVE_BENEATH | k::RESOLVE_NO_SYMLINKS | k::RESOLVE_NO_XDEV;
    let file = openat2(procfs, path, flags, 0, resolve)?;
    let written = write(file, value);
    close_later(file);
    written
}

pub fn setns(fd: i32, namespaces: NamespaceFlags) -> Done {
    call(Call::setns, [fd as usize, namespaces.0 as usize]).map(drop)
}

pub fn unshare(namespaces: NamespaceFlags) -> Done {
    call(Call::unshare, [namespaces.0 as usize]).map(drop)
}

/// By ioctl(2), because a closed netlink socket keeps its network namespace for an RCU grace period.
pub fn loopback_up() -> Done {
    const AF_INET: usize = 2;
    const SOCK_DGRAM: usize = 2;
    const UP: u64 = 1;
    let socket = call(Call::socket, [AF_INET, SOCK_DGRAM | k::O_CLOEXEC as usize, 0])? as i32;
    // struct ifreq: a name of 16 bytes and a union of 24, here the flags.
    let request = [u64::from_ne_bytes(*b"lo\0\0\0\0\0\0"), 0, UP, 0, 0];
    let up = ioctl(socket, Request::SIOCSIFFLAGS, request.as_ptr() as usize);
    close_later(socket);
    match up {
        // Without CAP_NET_ADMIN the interface stays down, and that is no error.
        Err(Failed { errno: EPERM, .. }) => Ok(()),
        other => other.map(drop),
    }
}

pub fn set_hostname(name: &[u8]) -> Done {
    call(Call::sethostname, [name.as_ptr() as usize, name.len()]).map(drop)
}

pub fn set_domainname(name: &[u8]) -> Done {
    call(Call::setdomainname, [name.as_ptr() as usize, name.len()]).map(drop)
}

pub fn setsid() -> Done {
    call(Call::setsid, []).map(drop)
}

/// A kernel without keyrings has no session keyring to leak.
pub fn join_keyring(procfs: i32, name: &[u8], label: &[u8]) -> Done {
    // All permissions for processes that have it as their session keyring, even after a change of uid; and search for
    // its owner, which `exec` needs to find it by its name. Not view or read, by which other processes of the owner
    // would learn the name.
    const PERMISSIONS: usize = 0x3f08_0000;
    if !label.is_empty() {
        write_process(procfs, b"attr/keycreate\0", label)?;
    }
    let key = match join_session_keyring(name) {
        Err(Failed { errno: ENOSYS, .. }) => return Ok(()),
        other => other?,
    };
    if !label.is_empty() {
        write_process(procfs, b"attr/keycreate\0", b"")?;
    }
    set_key_permissions(key, PERMISSIONS)
}

pub fn set_scheduler(attr: &[u8]) -> Done {
    let attr: &[u8; 48] = attr.try_into().map_err(|_| Failed { call: Sysno::sched_setattr, errno: E2BIG })?;
    sched_setattr(&mut attr.clone())
}

pub fn set_io_priority(value: u32) -> Done {
    const WHO_PROCESS: usize = 1;
    call(Call::ioprio_set, [WHO_PROCESS, 0, value as usize]).map(drop)
}

pub fn set_affinity(mask: &[u8]) -> Done {
    call(Call::sched_setaffinity, [0, mask.len(), mask.as_ptr() as usize]).map(drop)
}

pub fn set_personality(persona: u32) -> Done {
    call(Call::personality, [persona as usize]).map(drop)
}

/// The kernel reads one bit less than this number.
pub fn set_memory_policy(mode: u32, nodes: &[u8]) -> Done {
    let (address, bits) = match nodes {
        [] => (0, 0),
        _ => (nodes.as_ptr() as usize, nodes.len() * 8 + 1),
    };
    call(Call::set_mempolicy, [mode as usize, address, bits]).map(drop)
}

pub fn set_umask(mask: u32) -> Done {
    call(Call::umask, [mask as usize]).map(drop)
}

pub fn set_groups(groups: &[u8]) -> Done {
    call(Call::setgroups, [groups.len() / 4, groups.as_ptr() as usize]).map(drop)
}

pub fn set_ids(uid: u32, gid: u32) -> Done {
    // Root's capabilities stay (capabilities(7), "Effect of user ID changes on capabilities").
    if uid != 0 {
        prctl(Setting::KEEPCAPS, 1, 0)?;
    }
    let (uid, gid) = (uid as usize, gid as usize);
    call(Call::setresgid, [gid, gid, gid])?;
    call(Call::setresuid, [uid, uid, uid]).map(drop)
}

/// Capabilities that this kernel does not know give EINVAL; there is nothing to drop.
pub fn drop_bounding(keep: u64) -> Done {
    for capability in 0..64 {
        if keep & 1 << capability != 0 {
            continue;
        }
        match prctl(Setting::CAPBSET_DROP, capability, 0) {
            Err(Failed { errno: EINVAL, .. }) => break,
            other => other?,
        };
    }
    Ok(())
}

pub fn set_capabilities(sets: Capabilities, also: u64) -> Done {
    let (effective, permitted, inheritable) =
        (sets.effective | also, sets.permitted | also, sets.inheritable);
    let low_high = [
        [effective as u32, permitted as u32, inheritable as u32],
        [(effective >> 32) as u32, (permitted >> 32) as u32, (inheritable >> 32) as u32],
    ];
    capset(&low_high)?;
    // The kernel keeps the ambient set within the inheritable one (capabilities(7)).
    if inheritable == 0 { Ok(()) } else { raise_ambient(sets.ambient) }
}

fn raise_ambient(ambient: u64) -> Done {
    prctl(Setting::CAP_AMBIENT, p::PR_CAP_AMBIENT_CLEAR_ALL.into(), 0)?;
    for capability in (0..64u64).filter(|capability| ambient & 1 << capability != 0) {
        prctl(Setting::CAP_AMBIENT, p::PR_CAP_AMBIENT_RAISE.into(), capability)?;
    }
    Ok(())
}

pub fn no_new_privileges() -> Done {
    prctl(Setting::NO_NEW_PRIVS, 1, 0)
}

pub fn not_dumpable() -> Done {
    prctl(Setting::DUMPABLE, 0, 0)
}

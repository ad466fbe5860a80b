//! A procfs of a pid namespace that this process is not in. The members of that namespace see every process in it, with
//! its descriptors and privileges; so this process does not enter it to make the mount.

use crate::kernel::*;
use crate::{console, end, identity, mounts};
use linux_raw_sys::general as k;
use onggi_stage::NamespaceFlags;

const PROC_MAGIC: i64 = 0x9fa0;

/// A detached mount; `options` is a list of pairs, as for any filesystem.
pub fn mount(namespace: i32, options: &[u8], flags: u64) -> Done<i32> {
    let context = context(namespace)?;
    let mount = mounts::from_context(context, options, flags)?;
    match filesystem(mount)? {
        PROC_MAGIC => Ok(mount),
        _ => Err(Failed { call: Sysno::fsopen, errno: EPROTO }),
    }
}

/// Since Linux 6.17 the namespace is an option. Before, a context is for the namespace of the process that opens it.
fn context(namespace: i32) -> Done<i32> {
    let context = fsopen(b"proc\0")?;
    match fsconfig_fd(context, b"pidns\0", namespace) {
        Err(Failed { errno: EINVAL, .. }) => {
            close(context);
            opened_inside(namespace)
        }
        other => other.map(|()| context),
    }
}

/// Has a context opened by a process that has nothing open when it enters the namespace.
fn opened_inside(namespace: i32) -> Done<i32> {
    let (ours, theirs) = socketpair()?;
    let pid = fork()?;
    if pid == 0 {
        exit_with(from_nothing(namespace, theirs))
    }
    close(theirs);
    let received = end::receive_fd(ours);
    close(ours);
    match wait(pid)? {
        0 => received,
        errno => Err(Failed { call: Sysno::fsopen, errno }),
    }
}

/// The calls of the process that is in the namespace, and those of its parent, which waits for it. All others are EPERM.
const FILTER: [[u8; 8]; 12] = {
    const LOAD: u16 = 0x20;
    const IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const REFUSE: u32 = 0x0005_0001;
    // Offsets in struct seccomp_data; the flags of clone(2) are the lower half of the first argument.
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    const FLAGS: u32 = 16;
    #[cfg(target_arch = "x86_64")]
    const OWN: u32 = 0xc000_003e;
    #[cfg(target_arch = "aarch64")]
    const OWN: u32 = 0xc000_00b7;
    [
        instruction(LOAD, [0, 0], ARCHITECTURE),
        instruction(IF_EQUAL, [0, 8], OWN),
        instruction(LOAD, [0, 0], NUMBER),
        instruction(IF_EQUAL, [7, 0], Sysno::fsopen as u32),
        instruction(IF_EQUAL, [6, 0], Sysno::sendmsg as u32),
        instruction(IF_EQUAL, [5, 0], Sysno::exit_group as u32),
        instruction(IF_EQUAL, [4, 0], Sysno::wait4 as u32),
        instruction(IF_EQUAL, [0, 2], Sysno::clone as u32),
        instruction(LOAD, [0, 0], FLAGS),
        instruction(IF_EQUAL, [1, 0], SIGCHLD),
        instruction(RETURN, [0, 0], REFUSE),
        instruction(RETURN, [0, 0], ALLOW),
    ]
};

/// `struct sock_filter`; a jump skips so many instructions if true and if false.
const fn instruction(code: u16, [jump_true, jump_false]: [u8; 2], value: u32) -> [u8; 8] {
    let [a, b] = code.to_ne_bytes();
    let [c, d, e, f] = value.to_ne_bytes();
    [a, b, jump_true, jump_false, c, d, e, f]
}

fn exit_with(done: Done) -> ! {
    exit(done.err().map_or(0, |failed| failed.errno))
}

/// Closes everything but the socket, so that the child has nothing else when others can see it.
fn from_nothing(namespace: i32, socket: i32) -> Done {
    identity::not_dumpable()?;
    end::close_all_but(0, &[], &[namespace, socket])?;
    enter_nothing()?;
    close_unused();
    identity::setns(namespace, NamespaceFlags(k::CLONE_NEWPID.into()))?;
    close(namespace);
    // Then its capabilities are those of a new user namespace, where they affect nothing, and are enough for fsopen(2).
    // Best effort: a host without user namespaces refuses this, and the capabilities stay as they are.
    let _ = identity::unshare(NamespaceFlags((k::CLONE_NEWUSER | k::CLONE_NEWNS).into()));
    // A process of that pid namespace with CAP_SYS_PTRACE can look at the next process and take it over. It must find none
    // of the host's namespaces there, best effort as well, and no kernel that answers more calls than its own filter allows.
    let others = k::CLONE_NEWNET | k::CLONE_NEWIPC | k::CLONE_NEWUTS | k::CLONE_NEWCGROUP;
    let _ = identity::unshare(NamespaceFlags(others.into()));
    set_filter(FILTER.as_flattened(), 0)?;
    let pid = fork()?;
    if pid == 0 {
        exit_with(fsopen(b"proc\0").and_then(|context| console::send_fd(socket, context, b"proc")))
    }
    match wait(pid)? {
        0 => Ok(()),
        errno => Err(Failed { call: Sysno::fsopen, errno }),
    }
}

/// Enters an empty root, in a mount namespace without other mounts. An initial RAM filesystem cannot be left, and is
/// only hidden.
fn enter_nothing() -> Done {
    identity::unshare(NamespaceFlags(k::CLONE_NEWNS.into()))?;
    mounts::set_propagation(k::MS_PRIVATE.into())?;
    let empty = mounts::filesystem(b"tmpfs\0", b"mode\x000555\0", u64::from(k::MOUNT_ATTR_RDONLY), None)?;
    let root = openat(AT_FDCWD, b"/\0", k::O_PATH)?;
    move_mount(empty, root)?;
    close(root);
    if mounts::pivot_root(empty).is_err() {
        mounts::chroot(empty)?;
    }
    close(empty);
    Ok(())
}

//! The mount API by descriptors (Linux 5.2, idmapped mounts 5.12), loop devices, and the process that holds a new user
//! namespace. One function a call; decides nothing.

use nix::Result;
use nix::errno::Errno;
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

const EMPTY: &CStr = c"";

fn owned(result: libc::c_long) -> Result<OwnedFd> {
    let descriptor = Errno::result(result)? as i32;
    // SAFETY: a new descriptor, which is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// fsopen(2).
pub fn fsopen(kind: &CStr) -> Result<OwnedFd> {
    const CLOEXEC: u32 = 1;
    // SAFETY: the text lives until the call returns.
    owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), CLOEXEC) })
}

/// fsconfig(2), FSCONFIG_SET_STRING; without a value FSCONFIG_SET_FLAG.
pub fn fsconfig_set(context: impl AsFd, key: &CStr, value: Option<&CStr>) -> Result<()> {
    const FLAG: u32 = 0;
    const STRING: u32 = 1;
    let (command, text) = value.map_or((FLAG, std::ptr::null()), |value| (STRING, value.as_ptr()));
    let context = context.as_fd().as_raw_fd();
    // SAFETY: both texts live until the call returns.
    Errno::result(unsafe { libc::syscall(libc::SYS_fsconfig, context, command, key.as_ptr(), text, 0) })
        .map(drop)
}

/// fsconfig(2), FSCONFIG_CMD_CREATE.
pub fn fsconfig_create(context: impl AsFd) -> Result<()> {
    const CREATE: u32 = 6;
    let (context, none) = (context.as_fd().as_raw_fd(), std::ptr::null::<u8>());
    // SAFETY: numbers, and no addresses.
    Errno::result(unsafe { libc::syscall(libc::SYS_fsconfig, context, CREATE, none, none, 0) }).map(drop)
}

/// fsmount(2).
pub fn fsmount(context: impl AsFd, attributes: u64) -> Result<OwnedFd> {
    const CLOEXEC: u32 = 1;
    // SAFETY: numbers.
    owned(unsafe {
        libc::syscall(libc::SYS_fsmount, context.as_fd().as_raw_fd(), CLOEXEC, attributes as u32)
    })
}

/// open_tree(2), OPEN_TREE_CLONE: a copy of the mount, which is attached nowhere.
pub fn clone_mount(path: &CStr, recursive: bool) -> Result<OwnedFd> {
    let recursive = if recursive { libc::AT_RECURSIVE as u32 } else { 0 };
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | recursive;
    // SAFETY: the text lives until the call returns.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

/// move_mount(2), MOVE_MOUNT_F_EMPTY_PATH.
pub fn attach_mount(mount: impl AsFd, path: &CStr) -> Result<()> {
    const FROM_EMPTY_PATH: u32 = 4;
    let mount = mount.as_fd().as_raw_fd();
    // SAFETY: both texts live until the call returns.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount,
            EMPTY.as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            FROM_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// mount_setattr(2), MOUNT_ATTR_IDMAP.
pub fn set_id_map(mount: impl AsFd, user_namespace: impl AsFd, recursive: bool) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: user_namespace.as_fd().as_raw_fd() as u64,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let (mount, size) = (mount.as_fd().as_raw_fd(), size_of_val(&attributes));
    // SAFETY: the kernel reads `size` bytes of a structure that lives until the call returns.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_mount_setattr, mount, EMPTY.as_ptr(), flags, &raw const attributes, size)
    })
    .map(drop)
}

/// loop(4), LOOP_CTL_GET_FREE: the number of a device that nobody uses now.
pub fn free_loop_device(control: &File) -> Result<i32> {
    const GET_FREE: u32 = 0x4C82;
    // SAFETY: a number.
    Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE as _) })
}

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
struct LoopInfo {
    /// Device, inode, rdevice, offset and size limit.
    place: [u64; 5],
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    file: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// loop(4), LOOP_CONFIGURE with LO_FLAGS_AUTOCLEAR: the device lets go of the file with its last user.
pub fn configure_loop_device(device: &File, file: &File, name: &str, read_only: bool) -> Result<()> {
    const CONFIGURE: u32 = 0x4C0A;
    const READ_ONLY: u32 = 1;
    const AUTOCLEAR: u32 = 4;
    // SAFETY: numbers alone, of which zero is the default.
    let mut config: LoopConfig = unsafe { std::mem::zeroed() };
    config.file = file.as_raw_fd() as u32;
    config.info.flags = AUTOCLEAR | if read_only { READ_ONLY } else { 0 };
    // For losetup(8); the last byte stays zero.
    let length = name.len().min(config.info.file_name.len() - 1);
    config.info.file_name[..length].copy_from_slice(&name.as_bytes()[..length]);
    // SAFETY: the kernel reads one structure that lives until the call returns.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE as _, &raw const config) }).map(drop)
}

/// A process that only holds a new user namespace, so that its maps can be written. Dropping the holder ends it; a
/// descriptor of the namespace keeps the namespace.
pub struct NamespaceHolder(pub i32);

impl NamespaceHolder {
    pub fn new() -> Result<Self> {
        // SAFETY: numbers.
        let parent = unsafe { libc::getpid() };
        // SAFETY: zeros are "not asked for"; without an exit signal the end raises no SIGCHLD.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.flags = libc::CLONE_NEWUSER as u64;
        // SAFETY: as fork(2); the child makes system calls alone, for other threads may have held locks.
        let made =
            unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
        if made == 0 {
            hold_until_the_end_of(parent);
        }
        Errno::result(made).map(|pid| Self(pid as i32))
    }
}

/// Also where the parent is killed meanwhile.
fn hold_until_the_end_of(parent: i32) -> ! {
    // SAFETY: numbers, and for ppoll(2) no addresses: it waits without an end.
    unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        while libc::syscall(libc::SYS_getppid) == libc::c_long::from(parent) {
            libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0, 0);
        }
        libc::_exit(0)
    }
}

impl Drop for NamespaceHolder {
    fn drop(&mut self) {
        // SAFETY: numbers; only this thread waits for the child, so the pid is its own until then.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            while libc::waitpid(self.0, std::ptr::null_mut(), libc::__WALL) < 0
                && Errno::last() == Errno::EINTR
            {}
        }
    }
}

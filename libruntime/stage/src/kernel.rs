//! The system calls, one function each, with their arguments in the kernel's order. Nothing is
//! decided here; a failure carries the call's number, so that the library can name it.

use linux_raw_sys::general as k;
pub use syscalls::Sysno;

/// A failed system call. Becomes [`onggi_stage::Report::Failed`].
#[derive(Clone, Copy)]
pub struct Failed {
    pub call: Sysno,
    pub errno: i32,
}

pub type Done<T = ()> = Result<T, Failed>;

pub const EPERM: i32 = 1;
pub const ENOENT: i32 = 2;
pub const EINTR: i32 = 4;
pub const EBADF: i32 = 9;
pub const EACCES: i32 = 13;
pub const EEXIST: i32 = 17;
pub const ENODEV: i32 = 19;
pub const ENOTDIR: i32 = 20;
pub const EISDIR: i32 = 21;
pub const EINVAL: i32 = 22;
pub const ENOSYS: i32 = 38;
pub const ELOOP: i32 = 40;
pub const E2BIG: i32 = 7;
pub const EPROTO: i32 = 71;
pub const ENAMETOOLONG: i32 = 36;
pub const ESTALE: i32 = 116;

pub const AT_FDCWD: i32 = k::AT_FDCWD;

/// A system call with up to six arguments.
#[inline(always)]
pub fn call<const N: usize>(nr: Sysno, given: [usize; N]) -> Done<usize> {
    let mut args = [0usize; 6];
    args[..N].copy_from_slice(&given);
    // SAFETY: every caller in this file and its siblings passes what the call's man page asks for;
    // pointers come from live borrows in the same expression.
    let result =
        unsafe { syscalls::raw::syscall6(nr as usize, args[0], args[1], args[2], args[3], args[4], args[5]) };
    if result > -4096isize as usize {
        return Err(Failed { call: nr, errno: -(result as isize) as i32 });
    }
    Ok(result)
}

/// The bytes of a plan's path: they end in NUL by construction, which is checked once more here.
pub fn path(text: &[u8]) -> Done<usize> {
    match text.last() {
        Some(0) => Ok(text.as_ptr() as usize),
        _ => Err(Failed { call: Sysno::openat2, errno: EINVAL }),
    }
}

/// A filter of the container may refuse exit_group(2), and exit(2) with it; no filter refuses the instruction
/// that traps, and the kernel ends the process if its signal is blocked or ignored (signal(7)).
pub fn exit(code: i32) -> ! {
    let _ = call(Sysno::exit_group, [code as usize]);
    let _ = call(Sysno::exit, [code as usize]);
    crate::bare::trap()
}

pub fn close(fd: i32) {
    let _ = call(Sysno::close, [fd as usize]);
}

/// openat2(2).
pub fn openat2(dir: i32, name: &[u8], flags: u32, mode: u32, resolve: u32) -> Done<i32> {
    let how = k::open_how { flags: flags.into(), mode: mode.into(), resolve: resolve.into() };
    let size = size_of::<k::open_how>();
    let at = path(name)?;
    loop {
        match call(Sysno::openat2, [dir as usize, at, &raw const how as usize, size]) {
            // The kernel may ask to try again when a rename raced with the look-up.
            Err(Failed { errno: 11, .. }) => {}
            other => return other.map(|fd| fd as i32),
        }
    }
}

pub fn openat(dir: i32, name: &[u8], flags: u32) -> Done<i32> {
    call(Sysno::openat, [dir as usize, path(name)?, (flags | k::O_CLOEXEC) as usize, 0]).map(|fd| fd as i32)
}

pub fn read(fd: i32, into: &mut [u8]) -> Done<usize> {
    call(Sysno::read, [fd as usize, into.as_mut_ptr() as usize, into.len()])
}

/// One write(2) that must take all of `bytes`, as files of procfs ask for.
pub fn write(fd: i32, bytes: &[u8]) -> Done {
    match call(Sysno::write, [fd as usize, bytes.as_ptr() as usize, bytes.len()])? {
        n if n == bytes.len() => Ok(()),
        _ => Err(Failed { call: Sysno::write, errno: EINVAL }),
    }
}

/// What statx(2) says of the file behind `fd` itself.
pub fn statx(fd: i32) -> Done<k::statx> {
    // SAFETY: the structure is plain integers, for which zeros are a value.
    let mut found: k::statx = unsafe { core::mem::zeroed() };
    let (flags, mask) = (k::AT_EMPTY_PATH, k::STATX_BASIC_STATS | k::STATX_MNT_ID);
    let empty = c"".as_ptr() as usize;
    call(Sysno::statx, [fd as usize, empty, flags as usize, mask as usize, &raw mut found as usize])?;
    Ok(found)
}

pub fn is_directory(fd: i32) -> Done<bool> {
    Ok(u32::from(statx(fd)?.stx_mode) & k::S_IFMT == k::S_IFDIR)
}

pub fn is_regular(fd: i32) -> Done<bool> {
    Ok(u32::from(statx(fd)?.stx_mode) & k::S_IFMT == k::S_IFREG)
}

/// The magic number of the filesystem that `fd` is on.
pub fn filesystem(fd: i32) -> Done<i64> {
    let mut found = [0u64; 32];
    call(Sysno::fstatfs, [fd as usize, found.as_mut_ptr() as usize])?;
    Ok(found[0] as i64)
}

pub fn mkdirat(dir: i32, name: &[u8], mode: u32) -> Done {
    call(Sysno::mkdirat, [dir as usize, path(name)?, mode as usize]).map(drop)
}

pub fn mknodat(dir: i32, name: &[u8], mode: u32, major: u32, minor: u32) -> Done {
    let dev = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
    call(Sysno::mknodat, [dir as usize, path(name)?, mode as usize, dev as usize]).map(drop)
}

pub fn symlinkat(content: &[u8], dir: i32, name: &[u8]) -> Done {
    call(Sysno::symlinkat, [path(content)?, dir as usize, path(name)?]).map(drop)
}

/// The content of the link `name` in `dir`, without a NUL.
pub fn readlinkat<'a>(dir: i32, name: &[u8], into: &'a mut [u8]) -> Done<&'a [u8]> {
    let room = into.len();
    let length = call(Sysno::readlinkat, [dir as usize, path(name)?, into.as_mut_ptr() as usize, room])?;
    into.get(..length).ok_or(Failed { call: Sysno::readlinkat, errno: ENAMETOOLONG })
}

pub fn fchownat(dir: i32, name: &[u8], uid: u32, gid: u32) -> Done {
    let flags = k::AT_EMPTY_PATH | k::AT_SYMLINK_NOFOLLOW;
    call(Sysno::fchownat, [dir as usize, path(name)?, uid as usize, gid as usize, flags as usize]).map(drop)
}

pub fn fchdir(fd: i32) -> Done {
    call(Sysno::fchdir, [fd as usize]).map(drop)
}

// --- mounts: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2) ---

pub fn fsopen(fstype: &[u8]) -> Done<i32> {
    call(Sysno::fsopen, [path(fstype)?, k::FSOPEN_CLOEXEC as usize]).map(|fd| fd as i32)
}

pub const FSCONFIG_SET_FLAG: usize = 0;
pub const FSCONFIG_SET_STRING: usize = 1;
const FSCONFIG_CMD_CREATE: usize = 6;

/// `key` and `value` end in NUL; a flag has an empty value.
pub fn fsconfig(fs: i32, command: usize, key: &[u8], value: &[u8]) -> Done {
    let value = if command == FSCONFIG_SET_FLAG { 0 } else { path(value)? };
    call(Sysno::fsconfig, [fs as usize, command, path(key)?, value, 0]).map(drop)
}

/// A key whose value is a descriptor.
pub fn fsconfig_fd(fs: i32, key: &[u8], value: i32) -> Done {
    const FSCONFIG_SET_FD: usize = 5;
    call(Sysno::fsconfig, [fs as usize, FSCONFIG_SET_FD, path(key)?, 0, value as usize]).map(drop)
}

/// Makes the superblock and a detached mount of it.
pub fn fsmount(fs: i32, attributes: u64) -> Done<i32> {
    call(Sysno::fsconfig, [fs as usize, FSCONFIG_CMD_CREATE, 0, 0, 0])?;
    let flags = k::FSMOUNT_CLOEXEC as usize;
    call(Sysno::fsmount, [fs as usize, flags, attributes as usize]).map(|fd| fd as i32)
}

pub fn open_tree(dir: i32, name: &[u8], recursive: bool) -> Done<i32> {
    let recursive = if recursive { k::AT_RECURSIVE } else { 0 };
    let flags = k::OPEN_TREE_CLONE | k::O_CLOEXEC | k::AT_EMPTY_PATH | recursive;
    call(Sysno::open_tree, [dir as usize, path(name)?, flags as usize]).map(|fd| fd as i32)
}

/// move_mount(2), from descriptor to descriptor.
pub fn move_mount(from: i32, to: i32) -> Done {
    let empty = c"".as_ptr() as usize;
    let flags = k::MOVE_MOUNT_F_EMPTY_PATH | k::MOVE_MOUNT_T_EMPTY_PATH;
    call(Sysno::move_mount, [from as usize, empty, to as usize, empty, flags as usize]).map(drop)
}

/// mount_setattr(2) on the mount behind `fd`; `userns` is used with `MOUNT_ATTR_IDMAP`.
/// `what` is the type, the source and the options.
pub fn mount(what: (&[u8], &[u8], &[u8]), target: &[u8], flags: u32) -> Done {
    let (fstype, source, options) = (path(what.0)?, path(what.1)?, path(what.2)?);
    call(Sysno::mount, [source, path(target)?, fstype, flags as usize, options]).map(drop)
}

pub fn mount_setattr(fd: i32, recursive: bool, set: u64, clear: u64, propagation: u64, userns: i32) -> Done {
    let attr = k::mount_attr { attr_set: set, attr_clr: clear, propagation, userns_fd: userns as u64 };
    let flags = k::AT_EMPTY_PATH | if recursive { k::AT_RECURSIVE } else { 0 };
    let (empty, size) = (c"".as_ptr() as usize, size_of::<k::mount_attr>());
    call(Sysno::mount_setattr, [fd as usize, empty, flags as usize, &raw const attr as usize, size]).map(drop)
}

/// A child with a copy of everything, like fork(2); 0 is the child.
pub fn fork() -> Done<i32> {
    const SIGCHLD: u64 = 17;
    // SAFETY: the structure is plain integers, for which zeros are a value.
    let mut args: k::clone_args = unsafe { core::mem::zeroed() };
    args.exit_signal = SIGCHLD;
    call(Sysno::clone3, [&raw const args as usize, size_of::<k::clone_args>()]).map(|pid| pid as i32)
}

/// The exit code of a child; one that was killed has none, which is an errno of its own.
pub fn wait(pid: i32) -> Done<i32> {
    let mut status = 0i32;
    loop {
        match call(Sysno::wait4, [pid as usize, &raw mut status as usize, 0, 0]) {
            Err(Failed { errno: EINTR, .. }) => {}
            Ok(_) if status & 0x7f != 0 => return Err(Failed { call: Sysno::wait4, errno: EPROTO }),
            other => return other.map(|_| status >> 8 & 0xff),
        }
    }
}

/// A pair of sockets for datagrams.
pub fn socketpair() -> Done<(i32, i32)> {
    const UNIX: usize = 1;
    const SEQPACKET_CLOEXEC: usize = 5 | 0x8_0000;
    let mut pair = [0i32; 2];
    call(Sysno::socketpair, [UNIX, SEQPACKET_CLOEXEC, 0, pair.as_mut_ptr() as usize])?;
    Ok((pair[0], pair[1]))
}

pub fn prctl(option: u32, a: u64, b: u64) -> Done<usize> {
    call(Sysno::prctl, [option as usize, a as usize, b as usize, 0, 0])
}

pub fn ioctl(fd: i32, request: u32, argument: usize) -> Done<usize> {
    call(Sysno::ioctl, [fd as usize, request as usize, argument])
}

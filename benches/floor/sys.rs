//! The system calls that floor makes, each as one safe function that ends in an `io::Result`.
//!
//! It decides nothing; what is called in which order is in `main.rs`, `by_path.rs` and `by_fd.rs`.
//! There is no libc crate here (floor is compiled by the build script with nothing but std), so the
//! few C functions and constants are declared by hand.

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_ulong, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{null, null_mut};

#[cfg(target_arch = "x86_64")]
mod nr {
    pub const PIVOT_ROOT: i64 = 155;
    pub const KEYCTL: i64 = 250;
    pub const BPF: i64 = 321;
}
#[cfg(target_arch = "aarch64")]
mod nr {
    pub const PIVOT_ROOT: i64 = 41;
    pub const KEYCTL: i64 = 219;
    pub const BPF: i64 = 280;
}
const OPEN_TREE: c_long = 428;
const MOVE_MOUNT: c_long = 429;
const FSOPEN: c_long = 430;
const FSCONFIG: c_long = 431;
const FSMOUNT: c_long = 432;
const PIDFD_OPEN: c_long = 434;
const CLONE3: c_long = 435;
const OPENAT2: c_long = 437;
const MOUNT_SETATTR: c_long = 442;

pub const AT_FDCWD: c_int = -100;
pub const NEWCGROUP: u64 = 0x0200_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const SIGCHLD: u64 = 17;

pub const MS_RDONLY: c_ulong = 1;
pub const MS_REMOUNT: c_ulong = 32;
pub const MS_BIND: c_ulong = 4096;
pub const MS_REC: c_ulong = 16384;
pub const MS_PRIVATE: c_ulong = 1 << 18;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
    fn umount2(target: *const c_char, flags: c_int) -> c_int;
    fn unshare(flags: c_int) -> c_int;
    fn setns(fd: c_int, flags: c_int) -> c_int;
    fn mkdirat(dir: c_int, path: *const c_char, mode: u32) -> c_int;
    fn mknodat(dir: c_int, path: *const c_char, mode: u32, device: u64) -> c_int;
    fn symlinkat(text: *const c_char, dir: c_int, path: *const c_char) -> c_int;
    fn fchdir(fd: c_int) -> c_int;
    fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
    fn sethostname(name: *const c_char, length: usize) -> c_int;
    fn setgroups(count: usize, groups: *const u32) -> c_int;
    fn setgid(gid: u32) -> c_int;
    fn setuid(uid: u32) -> c_int;
    fn umask(mask: u32) -> u32;
    fn prctl(option: c_int, ...) -> c_int;
    fn capset(header: *const u32, data: *const u32) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn execve(path: *const c_char, args: *const *const c_char, env: *const *const c_char) -> c_int;
}

fn done(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn fd(result: c_long) -> io::Result<OwnedFd> {
    // SAFETY: the system calls whose result comes here return a new descriptor that nobody else owns.
    done(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

pub fn c(text: &str) -> CString {
    CString::new(text).expect("plan lines hold no NUL")
}

fn pointer(text: Option<&CStr>) -> *const c_char {
    text.map_or(null(), CStr::as_ptr)
}

/// mount(2).
pub fn mount_at(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: c_ulong,
    data: &str,
) -> io::Result<()> {
    let data = c(data);
    // SAFETY: every pointer is null or a NUL-terminated string that outlives the call.
    done(unsafe {
        mount(pointer(source), target.as_ptr(), pointer(kind), flags, data.as_ptr().cast()).into()
    })?;
    Ok(())
}

/// clone3(2) without shared memory. `into` is the cgroup v2 directory to be born in. Ok(0) in the child.
pub fn clone3(namespaces: u64, into: Option<BorrowedFd>) -> io::Result<c_int> {
    // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls,
    // set_tid, set_tid_size, cgroup.
    let mut args = [0u64; 11];
    args[0] = namespaces | into.map_or(0, |_| CLONE_INTO_CGROUP);
    args[4] = SIGCHLD;
    args[10] = into.map_or(0, |fd| fd.as_raw_fd() as u64);
    // SAFETY: without CLONE_VM the child has its own copy of everything, floor has one thread only, and
    // `args` is a complete clone_args of the size that is given.
    done(unsafe { syscall(CLONE3, args.as_ptr(), size_of_val(&args)) }).map(|pid| pid as c_int)
}

/// waitpid(2); Ok only for exit code 0.
pub fn wait_for(pid: c_int) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the one int that is written.
    done(unsafe { waitpid(pid, &mut status, 0).into() })?;
    if status == 0 { Ok(()) } else { Err(io::Error::other(format!("child ended with status {status:#x}"))) }
}

pub fn pidfd_open(pid: c_int) -> io::Result<OwnedFd> {
    // SAFETY: only integers are passed.
    fd(unsafe { syscall(PIDFD_OPEN, pid, 0) })
}

pub fn join(fd: BorrowedFd, namespaces: u64) -> io::Result<()> {
    // SAFETY: only integers are passed; floor has one thread.
    done(unsafe { setns(fd.as_raw_fd(), namespaces as c_int).into() }).map(drop)
}

pub fn leave(namespaces: u64) -> io::Result<()> {
    // SAFETY: only an integer is passed; floor has one thread.
    done(unsafe { unshare(namespaces as c_int).into() }).map(drop)
}

pub fn mkdir_at(dir: c_int, path: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: `path` is NUL-terminated and outlives the call.
    done(unsafe { mkdirat(dir, path.as_ptr(), mode).into() }).map(drop)
}

pub fn mknod_at(dir: c_int, path: &CStr, mode: u32, major: u64, minor: u64) -> io::Result<()> {
    // SAFETY: `path` is NUL-terminated and outlives the call. Majors and minors below 256 need no more.
    done(unsafe { mknodat(dir, path.as_ptr(), 0o020000 | mode, major << 8 | minor).into() }).map(drop)
}

pub fn symlink_at(text: &CStr, dir: c_int, path: &CStr) -> io::Result<()> {
    // SAFETY: both strings are NUL-terminated and outlive the call.
    done(unsafe { symlinkat(text.as_ptr(), dir, path.as_ptr()).into() }).map(drop)
}

/// openat2(2) with O_PATH, RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS.
pub fn open_in_root(root: BorrowedFd, path: &CStr) -> io::Result<OwnedFd> {
    const O_PATH_CLOEXEC: u64 = 0o12000000;
    let how: [u64; 3] = [O_PATH_CLOEXEC, 0, 0x10 | 0x02];
    // SAFETY: `how` is a complete open_how of the size given, `path` is NUL-terminated.
    fd(unsafe { syscall(OPENAT2, root.as_raw_fd(), path.as_ptr(), how.as_ptr(), size_of_val(&how)) })
}

/// open_tree(2) with OPEN_TREE_CLONE, recursive; an empty path means the descriptor itself.
pub fn clone_tree(dir: c_int, path: &CStr) -> io::Result<OwnedFd> {
    const FLAGS: u32 = 1 | 0o2000000 | 0x8000 | 0x1000;
    // SAFETY: `path` is NUL-terminated and outlives the call.
    fd(unsafe { syscall(OPEN_TREE, dir, path.as_ptr(), FLAGS) })
}

/// move_mount(2) from one descriptor to another.
pub fn attach(tree: BorrowedFd, target: BorrowedFd) -> io::Result<()> {
    const BOTH_PATHS_EMPTY: u32 = 0x04 | 0x40;
    let (empty, from, to) = (c"".as_ptr(), tree.as_raw_fd(), target.as_raw_fd());
    // SAFETY: both paths are the static empty string.
    done(unsafe { syscall(MOVE_MOUNT, from, empty, to, empty, BOTH_PATHS_EMPTY) }).map(drop)
}

pub fn fsopen(kind: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: `kind` is NUL-terminated and outlives the call.
    fd(unsafe { syscall(FSOPEN, kind.as_ptr(), 1) })
}

/// fsconfig(2): a string when there is a value, else a flag.
pub fn fsconfig(fs: BorrowedFd, key: &CStr, value: Option<&CStr>) -> io::Result<()> {
    let command = if value.is_some() { 1 } else { 0 };
    // SAFETY: key and value are null or NUL-terminated and outlive the call.
    done(unsafe { syscall(FSCONFIG, fs.as_raw_fd(), command, key.as_ptr(), pointer(value), 0) }).map(drop)
}

/// FSCONFIG_CMD_CREATE and fsmount(2).
pub fn fsmount(fs: BorrowedFd, attributes: u64) -> io::Result<OwnedFd> {
    // SAFETY: this command takes no key and no value.
    done(unsafe { syscall(FSCONFIG, fs.as_raw_fd(), 6, null::<c_char>(), null::<c_char>(), 0) })?;
    // SAFETY: only integers are passed.
    fd(unsafe { syscall(FSMOUNT, fs.as_raw_fd(), 1, attributes as u32) })
}

/// mount_setattr(2) on a descriptor: adds attributes and, when it is not 0, sets the propagation.
pub fn mount_setattr(tree: BorrowedFd, add: u64, propagation: u64, recursive: bool) -> io::Result<()> {
    let attr: [u64; 4] = [add, 0, propagation, 0];
    let flags: u32 = 0x1000 | if recursive { 0x8000 } else { 0 };
    let empty = c"".as_ptr();
    // SAFETY: `attr` is a complete mount_attr of the size given.
    done(unsafe { syscall(MOUNT_SETATTR, tree.as_raw_fd(), empty, flags, attr.as_ptr(), size_of_val(&attr)) })
        .map(drop)
}

/// pivot_root(".", ".") and the unmounting of the old root that is then stacked on top.
pub fn pivot(root: Option<BorrowedFd>) -> io::Result<()> {
    if let Some(root) = root {
        // SAFETY: only an integer is passed.
        done(unsafe { fchdir(root.as_raw_fd()).into() })?;
    }
    // SAFETY: both paths are static strings.
    done(unsafe { syscall(nr::PIVOT_ROOT, c".".as_ptr(), c".".as_ptr()) })?;
    // SAFETY: the path is a static string; 2 is MNT_DETACH.
    done(unsafe { umount2(c".".as_ptr(), 2).into() })?;
    std::env::set_current_dir("/")
}

pub fn hostname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length describe one string.
    done(unsafe { sethostname(name.as_ptr().cast(), name.len()).into() }).map(drop)
}

/// Sets the interface `lo` up (netdevice(7)).
pub fn loopback_up() -> io::Result<()> {
    const INET: c_int = 2;
    const DGRAM_CLOEXEC: c_int = 2 | 0x8_0000;
    const SIOCSIFFLAGS: c_ulong = 0x8914;
    const UP: u64 = 1;
    // SAFETY: integers only.
    let socket = fd(unsafe { socket(INET, DGRAM_CLOEXEC, 0) }.into())?;
    // struct ifreq: a name of 16 bytes, and a union of 24.
    let request = [u64::from_ne_bytes(*b"lo\0\0\0\0\0\0"), 0, UP, 0, 0];
    // SAFETY: the kernel reads the structure.
    done(unsafe { ioctl(socket.as_raw_fd(), SIOCSIFFLAGS, request.as_ptr()) }.into()).map(drop)
}

/// Joins a new session keyring.
pub fn keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: no name is given, so the kernel reads no memory.
    done(unsafe { syscall(nr::KEYCTL, JOIN_SESSION_KEYRING, null::<c_char>()) }).map(drop)
}

pub fn clear_umask() {
    // SAFETY: umask only swaps a number and cannot fail.
    unsafe { umask(0) };
}

pub fn identity(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: pointer and length describe one slice; the other calls pass integers.
    done(unsafe { setgroups(groups.len(), groups.as_ptr()).into() })?;
    // SAFETY: as above.
    done(unsafe { setgid(gid).into() })?;
    // SAFETY: as above.
    done(unsafe { setuid(uid).into() }).map(drop)
}

/// Drops everything outside `keep` from the bounding set and makes `keep` permitted and effective.
pub fn capabilities(keep: u64, last: u32) -> io::Result<()> {
    const PR_CAPBSET_DROP: c_int = 24;
    for capability in (0..=last).filter(|bit| keep >> bit & 1 == 0) {
        // SAFETY: only integers are passed.
        done(unsafe { prctl(PR_CAPBSET_DROP, c_ulong::from(capability), 0, 0, 0).into() })?;
    }
    let (low, high) = (keep as u32, (keep >> 32) as u32);
    let header: [u32; 2] = [0x2008_0522, 0];
    let data = [low, low, 0, high, high, 0];
    // SAFETY: version 3 reads a two-word header and two sets of three words.
    done(unsafe { capset(header.as_ptr(), data.as_ptr()).into() }).map(drop)
}

/// Loads a device program that allows everything and attaches it to a cgroup v2 directory: the least
/// that any runtime with device rules has to ask for.
pub fn device_program(cgroup: BorrowedFd) -> io::Result<()> {
    // mov r0, 1; exit
    let code: [u64; 2] = [0x0000_0001_0000_00b7, 0x95];
    let license = c"GPL";
    let mut load = [0u64; 16];
    load[0] = 15 | 2 << 32; // BPF_PROG_TYPE_CGROUP_DEVICE, two instructions
    load[1] = code.as_ptr() as u64;
    load[2] = license.as_ptr() as u64;
    // SAFETY: `load` is a zero-padded bpf_attr of the size given; code and license outlive the call.
    let program = fd(unsafe { syscall(nr::BPF, 5, load.as_ptr(), size_of_val(&load)) })?;
    // target_fd and attach_bpf_fd; BPF_CGROUP_DEVICE and BPF_F_ALLOW_MULTI.
    let bind: [u64; 2] = [cgroup.as_raw_fd() as u64 | (program.as_raw_fd() as u64) << 32, 6 | 2 << 32];
    // SAFETY: `bind` is the leading part of a bpf_attr, of the size given.
    done(unsafe { syscall(nr::BPF, 8, bind.as_ptr(), size_of_val(&bind)) }).map(drop)
}

/// execve(2); returns only on failure.
pub fn exec(args: &[&str], env: &[String]) -> io::Error {
    let args: Vec<CString> = args.iter().map(|text| c(text)).collect();
    let env: Vec<CString> = env.iter().map(|text| c(text)).collect();
    let list = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|text| text.as_ptr()).chain([null_mut::<c_char>().cast_const()]).collect()
    };
    let (arg_list, env_list) = (list(&args), list(&env));
    // SAFETY: both lists end in a null pointer and their strings outlive the call.
    unsafe { execve(args[0].as_ptr(), arg_list.as_ptr(), env_list.as_ptr()) };
    io::Error::last_os_error()
}

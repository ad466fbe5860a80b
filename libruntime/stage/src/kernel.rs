//! The system calls, one function each, with their arguments in the kernel's order. Nothing is
//! decided here; a failure carries the call's number, so that the library can name it.
//!
//! All unsafe calls of the stage are here. [`call`] makes those that cannot harm this process's memory; each
//! of the others has a function of its own, whose types say what the kernel writes and where.

pub use crate::errno::*;
use crate::unused;
use core::sync::atomic::AtomicU64;
use linux_raw_sys::{general as k, ioctl, prctl as p};
pub use syscalls::Sysno;

/// A failed system call. Becomes [`onggi_stage::Report::Failed`].
#[derive(Clone, Copy)]
pub struct Failed {
    pub call: Sysno,
    pub errno: i32,
}

pub type Done<T = ()> = Result<T, Failed>;

pub const AT_FDCWD: i32 = k::AT_FDCWD;

/// A system call that is safe with any argument: the kernel writes nothing into the memory of this process and maps
/// nothing there. It only reads memory, and returns EFAULT for a bad address.
#[derive(Clone, Copy)]
pub struct Call(Sysno);

macro_rules! safe_with_any_argument {
    ($($name:ident)*) => {
        #[allow(non_upper_case_globals)]
        impl Call {
            $(pub const $name: Self = Self(Sysno::$name);)*
        }
    };
}

// Not in the list: calls with a command that chooses whether the kernel writes (prctl, ioctl, fcntl, keyctl, seccomp),
// and those that write on failure (capset, sched_setattr).
safe_with_any_argument! {
    chdir chroot close close_range dup3 execve execveat exit exit_group faccessat2 fchdir fchmodat fchownat fsconfig fsmount
    fsopen ioprio_set lseek mkdirat mknodat mount mount_setattr move_mount open_tree openat openat2 personality
    pivot_root sched_setaffinity sendmsg sendto set_mempolicy setdomainname setgroups sethostname setns setresgid
    setresuid setsid socket symlinkat umask umount2 unlinkat unshare write
}

#[inline(always)]
pub fn call<const N: usize>(nr: Call, given: [usize; N]) -> Done<usize> {
    // SAFETY: the kernel writes nothing into our memory; see `Call`.
    unsafe { raw(nr.0, given) }
}

/// A system call with up to six arguments. A call that a signal has interrupted is repeated: even SIGCONT (signal(7))
/// or a tracer can interrupt one. close(2) has closed the descriptor even then.
///
/// # Safety
/// Where the kernel writes through an argument, that is the address of memory that is ours to write, and as large.
#[inline(always)]
unsafe fn raw<const N: usize>(nr: Sysno, given: [usize; N]) -> Done<usize> {
    let mut args = [0usize; 6];
    args[..N].copy_from_slice(&given);
    loop {
        // SAFETY: the caller vouches for what the kernel writes.
        let result = unsafe {
            syscalls::raw::syscall6(nr as usize, args[0], args[1], args[2], args[3], args[4], args[5])
        };
        let errno = -(result as isize) as i32;
        if result <= -4096isize as usize {
            return Ok(result);
        }
        if !is_repeated(nr, errno) {
            return Err(Failed { call: nr, errno });
        }
    }
}

#[cold]
#[inline(never)]
fn is_repeated(nr: Sysno, errno: i32) -> bool {
    match errno {
        EINTR => nr as usize != Sysno::close as usize,
        // Those that are not used any more may be what is missing.
        EMFILE | ENFILE => close_unused(),
        _ => false,
    }
}

/// The address of a plan's path. It ends in NUL by construction, which is checked once more here.
pub fn path(text: &[u8]) -> Done<usize> {
    match text.last() {
        Some(0) => Ok(text.as_ptr() as usize),
        _ => Err(Failed { call: Sysno::openat2, errno: EINVAL }),
    }
}

/// A filter of the container may refuse exit_group(2) and exit(2). No filter refuses the trapping instruction, and the
/// kernel kills the process even if its signal is blocked or ignored (signal(7)).
pub fn exit(code: i32) -> ! {
    let _ = call(Call::exit_group, [code as usize]);
    let _ = call(Call::exit, [code as usize]);
    crate::bare::trap()
}

pub fn close(fd: i32) {
    let _ = call(Call::close, [fd as usize]);
}

/// Closes a descriptor together with others, by fewer calls, at the latest with [`onggi_stage::Step::CloseFds`]. Not for
/// one whose end somebody waits for, nor where processes of the container can see this one.
pub fn close_later(fd: i32) {
    match unused::add(fd) {
        None => close(fd),
        Some(count) if count < unused::MOST => {}
        Some(_) => drop(close_unused()),
    }
}

/// Closes what [`close_later`] was called with. Returns whether there was anything.
pub fn close_unused() -> bool {
    let close = |(first, last)| call(Call::close_range, [first as usize, last as usize, 0]).is_ok();
    unused::take().fold(false, |any, range| close(range) | any)
}

/// openat2(2).
pub fn openat2(dir: i32, name: &[u8], flags: u32, mode: u32, resolve: u32) -> Done<i32> {
    let how = k::open_how { flags: flags.into(), mode: mode.into(), resolve: resolve.into() };
    let size = size_of::<k::open_how>();
    let at = path(name)?;
    // openat2(2) returns EAGAIN when a rename raced with the look-up of a `..`. A container can have a link with many
    // of these, and rename all the time, so the number of tries is bounded.
    const TRIES: u32 = 1 << 14;
    for _ in 1..TRIES {
        match call(Call::openat2, [dir as usize, at, &raw const how as usize, size]) {
            Err(Failed { errno: EAGAIN, .. }) => {}
            other => return other.map(|fd| fd as i32),
        }
    }
    Err(Failed { call: Sysno::openat2, errno: EAGAIN })
}

pub fn openat(dir: i32, name: &[u8], flags: u32) -> Done<i32> {
    call(Call::openat, [dir as usize, path(name)?, (flags | k::O_CLOEXEC) as usize, 0]).map(|fd| fd as i32)
}

pub fn read(fd: i32, into: &mut [u8]) -> Done<usize> {
    // SAFETY: the kernel writes at most this length.
    unsafe { raw(Sysno::read, [fd as usize, into.as_mut_ptr() as usize, into.len()]) }
}

/// One write(2) that has to write all of `bytes`, as files of procfs require.
pub fn write(fd: i32, bytes: &[u8]) -> Done {
    match call(Call::write, [fd as usize, bytes.as_ptr() as usize, bytes.len()])? {
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
    // SAFETY: the kernel writes one such structure.
    unsafe {
        raw(Sysno::statx, [fd as usize, empty, flags as usize, mask as usize, &raw mut found as usize])
    }?;
    Ok(found)
}

pub fn is_directory(fd: i32) -> Done<bool> {
    Ok(u32::from(statx(fd)?.stx_mode) & k::S_IFMT == k::S_IFDIR)
}

pub fn is_link(fd: i32) -> Done<bool> {
    Ok(u32::from(statx(fd)?.stx_mode) & k::S_IFMT == k::S_IFLNK)
}

/// The magic number of the filesystem that `fd` is on.
pub fn filesystem(fd: i32) -> Done<i64> {
    let mut found = [0u64; 32];
    // SAFETY: struct statfs has 120 bytes.
    unsafe { raw(Sysno::fstatfs, [fd as usize, found.as_mut_ptr() as usize]) }?;
    Ok(found[0] as i64)
}

pub fn mkdirat(dir: i32, name: &[u8], mode: u32) -> Done {
    call(Call::mkdirat, [dir as usize, path(name)?, mode as usize]).map(drop)
}

pub fn mknodat(dir: i32, name: &[u8], mode: u32, major: u32, minor: u32) -> Done {
    let dev = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
    call(Call::mknodat, [dir as usize, path(name)?, mode as usize, dev as usize]).map(drop)
}

pub fn symlinkat(content: &[u8], dir: i32, name: &[u8]) -> Done {
    call(Call::symlinkat, [path(content)?, dir as usize, path(name)?]).map(drop)
}

/// The content of the link `name` in `dir`, without a NUL.
pub fn readlinkat<'a>(dir: i32, name: &[u8], into: &'a mut [u8]) -> Done<&'a [u8]> {
    let args = [dir as usize, path(name)?, into.as_mut_ptr() as usize, into.len()];
    // SAFETY: the kernel writes at most this length.
    let length = unsafe { raw(Sysno::readlinkat, args) }?;
    into.get(..length).ok_or(Failed { call: Sysno::readlinkat, errno: ENAMETOOLONG })
}

pub fn fchownat(dir: i32, name: &[u8], uid: u32, gid: u32) -> Done {
    let flags = k::AT_EMPTY_PATH | k::AT_SYMLINK_NOFOLLOW;
    call(Call::fchownat, [dir as usize, path(name)?, uid as usize, gid as usize, flags as usize]).map(drop)
}

pub fn fchdir(fd: i32) -> Done {
    call(Call::fchdir, [fd as usize]).map(drop)
}

// --- mounts: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2) ---

pub fn fsopen(fstype: &[u8]) -> Done<i32> {
    call(Call::fsopen, [path(fstype)?, k::FSOPEN_CLOEXEC as usize]).map(|fd| fd as i32)
}

pub const FSCONFIG_SET_FLAG: usize = 0;
pub const FSCONFIG_SET_STRING: usize = 1;
const FSCONFIG_CMD_CREATE: usize = 6;

/// `key` and `value` end in NUL; a flag has an empty value.
pub fn fsconfig(fs: i32, command: usize, key: &[u8], value: &[u8]) -> Done {
    let value = if command == FSCONFIG_SET_FLAG { 0 } else { path(value)? };
    call(Call::fsconfig, [fs as usize, command, path(key)?, value, 0]).map(drop)
}

/// A key whose value is a descriptor.
pub fn fsconfig_fd(fs: i32, key: &[u8], value: i32) -> Done {
    const FSCONFIG_SET_FD: usize = 5;
    call(Call::fsconfig, [fs as usize, FSCONFIG_SET_FD, path(key)?, 0, value as usize]).map(drop)
}

/// Makes the superblock and a detached mount of it.
pub fn fsmount(fs: i32, attributes: u64) -> Done<i32> {
    call(Call::fsconfig, [fs as usize, FSCONFIG_CMD_CREATE, 0, 0, 0])?;
    let flags = k::FSMOUNT_CLOEXEC as usize;
    call(Call::fsmount, [fs as usize, flags, attributes as usize]).map(|fd| fd as i32)
}

pub fn open_tree(dir: i32, name: &[u8], recursive: bool) -> Done<i32> {
    open_tree_with(dir, name, recursive, k::AT_EMPTY_PATH)
}

pub fn open_tree_with(dir: i32, name: &[u8], recursive: bool, flags: u32) -> Done<i32> {
    let recursive = if recursive { k::AT_RECURSIVE } else { 0 };
    let flags = k::OPEN_TREE_CLONE | k::O_CLOEXEC | recursive | flags;
    call(Call::open_tree, [dir as usize, path(name)?, flags as usize]).map(|fd| fd as i32)
}

/// move_mount(2), from descriptor to descriptor.
pub fn move_mount(from: i32, to: i32) -> Done {
    let empty = c"".as_ptr() as usize;
    let flags = k::MOVE_MOUNT_F_EMPTY_PATH | k::MOVE_MOUNT_T_EMPTY_PATH;
    call(Call::move_mount, [from as usize, empty, to as usize, empty, flags as usize]).map(drop)
}

/// The same to what `name` is in the directory `to`.
pub fn move_mount_to(from: i32, to: i32, name: &[u8]) -> Done {
    let (empty, flags) = (c"".as_ptr() as usize, k::MOVE_MOUNT_F_EMPTY_PATH);
    call(Call::move_mount, [from as usize, empty, to as usize, path(name)?, flags as usize]).map(drop)
}

/// `what` is the type, the source and the options.
pub fn mount(what: (&[u8], &[u8], &[u8]), target: &[u8], flags: u32) -> Done {
    let (fstype, source, options) = (path(what.0)?, path(what.1)?, path(what.2)?);
    call(Call::mount, [source, path(target)?, fstype, flags as usize, options]).map(drop)
}

/// mount_setattr(2) on the mount behind `fd`; `userns` is used with `MOUNT_ATTR_IDMAP`.
pub fn mount_setattr(fd: i32, recursive: bool, set: u64, clear: u64, propagation: u64, userns: i32) -> Done {
    let attr = k::mount_attr { attr_set: set, attr_clr: clear, propagation, userns_fd: userns as u64 };
    let flags = k::AT_EMPTY_PATH | if recursive { k::AT_RECURSIVE } else { 0 };
    let (empty, size) = (c"".as_ptr() as usize, size_of::<k::mount_attr>());
    call(Call::mount_setattr, [fd as usize, empty, flags as usize, &raw const attr as usize, size]).map(drop)
}

/// The flags of new namespaces.
pub const CLONE_NAMESPACES: u32 = k::CLONE_NEWUSER
    | k::CLONE_NEWNS
    | k::CLONE_NEWPID
    | k::CLONE_NEWNET
    | k::CLONE_NEWIPC
    | k::CLONE_NEWUTS
    | k::CLONE_NEWCGROUP;

/// clone(2) with `CLONE_NEW*`, `CLONE_PARENT` and SIGCHLD; 0 is the child, which has a copy of everything. Not
/// clone3(2): engines' filters refuse that, because they cannot look at its flags.
pub fn clone(flags: u64) -> Done<usize> {
    const ALLOWED: u32 = CLONE_NAMESPACES | k::CLONE_PARENT | SIGCHLD;
    if flags & !u64::from(ALLOWED) != 0 {
        return Err(Failed { call: Sysno::clone, errno: EINVAL });
    }
    // SAFETY: memory is copied and not shared, and none of these flags has the kernel write to an address.
    unsafe { raw(Sysno::clone, [flags as usize, 0, 0, 0, 0]) }
}

pub const SIGCHLD: u32 = 17;

/// Like fork(2).
pub fn fork() -> Done<i32> {
    clone(SIGCHLD.into()).map(|pid| pid as i32)
}

/// The exit code of a child; one that was killed has none, which is an errno of its own.
pub fn wait(pid: i32) -> Done<i32> {
    let mut status = 0i32;
    // SAFETY: the kernel writes one int, and no resource usage.
    unsafe { raw(Sysno::wait4, [pid as usize, &raw mut status as usize, 0, 0]) }?;
    match status & 0x7f {
        0 => Ok(status >> 8 & 0xff),
        _ => Err(Failed { call: Sysno::wait4, errno: EPROTO }),
    }
}

/// Zeros until the end of this program (mmap(2)).
pub fn map_zeros(entries: usize) -> Done<&'static mut [usize]> {
    const READ_WRITE: usize = 3;
    const PRIVATE_ANONYMOUS: usize = 0x22;
    let size = entries.saturating_mul(size_of::<usize>()).max(1);
    // SAFETY: the kernel chooses an address where nothing is.
    let address = unsafe { raw(Sysno::mmap, [0, size, READ_WRITE, PRIVATE_ANONYMOUS, usize::MAX, 0]) }?;
    // SAFETY: the mapping is this long, nobody else knows it, and it is never unmapped.
    Ok(unsafe { core::slice::from_raw_parts_mut(address as *mut usize, entries) })
}

/// Memory of this many bytes, all zeros.
pub fn map_bytes(size: usize) -> Done<&'static mut [u8]> {
    let words = map_zeros(size.div_ceil(size_of::<usize>()))?;
    // SAFETY: the same memory, which has at least this many bytes; the words are not used any more.
    Ok(unsafe { core::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size) })
}

/// Unmaps memory of [`map_bytes`].
pub fn unmap(memory: &'static [u8]) {
    // SAFETY: the mapping begins there; its only reference is given up.
    let _ = unsafe { raw(Sysno::munmap, [memory.as_ptr() as usize, memory.len()]) };
}

/// The content of a file.
///
/// # Safety
/// It has this size, and nobody changes it.
pub unsafe fn map_file(fd: i32, size: usize) -> Done<&'static [u8]> {
    const READ: usize = 1;
    const PRIVATE: usize = 2;
    // SAFETY: the kernel chooses an address where nothing is.
    let address = unsafe { raw(Sysno::mmap, [0, size, READ, PRIVATE, fd as usize, 0]) }?;
    // SAFETY: the mapping is this long and is never unmapped; the caller vouches for the content.
    Ok(unsafe { core::slice::from_raw_parts(address as *const u8, size) })
}

/// The content of a file, as numbers that the library reads while they are written. The file does not shrink: the
/// library has sealed it.
pub fn map_shared(fd: i32) -> Done<&'static [AtomicU64]> {
    const READ_WRITE: usize = 3;
    const SHARED: usize = 1;
    let size = statx(fd)?.stx_size as usize;
    // SAFETY: the kernel chooses an address where nothing is.
    let address = unsafe { raw(Sysno::mmap, [0, size, READ_WRITE, SHARED, fd as usize, 0]) }?;
    // SAFETY: the mapping is this long, begins at a page, and is never unmapped; each number is accessed as a whole.
    Ok(unsafe { core::slice::from_raw_parts(address as *const AtomicU64, size / size_of::<AtomicU64>()) })
}

/// Nanoseconds of CLOCK_REALTIME, which no time namespace changes; 0 where there is none.
pub fn real_time() -> u64 {
    const CLOCK_REALTIME: usize = 0;
    let mut time = [0u64; 2];
    // SAFETY: the kernel writes one struct timespec, which is two 64-bit numbers.
    let _ = unsafe { raw(Sysno::clock_gettime, [CLOCK_REALTIME, time.as_mut_ptr() as usize]) };
    time[0].wrapping_mul(1_000_000_000).wrapping_add(time[1])
}

/// Records of a directory, struct linux_dirent64.
pub fn getdents64(fd: i32, into: &mut [u8]) -> Done<usize> {
    // SAFETY: the kernel writes at most this length.
    unsafe { raw(Sysno::getdents64, [fd as usize, into.as_mut_ptr() as usize, into.len()]) }
}

/// Copies up to `most` bytes from where `from` is read.
pub fn sendfile(to: i32, from: i32, most: usize) -> Done<usize> {
    // SAFETY: no address of an offset is given.
    unsafe { raw(Sysno::sendfile, [to as usize, from as usize, 0, most]) }
}

/// nanosleep(2).
pub fn sleep(milliseconds: u32) {
    let time = [u64::from(milliseconds / 1000), u64::from(milliseconds % 1000) * 1_000_000];
    // SAFETY: what is left of it is not asked for.
    let _ = unsafe { raw(Sysno::nanosleep, [time.as_ptr() as usize, 0]) };
}

// --- signals --------------------------------------------------------------------------------------

/// struct kernel_sigaction without its mask: a handler, flags, and what returns from the handler.
pub fn set_default_action(signal: u32) -> Done {
    let action = [0usize; 4];
    // SAFETY: the default action runs no code of ours; the old one is not asked for.
    unsafe { raw(Sysno::rt_sigaction, [signal as usize, action.as_ptr() as usize, 0, 8]) }.map(drop)
}

/// `handler` never returns, so no code is needed for that; the kernel requires an address for it all the same.
pub fn set_handler(signal: u32, handler: extern "C" fn(i32) -> !) -> Done {
    const SA_RESTORER: usize = 0x0400_0000;
    let address = handler as usize;
    let action = [address, SA_RESTORER, address, 0];
    // SAFETY: the handler has the kernel's signature and is a function of this program.
    unsafe { raw(Sysno::rt_sigaction, [signal as usize, action.as_ptr() as usize, 0, 8]) }.map(drop)
}

pub fn unblock_all_signals() -> Done {
    const SETMASK: usize = 2;
    let none = 0u64;
    // SAFETY: the old mask is not asked for.
    unsafe { raw(Sysno::rt_sigprocmask, [SETMASK, &raw const none as usize, 0, 8]) }.map(drop)
}

// --- sockets --------------------------------------------------------------------------------------

/// A pair of sockets for datagrams.
pub fn socketpair() -> Done<(i32, i32)> {
    const UNIX: usize = 1;
    const SEQPACKET_CLOEXEC: usize = 5 | 0x8_0000;
    let mut pair = [0i32; 2];
    // SAFETY: the kernel writes two ints.
    unsafe { raw(Sysno::socketpair, [UNIX, SEQPACKET_CLOEXEC, 0, pair.as_mut_ptr() as usize]) }?;
    Ok((pair[0], pair[1]))
}

/// accept4(2).
pub fn accept(listener: i32) -> Done<i32> {
    // SAFETY: the peer's address is not asked for.
    unsafe { raw(Sysno::accept4, [listener as usize, 0, 0, k::O_CLOEXEC as usize]) }.map(|fd| fd as i32)
}

/// Receives one byte and the control message with it. Returns the number of bytes.
pub fn recvmsg(socket: i32, control: &mut [u64], wait: bool) -> Done<usize> {
    const CLOEXEC: usize = 0x4000_0000;
    const DONTWAIT: usize = 0x40;
    let flags = if wait { CLOEXEC } else { CLOEXEC | DONTWAIT };
    let mut word = [0u8; 1];
    let vector = [word.as_mut_ptr() as usize, word.len()];
    // struct msghdr: name, its length, vector, count, control, its length, flags.
    let (at, size) = (control.as_mut_ptr() as usize, size_of_val(control));
    let mut message = [0, 0, vector.as_ptr() as usize, 1, at, size, 0];
    // SAFETY: the kernel writes into both buffers up to their lengths, and into the message.
    unsafe { raw(Sysno::recvmsg, [socket as usize, message.as_mut_ptr() as usize, flags]) }
}

/// The user who has connected a unix socket (unix(7), SO_PEERCRED).
pub fn peer_uid(socket: i32) -> Done<u32> {
    const SOL_SOCKET: usize = 1;
    const SO_PEERCRED: usize = 17;
    // struct ucred: pid, uid, gid.
    let (mut found, mut size) = ([0u32; 3], 12u32);
    let (at, length) = (found.as_mut_ptr() as usize, &raw mut size as usize);
    // SAFETY: the kernel writes at most `size` bytes, and how many these are.
    unsafe { raw(Sysno::getsockopt, [socket as usize, SOL_SOCKET, SO_PEERCRED, at, length]) }?;
    Ok(found[1])
}

// --- calls with a command -------------------------------------------------------------------------

/// A command of prctl(2) whose arguments are numbers, and that changes no memory.
#[derive(Clone, Copy)]
pub struct Setting(u32);

impl Setting {
    pub const KEEPCAPS: Self = Self(p::PR_SET_KEEPCAPS);
    pub const CAPBSET_DROP: Self = Self(p::PR_CAPBSET_DROP);
    pub const CAP_AMBIENT: Self = Self(p::PR_CAP_AMBIENT);
    pub const NO_NEW_PRIVS: Self = Self(p::PR_SET_NO_NEW_PRIVS);
    pub const DUMPABLE: Self = Self(p::PR_SET_DUMPABLE);
}

pub fn prctl(setting: Setting, a: u64, b: u64) -> Done {
    // SAFETY: the kernel takes no argument of these for an address.
    unsafe { raw(Sysno::prctl, [setting.0 as usize, a as usize, b as usize, 0, 0]) }.map(drop)
}

/// A request of ioctl(2) by which the kernel reads memory at most.
#[derive(Clone, Copy)]
pub struct Request(u32);

impl Request {
    pub const TIOCSPTLCK: Self = Self(ioctl::TIOCSPTLCK);
    pub const TIOCGPTPEER: Self = Self(ioctl::TIOCGPTPEER);
    pub const TIOCSWINSZ: Self = Self(ioctl::TIOCSWINSZ);
    pub const TIOCSCTTY: Self = Self(ioctl::TIOCSCTTY);
    pub const TCSETS: Self = Self(ioctl::TCSETS);
    pub const SIOCSIFFLAGS: Self = Self(ioctl::SIOCSIFFLAGS);
}

pub fn ioctl(fd: i32, request: Request, argument: usize) -> Done<usize> {
    // SAFETY: the kernel writes nothing.
    unsafe { raw(Sysno::ioctl, [fd as usize, request.0 as usize, argument]) }
}

/// TCGETS: struct termios has 36 bytes.
pub fn terminal_settings(fd: i32) -> Done<[u32; 10]> {
    let mut settings = [0u32; 10];
    let args = [fd as usize, ioctl::TCGETS as usize, settings.as_mut_ptr() as usize];
    // SAFETY: there is room for it.
    unsafe { raw(Sysno::ioctl, args) }.map(|_| settings)
}

/// TIOCGSID.
pub fn terminal_session(fd: i32) -> Done<i32> {
    let mut session = 0i32;
    // SAFETY: the kernel writes one int.
    unsafe { raw(Sysno::ioctl, [fd as usize, ioctl::TIOCGSID as usize, &raw mut session as usize]) }
        .map(|_| session)
}

/// F_DUPFD_CLOEXEC.
pub fn duplicate(fd: i32, least: usize) -> Done<i32> {
    const DUPFD_CLOEXEC: usize = 1030;
    // SAFETY: the arguments are numbers.
    unsafe { raw(Sysno::fcntl, [fd as usize, DUPFD_CLOEXEC, least]) }.map(|fd| fd as i32)
}

/// F_SETFD.
pub fn close_on_exec(fd: i32) -> Done {
    const SETFD: usize = 2;
    const CLOEXEC: usize = 1;
    // SAFETY: the arguments are numbers.
    unsafe { raw(Sysno::fcntl, [fd as usize, SETFD, CLOEXEC]) }.map(drop)
}

/// KEYCTL_JOIN_SESSION_KEYRING.
pub fn join_session_keyring(name: &[u8]) -> Done<usize> {
    const JOIN_SESSION_KEYRING: usize = 1;
    // SAFETY: the kernel reads the name.
    unsafe { raw(Sysno::keyctl, [JOIN_SESSION_KEYRING, path(name)?]) }
}

/// KEYCTL_SETPERM.
pub fn set_key_permissions(key: usize, permissions: usize) -> Done {
    const SETPERM: usize = 5;
    // SAFETY: the arguments are numbers.
    unsafe { raw(Sysno::keyctl, [SETPERM, key, permissions]) }.map(drop)
}

/// SECCOMP_SET_MODE_FILTER; the listener with `SECCOMP_FILTER_FLAG_NEW_LISTENER`. `program` is instructions of
/// eight bytes.
pub fn set_filter(program: &[u8], flags: u32) -> Done<i32> {
    const SET_MODE_FILTER: usize = 1;
    let filter = [program.len() / 8, program.as_ptr() as usize];
    // SAFETY: the kernel reads the filter.
    unsafe { raw(Sysno::seccomp, [SET_MODE_FILTER, flags as usize, filter.as_ptr() as usize]) }
        .map(|fd| fd as i32)
}

/// Of this process.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Done {
    let limit = [soft, hard];
    // SAFETY: the old limit is not asked for.
    unsafe { raw(Sysno::prlimit64, [0, resource as usize, limit.as_ptr() as usize, 0]) }.map(drop)
}

/// struct sched_attr, version 0. A kernel that wants another size writes it into the first field.
pub fn sched_setattr(attr: &mut [u8; 48]) -> Done {
    // SAFETY: it is ours to write.
    unsafe { raw(Sysno::sched_setattr, [0, attr.as_mut_ptr() as usize, 0]) }.map(drop)
}

/// Effective, permitted and inheritable, the lower halves of all three first.
pub fn capset(sets: &[[u32; 3]; 2]) -> Done {
    const VERSION_3: u32 = 0x2008_0522;
    let mut header = [VERSION_3, 0];
    // SAFETY: a kernel that has other versions writes its own into the header.
    unsafe { raw(Sysno::capset, [header.as_mut_ptr() as usize, sets.as_ptr() as usize]) }.map(drop)
}

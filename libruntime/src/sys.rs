//! The library's unsafe code, together with `sys/`: system calls that the `nix` crate lacks. Each function is one call
//! (or one inseparable group of calls) with safe arguments; nothing is decided here.
#![allow(unsafe_code)]

pub mod bpf;
pub mod interfaces;
mod messages;
mod pattern;
mod signals;
mod spawn;
mod terminal;

pub use messages::{Received, receive};
pub use pattern::Pattern;
pub use signals::{is_ignored, reset_sigchld};
pub use spawn::{Lent, Spawn, Spawned, duplicate, hold_user_namespace, spawn};
pub use terminal::{set_terminal_size, terminal_size};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Errno>;

/// A raw call's result as an error or a number.
fn check(result: libc::c_long) -> Result<libc::c_long> {
    if result < 0 { Err(Errno::last()) } else { Ok(result) }
}

/// # Safety
/// `result` is of a call that returns a new descriptor.
unsafe fn owned(result: libc::c_long) -> Result<OwnedFd> {
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    check(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Whether a number is that of an open descriptor (fcntl(2)).
pub fn is_open(number: u32) -> bool {
    // SAFETY: fcntl with an integer argument; a number that is no descriptor is EBADF.
    i32::try_from(number).is_ok_and(|fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0)
}

/// memfd_create(2) with `content`, sealed against every change: a container that gets at it through `/proc/PID/exe` can
/// neither write to it nor, since Linux 6.3, take away the right to execute it.
pub fn sealed_memfd(name: &CStr, content: &[u8], executable: bool) -> Result<OwnedFd> {
    let base = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // Kernels before 6.3 know neither flag and make every memfd executable.
    let kind = if executable { libc::MFD_EXEC } else { libc::MFD_NOEXEC_SEAL };
    // SAFETY: `name` is a C string, and the result a new descriptor.
    let create = |flags| unsafe { owned(libc::memfd_create(name.as_ptr(), flags).into()) };
    let memfd = match create(base | kind) {
        Err(Errno::EINVAL) => create(base)?,
        other => other?,
    };
    let mut rest = content;
    while !rest.is_empty() {
        match nix::unistd::write(&memfd, rest) {
            Err(Errno::EINTR) => {}
            written => rest = &rest[written?..],
        }
    }
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    let seal = |seals: libc::c_int| {
        // SAFETY: fcntl with an integer argument.
        check(unsafe { libc::fcntl(memfd.as_raw_fd(), libc::F_ADD_SEALS, seals) }.into())
    };
    match seal(seals | libc::F_SEAL_EXEC) {
        Err(Errno::EINVAL) => seal(seals)?,
        other => other?,
    };
    Ok(memfd)
}

/// A memfd to be executed, sealed as above, for all processes that this one starts: a container that gets at it cannot keep
/// others from executing it, by a descriptor that is open for writing, a lease, or the mode of a file of its own user. One
/// that cannot be protected so, on Linux before 6.6 or for a caller without CAP_LINUX_IMMUTABLE, is not kept in `shared`.
pub fn program(name: &CStr, content: &[u8], shared: &OnceLock<Arc<OwnedFd>>) -> Result<Arc<OwnedFd>> {
    if let Some(shared) = shared.get() {
        return Ok(shared.clone());
    }
    let sealed = sealed_memfd(name, content, true)?;
    Ok(match protect(&sealed) {
        Ok(read_only) => shared.get_or_init(|| Arc::new(read_only)).clone(),
        Err(_) => Arc::new(sealed),
    })
}

/// Makes a file immutable, and returns a descriptor that is open for reading: while there is one, the kernel gives nobody
/// a lease that makes others wait.
fn protect(file: &OwnedFd) -> Result<OwnedFd> {
    const FS_IOC_SETFLAGS: libc::c_ulong = 0x4008_6602;
    const FS_IMMUTABLE_FL: libc::c_long = 0x10;
    let flags = FS_IMMUTABLE_FL;
    // SAFETY: the request reads one word.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_SETFLAGS as _, &raw const flags) }.into())?;
    open(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())), nix::fcntl::OFlag::O_RDONLY)
}

/// A memfd of this size, sealed against a change of its size.
pub fn memfd_of_size(name: &CStr, size: u64) -> Result<std::fs::File> {
    // SAFETY: `name` is a C string, and the result a new descriptor.
    let create = |flags| unsafe { owned(libc::memfd_create(name.as_ptr(), flags).into()) };
    let memfd = std::fs::File::from(create(libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)?);
    nix::unistd::ftruncate(&memfd, size as libc::off_t)?;
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
    // SAFETY: fcntl with an integer argument.
    check(unsafe { libc::fcntl(memfd.as_raw_fd(), libc::F_ADD_SEALS, seals) }.into())?;
    Ok(memfd)
}

/// open(2) with `O_PATH`. Not by the standard library's options: musl counts `O_PATH` to the access mode, which
/// these take out of the flags that they are given.
pub fn open_path(path: &Path) -> Result<OwnedFd> {
    let flags = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty())
}

/// The first 2 KiB of a file of procfs, which the kernel gives in one read(2). By openat(2), because musl's open(3) sets
/// `FD_CLOEXEC` by a call of its own.
pub fn read_short(path: &str) -> Result<Vec<u8>> {
    use nix::fcntl::{AT_FDCWD, OFlag, openat};
    let file = openat(AT_FDCWD, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())?;
    let mut bytes = vec![0; 2048];
    let length = loop {
        match nix::unistd::read(&file, &mut bytes) {
            Err(Errno::EINTR) => {}
            read => break read?,
        }
    };
    bytes.truncate(length);
    Ok(bytes)
}

/// open(2) of a path of the caller's, closed on exec. By openat(2): musl's open makes a second call for the flag.
pub fn open(path: &Path, flags: nix::fcntl::OFlag) -> Result<OwnedFd> {
    use nix::fcntl::{AT_FDCWD, OFlag, openat};
    loop {
        match openat(AT_FDCWD, path, flags | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty()) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// An absolute path without symbolic links, `.` and `..` (realpath(3)), by the kernel's own look-up.
pub fn real_path(path: &Path) -> std::io::Result<std::path::PathBuf> {
    let opened = open(path, nix::fcntl::OFlag::O_PATH)?;
    let link = nix::fcntl::readlink(format!("/proc/self/fd/{}", opened.as_raw_fd()).as_str());
    match link {
        // Otherwise it was deleted, is hidden from this process, or has such a name; or /proc is no procfs.
        Ok(found) if found.as_bytes().starts_with(b"/") && !found.as_bytes().ends_with(b" (deleted)") => {
            Ok(found.into())
        }
        _ => path.canonicalize(),
    }
}

/// Closes many descriptors, those with consecutive numbers by one call.
pub fn close_all(fds: Vec<OwnedFd>) {
    let mut numbers: Vec<RawFd> = fds.into_iter().map(IntoRawFd::into_raw_fd).collect();
    numbers.sort_unstable();
    for run in numbers.chunk_by(|a, b| a + 1 == *b) {
        let (first, last) = (run[0] as libc::c_uint, run[run.len() - 1] as libc::c_uint);
        // SAFETY: each of these descriptors was owned here.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}

pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: integer arguments only, and the result is a new descriptor.
    unsafe { owned(libc::syscall(libc::SYS_pidfd_open, pid, 0)) }
}

/// pidfd_send_signal(2). Signal 0 only asks whether the process is there.
pub fn pidfd_send_signal(pidfd: BorrowedFd, signal: i32) -> Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: no siginfo is passed, which the kernel then makes itself.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) }).map(drop)
}

/// waitid(2) on a child, whatever signal its end sends. `Ok(None)`: it still runs (`block` is false).
pub fn wait_pidfd(pidfd: BorrowedFd, block: bool) -> Result<Option<ExitStatus>> {
    let flags = libc::WEXITED | libc::__WALL | if block { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: zeros are a value of this structure of integers.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` is ours and large enough.
        let result =
            unsafe { libc::waitid(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t, &raw mut info, flags) };
        match check(result.into()) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        // SAFETY: waitid fills these fields for children.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        return Ok((pid != 0).then_some(match info.si_code {
            libc::CLD_EXITED => ExitStatus::Code(status),
            _ => ExitStatus::Signal(status),
        }));
    }
}

/// The exit status of a process that something else has reaped: PIDFD_GET_INFO (an ioctl of pidfds), since Linux 6.15.
/// Where the other one is still in the middle of that, it waits a moment: the status is there before the pid is gone.
pub fn exit_of_reaped(pidfd: BorrowedFd) -> Result<ExitStatus> {
    let end = Instant::now() + Duration::from_secs(1);
    loop {
        let is_gone = pidfd_send_signal(pidfd, 0) == Err(Errno::ESRCH);
        match recorded_exit(pidfd) {
            Err(Errno::ESRCH | Errno::ENODATA) if !is_gone && Instant::now() < end => {
                std::thread::sleep(Duration::from_micros(100));
            }
            other => return other,
        }
    }
}

fn recorded_exit(pidfd: BorrowedFd) -> Result<ExitStatus> {
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    // _IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info) of 64 bytes.
    const PIDFD_GET_INFO: libc::c_ulong = 0xc040_ff0b;
    // The mask is the first of eight words, the exit code the second half of the last.
    let mut info = [PIDFD_INFO_EXIT, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: the request has the structure's size in it, and `info` is as large.
    check(unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, info.as_mut_ptr()) }.into())?;
    if info[0] & PIDFD_INFO_EXIT == 0 {
        return Err(Errno::ENODATA);
    }
    let status = (info[7] >> 32) as i32;
    Ok(match libc::WIFEXITED(status) {
        true => ExitStatus::Code(libc::WEXITSTATUS(status)),
        false => ExitStatus::Signal(libc::WTERMSIG(status)),
    })
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExitStatus {
    /// By itself, with a code of 0 to 255.
    Code(i32),
    /// By the signal with this number (signal(7)).
    Signal(i32),
}

impl ExitStatus {
    /// With code 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// The code, or 128 and the signal's number, as in a shell.
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// A procfs of the caller's pid namespace that is mounted nowhere, so that nothing can be mounted over its files.
pub fn detached_procfs() -> Result<OwnedFd> {
    let fs = fsopen(c"proc")?;
    // SAFETY: the command takes no further arguments.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), FSCONFIG_CMD_CREATE, 0, 0, 0) })?;
    // SAFETY: integer arguments only, and the result is a new descriptor.
    unsafe { owned(libc::syscall(libc::SYS_fsmount, fs.as_raw_fd(), FSMOUNT_CLOEXEC, 0)) }
}

/// Gives the filesystem mounted at `point` these options, each without a value, and no others (fspick(2)).
pub fn reconfigure(point: &CStr, options: &[CString]) -> Result<()> {
    // SAFETY: `point` is a C string, and the result a new descriptor.
    let fs =
        unsafe { owned(libc::syscall(libc::SYS_fspick, libc::AT_FDCWD, point.as_ptr(), FSPICK_CLOEXEC))? };
    for option in options {
        // SAFETY: `option` is a C string, and the command takes no value.
        check(unsafe {
            libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), FSCONFIG_SET_FLAG, option.as_ptr(), 0, 0)
        })?;
    }
    // SAFETY: the command takes no further arguments.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fs.as_raw_fd(), FSCONFIG_CMD_RECONFIGURE, 0, 0, 0) })?;
    Ok(())
}

const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSCONFIG_CMD_RECONFIGURE: libc::c_uint = 7;
const FSPICK_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSOPEN_CLOEXEC: libc::c_uint = 1;

fn fsopen(fstype: &CStr) -> Result<OwnedFd> {
    // SAFETY: `fstype` is a C string, and the result a new descriptor.
    unsafe { owned(libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), FSOPEN_CLOEXEC)) }
}

/// The user namespace that owns the namespace behind `fd` (ioctl_nsfs(2)).
pub fn owner_of_namespace(fd: BorrowedFd) -> Result<OwnedFd> {
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: this request takes no argument and returns a new descriptor.
    unsafe { owned(libc::ioctl(fd.as_raw_fd(), NS_GET_USERNS as _).into()) }
}

/// capget(2): the effective and permitted capabilities of the calling thread.
pub fn own_capabilities() -> Result<(u64, u64)> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let mut data = [[0u32; 3]; 2];
    // SAFETY: version 3 reads a header of two words and writes two sets of three.
    check(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) })?;
    let join = |at: usize| u64::from(data[1][at]) << 32 | u64::from(data[0][at]);
    Ok((join(0), join(1)))
}

/// capset(2): the calling thread has none any more.
#[cfg(test)]
pub fn drop_capabilities_of_thread() -> Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let (header, data) = ([VERSION_3, 0], [[0u32; 3]; 2]);
    // SAFETY: version 3 reads a header of two words and two sets of three. The raw call is for this thread alone.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) }).map(drop)
}

/// getrlimit(2): the soft and the hard limit of the calling process.
pub fn rlimit(resource: u32) -> Result<(u64, u64)> {
    let mut limit = [0u64; 2];
    // SAFETY: prlimit64 writes two words.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, 0, limit.as_mut_ptr()) })?;
    Ok((limit[0], limit[1]))
}

/// Whether a program has file capabilities (getxattr(2) of `security.capability`).
pub fn has_file_capabilities(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let name = c"security.capability".as_ptr();
    // SAFETY: both texts end in NUL; a size of zero asks for the length alone and writes nothing.
    unsafe { libc::getxattr(path.as_ptr(), name, std::ptr::null_mut(), 0) > 0 }
}

/// An extended attribute of up to 4 KiB (fgetxattr(2)).
pub fn attribute(file: &impl AsFd, name: &CStr) -> Result<Vec<u8>> {
    let mut value = vec![0u8; 4096];
    let (fd, at, size) = (file.as_fd().as_raw_fd(), value.as_mut_ptr().cast(), value.len());
    // SAFETY: the kernel writes at most `size` bytes.
    let length = check(unsafe { libc::fgetxattr(fd, name.as_ptr(), at, size) } as libc::c_long)?;
    value.truncate(length as usize);
    Ok(value)
}

/// fsetxattr(2)
pub fn set_attribute(file: &impl AsFd, name: &CStr, value: &[u8]) -> Result<()> {
    let (fd, at) = (file.as_fd().as_raw_fd(), value.as_ptr().cast());
    // SAFETY: the kernel reads so many bytes.
    check(unsafe { libc::fsetxattr(fd, name.as_ptr(), at, value.len(), 0) }.into()).map(drop)
}

/// fremovexattr(2)
pub fn remove_attribute(file: &impl AsFd, name: &CStr) -> Result<()> {
    // SAFETY: `name` is a C string.
    check(unsafe { libc::fremovexattr(file.as_fd().as_raw_fd(), name.as_ptr()) }.into()).map(drop)
}

/// Whether the kernel knows `SECCOMP_FILTER_FLAG_*` bits: seccomp(2) looks at them before it reads
/// the filter, of which there is none.
pub fn knows_seccomp_flags(flags: u64) -> bool {
    const SET_MODE_FILTER: libc::c_ulong = 1;
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: without a filter the call cannot succeed, and changes nothing.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, none) };
    check(result) == Err(Errno::EFAULT)
}

/// The caller's standard input, output and error.
pub fn standard_fds() -> [BorrowedFd<'static>; 3] {
    // SAFETY: the standard library opens these three before main and nothing sound closes them.
    unsafe { [0, 1, 2].map(|fd| BorrowedFd::borrow_raw(fd)) }
}

/// Major and minor number.
#[cfg(test)]
pub fn kernel_version() -> [u32; 2] {
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap());
    std::array::from_fn(|_| numbers.next().unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_sealed_program_can_be_neither_written_nor_made_unexecutable() {
        let program = std::fs::File::from(sealed_memfd(c"a-program", b"#!/bin/true\n", true).unwrap());
        let path = format!("/proc/self/fd/{}", program.as_raw_fd());
        let writer = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        assert_eq!(nix::unistd::write(&writer, b"x"), Err(Errno::EPERM));
        assert_eq!(nix::unistd::ftruncate(&writer, 0), Err(Errno::EPERM));
        let changed = program.set_permissions(std::fs::Permissions::from_mode(0o666));
        // Linux 6.3 brought the seal.
        let version = kernel_version();
        assert_eq!(changed.is_err(), version >= [6, 3], "on {version:?}: {changed:?}");
    }

    /// Others have a descriptor of it, as a container gets one by `/proc/PID/exe`.
    #[test]
    fn others_cannot_keep_a_program_from_being_executed() {
        let shared = OnceLock::new();
        let make = || program(c"a-program", b"#!/bin/true\n", &shared).unwrap();
        let (first, second) = (make(), make());
        let node = |program: &OwnedFd| nix::sys::stat::fstat(program).unwrap().st_ino;
        if shared.get().is_none() {
            assert_ne!(node(&first), node(&second), "it is shared");
            return eprintln!("skipped: no immutable files, by this kernel or for this caller");
        }
        assert_eq!(node(&first), node(&second));
        let path = format!("/proc/self/fd/{}", first.as_raw_fd());
        let open = |write: bool| std::fs::OpenOptions::new().read(true).write(write).open(&path);
        assert_eq!(open(true).unwrap_err().raw_os_error(), Some(libc::EPERM));
        let opened = open(false).unwrap();
        // SAFETY: fcntl with an integer argument.
        let leased = unsafe { libc::fcntl(opened.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) };
        assert_eq!((leased, Errno::last()), (-1, Errno::EAGAIN));
        assert!(opened.set_permissions(std::fs::Permissions::from_mode(0o000)).is_err());
    }
}

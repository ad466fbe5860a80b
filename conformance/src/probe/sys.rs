//! The probe's only unsafe code: the system calls that the standard library lacks, asked of the kernel
//! by number. It decides nothing; main.rs says what is asked.
#![allow(unsafe_code)]

use std::ffi::{CString, c_int, c_long, c_ulong, c_void};
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

#[cfg(target_arch = "x86_64")]
mod nr {
    pub const IOCTL: i64 = 16;
    pub const FCNTL: i64 = 72;
    pub const RECVMSG: i64 = 47;
    pub const UNAME: i64 = 63;
    pub const UMASK: i64 = 95;
    pub const GETPGID: i64 = 121;
    pub const GETSID: i64 = 124;
    pub const MKNODAT: i64 = 259;
    pub const PTRACE: i64 = 101;
    pub const PRCTL: i64 = 157;
    pub const SCHED_GETAFFINITY: i64 = 204;
    pub const GET_MEMPOLICY: i64 = 239;
    pub const KEYCTL: i64 = 250;
    pub const IOPRIO_GET: i64 = 252;
    pub const SCHED_GETATTR: i64 = 315;
    pub const PERSONALITY: i64 = 135;
    pub const CLOCK_GETTIME: i64 = 228;
    pub const MEMFD_CREATE: i64 = 319;
}

#[cfg(target_arch = "aarch64")]
mod nr {
    pub const IOCTL: i64 = 29;
    pub const FCNTL: i64 = 25;
    pub const RECVMSG: i64 = 212;
    pub const UNAME: i64 = 160;
    pub const UMASK: i64 = 166;
    pub const GETPGID: i64 = 155;
    pub const GETSID: i64 = 156;
    pub const MKNODAT: i64 = 33;
    pub const PTRACE: i64 = 117;
    pub const PRCTL: i64 = 167;
    pub const SCHED_GETAFFINITY: i64 = 123;
    pub const GET_MEMPOLICY: i64 = 236;
    pub const KEYCTL: i64 = 219;
    pub const IOPRIO_GET: i64 = 31;
    pub const SCHED_GETATTR: i64 = 275;
    pub const PERSONALITY: i64 = 92;
    pub const CLOCK_GETTIME: i64 = 113;
    pub const MEMFD_CREATE: i64 = 279;
}

/// c_long is 64 bits on the targets that have numbers above.
fn answer(value: c_long) -> Result<i64> {
    if value == -1 { Err(Error::last_os_error()) } else { Ok(value) }
}

/// Any system call with numbers as arguments, for `probe syscall`: the kernel refuses pointers that are not.
pub fn numbered(number: i64, args: [i64; 6]) -> Result<i64> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the caller of the probe passes only numbers of calls that write to none of the probe's
    // memory; an argument that happens to be a bad address gives EFAULT.
    answer(unsafe { syscall(number as c_long, a, b, c, d, e, f) })
}

/// ptrace(2), PTRACE_SEIZE with PTRACE_O_TRACEEXIT.
pub fn seize_for_exit(pid: i64) -> Result<i64> {
    const SEIZE: i64 = 0x4206;
    const TRACE_EXIT: i64 = 1 << 6;
    numbered(nr::PTRACE, [SEIZE, pid, 0, TRACE_EXIT, 0, 0])
}

/// pidfd_open(2) and pidfd_getfd(2): copies of all descriptors of a process, the standard ones left out.
pub fn descriptors_of(pid: i64) -> Vec<i64> {
    const PIDFD_OPEN: i64 = 434;
    const PIDFD_GETFD: i64 = 438;
    let Ok(pidfd) = numbered(PIDFD_OPEN, [pid, 0, 0, 0, 0, 0]) else { return Vec::new() };
    (3..40).filter_map(|number| numbered(PIDFD_GETFD, [pidfd, number, 0, 0, 0, 0]).ok()).collect()
}

pub fn personality() -> Result<i64> {
    numbered(nr::PERSONALITY, [0xffff_ffff, 0, 0, 0, 0, 0])
}

pub fn session() -> Result<i64> {
    numbered(nr::GETSID, [0; 6])
}

pub fn process_group() -> Result<i64> {
    numbered(nr::GETPGID, [0; 6])
}

/// keyctl(2) KEYCTL_GET_KEYRING_ID of the session keyring, without making one.
pub fn session_keyring() -> Result<i64> {
    const KEY_SPEC_SESSION_KEYRING: i64 = -3;
    numbered(nr::KEYCTL, [0, KEY_SPEC_SESSION_KEYRING, 0, 0, 0, 0])
}

/// keyctl(2) KEYCTL_JOIN_SESSION_KEYRING, and KEYCTL_SETPERM to everything for all.
pub fn join_session_keyring(name: &str) -> Result<i64> {
    const ALL: i64 = 0x3f3f_3f3f;
    let name = CString::new(name)?;
    let key = numbered(nr::KEYCTL, [1, name.as_ptr() as i64, 0, 0, 0, 0])?;
    numbered(nr::KEYCTL, [5, key, ALL, 0, 0, 0])?;
    Ok(key)
}

/// ioprio_get(2) of this process: the class in the bits from 13 up.
pub fn io_priority() -> Result<i64> {
    numbered(nr::IOPRIO_GET, [1, 0, 0, 0, 0, 0])
}

pub fn dumpable() -> Result<i64> {
    const PR_GET_DUMPABLE: i64 = 3;
    numbered(nr::PRCTL, [PR_GET_DUMPABLE, 0, 0, 0, 0, 0])
}

/// umask(2) can only be asked by setting it; the probe has a single thread.
pub fn umask() -> i64 {
    let old = numbered(nr::UMASK, [0, 0, 0, 0, 0, 0]).unwrap_or(0);
    let _ = numbered(nr::UMASK, [old, 0, 0, 0, 0, 0]);
    old
}

/// uname(2): node name and domain name.
pub fn names() -> Result<(String, String)> {
    let mut buffer = [0u8; 65 * 6];
    // SAFETY: struct new_utsname is six arrays of 65 bytes, which is the buffer's size.
    answer(unsafe { syscall(nr::UNAME as c_long, buffer.as_mut_ptr()) })?;
    let field = |n: usize| {
        let bytes: Vec<u8> = buffer[n * 65..(n + 1) * 65].iter().copied().take_while(|b| *b != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ok((field(1), field(5)))
}

/// sched_getattr(2): policy, flags, nice, priority, runtime, deadline, period.
pub fn scheduling() -> Result<[i64; 7]> {
    let mut buffer = [0u8; 48];
    // SAFETY: the size passed is the buffer's.
    answer(unsafe { syscall(nr::SCHED_GETATTR as c_long, 0 as c_int, buffer.as_mut_ptr(), 48u32, 0u32) })?;
    let u32_at = |at: usize| u32::from_ne_bytes([buffer[at], buffer[at + 1], buffer[at + 2], buffer[at + 3]]);
    let u64_at = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&buffer[at..at + 8]);
        u64::from_ne_bytes(bytes) as i64
    };
    let nice = i64::from(u32_at(16) as i32);
    Ok([i64::from(u32_at(4)), u64_at(8), nice, i64::from(u32_at(20)), u64_at(24), u64_at(32), u64_at(40)])
}

/// sched_getaffinity(2) as the numbers of the processors.
pub fn affinity() -> Result<Vec<usize>> {
    let mut mask = [0u8; 1024];
    // SAFETY: the size passed is the buffer's.
    let got = answer(unsafe {
        syscall(nr::SCHED_GETAFFINITY as c_long, 0 as c_int, mask.len() as c_ulong, mask.as_mut_ptr())
    })?;
    let bits = 0..(got as usize * 8);
    Ok(bits.filter(|n| mask[n / 8] & (1 << (n % 8)) != 0).collect())
}

/// get_mempolicy(2): the mode with its flags, and the nodes as a mask.
pub fn memory_policy() -> Result<(i64, u64)> {
    let mut mode: c_int = 0;
    let mut nodes = [0u64; 64];
    // SAFETY: maxnode is the number of bits in `nodes`; mode points to an int.
    answer(unsafe {
        syscall(
            nr::GET_MEMPOLICY as c_long,
            &mut mode as *mut c_int,
            nodes.as_mut_ptr(),
            (64 * 64) as c_ulong,
            std::ptr::null::<c_void>(),
            0 as c_ulong,
        )
    })?;
    Ok((i64::from(mode), nodes[0]))
}

/// clock_gettime(2) of CLOCK_BOOTTIME and CLOCK_MONOTONIC, in seconds.
pub fn clocks() -> Result<(i64, i64)> {
    let seconds = |clock: c_int| {
        let mut time = [0i64; 2];
        // SAFETY: struct timespec is two 64-bit integers on the 64-bit targets listed above.
        answer(unsafe { syscall(nr::CLOCK_GETTIME as c_long, clock, time.as_mut_ptr()) })?;
        Ok::<i64, Error>(time[0])
    };
    Ok((seconds(7)?, seconds(1)?))
}

/// Whether it is a memfd that nobody can write to, although it can be opened for it (fcntl(2), `F_GET_SEALS`).
pub fn is_sealed(file: &std::fs::File) -> bool {
    const GET_SEALS: c_long = 1034;
    const SEAL_WRITE: i64 = 8;
    // SAFETY: fcntl with an integer argument.
    let seals = unsafe { syscall(nr::FCNTL, c_long::from(file.as_raw_fd()), GET_SEALS, 0 as c_long) };
    answer(seals).is_ok_and(|seals| seals & SEAL_WRITE != 0)
}

/// memfd_create(2), closed on execve(2).
pub fn memfd(name: &str) -> Result<OwnedFd> {
    const MFD_CLOEXEC: u32 = 1;
    let name = CString::new(name)?;
    // SAFETY: the name is a C string that lives until after the call.
    let fd = answer(unsafe { syscall(nr::MEMFD_CREATE as c_long, name.as_ptr(), MFD_CLOEXEC) })?;
    // SAFETY: the kernel has just installed this descriptor for us, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// mknodat(2) of a character device.
pub fn mknod(path: &str, major: u32, minor: u32) -> Result<()> {
    const AT_FDCWD: c_int = -100;
    const S_IFCHR: u32 = 0o020_000;
    let path = CString::new(path)?;
    let device = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
    // SAFETY: the path is a C string that lives until after the call.
    answer(unsafe { syscall(nr::MKNODAT as c_long, AT_FDCWD, path.as_ptr(), S_IFCHR | 0o600, device) })?;
    Ok(())
}

/// TIOCGWINSZ of standard input: rows and columns.
pub fn window() -> Result<(u16, u16)> {
    let mut size = [0u16; 4];
    const TIOCGWINSZ: c_ulong = 0x5413;
    // SAFETY: struct winsize is four unsigned shorts.
    answer(unsafe { syscall(nr::IOCTL as c_long, 0 as c_int, TIOCGWINSZ, size.as_mut_ptr()) })?;
    Ok((size[0], size[1]))
}

/// SECCOMP_IOCTL_NOTIF_RECV and _SEND on `listener`: waits for one call and answers it with `errno`
/// (0: with the value 0). Returns the number of the call and the process that made it.
pub fn answer_notification(listener: c_int, errno: i32) -> Result<(i64, u32)> {
    const RECV: c_ulong = 0xc050_2100;
    const SEND: c_ulong = 0xc018_2101;
    let mut request = [0u8; 80];
    // SAFETY: struct seccomp_notif is 80 bytes, zeroed as the kernel demands.
    answer(unsafe { syscall(nr::IOCTL as c_long, listener, RECV, request.as_mut_ptr()) })?;
    let mut reply = [0u8; 24];
    reply[0..8].copy_from_slice(&request[0..8]);
    reply[16..20].copy_from_slice(&(-errno).to_ne_bytes());
    // SAFETY: struct seccomp_notif_resp is 24 bytes: id, value, error, flags.
    answer(unsafe { syscall(nr::IOCTL as c_long, listener, SEND, reply.as_mut_ptr()) })?;
    let pid = u32::from_ne_bytes([request[8], request[9], request[10], request[11]]);
    let number = i32::from_ne_bytes([request[16], request[17], request[18], request[19]]);
    Ok((i64::from(number), pid))
}

/// recvmsg(2): one message with the descriptors that came with it.
pub fn receive(stream: &UnixStream) -> Result<(String, Vec<OwnedFd>)> {
    const MSG_CMSG_CLOEXEC: c_int = 0x4000_0000;
    const SOL_SOCKET_AND_SCM_RIGHTS: u64 = 1 << 32 | 1;
    let mut text = vec![0u8; 64 << 10];
    let mut control = [0u64; 32];
    let part = [text.as_mut_ptr() as u64, text.len() as u64];
    // struct msghdr: name, length of it, parts, their number, control, its length, flags.
    let mut header = [0, 0, part.as_ptr() as u64, 1, control.as_mut_ptr() as u64, 32 * 8, 0u64];
    // SAFETY: the header describes buffers that live longer than the call, with their sizes.
    let got = answer(unsafe {
        syscall(nr::RECVMSG as c_long, stream.as_raw_fd(), header.as_mut_ptr(), MSG_CMSG_CLOEXEC)
    })?;
    text.truncate(got as usize);
    let mut fds = Vec::new();
    // One control message is enough: its length, then level and type as two ints, then the numbers.
    if header[5] >= 16 && control[1] == SOL_SOCKET_AND_SCM_RIGHTS {
        for n in 0..(control[0] as usize - 16) / 4 {
            let pair = control[2 + n / 2].to_ne_bytes();
            let at = 4 * (n % 2);
            let fd = c_int::from_ne_bytes([pair[at], pair[at + 1], pair[at + 2], pair[at + 3]]);
            // SAFETY: the kernel has just installed this descriptor for us, and nobody else owns it.
            fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    Ok((String::from_utf8_lossy(&text).into_owned(), fds))
}

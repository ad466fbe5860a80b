//! The init of a pod's pid namespace: a child of the shim without files, capabilities or system calls, whose program is a
//! few instructions. The kernel reaps for it. It ends when the shim closes its end of a socket, as it does when the shim is
//! killed. Processes of the pod that may trace it have what it has: so that is nothing of the shim's.

use super::pod_program;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// What `ps` shows in containers of the pod.
const NAME: &CStr = c"pod-init";
/// Of its program, until it is executed.
const PROGRAM: i32 = 2;
/// Where its root is mounted, in its own mount namespace: root of a user namespace can search it.
const ROOT: &CStr = c"/proc";
/// For the end of all processes of its namespace, which the shim reaps meanwhile.
const LIMIT: Duration = Duration::from_secs(3);

/// clone3(2), CLONE_CLEAR_SIGHAND (Linux 5.5), which libc has in too small a type.
const CLEAR_SIGHAND: u64 = 1 << 32;

/// In place of the number of a call: nothing has failed.
const DONE: u8 = pod_program::CONFINED[0];

/// The calls that it makes, as it numbers one that has failed.
const CALLS: [&str; 14] = [
    "read",
    "setresgid or setresuid 0",
    "mount / MS_PRIVATE",
    "mount tmpfs",
    "chdir",
    "pivot_root",
    "umount2 MNT_DETACH",
    "dup3 or close_range",
    "capset",
    "prctl PR_SET_NO_NEW_PRIVS",
    "execveat",
    "setns of its user or network namespace",
    "unshare CLONE_NEWPID",
    "clone3 CLONE_PARENT",
];

/// What has failed, and how.
type Result<T> = std::result::Result<T, (&'static str, Errno)>;

pub struct PodInit {
    pub pid: i32,
    pidfd: OwnedFd,
    /// It ends with the last copy of this. A socket: whoever has the other end of a pipe can keep this one from being
    /// closed (shared.rs), and by `/proc/PID/fd` open it for himself.
    life: Option<OwnedFd>,
    report: Option<OwnedFd>,
}

/// Where an init is to be.
pub struct Place<'a> {
    /// New ones, beside a mount and a pid namespace.
    pub namespaces: i32,
    /// A user namespace and a network namespace of it, to be joined first: then the new ones belong to it.
    pub joined: Option<[BorrowedFd<'a>; 2]>,
}

/// The descriptors of the child, and of the shim's end of its life.
struct Given {
    life: i32,
    report: i32,
    program: i32,
    others: i32,
}

impl PodInit {
    /// It waits for `go`, so that a new user namespace can be given its maps.
    pub fn new(place: &Place) -> Result<Self> {
        let failed = |call| move |errno| (call, errno);
        let program = pod_program::sealed().map_err(failed("memfd_create"))?;
        let (life, its_life) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
                .map_err(failed("socketpair"))?;
        let (report, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(failed("pipe2"))?;
        let given = Given {
            life: its_life.as_raw_fd(),
            report: write.as_raw_fd(),
            program: program.as_raw_fd(),
            others: life.as_raw_fd(),
        };
        let own = place.namespaces | libc::CLONE_NEWPID | libc::CLONE_NEWNS;
        let flags = if place.joined.is_some() { 0 } else { own };
        // SAFETY: the child makes system calls alone, for other threads may have held locks.
        let made = unsafe { clone(flags) };
        if made == 0 {
            run(&given, place);
        }
        let mut pid = Errno::result(made).map_err(failed("clone3"))? as i32;
        drop(write);
        if place.joined.is_some() {
            let made = read_report(&report);
            // It has ended, or it is about to.
            // SAFETY: no status is asked for.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) };
            pid = made?;
        }
        let pidfd = super::pidfd_open(pid).map_err(failed("pidfd_open"))?;
        Ok(Self { pid, pidfd, life: Some(life), report: Some(report) })
    }

    /// Lets it set itself up, once. Its pipe is closed before there is a container.
    pub fn go(&mut self) -> Result<()> {
        let told = self.life.as_ref().map_or(Err(Errno::EPIPE), |life| nix::unistd::write(life, b"g"));
        told.map_err(|errno| (CALLS[0], errno))?;
        let report = self.report.take().ok_or((CALLS[0], Errno::EPIPE))?;
        read_report(&report).map(drop)
    }

    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Ends it, with all processes of its namespace, and reaps it; must be on the thread that has made it.
impl Drop for PodInit {
    fn drop(&mut self) {
        self.life = None;
        let mut end = libc::pollfd { fd: self.pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: numbers, no siginfo_t, and one pollfd that lives until the call returns. Nobody has reaped the child.
        unsafe {
            let none = std::ptr::null::<libc::siginfo_t>();
            libc::syscall(libc::SYS_pidfd_send_signal, self.pidfd.as_raw_fd(), libc::SIGKILL, none, 0);
            libc::poll(&raw mut end, 1, LIMIT.as_millis() as i32);
            libc::waitpid(self.pid, std::ptr::null_mut(), libc::WNOHANG | libc::__WALL);
        }
    }
}

/// What a child has said: a pid, or the call that has failed.
fn read_report(report: &OwnedFd) -> Result<i32> {
    let mut answer = [0; 5];
    let length = nix::unistd::read(report, &mut answer).map_err(|errno| (CALLS[0], errno))?;
    let [call, number @ ..] = answer;
    let number = i32::from_ne_bytes(number);
    match (length, call) {
        (5, DONE) => Ok(number),
        (5, call) => {
            Err((CALLS.get(usize::from(call)).copied().unwrap_or_default(), Errno::from_raw(number)))
        }
        // It was killed.
        _ => Err((CALLS[0], Errno::ESRCH)),
    }
}

/// As fork(2), with the kernel's defaults for signals: the shim's handlers would be the child's.
///
/// # Safety
/// The child must make system calls alone.
unsafe fn clone(flags: i32) -> libc::c_long {
    // SAFETY: zeros are "not asked for"; without an exit signal the end raises no SIGCHLD.
    let mut clone: libc::clone_args = unsafe { std::mem::zeroed() };
    clone.flags = u64::from(flags as u32) | CLEAR_SIGHAND;
    // SAFETY: the caller's duty.
    unsafe { libc::syscall(libc::SYS_clone3, &raw const clone, size_of_val(&clone)) }
}

/// The child's part.
fn run(given: &Given, place: &Place) -> ! {
    let mut report = given.report;
    // SAFETY: numbers, and memory of this process.
    unsafe {
        // Its own copy of the shim's end: it would wait for itself.
        libc::syscall(libc::SYS_close, given.others);
        let made = place.joined.map_or(Ok(()), |joined| join(joined, place.namespaces, report));
        if let Err(call) = made.and_then(|()| set_up(given, place, &mut report)) {
            tell(report, call, Errno::last_raw());
        }
        loop {
            libc::syscall(libc::SYS_exit, 1);
        }
    }
}

/// Joins the user namespace, makes the others in it, and a child for the pid namespace, which is the shim's child as
/// well: only that one returns.
///
/// # Safety
/// In the child of clone3(2): makes system calls alone.
unsafe fn join(joined: [BorrowedFd; 2], namespaces: i32, report: i32) -> std::result::Result<(), u8> {
    let [user, network] = joined.map(|namespace| namespace.as_raw_fd());
    // SAFETY: numbers.
    unsafe {
        check(11, libc::syscall(libc::SYS_setns, user, libc::CLONE_NEWUSER))?;
        check(11, libc::syscall(libc::SYS_setns, network, libc::CLONE_NEWNET))?;
        become_root()?;
        check(12, libc::syscall(libc::SYS_unshare, namespaces | libc::CLONE_NEWPID))?;
        let pid = clone(libc::CLONE_NEWNS | libc::CLONE_PARENT);
        check(13, pid)?;
        if pid > 0 {
            tell(report, DONE, pid as i32);
            libc::syscall(libc::SYS_exit, 0);
        }
    }
    Ok(())
}

/// Of the user namespace.
///
/// # Safety
/// In the child of clone3(2): makes system calls alone.
unsafe fn become_root() -> std::result::Result<(), u8> {
    // SAFETY: numbers.
    unsafe {
        // Some user namespaces deny it; it has no files that groups would open.
        libc::syscall(libc::SYS_setgroups, 0, 0);
        check(1, libc::syscall(libc::SYS_setresgid, 0, 0, 0))?;
        check(1, libc::syscall(libc::SYS_setresuid, 0, 0, 0))
    }
}

/// # Safety
/// In the child: `report` is its descriptor.
unsafe fn tell(report: i32, call: u8, number: i32) {
    let [a, b, c, d] = number.to_ne_bytes();
    let answer = [call, a, b, c, d];
    // SAFETY: the kernel reads the bytes.
    unsafe { libc::syscall(libc::SYS_write, report, answer.as_ptr(), answer.len()) };
}

fn check(call: u8, result: libc::c_long) -> std::result::Result<(), u8> {
    if result < 0 { Err(call) } else { Ok(()) }
}

/// Returns where a call has failed, to be told by `report`.
///
/// # Safety
/// In the child of clone3(2): makes system calls alone. All addresses are of texts that live as long as the program.
unsafe fn set_up(given: &Given, place: &Place, report: &mut i32) -> std::result::Result<(), u8> {
    let (mut byte, none) = (0_u8, std::ptr::null::<u8>());
    // SAFETY: as above.
    unsafe {
        check(0, libc::syscall(libc::SYS_read, given.life, &raw mut byte, 1) - 1)?;
        if place.namespaces & libc::CLONE_NEWUSER != 0 {
            become_root()?;
        }
        // A root of its own: others reach it by /proc/1/root if they may trace.
        let private = libc::MS_REC | libc::MS_PRIVATE;
        check(2, libc::syscall(libc::SYS_mount, none, c"/".as_ptr(), none, private, none))?;
        let (tmpfs, options) = (c"tmpfs".as_ptr(), c"mode=0555,size=4k".as_ptr());
        let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        check(3, libc::syscall(libc::SYS_mount, tmpfs, ROOT.as_ptr(), tmpfs, flags, options))?;
        check(4, libc::syscall(libc::SYS_chdir, ROOT.as_ptr()))?;
        let here = c".".as_ptr();
        check(5, libc::syscall(libc::SYS_pivot_root, here, here))?;
        check(6, libc::syscall(libc::SYS_umount2, here, libc::MNT_DETACH))?;
        check(4, libc::syscall(libc::SYS_chdir, c"/".as_ptr()))?;
        keep_alone(given, report)?;
        confine()?;
        execute()
    }
}

/// Its life as 0, its report as 1, and its program until that is executed.
///
/// # Safety
/// In the child.
unsafe fn keep_alone(given: &Given, report: &mut i32) -> std::result::Result<(), u8> {
    let kept = [given.life, given.report, given.program];
    let cloexec = libc::O_CLOEXEC;
    // SAFETY: numbers.
    unsafe {
        // First away from these numbers.
        let mut copies = [0; 3];
        for (copy, descriptor) in copies.iter_mut().zip(kept) {
            *copy = libc::syscall(libc::SYS_fcntl, descriptor, libc::F_DUPFD, PROGRAM + 1);
            check(7, *copy)?;
        }
        for (number, copy) in (0..).zip(copies) {
            let flags = if number == PROGRAM { cloexec } else { 0 };
            check(7, libc::syscall(libc::SYS_dup3, copy, number, flags))?;
        }
        *report = 1;
        check(7, libc::syscall(libc::SYS_close_range, PROGRAM + 1, libc::c_uint::MAX, 0))
    }
}

/// Returns only where it fails.
///
/// # Safety
/// In the child: no destructor runs.
unsafe fn execute() -> std::result::Result<(), u8> {
    let (arguments, environment) = ([NAME.as_ptr(), std::ptr::null()], [std::ptr::null::<u8>()]);
    let (arguments, environment) = (arguments.as_ptr(), environment.as_ptr());
    let this = c"".as_ptr();
    // SAFETY: lists of texts that end in zero.
    unsafe {
        check(
            10,
            libc::syscall(libc::SYS_execveat, PROGRAM, this, arguments, environment, libc::AT_EMPTY_PATH),
        )
    }
}

/// No capabilities, also not by the program, which adds that there are no system calls but read(2), write(2) and exit(2).
/// The kernel reaps children of a process that ignores SIGCHLD.
///
/// # Safety
/// In the child.
unsafe fn confine() -> std::result::Result<(), u8> {
    const VERSION: u32 = 0x2008_0522;
    let (header, none) = ([VERSION, 0], [0_u32; 6]);
    // SAFETY: the kernel reads two structures of numbers.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        check(8, libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()))?;
        check(9, libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    }
}

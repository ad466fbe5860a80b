//! The init of a pod's pid namespace: a child of the shim without a program, files, capabilities or system calls. The
//! kernel reaps for it. It ends when the shim closes its end of a pipe, as it does when the shim is killed.

use nix::Result;
use nix::errno::Errno;
use std::ffi::CStr;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// What `ps` shows in containers of the pod.
const NAME: &CStr = c"pod-init";
/// For the end of all processes of its namespace, which the shim reaps meanwhile.
const LIMIT: Duration = Duration::from_secs(3);

/// clone3(2), CLONE_CLEAR_SIGHAND (Linux 5.5), which libc has in too small a type.
const CLEAR_SIGHAND: u64 = 1 << 32;

/// The calls that it makes, as it numbers one that has failed.
const CALLS: [&str; 11] = [
    "read",
    "setgroups, setresgid or setresuid 0",
    "mount / MS_PRIVATE",
    "mount tmpfs",
    "chdir",
    "pivot_root",
    "umount2 MNT_DETACH",
    "dup3 or close_range",
    "capset",
    "prctl PR_SET_NO_NEW_PRIVS",
    "prctl PR_SET_SECCOMP",
];

pub struct PodInit {
    pub pid: i32,
    pidfd: OwnedFd,
    /// It ends with the last copy of this.
    life: Option<OwnedFd>,
    report: OwnedFd,
}

/// What the child is told.
struct Orders<'a> {
    life: i32,
    report: i32,
    /// Where its root is mounted, in its own mount namespace.
    directory: &'a CStr,
    has_users: bool,
    /// Of the shim's arguments in memory.
    arguments: Range<usize>,
}

impl PodInit {
    /// In these new namespaces beside a mount and a pid namespace. It waits for `go`, so that its user namespace can be
    /// given its maps. `arguments` are the addresses of the program's arguments.
    pub fn new(namespaces: i32, directory: &CStr, arguments: Range<usize>) -> Result<Self> {
        let (read, life) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let (report, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let mut pidfd: i32 = -1;
        // SAFETY: zeros are "not asked for"; without an exit signal the end raises no SIGCHLD.
        let mut clone: libc::clone_args = unsafe { std::mem::zeroed() };
        let flags = namespaces | libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_PIDFD;
        // The shim's handlers of signals would be the child's.
        clone.flags = flags as u64 | CLEAR_SIGHAND;
        clone.pidfd = &raw mut pidfd as u64;
        let (life_of_child, report_of_child) = (read.as_raw_fd(), write.as_raw_fd());
        let has_users = namespaces & libc::CLONE_NEWUSER != 0;
        let orders = Orders { life: life_of_child, report: report_of_child, directory, has_users, arguments };
        // SAFETY: as fork(2); the child makes system calls alone, for other threads may have held locks.
        let made = unsafe { libc::syscall(libc::SYS_clone3, &raw const clone, size_of_val(&clone)) };
        if made == 0 {
            // Its own copy of the shim's end: it would wait for itself.
            run(life.as_raw_fd(), &orders);
        }
        let pid = Errno::result(made)? as i32;
        // SAFETY: a new descriptor, which is nobody else's.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(Self { pid, pidfd, life: Some(life), report })
    }

    /// Lets it set itself up. Fails with the call that has failed.
    pub fn go(&self) -> std::result::Result<(), (&'static str, Errno)> {
        let told = self.life.as_ref().map_or(Err(Errno::EPIPE), |life| nix::unistd::write(life, b"g"));
        told.map_err(|errno| (CALLS[0], errno))?;
        let mut answer = [0; 5];
        let length = nix::unistd::read(&self.report, &mut answer).map_err(|errno| (CALLS[0], errno))?;
        let [call, errno @ ..] = answer;
        match (length, i32::from_ne_bytes(errno)) {
            (5, 0) => Ok(()),
            (5, errno) => {
                Err((CALLS.get(usize::from(call)).copied().unwrap_or_default(), Errno::from_raw(errno)))
            }
            // It was killed.
            _ => Err((CALLS[0], Errno::ESRCH)),
        }
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

/// The child's part.
fn run(others: i32, orders: &Orders) -> ! {
    // SAFETY: numbers, and memory of this process; exit(2) alone is allowed in strict mode, exit_group(2) is not.
    unsafe {
        libc::syscall(libc::SYS_close, others);
        if let Err(call) = set_up(orders) {
            tell(orders.report, call, Errno::last_raw());
            libc::syscall(libc::SYS_exit, 1);
        }
        let mut byte = 0_u8;
        while libc::syscall(libc::SYS_read, 0, &raw mut byte, 1) != 0 {}
        loop {
            libc::syscall(libc::SYS_exit, 0);
        }
    }
}

/// # Safety
/// In the child: `report` is its descriptor.
unsafe fn tell(report: i32, call: u8, errno: i32) {
    let [a, b, c, d] = errno.to_ne_bytes();
    let answer = [call, a, b, c, d];
    // SAFETY: the kernel reads the bytes.
    unsafe { libc::syscall(libc::SYS_write, report, answer.as_ptr(), answer.len()) };
}

fn check(call: u8, result: libc::c_long) -> std::result::Result<(), u8> {
    if result < 0 { Err(call) } else { Ok(()) }
}

/// # Safety
/// In the child of clone3(2): makes system calls alone. All addresses are of texts that live as long as the program.
unsafe fn set_up(orders: &Orders) -> std::result::Result<(), u8> {
    let (mut byte, none) = (0_u8, std::ptr::null::<u8>());
    // SAFETY: as above.
    unsafe {
        check(0, libc::syscall(libc::SYS_read, orders.life, &raw mut byte, 1) - 1)?;
        if orders.has_users {
            check(1, libc::syscall(libc::SYS_setgroups, 0, none))?;
            check(1, libc::syscall(libc::SYS_setresgid, 0, 0, 0))?;
            check(1, libc::syscall(libc::SYS_setresuid, 0, 0, 0))?;
        }
        // A root of its own: others reach it by /proc/1/root if they may trace.
        let private = libc::MS_REC | libc::MS_PRIVATE;
        check(2, libc::syscall(libc::SYS_mount, none, c"/".as_ptr(), none, private, none))?;
        let (tmpfs, options) = (c"tmpfs".as_ptr(), c"mode=0555,size=4k".as_ptr());
        let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        check(3, libc::syscall(libc::SYS_mount, tmpfs, orders.directory.as_ptr(), tmpfs, flags, options))?;
        check(4, libc::syscall(libc::SYS_chdir, orders.directory.as_ptr()))?;
        let here = c".".as_ptr();
        check(5, libc::syscall(libc::SYS_pivot_root, here, here))?;
        check(6, libc::syscall(libc::SYS_umount2, here, libc::MNT_DETACH))?;
        check(4, libc::syscall(libc::SYS_chdir, c"/".as_ptr()))?;
        // Above what is closed; then 0 and 1 are all that it has.
        let report = libc::syscall(libc::SYS_fcntl, orders.report, libc::F_DUPFD, 3);
        check(7, report)?;
        check(7, libc::syscall(libc::SYS_dup3, orders.life, 0, 0))?;
        check(7, libc::syscall(libc::SYS_dup3, report, 1, 0))?;
        check(7, libc::syscall(libc::SYS_close_range, 2, libc::c_uint::MAX, 0))?;
        disguise(&orders.arguments);
        confine()?;
        tell(1, 0, 0);
    }
    Ok(())
}

/// Not the shim's name and arguments.
///
/// # Safety
/// In the child: the addresses are those of the program's arguments, on its stack.
unsafe fn disguise(arguments: &Range<usize>) {
    let name = NAME.to_bytes();
    // SAFETY: as above.
    unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_SET_NAME, NAME.as_ptr(), 0, 0, 0);
        if arguments.len() > name.len() {
            let start = std::ptr::with_exposed_provenance_mut::<u8>(arguments.start);
            std::ptr::write_bytes(start, 0, arguments.len());
            std::ptr::copy_nonoverlapping(name.as_ptr(), start, name.len());
        }
    }
}

/// No capabilities, and no system calls but read(2), write(2) and exit(2). The kernel reaps children of a process that
/// ignores SIGCHLD.
///
/// # Safety
/// In the child.
unsafe fn confine() -> std::result::Result<(), u8> {
    const VERSION: u32 = 0x2008_0522;
    const STRICT: libc::c_long = 1;
    let (header, none) = ([VERSION, 0], [0_u32; 6]);
    // SAFETY: the kernel reads two structures of numbers.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        check(8, libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()))?;
        check(9, libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        let made = libc::syscall(libc::SYS_prctl, libc::PR_SET_SECCOMP, STRICT, 0, 0, 0);
        // A kernel without it.
        if Errno::last_raw() == libc::EINVAL { Ok(()) } else { check(10, made) }
    }
}

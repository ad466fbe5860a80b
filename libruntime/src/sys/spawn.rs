//! Starting the stage from a process that may have many threads and much memory, without
//! changing it: `clone3(CLONE_VM)` and `execveat` of a sealed program.
//!
//! Between the two the child shares this process's memory. It runs on a stack of its own, makes raw system calls only,
//! and changes no credentials. The caller goes on meanwhile: with CLONE_VFORK it could be held up for ever, by a child
//! that is stopped.

use super::Result;
use nix::errno::Errno;
use std::ffi::CString;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What [`spawn`] starts and what it hands over.
pub struct Spawn<'a> {
    pub program: BorrowedFd<'a>,
    /// Its descriptor number becomes the program's argument; the descriptor is handed over.
    pub plan: BorrowedFd<'a>,
    pub stdio: [BorrowedFd<'a>; 3],
    /// Descriptors that get a number of the caller's choice, above 2 and each once; none of them is that of a
    /// descriptor of `keep`.
    pub passed: &'a [(RawFd, u32)],
    /// Handed over under their own numbers.
    pub keep: &'a [RawFd],
    /// A cgroup v2 directory to be born in (`CLONE_INTO_CGROUP`). Not one that limits memory: the OOM killer ends every
    /// process that shares the child's memory.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The flags of new namespaces (namespaces(7)).
    pub namespaces: u64,
}

/// What the child needs, made before: it cannot allocate.
struct Child {
    program: RawFd,
    stdio: [RawFd; 3],
    passed: Vec<(RawFd, u32)>,
    /// The descriptors that stay open.
    keep: Vec<RawFd>,
    /// The program's argument.
    number: CString,
    /// Why the program was not executed.
    errno: AtomicI32,
    /// The kernel sets it to 0 once the child has left this memory (CLONE_CHILD_CLEARTID of clone(2)).
    is_here: AtomicU32,
    stack: Stack,
}

/// A process that was started, and may not have executed its program yet.
pub struct Spawned {
    pub pid: i32,
    /// Until the program is executed, the process's end sends no signal: wait with this.
    pub pidfd: OwnedFd,
    pub lent: Lent,
}

/// Memory that a child uses until it has executed its program or is dead. It is to be dropped after that; what the child
/// still uses when it is dropped is never freed.
pub struct Lent(ManuallyDrop<Box<Child>>);

impl Lent {
    /// Why the program was not executed, once the child has ended.
    pub fn errno(&self) -> Option<Errno> {
        match self.0.errno.load(Ordering::Acquire) {
            0 => None,
            errno => Some(Errno::from_raw(errno)),
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // One that was just killed is gone in a moment.
        if await_zero(&self.0.is_here, Duration::from_secs(1)) {
            // SAFETY: the child does not use it any more, and this is the end of it here.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}

/// Waits for at most `limit`; returns whether it is zero.
fn await_zero(word: &AtomicU32, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        let now = word.load(Ordering::Acquire);
        let left = end.saturating_duration_since(Instant::now());
        if now == 0 || left.is_zero() {
            return now == 0;
        }
        let left = libc::timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos().into() };
        // SAFETY: both are read during the call alone. The kernel wakes a futex that is not private.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, now, &raw const left) };
    }
}

/// Starts the program, and does not wait until it is executed.
pub fn spawn(what: &Spawn) -> Result<Spawned> {
    let number = CString::new(what.plan.as_raw_fd().to_string()).map_err(|_| Errno::EINVAL)?;
    let is_target = |fd: RawFd| fd <= 2 || what.passed.iter().any(|(_, number)| *number as RawFd == fd);
    let above = what.passed.iter().map(|(_, number)| number + 1).max().unwrap_or(3);
    let mut copies = Vec::new();
    // A source with the number of another target could be overwritten before it is copied.
    let mut source = |fd: RawFd, number: RawFd| -> Result<RawFd> {
        if fd == number || !is_target(fd) {
            return Ok(fd);
        }
        let copy = duplicate(fd, above)?;
        let fd = copy.as_raw_fd();
        copies.push(copy);
        Ok(fd)
    };
    let mut stdio = [0, 1, 2];
    for (at, fd) in what.stdio.iter().enumerate() {
        stdio[at] = source(fd.as_raw_fd(), at as RawFd)?;
    }
    let mut passed = Vec::with_capacity(what.passed.len());
    for (fd, number) in what.passed {
        passed.push((source(*fd, *number as RawFd)?, *number));
    }
    let mut keep = what.keep.to_vec();
    keep.extend([what.program.as_raw_fd(), what.plan.as_raw_fd()]);
    keep.extend(what.passed.iter().map(|(_, number)| *number as RawFd));
    let child = Box::new(Child {
        program: what.program.as_raw_fd(),
        stdio,
        passed,
        keep,
        number,
        errno: AtomicI32::new(0),
        is_here: AtomicU32::new(1),
        stack: Stack::new()?,
    });
    let flags = libc::CLONE_VM | libc::CLONE_PIDFD | libc::CLONE_CHILD_CLEARTID;
    let flags = flags as u64 | what.namespaces;
    let clone = CloneArgs { flags, cgroup: what.cgroup, stack: &child.stack, is_here: Some(&child.is_here) };
    // SAFETY: `Lent` has the stack and what the child reads until the child has left.
    let (pid, pidfd) = with_signals_blocked(|| unsafe { clone3(&clone, run_child, &*child) })?;
    Ok(Spawned { pid, pidfd, lent: Lent(ManuallyDrop::new(child)) })
}

/// A copy with a number of at least `above`.
pub fn duplicate(fd: RawFd, above: u32) -> Result<OwnedFd> {
    // SAFETY: fcntl with an integer argument; the result is a new descriptor.
    unsafe { super::owned(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, above).into()) }
}

/// A process that only holds a new user namespace, so that its maps can be written. It is killed when this is dropped;
/// a descriptor of the namespace keeps the namespace alive.
pub struct Holder {
    pub pid: i32,
    pidfd: OwnedFd,
    /// The process sleeps on it until its end.
    stack: ManuallyDrop<Stack>,
}

pub fn hold_user_namespace() -> Result<Holder> {
    let flags = libc::CLONE_VM as u64 | libc::CLONE_PIDFD as u64 | libc::CLONE_NEWUSER as u64;
    let stack = Stack::new()?;
    OUR_PID.store(std::process::id(), Ordering::Relaxed);
    let clone = CloneArgs { flags, cgroup: None, stack: &stack, is_here: None };
    // SAFETY: the stack is the holder's, which has it until the child is dead.
    let (pid, pidfd) = with_signals_blocked(|| unsafe { clone3(&clone, hold, &()) })?;
    Ok(Holder { pid, pidfd, stack: ManuallyDrop::new(stack) })
}

impl Drop for Holder {
    fn drop(&mut self) {
        let pidfd = std::os::fd::AsFd::as_fd(&self.pidfd);
        // Nothing else waits for this child, so its pid is not reused until it is waited for here.
        let signalled = super::pidfd_send_signal(pidfd, libc::SIGKILL).or_else(|_| {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid), nix::sys::signal::SIGKILL)
        });
        // Where a seccomp filter of the caller refuses the signal, the child lives until this process ends, and needs
        // its stack until then.
        if signalled.is_ok() && super::wait_pidfd(pidfd, true).is_ok() {
            // SAFETY: nothing runs on it any more, and it is not used again.
            unsafe { ManuallyDrop::drop(&mut self.stack) };
        }
    }
}

/// The pid of this process, for a child that shares its memory and outlives the call that made it.
static OUR_PID: AtomicU32 = AtomicU32::new(0);

/// Waits until it is killed, or its parent is.
extern "C" fn hold(_: &()) -> ! {
    // SAFETY: numbers, and for ppoll(2) no addresses.
    unsafe {
        raw(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as usize, libc::SIGKILL as usize, 0, 0, 0]);
        let orphaned = raw(libc::SYS_getppid, [0; 5]) as u32 != OUR_PID.load(Ordering::Relaxed);
        if !orphaned {
            // Waits for ever: there is nothing to wait for, and every signal but SIGKILL is blocked.
            raw(libc::SYS_ppoll, [0; 5]);
        }
    }
    end(0)
}

/// Ends a child even where a seccomp filter of the caller refuses some of the calls. A trapping instruction comes last:
/// before Linux 5.16 a core dump ends every process that shares the memory, and so the caller.
fn end(code: usize) -> ! {
    // SAFETY: numbers; none of them touches memory.
    unsafe {
        raw(libc::SYS_exit, [code, 0, 0, 0, 0]);
        raw(libc::SYS_exit_group, [code, 0, 0, 0, 0]);
        let own = raw(libc::SYS_getpid, [0; 5]) as usize;
        raw(libc::SYS_kill, [own, libc::SIGKILL as usize, 0, 0, 0]);
    }
    #[cfg(target_arch = "x86_64")]
    // SAFETY: does not go on.
    unsafe {
        std::arch::asm!("ud2", options(noreturn))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: does not go on.
    unsafe {
        std::arch::asm!("brk #1", options(noreturn))
    }
}

fn with_signals_blocked<T>(f: impl FnOnce() -> T) -> T {
    let (all, mut before) = (u64::MAX, 0u64);
    let set = |mask: &u64, old: *mut u64| {
        // SAFETY: both are kernel signal sets of eight bytes. The raw call also blocks the
        // signals that libc keeps for itself.
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, mask as *const u64, old, 8) };
    };
    set(&all, &raw mut before);
    let result = f();
    set(&before, std::ptr::null_mut());
    result
}

/// The stack of a child that shares this process's memory.
struct Stack {
    base: *mut libc::c_void,
}

const STACK_SIZE: usize = 64 << 10;

impl Stack {
    fn new() -> Result<Self> {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new anonymous mapping.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), STACK_SIZE, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(Self { base }) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and the child that ran on it has executed a program or is dead.
        unsafe { libc::munmap(self.base, STACK_SIZE) };
    }
}

/// Arguments of clone3(2).
struct CloneArgs<'a> {
    flags: u64,
    cgroup: Option<BorrowedFd<'a>>,
    stack: &'a Stack,
    /// For CLONE_CHILD_CLEARTID.
    is_here: Option<&'a AtomicU32>,
}

/// clone3(2) of a child that runs `f(argument)` on its own stack and never returns.
///
/// # Safety
/// The stack, `is_here` and `argument` stay until the child has executed a program or is dead.
unsafe fn clone3<T>(clone: &CloneArgs, f: extern "C" fn(&T) -> !, argument: &T) -> Result<(i32, OwnedFd)> {
    const CLEAR_SIGHAND: u64 = 1 << 32;
    const INTO_CGROUP: u64 = 1 << 33;
    let mut pidfd: RawFd = -1;
    // SAFETY: zeros are a value of this structure of integers.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = clone.flags | CLEAR_SIGHAND;
    args.pidfd = &raw mut pidfd as u64;
    args.child_tid = clone.is_here.map_or(0, |word| word.as_ptr() as u64);
    args.stack = clone.stack.base as u64;
    args.stack_size = STACK_SIZE as u64;
    if let Some(cgroup) = clone.cgroup {
        args.flags |= INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the child starts at the top of its own stack, calls `f` and does not return here;
    // registers are as in the parent, so that both see the same operands.
    let pid = unsafe { clone3_call(&args, f as *const () as usize, argument as *const T as usize) };
    if pid < 0 {
        return Err(Errno::from_raw(-pid as i32));
    }
    // SAFETY: the kernel made it for us (CLONE_PIDFD).
    Ok((pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

// The operands are in registers that neither the kernel nor the child's first instructions change: the compiler may
// choose the frame pointer for any other operand.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3_call(args: &libc::clone_args, f: usize, argument: usize) -> isize {
    let mut result = libc::SYS_clone3 as isize;
    // SAFETY: see the only caller.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r9",
            "call r8",
            "ud2",
            "2:",
            in("r8") f,
            in("r9") argument,
            inout("rax") result,
            in("rdi") args as *const libc::clone_args,
            in("rsi") size_of::<libc::clone_args>(),
            out("rcx") _,
            out("r11") _,
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn clone3_call(args: &libc::clone_args, f: usize, argument: usize) -> isize {
    let mut result = args as *const libc::clone_args as isize;
    // SAFETY: see the only caller.
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x10",
            "blr x9",
            "brk #1",
            "2:",
            in("x9") f,
            in("x10") argument,
            inout("x0") result,
            in("x1") size_of::<libc::clone_args>(),
            in("x8") libc::SYS_clone3,
        );
    }
    result
}

/// A system call that does not set errno, which in a child of CLONE_VM is that of the caller's thread.
///
/// # Safety
/// As the call's man page asks for; its effect on memory is one on the caller's.
unsafe fn raw(nr: libc::c_long, args: [usize; 5]) -> isize {
    let [a, b, c, d, e] = args;
    // SAFETY: the caller vouches for the arguments.
    unsafe { syscalls::raw::syscall5(nr as usize, a, b, c, d, e) as isize }
}

/// Keeps a descriptor open across execve(2), in the child, whose table of descriptors is its own.
fn keep_open(fd: u32) {
    // SAFETY: numbers.
    unsafe { raw(libc::SYS_fcntl, [fd as usize, libc::F_SETFD as usize, 0, 0, 0]) };
}

/// Has execve(2) close all descriptors from `first` on.
fn close_on_exec_from(first: u32) {
    let flags = libc::CLOSE_RANGE_CLOEXEC as usize;
    // SAFETY: numbers.
    unsafe { raw(libc::SYS_close_range, [first as usize, u32::MAX as usize, flags, 0, 0]) };
}

/// Runs in the child: places the descriptors, and executes the program, which closes those that are not handed over.
extern "C" fn run_child(child: &Child) -> ! {
    for (at, fd) in child.stdio.iter().enumerate() {
        if *fd != at as RawFd {
            // SAFETY: numbers.
            unsafe { raw(libc::SYS_dup3, [*fd as usize, at, 0, 0, 0]) };
        } else {
            keep_open(at as u32);
        }
    }
    for (fd, number) in &child.passed {
        if *fd != *number as RawFd {
            // SAFETY: numbers.
            unsafe { raw(libc::SYS_dup3, [*fd as usize, *number as usize, 0, 0, 0]) };
        }
    }
    close_on_exec_from(3);
    for fd in child.keep.iter().filter(|fd| **fd > 2 && **fd != child.program) {
        keep_open(*fd as u32);
    }
    let empty = c"".as_ptr();
    let args = [c"onggi-stage".as_ptr(), child.number.as_ptr(), std::ptr::null()];
    let environment = &raw const args[2] as usize;
    let call = [
        child.program as usize,
        empty as usize,
        args.as_ptr() as usize,
        environment,
        libc::AT_EMPTY_PATH as usize,
    ];
    // SAFETY: texts that end in NUL, and lists of their addresses that end in zero.
    let failed = unsafe { raw(libc::SYS_execveat, call) };
    child.errno.store(-failed as i32, Ordering::Release);
    end(127)
}

#[cfg(test)]
mod tests {
    use super::super::{ExitStatus, exit_of_reaped, wait_pidfd};
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;

    extern "C" fn leave(code: &usize) -> ! {
        end(*code)
    }

    /// As a host does that waits for any child, a moment before the library looks.
    #[test]
    fn an_exit_is_known_while_another_thread_reaps() {
        if super::super::kernel_version() < [6, 15] {
            return eprintln!("skipped: before Linux 6.15 the status of a reaped process is lost");
        }
        let pid = AtomicI32::new(0);
        let reaped_by_other = std::thread::scope(|scope| {
            scope.spawn(|| {
                while let other @ 0.. = pid.load(Ordering::Acquire) {
                    let flags = libc::__WALL | libc::WNOHANG;
                    // SAFETY: the status is not wanted.
                    unsafe { libc::waitpid(other.max(1), std::ptr::null_mut(), flags) };
                    // The kernel's lock of all processes is left to the one that ends.
                    (0..100).for_each(|_| std::hint::spin_loop());
                }
            });
            let result = std::panic::catch_unwind(|| wait_beside_another(&pid));
            pid.store(-1, Ordering::Release);
            result.unwrap()
        });
        assert!(reaped_by_other > 0);
    }

    /// Returns how often the other thread was first.
    fn wait_beside_another(shared: &AtomicI32) -> u32 {
        let stack = Stack::new().unwrap();
        let flags = libc::CLONE_VM as u64 | libc::CLONE_PIDFD as u64;
        let mut reaped_by_other = 0;
        for _ in 0..20_000 {
            let clone = CloneArgs { flags, cgroup: None, stack: &stack, is_here: None };
            // SAFETY: the child is dead before the stack is used again.
            let (pid, pidfd) = with_signals_blocked(|| unsafe { clone3(&clone, leave, &7) }).unwrap();
            shared.store(pid, Ordering::Release);
            let exit = loop {
                match wait_pidfd(pidfd.as_fd(), false) {
                    Ok(None) => {
                        let mut end = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
                        poll(&mut end, PollTimeout::NONE).unwrap();
                    }
                    Ok(Some(exit)) => break exit,
                    Err(errno) => {
                        assert_eq!(errno, Errno::ECHILD);
                        reaped_by_other += 1;
                        break exit_of_reaped(pidfd.as_fd()).unwrap();
                    }
                }
            };
            assert_eq!(exit, ExitStatus::Code(7));
        }
        reaped_by_other
    }
}

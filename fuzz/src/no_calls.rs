//! Runs code that must make no system call, and aborts with a message if it makes one. Those of the allocator are
//! allowed, and seccomp(2), by which libruntime::features asks the kernel for the flags that it knows. On other
//! machines than x86_64, the code simply runs.

#[cfg(not(target_arch = "x86_64"))]
pub fn run(work: impl FnOnce()) {
    work();
}

#[cfg(target_arch = "x86_64")]
pub use x86_64::run;

/// The kernel sends SIGSYS in place of a system call while `BLOCKED` says so
/// (Documentation/admin-guide/syscall-user-dispatch.rst).
#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU8, Ordering};

    /// `SYSCALL_DISPATCH_FILTER_ALLOW` or `SYSCALL_DISPATCH_FILTER_BLOCK`.
    static BLOCKED: AtomicU8 = AtomicU8::new(0);

    /// Memory, locks of the allocator, and the end of a signal handler (libFuzzer has a timer).
    const ALLOWED: [i64; 10] = [
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_mprotect,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_futex,
        libc::SYS_getrandom,
        libc::SYS_rt_sigreturn,
        libc::SYS_seccomp,
    ];

    pub fn run(work: impl FnOnce()) {
        static READY: OnceLock<()> = OnceLock::new();
        READY.get_or_init(begin);
        BLOCKED.store(1, Ordering::SeqCst);
        work();
        BLOCKED.store(0, Ordering::SeqCst);
    }

    fn begin() {
        const PR_SET_SYSCALL_USER_DISPATCH: i32 = 59;
        const ON: usize = 1;
        // SAFETY: the handler has the signature that SA_SIGINFO asks for, and the selector lives for ever.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = called as extern "C" fn(_, _, _) as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()), 0);
            let selector = BLOCKED.as_ptr();
            assert_eq!(libc::prctl(PR_SET_SYSCALL_USER_DISPATCH, ON, 0usize, 0usize, selector), 0);
        }
    }

    /// An allowed call is made again, and from then on this input is no longer watched: the return from this
    /// handler is a system call as well.
    extern "C" fn called(_signal: i32, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        BLOCKED.store(0, Ordering::SeqCst);
        // SAFETY: the kernel gives a valid context to a handler with SA_SIGINFO.
        let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let number = registers[libc::REG_RAX as usize];
        assert!(ALLOWED.contains(&number), "system call {number}, where none may be made");
        const LENGTH_OF_SYSCALL: i64 = 2;
        registers[libc::REG_RIP as usize] -= LENGTH_OF_SYSCALL;
    }
}

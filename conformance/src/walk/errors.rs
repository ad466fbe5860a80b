//! Which errors a system call really ends with when a machine runs out of something, when a disk or
//! a signal gets in the way, or when a security module objects. A call that is not here cannot fail.

use nix::errno::Errno::{self, *};

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Failure {
    /// The kernel does nothing and returns the error.
    Instead(Errno),
    /// The kernel does it and returns the error all the same: close(2) of a full disk.
    Afterwards(Errno),
}

/// What a descriptor is of. A disk can fail below a file; a pipe or a socket has none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Descriptor {
    File,
    Directory,
    Other,
}

/// The failures of a call on that descriptor, if it is on one; `second` is its second argument, which
/// says what fcntl(2) and futex(2) do.
pub fn failures(name: &str, descriptor: Descriptor, second: u64) -> &'static [Failure] {
    use Failure::{Afterwards, Instead};
    const EINTR_ONLY: &[Failure] = &[Instead(EINTR)];
    const FUTEX_WAIT: u64 = 0;
    const FUTEX_WAIT_BITSET: u64 = 9;
    match name {
        "read" | "readv" | "write" | "writev" | "sendfile" if descriptor == Descriptor::Other => EINTR_ONLY,
        // What is written back then is written already, or is not on a disk.
        "close" if descriptor != Descriptor::File => &[Afterwards(EINTR)],
        "open" | "openat" | "openat2" => &[Instead(EMFILE), Instead(EIO), Instead(ENFILE)],
        "socket" | "socketpair" | "pipe2" | "memfd_create" | "eventfd2" | "epoll_create1" | "accept4"
        | "accept" | "pidfd_open" | "dup" | "fsopen" | "fsmount" | "open_tree" | "timerfd_create"
        | "signalfd4" | "pidfd_getfd" | "bpf" | "inotify_init1" => &[Instead(EMFILE), Instead(ENOMEM)],
        "write" | "pwrite64" | "writev" | "sendfile" | "copy_file_range" => {
            &[Instead(ENOSPC), Instead(EIO), Instead(EINTR)]
        }
        "ftruncate" | "fallocate" => &[Instead(ENOSPC), Instead(EIO)],
        "read" | "pread64" | "readv" => &[Instead(EIO), Instead(EINTR)],
        "getdents64" | "readlink" | "readlinkat" | "fstat" | "newfstatat" | "statx" | "fstatfs"
        | "statfs" | "access" | "faccessat2" | "lseek" | "stat" | "lstat" => &[Instead(EIO)],
        "close" => &[Afterwards(EIO), Afterwards(EINTR)],
        "mkdir" | "mkdirat" | "mknod" | "mknodat" | "symlink" | "symlinkat" | "link" | "linkat"
        | "rename" | "renameat" | "renameat2" => &[Instead(ENOSPC), Instead(EIO), Instead(EPERM)],
        "unlink" | "unlinkat" | "rmdir" => &[Instead(EIO), Instead(EPERM)],
        "mount" | "umount2" | "move_mount" | "mount_setattr" | "fsconfig" | "pivot_root" | "chroot"
        | "fspick" => &[Instead(ENOMEM), Instead(EPERM), Instead(EIO)],
        "chdir" | "fchdir" | "fchmod" | "fchmodat" | "fchmodat2" | "fchown" | "fchownat" | "chmod"
        | "chown" | "utimensat" | "fsetxattr" => &[Instead(EIO), Instead(EPERM)],
        "clone" | "clone3" | "fork" | "vfork" => &[Instead(EAGAIN), Instead(ENOMEM), Instead(EPERM)],
        "execve" | "execveat" => &[Instead(ENOMEM), Instead(EIO), Instead(EPERM)],
        "unshare" | "setns" => &[Instead(ENOSPC), Instead(ENOMEM), Instead(EPERM)],
        "mmap" | "mprotect" | "brk" | "mremap" => &[Instead(ENOMEM)],
        "connect" | "bind" | "listen" | "setsockopt" | "getsockopt" | "getsockname" | "getpeername" => {
            &[Instead(ENOMEM), Instead(EPERM)]
        }
        "sendmsg" | "sendto" | "recvmsg" | "recvfrom" | "sendmmsg" => &[Instead(ENOMEM), Instead(EINTR)],
        "poll" | "ppoll" | "epoll_wait" | "epoll_pwait" | "select" | "pselect6" | "pause" | "waitid"
        | "wait4" | "rt_sigtimedwait" | "nanosleep" | "clock_nanosleep" => EINTR_ONLY,
        // A wait: FUTEX_WAKE cannot fail, and without it another thread would wait for ever.
        "futex" if matches!(second & 0x7f, FUTEX_WAIT | FUTEX_WAIT_BITSET) => EINTR_ONLY,
        "flock" => &[Instead(ENOLCK), Instead(EINTR)],
        "ioctl" => &[Instead(EIO), Instead(ENOMEM), Instead(EPERM)],
        "fcntl" => fcntl(second),
        "setuid" | "setgid" | "setresuid" | "setresgid" | "setreuid" | "setregid" | "setgroups"
        | "setfsuid" | "capset" | "seccomp" | "prctl" | "keyctl" | "setrlimit" | "prlimit64"
        | "sethostname" | "setdomainname" | "sched_setattr" | "sched_setscheduler" | "sched_setaffinity"
        | "setpriority" | "ioprio_set" | "personality" | "set_mempolicy" | "setsid" | "pidfd_send_signal"
        | "kill" | "close_range" | "dup2" | "dup3" | "prlimit" => &[Instead(EPERM), Instead(ENOMEM)],
        _ => &[],
    }
}

/// Commands of fcntl(2): those that make a descriptor, that wait for a lock, and that seal.
fn fcntl(command: u64) -> &'static [Failure] {
    const DUPFD: u64 = 0;
    const DUPFD_CLOEXEC: u64 = 1030;
    const ADD_SEALS: u64 = 1033;
    match command {
        DUPFD | DUPFD_CLOEXEC => &[Failure::Instead(EMFILE)],
        6 | 7 | 37 | 38 => &[Failure::Instead(ENOLCK)],
        ADD_SEALS => &[Failure::Instead(EBUSY)],
        _ => &[],
    }
}

/// A program may end by a signal where it gets no memory for itself.
pub fn is_memory(name: &str) -> bool {
    matches!(name, "mmap" | "mprotect" | "brk" | "mremap")
}

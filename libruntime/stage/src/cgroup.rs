//! Enters a cgroup of v2: a clone goes on in it, with this process's memory, and this process ends. To
//! move a process by a write, the kernel waits until nothing on the host is being cloned or is ending, which can take
//! milliseconds.

use crate::kernel::*;
use core::arch::asm;
use linux_raw_sys::general as k;
use onggi_stage::{CLONE_FLAGS, NamespaceFlags};

/// struct clone_args: the flags, nine that are zero here, and the cgroup.
type CloneArgs = [u64; 11];

/// clone3(2) with `CLONE_PARENT`, `CLONE_VM` and `CLONE_INTO_CGROUP`. Returns in the child, or where there is none.
pub fn enter(cgroup: i32, namespaces: NamespaceFlags) -> Done {
    if namespaces.0 & !u64::from(CLONE_NAMESPACES) != 0 {
        return Err(Failed { call: Sysno::clone3, errno: EINVAL });
    }
    // A copy of the memory would cost more than all else.
    let flags = namespaces.0 | CLONE_FLAGS | u64::from(k::CLONE_VM) | k::CLONE_INTO_CGROUP;
    let args = [flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, cgroup as u64];
    // SAFETY: the flags are those that `clone_or_end` asks for.
    match unsafe { clone_or_end(&args) } {
        0 => Ok(()),
        failed => Err(Failed { call: Sysno::clone3, errno: -failed as i32 }),
    }
}

/// Returns 0 in the child, or the error. The parent ends within these instructions, because the stack is the child's.
///
/// # Safety
/// The flags have the kernel write to no address, and no signal runs code of this program.
#[cfg(target_arch = "x86_64")]
unsafe fn clone_or_end(args: &CloneArgs) -> isize {
    let mut result = Sysno::clone3 as isize;
    // SAFETY: the kernel reads `args`; the parent touches no memory after the clone.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jle 2f",
            "xor edi, edi",
            "mov eax, {end}",
            "syscall",
            "ud2",
            "2:",
            end = const Sysno::exit_group as i32,
            inout("rax") result,
            inout("rdi") args.as_ptr() => _,
            in("rsi") size_of::<CloneArgs>(),
            out("rcx") _,
            out("r11") _,
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn clone_or_end(args: &CloneArgs) -> isize {
    let mut result = args.as_ptr() as isize;
    // SAFETY: as above.
    unsafe {
        asm!(
            "svc #0",
            "cmp x0, #0",
            "b.le 2f",
            "mov x0, xzr",
            "mov x8, {end}",
            "svc #0",
            "brk #1",
            "2:",
            end = const Sysno::exit_group as i32,
            inout("x0") result,
            in("x1") size_of::<CloneArgs>(),
            inout("x8") Sysno::clone3 as isize => _,
        );
    }
    result
}

//! The program that a pod's init executes: a few instructions without libc, in a sealed memfd. So the init has neither
//! the shim's memory nor its program, which processes of the pod could read and open by `/proc/1` if they may trace.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::os::fd::OwnedFd;

/// What it writes to descriptor 1 when it is confined.
pub const CONFINED: [u8; 5] = [u8::MAX, 0, 0, 0, 0];

/// Where it is in memory.
const ADDRESS: u64 = 0x40_0000;
/// Of the header and of two program headers (elf(5)).
const HEADERS: usize = 64 + 2 * 56;
const LARGEST_PAGE: u64 = 0x1_0000;

// PR_SET_DUMPABLE 0, PR_SET_NAME, and PR_SET_SECCOMP 1, of which EINVAL is that of a kernel without it. Then it says so,
// and reads descriptor 0 to its end.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.pod_init, \"a\"",
    "onggi_pod_init:",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "mov edi, 4",
    "mov eax, 157",
    "syscall",
    "lea rsi, [rip + 6f]",
    "mov edi, 15",
    "mov eax, 157",
    "syscall",
    "mov esi, 1",
    "mov edi, 22",
    "mov eax, 157",
    "syscall",
    "test eax, eax",
    "jz 2f",
    "cmp eax, -22",
    "jne 4f",
    "2:",
    "mov edx, 5",
    "lea rsi, [rip + 7f]",
    "mov edi, 1",
    "mov eax, 1",
    "syscall",
    "3:",
    "mov edx, 1",
    "mov rsi, rsp",
    "xor edi, edi",
    "xor eax, eax",
    "syscall",
    "test rax, rax",
    "jnz 3b",
    "4:",
    "xor edi, edi",
    "mov eax, 60",
    "syscall",
    "jmp 4b",
    "6: .asciz \"pod-init\"",
    "7: .byte 255, 0, 0, 0, 0",
    "onggi_pod_init_end:",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".pushsection .rodata.pod_init, \"a\"",
    ".balign 4",
    "onggi_pod_init:",
    "mov x0, #4",
    "mov x1, #0",
    "mov x2, #0",
    "mov x3, #0",
    "mov x4, #0",
    "mov x8, #167",
    "svc #0",
    "mov x0, #15",
    "adr x1, 6f",
    "svc #0",
    "mov x0, #22",
    "mov x1, #1",
    "svc #0",
    "cbz x0, 2f",
    "cmn x0, #22",
    "b.ne 4f",
    "2:",
    "mov x0, #1",
    "adr x1, 7f",
    "mov x2, #5",
    "mov x8, #64",
    "svc #0",
    "3:",
    "mov x0, #0",
    "mov x1, sp",
    "mov x2, #1",
    "mov x8, #63",
    "svc #0",
    "cbnz x0, 3b",
    "4:",
    "mov x0, #0",
    "mov x8, #93",
    "svc #0",
    "b 4b",
    "6: .asciz \"pod-init\"",
    "7: .byte 255, 0, 0, 0, 0",
    "onggi_pod_init_end:",
    ".popsection",
);

unsafe extern "C" {
    static onggi_pod_init: u8;
    static onggi_pod_init_end: u8;
}

fn code() -> &'static [u8] {
    let (begin, end) = (&raw const onggi_pod_init, &raw const onggi_pod_init_end);
    // SAFETY: the bytes between the two labels, which are read-only data.
    unsafe { std::slice::from_raw_parts(begin, end.offset_from_unsigned(begin)) }
}

/// The program as an ELF file: its code, and a stack that cannot be executed.
fn file() -> Vec<u8> {
    const EXECUTE: u32 = 1;
    const WRITE: u32 = 2;
    const READ: u32 = 4;
    const MACHINE: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    const LOAD: (u32, u32) = (1, READ | EXECUTE);
    const STACK: (u32, u32) = (0x6474_e551, READ | WRITE);
    let size = (HEADERS + code().len()) as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |bytes: &[u8]| file.extend(bytes);
    for half in [2, MACHINE] {
        put(&half.to_le_bytes());
    }
    put(&1u32.to_le_bytes());
    for word in [ADDRESS + HEADERS as u64, 64, 0] {
        put(&word.to_le_bytes());
    }
    put(&0u32.to_le_bytes());
    for half in [64u16, 56, 2, 0, 0, 0] {
        put(&half.to_le_bytes());
    }
    for ((kind, flags), address, size) in [(LOAD, ADDRESS, size), (STACK, 0, 0)] {
        put(&kind.to_le_bytes());
        put(&flags.to_le_bytes());
        for word in [0, address, address, size, size, LARGEST_PAGE] {
            put(&word.to_le_bytes());
        }
    }
    put(code());
    file
}

/// Ready to be executed, by execveat(2).
pub fn sealed() -> nix::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // Kernels before 6.3 know no flag for it, and every memfd is executable.
    let memfd = match memfd_create(c"pod-init", flags | MFdFlags::from_bits_retain(libc::MFD_EXEC)) {
        Err(Errno::EINVAL) => memfd_create(c"pod-init", flags)?,
        other => other?,
    };
    let file = file();
    if nix::unistd::write(&memfd, &file)? != file.len() {
        return Err(Errno::ENOSPC);
    }
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&memfd, FcntlArg::F_ADD_SEALS(seals | SealFlag::F_SEAL_SEAL))?;
    Ok(memfd)
}

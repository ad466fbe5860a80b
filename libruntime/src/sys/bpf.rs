//! The system calls of the cgroup module that neither std nor nix offers: bpf(2) for the device
//! filter of cgroup v2 and pidfds for signals that cannot hit a reused pid.
//!
//! Safe signatures over one call each; nothing is decided here. The programs are made in
//! `cgroup/devices.rs`.
#![allow(unsafe_code)]

use nix::errno::Errno;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// One eBPF instruction, `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    pub code: u8,
    /// Destination register in the low, source register in the high four bits.
    pub regs: u8,
    pub off: i16,
    pub imm: i32,
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;

/// The name by which a later update finds the program.
const NAME: [u8; 16] = *b"onggi_devices\0\0\0";

const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;

/// More programs than one cgroup can hold (the kernel's BPF_CGROUP_MAX_PROGS).
const MAX_PROGRAMS: usize = 64;

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// bpf(2) with the one attribute structure that `command` reads.
///
/// # Safety
/// Addresses in `attr` are of memory that is as large as the lengths next to them say, and ours to write where
/// the kernel writes.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> Result<i32, Errno> {
    // SAFETY: `attr` is an exclusively borrowed #[repr(C)] structure of plain integers and its exact
    // size is passed; the caller vouches for the addresses in it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    Errno::result(result).map(|value| value as i32)
}

/// A command that returns a new descriptor; bpf(2) sets close-on-exec by itself.
///
/// # Safety
/// As [`bpf`].
unsafe fn open<T>(command: libc::c_int, attr: &mut T) -> Result<OwnedFd, Errno> {
    // SAFETY: the caller vouches for it; the kernel has just returned this descriptor to us and nobody else knows it.
    unsafe { bpf(command, attr).map(|fd| OwnedFd::from_raw_fd(fd as RawFd)) }
}

/// Loads a program of type BPF_PROG_TYPE_CGROUP_DEVICE.
pub fn load_device_program(program: &[Insn]) -> Result<OwnedFd, Errno> {
    let license = c"Apache-2.0";
    let mut attr = LoadAttr {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        prog_name: NAME,
        ..Default::default()
    };
    // SAFETY: the program and the license are borrowed for the call.
    unsafe { open(BPF_PROG_LOAD, &mut attr) }
}

/// Attaches to a cgroup directory; with `replace` in the place of that program, atomically.
pub fn attach_device_program(
    cgroup: BorrowedFd,
    program: BorrowedFd,
    replace: Option<BorrowedFd>,
) -> Result<(), Errno> {
    let mut attr = AttachAttr {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
        replace_bpf_fd: 0,
    };
    if let Some(old) = replace {
        attr.attach_flags |= BPF_F_REPLACE;
        attr.replace_bpf_fd = old.as_raw_fd() as u32;
    }
    // SAFETY: there is no address in it.
    unsafe { bpf(BPF_PROG_ATTACH, &mut attr) }.map(drop)
}

pub fn detach_device_program(cgroup: BorrowedFd, program: BorrowedFd) -> Result<(), Errno> {
    let mut attr = AttachAttr {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        ..Default::default()
    };
    // SAFETY: there is no address in it.
    unsafe { bpf(BPF_PROG_DETACH, &mut attr) }.map(drop)
}

/// Whether [`load_device_program`] has made it.
pub fn is_ours(program: BorrowedFd) -> bool {
    // `struct bpf_prog_info` up to its name, which begins at byte 64.
    let mut info = [0u8; 80];
    let mut attr = InfoAttr {
        bpf_fd: program.as_raw_fd() as u32,
        info_len: info.len() as u32,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: `info` has this length.
    let known = unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }.is_ok();
    known && info[64..] == NAME
}

/// The programs attached to this cgroup itself, not those of its ancestors.
pub fn attached_device_programs(cgroup: impl AsFd) -> Result<Vec<OwnedFd>, Errno> {
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut attr = QueryAttr {
        target_fd: cgroup.as_fd().as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: MAX_PROGRAMS as u32,
        ..Default::default()
    };
    // SAFETY: `ids` has room for so many.
    unsafe { bpf(BPF_PROG_QUERY, &mut attr) }?;
    ids.iter()
        .take(attr.prog_cnt as usize)
        // SAFETY: there is no address in it.
        .map(|&id| unsafe { open(BPF_PROG_GET_FD_BY_ID, &mut IdAttr { id, ..Default::default() }) })
        .collect()
}

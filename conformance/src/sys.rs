//! The suite's only unsafe code: a system call that nix lacks.

#![allow(unsafe_code)]

use nix::libc;
use std::ffi::CString;
use std::io;
use std::path::Path;

/// The number of the mount that a path is on: statx(2), `STATX_MNT_ID_UNIQUE` (Linux 6.8). No other mount has had it.
pub fn number_of_mount(path: &Path) -> io::Result<u64> {
    const STATX_MNT_ID_UNIQUE: u32 = 0x4000;
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: zeros are a value of this structure of integers, and statx(2) fills it.
    unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        match libc::statx(libc::AT_FDCWD, path.as_ptr(), 0, STATX_MNT_ID_UNIQUE, &mut found) {
            0 => Ok(found.stx_mnt_id),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

//! The stage program, as the build script made it, and a sealed copy of it to execute.

use crate::error::{Error, Result};
use crate::sys;
use std::os::fd::OwnedFd;

static PROGRAM: &[u8] = include_bytes!(env!("ONGGI_STAGE"));

/// A memfd that nobody can write to, however it is reached (`/proc/PID/exe` among others).
pub fn sealed_program() -> Result<OwnedFd> {
    sys::sealed_memfd(c"onggi-stage", PROGRAM, true).map_err(|errno| {
        Error::os("memfd_create onggi-stage", errno).with_hint(
            "the stage runs from an executable memfd; sysctl vm.memfd_noexec=2 forbids these, 1 and 0 do not",
        )
    })
}

/// The encoded plan, for the stage to map.
pub fn sealed_plan(bytes: &[u8]) -> Result<OwnedFd> {
    sys::sealed_memfd(c"onggi-plan", bytes, false)
        .map_err(|errno| Error::os("memfd_create onggi-plan", errno))
}

//! The stage program, as the build script made it, and a sealed copy of it to execute.

use crate::error::{Error, Result};
use crate::sys;
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, OnceLock};

/// The file that processes of the stage execute, by which they are told from all others. The kernel gives its inode number
/// to another file once nothing has it open.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Executable {
    dev: u64,
    ino: u64,
    descriptor: RawFd,
}

impl Executable {
    pub fn of(program: BorrowedFd) -> Result<Self> {
        let found = nix::sys::stat::fstat(program).map_err(|errno| Error::os("fstat onggi-stage", errno))?;
        Ok(Self { dev: found.st_dev, ino: found.st_ino, descriptor: program.as_raw_fd() })
    }

    /// False where the caller may not look at it (proc_pid_exe(5)).
    pub fn is_of(self, pid: i32) -> bool {
        fs::metadata(format!("/proc/{pid}/exe"))
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.dev, self.ino))
    }

    /// The names that the kernel gives to its processes: the memfd's, or before Linux 6.14 the descriptor's number.
    pub fn names(self) -> [String; 2] {
        ["memfd:onggi-sta".to_string(), self.descriptor.to_string()]
    }
}

static PROGRAM: &[u8] = include_bytes!(env!("ONGGI_STAGE"));

/// A sealed memfd of the stage, which nothing can write to, not even through `/proc/PID/exe`: one for the whole process
/// where that is safe.
pub fn sealed_program() -> Result<Arc<OwnedFd>> {
    static SHARED: OnceLock<Arc<OwnedFd>> = OnceLock::new();
    sys::program(c"onggi-stage", PROGRAM, &SHARED).map_err(|errno| {
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

//! The stage program, as the build script made it, and a sealed copy of it to execute.

use crate::error::{Error, Result};
use crate::sys;
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

/// What tells an executable from every other one, while something has it open: the kernel uses the numbers again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileId {
    dev: u64,
    ino: u64,
}

impl FileId {
    fn of(file: BorrowedFd) -> nix::Result<Self> {
        nix::sys::stat::fstat(file).map(|found| Self { dev: found.st_dev, ino: found.st_ino })
    }

    pub fn of_executable(pid: i32) -> Option<Self> {
        let found = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        Some(Self { dev: found.dev(), ino: found.ino() })
    }
}

static PROGRAM: &[u8] = include_bytes!(env!("ONGGI_STAGE"));

/// The sealed memfd of the stage, one for the whole process. Nothing can write to it, not even through `/proc/PID/exe`.
pub fn sealed_program() -> Result<BorrowedFd<'static>> {
    static SEALED: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(sealed) = SEALED.get() {
        return Ok(sealed.as_fd());
    }
    let sealed = sys::sealed_memfd(c"onggi-stage", PROGRAM, true).map_err(|errno| {
        Error::os("memfd_create onggi-stage", errno).with_hint(
            "the stage runs from an executable memfd; sysctl vm.memfd_noexec=2 forbids these, 1 and 0 do not",
        )
    })?;
    Ok(SEALED.get_or_init(|| sealed).as_fd())
}

pub fn file_id() -> Result<FileId> {
    FileId::of(sealed_program()?).map_err(|errno| Error::os("fstat onggi-stage", errno))
}

const NAME: &str = "memfd:onggi-sta";

/// The names that the kernel gives to a process of the stage: the memfd's, or before Linux 6.14 the descriptor's number.
pub fn names() -> [String; 2] {
    let number = sealed_program().map(|program| program.as_raw_fd()).unwrap_or(-1);
    [NAME.to_string(), number.to_string()]
}

/// Whether a process of the stage may have this name, whichever process has started it.
pub fn is_name(name: &str) -> bool {
    name == NAME || name.bytes().all(|byte| byte.is_ascii_digit())
}

/// The encoded plan, for the stage to map.
pub fn sealed_plan(bytes: &[u8]) -> Result<OwnedFd> {
    sys::sealed_memfd(c"onggi-plan", bytes, false)
        .map_err(|errno| Error::os("memfd_create onggi-plan", errno))
}

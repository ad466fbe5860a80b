//! The library's own descriptors, away from the numbers of those that a program is given.

use crate::error::{Error, Result};
use crate::sys;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Moves the library's own descriptors away from numbers under which the program gets other ones.
pub(crate) struct Moved<'a> {
    passed: &'a [(RawFd, u32)],
    copies: Vec<OwnedFd>,
}

impl<'a> Moved<'a> {
    pub fn out_of(passed: &'a [(RawFd, u32)]) -> Self {
        Self { passed, copies: Vec::new() }
    }

    pub fn copy(&self, fd: RawFd) -> Result<Option<OwnedFd>> {
        if !self.passed.iter().any(|(_, number)| *number as RawFd == fd) {
            return Ok(None);
        }
        let above = self.passed.iter().map(|(_, number)| number + 1).max().unwrap_or(3);
        let failed = |errno| {
            Error::os(format!("fcntl F_DUPFD_CLOEXEC above {above}"), errno)
                .with_hint("a number for a passed descriptor has to be below RLIMIT_NOFILE")
        };
        sys::duplicate(fd, above).map(Some).map_err(failed)
    }

    pub fn number(&mut self, fd: RawFd) -> Result<RawFd> {
        let Some(copy) = self.copy(fd)? else { return Ok(fd) };
        let number = copy.as_raw_fd();
        self.copies.push(copy);
        Ok(number)
    }
}

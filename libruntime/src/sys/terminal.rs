//! The size of a terminal (ioctl_tty(2)), which nix has no safe call for.

use super::{Result, check};
use crate::console::TerminalSize;
use std::os::fd::{AsRawFd, BorrowedFd};

/// TIOCGWINSZ.
pub fn terminal_size(fd: BorrowedFd) -> Result<TerminalSize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request writes one winsize.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCGWINSZ as _, &raw mut size) }.into())?;
    Ok(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// TIOCSWINSZ.
pub fn set_terminal_size(fd: BorrowedFd, size: TerminalSize) -> Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request reads one winsize.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ as _, &raw const size) }.into()).map(drop)
}

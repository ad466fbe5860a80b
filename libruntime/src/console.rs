//! The other end of a console socket: what gets a container's terminal, and its size.
//!
//! Making the terminal is the stage's work. What is typed and printed is never read here.

use crate::error::{Error, Result};
use crate::sys;
use nix::errno::Errno;
use nix::sys::socket::{self, ControlMessage, ControlMessageOwned, MsgFlags};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Receives the terminal's master from a console socket's other end.
pub fn receive_terminal(socket: BorrowedFd) -> Result<OwnedFd> {
    // A stream socket carries a name next to the descriptor; nobody needs it.
    let mut name = [0u8; 4096];
    let mut control = nix::cmsg_space!([RawFd; 1]);
    let failed = |errno| Error::os("recvmsg from the console socket", errno);
    loop {
        let mut vector = [IoSliceMut::new(&mut name)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match socket::recvmsg::<()>(socket.as_raw_fd(), &mut vector, Some(&mut control), flags)
        {
            Err(Errno::EINTR) => continue,
            other => other.map_err(failed)?,
        };
        for control in message.cmsgs().map_err(failed)? {
            if let ControlMessageOwned::ScmRights(fds) = control
                && let Some(fd) = fds.first()
            {
                return Ok(sys::own(*fd));
            }
        }
        return Err(Error::external("no terminal came through the console socket"));
    }
}

/// Sends a terminal's master over a console socket.
pub(crate) fn send_terminal(socket: BorrowedFd, master: BorrowedFd) -> Result<()> {
    let (bytes, fds) = ([IoSlice::new(b"/dev/ptmx")], [master.as_raw_fd()]);
    let rights = [ControlMessage::ScmRights(&fds)];
    socket::sendmsg::<()>(socket.as_raw_fd(), &bytes, &rights, MsgFlags::MSG_NOSIGNAL, None)
        .map(drop)
        .map_err(|errno| Error::os("sendmsg to the console socket", errno))
}

/// Rows and columns of a terminal.
pub fn terminal_size(terminal: BorrowedFd) -> Result<(u16, u16)> {
    sys::terminal_size(terminal).map_err(|errno| Error::os("ioctl TIOCGWINSZ", errno))
}

/// Sets rows and columns; the terminal's foreground processes get SIGWINCH.
pub fn set_terminal_size(terminal: BorrowedFd, size: (u16, u16)) -> Result<()> {
    sys::set_terminal_size(terminal, size).map_err(|errno| Error::os("ioctl TIOCSWINSZ", errno))
}

//! Terminals of containers: the socket that gets the master, and the master itself.
//!
//! The stage makes the terminal. What is typed and printed is never read here.

use crate::error::{Error, Result};
use crate::sys;
use crate::wait::{DEADLINE, again};
use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, ControlMessage, MsgFlags};
use nix::sys::socket::{SockFlag, SockType, UnixAddr};
use nix::sys::time::{TimeVal, TimeValLike};
use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Its height.
    pub rows: u16,
    /// Its width.
    pub columns: u16,
}

/// The master of a container's pseudoterminal (pty(7)): what is written to it is typed, and what the program
/// prints is read from it.
#[derive(Debug)]
pub struct Terminal(File);

impl Terminal {
    pub(crate) fn new(master: OwnedFd) -> Self {
        Self(master.into())
    }

    /// ioctl(2), TIOCGWINSZ.
    pub fn size(&self) -> Result<TerminalSize> {
        terminal_size(self.as_fd())
    }

    /// Sets the size. The terminal's foreground processes get SIGWINCH.
    pub fn resize(&self, size: TerminalSize) -> Result<()> {
        sys::set_terminal_size(self.as_fd(), size).map_err(|errno| Error::os("ioctl TIOCSWINSZ", errno))
    }

    /// Another handle of the same terminal, for example for a thread that writes while another one reads.
    pub fn try_clone(&self) -> Result<Self> {
        self.0.try_clone().map(Self).map_err(|error| Error::io("dup a terminal", error))
    }
}

/// Ends (0 bytes) when no process has the terminal open any more.
impl Read for &Terminal {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match (&self.0).read(bytes) {
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(0),
            other => other,
        }
    }
}

impl Write for &Terminal {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        (&self.0).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Read for Terminal {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        (&*self).read(bytes)
    }
}

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Terminal> for OwnedFd {
    fn from(terminal: Terminal) -> Self {
        terminal.0.into()
    }
}

/// Receives the terminal's master from a console socket's other end.
pub(crate) fn receive_terminal(socket: BorrowedFd) -> Result<OwnedFd> {
    // A stream socket carries at least one byte with a descriptor: here a name, which is not needed.
    let mut name = [0u8; 4096];
    let received = sys::receive(socket, &mut name)
        .map_err(|errno| Error::os("recvmsg from the console socket", errno))?;
    received.fd.ok_or_else(|| Error::external("no terminal came through the console socket"))
}

pub(crate) fn send_terminal(socket: BorrowedFd, master: BorrowedFd) -> Result<()> {
    let (bytes, fds) = ([IoSlice::new(b"/dev/ptmx")], [master.as_raw_fd()]);
    let rights = [ControlMessage::ScmRights(&fds)];
    again(|| socket::sendmsg::<()>(socket.as_raw_fd(), &bytes, &rights, MsgFlags::MSG_NOSIGNAL, None))
        .map(drop)
        .map_err(|errno| Error::os("sendmsg to the console socket", errno))
}

/// Connects to a unix stream socket, whose path may be longer than an address.
pub fn connect_socket(path: &Path) -> Result<UnixStream> {
    connect_in_time(path).map(UnixStream::from).map_err(|errno| match errno {
        Errno::EAGAIN => {
            let seconds = DEADLINE.as_secs();
            Error::external(format!("connect {}: nobody accepted in {seconds} s", path.display()))
        }
        errno => Error::os(format!("connect {}", path.display()), errno),
    })
}

/// A listener that does not accept must not block the library. With a timeout for sending, connect(2) and sendmsg(2)
/// give up with EAGAIN (socket(7), SO_SNDTIMEO).
pub(crate) fn connect_in_time(path: &Path) -> nix::Result<OwnedFd> {
    let connection = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let limit = TimeVal::seconds(DEADLINE.as_secs() as i64);
    socket::setsockopt(&connection, socket::sockopt::SendTimeout, &limit)?;
    let errno_of = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let (_opened, path) = socket_address(path).map_err(errno_of)?;
    let address = UnixAddr::new(&path)?;
    again(|| socket::connect(connection.as_raw_fd(), &address))?;
    Ok(connection)
}

/// A socket's path for an address, which holds 107 bytes (unix(7)). A longer path is opened, and the result names its
/// descriptor, which has to stay open.
pub(crate) fn socket_address(path: &Path) -> std::io::Result<(Option<File>, PathBuf)> {
    const LONGEST: usize = 107;
    if path.as_os_str().len() <= LONGEST {
        return Ok((None, path.into()));
    }
    let socket = File::from(sys::open_path(path)?);
    let short = format!("/proc/self/fd/{}", socket.as_raw_fd()).into();
    Ok((Some(socket), short))
}

/// The size of any terminal, such as the caller's own.
///
/// # Errors
/// ENOTTY where it is none.
pub fn terminal_size(terminal: BorrowedFd) -> Result<TerminalSize> {
    sys::terminal_size(terminal).map_err(|errno| Error::os("ioctl TIOCGWINSZ", errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_listener_that_accepts_nothing_is_not_waited_for_without_an_end() {
        let path = std::env::temp_dir().join(format!("onggi-backlog-{}", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        socket::listen(&listener, socket::Backlog::new(0).unwrap()).unwrap();
        let first = connect_socket(&path);
        let begin = Instant::now();
        let second = connect_socket(&path);
        std::fs::remove_file(&path).unwrap();
        assert!(first.is_ok() && begin.elapsed() < 2 * DEADLINE);
        let error = second.unwrap_err().to_string();
        assert!(error.ends_with("nobody accepted in 8 s"), "{error}");
    }
}

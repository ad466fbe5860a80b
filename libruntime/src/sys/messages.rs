//! Messages of unix sockets with descriptors beside them (unix(7), `SCM_RIGHTS`).

use super::Result;
use nix::errno::Errno;
use nix::sys::socket::{self, ControlMessageOwned, MsgFlags, UnixCredentials};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// What came with one message.
pub struct Received {
    pub length: usize,
    pub fd: Option<OwnedFd>,
    /// The pid of its sender, where the socket asks for it (`SO_PASSCRED`).
    pub sender: Option<i32>,
}

/// recvmsg(2). Of several descriptors the first is kept.
pub fn receive(socket: BorrowedFd, bytes: &mut [u8]) -> Result<Received> {
    let mut control = nix::cmsg_space!([RawFd; 1], UnixCredentials);
    loop {
        let mut vector = [IoSliceMut::new(bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match socket::recvmsg::<()>(socket.as_raw_fd(), &mut vector, Some(&mut control), flags)
        {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let mut received = Received { length: message.bytes, fd: None, sender: None };
        for beside in message.cmsgs()? {
            match beside {
                ControlMessageOwned::ScmRights(fds) => {
                    // SAFETY: recvmsg(2) has just made them in this process, and the message is read once.
                    let owned = |fd: &RawFd| unsafe { OwnedFd::from_raw_fd(*fd) };
                    for fd in fds.iter().map(owned) {
                        received.fd.get_or_insert(fd);
                    }
                }
                ControlMessageOwned::ScmCredentials(credentials) => received.sender = Some(credentials.pid()),
                _ => {}
            }
        }
        return Ok(received);
    }
}

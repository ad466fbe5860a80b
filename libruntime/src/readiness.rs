//! Readiness (sd_notify(3)): a container that a supervisor such as systemd waits for gets a socket
//! of its own in `/run/notify`, and that it is ready is passed on. Other messages are not.
//!
//! The plan mounts the directory; see `plan::create`.

use crate::container::Container;
use crate::error::{Error, Result};
use crate::plan::readiness::{DIRECTORY, SOCKET};
use crate::state::Directory;
use crate::wait::{DEADLINE, Wait, Woken, again};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::sys::time::{TimeVal, TimeValLike};
use std::fs::{self, DirBuilder, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

pub(crate) fn make_directory(directory: &Directory) -> Result<()> {
    let path = directory.path.join(DIRECTORY);
    let made = DirBuilder::new().mode(0o755).create(&path);
    // Whatever the caller's umask is: the container may have other users.
    made.and_then(|()| fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)))
        .map_err(|error| Error::io(format!("mkdir {}", path.display()), error))
}

/// A container whose program is about to be started, and who wants to know that it is ready.
#[derive(Debug)]
pub struct Readiness {
    socket: OwnedFd,
    supervisor: PathBuf,
    pid: i32,
    init: OwnedFd,
}

impl Container {
    /// To be called before [`Container::start`]; `None` where the container was created without
    /// [`crate::NewContainer::notify_socket`].
    ///
    /// # Errors
    /// The socket cannot be made, or the container's init is gone.
    pub fn readiness(&self) -> Result<Option<Readiness>> {
        let Some(supervisor) = self.state.notify_socket.clone() else { return Ok(None) };
        let init = self.running_init()?.try_clone_to_owned();
        let init = init.map_err(|error| Error::io("dup a pidfd", error))?;
        let pid = self.state.init.map_or(0, |init| init.pid);
        Ok(Some(Readiness { socket: listen(&self.directory)?, supervisor, pid, init }))
    }
}

impl Readiness {
    /// Waits until the program says `READY=1` and tells the supervisor, with the program's pid
    /// (`MAINPID`); a container that ends before has nothing to tell.
    ///
    /// # Errors
    /// The supervisor's socket does not take it.
    pub fn pass_on(self) -> Result<()> {
        loop {
            let waited = [(self.socket.as_fd(), PollFlags::POLLIN), (self.init.as_fd(), PollFlags::POLLIN)];
            // Without a deadline: how long a program may take is the supervisor's to say, who ends it (systemd's
            // TimeoutStartSec). Its end ends the wait.
            let Woken::Ready(came) = Wait::default().poll(&waited)? else { return Ok(()) };
            if came == [false, true] {
                return Ok(());
            }
            if came.first() == Some(&true) && self.says_ready()? {
                return self.tell();
            }
        }
    }

    fn says_ready(&self) -> Result<bool> {
        let mut message = [0; 4096];
        let length = socket::recv(self.socket.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT)
            .map_err(|errno| Error::os("recv of a readiness message", errno))?;
        Ok(message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1"))
    }

    fn tell(&self) -> Result<()> {
        let failed = |errno| Error::os(format!("send to NOTIFY_SOCKET {}", self.supervisor.display()), errno);
        let name = self.supervisor.as_os_str().as_encoded_bytes();
        let mut opened = None;
        let address = match name.strip_prefix(b"@") {
            Some(name) => UnixAddr::new_abstract(name),
            None => {
                let called = || format!("open NOTIFY_SOCKET {}", self.supervisor.display());
                let (socket, path) = crate::console::socket_address(&self.supervisor)
                    .map_err(|error| Error::io(called(), error))?;
                opened = socket;
                UnixAddr::new(&path)
            }
        };
        let message = format!("READY=1\nMAINPID={}", self.pid);
        let socket = datagram_socket().map_err(failed)?;
        let address = address.map_err(failed)?;
        // A supervisor whose queue is full, and that takes nothing from it, is not waited for without an end.
        let limit = TimeVal::seconds(DEADLINE.as_secs() as i64);
        socket::setsockopt(&socket, socket::sockopt::SendTimeout, &limit).map_err(failed)?;
        let bytes = message.as_bytes();
        let sent = again(|| socket::sendto(socket.as_raw_fd(), bytes, &address, MsgFlags::MSG_NOSIGNAL));
        drop(opened);
        sent.map(drop).map_err(failed)
    }
}

fn datagram_socket() -> std::result::Result<OwnedFd, Errno> {
    socket::socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
}

/// Bound through the directory's descriptor, because a path of a socket must be short (unix(7)).
fn listen(directory: &Directory) -> Result<OwnedFd> {
    let path = directory.path.join(DIRECTORY);
    let failed = |errno| Error::os(format!("bind {}/{SOCKET}", path.display()), errno);
    let opened = File::open(&path).map_err(|error| Error::io(format!("open {}", path.display()), error))?;
    let socket = datagram_socket().map_err(failed)?;
    let name = format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd());
    let address = UnixAddr::new(Path::new(&name)).map_err(failed)?;
    socket::bind(socket.as_raw_fd(), &address).map_err(failed)?;
    // Any user of the container may say that it is ready.
    let all = Mode::from_bits_truncate(0o777);
    fchmodat(&opened, SOCKET, all, FchmodatFlags::FollowSymlink).map_err(failed)?;
    Ok(socket)
}

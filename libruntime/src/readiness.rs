//! Readiness (sd_notify(3)): where a supervisor such as systemd waits for a container, the container gets a socket of
//! its own in `/run/notify`. Its message that it is ready is forwarded to the supervisor; other messages are not.
//!
//! The plan mounts the directory; see `plan::create`.

use crate::container::Container;
use crate::error::{Error, Result};
use crate::plan::readiness::{DIRECTORY, SOCKET};
use crate::state::Directory;
use crate::wait::{DEADLINE, Wait, Woken, again};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::poll::PollFlags;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr};
use nix::sys::stat::Mode;
use nix::sys::time::{TimeVal, TimeValLike};
use std::fs::{self, DirBuilder, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};

pub(crate) fn make_directory(directory: &Directory) -> Result<()> {
    let path = directory.path.join(DIRECTORY);
    let made = DirBuilder::new().mode(0o755).create(&path);
    // Independent of the caller's umask, because the container may have other users.
    made.and_then(|()| fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)))
        .map_err(|error| Error::io(format!("mkdir {}", path.display()), error))
}

/// A container that is about to be started, and the supervisor that wants to know when it is ready.
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
    /// Waits until the program says `READY=1` and forwards that to the supervisor, with the program's pid (`MAINPID`).
    /// Nothing is forwarded if the container ends before that.
    ///
    /// # Errors
    /// The message cannot be sent to the supervisor's socket.
    pub fn pass_on(self) -> Result<()> {
        loop {
            let waited = [(self.socket.as_fd(), PollFlags::POLLIN), (self.init.as_fd(), PollFlags::POLLIN)];
            // Without a deadline: the supervisor decides how long a program may take, and kills it after that
            // (systemd's TimeoutStartSec), which ends the wait.
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
        // A supervisor whose queue stays full is waited for up to the deadline.
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
    let opened_to_all = open_to_all(&opened, SOCKET);
    opened_to_all.map_err(|error| Error::io(format!("chmod {}/{SOCKET}", path.display()), error))?;
    Ok(socket)
}

/// Any user in the container may send the message. The socket is opened without following links, because a container
/// that can write to the directory may have replaced it.
fn open_to_all(directory: &File, name: &str) -> std::io::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let node = File::from(openat(directory, name, flags, Mode::empty())?);
    if !node.metadata()?.file_type().is_socket() {
        return Err(std::io::Error::from_raw_os_error(libc::ENOTSOCK));
    }
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(format!("/proc/self/fd/{}", node.as_raw_fd()), all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn only_the_socket_itself_is_opened_to_all() {
        let path = std::env::temp_dir().join(format!("onggi-notify-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let _socket = UnixDatagram::bind(path.join("socket")).unwrap();
        let outside = path.join("outside");
        fs::write(&outside, "").unwrap();
        fs::set_permissions(&outside, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        symlink(&outside, path.join("link")).unwrap();
        let directory = File::open(&path).unwrap();
        let results = ["socket", "link", "outside"].map(|name| open_to_all(&directory, name).is_ok());
        let modes = ["socket", "outside"].map(|name| fs::metadata(path.join(name)).unwrap().mode() & 0o777);
        fs::remove_dir_all(&path).unwrap();
        assert_eq!((results, modes), ([true, false, false], [0o777, 0o600]));
    }
}

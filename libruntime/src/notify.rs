//! Hands the listener of a seccomp filter to the agent that answers it (config-linux.md,
//! "The Container Process State").

use crate::console::socket_address;
use crate::container::{Container, Status};
use crate::error::{Error, Result};
use crate::state::Directory;
use crate::wait::DEADLINE;
use nix::errno::Errno;
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{self, AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr};
use nix::sys::socket::{sendmsg, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};
use serde_json::{Value, json};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

const PLACE: &str = "linux.seccomp.listenerPath";

pub(crate) fn send(directory: &Directory, container: &Container, listener: OwnedFd) -> Result<()> {
    let filter = directory.read_filter()?;
    let Some(notify) = filter.notify else { return Ok(()) };
    let path = notify.listener_path.display().to_string();
    let agent = connect(&notify.listener_path).map_err(|errno| failed("connect", &path, errno))?;
    let state: Value = serde_json::from_slice(&container.hook_state(Status::Created)).unwrap_or_default();
    let message = json!({
        "ociVersion": container.state.oci_version,
        "fds": ["seccompFd"],
        "pid": container.pid().unwrap_or(0),
        "metadata": notify.metadata.unwrap_or_default(),
        "state": state,
    });
    let (bytes, fds) = (message.to_string().into_bytes(), [listener.as_raw_fd()]);
    let (vector, rights) = ([IoSlice::new(&bytes)], [ControlMessage::ScmRights(&fds)]);
    sendmsg::<()>(agent.as_raw_fd(), &vector, &rights, MsgFlags::MSG_NOSIGNAL, None)
        .map(drop)
        .map_err(|errno| failed("sendmsg", &path, errno))
}

/// An agent that does not accept must not keep the container, and us, for ever. With the timeout
/// connect(2) and sendmsg(2) give up with EAGAIN (socket(7), SO_SNDTIMEO).
fn connect(path: &Path) -> nix::Result<OwnedFd> {
    let agent = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&agent, SendTimeout, &TimeVal::seconds(DEADLINE.as_secs() as i64))?;
    let errno_of = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let (_opened, path) = socket_address(path).map_err(errno_of)?;
    socket::connect(agent.as_raw_fd(), &UnixAddr::new(&path)?)?;
    Ok(agent)
}

fn failed(call: &str, path: &str, errno: Errno) -> Error {
    match errno {
        Errno::EAGAIN => {
            let seconds = DEADLINE.as_secs();
            Error::external(format!("{call} {path}: the seccomp agent took nothing in {seconds} s")).at(PLACE)
        }
        errno => Error::os(format!("{call} {path}"), errno).at(PLACE),
    }
}

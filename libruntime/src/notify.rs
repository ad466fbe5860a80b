//! Hands the listener of a seccomp filter to the agent that answers it (config-linux.md,
//! "The Container Process State").

use crate::container::{Container, Status};
use crate::error::{Error, Result};
use crate::state::Directory;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

pub(crate) fn send(directory: &Directory, container: &Container, listener: OwnedFd) -> Result<()> {
    let filter = directory.read_filter()?;
    let Some(notify) = filter.notify else { return Ok(()) };
    let place = "linux.seccomp.listenerPath";
    let path = notify.listener_path.display().to_string();
    let agent = UnixStream::connect(&notify.listener_path)
        .map_err(|error| Error::io(format!("connect {path}"), error).at(place))?;
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
        .map_err(|errno| Error::os(format!("sendmsg {path}"), errno).at(place))
}

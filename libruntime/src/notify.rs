//! Hands the listener of a seccomp filter to the agent that answers it (config-linux.md,
//! "The Container Process State").

use crate::console::connect_in_time;
use crate::error::{Error, Result};
use crate::state::{Directory, State};
use crate::status::Status;
use crate::wait::{DEADLINE, again};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

const PLACE: &str = "linux.seccomp.listenerPath";

/// `pid` is the process that has loaded the filter.
pub(crate) fn send(
    directory: &Directory,
    of: &State,
    (pid, status): (i32, Status),
    listener: OwnedFd,
) -> Result<()> {
    let filter = directory.read_filter()?;
    let Some(notify) = filter.notify else { return Ok(()) };
    let path = notify.listener_path.display().to_string();
    let agent = connect_in_time(&notify.listener_path).map_err(|errno| failed("connect", &path, errno))?;
    let state: Value = serde_json::from_slice(&of.for_hooks(status)).unwrap_or_default();
    let mut message = json!({
        "ociVersion": of.oci_version,
        "fds": ["seccompFd"],
        "pid": pid,
        "state": state,
    });
    if let Some(metadata) = notify.metadata {
        message["metadata"] = metadata.into();
    }
    let (bytes, fds) = (message.to_string().into_bytes(), [listener.as_raw_fd()]);
    let (vector, rights) = ([IoSlice::new(&bytes)], [ControlMessage::ScmRights(&fds)]);
    again(|| sendmsg::<()>(agent.as_raw_fd(), &vector, &rights, MsgFlags::MSG_NOSIGNAL, None))
        .map(drop)
        .map_err(|errno| failed("sendmsg", &path, errno))
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

//! Settings of a network namespace.

use crate::error::{Error, Result};
use nix::errno::Errno;
use std::fs;

/// Writes a setting of the network namespace that the calling thread is in. Kernels without IPv6 lack some settings,
/// which are not needed then.
pub(super) fn set(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    match fs::read_to_string(&path) {
        Ok(now) if now.trim() == value => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        _ => {}
    }
    fs::write(&path, value).map_err(|error| match error.raw_os_error() {
        Some(code) if Errno::from_raw(code) == Errno::EROFS => Error::io(format!("write {path}"), error)
            .with_hint("the runtime itself runs in a container whose /proc/sys is read-only"),
        _ => Error::io(format!("write {path}"), error),
    })
}

//! Where a container finds the socket to which it reports that it is ready (sd_notify(3)).

/// Below the container's directory.
pub(crate) const DIRECTORY: &str = "notify";
/// The same directory in the container.
pub(crate) const DESTINATION: &str = "/run/notify";
pub(crate) const SOCKET: &str = "notify.sock";

/// The variable in the program's environment.
pub(crate) fn variable() -> String {
    format!("NOTIFY_SOCKET={DESTINATION}/{SOCKET}")
}

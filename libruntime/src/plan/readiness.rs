//! Where a container finds the socket by which it says that it is ready (sd_notify(3)).

/// Below the container's directory.
pub(crate) const DIRECTORY: &str = "notify";
/// Where the container sees that.
pub(crate) const DESTINATION: &str = "/run/notify";
pub(crate) const SOCKET: &str = "notify.sock";

/// What the program finds in its environment.
pub(crate) fn variable() -> String {
    format!("NOTIFY_SOCKET={DESTINATION}/{SOCKET}")
}

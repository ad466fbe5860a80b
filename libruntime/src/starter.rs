//! What a container is started with: a connection to its init, and the steps that are left.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// A connection to the init that waits for its start.
#[derive(Debug)]
pub(crate) struct Starter {
    connection: Arc<OwnedFd>,
    /// The last steps of the plan, unless creation has written them into the container's directory.
    pub after_start: Option<Vec<u8>>,
}

impl Starter {
    pub fn new(connection: Arc<OwnedFd>, after_start: Option<Vec<u8>>) -> Self {
        Self { connection, after_start }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

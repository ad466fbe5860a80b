//! Descriptors of pipes and terminals that a container has the other side of. A process that writes from memory which
//! never comes (userfaultfd(2), a file of FUSE) holds the kernel's lock on the pipe or the terminal meanwhile: whoever
//! reads, writes, resizes or closes our side waits for that lock, and no signal ends the wait. Only workers may.

use crate::failure::Result;
use crate::worker;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Calls at once, beside those of verbs: each may wait until its container is killed.
const CALLS: usize = 256;

static PERMITS: Semaphore = Semaphore::const_new(CALLS);

/// Clones are the same descriptor. The last one closes it on a worker.
#[derive(Clone)]
pub struct Shared(Option<Arc<OwnedFd>>);

impl From<OwnedFd> for Shared {
    fn from(descriptor: OwnedFd) -> Self {
        Self(Some(Arc::new(descriptor)))
    }
}

impl AsRawFd for Shared {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().expect("there until it is dropped").as_fd()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let Some(last) = self.0.take().and_then(Arc::into_inner) else { return };
        // Without a runtime the caller may wait.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(on_a_worker(move || drop(last)));
        }
    }
}

/// The result of a call that may wait for such a lock.
pub async fn on_a_worker<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let permit = PERMITS.acquire().await;
    worker::run(move || {
        // As long as the call takes, also where nobody waits for it any more.
        let _permit = permit;
        call()
    })
    .await
}

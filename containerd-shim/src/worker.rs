//! Threads for what may block: each job has one of its own, which ends with it. tokio's pool panics where the system
//! refuses a thread; here the job fails.

use crate::failure::{Failure, Result};
use std::thread::Builder;
use tokio::sync::{Semaphore, oneshot};

/// More verbs at once wait.
static VERBS: Semaphore = Semaphore::const_new(64);
/// Only what is touched costs memory.
const STACK: usize = 2 << 20;

/// A verb. At most 64 run at once.
pub async fn verb<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let permit = VERBS.acquire().await;
    run(move || {
        // Also where the caller does not wait any more: the thread counts until it ends.
        let _permit = permit;
        job()
    })
    .await
}

/// Output to a file: a disk that hangs must not take the threads of the verbs.
pub async fn run<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (sender, receiver) = oneshot::channel();
    Builder::new()
        .stack_size(STACK)
        .spawn(move || {
            let _ = sender.send(job());
        })
        .map_err(refused)?;
    receiver.await.map_err(|_| Failure::unknown("a thread has panicked"))
}

pub fn refused(error: std::io::Error) -> Failure {
    Failure::os("clone a thread", error).hint("the shim's cgroup may be at its pids.max")
}

//! The verbs for tokio: what can block runs on tokio's blocking threads, and the ends of processes are awaited by
//! descriptor. Nothing here starts a runtime; everything is built on the blocking interface and
//! [`AsFd`](std::os::fd::AsFd).

use crate::cgroup::{Oom, OomEvents};
use crate::container::Container;
use crate::error::{Diagnostic, Error, Result};
use crate::exec::{ExecProcess, NewProcess};
use crate::new_container::NewContainer;
use crate::sys::ExitStatus;
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::spawn_blocking;

/// Runs a verb on a blocking thread. It goes on when the future is dropped; a [`Cancel`](crate::Cancel) ends it.
async fn blocking<T: Send + 'static>(verb: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let failed = |error| Error::internal(format!("a thread of tokio ended: {error}"));
    spawn_blocking(verb).await.map_err(failed)?
}

async fn readable(descriptor: impl AsFd) -> Result<()> {
    let failed = |error| Error::io("epoll_ctl a descriptor of tokio's", error);
    let copy: OwnedFd = descriptor.as_fd().try_clone_to_owned().map_err(failed)?;
    // Not sound for types whose descriptor changes meanwhile; this one is owned.
    #[allow(deprecated)]
    let watched = AsyncFd::with_interest(copy, Interest::READABLE).map_err(failed)?;
    watched.readable().await.map(drop).map_err(failed)
}

impl NewContainer {
    /// [`NewContainer::create`] on a blocking thread of tokio's.
    pub async fn create_async(self) -> Result<Container> {
        blocking(move || self.create()).await
    }
}

impl NewProcess {
    /// [`NewProcess::spawn`] on a blocking thread of tokio's. A task reaps the process when it has ended, because the
    /// container cannot end before that (pid_namespaces(7)).
    pub async fn spawn_async(self) -> Result<ExecProcess> {
        let process = blocking(move || self.spawn()).await?;
        let ended = process.clone();
        tokio::spawn(async move {
            // The error is for those who wait for it.
            let _ = readable(&ended).await.and_then(|()| ended.try_wait());
        });
        Ok(process)
    }
}

impl Container {
    /// [`Container::start`] on a blocking thread of tokio's.
    pub async fn start_async(&self) -> Result<()> {
        let container = self.clone();
        blocking(move || container.start()).await
    }

    /// [`Container::wait`], which blocks no thread.
    pub async fn wait_async(&self) -> Result<ExitStatus> {
        readable(self).await?;
        let container = self.clone();
        blocking(move || container.wait()).await
    }

    /// [`Container::delete`] on a blocking thread of tokio's.
    pub async fn delete_async(&self) -> Result<Vec<Diagnostic>> {
        let container = self.clone();
        blocking(move || container.delete()).await
    }

    /// [`Container::delete_force`] on a blocking thread of tokio's.
    pub async fn delete_force_async(&self) -> Result<Vec<Diagnostic>> {
        let container = self.clone();
        blocking(move || container.delete_force()).await
    }
}

impl ExecProcess {
    /// [`ExecProcess::wait`], which blocks no thread.
    pub async fn wait_async(&self) -> Result<ExitStatus> {
        readable(self).await?;
        let process = self.clone();
        blocking(move || process.wait()).await
    }
}

impl OomEvents {
    /// The next event, or [`Oom::Gone`].
    pub async fn next_async(&mut self) -> Result<Oom> {
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(event);
            }
            readable(&*self).await?;
        }
    }
}

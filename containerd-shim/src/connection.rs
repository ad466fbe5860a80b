//! Connections to the shim's socket: who is served, how many at once, and that a client which takes no answers sends no
//! more requests.

use crate::log;
use futures::stream;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// containerd has one for each container of the pod. More would take the descriptors that containers need.
const AT_ONCE: usize = 256;

/// Something was written to a client.
pub static WRITES: Notify = Notify::const_new();

pub struct Connection {
    stream: UnixStream,
    /// The client's side of the socket is full of answers.
    is_full: bool,
    /// Whoever reads, meanwhile.
    reader: Option<Waker>,
    _permit: OwnedSemaphorePermit,
}

/// Those of our own user and group.
pub fn accept(listener: UnixListener) -> impl stream::Stream<Item = io::Result<Connection>> + Send {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    stream::unfold((listener, permits), |(listener, permits)| async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                // Too many open files: there will be some again.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            if !is_ours(&stream) {
                log::warn("a connection of another user is refused", &[]);
            } else if let Ok(permit) = permits.clone().try_acquire_owned() {
                let connection = Connection { stream, is_full: false, reader: None, _permit: permit };
                return Some((Ok(connection), (listener, permits)));
            } else {
                log::warn("a connection is refused: there are too many", &[]);
            }
        }
    })
}

fn is_ours(stream: &UnixStream) -> bool {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    getsockopt(&stream.as_fd(), PeerCredentials).is_ok_and(|peer| peer.uid() == uid && peer.gid() == gid)
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context, buffer: &mut ReadBuf) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_full {
            this.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut this.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.is_full = written.is_pending();
        if !this.is_full {
            WRITES.notify_waiters();
        }
        if !this.is_full
            && let Some(reader) = this.reader.take()
        {
            reader.wake();
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

//! One relay: what comes from a descriptor goes to another one. Calls are made on workers (shared.rs says why), and only
//! when they need not wait. Not by splice(2): it would hold the lock on the client's fifo while it waits for that on the
//! container's pipe, and containerd would wait with it.

use crate::shared::{Shared, on_a_worker};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// A pipe that is not full takes so much of one write as a whole.
const BUFFER: usize = libc::PIPE_BUF;
/// Before others have their turn.
const TIMES: usize = 256;
/// Where the system refuses a thread.
const RETRY: Duration = Duration::from_millis(20);

type Watched = AsyncFd<Shared>;

pub fn source(descriptor: impl Into<Shared>) -> io::Result<Watched> {
    nonblocking(descriptor.into(), Interest::READABLE)
}

fn nonblocking(descriptor: Shared, interest: Interest) -> io::Result<Watched> {
    fcntl(&descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    watched(descriptor, interest)
}

pub fn watched<D: AsRawFd>(descriptor: D, interest: Interest) -> io::Result<AsyncFd<D>> {
    // Not sound for types whose descriptor changes meanwhile; ours are owned.
    #[allow(deprecated)]
    AsyncFd::with_interest(descriptor, interest)
}

pub enum Sink {
    Stream {
        to: Watched,
        _reader: Option<OwnedFd>,
    },
    File(Arc<File>),
    /// What comes is discarded.
    Nothing,
}

impl Sink {
    /// A pipe or a terminal.
    pub fn stream(descriptor: impl Into<Shared>) -> io::Result<Self> {
        Ok(Self::Stream { to: nonblocking(descriptor.into(), Interest::WRITABLE)?, _reader: None })
    }

    pub fn fifo(writer: OwnedFd, reader: OwnedFd) -> io::Result<Self> {
        let to = nonblocking(writer.into(), Interest::WRITABLE)?;
        Ok(Self::Stream { to, _reader: Some(reader) })
    }

    pub fn file(file: File) -> Self {
        Self::File(Arc::new(file))
    }
}

/// What a try to move data came to.
enum Moved {
    Some,
    /// Nothing is there now.
    Empty,
    /// The other side takes nothing now.
    Full,
    /// It has not taken this, which it seemed to have room for.
    Left(Vec<u8>),
    End,
}

/// Until the source ends; once `ending` is true, until nothing is there.
pub async fn run(from: Watched, to: Sink, mut ending: watch::Receiver<bool>) {
    loop {
        let guard = tokio::select! {
            ready = from.readable() => ready.ok(),
            _ = ending.wait_for(|ending| *ending) => None,
        };
        // Before the look at what is there: what is written until then belongs to it.
        let is_ending = *ending.borrow() || guard.is_none();
        match move_all(&from, &to).await {
            Ok(Moved::End) | Err(_) => return,
            Ok(_) if is_ending => return,
            Ok(_) => {}
        }
        if let Some(mut guard) = guard {
            guard.clear_ready();
        }
    }
}

/// Everything that is there.
async fn move_all(from: &Watched, to: &Sink) -> io::Result<Moved> {
    loop {
        let source = from.get_ref().clone();
        let moved = match to {
            Sink::Stream { to, .. } => pass_on(source, to).await?,
            Sink::File(file) => {
                let file = file.clone();
                on_a_thread(move || again(|| append(&source, &file))).await?
            }
            Sink::Nothing => on_a_thread(move || again(|| discard(&source))).await?,
        };
        if !matches!(moved, Moved::Some) {
            return Ok(moved);
        }
    }
}

/// Without a thread it stays where it is, and the process waits.
async fn on_a_thread(job: impl FnOnce() -> io::Result<Moved> + Send + 'static) -> io::Result<Moved> {
    match on_a_worker(job).await {
        Ok(moved) => moved,
        Err(_) => {
            tokio::time::sleep(RETRY).await;
            Ok(Moved::Some)
        }
    }
}

/// When the other side has room.
async fn pass_on(source: Shared, to: &Watched) -> io::Result<Moved> {
    let mut guard = to.writable().await?;
    let target = to.get_ref().clone();
    match on_a_thread(move || again(|| copy(&source, &target))).await? {
        Moved::Full => guard.clear_ready(),
        Moved::Left(mut rest) => {
            while let Moved::Left(left) = pass_on_rest(rest.into(), to).await? {
                rest = left;
            }
        }
        moved => return Ok(moved),
    }
    Ok(Moved::Some)
}

async fn pass_on_rest(rest: Arc<[u8]>, to: &Watched) -> io::Result<Moved> {
    let mut guard = to.writable().await?;
    let (target, bytes) = (to.get_ref().clone(), rest.clone());
    match on_a_thread(move || write(&bytes, &target)).await? {
        Moved::Full => guard.clear_ready(),
        // No thread.
        Moved::Some => {}
        moved => return Ok(moved),
    }
    Ok(Moved::Left(rest.to_vec()))
}

fn again(mut once: impl FnMut() -> io::Result<Moved>) -> io::Result<Moved> {
    for _ in 0..TIMES {
        let moved = once()?;
        if !matches!(moved, Moved::Some) {
            return Ok(moved);
        }
    }
    Ok(Moved::Some)
}

fn copy(from: &Shared, to: &Shared) -> io::Result<Moved> {
    if !is_ready(to, PollFlags::POLLOUT) {
        return Ok(Moved::Full);
    }
    let Some(bytes) = read(from)? else { return Ok(Moved::Empty) };
    if bytes.is_empty() {
        return Ok(Moved::End);
    }
    Ok(match write(&bytes, to)? {
        Moved::Empty => Moved::Some,
        Moved::Full => Moved::Left(bytes),
        moved => moved,
    })
}

fn is_ready(descriptor: &Shared, wanted: PollFlags) -> bool {
    let mut wanted = [PollFd::new(descriptor.as_fd(), wanted)];
    poll(&mut wanted, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// `None` when nothing is there now; nothing at the end.
fn read(from: &Shared) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; BUFFER];
    let length = match nix::unistd::read(from, &mut buffer) {
        // No process has the terminal open.
        Err(Errno::EIO) => 0,
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
        other => other?,
    };
    buffer.truncate(length);
    Ok(Some(buffer))
}

/// `Empty`: it has taken all.
fn write(bytes: &[u8], to: &Shared) -> io::Result<Moved> {
    match nix::unistd::write(to, bytes) {
        Ok(length) if length == bytes.len() => Ok(Moved::Empty),
        Ok(length) => Ok(Moved::Left(bytes[length..].to_vec())),
        Err(Errno::EAGAIN) => Ok(Moved::Full),
        Err(Errno::EINTR) => Ok(Moved::Left(bytes.to_vec())),
        Err(errno) => Err(errno.into()),
    }
}

/// A disk that is full loses what is written; the process goes on.
fn append(from: &Shared, mut file: &File) -> io::Result<Moved> {
    let Some(bytes) = read(from)? else { return Ok(Moved::Empty) };
    let _ = file.write_all(&bytes);
    Ok(if bytes.is_empty() { Moved::End } else { Moved::Some })
}

fn discard(from: &Shared) -> io::Result<Moved> {
    Ok(match read(from)? {
        None => Moved::Empty,
        Some(bytes) if bytes.is_empty() => Moved::End,
        Some(_) => Moved::Some,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::eventfd::{EfdFlags, EventFd};
    use std::io::Read;

    /// The source is empty, and no more when the relay asks which side it was: that must not look as if the sink
    /// were full, because a sink that is not never says that it has room.
    #[test]
    fn data_that_comes_while_the_relay_looks_for_more_is_moved() {
        const WRITES: usize = 100_000;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let [(from, mut write), (mut read, to)] = [std::io::pipe().unwrap(), std::io::pipe().unwrap()];
        let writer = std::thread::spawn(move || {
            // At every distance from the last one.
            (0..WRITES).try_for_each(|number| {
                (0..number % 500).for_each(|_| std::hint::spin_loop());
                write.write_all(b"x")
            })
        });
        let reader = std::thread::spawn(move || read.read_to_end(&mut Vec::new()));
        runtime.block_on(async {
            let (_ending, never) = watch::channel(false);
            let relay =
                run(source(OwnedFd::from(from)).unwrap(), Sink::stream(OwnedFd::from(to)).unwrap(), never);
            tokio::time::timeout(Duration::from_secs(10), relay).await.expect("the relay stands still");
        });
        // What it had is closed by a task.
        drop(runtime);
        writer.join().unwrap().unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), WRITES);
    }

    #[test]
    fn a_flood_that_is_discarded_leaves_time_for_others() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // Each read takes one of its count: it is as a pipe that is never empty.
        let flood = EventFd::from_value_and_flags(u32::MAX, EfdFlags::EFD_SEMAPHORE | EfdFlags::EFD_NONBLOCK);
        let flood = OwnedFd::from(flood.unwrap());
        let (saying, said) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            runtime.block_on(async {
                let (_ending, never) = watch::channel(false);
                let relay = run(source(flood).unwrap(), Sink::Nothing, never);
                let _ = tokio::time::timeout(Duration::from_millis(10), relay).await;
            });
            saying.send(()).unwrap();
        });
        said.recv_timeout(Duration::from_secs(5)).expect("nothing else is done");
    }
}

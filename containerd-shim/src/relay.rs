//! One relay: what comes from a descriptor goes to another one, without blocking. Between pipes by splice(2), which
//! needs no buffer; else through a buffer that exists only while data is on its way.

use crate::worker;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// What is moved at once between pipes, and through a buffer.
const AT_ONCE: usize = 1 << 20;
const BUFFER: usize = 16 << 10;
/// For a file, by one thread.
const BUFFERS: usize = 64;
/// Where the system refuses a thread.
const RETRY: Duration = Duration::from_millis(20);

pub type Watched = AsyncFd<OwnedFd>;

pub fn source(descriptor: OwnedFd) -> io::Result<Watched> {
    nonblocking(descriptor, Interest::READABLE)
}

fn nonblocking(descriptor: OwnedFd, interest: Interest) -> io::Result<Watched> {
    fcntl(&descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    watched(descriptor, interest)
}

pub fn watched(descriptor: OwnedFd, interest: Interest) -> io::Result<Watched> {
    // Not sound for types whose descriptor changes meanwhile; this one is owned.
    #[allow(deprecated)]
    AsyncFd::with_interest(descriptor, interest)
}

pub enum Sink {
    Splice {
        to: Watched,
        _reader: Option<OwnedFd>,
    },
    Buffer {
        to: Watched,
        _reader: Option<OwnedFd>,
    },
    File(Arc<File>),
    /// What comes is discarded.
    Nothing,
}

impl Sink {
    pub fn pipe(pipe: OwnedFd) -> io::Result<Self> {
        Ok(Self::Splice { to: nonblocking(pipe, Interest::WRITABLE)?, _reader: None })
    }

    pub fn terminal(master: OwnedFd) -> io::Result<Self> {
        Ok(Self::Buffer { to: nonblocking(master, Interest::WRITABLE)?, _reader: None })
    }

    pub fn fifo(writer: OwnedFd, reader: OwnedFd, from_terminal: bool) -> io::Result<Self> {
        let to = nonblocking(writer, Interest::WRITABLE)?;
        let _reader = Some(reader);
        Ok(if from_terminal { Self::Buffer { to, _reader } } else { Self::Splice { to, _reader } })
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
        let moved = match to {
            Sink::Splice { to, .. } => splice_or_wait(from, to).await?,
            Sink::Buffer { to, .. } => copy(from, to).await?,
            Sink::File(file) => copy_to_file(from, file).await?,
            Sink::Nothing => match read(from.get_ref())? {
                None => Moved::Empty,
                Some(bytes) if bytes.is_empty() => Moved::End,
                Some(_) => Moved::Some,
            },
        };
        if !matches!(moved, Moved::Some) {
            return Ok(moved);
        }
        // A process that writes without a pause must not hold up the requests.
        tokio::task::coop::consume_budget().await;
    }
}

async fn splice_or_wait(from: &Watched, to: &Watched) -> io::Result<Moved> {
    loop {
        let mut guard = to.writable().await?;
        match splice_once(from.get_ref(), to.get_ref())? {
            Moved::Full => guard.clear_ready(),
            moved => return Ok(moved),
        }
    }
}

fn splice_once(from: &OwnedFd, to: &OwnedFd) -> io::Result<Moved> {
    match splice(from, None, to, None, AT_ONCE, SpliceFFlags::SPLICE_F_NONBLOCK) {
        Ok(0) => Ok(Moved::End),
        Ok(_) => Ok(Moved::Some),
        Err(Errno::EINTR) => Ok(Moved::Some),
        // Which side it was, the kernel does not say; either may have changed since.
        Err(Errno::EAGAIN) if !is_ready(to, PollFlags::POLLOUT) => Ok(Moved::Full),
        Err(Errno::EAGAIN) if !is_ready(from, PollFlags::POLLIN) => Ok(Moved::Empty),
        Err(Errno::EAGAIN) => Ok(Moved::Some),
        Err(errno) => Err(errno.into()),
    }
}

fn is_ready(descriptor: &OwnedFd, wanted: PollFlags) -> bool {
    let mut wanted = [PollFd::new(descriptor.as_fd(), wanted)];
    poll(&mut wanted, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// `None` when nothing is there now; nothing at the end.
fn read(from: &OwnedFd) -> io::Result<Option<Vec<u8>>> {
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

async fn copy(from: &Watched, to: &Watched) -> io::Result<Moved> {
    let Some(bytes) = read(from.get_ref())? else { return Ok(Moved::Empty) };
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let mut guard = to.writable().await?;
        match nix::unistd::write(to.get_ref(), rest) {
            Ok(length) => rest = &rest[length..],
            Err(Errno::EAGAIN) => guard.clear_ready(),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(if bytes.is_empty() { Moved::End } else { Moved::Some })
}

/// On a thread: a disk may be slow. One that is full loses what is written; the process goes on.
async fn copy_to_file(from: &Watched, file: &Arc<File>) -> io::Result<Moved> {
    if !is_ready(from.get_ref(), PollFlags::POLLIN) {
        return Ok(Moved::Empty);
    }
    let (source, file) = (from.get_ref().try_clone()?, file.clone());
    match worker::run(move || copy_some(&source, &file)).await {
        Ok(moved) => moved,
        Err(_) => {
            // Without a thread it stays in the pipe, and the process waits.
            tokio::time::sleep(RETRY).await;
            Ok(Moved::Some)
        }
    }
}

/// Not all of it: a relay that is given up must end though its process goes on.
fn copy_some(from: &OwnedFd, mut file: &File) -> io::Result<Moved> {
    for _ in 0..BUFFERS {
        match read(from)? {
            None => return Ok(Moved::Empty),
            Some(bytes) if bytes.is_empty() => return Ok(Moved::End),
            Some(bytes) => drop(file.write_all(&bytes)),
        }
    }
    Ok(Moved::Some)
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
            let relay = run(source(from.into()).unwrap(), Sink::pipe(to.into()).unwrap(), never);
            tokio::time::timeout(Duration::from_secs(10), relay).await.expect("the relay stands still");
        });
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

//! The standard streams of a container's process, as in `std::process`: the ends for the process, and the caller's.

use crate::console::{self, Terminal, TerminalSize};
use crate::error::{Error, Result};
use crate::sys::{self, ExitStatus};
use crate::wait::{Wait, Woken};
use nix::poll::PollFlags;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a standard stream of a process is connected to; the default is the caller's own stream.
#[derive(Debug, Default)]
pub struct Stdio(Kind);

#[derive(Debug, Default)]
enum Kind {
    #[default]
    Inherit,
    Null,
    Piped,
    Fd(OwnedFd),
}

impl Stdio {
    /// The caller's own stream.
    pub fn inherit() -> Self {
        Self(Kind::Inherit)
    }

    /// `/dev/null` of the host.
    pub fn null() -> Self {
        Self(Kind::Null)
    }

    /// A new pipe, whose other end the caller takes, for example with [`crate::Container::take_stdout`].
    pub fn piped() -> Self {
        Self(Kind::Piped)
    }
}

/// Any descriptor: a file, the end of a pipe, a socket, a terminal.
impl<T: Into<OwnedFd>> From<T> for Stdio {
    fn from(descriptor: T) -> Self {
        Self(Kind::Fd(descriptor.into()))
    }
}

/// Who gets the master of a process's terminal.
#[derive(Debug, Default)]
pub(crate) enum Console {
    #[default]
    None,
    /// A connected unix stream socket that gets the terminal's master.
    Socket(OwnedFd),
    /// The caller, through [`Ends`].
    Own(TerminalSize),
}

/// The streams that a process is started with.
pub(crate) struct Streams {
    streams: [Option<OwnedFd>; 3],
    console: Option<OwnedFd>,
}

impl Streams {
    pub fn stdio(&self) -> [BorrowedFd<'_>; 3] {
        let own = sys::standard_fds();
        [0, 1, 2].map(|at| self.streams[at].as_ref().map_or(own[at], AsFd::as_fd))
    }

    pub fn console(&self) -> Option<BorrowedFd<'_>> {
        self.console.as_ref().map(AsFd::as_fd)
    }
}

/// The caller's ends of a process's streams, until they are taken.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    stdin: Option<PipeWriter>,
    stdout: Option<PipeReader>,
    stderr: Option<PipeReader>,
    terminal: Option<Terminal>,
}

/// The caller's ends, which all clones of a handle share: the first that takes one gets it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedEnds(Arc<Mutex<Ends>>);

impl SharedEnds {
    pub fn new(ends: Ends) -> Self {
        Self(Arc::new(Mutex::new(ends)))
    }

    pub fn take_stdin(&self) -> Option<PipeWriter> {
        self.lock().stdin.take()
    }

    pub fn take_stdout(&self) -> Option<PipeReader> {
        self.lock().stdout.take()
    }

    pub fn take_stderr(&self) -> Option<PipeReader> {
        self.lock().stderr.take()
    }

    pub fn take_terminal(&self) -> Option<Terminal> {
        self.lock().terminal.take()
    }

    /// Takes all ends; see [`Ends::read_to_end`].
    pub fn read_to_end(&self, pidfd: BorrowedFd, what: &str) -> Result<(Vec<u8>, Vec<u8>)> {
        let mut ends = std::mem::take(&mut *self.lock());
        ends.read_to_end(pidfd, what)
    }

    /// Nothing that holds the lock can panic half-way.
    fn lock(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the streams of a process. [`Waiting::finish`] returns the caller's ends, once the process has its terminal.
pub(crate) fn open(stdio: [Stdio; 3], console: Console) -> Result<(Streams, Waiting)> {
    let mut ends = Ends::default();
    let [stdin, stdout, stderr] = stdio;
    let (stdin, writer) = open_input(stdin)?;
    ends.stdin = writer;
    let (stdout, reader) = open_output(stdout)?;
    ends.stdout = reader;
    let (stderr, reader) = open_output(stderr)?;
    ends.stderr = reader;
    let (console, socket) = match console {
        Console::None => (None, None),
        Console::Socket(socket) => (Some(socket), None),
        Console::Own(_) => {
            let (ours, theirs) = UnixStream::pair().map_err(|error| Error::io("socketpair", error))?;
            (Some(theirs.into()), Some(ours))
        }
    };
    Ok((Streams { streams: [stdin, stdout, stderr], console }, Waiting { ends, socket }))
}

/// The caller's ends; the terminal is still to come.
pub(crate) struct Waiting {
    ends: Ends,
    socket: Option<UnixStream>,
}

impl Waiting {
    /// To be called once the process has its terminal. Closes `given`, so that the caller sees the end of file on its
    /// ends.
    pub fn finish(self, given: Streams) -> Result<Ends> {
        drop(given);
        let Self { mut ends, socket } = self;
        if let Some(socket) = socket {
            ends.terminal = Some(Terminal::new(console::receive_terminal(socket.as_fd())?));
        }
        Ok(ends)
    }
}

type Opened<End> = Result<(Option<OwnedFd>, Option<End>)>;

fn open_input(stdio: Stdio) -> Opened<PipeWriter> {
    match stdio.0 {
        Kind::Piped => {
            let (theirs, ours) = pipe()?;
            Ok((Some(theirs.into()), Some(ours)))
        }
        other => Ok((open_plain(other)?, None)),
    }
}

fn open_output(stdio: Stdio) -> Opened<PipeReader> {
    match stdio.0 {
        Kind::Piped => {
            let (ours, theirs) = pipe()?;
            Ok((Some(theirs.into()), Some(ours)))
        }
        other => Ok((open_plain(other)?, None)),
    }
}

fn open_plain(kind: Kind) -> Result<Option<OwnedFd>> {
    match kind {
        Kind::Fd(descriptor) => Ok(Some(descriptor)),
        Kind::Null => {
            let null = File::options().read(true).write(true).open("/dev/null");
            null.map(|file| Some(file.into())).map_err(|error| Error::io("open /dev/null", error))
        }
        Kind::Inherit | Kind::Piped => Ok(None),
    }
}

fn pipe() -> Result<(PipeReader, PipeWriter)> {
    std::io::pipe().map_err(|error| Error::io("pipe", error))
}

/// How a process ended, and what it wrote to its pipes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Empty without a pipe.
    pub stdout: Vec<u8>,
    /// Empty without a pipe.
    pub stderr: Vec<u8>,
}

impl Output {
    pub(crate) fn new(status: ExitStatus, (stdout, stderr): (Vec<u8>, Vec<u8>)) -> Self {
        Self { status, stdout, stderr }
    }
}

impl Ends {
    /// Closes the input, and reads both outputs until the process behind `pidfd` has ended and what it wrote is read.
    /// Not until the end of file, because a process that it leaves behind may hold the pipes open for ever.
    fn read_to_end(&mut self, pidfd: BorrowedFd, what: &str) -> Result<(Vec<u8>, Vec<u8>)> {
        self.stdin = None;
        let mut out = Reading::new(self.stdout.take())?;
        let mut err = Reading::new(self.stderr.take())?;
        loop {
            let mut wanted = vec![(pidfd, PollFlags::POLLIN)];
            wanted.extend(out.pipe.iter().chain(&err.pipe).map(|pipe| (pipe.as_fd(), PollFlags::POLLIN)));
            let ended = match Wait::default().poll(&wanted)? {
                Woken::Ready(ready) => ready.first() == Some(&true),
                Woken::Ended(ended) => return Err(ended.error(format!("the end of {what}"))),
                // There is no deadline of our own: a program runs as long as it likes.
                Woken::Late => false,
            };
            out.take(what)?;
            err.take(what)?;
            if ended {
                return Ok((out.bytes, err.bytes));
            }
        }
    }
}

struct Reading {
    pipe: Option<File>,
    bytes: Vec<u8>,
}

impl Reading {
    fn new(pipe: Option<PipeReader>) -> Result<Self> {
        let pipe = pipe.map(|pipe| File::from(OwnedFd::from(pipe)));
        if let Some(pipe) = &pipe {
            let nonblocking = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
            nix::fcntl::fcntl(pipe, nonblocking).map_err(|errno| Error::os("fcntl O_NONBLOCK", errno))?;
        }
        Ok(Self { pipe, bytes: Vec::new() })
    }

    /// Reads what is in the pipe now.
    fn take(&mut self, what: &str) -> Result<()> {
        use std::io::ErrorKind;
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        match pipe.read_to_end(&mut self.bytes) {
            Ok(_) => self.pipe = None,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(Error::io(format!("read the output of {what}"), error)),
        }
        Ok(())
    }
}

/// A descriptor of the caller's and its number in the process.
#[derive(Debug)]
pub(crate) enum Passed {
    /// Under its own number: the caller was started with it.
    Inherited(u32),
    To(OwnedFd, u32),
}

//! A terminal in the foreground: copies input of the caller's terminal to the container's, output back, and the size.
//! Meanwhile the caller's terminal is in raw mode. In the background (`timeout 5 onggi exec -t …`) only output is copied.

use crate::failure::Failure;
use libruntime::TerminalSize;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::PollFlags;
use nix::sys::stat::{Mode, SFlag, fstat, major};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, read, tcgetpgrp, write};
use std::io::{IsTerminal, stderr, stdin, stdout};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The end of input on a terminal in canonical mode (termios(3), VEOF).
const END_OF_INPUT: u8 = 4;

const UNKNOWN: TerminalSize = TerminalSize { rows: 0, columns: 0 };

/// The size of the caller's terminal, which the container's has from its start, because a program may ask only once.
/// Zero where the caller has no terminal.
pub fn own_size() -> TerminalSize {
    own().unwrap_or(UNKNOWN)
}

fn own() -> Option<TerminalSize> {
    let size = match [stdout().is_terminal(), stdin().is_terminal(), stderr().is_terminal()] {
        [true, ..] => libruntime::terminal_size(stdout().as_fd()),
        [_, true, _] => libruntime::terminal_size(stdin().as_fd()),
        [_, _, true] => libruntime::terminal_size(stderr().as_fd()),
        _ => return None,
    };
    size.ok().filter(|size| *size != UNKNOWN)
}

/// How much output is copied before signals and input are looked at again, in bytes.
pub const PIECE: usize = 64 << 10;

/// How far output was copied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// There is no more now.
    All,
    /// Some bytes; there may be more.
    Part(usize),
    /// No process has the terminal open any more.
    Closed,
}

pub struct Terminal {
    master: libruntime::Terminal,
    input: OwnedFd,
    output: OwnedFd,
    /// Input that is not written yet.
    pending: Vec<u8>,
    /// Output that is not written yet.
    printed: Vec<u8>,
    input_open: bool,
    /// The caller's terminal was hung up (tty_ioctl(4)), or its other side was closed.
    hung_up: bool,
    /// Found out at the beginning, because isatty(3) fails for a terminal that was hung up.
    output_is_terminal: bool,
    /// The command is not in the terminal's foreground process group: the input is another job's, and so is the mode.
    background: bool,
    saved: Option<Termios>,
}

impl Terminal {
    /// Takes over the caller's terminal, if there is one.
    pub fn attach(master: libruntime::Terminal) -> Result<Self, Failure> {
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|errno| Failure::os("fcntl", errno))?;
        let mut terminal = Self {
            master,
            input: without_waiting(stdin().as_fd(), OFlag::O_RDONLY)?,
            output: without_waiting(stdout().as_fd(), OFlag::O_WRONLY)?,
            pending: Vec::new(),
            printed: Vec::new(),
            input_open: true,
            hung_up: false,
            output_is_terminal: stdout().is_terminal(),
            background: false,
            saved: None,
        };
        if stdin().is_terminal() {
            terminal.take_over()?;
        }
        terminal.resize();
        Ok(terminal)
    }

    fn take_over(&mut self) -> Result<(), Failure> {
        self.background = is_background();
        if !self.background && self.saved.is_none() {
            self.saved = Some(raw()?);
        }
        Ok(())
    }

    /// Whether it has to be looked at again, because nothing tells when the command comes to the foreground.
    pub fn is_in_background(&self) -> bool {
        self.background
    }

    /// Takes the caller's terminal over once the command is in the foreground.
    pub fn look_again(&mut self) {
        if self.background && self.take_over().is_err() {
            self.hung_up = true;
        }
    }

    /// Gives the container's terminal the size of the caller's.
    pub fn resize(&self) {
        if let Some(size) = own() {
            // Best effort: the container may have ended.
            let _ = self.master.resize(size);
        }
    }

    pub fn master(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }

    pub fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    pub fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }

    /// The events to wait for: on the master, on standard input and on standard output. Without events, an output is
    /// still polled for a hang-up.
    pub fn interest(&self) -> (PollFlags, PollFlags, PollFlags) {
        let wanted = |wanted, flag| if wanted { flag } else { PollFlags::empty() };
        (
            wanted(self.printed.is_empty(), PollFlags::POLLIN)
                | wanted(!self.pending.is_empty(), PollFlags::POLLOUT),
            wanted(self.input_open && !self.background && self.pending.is_empty(), PollFlags::POLLIN),
            wanted(!self.printed.is_empty(), PollFlags::POLLOUT),
        )
    }

    /// Whether the caller's terminal is gone, so that the container's has to be hung up as well.
    pub fn is_hung_up(&self) -> bool {
        self.hung_up
    }

    /// To be called when poll(2) has reported a hang-up of standard output. That is the end of a terminal, while a pipe
    /// without a reader must not stop the container.
    pub fn output_hung_up(&mut self) {
        self.hung_up |= self.output_is_terminal;
    }

    pub fn output_is_terminal(&self) -> bool {
        self.output_is_terminal
    }

    /// Whether output is left that is not written yet.
    pub fn has_printed(&self) -> bool {
        !self.printed.is_empty()
    }

    /// Reads input and writes it to the master, which may not accept all at once.
    pub fn take_input(&mut self) {
        let mut bytes = [0; 4096];
        match read(&self.input, &mut bytes) {
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Ok(length) if length > 0 => self.pending.extend(&bytes[..length]),
            // SIGTTIN is blocked (termios(3), tcsetpgrp(3)).
            Err(Errno::EIO) if is_background() => self.background = true,
            // In raw mode no key ends the input of a terminal.
            _ if self.saved.is_some() => self.hung_up = true,
            _ => {
                self.input_open = false;
                self.pending.push(END_OF_INPUT);
            }
        }
        self.pass_input();
    }

    pub fn pass_input(&mut self) {
        while !self.pending.is_empty() {
            match write(&self.master, &self.pending) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                // The terminal has no reader any more.
                Err(_) => self.pending.clear(),
            }
        }
    }

    /// Copies output, up to `most` bytes or a little more, as far as standard output accepts it.
    pub fn pass_output(&mut self, most: usize) -> Copied {
        let mut bytes = [0; 4096];
        let mut length = 0;
        loop {
            self.write_printed();
            if !self.printed.is_empty() || length >= most {
                return Copied::Part(length);
            }
            match read(&self.master, &mut bytes) {
                Ok(0) => return Copied::Closed,
                Ok(read) => {
                    length += read;
                    self.printed.extend(&bytes[..read]);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Copied::All,
                // EIO: no process has the terminal open.
                Err(_) => return Copied::Closed,
            }
        }
    }

    /// A reader of standard output that is gone must not stop the container, but a terminal's end does.
    fn write_printed(&mut self) {
        while !self.printed.is_empty() {
            match write(&self.output, &self.printed) {
                Ok(length) => drop(self.printed.drain(..length)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(errno) => {
                    self.hung_up |= errno == Errno::EIO;
                    self.printed.clear();
                }
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(saved) = self.saved.as_ref().filter(|_| !is_background()) {
            let _ = tcsetattr(stdin(), SetArg::TCSADRAIN, saved);
        }
    }
}

/// A stream for which neither a read nor a write waits: others may take what poll(2) has announced, and a terminal
/// takes less than a whole buffer. Pipes and terminals are opened anew with O_NONBLOCK: set on the caller's own descriptor,
/// the flag would hold for every process that shares it. Other files, and what the caller may not open, stay as they are.
fn without_waiting(stream: BorrowedFd, access: OFlag) -> Result<OwnedFd, Failure> {
    // Major numbers of the slaves of pseudoterminals. Opening a master anew would make another pair (pts(4)).
    const TERMINALS: std::ops::RangeInclusive<u64> = 136..=143;
    let can_be_opened = fstat(stream).is_ok_and(|found| {
        let kind = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
        kind == SFlag::S_IFIFO || kind == SFlag::S_IFCHR && TERMINALS.contains(&major(found.st_rdev))
    });
    let flags = access | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let path = format!("/proc/self/fd/{}", stream.as_raw_fd());
    match can_be_opened.then(|| open(path.as_str(), flags, Mode::empty())) {
        Some(Ok(opened)) => Ok(opened),
        _ => stream.try_clone_to_owned().map_err(|error| Failure::os("fcntl F_DUPFD_CLOEXEC", error)),
    }
}

/// False, too, where standard input is no terminal, or not the controlling one.
fn is_background() -> bool {
    tcgetpgrp(stdin()).is_ok_and(|foreground| foreground != getpgrp())
}

fn raw() -> Result<Termios, Failure> {
    let saved = tcgetattr(stdin()).map_err(|errno| Failure::os("tcgetattr", errno))?;
    let mut mode = saved.clone();
    cfmakeraw(&mut mode);
    // The container's terminal leaves carriage returns to the caller's.
    mode.output_flags = saved.output_flags | OutputFlags::OPOST;
    tcsetattr(stdin(), SetArg::TCSADRAIN, &mode).map_err(|errno| Failure::os("tcsetattr", errno))?;
    Ok(saved)
}

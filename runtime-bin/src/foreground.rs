//! Waits for a process in the foreground: its signals, its terminal, its orphans, its end.

use crate::failure::Failure;
use crate::signals::{Signals, reap_others};
use crate::terminal::{Copied, PIECE, Terminal};
use libruntime::ExitStatus;
use nix::errno::Errno;
use nix::libc::{SIGCHLD, SIGPIPE, SIGWINCH};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// How often a command in the background looks whether it is in the foreground, in milliseconds.
const LOOK_AGAIN: u16 = 500;

/// Returns when the process behind `pidfd` has ended. It is not reaped.
pub fn attend(
    pid: i32,
    pidfd: BorrowedFd,
    signals: &Signals,
    mut terminal: Option<Terminal>,
    forward: &dyn Fn(i32),
) -> Result<(), Failure> {
    loop {
        let ready = wait(pidfd, signals, terminal.as_ref())?;
        if ready.ended && terminal.is_none() {
            return Ok(());
        }
        while let Some(signal) = signals.next() {
            match (signal, &terminal) {
                (SIGCHLD, _) => reap_others(pid),
                (SIGWINCH, Some(terminal)) => terminal.resize(),
                // Without a terminal of its own the program has no window. Some end at this signal (Apache).
                (SIGWINCH | SIGPIPE, _) => {}
                (signal, _) => forward(signal),
            }
        }
        if let Some(relay) = &mut terminal {
            relay.look_again();
            if ready.input {
                relay.take_input();
            }
            if ready.output_hung_up {
                relay.output_hung_up();
            }
            relay.pass_input();
            let open = relay.pass_output(PIECE) != Copied::Closed;
            // The process has closed its terminal and still runs; or the caller's terminal is gone, and closing the
            // master hangs up the process's own: its session gets SIGHUP.
            if !ready.ended && (!open && ready.hung_up || relay.is_hung_up()) {
                terminal = None;
            }
        }
        if ready.ended {
            return terminal.map_or(Ok(()), |relay| drain(relay, signals));
        }
    }
}

/// Writes the rest of the output, as slowly as standard output accepts it, until a signal comes. Other processes of the
/// container may go on writing for ever.
fn drain(mut relay: Terminal, signals: &Signals) -> Result<(), Failure> {
    /// More than a terminal's buffers hold.
    const REST: usize = 64 << 10;
    let mut rest = REST;
    while signals.next().is_none_or(|signal| signal == SIGCHLD) {
        match relay.pass_output(rest) {
            Copied::Part(length) => rest = rest.saturating_sub(length),
            Copied::All | Copied::Closed => return Ok(()),
        }
        if !relay.has_printed() {
            if rest == 0 {
                return Ok(());
            }
            continue;
        }
        let writable = PollFd::new(relay.output(), PollFlags::POLLOUT);
        match poll(&mut [writable, PollFd::new(signals.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Failure::os("poll", errno)),
        }
    }
    Ok(())
}

struct Ready {
    ended: bool,
    input: bool,
    hung_up: bool,
    output_hung_up: bool,
}

fn wait(pidfd: BorrowedFd, signals: &Signals, terminal: Option<&Terminal>) -> Result<Ready, Failure> {
    let mut fds =
        vec![PollFd::new(pidfd, PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    if let Some(terminal) = terminal {
        let (master, typed, printed) = terminal.interest();
        fds.push(PollFd::new(terminal.master(), master));
        // Where there is nothing to write, only a terminal is polled for its end: a closed pipe would be reported again
        // and again.
        if terminal.output_is_terminal() || !printed.is_empty() {
            fds.push(PollFd::new(terminal.output(), printed));
        }
        // A terminal whose input is not wanted would still report its end, again and again.
        if !typed.is_empty() {
            fds.push(PollFd::new(terminal.input(), typed));
        }
    }
    // Without a deadline: the program runs as long as it wants, and signals end it.
    let again = terminal.is_some_and(Terminal::is_in_background);
    let timeout = if again { PollTimeout::from(LOOK_AGAIN) } else { PollTimeout::NONE };
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(Failure::os("poll", errno)),
    }
    let seen = |wanted: BorrowedFd| {
        let found = fds.iter().find(|fd| fd.as_fd().as_raw_fd() == wanted.as_raw_fd());
        found.and_then(PollFd::revents).unwrap_or(PollFlags::empty())
    };
    let of = |stream: fn(&Terminal) -> BorrowedFd<'_>| {
        terminal.map_or(PollFlags::empty(), |terminal| seen(stream(terminal)))
    };
    Ok(Ready {
        ended: !seen(pidfd).is_empty(),
        input: !of(Terminal::input).is_empty(),
        hung_up: of(Terminal::master).contains(PollFlags::POLLHUP),
        output_hung_up: of(Terminal::output).intersects(PollFlags::POLLHUP | PollFlags::POLLERR),
    })
}

/// The exit code that stands for how a process ended, as in a shell.
pub fn exit_code(exit: ExitStatus) -> u8 {
    match exit {
        ExitStatus::Code(code) => code as u8,
        ExitStatus::Signal(signal) => (128 + signal) as u8,
    }
}

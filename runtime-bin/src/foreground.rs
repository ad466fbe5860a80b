//! Waiting for a process in the foreground: its signals, its terminal, its orphans, its end.

use crate::failure::Failure;
use crate::signals::{Signals, reap_others};
use crate::terminal::Terminal;
use libruntime::Exit;
use nix::errno::Errno;
use nix::libc::{SIGCHLD, SIGPIPE, SIGWINCH};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::stdin;
use std::os::fd::{AsFd, BorrowedFd};

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
        while let Some(signal) = signals.next() {
            match (signal, &terminal) {
                (SIGCHLD, _) => reap_others(pid),
                (SIGWINCH, Some(terminal)) => terminal.resize(),
                (SIGPIPE, _) => {}
                (signal, _) => forward(signal),
            }
        }
        if let Some(relay) = &mut terminal {
            if ready.input {
                relay.take_input();
            }
            relay.pass_input();
            let open = relay.pass_output();
            // Closed, and yet it runs: it has let go of its terminal.
            if !open && !ready.ended && ready.hung_up {
                terminal = None;
            }
        }
        if ready.ended {
            return Ok(());
        }
    }
}

struct Ready {
    ended: bool,
    input: bool,
    hung_up: bool,
}

fn wait(pidfd: BorrowedFd, signals: &Signals, terminal: Option<&Terminal>) -> Result<Ready, Failure> {
    let input = stdin();
    let mut fds =
        vec![PollFd::new(pidfd, PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    if let Some(terminal) = terminal {
        let (typed, master) = terminal.interest();
        fds.push(PollFd::new(terminal.master(), master));
        // A terminal without interest would still report its end, again and again.
        if !typed.is_empty() {
            fds.push(PollFd::new(input.as_fd(), typed));
        }
    }
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(Failure::os("poll", errno)),
    }
    let seen = |at: usize| fds.get(at).and_then(PollFd::revents).unwrap_or(PollFlags::empty());
    Ok(Ready {
        ended: !seen(0).is_empty(),
        input: !seen(3).is_empty(),
        hung_up: seen(2).contains(PollFlags::POLLHUP),
    })
}

/// The exit code that stands for how a process ended, as in a shell.
pub fn exit_code(exit: Exit) -> u8 {
    match exit {
        Exit::Code(code) => code as u8,
        Exit::Signal(signal) => (128 + signal) as u8,
    }
}

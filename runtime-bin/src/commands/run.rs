//! `run`: create and start in one, and unless detached wait for the end and delete.
//! Not in the spec; every runtime has it.

use super::create::{BUNDLE, CONFIG, Configured, NO_NEW_KEYRING, NO_PIVOT, announce, undo};
use crate::cli::{Flag, Parsed, Verb};
use crate::failure::Failure;
use crate::foreground::{attend, exit_code};
use crate::global::Global;
use crate::launch::{self, CONSOLE_SOCKET, DETACH, PID_FILE, PIDFD_SOCKET, PRESERVE_FDS};
use crate::networks::{BANDWIDTH, NETWORK, PUBLISH};
use crate::signals::{Interrupt, Signals};
use crate::terminal::Terminal;
use libruntime::{Container, Readiness};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

pub const VERB: Verb = Verb {
    name: "run",
    about: "create and start a container, and wait for its end",
    arguments: "<container-id>",
    count: (1, 1),
    trailing: false,
    text: "Exits with the program's exit code, or with 128 and the number of the signal that ended it.\n\
           Signals are passed on to the program.",
    flags: &[
        BUNDLE,
        CONFIG,
        DETACH,
        Flag::switch("keep", "do not delete the container at its end"),
        Flag::switch("no-subreaper", "do not adopt processes that the container leaves behind"),
        CONSOLE_SOCKET,
        PIDFD_SOCKET,
        PID_FILE,
        NO_PIVOT,
        NO_NEW_KEYRING,
        PRESERVE_FDS,
        NETWORK,
        PUBLISH,
        BANDWIDTH,
    ],
};

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    let detach = args.is_set(DETACH.name);
    let mut spec = Configured::read(args)?;
    let console = launch::console_socket(args, spec.terminal, detach)?;
    if detach {
        let container = spec.create(global, args, console.as_ref().map(AsFd::as_fd))?;
        return match start(global, args, &container) {
            Ok(None) => Ok(0),
            Ok(Some(readiness)) => {
                Interrupt::release()?;
                Ok(readiness.pass_on().map(|()| 0)?)
            }
            Err(failure) => undo(global, container, failure),
        };
    }
    spec.relay_terminal();
    let signals = Signals::block()?;
    if !args.is_set("no-subreaper") {
        nix::sys::prctl::set_child_subreaper(true).map_err(|errno| Failure::os("prctl", errno))?;
    }
    let (ours, theirs) = UnixStream::pair().map_err(|error| Failure::os("socketpair", error))?;
    let console = spec.terminal.then(|| theirs.as_fd());
    let container = spec.create(global, args, console)?;
    let terminal = console.is_some().then_some(&ours);
    match follow(global, args, &container, &signals, terminal) {
        Err(failure) => undo(global, container, failure),
        Ok(code) if args.is_set("keep") => Ok(code),
        Ok(code) => end(global, container, code),
    }
}

/// Removes what has ended. Its exit code is what the caller wants, unless that would hide what is left.
fn end(global: &Global, container: Container, code: u8) -> Result<u8, Failure> {
    let id = container.id().to_string();
    match container.delete(true) {
        Ok(failed) => {
            failed.iter().for_each(|error| global.warn(&error.to_string()));
            Ok(code)
        }
        Err(error) => {
            let failure = Failure::from(error);
            let message = format!(
                "container {id} has ended with exit code {code} and could not be deleted: {}",
                failure.message
            );
            Err(Failure { message, ..failure }.with_code(code.max(1)))
        }
    }
}

fn start(global: &Global, args: &Parsed, container: &Container) -> Result<Option<Readiness>, Failure> {
    announce(args, container)?;
    let readiness = container.readiness()?;
    container.start()?.iter().for_each(|error| global.warn(&error.to_string()));
    Ok(readiness)
}

/// Starts it and stays with it to its end.
fn follow(
    global: &Global,
    args: &Parsed,
    container: &Container,
    signals: &Signals,
    console: Option<&UnixStream>,
) -> Result<u8, Failure> {
    let (pid, pidfd) = (container.pid().unwrap_or(0), container.pidfd()?);
    let master = console.map(|socket| libruntime::receive_terminal(socket.as_fd())).transpose()?;
    if let Some(readiness) = start(global, args, container)? {
        // It ends with the container, at the latest; what fails is between it and the supervisor.
        std::thread::spawn(move || readiness.pass_on());
    }
    let terminal = master.map(Terminal::attach).transpose()?;
    let forward = |signal| drop(container.kill(signal, false));
    attend(pid, pidfd.as_fd(), signals, terminal, &forward)?;
    Ok(exit_code(container.wait()?))
}

//! `run`: creates and starts a container, and unless detached waits for its end and deletes it. Not in the
//! specification; every runtime has it.

use super::create::{BUNDLE, CONFIG, Configured, Console, NO_NEW_KEYRING, NO_PIVOT, announce, undo};
use crate::cli::{Flag, Parsed, Verb};
use crate::failure::Failure;
use crate::foreground::{attend, exit_code};
use crate::global::Global;
use crate::launch::{self, CONSOLE_SOCKET, DETACH, PID_FILE, PIDFD_SOCKET, PRESERVE_FDS};
use crate::networks::{BANDWIDTH, NETWORK, PUBLISH};
use crate::signals::{Interrupt, Signals};
use crate::terminal::Terminal;
use crate::traced::{TRACE, traced};
use libruntime::{Container, NewContainer, Readiness, Signal};

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
        TRACE,
    ],
    run,
};

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    run_and_wait(global, args).map_err(|failure| failure.within("onggi run failed"))
}

fn run_and_wait(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    let detach = args.is_set(DETACH.name);
    let spec = Configured::read(args)?;
    let console = launch::console_socket(args, spec.terminal, detach)?;
    if detach {
        let (container, started) = make_and_start(global, args, spec, Console::of(console))?;
        return match started {
            Ok(None) => {
                container.detach();
                Ok(0)
            }
            Ok(Some(readiness)) => {
                Interrupt::release()?;
                container.detach();
                Ok(readiness.pass_on().map(|()| 0)?)
            }
            Err(failure) => undo(global, container, failure),
        };
    }
    let signals = Signals::block()?;
    if !args.is_set("no-subreaper") {
        nix::sys::prctl::set_child_subreaper(true).map_err(|errno| Failure::os("prctl", errno))?;
    }
    let console = if spec.terminal { Console::Relayed } else { Console::None };
    let (container, started) = make_and_start(global, args, spec, console)?;
    match started.and_then(|readiness| follow(readiness, &container, &signals)) {
        Err(failure) => undo(global, container, failure),
        Ok(code) if args.is_set("keep") => Ok(code),
        Ok(code) => end(global, container, code),
    }
}

type Started = Result<Option<Readiness>, Failure>;

/// A container that cannot be started is returned as well, to be deleted.
fn make_and_start(
    global: &Global,
    args: &Parsed,
    spec: Configured,
    console: Console,
) -> Result<(Container, Started), Failure> {
    traced(global, args, || {
        let create = |new: NewContainer| new.start_by_handle().create();
        let container = spec.make(global, args, console, create)?;
        let started = start(args, &container);
        Ok((container, started))
    })
}

/// Deletes the container that has ended. Returns its exit code, unless the deletion fails.
fn end(global: &Global, container: Container, code: u8) -> Result<u8, Failure> {
    let id = container.id().to_string();
    match container.delete_force() {
        Ok(failed) => {
            global.warn_of(&failed);
            // The command ends, and the kernel closes everything at once.
            std::mem::forget(container);
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

fn start(args: &Parsed, container: &Container) -> Started {
    announce(args, container)?;
    let readiness = container.readiness()?;
    container.start()?;
    Ok(readiness)
}

/// Waits for the container's end.
fn follow(readiness: Option<Readiness>, container: &Container, signals: &Signals) -> Result<u8, Failure> {
    let pid = container.init_pid().unwrap_or(0);
    if let Some(readiness) = readiness {
        // The thread ends with the container at the latest. Its errors concern the supervisor alone.
        std::thread::spawn(move || readiness.pass_on());
    }
    let terminal = container.take_terminal().map(Terminal::attach).transpose()?;
    let forward = |signal| drop(container.kill(Signal(signal)));
    attend(pid, container.pidfd(), signals, terminal, &forward)?;
    Ok(exit_code(container.wait()?))
}

//! `restore`: a container from the files of a checkpoint, by CRIU. Not in the spec; runc has it.

use super::checkpoint::{
    self, AUTO_DEDUP, EMPTY_NS, EXT_UNIX_SK, FILE_LOCKS, IMAGE_PATH, LAZY_PAGES, LINK_REMAP,
    MANAGE_CGROUPS_MODE, SHELL_JOB, TCP_ESTABLISHED, WORK_PATH,
};
use super::create::{BUNDLE, CONFIG, Configured, Console, NO_PIVOT, undo};
use crate::cli::{Flag, Parsed, Verb};
use crate::failure::Failure;
use crate::foreground::{attend, exit_code};
use crate::global::Global;
use crate::launch::{self, CONSOLE_SOCKET, DETACH, PID_FILE};
use crate::networks::{BANDWIDTH, NETWORK, PUBLISH};
use crate::signals::Signals;
use crate::terminal::Terminal;
use libruntime::{CheckpointOptions, Container, Signal};

pub const VERB: Verb = Verb {
    name: "restore",
    about: "restore a container from the files of a checkpoint",
    arguments: "<container-id>",
    count: (1, 1),
    trailing: false,
    text: "The configuration is that of the bundle. Processes with more capabilities, other id maps or no\n\
           filter are refused; CRIU still reads the files as root, so restore only your own.",
    flags: &[
        BUNDLE,
        CONFIG,
        CONSOLE_SOCKET,
        IMAGE_PATH,
        WORK_PATH,
        TCP_ESTABLISHED,
        Flag::switch("tcp-close", "restore TCP connections as closed ones"),
        EXT_UNIX_SK,
        SHELL_JOB,
        FILE_LOCKS,
        LINK_REMAP,
        MANAGE_CGROUPS_MODE,
        DETACH,
        PID_FILE,
        Flag::switch("keep", "do not delete the container at its end"),
        Flag::switch("no-subreaper", "do not adopt processes that the container leaves behind"),
        NO_PIVOT,
        EMPTY_NS,
        AUTO_DEDUP,
        LAZY_PAGES,
        Flag::value("lsm-profile", "TYPE:NAME", "the security label, in place of the saved one"),
        Flag::value("lsm-mount-context", "CONTEXT", "the label of mounts, in place of the saved one"),
        NETWORK,
        PUBLISH,
        BANDWIDTH,
    ],
    run,
};

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    let detach = args.is_set(DETACH.name);
    let text = |flag: &str| args.get(flag).filter(|value| !value.is_empty()).map(str::to_string);
    let mut options = checkpoint::options(args)?;
    options.tcp_close = args.is_set("tcp-close");
    options.lsm_profile = text("lsm-profile");
    options.lsm_mount_context = text("lsm-mount-context");
    let spec = Configured::read(args)?;
    let console = launch::console_socket(args, spec.terminal, detach)?;
    if detach {
        let container = spec.make(global, args, Console::of(console), |builder| builder.restore(&options))?;
        return match launch::write_pid_file(args, container.init_pid().unwrap_or(0)) {
            Ok(()) => {
                container.detach();
                Ok(0)
            }
            Err(failure) => undo(global, container, failure),
        };
    }
    in_foreground(global, args, spec, &options)
}

fn in_foreground(
    global: &Global,
    args: &Parsed,
    spec: Configured,
    options: &CheckpointOptions,
) -> Result<u8, Failure> {
    let signals = Signals::block()?;
    if !args.is_set("no-subreaper") {
        nix::sys::prctl::set_child_subreaper(true).map_err(|errno| Failure::os("prctl", errno))?;
    }
    let console = if spec.terminal { Console::Own } else { Console::None };
    let container = spec.make(global, args, console, |builder| builder.restore(options))?;
    match follow(args, &container, &signals) {
        Err(failure) => undo(global, container, failure),
        Ok(code) => {
            if !args.is_set("keep") {
                global.warn_of(&container.delete_force()?);
            }
            Ok(code)
        }
    }
}

fn follow(args: &Parsed, container: &Container, signals: &Signals) -> Result<u8, Failure> {
    // It may have ended already.
    let pid = container.init_pid().unwrap_or(0);
    launch::write_pid_file(args, pid)?;
    let terminal = container.take_terminal().map(Terminal::attach).transpose()?;
    let forward = |signal| drop(container.kill(Signal(signal)));
    attend(pid, container.pidfd(), signals, terminal, &forward)?;
    Ok(exit_code(container.wait()?))
}

//! `create`: "MUST generate an error if the ID is not unique … the container's environment MUST be
//! created according to the configuration … the user-specified program MUST NOT be run at this
//! time" (runtime.md, "Create"). Also what `run` shares with it: reading the configuration.

use crate::cli::{Flag, Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;
use crate::input;
use crate::launch::{self, CONSOLE_SOCKET, PID_FILE, PIDFD_SOCKET, PRESERVE_FDS};
use crate::networks::{self, BANDWIDTH, NETWORK, PUBLISH};
use crate::signals::Interrupt;
use crate::terminal;
use crate::traced::{TRACE, traced};
use libruntime::{Config, Container, NewContainer};
use std::os::unix::net::UnixStream;
use std::path::Path;

pub const BUNDLE: Flag =
    Flag::value("bundle", "DIR", "the bundle (default: the current directory)").short("b");
pub const CONFIG: Flag =
    Flag::value("config", "FILE", "a configuration to use in place of the bundle's").short("f");
pub const NO_PIVOT: Flag =
    Flag::switch("no-pivot", "move the root instead of pivot_root, for a root in a ramdisk");
pub const NO_NEW_KEYRING: Flag = Flag::switch("no-new-keyring", "keep the caller's session keyring");

pub const VERB: Verb = Verb {
    name: "create",
    about: "create a container; start runs its program",
    arguments: "<container-id>",
    count: (1, 1),
    trailing: false,
    text: "The bundle is a directory with config.json and the root filesystem that it names.\n\
           The id is 1 to 1024 letters, digits, '_', '+', '-' or '.'; it is unique below --root.",
    flags: &[
        BUNDLE,
        CONFIG,
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
    create(global, args).map_err(|failure| failure.within("onggi create failed"))
}

fn create(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    let spec = Configured::read(args)?;
    let console = launch::console_socket(args, spec.terminal, true)?;
    let container =
        traced(global, args, || spec.make(global, args, Console::of(console), NewContainer::create))?;
    match announce(args, &container) {
        Ok(()) => {
            container.detach();
            Ok(0)
        }
        Err(failure) => undo(global, container, failure),
    }
}

/// Gives the caller the pid and pidfd of the process.
pub fn announce(args: &Parsed, container: &Container) -> Result<(), Failure> {
    let socket = launch::pidfd_socket(args)?;
    launch::send_pidfd(socket.as_ref(), "standard", container.pidfd())?;
    launch::write_pid_file(args, container.init_pid().unwrap_or(0))
}

/// Removes a container that cannot be used after all.
pub fn undo(global: &Global, container: Container, failure: Failure) -> Result<u8, Failure> {
    match container.without_limits().delete_force() {
        Ok(failed) => {
            global.warn_of(&failed);
            Err(failure)
        }
        Err(error) => {
            let message = format!("{}; the container could not be removed either: {error}", failure.message);
            Err(Failure { message, ..failure })
        }
    }
}

/// The configuration, with what the command needs to know about it.
pub struct Configured {
    pub spec: libruntime::Spec,
    warnings: Vec<libruntime::Diagnostic>,
    pub terminal: bool,
}

impl Configured {
    pub fn read(args: &Parsed) -> Result<Self, Failure> {
        let Config { spec, warnings } = match args.get("config").filter(|file| !file.is_empty()) {
            None => Config::load(bundle(args))?,
            Some(file) => Config::parse(&input::read(file)?)?,
        };
        let terminal = spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false);
        Ok(Self { spec, warnings, terminal })
    }

    /// Makes the container by a verb of its builder.
    pub fn make(
        mut self,
        global: &Global,
        args: &Parsed,
        console: Console,
        verb: impl FnOnce(NewContainer) -> libruntime::Result<Container>,
    ) -> Result<Container, Failure> {
        let notify_socket = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty());
        let inherited = global.inherited()?;
        if inherited.listen_fds > 0 {
            activate(&mut self.spec, inherited.listen_fds);
        }
        let mut builder = global
            .runtime
            .container(args.positional(0))
            .bundle(bundle(args))
            .spec(self.spec)
            .inherit_fds(inherited.count())
            .no_pivot(args.is_set(NO_PIVOT.name))
            .no_new_keyring(args.is_set(NO_NEW_KEYRING.name))
            .cancel(Interrupt::block()?);
        if let Some(path) = notify_socket {
            builder = builder.notify_socket(path);
        }
        for network in networks::of(args)? {
            builder = builder.network(network);
        }
        let container = verb(console.given_to(builder))?;
        let new = container.warnings().iter().filter(|warning| !self.warnings.contains(warning));
        global.warn_of(self.warnings.iter().chain(new));
        Ok(container)
    }
}

/// Who gets the container's terminal.
pub enum Console {
    None,
    Socket(UnixStream),
    /// The command itself takes its master.
    Own,
    /// The same, and the caller's terminal adds carriage returns.
    Relayed,
}

impl Console {
    pub fn of(socket: Option<UnixStream>) -> Self {
        socket.map_or(Self::None, Self::Socket)
    }

    fn given_to(self, builder: NewContainer) -> NewContainer {
        match self {
            Self::None => builder,
            Self::Socket(socket) => builder.console_socket(socket),
            Self::Own => builder.terminal(terminal::own_size()),
            Self::Relayed => builder.terminal(terminal::own_size()).relay_terminal(),
        }
    }
}

pub fn bundle(args: &Parsed) -> &Path {
    Path::new(args.get(BUNDLE.name).filter(|dir| !dir.is_empty()).unwrap_or("."))
}

/// Passes socket activation on (sd_listen_fds(3)). In its own pid namespace the program is pid 1.
fn activate(spec: &mut libruntime::Spec, count: u32) {
    let Some(process) = spec.process_mut().as_mut() else { return };
    let mut env = process.env().clone().unwrap_or_default();
    env.retain(|entry| !entry.starts_with("LISTEN_FDS=") && !entry.starts_with("LISTEN_PID="));
    env.extend([format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_string()]);
    process.set_env(Some(env));
}

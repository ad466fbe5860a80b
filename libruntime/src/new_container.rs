//! A container to be created: its configuration, what the caller gives to it, and the verbs that create it.

use crate::checkpoint::CheckpointOptions;
use crate::console::TerminalSize;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::explain::{self, Explanation};
use crate::init::Init;
use crate::network::Network;
use crate::options::{Options, ProcessOptions};
use crate::settings::Settings;
use crate::stdio::{Console, Output, Passed, Stdio};
use crate::wait::Cancel;
use crate::{create, restore};
use oci_spec::runtime::Spec;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A container that is to be created, from [`Runtime::container`](crate::Runtime::container). It owns everything that
/// it is given, so it can be sent to another thread.
///
/// A container needs a configuration: that of a [bundle](NewContainer::bundle), or a [`Spec`](NewContainer::spec) with
/// a root filesystem. By default, its process has the caller's standard streams.
///
/// ```no_run
/// use libruntime::{Runtime, Stdio};
///
/// let runtime = Runtime::new("/run/example");
/// let container = runtime
///     .container("web")
///     .bundle("/srv/web")
///     .stdin(Stdio::null())
///     .stdout(std::fs::File::create("/var/log/web")?.into())
///     .create()?;
/// container.start()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "nothing is done before create, run or output"]
pub struct NewContainer {
    options: Options,
    failed: Option<Error>,
}

impl NewContainer {
    pub(crate) fn new(settings: Arc<Settings>, id: String) -> Self {
        let options = Options {
            settings,
            id,
            bundle: None,
            spec: None,
            rootfs: None,
            process: ProcessOptions::default(),
            init: None,
            no_pivot: false,
            start_by_handle: false,
            networks: Vec::new(),
            notify_socket: None,
            limits: Default::default(),
        };
        Self { options, failed: None }
    }

    /// The directory with `config.json` (bundle.md), to which its relative paths belong.
    pub fn bundle(mut self, directory: impl Into<PathBuf>) -> Self {
        self.options.bundle = Some(directory.into());
        self
    }

    /// A configuration in place of the bundle's `config.json`. It is checked as that would be.
    pub fn spec(mut self, spec: Spec) -> Self {
        self.options.spec = Some(spec);
        self
    }

    /// The root filesystem, in place of `root.path`: a directory of the host.
    pub fn rootfs(mut self, directory: impl Into<PathBuf>) -> Self {
        self.options.rootfs = Some(directory.into());
        self
    }

    /// The root filesystem, as an open directory. Its current path is used, after a check that this path leads to it.
    pub fn rootfs_fd(mut self, directory: OwnedFd) -> Self {
        match path_of(&directory) {
            Ok(path) => self.options.rootfs = Some(path),
            Err(error) => self.failed = Some(error),
        }
        self
    }

    /// The program's standard input; by default the caller's.
    pub fn stdin(mut self, stdin: Stdio) -> Self {
        self.options.process.stdio[0] = Some(stdin);
        self
    }

    /// The program's standard output; by default the caller's.
    pub fn stdout(mut self, stdout: Stdio) -> Self {
        self.options.process.stdio[1] = Some(stdout);
        self
    }

    /// The program's standard error; by default the caller's.
    pub fn stderr(mut self, stderr: Stdio) -> Self {
        self.options.process.stdio[2] = Some(stderr);
        self
    }

    /// Gives the program a terminal of this size in place of the three streams, whatever `process.terminal` says.
    /// [`Container::take_terminal`] returns the terminal's master.
    pub fn terminal(mut self, size: TerminalSize) -> Self {
        self.options.process.console = Console::Own(size);
        self
    }

    /// A connected unix stream socket to which the terminal's master is sent (`process.terminal`), as with the option
    /// `--console-socket` of runtimes. To get the master without a socket, see [`NewContainer::terminal`].
    pub fn console_socket(mut self, socket: impl Into<OwnedFd>) -> Self {
        self.options.process.console = Console::Socket(socket.into());
        self
    }

    /// Leaves it to the caller's own terminal to add carriage returns (termios(3), ONLCR): the caller copies the output
    /// of the container's terminal to it.
    pub fn relay_terminal(mut self) -> Self {
        self.options.process.relayed_console = true;
        self
    }

    /// Passes a file descriptor to the program, as number `number`, which is 3 or above.
    pub fn pass_fd(mut self, descriptor: impl Into<OwnedFd>, number: u32) -> Self {
        self.options.process.passed.push(Passed::To(descriptor.into(), number));
        self
    }

    /// Passes the caller's descriptors 3 to 2 + `count` under their own numbers. This is for a caller that was itself
    /// started with them (sd_listen_fds(3)) and has opened nothing else under these numbers. All of them have to be
    /// open.
    pub fn inherit_fds(mut self, count: u32) -> Self {
        self.options.process.inherit(count);
        self
    }

    /// The program that is executed, in place of the one that `process.args[0]` names.
    pub fn init(mut self, init: Init) -> Self {
        match init.into_program() {
            Ok(program) => self.options.init = Some(program),
            Err(error) => self.failed = Some(error),
        }
        self
    }

    /// Adds a network to connect the container to, besides those in its annotations.
    pub fn network(mut self, network: Network) -> Self {
        self.options.networks.push(network);
        self
    }

    /// The socket of a supervisor that is notified when the container's program is ready (sd_notify(3)); see
    /// [`Container::readiness`].
    pub fn notify_socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.options.notify_socket = Some(path.into());
        self
    }

    /// Moves the root over `/` where pivot_root(2) cannot be used (on an initial RAM filesystem).
    pub fn no_pivot(mut self, no_pivot: bool) -> Self {
        self.options.no_pivot = no_pivot;
        self
    }

    /// Lets only the handle that creation returns, and its clones, start the container. It is then started without a
    /// socket in its directory, and ends if it is not started when the last of these handles is dropped or this process
    /// ends. It is deleted as any other. [`NewContainer::run`] and [`NewContainer::output`] do this themselves.
    pub fn start_by_handle(mut self) -> Self {
        self.options.start_by_handle = true;
        self
    }

    /// Keeps the caller's session keyring (keyrings(7)); without this the container gets a new one.
    pub fn no_new_keyring(mut self, no_new_keyring: bool) -> Self {
        self.options.process.no_new_keyring = no_new_keyring;
        self
    }

    /// Ends the creation early once `cancel` is cancelled, and so each later verb of the container that waits.
    pub fn cancel(mut self, cancel: Cancel) -> Self {
        self.options.limits.cancel = Some(cancel);
        self
    }

    /// Limits the time that the creation takes, and each later verb of the container that waits for anything but the
    /// container's end. By default there is no limit: a hook without `timeout` may run for ever.
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.options.limits.deadline = Some(limit);
        self
    }

    fn check(&mut self) -> Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Creates the container (runtime.md, "Create"): all is set up, and its program waits for
    /// [`Container::start`].
    ///
    /// # Errors
    /// The error names the place in `config.json`, the call and its errno. Nothing is left behind.
    pub fn create(mut self) -> Result<Container> {
        self.check()?;
        create::create(self.options)
    }

    /// Creates and starts the container. A container that cannot be started is deleted.
    ///
    /// # Errors
    /// Those of [`NewContainer::create`] and [`Container::start`].
    pub fn run(self) -> Result<Container> {
        let container = self.start_by_handle().create()?;
        match container.start() {
            Ok(()) => Ok(container),
            Err(error) => {
                // The first error is the one to report.
                let _ = container.without_limits().delete_force();
                Err(error)
            }
        }
    }

    /// Runs the container to its end and deletes it. Standard output and standard error are returned unless they were
    /// set; standard input is empty unless it was set.
    ///
    /// # Errors
    /// Those of [`NewContainer::run`] and of the deletion.
    pub fn output(mut self) -> Result<Output> {
        self.options.process.capture_output();
        let container = self.run()?;
        let output = container.output();
        let deleted = container.without_limits().delete_force();
        let output = output?;
        deleted.map(|_| output)
    }

    /// What [`NewContainer::create`] would do, without doing any of it.
    ///
    /// # Errors
    /// Those of the creation that can be known beforehand.
    pub fn explain(mut self) -> Result<Explanation> {
        self.check()?;
        explain::explain(&self.options)
    }

    /// Restores a container from a checkpoint, through CRIU: the program is the one that was saved. The container
    /// runs when this returns.
    ///
    /// # Errors
    /// Those of [`NewContainer::create`]; a failure of CRIU, with the first error of its log; a restored process with
    /// more than the configuration allows. Nothing is left behind.
    pub fn restore(mut self, checkpoint: &CheckpointOptions) -> Result<Container> {
        self.check()?;
        restore::restore(self.options, checkpoint)
    }
}

fn path_of(directory: &OwnedFd) -> Result<PathBuf> {
    let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let path = std::fs::read_link(&link).map_err(|error| Error::io(format!("readlink {link}"), error))?;
    let id = |stat: nix::sys::stat::FileStat| (stat.st_dev, stat.st_ino);
    let (own, there) = (nix::sys::stat::fstat(directory), nix::sys::stat::stat(&path));
    if own.is_ok_and(|own| there.is_ok_and(|there| id(own) == id(there))) {
        return Ok(path);
    }
    Err(Error::unsupported(format!("the root filesystem has no path any more: {}", path.display()))
        .with_hint("a directory that is mounted in the caller's mount namespace has one"))
}

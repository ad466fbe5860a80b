//! The standard streams of a process: opens what the client named, and moves data between that and the pipes or the
//! terminal of the process; or has a logging program read them. The relays are tasks of the main thread that never
//! block; what a reader does not take stays where it is, but for a part of what comes from or goes to a terminal.

use crate::failure::{Failure, Result};
use crate::logger::{self, Logger};
use crate::relay::{self, Sink};
use crate::shared::{Shared, on_a_worker};
use crate::uri::{Place, Program};
use libruntime::Stdio;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Gid, Uid};
use std::fs::{DirBuilder, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

/// For what is still in the pipes when a process is deleted.
const DRAIN: Duration = Duration::from_secs(1);

/// The streams as a request names them.
pub struct Named<'a> {
    pub stdin: &'a str,
    pub stdout: &'a str,
    pub stderr: &'a str,
    pub terminal: bool,
    /// For a logging program: the container's id, and containerd's namespace.
    pub id: &'a str,
    pub namespace: &'a str,
}

/// The owner of the pipes.
#[derive(Clone, Copy)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// What the shim keeps of the streams, before they are relayed.
#[derive(Default)]
pub struct Ends {
    /// The client's fifo, and the pipe where there is no terminal.
    stdin: Option<(OwnedFd, Option<OwnedFd>)>,
    outputs: Vec<(Option<OwnedFd>, Output)>,
    logger: Option<Logger>,
}

enum Output {
    /// The second is a read end: the process outlives a reader that goes away, and waits for one that comes.
    Fifo(OwnedFd, OwnedFd),
    File(File),
    /// Of a logging program.
    Pipe(OwnedFd),
}

/// Opens them all. Blocks in no fifo, but may in a file system, and until a logging program is ready.
pub fn open(named: &Named, owner: Owner) -> Result<([Stdio; 3], Ends)> {
    let mut ends = Ends::default();
    let mut given = [Stdio::null(), Stdio::null(), Stdio::null()];
    match Place::of(named.stdin)? {
        Place::Nothing => {}
        Place::Path(path) => {
            if !is_fifo(&path)? {
                return Err(Failure::invalid(format!("standard input {} is no fifo", path.display())));
            }
            // For writing too: a client that goes away, such as a containerd that is restarted, is not the end of what
            // comes. CloseIO is.
            let fifo = open_fifo(&path, File::options().read(true).write(true))?;
            let mut ours = None;
            if !named.terminal {
                let (reader, writer) = pipe(owner)?;
                given[0] = reader.into();
                ours = Some(writer);
            }
            ends.stdin = Some((fifo, ours));
        }
        _ => return Err(Failure::invalid(format!("standard input cannot come from {}", named.stdin))),
    }
    let stdout = Place::of(named.stdout)?;
    if let Place::Program(program) = &stdout {
        open_logger(program, named, owner, &mut given, &mut ends)?;
        return Ok((given, ends));
    }
    let stderr = match (Place::of(named.stderr)?, &stdout) {
        _ if named.terminal => Place::Nothing,
        // A file is that of both.
        (Place::Nothing, Place::File(path)) => Place::File(path.clone()),
        (Place::Program(_), _) => {
            return Err(Failure::invalid("a logging program must be named for standard output too"));
        }
        (other, _) => other,
    };
    for (at, place) in [(1, stdout), (2, stderr)] {
        let Some(output) = open_output(place)? else { continue };
        let mut ours = None;
        if !named.terminal {
            let (reader, writer) = pipe(owner)?;
            given[at] = writer.into();
            ours = Some(reader);
        }
        ends.outputs.push((ours, output));
    }
    Ok((given, ends))
}

/// One program for both outputs, which the process writes to by itself; that of a terminal is relayed.
fn open_logger(
    program: &Program,
    named: &Named,
    owner: Owner,
    given: &mut [Stdio; 3],
    ends: &mut Ends,
) -> Result<()> {
    let [(stdout, to_stdout), (stderr, to_stderr)] = [pipe(owner)?, pipe(owner)?];
    ends.logger = Some(logger::start(program, named.id, named.namespace, [stdout, stderr])?);
    if named.terminal {
        ends.outputs.push((None, Output::Pipe(to_stdout)));
    } else {
        given[1] = to_stdout.into();
        given[2] = to_stderr.into();
    }
    Ok(())
}

fn open_output(place: Place) -> Result<Option<Output>> {
    Ok(Some(match place {
        Place::Nothing | Place::Program(_) => return Ok(None),
        Place::File(path) => Output::File(open_file(&path)?),
        Place::Path(path) if is_fifo(&path)? => {
            let reader = open_fifo(&path, File::options().read(true))?;
            Output::Fifo(open_fifo(&path, File::options().write(true))?, reader)
        }
        Place::Path(path) => Output::File(open_at_once(&path, File::options().append(true))?),
    }))
}

fn is_fifo(path: &Path) -> Result<bool> {
    let found = std::fs::metadata(path);
    let found = found.map_err(|error| Failure::os(format!("open {}", path.display()), error))?;
    Ok(found.file_type().is_fifo())
}

fn open_fifo(path: &Path, options: &mut std::fs::OpenOptions) -> Result<OwnedFd> {
    let opened = options.custom_flags(libc::O_NONBLOCK).open(path);
    opened.map(OwnedFd::from).map_err(|error| Failure::os(format!("open {}", path.display()), error))
}

fn open_file(path: &Path) -> Result<File> {
    if let Some(parent) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .map_err(|error| Failure::os(format!("open {}", path.display()), error))?;
    }
    open_at_once(path, File::options().append(true).create(true).mode(0o644))
}

/// A fifo that nobody reads is an error, instead of a wait for ever. Writes wait as usual, on a worker.
fn open_at_once(path: &Path, options: &mut std::fs::OpenOptions) -> Result<File> {
    let opened = options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = opened.map_err(|error| Failure::os(format!("open {}", path.display()), error))?;
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND)).map_err(|errno| Failure::os("fcntl F_SETFL", errno))?;
    Ok(file)
}

/// A new pipe of the user who may open it again as `/dev/stdout`.
fn pipe(owner: Owner) -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = std::io::pipe().map_err(|error| Failure::os("pipe", error))?;
    let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
    if (owner.uid, owner.gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        nix::unistd::fchown(&reader, Some(uid), Some(gid))
            .map_err(|errno| Failure::os("fchown a pipe", errno))?;
    }
    Ok((reader, writer))
}

/// The relays of one process.
#[derive(Default)]
pub struct Relays {
    tasks: Vec<JoinHandle<()>>,
    /// True: what is there is moved, and that is all.
    ending: watch::Sender<bool>,
    closing_stdin: watch::Sender<bool>,
    terminal: Option<Arc<Mutex<Shared>>>,
    logger: Option<Logger>,
    discarding: Option<JoinHandle<()>>,
}

impl Relays {
    /// On the main thread.
    pub fn begin(ends: Ends, terminal: Option<OwnedFd>) -> Result<Self> {
        let failed = |error| Failure::os("epoll_ctl a standard stream", error);
        // Each is watched by itself.
        let copy = || terminal.as_ref().map(|terminal| terminal.try_clone().map(Shared::from)).transpose();
        let master = || copy().map_err(failed);
        let mut relays = Self::default();
        let mut tasks = Vec::new();
        if let Some((fifo, pipe)) = ends.stdin
            && let Some(target) = pipe.map_or_else(master, |pipe| Ok(Some(pipe.into())))?
        {
            let target = Sink::stream(target).map_err(failed)?;
            let source = relay::source(fifo).map_err(failed)?;
            tasks.push(tokio::spawn(relay::run(source, target, relays.closing_stdin.subscribe())));
        }
        for (pipe, output) in ends.outputs {
            let Some(source) = pipe.map_or_else(master, |pipe| Ok(Some(pipe.into())))? else { continue };
            let sink = match output {
                Output::Fifo(writer, reader) => Sink::fifo(writer, reader).map_err(failed)?,
                Output::File(file) => Sink::file(file),
                Output::Pipe(pipe) => Sink::stream(pipe).map_err(failed)?,
            };
            let source = relay::source(source).map_err(failed)?;
            tasks.push(tokio::spawn(relay::run(source, sink, relays.ending.subscribe())));
        }
        relays.tasks = tasks;
        relays.terminal = terminal.map(|terminal| Arc::new(Mutex::new(terminal.into())));
        if let Some(logger) = ends.logger {
            let (ended, readers) = logger.copies().map_err(|error| Failure::os("dup", error))?;
            let ending = relays.ending.subscribe();
            relays.discarding = Some(tokio::spawn(logger::discard_after_end(ended, readers, ending)));
            relays.logger = Some(logger);
        }
        Ok(relays)
    }

    pub fn close_stdin(&self) {
        self.closing_stdin.send_replace(true);
    }

    /// When the size is set.
    pub fn resize(&self, rows: u16, columns: u16) -> impl Future<Output = ()> + use<> {
        let terminal = self.terminal.clone();
        async move {
            let Some(terminal) = terminal else { return };
            // One after the other: the last call counts.
            let terminal = terminal.lock_owned().await;
            // The process may have ended.
            let _ = on_a_worker(move || crate::sys::set_terminal_size(&*terminal, rows, columns)).await;
        }
    }

    /// Passes on what the process has written, and ends. A process that it left behind is not waited for.
    pub async fn finish(self) {
        self.closing_stdin.send_replace(true);
        self.ending.send_replace(true);
        let end = tokio::time::Instant::now() + DRAIN;
        for mut task in self.tasks {
            if tokio::time::timeout_at(end, &mut task).await.is_err() {
                task.abort();
            }
        }
        if let Some(logger) = self.logger {
            logger.finish().await;
        }
        if let Some(discarding) = self.discarding {
            discarding.abort();
        }
    }
}

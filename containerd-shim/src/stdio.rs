//! The standard streams of a process: opens what the client named, and moves data between that and the pipes or the
//! terminal of the process. The relays are tasks of the main thread; they never block, and they hold no data while they
//! wait, except a part of a terminal's output that its reader does not take.

use crate::failure::{Failure, Result};
use crate::relay::{self, Sink};
use libruntime::Stdio;
use nix::unistd::{Gid, Uid};
use std::fs::{DirBuilder, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// For what is still in the pipes when a process is deleted.
const DRAIN: Duration = Duration::from_secs(1);

/// The streams as a request names them.
pub struct Named<'a> {
    pub stdin: &'a str,
    pub stdout: &'a str,
    pub stderr: &'a str,
    pub terminal: bool,
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
}

enum Output {
    /// The second is a read end: the process outlives a reader that goes away, and waits for one that comes.
    Fifo(OwnedFd, OwnedFd),
    File(File),
}

enum Place<'a> {
    Nothing,
    Fifo(&'a Path),
    File(PathBuf),
}

impl<'a> Place<'a> {
    fn of(name: &'a str) -> Result<Self> {
        let Some((scheme, rest)) = name.split_once("://") else {
            return Ok(if name.is_empty() { Self::Nothing } else { Self::Fifo(Path::new(name)) });
        };
        match scheme {
            "fifo" => Ok(Self::Fifo(Path::new(rest))),
            "file" => Ok(Self::File(rest.split('?').next().unwrap_or_default().into())),
            _ => Err(Failure::invalid(format!("standard streams of the form {scheme}:// are not supported"))),
        }
    }
}

/// Opens them all. Blocks in no fifo, but may in a file system.
pub fn open(named: &Named, owner: Owner) -> Result<([Stdio; 3], Ends)> {
    let mut ends = Ends::default();
    let mut given = [Stdio::null(), Stdio::null(), Stdio::null()];
    if let Place::Fifo(path) = Place::of(named.stdin)? {
        // For writing too: a client that goes away, such as a containerd that is restarted, is not the end of what
        // comes. CloseIO is.
        let fifo = open_fifo(path, File::options().read(true).write(true))?;
        let mut ours = None;
        if !named.terminal {
            let (reader, writer) = pipe(owner)?;
            given[0] = reader.into();
            ours = Some(writer);
        }
        ends.stdin = Some((fifo, ours));
    }
    for (at, name) in [(1, named.stdout), (2, named.stderr)] {
        if at == 2 && named.terminal {
            break;
        }
        let output = match Place::of(name)? {
            Place::Nothing => continue,
            Place::Fifo(path) => {
                let reader = open_fifo(path, File::options().read(true))?;
                Output::Fifo(open_fifo(path, File::options().write(true))?, reader)
            }
            Place::File(path) => Output::File(open_file(&path)?),
        };
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

fn open_fifo(path: &Path, options: &mut std::fs::OpenOptions) -> Result<OwnedFd> {
    let opened = options.custom_flags(libc::O_NONBLOCK).open(path);
    opened.map(OwnedFd::from).map_err(|error| Failure::os(format!("open {}", path.display()), error))
}

fn open_file(path: &Path) -> Result<File> {
    let failed = |error| Failure::os(format!("open {}", path.display()), error);
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(failed)?;
    }
    File::options().append(true).create(true).mode(0o644).open(path).map_err(failed)
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
    pub terminal: Option<Arc<OwnedFd>>,
}

impl Relays {
    /// On the main thread.
    pub fn begin(ends: Ends, terminal: Option<OwnedFd>) -> Result<Self> {
        let mut relays = Self { terminal: terminal.map(Arc::new), ..Self::default() };
        let failed = |error| Failure::os("epoll_ctl a standard stream", error);
        let master =
            || relays.terminal.as_ref().map(|terminal| terminal.try_clone()).transpose().map_err(failed);
        let mut tasks = Vec::new();
        if let Some((fifo, pipe)) = ends.stdin {
            let target = match pipe {
                Some(pipe) => Some(Sink::pipe(pipe).map_err(failed)?),
                None => master()?.map(Sink::terminal).transpose().map_err(failed)?,
            };
            if let Some(target) = target {
                let source = relay::source(fifo).map_err(failed)?;
                tasks.push(tokio::spawn(relay::run(source, target, relays.closing_stdin.subscribe())));
            }
        }
        for (pipe, output) in ends.outputs {
            let is_terminal = pipe.is_none();
            let Some(source) = pipe.map_or_else(master, |pipe| Ok(Some(pipe)))? else { continue };
            let sink = match output {
                Output::Fifo(writer, reader) => Sink::fifo(writer, reader, is_terminal).map_err(failed)?,
                Output::File(file) => Sink::file(file),
            };
            let source = relay::source(source).map_err(failed)?;
            tasks.push(tokio::spawn(relay::run(source, sink, relays.ending.subscribe())));
        }
        relays.tasks = tasks;
        Ok(relays)
    }

    pub fn close_stdin(&self) {
        self.closing_stdin.send_replace(true);
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        if let Some(terminal) = &self.terminal {
            // The process may have ended, and it is no error without a terminal.
            let _ = crate::sys::set_terminal_size(terminal, rows, columns);
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
    }
}

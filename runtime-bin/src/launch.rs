//! What the verbs that start something share: descriptors that are handed on, console sockets,
//! pid files.

use crate::cli::{Flag, Parsed};
use crate::failure::Failure;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::fs::{self, OpenOptions};
use std::io::{IoSlice, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

pub const CONSOLE_SOCKET: Flag =
    Flag::value("console-socket", "SOCKET", "a unix socket that gets the terminal's master descriptor");
pub const PIDFD_SOCKET: Flag =
    Flag::value("pidfd-socket", "SOCKET", "a unix socket that gets a pidfd of the process");
pub const PID_FILE: Flag = Flag::value("pid-file", "FILE", "write the process id to this file");
pub const PRESERVE_FDS: Flag =
    Flag::value("preserve-fds", "N", "keep N more descriptors open: 3 to N+2, behind those of $LISTEN_FDS");
pub const DETACH: Flag = Flag::switch("detach", "do not wait for the process").short("d");

/// The caller's descriptors above standard error that the process is to have.
pub struct Inherited {
    /// Those of socket activation (sd_listen_fds(3)), which come first.
    pub listen_fds: u32,
    pub preserve_fds: Result<u32, Failure>,
}

impl Inherited {
    pub fn of(args: &Parsed) -> Self {
        let listen_fds = listen_fds();
        Self { listen_fds, preserve_fds: preserve_fds(args) }
    }
}

/// Activation is meant for us only if it names our pid.
fn listen_fds() -> u32 {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    match number("LISTEN_PID") {
        Some(pid) if pid == std::process::id() => number("LISTEN_FDS").unwrap_or(0),
        _ => 0,
    }
}

fn preserve_fds(args: &Parsed) -> Result<u32, Failure> {
    let count: u32 = args.number("preserve-fds")?.unwrap_or(0);
    let first = 3 + listen_fds();
    let end = first.checked_add(count).filter(|end| *end <= 1 << 20);
    let end = end.ok_or_else(|| Failure::usage(format!("--preserve-fds {count} is too large")))?;
    match (first..end).find(|fd| fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_err()) {
        Some(fd) => {
            let range = format!("{first} to {}", end - 1);
            Err(Failure::usage(format!(
                "--preserve-fds {count} means descriptors {range}, but {fd} is not open"
            )))
        }
        None => Ok(count),
    }
}

/// Connects to where the terminal goes, if there is such a place, and checks that it fits.
pub fn console_socket(args: &Parsed, terminal: bool, detach: bool) -> Result<Option<UnixStream>, Failure> {
    let path = args.get(CONSOLE_SOCKET.name).filter(|path| !path.is_empty());
    match path {
        None if terminal && detach => {
            Err(Failure::new("cannot allocate tty if onggi will detach without setting console socket"))
        }
        Some(_) if !(terminal && detach) => {
            Err(Failure::new("cannot use console socket if onggi will not detach or allocate tty"))
        }
        None => Ok(None),
        Some(path) => connect(path).map(Some),
    }
}

fn connect(path: &str) -> Result<UnixStream, Failure> {
    UnixStream::connect(path).map_err(|error| Failure::os(format_args!("connect {path}"), error))
}

/// A connection for the pidfd, made before there is a process to undo.
pub fn pidfd_socket(args: &Parsed) -> Result<Option<UnixStream>, Failure> {
    args.get(PIDFD_SOCKET.name).filter(|path| !path.is_empty()).map(connect).transpose()
}

pub fn send_pidfd(socket: Option<&UnixStream>, pidfd: BorrowedFd) -> Result<(), Failure> {
    let Some(socket) = socket else { return Ok(()) };
    let (bytes, fds) = ([IoSlice::new(b"pidfd")], [pidfd.as_raw_fd()]);
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(socket.as_raw_fd(), &bytes, &rights, MsgFlags::MSG_NOSIGNAL, None)
        .map(drop)
        .map_err(|errno| Failure::os("sendmsg to the pidfd socket", errno))
}

/// Writes the pid file, if one is wanted. It appears whole: engines wait for it and read it at once.
pub fn write_pid_file(args: &Parsed, pid: i32) -> Result<(), Failure> {
    let Some(path) = args.get(PID_FILE.name).filter(|path| !path.is_empty()) else { return Ok(()) };
    let failed = |error| Failure::os(format_args!("write {path}"), error);
    let path_of = Path::new(path);
    let name =
        path_of.file_name().ok_or_else(|| Failure::usage(format!("--pid-file {path:?} names no file")))?;
    let aside = path_of.with_file_name(format!(".{}", name.to_string_lossy()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&aside)
        .map_err(failed)?;
    let written = file.write_all(pid.to_string().as_bytes()).and_then(|()| fs::rename(&aside, path_of));
    written.map_err(|error| {
        let _ = fs::remove_file(&aside);
        failed(error)
    })
}

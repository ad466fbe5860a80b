//! What the verbs that start a process share: inherited descriptors, console sockets, pid files.

use crate::cli::{Flag, Line, Parsed};
use crate::failure::Failure;
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::fs::{self, OpenOptions};
use std::io::{IoSlice, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
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

/// The caller's descriptors from 3 on that the process gets.
#[derive(Clone, Copy)]
pub struct Inherited {
    /// Descriptors of socket activation (sd_listen_fds(3)), which come first.
    pub listen_fds: u32,
    pub preserve_fds: u32,
}

impl Inherited {
    /// Checks that each of them is open, before this process opens anything: otherwise a descriptor of this process
    /// could get the number, and be passed on.
    pub fn of(line: &Line) -> Result<Self, Failure> {
        // A process that joins a container is not activated, as with runc.
        let listen_fds = if line.verb.name == "exec" { 0 } else { listen_fds()? };
        check_open("LISTEN_FDS", 3, listen_fds, listen_fds)?;
        let preserve_fds = line.args.number("preserve-fds")?.unwrap_or(0);
        let all = listen_fds.saturating_add(preserve_fds);
        check_open("--preserve-fds", 3 + u64::from(listen_fds), preserve_fds, all)?;
        Ok(Self { listen_fds, preserve_fds })
    }

    pub fn count(self) -> u32 {
        self.listen_fds + self.preserve_fds
    }
}

/// Activation is only for a process whose pid it names.
fn listen_fds() -> Result<u32, Failure> {
    let pid = std::env::var("LISTEN_PID").ok().and_then(|pid| pid.parse::<u32>().ok());
    let Ok(count) = std::env::var("LISTEN_FDS") else { return Ok(0) };
    match pid {
        Some(pid) if pid == std::process::id() => {
            count.parse().map_err(|_| Failure::usage(format!("LISTEN_FDS is a number, not {count:?}")))
        }
        _ => Ok(0),
    }
}

/// `all` is the number of descriptors from 3 on; `name` asks for `count` of them, from `first` on.
fn check_open(name: &str, first: u64, count: u32, all: u32) -> Result<(), Failure> {
    match libruntime::first_closed_descriptor(all) {
        Some(fd) => {
            let last = first + u64::from(count) - 1;
            let words = format!("unable to stat preserved-fd {fd} (of {count})");
            Err(Failure::new(format!("{words}: {name} {count} means the descriptors {first} to {last}")))
        }
        None => Ok(()),
    }
}

/// Connects to the console socket, if one is given, and checks that it fits the other options.
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
    let words = format!("dial unix {path}");
    libruntime::connect_socket(Path::new(path)).map_err(|error| Failure::from(error).within(&words))
}

/// Connects to the pidfd socket, before there is a process that would have to be killed.
pub fn pidfd_socket(args: &Parsed) -> Result<Option<UnixStream>, Failure> {
    args.get(PIDFD_SOCKET.name).filter(|path| !path.is_empty()).map(connect).transpose()
}

/// Sends the pidfd with a word for what the process is, as runc does: "standard" is a container's, "setns" one of exec.
pub fn send_pidfd(socket: Option<&UnixStream>, kind: &str, pidfd: BorrowedFd) -> Result<(), Failure> {
    let Some(socket) = socket else { return Ok(()) };
    let (bytes, fds) = ([IoSlice::new(kind.as_bytes())], [pidfd.as_raw_fd()]);
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(socket.as_raw_fd(), &bytes, &rights, MsgFlags::MSG_NOSIGNAL, None)
        .map(drop)
        .map_err(|errno| Failure::os("sendmsg to the pidfd socket", errno))
}

/// Writes the pid file, if one is wanted. It appears by a rename, because engines wait for it and read it at once. A
/// symbolic link is replaced, as in runc; devices, fifos and descriptors (`/dev/stdout`) are written into.
pub fn write_pid_file(args: &Parsed, pid: i32) -> Result<(), Failure> {
    let Some(path) = args.get(PID_FILE.name).filter(|path| !path.is_empty()) else { return Ok(()) };
    let failed = |error| Failure::os(format_args!("write {path}"), error);
    let path_of = Path::new(path);
    let name =
        path_of.file_name().ok_or_else(|| Failure::usage(format!("--pid-file {path:?} names no file")))?;
    if is_special(path_of) {
        return write_into(path_of, pid).map_err(failed);
    }
    let aside = path_of.with_file_name(format!(".{}", name.to_string_lossy()));
    // An existing file is left from a crash, or planted; O_EXCL follows no link.
    let _ = fs::remove_file(&aside);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o644).open(&aside).map_err(failed)?;
    let written = file.write_all(pid.to_string().as_bytes()).and_then(|()| fs::rename(&aside, path_of));
    written.map_err(|error| {
        let _ = fs::remove_file(&aside);
        failed(error)
    })
}

/// Where links to descriptors are, such as /dev/stdout. Links elsewhere are replaced: others may have planted them.
const DESCRIPTORS: [&str; 3] = ["/dev", "/dev/fd", "/proc/self/fd"];

fn of_descriptor(path: &Path) -> bool {
    path.parent().is_some_and(|parent| DESCRIPTORS.iter().any(|directory| parent == Path::new(directory)))
}

/// Whether it is a descriptor, or a device or fifo that is the caller's or root's, which a rename would replace. Those of
/// other users are replaced: who reads the path would get what they put there.
fn is_special(path: &Path) -> bool {
    of_descriptor(path) || fs::symlink_metadata(path).is_ok_and(|found| is_trusted(&found))
}

fn is_trusted(found: &fs::Metadata) -> bool {
    let owners = [0, nix::unistd::geteuid().as_raw()];
    !found.is_file() && !found.is_symlink() && owners.contains(&found.uid())
}

/// Does not wait for a reader.
fn write_into(path: &Path, pid: i32) -> std::io::Result<()> {
    let no_link = if of_descriptor(path) { 0 } else { libc::O_NOFOLLOW };
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | no_link;
    let mut file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
    if !of_descriptor(path) && !is_trusted(&file.metadata()?) {
        return Err(std::io::Error::other("another file has come into its place"));
    }
    file.write_all(pid.to_string().as_bytes())
}

//! Files that the command line names and that are read whole: configurations, process objects, limits. A wrong path,
//! such as an endless device, is an error in bounded time and memory.

use crate::failure::Failure;
use libruntime::MAX_CONFIG_SIZE;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

/// Reads a regular file, or a pipe such as `/dev/stdin` or a shell's `<(...)`.
pub fn read(path: &str) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::os(format_args!("open {path}"), error);
    // Opening a fifo without O_NONBLOCK would wait for a writer for ever.
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if found.is_dir() {
        return Err(Failure::os(format_args!("read {path}"), Errno::EISDIR));
    }
    if found.file_type().is_fifo() {
        // Reads of a pipe wait for its writer.
        fcntl(&file, FcntlArg::F_SETFL(OFlag::empty())).map_err(|errno| Failure::os("fcntl", errno))?;
    } else if !found.is_file() {
        return Err(Failure::new(format!("{path} is neither a regular file nor a pipe")));
    }
    limited(file, path)
}

pub fn read_standard() -> Result<Vec<u8>, Failure> {
    limited(std::io::stdin().lock(), "standard input")
}

fn limited(file: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = file.take(MAX_CONFIG_SIZE + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::os(format_args!("read {name}"), error))?;
    if bytes.len() as u64 > MAX_CONFIG_SIZE {
        let limit = MAX_CONFIG_SIZE >> 20;
        return Err(Failure::os(format_args!("read {name}: more than {limit} MiB"), Errno::EFBIG));
    }
    Ok(bytes)
}

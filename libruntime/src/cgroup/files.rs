//! Opening, reading and writing single files of the cgroup filesystem.
//!
//! Every path here is absolute, made from a mount point in the kernel's list and checked names; a symbolic link
//! anywhere in it is refused. Must not know any controller. See `apply.rs` for the order of writes.

use crate::error::Error;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use std::os::fd::OwnedFd;
use std::path::Path;

/// open(2) that follows no symbolic link. The result is closed on exec.
pub(super) fn open(path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    loop {
        match openat2(AT_FDCWD, path, how) {
            // EAGAIN: a rename somewhere in the system raced with the walk; openat2(2) says to retry.
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            result => return result,
        }
    }
}

/// A file of procfs, where `self` is a symbolic link.
pub(super) fn open_proc(path: &Path) -> Result<OwnedFd, Errno> {
    crate::sys::open(path, OFlag::O_RDONLY)
}

/// The whole text of a file; most files here need one read(2).
pub(super) fn read(path: &Path) -> Result<String, Errno> {
    read_fd(&open(path, OFlag::O_RDONLY)?)
}

/// A read(2) that returns less than this is the last: the kernel fills the buffer unless the next piece, at most one
/// line of a list, does not fit.
const FULL: usize = 3072;

/// The whole text from the start, for a file that stays open.
pub(super) fn read_fd(fd: &OwnedFd) -> Result<String, Errno> {
    let mut text = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        match nix::sys::uio::pread(fd, &mut buffer, text.len() as i64) {
            Ok(n) => {
                text.extend_from_slice(&buffer[..n]);
                if n < FULL {
                    break;
                }
            }
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Writes `value` with one write(2), as cgroup files want it.
pub(super) fn write(path: &Path, value: &str) -> Result<(), Errno> {
    write_fd(&open(path, OFlag::O_WRONLY)?, value)
}

pub(super) fn write_fd(fd: &OwnedFd, value: &str) -> Result<(), Errno> {
    loop {
        match nix::unistd::write(fd, value.as_bytes()) {
            Ok(n) if n == value.len() => return Ok(()),
            Ok(_) => return Err(Errno::EIO),
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
        }
    }
}

/// The directories directly below `dir`; those that vanish meanwhile are left out.
pub(super) fn children(dir: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

pub(super) fn failed(call: &str, path: &Path, errno: Errno) -> Error {
    Error::os(format!("{call} {}", path.display()), errno)
}

/// The inode of the host's user namespace, on every Linux (the kernel's PROC_USER_INIT_INO).
const HOST_USER_NAMESPACE: u64 = 0xeffffffd;

/// Whether the caller has the privileges of the whole host, not only of a user namespace.
pub fn has_host_root() -> bool {
    nix::unistd::geteuid().is_root() && is_in_host_user_namespace()
}

pub fn is_in_host_user_namespace() -> bool {
    nix::sys::stat::stat("/proc/self/ns/user").is_ok_and(|file| file.st_ino == HOST_USER_NAMESPACE)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A directory of its own for one test, removed at its end.
    pub(in crate::cgroup) struct Scratch(pub PathBuf);

    impl Scratch {
        pub(in crate::cgroup) fn new(name: &str) -> Self {
            let base = std::env::temp_dir().canonicalize().unwrap();
            let dir = base.join(format!("onggi-cgroup-{}-{name}", std::process::id()));
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_symbolic_link_in_the_path_is_refused() {
        let scratch = Scratch::new("link");
        std::fs::create_dir(scratch.0.join("real")).unwrap();
        std::fs::write(scratch.0.join("real/file"), "1").unwrap();
        std::os::unix::fs::symlink("real", scratch.0.join("link")).unwrap();
        assert_eq!(read(&scratch.0.join("real/file")).unwrap(), "1");
        assert_eq!(read(&scratch.0.join("link/file")), Err(Errno::ELOOP));
        assert_eq!(write(&scratch.0.join("link/file"), "2"), Err(Errno::ELOOP));
    }

    #[test]
    fn a_file_longer_than_the_buffer_is_read_whole() {
        let scratch = Scratch::new("long");
        let text = "0123456789\n".repeat(2000);
        std::fs::write(scratch.0.join("file"), &text).unwrap();
        assert_eq!(read(&scratch.0.join("file")).unwrap(), text);
    }
}

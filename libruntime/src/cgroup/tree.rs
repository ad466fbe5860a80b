//! Walks over a cgroup and all below it. Where its hierarchies are writable, a container can make cgroups, as many and
//! as deep as it likes. So no walk recurses, and none builds paths: the kernel refuses paths of 4096 bytes or more
//! (path_resolution(7)), and then such a container could be neither killed nor deleted.

use super::files;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::Path;

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW);

/// Calls `f` with `dir` and each directory below it; one that is gone is left out.
pub(super) fn each(dir: &Path, f: impl FnMut(&OwnedFd) -> Result<(), Errno>) -> Result<(), Errno> {
    walk(dir, f, |_, _| Ok(()))
}

/// Removes the directories below `dir` that have no processes. Returns how many these were.
pub(super) fn remove_below(dir: &Path) -> Result<usize, Errno> {
    let mut count = 0;
    let remove = |parent: &OwnedFd, name: &CStr| match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) => {
            count += 1;
            Ok(())
        }
        Err(Errno::EBUSY | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno),
    };
    walk(dir, |_| Ok(()), remove)?;
    Ok(count)
}

/// The text of a file of a directory.
pub(super) fn read(dir: &OwnedFd, name: &str) -> Result<String, Errno> {
    files::read_fd(&open(dir, name, OFlag::O_RDONLY)?)
}

pub(super) fn write(dir: &OwnedFd, name: &str, value: &str) -> Result<(), Errno> {
    files::write_fd(&open(dir, name, OFlag::O_WRONLY)?, value)
}

fn open<P: ?Sized + nix::NixPath>(dir: &OwnedFd, name: &P, flags: OFlag) -> Result<OwnedFd, Errno> {
    openat(dir, name, flags | OFlag::O_CLOEXEC, Mode::empty())
}

/// Calls `enter` with each directory, and once all below it is done, `leave` with its parent and its name. Only one
/// directory is open at a time: the way back up is `..`, which stays right because a cgroup never moves to another
/// parent.
fn walk(
    dir: &Path,
    mut enter: impl FnMut(&OwnedFd) -> Result<(), Errno>,
    mut leave: impl FnMut(&OwnedFd, &CStr) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut at = match files::open(dir, DIRECTORY) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other?,
    };
    enter(&at)?;
    let (mut way, mut left) = (Vec::new(), vec![children(&at)?]);
    while let Some(names) = left.last_mut() {
        if let Some(name) = names.pop() {
            match open(&at, name.as_c_str(), DIRECTORY) {
                Err(Errno::ENOENT | Errno::ENODEV) => continue,
                other => at = other?,
            }
            enter(&at)?;
            left.push(children(&at)?);
            way.push(name);
            continue;
        }
        left.pop();
        if let Some(name) = way.pop() {
            at = open(&at, c"..", DIRECTORY)?;
            leave(&at, &name)?;
        }
    }
    Ok(())
}

fn children(dir: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::openat(dir, ".", DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?.iter() {
        match entry {
            Ok(entry) if entry.file_type() == Some(Type::Directory) => {
                names.push(entry.file_name().to_owned());
            }
            Ok(_) => {}
            Err(Errno::ENOENT | Errno::ENODEV) => break,
            Err(errno) => return Err(errno),
        }
    }
    names.retain(|name| !matches!(name.as_bytes(), b"." | b".."));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::Scratch;
    use super::*;

    /// Two directories in each of some, of which the names are longer together than a path may be.
    fn make_deep(dir: &Path, depth: usize) {
        let name = "d".repeat(100);
        let mut at = files::open(dir, DIRECTORY).unwrap();
        for _ in 0..depth {
            for name in [name.as_str(), "beside"] {
                nix::sys::stat::mkdirat(&at, name, Mode::S_IRWXU).unwrap();
            }
            at = open(&at, name.as_str(), DIRECTORY).unwrap();
        }
    }

    #[test]
    fn directories_deeper_than_a_path_can_be_are_visited_and_removed() {
        const DEPTH: usize = 100;
        let scratch = Scratch::new("deep");
        make_deep(&scratch.0, DEPTH);
        let mut count = 0;
        each(&scratch.0, |_| {
            count += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(count, 2 * DEPTH + 1);
        assert_eq!(remove_below(&scratch.0), Ok(2 * DEPTH));
        assert_eq!(files::children(&scratch.0), Vec::<std::path::PathBuf>::new());
    }

    #[test]
    fn a_directory_that_is_not_there_has_nothing_below_it() {
        let scratch = Scratch::new("none");
        assert_eq!(remove_below(&scratch.0.join("missing")), Ok(0));
    }
}

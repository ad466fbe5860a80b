//! The container's mounts by descriptor: every target is resolved once with openat2(2) inside the root
//! and from then on used as a descriptor, as a runtime that does not trust its image has to.
//!
//! The same objects in the same order as `by_path.rs`, so that the difference is the price of safety.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::sys::{self, AT_FDCWD, MS_PRIVATE, MS_RDONLY, MS_REC, c};

pub struct ByFd {
    root: OwnedFd,
}

/// MS_* of mount(2) to MOUNT_ATTR_* of fsmount(2): the first four bits agree, strictatime moved.
fn attributes(flags: u64) -> u64 {
    flags & 0xf | if flags & 1 << 24 != 0 { 0x20 } else { 0 }
}

impl ByFd {
    pub fn new(root: &str) -> io::Result<Self> {
        sys::mount_at(None, c"/", None, MS_REC | MS_PRIVATE, "")?;
        let target = File::open(root)?;
        let tree = sys::clone_tree(AT_FDCWD, &c(root))?;
        sys::attach(tree.as_fd(), target.as_fd())?;
        Ok(Self { root: tree })
    }

    fn open(&self, target: &str) -> io::Result<OwnedFd> {
        sys::open_in_root(self.root.as_fd(), &c(target))
    }

    fn filesystem(kind: &str, source: &str, flags: u64, data: &str) -> io::Result<OwnedFd> {
        let fs = sys::fsopen(&c(kind))?;
        sys::fsconfig(fs.as_fd(), c"source", Some(&c(source)))?;
        for option in data.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some((key, value)) => sys::fsconfig(fs.as_fd(), &c(key), Some(&c(value)))?,
                None => sys::fsconfig(fs.as_fd(), &c(option), None)?,
            }
        }
        sys::fsmount(fs.as_fd(), attributes(flags))
    }

    pub fn mount(&self, kind: &str, source: &str, target: &str, flags: u64, data: &str) -> io::Result<()> {
        let tree = Self::filesystem(kind, source, flags, data)?;
        sys::attach(tree.as_fd(), self.open(target)?.as_fd())
    }

    pub fn bind(&self, source: &str, target: &str) -> io::Result<()> {
        let tree = sys::clone_tree(AT_FDCWD, &c(source))?;
        sys::mount_setattr(tree.as_fd(), 0, MS_PRIVATE, true)?;
        sys::attach(tree.as_fd(), self.open(target)?.as_fd())
    }

    pub fn remount(&self, target: &str, flags: u64) -> io::Result<()> {
        sys::mount_setattr(self.open(target)?.as_fd(), attributes(flags), 0, false)
    }

    /// The directory that holds `target`, and the one component that is created in it.
    fn parent<'a>(&self, target: &'a str) -> io::Result<(OwnedFd, &'a str)> {
        let (dir, name) = target.rsplit_once('/').expect("plan targets are absolute");
        Ok((self.open(if dir.is_empty() { "/" } else { dir })?, name))
    }

    pub fn dir(&self, target: &str, mode: u32) -> io::Result<()> {
        let (dir, name) = self.parent(target)?;
        sys::mkdir_at(dir.as_raw_fd(), &c(name), mode)
    }

    pub fn node(&self, target: &str, mode: u32, major: u64, minor: u64) -> io::Result<()> {
        let (dir, name) = self.parent(target)?;
        sys::mknod_at(dir.as_raw_fd(), &c(name), mode, major, minor)
    }

    pub fn link(&self, target: &str, text: &str) -> io::Result<()> {
        let (dir, name) = self.parent(target)?;
        sys::symlink_at(&c(text), dir.as_raw_fd(), &c(name))
    }

    pub fn pivot(&mut self) -> io::Result<()> {
        sys::pivot(Some(self.root.as_fd()))
    }

    pub fn mask(&self, target: &str) -> io::Result<()> {
        let target = match self.open(target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => File::from(other?),
        };
        let cover = if target.metadata()?.is_dir() {
            Self::filesystem("tmpfs", "tmpfs", MS_RDONLY, "")?
        } else {
            sys::clone_tree(AT_FDCWD, c"/dev/null")?
        };
        sys::attach(cover.as_fd(), target.as_fd())
    }

    pub fn readonly(&self, target: &str, flags: u64) -> io::Result<()> {
        let target = match self.open(target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let tree = sys::clone_tree(target.as_raw_fd(), c"")?;
        sys::mount_setattr(tree.as_fd(), attributes(flags | MS_RDONLY), 0, false)?;
        sys::attach(tree.as_fd(), target.as_fd())
    }
}

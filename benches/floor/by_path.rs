//! The container's mounts by path: mount(2), mkdir(2), mknod(2), the shortest way the kernel offers.
//!
//! Trusts every path inside the root, which a runtime must not do. `by_fd.rs` does the same safely.

use std::ffi::CString;
use std::io;

use crate::sys::{self, AT_FDCWD, MS_BIND, MS_PRIVATE, MS_RDONLY, MS_REC, MS_REMOUNT, c};

pub struct ByPath {
    /// Put before every target: the rootfs before the pivot, nothing after it.
    root: String,
}

impl ByPath {
    pub fn new(root: &str) -> io::Result<Self> {
        sys::mount_at(None, c"/", None, MS_REC | MS_PRIVATE, "")?;
        sys::mount_at(Some(&c(root)), &c(root), None, MS_BIND | MS_REC, "")?;
        Ok(Self { root: root.to_owned() })
    }

    fn inside(&self, target: &str) -> CString {
        c(&format!("{}{target}", self.root))
    }

    pub fn mount(&self, kind: &str, source: &str, target: &str, flags: u64, data: &str) -> io::Result<()> {
        sys::mount_at(Some(&c(source)), &self.inside(target), Some(&c(kind)), flags, data)
    }

    pub fn bind(&self, source: &str, target: &str) -> io::Result<()> {
        let target = self.inside(target);
        sys::mount_at(Some(&c(source)), &target, None, MS_BIND | MS_REC, "")?;
        sys::mount_at(None, &target, None, MS_REC | MS_PRIVATE, "")
    }

    pub fn remount(&self, target: &str, flags: u64) -> io::Result<()> {
        sys::mount_at(None, &self.inside(target), None, MS_REMOUNT | MS_BIND | flags, "")
    }

    pub fn dir(&self, target: &str, mode: u32) -> io::Result<()> {
        sys::mkdir_at(AT_FDCWD, &self.inside(target), mode)
    }

    pub fn node(&self, target: &str, mode: u32, major: u64, minor: u64) -> io::Result<()> {
        sys::mknod_at(AT_FDCWD, &self.inside(target), mode, major, minor)
    }

    pub fn link(&self, target: &str, text: &str) -> io::Result<()> {
        sys::symlink_at(&c(text), AT_FDCWD, &self.inside(target))
    }

    pub fn pivot(&mut self) -> io::Result<()> {
        std::env::set_current_dir(&self.root)?;
        self.root.clear();
        sys::pivot(None)
    }

    pub fn mask(&self, target: &str) -> io::Result<()> {
        let target = self.inside(target);
        match sys::mount_at(Some(c"/dev/null"), &target, None, MS_BIND, "") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                sys::mount_at(Some(c"tmpfs"), &target, Some(c"tmpfs"), MS_RDONLY, "")
            }
            other => other,
        }
    }

    pub fn readonly(&self, target: &str, flags: u64) -> io::Result<()> {
        let inside = self.inside(target);
        match sys::mount_at(Some(&inside), &inside, None, MS_BIND | MS_REC, "") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.remount(target, flags | MS_RDONLY),
        }
    }
}

//! What all containers of a [`Runtime`](crate::Runtime) have in common.

use crate::bare_mounts;
use crate::cgroup::Layout;
use crate::error::Result;
use crate::plan::request::CgroupDriver;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;

#[derive(Debug)]
pub(crate) struct Settings {
    /// The directory that holds the state of containers; absolute.
    pub store: PathBuf,
    pub cgroup_driver: CgroupDriver,
    pub network_annotations: bool,
    pub hook_output_annotations: bool,
    layout: OnceLock<Layout>,
    bare_mounts: OnceLock<Option<OwnedFd>>,
}

impl Settings {
    pub fn new(store: PathBuf) -> Self {
        // This fails without a working directory, where a relative path cannot be used anyway.
        let store = std::path::absolute(&store).unwrap_or(store);
        Self {
            store,
            cgroup_driver: CgroupDriver::default(),
            network_annotations: false,
            hook_output_annotations: false,
            layout: OnceLock::new(),
            bare_mounts: OnceLock::new(),
        }
    }

    /// The hierarchies of cgroups, looked up when they are first needed.
    pub fn layout(&self) -> Result<&Layout> {
        if let Some(layout) = self.layout.get() {
            return Ok(layout);
        }
        let layout = Layout::probe()?;
        Ok(self.layout.get_or_init(|| layout))
    }

    /// A mount namespace with next to no mounts, looked for when it is first needed.
    pub fn bare_mounts(&self) -> Option<BorrowedFd<'_>> {
        self.bare_mounts.get_or_init(bare_mounts::find).as_ref().map(OwnedFd::as_fd)
    }
}

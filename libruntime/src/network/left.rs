//! Pairs that were left to the kernel (`attach::unlink`), until it has removed them. Where a process elsewhere holds a
//! descriptor of a container's network namespace, that does not end with the container, and the pair would stay.

use super::claims::Claims;
use super::netlink::Netlink;
use crate::error::{Error, Result};
use std::fs::{self, DirBuilder, DirEntry, File};
use std::os::unix::fs::DirBuilderExt;
use std::time::Duration;

/// The kernel needs some 30 ms.
const LATE: Duration = Duration::from_secs(1);

pub(super) fn note(claims: &Claims, index: u32) -> Result<()> {
    let path = claims.left().join(index.to_string());
    let made = DirBuilder::new().recursive(true).mode(0o700).create(claims.left());
    made.and_then(|()| File::create(&path))
        .map(drop)
        .map_err(|error| Error::io(format!("open {}", path.display()), error))
}

/// Removes those that the kernel has not removed in time.
pub(super) fn sweep(claims: &Claims, host: &mut Netlink) -> Result<()> {
    for entry in fs::read_dir(claims.left()).into_iter().flatten().flatten().filter(is_late) {
        let index = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let failed = |errno| Error::os("remove an interface of an earlier container", errno);
        if let Some(link) = index.map(|index| host.link_at(index)).transpose().map_err(failed)?.flatten()
            // Ours, also where the store outlives a boot: `attach.rs` has the names.
            && link.name.starts_with("og")
            && link.is_left_to_kernel()
            && !link.is_dying()
        {
            host.remove_link(&link.name).map_err(failed)?;
        }
        let _ = fs::remove_file(entry.path());
    }
    Ok(())
}

fn is_late(entry: &DirEntry) -> bool {
    let noted = entry.metadata().and_then(|found| found.modified()).ok();
    noted.and_then(|noted| noted.elapsed().ok()).is_some_and(|age| age > LATE)
}

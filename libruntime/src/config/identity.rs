//! Checks of id mappings: those of the user namespace and those of mounts, with the kernel's own rules,
//! and whether the process's ids exist in them.

use super::found::{Found, each};
use crate::namespaces::is_new;
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Spec};
use std::fmt::Display;

/// The kernel's UID_GID_MAP_MAX_EXTENTS.
const MAX_ROWS: usize = 340;

/// Mappings and a path together are legal: engines repeat the mappings of the namespace that is joined. Whether these
/// are the same can only be seen in that namespace.
pub(crate) fn check(spec: &Spec, found: &mut Found) {
    let Some(linux) = spec.linux() else { return };
    let namespaces = each(linux.namespaces());
    let new = is_new(namespaces, LinuxNamespaceType::User);
    let (uids, gids) = (each(linux.uid_mappings()), each(linux.gid_mappings()));
    for (mappings, at) in [(uids, "linux.uidMappings"), (gids, "linux.gidMappings")] {
        if mappings.is_empty() {
            if new {
                found.missing(at, "missing; in a user namespace without mappings nobody has an id");
            }
            continue;
        }
        check_mappings(mappings, at, found);
    }
    if new && let Some(process) = spec.process() {
        let user = process.user();
        mapped(user.uid(), uids, "process.user.uid", found);
        mapped(user.gid(), gids, "process.user.gid", found);
        for (i, gid) in each(user.additional_gids()).iter().enumerate() {
            mapped(*gid, gids, format_args!("process.user.additionalGids[{i}]"), found);
        }
    }
}

/// The kernel's rules for a map: 1 to 340 rows, none empty, none beyond 32 bits, no id twice on a side.
pub(crate) fn check_mappings(rows: &[LinuxIdMapping], at: impl Display + Copy, found: &mut Found) {
    if rows.len() > MAX_ROWS {
        let text = format_args!("{} rows; the kernel takes at most {MAX_ROWS}", rows.len());
        return found.problem(at, text);
    }
    let overlap = |a: u32, a_size: u32, b: u32, b_size: u32| {
        u64::from(a) < u64::from(b) + u64::from(b_size) && u64::from(b) < u64::from(a) + u64::from(a_size)
    };
    for (i, row) in rows.iter().enumerate() {
        if row.size() == 0 {
            found.problem(format_args!("{at}[{i}].size"), "missing or 0; a row maps at least one id");
        }
        for (first, name) in [(row.container_id(), "containerID"), (row.host_id(), "hostID")] {
            // The id 4294967295 itself is never valid.
            if u64::from(first) + u64::from(row.size()) > u64::from(u32::MAX) {
                let text = format_args!("{first} and size {} go beyond id 4294967294", row.size());
                found.problem(format_args!("{at}[{i}].{name}"), text);
            }
        }
        for (j, other) in rows[..i].iter().enumerate() {
            if overlap(row.container_id(), row.size(), other.container_id(), other.size()) {
                found.problem(format_args!("{at}[{i}].containerID"), format_args!("overlaps {at}[{j}]"));
            }
            if overlap(row.host_id(), row.size(), other.host_id(), other.size()) {
                found.problem(format_args!("{at}[{i}].hostID"), format_args!("overlaps {at}[{j}]"));
            }
        }
    }
}

fn mapped(id: u32, rows: &[LinuxIdMapping], at: impl Display, found: &mut Found) {
    let inside = |row: &LinuxIdMapping| id >= row.container_id() && id - row.container_id() < row.size();
    if !rows.is_empty() && !rows.iter().any(inside) {
        found.problem(at, format_args!("{id} is not mapped into the user namespace"));
    }
}

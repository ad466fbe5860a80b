//! Checks of `mounts`. What an option means, and whether the kernel has it, is decided when planning.

use super::found::{Found, each};
use super::identity::check_mappings;
use crate::namespaces::{has, listed};
use oci_spec::runtime::{LinuxNamespaceType, Mount, Spec};
use std::path::Component;

/// A kernel allows 100,000 mounts in a namespace, in all; engines make some tens.
pub const MAX_MOUNTS: usize = 10_000;

pub(crate) fn check(spec: &Spec, found: &mut Found) {
    let mounts = each(spec.mounts());
    if mounts.len() > MAX_MOUNTS {
        let text = format_args!("{} mounts; at most {MAX_MOUNTS} are accepted", mounts.len());
        return found.problem("mounts", text);
    }
    let user = has(listed(spec), LinuxNamespaceType::User);
    for (i, mount) in mounts.iter().enumerate() {
        check_one(mount, i, user, found);
    }
}

fn check_one(mount: &Mount, i: usize, user_namespace: bool, found: &mut Found) {
    let destination = mount.destination();
    if destination.as_os_str().is_empty() {
        found.problem(format_args!("mounts[{i}].destination"), "is empty");
    } else if !destination.has_root() {
        let text =
            format_args!("{destination:?} is relative, which is deprecated; it is read as relative to /");
        found.warning(format_args!("mounts[{i}].destination"), text);
    }
    found.path(destination, format_args!("mounts[{i}].destination"));
    let typ = mount.typ().as_deref().unwrap_or_default();
    found.text(typ, format_args!("mounts[{i}].type"));
    let options = each(mount.options());
    for (j, option) in options.iter().enumerate() {
        found.text(option, format_args!("mounts[{i}].options[{j}]"));
    }
    let has = |names: [&str; 2]| options.iter().any(|option| names.contains(&option.as_str()));
    let is_root = destination.components().all(|part| !matches!(part, Component::Normal(_)));
    if is_root && !destination.as_os_str().is_empty() && !has(["remount", "remount"]) {
        let text = format_args!("{destination:?} is on the top of rootfs: a mount would hide it");
        found.problem(format_args!("mounts[{i}].destination"), text);
    }
    let bind = typ == "bind" || has(["bind", "rbind"]);
    let source = mount.source().as_ref().filter(|source| !source.as_os_str().is_empty());
    match source {
        Some(source) => found.path(source, format_args!("mounts[{i}].source")),
        None if bind => found.missing(format_args!("mounts[{i}].source"), "missing; a bind mount has one"),
        None => {}
    }
    if typ.is_empty() && !bind && !has(["remount", "remount"]) {
        found.missing(format_args!("mounts[{i}].type"), "missing; only bind mounts can do without");
    }
    mappings(mount, i, user_namespace, has(["idmap", "ridmap"]), found);
}

/// `idmap` without own mappings means those of the container, so there must be some.
fn mappings(mount: &Mount, i: usize, user_namespace: bool, asked: bool, found: &mut Found) {
    let (uids, gids) = (each(mount.uid_mappings()), each(mount.gid_mappings()));
    if uids.is_empty() != gids.is_empty() {
        let (missing, given) =
            if uids.is_empty() { ("uidMappings", "gidMappings") } else { ("gidMappings", "uidMappings") };
        let text = format_args!("missing; it must be given together with {given}");
        found.missing(format_args!("mounts[{i}].{missing}"), text);
    }
    if !uids.is_empty() {
        check_mappings(uids, format_args!("mounts[{i}].uidMappings"), found);
    }
    if !gids.is_empty() {
        check_mappings(gids, format_args!("mounts[{i}].gidMappings"), found);
    }
    if asked && uids.is_empty() && gids.is_empty() && !user_namespace {
        let text = "idmap needs uidMappings and gidMappings here, or a user namespace of the container";
        found.needs_namespace(format_args!("mounts[{i}].options"), text);
    }
}

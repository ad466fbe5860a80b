//! Forms that runc and crun accept, rewritten to those that the specification has, each with a warning. So planners
//! see one form only. What is rewritten means the same to the peers: nothing is guessed.

use super::found::{Found, each};
use super::idmap;
use crate::namespaces::has;
use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};
use std::path::{Component, Path};

pub(crate) fn normalize(spec: &mut Spec, found: &mut Found) {
    idmap::normalize(spec, found);
    readonly_root(spec);
    let Some(linux) = spec.linux_mut() else { return };
    if !has(each(linux.namespaces()), LinuxNamespaceType::User) {
        without_mappings(linux, found);
    }
    absolute(linux.masked_paths_mut(), "linux.maskedPaths", found);
    absolute(linux.readonly_paths_mut(), "linux.readonlyPaths", found);
}

fn absolute(paths: &mut Option<Vec<String>>, at: &str, found: &mut Found) {
    for (i, path) in paths.iter_mut().flatten().enumerate() {
        if !path.is_empty() && !path.starts_with('/') {
            let text = format_args!("{path:?} is relative; it is read as relative to /");
            found.warning(format_args!("{at}[{i}]"), text);
            path.insert(0, '/');
        }
    }
}

/// The root as a read-only path is a read-only root.
fn readonly_root(spec: &mut Spec) {
    let paths = spec.linux().as_ref().map_or(&[][..], |linux| each(linux.readonly_paths()));
    let is_root = |path: &String| {
        !path.is_empty() && Path::new(path).components().all(|part| !matches!(part, Component::Normal(_)))
    };
    if paths.iter().any(is_root)
        && let Some(root) = spec.root_mut()
    {
        root.set_readonly(Some(true));
    }
}

/// Engines that make configurations for users write mappings before they know whether there will be a user namespace.
fn without_mappings(linux: &mut Linux, found: &mut Found) {
    let text = "ignored: there is no user namespace in linux.namespaces";
    if !each(linux.uid_mappings()).is_empty() {
        found.warning("linux.uidMappings", text);
        linux.set_uid_mappings(None);
    }
    if !each(linux.gid_mappings()).is_empty() {
        found.warning("linux.gidMappings", text);
        linux.set_gid_mappings(None);
    }
}

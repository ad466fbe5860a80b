//! The steps that make device nodes, and the links beside them.

use super::devices::{DEFAULT_ORIGIN, Device, wanted};
use super::mounts::{Mounts, move_mount};
use super::{Plan, Text};
use crate::step::Step;
use oci_spec::runtime::Linux;

/// Links that programs expect beside them.
const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
    // Not in the specification; runc and crun make it. Its target is masked.
    ("/proc/kcore", "/dev/core"),
];

/// The steps for nodes and links, unless `/dev` is the host's.
pub(super) fn make(plan: &mut Plan, linux: &Linux, mounts: &Mounts) {
    for device in wanted(linux) {
        let Device { origin, path, mode, major, minor, uid, gid } = device;
        match mounts.device(&path) {
            Some(source) => plan.push(origin, move_mount(source, Text::path(&path))),
            None if mounts.host_dev && path.starts_with("/dev") => {
                if origin != DEFAULT_ORIGIN {
                    plan.warn(origin, "not made: /dev is a directory of the host");
                }
            }
            None => {
                let path = Text::path(&path);
                plan.push(origin, Step::MakeNode { path, mode, major, minor, uid, gid });
            }
        }
    }
    if !mounts.host_dev {
        for (content, path) in LINKS {
            plan.push("linux.devices", Step::Symlink { content: Text::of(content), path: Text::of(path) });
        }
    }
}

//! The container's root file system: mounts as containerd describes them (mount(8)), one after the other, into the
//! bundle's `rootfs`, in the shim's own mount namespace, where containerd looks into it. Must not resolve a path below
//! the container's root: a symbolic link of the image would lead it to the host.

use crate::failure::{Failure, Result};
use crate::wire::Mount;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::path::Path;

/// Flags by option: to set, and to clear.
const FLAGS: &[(&str, bool, MsFlags)] = &[
    ("async", false, MsFlags::MS_SYNCHRONOUS),
    ("atime", false, MsFlags::MS_NOATIME),
    ("bind", true, MsFlags::MS_BIND),
    ("defaults", true, MsFlags::empty()),
    ("dev", false, MsFlags::MS_NODEV),
    ("diratime", false, MsFlags::MS_NODIRATIME),
    ("dirsync", true, MsFlags::MS_DIRSYNC),
    ("exec", false, MsFlags::MS_NOEXEC),
    ("mand", true, MsFlags::MS_MANDLOCK),
    ("noatime", true, MsFlags::MS_NOATIME),
    ("nodev", true, MsFlags::MS_NODEV),
    ("nodiratime", true, MsFlags::MS_NODIRATIME),
    ("noexec", true, MsFlags::MS_NOEXEC),
    ("nomand", false, MsFlags::MS_MANDLOCK),
    ("norelatime", false, MsFlags::MS_RELATIME),
    ("nostrictatime", false, MsFlags::MS_STRICTATIME),
    ("nosuid", true, MsFlags::MS_NOSUID),
    ("rbind", true, MsFlags::MS_BIND.union(MsFlags::MS_REC)),
    ("relatime", true, MsFlags::MS_RELATIME),
    ("remount", true, MsFlags::MS_REMOUNT),
    ("ro", true, MsFlags::MS_RDONLY),
    ("rw", false, MsFlags::MS_RDONLY),
    ("strictatime", true, MsFlags::MS_STRICTATIME),
    ("suid", false, MsFlags::MS_NOSUID),
    ("sync", true, MsFlags::MS_SYNCHRONOUS),
];

const PROPAGATION: &[(&str, MsFlags)] = &[
    ("private", MsFlags::MS_PRIVATE),
    ("rprivate", MsFlags::MS_PRIVATE.union(MsFlags::MS_REC)),
    ("rshared", MsFlags::MS_SHARED.union(MsFlags::MS_REC)),
    ("rslave", MsFlags::MS_SLAVE.union(MsFlags::MS_REC)),
    ("runbindable", MsFlags::MS_UNBINDABLE.union(MsFlags::MS_REC)),
    ("shared", MsFlags::MS_SHARED),
    ("slave", MsFlags::MS_SLAVE),
    ("unbindable", MsFlags::MS_UNBINDABLE),
];

/// A page, less a byte: what mount(2) takes of the file system's own options.
const LONGEST: usize = 4095;

struct Parsed {
    flags: MsFlags,
    propagation: Vec<MsFlags>,
    data: String,
}

fn parse(options: &[String]) -> Result<Parsed> {
    let mut parsed = Parsed { flags: MsFlags::empty(), propagation: Vec::new(), data: String::new() };
    for option in options {
        let name = option.as_str();
        if let Some((_, set, flag)) = FLAGS.iter().find(|(known, ..)| *known == name) {
            parsed.flags.set(*flag, *set);
        } else if let Some((_, flag)) = PROPAGATION.iter().find(|(known, _)| *known == name) {
            parsed.propagation.push(*flag);
        } else if name == "loop" || name.starts_with("uidmap=") || name.starts_with("gidmap=") {
            return Err(Failure::invalid(format!("the mount option {name} is not supported yet")));
        } else if !name.starts_with("X-containerd.") && !name.is_empty() {
            let comma = if parsed.data.is_empty() { "" } else { "," };
            parsed.data = format!("{}{comma}{name}", parsed.data);
        }
    }
    Ok(parsed)
}

/// Mounts all, or none.
pub fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<()> {
    for (at, one) in mounts.iter().enumerate() {
        mount_one(one, rootfs)
            .inspect_err(|_| unmount(rootfs))
            .map_err(|failure| failure.within(&format!("rootfs[{at}]")))?;
    }
    Ok(())
}

fn mount_one(wanted: &Mount, rootfs: &Path) -> Result<()> {
    let parsed = parse(&wanted.options)?;
    if !wanted.target.trim_matches('/').is_empty() {
        let target = &wanted.target;
        return Err(Failure::invalid(format!(
            "a mount on {target}, below the container's root, is not supported"
        )));
    }
    let failed = |errno| Failure::os(format!("mount {} on {}", wanted.source, rootfs.display()), errno);
    if parsed.data.len() > LONGEST {
        return Err(Failure::invalid(format!("the options of {} are longer than a page", wanted.source)));
    }
    let (source, kind) = (Some(wanted.source.as_str()), Some(wanted.r#type.as_str()));
    let data = (!parsed.data.is_empty()).then_some(parsed.data.as_str());
    mount(source, rootfs, kind, parsed.flags, data).map_err(failed)?;
    // A bind mount takes its flags from what is bound, until it is remounted.
    let more = parsed.flags & !(MsFlags::MS_BIND | MsFlags::MS_REC);
    if parsed.flags.contains(MsFlags::MS_BIND) && !more.is_empty() {
        let flags = parsed.flags | MsFlags::MS_REMOUNT;
        mount(None::<&str>, rootfs, None::<&str>, flags, None::<&str>).map_err(failed)?;
    }
    for flag in parsed.propagation {
        mount(None::<&str>, rootfs, None::<&str>, flag, None::<&str>).map_err(failed)?;
    }
    Ok(())
}

/// All that is mounted there, also what is in use.
pub fn unmount(rootfs: &Path) {
    let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
    while umount2(rootfs, flags).is_ok() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The target would be found through the image's own links.
    #[test]
    fn a_mount_below_the_root_is_refused() {
        let directory = Path::new("/nowhere");
        let below = Mount { target: "/var/lib".into(), source: "/srv".into(), ..Mount::default() };
        let failure = mount_all(&[below], directory).expect_err("refused");
        assert!(failure.text.contains("below the container's root"), "{}", failure.text);
    }
}

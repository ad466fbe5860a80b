//! The options of a mount as containerd writes them: flags of mount(2), propagation, what the shim does itself (`loop`,
//! `uidmap=`, `gidmap=`), and the file system's own. Pure.

use crate::failure::{Failure, Result};
use nix::mount::MsFlags;

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

/// Flags of mount(2) as attributes of fsmount(2).
const ATTRIBUTES: &[(MsFlags, u64)] = &[
    (MsFlags::MS_RDONLY, libc::MOUNT_ATTR_RDONLY),
    (MsFlags::MS_NOSUID, libc::MOUNT_ATTR_NOSUID),
    (MsFlags::MS_NODEV, libc::MOUNT_ATTR_NODEV),
    (MsFlags::MS_NOEXEC, libc::MOUNT_ATTR_NOEXEC),
    (MsFlags::MS_NODIRATIME, libc::MOUNT_ATTR_NODIRATIME),
];

/// The maps of an idmapped mount, in the form of `/proc/PID/uid_map`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMaps {
    pub uids: String,
    pub gids: String,
}

#[derive(Debug)]
pub struct Options {
    pub flags: MsFlags,
    pub propagation: Vec<MsFlags>,
    /// The file system's own.
    pub data: Vec<String>,
    pub is_loop: bool,
    pub maps: Option<IdMaps>,
}

impl Options {
    pub fn parse(options: &[String]) -> Result<Self> {
        let mut parsed = Self {
            flags: MsFlags::empty(),
            propagation: Vec::new(),
            data: Vec::new(),
            is_loop: false,
            maps: None,
        };
        let (mut uids, mut gids) = (String::new(), String::new());
        for name in options.iter().map(String::as_str).filter(|name| !name.is_empty()) {
            if let Some((_, set, flag)) = FLAGS.iter().find(|(known, ..)| *known == name) {
                parsed.flags.set(*flag, *set);
            } else if let Some((_, flag)) = PROPAGATION.iter().find(|(known, _)| *known == name) {
                parsed.propagation.push(*flag);
            } else if let Some(map) = name.strip_prefix("uidmap=") {
                uids += &lines_of(map)?;
            } else if let Some(map) = name.strip_prefix("gidmap=") {
                gids += &lines_of(map)?;
            } else if name == "loop" {
                parsed.is_loop = true;
            } else if !name.starts_with("X-containerd.") {
                parsed.data.push(name.into());
            }
        }
        parsed.maps = match (uids.is_empty(), gids.is_empty()) {
            (true, true) => None,
            (false, false) => Some(IdMaps { uids, gids }),
            _ => return Err(Failure::invalid("the mount options uidmap and gidmap need each other")),
        };
        Ok(parsed)
    }

    /// As mount(2) takes them.
    pub fn text(&self) -> String {
        self.data.join(",")
    }

    /// As fsmount(2) takes the flags.
    pub fn attributes(&self) -> u64 {
        let time = if self.flags.contains(MsFlags::MS_NOATIME) {
            libc::MOUNT_ATTR_NOATIME
        } else if self.flags.contains(MsFlags::MS_STRICTATIME) {
            libc::MOUNT_ATTR_STRICTATIME
        } else {
            libc::MOUNT_ATTR_RELATIME
        };
        let set = ATTRIBUTES.iter().filter(|(flag, _)| self.flags.contains(*flag));
        set.fold(time, |all, (_, attribute)| all | attribute)
    }
}

/// `CONTAINER:HOST:SIZE`, several with commas between.
fn lines_of(map: &str) -> Result<String> {
    let wrong = || Failure::invalid(format!("id map {map:?}: expected CONTAINER:HOST:SIZE"));
    let mut lines = String::new();
    for one in map.split(',') {
        let numbers: Vec<u32> = one.split(':').map_while(|number| number.parse().ok()).collect();
        let [container, host, size] = numbers[..] else { return Err(wrong()) };
        if size == 0 || one.split(':').count() != 3 {
            return Err(wrong());
        }
        lines += &format!("{container} {host} {size}\n");
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<Options> {
        Options::parse(&options.iter().map(|option| option.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn unknown_options_are_the_file_systems_own() {
        let options =
            parse(&["ro", "suid", "nosuid", "X-containerd.a=b", "volatile", "", "index=off"]).unwrap();
        assert_eq!(options.flags, MsFlags::MS_RDONLY | MsFlags::MS_NOSUID);
        assert_eq!(options.text(), "volatile,index=off");
        let wanted = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID;
        assert_eq!((options.attributes(), options.is_loop), (wanted, false));
        assert_eq!(parse(&["noatime"]).unwrap().attributes(), libc::MOUNT_ATTR_NOATIME);
        assert!(parse(&["loop"]).unwrap().is_loop);
    }

    #[test]
    fn id_maps_come_in_pairs_and_whole() {
        let maps =
            parse(&["uidmap=0:1000:10,10:5000:1", "gidmap=0:7:1", "gidmap=1:9:1"]).unwrap().maps.unwrap();
        assert_eq!(maps, IdMaps { uids: "0 1000 10\n10 5000 1\n".into(), gids: "0 7 1\n1 9 1\n".into() });
        for wrong in ["", "0:1", "0:1:0", "0:1:2:3", "a:1:2", "0:1:-1", "0:1:1:x", "0:1:1,"] {
            let failure = parse(&[&format!("uidmap={wrong}"), "gidmap=0:0:1"]).unwrap_err();
            assert!(failure.text.contains("expected CONTAINER:HOST:SIZE"), "{wrong}: {failure}");
        }
        assert!(parse(&["uidmap=0:1:1"]).unwrap_err().text.contains("need each other"));
    }
}

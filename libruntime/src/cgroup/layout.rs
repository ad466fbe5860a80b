//! Where this host has its cgroup hierarchies, and where the caller is in them.
//!
//! Reads `/proc/self/mountinfo` and `/proc/self/cgroup` once, changes nothing. [`super::Cgroup::plan`]
//! turns a layout and `linux.cgroupsPath` into the directories of one container.

use super::files;
use crate::error::{Error, Result};
use crate::wait::again;
use nix::errno::Errno;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Where every host mounts cgroups; only a v1 host may have other places as well.
const USUAL: &str = "/sys/fs/cgroup";
/// Where hybrid hosts mount the v2 hierarchy.
const UNIFIED: &str = "/sys/fs/cgroup/unified";
/// The root directory of a whole kernfs hierarchy has this inode number.
const ROOT_INODE: u64 = 1;

/// The host's cgroup mounts, v1, hybrid or v2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub(super) mounts: Vec<Mount>,
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub point: PathBuf,
    /// The cgroup that the mount point shows, `/` unless it is a bind mount of a part.
    pub root: PathBuf,
    /// The caller's own cgroup, as `/proc/self/cgroup` has it.
    pub own: PathBuf,
    /// v1: the controllers mounted together, or `name=…`. Empty for v2.
    pub controllers: Vec<String>,
}

impl Layout {
    /// Asks the kernel. On a v2 host that takes the system calls for two files, whatever the number of mounts; on a v1
    /// host the list of mounts is read up to the last cgroup hierarchy.
    pub fn probe() -> Result<Self> {
        let path = Path::new("/proc/self/cgroup");
        let own = files::open_proc(path)
            .and_then(|fd| files::read_fd(&fd))
            .map_err(|errno| files::failed("read", path, errno))?;
        if let Some(layout) = Self::whole_v2(&own) {
            return Ok(layout);
        }
        let path = Path::new("/proc/self/mountinfo");
        let fd = files::open_proc(path).map_err(|errno| files::failed("open", path, errno))?;
        let next = |buffer: &mut [u8]| again(|| nix::unistd::read(&fd, &mut *buffer));
        let layout = Self::read(&own, next, || is_v2_mount(Path::new(UNIFIED)))
            .map_err(|errno| files::failed("read", path, errno))?;
        if layout.mounts.is_empty() {
            return Err(Error::unsupported("no cgroup hierarchy is mounted").with_hint(
                "mount one at /sys/fs/cgroup (mount -t cgroup2 none /sys/fs/cgroup), or disable cgroups",
            ));
        }
        Ok(layout)
    }

    pub fn is_v2(&self) -> bool {
        self.mounts.iter().all(|mount| mount.controllers.is_empty())
    }

    /// The mount points with their controllers; v2 has none in its list.
    pub fn mount_points(&self) -> impl Iterator<Item = (&Path, &[String])> {
        self.mounts.iter().map(|mount| (mount.point.as_path(), mount.controllers.as_slice()))
    }

    /// The usual v2 host, without reading the list of mounts.
    fn whole_v2(own: &str) -> Option<Self> {
        let point = Path::new(USUAL);
        if !is_v2_mount(point) {
            return None;
        }
        let inode = nix::sys::stat::lstat(point).ok()?.st_ino;
        let own = hierarchies(own).into_iter().find(|(controllers, _)| controllers.is_empty())?.1;
        (inode == ROOT_INODE).then(|| Self {
            mounts: vec![Mount { point: point.into(), root: "/".into(), own, controllers: vec![] }],
        })
    }

    /// Reads mount entries until every hierarchy of `own` was found in its usual place. `/proc/self/cgroup` has a line
    /// for v2 once that was mounted anywhere: beside hierarchies of v1 it is looked for only if it is `unified`.
    fn read(
        own: &str,
        mut next: impl FnMut(&mut [u8]) -> std::result::Result<usize, Errno>,
        unified: impl Fn() -> bool,
    ) -> std::result::Result<Self, Errno> {
        let mut wanted = hierarchies(own);
        let mut mounts: Vec<Mount> = Vec::new();
        let mut pending = Vec::new();
        let mut buffer = [0u8; 16384];
        while !wanted.is_empty() {
            match next(&mut buffer) {
                Ok(0) => break,
                Ok(n) => pending.extend_from_slice(&buffer[..n]),
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
            }
            while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                if let Some(mount) = parse_mount(&line[..end], own) {
                    if mount.point.starts_with(USUAL) {
                        wanted.retain(|(controllers, _)| *controllers != mount.controllers);
                    }
                    mounts.push(mount);
                }
            }
            let only_v2_is_left =
                !wanted.is_empty() && wanted.iter().all(|(controllers, _)| controllers.is_empty());
            let has_v1 = mounts.iter().any(|mount| !mount.controllers.is_empty());
            if only_v2_is_left && has_v1 && !unified() {
                break;
            }
        }
        Ok(Self { mounts: choose(mounts) })
    }
}

fn is_v2_mount(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// One mount for each hierarchy: below the usual place if there is one, else the first.
fn choose(mounts: Vec<Mount>) -> Vec<Mount> {
    let mut chosen: Vec<Mount> = Vec::new();
    for mount in mounts {
        match chosen.iter_mut().find(|other| other.controllers == mount.controllers) {
            None => chosen.push(mount),
            Some(other) if !other.point.starts_with(USUAL) && mount.point.starts_with(USUAL) => {
                *other = mount
            }
            Some(_) => {}
        }
    }
    // On a hybrid host the v2 hierarchy comes last: it is only used for what no v1 hierarchy has.
    chosen.sort_by_key(|mount| mount.controllers.is_empty());
    chosen
}

/// `/proc/PID/cgroup`: `ID:CONTROLLERS:PATH` a line, as (controllers, path).
pub(super) fn hierarchies(text: &str) -> Vec<(Vec<String>, PathBuf)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
            let names = names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            Some((names, PathBuf::from(path)))
        })
        .collect()
}

/// One line of mountinfo (proc_pid_mountinfo(5)).
pub(super) struct Line<'a> {
    pub root: PathBuf,
    pub point: PathBuf,
    pub kind: &'a [u8],
    /// Those of the superblock.
    pub options: Vec<&'a str>,
}

impl<'a> Line<'a> {
    /// `None` where it is not that of a cgroup filesystem.
    pub fn of_cgroups(line: &'a [u8]) -> Option<Self> {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let dash = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
        let (kind, options) = (*fields.get(dash + 1)?, *fields.get(dash + 3)?);
        if kind != b"cgroup" && kind != b"cgroup2" {
            return None;
        }
        let options = std::str::from_utf8(options).ok()?.split(',').collect();
        Some(Self { root: unescape(fields[3]), point: unescape(fields[4]), kind, options })
    }
}

/// The mount of one line, when it is a hierarchy that the caller is in.
fn parse_mount(line: &[u8], own: &str) -> Option<Mount> {
    let Line { root, point, kind, options } = Line::of_cgroups(line)?;
    // The superblock's options also have other words (xattr, release_agent=…), and other orders of the controllers; so
    // the line of /proc/self/cgroup names the hierarchy.
    let (controllers, own) = hierarchies(own).into_iter().find(|(names, _)| {
        if kind == b"cgroup2" {
            return names.is_empty();
        }
        !names.is_empty() && names.iter().all(|name| options.contains(&name.as_str()))
    })?;
    Some(Mount { point, root, own, controllers })
}

/// Undoes the kernel's `\040` for blanks, tabs, line ends and backslashes.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|digits| digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        match octal {
            Some(digits) if first == b'\\' => {
                bytes.push(digits.iter().fold(0u8, |value, digit| value.wrapping_mul(8) + (digit - b'0')));
                rest = &tail[3..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cgroup) fn layout(mountinfo: &str, own: &str) -> Layout {
        let mut text = mountinfo.as_bytes();
        let next = |buffer: &mut [u8]| {
            // Small chunks, so that lines are cut at every place.
            let n = text.len().min(7).min(buffer.len());
            buffer[..n].copy_from_slice(&text[..n]);
            text = &text[n..];
            Ok(n)
        };
        Layout::read(own, next, || mountinfo.contains("/unified")).unwrap()
    }

    pub(in crate::cgroup) const HYBRID: &str = "\
22 1 0:1 / / rw - ext4 /dev/sda rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpuacct,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:4 master:3 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
50 22 0:32 /x /srv/a\\040b rw - cgroup cgroup rw,memory
";
    pub(in crate::cgroup) const HYBRID_OWN: &str =
        "9:name=systemd:/\n8:pids:/\n4:memory:/me\n1:cpu,cpuacct:/a/b\n0::/u\n";

    #[test]
    fn hybrid_has_co_mounted_named_and_unified_hierarchies() {
        let layout = layout(HYBRID, HYBRID_OWN);
        assert!(!layout.is_v2());
        let found: Vec<_> = layout
            .mounts
            .iter()
            .map(|m| format!("{} {} {}", m.point.display(), m.controllers.join(","), m.own.display()))
            .collect();
        assert_eq!(
            found,
            [
                "/sys/fs/cgroup/cpu,cpuacct cpu,cpuacct /a/b",
                "/sys/fs/cgroup/memory memory /me",
                "/sys/fs/cgroup/systemd name=systemd /",
                "/sys/fs/cgroup/unified  /u",
            ]
        );
    }

    #[test]
    fn a_hierarchy_mounted_elsewhere_only_is_found_there() {
        let layout = layout(
            "50 22 0:32 /x /srv/a\\040b rw - cgroup cgroup rw,memory\n51 22 0:33 / /mnt rw - cgroup2 none rw\n",
            HYBRID_OWN,
        );
        assert_eq!(layout.mounts[0].point, Path::new("/srv/a b"));
        assert_eq!(layout.mounts[0].root, Path::new("/x"));
        assert_eq!(layout.mounts[1].point, Path::new("/mnt"));
    }

    #[test]
    fn reading_stops_after_the_last_hierarchy() {
        const V1: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        const V2: &str = "36 31 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        for (own, unified, entries) in [
            ("1:memory:/me\n", true, &[V1][..]),
            ("1:memory:/me\n0::/\n", true, &[V1, V2]),
            ("1:memory:/me\n0::/\n", false, &[V1]),
            ("0::/\n", false, &[V2]),
        ] {
            let mut left = entries.iter();
            let next = |buffer: &mut [u8]| {
                let entry = left.next().expect("the list of mounts is read on");
                buffer[..entry.len()].copy_from_slice(entry.as_bytes());
                Ok(entry.len())
            };
            assert_eq!(Layout::read(own, next, || unified).unwrap().mounts.len(), entries.len(), "{own}");
        }
    }

    #[test]
    fn this_host_has_a_layout() {
        assert!(!Layout::probe().unwrap().mounts.is_empty());
    }
}

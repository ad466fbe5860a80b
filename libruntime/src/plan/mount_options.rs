//! The options of a mount, as the specification and mount(8) name them. Of two contradicting options the last one wins.

use crate::step::Attrs;

const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
pub const ATIME: u64 = libc::MOUNT_ATTR__ATIME;
const NOATIME: u64 = libc::MOUNT_ATTR_NOATIME;
const STRICTATIME: u64 = libc::MOUNT_ATTR_STRICTATIME;
const NODIRATIME: u64 = libc::MOUNT_ATTR_NODIRATIME;
const NOSYMFOLLOW: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;

/// Options that set or clear a mount's attribute: name, set, clear. With an `r` in front, the attribute applies to all
/// mounts below, too.
const ATTRIBUTES: &[(&str, u64, u64)] = &[
    ("ro", RDONLY, 0),
    ("rw", 0, RDONLY),
    ("nosuid", NOSUID, 0),
    ("suid", 0, NOSUID),
    ("nodev", NODEV, 0),
    ("dev", 0, NODEV),
    ("noexec", NOEXEC, 0),
    ("exec", 0, NOEXEC),
    ("noatime", NOATIME, ATIME),
    ("atime", 0, ATIME),
    ("relatime", 0, ATIME),
    ("norelatime", 0, ATIME),
    ("strictatime", STRICTATIME, ATIME),
    ("nostrictatime", 0, ATIME),
    ("nodiratime", NODIRATIME, 0),
    ("diratime", 0, NODIRATIME),
    ("nosymfollow", NOSYMFOLLOW, 0),
    ("symfollow", 0, NOSYMFOLLOW),
];

const PROPAGATION: &[(&str, u64)] = &[
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("private", libc::MS_PRIVATE),
    ("unbindable", libc::MS_UNBINDABLE),
    ("rshared", libc::MS_SHARED | libc::MS_REC),
    ("rslave", libc::MS_SLAVE | libc::MS_REC),
    ("rprivate", libc::MS_PRIVATE | libc::MS_REC),
    ("runbindable", libc::MS_UNBINDABLE | libc::MS_REC),
];

/// Options of a new filesystem that the kernel accepts by these names (fsconfig(2)).
const SUPERBLOCK: &[&str] = &["sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"];

/// Options without an effect on Linux 5.14 and newer: defaults, messages of the kernel's log, and the version counter
/// that filesystems now keep by themselves.
const NOTHING: &[&str] =
    &["defaults", "silent", "loud", "iversion", "noiversion", "nofail", "user", "auto", "noauto", "_netdev"];

/// Whether it is a flag of a superblock. With a bind mount, which has the superblock of its source, such a flag is no
/// error.
pub fn is_superblock_flag(option: &str) -> bool {
    SUPERBLOCK.contains(&option)
}

/// The options of a mount, parsed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub attrs: Attrs,
    pub bind: bool,
    pub recursive: bool,
    pub remount: bool,
    pub copy_up: bool,
    pub idmap: bool,
    pub recursive_idmap: bool,
    /// crun(1): symbolic links at either end of a bind mount.
    pub links: Links,
    /// Pairs of key and value for the filesystem; a flag has an empty value.
    pub data: Vec<(String, String)>,
}

/// How symbolic links are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Links {
    pub source_nofollow: bool,
    pub destination_nofollow: bool,
    /// A source that is a symbolic link is copied.
    pub copy: bool,
}

/// All options that are known by name, for `features`.
pub fn known() -> Vec<String> {
    let recursive = ATTRIBUTES.iter().map(|(name, ..)| format!("r{name}"));
    let mut all: Vec<String> =
        ATTRIBUTES.iter().map(|(name, ..)| name.to_string()).chain(recursive).collect();
    all.extend(PROPAGATION.iter().map(|(name, _)| name.to_string()));
    all.extend(SUPERBLOCK.iter().chain(&NOTHING[..5]).map(|name| name.to_string()));
    all.extend(["bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap"].map(String::from));
    all.extend(["copy-symlink", "dest-nofollow", "src-nofollow"].map(String::from));
    all.sort();
    all
}

/// Reads the options in their order.
pub fn parse(options: &[String]) -> Options {
    let mut found = Options::default();
    for option in options.iter().flat_map(|option| separate(option)) {
        match option {
            "bind" => found.bind = true,
            "rbind" => (found.bind, found.recursive) = (true, true),
            "remount" => found.remount = true,
            "tmpcopyup" => found.copy_up = true,
            "idmap" => found.idmap = true,
            "ridmap" => (found.idmap, found.recursive_idmap) = (true, true),
            "src-nofollow" => found.links.source_nofollow = true,
            "dest-nofollow" => found.links.destination_nofollow = true,
            "copy-symlink" => found.links.copy = true,
            // Podman writes empty ones, which mount(2) skips.
            "" => {}
            _ if NOTHING.contains(&option) => {}
            _ if SUPERBLOCK.contains(&option) => found.data.push((option.into(), String::new())),
            _ => parse_attribute(option, &mut found),
        }
    }
    found.attrs = recursive_prevail(found.attrs);
    found
}

/// One text may contain several options, as for mount(8). A comma after a backslash or between quotes is a part of a
/// value: overlay escapes commas in paths, SELinux quotes commas in labels.
fn separate(text: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        let separates = c == ',' && !quoted && !escaped;
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        separates
    })
}

fn parse_attribute(option: &str, found: &mut Options) {
    let attribute = |name| ATTRIBUTES.iter().find(|(known, ..)| *known == name);
    let attrs = &mut found.attrs;
    if let Some((_, set, clear)) = attribute(option) {
        attrs.set = attrs.set & !clear | set;
        attrs.clear = attrs.clear & !(set & !ATIME) | clear;
    } else if let Some((_, set, clear)) = option.strip_prefix('r').and_then(attribute) {
        attrs.rec_set = attrs.rec_set & !clear | set;
        attrs.rec_clear = attrs.rec_clear & !(set & !ATIME) | clear;
    } else if let Some((_, propagation)) = PROPAGATION.iter().find(|(name, _)| *name == option) {
        attrs.propagation = *propagation;
    } else {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        found.data.push((key.into(), value.into()));
    }
}

/// An attribute for all mounts of a tree is one of the top mount too, whatever else is said of that, as with the peers:
/// they set it last.
fn recursive_prevail(mut attrs: Attrs) -> Attrs {
    // Access times are one value, of which each option sets all bits.
    let times = if attrs.rec_clear & ATIME != 0 { ATIME } else { 0 };
    attrs.set &= !(attrs.rec_clear | times);
    attrs.clear &= !(attrs.rec_set | times);
    attrs
}

/// A bind mount is private unless another propagation is asked for.
pub fn private_unless_asked(mut attrs: Attrs) -> Attrs {
    if attrs.propagation == 0 {
        attrs.propagation = libc::MS_PRIVATE | libc::MS_REC;
    }
    attrs
}

/// `MOUNT_ATTR_*` that restrict what is done with files.
const RESTRICTIONS: u64 = libc::MOUNT_ATTR_RDONLY
    | libc::MOUNT_ATTR_NOSUID
    | libc::MOUNT_ATTR_NODEV
    | libc::MOUNT_ATTR_NOEXEC
    | libc::MOUNT_ATTR_NOSYMFOLLOW;

/// A bind mount without attributes to set keeps those of its source. One with attributes has these alone, as with the
/// peers, whose mount(2) sets all or none (MS_REMOUNT); access times are a group of their own there.
pub fn nothing_kept(mut attrs: Attrs) -> Attrs {
    let times = ATIME | libc::MOUNT_ATTR_NODIRATIME;
    if attrs.set & (RESTRICTIONS | times) != 0 {
        attrs.clear |= RESTRICTIONS & !attrs.set;
    }
    if attrs.set & times != 0 {
        // For access times, the kernel wants all bits cleared that are not set.
        attrs.clear |= ATIME | libc::MOUNT_ATTR_NODIRATIME & !attrs.set;
    }
    recursive_prevail(attrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attrs(options: &[&str]) -> Attrs {
        parse(&options.iter().map(|option| option.to_string()).collect::<Vec<_>>()).attrs
    }

    #[test]
    fn an_empty_option_is_none() {
        assert_eq!(parse(&[String::new()]).data, []);
    }

    #[test]
    fn the_last_of_two_contradicting_options_wins() {
        assert_eq!(attrs(&["ro", "rw"]), Attrs { clear: RDONLY, ..Attrs::default() });
        assert_eq!(attrs(&["rw", "ro"]), Attrs { set: RDONLY, ..Attrs::default() });
        assert_eq!(attrs(&["noatime", "strictatime"]), attrs(&["strictatime"]));
        assert_eq!(attrs(&["noatime", "relatime"]), attrs(&["relatime"]));
    }

    #[test]
    fn recursive_attributes_are_kept_apart() {
        let found = attrs(&["rro", "noexec", "rnosuid"]);
        assert_eq!((found.rec_set, found.set, found.clear), (RDONLY | NOSUID, NOEXEC, 0));
    }

    #[test]
    fn recursive_attributes_prevail_at_the_top() {
        let found = attrs(&["rro", "rw", "noatime", "rstrictatime", "nosuid", "rsuid"]);
        assert_eq!((found.rec_set, found.rec_clear), (RDONLY | STRICTATIME, ATIME | NOSUID));
        assert_eq!((found.set, found.clear), (0, 0));
        let found = nothing_kept(attrs(&["rro", "nosuid"]));
        assert_eq!((found.set, found.clear), (NOSUID, NODEV | NOEXEC | NOSYMFOLLOW));
    }

    #[test]
    fn what_is_not_known_goes_to_the_filesystem() {
        let found = parse(&["mode=755".into(), "newinstance".into(), "sync".into()]);
        let pair = |key: &str, value: &str| (key.to_string(), value.to_string());
        assert_eq!(found.data, [pair("mode", "755"), pair("newinstance", ""), pair("sync", "")]);
    }
}

//! Flags of the kernel, which are shown by the names of their bits: `nosuid+nodev`.

use core::fmt;
use serde::{Deserialize, Serialize};

/// `CLONE_NEW*`.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NamespaceFlags(pub u64);

/// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`, and `MS_REC`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PropagationFlags(pub u64);

/// `MOUNT_ATTR_*`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MountFlags(pub u64);

type Names = &'static [(u64, &'static str)];

const NAMESPACES: Names = &[
    (0x2_0000, "mount"),
    (0x200_0000, "cgroup"),
    (0x400_0000, "uts"),
    (0x800_0000, "ipc"),
    (0x1000_0000, "user"),
    (0x2000_0000, "pid"),
    (0x4000_0000, "network"),
    (0x80, "time"),
];
const PROPAGATION: Names = &[
    (1 << 14, "rec"),
    (1 << 17, "unbindable"),
    (1 << 18, "private"),
    (1 << 19, "slave"),
    (1 << 20, "shared"),
];
/// A name for several bits comes before the names of its parts.
const MOUNT_FLAGS: Names = &[
    (1, "ro"),
    (2, "nosuid"),
    (4, "nodev"),
    (8, "noexec"),
    (0x70, "atimes"),
    (0x10, "noatime"),
    (0x20, "strictatime"),
    (0x80, "nodiratime"),
    (0x20_0000, "nosymfollow"),
];

fn show(f: &mut fmt::Formatter, bits: u64, names: Names) -> fmt::Result {
    let mut rest = bits;
    let mut between = "";
    for (mask, name) in names {
        if rest & mask == *mask {
            write!(f, "{between}{name}")?;
            (rest, between) = (rest & !mask, "+");
        }
    }
    match rest {
        0 if bits == 0 => f.write_str("none"),
        0 => Ok(()),
        unnamed => write!(f, "{between}{unnamed:#x}"),
    }
}

impl fmt::Debug for NamespaceFlags {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        show(f, self.0, NAMESPACES)
    }
}

impl fmt::Debug for PropagationFlags {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        show(f, self.0, PROPAGATION)
    }
}

impl fmt::Debug for MountFlags {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        show(f, self.0, MOUNT_FLAGS)
    }
}

impl fmt::Debug for super::Attrs {
    /// Parts that change nothing are left out.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if *self == Self::default() {
            return f.write_str("unchanged");
        }
        let mut shown = f.debug_struct("Attrs");
        if self.first != 0 {
            shown.field("first", &PropagationFlags(self.first));
        }
        let flags = [
            ("set", self.set),
            ("clear", self.clear),
            ("rec_set", self.rec_set),
            ("rec_clear", self.rec_clear),
        ];
        for (name, bits) in flags {
            if bits != 0 {
                shown.field(name, &MountFlags(bits));
            }
        }
        if self.propagation != 0 {
            shown.field("propagation", &PropagationFlags(self.propagation));
        }
        shown.finish()
    }
}

//! Paths below the container's root: each is resolved once, by the kernel, to a file descriptor that cannot be outside,
//! and missing parts are made one component at a time. All functions here take paths relative to a directory
//! descriptor.

use crate::kernel::*;
use linux_raw_sys::general as k;

/// openat2(2) in such a way that neither `..` nor any link leads out of `root`.
pub const IN_ROOT: u32 = k::RESOLVE_IN_ROOT | k::RESOLVE_NO_MAGICLINKS;

const LONGEST: usize = 4096;
const TOO_LONG: Failed = Failed { call: Sysno::openat2, errno: ENAMETOOLONG };

/// What to make where a path does not exist.
#[derive(Clone, Copy, PartialEq)]
pub enum Missing {
    Directory,
    File,
    /// What is behind this descriptor.
    Like(i32),
}

impl Missing {
    pub fn is_directory(self) -> Done<bool> {
        match self {
            Self::Directory => Ok(true),
            Self::File => Ok(false),
            Self::Like(fd) => is_directory(fd),
        }
    }
}

/// The directory in which something was made last. What follows in the same directory is made there, without resolving
/// the path again.
pub struct Last {
    fd: i32,
    /// With the slash at its end. `None` is zeros, which take no space in the file.
    path: Option<&'static [u8]>,
}

impl Last {
    pub const NONE: Self = Self { fd: 0, path: None };

    /// To be called where a mount may have covered the directory, or a part of its path.
    pub fn forget(&mut self) {
        if self.fd > 0 {
            close_later(self.fd);
        }
        *self = Self::NONE;
    }

    fn put(&mut self, fd: i32, path: &'static [u8]) -> i32 {
        self.forget();
        *self = Self { fd, path: Some(path) };
        fd
    }

    fn find(&self, path: &[u8]) -> Option<i32> {
        (self.path == Some(path)).then_some(self.fd)
    }
}

/// Opens a path below `root` as it is, with `O_PATH`.
pub fn resolve(root: i32, path: &[u8]) -> Done<i32> {
    openat2(root, path, k::O_PATH | k::O_CLOEXEC, 0, IN_ROOT)
}

/// The same, but a symbolic link anywhere in the path is an error.
pub fn resolve_strictly(root: i32, path: &[u8]) -> Done<i32> {
    openat2(root, path, k::O_PATH | k::O_CLOEXEC, 0, k::RESOLVE_IN_ROOT | k::RESOLVE_NO_SYMLINKS)
}

/// `None` where it does not exist.
pub fn resolve_if_there(root: i32, path: &[u8], strict: bool) -> Done<Option<i32>> {
    match if strict { resolve_strictly(root, path) } else { resolve(root, path) } {
        Err(Failed { errno: ENOENT, .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// The symbolic link at the end of a path, if there is one.
pub fn resolve_link(root: i32, path: &[u8]) -> Done<Option<i32>> {
    let found = match openat2(root, path, k::O_PATH | k::O_NOFOLLOW | k::O_CLOEXEC, 0, IN_ROOT) {
        Err(Failed { errno: ENOENT, .. }) => return Ok(None),
        other => other?,
    };
    if is_link(found)? {
        return Ok(Some(found));
    }
    close_later(found);
    Ok(None)
}

/// A path in a buffer of its own, which can be cut where a component ends.
struct Prefix {
    bytes: [u8; LONGEST],
}

impl Prefix {
    fn of(parts: [&[u8]; 3]) -> Done<Self> {
        let mut prefix = Self { bytes: [0; LONGEST] };
        let mut end = 0;
        for part in parts {
            let room = prefix.bytes.get_mut(end..end + part.len()).ok_or(TOO_LONG)?;
            room.copy_from_slice(part);
            end += part.len();
        }
        // A NUL follows the last part.
        if end < LONGEST { Ok(prefix) } else { Err(TOO_LONG) }
    }

    /// `f` with the path up to `end`, which ends in NUL there.
    fn cut<T>(&mut self, end: usize, f: impl FnOnce(&[u8]) -> Done<T>) -> Done<T> {
        let kept = self.bytes[end];
        self.bytes[end] = 0;
        let result = f(&self.bytes[..=end]);
        self.bytes[end] = kept;
        result
    }
}

/// Where something is to be attached.
pub enum Target {
    Opened(i32),
    /// Was made just now, by this name in a directory that stays open in [`Last`].
    Made {
        parent: i32,
        name: &'static [u8],
    },
}

/// Opens a path below `root`, making its missing components: directories, and `missing` at the end.
pub fn ensure(root: i32, last: &mut Last, path: &'static [u8], missing: Missing, strict: bool) -> Done<i32> {
    match target(root, last, path, missing, strict)? {
        Target::Opened(fd) => Ok(fd),
        Target::Made { parent, name } => open_here(parent, name),
    }
}

/// The same, without opening what was made last.
pub fn target(
    root: i32,
    last: &mut Last,
    path: &'static [u8],
    missing: Missing,
    strict: bool,
) -> Done<Target> {
    let (directory, name) = split(path);
    if let Some(parent) = last.find(directory).filter(|_| !strict && is_plain(name)) {
        if make_here(parent, name, missing)? {
            return Ok(Target::Made { parent, name });
        }
        match open_here(parent, name) {
            Err(Failed { errno: ELOOP, .. }) => {}
            other => return other.map(Target::Opened),
        }
    }
    last.forget();
    let opened = if strict { resolve_strictly(root, path) } else { resolve(root, path) };
    match opened {
        Err(Failed { errno: ENOENT, .. }) => make_last(root, last, path, missing),
        other => other.map(Target::Opened),
    }
}

/// Makes the last component, which usually is the only missing one, or else all missing ones.
fn make_last(root: i32, last: &mut Last, path: &'static [u8], missing: Missing) -> Done<Target> {
    let (directory, name) = split(path);
    if is_plain(name)
        && let Ok(parent) =
            Prefix::of([directory, b"", b""])?.cut(directory.len(), |path| resolve(root, path))
    {
        last.put(parent, directory);
        if make_here(parent, name, missing)? {
            return Ok(Target::Made { parent, name });
        }
        let cut = (directory.len(), text(path).len());
        return open_or_follow(root, parent, text(path), cut, missing, 0).map(Target::Opened);
    }
    make(root, text(path), missing, 0).map(Target::Opened)
}

/// The same for the directory of `path`, which stays open in `last`. Returns the directory, and the last component with
/// its NUL.
pub fn ensure_parent<'a>(root: i32, last: &mut Last, path: &'static [u8]) -> Done<(i32, &'a [u8])> {
    let (directory, name) = split(path);
    if let Some(parent) = last.find(directory) {
        return Ok((parent, name));
    }
    let parent = if directory.is_empty() { b"." } else { directory };
    let opened = match Prefix::of([parent, b"", b""])?.cut(parent.len(), |parent| resolve(root, parent)) {
        Err(Failed { errno: ENOENT, .. }) => make(root, parent, Missing::Directory, 0)?,
        other => other?,
    };
    Ok((last.put(opened, directory), name))
}

/// The directory with the slash at its end, and the last component with its NUL.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    path.split_at(path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1))
}

/// Whether it names something in its directory.
fn is_plain(name: &[u8]) -> bool {
    !matches!(name, b"" | b"\0" | b".\0" | b"..\0")
}

/// A path without its NUL.
fn text(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"\0").unwrap_or(path)
}

fn make(root: i32, path: &[u8], missing: Missing, depth: u32) -> Done<i32> {
    let mut prefix = Prefix::of([path, b"", b""])?;
    let mut at = prefix.cut(0, |_| resolve(root, b".\0"))?;
    let mut start = 0;
    while start < path.len() {
        let rest = path.get(start..).unwrap_or_default();
        let end = start + rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        let last = path.get(end..).unwrap_or_default().iter().all(|byte| *byte == b'/');
        let what = if last { missing } else { Missing::Directory };
        if end > start {
            let next = match prefix.cut(end, |so_far| resolve(root, so_far)) {
                Err(Failed { errno: ENOENT, .. }) => {
                    let component = path.get(start..end).unwrap_or_default();
                    make_here(at, &Prefix::of([component, b"", b""])?.bytes, what)?;
                    open_or_follow(root, at, path, (start, end), what, depth)
                }
                other => other,
            };
            close_later(at);
            at = next?;
        }
        start = end + 1;
    }
    Ok(at)
}

/// Opens the component `path[start..end]` in the directory `parent`. It exists although the look-up of the path has failed: it
/// was made just now, or it is a dangling symbolic link, or another container with the same root has made it meanwhile.
fn open_or_follow(
    root: i32,
    parent: i32,
    path: &[u8],
    cut: (usize, usize),
    what: Missing,
    depth: u32,
) -> Done<i32> {
    let component = path.get(cut.0..cut.1).unwrap_or_default();
    let name = Prefix::of([component, b"", b""])?;
    match open_here(parent, &name.bytes) {
        Err(Failed { errno: ELOOP, .. }) => make_target(root, parent, &name, path, cut.0, what, depth),
        other => other,
    }
}

/// Makes `name` in the directory `parent`, where it is missing. Returns whether it was made.
fn make_here(parent: i32, name: &[u8], what: Missing) -> Done<bool> {
    let made = match what.is_directory()? {
        true => mkdirat(parent, name, 0o755),
        false => mknodat(parent, name, k::S_IFREG | 0o644, 0, 0),
    };
    match made {
        Err(Failed { errno: EEXIST, .. }) => Ok(false),
        other => other.map(|()| true),
    }
}

/// Opens `name` in the directory `parent`. ELOOP for a symbolic link.
fn open_here(parent: i32, name: &[u8]) -> Done<i32> {
    let flags = k::O_PATH | k::O_CLOEXEC;
    openat2(parent, name, flags, 0, k::RESOLVE_BENEATH | k::RESOLVE_NO_SYMLINKS)
}

/// Makes what the dangling link `name` points at, inside the root.
fn make_target(
    root: i32,
    parent: i32,
    name: &Prefix,
    path: &[u8],
    start: usize,
    what: Missing,
    depth: u32,
) -> Done<i32> {
    if depth == 8 {
        return Err(Failed { call: Sysno::openat2, errno: ELOOP });
    }
    let mut link = [0u8; LONGEST];
    let content = readlinkat(parent, &name.bytes, &mut link)?;
    let base = if content.first() == Some(&b'/') { b"" } else { path.get(..start).unwrap_or_default() };
    let target = Prefix::of([base, b"/", content])?;
    let length = base.len() + 1 + content.len();
    make(root, target.bytes.get(..length).unwrap_or_default(), what, depth + 1)
}

//! Files, links and directories below the container's root.

use crate::kernel::*;
use crate::paths::{self, Missing};
use crate::state::State;
use linux_raw_sys::general as k;

pub fn open_root(state: &mut State, path: &[u8]) -> Done {
    let root = openat(AT_FDCWD, path, k::O_PATH | k::O_DIRECTORY)?;
    if state.root > 0 {
        close_later(state.root);
    }
    state.root = root;
    fchdir(root)
}

/// An existing node stays if it is the same device with the same mode and owner. Anything else but a directory is
/// replaced: otherwise an image could choose what `/dev/null` is, and who may open a device.
pub fn make_node(
    state: &mut State,
    path: &'static [u8],
    mode: u32,
    device: (u32, u32),
    owner: (u32, u32),
) -> Done {
    let (parent, name) = paths::ensure_parent(state.root, &mut state.last, path)?;
    if let Err(failed) = mknodat(parent, name, mode, device.0, device.1) {
        if failed.errno != EEXIST {
            return Err(failed);
        }
        if !is_this_node(parent, name, mode, device, owner)? {
            call(Call::unlinkat, [parent as usize, crate::kernel::path(name)?, 0])?;
            mknodat(parent, name, mode, device.0, device.1)?;
        }
    }
    if owner != (0, 0) {
        fchownat(parent, name, owner.0, owner.1)?;
    }
    Ok(())
}

fn is_this_node(parent: i32, name: &[u8], mode: u32, device: (u32, u32), owner: (u32, u32)) -> Done<bool> {
    let node = openat(parent, name, k::O_PATH | k::O_NOFOLLOW)?;
    let found = statx(node)?;
    close_later(node);
    let is_device = (found.stx_rdev_major, found.stx_rdev_minor) == device;
    Ok(u32::from(found.stx_mode) == mode && is_device && (found.stx_uid, found.stx_gid) == owner)
}

pub fn symlink(state: &mut State, content: &[u8], path: &'static [u8]) -> Done {
    let (parent, name) = paths::ensure_parent(state.root, &mut state.last, path)?;
    match symlinkat(content, parent, name) {
        Err(Failed { errno: EEXIST, .. }) => Ok(()),
        other => other,
    }
}

/// Copies the symbolic link that a mount consists of, and accepts no other file in its place. `false` where the mount
/// is not a symbolic link.
pub fn copy_link(state: &mut State, tree: i32, target: &'static [u8]) -> Done<bool> {
    if !is_link(tree)? {
        return Ok(false);
    }
    const LONGEST: usize = 4096;
    let (mut wanted, mut there) = ([0u8; LONGEST], [0u8; LONGEST]);
    let length = readlinkat(tree, b"\0", &mut wanted)?.len();
    let content = wanted.get(..=length).ok_or(Failed { call: Sysno::readlinkat, errno: ENAMETOOLONG })?;
    let (parent, name) = paths::ensure_parent(state.root, &mut state.last, target)?;
    if let Err(failed) = symlinkat(content, parent, name) {
        let same = readlinkat(parent, name, &mut there).is_ok_and(|link| Some(link) == content.get(..length));
        if !same {
            return Err(failed);
        }
    }
    close_later(tree);
    Ok(true)
}

/// A magic link such as `/proc/self/fd/7` is no directory below the root, and is refused.
pub fn chdir(state: &mut State, path: &'static [u8], make: bool) -> Done {
    if path == b"/\0" {
        return fchdir(state.root);
    }
    let directory = match make {
        true => paths::ensure(state.root, &mut state.last, path, Missing::Directory, false),
        false => paths::resolve(state.root, path),
    }?;
    fchdir(directory)?;
    close_later(directory);
    Ok(())
}

/// How much of `etc/passwd` is read, in bytes: some 20,000 users. The file is the image's, and the container
/// can make it endless.
const MOST_OF_PASSWD: usize = 1 << 20;

/// The sixth field of the line of `etc/passwd` whose third is `uid`; `/` where there is no such line or file. A file
/// that exists and cannot be read is an error: otherwise the program would silently get a wrong home.
pub fn find_home(state: &mut State, uid: u32) -> Done {
    let mut found = Line { field: 0, number: EMPTY, home: [0; HOME], length: 0 };
    let mut home: &[u8] = b"/";
    if let Some(passwd) = open_regular(state.root, b"etc/passwd\0")? {
        let mut chunk = [0u8; 4096];
        let mut rest = MOST_OF_PASSWD;
        'read: loop {
            let length = read(passwd, &mut chunk)?;
            if length == 0 {
                break;
            }
            for byte in chunk.iter().take(length) {
                if found.take(*byte, uid) {
                    home = found.home.get(..found.length).unwrap_or(home);
                    break 'read;
                }
            }
            rest = rest.saturating_sub(length);
            if rest == 0 {
                break;
            }
        }
        close_later(passwd);
    }
    let entry = b"HOME=".iter().chain(home).chain(b"\0");
    state.home_length = 0;
    for (byte, from) in state.home.iter_mut().zip(entry) {
        *byte = *from;
        state.home_length += 1;
    }
    Ok(())
}

/// Opens a file below the root for reading, if it exists and is a regular file of an image. That is checked before,
/// because opening a device can have side effects, and again after, because the container can replace the file.
fn open_regular(root: i32, path: &[u8]) -> Done<Option<i32>> {
    // A fifo that has replaced the file blocks neither the opening nor a read.
    let mut file = None;
    for flags in [k::O_PATH, k::O_RDONLY | k::O_NONBLOCK | k::O_NOCTTY] {
        if let Some(looked_at) = file {
            close_later(looked_at);
        }
        file = open_if_there(root, path, flags)?;
        let Some(opened) = file else { break };
        if !is_of_image(opened)? {
            close_later(opened);
            return Ok(None);
        }
    }
    Ok(file)
}

/// Whether it is a regular file with something in it, and not one of the kernel's, which a link of the image may lead to:
/// reading `/proc/kmsg` takes messages away, with the caller's privileges. Most of the kernel's files have no size.
fn is_of_image(file: i32) -> Done<bool> {
    const PROCFS: i64 = 0x9fa0;
    const SYSFS: i64 = 0x6265_6572;
    let found = statx(file)?;
    let regular = u32::from(found.stx_mode) & k::S_IFMT == k::S_IFREG && found.stx_size > 0;
    Ok(regular && !matches!(filesystem(file)?, PROCFS | SYSFS))
}

/// `None` where the image lacks or hides the file. A lack of descriptors or memory, or a broken disk, is an error.
fn open_if_there(root: i32, path: &[u8], flags: u32) -> Done<Option<i32>> {
    match openat2(root, path, flags | k::O_CLOEXEC, 0, paths::IN_ROOT) {
        Err(Failed { errno: ENOENT | ENOTDIR | ELOOP | EACCES, .. }) => Ok(None),
        other => other.map(Some),
    }
}

const HOME: usize = 512;

/// A line of `etc/passwd` as far as it has been read.
struct Line {
    field: u32,
    /// The third field: [`EMPTY`], [`NO_NUMBER`] or a user id.
    number: i64,
    home: [u8; HOME],
    length: usize,
}

const EMPTY: i64 = -1;
const NO_NUMBER: i64 = -2;

impl Line {
    /// Takes the next byte; whether it ends the home directory of `uid`.
    fn take(&mut self, byte: u8, uid: u32) -> bool {
        match (byte, self.field) {
            (b':' | b'\n', 5) if self.number == i64::from(uid) && self.length > 0 => return true,
            (b'\n', _) => (self.field, self.number, self.length) = (0, EMPTY, 0),
            (b':', _) => self.field += 1,
            (b'0'..=b'9', 2) if self.number != NO_NUMBER => {
                let number = self.number.max(0) * 10 + i64::from(byte - b'0');
                self.number = if number > u32::MAX.into() { NO_NUMBER } else { number };
            }
            (_, 2) => self.number = NO_NUMBER,
            (_, 5) => {
                if let Some(place) = self.home.get_mut(self.length) {
                    *place = byte;
                    self.length += 1;
                }
            }
            _ => {}
        }
        false
    }
}

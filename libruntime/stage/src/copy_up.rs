//! Copies what is below a path of the root into a filesystem that is about to cover it
//! (the mount option `tmpcopyup`).

use crate::kernel::*;
use linux_raw_sys::general as k;

/// The deepest tree that is copied. Each level has two descriptors open.
const DEEPEST: usize = 64;

/// A directory that is being copied.
#[derive(Clone, Copy)]
struct Level {
    from: i32,
    to: i32,
}

/// `covered` is the directory on which `mount` is to be attached. `with_mode`: the mount's own directory gets its mode,
/// because no other mode was asked for.
pub fn copy_up(covered: i32, mount: i32, with_mode: bool) -> Done {
    let from = openat(covered, b".\0", k::O_RDONLY | k::O_DIRECTORY)?;
    let to = openat(mount, b".\0", k::O_RDONLY | k::O_DIRECTORY)?;
    copy_tree(Level { from, to }, with_mode)
}

/// Copies each directory as soon as it is read, and then goes on in its parent. With a list of levels in place of
/// recursion, because the caller's stack limit may be small.
fn copy_tree(top: Level, with_mode: bool) -> Done {
    let mut levels = [top; DEEPEST];
    let mut depth = 0;
    loop {
        let level = *levels.get(depth).ok_or(Failed { call: Sysno::getdents64, errno: ELOOP })?;
        if let Some(inner) = copy_entries(level)? {
            depth += 1;
            *levels.get_mut(depth).ok_or(Failed { call: Sysno::getdents64, errno: ELOOP })? = inner;
            continue;
        }
        // Last, because a mode without write permission would keep the entries out.
        let found = statx(level.from)?;
        copy_owner(level.to, b".\0", &found)?;
        if depth > 0 || with_mode {
            copy_mode(level.to, b".\0", &found)?;
        }
        close(level.from);
        close(level.to);
        if depth == 0 {
            return Ok(());
        }
        depth -= 1;
    }
}

/// Copies entries up to the next directory, which is made, opened and returned; reading goes on after it later.
fn copy_entries(level: Level) -> Done<Option<Level>> {
    let mut entries = [0u8; 2048];
    loop {
        let length = getdents64(level.from, &mut entries)?;
        if length == 0 {
            return Ok(None);
        }
        let mut rest = entries.get(..length).unwrap_or_default();
        while let Some((entry, after)) = next_entry(rest) {
            rest = after;
            if matches!(entry.name, b".\0" | b"..\0") {
                continue;
            }
            if let Some(inner) = copy_entry(level, entry.name)? {
                const SET: usize = 0;
                call(Call::lseek, [level.from as usize, entry.next as usize, SET])?;
                return Ok(Some(inner));
            }
        }
    }
}

struct Entry<'a> {
    name: &'a [u8],
    /// The position after this entry in the directory.
    next: u64,
}

/// struct linux_dirent64: inode and offset, two u64, the record's length, a type, and the name.
fn next_entry(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let next = u64::from_ne_bytes(*bytes.get(8..)?.first_chunk::<8>()?);
    let length = u16::from_ne_bytes(*bytes.get(16..)?.first_chunk::<2>()?);
    let (record, rest) = bytes.split_at_checked(length.into())?;
    let name = record.get(19..)?;
    let end = name.iter().position(|byte| *byte == 0)?;
    Some((Entry { name: name.get(..=end)?, next }, rest))
}

/// A directory is made and opened, not copied.
fn copy_entry(level: Level, name: &[u8]) -> Done<Option<Level>> {
    let Level { from, to } = level;
    let node = openat(from, name, k::O_PATH | k::O_NOFOLLOW)?;
    let mut found = statx(node)?;
    close(node);
    let mode = u32::from(found.stx_mode);
    match mode & k::S_IFMT {
        k::S_IFDIR => {
            mkdirat(to, name, 0o700)?;
            let flags = k::O_RDONLY | k::O_DIRECTORY | k::O_NOFOLLOW;
            return Ok(Some(Level { from: openat(from, name, flags)?, to: openat(to, name, flags)? }));
        }
        k::S_IFLNK => {
            let mut content = [0u8; 4096];
            readlinkat(from, name, &mut content)?;
            symlinkat(&content, to, name)?;
            return copy_owner(to, name, &found).map(|()| None);
        }
        k::S_IFREG => found = copy_file(from, to, name)?,
        _ => mknodat(to, name, mode, found.stx_rdev_major, found.stx_rdev_minor)?,
    }
    copy_owner(to, name, &found)?;
    copy_mode(to, name, &found)?;
    Ok(None)
}

/// Returns what the copied file is: the name may lead to another one meanwhile, with another owner and mode. The new
/// filesystem bounds the size: it fails with ENOSPC.
fn copy_file(from: i32, to: i32, name: &[u8]) -> Done<k::statx> {
    // A fifo that has replaced the file neither blocks, nor is it copied from.
    let source = openat(from, name, k::O_RDONLY | k::O_NOFOLLOW | k::O_NONBLOCK | k::O_NOCTTY)?;
    let found = statx(source)?;
    if u32::from(found.stx_mode) & k::S_IFMT != k::S_IFREG {
        return Err(Failed { call: Sysno::openat, errno: ESTALE });
    }
    let flags = k::O_WRONLY | k::O_CREAT | k::O_EXCL | k::O_CLOEXEC;
    let copy = openat2(to, name, flags, 0o600, k::RESOLVE_BENEATH)?;
    const MOST: usize = 0x7fff_f000;
    while sendfile(copy, source, MOST)? != 0 {}
    close(source);
    close(copy);
    Ok(found)
}

fn copy_owner(to: i32, name: &[u8], found: &k::statx) -> Done {
    fchownat(to, name, found.stx_uid, found.stx_gid)
}

fn copy_mode(to: i32, name: &[u8], found: &k::statx) -> Done {
    let mode = usize::from(found.stx_mode) & 0o7777;
    call(Call::fchmodat, [to as usize, path(name)?, mode]).map(drop)
}

//! Copies what is below a path of the root into a filesystem that is about to cover it
//! (the mount option `tmpcopyup`).

use crate::kernel::*;
use crate::paths;
use linux_raw_sys::general as k;

/// Deeper trees than this are no content that belongs into a tmpfs.
const DEEPEST: u32 = 64;

pub fn copy_up(root: i32, target: &[u8], mount: i32) -> Done {
    let flags = k::O_RDONLY | k::O_DIRECTORY | k::O_CLOEXEC;
    let from = match openat2(root, target, flags, 0, paths::IN_ROOT) {
        Err(Failed { errno: ENOENT, .. }) => return Ok(()),
        other => other?,
    };
    let to = openat(mount, b".\0", k::O_RDONLY | k::O_DIRECTORY)?;
    let found = statx(from)?;
    copy_owner(to, b".\0", &found)?;
    copy_mode(to, b".\0", &found)?;
    let copied = copy_directory(from, to, 0);
    close(from);
    close(to);
    copied
}

fn copy_directory(from: i32, to: i32, depth: u32) -> Done {
    if depth == DEEPEST {
        return Err(Failed { call: Sysno::getdents64, errno: ELOOP });
    }
    let mut entries = [0u64; 256];
    loop {
        let (address, size) = (entries.as_mut_ptr() as usize, size_of_val(&entries));
        let length = call(Sysno::getdents64, [from as usize, address, size])?;
        if length == 0 {
            return Ok(());
        }
        // SAFETY: the buffer is this long, and any byte is a u8.
        let mut rest = unsafe { core::slice::from_raw_parts(entries.as_ptr().cast::<u8>(), length) };
        while let Some((name, after)) = next_entry(rest) {
            if !matches!(name, b".\0" | b"..\0") {
                copy_entry(from, to, name, depth)?;
            }
            rest = after;
        }
    }
}

/// struct linux_dirent64: two u64, the record's length, a type, and the name.
fn next_entry(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u16::from_ne_bytes(*bytes.get(16..)?.first_chunk::<2>()?);
    let (record, rest) = bytes.split_at_checked(length.into())?;
    let name = record.get(19..)?;
    let end = name.iter().position(|byte| *byte == 0)?;
    Some((name.get(..=end)?, rest))
}

fn copy_entry(from: i32, to: i32, name: &[u8], depth: u32) -> Done {
    let node = openat(from, name, k::O_PATH | k::O_NOFOLLOW)?;
    let found = statx(node)?;
    close(node);
    let mode = u32::from(found.stx_mode);
    match mode & k::S_IFMT {
        k::S_IFDIR => {
            mkdirat(to, name, 0o700)?;
            let flags = k::O_RDONLY | k::O_DIRECTORY | k::O_NOFOLLOW;
            let (inner_from, inner_to) = (openat(from, name, flags)?, openat(to, name, flags)?);
            let copied = copy_directory(inner_from, inner_to, depth + 1);
            close(inner_from);
            close(inner_to);
            copied?;
        }
        k::S_IFLNK => {
            let mut content = [0u8; 4096];
            readlinkat(from, name, &mut content)?;
            symlinkat(&content, to, name)?;
            return copy_owner(to, name, &found);
        }
        k::S_IFREG => copy_file(from, to, name)?,
        _ => mknodat(to, name, mode, found.stx_rdev_major, found.stx_rdev_minor)?,
    }
    copy_owner(to, name, &found)?;
    copy_mode(to, name, &found)
}

fn copy_file(from: i32, to: i32, name: &[u8]) -> Done {
    let source = openat(from, name, k::O_RDONLY | k::O_NOFOLLOW)?;
    let flags = k::O_WRONLY | k::O_CREAT | k::O_EXCL | k::O_CLOEXEC;
    let copy = openat2(to, name, flags, 0o600, k::RESOLVE_BENEATH)?;
    const MOST: usize = 0x7fff_f000;
    while call(Sysno::sendfile, [copy as usize, source as usize, 0, MOST])? != 0 {}
    close(source);
    close(copy);
    Ok(())
}

fn copy_owner(to: i32, name: &[u8], found: &k::statx) -> Done {
    fchownat(to, name, found.stx_uid, found.stx_gid)
}

fn copy_mode(to: i32, name: &[u8], found: &k::statx) -> Done {
    let mode = usize::from(found.stx_mode) & 0o7777;
    call(Sysno::fchmodat, [to as usize, path(name)?, mode]).map(drop)
}

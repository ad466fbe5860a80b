//! Unmounts what is below a root that was moved over `/`: the host's mounts, in the container's mount namespace. The
//! kernel allows a new procfs or sysfs in a user namespace only where another one is visible (mount_too_revealing), and
//! counts those that chroot(2) hides: so they have to be unmounted.

use crate::kernel::*;
use linux_raw_sys::general as k;

const LONGEST: usize = 4096;

/// Unmounts all mounts on the mount behind `old`, except the one behind `root`. Mounts that another user namespace has
/// locked (mount_namespaces(7)) are covered instead: each procfs and sysfs, wherever it is, and everything on `old`.
pub fn take_off(procfs: i32, old: i32, root: i32) -> Done {
    let (old_id, root_id) = (statx(old)?.stx_mnt_id, statx(root)?.stx_mnt_id);
    let is_below = |line: &Line| line.parent == old_id && line.id != root_id && line.length > 0;
    mount_setattr(old, false, 0, 0, u64::from(k::MS_PRIVATE), -1)?;
    // From the old root's directory, names lead into the old root even while another root is mounted over it.
    fchdir(old)?;
    // A mount that was hidden below another one has a name once that one is unmounted.
    while each(procfs, |line| if is_below(line) { detach(&line.name) } else { Ok(false) })? > 0 {}
    each(
        procfs,
        |line| if line.shows_kernel && is_mount(AT_FDCWD, line) { cover(&line.name) } else { Ok(false) },
    )?;
    each(procfs, |line| if is_below(line) { cover(&line.name) } else { Ok(false) })?;
    let uncovered =
        |line: &Line| Ok(line.shows_kernel && !is_mount(root, line) && !is_covered(procfs, line)?);
    match each(procfs, uncovered)? {
        0 => Ok(()),
        // A mount that is hidden below a locked one cannot be reached.
        _ => Err(Failed { call: Sysno::umount2, errno: EBUSY }),
    }
}

/// Whether the mount's name leads to it, from `directory`.
fn is_mount(directory: i32, line: &Line) -> bool {
    let name: &[u8] = if line.length > 0 { &line.name } else { b".\0" };
    let flags = k::O_PATH | k::O_NOFOLLOW | k::O_CLOEXEC;
    let Ok(found) = openat2(directory, name, flags, 0, k::RESOLVE_NO_MAGICLINKS) else { return false };
    let id = statx(found).map(|found| found.stx_mnt_id);
    close(found);
    id.is_ok_and(|id| id == line.id)
}

/// Whether something is mounted over the whole of a mount.
fn is_covered(procfs: i32, mount: &Line) -> Done<bool> {
    let covers = |line: &Line| Ok(line.parent == mount.id && line.name == mount.name);
    Ok(each(procfs, covers)? > 0)
}

/// Detaches a mount and all below it, after it is made private, so that the host's mounts stay.
fn detach(name: &[u8]) -> Done<bool> {
    let Ok(mount) = openat(AT_FDCWD, name, k::O_PATH | k::O_NOFOLLOW) else { return Ok(false) };
    let private = mount_setattr(mount, true, 0, 0, u64::from(k::MS_PRIVATE), -1);
    close(mount);
    private?;
    let flags = k::MNT_DETACH | k::UMOUNT_NOFOLLOW;
    match call(Call::umount2, [path(name)?, flags as usize]) {
        Err(Failed { errno: EINVAL, .. }) => Ok(false),
        other => other.map(|_| true),
    }
}

fn cover(name: &[u8]) -> Done<bool> {
    let place = openat(AT_FDCWD, name, k::O_PATH | k::O_NOFOLLOW)?;
    if is_directory(place)? {
        let nothing = crate::mounts::filesystem(b"tmpfs\0", b"", u64::from(k::MOUNT_ATTR_RDONLY), None)?;
        move_mount(nothing, place)?;
        close(nothing);
    }
    close(place);
    Ok(true)
}

/// A line of mountinfo (proc_pid_mountinfo(5)), as far as it has been read.
struct Line {
    field: u32,
    id: u64,
    parent: u64,
    name: [u8; LONGEST],
    length: usize,
    /// The first bytes of the field that is read.
    word: [u8; 8],
    word_length: usize,
    /// The separator was read: the next field is the type of the filesystem.
    separated: bool,
    /// Whether it is a procfs or a sysfs.
    shows_kernel: bool,
}

impl Line {
    const EMPTY: Self = Self {
        field: 0,
        id: 0,
        parent: 0,
        name: [0; LONGEST],
        length: 0,
        word: [0; 8],
        word_length: 0,
        separated: false,
        shows_kernel: false,
    };

    fn take(&mut self, byte: u8) {
        if byte == b' ' {
            self.end_field();
            return;
        }
        if let Some(place) = self.word.get_mut(self.word_length) {
            *place = byte;
        }
        self.word_length += 1;
        match (byte, self.field) {
            (b'0'..=b'9', 0) => self.id = self.id * 10 + u64::from(byte - b'0'),
            (b'0'..=b'9', 1) => self.parent = self.parent * 10 + u64::from(byte - b'0'),
            // Without the first slash the name is relative; a NUL follows it.
            (b'/', 4) if self.length == 0 => {}
            (_, 4) if self.length + 1 < LONGEST => {
                self.name[self.length] = byte;
                self.length += 1;
                self.unescape();
            }
            _ => {}
        }
    }

    fn end_field(&mut self) {
        let word = self.word.get(..self.word_length).unwrap_or_default();
        self.shows_kernel |= self.separated && matches!(word, b"proc" | b"sysfs");
        // Only the first field behind it is the type; the source of a mount can be any text.
        self.separated = self.field > 5 && word == b"-";
        (self.field, self.word_length) = (self.field + 1, 0);
    }

    /// White space and backslashes are written as `\040`.
    fn unescape(&mut self) {
        if let Some([b'\\', a, b, c]) = self.name.get(self.length.saturating_sub(4)..self.length) {
            let digit = |byte: &u8| byte.wrapping_sub(b'0') & 7;
            let decoded = digit(a) << 6 | digit(b) << 3 | digit(c);
            self.name[self.length - 4] = decoded;
            self.name[self.length - 3..self.length].fill(0);
            self.length -= 3;
        }
    }
}

/// Calls `f` with each mount of the namespace. Returns how often `f` returned true.
fn each(procfs: i32, mut f: impl FnMut(&Line) -> Done<bool>) -> Done<u32> {
    let file = openat(procfs, b"self/mountinfo\0", k::O_RDONLY)?;
    let (mut line, mut chunk, mut count) = (Line::EMPTY, [0u8; 4096], 0);
    loop {
        let length = read(file, &mut chunk)?;
        if length == 0 {
            close(file);
            return Ok(count);
        }
        for byte in chunk.iter().take(length) {
            if *byte != b'\n' {
                line.take(*byte);
                continue;
            }
            count += u32::from(f(&line)?);
            line = Line::EMPTY;
        }
    }
}

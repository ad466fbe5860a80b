//! What lies below a root that was moved over `/`: the host's mounts, in the container's mount namespace. The kernel
//! allows a new procfs or sysfs in a user namespace where another one is visible (mount_too_revealing), and does not
//! see that chroot(2) hides it; so those mounts are taken off.

use crate::kernel::*;
use linux_raw_sys::general as k;

const LONGEST: usize = 4096;

/// Takes all mounts on the mount behind `old` off, but the one behind `root`. What an owner of another user namespace
/// has locked (mount_namespaces(7)) is covered.
pub fn take_off(procfs: i32, old: i32, root: i32) -> Done {
    let (old_id, root_id) = (statx(old)?.stx_mnt_id, statx(root)?.stx_mnt_id);
    mount_setattr(old, false, 0, 0, u64::from(k::MS_PRIVATE), -1)?;
    // From here names are those of the old root, also while another one is mounted over it.
    fchdir(old)?;
    // What was hidden below another mount has a name once that is off.
    while each(procfs, (old_id, root_id), detach)? > 0 {}
    each(procfs, (old_id, root_id), cover).map(drop)
}

/// Lets go of a mount and all below it. It is private first: the host's own must stay.
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

/// A line of mountinfo (proc_pid_mountinfo(5)) as far as it has been read.
struct Line {
    field: u32,
    id: u64,
    parent: u64,
    name: [u8; LONGEST],
    length: usize,
}

impl Line {
    const EMPTY: Self = Self { field: 0, id: 0, parent: 0, name: [0; LONGEST], length: 0 };

    fn take(&mut self, byte: u8) {
        match (byte, self.field) {
            (b' ', _) => self.field += 1,
            (b'0'..=b'9', 0) => self.id = self.id * 10 + u64::from(byte - b'0'),
            (b'0'..=b'9', 1) => self.parent = self.parent * 10 + u64::from(byte - b'0'),
            // Without the first slash it is relative; there is a NUL behind it.
            (b'/', 4) if self.length == 0 => {}
            (_, 4) if self.length + 1 < LONGEST => {
                self.name[self.length] = byte;
                self.length += 1;
                self.unescape();
            }
            _ => {}
        }
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

/// Calls `f` with the name of each mount on `old`, but `root`; how often it returned true.
fn each(procfs: i32, (old, root): (u64, u64), f: fn(&[u8]) -> Done<bool>) -> Done<u32> {
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
            if line.parent == old && line.id != root && line.length > 0 {
                count += u32::from(f(&line.name)?);
            }
            line = Line::EMPTY;
        }
    }
}

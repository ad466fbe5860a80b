//! Mounts, each made detached, given its attributes, and attached from descriptor to descriptor.

use crate::identity;
use crate::kernel::*;
use crate::paths::{self, Missing, Target};
use crate::state::State;
use linux_raw_sys::general as k;
use onggi_stage::{Attrs, NamespaceFlags, Place, Source};

/// [`onggi_stage::SCRATCH_ROOT`], ending in NUL.
const SCRATCH_ROOT: &[u8] = b"root\0";

pub fn open_source(host_path: &[u8], nofollow: bool) -> Done<i32> {
    openat(AT_FDCWD, host_path, k::O_PATH | if nofollow { k::O_NOFOLLOW } else { 0 })
}

pub fn open_source_tree(host_path: &[u8], nofollow: bool, recursive: bool) -> Done<i32> {
    open_tree_with(AT_FDCWD, host_path, recursive, if nofollow { k::AT_SYMLINK_NOFOLLOW } else { 0 })
}

/// Clones the mount tree at an opened source, and closes the source.
pub fn clone_source(opened: i32, recursive: bool, attrs: Attrs) -> Done<i32> {
    let tree = open_tree(opened, b"\0", recursive)?;
    close_later(opened);
    set_attributes(tree, attrs)?;
    Ok(tree)
}

pub fn open_idmapped(host_path: &[u8], recursive: bool, attrs: Attrs, userns: i32, all: bool) -> Done<i32> {
    let tree = open_tree(AT_FDCWD, host_path, recursive)?;
    mount_setattr(tree, all, u64::from(k::MOUNT_ATTR_IDMAP), 0, 0, userns)?;
    set_attributes(tree, attrs)?;
    Ok(tree)
}

/// Clones a device node of the host, after a check that it is this device, through the same descriptor that is cloned.
pub fn open_device(host_path: &[u8], mode: u32, major: u32, minor: u32) -> Done<i32> {
    let node = openat(AT_FDCWD, host_path, k::O_PATH)?;
    let found = statx(node)?;
    let kind = u32::from(found.stx_mode) & k::S_IFMT;
    if kind != mode & k::S_IFMT || (found.stx_rdev_major, found.stx_rdev_minor) != (major, minor) {
        return Err(Failed { call: Sysno::statx, errno: ENODEV });
    }
    let tree = open_tree(node, b"\0", false)?;
    close_later(node);
    mount_setattr(tree, false, 0, 0, u64::from(k::MS_PRIVATE), -1)?;
    Ok(tree)
}

/// Sets the attributes of the whole tree, then those that its top mount has besides; the planner sees to it that the two do
/// not contradict each other.
pub fn set_attributes(fd: i32, attrs: Attrs) -> Done {
    if attrs.first != 0 {
        mount_setattr(fd, true, 0, 0, attrs.first, -1)?;
    }
    if attrs.rec_set != 0 || attrs.rec_clear != 0 {
        mount_setattr(fd, true, attrs.rec_set, attrs.rec_clear, 0, -1)?;
    }
    let recursive = attrs.propagation & u64::from(k::MS_REC) != 0;
    let propagation = attrs.propagation & !u64::from(k::MS_REC);
    if recursive && propagation != 0 {
        mount_setattr(fd, true, 0, 0, propagation, -1)?;
    }
    let once = if recursive { 0 } else { propagation };
    if attrs.set != 0 || attrs.clear != 0 || once != 0 {
        mount_setattr(fd, false, attrs.set, attrs.clear, once, -1)?;
    }
    Ok(())
}

/// Sets the propagation of all mounts of this namespace, from its root down.
pub fn set_propagation(propagation: u64) -> Done {
    let root = openat(AT_FDCWD, b"/\0", k::O_PATH)?;
    mount_setattr(root, true, 0, 0, propagation & !u64::from(k::MS_REC), -1)?;
    close_later(root);
    Ok(())
}

/// Walks up from the root's directory to the root of its mount, and makes that mount private: pivot_root(2) refuses a
/// shared parent, and a shared one would show the container's mounts to the host.
pub fn private_parent(host_path: &[u8]) -> Done {
    let mut at = openat(AT_FDCWD, host_path, k::O_PATH | k::O_DIRECTORY)?;
    while statx(at)?.stx_attributes & u64::from(k::STATX_ATTR_MOUNT_ROOT) == 0 {
        let up = openat(at, b"..\0", k::O_PATH | k::O_DIRECTORY)?;
        close_later(at);
        at = up;
    }
    mount_setattr(at, false, 0, 0, u64::from(k::MS_PRIVATE), -1)?;
    close_later(at);
    Ok(())
}

pub fn clone_rootfs(state: &mut State, host_path: &[u8], propagation: u64) -> Done {
    let flags = k::O_PATH | k::O_DIRECTORY | k::O_NOFOLLOW;
    let place = openat(AT_FDCWD, host_path, flags)?;
    let tree = open_tree(place, b"\0", true)?;
    mount_setattr(tree, true, 0, 0, propagation & !u64::from(k::MS_REC), -1)?;
    (state.rootfs, state.rootfs_place) = (tree, place);
    Ok(())
}

/// Nothing is attached before the copy is made and private.
pub fn enter_bare(state: &mut State, namespace: i32) -> Done {
    let mounts = NamespaceFlags(k::CLONE_NEWNS.into());
    identity::setns(namespace, mounts)?;
    identity::unshare(mounts)?;
    close_later(state.rootfs_place);
    state.rootfs_place = openat(AT_FDCWD, b"/\0", k::O_PATH | k::O_DIRECTORY)?;
    mount_setattr(state.rootfs_place, true, 0, 0, u64::from(k::MS_PRIVATE), -1)
}

/// Later steps start from the working directory.
pub fn attach_rootfs(state: &State) -> Done {
    move_mount(state.rootfs, state.rootfs_place)?;
    close_later(state.rootfs_place);
    fchdir(state.rootfs)?;
    close_later(state.rootfs);
    Ok(())
}

/// In a new mount namespace of another user namespace, only the working directory and what is below it can be found
/// again. So the root and the parked sources are below a scratch filesystem.
pub fn attach_rootfs_in_scratch(state: &State) -> Done {
    let fs = fsopen(b"tmpfs\0")?;
    fsconfig(fs, FSCONFIG_SET_STRING, b"mode\0", b"0755\0")?;
    let scratch = fsmount(fs, 0)?;
    close_later(fs);
    mount_setattr(scratch, false, 0, 0, u64::from(k::MS_PRIVATE), -1)?;
    move_mount(scratch, state.rootfs_place)?;
    close_later(state.rootfs_place);
    fchdir(scratch)?;
    mkdirat(scratch, SCRATCH_ROOT, 0o755)?;
    move_mount_to(state.rootfs, scratch, SCRATCH_ROOT)?;
    close_later(scratch);
    close_later(state.rootfs);
    Ok(())
}

pub fn unlock_root(state: &mut State) -> Done {
    state.scratch = openat(AT_FDCWD, b".\0", k::O_PATH | k::O_DIRECTORY)?;
    let locked = openat(state.scratch, SCRATCH_ROOT, k::O_PATH | k::O_DIRECTORY)?;
    let tree = open_tree(locked, b"\0", true)?;
    move_mount(tree, locked)?;
    close_later(locked);
    fchdir(tree)?;
    close_later(tree);
    Ok(())
}

/// The name of a parked source: its number.
fn parked_name(source: Source) -> [u8; 6] {
    let mut name = *b"00000\0";
    let mut rest = source.0;
    for digit in name.iter_mut().rev().skip(1) {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    name
}

pub fn park_source(state: &mut State, source: Source, by_name: bool) -> Done {
    let tree = state.take_source(source)?;
    let name = parked_name(source);
    if is_directory(tree)? {
        mkdirat(AT_FDCWD, &name, 0o755)?;
    } else {
        mknodat(AT_FDCWD, &name, k::S_IFREG | 0o644, 0, 0)?;
    }
    move_mount_to(tree, AT_FDCWD, &name)?;
    if by_name {
        close_later(tree);
        return Ok(());
    }
    state.put_source(source, tree)
}

pub fn fetch_source(state: &mut State, source: Source) -> Done<i32> {
    let parked = match state.take_source(source) {
        Ok(kept) => kept,
        // A symbolic link that is mounted there is the source itself.
        Err(_) => openat(state.scratch, &parked_name(source), k::O_PATH | k::O_NOFOLLOW)?,
    };
    let tree = open_tree(parked, b"\0", true)?;
    close_later(parked);
    Ok(tree)
}

/// A mode as an option of a mount.
fn mode_text(mode: u16) -> [u8; 5] {
    let digit = |shift: u16| b'0' + (mode >> shift & 7) as u8;
    [digit(9), digit(6), digit(3), digit(0), 0]
}

/// A new filesystem. What it takes of the directory that it covers, its mode or content, is that of the one on which it is
/// then attached, whatever its path leads to meanwhile.
pub fn mount_new(
    state: &mut State,
    (fstype, options, flags): (&[u8], &[u8], u64),
    attrs: Attrs,
    target: &'static [u8],
    (copy_up, mode_of_target, strict): (bool, bool, bool),
) -> Done {
    let covered = match copy_up || mode_of_target {
        true => paths::resolve_if_there(state.root, target, strict)?,
        false => None,
    };
    let mode = match covered {
        Some(covered) if mode_of_target => Some(mode_text(statx(covered)?.stx_mode)),
        _ => None,
    };
    let mount = filesystem(fstype, options, flags, mode)?;
    if let Some(covered) = covered.filter(|_| copy_up) {
        crate::copy_up::copy_up(covered, mount, mode_of_target)?;
    }
    set_attributes(mount, attrs)?;
    match covered {
        None => attach(state, mount, Missing::Directory, target, strict),
        Some(covered) => {
            state.last.forget();
            attach_at(state, mount, Missing::Directory, covered)
        }
    }
}

/// Attaches a mount tree. A missing `target` is made, as a file or directory `like` the tree's top.
pub fn attach(state: &mut State, tree: i32, like: Missing, target: &'static [u8], strict: bool) -> Done {
    let place = match paths::target(state.root, &mut state.last, target, like, strict)? {
        // Of a name, move_mount(2) follows no symbolic link.
        Target::Made { parent, name } => {
            move_mount_to(tree, parent, name)?;
            state.set_attached(tree);
            return Ok(());
        }
        Target::Opened(place) => place,
    };
    attach_at(state, tree, like, place)
}

fn attach_at(state: &mut State, tree: i32, like: Missing, place: i32) -> Done {
    if let Err(failed) = move_mount(tree, place) {
        // The kernel would return EINVAL for this, which says less.
        return Err(match (like.is_directory()?, is_directory(place)?) {
            (true, false) => Failed { errno: ENOTDIR, ..failed },
            (false, true) => Failed { errno: EISDIR, ..failed },
            _ => failed,
        });
    }
    close_later(place);
    state.set_attached(tree);
    Ok(())
}

pub fn attach_source(
    state: &mut State,
    tree: i32,
    target: &'static [u8],
    (strict, nofollow, directory): (bool, bool, bool),
) -> Done {
    let like = if directory { Missing::Directory } else { Missing::Like(tree) };
    if nofollow && let Some(link) = paths::resolve_link(state.root, target)? {
        state.last.forget();
        move_mount(tree, link)?;
        close_later(link);
        state.set_attached(tree);
        return Ok(());
    }
    attach(state, tree, like, target, strict)
}

/// A new filesystem; `options` is a list of pairs, each text ending in NUL.
pub fn filesystem(fstype: &[u8], options: &[u8], flags: u64, mode: Option<[u8; 5]>) -> Done<i32> {
    let fs = fsopen(fstype)?;
    if let Some(mode) = mode {
        fsconfig(fs, FSCONFIG_SET_STRING, b"mode\0", &mode)?;
    }
    from_context(fs, options, flags)
}

/// The same from a context that fsopen(2) has opened, and closes the context.
pub fn from_context(fs: i32, options: &[u8], flags: u64) -> Done<i32> {
    let mut rest = options;
    while let Some((key, value, after)) = next_pair(rest) {
        // An option without a value is a flag to some filesystems and an empty text to none.
        let command = if value.len() == 1 { FSCONFIG_SET_FLAG } else { FSCONFIG_SET_STRING };
        fsconfig(fs, command, key, value)?;
        rest = after;
    }
    let mount = fsmount(fs, flags)?;
    close_later(fs);
    Ok(mount)
}

/// Mounts on `place`.
pub fn mount_by_text(procfs: i32, what: (&[u8], &[u8], &[u8]), place: i32, flags: u64) -> Done {
    by_name(procfs, place, |name| mount(what, name, mount_flags(flags)))
}

/// Detaches the topmost mount at `target`. Processes that use it keep it.
pub fn unmount(procfs: i32, root: i32, target: &[u8]) -> Done {
    let place = paths::resolve_strictly(root, target)?;
    by_name(procfs, place, |name| call(Call::umount2, [path(name)?, k::MNT_DETACH as usize]).map(drop))
}

/// Names a descriptor by its path in procfs, as mount(2) and umount(2) accept only paths, and closes it then.
fn by_name(procfs: i32, place: i32, change: impl FnOnce(&[u8]) -> Done) -> Done {
    let mut name = *b"self/fd/\0\0\0\0\0\0\0\0\0\0\0\0";
    let digits = (1..).find(|count| place < 10i32.saturating_pow(*count)).unwrap_or(10);
    let mut rest = place;
    for byte in name.iter_mut().skip(8).take(digits as usize).rev() {
        *byte = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let here = openat(AT_FDCWD, b".\0", k::O_PATH)?;
    fchdir(procfs)?;
    change(&name)?;
    fchdir(here)?;
    close_later(here);
    close_later(place);
    Ok(())
}

/// `MOUNT_ATTR_*` as the flags of mount(2).
fn mount_flags(attributes: u64) -> u32 {
    let access_time = attributes & u64::from(k::MOUNT_ATTR__ATIME);
    [
        (k::MOUNT_ATTR_RDONLY, k::MS_RDONLY),
        (k::MOUNT_ATTR_NOSUID, k::MS_NOSUID),
        (k::MOUNT_ATTR_NODEV, k::MS_NODEV),
        (k::MOUNT_ATTR_NOEXEC, k::MS_NOEXEC),
        (k::MOUNT_ATTR_NODIRATIME, k::MS_NODIRATIME),
        (k::MOUNT_ATTR_NOSYMFOLLOW, k::MS_NOSYMFOLLOW),
    ]
    .iter()
    .filter(|(attribute, _)| attributes & u64::from(*attribute) != 0)
    .map(|(_, flag)| *flag)
    .chain((access_time == u64::from(k::MOUNT_ATTR_NOATIME)).then_some(k::MS_NOATIME))
    .chain((access_time == u64::from(k::MOUNT_ATTR_STRICTATIME)).then_some(k::MS_STRICTATIME))
    .fold(0, |flags, flag| flags | flag)
}

fn next_pair(list: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (key, rest) = list.split_at_checked(list.iter().position(|byte| *byte == 0)? + 1)?;
    let (value, rest) = rest.split_at_checked(rest.iter().position(|byte| *byte == 0)? + 1)?;
    Some((key, value, rest))
}

pub fn set_attributes_at(state: &State, place: &Place<&[u8]>, attrs: Attrs) -> Done {
    let mount = state.open(place)?;
    set_attributes(mount, attrs)?;
    close_later(mount);
    Ok(())
}

/// Enters the container's root. The old root is mounted over it for a moment, and unmounted.
pub fn pivot_root(root: i32) -> Done {
    let old = openat(AT_FDCWD, b"/\0", k::O_PATH)?;
    fchdir(root)?;
    let here = path(b".\0")?;
    call(Call::pivot_root, [here, here])?;
    // Where the old root is shared, unmounting it would unmount the host's filesystems as well.
    mount_setattr(old, true, 0, 0, u64::from(k::MS_SLAVE), -1)?;
    close_later(old);
    unmount_old_root()?;
    let root = path(b"/\0")?;
    call(Call::chdir, [root]).map(drop)
}

/// The topmost mount over the working directory.
pub fn unmount_old_root() -> Done {
    call(Call::umount2, [path(b".\0")?, k::MNT_DETACH as usize]).map(drop)
}

/// For an initial RAM filesystem, which pivot_root(2) cannot leave: the container's root is moved over it. The old root
/// stays below, without its mounts.
pub fn move_root(procfs: i32, root: i32) -> Done {
    let old = openat(AT_FDCWD, b"/\0", k::O_PATH)?;
    move_mount(root, old)?;
    crate::below::take_off(procfs, old, root)?;
    close_later(old);
    chroot(root)
}

pub fn chroot(root: i32) -> Done {
    fchdir(root)?;
    call(Call::chroot, [path(b".\0")?])?;
    call(Call::chdir, [path(b"/\0")?]).map(drop)
}

/// Hides a path if it exists. One empty filesystem serves all directories, one null device all
/// files: the first is attached as it is, the others are clones of that.
pub fn mask_path(state: &mut State, place: &Place<&[u8]>, null: Source) -> Done {
    let place = match state.open(place) {
        Err(Failed { errno: ENOENT | ENOTDIR, .. }) => return Ok(()),
        other => other?,
    };
    let directory = is_directory(place)?;
    let first = if directory { state.masked_directory } else { state.masked_file };
    let tree = match (first, directory) {
        (Some(fd), _) => open_tree(fd, b"\0", false)?,
        (None, true) => filesystem(
            b"tmpfs\0",
            b"nr_blocks\x001\0nr_inodes\x001\0",
            u64::from(k::MOUNT_ATTR_RDONLY),
            None,
        )?,
        (None, false) => state.take_source(null)?,
    };
    move_mount(tree, place)?;
    close_later(place);
    match (first, directory) {
        (Some(_), _) => close_later(tree),
        (None, true) => state.masked_directory = Some(tree),
        (None, false) => state.masked_file = Some(tree),
    }
    Ok(())
}

/// Makes a path read-only if it exists, by mounting a read-only clone of it over it.
pub fn readonly_path(state: &State, place: &Place<&[u8]>, recursive: bool) -> Done {
    let place = match state.open(place) {
        Err(Failed { errno: ENOENT | ENOTDIR, .. }) => return Ok(()),
        other => other?,
    };
    let tree = open_tree(place, b"\0", true)?;
    mount_setattr(tree, recursive, u64::from(k::MOUNT_ATTR_RDONLY), 0, 0, -1)?;
    move_mount(tree, place)?;
    close_later(place);
    close_later(tree);
    Ok(())
}

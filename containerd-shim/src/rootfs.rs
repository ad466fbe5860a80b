//! The container's root file system: mounts as containerd describes them (mount(8)), one after the other, into the
//! bundle's `rootfs`, in the shim's own mount namespace, where containerd looks into it. Must not resolve a path below
//! the container's root: a symbolic link of the image would lead it to the host.

use crate::failure::{Failure, Result};
use crate::mount_options::Options;
use crate::sys::mounts;
use crate::wire::Mount;
use crate::{id_map, loop_device, overlay};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Types that a helper of mount(8) mounts.
const HELPERS: &[(&str, &str)] = &[("fuse.", "mount.fuse"), ("fuse3.", "mount.fuse3")];

/// What a helper may say of its failure.
const LONGEST_TEXT: u64 = 1024;

/// Mounts all, or none. Returns how many there are now that were not there before.
pub fn mount_all(wanted: &[Mount], rootfs: &Path) -> Result<usize> {
    let mut made = 0;
    for (at, one) in wanted.iter().enumerate() {
        if let Err(failure) = mount_one(one, rootfs, &mut made) {
            unmount_last(rootfs, made);
            return Err(failure.within(&format!("rootfs[{at}]")));
        }
    }
    Ok(made)
}

/// Counts what it has mounted, also where it fails after that.
fn mount_one(wanted: &Mount, rootfs: &Path, made: &mut usize) -> Result<()> {
    if !wanted.target.trim_matches('/').is_empty() {
        let target = &wanted.target;
        return Err(Failure::invalid(format!(
            "a mount on {target}, below the container's root, is not supported"
        )));
    }
    let helper =
        HELPERS.iter().find_map(|(prefix, helper)| Some((helper, wanted.r#type.strip_prefix(prefix)?)));
    if let Some((helper, kind)) = helper {
        help(helper, kind, wanted, rootfs)?;
        *made += 1;
        return Ok(());
    }
    let options = Options::parse(&wanted.options)?;
    let is_overlay = wanted.r#type == "overlay";
    if is_overlay && (options.maps.is_some() || options.text().len() > overlay::LONGEST) {
        attach(&overlay::make(&options, rootfs)?, rootfs)?;
        *made += 1;
    } else {
        mount_by_call(wanted, &options, rootfs, made)?;
        if let Some(maps) = &options.maps {
            let recursive = options.flags.contains(MsFlags::MS_REC);
            let user_namespace = id_map::user_namespace(maps)?;
            let copy = id_map::clone(&rootfs.to_string_lossy(), Some(&user_namespace), recursive)?;
            umount2(rootfs, MntFlags::MNT_DETACH)
                .map_err(|errno| Failure::os(format!("umount2 {}", rootfs.display()), errno))?;
            *made -= 1;
            attach(&copy, rootfs)?;
            *made += 1;
        }
    }
    for flag in options.propagation {
        change(rootfs, flag)?;
    }
    Ok(())
}

/// mount(2).
fn mount_by_call(wanted: &Mount, options: &Options, rootfs: &Path, made: &mut usize) -> Result<()> {
    let failed = |errno| Failure::os(format!("mount {} on {}", wanted.source, rootfs.display()), errno);
    let data = options.text();
    if data.len() > overlay::LONGEST {
        return Err(Failure::invalid(format!("the options of {} are longer than a page", wanted.source)));
    }
    let is_read_only = options.flags.contains(MsFlags::MS_RDONLY);
    let device = options.is_loop.then(|| loop_device::attach(&wanted.source, is_read_only)).transpose()?;
    let source = device.as_ref().map_or(wanted.source.as_str(), |(_, path)| path);
    let data = (!data.is_empty()).then_some(data.as_str());
    mount(Some(source), rootfs, Some(wanted.r#type.as_str()), options.flags, data).map_err(failed)?;
    *made += 1;
    // A bind mount takes its flags from what is bound, until it is remounted.
    let more = options.flags & !(MsFlags::MS_BIND | MsFlags::MS_REC);
    if options.flags.contains(MsFlags::MS_BIND) && !more.is_empty() {
        change(rootfs, options.flags | MsFlags::MS_REMOUNT)?;
    }
    Ok(())
}

/// Of what is mounted there.
fn change(rootfs: &Path, flags: MsFlags) -> Result<()> {
    mount(None::<&str>, rootfs, None::<&str>, flags, None::<&str>)
        .map_err(|errno| Failure::os(format!("mount {} {flags:?}", rootfs.display()), errno))
}

fn attach(made: &OwnedFd, rootfs: &Path) -> Result<()> {
    let place = CString::new(rootfs.as_os_str().as_bytes());
    let place = place.map_err(|_| Failure::invalid("the bundle's path has a zero byte"))?;
    mounts::attach_mount(made, &place)
        .map_err(|errno| Failure::os(format!("move_mount {}", rootfs.display()), errno))
}

/// By a program beside mount(8). Its server goes on in the background until it is unmounted.
fn help(helper: &str, kind: &str, wanted: &Mount, rootfs: &Path) -> Result<()> {
    let options = wanted.options.iter().filter(|option| !option.starts_with("X-containerd."));
    let mut command = Command::new(helper);
    command
        .arg(&wanted.source)
        .arg(rootfs)
        .args(options.flat_map(|option| ["-o", option]))
        .args(["-t", kind]);
    // Not a pipe: a server that keeps it open would have to end first.
    let said =
        memfd_create(c"stderr", MFdFlags::MFD_CLOEXEC).map_err(|errno| Failure::os("memfd_create", errno))?;
    let mut said = File::from(said);
    let copy = said.try_clone().map_err(|error| Failure::os("dup", error))?;
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(copy).status();
    let status = status.map_err(|error| Failure::os(format!("execute {helper}"), error))?;
    if status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    // An empty text is no worse than none.
    let _ = said.rewind().and_then(|()| said.by_ref().take(LONGEST_TEXT).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    Err(Failure::unknown(format!("{helper} {}: {status}: {}", wanted.source, text.trim())))
}

/// All that is mounted there, also what is in use.
pub fn unmount(rootfs: &Path) {
    let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
    while umount2(rootfs, flags).is_ok() {}
}

/// Not what somebody else has mounted there before.
pub fn unmount_last(rootfs: &Path, count: usize) {
    let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
    for _ in 0..count {
        // The first error is the one to report.
        let _ = umount2(rootfs, flags);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The target would be found through the image's own links.
    #[test]
    fn a_mount_below_the_root_is_refused() {
        let directory = Path::new("/nowhere");
        let below = Mount { target: "/var/lib".into(), source: "/srv".into(), ..Mount::default() };
        let failure = mount_all(&[below], directory).expect_err("refused");
        assert!(failure.text.contains("below the container's root"), "{}", failure.text);
    }
}

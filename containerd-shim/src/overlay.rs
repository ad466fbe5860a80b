//! Overlays that mount(2) cannot make by one call: those whose options are longer than a page, and those with idmapped
//! layers. Both result in a mount that is attached nowhere yet.

use crate::failure::{Failure, Result};
use crate::id_map;
use crate::mount_options::Options;
use crate::sys::mounts;
use crate::worker;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::ffi::CString;
use std::fs::{DirBuilder, File};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A page, less a byte: what mount(2) takes of the file system's own options.
pub const LONGEST: usize = 4095;
/// What fsconfig(2) takes of one.
const LONGEST_VALUE: usize = 255;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Layer {
    path: String,
    /// Only the data of files is looked for in it, never their names.
    is_data: bool,
}

/// The lower layers, top first, and the other options.
fn split(data: &[String]) -> (Vec<Layer>, Vec<&str>) {
    let (mut layers, mut others) = (Vec::new(), Vec::new());
    for option in data {
        match option.strip_prefix("lowerdir=") {
            Some(list) => layers = layers_of(list),
            None => others.push(option.as_str()),
        }
    }
    (layers, others)
}

/// `a:b::data`, with `\:` for a colon in a name.
fn layers_of(list: &str) -> Vec<Layer> {
    let (mut layers, mut path, mut is_data) = (Vec::new(), String::new(), false);
    let mut characters = list.chars().chain([':']);
    while let Some(character) = characters.next() {
        match character {
            '\\' => path.extend(characters.next()),
            ':' if path.is_empty() => is_data = true,
            ':' => layers.push(Layer { path: std::mem::take(&mut path), is_data }),
            other => path.push(other),
        }
    }
    layers
}

/// A new overlay, by whatever way this kernel has.
pub fn make(options: &Options, rootfs: &Path) -> Result<OwnedFd> {
    if let Some(maps) = &options.maps {
        let user_namespace = id_map::user_namespace(maps)?;
        return in_own_namespace(options, Some(&user_namespace), rootfs);
    }
    match configure(options)? {
        Some(made) => Ok(made),
        None => in_own_namespace(options, None, rootfs),
    }
}

/// By fsconfig(2), which takes one layer a call. `None`: this kernel has no `lowerdir+` (Linux 6.8).
fn configure(options: &Options) -> Result<Option<OwnedFd>> {
    let (layers, others) = split(&options.data);
    let context = match mounts::fsopen(c"overlay") {
        Err(Errno::ENOSYS) => return Ok(None),
        opened => opened.map_err(|errno| Failure::os("fsopen overlay", errno))?,
    };
    // Directories behind names that are too long, until the kernel has looked them up.
    let mut opened = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let key = if layer.is_data { "datadir+" } else { "lowerdir+" };
        match set(&context, key, Some(&layer.path), &mut opened) {
            Err((_, Errno::EINVAL)) if at == 0 => return Ok(None),
            done => done.map_err(|(failure, _)| failure)?,
        }
    }
    let flags =
        [(MsFlags::MS_RDONLY, "ro"), (MsFlags::MS_SYNCHRONOUS, "sync"), (MsFlags::MS_DIRSYNC, "dirsync")];
    let flags = flags.iter().filter(|(flag, _)| options.flags.contains(*flag)).map(|(_, name)| *name);
    for option in others.into_iter().chain(flags) {
        let (key, value) = option.split_once('=').map_or((option, None), |(key, value)| (key, Some(value)));
        set(&context, key, value, &mut opened).map_err(|(failure, _)| failure)?;
    }
    mounts::fsconfig_create(&context).map_err(|errno| failed("fsconfig overlay", errno, &context))?;
    let made = mounts::fsmount(&context, options.attributes());
    made.map(Some).map_err(|errno| failed("fsmount overlay", errno, &context))
}

type Set = std::result::Result<(), (Failure, Errno)>;

fn set(context: &OwnedFd, key: &str, value: Option<&str>, opened: &mut Vec<File>) -> Set {
    let call = || format!("fsconfig overlay {key}={}", value.unwrap_or_default());
    let mut text = value.map(String::from);
    if let Some(path) = value.filter(|value| value.len() > LONGEST_VALUE && value.starts_with('/')) {
        let directory = File::options().read(true).custom_flags(libc::O_PATH).open(path);
        let directory =
            directory.map_err(|error| (Failure::os(format!("open {path}"), error), Errno::EIO))?;
        text = Some(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        opened.push(directory);
    }
    let zero = |_| (Failure::invalid(format!("{} has a zero byte", call())), Errno::EIO);
    let name = CString::new(key).map_err(zero)?;
    let text = text.map(CString::new).transpose().map_err(zero)?;
    mounts::fsconfig_set(context, &name, text.as_deref())
        .map_err(|errno| (failed(&call(), errno, context), errno))
}

/// With what the kernel has written about it.
fn failed(call: &str, errno: Errno, context: &OwnedFd) -> Failure {
    let failure = Failure::os(call, errno);
    let mut message = [0; 256];
    let copy = context.try_clone().map(File::from);
    match copy.and_then(|mut context| context.read(&mut message)) {
        Ok(length) if length > 0 => failure.hint(String::from_utf8_lossy(&message[..length]).trim()),
        _ => failure,
    }
}

/// By mount(2), in a mount namespace that ends with its thread: the layers have short names there, and the kernel takes
/// idmapped layers only where they are attached (before Linux 6.15). Nothing is left of it when the shim is killed.
fn in_own_namespace(options: &Options, user_namespace: Option<&OwnedFd>, rootfs: &Path) -> Result<OwnedFd> {
    std::thread::scope(|scope| {
        let make = || make_in_own_namespace(options, user_namespace, rootfs);
        let thread = std::thread::Builder::new().spawn_scoped(scope, make).map_err(worker::refused)?;
        let panicked = |_| Err(Failure::unknown("the thread that mounts an overlay has panicked"));
        thread.join().unwrap_or_else(panicked)
    })
}

fn make_in_own_namespace(
    options: &Options,
    user_namespace: Option<&OwnedFd>,
    rootfs: &Path,
) -> Result<OwnedFd> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| Failure::os("unshare CLONE_NEWNS", errno))?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
        .map_err(|errno| Failure::os("mount / MS_SLAVE", errno))?;
    // The directory of the container's root is empty.
    mount(Some("tmpfs"), rootfs, Some("tmpfs"), MsFlags::empty(), Some("mode=0700"))
        .map_err(|errno| Failure::os(format!("mount tmpfs on {}", rootfs.display()), errno))?;
    nix::unistd::chdir(rootfs).map_err(|errno| Failure::os(format!("chdir {}", rootfs.display()), errno))?;
    let (layers, others) = split(&options.data);
    let mut names = String::new();
    for (at, layer) in layers.iter().enumerate() {
        let copy = id_map::clone(&layer.path, user_namespace, false)?;
        attach(&copy, &at.to_string())?;
        let needs_mark = layer.is_data && at > 0;
        names += &format!("{}{}{at}", if at > 0 { ":" } else { "" }, if needs_mark { ":" } else { "" });
    }
    let mut data = others;
    let names = format!("lowerdir={names}");
    data.push(&names);
    let data = data.join(",");
    if data.len() > LONGEST {
        return Err(Failure::invalid(
            "the options of the overlay are longer than a page, without its layers",
        ));
    }
    make_directory("overlay")?;
    mount(Some("overlay"), "overlay", Some("overlay"), options.flags, Some(data.as_str()))
        .map_err(|errno| Failure::os("mount overlay", errno))?;
    id_map::clone("overlay", None, false)
}

fn attach(copy: &OwnedFd, name: &str) -> Result<()> {
    make_directory(name)?;
    let place = CString::new(name).map_err(|_| Failure::invalid("a zero byte"))?;
    mounts::attach_mount(copy, &place).map_err(|errno| Failure::os(format!("move_mount {name}"), errno))
}

fn make_directory(name: &str) -> Result<()> {
    DirBuilder::new().create(name).map_err(|error| Failure::os(format!("mkdir {name}"), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_split_as_the_kernel_splits_them() {
        let layer = |path: &str, is_data| Layer { path: path.into(), is_data };
        assert_eq!(layers_of("/a:/b"), [layer("/a", false), layer("/b", false)]);
        assert_eq!(layers_of(r"/a\:1:/b\\"), [layer("/a:1", false), layer(r"/b\", false)]);
        assert_eq!(layers_of("/a::/d::/e"), [layer("/a", false), layer("/d", true), layer("/e", true)]);
        assert_eq!(layers_of(""), []);
    }
}

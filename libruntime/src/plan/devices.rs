//! The device nodes of a container: those that every container has, and those of the configuration.

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType};
use std::path::PathBuf;

/// A node to be made.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub origin: String,
    pub path: PathBuf,
    /// Kind and permissions.
    pub mode: u32,
    pub major: u32,
    pub minor: u32,
    pub uid: u32,
    pub gid: u32,
}

/// The default devices of the spec (config-linux.md, "Default Devices"); the console is made with
/// the terminal, and ptmx is a link.
const DEFAULT: &[(&str, u32, u32)] = &[
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Where the default devices come from.
pub(super) const DEFAULT_ORIGIN: &str = "linux.devices";

/// The nodes of a configuration; one of its own replaces the default at the same path. `/dev/ptmx`, which is among a
/// host's devices, stays the link to that of the container's terminals.
pub(super) fn wanted(linux: &Linux) -> Vec<Device> {
    let is_ptmx =
        |device: &Device| device.path.as_os_str() == "/dev/ptmx" && (device.major, device.minor) == (5, 2);
    let all = linux.devices().iter().flatten().enumerate().map(configured);
    let configured: Vec<Device> = all.filter(|device| !is_ptmx(device)).collect();
    let default = DEFAULT.iter().map(|(path, major, minor)| Device {
        origin: DEFAULT_ORIGIN.into(),
        path: path.into(),
        mode: libc::S_IFCHR | 0o666,
        major: *major,
        minor: *minor,
        uid: 0,
        gid: 0,
    });
    let not_replaced = |device: &Device| configured.iter().all(|other| other.path != device.path);
    default.filter(not_replaced).chain(configured.iter().cloned()).collect()
}

fn configured((at, device): (usize, &LinuxDevice)) -> Device {
    let kind = match device.typ() {
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::P => libc::S_IFIFO,
        _ => libc::S_IFCHR,
    };
    Device {
        origin: format!("linux.devices[{at}]"),
        // Without a slash at the end, which to the kernel means a directory.
        path: device.path().components().collect(),
        mode: kind | device.file_mode().unwrap_or(0o666) & 0o777,
        major: device.major() as u32,
        minor: device.minor() as u32,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    }
}

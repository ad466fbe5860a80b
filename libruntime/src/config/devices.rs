//! Checks of `linux.devices`.

use super::found::{Found, each};
use super::process::NO_ID;
use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType};
use std::collections::HashMap;

/// The kernel's dev_t: 12 bits and 20 bits.
pub(crate) const MAX_MAJOR: i64 = (1 << 12) - 1;
pub(crate) const MAX_MINOR: i64 = (1 << 20) - 1;

pub(crate) fn check(linux: &Linux, found: &mut Found) {
    let devices = each(linux.devices());
    let mut seen = HashMap::with_capacity(devices.len());
    for (i, device) in devices.iter().enumerate() {
        check_one(device, i, found);
        let first = *seen.entry(device.path()).or_insert(i);
        if first == i {
            continue;
        }
        let other = &devices[first];
        let same =
            (device.typ(), device.major(), device.minor()) == (other.typ(), other.major(), other.minor());
        let at = format_args!("linux.devices[{i}].path");
        let text = format_args!("{:?} is already in linux.devices[{first}]", device.path());
        // The spec wants an error where something else is already at the path, and only there.
        if same { found.warning(at, text) } else { found.problem(at, text) }
    }
}

fn check_one(device: &LinuxDevice, i: usize, found: &mut Found) {
    found.absolute(device.path(), format_args!("linux.devices[{i}].path"));
    match device.typ() {
        LinuxDeviceType::A => found
            .problem(format_args!("linux.devices[{i}].type"), "\"a\" is no device; it is one of c, b, u, p"),
        LinuxDeviceType::P => {}
        LinuxDeviceType::B | LinuxDeviceType::C | LinuxDeviceType::U => {
            for (value, name, max) in
                [(device.major(), "major", MAX_MAJOR), (device.minor(), "minor", MAX_MINOR)]
            {
                if !(0..=max).contains(&value) {
                    let text = format_args!("{value} is not from 0 to {max}");
                    found.problem(format_args!("linux.devices[{i}].{name}"), text);
                }
            }
        }
    }
    // fileMode is not checked: engines send the bits of the file's type, and Go's own bits, along.
    for (id, name) in [(device.uid(), "uid"), (device.gid(), "gid")] {
        if id == Some(NO_ID) {
            found.problem(format_args!("linux.devices[{i}].{name}"), "4294967295 is no id");
        }
    }
}

//! Tells "absent" from "0". oci-spec's types give required numbers a default, so that an
//! id map without `hostID` would map to the host's root. Where a value is the
//! default, the text itself is asked.
//!
//! A name written with escapes (`"\u0075id"`) is not recognised.

use super::found::{Found, each};
use super::text::Text;
use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxDeviceType, LinuxIdMapping, LinuxResources, Process, Spec,
};
use std::fmt::Display;

pub(crate) fn check_spec(bytes: &[u8], spec: &mut Spec, found: &mut Found) {
    let text = Text::new(bytes);
    if let Some(process) = spec.process() {
        self::process(text.get("process"), process, found);
    }
    let mounts = each(spec.mounts());
    if mounts.iter().any(|mount| mount.uid_mappings().is_some() || mount.gid_mappings().is_some()) {
        for (i, (mount, text)) in mounts.iter().zip(text.get("mounts").items()).enumerate() {
            let at = format!("mounts[{i}]");
            mappings(
                text.get("uidMappings"),
                each(mount.uid_mappings()),
                &format!("{at}.uidMappings"),
                found,
            );
            mappings(
                text.get("gidMappings"),
                each(mount.gid_mappings()),
                &format!("{at}.gidMappings"),
                found,
            );
        }
    }
    if let Some(linux) = spec.linux_mut() {
        self::linux(text, linux, found);
    }
}

pub(crate) fn check_process(bytes: &[u8], process: &Process, found: &mut Found) {
    self::process(Text::new(bytes), process, found);
}

pub(crate) fn check_resources(bytes: &[u8], resources: &mut LinuxResources, found: &mut Found) {
    self::resources(|| Text::new(bytes), resources, found);
}

fn process(text: Text, process: &Process, found: &mut Found) {
    let at = "process";
    // An absent user or id is root, as with the peers.
    let rlimits = each(process.rlimits());
    if rlimits.iter().any(|rlimit| rlimit.soft() == 0) {
        for (i, (rlimit, text)) in rlimits.iter().zip(text.get("rlimits").items()).enumerate() {
            need(text, "soft", rlimit.soft() == 0, format_args!("{at}.rlimits[{i}]"), found);
            need(text, "hard", rlimit.hard() == 0, format_args!("{at}.rlimits[{i}]"), found);
        }
    }
    if let Some(io) = process.io_priority() {
        let default = io.class() == IOPriorityClass::IoprioClassBe;
        need(text.get("ioPriority"), "class", default, format_args!("{at}.ioPriority"), found);
    }
    if let Some(size) = process.console_size().filter(|_| process.terminal() == Some(true)) {
        let text = text.get("consoleSize");
        need(text, "height", size.height() == 0, format_args!("{at}.consoleSize"), found);
        need(text, "width", size.width() == 0, format_args!("{at}.consoleSize"), found);
    }
}

fn linux(text: Text, linux: &mut Linux, found: &mut Found) {
    let section = || text.get("linux");
    for (rows, name) in [(linux.uid_mappings(), "uidMappings"), (linux.gid_mappings(), "gidMappings")] {
        if let Some(rows) = rows {
            mappings(section().get(name), rows, &format!("linux.{name}"), found);
        }
    }
    let devices = each(linux.devices());
    let node = |typ| typ != LinuxDeviceType::P;
    if devices.iter().any(|device| node(device.typ()) && (device.major() == 0 || device.minor() == 0)) {
        for (i, (device, text)) in devices.iter().zip(section().get("devices").items()).enumerate() {
            let at = format_args!("linux.devices[{i}]");
            need(text, "major", node(device.typ()) && device.major() == 0, at, found);
            need(text, "minor", node(device.typ()) && device.minor() == 0, at, found);
        }
    }
    if let Some(rdt) = linux.intel_rdt_mut() {
        // oci-spec reads (and writes) enableCmt and enableMbm, which the spec does not have.
        let text = section().get("intelRdt");
        #[allow(deprecated)]
        {
            rdt.set_enable_cmt(text.get("enableCMT").flag().or(*rdt.enable_cmt()));
            rdt.set_enable_mbm(text.get("enableMBM").flag().or(*rdt.enable_mbm()));
        }
    }
    if let Some(resources) = linux.resources_mut() {
        self::resources(|| section().get("resources"), resources, found);
    }
}

/// `allow` of a device rule is not checked, because its default denies.
fn resources<'t>(text: impl Fn() -> Text<'t>, resources: &mut LinuxResources, found: &mut Found) {
    let at = "linux.resources";
    // Without a limit the object has no effect; the default, 0, would be a limit.
    if resources.pids().is_some_and(|pids| pids.limit() == 0) && text().get("pids").get("limit").is_absent() {
        resources.set_pids(None);
    }
    let pages = each(resources.hugepage_limits());
    if pages.iter().any(|page| page.limit() == 0) {
        for (i, (page, text)) in pages.iter().zip(text().get("hugepageLimits").items()).enumerate() {
            need(text, "limit", page.limit() == 0, format_args!("{at}.hugepageLimits[{i}]"), found);
        }
    }
    let priorities = resources.network().as_ref().map_or(&[][..], |network| each(network.priorities()));
    if priorities.iter().any(|priority| priority.priority() == 0) {
        let texts = text().get("network").get("priorities").items();
        for (i, (priority, text)) in priorities.iter().zip(texts).enumerate() {
            let at = format_args!("{at}.network.priorities[{i}]");
            need(text, "priority", priority.priority() == 0, at, found);
        }
    }
    let Some(io) = resources.block_io() else { return };
    let throttle = |device: &oci_spec::runtime::LinuxThrottleDevice| {
        [("major", device.major() == 0), ("minor", device.minor() == 0), ("rate", device.rate() == 0)]
    };
    for (list, name) in [
        (io.throttle_read_bps_device(), "throttleReadBpsDevice"),
        (io.throttle_write_bps_device(), "throttleWriteBpsDevice"),
        (io.throttle_read_iops_device(), "throttleReadIOPSDevice"),
        (io.throttle_write_iops_device(), "throttleWriteIOPSDevice"),
    ] {
        if each(list).is_empty() {
            continue;
        }
        for (i, (device, text)) in each(list).iter().zip(text().get("blockIO").get(name).items()).enumerate()
        {
            for (key, default) in throttle(device) {
                need(text, key, default, format_args!("{at}.blockIO.{name}[{i}]"), found);
            }
        }
    }
    let weights = each(io.weight_device());
    if !weights.is_empty() {
        let texts = text().get("blockIO").get("weightDevice").items();
        for (i, (device, text)) in weights.iter().zip(texts).enumerate() {
            for (key, default) in [("major", device.major() == 0), ("minor", device.minor() == 0)] {
                need(text, key, default, format_args!("{at}.blockIO.weightDevice[{i}]"), found);
            }
        }
    }
}

fn mappings(text: Text, rows: &[LinuxIdMapping], at: &str, found: &mut Found) {
    for (i, (row, text)) in rows.iter().zip(text.items()).enumerate() {
        need(text, "containerID", row.container_id() == 0, format_args!("{at}[{i}]"), found);
        need(text, "hostID", row.host_id() == 0, format_args!("{at}[{i}]"), found);
    }
}

fn need(text: Text, key: &str, default: bool, at: impl Display, found: &mut Found) {
    if default && text.get(key).is_absent() {
        found.missing(format_args!("{at}.{key}"), "missing, but required");
    }
}

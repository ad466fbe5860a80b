//! Checks of `linux.namespaces` and of everything that is meaningless or dangerous without the right
//! one: names, sysctls, clock offsets, network devices, masked paths. User ids are in `identity.rs`.

use super::found::{Found, each, sorted};
use super::sysctl;
use crate::namespaces::{has, is_new, listed};
use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType as Type, Spec};
use std::collections::HashMap;

pub(crate) fn check(spec: &Spec, found: &mut Found) {
    let linux = spec.linux().as_ref();
    let namespaces = listed(spec);
    for (i, namespace) in namespaces.iter().enumerate() {
        let typ = namespace.typ();
        if let Some(first) = namespaces[..i].iter().position(|other| other.typ() == typ) {
            let text = format_args!("{} is already in linux.namespaces[{first}]", type_name(typ));
            found.problem(format_args!("linux.namespaces[{i}].type"), text);
        }
        if let Some(path) = namespace.path() {
            found.absolute(path, format_args!("linux.namespaces[{i}].path"));
        }
    }
    names(spec, namespaces, found);
    if let Some(linux) = linux {
        sysctls(linux, namespaces, found);
        clocks(linux, namespaces, found);
        network_devices(linux, namespaces, found);
        restricted_paths(linux, namespaces, found);
    }
}

/// Removes empty paths, which Go's encoder writes for a namespace without a path.
pub(crate) fn without_empty_paths(spec: &mut Spec) {
    let linux = spec.linux_mut().as_mut();
    for namespace in linux.and_then(|linux| linux.namespaces_mut().as_mut()).into_iter().flatten() {
        if namespace.path().as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            namespace.set_path(None);
        }
    }
}

fn type_name(typ: Type) -> &'static str {
    match typ {
        Type::Mount => "mount",
        Type::Cgroup => "cgroup",
        Type::Uts => "uts",
        Type::Ipc => "ipc",
        Type::User => "user",
        Type::Pid => "pid",
        Type::Network => "network",
        Type::Time => "time",
    }
}

/// Without a UTS namespace the host would get the name. A joined one is legal: engines share one between
/// the containers of a pod, and give each of them the pod's name.
fn names(spec: &Spec, namespaces: &[LinuxNamespace], found: &mut Found) {
    for (name, at) in [(spec.hostname(), "hostname"), (spec.domainname(), "domainname")] {
        let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else { continue };
        if !has(namespaces, Type::Uts) {
            found
                .needs_namespace(at, "needs a uts namespace in linux.namespaces; it would change the host's");
        }
        if name.len() > 64 {
            found.problem(at, format_args!("is {} bytes long; the kernel takes at most 64", name.len()));
        }
        found.text(name, at);
    }
}

fn sysctls(linux: &Linux, namespaces: &[LinuxNamespace], found: &mut Found) {
    for (key, value) in sorted(linux.sysctl()) {
        let at = format_args!("linux.sysctl.{key}");
        found.text(value, at);
        let path = match sysctl::key_path(key) {
            Ok(path) => path,
            Err(text) => {
                found.problem(at, text);
                continue;
            }
        };
        let typ = match sysctl::namespace_of(&path) {
            Ok(namespace) => namespace.of_spec(),
            Err(text) => {
                found.problem(at, text);
                continue;
            }
        };
        if !has(namespaces, typ) {
            let name = type_name(typ);
            found.needs_namespace(
                at,
                format_args!("needs a {name} namespace in linux.namespaces; it would change the host's"),
            );
        }
    }
}

fn clocks(linux: &Linux, namespaces: &[LinuxNamespace], found: &mut Found) {
    let offsets = sorted(linux.time_offsets());
    if !offsets.is_empty() && !is_new(namespaces, Type::Time) {
        let text =
            "needs a time namespace without path in linux.namespaces; offsets of an existing one are fixed";
        found.needs_namespace("linux.timeOffsets", text);
    }
    for (clock, offset) in offsets {
        let at = format_args!("linux.timeOffsets.{clock}");
        if !matches!(clock, "monotonic" | "boottime") {
            found.problem(at, "is not a clock with an offset; those are monotonic and boottime");
        }
        // KTIME_SEC_MAX: nanoseconds must fit into a signed 64-bit number.
        if offset.secs().is_some_and(|secs| secs.unsigned_abs() > i64::MAX as u64 / 1_000_000_000) {
            found.problem(format_args!("{at}.secs"), "is beyond what the kernel can count, about 292 years");
        }
        if offset.nanosecs().is_some_and(|nanos| nanos > 999_999_999) {
            found.problem(format_args!("{at}.nanosecs"), "is more than 999999999");
        }
    }
}

fn network_devices(linux: &Linux, namespaces: &[LinuxNamespace], found: &mut Found) {
    let devices = sorted(linux.net_devices());
    if !devices.is_empty() && !has(namespaces, Type::Network) {
        found.needs_namespace("linux.netDevices", "needs a network namespace in linux.namespaces");
    }
    let mut targets: HashMap<&str, &str> = HashMap::new();
    for (host, device) in devices {
        let at = format_args!("linux.netDevices.{host}");
        if let Err(text) = interface_name(host) {
            found.problem(at, text);
        }
        let target = device.name().as_deref().filter(|name| !name.is_empty()).unwrap_or(host);
        if target != host
            && let Err(text) = interface_name(target)
        {
            found.problem(format_args!("{at}.name"), text);
        }
        if let Some(other) = targets.insert(target, host) {
            let text =
                format_args!("{target:?} is also the name of linux.netDevices.{other} in the container");
            found.problem(format_args!("{at}.name"), text);
        }
    }
}

/// The kernel's dev_valid_name(), without '%', which would be taken as a pattern for a number.
fn interface_name(name: &str) -> Result<(), String> {
    let bad =
        |c: char| matches!(c, '/' | ':' | '%' | '\0') || c.is_whitespace() || c == '\x0b' || c == '\u{a0}';
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(bad) {
        return Err(format!(
            "{name:?} cannot name an interface: 1 to 15 bytes without '/', ':', '%' and blanks"
        ));
    }
    Ok(())
}

fn restricted_paths(linux: &Linux, namespaces: &[LinuxNamespace], found: &mut Found) {
    for (paths, at) in
        [(linux.masked_paths(), "linux.maskedPaths"), (linux.readonly_paths(), "linux.readonlyPaths")]
    {
        let paths = each(paths);
        if !paths.is_empty() && !has(namespaces, Type::Mount) {
            found.needs_namespace(
                at,
                "needs a mount namespace in linux.namespaces; it would change the host's /proc",
            );
        }
        for (i, path) in paths.iter().enumerate() {
            found.absolute(path.as_ref(), format_args!("{at}[{i}]"));
        }
    }
}

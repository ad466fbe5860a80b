//! Turns a bundle's config into the list of lines that floor walks (`../floor/main.rs` says what each is).
//!
//! It covers the properties of this bench's own config and refuses, by name, what it does not know: a floor
//! that leaves something out would make every runtime look slow.

use std::fmt::Write;
use std::fs;

use serde_json::Value;

use crate::cgroups::{self, Hierarchy};

const MS_RDONLY: u64 = 1;
const PROC_FLAGS: u64 = 2 | 4 | 8;
const NEW_NETWORK: u64 = 0x4000_0000;

/// The default devices of the spec: name, major, minor.
const DEVICES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// What every runtime allows beside the config's rules: making nodes, and the default devices that Docker
/// does not name (full, ptmx, pts).
const DEFAULT_RULES: [&str; 5] = ["c *:* m", "b *:* m", "c 1:7 rwm", "c 5:2 rwm", "c 136:* rwm"];
/// The default links of the spec.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Capabilities of the config's list by bit.
const CAPABILITIES: [(&str, u32); 14] = [
    ("CAP_CHOWN", 0),
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_FOWNER", 3),
    ("CAP_FSETID", 4),
    ("CAP_KILL", 5),
    ("CAP_SETGID", 6),
    ("CAP_SETUID", 7),
    ("CAP_SETPCAP", 8),
    ("CAP_NET_BIND_SERVICE", 10),
    ("CAP_NET_RAW", 13),
    ("CAP_SYS_CHROOT", 18),
    ("CAP_MKNOD", 27),
    ("CAP_AUDIT_WRITE", 29),
    ("CAP_SETFCAP", 31),
];

pub fn plan(config: &Value, hierarchies: &[Hierarchy]) -> Result<String, String> {
    let (namespaces, cgroup_namespace) = namespaces(config)?;
    let mut lines = cgroup_lines(config, hierarchies)?;
    line(&mut lines, &["clone", &namespaces.to_string()]);
    line(&mut lines, &["root", text(&config["root"]["path"])?]);
    // Every runtime brings up the interface of a new network namespace, and leaves the caller's session keyring.
    if namespaces & NEW_NETWORK != 0 {
        line(&mut lines, &["loopback"]);
    }
    line(&mut lines, &["keyring"]);
    // The cgroup mount comes last: it has to wait for the attaching, which goes on at the same time.
    let (cgroup, others): (Vec<&Value>, Vec<&Value>) =
        list(&config["mounts"]).partition(|mount| mount["type"] == "cgroup");
    for mount in others {
        mount_lines(&mut lines, mount)?;
    }
    for (name, major, minor) in DEVICES {
        let target = format!("/dev/{name}");
        line(&mut lines, &["node", &target, "438", &major.to_string(), &minor.to_string()]);
    }
    for (name, target) in LINKS {
        line(&mut lines, &["link", &format!("/dev/{name}"), target]);
    }
    line(&mut lines, &["attached"]);
    if cgroup_namespace {
        line(&mut lines, &["cgroupns"]);
    }
    for mount in cgroup {
        cgroup_mount_lines(&mut lines, mount, hierarchies, config, cgroup_namespace)?;
    }
    line(&mut lines, &["pivot"]);
    line(&mut lines, &["hostname", text(&config["hostname"])?]);
    for path in list(&config["linux"]["readonlyPaths"]) {
        line(&mut lines, &["readonly", text(path)?, &PROC_FLAGS.to_string()]);
    }
    for path in list(&config["linux"]["maskedPaths"]) {
        line(&mut lines, &["mask", text(path)?]);
    }
    process_lines(&mut lines, &config["process"])?;
    Ok(lines)
}

fn line(lines: &mut String, fields: &[&str]) {
    writeln!(lines, "{}", fields.join("\t")).expect("writing to a String");
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("{value} is no string"))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The flags of the one clone, and whether a cgroup namespace follows: that one must be made after the
/// attaching, or it would show the caller's cgroup as its root.
fn namespaces(config: &Value) -> Result<(u64, bool), String> {
    let (mut flags, mut cgroup) = (0, false);
    for namespace in list(&config["linux"]["namespaces"]) {
        flags |= match text(&namespace["type"])? {
            "mount" => 0x0002_0000,
            "uts" => 0x0400_0000,
            "ipc" => 0x0800_0000,
            "pid" => 0x2000_0000,
            "network" => NEW_NETWORK,
            "cgroup" => {
                cgroup = true;
                0
            }
            other => return Err(format!("floor knows no {other} namespace")),
        };
    }
    Ok((flags, cgroup))
}

fn cgroup_lines(config: &Value, hierarchies: &[Hierarchy]) -> Result<String, String> {
    let mut lines = String::new();
    let path = text(&config["linux"]["cgroupsPath"])?.trim_start_matches('/');
    let v2_only = hierarchies.iter().all(|one| one.v1.is_none());
    for hierarchy in hierarchies {
        let dir = hierarchy.mount.join(path).display().to_string();
        line(&mut lines, &["mkdir", &dir]);
        let controllers: Vec<&str> = hierarchy.v1.as_deref().unwrap_or_default().split(',').collect();
        if controllers.contains(&"cpuset") {
            for (file, value) in cgroups::cpuset(hierarchy)? {
                line(&mut lines, &["write", &format!("{dir}/{file}"), &value]);
            }
        }
        if controllers.contains(&"devices") {
            for rule in list(&config["linux"]["resources"]["devices"]) {
                let file = if rule["allow"] == true { "devices.allow" } else { "devices.deny" };
                line(&mut lines, &["write", &format!("{dir}/{file}"), &device_rule(rule)]);
            }
            for rule in DEFAULT_RULES {
                line(&mut lines, &["write", &format!("{dir}/devices.allow"), rule]);
            }
        }
        if v2_only {
            line(&mut lines, &["into", &dir]);
            line(&mut lines, &["devices"]);
        } else {
            line(&mut lines, &["attach", &dir]);
        }
    }
    Ok(lines)
}

fn device_rule(rule: &Value) -> String {
    match rule["type"].as_str() {
        Some(kind @ ("b" | "c")) => {
            let number = |field: &str| rule[field].as_i64().map_or("*".to_owned(), |one| one.to_string());
            format!(
                "{kind} {}:{} {}",
                number("major"),
                number("minor"),
                rule["access"].as_str().unwrap_or("rwm")
            )
        }
        _ => "a".to_owned(),
    }
}

/// Mount flags by name, and the options that are left as the file system's own data.
fn options(mount: &Value) -> Result<(u64, String), String> {
    let (mut flags, mut data) = (0, Vec::new());
    for option in list(&mount["options"]) {
        match text(option)? {
            "ro" => flags |= MS_RDONLY,
            "nosuid" => flags |= 2,
            "nodev" => flags |= 4,
            "noexec" => flags |= 8,
            "strictatime" => flags |= 1 << 24,
            other => data.push(other),
        }
    }
    Ok((flags, data.join(",")))
}

fn mount_lines(lines: &mut String, mount: &Value) -> Result<(), String> {
    let (kind, source) = (text(&mount["type"])?, text(&mount["source"])?);
    let target = text(&mount["destination"])?;
    let (flags, data) = options(mount)?;
    if kind == "bind" {
        if (flags, data.as_str()) != (0, "rbind,rprivate") {
            return Err(format!("floor knows no bind with {mount}"));
        }
        line(lines, &["bind", source, target]);
        return Ok(());
    }
    // Mount points inside the new /dev; all others are in the rootfs.
    if target.starts_with("/dev/") {
        line(lines, &["dir", target, "493"]);
    }
    line(lines, &["mount", kind, source, target, &flags.to_string(), &data]);
    Ok(())
}

/// v2: one mount. v1: a tmpfs with one mount for each hierarchy, read-only at the end; without a cgroup
/// namespace the container's own directory of each is bound instead.
fn cgroup_mount_lines(
    lines: &mut String,
    mount: &Value,
    hierarchies: &[Hierarchy],
    config: &Value,
    namespace: bool,
) -> Result<(), String> {
    let (flags, _) = options(mount)?;
    let target = text(&mount["destination"])?;
    if let [Hierarchy { v1: None, .. }] = hierarchies {
        line(lines, &["mount", "cgroup2", "cgroup", target, &flags.to_string(), ""]);
        return Ok(());
    }
    let writable = (flags & !MS_RDONLY).to_string();
    line(lines, &["mount", "tmpfs", "tmpfs", target, &writable, "mode=755"]);
    let path = text(&config["linux"]["cgroupsPath"])?.trim_start_matches('/');
    // A hybrid machine's empty unified hierarchy is not shown: neither runc nor crun do.
    for hierarchy in hierarchies.iter().filter(|one| one.v1.is_some()) {
        let name = hierarchy.mount.file_name().unwrap_or_default().to_string_lossy();
        let inside = format!("{target}/{name}");
        line(lines, &["dir", &inside, "493"]);
        if namespace {
            let data = hierarchy.v1.as_deref().unwrap_or_default();
            line(lines, &["mount", "cgroup", "cgroup", &inside, &flags.to_string(), data]);
        } else {
            line(lines, &["bind", &hierarchy.mount.join(path).display().to_string(), &inside]);
            line(lines, &["remount", &inside, &flags.to_string()]);
        }
    }
    line(lines, &["remount", target, &flags.to_string()]);
    Ok(())
}

fn process_lines(lines: &mut String, process: &Value) -> Result<(), String> {
    let user = &process["user"];
    let mut ids = vec!["ids".to_owned(), user["uid"].to_string(), user["gid"].to_string()];
    ids.extend(list(&user["additionalGids"]).map(Value::to_string));
    line(lines, &ids.iter().map(String::as_str).collect::<Vec<_>>());
    let mut keep = 0u64;
    for name in list(&process["capabilities"]["bounding"]) {
        let name = text(name)?;
        let known = CAPABILITIES.iter().find(|(known, _)| *known == name);
        keep |= 1 << known.ok_or_else(|| format!("floor knows no {name}"))?.1;
    }
    let last =
        fs::read_to_string("/proc/sys/kernel/cap_last_cap").map_err(|e| format!("cap_last_cap: {e}"))?;
    line(lines, &["caps", &keep.to_string(), last.trim()]);
    for variable in list(&process["env"]) {
        line(lines, &["env", text(variable)?]);
    }
    let args: Result<Vec<&str>, String> = list(&process["args"]).map(text).collect();
    line(lines, &[vec!["exec"], args?].concat());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;

    #[test]
    fn an_unknown_namespace_is_refused_and_not_left_out() {
        let config = json!({"linux": {"namespaces": [{"type": "user"}]}});
        assert!(namespaces(&config).is_err_and(|error| error.contains("user")));
    }

    #[test]
    fn the_cgroup_namespace_is_no_part_of_the_clone() {
        let config = json!({"linux": {"namespaces": [{"type": "cgroup"}, {"type": "mount"}]}});
        assert_eq!(namespaces(&config), Ok((0x20000, true)));
    }

    #[test]
    fn flags_and_data_of_a_mount_are_told_apart() {
        let mount = json!({"type": "tmpfs", "source": "shm", "destination": "/dev/shm",
            "options": ["nosuid", "nodev", "mode=1777", "size=64k"]});
        let mut lines = String::new();
        mount_lines(&mut lines, &mount).expect("a plain mount");
        assert_eq!(lines, "dir\t/dev/shm\t493\nmount\ttmpfs\tshm\t/dev/shm\t6\tmode=1777,size=64k\n");
    }

    #[test]
    fn v2_is_cloned_into_and_v1_attached() {
        let config = json!({"linux": {"cgroupsPath": "/b/c"}});
        let v2 = [Hierarchy { mount: PathBuf::from("/sys/fs/cgroup"), v1: None }];
        let v1 = [Hierarchy { mount: PathBuf::from("/sys/fs/cgroup/pids"), v1: Some("pids".to_owned()) }];
        let lines = |hierarchies| cgroup_lines(&config, hierarchies).expect("two hierarchies");
        assert_eq!(lines(&v2), "mkdir\t/sys/fs/cgroup/b/c\ninto\t/sys/fs/cgroup/b/c\ndevices\n");
        assert_eq!(lines(&v1), "mkdir\t/sys/fs/cgroup/pids/b/c\nattach\t/sys/fs/cgroup/pids/b/c\n");
    }
}

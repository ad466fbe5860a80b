//! `linux` and what goes with it: names, sysctls, masked and read-only paths, devices, the links in
//! /dev. Resources are in cgroups.rs, seccomp in seccomp.rs, namespaces in namespaces.rs.

use crate::bundle::{self, MASKED, READONLY};
use crate::case::Need::{Capability, Root};
use crate::case::{Case, Outcome, case, check, contains, same};
use crate::test::{Mounted, Test};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

pub const CASES: &[Case] = &[
    case!(hostname_is_set),
    case!(hostname_without_its_namespace_is_refused),
    case!(domainname_is_set),
    case!(sysctls_of_the_containers_namespaces_are_set),
    case!(sysctl_with_slashes_is_set),
    case!(sysctl_of_the_host_is_refused),
    case!(sysctl_of_a_namespace_that_is_the_hosts_is_refused),
    case!(sysctl_of_a_path_that_is_the_hosts_namespace_is_refused, [Root]),
    case!(sysctl_that_does_not_exist_is_refused),
    case!(masked_files_are_empty),
    case!(masked_directories_are_empty_and_cannot_be_written),
    case!(masked_path_that_is_missing_is_skipped),
    case!(masked_path_covers_one_hard_link_only),
    case!(masked_path_through_a_symlink_masks_the_target),
    case!(readonly_paths_are_read_only),
    case!(a_read_only_path_has_no_writable_mount_of_the_host, [Root]),
    case!(readonly_path_that_is_missing_is_skipped),
    case!(readonly_path_keeps_the_flags_of_its_mount),
    case!(readonly_path_of_a_file),
    case!(the_paths_that_engines_mask_are_masked, [Root]),
    case!(default_devices_are_there),
    case!(default_links_in_dev_are_there, [], 60),
    case!(default_devices_work),
    case!(ptmx_belongs_to_the_containers_devpts),
    case!(configured_devices_are_made, [Root, Capability(27)]),
    case!(a_configured_fifo_is_made),
    case!(devices_are_made_below_missing_directories, [Root, Capability(27)]),
    case!(a_device_that_the_image_has_gets_its_mode_and_owner, [Root, Capability(27)]),
    case!(a_device_with_an_unknown_type_is_refused),
    case!(a_device_outside_dev_is_made, [Root, Capability(27)]),
    case!(devices_in_a_user_namespace_are_binds, [Root]),
    case!(dev_null_of_the_host_keeps_its_owner, [Root]),
    case!(dev_bound_from_the_host_is_not_changed),
    case!(no_dev_mount_still_gives_devices),
    case!(intel_rdt_without_the_hardware_is_refused),
];

fn hostname_is_set(t: &Test) -> Outcome {
    let mut config = t.config();
    let name = "a".repeat(63);
    config.set("hostname", name.as_str());
    same("hostname", t.probe(&config, &[])?["hostname"].as_str(), Some(name.as_str()))
}

fn hostname_without_its_namespace_is_refused(t: &Test) -> Outcome {
    let before = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let mut config = t.config();
    config.no_namespace("uts").set("hostname", "renamed-by-a-test");
    let output = t.run(&config)?;
    same("hostname of the host", fs::read_to_string("/proc/sys/kernel/hostname")?, before)?;
    output.refused().map(drop)
}

fn domainname_is_set(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("domainname", "example.org");
    same("domain", t.probe(&config, &[])?["domainname"].as_str(), Some("example.org"))
}

fn sysctls_of_the_containers_namespaces_are_set(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set(
        "linux.sysctl",
        json!({ "net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "17" }),
    );
    let wanted = [("net/ipv4/ip_forward", "1"), ("kernel/shm_rmid_forced", "1"), ("fs/mqueue/msg_max", "17")];
    for (name, value) in wanted {
        let path = format!("/proc/sys/{name}");
        let probe = t.probe(&config, &["--cat", &path])?;
        same(name, probe["cat"][&path].as_str().map(str::trim), Some(value))?;
    }
    Ok(())
}

fn sysctl_with_slashes_is_set(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.sysctl", json!({ "net/ipv4/ip_forward": "1" }));
    let path = "/proc/sys/net/ipv4/ip_forward";
    same("value", t.probe(&config, &["--cat", path])?["cat"][path].as_str().map(str::trim), Some("1"))
}

fn sysctl_of_the_host_is_refused(t: &Test) -> Outcome {
    let path = "/proc/sys/vm/swappiness";
    let before = fs::read_to_string(path)?;
    let mut config = t.config();
    config.set("linux.sysctl", json!({ "vm.swappiness": before.trim() }));
    t.run(&config)?.refused()?;
    Ok(())
}

fn sysctl_of_a_namespace_that_is_the_hosts_is_refused(t: &Test) -> Outcome {
    let path = "/proc/sys/net/ipv4/ip_forward";
    let before = fs::read_to_string(path)?;
    let mut config = t.config();
    config.no_namespace("network").set("linux.sysctl", json!({ "net.ipv4.ip_forward": before.trim() }));
    t.run(&config)?.refused()?;
    Ok(())
}

/// The path is there, but what it names is the host's: each value is the one that is there already.
fn sysctl_of_a_path_that_is_the_hosts_namespace_is_refused(t: &Test) -> Outcome {
    for (kind, file, key) in [
        ("network", "net", "net.ipv4.ip_forward"),
        ("ipc", "ipc", "kernel.msgmax"),
        ("uts", "uts", "kernel.domainname"),
    ] {
        let before = fs::read_to_string(format!("/proc/sys/{}", key.replace('.', "/")))?;
        let path = t.dir.join(file);
        fs::write(&path, "")?;
        let own = format!("/proc/self/ns/{file}");
        let _mounted = Mounted::bind(Path::new(&own), &path)?;
        let mut config = t.config();
        config.no_namespace(kind).join(kind, &path.to_string_lossy()).remove("hostname");
        config.set("linux.sysctl", json!({ key: before.trim() }));
        t.run(&config)?.refused()?;
    }
    Ok(())
}

fn sysctl_that_does_not_exist_is_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.sysctl", json!({ "net.ipv4.no_such_thing": "1" }));
    t.run(&config)?.refused()?;
    Ok(())
}

fn masked_files_are_empty(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.maskedPaths", json!(["/etc/passwd", "/proc/version"]));
    let probe =
        t.probe(&config, &["--read", "/etc/passwd", "--read", "/proc/version", "--write", "/etc/passwd"])?;
    same("file", probe["read"]["/etc/passwd"].as_str(), Some("empty"))?;
    same("file in /proc", probe["read"]["/proc/version"].as_str(), Some("empty"))
}

fn masked_directories_are_empty_and_cannot_be_written(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.maskedPaths", json!(["/etc", "/proc/irq"]));
    same(
        "files",
        t.script(&config, "ls -a /etc /proc/irq | tr '\\n' ' '")?.as_str(),
        "/etc: . ..  /proc/irq: . ..",
    )?;
    let probe = t.probe(&config, &["--write", "/etc"])?;
    check!(probe["write"]["/etc"] != "ok", "writable");
    Ok(())
}

fn masked_path_that_is_missing_is_skipped(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.maskedPaths", json!(["/no/such/path", "/proc/no-such"]));
    same("output", t.script(&config, "ls /no 2>/dev/null; echo ran")?.as_str(), "ran")
}

fn masked_path_covers_one_hard_link_only(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.maskedPaths", json!(["/bin/ls"])).set("process.args", json!(["/bin/cat", "/bin/ls"]));
    same("output", t.run(&config)?.ok()?.stdout.as_str(), "")
}

fn masked_path_through_a_symlink_masks_the_target(t: &Test) -> Outcome {
    let mut config = t.shell("cat /secret /way 2>/dev/null; echo end");
    config.set("linux.maskedPaths", json!(["/way"]));
    let c = t.container(&config)?;
    fs::write(c.path("/secret"), "secret")?;
    crate::bundle::link(&c.path("/way"), "secret")?;
    same("output", c.run()?.ok()?.stdout.trim(), "end")
}

fn readonly_paths_are_read_only(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.readonlyPaths", json!(["/etc", "/proc/sys"]));
    let probe = t.probe(
        &config,
        &["--write", "/etc", "--write", "/proc/sys/kernel/domainname", "--read", "/etc/passwd"],
    )?;
    same("directory", probe["write"]["/etc"].as_str(), Some("EROFS"))?;
    check!(probe["write"]["/proc/sys/kernel/domainname"] != "ok", "below /proc: {}", probe["write"]);
    same("reading", probe["read"]["/etc/passwd"].as_str(), Some("ok"))
}

fn a_read_only_path_has_no_writable_mount_of_the_host(t: &Test) -> Outcome {
    let source = t.folder("source")?;
    bundle::make_dir(&source.join("path"))?;
    let _mounted = Mounted::tmpfs(&source.join("path/below"))?;
    let mut config = t.shell("touch /bound/x; touch /bound/path/below/x");
    config.mount("/bound", "bind", &source.display().to_string(), &["rbind"]);
    config.set("linux.readonlyPaths", json!(["/bound/path"]));
    contains("message", &t.run(&config)?.exits(1)?.stderr, "below/x: Read-only")?;
    check!(source.join("x").exists(), "what is beside the path is read-only, too");
    Ok(())
}

fn readonly_path_that_is_missing_is_skipped(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.readonlyPaths", json!(["/no/such/path", "/proc/no-such"]));
    same("output", t.script(&config, "echo ran")?.as_str(), "ran")
}

fn readonly_path_keeps_the_flags_of_its_mount(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.readonlyPaths", json!(["/proc/sys", "/dev/shm"]));
    let probe = t.probe(&config, &[])?;
    for path in ["/proc/sys", "/dev/shm"] {
        let options = crate::test::mount_options(&probe, path)?;
        for option in ["ro", "nosuid", "nodev", "noexec"] {
            check!(options.iter().any(|have| have == option), "{path}: no {option} in {options:?}");
        }
    }
    Ok(())
}

fn readonly_path_of_a_file(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.readonlyPaths", json!(["/etc/passwd"]));
    let probe = t.probe(&config, &["--write", "/etc/passwd", "--write", "/etc"])?;
    same("file", probe["write"]["/etc/passwd"].as_str(), Some("EROFS"))?;
    same("its directory", probe["write"]["/etc"].as_str(), Some("ok"))
}

fn the_paths_that_engines_mask_are_masked(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.maskedPaths", json!(MASKED)).set("linux.readonlyPaths", json!(READONLY));
    let mut args = Vec::new();
    for path in MASKED {
        args.extend(["--read", *path, "--write", *path]);
    }
    let written = ["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern"];
    let written: Vec<&str> = written.into_iter().filter(|path| std::path::Path::new(path).exists()).collect();
    args.extend(written.iter().flat_map(|path| ["--write", *path]));
    let probe = t.probe(&config, &args)?;
    for path in MASKED {
        let (read, write) = (&probe["read"][path], &probe["write"][path]);
        // A directory lists nothing; a file is the null device.
        let hidden = ["empty", "ENOENT"].contains(&read.as_str().unwrap_or_default()) || write == "EROFS";
        check!(hidden, "{path}: read {read}, write {write}");
    }
    for path in written {
        same(path, probe["write"][path].as_str(), Some("EROFS"))?;
    }
    Ok(())
}

const DEVICES: &[(&str, &str)] = &[
    ("/dev/null", "1:3"),
    ("/dev/zero", "1:5"),
    ("/dev/full", "1:7"),
    ("/dev/random", "1:8"),
    ("/dev/urandom", "1:9"),
    ("/dev/tty", "5:0"),
];

fn default_devices_are_there(t: &Test) -> Outcome {
    let args: Vec<&str> = DEVICES.iter().flat_map(|(path, _)| ["--stat", *path]).collect();
    let stat = t.probe(&t.config(), &args)?["stat"].clone();
    for (path, number) in DEVICES {
        same(path, stat[path]["type"].as_str(), Some("char"))?;
        same(path, stat[path]["rdev"].as_str(), Some(*number))?;
        same(path, stat[path]["mode"].as_str(), Some("0666"))?;
    }
    Ok(())
}

fn default_links_in_dev_are_there(t: &Test) -> Outcome {
    let links = [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/core", "/proc/kcore"),
    ];
    let has_kcore = std::path::Path::new("/proc/kcore").exists();
    for (path, target) in links.into_iter().filter(|(path, _)| *path != "/dev/core" || has_kcore) {
        let probe = t.probe(&t.config(), &["--stat", path])?;
        same(path, probe["stat"][path]["target"].as_str(), Some(target))?;
    }
    let probe = t.probe(&t.config(), &["--stat", "/dev/ptmx"])?;
    let target = probe["stat"]["/dev/ptmx"]["target"].as_str().unwrap_or_default().to_owned();
    check!(["pts/ptmx", "/dev/pts/ptmx"].contains(&target.as_str()), "/dev/ptmx -> {target}");
    Ok(())
}

fn default_devices_work(t: &Test) -> Outcome {
    let script = "echo x > /dev/null && head -c 3 /dev/zero | od -An -tx1 && head -c 8 /dev/urandom | wc -c; \
                  (echo x > /dev/full) 2>&1 | grep -c space; echo ok >> /dev/stdout";
    let output = t.script(&t.config(), script)?;
    let words: Vec<&str> = output.split_whitespace().collect();
    same("output", words, vec!["00", "00", "00", "8", "1", "ok"])
}

fn ptmx_belongs_to_the_containers_devpts(t: &Test) -> Outcome {
    let probe = t.probe(&t.config(), &["--write", "/dev/ptmx", "--stat", "/dev/pts/ptmx"])?;
    same("open", probe["write"]["/dev/ptmx"].as_str(), Some("ok"))?;
    same("mode", probe["stat"]["/dev/pts/ptmx"]["mode"].as_str(), Some("0666"))
}

fn configured_devices_are_made(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set(
        "linux.devices",
        json!([
            { "path": "/dev/special", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 7, "gid": 8 },
            { "path": "/dev/block", "type": "b", "major": 7, "minor": 0, "fileMode": 0o600 },
            { "path": "/dev/unbuffered", "type": "u", "major": 1, "minor": 3 },
        ]),
    );
    let args = ["--stat", "/dev/special", "--stat", "/dev/block", "--stat", "/dev/unbuffered"];
    let stat = t.probe(&config, &args)?["stat"].clone();
    let special = &stat["/dev/special"];
    same("type", special["type"].as_str(), Some("char"))?;
    same("number", special["rdev"].as_str(), Some("10:229"))?;
    same("mode", special["mode"].as_str(), Some("0640"))?;
    same("owner", (special["uid"].as_i64(), special["gid"].as_i64()), (Some(7), Some(8)))?;
    same("block device", stat["/dev/block"]["type"].as_str(), Some("block"))?;
    same("u means c", stat["/dev/unbuffered"]["type"].as_str(), Some("char"))
}

fn a_configured_fifo_is_made(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.devices", json!([{ "path": "/dev/pipe", "type": "p", "fileMode": 0o622 }]));
    let stat = t.probe(&config, &["--stat", "/dev/pipe"])?["stat"]["/dev/pipe"].clone();
    same("type", stat["type"].as_str(), Some("fifo"))?;
    same("mode", stat["mode"].as_str(), Some("0622"))
}

fn devices_are_made_below_missing_directories(t: &Test) -> Outcome {
    let mut config = t.config();
    config
        .set("linux.devices", json!([{ "path": "/dev/net/a/tun", "type": "c", "major": 10, "minor": 200 }]));
    let stat = t.probe(&config, &["--stat", "/dev/net/a/tun"])?["stat"].clone();
    same("number", stat["/dev/net/a/tun"]["rdev"].as_str(), Some("10:200"))
}

fn a_device_that_the_image_has_gets_its_mode_and_owner(t: &Test) -> Outcome {
    let mut config = t.config();
    let device = json!({ "path": "/node", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600, "uid": 0, "gid": 0 });
    config.set("linux.devices", json!([device])).args(&["/probe", "report", "--stat", "/node"]);
    let c = t.container(&config)?;
    super::escapes_dev::device(&c.path("/node"), 1, 5)?;
    chown(c.path("/node"), Some(1000), Some(1000))?;
    fs::set_permissions(c.path("/node"), fs::Permissions::from_mode(0o666))?;
    let stat = c.run()?.ok()?.json()?["stat"]["/node"].clone();
    same("mode", stat["mode"].as_str(), Some("0600"))?;
    same("owner", (stat["uid"].as_i64(), stat["gid"].as_i64()), (Some(0), Some(0)))
}

fn a_device_with_an_unknown_type_is_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.devices", json!([{ "path": "/dev/x", "type": "z", "major": 1, "minor": 3 }]));
    t.run(&config)?.refused()?;
    Ok(())
}

fn a_device_outside_dev_is_made(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.devices", json!([{ "path": "/srv/null", "type": "c", "major": 1, "minor": 3 }]));
    let stat = t.probe(&config, &["--stat", "/srv/null"])?["stat"]["/srv/null"].clone();
    same("number", stat["rdev"].as_str(), Some("1:3"))
}

fn devices_in_a_user_namespace_are_binds(t: &Test) -> Outcome {
    let mut config = t.config();
    config.user_namespace(100_000, 65_536);
    let probe = t.probe(&config, &["--stat", "/dev/null", "--write", "/dev/null", "--stat", "/dev/tty"])?;
    same("number", probe["stat"]["/dev/null"]["rdev"].as_str(), Some("1:3"))?;
    same("write", probe["write"]["/dev/null"].as_str(), Some("ok"))
}

fn dev_null_of_the_host_keeps_its_owner(t: &Test) -> Outcome {
    // The owner is compared after the case: standard input and output may be given to the user of the
    // container, but not where they are a device of the host.
    let mut config = t.config();
    config.user_namespace(100_000, 65_536);
    for user in [0, 33] {
        config.set("process.user", json!({ "uid": user, "gid": user }));
        let c = t.container(&config)?;
        let mut command = c.bundle_command("run", &[]);
        command.stdin(fs::File::options().read(true).write(true).open("/dev/null")?);
        crate::process::start(&mut command, &t.dir)?.finish(crate::process::LIMIT)?.ok()?;
    }
    Ok(())
}

fn dev_bound_from_the_host_is_not_changed(t: &Test) -> Outcome {
    // Privileged containers do this; the host's /dev is compared after every case.
    let mut config = t.config();
    for place in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        config.no_mount(place);
    }
    config.mount("/dev", "bind", "/dev", &["rbind", "rprivate"]);
    let before = crate::leaks::tree(std::path::Path::new("/dev")).len();
    same("output", t.script(&config, "echo x > /dev/null; echo ran")?.as_str(), "ran")?;
    same("files in /dev", crate::leaks::tree(std::path::Path::new("/dev")).len(), before)
}

fn no_dev_mount_still_gives_devices(t: &Test) -> Outcome {
    let mut config = t.config();
    for place in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        config.no_mount(place);
    }
    let stat = t.probe(&config, &["--stat", "/dev/null"])?["stat"]["/dev/null"].clone();
    same("number", stat["rdev"].as_str(), Some("1:3"))
}

fn intel_rdt_without_the_hardware_is_refused(t: &Test) -> Outcome {
    if std::path::Path::new("/sys/fs/resctrl/schemata").exists() {
        return crate::case::skip("has resctrl");
    }
    let mut config = t.config();
    config.set("linux.intelRdt", json!({ "closID": "conformance", "l3CacheSchema": "L3:0=f" }));
    t.run(&config)?.refused()?;
    Ok(())
}

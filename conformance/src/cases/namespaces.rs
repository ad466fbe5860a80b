//! Namespaces: each of them new, joined by its path, or the host's; user namespaces with their maps,
//! time offsets. What lives in a namespace (names, sysctls, devices) is in linux.rs.

use crate::case::Need::{Cgroup, Kernel, Path as File, Root, V2};
use crate::case::{Case, Outcome, case, check, contains, same};
use crate::test::{Container, Test, strings};
use serde_json::{Value, json};
use std::fs;

pub const CASES: &[Case] = &[
    case!(namespaces_that_are_listed_are_new),
    case!(namespaces_that_are_not_listed_are_the_hosts, [Root]),
    case!(cgroup_namespace_is_new_and_shows_its_root, [Cgroup]),
    case!(network_namespace_is_joined_by_path, [Root]),
    case!(ipc_and_uts_namespaces_are_joined_by_path, [Root]),
    case!(pid_namespace_is_joined_by_path, [Root]),
    case!(pid_namespace_of_a_user_namespace_is_joined_by_path, [Root]),
    case!(mount_namespace_of_another_container_is_joined),
    case!(user_namespace_is_joined_by_path, [Root]),
    case!(cgroup_namespace_is_joined_by_path, [Root]),
    case!(a_path_of_the_wrong_kind_is_refused, [Root]),
    case!(a_path_that_does_not_exist_is_refused),
    case!(an_unknown_type_is_refused),
    case!(the_same_type_twice_is_refused),
    case!(no_namespaces_at_all_leaves_the_host_alone),
    case!(without_a_cgroup_namespace_the_mount_has_the_paths_of_proc, [Root, V2]),
    case!(user_namespace_has_the_maps, [Root]),
    case!(filesystems_of_a_user_namespace_are_its_roots, [Root]),
    case!(user_namespace_with_several_map_lines, [Root]),
    case!(user_namespace_without_maps_is_refused),
    case!(user_namespace_owns_the_other_namespaces, [Root]),
    case!(user_namespace_with_a_user_other_than_root, [Root]),
    case!(user_namespace_may_mount_inside, [Root]),
    case!(user_namespace_with_a_private_root_directory, [Root]),
    case!(time_namespace_offsets_are_set, [Kernel(5, 6), File("/proc/self/ns/time")]),
    case!(time_offsets_without_the_namespace_are_refused, [File("/proc/self/ns/time")]),
    case!(time_offset_of_an_unknown_clock_is_refused, [File("/proc/self/ns/time")]),
    case!(the_loopback_is_up),
];

fn of_host(kind: &str) -> Outcome<String> {
    Ok(fs::read_link(format!("/proc/self/ns/{kind}"))?.display().to_string())
}

/// `type` in the configuration, name in /proc.
const KINDS: &[(&str, &str)] =
    &[("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("mount", "mnt")];

fn namespaces_that_are_listed_are_new(t: &Test) -> Outcome {
    let probe = t.probe(&t.config(), &[])?;
    for (_, name) in KINDS {
        let found = probe["ns"][name].as_str().unwrap_or_default();
        check!(found.starts_with(name), "{name}: {found}");
        check!(found != of_host(name)?, "{name} is the host's");
    }
    same("pid", probe["pid"].as_i64(), Some(1))
}

fn namespaces_that_are_not_listed_are_the_hosts(t: &Test) -> Outcome {
    for (kind, name) in KINDS.iter().filter(|(kind, _)| *kind != "mount") {
        let mut config = t.config();
        config.no_namespace(kind);
        if matches!(*kind, "uts") {
            config.remove("hostname");
        }
        let probe = t.probe(&config, &[])?;
        same(kind, probe["ns"][name].as_str(), Some(of_host(name)?.as_str()))?;
    }
    same("user", t.probe(&t.config(), &[])?["ns"]["user"].as_str(), Some(of_host("user")?.as_str()))
}

fn cgroup_namespace_is_new_and_shows_its_root(t: &Test) -> Outcome {
    let mut config = t.config();
    config.namespace("cgroup");
    let probe = t.probe(&config, &[])?;
    check!(probe["ns"]["cgroup"] != of_host("cgroup")?.as_str(), "it is the host's");
    for line in strings(&probe["cgroup"]) {
        let path = line.splitn(3, ':').nth(2).unwrap_or_default();
        check!(path == "/" || path.starts_with("/.."), "the path of the host is seen: {line}");
    }
    let memory =
        strings(&probe["cgroup"]).into_iter().find(|line| line.contains(":pids:") || line.starts_with("0::"));
    check!(memory.is_some_and(|line| line.ends_with(":/")), "not at the root of its namespace: {probe}");
    Ok(())
}

/// A second container that joins a namespace of the first, and what the probe says in it.
fn joined(t: &Test, first: &Container, kind: &str, name: &str) -> Outcome<Value> {
    let mut config = t.config();
    config.join(kind, &format!("/proc/{}/ns/{name}", first.pid()?));
    if kind == "uts" {
        config.remove("hostname");
    }
    let probe = t.probe(&config, &[])?;
    let wanted = fs::read_link(format!("/proc/{}/ns/{name}", first.pid()?))?;
    same(kind, probe["ns"][name].as_str(), wanted.to_str())?;
    Ok(probe)
}

fn network_namespace_is_joined_by_path(t: &Test) -> Outcome {
    joined(t, &t.detached(&t.sleeper())?, "network", "net").map(drop)
}

fn ipc_and_uts_namespaces_are_joined_by_path(t: &Test) -> Outcome {
    let first = t.detached(&t.sleeper())?;
    joined(t, &first, "ipc", "ipc")?;
    same("hostname", joined(t, &first, "uts", "uts")?["hostname"].as_str(), Some("conformance"))
}

fn pid_namespace_is_joined_by_path(t: &Test) -> Outcome {
    let first = t.detached(&t.sleeper())?;
    let probe = joined(t, &first, "pid", "pid")?;
    check!(probe["pid"].as_i64().is_some_and(|pid| pid > 1), "pid {}", probe["pid"]);
    let mut config = t.shell("cat /proc/1/cmdline | tr '\\0' ' '");
    config.join("pid", &format!("/proc/{}/ns/pid", first.pid()?));
    contains("process 1", &t.run(&config)?.ok()?.stdout, "sleep 1000")?;
    // The end of the second does not touch the first.
    same("status", first.status()?.as_str(), "running")
}

/// The process that makes its procfs is then root in that user namespace only.
fn pid_namespace_of_a_user_namespace_is_joined_by_path(t: &Test) -> Outcome {
    let mut first = mapped(t);
    first.args(&["/bin/sleep", "1000"]);
    let first = t.detached(&first)?;
    let mut config = t.shell("cat /proc/1/cmdline | tr '\\0' ' '; grep ^NSpid: /proc/self/status");
    config.join("user", &format!("/proc/{}/ns/user", first.pid()?));
    config.join("pid", &format!("/proc/{}/ns/pid", first.pid()?));
    let output = t.run(&config)?.ok()?.stdout;
    contains("process 1", &output, "sleep 1000")?;
    let numbers = output.rsplit("NSpid:").next().unwrap_or_default();
    check!(numbers.split_whitespace().count() == 1, "{numbers}: the procfs is of a namespace above");
    same("status", first.status()?.as_str(), "running")
}

fn mount_namespace_of_another_container_is_joined(t: &Test) -> Outcome {
    let mut first = t.sleeper();
    first.mount("/mark", "tmpfs", "tmpfs", &["size=77k"]);
    let first = t.detached(&first)?;
    let mut config = t.config();
    config
        .join("mount", &format!("/proc/{}/ns/mnt", first.pid()?))
        .set("mounts", json!([]))
        .args(&["/probe"]);
    let output = t.run(&config)?;
    if output.code != 0 {
        // With a path the root is not in reach any more: refusing it clearly is as good.
        return output.refused().map(drop);
    }
    let wanted = fs::read_link(format!("/proc/{}/ns/mnt", first.pid()?))?;
    same("mnt", output.json()?["ns"]["mnt"].as_str(), wanted.to_str())
}

fn mapped(t: &Test) -> crate::bundle::Config {
    let mut config = t.config();
    config.user_namespace(100_000, 65_536);
    config
}

fn user_namespace_is_joined_by_path(t: &Test) -> Outcome {
    let mut first = mapped(t);
    first.args(&["/bin/sleep", "1000"]);
    let first = t.detached(&first)?;
    let mut config = t.config();
    config.join("user", &format!("/proc/{}/ns/user", first.pid()?));
    let probe = t.probe(&config, &[])?;
    let wanted = fs::read_link(format!("/proc/{}/ns/user", first.pid()?))?;
    same("user", probe["ns"]["user"].as_str(), wanted.to_str())?;
    same("uid", probe["uid"][0].as_i64(), Some(0))?;
    contains("map", &strings(&probe["uidMap"]).join(" "), "100000")
}

fn cgroup_namespace_is_joined_by_path(t: &Test) -> Outcome {
    let mut first = t.sleeper();
    first.namespace("cgroup");
    let first = t.detached(&first)?;
    joined(t, &first, "cgroup", "cgroup").map(drop)
}

fn a_path_of_the_wrong_kind_is_refused(t: &Test) -> Outcome {
    let first = t.detached(&t.sleeper())?;
    let mut config = t.config();
    config.join("network", &format!("/proc/{}/ns/uts", first.pid()?));
    t.run(&config)?.refused()?;
    Ok(())
}

fn a_path_that_does_not_exist_is_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.join("network", "/proc/self/ns/nothing");
    t.run(&config)?.refused()?;
    config.join("network", &t.dir.join("canary/file").display().to_string());
    t.run(&config)?.refused()?;
    Ok(())
}

fn an_unknown_type_is_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.namespace("space");
    t.run(&config)?.refused()?;
    Ok(())
}

fn the_same_type_twice_is_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.namespace("uts");
    t.run(&config)?.refused()?;
    Ok(())
}

fn no_namespaces_at_all_leaves_the_host_alone(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.namespaces", json!([])).remove("hostname").set("mounts", json!([]));
    let output = t.run(&config)?;
    check!(output.code == 0 || !output.stderr.is_empty(), "{}", output.text());
    Ok(())
}

fn without_a_cgroup_namespace_the_mount_has_the_paths_of_proc(t: &Test) -> Outcome {
    let mut config = t.config();
    config.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]);
    let found = t.script(&config, "ls -d /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/cgroup.procs")?;
    contains("path", &found, &t.cgroup)
}

fn user_namespace_has_the_maps(t: &Test) -> Outcome {
    let probe = t.probe(&mapped(t), &[])?;
    for key in ["uidMap", "gidMap"] {
        let lines = strings(&probe[key]);
        let numbers: Vec<Vec<&str>> = lines.iter().map(|line| line.split_whitespace().collect()).collect();
        same(key, numbers, vec![vec!["0", "100000", "65536"]])?;
    }
    check!(probe["ns"]["user"] != of_host("user")?.as_str(), "the user namespace is the host's");
    same("uid", probe["uid"][0].as_i64(), Some(0))
}

fn filesystems_of_a_user_namespace_are_its_roots(t: &Test) -> Outcome {
    let config = mapped(t);
    for place in ["/dev/mqueue", "/dev/shm", "/dev", "/proc/sys/fs/mqueue"] {
        same(place, t.script(&config, &format!("stat -c %u {place}"))?.trim(), "0")?;
    }
    Ok(())
}

fn user_namespace_with_several_map_lines(t: &Test) -> Outcome {
    let mut config = mapped(t);
    let line =
        |inside: u32, host: u32, size: u32| json!({ "containerID": inside, "hostID": host, "size": size });
    config.set(
        "linux.uidMappings",
        json!([line(0, 200_000, 10), line(10, 300_000, 5), line(1000, 400_000, 1)]),
    );
    config.set("process.user", json!({ "uid": 1000, "gid": 7 }));
    let probe = t.probe(&config, &[])?;
    same("lines", strings(&probe["uidMap"]).len(), 3)?;
    same("uid", probe["uid"][0].as_i64(), Some(1000))
}

fn user_namespace_without_maps_is_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.namespace("user");
    t.run(&config)?.refused()?;
    Ok(())
}

fn user_namespace_owns_the_other_namespaces(t: &Test) -> Outcome {
    let mut config = mapped(t);
    config.capabilities(&["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]);
    // Root of the user namespace may change what belongs to it, and nothing of the host's: opening the
    // host's sysctl shows it, so nothing is written there.
    let script = "hostname other && hostname; mount -t tmpfs x /tmp && echo mounted; \
                  true >> /proc/sys/kernel/printk && echo bad; true";
    same("output", t.script(&config, script)?.as_str(), "other\nmounted")
}

fn user_namespace_with_a_user_other_than_root(t: &Test) -> Outcome {
    let mut config = mapped(t);
    config.set("process.user", json!({ "uid": 33, "gid": 34, "additionalGids": [35] }));
    let probe = t.probe(&config, &[])?;
    same("uid", probe["uid"][1].as_i64(), Some(33))?;
    same("groups", &probe["groups"], &json!([35]))
}

fn user_namespace_may_mount_inside(t: &Test) -> Outcome {
    let volume = t.folder("volume")?;
    fs::write(volume.join("file"), "seen")?;
    let mut config = mapped(t);
    config.bind(&volume, "/data", &["ro", "nosuid"]).set("root.readonly", true);
    config.set("linux.maskedPaths", json!(["/proc/kcore"])).set("linux.readonlyPaths", json!(["/proc/sys"]));
    config.args(&["/probe", "report", "--cat", "/data/file", "--write", "/data", "--write", "/etc"]);
    let c = t.container(&config)?;
    fs::create_dir(c.path("/data"))?;
    let probe = c.run()?.ok()?.json()?;
    same("file", probe["cat"]["/data/file"].as_str(), Some("seen"))?;
    check!(probe["write"]["/data"] != "ok" && probe["write"]["/etc"] != "ok", "writable: {}", probe["write"]);
    Ok(())
}

fn user_namespace_with_a_private_root_directory(t: &Test) -> Outcome {
    // A source that only root of the host can reach is still bound for the container.
    let closed = t.folder("closed")?;
    fs::create_dir_all(closed.join("volume"))?;
    fs::write(closed.join("volume/file"), "reached")?;
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let mut config = mapped(t);
    config.bind(&closed.join("volume"), "/data", &["ro"]).shell("cat /data/file");
    let c = t.container(&config)?;
    fs::create_dir(c.path("/data"))?;
    same("file", c.run()?.ok()?.stdout.as_str(), "reached")
}

fn time_namespace_offsets_are_set(t: &Test) -> Outcome {
    let host = t.probe(&t.config(), &[])?;
    let mut config = t.config();
    config.namespace("time").set(
        "linux.timeOffsets",
        json!({ "boottime": { "secs": 500_000, "nanosecs": 0 }, "monotonic": { "secs": 700_000, "nanosecs": 7 } }),
    );
    let probe = t.probe(&config, &[])?;
    for (clock, offset) in [("boottime", 500_000), ("monotonic", 700_000)] {
        let difference = probe[clock].as_i64().unwrap_or(0) - host[clock].as_i64().unwrap_or(0);
        check!((offset..offset + 60).contains(&difference), "{clock} is {difference} s later");
    }
    check!(probe["ns"]["time"] != of_host("time")?.as_str(), "the time namespace is the host's");
    Ok(())
}

fn time_offsets_without_the_namespace_are_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.timeOffsets", json!({ "monotonic": { "secs": 1, "nanosecs": 0 } }));
    t.run(&config)?.refused()?;
    Ok(())
}

fn time_offset_of_an_unknown_clock_is_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.namespace("time").set("linux.timeOffsets", json!({ "realtime": { "secs": 1, "nanosecs": 0 } }));
    t.run(&config)?.refused()?;
    Ok(())
}

fn the_loopback_is_up(t: &Test) -> Outcome {
    let config = t.config();
    // A name and IFF_UP; 127.0.0.1 answers, and ::1 is there.
    let script = "cat /sys/class/net/lo/flags; cat /proc/net/if_inet6; \
                  nc -l -p 7 -e echo hello & sleep 0.2; nc 127.0.0.1 7 < /dev/null";
    let output = t.script(&config, script)?;
    check!(output.starts_with("0x9"), "lo is not up: {output}");
    contains("addresses", &output, "00000000000000000000000000000001")?;
    contains("what is said over 127.0.0.1", &output, "hello")
}

//! What is special about a user without privileges; most other cases run as such a user too, with a
//! user namespace that maps one id (see bundle.rs).

use crate::bundle::Config;
use crate::case::Need::{Path, Rootless};
use crate::case::{Case, Outcome, case, check, contains, fail, same, skip};
use crate::process;
use crate::test::{Test, strings};
use nix::unistd::{getegid, geteuid};
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

pub const CASES: &[Case] = &[
    case!(the_own_id_is_root_inside, [Rootless]),
    case!(without_a_user_namespace_it_is_refused_or_gets_one, [Rootless]),
    case!(ids_of_others_are_refused, [Rootless]),
    case!(supplementary_groups_that_cannot_be_set_are_refused, [Rootless]),
    case!(a_user_other_than_root_is_the_caller, [Rootless]),
    case!(a_user_other_than_root_is_a_subordinate_id, [Rootless, Path("/usr/bin/newuidmap")]),
    case!(limits_without_a_cgroup_are_refused, [Rootless]),
    case!(a_cgroup_that_is_not_the_users_is_refused, [Rootless]),
    case!(without_a_cgroup_a_container_lives_and_ends, [Rootless]),
    case!(check_names_what_a_user_lacks, [Rootless]),
    case!(a_cgroup_mount_shows_the_hosts_hierarchies, [Rootless]),
    case!(a_device_is_a_bind_or_refused, [Rootless]),
    case!(sysfs_without_a_network_namespace_is_refused_or_bound, [Rootless]),
    case!(the_default_state_directory_is_the_users, [Rootless]),
    case!(a_bind_of_what_the_user_may_not_read_is_refused, [Rootless]),
    case!(files_that_root_makes_belong_to_the_user, [Rootless]),
];

fn the_own_id_is_root_inside(t: &Test) -> Outcome {
    let probe = t.probe(&t.config(), &[])?;
    same("uid", probe["uid"][1].as_i64(), Some(0))?;
    let own = geteuid().as_raw().to_string();
    let lines = strings(&probe["uidMap"]);
    let fields: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
    same("map", fields, vec!["0", own.as_str(), "1"])
}

fn without_a_user_namespace_it_is_refused_or_gets_one(t: &Test) -> Outcome {
    let mut config = t.config();
    config.no_namespace("user").remove("linux.uidMappings").remove("linux.gidMappings");
    let output = t.run(&config)?;
    if output.code != 0 { output.refused().map(drop) } else { Ok(()) }
}

fn ids_of_others_are_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.uidMappings", json!([{ "containerID": 0, "hostID": 0, "size": 1 }]));
    t.run(&config)?.refused()?;
    Ok(())
}

fn supplementary_groups_that_cannot_be_set_are_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("process.user.additionalGids", json!([5]));
    t.run(&config)?.refused()?;
    Ok(())
}

/// Runs, and runs something more, as user and group 1000 of the container.
fn as_1000(t: &Test, config: &mut Config, on_the_host: u32) -> Outcome {
    config.set("process.user", json!({ "uid": 1000, "gid": 1000 }));
    config.args(&["/bin/sh", "-c", "id; exec sleep 1000"]);
    let c = t.detached(config)?;
    use std::os::unix::fs::MetadataExt;
    same("owner on the host", fs::metadata(format!("/proc/{}", c.pid()?))?.uid(), on_the_host)?;
    contains("exec", &c.exec(&["/bin/id"])?.ok()?.stdout, "uid=1000(user) gid=1000(user)")?;
    c.delete_force()?.ok().map(drop)
}

fn a_user_other_than_root_is_the_caller(t: &Test) -> Outcome {
    let mut config = t.config();
    for (member, id) in [("linux.uidMappings", geteuid().as_raw()), ("linux.gidMappings", getegid().as_raw())]
    {
        config.set(member, json!([{ "containerID": 1000, "hostID": id, "size": 1 }]));
    }
    as_1000(t, &mut config, geteuid().as_raw())
}

/// The first of the ids that the user was given in /etc/subuid or /etc/subgid.
fn subordinate(file: &str, id: u32) -> Outcome<u32> {
    let name = nix::unistd::User::from_uid(geteuid())?.map(|user| user.name).unwrap_or_default();
    let text = fs::read_to_string(file).unwrap_or_default();
    let own = |line: &&str| line.split(':').next().is_some_and(|who| who == name || who == id.to_string());
    let first = text.lines().find(own).and_then(|line| line.split(':').nth(1)?.parse().ok());
    first.map_or_else(|| skip(format!("needs ids in {file}")), Ok)
}

fn a_user_other_than_root_is_a_subordinate_id(t: &Test) -> Outcome {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let (uids, gids) = (subordinate("/etc/subuid", uid)?, subordinate("/etc/subgid", uid)?);
    let mut config = t.config();
    for (member, own, first) in [("linux.uidMappings", uid, uids), ("linux.gidMappings", gid, gids)] {
        let rest = json!({ "containerID": 1, "hostID": first, "size": 2000 });
        config.set(member, json!([{ "containerID": 0, "hostID": own, "size": 1 }, rest]));
    }
    as_1000(t, &mut config, uids + 999)
}

/// Skips where the user may make cgroups: at the root of a hierarchy (v1), or beside its own (v2).
fn has_no_cgroup(t: &Test) -> Outcome {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let unified = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let beside = std::path::Path::new("/sys/fs/cgroup").join(unified).parent().map(PathBuf::from);
    let writable = |place: &PathBuf| nix::unistd::access(place, nix::unistd::AccessFlags::W_OK).is_ok();
    if t.host.own_cgroup.is_some() || t.host.cgroups("/").iter().chain(&beside).any(writable) {
        return skip("the user has a cgroup of its own");
    }
    Ok(())
}

fn limits_without_a_cgroup_are_refused(t: &Test) -> Outcome {
    has_no_cgroup(t)?;
    let mut config = t.config();
    config.set("linux.resources", json!({ "pids": { "limit": 10 } }));
    t.run(&config)?.refused()?;
    Ok(())
}

fn a_cgroup_that_is_not_the_users_is_refused(t: &Test) -> Outcome {
    has_no_cgroup(t)?;
    let mut config = t.config();
    config.set("linux.cgroupsPath", "/not-the-users");
    t.run(&config)?.refused()?;
    Ok(())
}

fn without_a_cgroup_a_container_lives_and_ends(t: &Test) -> Outcome {
    has_no_cgroup(t)?;
    let mut config = t.sleeper();
    config.remove("linux.cgroupsPath");
    let c = t.detached(&config)?;
    contains("exec", &c.exec(&["/bin/id"])?.ok()?.stdout, "uid=0")?;
    // What takes a cgroup says so.
    for (verb, args) in [("pause", &[][..]), ("update", &["--pids-limit", "10"])] {
        c.runtime.call(&[&[verb], args, &[&c.id]].concat())?.refused()?;
    }
    same("status", c.status()?.as_str(), "running")?;
    c.delete_force()?.ok().map(drop)
}

fn check_names_what_a_user_lacks(t: &Test) -> Outcome {
    t.needs_verb("check")?;
    let output = t.runtime.call(&["check"])?;
    if has_no_cgroup(t).is_err() {
        return output.ok().map(drop);
    }
    let text = output.stdout;
    let line = text.lines().position(|line| line.starts_with("limited") && line.contains("cgroups"));
    let Some(line) = line else { return fail(format!("nothing is said of cgroups: {text}")) };
    let rest: Vec<&str> = text.lines().skip(line + 1).take(2).map(str::trim).collect();
    check!(rest[0].starts_with("costs: limits") && rest[1].starts_with("fix: "), "{rest:?}");
    Ok(())
}

/// Also where no cgroup is the user's own.
fn a_cgroup_mount_shows_the_hosts_hierarchies(t: &Test) -> Outcome {
    let mut config = t.config();
    config.remove("linux.cgroupsPath").mount(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["ro", "nosuid", "noexec"],
    );
    let seen = t.script(&config, "ls /sys/fs/cgroup")?;
    let wanted = if t.host.unified { "cgroup.procs" } else { "pids" };
    contains("files", &seen, wanted)
}

fn a_device_is_a_bind_or_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.push("linux.devices", json!({ "path": "/dev/extra", "type": "c", "major": 1, "minor": 3 }));
    config.args(&["/probe", "report", "--stat", "/dev/extra"]);
    let output = t.run(&config)?;
    if output.code != 0 {
        return output.refused().map(drop);
    }
    same("number", output.json()?["stat"]["/dev/extra"]["rdev"].as_str(), Some("1:3"))
}

fn sysfs_without_a_network_namespace_is_refused_or_bound(t: &Test) -> Outcome {
    let mut config = t.shell("ls /sys/kernel");
    config.no_namespace("network");
    let output = t.run(&config)?;
    if output.code != 0 { output.refused().map(drop) } else { Ok(()) }
}

fn the_default_state_directory_is_the_users(t: &Test) -> Outcome {
    let c = t.container(&t.sleeper())?;
    let run = t.folder("run")?;
    let call = |args: &[&str]| {
        let mut command = Command::new(&t.runtime.program);
        command.args(args).env("XDG_RUNTIME_DIR", &run).current_dir(&c.bundle);
        process::run(&mut command, &t.dir)
    };
    call(&["create", &c.id])?.ok()?;
    let listed = call(&["list", "-q"])?.ok()?.stdout;
    let made = fs::read_dir(&run)?.count();
    call(&["delete", "--force", &c.id])?.ok()?;
    same("list", listed.trim(), c.id.as_str())?;
    check!(made > 0, "nothing in $XDG_RUNTIME_DIR");
    Ok(())
}

fn a_bind_of_what_the_user_may_not_read_is_refused(t: &Test) -> Outcome {
    let mut config = t.shell("cat /data");
    config.bind(std::path::Path::new("/etc/shadow"), "/data", &[]);
    let output = t.run(&config)?;
    check!(output.code != 0, "the file was read");
    Ok(())
}

fn files_that_root_makes_belong_to_the_user(t: &Test) -> Outcome {
    let c = t.container(&t.shell("echo x > /made"))?;
    c.run()?.ok()?;
    use std::os::unix::fs::MetadataExt;
    same("owner", fs::metadata(c.path("/made"))?.uid(), geteuid().as_raw())
}

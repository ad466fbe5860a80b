//! What is special about a user without privileges; most other cases run as such a user too, with a
//! user namespace that maps one id (see bundle.rs).

use crate::case::Need::Rootless;
use crate::case::{Case, Outcome, case, check, contains, same};
use crate::process;
use crate::test::{Test, strings};
use serde_json::json;
use std::fs;
use std::process::Command;

pub const CASES: &[Case] = &[
    case!(the_own_id_is_root_inside, [Rootless]),
    case!(without_a_user_namespace_it_is_refused_or_gets_one, [Rootless]),
    case!(ids_of_others_are_refused, [Rootless]),
    case!(supplementary_groups_that_cannot_be_set_are_refused, [Rootless]),
    case!(limits_without_a_cgroup_are_refused, [Rootless]),
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
    let own = nix::unistd::geteuid().as_raw().to_string();
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

fn limits_without_a_cgroup_are_refused(t: &Test) -> Outcome {
    let writable =
        |place: &std::path::PathBuf| nix::unistd::access(place, nix::unistd::AccessFlags::W_OK).is_ok();
    if t.host.unified || t.host.cgroups("/").iter().any(writable) {
        return crate::case::skip("the user may have a cgroup of its own");
    }
    let mut config = t.config();
    config.set("linux.resources", json!({ "pids": { "limit": 10 } }));
    t.run(&config)?.refused()?;
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
    same("owner", fs::metadata(c.path("/made"))?.uid(), nix::unistd::geteuid().as_raw())
}

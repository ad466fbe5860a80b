//! Forms that the specification does not have, or asks of configurations and not of runtimes, and that runc and crun
//! take: whoever comes from one of them has such configurations.

use crate::bundle::Config;
use crate::case::Need::{Cgroup, Kernel, Path, Root, V1};
use crate::case::{Case, Outcome, case, check, contains, same, skip};
use crate::process::{self, LIMIT};
use crate::test::{Container, Test, mount_line};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;

pub const CASES: &[Case] = &[
    case!(a_umask_with_more_bits_is_cut),
    case!(an_unknown_capability_is_left_out_whatever_the_version),
    case!(mappings_without_a_user_namespace_are_left_out, [Root]),
    case!(a_relative_path_is_masked_or_read_only),
    case!(the_root_as_a_read_only_path),
    case!(mounts_below_a_read_only_path_keep_their_options),
    case!(all_mounts_are_unbindable, [Root]),
    case!(a_device_has_permissions_and_no_other_bits, [Root]),
    case!(ptmx_among_the_devices_stays_a_link, [Root]),
    case!(dots_in_the_cgroups_path_are_text, [Cgroup]),
    case!(cgroup2_beside_v1_is_the_hierarchy_of_v2, [Root, V1, Path("/sys/fs/cgroup/unified")]),
    case!(hooks_in_the_container_get_the_pid_of_there),
    case!(poststop_hooks_get_no_pid),
    case!(an_idmap_option_with_mappings, [Root, Kernel(5, 12)]),
    case!(an_idmap_option_with_mappings_of_the_container, [Root, Kernel(5, 12)]),
    case!(an_idmap_option_without_both_lists_is_refused, [Root]),
    case!(exec_takes_two_dashes_before_the_command),
    case!(exec_reads_a_process_object_from_standard_input),
    case!(hooks_append_to_the_files_of_annotations),
    case!(the_output_of_hooks_follows_no_link),
    case!(the_output_of_hooks_goes_to_regular_files_only),
];

fn a_umask_with_more_bits_is_cut(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("process.user.umask", 0o1027);
    same("umask", t.script(&config, "umask")?.as_str(), "0027")
}

fn an_unknown_capability_is_left_out_whatever_the_version(t: &Test) -> Outcome {
    for version in ["1.0.0", "1.0.2"] {
        let mut config = t.config();
        config.set("ociVersion", version).capabilities(&["CAP_NO_SUCH_THING", "CAP_KILL"]);
        let effective = t.script(&config, "grep CapEff /proc/self/status")?;
        same(version, effective.split_whitespace().last(), Some("0000000000000020"))?;
    }
    Ok(())
}

fn mappings_without_a_user_namespace_are_left_out(t: &Test) -> Outcome {
    let mut config = t.config();
    let row = json!([{ "containerID": 0, "hostID": 100_000, "size": 10 }]);
    config.set("linux.uidMappings", row.clone()).set("linux.gidMappings", row);
    let map = t.script(&config, "cat /proc/self/uid_map")?;
    same("map", map.split_whitespace().collect::<Vec<_>>(), vec!["0", "0", "4294967295"])
}

fn a_relative_path_is_masked_or_read_only(t: &Test) -> Outcome {
    let mut config = t.shell("cat /etc/group | wc -c; echo x >> /etc/passwd");
    config.set("linux.maskedPaths", json!(["etc/group"]));
    config.set("linux.readonlyPaths", json!(["etc/passwd"]));
    let output = t.run(&config)?.exits(1)?;
    same("size of the masked file", output.stdout.trim(), "0")?;
    contains("message", &output.stderr, "Read-only")
}

fn the_root_as_a_read_only_path(t: &Test) -> Outcome {
    let mut config = t.shell("touch /dev/shm/x && touch /x");
    config.set("linux.readonlyPaths", json!(["/"]));
    contains("message", &t.run(&config)?.exits(1)?.stderr, "/x: Read-only")
}

fn mounts_below_a_read_only_path_keep_their_options(t: &Test) -> Outcome {
    let mut config = t.shell("touch /tmp/writable/x && touch /tmp/x");
    config.mount("/tmp/writable", "tmpfs", "tmpfs", &[]);
    config.set("linux.readonlyPaths", json!(["/tmp"]));
    contains("message", &t.run(&config)?.exits(1)?.stderr, "/tmp/x: Read-only")
}

fn all_mounts_are_unbindable(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.rootfsPropagation", "runbindable");
    let probe = t.probe(&config, &[])?;
    for at in ["/", "/dev", "/dev/shm"] {
        contains(at, &mount_line(&probe, at)?, " unbindable ")?;
    }
    Ok(())
}

fn a_device_has_permissions_and_no_other_bits(t: &Test) -> Outcome {
    let mut config = t.config();
    let device = json!({ "path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0o24640 });
    config.push("linux.devices", device);
    same("mode", t.script(&config, "stat -c %a /dev/x")?.as_str(), "640")
}

fn ptmx_among_the_devices_stays_a_link(t: &Test) -> Outcome {
    let mut config = t.config();
    let device = json!({ "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2, "fileMode": 0o666 });
    config.push("linux.devices", device);
    same("link", t.script(&config, "readlink /dev/ptmx")?.as_str(), "pts/ptmx")
}

fn dots_in_the_cgroups_path_are_text(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    // Neither a nor b has to exist, and where the dots lead is below the case's own cgroup.
    config.set("linux.cgroupsPath", format!("{}/a/b/../../plain", t.cgroup));
    let c = t.detached(&config)?;
    let path = fs::read_to_string(format!("/proc/{}/cgroup", c.pid()?))?;
    c.delete_force()?.ok()?;
    check!(path.contains("/plain\n") && !path.contains("/b/"), "{path}");
    Ok(())
}

fn cgroup2_beside_v1_is_the_hierarchy_of_v2(t: &Test) -> Outcome {
    let mut config = t.config();
    config.mount("/tmp", "cgroup2", "cgroup", &["ro", "nosuid", "noexec", "nodev"]);
    t.script(&config, "test -e /tmp/cgroup.controllers").map(drop)
}

/// What a hook of `kind` reads.
fn read_by(t: &Test, kind: &str) -> Outcome<Value> {
    let file = t.dir.join("read");
    fs::write(&file, "")?;
    let mut config = t.shell("sleep 0.2");
    config.bind(&file, "/read", &[]);
    let inside = kind == "startContainer";
    let path = if inside { "/read".into() } else { file.display().to_string() };
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", format!("cat > {path}")], "env": ["PATH=/usr/bin:/bin"] });
    config.push(&format!("hooks.{kind}"), hook);
    t.run(&config)?.ok()?;
    Ok(serde_json::from_slice(&fs::read(&file)?)?)
}

fn hooks_in_the_container_get_the_pid_of_there(t: &Test) -> Outcome {
    for kind in ["createContainer", "startContainer"] {
        same(kind, read_by(t, kind)?["pid"].as_i64(), Some(1))?;
    }
    let outside = read_by(t, "createRuntime")?["pid"].as_i64();
    check!(outside.is_some_and(|pid| pid > 1), "createRuntime: {outside:?}");
    Ok(())
}

fn poststop_hooks_get_no_pid(t: &Test) -> Outcome {
    same("pid", read_by(t, "poststop")?["pid"].as_i64().unwrap_or(0), 0)
}

/// The owner that a file of user 5 has in a mount with this option; `change` makes the container's user namespace.
fn owner_with(t: &Test, option: &str, change: impl FnOnce(&mut Config)) -> Outcome<Container> {
    let source = t.folder("source")?;
    fs::write(source.join("file"), "")?;
    nix::unistd::chown(&source.join("file"), Some(5.into()), Some(7.into()))?;
    let mut config = t.shell("stat -c %u:%g /tmp/file");
    config.bind(&source, "/tmp", &[option]);
    change(&mut config);
    t.container(&config)
}

fn an_idmap_option_with_mappings(t: &Test) -> Outcome {
    let option = "idmap=uids=0-1000-4#4-2000-4;gids=0-3000-10";
    same("owner", owner_with(t, option, |_| ())?.run()?.ok()?.stdout.trim(), "2001:3007")
}

fn an_idmap_option_with_mappings_of_the_container(t: &Test) -> Outcome {
    // 5 becomes the container's 105, and 7 its 107.
    let option = "idmap=uids=@0-100-10;gids=@0-100-10";
    let c = owner_with(t, option, |config| {
        config.user_namespace(200_000, 65_536);
    })?;
    same("owner", c.run()?.ok()?.stdout.trim(), "105:107")
}

fn an_idmap_option_without_both_lists_is_refused(t: &Test) -> Outcome {
    for option in ["idmap=uids=0-1000-10", "idmap=uids=0-1000;gids=0-1000-10", "idmap=frob=0-0-1"] {
        owner_with(t, option, |_| ())?.run()?.refused()?;
    }
    Ok(())
}

fn exec_takes_two_dashes_before_the_command(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    same("output", c.exec(&["--", "echo", "--", "a"])?.ok()?.stdout.trim(), "-- a")?;
    c.exec(&["--"])?.refused().map(drop)
}

fn exec_reads_a_process_object_from_standard_input(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let file = t.dir.join("process.json");
    let user = json!({ "uid": 0, "gid": 0 });
    fs::write(&file, json!({ "args": ["/bin/echo", "read"], "cwd": "/", "user": user }).to_string())?;
    let mut command = t.runtime.command();
    command.args(["exec", "--process", "-", &c.id]).stdin(fs::File::open(&file)?);
    same("output", process::start(&mut command, &t.dir)?.finish(LIMIT)?.ok()?.stdout.trim(), "read")
}

/// A container with a hook of each kind, whose output goes to `place` by annotation; as the operator allows it.
fn with_output(t: &Test, place: &str) -> Outcome<Container> {
    if t.runtime.name == "runc" {
        return skip("has no such annotation");
    }
    let mut config = t.shell("sleep 0.2");
    config.set("annotations", json!({ "run.oci.hooks.stdout": place, "run.oci.hooks.stderr": place }));
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let script = format!("echo {kind}; echo {kind} again >&2");
        let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] });
        config.push(&format!("hooks.{kind}"), hook);
    }
    let mut c = t.container(&config)?;
    if t.runtime.name == "onggi" {
        c.runtime.flags = &["--hook-output-annotations"];
    }
    Ok(c)
}

fn hooks_append_to_the_files_of_annotations(t: &Test) -> Outcome {
    let log = t.dir.join("log");
    fs::write(&log, "before\n")?;
    let c = with_output(t, &log.display().to_string())?;
    c.create()?.ok()?;
    c.start()?.ok()?;
    c.await_status("stopped")?;
    c.delete()?.ok()?;
    let text = fs::read_to_string(&log)?;
    let wanted = "before\nprestart\nprestart again\ncreateRuntime\ncreateRuntime again\ncreateContainer\n\
        createContainer again\npoststart\npoststart again\npoststop\npoststop again\n";
    same("log", text.as_str(), wanted)
}

fn refused_output(t: &Test, place: &std::path::Path) -> Outcome {
    let c = with_output(t, &place.display().to_string())?;
    let output = c.run()?.refused()?;
    contains("message", &output.text(), "run.oci.hooks.stdout")
}

fn the_output_of_hooks_follows_no_link(t: &Test) -> Outcome {
    let (link, file) = (t.dir.join("link"), t.dir.join("file"));
    fs::write(&file, "")?;
    symlink(&file, &link)?;
    refused_output(t, &link)?;
    same("file behind the link", fs::read_to_string(&file)?.as_str(), "")
}

fn the_output_of_hooks_goes_to_regular_files_only(t: &Test) -> Outcome {
    let fifo = t.dir.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU)?;
    refused_output(t, &fifo)?;
    // Also where somebody reads: it could stop doing so.
    let _reader = nix::fcntl::open(&fifo, nix::fcntl::OFlag::O_RDWR, nix::sys::stat::Mode::empty())?;
    refused_output(t, &fifo)
}

//! Details that programs rely on without knowing it, because runc has always had them.

use crate::bundle::Config;
use crate::case::Need::{Controller, Root};
use crate::case::{Case, Outcome, case, check, contains, same};
use crate::process;
use crate::test::{Mounted, Test, mount_options};
use nix::mount::MsFlags;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;

pub const CASES: &[Case] = &[
    case!(a_user_that_is_not_given_is_root),
    case!(null_is_absent),
    case!(an_empty_namespace_path_is_none),
    case!(the_last_variable_of_a_name_is_alone),
    case!(an_empty_home_is_looked_up),
    case!(tmpfs_has_the_mode_of_the_directory_below),
    case!(tmpfs_over_nothing_is_for_all),
    case!(filesystem_options_in_one_text),
    case!(a_read_only_dev_has_its_devices),
    case!(a_read_only_tmpfs_has_the_mounts_below),
    case!(a_bind_mount_keeps_the_flags_of_its_source, [Root]),
    case!(a_bind_mount_with_flags_has_no_others, [Root]),
    case!(a_user_namespace_does_not_lift_a_read_only_source, [Root]),
    case!(sysfs_in_a_user_namespace_without_its_own_network, [Root]),
    case!(a_file_over_a_directory_names_the_kind),
    case!(a_device_path_may_end_in_a_slash, [Root]),
    case!(the_device_of_tunnels_may_be_opened, [Root]),
    case!(the_processors_are_not_those_of_the_caller, [Controller("cpuset")]),
    case!(a_signal_that_ends_ends_a_created_container),
    case!(a_console_socket_with_a_long_path),
    case!(an_empty_program_is_not_found),
    case!(exec_in_the_containers_own_cgroup, [Root]),
    case!(a_process_object_without_capabilities_has_the_containers, [Root]),
];

fn a_user_that_is_not_given_is_root(t: &Test) -> Outcome {
    for user in [json!(null), json!({}), json!({ "gid": 0 })] {
        let mut config = t.config();
        config.set("process.user", user.clone());
        if user.is_null() {
            config.remove("process.user");
        }
        same("ids", t.script(&config, "id -u; id -g")?.as_str(), "0\n0")?;
    }
    Ok(())
}

fn null_is_absent(t: &Test) -> Outcome {
    let mut config = t.shell("id -u");
    for path in [
        "process.user",
        "process.rlimits",
        "process.oomScoreAdj",
        "process.consoleSize",
        "hooks",
        "annotations",
        "linux.seccomp",
        "linux.devices",
        "linux.maskedPaths",
        "linux.sysctl",
    ] {
        config.set(path, json!(null));
    }
    same("uid", t.run(&config)?.ok()?.stdout.trim(), "0")
}

fn an_empty_namespace_path_is_none(t: &Test) -> Outcome {
    let mut config = t.shell("echo $$");
    config.no_namespace("pid").push("linux.namespaces", json!({ "type": "pid", "path": "" }));
    same("pid", t.run(&config)?.ok()?.stdout.trim(), "1")
}

fn the_last_variable_of_a_name_is_alone(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("process.env", json!(["PATH=/bin", "A=1", "HOME=/a", "A=2", "HOME=/b"]));
    config.args(&["/bin/env"]);
    let output = t.run(&config)?.ok()?.stdout;
    let mut lines: Vec<_> = output.lines().collect();
    lines.sort_unstable();
    same("environment", lines, vec!["A=2", "HOME=/b", "PATH=/bin"])
}

fn an_empty_home_is_looked_up(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("process.env", json!(["PATH=/bin", "HOME=/a", "HOME="]));
    same("HOME", t.script(&config, "echo $HOME")?.as_str(), "/root")
}

fn tmpfs_has_the_mode_of_the_directory_below(t: &Test) -> Outcome {
    let mut config = t.shell("stat -c %a /private");
    config.mount("/private", "tmpfs", "tmpfs", &["nosuid"]);
    let c = t.container(&config)?;
    fs::create_dir(c.path("/private"))?;
    fs::set_permissions(c.path("/private"), fs::Permissions::from_mode(0o710))?;
    same("mode", c.run()?.ok()?.stdout.trim(), "710")
}

fn tmpfs_over_nothing_is_for_all(t: &Test) -> Outcome {
    let mut config = t.config();
    config.mount("/nothing", "tmpfs", "tmpfs", &["nosuid"]);
    same("mode", t.script(&config, "stat -c %a /nothing")?.as_str(), "1777")
}

fn filesystem_options_in_one_text(t: &Test) -> Outcome {
    let mut config = t.config();
    config.mount("/mnt", "tmpfs", "tmpfs", &["nosuid", "size=64k,mode=750"]);
    let options = mount_options(&t.probe(&config, &[])?, "/mnt")?;
    check!(["size=64k", "mode=750"].iter().all(|one| options.iter().any(|o| o == one)), "{options:?}");
    Ok(())
}

fn readonly(config: &mut Config, destination: &str) {
    for mount in config.0["mounts"].as_array_mut().into_iter().flatten() {
        if mount["destination"] == destination {
            mount["options"].as_array_mut().into_iter().for_each(|list| list.push("ro".into()));
        }
    }
}

fn a_read_only_dev_has_its_devices(t: &Test) -> Outcome {
    let mut config = t.shell("cat /dev/null && ls /dev/pts/ptmx && touch /dev/x 2>&1");
    readonly(&mut config, "/dev");
    contains("touch", &t.run(&config)?.exits(1)?.stdout, "Read-only")
}

fn a_read_only_tmpfs_has_the_mounts_below(t: &Test) -> Outcome {
    let mut config = t.shell("touch /a/b/x; touch /a/x 2>&1");
    config.mount("/a", "tmpfs", "tmpfs", &["ro"]).mount("/a/b", "tmpfs", "tmpfs", &[]);
    contains("touch", &t.run(&config)?.exits(1)?.stdout, "/a/x: Read-only")
}

/// What a bind mount of a tmpfs with these flags has, where its options are `options`.
fn bound(t: &Test, flags: MsFlags, options: &[&str], change: fn(&mut Config)) -> Outcome<process::Output> {
    let source = t.folder("source")?;
    let _mounted = Mounted::tmpfs(&source)?;
    Mounted::change(None, &source, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags)?;
    let mut config = t.shell("grep ' /tmp ' /proc/self/mountinfo | cut -d ' ' -f 6");
    config.bind(&source, "/tmp", options);
    change(&mut config);
    t.run(&config)
}

const RESTRICTED: MsFlags =
    MsFlags::MS_RDONLY.union(MsFlags::MS_NOSUID).union(MsFlags::MS_NODEV).union(MsFlags::MS_NOATIME);

fn a_bind_mount_keeps_the_flags_of_its_source(t: &Test) -> Outcome {
    let found = bound(t, RESTRICTED, &[], |_| ())?.ok()?;
    same("flags", found.stdout.trim(), "ro,nosuid,nodev,noatime")
}

fn a_bind_mount_with_flags_has_no_others(t: &Test) -> Outcome {
    let found = bound(t, RESTRICTED, &["noexec"], |_| ())?.ok()?;
    same("flags", found.stdout.trim(), "rw,noexec,noatime")?;
    let found = bound(t, RESTRICTED, &["strictatime"], |_| ())?.ok()?;
    same("flags", found.stdout.trim(), "rw")
}

fn a_user_namespace_does_not_lift_a_read_only_source(t: &Test) -> Outcome {
    let mapped = |config: &mut Config| {
        config.user_namespace(100_000, 65_536);
    };
    let kept = bound(t, MsFlags::MS_RDONLY, &[], mapped)?.ok()?;
    check!(kept.stdout.starts_with("ro"), "not as on the host: {}", kept.text());
    let found = bound(t, MsFlags::MS_RDONLY, &["rw"], mapped)?;
    check!(found.code != 0 || found.stdout.starts_with("ro"), "the source's ro is gone: {}", found.text());
    Ok(())
}

fn sysfs_in_a_user_namespace_without_its_own_network(t: &Test) -> Outcome {
    let mut config = t.shell("ls /sys/kernel > /dev/null && touch /sys/x 2>&1");
    config.no_namespace("network").user_namespace(100_000, 65_536);
    contains("touch", &t.run(&config)?.exits(1)?.stdout, "/sys/x")
}

fn a_file_over_a_directory_names_the_kind(t: &Test) -> Outcome {
    let file = t.dir.join("file");
    fs::write(&file, "")?;
    let mut config = t.config();
    config.bind(&file, "/tmp", &[]);
    let text = t.run(&config)?.refused()?.text().to_lowercase();
    contains("error", &text, "director")
}

fn a_device_path_may_end_in_a_slash(t: &Test) -> Outcome {
    let mut config = t.shell("stat -c %F /dev/extra");
    config.push("linux.devices", json!({ "path": "/dev/extra/", "type": "c", "major": 1, "minor": 3 }));
    same("kind", t.run(&config)?.ok()?.stdout.trim(), "character special file")
}

fn the_device_of_tunnels_may_be_opened(t: &Test) -> Outcome {
    let mut config = t.shell("true < /dev/tunnel 2>&1");
    config.push("linux.devices", json!({ "path": "/dev/tunnel", "type": "c", "major": 10, "minor": 200 }));
    let output = t.run(&config)?;
    check!(!output.text().contains("not permitted"), "the device rules forbid it: {}", output.text());
    Ok(())
}

fn the_processors_are_not_those_of_the_caller(t: &Test) -> Outcome {
    let allowed = "grep Cpus_allowed_list /proc/self/status | cut -f 2";
    let all = fs::read_to_string("/sys/devices/system/cpu/online")?;
    let c = t.container(&t.shell(allowed))?;
    // Bound to the first processor, the runtime starts a container that is not.
    let mut command = std::process::Command::new(crate::bundle::busybox().unwrap_or_default());
    let run = c.bundle_command("run", &[]);
    command.arg("taskset").arg("1").arg(run.get_program()).args(run.get_args()).current_dir(&t.dir);
    let output = process::run(&mut command, &t.dir)?.ok()?;
    same("processors", output.stdout.trim(), all.trim())
}

fn a_signal_that_ends_ends_a_created_container(t: &Test) -> Outcome {
    for signal in ["TERM", "INT", "HUP"] {
        let c = t.container(&t.sleeper())?;
        c.create()?.ok()?;
        c.kill(signal)?.ok()?;
        c.await_status("stopped")?;
        c.start()?.refused()?;
        c.delete()?.ok()?;
    }
    let c = t.container(&t.sleeper())?;
    c.create()?.ok()?;
    c.kill("USR1")?.ok()?;
    crate::test::pause(200);
    same("status after USR1", c.status()?.as_str(), "created")
}

fn a_console_socket_with_a_long_path(t: &Test) -> Outcome {
    let mut config = t.shell("echo printed");
    config.set("process.terminal", true);
    let c = t.container(&config)?;
    let directory = t.folder(&"d".repeat(110))?;
    // The listener's own address is short; the caller names the socket by its path.
    let short = t.dir.join("tty");
    let listener = t.listen("console", &short, &[""])?;
    let long = directory.join("tty");
    fs::rename(&short, &long)?;
    c.create_with(&["--console-socket", &long.display().to_string()])?.ok()?;
    c.start()?.ok()?;
    let seen = listener.finish(process::LIMIT)?.ok()?.json()?;
    contains("output", &seen["output"].to_string(), "printed")
}

fn an_empty_program_is_not_found(t: &Test) -> Outcome {
    let mut config = t.config();
    config.args(&[""]);
    contains("error", &t.run(&config)?.refused()?.text(), "executable file not found")?;
    let c = t.detached(&t.sleeper())?;
    contains("error of exec", &c.exec(&[""])?.refused()?.text(), "executable file not found")
}

fn exec_in_the_containers_own_cgroup(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let own = c.exec(&["/bin/cat", "/proc/self/cgroup"])?.ok()?.stdout;
    let asked = c.exec_with(&["--cgroup", "/"], &["/bin/cat", "/proc/self/cgroup"])?.ok()?.stdout;
    same("cgroups", asked, own)
}

fn a_process_object_without_capabilities_has_the_containers(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let file = t.dir.join("process.json");
    let process = json!({ "args": ["/bin/grep", "CapEff", "/proc/self/status"], "cwd": "/" });
    fs::write(&file, process.to_string())?;
    let path = file.display().to_string();
    let given = t.runtime.call(&["exec", "--process", &path, &c.id])?.ok()?.stdout;
    same("capabilities", given, c.exec(&["/bin/grep", "CapEff", "/proc/self/status"])?.ok()?.stdout)
}

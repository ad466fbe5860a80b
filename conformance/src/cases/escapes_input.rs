//! Escapes by what is read: annotations, values and files that an image or another author writes, and
//! files that are no files. Each call is bounded in time, and in memory where the input has no end.
//! escapes.rs says what the group is; bad_input.rs has what is merely wrong.

use super::escapes::canary;
use super::escapes_dev::device;
use crate::bundle::link;
use crate::case::Need::{Path as File, Root, Systemd};
use crate::case::{Case, Outcome, case, check, same};
use crate::process::{self, Output};
use crate::test::{Container, Test};
use serde_json::json;
use std::fs;
use std::os::unix::fs::FileTypeExt;

pub const CASES: &[Case] = &[
    case!(cve_2019_18837_destination_by_a_chain_of_links),
    case!(cve_2021_43784_long_paths_and_many_maps, [Root]),
    case!(cve_2025_24965_files_of_a_handler_are_not_written),
    case!(annotations_make_no_network, [Root]),
    case!(annotations_write_no_file_of_the_host),
    case!(annotations_set_no_command_of_systemd, [Root, Systemd]),
    case!(sysctls_of_a_namespace_by_path_that_is_the_hosts, [Root, File("/proc/sys/net/ipv4/ip_forward")]),
    case!(passwd_is_a_link_to_an_endless_file, [Root]),
    case!(passwd_is_huge, [Root]),
    case!(group_is_a_fifo, [Root]),
    case!(a_filter_that_refuses_exit_does_not_hang),
    case!(pid_file_over_a_device_leaves_the_device, [Root]),
    case!(a_configuration_without_end_is_refused),
];

/// `run` with at most a gigabyte of memory.
fn bounded(t: &Test, c: &Container) -> Outcome<Output> {
    let script = "ulimit -d 1000000; exec \"$RT\" --root \"$ST\" run --bundle \"$B\" \"$ID\"";
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", script]).current_dir(&t.dir).env("RT", &t.runtime.program);
    command.env("ST", &t.runtime.state).env("B", &c.bundle).env("ID", &c.id);
    process::run(&mut command, &t.dir)
}

fn cve_2019_18837_destination_by_a_chain_of_links(t: &Test) -> Outcome {
    for (first, length) in [(canary(t), 1), ("../../..".to_owned() + &canary(t), 1), (canary(t), 30)] {
        let mut config = t.config();
        config.mount("/way/0/made", "tmpfs", "tmpfs", &["size=64k"]);
        let c = t.container(&config)?;
        fs::create_dir(c.path("/way"))?;
        for n in 0..length {
            let target = if n + 1 == length { first.clone() } else { format!("/way/{}", n + 1) };
            link(&c.path(&format!("/way/{n}")), &target)?;
        }
        c.run()?;
        check!(!t.canary().join("made").exists(), "a directory was made on the host");
    }
    Ok(())
}

fn cve_2021_43784_long_paths_and_many_maps(t: &Test) -> Outcome {
    let mut config = t.config();
    config.join("network", &format!("/proc/self/{}ns/net", "./".repeat(35_000)));
    t.run(&config)?.refused()?;
    let mut config = t.config();
    config.user_namespace(100_000, 65536);
    let row = |n: u32| json!({ "containerID": n, "hostID": 100_000 + n, "size": 1 });
    config.set("linux.uidMappings", (0..10_000).map(row).collect::<Vec<_>>());
    t.run(&config)?.refused()?;
    Ok(())
}

fn cve_2025_24965_files_of_a_handler_are_not_written(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("annotations", json!({ "run.oci.handler": "krun" }));
    let c = t.container(&config)?;
    link(&c.path("/.krun_config.json"), &format!("{}/file", canary(t)))?;
    c.run()?;
    same("the file of the host", fs::read_to_string(t.canary().join("file"))?.as_str(), "untouched")
}

/// The interfaces of the case's network namespace, which is the host for it.
fn interfaces() -> Outcome<Vec<String>> {
    let text = fs::read_to_string("/proc/thread-self/net/dev")?;
    Ok(text
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next())
        .map(|name| name.trim().to_owned())
        .collect())
}

fn annotations_make_no_network(t: &Test) -> Outcome {
    let before = interfaces()?;
    let mut config = t.sleeper();
    let wanted = "bridge=escape0,address=auto,publish=0.0.0.0:8080:80/tcp";
    config.set("annotations", json!({ "org.onggi.network.eth0": wanted }));
    let c = t.container(&config)?;
    let output = c.run_with(&["--detach"])?;
    let after = interfaces()?;
    check!(output.code == 0 || !output.stderr.trim().is_empty(), "refused without a message");
    same("interfaces of the host", after, before)
}

fn annotations_write_no_file_of_the_host(t: &Test) -> Outcome {
    let mut config = t.config();
    let place = format!("{}/made", canary(t));
    config.set("annotations", json!({ "run.oci.hooks.stdout": place, "run.oci.hooks.stderr": place }));
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "echo output"] }]);
    config.set("hooks.createRuntime", hook);
    let output = t.run(&config)?;
    check!(fs::symlink_metadata(&place).is_err(), "a file was made on the host: {}", output.text());
    Ok(())
}

fn annotations_set_no_command_of_systemd(t: &Test) -> Outcome {
    let command = format!("[('/bin/touch', ['touch', '{}/made'], false)]", canary(t));
    // systemd itself refuses a command for a scope; the others are memory of others, and processes that stay.
    let properties =
        [("ExecStartPre", command.as_str()), ("MemoryMin", "uint64 1048576"), ("KillMode", "'none'")];
    for (at, (property, value)) in properties.into_iter().enumerate() {
        let mut config = t.config();
        config.set("annotations", json!({ format!("org.systemd.property.{property}"): value }));
        config.set("linux.cgroupsPath", format!("system.slice:conformance:escape{at}"));
        let c = t.container(&config)?;
        let mut call = t.runtime.command();
        call.arg("--systemd-cgroup").args(["run", "--bundle"]).arg(&c.bundle).arg(&c.id);
        process::run(&mut call, &t.dir)?.refused()?;
    }
    Ok(())
}

fn sysctls_of_a_namespace_by_path_that_is_the_hosts(t: &Test) -> Outcome {
    // The namespaces are the case's own; for the runtime they are the host's.
    for (kind, name, sysctl) in [
        ("network", "net", "net.ipv4.ip_forward"),
        ("ipc", "ipc", "kernel.msgmnb"),
        ("uts", "uts", "kernel.domainname"),
    ] {
        let path = format!("/proc/sys/{}", sysctl.replace('.', "/"));
        let before = fs::read_to_string(&path)?;
        let mut config = t.config();
        config.join(kind, &format!("/proc/{}/ns/{name}", std::process::id()));
        config.remove("hostname");
        let value = if before.trim() == "1" { "0" } else { "1" };
        config.set("linux.sysctl", json!({ sysctl: value }));
        let output = t.run(&config)?;
        same(sysctl, fs::read_to_string(&path)?, before)?;
        output.refused()?;
    }
    Ok(())
}

fn passwd_is_a_link_to_an_endless_file(t: &Test) -> Outcome {
    for file in ["passwd", "group"] {
        let mut config = t.shell("echo ran");
        config.set("process.user", json!({ "uid": 1000, "gid": 1000 }));
        let c = t.container(&config)?;
        link(&c.path(&format!("/etc/{file}")), "/dev/zero")?;
        let output = bounded(t, &c)?;
        check!(output.code != 0 || output.stdout.contains("ran"), "{}", output.text());
    }
    Ok(())
}

fn passwd_is_huge(t: &Test) -> Outcome {
    let c = t.container(&t.shell("echo ran"))?;
    fs::File::create(c.path("/etc/passwd"))?.set_len(1 << 36)?;
    let output = bounded(t, &c)?;
    check!(output.code != 0 || output.stdout.contains("ran"), "{}", output.text());
    Ok(())
}

fn group_is_a_fifo(t: &Test) -> Outcome {
    let c = t.container(&t.shell("echo ran"))?;
    fs::remove_file(c.path("/etc/group"))?;
    nix::unistd::mkfifo(&c.path("/etc/group"), nix::sys::stat::Mode::from_bits_truncate(0o666))?;
    let output = c.run();
    check!(output.is_ok(), "the runtime waits for the container's fifo");
    Ok(())
}

fn a_filter_that_refuses_exit_does_not_hang(t: &Test) -> Outcome {
    // The program cannot be executed: what has loaded the filter must end, whatever it forbids.
    let mut config = t.config();
    config.args(&["/garbage"]).set("linux.seccomp", json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["exit", "exit_group", "kill", "tkill", "tgkill"], "action": "SCMP_ACT_ERRNO" }]
    }));
    let c = t.container(&config)?;
    super::escapes::executable(&c.path("/garbage"), "\u{1}no program")?;
    let output = c.run()?;
    check!(output.code != 0, "succeeded with nothing to run");
    config.args(&["/bin/sleep", "1000"]);
    let c = t.detached(&config)?;
    super::escapes::executable(&c.path("/garbage"), "\u{1}no program")?;
    for program in ["/garbage", "/missing"] {
        let output = c.exec(&[program])?;
        check!(output.code != 0, "exec succeeded with nothing to run");
    }
    let left = fs::read_to_string(format!("/proc/{0}/task/{0}/children", c.pid()?)).unwrap_or_default();
    same("processes that exec left", left.trim(), "")
}

fn pid_file_over_a_device_leaves_the_device(t: &Test) -> Outcome {
    let node = t.dir.join("device");
    device(&node, 1, 3)?;
    let c = t.container(&t.config())?;
    let output = c.run_with(&["--pid-file", &node.display().to_string()])?;
    let kind = fs::symlink_metadata(&node)?.file_type();
    check!(kind.is_char_device(), "the device is a file now: {}", output.text());
    Ok(())
}

fn a_configuration_without_end_is_refused(t: &Test) -> Outcome {
    let c = t.container(&t.config())?;
    link(&c.bundle.join("config.json"), "/dev/zero")?;
    let output = bounded(t, &c)?.refused()?;
    check!(!output.text().contains("memory"), "it was read until no memory was left: {}", output.text());
    Ok(())
}

//! checkpoint and restore, through CRIU: what a process has comes back, and a checkpoint gives nobody
//! more than the configuration does.

use crate::bundle::Config;
use crate::case::Need::{Criu, Root};
use crate::case::{Case, Outcome, case, check, contains, same, skip};
use crate::net;
use crate::process;
use crate::test::{Container, Test, pause};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

pub const CASES: &[Case] = &[
    case!(a_saved_process_goes_on_where_it_was, [Root, Criu], 60),
    case!(a_process_that_nobody_waits_for_is_saved, [Root, Criu], 60),
    case!(leave_running_keeps_the_container, [Root, Criu], 60),
    case!(a_saved_container_is_gone, [Root, Criu], 60),
    case!(masks_limits_and_mounts_are_restored, [Root, Criu], 60),
    case!(a_paused_container_is_saved, [Root, Criu], 60),
    case!(a_terminal_is_restored, [Root, Criu], 60),
    case!(a_joined_network_namespace_is_joined_again, [Root, Criu], 60),
    case!(a_connection_within_the_container_is_kept, [Root, Criu], 60),
    case!(a_user_namespace_is_restored, [Root, Criu], 60),
    case!(exec_in_a_restored_container_has_its_filter, [Root, Criu], 60),
    case!(directories_by_links_are_found, [Root, Criu], 60),
    case!(restore_in_the_foreground_has_the_exit_code, [Root, Criu], 60),
    case!(capabilities_beyond_the_configuration_are_refused, [Root, Criu], 60),
    case!(a_missing_filter_is_refused, [Root, Criu], 60),
    case!(a_damaged_checkpoint_leaves_nothing, [Root, Criu], 60),
    case!(a_created_container_is_not_saved, [Root, Criu]),
    case!(without_criu_there_is_an_error, [Root]),
    case!(a_criu_that_dies_is_an_error, [Root]),
    case!(two_at_once_leave_the_options_of_cgroup2, [Root], 60),
];

/// Counts in a file of its root.
const COUNTER: &str =
    "i=0; while :; do i=$((i+1)); echo $i > /count.new; mv /count.new /count; sleep 0.05; done";

fn files(t: &Test) -> (PathBuf, PathBuf) {
    (t.dir.join("images"), t.dir.join("work"))
}

fn checkpoint(t: &Test, c: &Container, options: &[&str]) -> Outcome<process::Output> {
    let (images, work) = files(t);
    let (images, work) = (images.display().to_string(), work.display().to_string());
    let mut all = vec!["checkpoint", "--image-path", &images, "--work-path", &work];
    all.extend_from_slice(options);
    all.push(&c.id);
    c.runtime.call(&all)
}

fn restore(t: &Test, c: &Container, options: &[&str]) -> Outcome<process::Output> {
    let (images, work) = files(t);
    let (images, work) = (images.display().to_string(), work.display().to_string());
    let mut all = vec!["--image-path", &images, "--work-path", &work];
    all.extend_from_slice(options);
    process::run(&mut c.bundle_command("restore", &all), &c.runtime.dir)
}

fn count(c: &Container) -> Outcome<u32> {
    let text = c.await_file("/count")?;
    Ok(text.trim().parse().unwrap_or(0))
}

fn await_progress(c: &Container, from: u32) -> Outcome {
    process::until(&format!("the counter is above {from}"), || Ok(count(c)? > from))
}

/// CRIU asks the kernel for what it can do by a connection to 127.0.0.1.
fn ready(t: &Test) -> Outcome {
    t.needs_verb("checkpoint")?;
    net::host(t, "ip link set lo up").map(drop)
}

/// A container whose process counts, and has counted a little.
fn counting(t: &Test, config: &Config) -> Outcome<Container> {
    ready(t)?;
    let c = t.detached(config)?;
    await_progress(&c, 2)?;
    Ok(c)
}

/// Saves and restores a container that counts.
fn goes_on_from_a_checkpoint(t: &Test, c: &Container) -> Outcome {
    checkpoint(t, c, &[])?.ok()?;
    let saved = count(c)?;
    restore(t, c, &["--detach"])?.ok()?;
    await_progress(c, saved)?;
    c.delete_force()?.ok().map(drop)
}

fn a_saved_process_goes_on_where_it_was(t: &Test) -> Outcome {
    let c = counting(t, &t.shell(COUNTER))?;
    checkpoint(t, &c, &[])?.ok()?;
    let saved = count(&c)?;
    pause(200);
    same("counted while it is saved", count(&c)?, saved)?;
    restore(t, &c, &["--detach"])?.ok()?;
    same("status", c.status()?.as_str(), "running")?;
    await_progress(&c, saved)?;
    check!(count(&c)? < saved + 2000, "the counter has begun anew or jumped");
    c.delete_force()?.ok()?;
    Ok(())
}

fn a_process_that_nobody_waits_for_is_saved(t: &Test) -> Outcome {
    let c = counting(t, &t.shell(&format!("(true & exec sleep 1000) & {COUNTER}")))?;
    let processes = c.exec(&["/bin/sh", "-c", "cat /proc/[0-9]*/stat"])?.stdout;
    contains("zombies", &processes, ") Z ")?;
    goes_on_from_a_checkpoint(t, &c)
}

fn leave_running_keeps_the_container(t: &Test) -> Outcome {
    let c = counting(t, &t.shell(COUNTER))?;
    let pid = c.pid()?;
    checkpoint(t, &c, &["--leave-running"])?.ok()?;
    same("pid", c.pid()?, pid)?;
    await_progress(&c, count(&c)?)
}

fn a_saved_container_is_gone(t: &Test) -> Outcome {
    let c = counting(t, &t.shell(COUNTER))?;
    let pid = c.pid()?;
    checkpoint(t, &c, &[])?.ok()?;
    check!(!PathBuf::from(format!("/proc/{pid}")).exists(), "its process is still there");
    c.call("state", &[])?.refused()?;
    Ok(())
}

fn masks_limits_and_mounts_are_restored(t: &Test) -> Outcome {
    let volume = t.folder("volume")?;
    fs::write(volume.join("file"), "from the host")?;
    let mut config = t.shell(COUNTER);
    config.bind(&volume, "/volume", &["ro"]);
    config.set("linux.maskedPaths", json!(["/proc/kcore", "/proc/acpi", "/proc/keys"]));
    config.set("linux.readonlyPaths", json!(["/proc/sys"]));
    config.set("process.rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 99 }]));
    config.set("hostname", "restored");
    let c = counting(t, &config)?;
    checkpoint(t, &c, &[])?.ok()?;
    restore(t, &c, &["--detach"])?.ok()?;
    let script = "cat /volume/file; hostname; cat /proc/keys | wc -c; grep 'open files' /proc/1/limits; \
                  touch /volume/x 2>&1; echo 1 2>&1 > /proc/sys/kernel/hostname";
    let seen = c.exec(&["/bin/sh", "-c", script])?.text();
    contains("the bind mount", &seen, "from the host")?;
    contains("hostname", &seen, "restored")?;
    contains("what is masked", &seen, "| 0 |")?;
    check!(seen.split_whitespace().any(|word| word == "77"), "the limit is not 77: {seen}");
    contains("the read-only mount", &seen, "Read-only file system")?;
    c.delete_force()?.ok()?;
    Ok(())
}

fn a_paused_container_is_saved(t: &Test) -> Outcome {
    let c = counting(t, &t.shell(COUNTER))?;
    c.call("pause", &[])?.ok()?;
    checkpoint(t, &c, &["--leave-running"])?.ok()?;
    if c.status()? == "paused" {
        c.call("resume", &[])?.ok()?;
    }
    await_progress(&c, count(&c)?)
}

fn a_terminal_is_restored(t: &Test) -> Outcome {
    ready(t)?;
    let mut config = t.shell("echo ready; while read word; do echo \"got <$word>\"; done");
    config.set("process.terminal", true);
    let c = t.container(&config)?;
    let first = t.dir.join("tty1");
    let listener = t.listen("console", &first, &[""])?;
    c.create_with(&["--console-socket", &first.display().to_string()])?.ok()?;
    c.start()?.ok()?;
    pause(300);
    checkpoint(t, &c, &["--shell-job"])?.ok()?;
    listener.finish(process::LIMIT)?.ok()?;
    let second = t.dir.join("tty2");
    let listener = t.listen("console", &second, &["hello\n"])?;
    restore(t, &c, &["--detach", "--shell-job", "--console-socket", &second.display().to_string()])?.ok()?;
    pause(500);
    c.kill("KILL")?.ok()?;
    let seen = listener.finish(process::LIMIT)?.ok()?.json()?;
    contains("output", seen["output"].as_str().unwrap_or_default(), "got <hello>")
}

fn a_joined_network_namespace_is_joined_again(t: &Test) -> Outcome {
    let holder = t.detached(&t.sleeper())?;
    let path = format!("/proc/{}/ns/net", holder.pid()?);
    let mut config = t.shell(COUNTER);
    config.join("network", &path);
    let c = counting(t, &config)?;
    checkpoint(t, &c, &[])?.ok()?;
    restore(t, &c, &["--detach"])?.ok()?;
    let theirs = fs::read_link(format!("/proc/{}/ns/net", c.pid()?))?;
    same("network namespace", theirs, fs::read_link(path)?)?;
    c.delete_force()?.ok()?;
    Ok(())
}

fn a_connection_within_the_container_is_kept(t: &Test) -> Outcome {
    // CRIU ends a sleep early, and nc ends with its input.
    let script = "ip link set lo up; (while :; do date +%N; sleep 0.05; done) | nc -l -p 7000 127.0.0.1 & \
                  sleep 0.3; (while :; do sleep 1000; done) | nc 127.0.0.1 7000 > /received";
    let mut config = t.shell(script);
    config.capabilities(&["CAP_NET_ADMIN"]);
    ready(t)?;
    let c = t.detached(&config)?;
    let received = || fs::metadata(c.path("/received")).map_or(0, |file| file.len());
    process::until("something is received", || Ok(received() > 0))?;
    let saved = checkpoint(t, &c, &["--tcp-established"])?;
    if saved.code != 0 && saved.text().contains("iptables") {
        return skip("CRIU locks connections by iptables, which is missing here");
    }
    saved.ok()?;
    let before = received();
    restore(t, &c, &["--detach", "--tcp-established"])?.ok()?;
    process::until("more is received", || Ok(received() > before))?;
    c.delete_force()?.ok()?;
    Ok(())
}

fn a_user_namespace_is_restored(t: &Test) -> Outcome {
    let mut config = t.shell(COUNTER);
    config.user_namespace(100_000, 65536);
    let c = t.container(&config)?;
    ready(t)?;
    fs::set_permissions(c.rootfs(), fs::Permissions::from_mode(0o777))?;
    c.run_with(&["--detach"])?.ok()?;
    await_progress(&c, 2)?;
    checkpoint(t, &c, &[])?.ok()?;
    let saved = count(&c)?;
    restore(t, &c, &["--detach"])?.ok()?;
    await_progress(&c, saved)?;
    let map = fs::read_to_string(format!("/proc/{}/uid_map", c.pid()?))?;
    same("uid map", map.split_whitespace().collect::<Vec<_>>(), vec!["0", "100000", "65536"])?;
    c.delete_force()?.ok()?;
    Ok(())
}

fn exec_in_a_restored_container_has_its_filter(t: &Test) -> Outcome {
    let mut config = t.shell(COUNTER);
    config.set(
        "linux.seccomp",
        json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 85 }] }),
    );
    let c = counting(t, &config)?;
    checkpoint(t, &c, &[])?.ok()?;
    restore(t, &c, &["--detach"])?.ok()?;
    let probe = c.exec_with(&[], &["/bin/grep", "Seccomp:", "/proc/self/status"])?.ok()?.stdout;
    contains("status", &probe, "2")?;
    c.delete_force()?.ok()?;
    Ok(())
}

/// As in the bundles of containerd, whose `work` is a link to another directory, by an absolute path.
fn directories_by_links_are_found(t: &Test) -> Outcome {
    for (link, target) in [("images", "elsewhere-images"), ("work", "elsewhere-work")] {
        let target = t.folder(target)?;
        std::os::unix::fs::symlink(target, t.dir.join(link))?;
    }
    let c = counting(t, &t.shell(COUNTER))?;
    goes_on_from_a_checkpoint(t, &c)
}

fn restore_in_the_foreground_has_the_exit_code(t: &Test) -> Outcome {
    let c = counting(t, &t.shell("echo 3 > /count; while [ ! -e /end ]; do sleep 0.05; done; exit 7"))?;
    checkpoint(t, &c, &[])?.ok()?;
    fs::write(c.path("/end"), "")?;
    restore(t, &c, &[])?.exits(7)?;
    c.call("state", &[])?.refused()?;
    Ok(())
}

/// Nothing of the container is there, and its files were not used.
fn refused(t: &Test, c: &Container) -> Outcome {
    let before = count(c)?;
    let refused = restore(t, c, &["--detach"])?;
    refused.refused()?;
    pause(200);
    same("counted after the refusal", count(c)?, before)?;
    c.call("state", &[])?.refused()?;
    Ok(())
}

fn only_onggi(t: &Test) -> Outcome {
    if t.runtime.name == "onggi" { Ok(()) } else { skip("is a promise of onggi's alone") }
}

fn capabilities_beyond_the_configuration_are_refused(t: &Test) -> Outcome {
    only_onggi(t)?;
    let mut config = t.shell(COUNTER);
    config.capabilities(&["CAP_KILL", "CAP_NET_ADMIN"]);
    let c = counting(t, &config)?;
    checkpoint(t, &c, &[])?.ok()?;
    config.capabilities(&["CAP_KILL"]);
    t.write_config(&c, &config)?;
    refused(t, &c)
}

fn a_missing_filter_is_refused(t: &Test) -> Outcome {
    only_onggi(t)?;
    let mut config = t.shell(COUNTER);
    let c = counting(t, &config)?;
    checkpoint(t, &c, &[])?.ok()?;
    let syscalls = json!([{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }]);
    config.set("linux.seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls }));
    t.write_config(&c, &config)?;
    refused(t, &c)
}

fn a_damaged_checkpoint_leaves_nothing(t: &Test) -> Outcome {
    let c = counting(t, &t.shell(COUNTER))?;
    checkpoint(t, &c, &[])?.ok()?;
    fs::write(files(t).0.join("pstree.img"), "nonsense")?;
    refused(t, &c)
}

fn a_created_container_is_not_saved(t: &Test) -> Outcome {
    t.needs_verb("checkpoint")?;
    let c = t.container(&t.sleeper())?;
    c.create()?.ok()?;
    checkpoint(t, &c, &[])?.refused()?;
    same("status", c.status()?.as_str(), "created")
}

/// `checkpoint` with nothing in `PATH` but what `criu` is made of.
fn with_criu(t: &Test, script: Option<&str>) -> Outcome<process::Output> {
    t.needs_verb("checkpoint")?;
    let programs = t.folder("programs")?;
    if let Some(script) = script {
        fs::write(programs.join("criu"), script)?;
        fs::set_permissions(programs.join("criu"), fs::Permissions::from_mode(0o755))?;
    }
    let c = t.detached(&t.sleeper())?;
    let (images, _) = files(t);
    let mut command = c.runtime.command();
    command.env("PATH", &programs).arg("checkpoint").arg("--image-path").arg(images).arg(&c.id);
    let output = process::run(&mut command, &c.runtime.dir)?;
    same("status", c.status()?.as_str(), "running")?;
    Ok(output)
}

fn without_criu_there_is_an_error(t: &Test) -> Outcome {
    let output = with_criu(t, None)?;
    let output = output.refused()?;
    contains("error", &output.text(), "criu")
}

fn a_criu_that_dies_is_an_error(t: &Test) -> Outcome {
    let output = with_criu(t, Some("#!/bin/sh\nexit 3\n"))?;
    let output = output.refused()?;
    contains("error", &output.text(), "criu")
}

fn options_of_cgroup2() -> Option<String> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mountinfo.lines().find(|line| line.contains(" - cgroup2 "))?;
    line.rsplit(' ').next().map(str::to_owned)
}

/// Saves with a CRIU that waits for a file; returns when it runs.
fn waiting_criu(t: &Test, c: &Container, name: &str) -> Outcome<process::Started> {
    let dir = t.folder(name)?;
    let at = dir.display();
    let script = format!("#!/bin/sh\n: > {at}/runs\nwhile [ ! -e {at}/end ]; do /bin/sleep 0.05; done\n");
    let criu = dir.join("criu");
    fs::write(&criu, script)?;
    fs::set_permissions(&criu, fs::Permissions::from_mode(0o755))?;
    let mut command = c.runtime.command();
    command.env("PATH", &dir).args(["checkpoint", "--image-path"]).arg(dir.join("images")).arg(&c.id);
    let started = process::start(&mut command, &t.dir)?;
    process::until("criu runs", || Ok(dir.join("runs").exists()))?;
    Ok(started)
}

/// CRIU mounts cgroup2 without options when it restores, which takes them from the host's: `nsdelegate` among them, by
/// which a process cannot leave what was delegated to its container. Here a mount takes CRIU's part.
fn two_at_once_leave_the_options_of_cgroup2(t: &Test) -> Outcome {
    // The CRIU of another case may run just now.
    let seen = (0..100).find_map(|_| {
        pause(50);
        options_of_cgroup2().filter(|options| options.contains("nsdelegate"))
    });
    let Some(before) = seen else { return skip("cgroup2 is not mounted with nsdelegate") };
    t.needs_verb("checkpoint")?;
    let c = t.detached(&t.sleeper())?;
    let point = t.folder("cgroup2")?.display().to_string();
    let mount = || net::host(t, &format!("mount -t cgroup2 none {point} && umount {point}"));
    let end = |started: process::Started, name: &str| -> Outcome {
        fs::write(t.dir.join(name).join("end"), "")?;
        started.finish(process::LIMIT)?.refused().map(drop)
    };
    let both = || -> Outcome {
        let first = waiting_criu(t, &c, "first")?;
        mount()?;
        let second = waiting_criu(t, &c, "second")?;
        end(first, "first")?;
        mount()?;
        end(second, "second")
    };
    let ended = both();
    let after = options_of_cgroup2();
    // Whatever came of it, the host is to have its options again.
    let options = before.trim_start_matches("rw,");
    net::host(t, &format!("mount -t cgroup2 -o {options} none {point} && umount {point}"))?;
    ended?;
    same("options", after, Some(before))
}

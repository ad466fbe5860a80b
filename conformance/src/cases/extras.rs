//! Things between the container and the rest of the host: network devices that are handed over, security
//! modules that are or are not there, readiness that is passed on, descriptors of the process.

use crate::case::Need::{Kernel, Root};
use crate::case::{Case, Outcome, case, check, contains, same, skip};
use crate::process;
use crate::test::{Container, Test};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub const CASES: &[Case] = &[
    case!(network_device_is_moved, [Root]),
    case!(network_device_is_moved_and_renamed, [Root]),
    case!(network_device_that_is_missing_is_refused),
    case!(network_device_with_the_hosts_network_is_refused),
    case!(network_device_with_a_bad_name_is_refused),
    case!(apparmor_profile_without_apparmor_is_refused),
    case!(apparmor_profile_that_is_not_loaded_is_refused),
    case!(selinux_label_without_selinux_is_refused),
    case!(readiness_is_passed_on_to_the_callers_socket),
    case!(readiness_is_passed_on_to_a_socket_with_a_long_path),
    case!(kill_and_delete_by_regular_expression),
    case!(seccomp_calls_that_are_unknown_fail_where_an_annotation_says_so),
    case!(copy_symlink_makes_the_link_again),
    case!(src_nofollow_and_dest_nofollow_take_links_as_they_are, [Kernel(5, 2)]),
    case!(pidfd_socket_gets_the_process, [Kernel(5, 4)]),
    case!(mounts_are_added_to_a_container_and_taken_off, [Root], 60),
    case!(mounts_added_later_follow_no_symbolic_link, [Root], 60),
    case!(mounts_taken_off_follow_no_symbolic_link, [Root], 60),
];

/// A pair of interfaces in the case's own network namespace.
fn veth(t: &Test, name: &str) -> Outcome {
    let mut command = Command::new("ip");
    command.args(["link", "add", name, "type", "veth", "peer", "name", "peer-of-it"]);
    if !process::is_in_path("ip") {
        return skip("needs the program ip");
    }
    let output = process::run(&mut command, &t.dir)?;
    if output.code == 0 { Ok(()) } else { skip(format!("no veth: {}", output.text())) }
}

fn interfaces() -> Outcome<Vec<String>> {
    let text = fs::read_to_string("/proc/self/net/dev")?;
    Ok(text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned()).collect())
}

const NAMES: &str = "grep : /proc/net/dev | cut -d: -f1 | tr -d ' ' | sort | tr '\\n' ' '";

fn network_device_is_moved(t: &Test) -> Outcome {
    veth(t, "given0")?;
    let mut config = t.config();
    config.set("linux.netDevices", json!({ "given0": {} }));
    contains("interfaces of the container", &t.script(&config, NAMES)?, "given0")?;
    check!(!interfaces()?.contains(&"given0".to_owned()), "it is still outside");
    Ok(())
}

fn network_device_is_moved_and_renamed(t: &Test) -> Outcome {
    veth(t, "given1")?;
    let mut config = t.config();
    config.set("linux.netDevices", json!({ "given1": { "name": "eth7" } }));
    let names = t.script(&config, NAMES)?;
    contains("interfaces of the container", &names, "eth7")?;
    check!(!names.contains("given1"), "the old name is there too: {names}");
    Ok(())
}

fn network_device_that_is_missing_is_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("linux.netDevices", json!({ "no-such-if": {} }));
    t.run(&config)?.refused()?;
    Ok(())
}

fn network_device_with_the_hosts_network_is_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.no_namespace("network").set("linux.netDevices", json!({ "lo": { "name": "lo2" } }));
    t.run(&config)?.refused()?;
    Ok(())
}

fn network_device_with_a_bad_name_is_refused(t: &Test) -> Outcome {
    for name in ["a/b", "..", "name-of-more-than-15", "a b"] {
        let mut config = t.config();
        config.set("linux.netDevices", json!({ "lo": { "name": name } }));
        t.run(&config)?.refused()?;
    }
    Ok(())
}

fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.trim() == "Y")
}

fn apparmor_profile_without_apparmor_is_refused(t: &Test) -> Outcome {
    if has_apparmor() {
        return skip("has AppArmor");
    }
    let mut config = t.config();
    config.set("process.apparmorProfile", "conformance-profile");
    t.run(&config)?.refused()?;
    Ok(())
}

fn apparmor_profile_that_is_not_loaded_is_refused(t: &Test) -> Outcome {
    if !has_apparmor() {
        return skip("needs AppArmor");
    }
    let mut config = t.config();
    config.set("process.apparmorProfile", "conformance-no-such-profile");
    t.run(&config)?.refused()?;
    config.set("process.apparmorProfile", "unconfined");
    t.run(&config)?.ok()?;
    Ok(())
}

fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

fn selinux_label_without_selinux_is_refused(t: &Test) -> Outcome {
    if has_selinux() {
        return skip("has SELinux");
    }
    let mut config = t.config();
    config.set("process.selinuxLabel", "system_u:system_r:container_t:s0:c1,c2");
    t.run(&config)?.refused()?;
    Ok(())
}

fn readiness_is_passed_on_to_the_callers_socket(t: &Test) -> Outcome {
    let path = t.dir.join("notify");
    let socket = UnixDatagram::bind(&path)?;
    passes_on(t, &socket, &path)
}

/// An address of a socket holds 107 bytes of its path (unix(7)).
fn readiness_is_passed_on_to_a_socket_with_a_long_path(t: &Test) -> Outcome {
    let short = t.dir.join("notify");
    let socket = UnixDatagram::bind(&short)?;
    let long = t.folder(&"d".repeat(110))?.join("notify");
    fs::rename(&short, &long)?;
    passes_on(t, &socket, &long)
}

fn passes_on(t: &Test, socket: &UnixDatagram, path: &Path) -> Outcome {
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut config = t.config();
    config.args(&["/probe", "notify", "READY=1"]);
    let c = t.container(&config)?;
    let mut command = c.bundle_command("run", &["--detach"]);
    command.env("NOTIFY_SOCKET", path);
    process::run(&mut command, &t.dir)?.ok()?;
    let mut buffer = [0; 4096];
    let length = match socket.recv(&mut buffer) {
        Ok(length) => length,
        Err(error) => return crate::case::fail(format!("no datagram came: {error}")),
    };
    contains("datagram", &String::from_utf8_lossy(&buffer[..length]), "READY=1")
}

fn pidfd_socket_gets_the_process(t: &Test) -> Outcome {
    let help = t.runtime.call(&["create", "--help"])?.text();
    let whole = process::run(t.runtime.command().args(["create", "--help"]), &t.dir)?.stdout;
    if !help.contains("pidfd-socket") && !whole.contains("pidfd-socket") {
        return skip("has no --pidfd-socket");
    }
    let c = t.container(&t.sleeper())?;
    let socket = t.dir.join("pidfd");
    let listener = t.listen("console", &socket, &[])?;
    c.create_with(&["--pidfd-socket", &socket.display().to_string()])?.ok()?;
    // The probe takes any descriptor; reading a pidfd fails at once.
    let seen = listener.finish(process::LIMIT)?.ok()?.json()?;
    same("descriptors", seen["descriptors"].as_i64(), Some(1))?;
    contains("what it is", &seen["path"].to_string(), "pidfd")?;
    // The kind of the process, which a receiver can tell by it.
    same("message", seen["message"].as_str(), Some("standard"))?;
    let socket = t.dir.join("pidfd-of-exec");
    let listener = t.listen("console", &socket, &[])?;
    t.runtime.call(&["exec", "--pidfd-socket", &socket.display().to_string(), &c.id, "/probe"])?.ok()?;
    let seen = listener.finish(process::LIMIT)?.ok()?.json()?;
    same("descriptors", seen["descriptors"].as_i64(), Some(1))?;
    same("message of exec", seen["message"].as_str(), Some("setns"))
}

fn kill_and_delete_by_regular_expression(t: &Test) -> Outcome {
    if !t.runtime.call(&["kill", "--help"])?.stdout.contains("regex") {
        return skip("has no --regex");
    }
    let named = |id: &str| -> Outcome<Container> {
        let mut c = t.container(&t.sleeper())?;
        c.id = id.to_owned();
        c.run_with(&["--detach"])?.ok()?;
        Ok(c)
    };
    let (one, two, other) = (named("pod1-a")?, named("pod1-b")?, named("pod2-a")?);
    let call = |args: &[&str]| t.runtime.call(args)?.ok().map(drop);
    call(&["kill", "--regex", "od1-(a|b)$", "KILL"])?;
    one.await_status("stopped")?;
    two.await_status("stopped")?;
    same("status of what does not match", other.status()?.as_str(), "running")?;
    call(&["kill", "--regex", "^od", "KILL"])?;
    call(&["delete", "--regex", "nothing"])?;
    call(&["delete", "--regex", "pod"])?;
    let left = || -> Outcome<String> { Ok(t.runtime.call(&["list", "-q"])?.ok()?.stdout.trim().to_owned()) };
    same("left", left()?.as_str(), "pod2-a")?;
    call(&["delete", "--force", "--regex", "2-."])?;
    same("left", left()?.as_str(), "")
}

fn seccomp_calls_that_are_unknown_fail_where_an_annotation_says_so(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set(
        "linux.seccomp",
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["nonsense"], "action": "SCMP_ACT_ERRNO" }] }),
    );
    t.run(&config)?.ok()?;
    config.set("annotations", json!({ "run.oci.seccomp_fail_unknown_syscall": "1" }));
    contains("error", &t.run(&config)?.refused()?.text(), "nonsense")
}

/// Mounts `source` of a directory with a file and a link to it, and says what is at `/at/link` then.
fn linked(t: &Test, source: &str, options: &[&str]) -> Outcome<String> {
    let folder = t.folder("links")?;
    fs::write(folder.join("file"), "content")?;
    let _ = symlink("file", folder.join("link"));
    let mut config =
        t.shell("readlink /at/link; cat /at/link; grep -c ' /at/link ' /proc/self/mountinfo || true");
    config.bind(&folder.join(source), "/at/link", options);
    let c = t.container(&config)?;
    fs::create_dir(c.path("/at"))?;
    fs::write(c.path("/at/target"), "")?;
    symlink("target", c.path("/at/link"))?;
    Ok(c.run()?.ok()?.stdout.replace('\n', " ").trim().to_owned())
}

fn copy_symlink_makes_the_link_again(t: &Test) -> Outcome {
    let folder = t.folder("links")?;
    fs::write(folder.join("file"), "content")?;
    symlink("file", folder.join("link"))?;
    let mut config =
        t.shell("readlink /copied; cat /plain; grep -c ' /copied ' /proc/self/mountinfo || true");
    config.bind(&folder.join("link"), "/copied", &["copy-symlink"]);
    config.bind(&folder.join("file"), "/plain", &["copy-symlink"]);
    same("link, content, mounts", t.run(&config)?.ok()?.stdout.as_str(), "file\ncontent0\n")?;
    let c = t.container(&config)?;
    symlink("other", c.path("/copied"))?;
    contains("error", &c.run()?.refused()?.text(), "exist")
}

fn src_nofollow_and_dest_nofollow_take_links_as_they_are(t: &Test) -> Outcome {
    same("both followed", linked(t, "link", &[])?.as_str(), "target content0")?;
    same("a file over a link", linked(t, "file", &["dest-nofollow"])?.as_str(), "content1")?;
    same("a link over a link", linked(t, "link", &["src-nofollow", "dest-nofollow"])?.as_str(), "file 1")
}

/// `mounts add` and `mounts remove`, as crun has them.
fn mounts(t: &Test, verb: &str, c: &Container, list: &serde_json::Value) -> Outcome<process::Output> {
    if !t.runtime.call(&["mounts", "--help"])?.stdout.contains("add") {
        return skip("has no command mounts");
    }
    let file = t.dir.join("mounts.json");
    fs::write(&file, list.to_string())?;
    t.runtime.call(&["mounts", verb, &c.id, &file.display().to_string()])
}

fn mounts_are_added_to_a_container_and_taken_off(t: &Test) -> Outcome {
    let source = t.dir.join("source");
    fs::create_dir(&source)?;
    fs::write(source.join("file"), "of the host")?;
    let bind = json!({ "destination": "/b", "type": "bind", "source": source, "options": ["bind", "ro"] });
    let tmpfs = json!({ "destination": "/t/u", "type": "tmpfs", "source": "x", "options": ["size=1m"] });
    let both = json!([bind, tmpfs]);
    let c = t.container(&t.sleeper())?;
    c.create()?.ok()?;
    mounts(t, "add", &c, &both)?.ok()?;
    c.start()?.ok()?;
    let seen = "cat /b/file; touch /b/new 2> /dev/null || echo ' read-only'; \
                grep -c ' /b \\| /t/u ' /proc/self/mountinfo; touch /t/u/x && echo writable";
    let output = c.exec(&["/bin/sh", "-c", seen])?;
    same("seen", output.stdout.as_str(), "of the host read-only\n2\nwritable\n")?;
    mounts(t, "remove", &c, &json!([{ "destination": "/t/u" }]))?.ok()?;
    let count = c.exec(&["/bin/sh", "-c", "grep -c ' /b \\| /t/u ' /proc/self/mountinfo"])?;
    same("mounts left", count.stdout.trim(), "1")?;
    mounts(t, "remove", &c, &json!([{ "destination": "/t/u" }]))?.refused()?;
    mounts(t, "add", &c, &json!({ "mounts": both }))?.refused()?;
    let missing = json!([{ "destination": "/n", "type": "bind", "source": "/no/such", "options": ["bind"] }]);
    contains("the error", &mounts(t, "add", &c, &missing)?.refused()?.stderr, "/no/such")?;
    c.stop()?;
    mounts(t, "add", &c, &both)?.refused()?;
    Ok(())
}

/// Its program can change what a path of its root is.
fn mounts_added_later_follow_no_symbolic_link(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    c.exec(&["/bin/ln", "-s", "/proc", "/link"])?.ok()?;
    for destination in ["/link", "/link/tty"] {
        let list = json!([{ "destination": destination, "type": "tmpfs", "source": "x" }]);
        mounts(t, "add", &c, &list)?.refused()?;
    }
    Ok(())
}

fn mounts_taken_off_follow_no_symbolic_link(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("linux.maskedPaths", json!(["/proc/timer_list"]));
    let c = t.detached(&config)?;
    c.exec(&["/bin/ln", "-s", "/proc/timer_list", "/link"])?.ok()?;
    mounts(t, "remove", &c, &json!([{ "destination": "/link" }]))?.refused()?;
    let masks = c.exec(&["/bin/sh", "-c", "grep -c /proc/timer_list /proc/self/mountinfo"])?;
    same("masks", masks.stdout.trim(), "1")
}

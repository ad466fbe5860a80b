//! Podman of root, or of the user that runs the suite.

use super::engine_everyday::everyday;
use super::engine_limits::limited;
use crate::bundle;
use crate::case::Need::{Cgroup, Criu, Path, Program, Root};
use crate::case::{Case, Outcome, case, check, contains, same};
use crate::cases::engine_checkpoint::{counting, explained, goes_on, is_running};
use crate::engine::Kind;
use crate::test::Test;
use serde_json::json;
use std::fs;

everyday!(EVERYDAY, [Program("podman")]);
limited!(LIMITED, [Program("podman"), Cgroup]);
pub const CASES: &[&[Case]] = &[EVERYDAY, LIMITED, OWN];

const OWN: &[Case] = &[
    case!(id_maps_are_made, [Program("podman")], 120),
    case!(exec_has_a_terminal_under_id_maps, [Program("podman"), Root], 120),
    case!(a_healthcheck_is_run, [Program("podman")], 120),
    case!(a_cdi_device_is_there, [Program("podman"), Root], 120),
    case!(a_pod_shares_its_namespaces, [Program("podman")], 120),
    case!(systemd_mode_has_what_systemd_wants, [Program("podman"), Root], 120),
    case!(hooks_of_a_directory_are_run, [Program("podman"), Root], 120),
    case!(a_plain_root_file_system, [Program("podman")], 120),
    case!(descriptors_are_preserved, [Program("podman")], 120),
    case!(a_secret_is_a_file, [Program("podman")], 120),
    case!(
        a_network_of_netavark,
        // It asks for the entries of the latter when it removes a container, whether there are any or not.
        [Program("podman"), Root, Path("/usr/lib/podman/netavark"), Path("/usr/lib/podman/aardvark-dns")],
        120
    ),
    case!(checkpoint_and_restore, [Program("podman"), Root, Criu], 120),
    case!(checkpoint_that_leaves_it_running, [Program("podman"), Root, Criu], 120),
    case!(checkpoint_to_a_file_and_restore_by_another_name, [Program("podman"), Root, Criu], 120),
    case!(checkpoint_with_limits, [Program("podman"), Root, Criu, Cgroup], 120),
];

fn id_maps_are_made(t: &Test) -> Outcome {
    // A user's containers are in the user namespace of its Podman, which has these maps.
    let options: &[&str] = if t.host.root { &["--uidmap", "0:100000:65536"] } else { &[] };
    contains("map", &t.engine()?.script(options, "cat /proc/self/uid_map")?, " 100000 ")
}

fn exec_has_a_terminal_under_id_maps(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.sleeper("one", &["--uidmap", "0:100000:65536"])?;
    for user in ["0", "1000"] {
        let seen =
            engine.says(&["exec", "-t", "-u", user, "one", "sh", "-c", "stat -c 'owner %u' $(tty)"])?;
        contains("terminal", &seen, &format!("owner {user}"))?;
    }
    engine.remove("one")
}

/// Timers for them are systemd's; the command line runs one without.
pub fn a_healthcheck_is_run(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let options = ["--health-cmd", "test -e /healthy", "--health-interval", "disable"];
    engine.sleeper("one", &options)?;
    engine.call(&["healthcheck", "run", "one"])?.exits(1)?;
    engine.says(&["exec", "one", "touch", "/healthy"])?;
    engine.says(&["healthcheck", "run", "one"])?;
    engine.remove("one")
}

fn a_cdi_device_is_there(t: &Test) -> Outcome {
    let text = json!({ "cdiVersion": "0.5.0", "kind": "example.com/device", "devices": [{ "name": "one",
        "containerEdits": { "env": ["FROM_CDI=yes"], "deviceNodes": [{ "path": "/dev/cdi", "type": "c", "major": 1, "minor": 5 }] } }] });
    bundle::make_dir(std::path::Path::new("/etc/cdi"))?;
    fs::write("/etc/cdi/example.json", text.to_string())?;
    let script = "head -c 3 /dev/cdi | wc -c; echo $FROM_CDI";
    let output = t.engine()?.script(&["--device", "example.com/device=one"], script)?;
    same("output", output.split_whitespace().collect::<Vec<_>>(), vec!["3", "yes"])
}

pub fn a_pod_shares_its_namespaces(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let mut words = vec!["pod", "create", "--name", "pod", "--hostname", "shared", "--network", "none"];
    words.extend(["--infra-image", engine.image, "--infra-command", "sleep 1000"]);
    if let Some(cgroup) = engine.cgroup.as_deref() {
        words.extend(["--cgroup-parent", cgroup]);
    }
    engine.says(&words)?;
    let mut run = vec!["run", "-d", "--pod", "pod", "--name"];
    let script = "for name in net ipc uts; do readlink /proc/self/ns/$name; done; hostname";
    run.extend(["one", engine.image, "sleep", "1000"]);
    engine.says(&run)?;
    let first = engine.says(&["exec", "one", "sh", "-c", script])?;
    let second = engine.says(&["run", "--rm", "--pod", "pod", engine.image, "sh", "-c", script])?;
    same("namespaces", &first, &second)?;
    contains("hostname", &first, "shared")?;
    // A user's containers may have no cgroup.
    if t.host.root && engine.kind == Kind::Podman {
        engine.says(&["pod", "pause", "pod"])?;
        engine.says(&["pod", "unpause", "pod"])?;
    }
    engine.says(&["pod", "stop", "-t", "0", "pod"])?;
    engine.says(&["pod", "rm", "-f", "pod"])?;
    // Of cgroup v1, Podman removes the pod's own cgroup in the hierarchies that it knows, with any runtime.
    for entry in t.host.cgroups(&t.cgroup).iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten()
    {
        let _ = fs::remove_dir(entry.path());
    }
    Ok(())
}

fn systemd_mode_has_what_systemd_wants(t: &Test) -> Outcome {
    let script = "echo $container; grep -c ' /run tmpfs' /proc/mounts; grep -c ' /tmp tmpfs' /proc/mounts; \
                  grep ' /sys/fs/cgroup' /proc/mounts";
    let output = t.engine()?.script(&["--systemd", "always"], script)?;
    let lines: Vec<&str> = output.lines().collect();
    same("variable and mounts", lines.get(..3), Some(&["podman", "1", "1"][..]))?;
    // Its own cgroup is writable: systemd's hierarchy on v1, the only one on v2.
    let place = if t.host.unified { " /sys/fs/cgroup " } else { " /sys/fs/cgroup/systemd " };
    let line = lines.iter().rfind(|line| line.contains(place)).copied().unwrap_or_default();
    check!(line.contains(" rw,"), "no writable cgroup in {output}");
    Ok(())
}

fn hooks_of_a_directory_are_run(t: &Test) -> Outcome {
    let dir = t.folder("hooks")?;
    let [state, last] = ["hook-first", "hook-last"].map(|name| t.dir.join(name));
    for (stage, file) in [("createRuntime", &state), ("poststop", &last)] {
        let text = json!({ "version": "1.0.0", "when": { "always": true }, "stages": [stage],
            "hook": { "path": "/bin/sh", "args": ["sh", "-c", format!("cat > {}", file.display())] } });
        fs::write(dir.join(format!("{stage}.json")), text.to_string())?;
    }
    let engine = t.engine()?;
    let mut words = vec!["--hooks-dir".to_owned(), dir.display().to_string()];
    words.extend(["run", "--rm", "--network", "none"].map(str::to_owned));
    if let Some(cgroup) = engine.cgroup.as_deref() {
        words.extend(["--cgroup-parent".to_owned(), cgroup.to_owned()]);
    }
    words.extend([engine.image, "true"].map(str::to_owned));
    engine.says(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
    for file in [&state, &last] {
        contains("state", &crate::test::await_file(file)?, "\"ociVersion\"")?;
    }
    Ok(())
}

fn a_plain_root_file_system(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let root = t.dir.join("root");
    bundle::make_rootfs(t.base(), &root)?;
    let mut words = vec!["run", "--rm", "--network", "none", "--rootfs"];
    let root = root.display().to_string();
    if let Some(cgroup) = engine.cgroup.as_deref() {
        words.splice(1..1, ["--cgroup-parent", cgroup]);
    }
    words.extend([root.as_str(), "sh", "-c", "echo written > /written"]);
    engine.says(&words)?;
    same("file", fs::read_to_string(t.dir.join("root/written"))?.trim(), "written")
}

pub fn descriptors_are_preserved(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let [file, script] = ["preserved", "call"].map(|name| engine.dir.join(name).display().to_string());
    fs::write(&file, "from-descriptor-3")?;
    // The descriptor is opened by a shell: this process closes its own when it executes.
    let words: Vec<String> = engine.words.iter().map(|word| format!("'{word}'")).collect();
    let cgroup = engine.cgroup.as_deref().map(|path| format!("--cgroup-parent {path}")).unwrap_or_default();
    let text = format!(
        "exec 3< {file}\nexec {} run --rm --network none {cgroup} --preserve-fds 1 {} sh -c 'cat <&3'\n",
        words.join(" "),
        engine.image
    );
    fs::write(&script, text)?;
    let mut command = std::process::Command::new("sh");
    command.arg(&script).envs(engine.environment.iter().map(|(name, value)| (*name, value)));
    let output = crate::process::start(command.stdin(std::process::Stdio::null()), &engine.dir)?;
    let output = output.finish(std::time::Duration::from_secs(60))?.ok()?;
    same("content", output.stdout.trim(), "from-descriptor-3")
}

pub fn a_secret_is_a_file(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let file = engine.dir.join("secret");
    fs::write(&file, "hidden")?;
    engine.says(&["secret", "create", "mine", &file.display().to_string()])?;
    same("secret", engine.script(&["--secret", "mine"], "cat /run/secrets/mine")?.as_str(), "hidden")?;
    engine.says(&["secret", "rm", "mine"]).map(drop)
}

fn a_network_of_netavark(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.says(&["network", "create", "--subnet", "10.209.7.0/24", "web"])?;
    let server = ["busybox", "nc", "-ll", "-p", "80", "-e", "echo", "from-podman"];
    engine.detached("one", &["--network", "web", "-p", "18083:80"], &server)?;
    crate::process::until("it answers", || {
        Ok(crate::net::ask(t, None, "127.0.0.1", 18083)?.as_deref() == Some("from-podman"))
    })?;
    engine.remove("one")?;
    engine.says(&["network", "rm", "web"])?;
    // Podman mounts it for all that it makes.
    crate::net::host(t, "umount /run/netns").map(drop)
}

fn checkpoint_and_restore(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let at = counting(engine, &[])?;
    explained(engine.says(&["container", "checkpoint", "one"]).map(drop))?;
    is_running(t, "one", false)?;
    explained(engine.says(&["container", "restore", "one"]).map(drop))?;
    is_running(t, "one", true)?;
    goes_on(engine, "one", at)?;
    engine.says(&["stop", "-t", "0", "one"])?;
    engine.remove("one")
}

fn checkpoint_that_leaves_it_running(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let at = counting(engine, &[])?;
    explained(engine.says(&["container", "checkpoint", "--leave-running", "one"]).map(drop))?;
    is_running(t, "one", true)?;
    goes_on(engine, "one", at)?;
    engine.remove("one")
}

fn checkpoint_to_a_file_and_restore_by_another_name(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let at = counting(engine, &[])?;
    let file = engine.dir.join("checkpoint.tar").display().to_string();
    explained(engine.says(&["container", "checkpoint", "--compress", "none", "-e", &file, "one"]).map(drop))?;
    engine.remove("one")?;
    explained(engine.says(&["container", "restore", "-i", &file, "-n", "two"]).map(drop))?;
    goes_on(engine, "two", at)?;
    engine.remove("two")?;
    fs::remove_file(file).map_err(Into::into)
}

fn checkpoint_with_limits(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let options = ["--memory", "64m", "--memory-swap", "64m", "--pids-limit", "50", "--cpus", "0.5"];
    let at = counting(engine, &options)?;
    explained(engine.says(&["container", "checkpoint", "one"]).map(drop))?;
    explained(engine.says(&["container", "restore", "one"]).map(drop))?;
    goes_on(engine, "one", at)?;
    crate::engine_limits::expect(&t.host, engine.pid("one")?, crate::engine_limits::USUAL)?;
    engine.remove("one")
}

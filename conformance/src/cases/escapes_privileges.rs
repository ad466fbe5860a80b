//! Escapes by privileges: more capabilities, another user, no filter, descriptors or mounts that nobody gave.
//! escapes.rs says what the group is.

use super::escapes::canary;
use crate::bundle::Config;
use crate::case::Need::Root;
use crate::case::{Case, Outcome, case, check, same, skip};
use crate::process;
use crate::test::{Container, Mounted, Test};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;

pub const CASES: &[Case] = &[
    case!(cve_2022_29162_exec_adds_nothing_inheritable, [Root]),
    case!(cve_2025_27612_a_process_file_adds_nothing_inheritable, [Root]),
    case!(cve_2023_25809_cgroups_below_a_bound_sys_are_read_only, [Root]),
    case!(no_pivot_shows_no_procfs_without_masks, [Root]),
    case!(no_pivot_in_a_user_namespace_hides_every_procfs, [Root]),
    case!(a_keyring_of_its_name_is_not_joined, [Root]),
    case!(start_container_hooks_have_the_privileges_of_the_process, [Root]),
    case!(a_program_named_like_the_stage_is_running),
    case!(a_program_that_executes_what_waited_for_its_start_is_running, [Root]),
    case!(descriptors_that_nobody_opened_are_not_handed_over),
    case!(listen_fds_that_nobody_opened_are_not_handed_over),
];

fn nothing_inheritable(probe: &Value) -> Outcome {
    for set in ["CapInh", "CapAmb"] {
        same(set, probe[set].as_str(), Some("0000000000000000"))?;
    }
    Ok(())
}

fn cve_2022_29162_exec_adds_nothing_inheritable(t: &Test) -> Outcome {
    // crun's was CVE-2022-27650.
    let c = t.detached(&t.sleeper())?;
    for options in [&["--cap", "CAP_NET_RAW"][..], &["--cap", "CAP_SYS_ADMIN", "--user", "1000"]] {
        nothing_inheritable(&c.exec_probe(options)?)?;
    }
    Ok(())
}

fn cve_2025_27612_a_process_file_adds_nothing_inheritable(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    let c = t.detached(&config)?;
    config.args(&["/probe", "report"]);
    let file = t.dir.join("process.json");
    fs::write(&file, config.0["process"].to_string())?;
    let output = c.exec_with(&["--process", &file.display().to_string()], &[])?.ok()?;
    nothing_inheritable(&output.json()?)
}

fn cve_2023_25809_cgroups_below_a_bound_sys_are_read_only(t: &Test) -> Outcome {
    let mut config = t.config();
    config.no_mount("/sys").bind("/sys".as_ref(), "/sys", &["rbind", "ro", "nosuid", "noexec", "nodev"]);
    config.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]);
    config.user_namespace(100_000, 65536);
    let place = if t.host.unified { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" };
    let probe = t.probe(&config, &["--write", place])?;
    check!(probe["write"][place] != "ok", "a cgroup can be made below {place}");
    Ok(())
}

const MOUNT_PROC: &str =
    "unshare -mrpf /bin/sh -c 'mount -t proc proc /tmp && test -e /tmp/version && echo seen'";

/// What a user namespace of the container's finds when it mounts a procfs; a masked one in the way forbids it.
fn procfs_in_a_user_namespace(t: &Test, own: bool, options: &[&str]) -> Outcome<process::Output> {
    let mut config = t.shell(&format!("unshare -r true && echo can; {MOUNT_PROC}; true"));
    if own {
        config.user_namespace(100_000, 65536);
    }
    config.set("linux.maskedPaths", json!(["/proc/version", "/proc/kcore", "/proc/keys"]));
    config.set("linux.readonlyPaths", json!(["/proc/sys"]));
    t.container(&config)?.run_with(options)
}

fn no_pivot_shows_no_procfs_without_masks(t: &Test) -> Outcome {
    // With the root moved and not pivoted, the host's mounts are still below, its own procfs among them.
    no_procfs_without_masks(t, false)
}

fn no_pivot_in_a_user_namespace_hides_every_procfs(t: &Test) -> Outcome {
    // Mounts of the host are locked in a user namespace: they cannot be taken off, and one lies in another.
    let outer = Mounted::tmpfs(&t.dir.join("outer"))?;
    let inner = Mounted::procfs(&t.dir.join("outer/inner"))?;
    no_procfs_without_masks(t, true)?;
    // One that has no name is not to be hidden: refused.
    let over = Mounted::tmpfs(&t.dir.join("outer"))?;
    let outcome = no_procfs_without_masks(t, true);
    drop(over);
    drop((inner, outer));
    outcome
}

fn no_procfs_without_masks(t: &Test, own: bool) -> Outcome {
    for options in [&[][..], &["--no-pivot"]] {
        let output = procfs_in_a_user_namespace(t, own, options)?;
        if output.code != 0 {
            output.refused()?;
            continue;
        }
        if !output.stdout.contains("can") {
            return skip("no user namespaces in containers on this host");
        }
        check!(!output.stdout.contains("seen"), "{options:?}: a procfs without masks was mounted");
    }
    Ok(())
}

fn a_keyring_of_its_name_is_not_joined(t: &Test) -> Outcome {
    // A container of the same user has made keyrings of the name that it expects, and would see the keys in there.
    let mut config = t.config();
    let victim = t.container(config.args(&["/probe", "hold"]))?;
    let out = t.folder("out")?;
    let script =
        format!("/probe keyring _ses.{0} > /out/made & exec /probe keyring {0} > /out/other", victim.id);
    config.bind(&out, "/out", &[]).shell(&script);
    let attacker = t.detached(&config)?;
    let mut made = Vec::new();
    for name in ["made", "other"] {
        let wrote = || Ok(fs::read_to_string(out.join(name)).is_ok_and(|text| text.contains('\n')));
        process::until("the keyring is made", wrote)?;
        let text = fs::read_to_string(out.join(name))?;
        let line: Value = serde_json::from_str(text.lines().next().unwrap_or_default())?;
        made.push(line["joined"].clone());
    }
    check!(made.iter().all(Value::is_number), "no keyring was made: {made:?}");
    victim.run_with(&["--detach"])?.ok()?;
    let (first, second) = (victim.exec_probe(&[])?, victim.exec_probe(&[])?);
    let keyring = &first["keyring"];
    check!(!made.contains(keyring), "it has the session keyring of another container: {keyring}");
    same("the keyring of two processes by exec", keyring, &second["keyring"])?;
    attacker.delete_force()?.ok()?;
    Ok(())
}

const PRIVILEGES: [&str; 6] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp"];

fn start_container_hooks_have_the_privileges_of_the_process(t: &Test) -> Outcome {
    let out = t.folder("out")?;
    fs::set_permissions(&out, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let mut config = t.config();
    config.set("process.user", json!({ "uid": 1000, "gid": 1000 })).bind(&out, "/out", &[]);
    config.set(
        "linux.seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["add_key"], "action": "SCMP_ACT_ERRNO" }]
        }),
    );
    let hook = ["sh", "-c", "/probe report > /out/hook"];
    let place = json!([{ "path": "/bin/sh", "args": hook, "env": ["PATH=/bin"] }]);
    config.set("hooks.startContainer", place).shell("/probe report > /out/process");
    t.run(&config)?.ok()?;
    let read =
        |name: &str| -> Outcome<Value> { Ok(serde_json::from_str(&fs::read_to_string(out.join(name))?)?) };
    let (hook, process) = (read("hook")?, read("process")?);
    same("uid", &hook["uid"], &process["uid"])?;
    for key in PRIVILEGES {
        same(key, &hook[key], &process[key])?;
    }
    Ok(())
}

fn a_program_named_like_the_stage_is_running(t: &Test) -> Outcome {
    let mut config = t.config();
    config.args(&["/probe", "disguise", "onggi-stage"]);
    let c = t.detached(&config)?;
    let disguised =
        || Ok(fs::read_to_string(format!("/proc/{}/cmdline", c.pid()?))?.starts_with("onggi-stage\0hold"));
    process::until("the program of the memfd runs", disguised)?;
    same("status", c.status()?.as_str(), "running")
}

fn a_program_that_executes_what_waited_for_its_start_is_running(t: &Test) -> Outcome {
    // A process that was executed into it before its start has kept the runtime's program; a tracer has it stay. Until
    // then no child may end: the tracer would stop it at the signal.
    let wait = "read kept < /kept; until test -e /ready; do :; done";
    let mut config = t.shell(&format!("/probe seize 1 & {wait}; exec /proc/$kept/fd/3 0"));
    config.capabilities(&["CAP_SYS_PTRACE"]);
    let c = t.container(&config)?;
    c.create()?.ok()?;
    let keep = "exec 3< /proc/1/exe; /proc/self/fd/3 0 > /dev/null 2>&1; echo $? > /code; \
                echo $$ > /kept.new; mv /kept.new /kept; exec sleep 1000";
    c.exec_with(&["--detach"], &["/bin/sh", "-c", keep])?.ok()?;
    process::until("its program is kept", || Ok(c.path("/kept").exists()))?;
    if fs::read_to_string(c.path("/code"))?.trim() == "127" {
        c.delete_force()?.ok()?;
        return skip("the runtime's program is linked to libraries that the container lacks");
    }
    c.call("start", &[])?.ok()?;
    let shell = fs::metadata(c.path("/bin/sh"))?.ino();
    let program = || -> Outcome<u64> { Ok(fs::metadata(format!("/proc/{}/exe", c.pid()?))?.ino()) };
    let again = || Ok(c.path("/ready").exists() && program()? != shell);
    process::until("another program is executed", again)?;
    same("status", c.status()?.as_str(), "running")?;
    check!(c.call("delete", &[])?.code != 0, "a container that runs was deleted without force");
    c.delete_force()?.ok()?;
    Ok(())
}

/// `run --preserve-fds 30` or with LISTEN_FDS=30, and nothing but the standard descriptors open.
fn handed_over(t: &Test, config: &mut Config, call: &str) -> Outcome {
    config.args(&["/probe", "report"]);
    let c: Container = t.container(config)?;
    let script = format!("exec {call}");
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", &script]).current_dir(&t.dir).env("RT", &t.runtime.program);
    command.env("ST", &t.runtime.state).env("B", &c.bundle).env("ID", &c.id);
    let output = process::run(&mut command, &t.dir)?;
    if output.code != 0 {
        return output.refused().map(drop);
    }
    let descriptors = output.json()?["fds"].clone();
    let others = descriptors
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(number, _)| number.parse::<u32>().is_ok_and(|number| number > 2));
    let others: Vec<_> = others.collect();
    check!(others.is_empty(), "descriptors of the runtime's: {others:?} ({} is the host's)", canary(t));
    Ok(())
}

fn descriptors_that_nobody_opened_are_not_handed_over(t: &Test) -> Outcome {
    handed_over(t, &mut t.config(), "\"$RT\" --root \"$ST\" run --preserve-fds 30 --bundle \"$B\" $ID")
}

fn listen_fds_that_nobody_opened_are_not_handed_over(t: &Test) -> Outcome {
    let call = "env LISTEN_FDS=30 LISTEN_PID=$$ \"$RT\" --root \"$ST\" run --bundle \"$B\" $ID";
    handed_over(t, &mut t.config(), call)
}

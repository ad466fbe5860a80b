//! Hooks: when each kind runs and where, what it gets, and what its failure does. A hook is a shell
//! script that appends to a file; which paths it can see is part of what is tested.

use crate::bundle::Config;
use crate::case::Need::Root;
use crate::case::{Case, Outcome, case, check, contains, same};
use crate::process;
use crate::test::{Container, Test};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

pub const CASES: &[Case] = &[
    case!(hooks_run_in_the_order_of_the_spec),
    case!(hooks_of_one_kind_run_in_their_order),
    case!(hooks_get_the_state_on_standard_input),
    case!(hooks_see_the_status_of_their_moment),
    case!(hooks_run_in_the_namespaces_of_the_spec, [Root]),
    case!(create_container_hooks_run_before_the_root_is_changed),
    case!(start_container_hooks_see_the_containers_files),
    case!(hooks_get_their_arguments_and_environment_only),
    case!(hooks_without_env_get_the_environment_of_the_caller),
    case!(hooks_of_create_run_at_create_and_the_others_later),
    case!(a_failing_hook_fails_the_create),
    case!(a_failing_start_container_hook_fails_the_start),
    case!(run_with_a_failing_start_hook_leaves_nothing),
    case!(run_killed_in_a_start_hook_runs_no_program_of_its_own),
    case!(a_failing_poststop_hook_is_only_logged),
    case!(a_failing_poststart_hook_is_an_error, [], 60),
    case!(a_hook_that_does_not_exist_fails_the_create),
    case!(a_hook_with_a_relative_path_is_refused),
    case!(a_hook_that_takes_too_long_is_stopped),
    case!(a_hook_that_takes_too_long_is_stopped_with_its_children),
    case!(a_hook_within_its_timeout_is_fine),
    case!(a_negative_or_zero_timeout_is_refused),
    case!(a_hook_that_ends_by_a_signal_fails_the_create),
    case!(the_error_of_a_hook_names_it),
    case!(hooks_do_not_keep_descriptors_of_the_runtime),
    case!(a_hook_that_reads_nothing_does_not_block),
    case!(poststop_hooks_run_after_a_failed_create_or_not_at_all),
    case!(a_hook_by_a_magic_link_works),
    case!(hooks_outside_the_container_work_in_the_bundle),
];

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// The file that the hooks of a case write to.
fn log(t: &Test) -> PathBuf {
    t.dir.join("log-of-hooks")
}

fn logged(t: &Test) -> String {
    fs::read_to_string(log(t)).unwrap_or_default()
}

/// A hook that runs a shell script.
fn script(text: &str) -> Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", text], "env": ["PATH=/usr/bin:/bin"] })
}

/// A hook that writes its name. startContainer runs inside, where the log is bound to /log.
fn naming(t: &Test, kind: &str) -> Value {
    let file = if kind == "startContainer" { PathBuf::from("/log") } else { log(t) };
    script(&format!("echo {kind} >> {}", file.display()))
}

/// A configuration whose program writes to the log too.
fn with_log(t: &Test) -> Outcome<Config> {
    fs::write(log(t), "")?;
    let mut config = t.shell("echo program >> /log");
    config.bind(&log(t), "/log", &[]);
    Ok(config)
}

fn hooks_run_in_the_order_of_the_spec(t: &Test) -> Outcome {
    let mut config = with_log(t)?;
    for kind in KINDS {
        config.push(&format!("hooks.{kind}"), naming(t, kind));
    }
    config.shell("echo program >> /log; sleep 0.5");
    t.run(&config)?.ok()?;
    let text = logged(t);
    let mut seen: Vec<&str> = text.lines().collect();
    // poststart and the program run at the same time.
    if let [.., a, b, _] = &mut seen[..]
        && *a == "poststart"
        && *b == "program"
    {
        std::mem::swap(a, b);
    }
    let wanted = [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "program",
        "poststart",
        "poststop",
    ];
    same("order", seen, wanted.to_vec())
}

fn hooks_of_one_kind_run_in_their_order(t: &Test) -> Outcome {
    let mut config = with_log(t)?;
    for n in 0..5 {
        config.push("hooks.createRuntime", script(&format!("echo {n} >> {}", log(t).display())));
    }
    t.run(&config)?.ok()?;
    same("order", logged(t).split_whitespace().collect::<Vec<_>>(), vec!["0", "1", "2", "3", "4", "program"])
}

/// Runs a container with a hook of each kind that writes what it reads; one document per kind.
fn states(t: &Test) -> Outcome<(Container, Vec<Value>)> {
    let mut config = with_log(t)?;
    config.shell("sleep 0.3").set("annotations", json!({ "key": "value" }));
    for kind in KINDS {
        let file = if kind == "startContainer" { "/log".into() } else { log(t).display().to_string() };
        config.push(&format!("hooks.{kind}"), script(&format!("x=$(cat); echo \"$x\" >> {file}")));
    }
    let c = t.container(&config)?;
    c.run()?.ok()?;
    let text = logged(t);
    let documents: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&text).into_iter().collect();
    let documents = documents?;
    same("states", documents.len(), KINDS.len())?;
    Ok((c, documents))
}

fn hooks_get_the_state_on_standard_input(t: &Test) -> Outcome {
    let (c, documents) = states(t)?;
    for (kind, state) in KINDS.iter().zip(&documents) {
        same(&format!("{kind}: id"), state["id"].as_str(), Some(c.id.as_str()))?;
        same(&format!("{kind}: bundle"), state["bundle"].as_str(), c.bundle.to_str())?;
        same(&format!("{kind}: annotations"), state["annotations"]["key"].as_str(), Some("value"))?;
        check!(
            state["ociVersion"].as_str().is_some_and(|v| v.starts_with("1.")),
            "{kind}: ociVersion {state}"
        );
        if *kind != "poststop" {
            check!(state["pid"].as_i64().is_some_and(|pid| pid > 0), "{kind}: pid in {state}");
        }
    }
    Ok(())
}

fn hooks_see_the_status_of_their_moment(t: &Test) -> Outcome {
    let (_, documents) = states(t)?;
    let wanted = ["creating", "creating", "creating", "created", "running", "stopped"];
    for ((kind, state), wanted) in KINDS.iter().zip(&documents).zip(wanted) {
        same(&format!("{kind}: status"), state["status"].as_str(), Some(wanted))?;
    }
    Ok(())
}

fn hooks_run_in_the_namespaces_of_the_spec(t: &Test) -> Outcome {
    let mut config = with_log(t)?;
    config.shell("readlink /proc/self/ns/mnt >> /log; readlink /proc/self/ns/net >> /log; sleep 0.3");
    for kind in KINDS {
        let file = if kind == "startContainer" { "/log".into() } else { log(t).display().to_string() };
        let text =
            format!("echo {kind} $(readlink /proc/self/ns/mnt) $(readlink /proc/self/ns/net) >> {file}");
        config.push(&format!("hooks.{kind}"), script(&text));
    }
    t.run(&config)?.ok()?;
    let text = logged(t);
    let host = ["mnt", "net"].map(|name| fs::read_link(format!("/proc/self/ns/{name}")));
    let [host_mounts, host_network] = host;
    let (host_mounts, host_network) = (host_mounts?, host_network?);
    for line in text.lines() {
        if let [kind, mounts, network] = line.split(' ').collect::<Vec<_>>()[..] {
            let inside = ["createContainer", "startContainer"].contains(&kind);
            check!((mounts != host_mounts.to_string_lossy()) == inside, "{kind}: mount namespace {mounts}");
            check!(
                (network != host_network.to_string_lossy()) == inside,
                "{kind}: network namespace {network}"
            );
        }
    }
    same("lines", text.lines().count(), 8)
}

fn create_container_hooks_run_before_the_root_is_changed(t: &Test) -> Outcome {
    // The path is one of the host, and the mounts are there already.
    let mut config = with_log(t)?;
    config.mount("/data", "tmpfs", "tmpfs", &["size=1236k"]);
    let c = t.container(&config)?;
    let text = format!(
        "ls {}/canary >> {log}; grep -c size=1236k /proc/self/mountinfo >> {log}",
        t.dir.display(),
        log = log(t).display()
    );
    config.push("hooks.createContainer", script(&text));
    t.write_config(&c, &config)?;
    c.run()?.ok()?;
    same(
        "seen",
        logged(t).split_whitespace().collect::<Vec<_>>(),
        vec!["dir", "file", "ptmx", "1", "program"],
    )
}

fn start_container_hooks_see_the_containers_files(t: &Test) -> Outcome {
    let mut config = with_log(t)?;
    let own = json!({ "path": "/own-hook", "args": ["own", "argument"] });
    config.push("hooks.startContainer", own);
    let c = t.container(&config)?;
    fs::write(c.path("/own-hook"), "#!/bin/sh\necho own $1 >> /log\n")?;
    fs::set_permissions(c.path("/own-hook"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    c.run()?.ok()?;
    same("seen", logged(t).as_str(), "own argument\nprogram\n")
}

fn hooks_get_their_arguments_and_environment_only(t: &Test) -> Outcome {
    let mut config = with_log(t)?;
    let text = format!("echo \"$0 $1\" >> {log}; env | sort >> {log}", log = log(t).display());
    let hook = json!({ "path": "/bin/sh", "args": ["zero", "-c", text, "one", "two"], "env": ["KEY=a value", "PATH=/usr/bin:/bin"] });
    config.push("hooks.createRuntime", hook);
    let c = t.container(&config)?;
    let mut command = c.bundle_command("run", &[]);
    command.env("OF_THE_CALLER", "1");
    crate::process::run(&mut command, &t.dir)?.ok()?;
    let text = logged(t);
    contains("arguments", &text, "one two\n")?;
    contains("environment", &text, "KEY=a value\n")?;
    check!(!text.contains("OF_THE_CALLER"), "the environment of the caller came along: {text}");
    Ok(())
}

fn hooks_without_env_get_the_environment_of_the_caller(t: &Test) -> Outcome {
    let kinds = ["prestart", "createRuntime", "poststart", "poststop"];
    let mut config = with_log(t)?;
    config.args(&["/bin/true"]);
    for kind in kinds {
        let text = |tag| format!("echo {kind} {tag} $OF_THE_CALLER. >> {log}", log = log(t).display());
        let hook = |tag| json!({ "path": "/bin/sh", "args": ["sh", "-c", text(tag)] });
        let mut empty = hook("empty");
        empty["env"] = json!([]);
        config.push(&format!("hooks.{kind}"), hook("none")).push(&format!("hooks.{kind}"), empty);
    }
    let mut command = t.container(&config)?.bundle_command("run", &[]);
    command.env("OF_THE_CALLER", "1");
    crate::process::run(&mut command, &t.dir)?.ok()?;
    let wanted: String = kinds.iter().map(|kind| format!("{kind} none 1.\n{kind} empty .\n")).collect();
    same("what the hooks got", logged(t), wanted)
}

fn hooks_of_create_run_at_create_and_the_others_later(t: &Test) -> Outcome {
    let mut config = with_log(t)?;
    for kind in KINDS {
        config.push(&format!("hooks.{kind}"), naming(t, kind));
    }
    config.args(&["/bin/sleep", "1000"]);
    let c = t.container(&config)?;
    c.create()?.ok()?;
    let lines = |t: &Test| logged(t).lines().map(str::to_owned).collect::<Vec<_>>();
    same("after create", lines(t), vec!["prestart", "createRuntime", "createContainer"])?;
    c.start()?.ok()?;
    same("after start", &lines(t)[3..], ["startContainer", "poststart"].map(str::to_owned).as_slice())?;
    c.stop()?;
    same("after stop", lines(t).len(), 5)?;
    c.delete()?.ok()?;
    same("after delete", lines(t).last().map(String::as_str), Some("poststop"))
}

fn a_failing_hook_fails_the_create(t: &Test) -> Outcome {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut config = with_log(t)?;
        config.push(&format!("hooks.{kind}"), script("exit 3"));
        config.push(&format!("hooks.{kind}"), naming(t, "second"));
        let c = t.container(&config)?;
        c.create()?.refused()?;
        c.call("state", &[])?.refused()?;
        check!(!logged(t).contains("second"), "{kind}: the next hook ran");
    }
    Ok(())
}

fn a_failing_start_container_hook_fails_the_start(t: &Test) -> Outcome {
    let mut config = with_log(t)?;
    config.push("hooks.startContainer", script("exit 3"));
    let c = t.container(&config)?;
    c.create()?.ok()?;
    c.start()?.refused()?;
    check!(!logged(t).contains("program"), "the program ran");
    c.await_status("stopped")
}

fn run_with_a_failing_start_hook_leaves_nothing(t: &Test) -> Outcome {
    for kind in ["startContainer", "poststart"] {
        let mut config = with_log(t)?;
        config.args(&["/bin/sleep", "1000"]).push(&format!("hooks.{kind}"), script("exit 3"));
        let c = t.container(&config)?;
        c.run()?.refused()?;
        let found = c.call("state", &[])?;
        check!(found.code != 0, "{kind}: {}", found.text());
    }
    Ok(())
}

/// Nobody can start a container whose `run` is gone: it ends, or still waits as one that was created.
fn run_killed_in_a_start_hook_runs_no_program_of_its_own(t: &Test) -> Outcome {
    let mut config = with_log(t)?;
    config.push("hooks.startContainer", script("echo hook >> /log; exec sleep 300"));
    let c = t.container(&config)?;
    let started = c.run_started()?;
    process::until("the hook runs", || Ok(fs::read_to_string(log(t)).unwrap_or_default().contains("hook")))?;
    kill(Pid::from_raw(started.pid), Signal::SIGKILL)?;
    started.finish(process::LIMIT)?;
    c.delete_force()?.ok()?;
    check!(!logged(t).contains("program"), "the program ran");
    c.call("state", &[])?.refused()?;
    Ok(())
}

fn a_failing_poststop_hook_is_only_logged(t: &Test) -> Outcome {
    let mut config = with_log(t)?;
    config.push("hooks.poststop", script("exit 3"));
    config.push("hooks.poststop", naming(t, "second"));
    t.run(&config)?.ok()?;
    contains("log", &logged(t), "second")
}

fn a_failing_poststart_hook_is_an_error(t: &Test) -> Outcome {
    // Since 1.3 of the spec: an error, and the container is stopped and destroyed. The peers did so before.
    for version in ["1.0.2", "1.2.0", "1.3.0"] {
        let mut config = with_log(t)?;
        config.args(&["/bin/sleep", "1000"]).push("hooks.poststart", script("exit 3"));
        config.push("hooks.poststop", naming(t, "poststop")).set("ociVersion", version);
        let c = t.container(&config)?;
        c.create()?.ok()?;
        c.start()?.refused()?;
        c.call("state", &[])?.refused()?;
        same("hooks", logged(t).as_str(), "poststop\n")?;
    }
    Ok(())
}

fn a_hook_that_does_not_exist_fails_the_create(t: &Test) -> Outcome {
    let mut config = with_log(t)?;
    config.push("hooks.createRuntime", json!({ "path": "/no/such/hook" }));
    let error = t.container(&config)?.create()?.refused()?.stderr;
    contains("error", &error, "/no/such/hook")
}

fn a_hook_with_a_relative_path_is_refused(t: &Test) -> Outcome {
    let mut config = with_log(t)?;
    config.push("hooks.createRuntime", json!({ "path": "sh", "args": ["sh", "-c", "true"] }));
    t.container(&config)?.create()?.refused()?;
    Ok(())
}

fn a_hook_that_takes_too_long_is_stopped(t: &Test) -> Outcome {
    too_long(t, "exec sleep 300")
}

fn a_hook_that_takes_too_long_is_stopped_with_its_children(t: &Test) -> Outcome {
    too_long(t, "sleep 300; true")
}

fn too_long(t: &Test, text: &str) -> Outcome {
    for kind in ["createRuntime", "createContainer"] {
        let mut config = with_log(t)?;
        let mut hook = script(text);
        hook["timeout"] = json!(1);
        config.push(&format!("hooks.{kind}"), hook);
        let begin = std::time::Instant::now();
        t.container(&config)?.create()?.refused()?;
        let seconds = begin.elapsed().as_secs();
        check!(seconds < 8, "{kind}: it took {seconds} s");
    }
    Ok(())
}

fn a_hook_within_its_timeout_is_fine(t: &Test) -> Outcome {
    let mut config = with_log(t)?;
    let mut hook = script("sleep 0.2");
    hook["timeout"] = json!(10);
    config.push("hooks.createRuntime", hook);
    let begin = std::time::Instant::now();
    t.run(&config)?.ok()?;
    check!(begin.elapsed().as_secs() < 8, "the whole timeout was waited for");
    Ok(())
}

fn a_negative_or_zero_timeout_is_refused(t: &Test) -> Outcome {
    for timeout in [-1, 0] {
        let mut config = with_log(t)?;
        let mut hook = script("true");
        hook["timeout"] = json!(timeout);
        config.push("hooks.createRuntime", hook);
        t.container(&config)?.create()?.refused()?;
    }
    Ok(())
}

fn a_hook_that_ends_by_a_signal_fails_the_create(t: &Test) -> Outcome {
    let mut config = with_log(t)?;
    config.push("hooks.createRuntime", script("kill -KILL $$"));
    t.container(&config)?.create()?.refused()?;
    Ok(())
}

fn the_error_of_a_hook_names_it(t: &Test) -> Outcome {
    let mut config = with_log(t)?;
    config.push("hooks.createRuntime", script("echo what went wrong >&2; exit 3"));
    let error = t.container(&config)?.create()?.refused()?.stderr;
    check!(error.to_lowercase().contains("hook") || error.contains("/bin/sh"), "no hook in: {error}");
    Ok(())
}

fn hooks_do_not_keep_descriptors_of_the_runtime(t: &Test) -> Outcome {
    let mut config = with_log(t)?;
    // 0, 1, 2, and the directory that ls itself reads.
    let text = format!("ls /proc/self/fd | tr '\\n' ' ' >> {}", log(t).display());
    config.push("hooks.createRuntime", script(&text));
    t.run(&config)?.ok()?;
    let text = logged(t);
    let numbers: Vec<&str> = text.split_whitespace().filter(|word| word.parse::<u32>().is_ok()).collect();
    same("open files", numbers, vec!["0", "1", "2", "3"])
}

fn a_hook_that_reads_nothing_does_not_block(t: &Test) -> Outcome {
    let mut config = with_log(t)?;
    // More than a pipe holds, in the state.
    config.set("annotations", json!({ "big": "x".repeat(300_000) }));
    config.push("hooks.createRuntime", json!({ "path": "/bin/true" }));
    config.push("hooks.createRuntime", script("exec 0<&-; exit 0"));
    t.run(&config)?.ok()?;
    Ok(())
}

fn poststop_hooks_run_after_a_failed_create_or_not_at_all(t: &Test) -> Outcome {
    let mut config = with_log(t)?;
    config.push("hooks.createRuntime", script("exit 3")).push("hooks.poststop", naming(t, "poststop"));
    t.container(&config)?.create()?.refused()?;
    // The lifecycle of the spec goes from a failed hook to `stop`, delete and poststop.
    let text = logged(t);
    check!(text.is_empty() || text == "poststop\n", "{text}");
    Ok(())
}

fn a_hook_by_a_magic_link_works(t: &Test) -> Outcome {
    // dockerd's path of its hook is /proc/PID/exe.
    let mut config = with_log(t)?;
    let busybox = std::process::Command::new(crate::bundle::busybox().unwrap_or_default())
        .args(["sleep", "20"])
        .spawn()?;
    let path = format!("/proc/{}/exe", busybox.id());
    let args = json!(["sh", "-c", format!("echo linked >> {}", log(t).display())]);
    config.push("hooks.prestart", json!({ "path": path, "args": args }));
    let output = t.run(&config);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(busybox.id() as i32),
        nix::sys::signal::Signal::SIGKILL,
    )?;
    output?.ok()?;
    same("seen", logged(t).as_str(), "linked\nprogram\n")
}

fn hooks_outside_the_container_work_in_the_bundle(t: &Test) -> Outcome {
    fs::write(log(t), "")?;
    let mut config = t.sleeper();
    let kinds = ["prestart", "createRuntime", "poststart", "poststop"];
    for kind in kinds {
        config.push(&format!("hooks.{kind}"), script(&format!("cat; pwd >> {}", log(t).display())));
    }
    let c = t.container(&config)?;
    c.create()?.ok()?;
    c.start()?.ok()?;
    c.stop()?;
    c.delete()?.ok()?;
    let bundle = c.bundle.display().to_string();
    same("directories", logged(t).lines().collect::<Vec<_>>(), vec![bundle.as_str(); kinds.len()])
}

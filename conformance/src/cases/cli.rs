//! The command line beyond the verbs of the lifecycle: version, help, features, spec, logs, global
//! options, ids. What the verbs do is in lifecycle.rs, exec.rs and cgroups.rs.

use crate::case::Need::{Cgroup, Root};
use crate::case::{Case, Outcome, case, check, contains, same, skip};
use crate::process;
use crate::test::Test;
use serde_json::Value;
use std::fs;
use std::process::Command;

pub const CASES: &[Case] = &[
    case!(version_names_the_runtime_and_the_spec),
    case!(help_lists_the_verbs),
    case!(an_unknown_verb_is_refused),
    case!(an_unknown_option_is_refused),
    case!(features_says_what_is_supported),
    case!(features_says_that_containers_can_be_saved),
    case!(features_needs_no_state_directory),
    case!(spec_writes_a_configuration_that_runs),
    case!(spec_does_not_overwrite),
    case!(spec_rootless_has_a_user_namespace),
    case!(log_gets_the_error_as_json),
    case!(log_gets_the_error_as_text),
    case!(log_that_cannot_be_opened_is_an_error),
    case!(debug_is_accepted),
    case!(debug_records_what_is_done),
    case!(a_failing_poststop_hook_of_run_is_recorded),
    case!(kill_ends_a_paused_container, [Cgroup]),
    case!(state_directory_is_made_with_its_parents),
    case!(state_directory_is_private),
    case!(list_of_an_empty_state_directory_is_empty),
    case!(bundle_is_the_current_directory_by_default),
    case!(options_may_come_before_and_with_equal_signs),
    case!(ids_with_odd_characters_are_refused),
    case!(ids_with_all_allowed_characters_work),
    case!(ids_of_up_to_255_characters_work),
    case!(keep_keeps_a_container_that_ended),
    case!(no_subreaper_and_no_new_keyring_are_accepted),
    case!(containers_of_other_state_directories_are_not_seen),
    case!(state_survives_the_runtime),
    case!(without_a_cgroup_where_none_is_wanted, [Root]),
];

fn plain(t: &Test, args: &[&str]) -> Outcome<process::Output> {
    process::run(Command::new(&t.runtime.program).args(args).current_dir(&t.dir), &t.dir)
}

fn version_names_the_runtime_and_the_spec(t: &Test) -> Outcome {
    let text = plain(t, &["--version"])?.ok()?.stdout;
    let first = text.lines().next().unwrap_or_default();
    contains("first line", first, "version")?;
    // go-runc looks for a line that begins so.
    check!(text.lines().any(|line| line.starts_with("spec: ")), "no spec: in {text}");
    Ok(())
}

fn help_lists_the_verbs(t: &Test) -> Outcome {
    let text = plain(t, &["--help"])?.ok()?.stdout;
    for verb in [
        "create", "start", "state", "kill", "delete", "exec", "run", "list", "ps", "pause", "resume",
        "update", "spec",
    ] {
        contains("help", &text, verb)?;
    }
    Ok(())
}

fn an_unknown_verb_is_refused(t: &Test) -> Outcome {
    let output = t.runtime.call(&["frobnicate"])?;
    check!(output.code != 0, "{}: succeeded: {}", output.call, output.text());
    Ok(())
}

fn an_unknown_option_is_refused(t: &Test) -> Outcome {
    let c = t.container(&t.sleeper())?;
    let output = c.create_with(&["--frobnicate"])?;
    check!(output.code != 0, "{}: succeeded: {}", output.call, output.text());
    Ok(())
}

fn features_says_what_is_supported(t: &Test) -> Outcome {
    t.needs_verb("features")?;
    let features = plain(t, &["features"])?.ok()?.json()?;
    check!(features["ociVersionMin"].is_string() && features["ociVersionMax"].is_string(), "{features}");
    let has = |path: &str, item: &str| {
        features
            .pointer(path)
            .and_then(Value::as_array)
            .is_some_and(|list| list.iter().any(|have| have == item))
    };
    for hook in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"] {
        check!(has("/hooks", hook), "no hook {hook} in {}", features["hooks"]);
    }
    for option in ["bind", "ro", "nosuid", "rprivate", "rro"] {
        check!(has("/mountOptions", option), "no mount option {option}");
    }
    for kind in ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"] {
        check!(has("/linux/namespaces", kind), "no namespace {kind}");
    }
    check!(has("/linux/capabilities", "CAP_CHOWN"), "no capabilities");
    check!(features["linux"]["cgroup"].is_object(), "no cgroup: {features}");
    check!(features["linux"]["seccomp"]["enabled"] == true, "no seccomp: {features}");
    Ok(())
}

/// The annotation of runc and crun, by which callers know that there are `checkpoint` and `restore`.
fn features_says_that_containers_can_be_saved(t: &Test) -> Outcome {
    t.needs_verb("features")?;
    t.needs_verb("checkpoint")?;
    let features = plain(t, &["features"])?.ok()?.json()?;
    let enabled = features["annotations"]["org.opencontainers.runc.checkpoint.enabled"].as_str();
    same("annotation", enabled, Some("true"))
}

fn features_needs_no_state_directory(t: &Test) -> Outcome {
    t.needs_verb("features")?;
    let mut command = Command::new(&t.runtime.program);
    command.arg("features").current_dir("/").env_remove("XDG_RUNTIME_DIR").env_remove("HOME");
    process::run(&mut command, &t.dir)?.ok()?.json()?;
    Ok(())
}

fn spec_writes_a_configuration_that_runs(t: &Test) -> Outcome {
    let c = t.container(&t.config())?;
    let file = c.bundle.join("config.json");
    fs::remove_file(&file)?;
    let mut arguments = vec!["spec"];
    if !t.host.root {
        arguments.push("--rootless");
    }
    process::run(t.runtime.command().args(&arguments).current_dir(&c.bundle), &t.dir)?.ok()?;
    let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
    check!(config["ociVersion"].is_string() && config["process"]["capabilities"].is_object(), "{config}");
    check!(
        config["process"]["capabilities"]["inheritable"].as_array().is_none_or(Vec::is_empty),
        "inheritable capabilities"
    );
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = serde_json::json!(["/bin/echo", "ran"]);
    config["process"]["rlimits"] = serde_json::json!([]);
    if t.host.root {
        config["linux"]["cgroupsPath"] = format!("{}/{}", t.cgroup, c.id).into();
    }
    fs::write(&file, config.to_string())?;
    same("output", c.run()?.ok()?.stdout.trim(), "ran")
}

fn spec_does_not_overwrite(t: &Test) -> Outcome {
    let c = t.container(&t.config())?;
    let before = fs::read(c.bundle.join("config.json"))?;
    let output = process::run(t.runtime.command().arg("spec").current_dir(&c.bundle), &t.dir)?;
    same("config.json", fs::read(c.bundle.join("config.json"))?, before)?;
    output.refused().map(drop)
}

fn spec_rootless_has_a_user_namespace(t: &Test) -> Outcome {
    let bundle = t.folder("empty")?;
    process::run(t.runtime.command().args(["spec", "--rootless"]).current_dir(&bundle), &t.dir)?.ok()?;
    let config: Value = serde_json::from_slice(&fs::read(bundle.join("config.json"))?)?;
    let kinds = config["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
    check!(kinds.iter().any(|kind| kind["type"] == "user"), "no user namespace: {}", config["linux"]);
    check!(config["linux"]["uidMappings"].is_array(), "no maps: {}", config["linux"]);
    Ok(())
}

fn log_gets_the_error_as_json(t: &Test) -> Outcome {
    let log = t.dir.join("log.json");
    let path = log.display().to_string();
    let output = t.runtime.call(&["--log", &path, "--log-format", "json", "state", "nobody"])?;
    check!(output.code != 0, "succeeded");
    let text = fs::read_to_string(&log)?;
    // The shims and conmon read the last line of level error.
    let lines: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&text).into_iter().collect();
    let lines = lines?;
    let last = lines.iter().rev().find(|line| line["level"] == "error");
    check!(last.is_some_and(|line| line["msg"].as_str().is_some_and(|msg| !msg.is_empty())), "log: {text}");
    check!(last.is_some_and(|line| line["time"].is_string()), "no time: {text}");
    Ok(())
}

fn log_gets_the_error_as_text(t: &Test) -> Outcome {
    let log = t.dir.join("log.text");
    let path = log.display().to_string();
    let output = t.runtime.call(&["--log", &path, "--log-format", "text", "state", "nobody"])?;
    check!(output.code != 0, "succeeded");
    check!(!fs::read_to_string(&log)?.trim().is_empty(), "the log is empty");
    Ok(())
}

fn log_that_cannot_be_opened_is_an_error(t: &Test) -> Outcome {
    let path = t.dir.join("no/such/directory/log").display().to_string();
    let output = t.runtime.call(&["--log", &path, "list"])?;
    check!(output.code != 0, "{}: succeeded", output.call);
    Ok(())
}

fn debug_is_accepted(t: &Test) -> Outcome {
    let c = t.container(&t.shell("echo ran"))?;
    let mut command = Command::new(&t.runtime.program);
    command
        .arg("--debug")
        .arg("--root")
        .arg(&t.runtime.state)
        .arg("run")
        .arg("--bundle")
        .arg(&c.bundle)
        .arg(&c.id);
    contains("output", &process::run(&mut command, &t.dir)?.ok()?.stdout, "ran")
}

/// The records of a log by level.
fn records(path: &std::path::Path) -> Outcome<Vec<(String, String)>> {
    let text = fs::read_to_string(path)?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let field = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    Ok(lines.iter().map(|line| (field(line, "level"), field(line, "msg"))).collect())
}

fn debug_records_what_is_done(t: &Test) -> Outcome {
    let mut config = t.shell("exit 0");
    // A user is warned that these are not enforced.
    config.remove("linux.resources");
    let c = t.container(&config)?;
    let log = t.dir.join("log.json");
    let mut command = t.runtime.command();
    command.args(["--debug", "--log-format", "json", "--log"]).arg(&log);
    command.arg("run").arg("--bundle").arg(&c.bundle).arg(&c.id);
    process::run(&mut command, &t.dir)?.ok()?;
    let records = records(&log)?;
    check!(records.iter().any(|(level, text)| level == "debug" && !text.is_empty()), "{records:?}");
    check!(records.iter().all(|(level, _)| level != "error"), "{records:?}");
    // Without it, a run without a fault says nothing.
    fs::remove_file(&log)?;
    let mut command = t.runtime.command();
    command.args(["--log-format", "json", "--log"]).arg(&log);
    command.arg("run").arg("--bundle").arg(&c.bundle).arg(&c.id);
    process::run(&mut command, &t.dir)?.ok()?;
    same("log", fs::read_to_string(&log).unwrap_or_default().as_str(), "")
}

fn a_failing_poststop_hook_of_run_is_recorded(t: &Test) -> Outcome {
    let mut config = t.shell("exit 0");
    config.push("hooks.poststop", serde_json::json!({ "path": "/bin/false" }));
    let c = t.container(&config)?;
    let log = t.dir.join("log.json");
    let mut command = t.runtime.command();
    command.args(["--log-format", "json", "--log"]).arg(&log);
    command.arg("run").arg("--bundle").arg(&c.bundle).arg(&c.id);
    process::run(&mut command, &t.dir)?;
    let records = records(&log)?;
    check!(records.iter().any(|(level, _)| level == "warning" || level == "error"), "{records:?}");
    Ok(())
}

fn kill_ends_a_paused_container(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    c.call("pause", &[])?.ok()?;
    c.kill("KILL")?.ok()?;
    c.await_status("stopped")
}

fn state_directory_is_made_with_its_parents(t: &Test) -> Outcome {
    let c = t.container(&t.config())?;
    let mut command = Command::new(&t.runtime.program);
    command.arg("--root").arg(t.dir.join("new/state")).arg("run").arg("--bundle").arg(&c.bundle).arg(&c.id);
    process::run(&mut command, &t.dir)?.ok()?;
    Ok(())
}

fn state_directory_is_private(t: &Test) -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    let c = t.detached(&t.sleeper())?;
    let root = t.runtime.state.join(&c.id);
    check!(root.is_dir(), "no directory {}", root.display());
    let open = crate::leaks::tree(&root);
    let mode = fs::metadata(&root)?.permissions().mode() & 0o777;
    check!(mode & 0o022 == 0, "mode {mode:o}: others can write: {open:?}");
    for entry in fs::read_dir(&root)?.flatten() {
        let mode = entry.metadata()?.permissions().mode() & 0o777;
        let socket_or_fifo = !entry.file_type()?.is_file() && !entry.file_type()?.is_dir();
        check!(mode & 0o022 == 0 || socket_or_fifo, "{}: mode {mode:o}", entry.path().display());
    }
    Ok(())
}

fn list_of_an_empty_state_directory_is_empty(t: &Test) -> Outcome {
    let output = t.runtime.call(&["list", "--format", "json"])?.ok()?;
    let text: String = output.stdout.split_whitespace().collect();
    check!(["[]", "null", ""].contains(&text.as_str()), "list: {text}");
    same("quiet", t.runtime.call(&["list", "-q"])?.ok()?.stdout.trim(), "")
}

fn bundle_is_the_current_directory_by_default(t: &Test) -> Outcome {
    let c = t.container(&t.shell("echo ran"))?;
    let mut command = t.runtime.command();
    command.args(["run", &c.id]).current_dir(&c.bundle);
    same("output", process::run(&mut command, &t.dir)?.ok()?.stdout.trim(), "ran")?;
    // A relative one is relative to it, and state has it absolute.
    let c = t.container(&t.sleeper())?;
    let name = c.bundle.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut command = t.runtime.command();
    command.args(["create", "--bundle", &name, &c.id]).current_dir(&t.dir);
    process::run(&mut command, &t.dir)?.ok()?;
    same("bundle", c.state()?["bundle"].as_str(), c.bundle.to_str())
}

fn options_may_come_before_and_with_equal_signs(t: &Test) -> Outcome {
    let c = t.container(&t.sleeper())?;
    let mut command = Command::new(&t.runtime.program);
    command.arg(format!("--root={}", t.runtime.state.display())).arg("--log-format=json");
    command.arg("create").arg(format!("--bundle={}", c.bundle.display()));
    command.arg(format!("--pid-file={}", t.dir.join("pid").display())).arg(&c.id);
    process::run(&mut command, &t.dir)?.ok()?;
    check!(t.dir.join("pid").exists(), "no pid file");
    Ok(())
}

fn ids_with_odd_characters_are_refused(t: &Test) -> Outcome {
    let c = t.container(&t.config())?;
    for id in ["", "a/b", "../x", "..", ".", "a b", "a\nb", "ü", "a\u{1}b"] {
        let mut command = t.runtime.command();
        command.args(["create", "--bundle"]).arg(&c.bundle).arg("--").arg(id);
        let output = process::run(&mut command, &t.dir)?;
        check!(output.code != 0, "the id {id:?} was taken");
    }
    check!(!t.dir.join("x").exists(), "a directory outside of the state directory was made");
    Ok(())
}

fn ids_with_all_allowed_characters_work(t: &Test) -> Outcome {
    let mut c = t.container(&t.config())?;
    c.id = "aZ09_+-.x".to_owned();
    t.write_config(&c, &t.config())?;
    c.run()?.ok()?;
    Ok(())
}

/// No file has a longer name; the runtime may need room for more than the id.
fn ids_of_up_to_255_characters_work(t: &Test) -> Outcome {
    let config = t.shell("exit 3");
    for length in [200, 244, 255] {
        let mut c = t.container(&config)?;
        c.id = "i".repeat(length);
        same("exit code", c.run()?.code, 3)?;
    }
    for length in [256, 5000] {
        let mut c = t.container(&config)?;
        c.id = "i".repeat(length);
        let output = c.run()?;
        check!(output.code == 1 && !output.stderr.trim().is_empty(), "{length}: {}", output.text());
    }
    Ok(())
}

fn keep_keeps_a_container_that_ended(t: &Test) -> Outcome {
    let c = t.container(&t.shell("exit 0"))?;
    c.run_with(&["--keep"])?.ok()?;
    same("status", c.status()?.as_str(), "stopped")?;
    c.delete()?.ok()?;
    Ok(())
}

fn no_subreaper_and_no_new_keyring_are_accepted(t: &Test) -> Outcome {
    let c = t.container(&t.shell("exit 0"))?;
    c.run_with(&["--no-subreaper", "--no-new-keyring"])?.ok()?;
    Ok(())
}

fn containers_of_other_state_directories_are_not_seen(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let mut command = Command::new(&t.runtime.program);
    command.arg("--root").arg(t.folder("other")?).args(["state", &c.id]);
    let output = process::run(&mut command, &t.dir)?;
    check!(output.code != 0, "seen: {}", output.text());
    Ok(())
}

fn state_survives_the_runtime(t: &Test) -> Outcome {
    // Every file of the state must be complete at any time: many readers while others write.
    let c = t.detached(&t.sleeper())?;
    let mut started = Vec::new();
    for _ in 0..10 {
        let mut command = t.runtime.command();
        command.args(["state", &c.id]);
        started.push(process::start(command.stdin(std::process::Stdio::null()), &t.dir)?);
    }
    for one in started {
        same("status", one.finish(process::LIMIT)?.ok()?.json()?["status"].as_str(), Some("running"))?;
    }
    Ok(())
}

/// As Podman asks for it with `--cgroups disabled`.
fn without_a_cgroup_where_none_is_wanted(t: &Test) -> Outcome {
    if t.runtime.name == "runc" {
        return skip("runc has no --cgroup-manager");
    }
    let mut config = t.config();
    config.args(&["/bin/cat", "/proc/self/cgroup"]).no_namespace("cgroup").remove("linux.resources");
    let c = t.container(&config)?;
    let mut command = t.runtime.command();
    command.args(["--cgroup-manager", "disabled", "run", "--bundle"]).arg(&c.bundle).arg(&c.id);
    let output = process::run(&mut command, &t.dir)?;
    same("cgroups", output.ok()?.stdout.as_str(), fs::read_to_string("/proc/self/cgroup")?.as_str())
}

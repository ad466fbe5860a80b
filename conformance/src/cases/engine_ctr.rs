//! containerd, asked by ctr: its shim of runc, which calls the runtime, or this project's own (ONGGI_SHIM).

use crate::case::Need::{Criu, Program, Root};
use crate::case::{Case, Outcome, Stop, case, check, contains, same, skip};
use crate::engine::{self, Engine};
use crate::engine_limits::{self, Limits};
use crate::engine_start;
use crate::process::Output;
use crate::test::Test;
use std::fs;
use std::os::unix::fs::PermissionsExt;

pub const CASES: &[Case] = &[
    case!(run_prints_what_the_container_says, [Root, Program("containerd"), Program("ctr")], 120),
    case!(run_says_the_exit_code, [Root, Program("containerd"), Program("ctr")], 120),
    case!(a_missing_program_is_an_error, [Root, Program("containerd"), Program("ctr")], 120),
    case!(a_directory_and_variables, [Root, Program("containerd"), Program("ctr")], 120),
    case!(a_read_only_root, [Root, Program("containerd"), Program("ctr")], 120),
    case!(a_mount_and_a_device, [Root, Program("containerd"), Program("ctr")], 120),
    case!(privileged_has_every_capability, [Root, Program("containerd"), Program("ctr")], 120),
    case!(the_default_filter_is_on, [Root, Program("containerd"), Program("ctr")], 120),
    case!(limits_are_in_the_cgroup, [Root, Program("containerd"), Program("ctr")], 120),
    case!(it_is_one_of_the_runtime_that_was_given, [Root, Program("containerd"), Program("ctr")], 120),
    case!(exec_is_root, [Root, Program("containerd"), Program("ctr")], 120),
    case!(exec_says_the_exit_code, [Root, Program("containerd"), Program("ctr")], 120),
    case!(execs_of_short_programs, [Root, Program("containerd"), Program("ctr")], 120),
    case!(pause_and_resume, [Root, Program("containerd"), Program("ctr")], 120),
    case!(ps_lists_the_processes, [Root, Program("containerd"), Program("ctr")], 120),
    case!(metrics_have_the_memory, [Root, Program("containerd"), Program("ctr")], 120),
    case!(kill_and_delete, [Root, Program("containerd"), Program("ctr")], 120),
    case!(output_goes_to_a_file, [Root, Program("containerd"), Program("ctr")], 120),
    case!(output_goes_to_a_program, [Root, Program("containerd"), Program("ctr")], 120),
    case!(checkpoint_and_restore, [Root, Program("containerd"), Program("ctr"), Criu], 120),
];

/// `run` with the runtime under test: options, then the id and the command.
fn run(t: &Test, options: &[&str], id: &str, words: &[&str]) -> Outcome<Output> {
    let engine = t.engine()?;
    let shim = engine_start::shim(&t.runtime.name).map(|path| path.display().to_string());
    let program = t.runtime.program.display().to_string();
    // Not both drivers beside each other: on cgroup v1 systemd moves the processes in cgroups that are
    // not its units' out of its controllers whenever a unit gets its first limit.
    let cgroup = match &engine.cgroup {
        Some(cgroup) => format!("{cgroup}/{id}"),
        None => format!("system.slice:box:{id}"),
    };
    let mut all = vec!["run", "--snapshotter", "native", "--cgroup", &cgroup];
    if engine.cgroup.is_none() {
        all.push("--runc-systemd-cgroup");
    }
    match &shim {
        // engine_start.rs has put the shim there: ctr has the option of systemd's cgroups for this name alone.
        Some(_) if engine.cgroup.is_none() => all.extend(["--runtime", "io.containerd.runc.v2"]),
        Some(shim) => all.extend(["--runtime", shim]),
        None => all.extend(["--runc-binary", &program]),
    }
    all.extend_from_slice(options);
    all.extend([engine.image, id]);
    all.extend_from_slice(words);
    engine.call(&all)
}

fn script(t: &Test, options: &[&str], script: &str) -> Outcome<String> {
    let options = [&["--rm"], options].concat();
    Ok(run(t, &options, "a", &["sh", "-c", script])?.ok()?.stdout.trim().to_owned())
}

fn sleeper(t: &Test, options: &[&str]) -> Outcome<&'static Engine> {
    let options = [&["-d"], options].concat();
    run(t, &options, "one", &["sleep", "1000"])?.ok()?;
    t.engine()
}

fn remove(engine: &Engine) -> Outcome {
    engine.says(&["task", "rm", "-f", "one"])?;
    engine.says(&["container", "rm", "one"])?;
    engine::no_scope("box-*.scope")
}

/// What a process in the container prints. It stays for a moment, because ctr closes the streams of one that has
/// ended before it has read them.
fn shown(engine: &Engine, id: &str, command: &str) -> Outcome<String> {
    let output = exec(engine, id, &["sh", "-c", &format!("{command}; sleep 0.3")])?;
    Ok(output.ok()?.stdout.trim().to_owned())
}

fn exec(engine: &Engine, id: &str, words: &[&str]) -> Outcome<Output> {
    engine.call(&[&["task", "exec", "--exec-id", id, "one"], words].concat())
}

fn run_prints_what_the_container_says(t: &Test) -> Outcome {
    same("output", script(t, &[], "echo hello")?.as_str(), "hello")
}

fn run_says_the_exit_code(t: &Test) -> Outcome {
    run(t, &["--rm"], "a", &["sh", "-c", "exit 7"])?.exits(7).map(drop)
}

fn a_missing_program_is_an_error(t: &Test) -> Outcome {
    let output = run(t, &["--rm"], "a", &["nothing"])?.refused()?;
    contains("message", &output.stderr, "executable file not found")?;
    // ctr removes what it has made of the container, but for its entry.
    let _ = t.engine()?.call(&["container", "rm", "a"])?;
    Ok(())
}

fn a_directory_and_variables(t: &Test) -> Outcome {
    let options = ["--cwd", "/tmp", "--env", "OK=yes"];
    same("output", script(t, &options, "echo $(pwd) $OK")?.as_str(), "/tmp yes")
}

fn a_read_only_root(t: &Test) -> Outcome {
    same("output", script(t, &["--read-only"], "! touch /file 2> /dev/null && echo right")?.as_str(), "right")
}

fn a_mount_and_a_device(t: &Test) -> Outcome {
    let mount = format!("type=bind,src={},dst=/mnt,options=rbind:ro", t.canary().display());
    let options = ["--mount", &mount, "--device", "/dev/full"];
    let output = script(t, &options, "cat /mnt/file; echo; head -c 2 /dev/full | wc -c")?;
    same("output", output.split_whitespace().collect::<Vec<_>>(), vec!["untouched", "2"])
}

fn privileged_has_every_capability(t: &Test) -> Outcome {
    let own = fs::read_to_string("/proc/self/status")?;
    let bound = own.lines().find(|line| line.starts_with("CapBnd")).unwrap_or_default();
    contains("bounding set", &script(t, &["--privileged"], "grep CapBnd /proc/self/status")?, bound)
}

fn the_default_filter_is_on(t: &Test) -> Outcome {
    contains("filter", &script(t, &["--seccomp"], "grep Seccomp: /proc/self/status")?, "2")
}

fn limits_are_in_the_cgroup(t: &Test) -> Outcome {
    let engine = sleeper(t, &["--memory-limit", "67108864", "--cpus", "0.5"])?;
    // ctr has no option for the number of processes.
    let wanted = Limits { memory: Some(64 << 20), pids: None, quota: Some(50_000) };
    engine_limits::expect(&t.host, engine.pid("one")?, wanted)?;
    contains("metrics", &engine.says(&["task", "metrics", "one"])?, "memory")?;
    remove(engine)
}

fn it_is_one_of_the_runtime_that_was_given(t: &Test) -> Outcome {
    let engine = sleeper(t, &[])?;
    contains("list", &engine.listed(&t.runtime.program)?, "one")?;
    remove(engine)
}

fn exec_is_root(t: &Test) -> Outcome {
    let engine = sleeper(t, &[])?;
    contains("id", &shown(engine, "e", "id")?, "uid=0")?;
    remove(engine)
}

fn exec_says_the_exit_code(t: &Test) -> Outcome {
    let engine = sleeper(t, &[])?;
    exec(engine, "e", &["sh", "-c", "exit 9"])?.exits(9)?;
    remove(engine)
}

/// Whose end the shim has to hear of, also where it comes before the end of the runtime.
fn execs_of_short_programs(t: &Test) -> Outcome {
    let engine = sleeper(t, &[])?;
    for n in 0..20 {
        exec(engine, &format!("s{n}"), &["true"])?.ok()?;
    }
    remove(engine)
}

fn pause_and_resume(t: &Test) -> Outcome {
    let engine = sleeper(t, &[])?;
    engine.says(&["task", "pause", "one"])?;
    contains("tasks", &engine.says(&["task", "ls"])?, "PAUSED")?;
    engine.says(&["task", "resume", "one"])?;
    contains("tasks", &engine.says(&["task", "ls"])?, "RUNNING")?;
    remove(engine)
}

fn ps_lists_the_processes(t: &Test) -> Outcome {
    let engine = sleeper(t, &[])?;
    let pid = engine.pid("one")?.to_string();
    contains("ps", &engine.says(&["task", "ps", "one"])?, &pid)?;
    remove(engine)
}

fn metrics_have_the_memory(t: &Test) -> Outcome {
    let engine = sleeper(t, &[])?;
    let text = engine.says(&["task", "metrics", "one"])?;
    let used = text.lines().find(|line| line.starts_with("memory.usage"));
    let used = used.and_then(|line| line.split_whitespace().last()?.parse::<u64>().ok()).unwrap_or(0);
    check!(used > 0, "no memory in {text}");
    remove(engine)
}

fn kill_and_delete(t: &Test) -> Outcome {
    let engine = sleeper(t, &[])?;
    engine.says(&["task", "kill", "-s", "9", "one"])?;
    engine.until("it has stopped", || Ok(engine.says(&["task", "ls"])?.contains("STOPPED")))?;
    let output = engine.call(&["task", "delete", "one"])?;
    contains("exit code", &format!("{} {}", output.code, output.text()), "137")?;
    engine.says(&["container", "delete", "one"])?;
    engine::no_scope("box-*.scope")
}

fn output_to(t: &Test, uri: &str, file: &std::path::Path) -> Outcome {
    let engine = t.engine()?;
    run(t, &["-d", "--log-uri", uri], "one", &["echo", "hello"])?.ok()?;
    engine.until("it has stopped", || Ok(engine.says(&["task", "ls"])?.contains("STOPPED")))?;
    engine.says(&["task", "delete", "one"])?;
    engine.says(&["container", "delete", "one"])?;
    same("what was said", crate::test::await_file(file)?.trim(), "hello")
}

fn output_goes_to_a_file(t: &Test) -> Outcome {
    let file = t.dir.join("said");
    output_to(t, &format!("file://{}", file.display()), &file)
}

fn output_goes_to_a_program(t: &Test) -> Outcome {
    let (file, logger) = (t.dir.join("said"), t.dir.join("logger"));
    // The descriptor 5 is closed to say that it is ready.
    fs::write(&logger, "#!/bin/sh\nexec 5>&-\ncat <&3 > \"$2\"\n")?;
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755))?;
    output_to(t, &format!("binary://{}?to={}", logger.display(), file.display()), &file)
}

fn checkpoint_and_restore(t: &Test) -> Outcome {
    if engine_start::shim(&t.runtime.name).is_some() {
        return skip("ctr passes options of checkpoints to the shim of runc alone");
    }
    let counter = "i=0; while :; do i=$((i+1)); echo $i > /count.new; mv /count.new /count; sleep 0.05; done";
    run(t, &["-d"], "one", &["sh", "-c", counter])?.ok()?;
    let engine = t.engine()?;
    let count = |id: &str| Ok::<u32, Stop>(shown(engine, id, "cat /count")?.parse().unwrap_or(0));
    let mut at = 0;
    engine.until("it counts", || {
        at = count("e").unwrap_or(0);
        Ok(at > 10)
    })?;
    let image = "localhost/saved:latest";
    engine.says(&["container", "checkpoint", "--rw", "--image", "--task", "one", image])?;
    remove(engine)?;
    engine.says(&["container", "restore", "--rw", "--live", "one", image])?;
    let first = count("f")?;
    check!(first >= at, "it was at {at} and is at {first}: it began again");
    engine.until("it counts on", || Ok(count("g")? > first))?;
    remove(engine)?;
    engine.says(&["image", "rm", image]).map(drop)
}

//! The verbs and the states that they lead to: create, start, state, kill, delete, run, list, ps.
//! More of the command line is in cli.rs, errors of the configuration in bad_input.rs.

use crate::case::Need::{Cgroup, Root};
use crate::case::{Case, Outcome, case, check, contains, same, skip};
use crate::process;
use crate::test::{Test, pause};
use std::fs;
use std::time::Duration;

pub const CASES: &[Case] = &[
    case!(create_does_not_run_the_program),
    case!(state_has_the_fields_of_the_spec),
    case!(state_follows_create_start_and_exit),
    case!(start_runs_the_program),
    case!(start_twice_is_refused),
    case!(start_after_the_end_is_refused),
    case!(start_of_a_missing_executable_fails_and_names_it),
    case!(run_gives_the_exit_code_of_the_program),
    case!(run_gives_128_and_the_signal, [Root]),
    case!(run_passes_stdin_stdout_and_stderr_through),
    case!(run_of_a_missing_executable_fails_and_leaves_nothing),
    case!(run_deletes_the_container_at_the_end),
    case!(run_detached_returns_while_the_program_runs),
    case!(run_forwards_sigterm),
    case!(run_forwards_signals_of_faults_that_others_send),
    case!(run_without_a_terminal_keeps_sigwinch),
    case!(pid_file_holds_the_pid_of_the_container),
    case!(pid_file_that_cannot_be_written_fails_the_create),
    case!(pid_file_that_is_no_regular_file_stays_what_it_is, [Root]),
    case!(pid_file_that_is_a_link_leaves_its_target_alone),
    case!(pid_file_that_is_a_link_to_a_fifo_is_replaced),
    case!(pid_file_that_is_a_fifo_of_another_user_is_replaced, [Root]),
    case!(an_id_in_use_is_refused),
    case!(a_container_that_does_not_exist_is_an_error_of_every_verb),
    case!(kill_without_signal_sends_term),
    case!(kill_takes_names_and_numbers),
    case!(kill_of_a_stopped_container_is_refused),
    case!(kill_of_a_created_container_ends_it),
    case!(kill_with_an_unknown_signal_is_refused),
    case!(kill_all_ends_every_process, [Cgroup]),
    case!(delete_of_a_running_container_is_refused),
    case!(delete_force_ends_a_running_container),
    case!(delete_force_of_a_created_container_works),
    case!(delete_force_of_nothing_succeeds),
    case!(delete_frees_the_id),
    case!(list_shows_containers_and_their_states),
    case!(ps_shows_the_processes, [Cgroup]),
];

fn create_does_not_run_the_program(t: &Test) -> Outcome {
    let c = t.container(&t.shell("echo started > /mark; sleep 1000"))?;
    c.create()?.ok()?;
    pause(150);
    check!(!c.path("/mark").exists(), "the program ran before start");
    c.start()?.ok()?;
    same("file", c.await_file("/mark")?.trim(), "started")
}

fn state_has_the_fields_of_the_spec(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("annotations", serde_json::json!({ "org.example.key": "value" }));
    let c = t.container(&config)?;
    c.create()?.ok()?;
    let state = c.state()?;
    same("id", state["id"].as_str(), Some(c.id.as_str()))?;
    same("bundle", state["bundle"].as_str(), c.bundle.to_str())?;
    same("annotation", state["annotations"]["org.example.key"].as_str(), Some("value"))?;
    check!(state["ociVersion"].as_str().is_some_and(|v| v.starts_with("1.")), "ociVersion: {state}");
    let pid = c.pid()?;
    check!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "no process {pid}");
    same("status", c.status()?.as_str(), "created")
}

fn state_follows_create_start_and_exit(t: &Test) -> Outcome {
    let c = t.container(&t.sleeper())?;
    c.create()?.ok()?;
    same("after create", c.status()?.as_str(), "created")?;
    c.start()?.ok()?;
    same("after start", c.status()?.as_str(), "running")?;
    c.kill("KILL")?.ok()?;
    c.await_status("stopped")?;
    c.delete()?.ok()?;
    c.call("state", &[])?.refused()?;
    Ok(())
}

fn start_runs_the_program(t: &Test) -> Outcome {
    let c = t.container(&t.shell("echo it ran > /mark"))?;
    c.create()?.ok()?;
    let pid = c.pid()?;
    c.start()?.ok()?;
    same("exit code", process::wait(pid, Duration::from_secs(10)), Some(0))?;
    same("file", c.await_file("/mark")?.trim(), "it ran")
}

fn start_twice_is_refused(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    c.start()?.refused()?;
    same("status", c.status()?.as_str(), "running")
}

fn start_after_the_end_is_refused(t: &Test) -> Outcome {
    let c = t.detached(&t.shell("exit 0"))?;
    c.await_status("stopped")?;
    c.start()?.refused()?;
    Ok(())
}

fn start_of_a_missing_executable_fails_and_names_it(t: &Test) -> Outcome {
    let mut config = t.config();
    config.args(&["/bin/no-such-program"]);
    let c = t.container(&config)?;
    // runc says it at create already, which a runtime may do; then there is nothing to start.
    let created = c.create()?;
    let failed = if created.code == 0 { c.start()? } else { created };
    contains("error", &failed.refused()?.stderr, "no-such-program")
}

fn run_gives_the_exit_code_of_the_program(t: &Test) -> Outcome {
    for code in [0, 1, 42, 127, 255] {
        t.run(&t.shell(&format!("exit {code}")))?.exits(code)?;
    }
    Ok(())
}

fn run_gives_128_and_the_signal(t: &Test) -> Outcome {
    // The first process of a pid namespace is safe from its own signals: use the host's.
    let mut config = t.config();
    config.no_namespace("pid");
    for (name, number) in [("TERM", 15), ("KILL", 9), ("ABRT", 6)] {
        config.shell(&format!("kill -{name} $$; sleep 5"));
        t.run(&config)?.exits(128 + number)?;
    }
    Ok(())
}

fn run_passes_stdin_stdout_and_stderr_through(t: &Test) -> Outcome {
    let c = t.container(&t.shell("read word; echo out $word; echo err $word >&2"))?;
    let input = t.dir.join("input");
    fs::write(&input, "hello\n")?;
    let mut command = c.bundle_command("run", &[]);
    command.stdin(fs::File::open(&input)?);
    let output = process::start(&mut command, &t.dir)?.finish(process::LIMIT)?.ok()?;
    same("stdout", output.stdout.as_str(), "out hello\n")?;
    same("stderr", output.stderr.as_str(), "err hello\n")
}

fn run_of_a_missing_executable_fails_and_leaves_nothing(t: &Test) -> Outcome {
    let mut config = t.config();
    config.args(&["no-such-program"]);
    let c = t.container(&config)?;
    let output = c.run()?.refused()?;
    contains("error", &output.stderr, "no-such-program")?;
    // docker and podman look for this text.
    contains("error", &output.stderr.to_lowercase(), "executable file")?;
    c.call("state", &[])?.refused()?;
    Ok(())
}

fn run_deletes_the_container_at_the_end(t: &Test) -> Outcome {
    let c = t.container(&t.config())?;
    c.run()?.ok()?;
    c.call("state", &[])?.refused()?;
    same("left in the state directory", fs::read_dir(&t.runtime.state)?.count(), 0)
}

fn run_detached_returns_while_the_program_runs(t: &Test) -> Outcome {
    let c = t.container(&t.sleeper())?;
    c.run_with(&["--detach"])?.ok()?;
    same("status", c.status()?.as_str(), "running")
}

/// systemd sends SIGABRT to a service that has missed its watchdog (systemd.service(5), WatchdogSignal).
fn run_forwards_signals_of_faults_that_others_send(t: &Test) -> Outcome {
    use nix::sys::signal::{Signal, kill};
    for (name, signal) in [("ABRT", Signal::SIGABRT), ("SYS", Signal::SIGSYS), ("TRAP", Signal::SIGTRAP)] {
        let script =
            format!("trap 'exit 33' {name}; echo > /mark; echo up > /mark; while :; do sleep 0.05; done");
        let c = t.container(&t.shell(&script))?;
        let started = c.run_started()?;
        c.await_file("/mark")?;
        kill(nix::unistd::Pid::from_raw(started.pid), signal)?;
        started.finish(process::LIMIT)?.exits(33)?;
    }
    Ok(())
}

/// The kernel sends it when the window of the caller's terminal is resized, which is not the program's: Apache stops at it.
fn run_without_a_terminal_keeps_sigwinch(t: &Test) -> Outcome {
    let script = "trap 'exit 33' TERM; trap 'exit 44' WINCH; echo up > /mark; while :; do sleep 0.05; done";
    let c = t.container(&t.shell(script))?;
    let started = c.run_started()?;
    c.await_file("/mark")?;
    let pid = nix::unistd::Pid::from_raw(started.pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGWINCH)?;
    // Time for the trap, which the shell looks at after each sleep.
    std::thread::sleep(std::time::Duration::from_millis(300));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    started.finish(process::LIMIT)?.exits(33)?;
    Ok(())
}

fn run_forwards_sigterm(t: &Test) -> Outcome {
    let c = t.container(
        &t.shell("trap 'exit 33' TERM; echo > /mark; echo up > /mark; while :; do sleep 0.05; done"),
    )?;
    let started = c.run_started()?;
    c.await_file("/mark")?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(started.pid), nix::sys::signal::Signal::SIGTERM)?;
    started.finish(process::LIMIT)?.exits(33)?;
    Ok(())
}

fn pid_file_holds_the_pid_of_the_container(t: &Test) -> Outcome {
    let c = t.container(&t.sleeper())?;
    let file = t.dir.join("pid");
    c.create_with(&["--pid-file", &file.display().to_string()])?.ok()?;
    let text = fs::read_to_string(&file)?;
    same("pid file", text.as_str(), c.pid()?.to_string().as_str())
}

fn pid_file_that_cannot_be_written_fails_the_create(t: &Test) -> Outcome {
    let c = t.container(&t.sleeper())?;
    c.create_with(&["--pid-file", &t.dir.join("missing/pid").display().to_string()])?.refused()?;
    c.call("state", &[])?.refused()?;
    Ok(())
}

/// `--pid-file /dev/null` must not leave the host without a null device: here it is one of the case's own.
fn pid_file_that_is_no_regular_file_stays_what_it_is(t: &Test) -> Outcome {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    use std::os::unix::fs::FileTypeExt;
    let device = t.dir.join("null");
    mknod(&device, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3))?;
    let c = t.container(&t.sleeper())?;
    let _ = c.create_with(&["--pid-file", &device.display().to_string()])?;
    check!(fs::symlink_metadata(&device)?.file_type().is_char_device(), "the device is a file now");
    Ok(())
}

/// Somebody else's link to a fifo would have the pid written into that.
fn pid_file_that_is_a_link_to_a_fifo_is_replaced(t: &Test) -> Outcome {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let (link, fifo) = (t.dir.join("pid"), t.dir.join("fifo"));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU)?;
    std::os::unix::fs::symlink(&fifo, &link)?;
    let mut reader = fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo)?;
    let c = t.container(&t.sleeper())?;
    c.create_with(&["--pid-file", &link.display().to_string()])?.ok()?;
    same("bytes in the fifo", reader.read(&mut [0; 16])?, 0)?;
    same("pid file", fs::read_to_string(&link)?, c.pid()?.to_string())
}

/// The user would get the pid, and could put a file with another one there for who reads it.
fn pid_file_that_is_a_fifo_of_another_user_is_replaced(t: &Test) -> Outcome {
    use std::os::unix::fs::OpenOptionsExt;
    let fifo = t.dir.join("pid");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU)?;
    std::os::unix::fs::chown(&fifo, Some(4242), None)?;
    let _reader = fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo)?;
    let c = t.container(&t.sleeper())?;
    c.create_with(&["--pid-file", &fifo.display().to_string()])?.ok()?;
    check!(fs::symlink_metadata(&fifo)?.is_file(), "the pid was written into it");
    same("pid file", fs::read_to_string(&fifo)?, c.pid()?.to_string())
}

/// The link is replaced: whoever can write the directory could else have any file of the host overwritten.
fn pid_file_that_is_a_link_leaves_its_target_alone(t: &Test) -> Outcome {
    let (link, aside, target) = (t.dir.join("pid"), t.dir.join(".pid"), t.dir.join("target"));
    fs::write(&target, "untouched")?;
    std::os::unix::fs::symlink(&target, &link)?;
    let c = t.container(&t.sleeper())?;
    c.create_with(&["--pid-file", &link.display().to_string()])?.ok()?;
    same("pid file", fs::read_to_string(&link)?, c.pid()?.to_string())?;
    same("target", fs::read_to_string(&target)?.as_str(), "untouched")?;
    c.delete_force()?.ok()?;
    // The name that the file has before it is whole.
    std::os::unix::fs::symlink(&target, &aside)?;
    let _ = c.create_with(&["--pid-file", &link.display().to_string()])?;
    same("target", fs::read_to_string(&target)?.as_str(), "untouched")
}

fn an_id_in_use_is_refused(t: &Test) -> Outcome {
    let c = t.container(&t.sleeper())?;
    c.create()?.ok()?;
    let pid = c.pid()?;
    c.create()?.refused()?;
    c.run()?.refused()?;
    same("pid", c.pid()?, pid)?;
    same("status", c.status()?.as_str(), "created")
}

fn a_container_that_does_not_exist_is_an_error_of_every_verb(t: &Test) -> Outcome {
    for args in [
        vec!["state", "nobody"],
        vec!["start", "nobody"],
        vec!["kill", "nobody", "TERM"],
        vec!["delete", "nobody"],
        vec!["exec", "nobody", "/bin/true"],
        vec!["ps", "nobody"],
        vec!["pause", "nobody"],
        vec!["resume", "nobody"],
    ] {
        let output = t.runtime.call(&args)?.refused()?;
        // The shims look for these.
        let text = output.stderr.to_lowercase();
        check!(
            ["does not exist", "no such file", "no such process"].iter().any(|part| text.contains(part)),
            "{}: {text}",
            output.call
        );
    }
    Ok(())
}

/// A container that writes the name of the signal it gets.
fn catcher(t: &Test) -> Outcome<crate::test::Container> {
    let c = t.detached(&t.shell(
        "for s in HUP USR1 USR2 TERM WINCH; do trap \"echo $s >> /got\" $s; done; echo up > /mark; \
         while :; do sleep 0.05; done",
    ))?;
    c.await_file("/mark")?;
    Ok(c)
}

fn kill_without_signal_sends_term(t: &Test) -> Outcome {
    let c = catcher(t)?;
    c.call("kill", &[])?.ok()?;
    same("signal", c.await_file("/got")?.trim(), "TERM")
}

fn kill_takes_names_and_numbers(t: &Test) -> Outcome {
    let c = catcher(t)?;
    for (given, name) in
        [("HUP", "HUP"), ("SIGUSR1", "USR1"), ("12", "USR2"), ("SIGTERM", "TERM"), ("28", "WINCH")]
    {
        c.kill(given)?.ok()?;
        same(given, c.await_file("/got")?.trim(), name)?;
        fs::remove_file(c.path("/got"))?;
    }
    Ok(())
}

fn kill_of_a_stopped_container_is_refused(t: &Test) -> Outcome {
    let c = t.detached(&t.shell("exit 0"))?;
    c.await_status("stopped")?;
    let output = c.kill("TERM")?.refused()?;
    let text = output.stderr.to_lowercase();
    let known = ["not running", "process already finished", "no such process", "does not exist"];
    check!(known.iter().any(|part| text.contains(part)), "shims do not know the text: {text}");
    Ok(())
}

fn kill_of_a_created_container_ends_it(t: &Test) -> Outcome {
    let c = t.container(&t.sleeper())?;
    c.create()?.ok()?;
    c.kill("KILL")?.ok()?;
    c.await_status("stopped")?;
    c.delete()?.ok()?;
    Ok(())
}

fn kill_with_an_unknown_signal_is_refused(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    for signal in ["NOSUCH", "999", "9x"] {
        c.kill(signal)?.refused()?;
    }
    same("status", c.status()?.as_str(), "running")
}

fn kill_all_ends_every_process(t: &Test) -> Outcome {
    let c = t.detached(&t.shell("sleep 1000 & sleep 1000 & echo up > /mark; wait"))?;
    c.await_file("/mark")?;
    t.runtime.call(&["kill", "--all", &c.id, "KILL"])?.ok()?;
    c.await_status("stopped")?;
    c.delete()?.ok()?;
    Ok(())
}

fn delete_of_a_running_container_is_refused(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    c.delete()?.refused()?;
    same("status", c.status()?.as_str(), "running")
}

fn delete_force_ends_a_running_container(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let pid = c.pid()?;
    c.delete_force()?.ok()?;
    same("exit code", process::wait(pid, Duration::from_secs(10)), Some(128 + 9))?;
    c.call("state", &[])?.refused()?;
    Ok(())
}

fn delete_force_of_a_created_container_works(t: &Test) -> Outcome {
    let c = t.container(&t.sleeper())?;
    c.create()?.ok()?;
    c.delete_force()?.ok()?;
    c.call("state", &[])?.refused()?;
    Ok(())
}

fn delete_force_of_nothing_succeeds(t: &Test) -> Outcome {
    t.runtime.call(&["delete", "--force", "nobody"])?.ok()?;
    Ok(())
}

fn delete_frees_the_id(t: &Test) -> Outcome {
    let c = t.container(&t.shell("exit 0"))?;
    for _ in 0..3 {
        c.run_with(&["--detach"])?.ok()?;
        c.await_status("stopped")?;
        c.delete()?.ok()?;
    }
    Ok(())
}

fn list_shows_containers_and_their_states(t: &Test) -> Outcome {
    let running = t.detached(&t.sleeper())?;
    let created = t.container(&t.sleeper())?;
    created.create()?.ok()?;
    let list = t.runtime.call(&["list", "--format", "json"])?.ok()?.json()?;
    let find = |id: &str| list.as_array().into_iter().flatten().find(|item| item["id"] == id).cloned();
    for (c, status) in [(&running, "running"), (&created, "created")] {
        let Some(item) = find(&c.id) else { return crate::case::fail(format!("{} not in {list}", c.id)) };
        same("status", item["status"].as_str(), Some(status))?;
        same("pid", item["pid"].as_i64(), Some(i64::from(c.pid()?)))?;
        same("bundle", item["bundle"].as_str(), c.bundle.to_str())?;
    }
    let table = t.runtime.call(&["list"])?.ok()?.stdout;
    contains("table", &table, &running.id)?;
    let quiet = t.runtime.call(&["list", "--quiet"])?.ok()?.stdout;
    let mut ids: Vec<&str> = quiet.split_whitespace().collect();
    ids.sort_unstable();
    same("ids", ids, vec![running.id.as_str(), created.id.as_str()])
}

fn ps_shows_the_processes(t: &Test) -> Outcome {
    let c = t.detached(&t.shell("sleep 1000 & echo up > /mark; wait"))?;
    c.await_file("/mark")?;
    let pids = t.runtime.call(&["ps", "--format", "json", &c.id])?.ok()?.json()?;
    same("number of processes", pids.as_array().map(Vec::len), Some(2))?;
    let first = serde_json::Value::from(c.pid()?);
    check!(pids.as_array().is_some_and(|list| list.contains(&first)), "no init in {pids}");
    if !process::is_in_path("ps") {
        return skip("the table is of the program ps, which is not installed");
    }
    let table = t.runtime.call(&["ps", &c.id])?.ok()?.stdout;
    contains("table", &table, &c.pid()?.to_string())
}

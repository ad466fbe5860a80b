//! Waits: whatever a hook, a terminal, a signal or a second call does, every call ends in time, its error
//! is told, and exit codes are not lost.

use crate::bundle::Config;
use crate::case::Need::{Program, Root};
use crate::case::{Case, Outcome, case, check, contains, same, skip};
use crate::process;
use crate::test::{Container, Test};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

pub const CASES: &[Case] = &[
    case!(a_hook_that_does_not_read_its_input_is_stopped_in_time),
    case!(a_hook_may_write_more_than_a_pipe_holds),
    case!(what_a_hook_leaves_behind_is_not_waited_for),
    case!(a_create_that_is_told_to_end_ends_its_hook),
    case!(run_says_that_it_could_not_delete, [Root]),
    case!(two_deletes_at_once_run_poststop_hooks_once),
    case!(the_second_of_two_deletes_leaves_the_next_container_alone),
    case!(the_start_of_a_stopped_init_is_refused),
    case!(exit_codes_are_right_where_the_caller_ignores_sigchld),
    case!(a_terminal_that_is_gone_hangs_the_containers_up),
    case!(a_command_in_the_background_of_a_terminal_goes_on, [Program("script")]),
    case!(the_end_of_exec_is_not_held_up_by_what_others_print, [Program("script")]),
    case!(a_signal_reaches_the_program_although_its_output_is_stuck, [Program("script")]),
];

/// More than any of the waits, and less than what each of these would wait for.
const IN_TIME: Duration = Duration::from_secs(10);

/// A hook of the host that runs a shell script.
fn script(text: &str) -> Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", text], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] })
}

fn with_hook(t: &Test, kind: &str, hook: Value) -> Config {
    let mut config = t.shell("exit 0");
    config.push(&format!("hooks.{kind}"), hook);
    config
}

fn log(t: &Test) -> PathBuf {
    t.dir.join("log-of-hooks")
}

fn in_time(begin: Instant) -> Outcome {
    check!(begin.elapsed() < IN_TIME * process::slowness(), "it took {:?}", begin.elapsed());
    Ok(())
}

fn a_hook_that_does_not_read_its_input_is_stopped_in_time(t: &Test) -> Outcome {
    for kind in ["createRuntime", "createContainer"] {
        let mut hook = script("exec sleep 16");
        hook["timeout"] = json!(1);
        let mut config = with_hook(t, kind, hook);
        // More than a pipe holds, in the state.
        config.set("annotations", json!({ "big": "x".repeat(150_000) }));
        let begin = Instant::now();
        t.container(&config)?.create()?.refused()?;
        in_time(begin)?;
    }
    Ok(())
}

fn a_hook_may_write_more_than_a_pipe_holds(t: &Test) -> Outcome {
    for kind in ["createRuntime", "createContainer", "poststop"] {
        let text = "head -c 300000 /dev/zero | tr '\\0' x >&2; head -c 300000 /dev/zero; exit 0";
        let begin = Instant::now();
        t.run(&with_hook(t, kind, script(text)))?.ok()?;
        in_time(begin)?;
    }
    Ok(())
}

fn what_a_hook_leaves_behind_is_not_waited_for(t: &Test) -> Outcome {
    let text = format!("sleep 14 & echo $! > {}", log(t).display());
    let begin = Instant::now();
    let output = t.run(&with_hook(t, "createRuntime", script(&text)))?;
    let pid: i32 = fs::read_to_string(log(t))?.trim().parse()?;
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    output.ok()?;
    in_time(begin)
}

fn a_create_that_is_told_to_end_ends_its_hook(t: &Test) -> Outcome {
    let text = format!("echo $$ > {}; exec sleep 1000", log(t).display());
    let c = t.container(&with_hook(t, "createRuntime", script(&text)))?;
    let started = process::start(&mut c.bundle_command("create", &[]), &t.dir)?;
    let hook = Pid::from_raw(crate::test::await_file(&log(t))?.trim().parse()?);
    kill(Pid::from_raw(started.pid), Signal::SIGTERM)?;
    let output = started.finish(IN_TIME);
    // An orphan is reaped by this process, some time.
    let ended = process::until("the hook has ended", || Ok(kill(hook, None).is_err()));
    let _ = kill(hook, Signal::SIGKILL);
    check!(output?.code != 0, "it says that it worked");
    ended?;
    c.call("state", &[])?.refused()?;
    Ok(())
}

fn run_says_that_it_could_not_delete(t: &Test) -> Outcome {
    let c = t.container(&t.shell("exit 0"))?;
    let below = t.runtime.state.join(&c.id).join("mounted");
    let text = format!("mkdir {0} && mount -t tmpfs tmpfs {0}", below.display());
    t.write_config(&c, &with_hook(t, "createRuntime", script(&text)))?;
    let output = c.run()?;
    // Wherever it is by now.
    for entry in fs::read_dir(&t.runtime.state)?.flatten() {
        let _ = nix::mount::umount2(&entry.path().join("mounted"), nix::mount::MntFlags::MNT_DETACH);
    }
    c.delete_force()?.ok()?;
    output.refused()?;
    Ok(())
}

/// Two calls of `delete --force` at once.
fn two_deletes(t: &Test, c: &Container) -> Outcome<[process::Started; 2]> {
    let start = || {
        let mut command = t.runtime.command();
        command.args(["delete", "--force", &c.id]);
        process::start(&mut command, &t.dir)
    };
    Ok([start()?, start()?])
}

fn slow_to_delete(t: &Test) -> Outcome<Container> {
    let text = format!("echo once >> {}; sleep 1", log(t).display());
    let c = t.container(&with_hook(t, "poststop", script(&text)))?;
    c.create()?.ok()?;
    Ok(c)
}

fn two_deletes_at_once_run_poststop_hooks_once(t: &Test) -> Outcome {
    let c = slow_to_delete(t)?;
    for started in two_deletes(t, &c)? {
        started.finish(IN_TIME)?.ok()?;
    }
    same("hooks", fs::read_to_string(log(t))?.as_str(), "once\n")
}

fn the_second_of_two_deletes_leaves_the_next_container_alone(t: &Test) -> Outcome {
    let c = slow_to_delete(t)?;
    let started = two_deletes(t, &c)?;
    t.write_config(&c, &t.sleeper())?;
    process::until("the id is free", || Ok(c.create()?.code == 0))?;
    for started in started {
        // One that comes too late to find anything may say so.
        started.finish(IN_TIME)?;
    }
    same("status", c.status()?.as_str(), "created")
}

fn the_start_of_a_stopped_init_is_refused(t: &Test) -> Outcome {
    let c = t.container(&t.sleeper())?;
    c.create()?.ok()?;
    let init = Pid::from_raw(c.pid()?);
    kill(init, Signal::SIGSTOP)?;
    let output = c.start();
    kill(init, Signal::SIGCONT)?;
    contains("error", &output?.refused()?.stderr, "stopped")
}

fn exit_codes_are_right_where_the_caller_ignores_sigchld(t: &Test) -> Outcome {
    // A shell does not hand on that it ignores this signal.
    let env = |command: &Command| {
        let mut env = Command::new("env");
        env.arg("--ignore-signal=CHLD").arg(command.get_program()).args(command.get_args());
        process::run(env.current_dir(&t.dir), &t.dir)
    };
    if env(&Command::new("true"))?.code != 0 {
        return skip("needs env --ignore-signal of coreutils 8.31");
    }
    let c = t.container(&t.shell("exit 7"))?;
    env(&c.bundle_command("run", &[]))?.exits(7)?;
    let c = t.detached(&t.sleeper())?;
    let mut exec = t.runtime.command();
    exec.args(["exec", &c.id, "/bin/sh", "-c", "exit 9"]);
    env(&exec)?.exits(9)?;
    Ok(())
}

fn a_terminal_that_is_gone_hangs_the_containers_up(t: &Test) -> Outcome {
    let mut config =
        t.shell("trap 'echo hung up > /mark; exit 3' HUP; echo up; while :; do sleep 0.05; done");
    config.set("process.terminal", true);
    let c = t.container(&config)?;
    let pty = nix::pty::openpty(None, None)?;
    // Or the runtime itself would keep the terminal's other side open.
    for fd in [&pty.master, &pty.slave] {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    let mut command = c.bundle_command("run", &[]);
    // Not its controlling terminal, so that no signal tells of its end.
    command.stdin(File::open("/dev/null")?).stdout(pty.slave.try_clone()?).stderr(pty.slave.try_clone()?);
    let pid = process::spawn(&mut command)?;
    drop((pty.slave, command));
    let (mut master, mut seen) = (File::from(pty.master), String::new());
    while !seen.contains("up") {
        let mut bytes = [0; 64];
        let length = master.read(&mut bytes)?;
        seen.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    drop(master);
    let code = process::wait(pid, IN_TIME * process::slowness());
    if code.is_none() {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    check!(code.is_some(), "it waits for ever");
    same("the program", c.await_file("/mark")?.trim(), "hung up")
}

/// timeout(1) makes a process group of its own, which may not read from the terminal (termios(3)).
fn a_command_in_the_background_of_a_terminal_goes_on(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let exec = format!("exec -t {} /bin/sh -c 'echo begin; sleep 0.3; echo end; exit 7'", c.id);
    let commands = format!("timeout 20 {} {exec}\necho code $?\n", in_shell(&t.runtime.command()));
    let output = in_a_terminal(t, &commands)?;
    for wanted in ["begin", "end", "code 7"] {
        contains("output", &output, wanted)?;
    }
    Ok(())
}

/// Runs shell commands with a terminal and returns what they print.
fn in_a_terminal(t: &Test, commands: &str) -> Outcome<String> {
    let file = t.dir.join("commands");
    fs::write(&file, commands)?;
    let mut script = Command::new("script");
    script.args(["-qec", &format!("sh {}", file.display()), "/dev/null"]).env("SHELL", "/bin/sh");
    Ok(process::start(&mut script, &t.dir)?.finish(process::LIMIT)?.stdout)
}

fn in_shell(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| format!("'{}'", word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

fn the_end_of_exec_is_not_held_up_by_what_others_print(t: &Test) -> Outcome {
    let flood = "while :; do yes > /dev/pts/0; done 2> /dev/null";
    let c = t.detached(&t.shell(&format!("({flood}) & ({flood}) & sleep 1000")))?;
    let (end, runtime) = (t.dir.join("end"), in_shell(&t.runtime.command()));
    let end = end.display();
    // Some 50 kB a second are read.
    let commands = format!(
        "{{ timeout 15 {runtime} exec -t {} /bin/sh -c 'sleep 0.5; exit 3'; echo $? > {end}; }} |
         while dd bs=4096 count=1 status=none of=/dev/null; test ! -e {end}; do sleep 0.08; done; cat {end}",
        c.id
    );
    same("exit code", in_a_terminal(t, &commands)?.trim(), "3")
}

fn a_signal_reaches_the_program_although_its_output_is_stuck(t: &Test) -> Outcome {
    let mut config = t.shell("trap 'echo > /got; exit' TERM; echo > /ready; yes & wait");
    config.set("process.terminal", true);
    let c = t.container(&config)?;
    let (pid, run) = (t.dir.join("pid"), t.dir.join("run"));
    fs::write(
        &run,
        format!("echo $$ > {}; exec {}", pid.display(), in_shell(&c.bundle_command("run", &[]))),
    )?;
    let (ready, got) = (c.path("/ready"), c.path("/got"));
    // The reader of its output reads nothing, and ends after some time.
    let commands = format!(
        "sh {} < /dev/tty | sleep 8 &
         until test -e {}; do sleep 0.1; done; sleep 0.5; kill -TERM $(cat {})
         for n in 1 2 3 4 5 6 7 8 9 10; do test -e {got} && break; sleep 0.2; done
         test -e {got}; echo code $?; wait",
        run.display(),
        ready.display(),
        pid.display(),
        got = got.display()
    );
    contains("output", &in_a_terminal(t, &commands)?, "code 0")
}

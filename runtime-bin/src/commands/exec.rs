//! `exec`: another process in a container, like the container's own except for what the flags or a process object
//! change. Not in the specification.

use crate::cli::{Flag, Parsed, Verb};
use crate::failure::Failure;
use crate::foreground::{attend, exit_code};
use crate::global::Global;
use crate::input;
use crate::launch::{self, CONSOLE_SOCKET, DETACH, PID_FILE, PIDFD_SOCKET, PRESERVE_FDS};
use crate::signals::{Interrupt, Signals};
use crate::terminal::{self, Terminal};
use crate::traced::{TRACE, traced};
use libruntime::{Container, ExecProcess, Signal};
use serde_json::{Value, json};
use std::path::PathBuf;

pub const VERB: Verb = Verb {
    name: "exec",
    about: "run another process in a container",
    arguments: "<container-id> <command> [arguments]",
    count: (1, usize::MAX),
    trailing: true,
    text: "What no flag says is as in the container's own process. With --process no command is given.\n\
           Exits with the process's exit code, with 128 and the number of the signal that ended it,\n\
           or with 255 if it could not be started.",
    flags: &[
        TRACE,
        CONSOLE_SOCKET,
        PIDFD_SOCKET,
        Flag::value("cwd", "DIR", "the working directory"),
        Flag::value("env", "NAME[=VALUE]", "set a variable; without a value to that of the caller")
            .short("e"),
        Flag::switch("tty", "give it a terminal").short("t"),
        Flag::value("user", "UID[:GID]", "the ids to run as").short("u"),
        Flag::value("additional-gids", "GID", "one more group").short("g"),
        Flag::value("process", "FILE", "a process object, as in config.json; - reads standard input")
            .short("p"),
        DETACH,
        PID_FILE,
        Flag::value("process-label", "LABEL", "the SELinux label"),
        Flag::value("apparmor", "PROFILE", "the AppArmor profile"),
        Flag::switch("no-new-privs", "forbid new privileges"),
        Flag::value("cap", "CAPABILITY", "one more capability").short("c"),
        PRESERVE_FDS,
        Flag::value("cgroup", "[CONTROLLER:]PATH", "a cgroup below that of the container"),
        Flag::switch("ignore-paused", "also in a paused container; it runs when that is resumed"),
    ],
    run,
};

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    // A code of its own, so that callers can tell a process that was not started from its exit codes.
    exec(global, args).map_err(|failure| failure.within("exec failed").with_code(255))
}

fn exec(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    let detach = args.is_set(DETACH.name);
    let container = global.load(args)?;
    let process = process(global, args, &container)?;
    let wants_terminal = process.terminal().unwrap_or(false);
    let given = launch::console_socket(args, wants_terminal, detach)?;
    let pidfd_socket = launch::pidfd_socket(args)?;
    let (interrupt, signals) = (Interrupt::block()?, if detach { None } else { Some(Signals::block()?) });
    let mut builder = container
        .exec_process(process)
        .inherit_fds(global.inherited()?.preserve_fds)
        .ignore_paused(args.is_set("ignore-paused"))
        .cancel(interrupt);
    for (controller, path) in args.all("cgroup").flat_map(cgroup) {
        builder = builder.cgroup(controller.as_deref(), path);
    }
    let builder = match given {
        Some(socket) => builder.console_socket(socket),
        None if wants_terminal => builder.terminal(terminal::own_size()).relay_terminal(),
        None => builder,
    };
    let started = traced(global, args, || Ok(builder.spawn()?))?;
    let announced = launch::send_pidfd(pidfd_socket.as_ref(), "setns", started.pidfd())
        .and_then(|()| launch::write_pid_file(args, started.pid()));
    if let Err(failure) = announced {
        let _ = started.kill(Signal::KILL);
        return Err(failure);
    }
    match signals {
        None => {
            started.detach();
            Ok(0)
        }
        Some(signals) => follow(&started, &signals),
    }
}

fn follow(started: &ExecProcess, signals: &Signals) -> Result<u8, Failure> {
    let terminal = started.take_terminal().map(Terminal::attach).transpose()?;
    attend(started.pid(), started.pidfd(), signals, terminal, &|signal| drop(started.kill(Signal(signal))))?;
    Ok(exit_code(started.wait()?))
}

/// The command with its arguments; runc-exec(8) allows two dashes before it.
fn command(args: &Parsed) -> &[String] {
    match args.rest.get(1..).unwrap_or_default() {
        [dashes, command @ ..] if dashes == "--" => command,
        command => command,
    }
}

/// `[CONTROLLER[,CONTROLLER]:]PATH`.
pub fn cgroup(text: &str) -> Vec<(Option<String>, PathBuf)> {
    match text.split_once(':') {
        None => vec![(None, text.into())],
        Some((names, path)) => names.split(',').map(|name| (Some(name.to_string()), path.into())).collect(),
    }
}

fn process(global: &Global, args: &Parsed, container: &Container) -> Result<libruntime::Process, Failure> {
    let bytes = match args.get("process").filter(|file| !file.is_empty()) {
        // As with crun.
        Some("-") => input::read_standard()?,
        Some(file) => input::read(file)?,
        None if command(args).is_empty() => {
            return Err(Failure::new(
                "exec args cannot be empty, unless there is a process object: --process",
            ));
        }
        None => {
            let own = serde_json::to_value(container.process()?);
            let mut process = own.map_err(|error| Failure::new(format!("encode JSON: {error}")))?;
            change(&mut process, args)?;
            process.to_string().into_bytes()
        }
    };
    let (mut process, warnings) = libruntime::parse_process(&bytes)?;
    global.warn_of(&warnings);
    inherit(&mut process, &container.process()?);
    Ok(process)
}

/// The confinement of the container's own process, where the process object has none. Not its limits, which as with the
/// peers are the caller's.
fn inherit(process: &mut libruntime::Process, own: &libruntime::Process) {
    let is_empty = |label: &Option<String>| label.as_deref().unwrap_or_default().is_empty();
    if process.capabilities().is_none() {
        process.set_capabilities(own.capabilities().clone());
    }
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(own.oom_score_adj());
    }
    if process.user().umask().is_none() {
        let mut user = process.user().clone();
        user.set_umask(own.user().umask());
        process.set_user(user);
    }
    if is_empty(process.apparmor_profile()) {
        process.set_apparmor_profile(own.apparmor_profile().clone());
    }
    if is_empty(process.selinux_label()) {
        process.set_selinux_label(own.selinux_label().clone());
    }
}

/// Applies the flags to the container's own process object.
pub fn change(process: &mut Value, args: &Parsed) -> Result<(), Failure> {
    process["args"] = json!(command(args));
    process["terminal"] = args.is_set("tty").into();
    for (flag, property) in
        [("cwd", "cwd"), ("process-label", "selinuxLabel"), ("apparmor", "apparmorProfile")]
    {
        if let Some(value) = args.get(flag).filter(|value| !value.is_empty()) {
            process[property] = value.into();
        }
    }
    if let Some(value) = args.get("no-new-privs") {
        process["noNewPrivileges"] = (value == "true").into();
    }
    if let Some(user) = args.get("user").filter(|user| !user.is_empty()) {
        let (uid, gid) = user.split_once(':').map_or((user, None), |(uid, gid)| (uid, Some(gid)));
        process["user"]["uid"] = id(uid, "--user")?.into();
        if let Some(gid) = gid {
            process["user"]["gid"] = id(gid, "--user")?.into();
        }
    }
    for gid in args.all("additional-gids") {
        push(&mut process["user"]["additionalGids"], id(gid, "--additional-gids")?.into());
    }
    for variable in args.all("env") {
        set_variable(process, variable)?;
    }
    args.all("cap").for_each(|name| add_capability(process, name));
    Ok(())
}

/// An id of digits and nothing else: text that was read as another id has been a vulnerability (CVE-2016-3697 in runc,
/// CVE-2026-30892 in crun). The largest id means "unchanged" to the kernel.
fn id(text: &str, flag: &str) -> Result<u32, Failure> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let id = text.parse().ok().filter(|id| digits && *id != u32::MAX);
    id.ok_or_else(|| {
        Failure::new(format!("bad id {text:?}: {flag} takes ids as numbers from 0 to 4294967294"))
    })
}

fn push(list: &mut Value, value: Value) {
    match list {
        Value::Array(values) if values.contains(&value) => {}
        Value::Array(values) => values.push(value),
        _ => *list = json!([value]),
    }
}

fn set_variable(process: &mut Value, variable: &str) -> Result<(), Failure> {
    let (name, value) = match variable.split_once('=') {
        Some((name, value)) => (name, Some(value.to_string())),
        None => (variable, std::env::var(variable).ok()),
    };
    if name.is_empty() {
        return Err(Failure::new("--env needs the name of a variable"));
    }
    let Some(value) = value else { return Ok(()) };
    // Programs disagree on which of two entries they read.
    if let Some(env) = process["env"].as_array_mut() {
        env.retain(|entry| {
            entry.as_str().and_then(|entry| entry.split_once('=')).is_none_or(|(n, _)| n != name)
        });
    }
    push(&mut process["env"], format!("{name}={value}").into());
    Ok(())
}

/// Adds a capability. The inheritable set is never made larger (runc's CVE-2022-29162), and the
/// ambient one only holds what is inheritable too (capabilities(7)). The library warns of one that nobody knows.
fn add_capability(process: &mut Value, name: &str) {
    let upper = name.to_ascii_uppercase();
    let name = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    let sets = &mut process["capabilities"];
    for set in ["bounding", "effective", "permitted"] {
        push(&mut sets[set], name.as_str().into());
    }
    if sets["inheritable"].as_array().is_some_and(|set| set.contains(&name.as_str().into())) {
        push(&mut sets["ambient"], name.as_str().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_digits_only() {
        assert_eq!(id("1000", "").ok(), Some(1000));
        for text in ["", "-1", "+1", "0x1", "1abc", "4294967295", "4294967296", " 1", "root"] {
            assert!(id(text, "").is_err(), "{text}");
        }
    }

    #[test]
    fn a_capability_does_not_become_inheritable() {
        let mut process = json!({ "capabilities": { "inheritable": ["CAP_KILL"] } });
        add_capability(&mut process, "NET_RAW");
        add_capability(&mut process, "CAP_KILL");
        let both = json!(["CAP_NET_RAW", "CAP_KILL"]);
        let expected = json!({ "bounding": both, "effective": both, "permitted": both,
            "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"] });
        assert_eq!(process["capabilities"], expected);
    }

    #[test]
    fn a_variable_replaces_the_one_of_its_name() {
        let mut process = json!({ "env": ["A=1", "B=2"] });
        set_variable(&mut process, "A=3=4").ok().unwrap();
        assert_eq!(process["env"], json!(["B=2", "A=3=4"]));
    }
}

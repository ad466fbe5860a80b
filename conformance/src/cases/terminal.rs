//! Terminals: the console socket, what is sent through it, and what the program sees of its terminal.
//! The terminal of `exec` is here too. The other end of the socket is the probe on the host's side.

use crate::case::Need::Root;
use crate::case::{Case, Outcome, case, check, contains, same};
use crate::process;
use crate::test::{Container, Test};
use serde_json::{Value, json};
use std::fs;

pub const CASES: &[Case] = &[
    case!(the_console_socket_gets_one_terminal),
    case!(what_is_typed_arrives_and_what_is_printed_comes_back),
    case!(the_terminal_is_the_controlling_one),
    case!(the_terminal_is_dev_console),
    case!(the_terminal_belongs_to_the_user, [Root]),
    case!(console_size_is_set),
    case!(run_detached_with_a_terminal_needs_a_console_socket),
    case!(create_with_a_terminal_needs_a_console_socket),
    case!(a_console_socket_without_a_terminal_is_refused),
    case!(a_console_socket_that_does_not_exist_is_refused),
    case!(exec_with_a_terminal_uses_its_console_socket),
    case!(exec_with_a_terminal_in_a_user_namespace, [Root]),
    case!(without_a_terminal_there_is_no_controlling_one),
];

/// Runs a container with a terminal and gives what the other end of its console socket saw.
fn with_console(
    t: &Test,
    script: &str,
    input: &str,
    change: impl Fn(&mut crate::bundle::Config),
) -> Outcome<Value> {
    let mut config = t.shell(script);
    config.set("process.terminal", true);
    change(&mut config);
    let c = t.container(&config)?;
    let socket = t.dir.join("tty");
    let listener = t.listen("console", &socket, &[input])?;
    c.create_with(&["--console-socket", &socket.display().to_string()])?.ok()?;
    c.start()?.ok()?;
    let seen = listener.finish(process::LIMIT)?.ok()?.json()?;
    fs::remove_file(&socket)?;
    Ok(seen)
}

fn the_console_socket_gets_one_terminal(t: &Test) -> Outcome {
    let seen = with_console(t, "echo printed", "", |_| ())?;
    same("descriptors", seen["descriptors"].as_i64(), Some(1))?;
    contains("what the descriptor is", &seen["path"].to_string(), "ptmx")?;
    check!(seen["message"] != "", "a stream socket needs at least one byte: {seen}");
    contains("output", &seen["output"].to_string(), "printed")
}

fn what_is_typed_arrives_and_what_is_printed_comes_back(t: &Test) -> Outcome {
    let seen = with_console(t, "read word; echo \"got <$word>\"", "hello\n", |_| ())?;
    contains("output", seen["output"].as_str().unwrap_or_default(), "got <hello>\r\n")
}

fn the_terminal_is_the_controlling_one(t: &Test) -> Outcome {
    let seen = with_console(t, "echo through it > /dev/tty; tty; ls -l /proc/self/fd", "", |_| ())?;
    let output = seen["output"].as_str().unwrap_or_default();
    contains("output", output, "through it")?;
    check!(output.contains("/dev/pts/0") || output.contains("/dev/console"), "tty says: {output}");
    Ok(())
}

fn the_terminal_is_dev_console(t: &Test) -> Outcome {
    let seen = with_console(t, "stat -L -c '%F %t' /dev/console; echo to it > /dev/console", "", |_| ())?;
    let output = seen["output"].as_str().unwrap_or_default();
    contains("device of a pty", output, "character special file 88")?;
    contains("output", output, "to it")
}

fn the_terminal_belongs_to_the_user(t: &Test) -> Outcome {
    let script = "stat -c '%u' /proc/self/fd/0 -L; echo again > /dev/pts/0";
    let seen = with_console(t, script, "", |config| {
        config.set("process.user", json!({ "uid": 1000, "gid": 1000 }));
    })?;
    let output = seen["output"].as_str().unwrap_or_default();
    contains("owner", output, "1000\r\n")?;
    contains("output", output, "again")
}

fn console_size_is_set(t: &Test) -> Outcome {
    let seen = with_console(t, "stty size", "", |config| {
        config.set("process.consoleSize", json!({ "height": 33, "width": 111 }));
    })?;
    contains("size", seen["output"].as_str().unwrap_or_default(), "33 111")
}

fn run_detached_with_a_terminal_needs_a_console_socket(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("process.terminal", true);
    t.container(&config)?.run_with(&["--detach"])?.refused()?;
    Ok(())
}

fn create_with_a_terminal_needs_a_console_socket(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("process.terminal", true);
    t.container(&config)?.create()?.refused()?;
    Ok(())
}

fn a_console_socket_without_a_terminal_is_refused(t: &Test) -> Outcome {
    let c = t.container(&t.sleeper())?;
    let socket = t.dir.join("tty");
    let _listener = std::os::unix::net::UnixListener::bind(&socket)?;
    c.create_with(&["--console-socket", &socket.display().to_string()])?.refused()?;
    Ok(())
}

fn a_console_socket_that_does_not_exist_is_refused(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("process.terminal", true);
    let c = t.container(&config)?;
    c.create_with(&["--console-socket", &t.dir.join("nowhere").display().to_string()])?.refused()?;
    c.call("state", &[])?.refused()?;
    Ok(())
}

/// `exec` with the process from a file, in a running container, and the console socket. The process has to live a little
/// longer than its last output, which the kernel may throw away at the end of a session.
fn exec_with_console(t: &Test, c: &Container, process: &Value, input: &str) -> Outcome<Value> {
    let file = t.dir.join("process.json");
    fs::write(&file, process.to_string())?;
    let socket = t.dir.join("tty");
    let listener = t.listen("console", &socket, &[input])?;
    let (file, path) = (file.display().to_string(), socket.display().to_string());
    let options = ["exec", "--process", &file, "--console-socket", &path, "--detach", &c.id];
    t.runtime.call(&options)?.ok()?;
    let seen = listener.finish(process::LIMIT)?.ok()?.json()?;
    fs::remove_file(&socket)?;
    Ok(seen)
}

fn exec_with_a_terminal_uses_its_console_socket(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let process = json!({
        "terminal": true, "user": { "uid": 0, "gid": 0 }, "cwd": "/", "env": ["PATH=/bin"],
        "consoleSize": { "height": 20, "width": 99 },
        "args": ["/bin/sh", "-c", "read word; echo got $word; tty; echo yes > /dev/tty; sleep 0.3"]
    });
    let seen = exec_with_console(t, &c, &process, "typed\n")?;
    same("descriptors", seen["descriptors"].as_i64(), Some(1))?;
    let output = seen["output"].as_str().unwrap_or_default();
    contains("output", output, "got typed")?;
    contains("output", output, "/dev/pts/")?;
    contains("output", output, "yes\r\n")
}

/// Its owner has to have an id in the namespace, from its first moment on.
fn exec_with_a_terminal_in_a_user_namespace(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.user_namespace(100_000, 65_536);
    let c = t.detached(&config)?;
    for (uid, gid) in [(0, 0), (1000, 1000)] {
        let process = json!({
            "terminal": true, "user": { "uid": uid, "gid": gid }, "cwd": "/", "env": ["PATH=/bin"],
            "args": ["/bin/sh", "-c", "stat -c 'owner %u' $(tty); read word; echo got $word > /dev/tty; sleep 0.3"]
        });
        let seen = exec_with_console(t, &c, &process, "typed\n")?;
        let output = seen["output"].as_str().unwrap_or_default();
        contains("output", output, &format!("owner {uid}\r\n"))?;
        contains("output", output, "got typed")?;
    }
    Ok(())
}

fn without_a_terminal_there_is_no_controlling_one(t: &Test) -> Outcome {
    let output = t.script(&t.config(), "(echo x > /dev/tty) 2>&1 || echo none; tty || true")?;
    contains("output", &output, "none")?;
    contains("tty", &output, "not a tty")
}

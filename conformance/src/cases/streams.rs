//! Standard input, output and error as files that the program can open again. Terminals are in terminal.rs.

use crate::bundle::Config;
use crate::case::Need::Root;
use crate::case::{Case, Outcome, Stop, case, check, same};
use crate::process;
use crate::test::Test;
use serde_json::json;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

pub const CASES: &[Case] = &[
    case!(a_user_can_open_its_standard_streams, [Root]),
    case!(a_user_of_a_user_namespace_can_open_its_standard_streams, [Root]),
    case!(a_user_can_open_the_standard_streams_of_exec, [Root]),
    case!(shared_devices_keep_their_owner, [Root]),
];

const OPEN_ALL: &str =
    "echo out > /dev/stdout; echo err > /dev/stderr; : < /dev/stdin && echo in >> /dev/stderr";

/// A file of root's that nobody else may open, and what a command with it as standard streams leaves there.
fn with_files(t: &Test, command: &mut std::process::Command) -> Outcome<(String, String)> {
    let files = ["in", "out", "err"].map(|name| t.dir.join(name));
    let mut open = files.iter().map(|path| File::options().create(true).append(true).read(true).open(path));
    let mut next = || open.next().ok_or_else(|| Stop::Fail("three files".into()));
    command.stdin(Stdio::from(next()??)).stdout(Stdio::from(next()??)).stderr(Stdio::from(next()??));
    for path in &files {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    }
    let pid = command.spawn()?.id();
    let code = process::wait(pid as i32, process::LIMIT);
    let [_, out, err] = files.map(|path| fs::read_to_string(path).unwrap_or_default());
    check!(code == Some(0), "exit code {code:?}: {out}{err}");
    Ok((out, err))
}

fn both(found: (String, String)) -> Outcome {
    same("output and error", found, ("out\n".to_owned(), "err\nin\n".to_owned()))
}

/// With `create`, the program has the caller's own descriptors.
fn created(t: &Test, config: &Config) -> Outcome {
    let c = t.container(config)?;
    with_files(t, &mut c.bundle_command("create", &[]))?;
    c.start()?.ok()?;
    c.await_status("stopped")?;
    let [out, err] = ["out", "err"].map(|name| fs::read_to_string(t.dir.join(name)).unwrap_or_default());
    both((out, err))
}

fn a_user_can_open_its_standard_streams(t: &Test) -> Outcome {
    let mut config = t.shell(OPEN_ALL);
    config.set("process.user", json!({ "uid": 1000, "gid": 1000 }));
    both(with_files(t, &mut t.container(&config)?.bundle_command("run", &[]))?)?;
    ["in", "out", "err"].iter().try_for_each(|name| fs::remove_file(t.dir.join(name)))?;
    created(t, &config)
}

fn a_user_of_a_user_namespace_can_open_its_standard_streams(t: &Test) -> Outcome {
    let mut config = t.shell(OPEN_ALL);
    config.user_namespace(100_000, 65_536).set("process.user", json!({ "uid": 1000, "gid": 1000 }));
    both(with_files(t, &mut t.container(&config)?.bundle_command("run", &[]))?)
}

fn a_user_can_open_the_standard_streams_of_exec(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let mut command = t.runtime.command();
    command.args(["exec", "--user", "1000:1000", &c.id, "/bin/sh", "-c", OPEN_ALL]);
    both(with_files(t, &mut command)?)
}

fn shared_devices_keep_their_owner(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("process.user", json!({ "uid": 1000, "gid": 1000 }));
    let c = t.container(&config)?;
    let mut command = c.bundle_command("create", &[]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let pid = command.spawn()?.id();
    same("exit code", process::wait(pid as i32, process::LIMIT), Some(0))?;
    let null = fs::metadata("/dev/null")?;
    same("owner of /dev/null", (null.uid(), null.gid()), (0, 0))
}

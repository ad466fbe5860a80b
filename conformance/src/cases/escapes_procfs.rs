//! Escapes through /proc/PID: what a process of the container with CAP_SYS_PTRACE reaches through the
//! descriptors, directories and roots of the processes that a runtime brings into its pid namespace. The
//! probe looks through all of them in a loop (`through`), or for those whose capabilities it could take (`above`);
//! escapes.rs says what the group is.

use super::escapes_races::Race;
use crate::bundle::Config;
use crate::case::Need::Root;
use crate::case::{Case, Outcome, Stop, case, check, same};
use crate::process::{self, Started};
use crate::test::{Container, Test};
use serde_json::{Value, json};
use std::time::Duration;

pub const CASES: &[Case] = &[
    case!(a_created_container_shows_nothing_of_the_host, [Root], 3600),
    case!(a_created_container_in_a_user_namespace_shows_nothing_of_the_host, [Root], 3600),
    case!(exec_shows_nothing_of_the_host, [Root], 3600),
    case!(exec_in_a_user_namespace_shows_nothing_of_the_host, [Root], 3600),
    case!(a_container_that_joins_a_pid_namespace_shows_nothing_of_the_host, [Root], 3600),
    case!(hooks_in_the_container_show_nothing_of_the_host, [Root], 3600),
    case!(exec_ends_while_its_descriptors_are_held, [Root]),
    case!(no_capabilities_by_exec, [Root], 3600),
    case!(no_capabilities_by_a_created_container, [Root], 3600),
    case!(no_capabilities_by_joining_a_pid_namespace, [Root], 3600),
    case!(a_background_process_of_a_create_container_hook_shows_nothing_of_the_host, [Root], 3600),
];

/// A configuration whose processes may look at all others of the container.
fn looking(t: &Test, user_namespace: bool) -> Config {
    let mut config = t.sleeper();
    config.capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_SYS_ADMIN"]);
    if user_namespace {
        config.user_namespace(100_000, 65536);
    }
    config
}

/// The probe's `through` by exec, for as long as a race is repeated.
fn look(t: &Test, c: &Container) -> Outcome<Started> {
    let file = t.canary().join("file").display().to_string();
    look_as(t, c, "through", &file)
}

fn look_as(t: &Test, c: &Container, role: &str, argument: &str) -> Outcome<Started> {
    let seconds = Race::seconds().to_string();
    let mut command = t.runtime.command();
    command.args(["exec", &c.id, "/probe", role, &seconds, argument]);
    process::start(&mut command, &t.dir)
}

fn exec_ends_while_its_descriptors_are_held(t: &Test) -> Outcome {
    // pidfd_getfd(2) gives sockets too, which nobody else can open.
    let mut config = t.config();
    config.args(&["/probe", "grab"]).capabilities(&["CAP_SYS_PTRACE"]);
    let c = t.detached(&config)?;
    for _ in 0..10 {
        c.exec_with(&["--detach"], &["/bin/sleep", "1000"])?.ok()?;
        c.exec(&["/bin/true"])?.ok()?;
        if c.path("/grabbed").exists() {
            break;
        }
    }
    check!(c.path("/grabbed").exists(), "no descriptor was there");
    c.exec_with(&["--detach"], &["/bin/sleep", "1000"])?.ok()?;
    Ok(())
}

/// A filter without noNewPrivileges: whoever loads it needs CAP_SYS_ADMIN, which the container does not have.
/// Conditions on clone(2) are those of the engines' profiles.
fn filtered(t: &Test) -> Config {
    let mut config = t.sleeper();
    config.capabilities(&["CAP_SYS_PTRACE"]).set("process.noNewPrivileges", false);
    config.set(
        "linux.seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                { "names": ["add_key"], "action": "SCMP_ACT_ERRNO" },
                { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
                { "names": ["clone"], "action": "SCMP_ACT_ERRNO",
                  "args": [{ "index": 0, "value": 0x1000_0000u64, "valueTwo": 0x1000_0000u64, "op": "SCMP_CMP_MASKED_EQ" }] },
            ]
        }),
    );
    config
}

/// Others are executed meanwhile.
fn no_capabilities_by_exec(t: &Test) -> Outcome {
    let c = t.detached(&filtered(t))?;
    let looking = look_as(t, &c, "above", "")?;
    let race = Race::begin();
    while race.goes_on() {
        c.exec(&["/bin/true"])?.ok()?;
    }
    found_nothing(looking)
}

fn no_capabilities_by_a_created_container(t: &Test) -> Outcome {
    let c = t.container(&filtered(t))?;
    c.create()?.ok()?;
    found_nothing(look_as(t, &c, "above", "")?)
}

fn no_capabilities_by_joining_a_pid_namespace(t: &Test) -> Outcome {
    let c = t.detached(&filtered(t))?;
    let mut config = filtered(t);
    config.join("pid", &format!("/proc/{}/ns/pid", c.pid()?)).args(&["/bin/true"]);
    let second = t.container(&config)?;
    let looking = look_as(t, &c, "above", "")?;
    let race = Race::begin();
    while race.goes_on() {
        second.create()?.ok()?;
        crate::test::pause(20);
        second.start()?.ok()?;
        second.delete_force()?.ok()?;
    }
    found_nothing(looking)
}

fn found_nothing(looking: Started) -> Outcome {
    let output = looking.finish(Duration::from_secs(Race::seconds() + 30))?.ok()?;
    let line = output.stdout.lines().last().unwrap_or_default();
    let seen: Value = serde_json::from_str(line).map_err(|error| Stop::Fail(format!("{error}: {line}")))?;
    check!(seen["seen"].as_i64().is_some_and(|n| n > 0), "no process was seen: {seen}");
    same("what leads out of the container", &seen["found"], &json!([]))
}

fn created(t: &Test, user_namespace: bool) -> Outcome {
    let c = t.container(&looking(t, user_namespace))?;
    c.create()?.ok()?;
    found_nothing(look(t, &c)?)
}

fn a_created_container_shows_nothing_of_the_host(t: &Test) -> Outcome {
    created(t, false)
}

fn a_created_container_in_a_user_namespace_shows_nothing_of_the_host(t: &Test) -> Outcome {
    created(t, true)
}

/// Others are executed meanwhile, two at a time.
fn executed(t: &Test, user_namespace: bool) -> Outcome {
    let c = t.detached(&looking(t, user_namespace))?;
    let looking = look(t, &c)?;
    let race = Race::begin();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while race.goes_on() {
                    let _ = c.exec(&["/bin/true"]);
                }
            });
        }
    });
    found_nothing(looking)
}

fn exec_shows_nothing_of_the_host(t: &Test) -> Outcome {
    executed(t, false)
}

fn exec_in_a_user_namespace_shows_nothing_of_the_host(t: &Test) -> Outcome {
    executed(t, true)
}

fn a_container_that_joins_a_pid_namespace_shows_nothing_of_the_host(t: &Test) -> Outcome {
    let c = t.detached(&looking(t, false))?;
    let mut config = looking(t, false);
    config.join("pid", &format!("/proc/{}/ns/pid", c.pid()?)).args(&["/bin/true"]);
    config.set("hooks.startContainer", json!([{ "path": "/bin/true" }]));
    let second = t.container(&config)?;
    let looking = look(t, &c)?;
    let race = Race::begin();
    let mut runs = 0;
    while race.goes_on() {
        runs += u32::from(second.run()?.code == 0);
    }
    check!(runs > 0, "no container joined the namespace");
    found_nothing(looking)
}

fn hooks_in_the_container_show_nothing_of_the_host(t: &Test) -> Outcome {
    let mut config = looking(t, false);
    let hooks: Vec<Value> = (0..60).map(|_| json!({ "path": "/bin/true" })).collect();
    config.set("hooks.startContainer", hooks);
    let c = t.container(&config)?;
    c.create()?.ok()?;
    let looking = look(t, &c)?;
    crate::test::pause(300);
    c.start()?.ok()?;
    found_nothing(looking)
}

fn a_background_process_of_a_create_container_hook_shows_nothing_of_the_host(t: &Test) -> Outcome {
    let mut config = looking(t, false);
    let script = "setsid sleep 8 >/dev/null 2>&1 </dev/null &";
    config.set("hooks.createContainer", json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]));
    let c = t.detached(&config)?;
    found_nothing(look(t, &c)?)
}

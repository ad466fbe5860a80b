//! Docker, with its containerd and the shim of runc, which calls the runtime.

use super::engine_everyday::everyday;
use super::engine_limits::limited;
use crate::bundle;
use crate::case::Need::{Criu, Program, Root};
use crate::case::{Case, Outcome, Stop, case, check, contains, same, skip};
use crate::cases::engine_checkpoint::{count, counting, explained, goes_on, is_running};
use crate::engine::Engine;
use crate::net;
use crate::process;
use crate::test::Test;
use serde_json::json;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

everyday!(EVERYDAY, [Root, Program("dockerd"), Program("docker")]);
limited!(LIMITED, [Root, Program("dockerd"), Program("docker")]);
pub const CASES: &[&[Case]] = &[EVERYDAY, LIMITED, OWN];

const OWN: &[Case] = &[
    case!(it_is_one_of_the_runtime_that_was_given, [Root, Program("dockerd"), Program("docker")], 120),
    case!(run_has_a_network, [Root, Program("dockerd"), Program("docker")], 120),
    case!(a_port_is_published, [Root, Program("dockerd"), Program("docker")], 120),
    case!(containers_find_each_other_by_name, [Root, Program("dockerd"), Program("docker")], 120),
    case!(a_healthcheck_is_run, [Root, Program("dockerd"), Program("docker")], 120),
    case!(a_cdi_device_is_there, [Root, Program("dockerd"), Program("docker")], 120),
    case!(buildkit_runs_steps, [Root, Program("dockerd"), Program("docker")], 120),
    case!(compose_starts_a_project, [Root, Program("dockerd"), Program("docker")], 120),
    case!(checkpoint_and_restore, [Root, Program("dockerd"), Program("docker"), Criu], 120),
    case!(checkpoint_that_leaves_it_running, [Root, Program("dockerd"), Program("docker"), Criu], 120),
];

fn it_is_one_of_the_runtime_that_was_given(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.sleeper("one", &[])?;
    contains("list", &engine.listed(&t.runtime.program)?, &engine.inspect("one", ".Id")?)?;
    engine.remove("one")
}

fn run_has_a_network(t: &Test) -> Outcome {
    let output = t.engine()?.script(&["--network", "bridge"], "busybox ip addr")?;
    contains("interfaces", &output, "eth0")
}

fn server(engine: &Engine, name: &str, options: &[&str]) -> Outcome {
    engine.detached(name, options, &["busybox", "nc", "-ll", "-p", "80", "-e", "echo", "from-docker"])
}

fn a_port_is_published(t: &Test) -> Outcome {
    let engine = t.engine()?;
    server(engine, "one", &["--network", "bridge", "-p", "18084:80"])?;
    process::until("it answers", || {
        Ok(net::ask(t, None, "127.0.0.1", 18084)?.as_deref() == Some("from-docker"))
    })?;
    engine.remove("one")
}

fn containers_find_each_other_by_name(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.says(&["network", "create", "web"])?;
    server(engine, "one", &["--network", "web"])?;
    let answers = || Ok(engine.script(&["--network", "web"], "busybox nc -w 2 one 80").is_ok());
    engine.until("it answers by its name", answers)?;
    engine.remove("one")?;
    engine.says(&["network", "rm", "web"]).map(drop)
}

fn a_healthcheck_is_run(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let test = ["--health-cmd", "test -e /healthy", "--health-interval", "300ms", "--health-retries", "1"];
    engine.sleeper("one", &test)?;
    let status = |wanted: &str| {
        let health = || Ok(engine.inspect("one", ".State.Health.Status")? == wanted);
        engine.until(wanted, health)
    };
    status("unhealthy")?;
    engine.says(&["exec", "one", "touch", "/healthy"])?;
    status("healthy")?;
    engine.remove("one")
}

fn a_cdi_device_is_there(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let version = engine.says(&["version", "--format", "{{.Server.Version}}"])?;
    let major: u32 = version.split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0);
    if major < 28 {
        return skip(format!("needs Docker 28, where CDI is on by default; this is {version}"));
    }
    let text = json!({ "cdiVersion": "0.5.0", "kind": "example.com/device", "devices": [{ "name": "one",
        "containerEdits": { "env": ["FROM_CDI=yes"], "deviceNodes": [{ "path": "/dev/cdi", "type": "c", "major": 1, "minor": 5 }] } }] });
    bundle::make_dir(std::path::Path::new("/etc/cdi"))?;
    fs::write("/etc/cdi/example.json", text.to_string())?;
    let output = engine
        .script(&["--device", "example.com/device=one"], "echo $FROM_CDI; head -c 3 /dev/cdi | wc -c")?;
    same("output", output.split_whitespace().collect::<Vec<_>>(), vec!["yes", "3"])
}

/// Where it executes the runtime by the name `runc`, what it did is in a file (engine_start.rs).
fn buildkit_runs_steps(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let dir = engine.dir.join("buildkit-context");
    bundle::make_dir(&dir)?;
    let text = format!("FROM {}\nRUN echo built > /built && id > /id\nRUN cat /built /id\n", engine.image);
    fs::write(dir.join("Dockerfile"), text)?;
    let place = dir.display().to_string();
    let words = ["build", "--network", "none", "--no-cache", "--progress", "plain", "-t", "kit", &place];
    let mut command = engine.command(&words);
    let started = process::start(command.env("DOCKER_BUILDKIT", "1"), &engine.dir)?;
    let output = started.finish(Duration::from_secs(90))?.ok()?;
    contains("output", &output.text(), "built")?;
    contains("output", &output.text(), "uid=0")?;
    let calls = fs::read_to_string(engine.dir.join("buildkit")).unwrap_or_default();
    check!(calls.contains("run "), "the runtime under test was not called: {calls:?}");
    engine.says(&["rmi", "-f", "kit"]).map(drop)
}

/// By the plug-in, or by the program of its own.
fn compose_starts_a_project(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let dir = engine.dir.join("project");
    bundle::make_dir(&dir)?;
    let service = json!({ "image": engine.image, "command": ["busybox", "nc", "-ll", "-p", "80", "-e", "echo", "web"],
        "healthcheck": { "test": ["CMD", "true"], "interval": "1s" } });
    let client =
        json!({ "image": engine.image, "command": ["sleep", "1000"], "init": true, "depends_on": ["web"] });
    let text = json!({ "version": "3.9", "services": { "web": service, "client": client } });
    fs::write(dir.join("docker-compose.yml"), text.to_string())?;
    let plugin = engine.call(&["compose", "version"])?.code == 0;
    if !plugin && !process::is_in_path("docker-compose") {
        return skip("needs Compose: docker's plug-in or the program docker-compose");
    }
    let compose = |words: &[&str]| {
        let mut command = if plugin { engine.command(&["compose"]) } else { Command::new("docker-compose") };
        command.args(["-p", "project"]).args(words).current_dir(&dir).stdin(Stdio::null());
        command.envs(engine.environment.iter().map(|(name, value)| (*name, value)));
        process::start(&mut command, &engine.dir)?.finish(Duration::from_secs(60))?.ok()
    };
    compose(&["up", "-d"])?;
    let ask = || compose(&["exec", "-T", "client", "busybox", "nc", "-w", "2", "web", "80"]);
    engine
        .until("a service answers another", || Ok(ask().is_ok_and(|output| output.stdout.contains("web"))))?;
    compose(&["down", "-t", "0"]).map(drop)
}

fn checkpoint_and_restore(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let at = counting(engine, &[])?;
    explained(engine.says(&["checkpoint", "create", "one", "saved"]).map(drop))?;
    engine.until("it has ended", || Ok(engine.inspect("one", ".State.Running")? == "false"))?;
    contains("list", &engine.says(&["checkpoint", "ls", "one"])?, "saved")?;
    match explained(engine.says(&["start", "--checkpoint", "saved", "one"]).map(drop)) {
        Err(Stop::Fail(text)) if text.contains("bind-mount /proc/0/ns/net") => {
            engine.remove("one")?;
            return skip(
                "needs a Docker that restores: 28 asks for the network of a process that is not there yet",
            );
        }
        other => other?,
    }
    is_running(t, "one", true)?;
    goes_on(engine, "one", at)?;
    engine.says(&["checkpoint", "rm", "one", "saved"])?;
    engine.remove("one")
}

fn checkpoint_that_leaves_it_running(t: &Test) -> Outcome {
    let engine = t.engine()?;
    counting(engine, &[])?;
    let words = ["checkpoint", "create", "--leave-running", "one", "saved"];
    explained(engine.says(&words).map(drop))?;
    is_running(t, "one", true)?;
    let at = count(engine, "one")?;
    goes_on(engine, "one", at)?;
    engine.remove("one")
}

//! What cases about networks share: commands in the case's own network namespace, which plays the
//! host, and in those of containers; a namespace that plays the outside world; servers and clients.
//! Judges nothing but that a command of its own succeeds.

use crate::bundle::Config;
use crate::case::{Outcome, fail, skip};
use crate::process::{self, Output, Started};
use crate::test::{Container, Test};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Networks are onggi's alone, and take root and some programs.
pub fn needs(t: &Test, programs: &[&str]) -> Outcome {
    if t.runtime.name != "onggi" {
        return skip("networks by annotation are onggi's alone");
    }
    for program in ["ip", "nft", "nsenter"].iter().chain(programs) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
        if !places.any(|dir| dir.join(program).exists()) {
            return skip(format!("needs the program {program}"));
        }
    }
    host(t, "ip link set lo up").map(drop)
}

/// A container whose annotations may ask for networks.
pub fn by_annotation(t: &Test, config: &Config) -> Outcome<Container> {
    let mut container = t.container(config)?;
    container.runtime.flags = &["--network-annotations"];
    Ok(container)
}

/// A command on "the host"; it has to succeed.
pub fn host(t: &Test, command: &str) -> Outcome<String> {
    let output = process::run(Command::new("sh").args(["-c", command]), &t.dir)?;
    Ok(output.ok()?.stdout)
}

/// A command in the network namespace of a process.
pub fn inside(t: &Test, pid: i32, command: &str) -> Outcome<Output> {
    let mut enter = Command::new("nsenter");
    enter.args(["-t", &pid.to_string(), "-n", "sh", "-c", command]);
    process::run(&mut enter, &t.dir)
}

/// What listens on `address` says; `None` when nobody answers. `pid` none: asked by the host.
pub fn ask(t: &Test, pid: Option<i32>, address: &str, port: u16) -> Outcome<Option<String>> {
    let command = format!("busybox nc -w 2 {address} {port} </dev/null");
    let output = match pid {
        Some(pid) => inside(t, pid, &command)?,
        None => process::run(Command::new("sh").args(["-c", &command]), &t.dir)?,
    };
    Ok((output.code == 0 && !output.stdout.is_empty()).then(|| output.stdout.trim().to_owned()))
}

/// A container that says its name to whoever connects to port 80.
pub fn server(t: &Test, name: &str, options: &[&str]) -> Outcome<Container> {
    let mut config = t.config();
    config.args(&["/bin/busybox", "nc", "-ll", "-p", "80", "-e", "/bin/echo", name]);
    let container = t.container(&config)?;
    let mut all = vec!["--detach"];
    all.extend_from_slice(options);
    container.run_with(&all)?.ok()?;
    let pid = container.pid()?;
    process::until("it listens", || Ok(ask(t, Some(pid), "127.0.0.1", 80)?.is_some()))?;
    Ok(container)
}

/// An address from `state`: of the interface with this number, the one with this number there.
pub fn address(container: &Container, interface: usize, at: usize) -> Outcome<String> {
    let state = container.state()?;
    match state["networks"][interface]["addresses"][at].as_str() {
        Some(text) => Ok(text.split('/').next().unwrap_or_default().to_owned()),
        None => fail(format!("no address in {}", state["networks"])),
    }
}

/// A namespace behind the host that plays the outside world: 192.0.2.2 and 2001:db8::2, where the
/// host is 192.0.2.1 and 2001:db8::1. Its port 80 says who asks.
pub struct World(Started);

impl Drop for World {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.pid), Signal::SIGKILL);
    }
}

impl World {
    pub fn new(t: &Test) -> Outcome<Self> {
        let script = "until ip link show out1 >/dev/null 2>&1; do sleep 0.02; done
            ip link set lo up; ip addr add 192.0.2.2/24 dev out1; ip link set out1 up
            ip addr add 2001:db8::2/64 dev out1 nodad
            exec busybox nc -ll -p 80 -e sh -c 'echo world'";
        let mut command = Command::new("unshare");
        let world = process::start(command.args(["-n", "sh", "-c", script]).stdin(Stdio::null()), &t.dir)?;
        let own = fs::read_link("/proc/self/ns/net")?;
        let path = format!("/proc/{}/ns/net", world.pid);
        process::until("the world has its namespace", || {
            Ok(fs::read_link(&path).is_ok_and(|found| found != own))
        })?;
        let peer = format!("ip link add out0 type veth peer name out1 netns {}", world.pid);
        host(t, &format!("{peer} && ip addr add 192.0.2.1/24 dev out0 && ip link set out0 up"))?;
        host(t, "ip addr add 2001:db8::1/64 dev out0 nodad")?;
        process::until("the world answers", || Ok(ask(t, None, "192.0.2.2", 80)?.is_some()))?;
        Ok(Self(world))
    }

    pub fn pid(&self) -> i32 {
        self.0.pid
    }
}

/// Interfaces, rules and claims of "the host", to be compared. The kernel removes interfaces of a
/// container that has just ended in its own time.
pub fn picture(t: &Test) -> Outcome<Vec<String>> {
    let links = host(t, "ip -o link")?;
    let name = |line: &str| line.split(": ").nth(1).map(|name| format!("interface {name}"));
    let mut all: Vec<String> = links.lines().filter_map(name).collect();
    all.sort();
    all.extend(host(t, "nft list ruleset")?.lines().map(str::to_owned));
    for place in ["bridges", "ports"] {
        list(&t.runtime.state.join(".network").join(place), &mut all)?;
    }
    Ok(all)
}

fn list(dir: &Path, found: &mut Vec<String>) -> Outcome {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        found.push(format!("claim {}", entry.path().display()));
        if entry.file_type()?.is_dir() {
            list(&entry.path(), found)?;
        }
    }
    found.sort();
    Ok(())
}

/// Fails unless the host comes to look as it did before.
pub fn as_before(t: &Test, before: &[String]) -> Outcome {
    let mut now = Vec::new();
    let same = process::until("the host looks as before", || {
        now = picture(t)?;
        Ok(now == before)
    });
    same.or_else(|_| fail(format!("the host was {before:?} and is {now:?}")))
}

//! Networks that cannot be had: one error that names where they were asked for, and nothing left. And
//! a runtime that is killed in the middle.

use crate::case::Need::Root;
use crate::case::{Case, Outcome, case, check, contains, same};
use crate::net::{as_before, by_annotation, host, needs, picture, server};
use crate::process;
use crate::test::{Container, Test};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub const CASES: &[Case] = &[
    case!(what_cannot_be_meant_is_refused, [Root]),
    case!(what_cannot_be_had_is_refused, [Root], 90),
    case!(a_taken_port_is_refused, [Root]),
    case!(an_exhausted_pool_is_refused, [Root]),
    case!(without_nft_a_network_is_refused, [Root]),
    case!(an_nft_that_does_not_end_is_not_waited_for, [Root]),
    case!(without_permission_a_network_is_refused, [Root]),
    case!(kill_9_in_the_middle_leaves_nothing_behind_a_delete, [Root], 240),
    case!(kill_9_in_a_delete_leaves_nothing_behind_the_next, [Root], 240),
];

const NAME: &str = "org.onggi.network.eth0";

/// Whether `create` with these networks fails with this text, the annotation's name and no trace.
fn refused(t: &Test, network: &str, expected: &str) -> Outcome {
    let before = picture(t)?;
    let mut config = t.sleeper();
    config.set("annotations", json!({ NAME: network }));
    let output = by_annotation(t, &config)?.create()?.refused()?;
    contains(network, &output.text(), expected)?;
    contains(network, &output.text(), &format!("annotations[{NAME}]"))?;
    same("messages", output.text().matches("annotations[").count(), 1)?;
    as_before(t, &before)
}

fn what_cannot_be_meant_is_refused(t: &Test) -> Outcome {
    needs(t, &[])?;
    for (network, expected) in [
        ("bridge=one,adress=auto", "adress: unknown key"),
        ("bridge=a-name-that-is-too-long", "cannot name an interface"),
        ("address=10.1.0.300", "is not an IP address"),
        ("subnet=10.1.0.0/24,address=10.2.0.5", "is not a host address in 10.1.0.0/24"),
        ("subnet=10.1.0.0", "is not an address with a prefix"),
        ("publish=80", "is not [ADDRESS:]PORT"),
        ("publish=80-82:80-81", "more ports on one side"),
        ("address6=auto,publish=[::1]:80:80", "the kernel forwards nothing from ::1"),
        ("egress=fast", "is not a rate"),
        ("mtu=9", "is not a number from 68"),
        ("internal=yes,publish=80:80", "the network is internal"),
        ("hosts=yes,alias=a b", "is not a host name"),
        ("bridge=one,bridge=two", "bridge is there twice"),
    ] {
        refused(t, network, expected)?;
    }
    Ok(())
}

fn what_cannot_be_had_is_refused(t: &Test) -> Outcome {
    needs(t, &["busybox"])?;
    let a = server(t, "a", &["--network", "bridge=one,subnet=10.1.0.0/29,address=10.1.0.2"])?;
    host(t, "ip link add wire type veth peer name wire1 && ip link add theirs type bridge")?;
    host(t, "ip addr add 10.66.0.1/16 dev wire1")?;
    for (network, expected) in [
        ("bridge=one,address=10.1.0.2", &*format!("the address 10.1.0.2 is taken by container {}", a.id)),
        ("bridge=one,address=10.1.0.1", "is the gateway's"),
        ("bridge=one,address=10.1.9.1", "is not a host address in the subnet 10.1.0.0/29"),
        ("bridge=one,subnet=10.9.0.0/24", "is not of the subnet"),
        ("bridge=two,subnet=10.1.0.0/16", "overlaps 10.1.0.0/29"),
        ("bridge=two,subnet=10.66.1.0/24", "overlaps 10.66.0.1/16"),
        ("bridge=one,internal=yes", "bridge one is not internal"),
        ("bridge=wire", "wire is not a bridge, but veth"),
        ("bridge=theirs", "bridge theirs has no IPv4 address"),
        ("bridge=two,route=10.9.0.0/16@172.31.0.1", "add the route 10.9.0.0/16 via 172.31.0.1"),
    ] {
        refused(t, network, expected)?;
    }
    Ok(())
}

fn a_taken_port_is_refused(t: &Test) -> Outcome {
    needs(t, &["busybox"])?;
    let a = server(t, "a", &["--network", "bridge=one,publish=8080:80"])?;
    let by = format!("is taken by container {}", a.id);
    refused(t, "bridge=two,publish=8080:80", &by)?;
    refused(t, "bridge=two,publish=127.0.0.1:8080:80", &by)?;
    let listener = std::net::TcpListener::bind("127.0.0.1:9000")?;
    refused(t, "publish=9000:80", "port 0.0.0.0:9000/tcp is taken by a process of the host")?;
    drop(listener);
    Ok(())
}

fn an_exhausted_pool_is_refused(t: &Test) -> Outcome {
    needs(t, &[])?;
    let network = "bridge=small,subnet=10.1.0.0/30";
    let container = t.container(&t.sleeper())?;
    container.create_with(&["--network", network])?.ok()?;
    refused(t, network, "every address of 10.1.0.0/30 of bridge small is taken")?;
    // What is deleted is free again.
    container.delete_force()?.ok()?;
    t.container(&t.sleeper())?.create_with(&["--network", network])?.ok().map(drop)
}

/// The same call by a shell that has prepared something.
fn refused_behind(t: &Test, prepare: &str, expected: &[&str]) -> Outcome {
    needs(t, &["unshare", "setpriv"])?;
    let before = picture(t)?;
    let mut config = t.sleeper();
    config.set("annotations", json!({ NAME: "bridge=one" }));
    let create = by_annotation(t, &config)?.bundle_command("create", &[]);
    let words: Vec<_> = create.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let script = prepare.replace("RUNTIME", &format!("{} \"$@\"", t.runtime.program.display()));
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).args(words);
    let output = process::run(&mut command, &t.dir)?.refused()?;
    for part in expected {
        contains("the error", &output.text(), part)?;
    }
    same("the annotation", output.text().matches(&format!("annotations[{NAME}]")).count(), 1)?;
    as_before(t, &before)
}

fn an_nft_that_does_not_end_is_not_waited_for(t: &Test) -> Outcome {
    needs(t, &[])?;
    let before = picture(t)?;
    let bin = t.folder("bin")?;
    super::escapes::executable(&bin.join("nft"), "#!/bin/sh\nexec sleep 100\n")?;
    let c = t.container(&t.sleeper())?;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut create = c.bundle_command("create", &["--network", "bridge=stuck"]);
    let begin = Instant::now();
    let output = process::run(create.env("PATH", path), &t.dir)?.refused()?;
    contains("create", &output.text(), "nft took longer than 8 s and was killed")?;
    check!(begin.elapsed() < Duration::from_secs(10) * process::slowness(), "after {:?}", begin.elapsed());
    as_before(t, &before)
}

fn without_nft_a_network_is_refused(t: &Test) -> Outcome {
    let hide = "exec unshare -m sh -c 'for d in /usr/sbin /sbin /usr/local/sbin; do
        [ -e $d/nft ] && mount -t tmpfs none $d; done; exec RUNTIME' sh \"$@\"";
    refused_behind(t, hide, &["needs the program nft, which is not installed", "install nftables"])
}

fn without_permission_a_network_is_refused(t: &Test) -> Outcome {
    let drop = "exec setpriv --bounding-set=-net_admin --inh-caps=-net_admin RUNTIME";
    refused_behind(t, drop, &["EPERM", "needs CAP_NET_ADMIN"])
}

const ROUNDS: u32 = 40;
const BOTH: &[&str] = &[
    "--network=bridge=one,address6=auto,publish=8080-8090:80-90,egress=10mbit,hosts=yes",
    "--network=bridge=two",
];

/// Kills a call after a part of the time that it takes, and looks whether a delete removes everything.
fn killed(t: &Test, container: &Container, mut call: Command, after: Duration, before: &[String]) -> Outcome {
    let started = process::start(call.stdin(Stdio::null()), &t.dir)?;
    std::thread::sleep(after);
    let _ = kill(Pid::from_raw(started.pid), Signal::SIGKILL);
    started.finish(Duration::from_secs(10))?;
    let there = t.runtime.state.join(&container.id).exists();
    let output = container.delete_force()?;
    check!(output.code == 0 || !there, "after {after:?}: {}", output.text());
    as_before(t, before)
}

fn kill_9_in_the_middle_leaves_nothing_behind_a_delete(t: &Test) -> Outcome {
    needs(t, &[])?;
    let before = picture(t)?;
    let begin = Instant::now();
    let container = t.container(&t.sleeper())?;
    container.create_with(BOTH)?.ok()?;
    let whole = begin.elapsed();
    container.delete_force()?.ok()?;
    as_before(t, &before)?;
    for round in 1..=ROUNDS {
        let create = container.bundle_command("create", BOTH);
        killed(t, &container, create, whole * round / ROUNDS, &before)?;
    }
    Ok(())
}

fn kill_9_in_a_delete_leaves_nothing_behind_the_next(t: &Test) -> Outcome {
    needs(t, &[])?;
    let before = picture(t)?;
    let container = t.container(&t.sleeper())?;
    container.create_with(BOTH)?.ok()?;
    let begin = Instant::now();
    container.delete_force()?.ok()?;
    let whole = begin.elapsed();
    for round in 1..=ROUNDS {
        container.create_with(BOTH)?.ok()?;
        let mut delete = t.runtime.command();
        delete.args(["delete", "--force", &container.id]);
        killed(t, &container, delete, whole * round / ROUNDS, &before)?;
    }
    Ok(())
}

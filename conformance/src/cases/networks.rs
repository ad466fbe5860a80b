//! Networks by annotation and by flag, which only onggi has: who reaches whom, names, limits, and
//! what `state` says. In the case's own network namespace. networks_bad.rs has what goes wrong.

use crate::case::Need::Root;
use crate::case::{Case, Outcome, case, check, contains, fail, same};
use crate::net::{World, address, as_before, ask, by_annotation, host, inside, needs, picture, server};
use crate::process;
use crate::test::{Container, Test};
use nix::sched::{CloneFlags, setns};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::File;
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::Duration;

pub const CASES: &[Case] = &[
    case!(no_network_is_touched_by_default, [Root]),
    case!(an_annotation_gives_a_network, [Root]),
    case!(an_annotation_alone_changes_nothing, [Root]),
    case!(containers_on_a_bridge_talk_and_on_two_do_not, [Root], 60),
    case!(a_container_has_several_networks_of_both_families, [Root]),
    case!(containers_reach_the_outside_and_are_not_reached, [Root], 60),
    case!(published_ports_answer_everywhere, [Root], 90),
    case!(published_udp_ports_answer, [Root]),
    case!(flags_belong_to_the_network_before_them, [Root]),
    case!(bandwidth_is_within_ten_percent, [Root], 90),
    case!(a_bridge_is_kept_when_asked, [Root]),
    case!(names_of_a_bridge_are_in_hosts, [Root]),
    case!(resolv_conf_has_what_was_asked, [Root]),
    case!(a_network_device_of_the_spec_comes_beside, [Root]),
    case!(another_container_joins_the_namespace, [Root]),
    case!(two_hundred_and_fifty_share_a_bridge, [Root], 240),
    case!(two_processes_allocate_at_once, [Root], 120),
];

const KEY: &str = "annotations";

fn no_network_is_touched_by_default(t: &Test) -> Outcome {
    needs(t, &[])?;
    let before = picture(t)?;
    let container = t.detached(&t.sleeper())?;
    same("the host with a container", &picture(t)?, &before)?;
    check!(container.state()?["networks"].is_null(), "state has networks");
    same("its interfaces", t.script(&t.config(), "grep -c : /proc/net/dev")?.as_str(), "1")
}

fn an_annotation_gives_a_network(t: &Test) -> Outcome {
    needs(t, &[])?;
    let before = picture(t)?;
    let mut config = t.sleeper();
    config.set(
        KEY,
        json!({ "org.onggi.network.web0": "bridge=one,subnet=10.1.2.0/24,address=10.1.2.3,mtu=1400" }),
    );
    let container = by_annotation(t, &config)?;
    container.run_with(&["--detach"])?.ok()?;
    let network = container.state()?["networks"][0].clone();
    same("the name", network["name"].as_str(), Some("web0"))?;
    same("the bridge", network["bridge"].as_str(), Some("one"))?;
    same("the address", network["addresses"][0].as_str(), Some("10.1.2.3/24"))?;
    same("the gateway", network["gateways"][0].as_str(), Some("10.1.2.1"))?;
    let shown = inside(t, container.pid()?, "ip addr show; ip route")?.ok()?.stdout;
    for part in ["10.1.2.3/24", "mtu 1400", "lo: <LOOPBACK,UP", "default via 10.1.2.1 dev web0"] {
        contains("inside", &shown, part)?;
    }
    contains("inside", &shown, network["mac"].as_str().unwrap_or("no mac"))?;
    container.delete_force()?.ok()?;
    as_before(t, &before)
}

/// Podman copies the labels of an image into annotations: without the operator's flag they are nothing.
fn an_annotation_alone_changes_nothing(t: &Test) -> Outcome {
    needs(t, &[])?;
    let before = picture(t)?;
    let forwarding = host(t, "cat /proc/sys/net/ipv4/ip_forward")?;
    let mut config = t.sleeper();
    let all = "bridge=evil,subnet=198.51.100.0/24,publish=0.0.0.0:8080:80,keep=yes";
    config.set(KEY, json!({ "org.onggi.network.eth0": all }));
    let container = t.container(&config)?;
    let log = t.dir.join("log");
    let mut command = t.runtime.command();
    command.arg("--log").arg(&log).args(["run", "--detach", "--bundle"]).arg(&container.bundle);
    process::run(command.arg(&container.id), &t.dir)?.ok()?;
    let warnings = std::fs::read_to_string(&log)?;
    contains("the log", &warnings, "annotations[org.onggi.network.eth0]")?;
    check!(container.state()?["networks"].is_null(), "state has networks");
    same("its interfaces", inside(t, container.pid()?, "grep -c : /proc/net/dev")?.stdout.trim(), "1")?;
    as_before(t, &before)?;
    same("forwarding", host(t, "cat /proc/sys/net/ipv4/ip_forward")?, forwarding)?;
    container.delete_force()?.ok()?;
    as_before(t, &before)
}

fn containers_on_a_bridge_talk_and_on_two_do_not(t: &Test) -> Outcome {
    needs(t, &["busybox"])?;
    let before = picture(t)?;
    let a = server(t, "a", &["--network", "bridge=one"])?;
    let b = server(t, "b", &["--network", "bridge=one"])?;
    let c = server(t, "c", &["--network", "bridge=two"])?;
    let (of_a, of_c) = (address(&a, 0, 0)?, address(&c, 0, 0)?);
    let ping = |from: &Container, to: &str| -> Outcome<bool> {
        Ok(inside(t, from.pid()?, &format!("busybox ping -c 1 -W 1 {to}"))?.code == 0)
    };
    same("b pings a", ping(&b, &of_a)?, true)?;
    same("b asks a", ask(t, Some(b.pid()?), &of_a, 80)?.as_deref(), Some("a"))?;
    same("c pings a", ping(&c, &of_a)?, false)?;
    same("c asks a", ask(t, Some(c.pid()?), &of_a, 80)?, None)?;
    same("a asks c", ask(t, Some(a.pid()?), &of_c, 80)?, None)?;
    same("the host asks c", ask(t, None, &of_c, 80)?.as_deref(), Some("c"))?;
    for container in [a, b, c] {
        container.delete_force()?.ok()?;
    }
    as_before(t, &before)
}

fn a_container_has_several_networks_of_both_families(t: &Test) -> Outcome {
    needs(t, &["busybox"])?;
    let a = server(
        t,
        "a",
        &[
            "--network",
            "bridge=front,address6=auto",
            "--network",
            "bridge=back,internal=yes,route=10.7.0.0/16",
        ],
    )?;
    let b = server(t, "b", &["--network", "bridge=front,address6=auto"])?;
    let c = server(t, "c", &["--network", "bridge=back,internal=yes"])?;
    let shown = inside(t, a.pid()?, "ip -o link; ip route; ip -6 route")?.ok()?.stdout;
    for part in ["eth0@", "eth1@", "10.7.0.0/16 via", "default via fd"] {
        contains("inside", &shown, part)?;
    }
    same("default routes of IPv4", shown.matches("default via 10.").count(), 1)?;
    same("by IPv6", ask(t, Some(b.pid()?), &address(&a, 0, 1)?, 80)?.as_deref(), Some("a"))?;
    same("by the second", ask(t, Some(c.pid()?), &address(&a, 1, 0)?, 80)?.as_deref(), Some("a"))?;
    same("across", ask(t, Some(c.pid()?), &address(&a, 0, 0)?, 80)?, None)
}

fn containers_reach_the_outside_and_are_not_reached(t: &Test) -> Outcome {
    needs(t, &["busybox"])?;
    let world = World::new(t)?;
    let a = server(t, "a", &["--network", "bridge=one,address6=auto"])?;
    let inner = server(t, "inner", &["--network", "bridge=in,internal=yes"])?;
    for ip in ["192.0.2.2", "2001:db8::2"] {
        // The world knows no way back to a container: only translated addresses are answered.
        same(ip, ask(t, Some(a.pid()?), ip, 80)?.as_deref(), Some("world"))?;
    }
    same("internal", ask(t, Some(inner.pid()?), "192.0.2.2", 80)?, None)?;
    inside(t, world.pid(), "ip route add default via 192.0.2.1")?.ok()?;
    same("from outside", ask(t, Some(world.pid()), &address(&a, 0, 0)?, 80)?, None)
}

fn published_ports_answer_everywhere(t: &Test) -> Outcome {
    needs(t, &["busybox"])?;
    let world = World::new(t)?;
    let before = picture(t)?;
    let network = "bridge=one,address6=auto,publish=192.0.2.1:8090-8092:79-81,publish=127.0.0.1:8100:80";
    let a = server(t, "a", &["--network", network, "--publish", "8080:80"])?;
    let b = server(t, "b", &["--network", "bridge=two,address6=auto"])?;
    let c = server(t, "c", &["--network", "bridge=one,address6=auto"])?;
    let asked = |from: Option<i32>, ip: &str, port: u16| -> Outcome {
        same(&format!("{ip} {port} from {from:?}"), ask(t, from, ip, port)?.as_deref(), Some("a"))
    };
    for pid in [Some(world.pid()), Some(b.pid()?), Some(c.pid()?), Some(a.pid()?), None] {
        asked(pid, "192.0.2.1", 8080)?;
        asked(pid, "2001:db8::1", 8080)?;
        asked(pid, "192.0.2.1", 8091)?;
    }
    asked(None, "127.0.0.1", 8080)?;
    asked(None, "127.0.0.1", 8100)?;
    // Refused at once, so that those who ask `localhost` go on to 127.0.0.1.
    let begin = std::time::Instant::now();
    same("::1", ask(t, None, "::1", 8080)?, None)?;
    check!(begin.elapsed() < Duration::from_secs(1), "::1 does not answer in {:?}", begin.elapsed());
    same("bound elsewhere", ask(t, None, "127.0.0.1", 8091)?, None)?;
    same("bound to loopback", ask(t, Some(world.pid()), "192.0.2.1", 8100)?, None)?;
    let published = a.state()?["networks"][0]["publish"].to_string();
    contains("state", &published, "192.0.2.1:8090-8092:79-81/tcp")?;
    a.delete_force()?.ok()?;
    same("after delete", ask(t, Some(world.pid()), "192.0.2.1", 8080)?, None)?;
    b.delete_force()?.ok()?;
    c.delete_force()?.ok()?;
    as_before(t, &before)
}

fn published_udp_ports_answer(t: &Test) -> Outcome {
    needs(t, &[])?;
    let container = t.container(&t.sleeper())?;
    container.run_with(&["--detach", "--network", "bridge=one", "--publish", "5353:53/udp"])?.ok()?;
    let netns = File::open(format!("/proc/{}/ns/net", container.pid()?))?;
    // A socket stays in the namespace that it was made in; the thread does not come back.
    let bind = std::thread::spawn(move || -> Outcome<UdpSocket> {
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        Ok(UdpSocket::bind("0.0.0.0:53")?)
    });
    let server = bind.join().unwrap_or_else(|_| fail("the thread panicked"))?;
    host(t, "ip addr add 192.0.2.1/24 dev lo")?;
    // This process is in the namespace that plays the host.
    let client = UdpSocket::bind("0.0.0.0:0")?;
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    }
    let mut bytes = [0; 8];
    client.send_to(b"question", "192.0.2.1:5353")?;
    let (_, from) = server.recv_from(&mut bytes)?;
    same("what comes", &bytes, b"question")?;
    server.send_to(b"answered", from)?;
    let (_, from) = client.recv_from(&mut bytes)?;
    same("what comes back", &bytes, b"answered")?;
    same("from whom", from.to_string().as_str(), "192.0.2.1:5353")
}

fn flags_belong_to_the_network_before_them(t: &Test) -> Outcome {
    needs(t, &[])?;
    let container = t.container(&t.sleeper())?;
    let flags = ["--publish=81:80", "--network=bridge=one", "--network=bridge=two", "-p", "82:80/udp"];
    container.create_with(&[&flags[..], &["--bandwidth", "ingress=5mbit"]].concat())?.ok()?;
    let networks = container.state()?["networks"].clone();
    let publish = |at: usize| networks[at]["publish"].to_string();
    same("of the first", publish(0).as_str(), "[\"81:80/tcp\"]")?;
    same("of the second", publish(1).as_str(), "[\"82:80/udp\"]")?;
    let second = networks[1]["hostInterface"].as_str().unwrap_or_default();
    contains("the limit", &host(t, &format!("tc qdisc show dev {second}"))?, "rate 5Mbit")?;
    let output = t.container(&t.sleeper())?.create_with(&["--publish", "81:80"])?.refused()?;
    contains("without a network", &output.text(), "--publish 81:80 has no --network")
}

fn bandwidth_is_within_ten_percent(t: &Test) -> Outcome {
    needs(t, &["iperf3", "tc"])?;
    let limited = t.container(&t.sleeper())?;
    limited.run_with(&["-d", "--network=bridge=one", "--bandwidth=ingress=40mbit,egress=20mbit"])?.ok()?;
    let other = t.container(&t.sleeper())?;
    other.run_with(&["-d", "--network=bridge=one"])?.ok()?;
    let mut measured = Vec::new();
    for (direction, limit) in [("", 20.0), ("-R", 40.0)] {
        let near = |rate: f64| (rate - limit).abs() <= limit / 10.0;
        // A busy machine may not reach it at once.
        for _ in 0..3 {
            let rate = rate(t, &limited, &other, direction)?;
            measured.push((rate, limit));
            if near(rate) {
                break;
            }
        }
        check!(
            measured.last().is_some_and(|last| near(last.0)),
            "measured and asked for, Mbit/s: {measured:?}"
        );
    }
    Ok(())
}

/// What iperf3 measures between two containers, in Mbit/s.
fn rate(t: &Test, from: &Container, to: &Container, direction: &str) -> Outcome<f64> {
    let mut server = Command::new("nsenter");
    server.args(["-t", &to.pid()?.to_string(), "-n", "iperf3", "-s", "-1"]).stdin(Stdio::null());
    let server = process::start(&mut server, &t.dir)?;
    let listens = || Ok(inside(t, to.pid()?, "ss -ltn")?.stdout.contains(":5201"));
    process::until("iperf3 listens", listens)?;
    let call = format!("iperf3 -J -t 4 -O 1 {direction} -c {}", address(to, 0, 0)?);
    let report = inside(t, from.pid()?, &call)?.ok()?.json()?;
    server.finish(Duration::from_secs(20))?;
    Ok(report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or(0.0) / 1e6)
}

fn a_bridge_is_kept_when_asked(t: &Test) -> Outcome {
    needs(t, &[])?;
    let before = picture(t)?;
    let run = |network: &str| t.container(&t.config())?.run_with(&["--network", network])?.ok();
    run("bridge=one,keep=yes")?;
    contains("interfaces", &host(t, "ip -o link")?, "one: ")?;
    contains("rules", &host(t, "nft list table inet onggi")?, "\"one\"")?;
    run("bridge=one")?;
    contains("interfaces", &host(t, "ip -o link")?, "one: ")?;
    run("bridge=one,keep=no")?;
    as_before(t, &before)
}

fn names_of_a_bridge_are_in_hosts(t: &Test) -> Outcome {
    needs(t, &["busybox"])?;
    let a = server(t, "a", &["--network", "bridge=one,hosts=yes,alias=database"])?;
    let b = server(t, "b", &["--network", "bridge=one,hosts=yes"])?;
    let c = server(t, "c", &["--network", "bridge=two,hosts=yes"])?;
    // From inside, by name; also the name of one that came later.
    let by_name = |from: &Container, name: &str| -> Outcome<String> {
        let output = from.exec(&["/bin/busybox", "nc", "-w", "2", name, "80"])?;
        Ok(output.stdout.trim().to_owned())
    };
    same("b asks the database", by_name(&b, "database")?.as_str(), "a")?;
    same("a asks b", by_name(&a, &b.id)?.as_str(), "b")?;
    same("a asks itself", by_name(&a, &a.id)?.as_str(), "a")?;
    same("another bridge", by_name(&a, &c.id)?.as_str(), "")?;
    contains("hosts", &a.exec(&["cat", "/etc/hosts"])?.ok()?.stdout, "host.containers.internal")?;
    check!(a.exec(&["sh", "-c", "echo >> /etc/hosts"])?.code != 0, "a container writes to its hosts");
    let id = b.id.clone();
    b.delete_force()?.ok()?;
    let left = a.exec(&["cat", "/etc/hosts"])?.ok()?.stdout;
    check!(!left.contains(&format!("# {id}")), "the name of one that is gone is left: {left}");
    contains("its own", &left, "database")?;
    let mut config = t.sleeper();
    config.bind(&t.folder("etc")?, "/etc/hosts", &[]);
    let output = t.container(&config)?.create_with(&["--network", "hosts=yes"])?.refused()?;
    contains("mounted twice", &output.text(), "of the configuration is /etc/hosts already, at --network")
        .or_else(|_| contains("mounted twice", &output.text(), "--network: hosts: mounts["))
}

fn resolv_conf_has_what_was_asked(t: &Test) -> Outcome {
    needs(t, &[])?;
    let mut config = t.config();
    config.args(&["/bin/cat", "/etc/resolv.conf"]);
    let network = "bridge=one,dns=192.0.2.53,dns=2001:db8::53,search=example.org";
    let text = t.container(&config)?.run_with(&["--network", network])?.ok()?.stdout;
    same("it", text.as_str(), "nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch example.org\n")
}

fn a_network_device_of_the_spec_comes_beside(t: &Test) -> Outcome {
    needs(t, &[])?;
    host(t, "ip link add given0 type veth peer name given1")?;
    let mut config = t.config();
    config.set("linux.netDevices", json!({ "given0": {} }));
    config.set(KEY, json!({ "org.onggi.network.eth0": "bridge=one" }));
    config.shell("cut -d: -f1 /proc/net/dev | tr -d ' ' | tr '\\n' ' '");
    let names = by_annotation(t, &config)?.run()?.ok()?.stdout;
    contains("interfaces", &names, "given0")?;
    contains("interfaces", &names, "eth0")
}

fn another_container_joins_the_namespace(t: &Test) -> Outcome {
    needs(t, &["busybox"])?;
    let a = server(t, "a", &["--network", "bridge=one"])?;
    let mut config = t.config();
    config.no_namespace("network").join("network", &format!("/proc/{}/ns/net", a.pid()?));
    config.args(&["/bin/busybox", "nc", "-w", "2", "127.0.0.1", "80"]);
    same("by loopback", t.run(&config)?.ok()?.stdout.trim(), "a")?;
    let output = t.container(&config)?.run_with(&["--network", "bridge=one"])?.refused()?;
    contains("two networks", &output.text(), "needs a network namespace of its own")
}

fn two_hundred_and_fifty_share_a_bridge(t: &Test) -> Outcome {
    needs(t, &["busybox"])?;
    let before = picture(t)?;
    let network = ["--network", "bridge=one,subnet=10.1.0.0/24"];
    let first = server(t, "first", &network)?;
    let mut all = Vec::new();
    for _ in 1..250 {
        let container = t.container(&t.sleeper())?;
        container.create_with(&network)?.ok()?;
        all.push(container);
    }
    let addresses: Outcome<BTreeSet<String>> = all.iter().map(|one| address(one, 0, 0)).collect();
    same("different addresses", addresses?.len(), 249)?;
    same(
        "the last asks",
        ask(t, Some(all[248].pid()?), &address(&first, 0, 0)?, 80)?.as_deref(),
        Some("first"),
    )?;
    for container in all.iter().chain([&first]) {
        container.delete_force()?.ok()?;
    }
    as_before(t, &before)
}

fn two_processes_allocate_at_once(t: &Test) -> Outcome {
    needs(t, &[])?;
    let before = picture(t)?;
    let mut all = Vec::new();
    for _ in 0..10 {
        let pair = [t.container(&t.sleeper())?, t.container(&t.sleeper())?];
        let start = |one: &Container| {
            let mut command =
                one.bundle_command("create", &["--network", "bridge=one,publish=0.0.0.0:7000:80"]);
            process::start(command.stdin(Stdio::null()), &t.dir)
        };
        // Both want one port: one gets it.
        let both = [start(&pair[0])?, start(&pair[1])?];
        let mut codes = Vec::new();
        for started in both {
            codes.push(started.finish(Duration::from_secs(20))?.code == 0);
        }
        check!(codes.contains(&true) && codes.contains(&false), "who got the port: {codes:?}");
        for (one, got) in pair.into_iter().zip(codes) {
            if got {
                one.delete_force()?.ok()?;
            }
        }
        let pair = [t.container(&t.sleeper())?, t.container(&t.sleeper())?];
        let mut both = Vec::new();
        for one in &pair {
            let mut command = one.bundle_command("create", &["--network", "bridge=one"]);
            both.push(process::start(command.stdin(Stdio::null()), &t.dir)?);
        }
        for started in both {
            started.finish(Duration::from_secs(20))?.ok()?;
        }
        all.extend(pair);
    }
    let addresses: Outcome<BTreeSet<String>> = all.iter().map(|one| address(one, 0, 0)).collect();
    same("different addresses", addresses?.len(), 20)?;
    for container in all {
        container.delete_force()?.ok()?;
    }
    as_before(t, &before)
}

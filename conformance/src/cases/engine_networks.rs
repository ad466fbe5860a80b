//! onggi's own networks beside those of engines: each works while the other is there, and after.

use crate::case::Need::{Path, Program, Root};
use crate::case::{Case, Outcome, Stop, case, contains, same};
use crate::engine::{self, Engine, Kind};
use crate::engine_start;
use crate::net;
use crate::process;
use crate::test::{Container, Test};
use serde_json::json;
use std::fs;
use std::path::PathBuf;

pub const CASES: &[Case] = &[
    case!(beside_podman, [Root, Program("podman"), Path("/usr/lib/podman/netavark")], 120),
    case!(podman_reaches_a_port_of_onggi, [Root, Program("podman"), Path("/usr/lib/podman/netavark")], 120),
    case!(beside_docker, [Root, Program("dockerd"), Program("docker")], 120),
    case!(docker_reaches_a_port_of_onggi, [Root, Program("dockerd"), Program("docker")], 120),
    case!(beside_a_cni_plugin, [Root], 120),
    case!(beside_containerd_with_cni, [Root, Program("containerd"), Program("ctr")], 120),
];

/// Two containers on a bridge of onggi's; the first has a port of the host, and the second asks it by name.
struct Own {
    first: Container,
    second: Container,
}

impl Own {
    fn new(t: &Test) -> Outcome<Self> {
        net::needs(t, &["busybox"])?;
        let network = ["--network", "bridge=own0,hosts=yes"];
        let first = net::server(t, "from-onggi", &[&network[..], &["--publish", "18080:80"]].concat())?;
        let second = t.container(&t.sleeper())?;
        second.run_with(&[&["--detach"], &network[..]].concat())?.ok()?;
        let own = Self { first, second };
        own.works(t, "alone")?;
        Ok(own)
    }

    fn works(&self, t: &Test, when: &str) -> Outcome {
        process::until(&format!("the port of onggi answers, {when}"), || {
            Ok(net::ask(t, None, "127.0.0.1", 18080)?.as_deref() == Some("from-onggi"))
        })?;
        let words = ["/bin/busybox", "nc", "-w", "2", &self.first.id, "80"];
        let name = format!("a container by its name, {when}");
        contains(&name, &self.second.exec(&words)?.ok()?.stdout, "from-onggi")
    }

    fn remove(self) -> Outcome {
        self.first.delete_force()?.ok()?;
        self.second.delete_force()?.ok().map(drop)
    }
}

fn answers(t: &Test, port: u16, wanted: &str) -> Outcome {
    process::until(&format!("{wanted} answers"), || {
        Ok(net::ask(t, None, "127.0.0.1", port)?.as_deref() == Some(wanted))
    })
}

/// A server of an engine with a port: both work beside each other, and onggi's after it.
fn beside(t: &Test, kind: Kind, name: &str, port: u16, network: &[&str]) -> Outcome {
    let own = Own::new(t)?;
    let engine = t.engine_of(kind)?;
    let published = format!("{port}:80");
    let words = ["busybox", "nc", "-ll", "-p", "80", "-e", "echo", name];
    engine.detached("beside", &[network, &["-p", &published]].concat(), &words)?;
    answers(t, port, name)?;
    own.works(t, "beside the engine")?;
    engine.remove("beside")?;
    own.works(t, "after the engine's container")?;
    // Podman mounts it for all that it makes.
    net::host(t, "umount /run/netns 2> /dev/null || true")?;
    own.remove()
}

fn beside_podman(t: &Test) -> Outcome {
    beside(t, Kind::Podman, "from-podman", 18081, &["--network", "podman"])
}

fn beside_docker(t: &Test) -> Outcome {
    beside(t, Kind::Docker, "from-docker", 18082, &["--network", "bridge"])
}

/// By the address of the host on the engine's bridge.
fn reaches(t: &Test, engine: &Engine, network: &str) -> Outcome {
    let own = Own::new(t)?;
    let script = "busybox nc -w 2 $(busybox ip route | sed -n 's/default via \\([0-9.]*\\) .*/\\1/p') 18080";
    contains("answer", &engine.script(&["--network", network], script)?, "from-onggi")?;
    net::host(t, "umount /run/netns 2> /dev/null || true")?;
    own.remove()
}

fn podman_reaches_a_port_of_onggi(t: &Test) -> Outcome {
    reaches(t, t.engine_of(Kind::Podman)?, "podman")
}

fn docker_reaches_a_port_of_onggi(t: &Test) -> Outcome {
    reaches(t, t.engine_of(Kind::Docker)?, "bridge")
}

fn plugins() -> Outcome<PathBuf> {
    let missing = || Stop::Skip("needs the plugins of CNI (containernetworking-plugins)".into());
    engine::cni_plugins().ok_or_else(missing)
}

fn bridge(t: &Test, name: &str, subnet: &str) -> serde_json::Value {
    json!({ "cniVersion": "0.4.0", "name": name, "type": "bridge", "bridge": name, "isGateway": true, "ipMasq": true,
        "ipam": { "type": "host-local", "subnet": subnet, "routes": [{ "dst": "0.0.0.0/0" }],
            "dataDir": t.dir.join("leases").display().to_string() } })
}

/// As containerd's CRI plugin calls it.
fn beside_a_cni_plugin(t: &Test) -> Outcome {
    let own = Own::new(t)?;
    let plugins = plugins()?;
    let file = t.dir.join("cni.json");
    fs::write(&file, bridge(t, "cni0", "10.77.0.0/16").to_string())?;
    net::host(t, "ip netns add cni")?;
    let call = |verb: &str| {
        let plugins = plugins.display();
        let environment =
            format!("CNI_COMMAND={verb} CNI_CONTAINERID=c CNI_IFNAME=eth0 CNI_NETNS=/run/netns/cni");
        net::host(t, &format!("{environment} CNI_PATH={plugins} {plugins}/bridge < {}", file.display()))
    };
    contains("address", &call("ADD")?, "10.77")?;
    let inside = |command: &str| net::host(t, &format!("ip netns exec cni busybox {command}"));
    contains("gateway", &inside("ping -c 1 -W 2 10.77.0.1")?, "1 packets received")?;
    contains("a port of onggi", &inside("nc -w 2 10.77.0.1 18080")?, "from-onggi")?;
    own.works(t, "beside the plugin")?;
    call("DEL")?;
    own.works(t, "after the plugin")?;
    net::host(t, "ip netns del cni; ip link del cni0; umount /run/netns; rmdir /run/netns")?;
    own.remove()
}

/// The configuration is where ctr looks, /etc/cni and /opt/cni: the case's own (engine_start.rs).
fn beside_containerd_with_cni(t: &Test) -> Outcome {
    let own = Own::new(t)?;
    let engine = t.engine_of(Kind::Ctr)?;
    let plugins = plugins()?;
    net::host(t, "rm -rf /etc/cni; mkdir -p /etc/cni/net.d /opt/cni")?;
    net::host(t, &format!("[ -e /opt/cni/bin ] || ln -s {} /opt/cni/bin", plugins.display()))?;
    let list = json!({ "cniVersion": "0.4.0", "name": "c", "plugins": [bridge(t, "cni1", "10.78.0.0/16")] });
    fs::write("/etc/cni/net.d/1.conflist", list.to_string())?;
    let program = t.runtime.program.display().to_string();
    let shim = engine_start::shim(&t.runtime.name).map(|path| path.display().to_string());
    let how = match &shim {
        Some(shim) => ["--runtime", shim],
        None => ["--runc-binary", &program],
    };
    let cgroup = format!("{}/s", t.cgroup);
    let mut words = vec!["run", "-d", "--snapshotter", "native", "--cni", "--cgroup", &cgroup];
    words.extend(how);
    words.extend([engine.image, "s", "busybox", "nc", "-ll", "-p", "80", "-e", "echo", "from-containerd"]);
    engine.says(&words)?;
    let exec =
        |id: &str, words: &[&str]| engine.says(&[&["task", "exec", "--exec-id", id, "s"], words].concat());
    let addresses = exec("a", &["busybox", "ip", "-4", "-o", "addr", "show", "eth0"])?;
    let address = addresses.split_whitespace().find(|word| word.starts_with("10.78.")).unwrap_or_default();
    let address = address.split('/').next().unwrap_or_default().to_owned();
    process::until("it answers", || {
        Ok(net::ask(t, None, &address, 80)?.as_deref() == Some("from-containerd"))
    })?;
    contains(
        "gateway",
        &exec("b", &["busybox", "ping", "-c", "1", "-W", "2", "10.78.0.1"])?,
        "1 packets received",
    )?;
    same(
        "a port of onggi",
        exec("c", &["busybox", "nc", "-w", "2", "10.78.0.1", "18080"])?.as_str(),
        "from-onggi",
    )?;
    own.works(t, "beside containerd")?;
    engine.says(&["task", "rm", "-f", "s"])?;
    engine.says(&["container", "rm", "s"])?;
    own.works(t, "after containerd")?;
    own.remove()
}

//! Real bridges and containers' namespaces, beside a "host" that each test has for itself.

use super::testing::{Namespace, in_new_host, ip, run};
use super::*;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::BorrowedFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A directory for the state of a test's containers.
pub(super) struct Store(pub PathBuf);

impl Store {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("onggi-network-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn start(&self, id: &str, networks: &[&str]) -> Container<'_> {
        let container = Container { store: self, id: id.to_string(), netns: Namespace::new() };
        fs::create_dir_all(self.0.join(id)).unwrap();
        container.connect(networks).unwrap();
        container
    }

    /// The error of a container's set-up.
    #[track_caller]
    pub fn refused(&self, id: &str, networks: &[&str], expected: &str) -> Error {
        fs::create_dir_all(self.0.join(id)).unwrap();
        let container = Container { store: self, id: id.to_string(), netns: Namespace::new() };
        let before = (ip("-o link"), run("nft list ruleset"));
        let error = container.connect(networks).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        let names = |text: &str| {
            text.lines().filter_map(|line| line.split(' ').nth(1).map(str::to_string)).collect::<Vec<_>>()
        };
        assert_eq!(names(&ip("-o link")), names(&before.0), "interfaces are left");
        assert_eq!(run("nft list ruleset"), before.1, "rules are left");
        error
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// As `create` does it.
pub(super) fn connect(store: &Path, id: &str, networks: &[Network], netns: BorrowedFd) -> Result<Attached> {
    let mut connecting = Connecting::begin(store, id, networks)?;
    connecting.enter(netns.try_clone_to_owned().unwrap());
    connecting.finish()?;
    read_record(store, id).map(Option::unwrap)
}

pub(super) struct Container<'a> {
    store: &'a Store,
    pub id: String,
    pub netns: Namespace,
}

impl Container<'_> {
    pub fn connect(&self, networks: &[&str]) -> Result<Attached> {
        let parse = |(number, text): (usize, &&str)| {
            let name = format!("eth{number}");
            let at = format!("annotations[org.onggi.network.{name}]");
            Network::parse(text, &at).map(|network| Network { name, ..network })
        };
        let networks = networks.iter().enumerate().map(parse).collect::<Result<Vec<_>>>()?;
        connect(&self.store.0, &self.id, &networks, self.netns.fd())
    }

    pub fn address(&self, network: usize, v4: bool) -> IpAddr {
        let attached = read_record(&self.store.0, &self.id).unwrap().unwrap();
        let mut all = attached.networks[network].addresses.iter().map(|address| address.ip());
        all.find(|ip| ip.is_ipv4() == v4).unwrap()
    }

    pub fn ip(&self) -> IpAddr {
        self.address(0, true)
    }

    pub fn delete(self) {
        tear_down(&self.store.0, &self.id, false).unwrap();
        fs::remove_dir_all(self.store.0.join(&self.id)).unwrap();
    }

    /// Answers each connection with its own id and the peer's address.
    pub fn serve(&self, port: u16) {
        serve_in(&self.netns, &self.id, port);
    }

    pub fn ask(&self, ip: IpAddr, port: u16) -> Option<String> {
        self.netns.run(|| ask(SocketAddr::new(ip, port)))
    }
}

pub(super) fn serve_in(netns: &Namespace, name: &str, port: u16) {
    let bind = || TcpListener::bind(SocketAddr::new("::".parse().unwrap(), port));
    let (listener, name) = (netns.run(|| bind().unwrap()), name.to_string());
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let _ = write!(stream, "{name} {}", peer.ip().to_canonical());
        }
    });
}

pub(super) fn ask(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(2500)).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(700))).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// A namespace behind the host that plays the outside world; the host's address towards it is
/// 192.0.2.1 and 2001:db8::1.
pub(super) fn outside() -> Namespace {
    let world = Namespace::new();
    ip("link add out0 type veth peer name out1");
    ip("addr add 192.0.2.1/24 dev out0");
    ip("addr add 2001:db8::1/64 dev out0 nodad");
    ip("link set out0 up");
    crate::netdevices::move_named(&[("out1", "out1")], world.fd()).unwrap();
    for command in
        ["addr add 192.0.2.2/24 dev out1", "addr add 2001:db8::2/64 dev out1 nodad", "link set lo up"]
    {
        world.ip(command);
    }
    world
}

/// Somebody else holds the lock of the store's addresses for a while.
#[test]
#[ignore = "needs root"]
fn a_network_is_given_up_at_the_callers_deadline() {
    in_new_host(|| {
        let store = Store::new();
        let held = Claims::lock(&store.0).unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(500));
            drop(held);
        });
        fs::create_dir_all(store.0.join("a")).unwrap();
        let container = Container { store: &store, id: "a".into(), netns: Namespace::new() };
        let limits = wait::Limits { deadline: Some(Duration::from_millis(50)), cancel: None };
        let error = wait::limited(&limits, || container.connect(&["bridge=one"])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        assert!(read_record(&store.0, "a").unwrap().is_none());
    });
}

#[test]
#[ignore = "needs root"]
fn containers_on_one_bridge_talk_and_on_two_do_not() {
    in_new_host(|| {
        let store = Store::new();
        let (a, b) = (store.start("a", &["bridge=one"]), store.start("b", &["bridge=one"]));
        let c = store.start("c", &["bridge=two"]);
        for container in [&a, &b, &c] {
            container.serve(80);
        }
        assert_eq!(b.ask(a.ip(), 80), Some(format!("a {}", b.ip())));
        assert_eq!(a.ask(b.ip(), 80), Some(format!("b {}", a.ip())));
        a.netns.run(|| run(&format!("busybox ping -c 1 -W 2 {}", b.ip())));
        assert_eq!(c.ask(a.ip(), 80), None);
        assert_eq!(a.ask(c.ip(), 80), None);
        // The host reaches them all, and each itself.
        assert!(ask(SocketAddr::new(c.ip(), 80)).is_some());
        assert_eq!(a.ask("127.0.0.1".parse().unwrap(), 80), Some("a 127.0.0.1".into()));
        assert!(a.netns.ip("route").contains("default via"));
        [a, b, c].into_iter().for_each(Container::delete);
        assert!(!ip("link").contains("one") && !run("nft list ruleset").contains("onggi"));
    });
}

#[test]
#[ignore = "needs root"]
fn a_container_has_several_networks_of_both_families() {
    in_new_host(|| {
        let store = Store::new();
        let first =
            "bridge=front,subnet=10.1.0.0/24,address=10.1.0.9,address6=auto,mtu=1400,mac=02:00:00:00:00:99";
        let a = store.start("a", &[first, "bridge=back,internal=yes,route=10.7.0.0/16"]);
        let b = store.start("b", &["bridge=back,internal=yes"]);
        let c = store.start("c", &["bridge=front,address6=auto"]);
        a.serve(80);
        assert!(b.ask(a.address(1, true), 80).is_some());
        assert!(b.ask(a.address(0, true), 80).is_none());
        assert!(c.ask("10.1.0.9".parse().unwrap(), 80).is_some());
        assert!(c.ask(a.address(0, false), 80).is_some());
        let shown = a.netns.ip("addr show eth0");
        assert!(
            shown.contains("MULTICAST") && shown.contains("mtu 1400") && shown.contains("02:00:00:00:00:99"),
            "{shown}"
        );
        let routes = a.netns.ip("route");
        assert!(
            routes.contains("default via 10.1.0.1 dev eth0") && routes.contains("10.7.0.0/16 via"),
            "{routes}"
        );
        assert!(a.netns.ip("-6 route").contains("default via fd"));
        assert_eq!(b.netns.ip("route").matches("default").count(), 0);
        [a, b, c].into_iter().for_each(Container::delete);
        assert_eq!(ip("-o link").lines().count(), 1);
    });
}

#[test]
#[ignore = "needs root"]
fn containers_reach_the_outside_by_the_hosts_address_and_are_not_reached() {
    in_new_host(|| {
        let (store, world) = (Store::new(), outside());
        let a = store.start("a", &["bridge=one,address6=auto"]);
        let inner = store.start("inner", &["bridge=in,internal=yes"]);
        serve_in(&world, "world", 80);
        a.serve(80);
        let (v4, v6) = ("192.0.2.2".parse().unwrap(), "2001:db8::2".parse().unwrap());
        assert_eq!(a.ask(v4, 80), Some("world 192.0.2.1".into()));
        assert_eq!(a.ask(v6, 80), Some("world 2001:db8::1".into()));
        assert_eq!(inner.ask(v4, 80), None);
        world.ip("route add default via 192.0.2.1");
        assert_eq!(world.run(|| ask(SocketAddr::new(a.ip(), 80))), None);
    });
}

#[test]
#[ignore = "needs root"]
fn published_ports_answer_everywhere_they_should() {
    in_new_host(|| {
        let (store, world) = (Store::new(), outside());
        let ports =
            "publish=8080:80,publish=192.0.2.1:8090-8091:80-81,publish=127.0.0.1:8100:80,publish=5353:53/udp";
        let a = store.start("a", &[&format!("bridge=one,address6=auto,{ports}")]);
        let b = store.start("b", &["bridge=two,address6=auto"]);
        let c = store.start("c", &["bridge=one,address6=auto"]);
        a.serve(80);
        a.serve(81);
        let host = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (v4, v6) = (host("192.0.2.1:8080"), host("[2001:db8::1]:8080"));
        // The container sees who asks from outside.
        assert_eq!(world.run(|| ask(v4)), Some("a 192.0.2.2".into()));
        assert_eq!(world.run(|| ask(v6)), Some("a 2001:db8::2".into()));
        assert!(world.run(|| ask(host("192.0.2.1:8091"))).is_some());
        for own in
            ["127.0.0.1:8080", "192.0.2.1:8080", "192.0.2.1:8090", "127.0.0.1:8100", "[2001:db8::1]:8080"]
        {
            assert!(ask(host(own)).is_some(), "{own} from the host");
        }
        assert!(ask(host("127.0.0.1:8090")).is_none(), "bound to another address");
        // From another bridge, its own bridge and itself.
        for container in [&b, &c, &a] {
            for ip in [v4.ip(), v6.ip()] {
                assert!(container.ask(ip, 8080).is_some(), "{ip} from {}", container.id);
            }
        }
        let udp = a.netns.run(|| UdpSocket::bind("0.0.0.0:53").unwrap());
        let asked = world.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"ping", "192.0.2.1:5353").unwrap();
            socket
        });
        let mut bytes = [0; 4];
        udp.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let (_, from) = udp.recv_from(&mut bytes).unwrap();
        udp.send_to(b"pong", from).unwrap();
        asked.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        asked.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes, b"pong");
        a.delete();
        assert!(world.run(|| ask(v4)).is_none());
        assert!(!run("nft list ruleset").contains("8080"));
    });
}

#[test]
#[ignore = "needs root"]
fn loopback_of_the_host_stays_shut_for_containers() {
    in_new_host(|| {
        let store = Store::new();
        let a = store.start("a", &["bridge=one,publish=8080:80"]);
        let private = TcpListener::bind("127.0.0.1:9000").unwrap();
        std::thread::spawn(move || while private.accept().is_ok() {});
        let gateway = read_record(&store.0, "a").unwrap().unwrap().networks[0].gateways[0];
        a.netns.ip(&format!("route add 127.0.0.1 via {gateway} src {} table 99", a.ip()));
        a.netns.ip("rule add pref 0 to 127.0.0.1 lookup 99");
        a.netns.ip("rule add pref 1 lookup local");
        a.netns.ip("rule del pref 0 lookup local");
        a.netns.run(|| sysctl::set("ipv4/conf/all/route_localnet", "1").unwrap());
        assert_eq!(a.ask("127.0.0.1".parse().unwrap(), 9000), None);
    });
}

#[test]
#[ignore = "needs root"]
fn bad_requests_name_the_annotation_and_leave_nothing() {
    in_new_host(|| {
        let store = Store::new();
        let a = store.start("a", &["bridge=one,subnet=10.1.0.0/29,address=10.1.0.2,publish=8080:80"]);
        ip("link add wire type veth peer name wire1");
        ip("link add theirs type bridge");
        let refused = |network: &str, expected: &str| {
            let error = store.refused("bad", &[network], expected);
            assert_eq!(error.config_path(), Some("annotations[org.onggi.network.eth0]"), "{error}");
        };
        refused("bridge=one,address=10.1.0.2", "the address 10.1.0.2 is taken by container a");
        refused("bridge=one,address=10.1.0.1", "is the gateway's");
        refused("bridge=one,address=10.1.9.1", "is not a host address in the subnet 10.1.0.0/29");
        refused("bridge=one,subnet=10.1.0.0/24", "is not of the subnet");
        refused("bridge=two,subnet=10.1.0.0/16", "overlaps 10.1.0.0/29, which the host uses");
        refused("bridge=one,internal=yes", "bridge one is not internal");
        refused("bridge=wire", "wire is not a bridge, but veth");
        refused("bridge=theirs", "bridge theirs has no IPv4 address");
        refused("bridge=two,publish=8080:80", "port 0.0.0.0:8080/tcp is taken by container a");
        refused("bridge=two,publish=127.0.0.1:8080:80", "is taken by container a");
        let _listener = TcpListener::bind("127.0.0.1:9000").unwrap();
        refused("bridge=two,publish=9000:80", "port 0.0.0.0:9000/tcp is taken by a process of the host");
        refused("bridge=two,route=10.9.0.0/16@172.31.0.1", "add the route 10.9.0.0/16 via 172.31.0.1");
        // Ten could not be had of a /29; the fifth is the last.
        let more: Vec<_> = (0..4).map(|n| store.start(&format!("m{n}"), &["bridge=one"])).collect();
        refused("bridge=one", "every address of 10.1.0.0/29 of bridge one is taken");
        more.into_iter().for_each(Container::delete);
        a.delete();
    });
}

#[test]
#[ignore = "needs root"]
fn a_bridge_of_somebody_else_is_used_and_kept() {
    in_new_host(|| {
        let store = Store::new();
        ip("link add theirs type bridge");
        ip("addr add 10.5.0.1/24 dev theirs");
        ip("link set theirs up");
        let a = store.start("a", &["bridge=theirs"]);
        assert!(a.ip().to_string().starts_with("10.5.0."));
        a.delete();
        assert!(ip("addr show theirs").contains("10.5.0.1/24"));
        assert!(!run("nft list ruleset").contains("onggi"));
    });
}

#[test]
#[ignore = "needs root"]
fn new_bridges_of_one_container_get_subnets_of_their_own() {
    in_new_host(|| {
        let store = Store::new();
        let a = store.start("a", &["bridge=one", "bridge=two", "bridge=one,address6=auto"]);
        let b = store.start("b", &["bridge=two"]);
        b.serve(80);
        assert!(a.ask(b.ip(), 80).is_some());
        let subnets: Vec<_> = (0..3).map(|n| a.address(n, true).to_string()).collect();
        assert!(subnets[0].starts_with("10.208.") && subnets[1] != subnets[0], "{subnets:?}");
        assert_eq!(ip("-4 addr show one").matches("inet ").count(), 1);
        [a, b].into_iter().for_each(Container::delete);
        assert_eq!(ip("-o link").lines().count(), 1);
    });
}

#[test]
#[ignore = "needs root"]
fn bandwidth_is_what_was_asked_for() {
    in_new_host(|| {
        let store = Store::new();
        let a = store.start("a", &["bridge=one,ingress=20mbit,egress=10mbit"]);
        let b = store.start("b", &["bridge=one"]);
        let measure = |reverse: &str| {
            let mut server = Command::new("iperf3");
            server.args(["-s", "-1"]).stdout(std::process::Stdio::null());
            let mut server = b.netns.run(|| server.spawn().unwrap());
            std::thread::sleep(Duration::from_millis(300));
            let text = a.netns.run(|| run(&format!("iperf3 -J -t 4 -O 1 {reverse} -c {}", b.ip())));
            server.wait().unwrap();
            let report: serde_json::Value = serde_json::from_str(&text).unwrap();
            report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e6
        };
        for (reverse, limit) in [("", 10.0), ("-R", 20.0)] {
            // A busy machine may not reach it at once.
            let mut rates = std::iter::repeat_with(|| measure(reverse)).take(3);
            let near = |rate: f64| (rate - limit).abs() <= limit / 10.0;
            assert!(rates.any(near), "not near {limit} Mbit/s {reverse}");
        }
        a.delete();
        assert!(!ip("link").contains("ogi"));
    });
}

#[test]
#[ignore = "needs root"]
fn two_hundred_and_fifty_containers_share_a_bridge() {
    in_new_host(|| {
        let store = Store::new();
        let network = "bridge=one,subnet=10.1.0.0/24";
        let all: Vec<_> = (0..250).map(|n| store.start(&format!("c{n}"), &[])).collect();
        let begin = std::time::Instant::now();
        for container in &all {
            container.connect(&[network]).unwrap();
        }
        let made = begin.elapsed();
        let mut addresses: Vec<_> = all.iter().map(Container::ip).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 250);
        all[0].serve(80);
        assert!(all[249].ask(all[0].ip(), 80).is_some());
        let begin = std::time::Instant::now();
        all.into_iter().for_each(Container::delete);
        eprintln!("250 made in {made:?}, deleted in {:?}", begin.elapsed());
        assert_eq!(ip("-o link").lines().count(), 1);
    });
}

#[test]
#[ignore = "needs root"]
fn many_may_allocate_at_once() {
    in_new_host(|| {
        let store = Store::new();
        let host = fs::File::open("/proc/thread-self/ns/net").unwrap();
        let addresses = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (store, host, addresses) = (&store, &host, &addresses);
                scope.spawn(move || {
                    use std::os::fd::AsFd;
                    netlink::inside(host.as_fd(), || {
                        for n in 0..10 {
                            let one = store.start(
                                &format!("t{thread}-{n}"),
                                &["bridge=one,publish=0.0.0.0:7000:80"][..0],
                            );
                            one.connect(&["bridge=one"]).unwrap();
                            addresses.lock().unwrap().push(one.ip());
                            if n % 2 == 0 {
                                one.delete()
                            }
                        }
                        Ok(())
                    })
                    .unwrap();
                });
            }
        });
        let mut left = store_addresses(&store, "one");
        left.sort();
        left.dedup();
        assert_eq!((addresses.lock().unwrap().len(), left.len()), (40, 20));
    });
}

fn store_addresses(store: &Store, bridge: &str) -> Vec<String> {
    let names = Claims::lock(&store.0).unwrap().names(bridge).unwrap();
    names.into_iter().filter(|name| name.parse::<IpAddr>().is_ok()).collect()
}

/// Runs this test's own program again as the victim, and kills it at a random moment.
#[test]
#[ignore = "needs root"]
fn kill_9_in_the_middle_leaves_nothing_behind_a_delete() {
    if let Ok(store) = std::env::var("ONGGI_VICTIM_STORE") {
        let store = std::mem::ManuallyDrop::new(Store(store.into()));
        let victim = Container { store: &store, id: "victim".into(), netns: Namespace::new() };
        victim
            .connect(&["bridge=one,address6=auto,publish=8080-8090:80-90,egress=10mbit", "bridge=two"])
            .unwrap();
        return;
    }
    in_new_host(|| {
        const ROUNDS: u32 = 40;
        let store = Store::new();
        let whole = std::time::Instant::now();
        let mut longest = Duration::from_millis(60);
        for round in 0..ROUNDS {
            fs::create_dir_all(store.0.join("victim")).unwrap();
            let name = "network::tests::kill_9_in_the_middle_leaves_nothing_behind_a_delete";
            let begin = std::time::Instant::now();
            let mut victim = Command::new(std::env::current_exe().unwrap())
                .args(["--include-ignored", "--exact", name])
                .env("ONGGI_VICTIM_STORE", &store.0)
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            if round == 0 {
                assert!(victim.wait().unwrap().success());
                longest = begin.elapsed();
            } else {
                std::thread::sleep(longest * round / ROUNDS);
                victim.kill().unwrap();
                victim.wait().unwrap();
            }
            tear_down(&store.0, "victim", false).unwrap();
            fs::remove_dir_all(store.0.join("victim")).unwrap();
            let left =
                (ip("-o link").lines().count(), run("nft list ruleset"), store_addresses(&store, "one"));
            assert_eq!(left, (1, String::new(), Vec::new()), "round {round}");
        }
        eprintln!("{ROUNDS} rounds of {longest:?} in {:?}", whole.elapsed());
    });
}

#[test]
#[ignore = "needs root"]
fn addresses_of_containers_that_are_gone_are_free() {
    in_new_host(|| {
        let store = Store::new();
        let a = store.start("a", &["bridge=one,subnet=10.1.0.0/30"]);
        // Somebody removed the directory of the store by hand.
        fs::remove_dir_all(store.0.join("a")).unwrap();
        let b = store.start("b", &["bridge=one"]);
        assert_eq!(b.ip().to_string(), "10.1.0.2");
        drop(a);
        b.delete();
    });
}

#[test]
#[ignore = "needs root"]
fn a_delete_can_be_repeated_and_touches_nothing_else() {
    in_new_host(|| {
        let store = Store::new();
        let (a, b) = (
            store.start("a", &["bridge=one,publish=8080:80"]),
            store.start("b", &["bridge=one,publish=8081:80"]),
        );
        b.serve(80);
        // The same store, written in another way.
        tear_down(&store.0.join("b/.."), "a", false).unwrap();
        tear_down(&store.0, "a", false).unwrap();
        assert!(ask("127.0.0.1:8081".parse().unwrap()).is_some());
        assert!(a.netns.ip("-o link").lines().count() == 1);
        tear_down(&store.0.join("b/.."), "b", false).unwrap();
        assert_eq!(ip("-o link").lines().count(), 1);
    });
}

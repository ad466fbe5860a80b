//! Containers' networks on hosts that are not new: with routers, other bridges, rules and addresses
//! of others, and those who remember what was there before.

use super::testing::{in_new_host, ip, run};
use super::tests::{Container, Store, ask, outside, serve_in};
use super::*;
use std::io::Write;
use std::net::IpAddr;
use std::net::{SocketAddr, TcpListener, UdpSocket};

/// Neighbours remember for half a minute which interface had an address.
#[test]
#[ignore = "needs root"]
fn an_address_that_another_container_had_is_reached_at_once() {
    in_new_host(|| {
        let store = Store::new();
        let network = "bridge=one,subnet=10.1.0.0/24,subnet6=fd01::/64";
        let peer = store.start("peer", &[&format!("{network},address6=auto")]);
        let rounds = [
            ("address=10.1.0.9,address6=fd01::9", ""),
            ("address=10.1.0.9,address6=fd01::9", ""),
            ("address=10.1.0.9,address6=fd01::9", ",mac=02:00:00:00:00:01"),
            ("address=10.1.0.9,address6=fd01::9", ",mac=02:00:00:00:00:02"),
            ("address6=fd01::a", ""),
            ("address6=fd01::a", ""),
        ];
        for (round, (addresses, mac)) in rounds.into_iter().enumerate() {
            let id = format!("c{round}");
            let next = store.start(&id, &[&format!("{network},{addresses}{mac}")]);
            next.serve(80);
            let is_next = |answer: Option<String>| answer.is_some_and(|text| text.starts_with(&id));
            for ip in [next.address(0, true), next.address(0, false)] {
                assert!(is_next(ask(SocketAddr::new(ip, 80))), "the host, {ip}, {round}");
                // With an address of its own choice, the container's other neighbours are its affair.
                assert!(!mac.is_empty() || is_next(peer.ask(ip, 80)), "the peer, {ip}, {round}");
            }
            next.delete();
        }
        peer.delete();
    });
}

#[test]
#[ignore = "needs root"]
fn a_host_that_begins_to_forward_still_listens_to_its_router() {
    in_new_host(|| {
        let (store, _world) = (Store::new(), outside());
        let accepts = |name: &str| {
            fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/accept_ra")).unwrap().trim().to_owned()
        };
        let v4 = store.start("a", &["bridge=one"]);
        assert_eq!((accepts("out0"), accepts("default")), ("1".into(), "1".into()));
        let v6 = store.start("b", &["bridge=two,address6=auto"]);
        assert_eq!(
            (accepts("out0"), accepts("default"), accepts("two")),
            ("2".into(), "1".into(), "0".into())
        );
        // Nobody on a bridge becomes a router by saying so, not for containers without IPv6 either.
        let none = store.start("c", &["bridge=three,address=none"]);
        assert_eq!(["one", "two", "three"].map(accepts), ["0", "0", "0"]);
        for container in [&v4, &v6, &none] {
            assert_eq!(container.netns.run(|| accepts("eth0")), "0", "{}", container.id);
        }
        [v4, v6, none].into_iter().for_each(Container::delete);
    });
}

/// Answers to the sender of a packet are let in to the bridge that has the address.
#[test]
#[ignore = "needs root"]
fn a_container_cannot_speak_for_one_of_another_bridge() {
    in_new_host(|| {
        let (store, world) = (Store::new(), outside());
        let (a, b) = (
            store.start("a", &["bridge=one,address6=auto"]),
            store.start("b", &["bridge=two,address6=auto"]),
        );
        let to = ["192.0.2.2:9", "[2001:db8::2]:9"].map(|to| to.parse::<SocketAddr>().unwrap());
        let servers = to.map(|to| world.run(|| UdpSocket::bind(to).unwrap()));
        let heard = |from: IpAddr| {
            let to = to[usize::from(from.is_ipv6())];
            let sender = a.netns.run(|| UdpSocket::bind((from, 0)).unwrap());
            sender.send_to(b"x", to).unwrap();
            let server = &servers[usize::from(from.is_ipv6())];
            server.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            server.recv_from(&mut [0; 4]).is_ok()
        };
        // The second network's port; the answers leave by the first one.
        let both = store.start("both", &["bridge=one", "bridge=two,publish=8080:80"]);
        both.serve(80);
        assert!(world.run(|| ask("192.0.2.1:8080".parse().unwrap())).is_some());
        both.delete();
        for v4 in [true, false] {
            let (own, others) = (a.address(0, v4), b.address(0, v4));
            assert!(heard(own), "{own}");
            a.netns.ip(&format!("addr add {others} dev eth0 {}", if v4 { "" } else { "nodad" }));
            assert!(!heard(others), "{others}");
        }
        [a, b].into_iter().for_each(Container::delete);
    });
}

#[test]
#[ignore = "needs root"]
fn an_internal_container_reaches_its_bridge_and_no_other_address_of_the_host() {
    in_new_host(|| {
        let (store, _world) = (Store::new(), outside());
        let a = store.start("a", &["bridge=in,internal=yes,address6=auto"]);
        let b = store.start("b", &["bridge=in,internal=yes"]);
        b.serve(80);
        let listener = TcpListener::bind("[::]:9000").unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.write_all(b"host");
            }
        });
        for gateway in read_record(&store.0, "a").unwrap().unwrap().networks[0].gateways.clone() {
            let family = if gateway.is_ipv4() { "-4" } else { "-6" };
            a.netns.ip(&format!("{family} route add default via {gateway}"));
            assert!(a.ask(gateway, 9000).is_some(), "{gateway}");
        }
        assert_eq!(a.ask("192.0.2.1".parse().unwrap(), 9000), None);
        assert_eq!(a.ask("2001:db8::1".parse().unwrap(), 9000), None);
        assert!(a.ask(b.ip(), 80).is_some());
        [a, b].into_iter().for_each(Container::delete);
    });
}

#[test]
#[ignore = "needs root"]
fn a_bridge_of_somebody_else_is_left_as_it_is() {
    in_new_host(|| {
        let (store, other, world) = (Store::new(), Store::new(), outside());
        for command in
            ["link add theirs type bridge", "addr add 10.9.0.1/24 dev theirs", "link set theirs up"]
        {
            ip(command);
        }
        let settings = || {
            ["ipv4/conf/theirs/route_localnet", "ipv6/conf/theirs/accept_ra"]
                .map(|name| fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap())
        };
        let before = settings();
        world.ip("route add 10.9.0.0/24 via 192.0.2.1");
        let a = store.start("a", &["bridge=theirs,publish=8080:80"]);
        let b = other.start("b", &["bridge=theirs,address=10.9.0.77,publish=8081:80"]);
        a.serve(80);
        b.serve(80);
        assert_eq!(settings(), before);
        // What goes into it is its owner's to say.
        assert!(world.run(|| ask(SocketAddr::new(a.ip(), 80))).is_some());
        for port in [8080, 8081] {
            assert!(world.run(|| ask(([192, 0, 2, 1], port).into())).is_some(), "{port}");
        }
        assert!(a.ask([192, 0, 2, 1].into(), 8081).is_some(), "within the bridge");
        store.refused(
            "c",
            &["bridge=theirs,publish=127.0.0.1:8082:80"],
            "127.0.0.1 cannot be forwarded to it",
        );
        let refused = store.refused("c", &["bridge=theirs,internal=yes"], "was not made by onggi");
        assert_eq!(refused.config_path(), Some("annotations[org.onggi.network.eth0]"));
        a.delete();
        assert!(world.run(|| ask(([192, 0, 2, 1], 8081).into())).is_some());
        b.delete();
        assert!(ip("link").contains("theirs"));
        assert_eq!(run("nft list ruleset"), "");
    });
}

#[test]
#[ignore = "needs root"]
fn a_subnet_is_found_beside_an_office_that_has_all_of_10() {
    in_new_host(|| {
        let (store, _world) = (Store::new(), outside());
        ip("route add 10.0.0.0/8 via 192.0.2.2");
        ip("route add 10.7.7.0/24 via 192.0.2.2");
        ip("route add 128.0.0.0/1 via 192.0.2.2");
        let a = store.start("a", &["bridge=one"]);
        assert!(a.ip().to_string().starts_with("172.24."), "{}", a.ip());
        let b = store.start("b", &["bridge=two,subnet=10.1.2.0/24"]);
        store.refused("c", &["bridge=three,subnet=10.7.0.0/16"], "overlaps 10.7.7.0/24");
        [a, b].into_iter().for_each(Container::delete);
    });
}

#[test]
#[ignore = "needs root"]
fn packets_are_as_long_as_the_way_out_takes_them() {
    in_new_host(|| {
        let (store, _world) = (Store::new(), outside());
        ip("link set out0 mtu 1400");
        ip("route add default via 192.0.2.2");
        let mtu = |container: &Container| {
            container
                .netns
                .ip("link show eth0")
                .split_once("mtu ")
                .unwrap()
                .1
                .split(' ')
                .next()
                .unwrap()
                .to_owned()
        };
        let a = store.start("a", &["bridge=one"]);
        ip("link set out0 mtu 9000");
        let b = store.start("b", &["bridge=one"]);
        let c = store.start("c", &["bridge=one,mtu=1300"]);
        let inner = store.start("d", &["bridge=in,internal=yes"]);
        let large = store.start("e", &["bridge=large"]);
        let all = [&a, &b, &c, &inner, &large].map(mtu);
        assert_eq!(all, ["1400", "1400", "1300", "1500", "9000"]);
        [a, b, c, inner, large].into_iter().for_each(Container::delete);
    });
}

/// As docs/networks.md and `onggi check` say.
#[test]
#[ignore = "needs root"]
fn beside_docker_two_rules_let_a_bridge_through() {
    in_new_host(|| {
        let (store, world) = (Store::new(), outside());
        run("nft 'add table ip filter; add chain ip filter DOCKER-USER; \
             add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; \
             add rule ip filter FORWARD jump DOCKER-USER'");
        let a = store.start("a", &["bridge=one,publish=8080:80"]);
        serve_in(&world, "world", 80);
        a.serve(80);
        let outwards = || a.ask("192.0.2.2".parse().unwrap(), 80);
        let inwards = || world.run(|| ask("192.0.2.1:8080".parse().unwrap()));
        assert_eq!((outwards(), inwards()), (None, None));
        assert!(ask("127.0.0.1:8080".parse().unwrap()).is_some());
        for interface in ["iifname", "oifname"] {
            run(&format!("nft insert rule ip filter DOCKER-USER {interface} one accept"));
        }
        assert!(outwards().is_some() && inwards().is_some());
        a.delete();
    });
}

/// The kernel leads a flow as its first packet was led, for as long as packets keep coming.
#[test]
#[ignore = "needs root"]
fn a_udp_client_that_goes_on_sending_reaches_the_next_container() {
    in_new_host(|| {
        let (store, world) = (Store::new(), outside());
        let holder = store.start("holder", &["bridge=one,address6=auto"]);
        let clients = ["192.0.2.1:5353", "[2001:db8::1]:5353"].map(|to| {
            let from = if to.starts_with('[') { "[::]:7778" } else { "0.0.0.0:7777" };
            (world.run(|| UdpSocket::bind(from).unwrap()), to)
        });
        // Before anybody listens, while somebody does, in between, and again.
        for id in ["a", "b", "c"] {
            let send = || clients.each_ref().map(|(client, to)| client.send_to(id.as_bytes(), to).unwrap());
            send();
            let next = store.start(id, &["bridge=one,address6=auto,publish=5353:53/udp"]);
            let server = next.netns.run(|| UdpSocket::bind("[::]:53").unwrap());
            server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            send();
            let mut bytes = [0; 4];
            for _ in &clients {
                let (length, _) =
                    server.recv_from(&mut bytes).unwrap_or_else(|error| panic!("{id}: {error}"));
                assert_eq!(&bytes[..length], id.as_bytes());
            }
            next.delete();
        }
        holder.delete();
    });
}

/// The kernel takes several RCU grace periods to remove the interface of one that ends.
#[test]
#[ignore = "needs root"]
fn a_container_that_comes_again_at_once_does_not_wait() {
    in_new_host(|| {
        let store = Store::new();
        let holder = store.start("holder", &["bridge=one"]);
        let links = || ip("-o link").lines().count();
        let before = links();
        let mut renamed = 0;
        for round in 0..100 {
            if round >= 10 && renamed > 0 {
                break;
            }
            let again = store.start("again", &["bridge=one"]);
            assert!(again.netns.ip("-o link").contains("eth0"));
            renamed += ip("-o link").matches(": ogx").count();
            tear_down(&store.0, "again", true).unwrap();
        }
        if renamed == 0 {
            eprintln!("not shown: on this host each namespace had ended before the next container came");
        }
        let end = std::time::Instant::now() + Duration::from_secs(30);
        while links() > before {
            assert!(std::time::Instant::now() < end, "{}", ip("-o link"));
            std::thread::sleep(Duration::from_millis(20));
        }
        holder.delete();
    });
}

/// A container's namespace can be held by others, so that it does not end with it.
#[test]
#[ignore = "needs root"]
fn pairs_whose_namespace_is_held_are_removed_later() {
    in_new_host(|| {
        let store = Store::new();
        let holder = store.start("holder", &["bridge=one"]);
        let before = ip("-o link").lines().count();
        let held: Vec<_> = (0..3).map(|n| store.start(&format!("c{n}"), &["bridge=one"])).collect();
        for one in &held {
            tear_down(&store.0, &one.id, true).unwrap();
        }
        assert_eq!(ip("-o link").lines().count(), before + 3);
        std::thread::sleep(Duration::from_millis(1200));
        store.start("next", &["bridge=one"]).delete();
        assert_eq!(ip("-o link").lines().count(), before, "{}", ip("-o link"));
        assert_eq!(fs::read_dir(store.0.join(".network/left")).unwrap().count(), 0);
        holder.delete();
    });
}

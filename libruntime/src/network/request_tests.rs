use super::*;
use serde_json::json;

fn spec(annotations: &[(&str, &str)]) -> Spec {
    let annotations: std::collections::HashMap<_, _> = annotations.iter().copied().collect();
    serde_json::from_value(json!({
        "ociVersion": "1.3.0",
        "annotations": annotations,
        "linux": { "namespaces": [{ "type": "network" }] },
    }))
    .unwrap()
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let error = Network::parse(text, "here").unwrap_err().to_string();
    assert!(error.contains("here: ") && error.contains(expected), "{error}");
}

#[test]
fn everything_can_be_asked_for() {
    let text = "bridge=web,address=10.1.2.3,subnet=10.1.2.0/24,gateway=10.1.2.254,address6=auto,\
                route=10.0.0.0/8@10.1.2.9,route=fd00::/8,default=no,mtu=1400,mac=02:00:00:00:00:0A,\
                publish=127.0.0.1:8080:80,publish=[fd00::1]:53:53/udp,publish=9000-9009:7000-7009/sctp,\
                ingress=100mbit,egress=1gbit";
    let network = Network::parse(text, "x").unwrap();
    assert_eq!(network.address, AddressAssignment::Static("10.1.2.3".parse().unwrap()));
    assert_eq!(network.address6, AddressAssignment::Auto);
    assert_eq!(network.routes[0].via, Some("10.1.2.9".parse().unwrap()));
    assert_eq!((network.mtu, network.mac.as_deref()), (Some(1400), Some("02:00:00:00:00:0a")));
    assert_eq!((network.ingress, network.egress), (Some(100_000_000), Some(1_000_000_000)));
    let shown: Vec<_> = network.publish.iter().map(PortMapping::to_string).collect();
    assert_eq!(shown, ["127.0.0.1:8080:80/tcp", "[fd00::1]:53:53/udp", "9000-9009:7000-7009/sctp"]);
    assert!(!network.default_route);
}

#[test]
fn nothing_bad_gets_through() {
    refused("bogus=1", "bogus: unknown key");
    refused("bridge=a-name-that-is-too-long", "cannot name an interface");
    refused("bridge=a/b", "cannot name an interface");
    refused("bridge=x\";drop", "cannot name an interface");
    refused("mtu=1,mac=x", "mtu: \"1\" is not a number from 68");
    refused("mac=01:00:00:00:00:00", "mac: ");
    refused("address=10.1.2.3,subnet=10.1.3.0/24", "not a host address in 10.1.3.0/24");
    refused("address=10.1.2.255,subnet=10.1.2.0/24", "not a host address");
    refused("address=fd00::1", "no IPv4 address");
    refused("address=10.1.2.3,gateway=10.1.2.3", "it is the gateway's");
    refused("route=10.1.2.3/8", "bits set after its prefix");
    refused("publish=80", "is not [ADDRESS:]PORT");
    refused("publish=80-81:80", "more ports on one side");
    refused("publish=80-90:80-90,publish=85:1", "80-90:80-90/tcp has that port already");
    refused("alias=localhost", "is reserved");
    refused("publish=0:80", "is not [ADDRESS:]PORT");
    refused("publish=70000:80", "is not [ADDRESS:]PORT");
    refused("publish=[fd00::1]:80:80", "no address of that family");
    refused("internal=yes,publish=80:80", "the network is internal");
    refused("ingress=10", "less than 8kbit");
    refused("ingress=10mb", "is not a rate");
    refused("address=auto,address=auto", "there twice");
}

#[test]
fn every_problem_is_found_at_once() {
    let error = Network::parse("a=1,b=2,mtu=x", "here").unwrap_err();
    assert_eq!(error.diagnostics().len(), 3);
}

#[test]
fn annotations_and_typed_requests_come_together() {
    let spec =
        spec(&[("org.onggi.network.eth1", "bridge=b"), ("org.other", "x"), ("org.onggi.network.eth0", "")]);
    let networks = wanted(&spec, &[Network::default()], true).unwrap();
    let names: Vec<_> =
        networks.iter().map(|network| (network.name.as_str(), network.bridge.as_str())).collect();
    assert_eq!(names, [("eth0", "onggi0"), ("eth1", "b"), ("eth2", "onggi0")]);
}

/// Podman copies an image's labels into annotations.
#[test]
fn an_annotation_counts_only_where_the_operator_allows_it() {
    let spec = spec(&[("org.onggi.network.eth0", "bridge=b,publish=80:80"), ("org.other", "x")]);
    assert!(wanted(&spec, &[], false).unwrap().is_empty());
    assert_eq!(wanted(&spec, &[Network::default()], false).unwrap().len(), 1);
    let warnings = ignored(&spec);
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].config_path, "annotations[org.onggi.network.eth0]");
}

#[test]
fn nothing_is_wanted_by_default() {
    assert!(wanted(&spec(&[]), &[], true).unwrap().is_empty());
}

#[test]
fn problems_between_networks_are_found() {
    let error = wanted(
        &spec(&[
            ("org.onggi.network.eth0", "bridge=a,subnet=10.1.0.0/16"),
            ("org.onggi.network.eth1", "bridge=b,subnet=10.1.2.0/24"),
        ]),
        &[Network { name: "eth0".into(), ..Network::default() }],
        true,
    )
    .unwrap_err();
    let text = error.to_string();
    assert!(text.contains("annotations[org.onggi.network.eth1]: the subnet 10.1.2.0/24 overlaps"), "{text}");
    assert!(text.contains("network: the interface eth0 is there twice"), "{text}");
}

#[test]
fn a_joined_or_missing_namespace_gets_no_network() {
    let joined = json!({ "ociVersion": "1.3.0", "annotations": { "org.onggi.network.eth0": "" },
        "linux": { "namespaces": [{ "type": "network", "path": "/proc/1/ns/net" }] } });
    let error = wanted(&serde_json::from_value(joined).unwrap(), &[], true).unwrap_err();
    assert!(error.to_string().contains("a network namespace of its own"), "{error}");
}

#[test]
fn a_network_made_in_code_has_the_rules_of_one_from_text() {
    let spec: Spec = serde_json::from_str(
        r#"{"ociVersion":"1.2.0","root":{"path":"r"},"linux":{"namespaces":[{"type":"network"}]}}"#,
    )
    .unwrap();
    let told = |network: &Network| {
        wanted(&spec, std::slice::from_ref(network), false)
            .map_or_else(|error| error.to_string(), |_| String::new())
    };
    let good = Network::bridge("web").publish(8080, 80);
    assert_eq!(told(&good), "");
    type Change = fn(&mut Network);
    let wrong: [(&str, Change); 8] = [
        ("alias: ", |network| network.aliases.push("a\n10.0.0.1 other".into())),
        ("search: ", |network| network.search.push("a\nnameserver 10.0.0.1".into())),
        ("mac: ", |network| network.mac = Some("02:00".into())),
        ("mtu: ", |network| network.mtu = Some(u32::MAX)),
        ("ingress: ", |network| network.ingress = Some(1)),
        ("publish: ports 0 to ", |network| network.publish.push(PortMapping::new(0, 80))),
        ("publish: ports 9 to 8 ", |network| {
            network.publish.push(PortMapping { last: 8, ..PortMapping::new(9, 1) })
        }),
        ("publish: ports 1 to 65535 ", |network| {
            network.publish.push(PortMapping { last: u16::MAX, ..PortMapping::new(1, 2) });
        }),
    ];
    for (message, change) in wrong {
        let mut network = good.clone();
        change(&mut network);
        assert!(told(&network).contains(message), "{message}: {}", told(&network));
    }
}

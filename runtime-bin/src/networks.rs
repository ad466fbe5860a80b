//! `--network`, `--publish` and `--bandwidth`, of the verbs that plan a container. What the words
//! mean is libruntime's; here is only which network a flag belongs to.

use crate::cli::{Flag, Parsed};
use crate::failure::Failure;
use libruntime::Network;

pub const NETWORK: Flag = Flag::value(
    "network",
    "KEY=VALUE,…",
    "connect to a bridge: bridge=web,address=auto (repeatable; `onggi help explain` has the keys)",
);
pub const PUBLISH: Flag = Flag::value(
    "publish",
    "PORTS",
    "[ADDRESS:]PORT[-PORT]:PORT[-PORT][/tcp|udp|sctp] of the --network before it (repeatable)",
)
.short("p");
pub const BANDWIDTH: Flag = Flag::value(
    "bandwidth",
    "RATE",
    "limit of the --network before it: 100mbit each way, or ingress=1gbit,egress=100mbit",
);

/// What the help of `explain`, where networks can be tried, says of them.
pub const TEXT: &str = "\
A --network is KEY=VALUE pairs with commas between them:
   name=eth0                   the interface in the container (default: eth0, eth1, …)
   bridge=web                  made when missing (default: onggi0)
   address=auto|none|ADDRESS   IPv4, from the bridge's subnet (default: auto)
   address6=auto|none|ADDRESS  IPv6 (default: none)
   subnet=, gateway=           of the bridge, with subnet6= and gateway6= (default: a free one)
   route=10.0.0.0/8[@ADDRESS]  by the gateway if no other is named
   default=no                  no default route by this network
   internal=yes                nothing but the bridge and its own address can be reached
   keep=yes                    the bridge stays when its last container goes, until one says no
   mtu=, mac=                  of the interface (default: the bridge's; from the address)
   hosts=yes                   names of the bridge's containers are in /etc/hosts
   alias=NAME                  one more name of the container (repeatable)
   dns=ADDRESS|host, search=   lines of /etc/resolv.conf (repeatable)
   publish=8080:80             like --publish (repeatable; so is route)
   ingress=, egress=100mbit    like --bandwidth
--publish and --bandwidth belong to the --network before them, or to the first one. With the global
flag --network-annotations, an annotation org.onggi.network.NAME of config.json asks for an interface
NAME with the same words.";

/// The networks of the command line, in order.
pub fn of(args: &Parsed) -> Result<Vec<Network>, Failure> {
    let count = args.all(NETWORK.name).count();
    let place = |at: usize| if count == 1 { "--network".into() } else { format!("--network {}", at + 1) };
    let mut networks = Vec::with_capacity(count);
    for (at, text) in args.all(NETWORK.name).enumerate() {
        networks.push(Network::parse(text, &place(at))?);
    }
    let mut current: usize = 0;
    let mut seen = 0;
    for (name, value) in args.in_order(&[NETWORK.name, PUBLISH.name, BANDWIDTH.name]) {
        if name == NETWORK.name {
            (current, seen) = (seen, seen + 1);
            continue;
        }
        let Some(network) = networks.get_mut(current) else {
            return Err(Failure::usage(format!("--{name} {value} has no --network to belong to")));
        };
        let at = std::mem::replace(&mut network.at, format!("--{name} {value}"));
        if name == PUBLISH.name { network.add_publish(value) } else { network.set_bandwidth(value) }?;
        network.at = at;
    }
    Ok(networks)
}

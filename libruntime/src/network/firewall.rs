//! Isolation between bridges, masquerading and published ports: one table, `inet onggi`, whose rules never change. The
//! rules look into sets and maps, of which bridges and containers are elements, so the cost of a packet does not grow
//! with the number of containers.
//!
//! `nft` makes the table, from its own language: some builds lack JSON, and version 1.0.6 cannot read a map to an
//! address and a port in JSON. elements.rs changes the elements.

use super::attachment::{Attached, Attachment};
use super::claims::Claims;
use super::elements::{self, Element};
use super::netlink::Netlink;
use super::ports::{PortMapping, Protocol};
use super::programs;
use crate::error::{Error, ErrorKind, Result};
use crate::wait::DEADLINE;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::IpAddr;
use std::process::Command;

/// Where `nft` may be, also outside of a short PATH.
const PROGRAMS: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

const TAKES: &str = "this needs CAP_NET_ADMIN and a kernel with nftables and its nat, fib and ct expressions";

/// The table, which exists while there is a bridge. The order of rules matters. Elements have no timeout until they are
/// removed.
pub(super) const TABLE: &str = "
add table inet onggi
add set inet onggi bridges { type ifname; flags timeout; }
add set inet onggi pairs { type ifname . ifname; flags timeout; }
add set inet onggi internal { type ifname; flags timeout; }
add set inet onggi outward { type ifname; flags timeout; }
add map inet onggi any4 { type inet_proto . inet_service : ipv4_addr . inet_service; flags timeout; }
add map inet onggi any6 { type inet_proto . inet_service : ipv6_addr . inet_service; flags timeout; }
add map inet onggi bound4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; flags timeout; }
add map inet onggi bound6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; flags timeout; }
add set inet onggi self4 { type ipv4_addr . ipv4_addr; flags timeout; }
add set inet onggi self6 { type ipv6_addr . ipv6_addr; flags timeout; }
add chain inet onggi guard { type filter hook prerouting priority -300; }
add chain inet onggi input { type filter hook input priority 0; }
add chain inet onggi prerouting { type nat hook prerouting priority -100; }
add chain inet onggi output { type nat hook output priority -100; }
add chain inet onggi published
add chain inet onggi forward { type filter hook forward priority 0; }
add chain inet onggi postrouting { type nat hook postrouting priority 100; }
flush table inet onggi
# route_localnet, which published ports need, opens the host's loopback to its bridges.
add rule inet onggi guard iifname @bridges ip daddr 127.0.0.0/8 drop
add rule inet onggi input iifname @internal fib daddr type local fib daddr . iif type != local drop
# Nobody begins to speak for another bridge's containers: answers would be let in to them. (What answers
# comes by the way that the container has, and is not seen here.)
add rule inet onggi prerouting iifname @bridges fib saddr . iif oif missing drop
add rule inet onggi prerouting fib daddr type local jump published
add rule inet onggi output fib daddr type local jump published
# From ::1 no packet can leave the host; refused, those who ask `localhost` go on to 127.0.0.1.
add rule inet onggi published ip6 daddr ::1 return
add rule inet onggi published meta nfproto ipv4 dnat ip addr . port to ip daddr . meta l4proto . th dport map @bound4
add rule inet onggi published meta nfproto ipv6 dnat ip6 addr . port to ip6 daddr . meta l4proto . th dport map @bound6
add rule inet onggi published meta nfproto ipv4 dnat ip addr . port to meta l4proto . th dport map @any4
add rule inet onggi published meta nfproto ipv6 dnat ip6 addr . port to meta l4proto . th dport map @any6
# Within a bridge everybody may; into it come only answers and what is published.
add rule inet onggi forward iifname . oifname @pairs accept
add rule inet onggi forward iifname @internal drop
add rule inet onggi forward oifname @bridges ct state established,related accept
add rule inet onggi forward oifname @bridges ct status dnat accept
add rule inet onggi forward oifname @bridges drop
# A container that asks a published port of its own bridge must get the answer from there.
add rule inet onggi postrouting ct status dnat iifname . oifname @pairs masquerade
# So must one that asks itself; with br_netfilter that stays within the bridge and has no iifname.
add rule inet onggi postrouting ct status dnat ip saddr . ip daddr @self4 masquerade
add rule inet onggi postrouting ct status dnat ip6 saddr . ip6 daddr @self6 masquerade
add rule inet onggi postrouting oifname @bridges ip saddr 127.0.0.0/8 masquerade
add rule inet onggi postrouting iifname @outward oifname != @bridges masquerade
";

/// The sets that are all empty when the table is not in use.
const IN_USE: [&str; 5] = ["pairs", "any4", "any6", "bound4", "bound6"];

/// Makes the table if it does not exist. Returns whether it was made.
pub(super) fn make(claims: &Claims) -> Result<bool> {
    let missing = !elements::has_table()?;
    if missing {
        run(claims, TABLE)?;
    }
    Ok(missing)
}

/// Adds the bridge of a container's network to the rules, and the container's published ports.
pub(super) fn add(claims: &Claims, one: &Attachment) -> Result<()> {
    let sets: &[&str] = match one {
        // So that on its own bridge, too, connections to a published port pass through the host in both directions.
        Attachment { foreign: true, .. } => &["pairs"],
        one if one.network.internal => &["bridges", "pairs", "internal"],
        _ => &["bridges", "pairs", "outward"],
    };
    let mut all = of_bridge(&one.network.bridge).to_vec();
    all.retain(|element| sets.contains(&element.set));
    all.extend(of_container(one));
    loop {
        let done = elements::add(&all);
        match done.as_ref().map_err(|error| error.errno()) {
            // Another store has just removed the table.
            Err(Some(libc::ENOENT)) => run(claims, TABLE)?,
            // Claims of ports are within one store, and the table is common to all. Older kernels return EBUSY.
            Err(Some(libc::EEXIST | libc::EBUSY)) => {
                let text = "a published port is taken in the nftables table inet onggi";
                let hint = "by a container of another store: see `nft list table inet onggi`";
                return Err(Error::new(ErrorKind::AlreadyExists, text).with_hint(hint));
            }
            _ => return done.map_err(|error| error.with_hint(TAKES)),
        }
    }
}

/// Starts to close the container's published ports, which the kernel completes at its next tick.
pub(super) fn close(attached: &Attached) -> Result<()> {
    match &attached.networks.iter().flat_map(of_container).collect::<Vec<_>>()[..] {
        [] => Ok(()),
        some => elements::expire(some),
    }
}

/// Undoes [`add`], even if only a part was done, for a container and for bridges without containers. `last`: this store
/// has no other bridge. Dropping the returned socket takes some time, which can overlap with other slow work.
pub(super) fn forget(attached: &Attached, bridges: &[&str], last: bool) -> Result<Option<Netlink>> {
    let mut all: Vec<_> = attached.networks.iter().flat_map(of_container).collect();
    all.extend(bridges.iter().flat_map(|bridge| of_bridge(bridge)));
    if last && let Some(socket) = elements::remove_table(&IN_USE, &all)? {
        return Ok(Some(socket));
    }
    elements::remove(&all).map(|()| None)
}

/// The sets that a bridge may be in.
fn of_bridge(name: &str) -> [Element; 4] {
    [("bridges", 1), ("pairs", 2), ("internal", 1), ("outward", 1)].map(|(set, times)| Element {
        set,
        key: interface(name).repeat(times),
        value: Vec::new(),
    })
}

fn interface(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(libc::IFNAMSIZ, 0);
    key
}

/// All elements of the table for a container in a network.
fn of_container(one: &Attachment) -> Vec<Element> {
    let Attachment { network, addresses, .. } = one;
    let ports = network.publish.iter().flat_map(|publish| {
        let bindings = network.bindings(*publish);
        bindings.filter_map(|binding| port(one, *publish, binding))
    });
    let mut all: Vec<_> = ports.collect();
    if !all.is_empty() {
        all.extend(addresses.iter().map(|address| {
            let set = if address.ip().is_ipv4() { "self4" } else { "self6" };
            Element { set, key: bytes(address.ip()).repeat(2), value: Vec::new() }
        }));
    }
    all
}

fn port(one: &Attachment, publish: PortMapping, (ip, port): (IpAddr, u16)) -> Option<Element> {
    let inside = one.addresses.iter().find(|address| address.ip().is_ipv4() == ip.is_ipv4())?;
    let protocol = match publish.protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
        Protocol::Sctp => libc::IPPROTO_SCTP,
    };
    let (set, mut key) = match (ip.is_unspecified(), ip.is_ipv4()) {
        (true, true) => ("any4", Vec::new()),
        (true, false) => ("any6", Vec::new()),
        (false, true) => ("bound4", bytes(ip)),
        (false, false) => ("bound6", bytes(ip)),
    };
    // One byte and two bytes, each padded to four.
    let padded = |port: u16| [port.to_be_bytes(), [0; 2]].concat();
    key.extend([protocol as u8, 0, 0, 0]);
    key.extend(padded(port));
    let value = [bytes(inside.ip()), padded(publish.inside(port))].concat();
    Some(Element { set, key, value })
}

fn bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// An unnamed file: a pipe could block on a program that does not read or write it.
fn file_of(text: &str) -> Result<File> {
    let failed = |error| Error::io("make a file for nft", error);
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    let memfd = nix::sys::memfd::memfd_create(c"onggi-nft", flags);
    let mut file = File::from(memfd.map_err(|errno| failed(errno.into()))?);
    file.write_all(text.as_bytes()).and_then(|()| file.rewind()).map_err(failed)?;
    Ok(file)
}

/// Runs one transaction of `nft`. It holds the lock as its standard output, to which it writes nothing.
fn run(claims: &Claims, text: &str) -> Result<()> {
    let failed = |error| Error::io("make a file for nft", error);
    let mut said = file_of("")?;
    for program in PROGRAMS {
        let child = Command::new(program)
            .args(["-f", "-"])
            .stdin(file_of(text)?)
            .stdout(claims.hold()?)
            .stderr(said.try_clone().map_err(failed)?)
            .spawn();
        let mut child = match child {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.map_err(|error| Error::io(format!("execute {program}"), error))?,
        };
        if programs::await_end(&mut child, program, DEADLINE)?.success() {
            return Ok(());
        }
        said.rewind().map_err(failed)?;
        let mut text = String::new();
        let _ = said.read_to_string(&mut text);
        let first = text.lines().next().unwrap_or("no reason given").to_string();
        return Err(Error::external(format!("nft refused the rules of a network: {first}")).with_hint(TAKES));
    }
    Err(Error::unsupported("a network needs the program nft, which is not installed")
        .with_hint("install nftables"))
}

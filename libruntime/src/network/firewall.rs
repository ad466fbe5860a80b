//! Isolation between bridges, masquerading and published ports: one table of our own, `inet onggi`,
//! whose rules never change. They look into sets and maps, and bridges and containers are elements
//! of those, so a packet's cost does not grow with the number of containers.
//!
//! By `nft` and its own language: its JSON is left out of some builds, and version 1.0.6 cannot
//! read in JSON a map to an address and a port. Every word in here was checked by `request.rs`.
//! Deleting is "add, then delete" in one transaction, which succeeds if the element is gone too.

use super::claims::Claims;
use super::netlink::{Netlink, whole};
use super::request::{Network, Publish};
use super::{Attached, Attachment};
use crate::error::{Error, Result};
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use nix::errno::Errno;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

/// Where it may be for those whose PATH is short.
const PROGRAMS: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

/// The table, as it is while there is a bridge. The order of rules matters.
const TABLE: &str = "
add table inet onggi
add set inet onggi bridges { type ifname; }
add set inet onggi pairs { type ifname . ifname; }
add set inet onggi internal { type ifname; }
add set inet onggi outward { type ifname; }
add map inet onggi any4 { type inet_proto . inet_service : ipv4_addr . inet_service; }
add map inet onggi any6 { type inet_proto . inet_service : ipv6_addr . inet_service; }
add map inet onggi bound4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
add map inet onggi bound6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
add set inet onggi self4 { type ipv4_addr . ipv4_addr; }
add set inet onggi self6 { type ipv6_addr . ipv6_addr; }
add chain inet onggi guard { type filter hook prerouting priority -300; }
add chain inet onggi prerouting { type nat hook prerouting priority -100; }
add chain inet onggi output { type nat hook output priority -100; }
add chain inet onggi published
add chain inet onggi forward { type filter hook forward priority 0; }
add chain inet onggi postrouting { type nat hook postrouting priority 100; }
flush table inet onggi
# route_localnet, which published ports need, opens the host's loopback to its bridges.
add rule inet onggi guard iifname @bridges ip daddr 127.0.0.0/8 drop
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

/// Whether the table is there: somebody may have flushed all rules since.
pub(super) fn is_present() -> Result<bool> {
    // NFT_MSG_GETTABLE with the name, behind a struct nfgenmsg (linux/netfilter/nf_tables.h).
    const GET_TABLE: u16 = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8 | libc::NFT_MSG_GETTABLE as u16;
    const INET: u8 = 1;
    let mut body = vec![INET, 0, 0, 0];
    body.extend_from_slice(&10u16.to_ne_bytes());
    body.extend_from_slice(&1u16.to_ne_bytes());
    body.extend_from_slice(b"onggi\0\0\0");
    match Netlink::netfilter()?.exchange(&whole(GET_TABLE, NLM_F_REQUEST | NLM_F_ACK, &body)) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT) => Ok(false),
        Err(errno) => Err(Error::os("look for the nftables table inet onggi", errno)),
    }
}

/// Takes bridges under the rules, and leads published ports to the container.
pub(super) fn add<'a>(
    claims: &Claims,
    attached: &Attached,
    bridges: impl Iterator<Item = &'a Network>,
) -> Result<()> {
    let mut text = String::new();
    for network in bridges {
        let kind = if network.internal { "internal" } else { "outward" };
        for (set, key) in of_bridge(&network.bridge) {
            if !matches!(set, "internal" | "outward") || set == kind {
                let _ = writeln!(text, "add element inet onggi {set} {{ {key} }}");
            }
        }
    }
    for Element { set, key, value } in elements(attached) {
        let _ = writeln!(text, "add element inet onggi {set} {{ {key}{value} }}");
    }
    if text.is_empty() {
        return Ok(());
    }
    if !is_present()? {
        text.insert_str(0, TABLE);
    }
    run(claims, &text)
}

/// Undoes [`add`], wholly or in part done, for a container and for bridges that are gone.
pub(super) fn forget(claims: &Claims, attached: &Attached, bridges: &[&str]) -> Result<()> {
    let mut text = String::new();
    for Element { set, key, value } in elements(attached) {
        let _ = writeln!(text, "add element inet onggi {set} {{ {key}{value} }}");
        let _ = writeln!(text, "delete element inet onggi {set} {{ {key} }}");
    }
    for (set, key) in bridges.iter().flat_map(|bridge| of_bridge(bridge)) {
        let _ = writeln!(text, "add element inet onggi {set} {{ {key} }}");
        let _ = writeln!(text, "delete element inet onggi {set} {{ {key} }}");
    }
    if text.is_empty() || !is_present()? { Ok(()) } else { run(claims, &text) }
}

/// No bridge is left.
pub(super) fn remove(claims: &Claims) -> Result<()> {
    if is_present()? { run(claims, "delete table inet onggi\n") } else { Ok(()) }
}

/// The sets that a bridge may be in, and how it is written there.
fn of_bridge(name: &str) -> [(&'static str, String); 4] {
    let one = format!("\"{name}\"");
    [
        ("bridges", one.clone()),
        ("pairs", format!("{one} . {one}")),
        ("internal", one.clone()),
        ("outward", one),
    ]
}

/// One of a set, whose value is empty, or of a map.
struct Element {
    set: &'static str,
    key: String,
    value: String,
}

/// Everything that the table knows of a container.
fn elements(attached: &Attached) -> Vec<Element> {
    let mut all = Vec::new();
    for one in attached.networks.iter().filter(|one| !one.network.publish.is_empty()) {
        for ip in one.addresses.iter().map(|address| address.ip()) {
            let set = if ip.is_ipv4() { "self4" } else { "self6" };
            all.push(Element { set, key: format!("{ip} . {ip}"), value: String::new() });
        }
        for publish in &one.network.publish {
            all.extend(publish.bindings(&one.network).filter_map(|binding| port(one, *publish, binding)));
        }
    }
    all
}

fn port(one: &Attachment, publish: Publish, (ip, port): (IpAddr, u16)) -> Option<Element> {
    let inside = one.addresses.iter().find(|address| address.ip().is_ipv4() == ip.is_ipv4())?;
    let value = format!(" : {} . {}", inside.ip(), publish.inside(port));
    let service = format!("{} . {port}", publish.protocol);
    let (set, key) = match (ip.is_unspecified(), ip.is_ipv4()) {
        (true, true) => ("any4", service),
        (true, false) => ("any6", service),
        (false, true) => ("bound4", format!("{ip} . {service}")),
        (false, false) => ("bound6", format!("{ip} . {service}")),
    };
    Some(Element { set, key, value })
}

/// Runs one transaction. It keeps the lock, as its standard output, where nothing is written.
fn run(claims: &Claims, text: &str) -> Result<()> {
    for program in PROGRAMS {
        let child = Command::new(program)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(claims.hold()?)
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match child {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.map_err(|error| Error::io(format!("execute {program}"), error))?,
        };
        if let Some(mut input) = child.stdin.take() {
            // When it does not read to its end, it says why.
            let _ = input.write_all(text.as_bytes());
        }
        let output =
            child.wait_with_output().map_err(|error| Error::io(format!("wait for {program}"), error))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let first = said.lines().next().unwrap_or("no reason given").to_string();
        return Err(Error::external(format!("nft refused the rules of a network: {first}")).with_hint(
            "it takes CAP_NET_ADMIN and a kernel with nftables and its nat, fib and ct expressions",
        ));
    }
    Err(Error::unsupported("a network takes the program nft, which is not there")
        .with_hint("install nftables"))
}

//! Bridges: created when missing, and removed when the last claim on them is gone if onggi has created them. A bridge's
//! alias says which store owns it, and its addresses give its subnets: the kernel's state is the only one, and cannot
//! become inconsistent with another.

use super::attachment::Attachment;
use super::claims::Claims;
use super::mac::{hash, mac, mac_bytes};
use super::netlink::{Link, Netlink, Outcome, Route, link_message};
use super::ports::PortMapping;
use super::request::Network;
use super::subnet::Subnet;
use super::sysctl;
use super::values::AddressAssignment;
use crate::error::{Error, ErrorKind, Result};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo};
use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// The pools for automatic IPv4 subnets of 4,096 addresses each, in this order: the first subnet, and how many there
/// are.
const POOLS: [(Ipv4Addr, u32); 3] = [
    (Ipv4Addr::new(10, 208, 0, 0), 256),
    (Ipv4Addr::new(172, 24, 0, 0), 128),
    (Ipv4Addr::new(192, 168, 128, 0), 8),
];
const POOL_PREFIX: u8 = 20;

/// The beginning of the alias of a bridge that was made for the containers of a store.
const ALIAS: &str = "onggi bridge of ";
/// The beginning of the alias of such a bridge that stays when no container is connected to it.
const KEPT: &str = "onggi bridge kept by ";

pub(super) struct Bridge {
    name: String,
    /// Its own addresses, which are the containers' gateways.
    pub subnets: [Option<Subnet>; 2],
    /// The subnets that it does not have yet.
    missing: Vec<Subnet>,
    /// The MTU of its own and the containers' interfaces.
    pub mtu: Option<u32>,
    /// onggi has not made it: it is brought up, and nothing else about it is changed.
    pub foreign: bool,
}

/// The hardware address of bridges that were made for containers of this store. It identifies the store, and whether
/// the bridge is internal, because unlike an alias it is set from the moment the bridge exists.
fn own_mac(claims: &Claims, name: &str, internal: bool) -> Vec<u8> {
    let key = hash(&[claims.store().as_os_str().as_encoded_bytes(), name.as_bytes()]);
    let mut bytes = mac_bytes(&mac(key));
    // Another bit of the part for local use.
    bytes[0] |= u8::from(internal) << 2;
    bytes
}

fn is_ours(link: &Link, claims: &Claims) -> bool {
    link.kind == "bridge"
        && [false, true].iter().any(|internal| link.mac == own_mac(claims, &link.name, *internal))
}

/// Plans the bridge of a network, and claims it under the name `port`. `before` are the bridges of the container's
/// other networks, which may not exist yet.
pub(super) fn plan(
    host: &mut Netlink,
    claims: &Claims,
    id: &str,
    network: &Network,
    port: &str,
    before: &[Bridge],
) -> Result<Bridge> {
    let name = &network.bridge;
    let failed = |errno| Error::os(format!("look for bridge {name}"), errno);
    let found = host.link(name).map_err(failed)?;
    if let Some(link) = &found {
        check_link(link, claims, network)?;
    }
    let ours = found.as_ref().is_none_or(|link| is_ours(link, claims));
    let addresses = host.addresses().map_err(failed)?;
    let routes = host.routes().map_err(|errno| Error::os("list routes", errno))?;
    let mut used: Vec<_> =
        routes.iter().filter(|route| !route.by_gateway).filter_map(|route| route.to).collect();
    // VPNs often route the two halves of the address space instead of setting a default route.
    let far = routes.iter().filter(|route| route.by_gateway).filter_map(|route| route.to);
    let behind: Vec<_> = far.filter(|subnet| subnet.length() >= 8).collect();
    used.extend(addresses.iter().map(|address| address.subnet));
    used.extend(before.iter().flat_map(|bridge| bridge.subnets).flatten());
    let has = |v4: bool| {
        let planned = before.iter().filter(|bridge| bridge.name == *name);
        let planned = planned.flat_map(|bridge| bridge.subnets).flatten();
        let own = addresses.iter().filter(|address| {
            address.global && found.as_ref().is_some_and(|link| link.index == address.index)
        });
        let mut all = own.map(|address| address.subnet).chain(planned);
        all.find(|subnet| subnet.ip().is_ipv4() == v4)
    };
    let mtu = match &found {
        Some(link) => Some(link.mtu),
        None if network.internal => None,
        None => default_mtu(host, &routes)?,
    };
    let mut bridge =
        Bridge { name: name.clone(), subnets: [None; 2], missing: Vec::new(), mtu, foreign: !ours };
    for (subnet, v4) in bridge.subnets.iter_mut().zip([true, false]) {
        let (wish, asked, gateway) = network.of_family(v4);
        *subnet = match has(v4) {
            _ if *wish == AddressAssignment::None => None,
            Some(has) => Some(check_subnet(name, has, asked, gateway)?),
            None if ours => {
                let new = choose([&used, &behind], claims, name, v4, asked, gateway)?;
                bridge.missing.push(new);
                Some(new)
            }
            None => Some(foreign(name, v4, asked, gateway)?),
        };
    }
    claims.take(name, port, id)?.map_err(|who| {
        Error::new(ErrorKind::AlreadyExists, format!("interface {port} is taken by container {who}"))
    })?;
    Ok(bridge)
}

/// The MTU of the host's default-route interface. A bridge with a larger one would lose packets, where path MTU
/// discovery does not work.
fn default_mtu(host: &mut Netlink, routes: &[Route]) -> Result<Option<u32>> {
    let mut least = None;
    for index in routes.iter().filter(|route| route.to.is_none()).filter_map(|route| route.through) {
        let link =
            host.link_at(index).map_err(|errno| Error::os("look up the default-route interface", errno))?;
        // The minimum of IPv6.
        let mtu = link.map(|link| link.mtu).filter(|mtu| *mtu >= 1280);
        least = least.into_iter().chain(mtu).min();
    }
    Ok(least)
}

/// Creates or completes the bridge, and returns its index. The firewall's rules for it are in place already: even after
/// a crash, no container is connected to a bridge without rules.
pub(super) fn make(host: &mut Netlink, claims: &Claims, network: &Network, bridge: &Bridge) -> Result<u32> {
    let name = &bridge.name;
    let link = host.link(name).map_err(|errno| Error::os(format!("look for bridge {name}"), errno))?;
    let index = match &link {
        Some(link) => link.index,
        None => create(host, claims, bridge, network.internal)?,
    };
    if !bridge.foreign {
        let alias = link.as_ref().map(|link| link.alias.as_str()).unwrap_or_default();
        settle(host, claims, network, (index, alias))?;
    }
    for address in &bridge.missing {
        host.add_address(index, *address)
            .map_err(|errno| Error::os(format!("give bridge {name} the address {address}"), errno))?;
    }
    if link.is_none_or(|link| !link.up) {
        host.bring_up(index).map_err(|errno| Error::os(format!("bring bridge {name} up"), errno))?;
    }
    if !network.internal {
        sysctl::set("ipv4/ip_forward", "1")?;
        if network.address6 != AddressAssignment::None {
            forward_ipv6()?;
        }
    }
    if !network.publish.is_empty() && network.address != AddressAssignment::None && !bridge.foreign {
        // Allows connections from 127.0.0.1 to a container; firewall.rs drops the other direction.
        sysctl::set(&format!("ipv4/conf/{name}/route_localnet"), "1")?;
    }
    Ok(index)
}

/// Sets what one of onggi's bridges has besides its addresses: `is` is its index and its alias.
fn settle(host: &mut Netlink, claims: &Claims, network: &Network, is: (u32, &str)) -> Result<()> {
    let (name, (index, alias)) = (&network.bridge, is);
    let kept = (!alias.is_empty()).then(|| alias.starts_with(KEPT));
    let keep = network.keep.or(kept).unwrap_or_default();
    if kept != Some(keep) {
        mark(host, claims, index, keep)
            .map_err(|errno| Error::os(format!("give bridge {name} an alias"), errno))?;
    }
    // IPv6 may be disabled for new interfaces.
    if network.address6 != AddressAssignment::None {
        sysctl::set(&format!("ipv6/conf/{name}/disable_ipv6"), "0")?;
    }
    // A container must not become the host's router by router advertisements.
    sysctl::set(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
    // During duplicate address detection of its link-local address, it resolves no neighbours.
    sysctl::set(&format!("ipv6/conf/{name}/accept_dad"), "0")
}

/// A host that forwards ignores its own router's advertisements and loses its default route, unless each interface is
/// set to accept them all the same (accept_ra in ip-sysctl.rst).
fn forward_ipv6() -> Result<()> {
    let conf = Path::new("/proc/sys/net/ipv6/conf");
    let is =
        |setting: &str, value| fs::read_to_string(conf.join(setting)).is_ok_and(|now| now.trim() == value);
    if is("all/forwarding", "0") {
        for entry in fs::read_dir(conf).into_iter().flatten().flatten() {
            let accept_ra = format!("{}/accept_ra", entry.file_name().display());
            // `default` is for new interfaces, which may belong to anything.
            let there = entry.file_name() != "all" && entry.file_name() != "default";
            if there && is(&accept_ra, "1") {
                sysctl::set(&format!("ipv6/conf/{accept_ra}"), "2")?;
            }
        }
    }
    sysctl::set("ipv6/conf/all/forwarding", "1")
}

fn check_link(link: &Link, claims: &Claims, network: &Network) -> Result<()> {
    let name = &link.name;
    if link.kind != "bridge" {
        let kind = if link.kind.is_empty() { "a device" } else { &link.kind };
        return Err(Error::new(ErrorKind::InvalidConfig, format!("{name} is not a bridge, but {kind}"))
            .with_hint("name another bridge; one that does not exist is created"));
    }
    if !is_ours(link, claims) {
        return check_foreign(link, network);
    }
    if link.mac != own_mac(claims, name, network.internal) {
        let (is, asked) = if network.internal { ("is not", "is") } else { ("is", "is not") };
        return Err(invalid(format!("bridge {name} {is} internal, and the network {asked}")));
    }
    Ok(())
}

fn check_foreign(link: &Link, network: &Network) -> Result<()> {
    let name = &link.name;
    if [ALIAS, KEPT].iter().any(|alias| link.alias.starts_with(alias)) {
        return Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("bridge {name} belongs to another store: {}", link.alias),
        )
        .with_hint("stores do not know of each other's addresses; name another bridge"));
    }
    let loopback = |publish: &PortMapping| publish.address.is_some_and(|ip| ip.is_loopback());
    if network.publish.iter().any(loopback) {
        // It would open the host's loopback addresses to everything else on the bridge.
        return Err(invalid(format!(
            "publish: bridge {name} was not made by onggi, so 127.0.0.1 cannot be forwarded to it"
        ))
        .with_hint("publish on another address of the host"));
    }
    if network.internal {
        return Err(invalid(format!(
            "bridge {name} was not made by onggi, and its owner decides what it reaches"
        ))
        .with_hint("only a bridge that is made for it can be internal"));
    }
    Ok(())
}

/// Checks that a requested subnet is the one that the bridge has.
fn check_subnet(name: &str, has: Subnet, asked: Option<Subnet>, gateway: Option<IpAddr>) -> Result<Subnet> {
    let network = |subnet: Subnet| (subnet.network(), subnet.length());
    if asked.is_some_and(|asked| network(asked) != network(has)) {
        let asked = asked.map(|asked| asked.to_string()).unwrap_or_default();
        return Err(invalid(format!("bridge {name} has {has}, which is not of the subnet {asked}")));
    }
    match gateway {
        Some(gateway) if !has.contains(gateway) => {
            Err(invalid(format!("the gateway {gateway} is outside of {has} of bridge {name}")))
        }
        _ => Ok(has),
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

fn foreign(name: &str, v4: bool, asked: Option<Subnet>, gateway: Option<IpAddr>) -> Result<Subnet> {
    let family = if v4 { "IPv4" } else { "IPv6" };
    match (asked, gateway) {
        (Some(asked), Some(gateway)) => Ok(asked.with(gateway)),
        _ => Err(invalid(format!("bridge {name} has no {family} address"))
            .with_hint("onggi has not made it: give it an address, or name both subnet and gateway")),
    }
}

/// The address of a new bridge, in a subnet that the host does not use otherwise. `used` are the host's own subnets and
/// those behind a gateway. A requested subnet may overlap a route through a gateway, because offices route 10.0.0.0/8
/// as a whole.
fn choose(
    used: [&[Subnet]; 2],
    claims: &Claims,
    name: &str,
    v4: bool,
    asked: Option<Subnet>,
    gateway: Option<IpAddr>,
) -> Result<Subnet> {
    let free = |subnet: &Subnet| !used.concat().iter().any(|other| other.overlaps(*subnet));
    let subnet = match asked {
        Some(asked) => {
            let [own, behind] = used;
            let inner = behind.iter().filter(|other| other.length() >= asked.length());
            let other = own.iter().chain(inner).find(|other| other.overlaps(asked));
            if let Some(other) = other {
                return Err(invalid(format!("the subnet {asked} overlaps {other}, which the host uses"))
                    .with_hint("see `ip route` and `ip address`"));
            }
            asked
        }
        None => {
            let mut all = (0..POOLS.iter().map(|(_, count)| count).sum())
                .filter_map(|number| candidate(claims, name, v4, number));
            all.find(free).ok_or_else(|| {
                Error::new(ErrorKind::Unsupported, format!("no subnet is free for bridge {name}"))
                    .with_hint("name one: subnet=10.1.2.0/24")
            })?
        }
    };
    Ok(subnet.with(gateway.unwrap_or_else(|| subnet.at(1))))
}

fn candidate(claims: &Claims, name: &str, v4: bool, number: u32) -> Option<Subnet> {
    if v4 {
        let mut all =
            POOLS.iter().flat_map(|(first, count)| (0..*count).map(|number| (first.to_bits(), number)));
        let (first, number) = all.nth(number as usize)?;
        let at = first + (number << (32 - POOL_PREFIX));
        return Subnet::new(Ipv4Addr::from_bits(at).into(), POOL_PREFIX);
    }
    // A unique local address: its 40 bits are most probably nobody else's (RFC 4193).
    let store = claims.store().as_os_str().as_encoded_bytes();
    let key = u128::from(hash(&[store, name.as_bytes(), &number.to_be_bytes()]) & 0xff_ffff_ffff);
    Subnet::new(Ipv6Addr::from_bits(0xfd << 120 | key << 80).into(), 64)
}

fn create(host: &mut Netlink, claims: &Claims, bridge: &Bridge, internal: bool) -> Result<u32> {
    let name = &bridge.name;
    let failed = |errno| Error::os(format!("create bridge {name}"), errno);
    let mut message = link_message(0);
    // By default a bridge takes its MAC address from its ports, and would change it while it is in use.
    message.attributes = vec![
        LinkAttribute::IfName(name.to_string()),
        LinkAttribute::Address(own_mac(claims, name, internal)),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
    ];
    message.attributes.extend(bridge.mtu.map(LinkAttribute::Mtu));
    host.new_link(message).map_err(failed)?;
    let link = host.link(name).map_err(failed)?;
    link.map(|link| link.index).ok_or_else(|| failed(nix::errno::Errno::ENODEV))
}

/// Sets the alias, for administrators and other stores. The kernel does not accept an alias for a new link.
fn mark(host: &mut Netlink, claims: &Claims, index: u32, keep: bool) -> Outcome<()> {
    let alias = if keep { KEPT } else { ALIAS };
    let alias: String = format!("{alias}{}", claims.store().display()).chars().take(250).collect();
    let mut message = link_message(index);
    message.attributes.push(LinkAttribute::IfAlias(alias));
    host.set_link(message)
}

pub(super) fn give_addresses(claims: &Claims, id: &str, one: &mut Attachment, bridge: &Bridge) -> Result<()> {
    let network = &one.network;
    for (subnet, v4) in bridge.subnets.into_iter().zip([true, false]) {
        let Some(subnet) = subnet else { continue };
        let (wish, _, gateway) = network.of_family(v4);
        let gateway = gateway.unwrap_or(subnet.ip());
        let address = match wish {
            AddressAssignment::None => continue,
            AddressAssignment::Auto => allocate(claims, id, &one.host, &network.bridge, subnet, gateway)?,
            AddressAssignment::Static(address) => {
                fixed(claims, id, &network.bridge, subnet, gateway, *address)?;
                *address
            }
        };
        one.addresses.push(subnet.with(address));
        one.gateways.push(gateway);
    }
    Ok(())
}

fn fixed(claims: &Claims, id: &str, bridge: &str, subnet: Subnet, gateway: IpAddr, ip: IpAddr) -> Result<()> {
    let range = format!("{}/{}", subnet.network(), subnet.length());
    if !subnet.is_usable(ip) {
        return Err(invalid(format!(
            "the address {ip} is not a host address in the subnet {range} of bridge {bridge}"
        )));
    }
    if ip == subnet.ip() || ip == gateway {
        return Err(invalid(format!("the address {ip} is the gateway's of bridge {bridge}")));
    }
    claims.take(bridge, &ip.to_string(), id)?.map_err(|who| {
        Error::new(ErrorKind::AlreadyExists, format!("the address {ip} is taken by container {who}"))
            .with_hint("choose another address, or `auto`")
    })
}

/// The first free address after one that depends on the container: a container that is created again gets the same
/// address, and the next container does not get an address that was just released.
fn allocate(
    claims: &Claims,
    id: &str,
    host: &str,
    bridge: &str,
    subnet: Subnet,
    gateway: IpAddr,
) -> Result<IpAddr> {
    let last = subnet.last();
    let begin = u128::from(hash(&[id.as_bytes(), host.as_bytes()])) % last.max(1);
    for again in [false, true] {
        let taken: HashSet<String> = claims.names(bridge)?.into_iter().collect();
        // One more than the claimed addresses, the bridge's own, the gateway's and both ends of the subnet: one of
        // these is free.
        let enough = (taken.len() as u128 + 5).min(last + 1);
        for number in 0..enough {
            let ip = subnet.at((begin + number) % last.saturating_add(1).max(1));
            let free = subnet.is_usable(ip) && ip != gateway && ip != subnet.ip();
            if free && !taken.contains(&ip.to_string()) && claims.take(bridge, &ip.to_string(), id)?.is_ok() {
                return Ok(ip);
            }
        }
        if !again {
            claims.release_dead(bridge)?;
        }
    }
    let range = format!("{}/{}", subnet.network(), subnet.length());
    Err(Error::new(ErrorKind::AlreadyExists, format!("every address of {range} of bridge {bridge} is taken"))
        .with_hint("delete containers, or use a bridge with a larger subnet"))
}

/// Whether a bridge that no container claims can be removed: it is onggi's, nothing is connected to it, and it is not
/// to be kept.
pub(super) fn is_removable(host: &mut Netlink, claims: &Claims, name: &str) -> Result<bool> {
    let failed = |errno| Error::os(format!("look for bridge {name}"), errno);
    match host.link(name).map_err(failed)? {
        // Something else may have been connected to it by hand.
        Some(link) if is_ours(&link, claims) => Ok(!link.alias.starts_with(KEPT)
            && host.ports(link.index).map_err(failed)?.iter().all(Link::is_dying)),
        _ => Ok(true),
    }
}

/// Removes it, if onggi has made it for this store.
pub(super) fn remove(host: &mut Netlink, claims: &Claims, name: &str) -> Result<()> {
    let failed = |errno| Error::os(format!("remove bridge {name}"), errno);
    match host.link(name).map_err(failed)? {
        Some(link) if is_ours(&link, claims) => host.remove_link(name).map_err(failed),
        _ => Ok(()),
    }
}

//! The veth pair of one container and network, and what is inside of the container: addresses,
//! routes, loopback. The pair is made in one request, with both ends where they belong.

use super::attachment::{Attached, Attachment};
use super::mac::mac_bytes;
use super::netlink::{Netlink, Outcome, link_message};
use super::subnet::Subnet;
use super::sysctl;
use crate::error::{Error, Result};
use crate::sys::interfaces;
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Makes the pair: one end is a port of the bridge, the other is in the container.
pub(super) fn link(
    host: &mut Netlink,
    id: &str,
    one: &Attachment,
    bridge: u32,
    netns: BorrowedFd,
) -> Result<()> {
    let failed =
        |errno| Error::os(format!("create the veth pair {} and {}", one.host, one.network.name), errno);
    match host.new_link(pair(one, bridge, netns)) {
        // The name is derived from our id alone: it is that of somebody before us.
        Err(Errno::EEXIST) => {
            give_way(host, &one.host).map_err(failed)?;
            host.new_link(pair(one, bridge, netns)).map_err(failed)?;
        }
        other => other.map_err(failed)?,
    }
    let mut message = link_message(0);
    message.attributes.push(LinkAttribute::IfName(one.host.clone()));
    // For people who look at the host; an id may be longer than an alias can be.
    let alias: String = format!("onggi container {id}").chars().take(250).collect();
    message.attributes.push(LinkAttribute::IfAlias(alias));
    if !one.network.publish.is_empty() {
        // Where bridges filter by IP rules (br_netfilter), a container that asks its own published
        // port is answered within the bridge, through the port that it asked by.
        let hairpin = InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)]);
        let info = vec![LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(hairpin)];
        message.attributes.push(LinkAttribute::LinkInfo(info));
    }
    host.change_link(message).map_err(failed)?;
    for address in &one.addresses {
        // It may have been another's a moment ago, and a neighbour is not asked anew for half a minute.
        host.change_neighbour(bridge, address.ip(), mac_bytes(&one.mac)).map_err(failed)?;
    }
    Ok(())
}

/// Frees the name of a pair. One that goes by itself takes several RCU grace periods for it; it gets
/// another name. One that does not is left from somebody who was killed.
fn give_way(host: &mut Netlink, name: &str) -> Outcome<()> {
    match host.link(name)? {
        Some(link) if link.is_dying() || link.is_let_go() => {
            let mut message = link_message(link.index);
            message.attributes.push(LinkAttribute::IfName(format!("ogx{}", link.index)));
            match host.set_link(message) {
                Err(Errno::ENODEV) => Ok(()),
                // One that is up has its name for ever before Linux 6.2.
                Err(Errno::EBUSY) => host.remove_link(name),
                other => other,
            }
        }
        _ => host.remove_link(name),
    }
}

/// Removes a pair, whose container has ended.
///
/// To remove it here takes several RCU grace periods, 10 to 30 ms. The kernel does it by itself when
/// the container's namespace goes: one that is going already is left to it. So is a `young` one,
/// whose end the kernel puts off for such a period after it was made; what is left for that long is
/// down, no port of a bridge, and has no address.
pub(super) fn unlink(host: &mut Netlink, name: &str, young: bool) -> Outcome<()> {
    match host.link(name)? {
        None => Ok(()),
        Some(link) if link.is_dying() => Ok(()),
        Some(link) if young => {
            let mut message = link_message(link.index);
            message.header.change_mask = LinkFlags::Up;
            message.attributes.push(LinkAttribute::Controller(0));
            match host.set_link(message) {
                Err(Errno::ENODEV) => Ok(()),
                other => other,
            }
        }
        Some(_) => host.remove_link(name),
    }
}

fn pair(one: &Attachment, bridge: u32, netns: BorrowedFd) -> LinkMessage {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(one.network.name.clone()),
        LinkAttribute::Address(mac_bytes(&one.mac)),
        LinkAttribute::NetNsFd(netns.as_raw_fd()),
    ];
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = vec![LinkAttribute::IfName(one.host.clone()), LinkAttribute::Controller(bridge)];
    for side in [&mut peer, &mut message] {
        side.attributes.extend(one.network.mtu.map(LinkAttribute::Mtu));
    }
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    message
}

/// Everything inside of the container, where the calling thread is.
///
/// Not by netlink: the kernel frees a closed socket of that kind an RCU grace period later, which
/// would keep the namespace of a container that ends at once, and us from seeing that it dies.
pub(super) fn configure(attached: &Attached) -> Result<()> {
    let inside = Inside { v4: datagrams(AddressFamily::Inet)?, v6: datagrams(AddressFamily::Inet6).ok() };
    interfaces::bring_interface_up(inside.v4.as_fd(), "lo")
        .map_err(|errno| Error::os("bring lo up in the container", errno))?;
    let mut has_default = [false; 2];
    for one in &attached.networks {
        inside.interface(one, &mut has_default).map_err(|error| error.at(&one.network.at))?;
    }
    Ok(())
}

fn datagrams(family: AddressFamily) -> Result<OwnedFd> {
    socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|errno| Error::os("socket in the container's network namespace", errno))
}

/// Sockets of the container's namespace.
struct Inside {
    v4: OwnedFd,
    /// Not on kernels without IPv6.
    v6: Option<OwnedFd>,
}

impl Inside {
    fn of_family(&self, ip: IpAddr) -> Outcome<BorrowedFd<'_>> {
        let socket = if ip.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() };
        socket.map(AsFd::as_fd).ok_or(Errno::EAFNOSUPPORT)
    }

    fn interface(&self, one: &Attachment, has_default: &mut [bool; 2]) -> Result<()> {
        let name = one.network.name.as_str();
        let failed = |what: String| move |errno| Error::os(what, errno);
        let index = interfaces::interface_index(self.v4.as_fd(), name)
            .map_err(failed(format!("look in the container for {name}")))?;
        // Another container on the bridge must not become its router by saying so.
        sysctl::set(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
        if one.addresses.iter().any(|address| address.ip().is_ipv6()) {
            sysctl::set(&format!("ipv6/conf/{name}/disable_ipv6"), "0")?;
            // It would be unusable for a second while it is looked for; we hand addresses out.
            sysctl::set(&format!("ipv6/conf/{name}/accept_dad"), "0")?;
        }
        for address in &one.addresses {
            let socket = self.of_family(address.ip());
            socket
                .and_then(|fd| interfaces::add_address(fd, (name, index), address.ip(), address.length()))
                .map_err(failed(format!("give {name} the address {address}")))?;
        }
        interfaces::bring_interface_up(self.v4.as_fd(), name)
            .map_err(failed(format!("bring {name} up in the container")))?;
        let route = |to: Subnet, via: Option<IpAddr>| {
            let fd = self.of_family(to.ip())?;
            interfaces::add_route(fd, (name, index), (to.network(), to.length()), via)
        };
        for wanted in &one.network.routes {
            let of_family = |gateway: &&IpAddr| gateway.is_ipv4() == wanted.to.ip().is_ipv4();
            let via = wanted.via.or_else(|| one.gateways.iter().find(of_family).copied());
            let said = via.map(|via| format!(" via {via}")).unwrap_or_default();
            if wanted.to.length() == 0 {
                has_default[usize::from(wanted.to.ip().is_ipv6())] = true;
            }
            route(wanted.to, via)
                .map_err(failed(format!("add the route {}{said} in the container", wanted.to)))?;
        }
        let gateways =
            if one.network.internal || !one.network.default_route { &[] } else { &one.gateways[..] };
        for gateway in gateways {
            let has = &mut has_default[usize::from(gateway.is_ipv6())];
            if !std::mem::replace(has, true) {
                route(everything(*gateway), Some(*gateway))
                    .map_err(failed(format!("add the default route via {gateway} in the container")))?;
            }
        }
        Ok(())
    }
}

/// Every address of the family.
fn everything(like: IpAddr) -> Subnet {
    let unspecified: IpAddr =
        if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    Subnet::new(unspecified, 0).unwrap_or(Subnet::host(unspecified))
}

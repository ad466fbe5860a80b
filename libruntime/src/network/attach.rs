//! The veth pair of one container and network, and its end inside the container: addresses, routes, loopback. One
//! request makes the pair, with each end in its namespace.

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

/// Makes the pair: one end becomes a port of the bridge, the other is in the container.
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
        // The name is derived from the id alone, so the interface belongs to an earlier container with this id.
        Err(Errno::EEXIST) => {
            free_name(host, &one.host).map_err(failed)?;
            host.new_link(pair(one, bridge, netns)).map_err(failed)?;
        }
        other => other.map_err(failed)?,
    }
    let mut message = link_message(0);
    message.attributes.push(LinkAttribute::IfName(one.host.clone()));
    // For administrators. An id may be longer than an alias.
    let alias: String = format!("onggi container {id}").chars().take(250).collect();
    message.attributes.push(LinkAttribute::IfAlias(alias));
    if !one.network.publish.is_empty() {
        // Where bridged packets pass IP rules (br_netfilter), a container that connects to its own published port is
        // reached back through the same bridge port (hairpin mode).
        let hairpin = InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)]);
        let info = vec![LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(hairpin)];
        message.attributes.push(LinkAttribute::LinkInfo(info));
    }
    host.change_link(message).map_err(failed)?;
    for address in &one.addresses {
        // Another container may have had the address a moment ago, and the host keeps a neighbour entry for half a
        // minute.
        host.change_neighbour(bridge, address.ip(), mac_bytes(&one.mac)).map_err(failed)?;
    }
    Ok(())
}

/// Frees the name of a pair that still exists. A pair that the kernel is already removing takes several RCU grace
/// periods to disappear, so it is renamed. Any other pair is stale (the process that was to remove it was killed), and
/// is deleted.
fn free_name(host: &mut Netlink, name: &str) -> Outcome<()> {
    match host.link(name)? {
        Some(link) if link.is_dying() || link.is_left_to_kernel() => {
            let mut message = link_message(link.index);
            message.attributes.push(LinkAttribute::IfName(format!("ogx{}", link.index)));
            match host.set_link(message) {
                Err(Errno::ENODEV) => Ok(()),
                // Before Linux 6.2 an interface that is up cannot be renamed.
                Err(Errno::EBUSY) => host.remove_link(name),
                other => other,
            }
        }
        _ => host.remove_link(name),
    }
}

/// Removes a pair, whose container has ended.
///
/// Deleting it here would wait for several RCU grace periods, 10 to 30 ms. The kernel deletes it anyway when it tears
/// the container's namespace down, so a pair whose namespace is being torn down is left to the kernel. So is the pair
/// of a `young` container, whose teardown the kernel defers by such a period; its index is returned. Until then the pair
/// is down, not a port of a bridge, and without addresses.
pub(super) fn unlink(host: &mut Netlink, name: &str, young: bool) -> Outcome<Option<u32>> {
    match host.link(name)? {
        None => Ok(None),
        Some(link) if link.is_dying() => Ok(None),
        Some(link) if young => {
            let mut message = link_message(link.index);
            message.header.change_mask = LinkFlags::Up;
            message.attributes.push(LinkAttribute::Controller(0));
            match host.set_link(message) {
                Err(Errno::ENODEV) => Ok(None),
                other => other.map(|()| Some(link.index)),
            }
        }
        Some(_) => host.remove_link(name).map(|()| None),
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
/// Not by netlink: the kernel frees a closed netlink socket only after an RCU grace period. Until then it would keep
/// the namespace of a container that ends at once, so that the deletion could not see it being torn down.
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
    /// `None` on kernels without IPv6.
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
        // Another container on the bridge must not become its router by router advertisements.
        sysctl::set(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
        if one.addresses.iter().any(|address| address.ip().is_ipv6()) {
            sysctl::set(&format!("ipv6/conf/{name}/disable_ipv6"), "0")?;
            // Duplicate address detection would make the address unusable for a second, and is not needed: addresses
            // are claimed.
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

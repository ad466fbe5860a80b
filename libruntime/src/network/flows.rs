//! Conntrack entries of UDP. NAT rules see only the first packet of a flow: an entry from before a port was published,
//! or of a container that is deleted, would keep its old destination for as long as its sender goes on sending.
//!
//! Messages: linux/netfilter/nfnetlink_conntrack.h.

use super::attachment::Attachment;
use super::netlink::{Netlink, attribute, ip, nested, netfilter, value_of};
use super::ports::Protocol;
use crate::error::{Error, Result};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use nix::errno::Errno;
use std::net::IpAddr;

const IPCTNL_MSG_CT_GET: i32 = 1;
const IPCTNL_MSG_CT_DELETE: i32 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
/// The flag that compares the protocol.
const FILTER_PROTO_NUM: u32 = 1 << 3;

/// Deletes the conntrack entries for a container's published UDP ports.
pub(super) fn forget(attached: &[Attachment]) -> Result<()> {
    let published = |one: &Attachment| -> Vec<_> {
        let udp = one.network.publish.iter().filter(|publish| publish.protocol == Protocol::Udp);
        udp.flat_map(|publish| one.network.bindings(*publish)).collect()
    };
    let ports: Vec<(IpAddr, u16)> = attached.iter().flat_map(published).collect();
    if ports.is_empty() {
        return Ok(());
    }
    let addresses = Netlink::here()?.addresses().map_err(|errno| Error::os("list addresses", errno))?;
    // Flows through the host to other destinations do not match the library's rules.
    let is_own = |ip: IpAddr| ip.is_loopback() || addresses.iter().any(|own| own.subnet.ip() == ip);
    let is_published = |(to, port): (IpAddr, u16)| {
        ports.iter().any(|(ip, published)| {
            let any = ip.is_unspecified() && ip.is_ipv4() == to.is_ipv4();
            *published == port && (*ip == to || any && is_own(to))
        })
    };
    let mut socket = Netlink::netfilter()?;
    for family in [libc::AF_INET, libc::AF_INET6] {
        for flow in of_udp(&mut socket, family)? {
            if destination(&flow).is_some_and(is_published) {
                let tuple = nested(CTA_TUPLE_ORIG, &flow);
                match socket.exchange(&message(family, IPCTNL_MSG_CT_DELETE, NLM_F_ACK, &tuple)) {
                    Ok(_) | Err(Errno::ENOENT) => {}
                    Err(errno) => {
                        return Err(Error::os("delete a conntrack entry of a published port", errno));
                    }
                }
            }
        }
    }
    Ok(())
}

/// The keys of the entries; none on a kernel without conntrack.
fn of_udp(socket: &mut Netlink, family: i32) -> Result<Vec<Vec<u8>>> {
    let protocol = attribute(CTA_PROTO_NUM, &[libc::IPPROTO_UDP as u8]);
    let mut filter = nested(CTA_TUPLE_ORIG, &nested(CTA_TUPLE_PROTO, &protocol));
    let flags = [(CTA_FILTER_ORIG_FLAGS, FILTER_PROTO_NUM), (CTA_FILTER_REPLY_FLAGS, 0)];
    let flags = flags.map(|(kind, flags)| attribute(kind, &flags.to_ne_bytes())).concat();
    filter.extend(nested(CTA_FILTER, &flags));
    match socket.exchange(&message(family, IPCTNL_MSG_CT_GET, NLM_F_DUMP, &filter)) {
        Ok(flows) => {
            Ok(flows.iter().filter_map(|body| Some(value_of(body, 4, CTA_TUPLE_ORIG)?.to_vec())).collect())
        }
        Err(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT) => Ok(Vec::new()),
        Err(errno) => Err(Error::os("list conntrack entries of published ports", errno)),
    }
}

fn destination(flow: &[u8]) -> Option<(IpAddr, u16)> {
    let addresses = value_of(flow, 0, CTA_TUPLE_IP)?;
    let to = value_of(addresses, 0, CTA_IP_V4_DST).or_else(|| value_of(addresses, 0, CTA_IP_V6_DST))?;
    let port = value_of(value_of(flow, 0, CTA_TUPLE_PROTO)?, 0, CTA_PROTO_DST_PORT)?;
    Some((ip(to)?, u16::from_be_bytes(*port.first_chunk()?)))
}

fn message(family: i32, kind: i32, flags: u16, attributes: &[u8]) -> Vec<u8> {
    netfilter((libc::NFNL_SUBSYS_CTNETLINK, kind), family, flags, attributes)
}

//! Limits of a container's bandwidth. Traffic to the container waits in a token bucket at the host's end of its veth
//! pair. Traffic from it is redirected at that end to an ifb interface and waits there: policing would drop packets
//! instead, and TCP would stay far below the limit.
//!
//! Both are on the host's side, where a container with CAP_NET_ADMIN cannot remove them.

use super::attachment::Attachment;
use super::netlink::{Netlink, link_message};
use crate::error::{Error, Result};
use netlink_packet_core::DefaultNla;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use nix::errno::Errno;

/// Sets the limits of one network; without limits nothing is set up.
pub(super) fn limit(host: &mut Netlink, one: &Attachment) -> Result<()> {
    let network = &one.network;
    let index = |host: &mut Netlink, name: &str| {
        let link = host.link(name).and_then(|link| link.ok_or(Errno::ENODEV));
        link.map(|link| link.index).map_err(|errno| Error::os(format!("look for {name}"), errno))
    };
    let refused = |what: &str, errno| {
        Error::os(format!("limit the {what} of {}", network.name), errno).with_hint(
            "this needs a kernel with sch_tbf, and for egress sch_ingress, cls_u32, act_mirred and ifb",
        )
    };
    if let Some(rate) = network.ingress {
        let port = index(host, &one.host)?;
        host.new_qdisc(token_bucket(port, rate, network.mtu)).map_err(|errno| refused("ingress", errno))?;
    }
    if let (Some(rate), Some(queue)) = (network.egress, &one.queue) {
        let failed = |errno| refused("egress", errno);
        let port = index(host, &one.host)?;
        host.remove_link(queue).and_then(|()| host.new_link(ifb(queue))).map_err(failed)?;
        let queue = index(host, queue)?;
        host.new_qdisc(token_bucket(queue, rate, network.mtu)).map_err(failed)?;
        host.new_qdisc(ingress(port)).map_err(failed)?;
        host.new_filter(turn(port, queue)).map_err(failed)?;
    }
    Ok(())
}

fn ifb(name: &str) -> netlink_packet_route::link::LinkMessage {
    let mut message = link_message(0);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = vec![
        LinkAttribute::IfName(name.to_string()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]),
    ];
    message
}

fn message(index: u32, handle: TcHandle, parent: TcHandle, kind: &str) -> TcMessage {
    let mut message = TcMessage::with_index(index as i32);
    message.header.handle = handle;
    message.header.parent = parent;
    message.attributes.push(TcAttribute::Kind(kind.to_string()));
    message
}

fn option(kind: u16, value: &[u8]) -> TcOption {
    TcOption::Other(DefaultNla::new(kind, value.to_vec()))
}

/// tbf(8): bits per second, bursts of 10 ms, a queue of 50 ms.
fn token_bucket(index: u32, rate: u64, mtu: Option<u32>) -> TcMessage {
    const PARMS: u16 = 1;
    const RATE64: u16 = 4;
    const BURST: u16 = 6;
    const ETHERNET: u8 = 1;
    let bytes = rate / 8;
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    // A longer packet, with its Ethernet header, would never pass.
    let longest = u64::from(mtu.unwrap_or_default()) + 64;
    let burst = small((bytes / 100).max(32 << 10).max(longest));
    let limit = small((bytes / 20).max(64 << 10)).saturating_add(burst);
    // struct tc_tbf_qopt: two struct tc_ratespec (rate and no peak rate), limit, buffer, mtu.
    let mut parms = Vec::new();
    for (linklayer, rate) in [(ETHERNET, small(bytes)), (0, 0)] {
        parms.extend_from_slice(&[0, linklayer, 0, 0, 0, 0, 0, 0]);
        parms.extend_from_slice(&rate.to_ne_bytes());
    }
    for value in [limit, 0, 0] {
        parms.extend_from_slice(&value.to_ne_bytes());
    }
    let mut options = vec![option(PARMS, &parms), option(BURST, &burst.to_ne_bytes())];
    if bytes > u32::MAX.into() {
        options.push(option(RATE64, &bytes.to_ne_bytes()));
    }
    let mut message = message(index, TcHandle { major: 1, minor: 0 }, TcHandle::ROOT, "tbf");
    message.attributes.push(TcAttribute::Options(options));
    message
}

/// The ingress qdisc, whose filters see what an interface receives.
fn ingress(index: u32) -> TcMessage {
    message(index, TcHandle { major: 0xffff, minor: 0 }, TcHandle::INGRESS, "ingress")
}

/// Redirects everything that `from` receives through the queue of `to`.
fn turn(from: u32, to: u32) -> TcMessage {
    const SELECTOR: u16 = 5;
    const ACTIONS: u16 = 7;
    let mut message = message(from, TcHandle::UNSPEC, TcHandle { major: 0xffff, minor: 0 }, "u32");
    // Priority 1, every protocol in network byte order.
    message.header.info = 1 << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
    // struct tc_u32_sel with one struct tc_u32_key whose mask is empty: it matches everything.
    const TERMINAL: u8 = 1;
    let mut selector = vec![TERMINAL, 0, 1];
    selector.resize(32, 0);
    // struct tc_mirred: a struct tc_gen, then what to do and where.
    const STOLEN: i32 = 4;
    const EGRESS_REDIRECT: i32 = 1;
    let mut mirred = Vec::new();
    for word in [0, 0, STOLEN, 0, 0, EGRESS_REDIRECT, to as i32] {
        mirred.extend_from_slice(&word.to_ne_bytes());
    }
    let parameters = attribute(2, &mirred);
    let action = [attribute(1, b"mirred\0"), attribute(2, &parameters)].concat();
    let actions = attribute(1, &action);
    message
        .attributes
        .push(TcAttribute::Options(vec![option(SELECTOR, &selector), option(ACTIONS, &actions)]));
    message
}

/// One attribute with its header and padding.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

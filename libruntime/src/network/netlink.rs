//! Synchronous netlink: one request, its answers, its errno. A socket stays in the network namespace that it was opened
//! in, so one thread works on both ends of a veth pair without changing its own namespace.
//!
//! Knows messages, not containers; the other modules decide which interfaces are made. Answers are read attribute by
//! attribute: one that a newer kernel adds must not be an error.

use crate::error::{Error, Result};
use crate::wait::again;
use netlink_packet_core::{
    Emitable, NLA_F_NESTED, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{RouteHeader, RouteMessage};
use netlink_packet_route::tc::TcMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily as SocketFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::subnet::Subnet;

/// The errno of a failed request; the caller adds what was requested.
pub(crate) type Outcome<T> = std::result::Result<T, Errno>;

const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// The kernel fills at most this much of a buffer with one answer.
const ANSWER_SIZE: usize = 64 << 10;

/// A socket to the kernel's networking, in one network namespace.
pub(crate) struct Netlink {
    socket: OwnedFd,
    answer: Vec<u8>,
}

/// An interface, with the attributes that are needed here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub index: u32,
    pub name: String,
    pub up: bool,
    /// `bridge`, `veth`; empty for hardware.
    pub kind: String,
    pub alias: String,
    pub mac: Vec<u8>,
    pub mtu: u32,
    /// The bridge that it is a port of.
    pub controller: Option<u32>,
    /// For a veth pair: the id that the caller's namespace has for the namespace of the other end.
    pub other_end: Option<i32>,
}

impl Link {
    /// Whether its other end is in a namespace that is being torn down: the kernel removes both ends later. Deleting it
    /// here would wait for that, and for several RCU grace periods.
    pub fn is_dying(&self) -> bool {
        // NETNSA_NSID_NOT_ASSIGNED (linux/net_namespace.h): a namespace that is in use gets an id.
        self.kind == "veth" && self.other_end == Some(-1)
    }

    /// Whether `attach::unlink` has left it to the kernel.
    pub fn is_left_to_kernel(&self) -> bool {
        self.kind == "veth" && !self.up && self.controller.is_none()
    }
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub index: u32,
    pub subnet: Subnet,
    pub permanent: bool,
    pub global: bool,
    pub raw: Vec<u8>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The destination; `None` for a default route.
    pub to: Option<Subnet>,
    /// The index of an interface.
    pub through: Option<u32>,
    /// Through a gateway, not to neighbours.
    pub by_gateway: bool,
}

/// Runs `work` on a new thread in the namespace; the caller's thread does not enter it.
pub(crate) fn inside<T: Send>(netns: BorrowedFd, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let enter = || {
        setns(netns, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::os("setns to the container's network namespace", errno))?;
        work()
    };
    let ended = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("network".into()).spawn_scoped(scope, enter);
        thread.map(|thread| thread.join())
    });
    match ended.map_err(|error| Error::io("start a thread for the network", error))? {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

impl Netlink {
    /// In the caller's namespace.
    pub fn here() -> Result<Self> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    /// A socket for the packet filter of the caller's namespace.
    pub fn netfilter() -> Result<Self> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    /// In another namespace.
    pub fn in_namespace(netns: BorrowedFd) -> Result<Self> {
        inside(netns, Self::here)
    }

    fn open(protocol: SockProtocol) -> Result<Self> {
        let socket = socket(SocketFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
            .map_err(|errno| Error::os("socket AF_NETLINK", errno))?;
        Ok(Self { socket, answer: vec![0; ANSWER_SIZE] })
    }

    fn request(&mut self, message: Message, flags: u16) -> Outcome<()> {
        self.call(message, NLM_F_REQUEST | NLM_F_ACK | flags).map(drop)
    }

    /// The bodies of all answers.
    fn call(&mut self, message: Message, flags: u16) -> Outcome<Vec<Vec<u8>>> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.exchange(&bytes)
    }

    /// Sends one whole request; answers end with an acknowledgement or the end of a list.
    pub fn exchange(&mut self, request: &[u8]) -> Outcome<Vec<Vec<u8>>> {
        again(|| send(self.socket.as_raw_fd(), request, MsgFlags::empty()))?;
        let mut bodies = Vec::new();
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut self.answer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            let mut rest = &self.answer[..length];
            while let Some((kind, body, after)) = first_message(rest) {
                match kind {
                    libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                        let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                        return if code < 0 { Err(Errno::from_raw(-code)) } else { Ok(bodies) };
                    }
                    libc::NLMSG_NOOP | libc::NLMSG_OVERRUN => {}
                    _ => bodies.push(body.to_vec()),
                }
                rest = after;
            }
        }
    }

    /// The interface with this name, if there is one.
    pub fn link(&mut self, name: &str) -> Outcome<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_string()));
        self.one_link(message)
    }

    pub fn link_at(&mut self, index: u32) -> Outcome<Option<Link>> {
        self.one_link(link_message(index))
    }

    fn one_link(&mut self, message: LinkMessage) -> Outcome<Option<Link>> {
        match self.call(Message::GetLink(message), NLM_F_REQUEST | NLM_F_ACK) {
            Ok(bodies) => Ok(bodies.first().map(|body| link_of(body))),
            Err(Errno::ENODEV) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Every interface that is a port of the bridge.
    pub fn ports(&mut self, bridge: u32) -> Outcome<Vec<Link>> {
        let mut message = LinkMessage::default();
        // The kernel filters by this attribute; old kernels may not.
        message.attributes.push(LinkAttribute::Controller(bridge));
        let bodies = self.call(Message::GetLink(message), NLM_F_REQUEST | NLM_F_DUMP)?;
        Ok(bodies.iter().map(|body| link_of(body)).filter(|link| link.controller == Some(bridge)).collect())
    }

    pub fn new_link(&mut self, message: LinkMessage) -> Outcome<()> {
        self.request(Message::NewLink(message), NEW)
    }

    /// Changes the attributes that the message has.
    pub fn set_link(&mut self, message: LinkMessage) -> Outcome<()> {
        self.request(Message::SetLink(message), 0)
    }

    /// The same for attributes of its kind.
    pub fn change_link(&mut self, message: LinkMessage) -> Outcome<()> {
        self.request(Message::NewLink(message), 0)
    }

    pub fn bring_up(&mut self, index: u32) -> Outcome<()> {
        let mut message = link_message(index);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.set_link(message)
    }

    /// Removes it by name; it is no error if it is gone.
    pub fn remove_link(&mut self, name: &str) -> Outcome<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_string()));
        match self.request(Message::DelLink(message), 0) {
            Err(Errno::ENODEV) => Ok(()),
            other => other,
        }
    }

    /// Of all interfaces.
    pub fn addresses(&mut self) -> Outcome<Vec<Address>> {
        let list = Message::GetAddress(AddressMessage::default());
        let bodies = self.call(list, NLM_F_REQUEST | NLM_F_DUMP)?;
        Ok(bodies.iter().filter_map(|body| address_of(body)).collect())
    }

    /// Adds an address with its prefix to an interface, without duplicate address detection.
    pub fn add_address(&mut self, index: u32, address: Subnet) -> Outcome<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.ip());
        message.header.prefix_len = address.length();
        message.header.index = index;
        message.header.scope = AddressScope::Universe;
        message.attributes =
            vec![AddressAttribute::Local(address.ip()), AddressAttribute::Address(address.ip())];
        if let Some(broadcast) = address.broadcast() {
            message.attributes.push(AddressAttribute::Broadcast(broadcast));
        }
        if address.ip().is_ipv6() {
            // Duplicate address detection would make it unusable for a second, and is not needed: addresses are
            // claimed.
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.request(Message::NewAddress(message), NEW)
    }

    /// Adds an address to an interface, with all attributes that it had before.
    pub fn restore_address(&mut self, index: u32, address: &Address) -> Outcome<()> {
        let mut body = address.raw.clone();
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        match self.exchange(&whole(libc::RTM_NEWADDR, NLM_F_REQUEST | NLM_F_ACK | NEW, &body)) {
            Err(Errno::EEXIST) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Changes the entry of a neighbour; it is no error if there is none.
    pub fn change_neighbour(&mut self, index: u32, ip: IpAddr, mac: Vec<u8>) -> Outcome<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(ip);
        message.header.ifindex = index;
        message.header.state = NeighbourState::Stale;
        message.attributes =
            vec![NeighbourAttribute::Destination(ip.into()), NeighbourAttribute::LinkLayerAddress(mac)];
        match self.request(Message::NewNeighbour(message), NLM_F_REPLACE) {
            Err(Errno::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// All unicast routes of the main table.
    pub fn routes(&mut self) -> Outcome<Vec<Route>> {
        let bodies = self.call(Message::GetRoute(RouteMessage::default()), NLM_F_REQUEST | NLM_F_DUMP)?;
        Ok(bodies.iter().filter_map(|body| route_of(body)).collect())
    }

    pub fn new_qdisc(&mut self, message: TcMessage) -> Outcome<()> {
        self.request(Message::NewQueueDiscipline(message), NEW)
    }

    pub fn new_filter(&mut self, message: TcMessage) -> Outcome<()> {
        self.request(Message::NewTrafficFilter(message), NEW)
    }
}

/// A message about the interface with this index.
pub(crate) fn link_message(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// A request of `kind` with this body.
pub(crate) fn whole(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    header.flags = flags;
    header.length = (header.buffer_len() + body.len()) as u32;
    let mut bytes = vec![0; header.buffer_len()];
    header.emit(&mut bytes);
    bytes.extend_from_slice(body);
    bytes
}

/// A request to a part of the packet filter, behind a `struct nfgenmsg`.
pub(super) fn netfilter(
    (subsystem, kind): (i32, i32),
    family: i32,
    flags: u16,
    attributes: &[u8],
) -> Vec<u8> {
    let kind = (subsystem as u16) << 8 | kind as u16;
    let header = [family as u8, libc::NFNETLINK_V0 as u8, 0, 0];
    whole(kind, NLM_F_REQUEST | flags, &[&header, attributes].concat())
}

pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend_from_slice(&(length as u16).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

pub(super) fn nested(kind: u16, attributes: &[u8]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, attributes)
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The kind and the body of the first message, and what follows it.
fn first_message(bytes: &[u8]) -> Option<(i32, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes([*bytes.get(4)?, *bytes.get(5)?]);
    let next = length.next_multiple_of(4).min(bytes.len());
    Some((kind.into(), bytes.get(16..length)?, &bytes[next..]))
}

/// The attributes behind a fixed header of `header` bytes.
pub(crate) fn attributes(body: &[u8], header: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(header..).unwrap_or_default();
    std::iter::from_fn(move || {
        let [a, b, c, d] = *rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The two highest bits are flags.
        Some((u16::from_ne_bytes([c, d]) & 0x3fff, value))
    })
}

/// The value of the attribute of this kind, behind a header of that length.
pub(super) fn value_of(bytes: &[u8], header: usize, kind: u16) -> Option<&[u8]> {
    attributes(bytes, header).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(*bytes.first_chunk::<4>()?)),
        16 => Some(IpAddr::from(*bytes.first_chunk::<16>()?)),
        _ => None,
    }
}

/// From `struct ifinfomsg` and its attributes (rtnetlink(7)).
fn link_of(body: &[u8]) -> Link {
    let word = |at: usize| body.get(at..).and_then(number).unwrap_or_default();
    let up = word(8) & libc::IFF_UP as u32 != 0;
    let mut link = Link { index: word(4), up, ..Link::default() };
    for (kind, value) in attributes(body, 16) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_IFALIAS => link.alias = text(value),
            libc::IFLA_ADDRESS => link.mac = value.to_vec(),
            libc::IFLA_MTU => link.mtu = number(value).unwrap_or_default(),
            libc::IFLA_MASTER => link.controller = number(value),
            libc::IFLA_LINK_NETNSID => link.other_end = number(value).map(|number| number as i32),
            libc::IFLA_LINKINFO => {
                link.kind = value_of(value, 0, libc::IFLA_INFO_KIND).map(text).unwrap_or_default();
            }
            _ => {}
        }
    }
    link
}

/// From `struct ifaddrmsg` and its attributes.
fn address_of(body: &[u8]) -> Option<Address> {
    let (mut own, mut peer, mut flags) = (None, None, u32::from(*body.get(2)?));
    for (kind, value) in attributes(body, 8) {
        match kind {
            libc::IFA_LOCAL => own = ip(value),
            libc::IFA_ADDRESS => peer = ip(value),
            libc::IFA_FLAGS => flags = number(value)?,
            _ => {}
        }
    }
    Some(Address {
        index: number(body.get(4..)?)?,
        subnet: Subnet::new(own.or(peer)?, *body.get(1)?)?,
        permanent: flags & libc::IFA_F_PERMANENT != 0,
        global: *body.get(3)? == libc::RT_SCOPE_UNIVERSE,
        raw: body.to_vec(),
    })
}

/// From `struct rtmsg` and its attributes.
fn route_of(body: &[u8]) -> Option<Route> {
    let [_, length, _, _, table, _, _, kind] = *body.first_chunk()?;
    if table != RouteHeader::RT_TABLE_MAIN || kind != libc::RTN_UNICAST {
        return None;
    }
    let value = |kind| value_of(body, 12, kind);
    let to = value(libc::RTA_DST).and_then(ip).and_then(|to| Subnet::new(to, length));
    Some(Route {
        to,
        through: value(libc::RTA_OIF).and_then(number),
        by_gateway: value(libc::RTA_GATEWAY).is_some(),
    })
}

/// Answers of the kernel, each read in all forms that answers have.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let mut rest = bytes;
    while let Some((_, body, after)) = first_message(rest) {
        assert!(after.len() < rest.len(), "a message takes no bytes");
        let link = link_of(body);
        assert!(!link.is_dying() || link.kind == "veth");
        let _ = (address_of(body), route_of(body), value_of(body, 4, 1).and_then(ip));
        rest = after;
    }
}

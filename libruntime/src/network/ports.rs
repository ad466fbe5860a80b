//! Published ports. Pure.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The protocol of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Protocol {
    /// tcp(7)
    Tcp,
    /// udp(7)
    Udp,
    /// sctp(7)
    Sctp,
}

/// A port mapping: a range of ports of the host that leads to a range of the same size in the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PortMapping {
    /// The address of the host; `None` for every address.
    pub address: Option<IpAddr>,
    /// The first port of the host.
    pub first: u16,
    /// The last port of the host.
    pub last: u16,
    /// The first port in the container.
    pub container: u16,
    /// The protocol of all of them.
    pub protocol: Protocol,
}

/// Port mappings in the form of the command line.
pub(super) fn as_texts<S: serde::Serializer>(
    ports: &[PortMapping],
    to: S,
) -> std::result::Result<S::Ok, S::Error> {
    to.collect_seq(ports.iter().map(PortMapping::to_string))
}

impl PortMapping {
    /// Maps one TCP port of the host, on every address, to a port of the container.
    pub fn new(host: u16, container: u16) -> Self {
        Self { address: None, first: host, last: host, container, protocol: Protocol::Tcp }
    }

    /// Whether the two share a port on the same address.
    pub(super) fn is_like(&self, other: &PortMapping) -> bool {
        let apart = self.last < other.first || other.last < self.first;
        let any = |one: &Self| one.address.is_none_or(|ip| ip.is_unspecified());
        // Without an address it is on the unspecified address of both families.
        let both = self.address.is_none() || other.address.is_none();
        let same = self.address == other.address || both && any(self) && any(other);
        self.protocol == other.protocol && same && !apart
    }

    /// Checks what the text form rules out, and fields do not.
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        let more = self.last.checked_sub(self.first);
        let end = more.and_then(|more| self.container.checked_add(more));
        match (self.first.min(self.container), end) {
            (0, _) | (_, None) => {
                let Self { first, last, container, .. } = self;
                Err(format!("ports {first} to {last} cannot be mapped to {container} and those that follow"))
            }
            _ if self.address.is_some_and(|address| address.is_multicast()) => {
                Err("a port is published on an address that is not a host address".to_string())
            }
            _ => Ok(()),
        }
    }

    /// The container's port for one of the host's.
    pub(super) fn inside(self, port: u16) -> u16 {
        self.container + (port - self.first)
    }
}

impl FromStr for PortMapping {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let bad = || format!("{text:?} is not [ADDRESS:]PORT[-PORT]:PORT[-PORT][/tcp|udp|sctp]");
        let (ports, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(bad()),
        };
        let (rest, inside) = ports.rsplit_once(':').ok_or_else(bad)?;
        let (address, host) = match rest.rsplit_once(':') {
            Some((address, host)) => (Some(address), host),
            None => (None, rest),
        };
        let address = address.map(|text| {
            let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
            bare.unwrap_or(text).parse::<IpAddr>().map_err(|_| bad())
        });
        let address = address.transpose()?;
        if address.is_some_and(|address| address.is_multicast()) {
            return Err(format!("{text:?} is on an address that is not a host address"));
        }
        let (first, last) = range(host).ok_or_else(bad)?;
        let (container, end) = range(inside).ok_or_else(bad)?;
        if last - first != end - container {
            return Err(format!("{text:?} has more ports on one side than on the other"));
        }
        Ok(Self { address, first, last, container, protocol })
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.address {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(ip) => write!(f, "{ip}:")?,
            None => {}
        }
        let (first, last, inside) = (self.first, self.last, self.container);
        match last - first {
            0 => write!(f, "{first}:{inside}/{}", self.protocol),
            more => write!(f, "{first}-{last}:{inside}-{}/{}", inside + more, self.protocol),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first > 0 && first <= last).then_some((first, last))
}

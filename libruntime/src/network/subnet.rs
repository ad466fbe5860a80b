//! An IP address with the length of its network's prefix, IPv4 and IPv6 alike. Pure arithmetic.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address and its prefix, such as `10.0.0.7/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    ip: IpAddr,
    length: u8,
}

impl Subnet {
    /// `None` when the prefix is longer than an address.
    pub fn new(ip: IpAddr, length: u8) -> Option<Self> {
        (length <= bits(ip)).then_some(Self { ip, length })
    }

    /// The prefix is the whole address.
    pub fn host(ip: IpAddr) -> Self {
        Self { ip, length: bits(ip) }
    }

    /// The address in it: the interface's own, where it belongs to an interface.
    pub fn ip(self) -> IpAddr {
        self.ip
    }

    /// Bits of the prefix.
    pub fn length(self) -> u8 {
        self.length
    }

    /// The address with the bits behind the prefix cleared.
    pub fn network(self) -> IpAddr {
        self.at(0)
    }

    /// The same prefix with another address.
    pub fn with(self, ip: IpAddr) -> Self {
        Self { ip, ..self }
    }

    /// The address with this number in the network.
    pub fn at(self, number: u128) -> IpAddr {
        from_number(self.ip, number_of(self.ip) & !self.mask() | number & self.mask())
    }

    /// Whether an address is in it.
    pub fn contains(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.ip.is_ipv4() && (number_of(ip) ^ number_of(self.ip)) & !self.mask() == 0
    }

    /// Whether an address is in both.
    pub fn overlaps(self, other: Self) -> bool {
        if self.length < other.length { self.contains(other.ip) } else { other.contains(self.ip) }
    }

    /// The number of the last address.
    pub fn last(self) -> u128 {
        self.mask()
    }

    /// Whether a host can have this address: it is neither the network's own nor its broadcast address.
    pub fn is_usable(self, ip: IpAddr) -> bool {
        let number = number_of(ip) & self.mask();
        let alone = self.mask() <= 1;
        self.contains(ip) && (alone || number != 0 && (ip.is_ipv6() || number != self.mask()))
    }

    /// The broadcast address, of IPv4 networks that have one.
    pub fn broadcast(self) -> Option<Ipv4Addr> {
        match self.at(u128::MAX) {
            IpAddr::V4(ip) if self.mask() > 1 => Some(ip),
            _ => None,
        }
    }

    /// Ones where the network's addresses differ.
    fn mask(self) -> u128 {
        match bits(self.ip) - self.length {
            128 => u128::MAX,
            free => (1 << free) - 1,
        }
    }
}

fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn number_of(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The address with this number, in the family of `like`.
fn from_number(like: IpAddr, number: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from_bits(number as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.length)
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not an address with a prefix such as 10.0.0.0/24");
        let (ip, length) = text.split_once('/').ok_or_else(bad)?;
        let (ip, length) = (ip.parse().map_err(|_| bad())?, length.parse().map_err(|_| bad())?);
        Self::new(ip, length).ok_or_else(bad)
    }
}

impl Serialize for Subnet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn networks_contain_and_overlap() {
        let net = subnet("10.0.4.7/22");
        assert_eq!(net.network().to_string(), "10.0.4.0");
        assert_eq!(net.broadcast().unwrap().to_string(), "10.0.7.255");
        assert!(net.contains("10.0.7.1".parse().unwrap()) && !net.contains("10.0.8.0".parse().unwrap()));
        assert!(!net.contains("::1".parse().unwrap()));
        assert!(net.overlaps(subnet("10.0.0.0/8")) && subnet("10.0.0.0/8").overlaps(net));
        assert!(!net.overlaps(subnet("10.0.8.0/22")));
        assert!(subnet("0.0.0.0/0").overlaps(net));
        assert!(subnet("::/0").contains("fd00::1".parse().unwrap()));
    }

    #[test]
    fn the_ends_of_a_network_are_not_for_hosts() {
        let usable = |net: &str, ip: &str| subnet(net).is_usable(ip.parse().unwrap());
        assert!(!usable("10.0.0.0/24", "10.0.0.0") && !usable("10.0.0.0/24", "10.0.0.255"));
        assert!(usable("10.0.0.0/24", "10.0.0.1") && !usable("10.0.0.0/24", "10.0.1.1"));
        assert!(usable("10.0.0.0/31", "10.0.0.0") && usable("10.0.0.1/32", "10.0.0.1"));
        assert!(usable("fd00::/64", "fd00::ffff:ffff:ffff:ffff") && !usable("fd00::/64", "fd00::"));
    }

    #[test]
    fn a_prefix_is_not_longer_than_an_address() {
        assert!("10.0.0.1/33".parse::<Subnet>().is_err() && "10.0.0.1".parse::<Subnet>().is_err());
        assert_eq!(subnet("fd00::1/128").to_string(), "fd00::1/128");
    }
}

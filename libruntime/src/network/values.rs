//! The values of the keys in `request.rs`, one function for each form. Pure.

use super::subnet::Subnet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The name of the host in containers, the same as Podman's.
pub(super) const HOST: &str = "host.containers.internal";

/// How an interface gets its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum AddressAssignment {
    /// None.
    #[default]
    None,
    /// A free one of the bridge's subnet.
    Auto,
    /// This one.
    Static(IpAddr),
}

/// A route in the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Route {
    /// The destination.
    pub to: Subnet,
    /// The next hop; by default the network's gateway.
    pub via: Option<IpAddr>,
}

pub(super) fn ip(text: &str) -> std::result::Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IP address"))
}

pub(super) fn address(text: &str) -> std::result::Result<AddressAssignment, String> {
    match text {
        "auto" => Ok(AddressAssignment::Auto),
        "none" => Ok(AddressAssignment::None),
        _ => {
            ip(text).map(AddressAssignment::Static).map_err(|message| format!("{message}, `auto` or `none`"))
        }
    }
}

pub(super) fn route(text: &str) -> std::result::Result<Route, String> {
    let (to, via) = text.split_once('@').map_or((text, None), |(to, via)| (to, Some(via)));
    let (to, via) = (to.parse::<Subnet>()?, via.map(ip).transpose()?);
    if to.ip() != to.network() {
        return Err(format!("{to} has bits set after its prefix"));
    }
    match via {
        Some(via) if via.is_ipv4() != to.ip().is_ipv4() => {
            Err(format!("{to} and {via} are of different address families"))
        }
        _ => Ok(Route { to, via }),
    }
}

pub(super) fn flag(text: &str) -> std::result::Result<bool, String> {
    match text {
        "yes" | "true" | "" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(format!("{text:?} is neither yes nor no")),
    }
}

/// Whether an interface can have this address.
pub(super) fn is_hosts(ip: IpAddr) -> bool {
    !(ip.is_multicast() || ip.is_loopback() || ip.is_unspecified())
}

pub(super) fn mtu(text: &str) -> std::result::Result<u32, String> {
    let mtu = text.parse().ok().filter(|mtu| (68..=65535).contains(mtu));
    mtu.ok_or_else(|| format!("{text:?} is not a number from 68 to 65535"))
}

pub(super) fn mac(text: &str) -> std::result::Result<String, String> {
    let bytes: Option<Vec<u8>> =
        text.split(':').map(|part| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2)).collect();
    match bytes.as_deref() {
        Some([first, _, _, _, _, _]) if first & 1 == 0 && bytes != Some(vec![0; 6]) => {
            Ok(text.to_ascii_lowercase())
        }
        _ => Err(format!("{text:?} is not the address of one interface, such as 02:00:00:00:00:01")),
    }
}

/// Bits per second, as tc(8) writes them.
pub(super) fn rate(text: &str) -> std::result::Result<u64, String> {
    let bad = || format!("{text:?} is not a rate such as 100mbit");
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit: u64 = match unit {
        "" | "bit" => 1,
        "kbit" => 1000,
        "mbit" => 1_000_000,
        "gbit" => 1_000_000_000,
        _ => return Err(bad()),
    };
    let rate = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(bad)?;
    // Below 8 kbit/s a packet would wait for seconds.
    if rate < 8000 { Err(format!("{text:?} is less than 8kbit")) } else { Ok(rate) }
}

/// An alias, which must not be a name that `names.rs` uses itself.
pub(super) fn alias(text: &str) -> std::result::Result<String, String> {
    if ["localhost", HOST].contains(&text) {
        return Err(format!("{text:?} is reserved"));
    }
    host_name(text)
}

/// A name that may stand in hosts and resolv.conf.
pub(super) fn host_name(text: &str) -> std::result::Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if text.is_empty() || text.len() > 253 || !text.chars().all(good) {
        return Err(format!("{text:?} is not a host name: letters, digits, '_', '-' and '.'"));
    }
    Ok(text.to_string())
}

/// The kernel's dev_valid_name(), without characters that have a meaning for programs that read names.
pub(super) fn interface_name(name: &str) -> std::result::Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty()
        || name.len() > 15
        || matches!(name, "." | ".." | "lo" | "all" | "default")
        || !name.chars().all(good)
    {
        return Err(format!(
            "{name:?} cannot name an interface: 1 to 15 letters, digits, '_', '-' and '.', not lo, all, default"
        ));
    }
    Ok(())
}

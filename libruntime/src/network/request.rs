//! Requests for networks: `key=value` pairs, in annotations and on the command line alike.
//!
//! The annotation `org.onggi.network.NAME` requests an interface NAME in the container:
//! `bridge=web,address=auto,publish=8080:80`. Keys, of which `route`, `publish`, `alias`, `dns` and `search` may be
//! repeated:
//!
//! | key | value |
//! |---|---|
//! | `name` | the interface in the container (command line only; else eth0, eth1, …) |
//! | `bridge` | made when missing; `onggi0` if not named |
//! | `address`, `address6` | `auto`, `none` or an address; `auto` and `none` if not named |
//! | `subnet`, `subnet6` | of the bridge; a free one if not named |
//! | `gateway`, `gateway6` | the bridge's own address; the subnet's first if not named |
//! | `route` | `10.0.0.0/8` or `10.0.0.0/8@10.1.2.3`, by the gateway if no other is named |
//! | `default` | `no`: no default route (the first network has one) |
//! | `internal` | `yes`: nothing but the bridge and its own address can be reached, and no port published |
//! | `keep` | `yes`: the bridge stays when its last container goes, which takes 40 ms otherwise; until one says `no` |
//! | `mtu`, `mac` | of the interface; the bridge's, and one that follows from an address, if not named |
//! | `publish` | `[ADDRESS:]PORT[-PORT]:PORT[-PORT][/tcp\|udp\|sctp]`, an IPv6 address in brackets |
//! | `hosts` | `yes`: /etc/hosts has the names of the bridge's containers: id, hostname, aliases |
//! | `alias` | one more name of the container |
//! | `dns`, `search` | lines of /etc/resolv.conf; `dns=host` is what the host asks |
//! | `ingress`, `egress` | limit to and from the container: `100mbit`, `1gbit` |
//!
//! Pure: whether a request can be met is only known when the network is set up.

use super::ports::PortMapping;
use super::subnet::Subnet;
use super::values::{
    AddressAssignment, Route, address, alias, flag, host_name, interface_name, ip, is_hosts, mac, mtu, rate,
    route,
};
use crate::error::{Diagnostic, Error, Result};
use crate::namespaces::{is_new, listed};
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The prefix of annotations that request a network.
pub const ANNOTATION: &str = "org.onggi.network.";

const DEFAULT_BRIDGE: &str = "onggi0";

/// A DNS server of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Dns {
    /// The servers that the host asks.
    Host,
    /// This server.
    Server(IpAddr),
}

/// A request to connect a container to one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Network {
    /// Where it was requested, for errors.
    pub at: String,
    /// The name of the interface in the container; empty: the next of eth0, eth1, ….
    pub name: String,
    /// The bridge of the host, which is created if it does not exist.
    pub bridge: String,
    /// IPv4.
    pub address: AddressAssignment,
    /// IPv6.
    pub address6: AddressAssignment,
    /// The IPv4 subnet of the bridge; by default a free one.
    pub subnet: Option<Subnet>,
    /// The same for IPv6.
    pub subnet6: Option<Subnet>,
    /// The bridge's own IPv4 address; by default the first of the subnet.
    pub gateway: Option<IpAddr>,
    /// The same for IPv6.
    pub gateway6: Option<IpAddr>,
    /// Routes besides the default route.
    pub routes: Vec<Route>,
    /// Whether it may have the default route. The first network that may gets it, for each family.
    pub default_route: bool,
    /// Nothing but the bridge's own network can be reached.
    pub internal: bool,
    /// The bridge stays when the last container has left it.
    pub keep: Option<bool>,
    /// The MTU in bytes; by default the bridge's.
    pub mtu: Option<u32>,
    /// The MAC address, six hexadecimal bytes; by default derived from the IP address.
    pub mac: Option<String>,
    /// Ports of the host that lead to it.
    pub publish: Vec<PortMapping>,
    /// Whether `/etc/hosts` of the container is replaced by one with the names of the bridge's containers.
    pub hosts: bool,
    /// Names of the container besides its id; its hostname comes first.
    pub aliases: Vec<String>,
    /// The servers for `/etc/resolv.conf`, which is replaced if there are any.
    pub dns: Vec<Dns>,
    /// Its search domains.
    pub search: Vec<String>,
    /// Bits per second to the container.
    pub ingress: Option<u64>,
    /// Bits per second from the container.
    pub egress: Option<u64>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            at: "network".to_string(),
            name: String::new(),
            bridge: DEFAULT_BRIDGE.to_string(),
            address: AddressAssignment::Auto,
            address6: AddressAssignment::None,
            subnet: None,
            subnet6: None,
            gateway: None,
            gateway6: None,
            routes: Vec::new(),
            default_route: true,
            internal: false,
            keep: None,
            mtu: None,
            mac: None,
            publish: Vec::new(),
            hosts: false,
            aliases: Vec::new(),
            dns: Vec::new(),
            search: Vec::new(),
            ingress: None,
            egress: None,
        }
    }
}

impl Network {
    /// An interface on this bridge, with a free IPv4 address. The fields have all other settings; [`Network::parse`]
    /// reads the text form of each.
    pub fn bridge(name: impl Into<String>) -> Self {
        Self { bridge: name.into(), ..Self::default() }
    }

    /// Publishes a TCP port of the container on a port of the host.
    #[must_use]
    pub fn publish(mut self, host: u16, container: u16) -> Self {
        self.publish.push(PortMapping::new(host, container));
        self
    }

    /// Parses `key=value` pairs with commas between them; `at` names their origin in errors.
    ///
    /// # Errors
    /// One with every problem.
    pub fn parse(text: &str, at: &str) -> Result<Self> {
        let mut network = Self { at: at.to_string(), ..Self::default() };
        let mut findings = Vec::new();
        let mut seen = Vec::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if seen.contains(&key) && !matches!(key, "route" | "publish" | "alias" | "dns" | "search") {
                findings.push(Diagnostic::new(at, format!("{key} is there twice")));
            }
            seen.push(key);
            if let Err(message) = network.set(key, value) {
                findings.push(Diagnostic::new(at, format!("{key}: {message}")));
            }
        }
        network.check(&mut findings);
        if findings.is_empty() { Ok(network) } else { Err(Error::invalid(findings)) }
    }

    /// Publishes ports, in the form of the value of `publish`.
    pub fn add_publish(&mut self, text: &str) -> Result<()> {
        let refused = |message| Error::invalid(vec![Diagnostic::new(&self.at, message)]);
        self.publish.push(text.parse().map_err(refused)?);
        Ok(())
    }

    /// Limits the bandwidth in both directions (`100mbit`), or in those that are named
    /// (`ingress=1gbit,egress=100mbit`).
    pub fn set_bandwidth(&mut self, text: &str) -> Result<()> {
        let refused = |message| Error::invalid(vec![Diagnostic::new(&self.at, message)]);
        for part in text.split(',') {
            let (ingress, egress) = match part.split_once('=') {
                Some(("ingress", value)) => (Some(rate(value).map_err(refused)?), None),
                Some(("egress", value)) => (None, Some(rate(value).map_err(refused)?)),
                Some((key, _)) => return Err(refused(format!("{key}: neither ingress nor egress"))),
                None => [rate(part).map_err(refused)?; 2].map(Some).into(),
            };
            self.ingress = ingress.or(self.ingress);
            self.egress = egress.or(self.egress);
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str) -> std::result::Result<(), String> {
        match key {
            "name" => self.name = value.to_string(),
            "bridge" => self.bridge = value.to_string(),
            "address" => self.address = address(value)?,
            "address6" => self.address6 = address(value)?,
            "subnet" => self.subnet = Some(value.parse()?),
            "subnet6" => self.subnet6 = Some(value.parse()?),
            "gateway" => self.gateway = Some(ip(value)?),
            "gateway6" => self.gateway6 = Some(ip(value)?),
            "route" => self.routes.push(route(value)?),
            "default" => self.default_route = flag(value)?,
            "internal" => self.internal = flag(value)?,
            "keep" => self.keep = Some(flag(value)?),
            "mtu" => self.mtu = Some(mtu(value)?),
            "mac" => self.mac = Some(mac(value)?),
            "publish" => self.publish.push(value.parse()?),
            "hosts" => self.hosts = flag(value)?,
            "alias" => self.aliases.push(alias(value)?),
            "dns" if value == "host" => self.dns.push(Dns::Host),
            "dns" => self.dns.push(Dns::Server(ip(value)?)),
            "search" => self.search.push(host_name(value)?),
            "ingress" => self.ingress = Some(rate(value)?),
            "egress" => self.egress = Some(rate(value)?),
            _ => return Err("unknown key".to_string()),
        }
        Ok(())
    }

    /// Checks what the text form of values rules out, for values that were not made from text.
    fn values(&self) -> impl Iterator<Item = std::result::Result<(), String>> {
        let said = |key: &'static str| move |message: String| format!("{key}: {message}");
        let aliases = self.aliases.iter().map(move |name| host_name(name).map(drop).map_err(said("alias")));
        let search = self.search.iter().map(move |name| host_name(name).map(drop).map_err(said("search")));
        let mac = self.mac.iter().map(move |text| mac(text).map(drop).map_err(said("mac")));
        let mtu = self.mtu.iter().map(move |bytes| mtu(&bytes.to_string()).map(drop).map_err(said("mtu")));
        let rates = [(self.ingress, "ingress"), (self.egress, "egress")];
        let limits = rates
            .into_iter()
            .filter_map(move |(bits, key)| Some(rate(&bits?.to_string()).map(drop).map_err(said(key))));
        let ports = self.publish.iter().map(move |ports| ports.check().map_err(said("publish")));
        aliases.chain(search).chain(mac).chain(mtu).chain(limits).chain(ports)
    }

    /// Checks what does not depend on other networks.
    fn check(&self, findings: &mut Vec<Diagnostic>) {
        let mut refuse = |message: String| findings.push(Diagnostic::new(&self.at, message));
        let wrong: Vec<_> = self.values().filter_map(std::result::Result::err).collect();
        if !wrong.is_empty() {
            // The other checks rely on these.
            return wrong.into_iter().for_each(refuse);
        }
        for name in [&self.name, &self.bridge] {
            if let Err(message) = interface_name(name)
                && !(name.is_empty() && std::ptr::eq(name, &self.name))
            {
                refuse(message);
            }
        }
        for v4 in [true, false] {
            let (wish, subnet, gateway) = self.of_family(v4);
            let (key, kind) = if v4 { ("", "IPv4") } else { ("6", "IPv6") };
            let fixed = if let AddressAssignment::Static(ip) = wish { Some(*ip) } else { None };
            let all =
                [("address", fixed), ("subnet", subnet.map(|subnet| subnet.ip())), ("gateway", gateway)];
            for (name, ip) in all.iter().filter_map(|(name, ip)| Some((name, (*ip)?))) {
                if ip.is_ipv4() != v4 {
                    refuse(format!("{name}{key}: {ip} is no {kind} address"));
                }
                if let Some(subnet) = subnet.filter(|subnet| *name != "subnet" && !subnet.is_usable(ip)) {
                    refuse(format!("{name}{key}: {ip} is not a host address in {subnet}"));
                }
            }
            if let Some(subnet) = subnet.filter(|subnet| !is_hosts(subnet.network())) {
                refuse(format!("subnet{key}: {subnet} has no addresses of hosts"));
            }
            if fixed.is_some() && fixed == gateway {
                refuse(format!("address{key}: it is the gateway's"));
            }
        }
        if self.address == AddressAssignment::None
            && self.address6 == AddressAssignment::None
            && !self.publish.is_empty()
        {
            refuse("publish: the interface has no address".to_string());
        }
        if self.address6 != AddressAssignment::None && self.mtu.is_some_and(|mtu| mtu < 1280) {
            refuse("mtu: IPv6 takes at least 1280".to_string());
        }
        if self.internal && !self.publish.is_empty() {
            refuse("publish: the network is internal".to_string());
        }
        for (at, publish) in self.publish.iter().enumerate() {
            if let Some(other) = self.publish[..at].iter().find(|other| other.is_like(publish)) {
                refuse(format!("publish: {publish}: {other} has that port already"));
            }
            if publish.address == Some(IpAddr::V6(Ipv6Addr::LOCALHOST)) {
                refuse(format!("publish: {publish}: the kernel forwards nothing from ::1; use 127.0.0.1"));
            }
            let wish = |ip: IpAddr| self.of_family(ip.is_ipv4()).0;
            if publish.address.is_some_and(|ip| *wish(ip) == AddressAssignment::None) {
                refuse(format!("publish: {publish}: the interface has no address of that family"));
            }
        }
    }

    /// The addresses and ports of the host for one of its mappings: both families when no address is named.
    pub(super) fn bindings(&self, ports: PortMapping) -> impl Iterator<Item = (IpAddr, u16)> {
        let PortMapping { first, last, .. } = ports;
        let any = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
        let has = |ip: &IpAddr| *self.of_family(ip.is_ipv4()).0 != AddressAssignment::None;
        let addresses = match ports.address {
            Some(address) => vec![address],
            None => any.into_iter().filter(has).collect(),
        };
        addresses.into_iter().flat_map(move |ip| (first..=last).map(move |port| (ip, port)))
    }

    /// The address assignment, the subnet and the gateway, of IPv4 or of IPv6.
    pub(super) fn of_family(&self, v4: bool) -> (&AddressAssignment, Option<Subnet>, Option<IpAddr>) {
        if v4 {
            (&self.address, self.subnet, self.gateway)
        } else {
            (&self.address6, self.subnet6, self.gateway6)
        }
    }
}

/// Warnings about the annotations that request a network where the operator has not allowed that.
pub(crate) fn ignored(spec: &Spec) -> Vec<Diagnostic> {
    let annotations = spec.annotations().iter().flatten().map(|(key, _)| key);
    let mut keys: Vec<_> = annotations.filter(|key| key.starts_with(ANNOTATION)).collect();
    keys.sort_unstable();
    let message =
        "ignored: an image can have written it; who starts the container can allow network annotations";
    keys.into_iter().map(|key| Diagnostic::warning(format!("annotations[{key}]"), message)).collect()
}

/// The networks that the caller and, with `by_annotation`, annotations request, each with the name of its interface.
///
/// # Errors
/// The error has every problem of all of them.
pub(crate) fn wanted(spec: &Spec, typed: &[Network], by_annotation: bool) -> Result<Vec<Network>> {
    let mut findings = Vec::new();
    let mut networks = Vec::new();
    let mut annotations: Vec<_> = spec.annotations().iter().flatten().filter(|_| by_annotation).collect();
    annotations.sort_unstable();
    for (key, value) in annotations {
        let Some(name) = key.strip_prefix(ANNOTATION) else { continue };
        match Network::parse(value, &format!("annotations[{key}]")) {
            Ok(network) if !network.name.is_empty() => {
                findings.push(Diagnostic::new(&network.at, "name: the annotation's key has it already"));
            }
            Ok(network) => networks.push(Network { name: name.to_string(), ..network }),
            Err(error) => findings.extend_from_slice(error.diagnostics()),
        }
    }
    networks.extend_from_slice(typed);
    if let Some(hostname) = spec.hostname().as_ref().filter(|name| host_name(name).is_ok()) {
        networks.iter_mut().for_each(|network| network.aliases.insert(0, hostname.clone()));
    }
    for at in 0..networks.len() {
        if networks[at].name.is_empty() {
            let free = |name: &String| networks.iter().all(|network| network.name != *name);
            let name = (0..).map(|number| format!("eth{number}")).find(free);
            networks[at].name = name.unwrap_or_default();
        }
    }
    check_together(&networks, &mut findings);
    if let Some(network) = networks.first()
        && !is_new(listed(spec), LinuxNamespaceType::Network)
    {
        let message = "needs a network namespace of its own: linux.namespaces, without a path";
        findings.push(Diagnostic::new(&network.at, message));
    }
    if findings.is_empty() { Ok(networks) } else { Err(Error::invalid(findings)) }
}

fn check_together(networks: &[Network], findings: &mut Vec<Diagnostic>) {
    for (at, network) in networks.iter().enumerate() {
        network.check(findings);
        for other in &networks[..at] {
            if other.name == network.name {
                let message = format!("the interface {} is there twice", network.name);
                findings.push(Diagnostic::new(&network.at, message));
            }
            if other.bridge == network.bridge && other.internal != network.internal {
                let message = format!("bridge {} is internal or it is not; see {}", network.bridge, other.at);
                findings.push(Diagnostic::new(&network.at, message));
            }
            let both =
                network.publish.iter().flat_map(|own| other.publish.iter().map(move |other| (own, other)));
            for (own, published) in both.filter(|(own, published)| own.is_like(published)) {
                let message = format!("publish: {own}: {published} of {} has that port already", other.at);
                findings.push(Diagnostic::new(&network.at, message));
            }
            for v4 in [true, false] {
                let (Some(a), Some(b)) = (network.of_family(v4).1, other.of_family(v4).1) else { continue };
                let same = (a.network(), a.length()) == (b.network(), b.length());
                if a.overlaps(b) && !(same && network.bridge == other.bridge) {
                    findings.push(Diagnostic::new(
                        &network.at,
                        format!("the subnet {a} overlaps {b} of {}", other.at),
                    ));
                }
            }
        }
    }
    // A parsed network was checked before.
    findings.dedup();
}

/// The request as text, for `explain`.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} by bridge {}", self.name, self.bridge)?;
        for (wish, kind) in [(self.address, "IPv4"), (self.address6, "IPv6")] {
            match wish {
                AddressAssignment::None => {}
                AddressAssignment::Auto => write!(f, ", a free {kind} address")?,
                AddressAssignment::Static(ip) => write!(f, ", {ip}")?,
            }
        }
        self.publish.iter().try_for_each(|publish| write!(f, ", port {publish}"))?;
        let limits = [(self.ingress, "to"), (self.egress, "from")];
        let mut limits = limits.iter().filter_map(|(rate, way)| Some(((*rate)?, way)));
        limits.try_for_each(|(rate, way)| write!(f, ", {rate} bit/s {way} the container"))
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;

//! The attachments of a container to its networks, and their record in its directory.

use super::ports::{self, PortMapping};
use super::request::Network;
use super::subnet::Subnet;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// What the names of the host's ends begin with.
pub(super) const HOST_END: &str = "ogv";

/// The attachment of a container to one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub network: Network,
    /// The host's end of the veth pair.
    pub host: String,
    /// The ifb interface in which the container's outgoing traffic waits, if that is limited.
    pub queue: Option<String>,
    /// The requested MAC address, or else one derived from an IP address: from a requested one if there is one.
    pub mac: String,
    /// The container's addresses, with the prefix lengths of their subnets.
    pub addresses: Vec<Subnet>,
    pub gateways: Vec<IpAddr>,
    /// The bridge is not one of onggi's, and the rules for its traffic are left to its owner.
    #[serde(default)]
    pub foreign: bool,
}

/// The attachments of a container to all its networks, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    pub networks: Vec<Attachment>,
}

impl Attached {
    pub fn status(&self) -> Vec<InterfaceStatus> {
        let interface = |one: &Attachment| InterfaceStatus {
            name: one.network.name.clone(),
            bridge: one.network.bridge.clone(),
            host_interface: one.host.clone(),
            mac: one.mac.clone(),
            addresses: one.addresses.clone(),
            gateways: one.gateways.clone(),
            publish: one.network.publish.clone(),
        };
        self.networks.iter().map(interface).collect()
    }
}

/// An interface of a container that the library has connected to a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct InterfaceStatus {
    /// Its name in the container, such as `eth0`.
    pub name: String,
    /// The bridge of the host.
    pub bridge: String,
    /// The host's end of the veth pair (veth(4)).
    pub host_interface: String,
    /// Six hexadecimal bytes with colons between them.
    pub mac: String,
    /// Its addresses, with the prefix lengths of their subnets.
    pub addresses: Vec<Subnet>,
    /// One for each family.
    pub gateways: Vec<IpAddr>,
    /// The port mappings that lead to it.
    #[serde(serialize_with = "ports::as_texts")]
    pub publish: Vec<PortMapping>,
}

pub(super) fn record(store: &Path, id: &str) -> PathBuf {
    store.join(id).join("network.json")
}

pub(super) fn write_record(store: &Path, id: &str, attached: &Attached) -> Result<()> {
    let (path, aside) = (record(store, id), store.join(id).join(".network.json"));
    let failed = |error| Error::io(format!("write {}", path.display()), error);
    let bytes = serde_json::to_vec(attached)
        .map_err(|error| Error::external(format!("cannot encode network.json: {error}")))?;
    fs::write(&aside, bytes).map_err(failed)?;
    fs::rename(&aside, &path).map_err(failed)
}

/// The record of a container's attachments; `None` where the library has connected it to no network.
pub(crate) fn read_record(store: &Path, id: &str) -> Result<Option<Attached>> {
    let path = record(store, id);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| Error::io(format!("open {}", path.display()), error))?,
    };
    let damaged = |error| Error::external(format!("{} is damaged: {error}", path.display()));
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

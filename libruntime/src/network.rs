//! The networks of a container: for each network that is requested, a veth pair between a bridge of the host and an
//! interface in the container, with addresses, routes, published ports and limits. By default no network is requested,
//! and nothing is touched.
//!
//! `wanted` reads the requests, without asking the kernel. `Connecting` sets the networks up. `tear_down` removes them,
//! and needs only the id: names are derived from it, and `network.json` in the container's directory is written before
//! anything is made.
//!
//! | file | what |
//! |---|---|
//! | `request.rs` | annotations and command line to [`Network`], with every problem |
//! | `values.rs` | the forms of their values |
//! | `claims.rs` | who has which address, port and bridge: a locked directory of the store |
//! | `bridge.rs` | bridges and their subnets |
//! | `attach.rs` | veth pairs, addresses, routes |
//! | `firewall.rs` | isolation, masquerading and published ports: the rules, which `nft` makes |
//! | `elements.rs` | the elements of their sets and maps, as messages to the kernel |
//! | `flows.rs` | what the kernel remembers of those who send to a published port |
//! | `names.rs` | hosts and resolv.conf |
//! | `bandwidth.rs` | limits, by traffic control |
//! | `rootless.rs`, `pasta.rs` | one network by pasta or slirp4netns, where there are no privileges |
//! | `netlink.rs` | the kernel's side of all of it |

mod attach;
mod attachment;
mod bandwidth;
mod bridge;
mod claims;
mod elements;
mod firewall;
#[cfg(test)]
mod firewall_tests;
mod flows;
#[cfg(test)]
mod host_tests;
mod left;
mod mac;
mod names;
pub(crate) mod netlink;
mod pasta;
mod ports;
mod programs;
mod request;
mod rootless;
#[cfg(test)]
mod rootless_tests;
pub(crate) mod subnet;
mod sysctl;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod values;

pub(crate) use attachment::read_record;
pub use attachment::{Attached, Attachment, InterfaceStatus};
pub(crate) use names::files;
#[cfg(fuzzing)]
pub use netlink::fuzz as fuzz_netlink;
pub use ports::{PortMapping, Protocol};
pub use request::{Dns, Network};
pub(crate) use request::{ignored, wanted};
pub use subnet::Subnet;
pub use values::{AddressAssignment, Route};

use crate::error::{Error, ErrorKind, Result};
use crate::wait;
use attachment::{HOST_END, record, write_record};
use claims::Claims;
use mac::{hash, mac_of};
use netlink::Netlink;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// Connects a container, on a thread of its own: sets up the host's side while the container's namespaces and mounts
/// are made, and the rest once the network namespace exists.
pub(crate) struct Connecting {
    store: PathBuf,
    id: String,
    netns: Option<Sender<OwnedFd>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Connecting {
    /// To be called when the container's directory `store/id` exists.
    pub fn begin(store: &Path, id: &str, networks: &[Network]) -> Result<Self> {
        let (sender, netns) = mpsc::channel();
        // Now, because the stage is about to mount them.
        names::create(&store.join(id), networks)?;
        let (store, id, networks) = (store.to_path_buf(), id.to_string(), networks.to_vec());
        let mut connecting = Self { store: store.clone(), id: id.clone(), netns: Some(sender), thread: None };
        let limits = wait::Inherited::of_this_thread();
        let work = move || {
            // Signals are for the caller's own threads.
            let _ = nix::sys::signal::SigSet::all().thread_block();
            let gave_up = |_| Error::external("the container ended before it had a network");
            limits.within(|| set_up(&store, &id, &networks, || netns.recv().map_err(gave_up)))
        };
        let thread = std::thread::Builder::new().name("network".into()).spawn(work);
        connecting.thread = Some(thread.map_err(|error| Error::io("start a thread for the network", error))?);
        Ok(connecting)
    }

    pub fn enter(&mut self, netns: OwnedFd) {
        if let Some(sender) = self.netns.take() {
            // The send fails where the thread has failed already; `finish` returns its error.
            let _ = sender.send(netns);
        }
    }

    /// # Errors
    /// The error names the annotation. Nothing is left behind.
    pub fn finish(mut self) -> Result<()> {
        self.end().map_err(|error| match error.errno() {
            Some(code) if code == Errno::EPERM as i32 => {
                error.with_hint("this needs CAP_NET_ADMIN in the network namespace of the runtime")
            }
            _ => error,
        })
    }

    fn end(&mut self) -> Result<()> {
        self.netns = None;
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let done = thread.join().unwrap_or_else(|_| Err(Error::external("the network's thread panicked")));
        // Done on this thread, because the other one may have entered the container's namespace. The first error is the
        // one to report; a deletion by force tries again.
        done.inspect_err(|_| drop(wait::unlimited(|| tear_down(&self.store, &self.id, false))))
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        // Without a namespace the thread gives up, and what it has done is rolled back.
        let _ = self.end();
    }
}

/// Connects the network namespace that `netns` returns; the calling thread stays in it.
fn set_up(
    store: &Path,
    id: &str,
    networks: &[Network],
    netns: impl FnOnce() -> Result<OwnedFd>,
) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return prepare(store, id, networks)?.connect(id, netns()?);
    }
    rootless::connect(store, id, networks, netns()?.as_fd())
}

/// A host side that is set up: bridges with their indices, claimed addresses, published ports.
struct Prepared {
    host: Netlink,
    attached: Attached,
    bridges: Vec<u32>,
}

fn prepare(store: &Path, id: &str, networks: &[Network]) -> Result<Prepared> {
    let first = |network: &Network| planned(store, id, network);
    let mut attached = Attached { networks: networks.iter().map(first).collect() };
    // After a crash from here on, `tear_down` finds what to remove by the record.
    write_record(store, id, &attached)?;
    let mut host = Netlink::here()?;
    let claims = Claims::lock(store)?;
    let mut bridges = Vec::new();
    for one in &mut attached.networks {
        let at = |error: Error| error.at(&one.network.at);
        let bridge = bridge::plan(&mut host, &claims, id, &one.network, &one.host, &bridges).map_err(at)?;
        bridge::give_addresses(&claims, id, one, &bridge).map_err(|error| error.at(&one.network.at))?;
        if one.mac.is_empty() {
            one.mac = mac_of(one);
        }
        one.network.mtu = one.network.mtu.or(bridge.mtu);
        one.foreign = bridge.foreign;
        claims.take_ports(id, &one.network).map_err(|error| error.at(&one.network.at))?;
        bridges.push(bridge);
    }
    write_record(store, id, &attached)?;
    names::join(&claims, id, &attached)?;
    for one in &attached.networks {
        add_rules(&claims, id, one).map_err(|error| error.at(&one.network.at))?;
    }
    flows::forget(&attached.networks)?;
    let make = |(network, bridge): (&Network, &bridge::Bridge)| {
        bridge::make(&mut host, &claims, network, bridge).map_err(|error| error.at(&network.at))
    };
    let planned = attached.networks.iter().map(|one| &one.network).zip(&bridges);
    let bridges = planned.map(make).collect::<Result<_>>()?;
    Ok(Prepared { host, attached, bridges })
}

fn add_rules(claims: &Claims, id: &str, one: &Attachment) -> Result<()> {
    if firewall::make(claims)? {
        // The table was missing: restores the elements of the containers that were connected when somebody flushed all
        // rules.
        for other in others(claims, id)? {
            match firewall::add(claims, &other) {
                // Another store has published its port since.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                done => done?,
            }
        }
    }
    firewall::add(claims, one)
}

/// The networks of the other containers of the store.
fn others(claims: &Claims, id: &str) -> Result<Vec<Attachment>> {
    let mut all = Vec::new();
    for bridge in claims.bridges()? {
        for other in claims.owners(&bridge, HOST_END)?.iter().filter(|other| *other != id) {
            let record = read_record(claims.store(), other)?.unwrap_or_default();
            all.extend(record.networks.into_iter().filter(|one| one.network.bridge == bridge));
        }
    }
    Ok(all)
}

impl Prepared {
    /// Without the lock, because only this container's namespace is changed from here on: another container may be
    /// prepared meanwhile.
    fn connect(mut self, id: &str, netns: OwnedFd) -> Result<()> {
        for (one, bridge) in self.attached.networks.iter().zip(self.bridges) {
            let done = attach::link(&mut self.host, id, one, bridge, netns.as_fd());
            done.and_then(|()| bandwidth::limit(&mut self.host, one))
                .map_err(|error| error.at(&one.network.at))?;
        }
        setns(&netns, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::os("setns to the container's network namespace", errno))?;
        attach::configure(&self.attached)
    }
}

/// An attachment, as far as it is known before the kernel is asked.
fn planned(store: &Path, id: &str, network: &Network) -> Attachment {
    let key = hash(&[store.as_os_str().as_encoded_bytes(), id.as_bytes(), network.name.as_bytes()]);
    let name = |prefix: &str| format!("{prefix}{:012x}", key & 0xffff_ffff_ffff);
    Attachment {
        host: name(HOST_END),
        queue: network.egress.map(|_| name("ogi")),
        mac: network.mac.clone().unwrap_or_default(),
        network: network.clone(),
        addresses: Vec::new(),
        gateways: Vec::new(),
        foreign: false,
    }
}

/// Starts the slowest part of [`tear_down`], which also reports its errors. Returns whether there is anything for that
/// to do.
pub(crate) fn begin_tear_down(store: &Path, id: &str) -> bool {
    let record = read_record(store, id);
    if let Ok(Some(attached)) = &record {
        let _ = firewall::close(attached);
    }
    !matches!(record, Ok(None))
}

/// Removes what [`Connecting`] has made for a container, even if only a part was made. `ends`: its network namespace
/// ends with the container.
pub(crate) fn tear_down(store: &Path, id: &str, ends: bool) -> Result<()> {
    let Some(attached) = read_record(store, id)? else { return Ok(()) };
    let young = ends && is_young(store, id);
    // Without an interface of the host it is a rootless network.
    if attached.networks.iter().all(|one| one.host.is_empty()) {
        rootless::disconnect(&store.join(id))?;
    } else {
        disconnect(store, id, &attached, young)?;
    }
    match fs::remove_file(record(store, id)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("unlink {}", record(store, id).display()), error))
        }
        _ => Ok(()),
    }
}

fn disconnect(store: &Path, id: &str, attached: &Attached, young: bool) -> Result<()> {
    let mut host = Netlink::here()?;
    let mut unremoved = Vec::new();
    for one in &attached.networks {
        let done = attach::unlink(&mut host, &one.host, young);
        unremoved.extend(done.map_err(|errno| Error::os(format!("remove interface {}", one.host), errno))?);
        if let Some(queue) = &one.queue {
            host.remove_link(queue).map_err(|errno| Error::os(format!("remove interface {queue}"), errno))?;
        }
    }
    let claims = Claims::lock(store)?;
    unremoved.into_iter().try_for_each(|index| left::note(&claims, index))?;
    left::sweep(&claims, &mut host)?;
    names::remove_from_others(&claims, id, attached)?;
    let mut gone = Vec::new();
    for Attachment { network, .. } in &attached.networks {
        let free = claims.release(&network.bridge, id)? == 0;
        let known = gone.contains(&network.bridge.as_str());
        if free && !known && bridge::is_removable(&mut host, &claims, &network.bridge)? {
            gone.push(network.bridge.as_str());
        }
    }
    let rules = firewall::forget(attached, &gone, claims.bridges()?.is_empty())?;
    // Best effort: the kernel drops conntrack entries by itself, some time after the last packet.
    let _ = flows::forget(&attached.networks);
    for name in gone {
        bridge::remove(&mut host, &claims, name)?;
    }
    drop(rules);
    // Last, because another container may claim them once the firewall has no rules for them.
    claims.release_ports(id)
}

/// Whether a container was connected less than half a second ago.
fn is_young(store: &Path, id: &str) -> bool {
    let changed = fs::metadata(record(store, id)).and_then(|record| record.modified());
    let age = changed.ok().and_then(|changed| changed.elapsed().ok());
    age.is_some_and(|age| age < Duration::from_millis(500))
}

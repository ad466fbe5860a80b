//! Leases of addresses, ports and bridges: symbolic links in a directory of the store, made and read under one lock.
//! Each points to the directory of its container; a claim whose directory is gone is free again, so a crash leaks
//! nothing.
//!
//! `STORE/.network/bridges/BRIDGE/ADDRESS -> ../../../ID`, `STORE/.network/ports/tcp-ADDRESS-PORT`.

use super::ports::Protocol;
use super::request::Network;
use crate::error::{Error, ErrorKind, Result};
use crate::lock;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind as IoErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PORTS: &str = "ports";

/// The claims of one store, under its lock.
pub(super) struct Claims {
    store: PathBuf,
    root: PathBuf,
    lock: File,
}

impl Claims {
    pub fn lock(store: &Path) -> Result<Self> {
        // Canonical, because bridges are identified by the store's path.
        let store =
            store.canonicalize().map_err(|error| Error::io(format!("open {}", store.display()), error))?;
        let root = store.join(".network");
        let failed = |error| Error::io(format!("open {}/lock", root.display()), error);
        DirBuilder::new().recursive(true).mode(0o700).create(root.join("bridges")).map_err(failed)?;
        let lock = File::options().create(true).append(true).open(root.join("lock")).map_err(failed)?;
        lock::exclusive(&lock, &root.join("lock"))?;
        Ok(Self { store, root, lock })
    }

    /// Duplicates the descriptor of the lock for a helper process, so that the lock is held until the helper ends, even
    /// if this process is killed.
    pub fn hold(&self) -> Result<File> {
        self.lock.try_clone().map_err(|error| Error::io("duplicate the lock of the network", error))
    }

    pub fn store(&self) -> &Path {
        &self.store
    }

    /// The directory of `left.rs`.
    pub fn left(&self) -> PathBuf {
        self.root.join("left")
    }

    fn bridge(&self, bridge: &str) -> PathBuf {
        self.root.join("bridges").join(bridge)
    }

    /// Claims `name` on a bridge. Returns the id of another container that has it.
    pub fn take(&self, bridge: &str, name: &str, id: &str) -> Result<std::result::Result<(), String>> {
        self.take_in(&self.bridge(bridge), name, id)
    }

    fn take_in(&self, directory: &Path, name: &str, id: &str) -> Result<std::result::Result<(), String>> {
        let path = directory.join(name);
        let failed = |error| Error::io(format!("symlink {}", path.display()), error);
        if let Some(owner) = owner(&path) {
            if owner == id || self.exists(&owner) {
                return Ok(if owner == id { Ok(()) } else { Err(owner) });
            }
            fs::remove_file(&path).map_err(failed)?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        std::os::unix::fs::symlink(self.store.join(id), &path).map_err(failed)?;
        Ok(Ok(()))
    }

    fn exists(&self, id: &str) -> bool {
        self.store.join(id).symlink_metadata().is_ok()
    }

    /// Everything that is claimed on a bridge, by deleted containers too.
    pub fn names(&self, bridge: &str) -> Result<Vec<String>> {
        list(&self.bridge(bridge))
    }

    /// The existing containers with claims on a bridge that begin with `prefix`, each once.
    pub fn owners(&self, bridge: &str, prefix: &str) -> Result<Vec<String>> {
        let directory = self.bridge(bridge);
        let names = list(&directory)?.into_iter().filter(|name| name.starts_with(prefix));
        let mut owners: Vec<_> = names.filter_map(|name| owner(&directory.join(name))).collect();
        owners.sort_unstable();
        owners.dedup();
        owners.retain(|id| self.exists(id));
        Ok(owners)
    }

    /// Drops the claims of a container and of deleted ones. Returns how many claims are left.
    pub fn release(&self, bridge: &str, id: &str) -> Result<usize> {
        let directory = self.bridge(bridge);
        let left = self.release_in(&directory, id)?;
        if left == 0 {
            match fs::remove_dir(&directory) {
                Err(error) if error.kind() != IoErrorKind::NotFound => {
                    return Err(Error::io(format!("rmdir {}", directory.display()), error));
                }
                _ => {}
            }
        }
        Ok(left)
    }

    /// Drops the claims of deleted containers.
    pub fn release_dead(&self, bridge: &str) -> Result<usize> {
        // No container has this id.
        self.release(bridge, "")
    }

    pub fn release_ports(&self, id: &str) -> Result<()> {
        self.release_in(&self.root.join(PORTS), id).map(drop)
    }

    fn release_in(&self, directory: &Path, id: &str) -> Result<usize> {
        let mut left = 0;
        for name in list(directory)? {
            let path = directory.join(name);
            match owner(&path) {
                Some(owner) if owner != id && self.exists(&owner) => left += 1,
                _ => fs::remove_file(&path)
                    .map_err(|error| Error::io(format!("unlink {}", path.display()), error))?,
            }
        }
        Ok(left)
    }

    /// The bridges with claims, by deleted containers too.
    pub fn bridges(&self) -> Result<Vec<String>> {
        list(&self.root.join("bridges"))
    }

    /// Claims every published port. It is an error if another container or a process of the host has one.
    pub fn take_ports(&self, id: &str, network: &Network) -> Result<()> {
        if network.publish.is_empty() {
            return Ok(());
        }
        let directory = self.root.join(PORTS);
        self.release_in(&directory, "")?;
        let taken = list(&directory)?;
        for publish in &network.publish {
            for (address, port) in network.bindings(*publish) {
                let name = port_name(publish.protocol, address, port);
                let others =
                    || taken.iter().filter(|other| owner(&directory.join(other)).as_deref() != Some(id));
                let other = others().find(|other| ports_collide(other, publish.protocol, address, port));
                if let Some(other) = other {
                    let who = owner(&directory.join(other)).unwrap_or_default();
                    return Err(taken_port(publish.protocol, address, port, &format!("container {who}")));
                }
                if let Err(error) = probe(publish.protocol, SocketAddr::new(address, port)) {
                    return Err(match error.kind() {
                        IoErrorKind::AddrInUse => {
                            taken_port(publish.protocol, address, port, "a process of the host")
                        }
                        _ => Error::io(format!("bind {}", SocketAddr::new(address, port)), error),
                    });
                }
                if let Err(who) = self.take_in(&directory, &name, id)? {
                    return Err(taken_port(publish.protocol, address, port, &format!("container {who}")));
                }
            }
        }
        Ok(())
    }
}

fn owner(path: &Path) -> Option<String> {
    fs::read_link(path).ok()?.file_name()?.to_str().map(str::to_string)
}

fn list(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| Error::io(format!("open {}", directory.display()), error))?,
    };
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

fn port_name(protocol: Protocol, address: IpAddr, port: u16) -> String {
    format!("{protocol}-{address}-{port}")
}

/// An unspecified address has the port on all addresses of its family.
fn ports_collide(other: &str, protocol: Protocol, address: IpAddr, port: u16) -> bool {
    let mut parts = other.split('-');
    let (Some(kind), Some(ip), Some(number)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let Ok(ip) = ip.parse::<IpAddr>() else { return false };
    kind == protocol.to_string()
        && number == port.to_string()
        && ip.is_ipv4() == address.is_ipv4()
        && (ip == address || ip.is_unspecified() || address.is_unspecified())
}

fn taken_port(protocol: Protocol, address: IpAddr, port: u16, who: &str) -> Error {
    let address = SocketAddr::new(address, port);
    Error::new(ErrorKind::AlreadyExists, format!("port {address}/{protocol} is taken by {who}"))
        .with_hint("publish another port, or on another address")
}

/// Whether a process of the host has the port, which would no longer get its packets. Another start that probes it just
/// now, for a container of another store, has it for a moment.
fn probe(protocol: Protocol, address: SocketAddr) -> std::io::Result<()> {
    const PAUSE: Duration = Duration::from_millis(10);
    let bind = || match protocol {
        Protocol::Tcp => TcpListener::bind(address).map(drop),
        Protocol::Udp => UdpSocket::bind(address).map(drop),
        // Most kernels have SCTP as a module, which is not to be loaded for this check.
        Protocol::Sctp => Ok(()),
    };
    let mut tries = 5;
    loop {
        match bind() {
            Err(error) if error.kind() == IoErrorKind::AddrInUse && tries > 1 => tries -= 1,
            result => return result,
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_somebody_has_for_a_moment_is_free() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(probe(Protocol::Tcp, address).unwrap_err().kind(), IoErrorKind::AddrInUse);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(15));
                drop(listener);
            });
            probe(Protocol::Tcp, address).unwrap();
        });
    }
}

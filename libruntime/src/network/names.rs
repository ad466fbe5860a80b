//! `/etc/hosts` and `/etc/resolv.conf` of containers that request them. Both are files in the container's directory,
//! which the plan mounts read-only; so names of containers that are connected later appear in them.
//!
//! A comment in each line of `hosts` names its container, with which the line is removed. Files are changed in place,
//! under the lock of `claims.rs`, because a mounted file cannot be replaced.

use super::attachment::{Attached, Attachment, HOST_END, read_record};
use super::claims::Claims;
use super::request::{Dns, Network};
use super::values::HOST;
use crate::error::{Diagnostic, Error, Result};
use crate::plan::request::NetworkFile;
use oci_spec::runtime::Spec;
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const HOSTS: &str = "hosts";
const RESOLV: &str = "resolv.conf";

/// The beginning of the claim on a bridge of a container that wants names.
const CLAIM: &str = "hosts-";

/// The files to be mounted; `directory` is the container's.
///
/// # Errors
/// The configuration mounts such a file as well.
pub(crate) fn files(spec: &Spec, networks: &[Network], directory: &Path) -> Result<Vec<NetworkFile>> {
    let resolv = |network: &&Network| !network.dns.is_empty() || !network.search.is_empty();
    let wanted = [
        (HOSTS, "hosts", networks.iter().find(|network| network.hosts)),
        (RESOLV, "dns", networks.iter().find(resolv)),
    ];
    let mut files = Vec::new();
    for (name, key, network) in wanted {
        let Some(network) = network else { continue };
        let destination = format!("/etc/{name}");
        let mounts = spec.mounts().iter().flatten();
        if let Some(at) = mounts.map(|mount| mount.destination()).position(|to| to == Path::new(&destination))
        {
            let message = format!("{key}: mounts[{at}] of the configuration is {destination} already");
            return Err(Error::invalid(vec![Diagnostic::new(&network.at, message)]));
        }
        files.push(NetworkFile { at: network.at.clone(), source: directory.join(name), destination });
    }
    Ok(files)
}

/// Makes the files, so that they can be mounted, with what is known at this time.
pub(super) fn create(directory: &Path, networks: &[Network]) -> Result<()> {
    if networks.iter().any(|network| network.hosts) {
        let text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
        write(&directory.join(HOSTS), text)?;
    }
    let mut text = String::new();
    for network in networks {
        for dns in &network.dns {
            match dns {
                Dns::Server(ip) => drop(writeln!(text, "nameserver {ip}")),
                Dns::Host => text.push_str(&of_host().map_err(|error| error.at(&network.at))?),
            }
        }
    }
    let search: Vec<_> = networks.iter().flat_map(|network| &network.search).map(String::as_str).collect();
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    if text.is_empty() { Ok(()) } else { write(&directory.join(RESOLV), &text) }
}

/// The lines of the host's resolv.conf, without servers that only the host can reach.
fn of_host() -> Result<String> {
    // systemd-resolved listens on the host's loopback address; the second file has the servers that it asks.
    const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
    let server = |line: &str| line.trim().strip_prefix("nameserver").map(|ip| ip.trim().parse::<IpAddr>());
    let reachable = |line: &&str| server(line).is_none_or(|ip| ip.is_ok_and(|ip| !ip.is_loopback()));
    for file in FILES {
        let text = fs::read_to_string(file).unwrap_or_default();
        let lines: String = text.lines().filter(reachable).map(|line| format!("{line}\n")).collect();
        if lines.lines().any(|line| server(line).is_some()) {
            return Ok(lines);
        }
    }
    Err(Error::unsupported("dns=host: the host asks no server that a container could reach")
        .with_hint("name one: dns=ADDRESS"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    let failed = |error| Error::io(format!("write {}", path.display()), error);
    let mut file = File::create(path).map_err(failed)?;
    // Every user in the container may read it, independent of the caller's umask.
    file.set_permissions(Permissions::from_mode(0o644)).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

/// Writes the container's own names and those of the other containers into its file, and its own names into theirs.
pub(super) fn join(claims: &Claims, id: &str, attached: &Attached) -> Result<()> {
    let mut text = String::new();
    for one in &attached.networks {
        let bridge = &one.network.bridge;
        let own = lines(id, attached, bridge);
        for other in claims.owners(bridge, CLAIM)?.iter().filter(|other| *other != id) {
            append(&claims.store().join(other).join(HOSTS), &own)?;
        }
        if !one.network.hosts {
            continue;
        }
        let claim = format!("{CLAIM}{}", one.host);
        // No other container can have this claim: it contains the name of this container's interface.
        let _ = claims.take(bridge, &claim, id)?;
        text.push_str(&own);
        if let Some(gateway) = one.gateways.first().filter(|_| !one.network.internal)
            && !text.contains(HOST)
        {
            let _ = writeln!(text, "{gateway}\t{HOST}");
        }
        for other in claims.owners(bridge, HOST_END)?.iter().filter(|other| *other != id) {
            // A container without a record is being created or deleted, and updates this file itself.
            if let Ok(Some(record)) = read_record(claims.store(), other) {
                text.push_str(&lines(other, &record, bridge));
            }
        }
    }
    if text.is_empty() { Ok(()) } else { append(&claims.store().join(id).join(HOSTS), &text) }
}

/// For a container without bridges: only its own names.
pub(super) fn write_own(directory: &Path, id: &str, attached: &Attached) -> Result<()> {
    let text: String = attached.networks.iter().map(|one| lines(id, attached, &one.network.bridge)).collect();
    if attached.networks.iter().any(|one| one.network.hosts) {
        append(&directory.join(HOSTS), &text)
    } else {
        Ok(())
    }
}

/// Removes its names from the files of the other containers.
pub(super) fn remove_from_others(claims: &Claims, id: &str, attached: &Attached) -> Result<()> {
    for bridge in attached.networks.iter().map(|one| &one.network.bridge) {
        for other in claims.owners(bridge, CLAIM)?.iter().filter(|other| *other != id) {
            forget(&claims.store().join(other).join(HOSTS), id)?;
        }
    }
    Ok(())
}

/// The comment that ends a container's lines; `hosts` allows comments (hosts(5)).
fn comment_of(id: &str) -> String {
    format!("\t# {id}\n")
}

/// The lines with a container's addresses on a bridge.
fn lines(id: &str, attached: &Attached, bridge: &str) -> String {
    let on = |one: &&Attachment| one.network.bridge == bridge;
    let mut text = String::new();
    for one in attached.networks.iter().filter(on) {
        let mut names = vec![id];
        for alias in &one.network.aliases {
            if !names.contains(&alias.as_str()) {
                names.push(alias);
            }
        }
        for address in &one.addresses {
            let _ = write!(text, "{}\t{}{}", address.ip(), names.join(" "), comment_of(id));
        }
    }
    text
}

fn append(path: &Path, text: &str) -> Result<()> {
    let open = File::options().append(true).open(path);
    match open.and_then(|mut file| file.write_all(text.as_bytes())) {
        // Its directory is being removed.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other.map_err(|error| Error::io(format!("write {}", path.display()), error)),
    }
}

fn forget(path: &Path, id: &str) -> Result<()> {
    let failed = |error| Error::io(format!("write {}", path.display()), error);
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed)?,
    };
    let comment = comment_of(id);
    let left: String = text.split_inclusive('\n').filter(|line| !line.ends_with(&comment)).collect();
    let mut file = File::options().write(true).open(path).map_err(failed)?;
    file.write_all(left.as_bytes()).map_err(failed)?;
    file.set_len(left.len() as u64).map_err(failed)
}

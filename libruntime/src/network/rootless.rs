//! A network without root: pasta (pasta.rs), or slirp4netns where that is not installed, translates for one interface
//! in a namespace that belongs to the caller's own user namespace. It is a process, which `delete` kills.
//!
//! slirp4netns is found by its socket in the container's directory: the kernel names the peer's pid. So no pid has to
//! be recorded, and none can be lost in a crash.

use super::attachment::{Attached, Attachment, write_record};
use super::mac::{hash, mac};
use super::ports::{PortMapping, Protocol};
use super::programs::{LIMITS, unblocked};
use super::request::Network;
use super::subnet::Subnet;
use super::values::AddressAssignment;
use super::{names, pasta, programs};
use crate::console::connect_in_time;
use crate::error::{Error, ErrorKind, Result};
use crate::sys;
use crate::wait::DEADLINE;
use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const SOCKET: &str = "slirp4netns.sock";
const LOG: &str = "slirp4netns.log";

pub(super) fn connect(store: &Path, id: &str, networks: &[Network], netns: BorrowedFd) -> Result<()> {
    let [network] = networks else {
        return Err(Error::unsupported("without root a container has one network, not several")
            .at(&networks[1].at)
            .with_hint("bridges take root"));
    };
    check(network).map_err(|error| error.at(&network.at))?;
    let subnet = network.subnet.or(Subnet::new(Ipv4Addr::new(10, 0, 2, 0).into(), 24));
    let subnet = subnet.ok_or_else(|| Error::unsupported("no subnet"))?;
    let attached = Attached {
        networks: vec![Attachment {
            host: String::new(),
            queue: None,
            mac: network.mac.clone().unwrap_or_else(|| mac(hash(&[id.as_bytes()]))),
            network: network.clone(),
            // slirp4netns(1): guest and gateway have these numbers in every subnet.
            addresses: vec![subnet.with(subnet.at(100))],
            gateways: vec![subnet.at(2)],
            foreign: false,
        }],
    };
    write_record(store, id, &attached)?;
    names::write_own(&store.join(id), id, &attached)?;
    let one = &attached.networks[0];
    let by_pasta = pasta::start(&store.join(id), one, subnet, netns);
    if by_pasta.map_err(|error| error.at(&network.at))? {
        return Ok(());
    }
    start(&store.join(id), one, subnet, netns).map_err(|error| error.at(&network.at))?;
    for publish in &network.publish {
        forward(&store.join(id), one, *publish).map_err(|error| error.at(&network.at))?;
    }
    Ok(())
}

/// A request that slirp4netns cannot meet is an error.
fn check(network: &Network) -> Result<()> {
    let default = Network::default();
    let not = [
        ("bridge", network.bridge != default.bridge),
        ("address", network.address != AddressAssignment::Auto),
        ("address6", network.address6 != AddressAssignment::None),
        ("subnet6", network.subnet6.is_some()),
        ("gateway", network.gateway.is_some() || network.gateway6.is_some()),
        ("route", !network.routes.is_empty()),
        ("default", !network.default_route),
        ("internal", network.internal),
        ("keep", network.keep.is_some()),
        ("ingress", network.ingress.is_some()),
        ("egress", network.egress.is_some()),
        ("publish", network.publish.iter().any(cannot_publish)),
    ];
    match not.iter().find(|(_, asked)| *asked) {
        Some((key, _)) => Err(Error::unsupported(format!("{key}: not without root")).with_hint(LIMITS)),
        None => Ok(()),
    }
}

fn cannot_publish(publish: &PortMapping) -> bool {
    publish.protocol == Protocol::Sctp || publish.address.is_some_and(|ip| ip.is_ipv6())
}

/// Runs it, and waits until the interface exists.
fn start(directory: &Path, one: &Attachment, subnet: Subnet, netns: BorrowedFd) -> Result<()> {
    let failed = |what: &str| {
        let call = format!("{what} for slirp4netns");
        move |error| Error::io(call, error)
    };
    let owner = sys::owner_of_namespace(netns)
        .map_err(|errno| Error::os("look for the owner of the network namespace", errno))?;
    let opened = File::open(directory).map_err(failed("open the container's directory"))?;
    let log = File::create(directory.join(LOG)).map_err(failed("create a log"))?;
    let (mut ready, theirs) = std::io::pipe().map_err(failed("make a pipe"))?;
    // Paths through this process's descriptors: paths of sockets have to be short, and namespaces may have none.
    let ours = |fd: i32| format!("/proc/{}/fd/{fd}", std::process::id());
    let mut command = Command::new("slirp4netns");
    command
        .args(["--configure", "--disable-host-loopback", "--ready-fd=0", "--netns-type=path"])
        .arg(format!("--mtu={}", one.network.mtu.unwrap_or(65520)))
        .arg(format!("--cidr={}/{}", subnet.network(), subnet.length()))
        .arg(format!("--macaddress={}", one.mac))
        .arg(format!("--api-socket={}/{SOCKET}", ours(opened.as_raw_fd())))
        .arg(format!("--userns-path={}", ours(owner.as_raw_fd())))
        .arg(ours(netns.as_raw_fd()))
        .arg(&one.network.name)
        .stdin(theirs)
        .stdout(Stdio::null())
        .stderr(log)
        // A terminal's interrupt is for the container.
        .process_group(0);
    let mut child = unblocked(|| command.spawn()).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::unsupported("a network without root needs pasta or slirp4netns, and neither is installed")
                .with_hint("install one of them (passt, slirp4netns), or run as root")
        }
        _ => Error::io("execute slirp4netns", error),
    })?;
    // This closes the copy of the writing end, so that the death of slirp4netns is seen as an end of file.
    drop(command);
    let mut said = [0];
    programs::await_word(&mut child, "slirp4netns", ready.as_fd(), DEADLINE)?;
    match ready.read(&mut said).map_err(failed("wait"))? {
        0 => Err(died(directory, &mut child)),
        _ => Ok(()),
    }
}

fn died(directory: &Path, child: &mut Child) -> Error {
    let _ = child.wait();
    let log = fs::read_to_string(directory.join(LOG)).unwrap_or_default();
    let why = log.lines().next().unwrap_or("it ended without a message");
    let error = Error::external(format!("slirp4netns failed: {why}"));
    if why.contains("tun") {
        error.with_hint("everybody has to be allowed to open /dev/net/tun")
    } else {
        error
    }
}

/// Its socket accepts one request in each connection.
fn dial(directory: &Path) -> std::io::Result<UnixStream> {
    let opened = File::open(directory)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd());
    let stream = UnixStream::from(connect_in_time(Path::new(&path))?);
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(stream)
}

fn forward(directory: &Path, one: &Attachment, publish: PortMapping) -> Result<()> {
    let address = publish.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let failed = |error| Error::io(format!("publish {publish} by slirp4netns"), error);
    for port in publish.first..=publish.last {
        let request = serde_json::json!({ "execute": "add_hostfwd", "arguments": {
            "proto": publish.protocol, "host_addr": address, "host_port": port,
            "guest_addr": one.addresses[0].ip(), "guest_port": publish.inside(port) } });
        let mut stream = dial(directory).map_err(failed)?;
        stream.write_all(request.to_string().as_bytes()).map_err(failed)?;
        stream.shutdown(Shutdown::Write).map_err(failed)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(failed)?;
        if answer.contains("\"error\"") {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("port {address}:{port}/{} cannot be published: {}", publish.protocol, answer.trim()),
            )
            .with_hint("a process of the host may have it, or it is below 1024"));
        }
    }
    Ok(())
}

/// Kills the process that serves a container; it is no error if it is gone.
pub(super) fn disconnect(directory: &Path) -> Result<()> {
    pasta::end(directory)?;
    let Ok(stream) = dial(directory) else { return Ok(()) };
    let failed = |errno| Error::os("end slirp4netns", errno);
    let peer = getsockopt(&stream, PeerCredentials).map_err(failed)?;
    let process = match sys::pidfd_open(peer.pid()) {
        Err(Errno::ESRCH) => return Ok(()),
        other => other.map_err(failed)?,
    };
    // It still listens, so the pid had not been reused when the pidfd was opened.
    if dial(directory).is_ok() {
        sys::pidfd_send_signal(process.as_fd(), libc::SIGKILL).map_err(failed)?;
        // Where it is a child of this process, it must not stay a zombie.
        let _ = sys::wait_pidfd(process.as_fd(), true);
    }
    Ok(())
}

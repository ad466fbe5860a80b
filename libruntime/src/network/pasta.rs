//! A network without root by pasta(1), which carries connections between sockets and the interface.
//!
//! It writes its pid into a file in the container's directory. Its command line names that file, which shows that a
//! process with this pid is still the same pasta.

use super::attachment::Attachment;
use super::ports::{PortMapping, Protocol};
use super::programs::{self, LIMITS, unblocked};
use super::subnet::Subnet;
use crate::error::{Error, Result};
use crate::sys;
use crate::wait::DEADLINE;
use nix::errno::Errno;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

const PID: &str = "pasta.pid";
const LOG: &str = "pasta.log";

/// Runs it; it goes to the background once the interface exists. Returns whether it is installed.
pub(super) fn start(directory: &Path, one: &Attachment, subnet: Subnet, netns: BorrowedFd) -> Result<bool> {
    let owner = sys::owner_of_namespace(netns)
        .map_err(|errno| Error::os("look for the owner of the network namespace", errno))?;
    let mut command = Command::new("pasta");
    command.args([
        "--config-net",
        "--ipv4-only",
        "--quiet",
        "--no-map-gw",
        "--no-netns-quit",
        "-T",
        "none",
        "-U",
        "none",
    ]);
    command.arg("--log-file").arg(directory.join(LOG)).arg("--pid").arg(directory.join(PID));
    command.args(["--ns-ifname", &one.network.name, "--ns-mac-addr", &one.mac]);
    command.args(["--address", &subnet.at(100).to_string(), "--netmask", &subnet.length().to_string()]);
    command.args(["--gateway", &subnet.at(2).to_string(), "--dns-forward", &subnet.at(3).to_string()]);
    command.arg("--mtu").arg(one.network.mtu.unwrap_or(65520).to_string());
    for (flag, protocol) in [("-t", Protocol::Tcp), ("-u", Protocol::Udp)] {
        let mut ports = one.network.publish.iter().filter(|publish| publish.protocol == protocol).peekable();
        if ports.peek().is_none() {
            command.args([flag, "none"]);
        }
        for publish in ports {
            command.args([flag, &port(publish)]);
        }
    }
    // Passed as its standard descriptors: once it is in the user namespace it may not open the caller's descriptors.
    command.args(["--netns", "/proc/self/fd/0", "--userns", "/proc/self/fd/1"]);
    let copy = |fd: BorrowedFd| fd.try_clone_to_owned().map_err(|error| Error::io("dup for pasta", error));
    command.stdin(copy(netns)?).stdout(owner).stderr(Stdio::null());
    // So that a terminal's interrupt does not reach it.
    command.process_group(0);
    let mut child = match unblocked(|| command.spawn()) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        other => other.map_err(|error| Error::io("execute pasta", error))?,
    };
    match programs::await_end(&mut child, "pasta", DEADLINE)?.success() {
        true => Ok(true),
        false => Err(failed(directory, &one.network.publish)),
    }
}

fn port(publish: &PortMapping) -> String {
    let address = publish.address.map(|ip| format!("{ip}/")).unwrap_or_default();
    let PortMapping { first, last, container, .. } = publish;
    match last - first {
        0 => format!("{address}{first}:{container}"),
        more => format!("{address}{first}-{last}:{container}-{}", container + more),
    }
}

fn failed(directory: &Path, published: &[PortMapping]) -> Error {
    let log = fs::read_to_string(directory.join(LOG)).unwrap_or_default();
    let why = log.lines().filter_map(|line| line.split_once("ERROR:")).map(|(_, why)| why.trim()).next();
    let error = Error::external(format!("pasta failed: {}", why.unwrap_or("it ended without a message")));
    // The message of newer versions does not say which port could not be had.
    let ports = published.iter().map(port).collect::<Vec<_>>().join(", ");
    match ports.is_empty() {
        true => error.with_hint(LIMITS),
        false => error.with_hint(format!("a published port ({ports}) may be taken or below 1024; {LIMITS}")),
    }
}

/// Kills it, if it was started; it is no error if it is gone.
pub(super) fn end(directory: &Path) -> Result<()> {
    let path = directory.join(PID);
    let pid = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<i32>().ok());
    let Some(pid) = pid else { return Ok(()) };
    let failed = |errno| Error::os("end pasta", errno);
    let process = match sys::pidfd_open(pid) {
        Err(Errno::ESRCH) => return Ok(()),
        other => other.map_err(failed)?,
    };
    // Read while the pidfd is open, so the pid cannot have been reused.
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if words.split(|byte| *byte == 0).any(|word| word == path.as_os_str().as_encoded_bytes()) {
        sys::pidfd_send_signal(process.as_fd(), libc::SIGKILL).map_err(failed)?;
    }
    Ok(())
}

//! `linux.netDevices`: interfaces of the host that move into the container (config-linux.md, "Network Devices"). They
//! keep their global permanent addresses, may get another name, and are up afterwards. What becomes of them when the
//! container ends is the kernel's decision.
//!
//! If one cannot be moved, that is an error, and those that were moved before it are moved back.

use crate::child::Child;
use crate::error::{Error, Result};
use crate::network::netlink::{Address, Link, Netlink, Outcome, link_message};
use netlink_packet_route::link::LinkAttribute;
use nix::errno::Errno;
use oci_spec::runtime::Spec;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Moves every device of `spec` into the network namespace of `init`.
pub(crate) fn move_all(spec: &Spec, init: &Child) -> Result<()> {
    let devices = spec.linux().as_ref().and_then(|linux| linux.net_devices().as_ref());
    let Some(devices) = devices.filter(|devices| !devices.is_empty()) else { return Ok(()) };
    let open = |path: String| File::open(&path).map_err(|error| Error::io(format!("open {path}"), error));
    let netns = open(format!("/proc/{}/ns/net", init.pid()))?;
    let mut named: Vec<(&str, &str)> = devices
        .iter()
        .map(|(host, device)| {
            let name = device.name().as_deref().filter(|name| !name.is_empty());
            (host.as_str(), name.unwrap_or(host))
        })
        .collect();
    // The same config moves them in the same order.
    named.sort_unstable();
    move_named(&named, netns.as_fd())
}

/// Pairs of a name on the host and one in the namespace.
pub(crate) fn move_named(devices: &[(&str, &str)], netns: BorrowedFd) -> Result<()> {
    let home = File::open("/proc/thread-self/ns/net")
        .map_err(|error| Error::io("open /proc/thread-self/ns/net", error))?;
    let mut outside = Side { netlink: Netlink::here()?, namespace: home.as_fd() };
    let mut inside = Side { netlink: Netlink::in_namespace(netns)?, namespace: netns };
    let mut moved = Vec::new();
    for (host, name) in devices {
        match take_in(&mut outside, &mut inside, host, name) {
            Ok(device) => moved.push(device),
            Err(error) => {
                for (link, addresses, name) in moved.iter().rev() {
                    // The first error is the one to report.
                    let _ = bring_back(&mut outside, &mut inside, link, addresses, name);
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

struct Side<'a> {
    netlink: Netlink,
    namespace: BorrowedFd<'a>,
}

type Moved = (Link, Vec<Address>, String);

fn take_in(outside: &mut Side, inside: &mut Side, host: &str, name: &str) -> Result<Moved> {
    let at = format!("linux.netDevices[{host}]");
    let failed = |what: &str| {
        let (call, at) = (format!("{what} {host}"), at.clone());
        move |errno| Error::os(call, errno).at(at)
    };
    let link = outside.netlink.link(host).map_err(failed("look for interface"))?;
    let link = link.ok_or_else(|| {
        failed("look for interface")(Errno::ENODEV)
            .with_hint("it has to be an interface of the network namespace that the runtime runs in")
    })?;
    let addresses = outside.netlink.addresses().map_err(failed("list the addresses of"))?;
    let kept = |address: &Address| address.index == link.index && address.permanent && address.global;
    let addresses: Vec<Address> = addresses.into_iter().filter(kept).collect();
    // Checked before, because the kernel may move it and only then find that its new name is taken.
    if inside.netlink.link(name).map_err(failed("look in the container for"))?.is_some() {
        return Err(Error::os(format!("rename {host} to {name} in the container"), Errno::EEXIST)
            .at(format!("{at}.name"))
            .with_hint("the container's network namespace has an interface with that name"));
    }
    send(outside, inside.namespace, link.index, name).map_err(|errno| {
        failed("move into the container")(errno).with_hint(match errno {
            Errno::EINVAL => "this kind of interface cannot leave its network namespace",
            Errno::EPERM => "moving it needs CAP_NET_ADMIN over both network namespaces",
            _ => "see `ip -details link show` for what it is",
        })
    })?;
    let moved = (link, addresses, name.to_string());
    settle(inside, name, &moved.1, true).map_err(|errno| {
        let _ = bring_back(outside, inside, &moved.0, &moved.1, name);
        failed("set up in the container")(errno)
    })?;
    Ok(moved)
}

fn bring_back(
    outside: &mut Side,
    inside: &mut Side,
    link: &Link,
    addresses: &[Address],
    name: &str,
) -> Outcome<()> {
    let now = inside.netlink.link(name)?.ok_or(Errno::ENODEV)?;
    send(inside, outside.namespace, now.index, &link.name)?;
    settle(outside, &link.name, addresses, link.up)
}

/// Moves and renames it. The kernel sets a moved interface down and removes its addresses.
fn send(from: &mut Side, to: BorrowedFd, index: u32, name: &str) -> Outcome<()> {
    let mut message = link_message(index);
    message.attributes =
        vec![LinkAttribute::NetNsFd(to.as_raw_fd()), LinkAttribute::IfName(name.to_string())];
    from.netlink.set_link(message)
}

fn settle(side: &mut Side, name: &str, addresses: &[Address], up: bool) -> Outcome<()> {
    // Its index may have changed on the way.
    let link = side.netlink.link(name)?.ok_or(Errno::ENODEV)?;
    for address in addresses {
        side.netlink.restore_address(link.index, address)?;
    }
    if up { side.netlink.bring_up(link.index) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::testing::{Namespace, in_new_host, ip};

    #[test]
    #[ignore = "needs root"]
    fn an_interface_moves_with_its_name_and_addresses() {
        in_new_host(|| {
            let container = Namespace::new();
            ip("link add d0 type veth peer name d1");
            ip("addr add 10.9.0.1/24 dev d0");
            ip("addr add fd09::1/64 dev d0 nodad");
            ip("link set d0 mtu 1400 address 02:00:00:00:00:09 up");
            move_named(&[("d0", "data")], container.fd()).unwrap();
            assert!(!ip("link").contains(" d0@"));
            let inside = container.ip("addr show data");
            for expected in ["mtu 1400", "02:00:00:00:00:09", "10.9.0.1/24", "fd09::1/64", "UP"] {
                assert!(inside.contains(expected), "{expected} in {inside}");
            }
        });
    }

    #[test]
    #[ignore = "needs root"]
    fn a_taken_name_is_an_error_and_moves_nothing() {
        in_new_host(|| {
            let container = Namespace::new();
            container.ip("link add taken type bridge");
            ip("link add d0 type veth peer name d1");
            ip("addr add 10.9.0.1/24 dev d0");
            ip("link set d0 up");
            let error = move_named(&[("d0", "fine"), ("d1", "taken")], container.fd()).unwrap_err();
            assert_eq!(error.config_path(), Some("linux.netDevices[d1].name"));
            assert!(error.to_string().contains("EEXIST"), "{error}");
            // The first is back as it was.
            let outside = ip("addr show d0");
            assert!(outside.contains("10.9.0.1/24") && outside.contains("UP"), "{outside}");
            assert!(ip("link").contains("d1@d0"));
            assert!(!container.ip("link").contains("fine"));
        });
    }

    #[test]
    #[ignore = "needs root"]
    fn a_missing_interface_is_named() {
        in_new_host(|| {
            let error = move_named(&[("none0", "x")], Namespace::new().fd()).unwrap_err();
            assert_eq!(error.config_path(), Some("linux.netDevices[none0]"));
            assert_eq!(error.errno(), Some(Errno::ENODEV as i32));
        });
    }
}

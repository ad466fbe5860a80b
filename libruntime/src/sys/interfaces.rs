//! Interfaces, addresses and routes of the network namespace that a socket belongs to, by the
//! requests of netdevice(7), whose structures nix and in part libc lack.

use super::{Result, check};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// struct ifreq: a name, and what a request is about.
#[repr(C)]
struct Named<T> {
    name: [u8; libc::IFNAMSIZ],
    value: T,
    /// As much as the largest member of the kernel's union takes.
    rest: [u64; 3],
}

/// struct in6_ifreq.
#[repr(C)]
struct Address6 {
    address: [u8; 16],
    prefix: u32,
    index: i32,
}

/// struct in6_rtmsg.
#[repr(C)]
#[derive(Default)]
struct Route6 {
    to: [u8; 16],
    source: [u8; 16],
    gateway: [u8; 16],
    kind: u32,
    to_length: u16,
    source_length: u16,
    metric: u32,
    info: libc::c_ulong,
    flags: u32,
    index: i32,
}

fn named<T>(name: &str, value: T) -> Named<T> {
    let mut bytes = [0; libc::IFNAMSIZ];
    // The last byte stays zero; a longer name is none of an interface.
    for (to, from) in bytes.iter_mut().zip(name.bytes()).take(libc::IFNAMSIZ - 1) {
        *to = from;
    }
    Named { name: bytes, value, rest: [0; 3] }
}

/// One request whose structure the kernel reads and may write.
///
/// # Safety
/// `T` is the structure that netdevice(7), linux/route.h or linux/ipv6_route.h have for `code`, or a larger one.
unsafe fn request<T>(socket: BorrowedFd, code: libc::c_ulong, argument: &mut T) -> Result<()> {
    // SAFETY: the structure is ours until the call returns, and the caller vouches for its type.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), code as _, std::ptr::from_mut(argument)) }.into())
        .map(drop)
}

/// struct sockaddr_in without a port.
fn address(ip: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    data[2..6].copy_from_slice(&ip.octets().map(|octet| octet as libc::c_char));
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

/// SIOCGIFINDEX.
pub fn interface_index(socket: BorrowedFd, name: &str) -> Result<u32> {
    let mut argument = named(name, 0i32);
    // SAFETY: a struct ifreq with an index.
    unsafe { request(socket, libc::SIOCGIFINDEX as _, &mut argument) }?;
    Ok(argument.value as u32)
}

/// SIOCGIFFLAGS and SIOCSIFFLAGS: up, and else as it is.
pub fn bring_interface_up(socket: BorrowedFd, name: &str) -> Result<()> {
    let mut argument = named(name, 0 as libc::c_short);
    // SAFETY: a struct ifreq with flags.
    unsafe { request(socket, libc::SIOCGIFFLAGS as _, &mut argument) }?;
    argument.value |= libc::IFF_UP as libc::c_short;
    // SAFETY: the same.
    unsafe { request(socket, libc::SIOCSIFFLAGS as _, &mut argument) }
}

/// SIOCSIFADDR and, where a prefix is not told along with the address, SIOCSIFNETMASK. The socket
/// is of the address's family.
pub fn add_address(socket: BorrowedFd, (name, index): (&str, u32), ip: IpAddr, prefix: u8) -> Result<()> {
    match ip {
        // SAFETY: a struct ifreq with an address.
        IpAddr::V4(ip) => unsafe {
            request(socket, libc::SIOCSIFADDR as _, &mut named(name, address(ip)))?;
            request(socket, libc::SIOCSIFNETMASK as _, &mut named(name, address(mask(prefix))))
        },
        IpAddr::V6(ip) => {
            let mut argument = Address6 { address: ip.octets(), prefix: prefix.into(), index: index as i32 };
            // SAFETY: a struct in6_ifreq, and the socket is of this family.
            unsafe { request(socket, libc::SIOCSIFADDR as _, &mut argument) }
        }
    }
}

/// SIOCADDRT. The socket is of the destination's family, and so is the gateway; without one the
/// destination is on the link.
pub fn add_route(
    socket: BorrowedFd,
    (name, index): (&str, u32),
    (to, prefix): (IpAddr, u8),
    via: Option<IpAddr>,
) -> Result<()> {
    let flags = libc::RTF_UP | if via.is_some() { libc::RTF_GATEWAY } else { 0 };
    match to {
        IpAddr::V4(to) => {
            let Named { name, .. } = named(name, ());
            // SAFETY: zeros are a value of this structure of integers and a pointer.
            let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
            (route.rt_dst, route.rt_genmask) = (address(to), address(mask(prefix)));
            route.rt_flags = flags;
            // The kernel only reads the name, which stays until the call returns.
            route.rt_dev = name.as_ptr().cast_mut().cast();
            if let Some(IpAddr::V4(via)) = via {
                route.rt_gateway = address(via);
            }
            // SAFETY: a struct rtentry.
            unsafe { request(socket, libc::SIOCADDRT as _, &mut route) }
        }
        IpAddr::V6(to) => {
            let via = if let Some(IpAddr::V6(via)) = via { via } else { Ipv6Addr::UNSPECIFIED };
            let mut route = Route6 {
                to: to.octets(),
                to_length: prefix.into(),
                gateway: via.octets(),
                metric: 1024,
                flags: flags.into(),
                index: index as i32,
                ..Route6::default()
            };
            // SAFETY: a struct in6_rtmsg, and the socket is of this family.
            unsafe { request(socket, libc::SIOCADDRT as _, &mut route) }
        }
    }
}

fn mask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0))
}

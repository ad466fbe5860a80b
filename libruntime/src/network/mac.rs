//! MAC addresses, and the hash from which they and the names of interfaces are derived.

use super::attachment::Attachment;
use super::subnet::Subnet;
use super::values::AddressAssignment;

/// FNV-1a with a final mix. It has to stay the same on every machine and in every release, because names are derived
/// from it.
pub(super) fn hash(parts: &[&[u8]]) -> u64 {
    let mut value = 0xcbf2_9ce4_8422_2325u64;
    for part in parts {
        for byte in part.iter().chain(&[0xff]) {
            value = (value ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    value ^= value >> 32;
    value = value.wrapping_mul(0xd6e8_feb8_6659_fd93);
    value ^ value >> 32
}

/// Derived from an IP address and not from the id: neighbours keep the MAC address of an IP address for half a minute.
pub(super) fn mac_of(one: &Attachment) -> String {
    let wishes = [one.network.address, one.network.address6];
    let asked = |address: &&Subnet| wishes.contains(&AddressAssignment::Static(address.ip()));
    let address = one.addresses.iter().find(asked).or(one.addresses.first());
    let address = address.map(|address| address.ip().to_string());
    mac(hash(&[address.as_ref().unwrap_or(&one.host).as_bytes()]))
}

/// A locally administered unicast address.
pub(super) fn mac(key: u64) -> String {
    let [_, _, _, a, b, c, d, e] = key.to_be_bytes();
    format!("02:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}")
}

/// The bytes of an address that `request.rs` has checked or [`mac`] has made.
pub(super) fn mac_bytes(text: &str) -> Vec<u8> {
    text.split(':').filter_map(|part| u8::from_str_radix(part, 16).ok()).collect()
}

//! Adds and removes elements of the firewall's sets and maps by netlink: running `nft` would cost as much as the rest
//! of the network setup. Knows messages (linux/netfilter/nf_tables.h), not what the sets mean; that is in firewall.rs.

use super::netlink::{Netlink, attribute, attributes, nested, netfilter, value_of, whole};
use crate::error::{Error, Result};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST};
use nix::errno::Errno;
use std::thread::sleep;
use std::time::{Duration, Instant};

const TABLE: &[u8] = b"onggi\0";

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
const NFTA_SET_ELEM_EXPIRATION: u16 = 5;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_GEN_ID: u16 = 1;

/// How long an element may take to expire: many ticks.
const PATIENCE: Duration = Duration::from_millis(100);

/// As many elements as certainly fit into one message of the socket.
const BATCH: usize = 256;

/// An element of a map, or of a set, where its value is empty. The parts of keys and values begin at multiples of four
/// bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub set: &'static str,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// Adds elements without a timeout. It is no error if one exists, but EEXIST or EBUSY if it has another value.
pub(super) fn add(elements: &[Element]) -> Result<()> {
    let new = |some: &[Element]| some.iter().map(|one| one.body(&[])).collect::<Vec<_>>();
    elements.chunks(BATCH).try_for_each(|some| transaction(libc::NFT_MSG_NEWSETELEM, &new(some)))
}

/// Whether the table exists. Finding out by a failing addition would wait for an RCU grace period.
pub(super) fn has_table() -> Result<bool> {
    let name = attribute(NFTA_TABLE_NAME, TABLE);
    let found = look(&mut Netlink::netfilter()?, libc::NFT_MSG_GETTABLE, NLM_F_ACK, &name)?;
    Ok(found.is_some())
}

/// Removes elements. A missing one is no error, and one with another value is left.
///
/// An explicit deletion makes close(2) of the socket wait for an RCU grace period, which takes as long as a whole run.
/// An expiring element does not, so the elements are set to expire now, and only the kernel's next tick is waited for.
/// Before Linux 6.12, and in a table of an older onggi, existing elements cannot be made to expire, and are deleted.
pub(super) fn remove(elements: &[Element]) -> Result<()> {
    expire(elements)?;
    let mut attempts = 0..3;
    loop {
        let staying = staying(elements)?;
        let mut batches = staying.chunks(BATCH);
        match batches.try_for_each(|some| transaction(libc::NFT_MSG_DELSETELEM, some)) {
            // An element has just expired, or the table was removed.
            Err(error) if error.errno() == Some(libc::ENOENT) && attempts.next().is_some() => {}
            done => return done,
        }
    }
}

/// The keys of those elements that do not expire.
fn staying(elements: &[Element]) -> Result<Vec<Vec<u8>>> {
    let end = Instant::now() + PATIENCE;
    let mut socket = Netlink::netfilter()?;
    let mut staying = Vec::new();
    for element in elements {
        let found = loop {
            match element.find(&mut socket)? {
                Found::Ending if Instant::now() < end => sleep(Duration::from_micros(200)),
                other => break other,
            }
        };
        let name = element.any_value();
        if matches!(found, Found::Ours | Found::Ending) && !staying.contains(&name) {
            staying.push(name);
        }
    }
    Ok(staying)
}

pub(super) fn expire(elements: &[Element]) -> Result<()> {
    let mut socket = Netlink::netfilter()?;
    let mut ours = Vec::new();
    for element in elements {
        if element.find(&mut socket)? == Found::Ours {
            ours.push(element.expiring());
        }
    }
    // Where the table has no timeouts the element stays, which the check finds.
    ours.chunks(BATCH).for_each(|some| drop(transaction(libc::NFT_MSG_NEWSETELEM, some)));
    Ok(())
}

/// What the kernel has under the key of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Ours,
    Ending,
    /// The key with another value.
    Others,
}

/// Removes the whole table if these sets of it contain nothing but `ours`; `None` if the table stays. Other stores
/// share the table but not the lock: an addition of theirs changes the ruleset's generation, which makes the removal
/// fail. Closing the returned socket waits for a grace period, as after a deletion.
pub(super) fn remove_table(sets: &[&str], ours: &[Element]) -> Result<Option<Netlink>> {
    loop {
        // Only one socket: the first that is closed after the table was removed waits.
        let mut socket = Netlink::netfilter()?;
        let Some(answers) = look(&mut socket, libc::NFT_MSG_GETGEN, NLM_F_ACK, &[])? else { return Ok(None) };
        let generation = answers.first().and_then(|body| value_of(body, 4, NFTA_GEN_ID));
        for set in sets {
            let found = look(&mut socket, libc::NFT_MSG_GETSETELEM, NLM_F_DUMP, &list(set, &[]))?;
            let Some(found) = found else { return Ok(None) };
            let own = |key: &[u8]| ours.iter().any(|own| own.set == *set && own.key == key);
            if !found.iter().flat_map(|body| keys(body)).all(own) {
                return Ok(None);
            }
        }
        let name = attribute(NFTA_TABLE_NAME, TABLE);
        match socket.exchange(&batch(generation, libc::NFT_MSG_DELTABLE, &[name])) {
            Ok(_) => return Ok(Some(socket)),
            // The generation of the rules has changed.
            Err(Errno::ERESTART) => {}
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(changing(errno)),
        }
    }
}

impl Element {
    fn body(&self, more: &[u8]) -> Vec<u8> {
        let data = |kind, value: &[u8]| nested(kind, &attribute(NFTA_DATA_VALUE, value));
        let mut element = data(NFTA_SET_ELEM_KEY, &self.key);
        if !self.value.is_empty() {
            element.extend(data(NFTA_SET_ELEM_DATA, &self.value));
        }
        element.extend_from_slice(more);
        list(self.set, &nested(NFTA_LIST_ELEM, &element))
    }

    fn expiring(&self) -> Vec<u8> {
        let life = [NFTA_SET_ELEM_TIMEOUT, NFTA_SET_ELEM_EXPIRATION];
        self.body(&life.map(|kind| attribute(kind, &1u64.to_be_bytes())).concat())
    }

    /// The element with this key, whatever its value.
    fn any_value(&self) -> Vec<u8> {
        Self { value: Vec::new(), ..self.clone() }.body(&[])
    }

    fn find(&self, socket: &mut Netlink) -> Result<Found> {
        let answers = look(socket, libc::NFT_MSG_GETSETELEM, NLM_F_ACK, &self.any_value())?;
        let Some(element) = answers.iter().flatten().flat_map(|body| each(body)).next() else {
            return Ok(Found::Nothing);
        };
        let value =
            value_of(element, 0, NFTA_SET_ELEM_DATA).and_then(|data| value_of(data, 0, NFTA_DATA_VALUE));
        Ok(match value_of(element, 0, NFTA_SET_ELEM_EXPIRATION) {
            _ if value.unwrap_or_default() != self.value => Found::Others,
            Some(_) => Found::Ending,
            None => Found::Ours,
        })
    }
}

/// The keys of some elements of a set.
fn list(set: &str, elements: &[u8]) -> Vec<u8> {
    let mut all = attribute(NFTA_SET_ELEM_LIST_TABLE, TABLE);
    all.extend(attribute(NFTA_SET_ELEM_LIST_SET, &[set.as_bytes(), b"\0"].concat()));
    if !elements.is_empty() {
        all.extend(nested(NFTA_SET_ELEM_LIST_ELEMENTS, elements));
    }
    all
}

/// The attributes of each element in an answer.
fn each(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let all = value_of(body, 4, NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default();
    attributes(all, 0).map(|(_, element)| element)
}

fn keys(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    each(body).filter_map(|element| value_of(value_of(element, 0, NFTA_SET_ELEM_KEY)?, 0, NFTA_DATA_VALUE))
}

/// The kernel's answer; `None` where the object does not exist, or nftables is not available.
fn look(socket: &mut Netlink, kind: i32, flags: u16, body: &[u8]) -> Result<Option<Vec<Vec<u8>>>> {
    match socket.exchange(&message(kind, flags, body)) {
        Ok(answers) => Ok(Some(answers)),
        Err(Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT) => Ok(None),
        Err(errno) => Err(Error::os("look into the nftables table inet onggi", errno)),
    }
}

/// One transaction of requests of one kind: the kernel carries out all or nothing. Errors come before the
/// acknowledgement, which is for the last request.
fn transaction(kind: i32, bodies: &[Vec<u8>]) -> Result<()> {
    Netlink::netfilter()?.exchange(&batch(None, kind, bodies)).map(drop).map_err(changing)
}

fn changing(errno: Errno) -> Error {
    Error::os("change the nftables table inet onggi", errno)
}

fn batch(generation: Option<&[u8]>, kind: i32, bodies: &[Vec<u8>]) -> Vec<u8> {
    let limit = |kind: i32, attributes: &[u8]| {
        let [high, low] = (libc::NFNL_SUBSYS_NFTABLES as u16).to_be_bytes();
        let header = [libc::AF_UNSPEC as u8, libc::NFNETLINK_V0 as u8, high, low];
        whole(kind as u16, NLM_F_REQUEST, &[&header, attributes].concat())
    };
    let generation = generation.map(|number| attribute(libc::NFNL_BATCH_GENID as u16, number));
    let mut all = limit(libc::NFNL_MSG_BATCH_BEGIN, &generation.unwrap_or_default());
    let create = if kind == libc::NFT_MSG_NEWSETELEM { NLM_F_CREATE } else { 0 };
    for (number, body) in bodies.iter().enumerate() {
        let last = number + 1 == bodies.len();
        all.extend(message(kind, create | if last { NLM_F_ACK } else { 0 }, body));
    }
    all.extend(limit(libc::NFNL_MSG_BATCH_END, &[]));
    all
}

/// A request for the family inet.
fn message(kind: i32, flags: u16, attributes: &[u8]) -> Vec<u8> {
    netfilter((libc::NFNL_SUBSYS_NFTABLES, kind), libc::NFPROTO_INET, flags, attributes)
}

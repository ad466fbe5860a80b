//! Elements of the firewall's sets and maps, told to the kernel itself: to execute `nft` for one takes
//! as long as all the rest of a network. Knows messages (linux/netfilter/nf_tables.h), not what the sets
//! mean; that is in firewall.rs.

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

/// Many ticks.
const PATIENCE: Duration = Duration::from_millis(100);

/// As many as surely fit into what a socket sends at once.
const BATCH: usize = 256;

/// One of a set, whose value is empty, or of a map. Their parts begin at multiples of four bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub set: &'static str,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// Adds them for good. One that is there already is fine, but with another value it is EEXIST or EBUSY.
pub(super) fn add(elements: &[Element]) -> Result<()> {
    let new = |some: &[Element]| some.iter().map(|one| one.body(&[])).collect::<Vec<_>>();
    elements.chunks(BATCH).try_for_each(|some| transaction(libc::NFT_MSG_NEWSETELEM, &new(some)))
}

/// Whether the table is there. To find it missing by adding to it is to wait for an RCU grace period.
pub(super) fn has_table() -> Result<bool> {
    let name = attribute(NFTA_TABLE_NAME, TABLE);
    let found = look(&mut Netlink::netfilter()?, libc::NFT_MSG_GETTABLE, NLM_F_ACK, &name)?;
    Ok(found.is_some())
}

/// Removes them. One that is not there is fine, and one with another value is not ours.
///
/// To close a socket after an element was deleted is to wait for an RCU grace period, as long as a run. For one
/// that expires it is not, so they expire now, and what we wait for is the kernel's next tick. Before
/// Linux 6.12 one that is there does not, nor in a table of an older onggi; it is deleted.
pub(super) fn remove(elements: &[Element]) -> Result<()> {
    expire(elements)?;
    let mut attempts = 0..3;
    loop {
        let staying = staying(elements)?;
        let mut batches = staying.chunks(BATCH);
        match batches.try_for_each(|some| transaction(libc::NFT_MSG_DELSETELEM, some)) {
            // One has just expired, or the table was removed.
            Err(error) if error.errno() == Some(libc::ENOENT) && attempts.next().is_some() => {}
            done => return done,
        }
    }
}

/// What names those of them that do not expire.
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

/// Begins to remove them.
pub(super) fn expire(elements: &[Element]) -> Result<()> {
    let mut socket = Netlink::netfilter()?;
    let mut ours = Vec::new();
    for element in elements {
        if element.find(&mut socket)? == Found::Ours {
            ours.push(element.expiring());
        }
    }
    // Where the table knows no end of an element it stays, which is found.
    ours.chunks(BATCH).for_each(|some| drop(transaction(libc::NFT_MSG_NEWSETELEM, some)));
    Ok(())
}

/// What there is with the key of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Ours,
    Ending,
    /// Another value.
    Others,
}

/// Removes the whole table if these sets of it have nothing but `ours`; `None` if it is left. Other stores
/// share the table but not our lock: what they add meanwhile changes the generation of all rules.
/// To close the socket that is returned is to wait, as for an element.
pub(super) fn remove_table(sets: &[&str], ours: &[Element]) -> Result<Option<Netlink>> {
    loop {
        // Only one: whichever is closed first after the table was removed waits.
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
            // The rules are not of this generation any more.
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

/// What names some elements of a set.
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

/// What the kernel answers; `None` where there is no such thing, or no nftables at all.
fn look(socket: &mut Netlink, kind: i32, flags: u16, body: &[u8]) -> Result<Option<Vec<Vec<u8>>>> {
    match socket.exchange(&message(kind, flags, body)) {
        Ok(answers) => Ok(Some(answers)),
        Err(Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT) => Ok(None),
        Err(errno) => Err(Error::os("look into the nftables table inet onggi", errno)),
    }
}

/// Has the kernel do all or nothing of one kind. What is refused is told before what is acknowledged,
/// the last one.
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

/// Of the family inet.
fn message(kind: i32, flags: u16, attributes: &[u8]) -> Vec<u8> {
    netfilter((libc::NFNL_SUBSYS_NFTABLES, kind), libc::NFPROTO_INET, flags, attributes)
}

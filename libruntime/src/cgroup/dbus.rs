//! The part of D-Bus that starting and stopping a systemd unit needs: one connection, method calls that wait for their
//! answer, one signal. One deadline bounds all waits together.
//!
//! Must not know systemd; see `systemd.rs`. Format and handshake: the D-Bus specification, "Message Protocol" and
//! "Authentication Protocol". No client crate is used, for two reasons: the handshake must not name a user id (in a
//! user namespace the caller does not know the id that the bus sees; the bus then takes it from the socket), and no
//! wait may be longer than the deadline.

use crate::error::{Error, Result};
use crate::wait::{Wait, Woken, again};
use nix::poll::PollFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Larger than any answer to the calls that are made.
const MAX_MESSAGE: usize = 1 << 20;
const CALL: u8 = 1;
const ANSWER: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// A value with its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Bool(bool),
    I32(i32),
    U32(u32),
    U64(u64),
    Str(String),
    Bytes(Vec<u8>),
    U32s(Vec<u32>),
    Strs(Vec<String>),
    /// a(ss)
    Pairs(Vec<(String, String)>),
    /// a(sv), for method arguments.
    Properties(Vec<(String, Value)>),
    /// a(sa(sv)) without any element: the auxiliary units of StartTransientUnit.
    NoUnits,
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::U64(_) => "t",
            Self::Str(_) => "s",
            Self::Bytes(_) => "ay",
            Self::U32s(_) => "au",
            Self::Strs(_) => "as",
            Self::Pairs(_) => "a(ss)",
            Self::Properties(_) => "a(sv)",
            Self::NoUnits => "a(sa(sv))",
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Str(text.to_owned())
    }
}

/// Bytes of a message, each value at its alignment from the start.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    fn string(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// An array's length counts its content, without the padding before the first element.
    fn array(&mut self, alignment: usize, content: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        content(self);
        let length = (self.0.len() - start) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        self.value(value);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => self.u32(u32::from(*value)),
            Value::I32(value) => self.u32(*value as u32),
            Value::U32(value) => self.u32(*value),
            Value::U64(value) => {
                self.align(8);
                self.0.extend(value.to_le_bytes());
            }
            Value::Str(text) => self.string(text),
            Value::Bytes(bytes) => self.array(1, |w| w.0.extend(bytes)),
            Value::U32s(values) => self.array(4, |w| values.iter().for_each(|value| w.u32(*value))),
            Value::Strs(texts) => self.array(4, |w| texts.iter().for_each(|text| w.string(text))),
            Value::Pairs(pairs) => self.array(8, |w| {
                for (first, second) in pairs {
                    w.align(8);
                    w.string(first);
                    w.string(second);
                }
            }),
            Value::Properties(properties) => self.array(8, |w| {
                for (name, value) in properties {
                    w.align(8);
                    w.string(name);
                    w.variant(value);
                }
            }),
            Value::NoUnits => self.array(8, |_| {}),
        }
    }
}

/// Reads a message's values; `None` at the first one that does not have the announced form.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let bytes = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn string(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        let text = std::str::from_utf8(self.take(length)?).ok()?.to_owned();
        self.take(1)?;
        Some(text)
    }

    fn signature(&mut self) -> Option<&'a str> {
        let length = self.take(1)?[0] as usize;
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        self.take(1)?;
        Some(text)
    }
}

/// What is read of a received message.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    kind: u8,
    answers: u32,
    member: String,
    error: String,
    signature: String,
    body: Vec<u8>,
}

/// The header's fields of a call, and then its body.
fn encode(serial: u32, to: [&str; 4], arguments: &[Value]) -> Vec<u8> {
    let [destination, path, interface, member] = to;
    let mut body = Writer::default();
    arguments.iter().for_each(|argument| body.value(argument));
    let signature: String = arguments.iter().map(Value::signature).collect();
    let mut message = Writer(vec![b'l', CALL, 0, 1]);
    message.u32(body.0.len() as u32);
    message.u32(serial);
    message.array(8, |w| {
        for (code, kind, text) in [
            (1, "o", path),
            (2, "s", interface),
            (3, "s", member),
            (6, "s", destination),
            (8, "g", &signature),
        ] {
            if text.is_empty() {
                continue;
            }
            w.align(8);
            w.0.push(code);
            w.signature(kind);
            match kind {
                "g" => w.signature(text),
                _ => w.string(text),
            }
        }
    });
    message.align(8);
    message.0.extend(body.0);
    message.0
}

/// How long the message is that starts with these 16 bytes.
fn length(start: &[u8; 16]) -> Option<usize> {
    if start[0] != b'l' || start[3] != 1 {
        return None;
    }
    let mut reader = Reader { bytes: start, at: 4 };
    let (body, _serial, fields) = (reader.u32()? as usize, reader.u32()?, reader.u32()? as usize);
    let total = 16usize.checked_add(fields)?.checked_next_multiple_of(8)?.checked_add(body)?;
    (total <= MAX_MESSAGE).then_some(total)
}

fn decode(bytes: &[u8]) -> Option<Message> {
    let mut message = Message { kind: *bytes.get(1)?, ..Message::default() };
    let mut reader = Reader { bytes, at: 12 };
    let end = 16 + reader.u32()? as usize;
    while reader.at < end {
        reader.align(8);
        let code = reader.take(1)?[0];
        match (code, reader.signature()?) {
            (5, "u") => message.answers = reader.u32()?,
            (3, "s") => message.member = reader.string()?,
            (4, "s") => message.error = reader.string()?,
            (8, "g") => message.signature = reader.signature()?.to_owned(),
            (_, "u") => drop(reader.u32()?),
            (_, "s" | "o") => drop(reader.string()?),
            (_, "g") => drop(reader.signature()?),
            _ => return None,
        }
    }
    reader.align(8);
    message.body = bytes.get(reader.at..)?.to_vec();
    Some(message)
}

impl Message {
    /// The strings (and object paths) of the body, if it consists of these and of numbers of 32 bits.
    fn strings(&self) -> Option<Vec<String>> {
        let mut reader = Reader { bytes: &self.body, at: 0 };
        let mut strings = Vec::new();
        for kind in self.signature.chars() {
            match kind {
                's' | 'o' => strings.push(reader.string()?),
                'u' | 'i' | 'b' => drop(reader.u32()?),
                // A variant here is a property's value, and has to be a string.
                'v' if reader.signature()? == "s" => strings.push(reader.string()?),
                _ => return None,
            }
        }
        Some(strings)
    }
}

/// One connection to a message bus.
pub(super) struct Bus {
    stream: UnixStream,
    deadline: Instant,
    wait: Duration,
    serial: u32,
    /// Signals that came while an answer was waited for.
    signals: Vec<Message>,
}

/// An answer with an error, by its D-Bus name, which tells harmless errors from others.
#[derive(Debug)]
pub(super) struct Refusal {
    pub name: String,
    pub message: String,
}

impl Bus {
    /// Connects to a bus address (`unix:path=…`); everything done with it ends after `wait`.
    pub fn connect(address: &str, wait: Duration) -> Result<Self> {
        let target = parse_address(address).ok_or_else(|| {
            Error::external(format!("the D-Bus address {address:?} is not that of a unix socket"))
        })?;
        let failed = |errno| {
            Error::os(format!("connect to the message bus at {address}"), errno).with_hint(
                "the systemd cgroup driver needs systemd and its D-Bus (dbus-daemon or dbus-broker)",
            )
        };
        let fd =
            socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
        // Also bounds connect(2), which waits while the bus's queue is full.
        let limit = TimeVal::milliseconds(wait.as_millis() as i64);
        setsockopt(&fd, sockopt::SendTimeout, &limit).map_err(failed)?;
        again(|| connect(fd.as_raw_fd(), &target)).map_err(failed)?;
        let mut bus = Self {
            stream: UnixStream::from(fd),
            deadline: Instant::now() + wait,
            wait,
            serial: 0,
            signals: Vec::new(),
        };
        bus.authenticate()?;
        let hello = ["org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello"];
        bus.call(hello, &[])?
            .map_err(|refusal| Error::external(format!("D-Bus Hello: {}", refusal.message)))?;
        Ok(bus)
    }

    fn authenticate(&mut self) -> Result<()> {
        self.send(b"\0AUTH EXTERNAL\r\nDATA\r\n")?;
        let mut text = Vec::new();
        // "DATA" asks for the identity, which the bus takes from the socket; "OK GUID" accepts it.
        while text.iter().filter(|&&byte| byte == b'\n').count() < 2 && !text.starts_with(b"REJECTED") {
            let mut byte = [0u8; 1];
            self.receive(&mut byte)?;
            text.push(byte[0]);
            if text.len() > 1000 {
                break;
            }
        }
        let text = String::from_utf8_lossy(&text);
        if !text.lines().any(|line| line.starts_with("OK")) {
            return Err(Error::external(format!(
                "the message bus refused the connection: {:?}",
                text.trim_end()
            )));
        }
        self.send(b"BEGIN\r\n")
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).map_err(|error| Error::io("write to the message bus", error))
    }

    fn receive(&mut self, bytes: &mut [u8]) -> Result<()> {
        let failed = |error| Error::io("read from the message bus", error);
        let mut rest = bytes;
        while !rest.is_empty() {
            match Wait::until(self.deadline).poll(&[(self.stream.as_fd(), PollFlags::POLLIN)])? {
                Woken::Ready(_) => {}
                Woken::Ended(ended) => return Err(ended.error("an answer of systemd".into())),
                Woken::Late => {
                    let seconds = self.wait.as_secs();
                    return Err(Error::external(format!(
                        "systemd did not answer over D-Bus within {seconds} s"
                    ))
                    .with_hint("is it busy or reloading? see: systemctl list-jobs"));
                }
            }
            match self.stream.read(rest).map_err(failed)? {
                0 => return Err(failed(ErrorKind::UnexpectedEof.into())),
                length => rest = rest.split_at_mut(length).1,
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Message> {
        let broken =
            || Error::external("the message bus sent something that is not D-Bus, or more than 1 MiB");
        let mut start = [0u8; 16];
        self.receive(&mut start)?;
        let length = length(&start).ok_or_else(broken)?;
        let mut bytes = vec![0u8; length];
        bytes[..16].copy_from_slice(&start);
        self.receive(&mut bytes[16..])?;
        decode(&bytes).ok_or_else(broken)
    }

    /// Calls a method (destination, path, interface, member) and returns the strings of its answer.
    pub fn call(
        &mut self,
        to: [&str; 4],
        arguments: &[Value],
    ) -> Result<std::result::Result<Vec<String>, Refusal>> {
        self.serial += 1;
        let serial = self.serial;
        self.send(&encode(serial, to, arguments))?;
        loop {
            let message = self.next()?;
            match message.kind {
                ANSWER if message.answers == serial => return Ok(Ok(message.strings().unwrap_or_default())),
                ERROR if message.answers == serial => {
                    let text =
                        message.strings().and_then(|texts| texts.into_iter().next()).unwrap_or_default();
                    return Ok(Err(Refusal { name: message.error, message: text }));
                }
                SIGNAL => self.signals.push(message),
                _ => {}
            }
        }
    }

    /// Waits for a signal `member` whose strings satisfy `wanted`, and returns these.
    pub fn signal(&mut self, member: &str, wanted: impl Fn(&[String]) -> bool) -> Result<Vec<String>> {
        loop {
            let message = match self.signals.is_empty() {
                true => self.next()?,
                false => self.signals.remove(0),
            };
            if message.kind == SIGNAL
                && message.member == member
                && let Some(strings) = message.strings().filter(|strings| wanted(strings))
            {
                return Ok(strings);
            }
        }
    }
}

/// The first unix socket of an address list.
fn parse_address(list: &str) -> Option<UnixAddr> {
    list.split(';').find_map(|address| {
        address.strip_prefix("unix:")?.split(',').find_map(|pair| match pair.split_once('=')? {
            ("path", value) => UnixAddr::new(unescape(value)?.as_slice()).ok(),
            ("abstract", value) => UnixAddr::new_abstract(&unescape(value)?).ok(),
            _ => None,
        })
    })
}

/// Undoes `%2f`.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    Some(bytes)
}

/// A message of the bus, and an address of one.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    if let Some(start) = bytes.first_chunk::<16>() {
        let _ = length(start);
    }
    if let Some(message) = decode(bytes) {
        assert!(message.body.len() <= bytes.len());
        let _ = message.strings();
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = parse_address(text);
    }
}

#[cfg(test)]
#[path = "dbus_tests.rs"]
mod tests;

//! ttrpc as containerd speaks it to a shim, for whoever plays containerd: frames of ten bytes and a message. It blocks. The
//! shim itself has the crate `ttrpc`.

use prost::Message;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The kinds of a frame.
pub const REQUEST: u8 = 1;
pub const RESPONSE: u8 = 2;

/// The longest message that ttrpc allows.
const LONGEST: usize = 4 << 20;

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Request {
    #[prost(string, tag = "1")]
    pub service: String,
    #[prost(string, tag = "2")]
    pub method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Status {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Response {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
}

/// The payload, or the refusal.
pub type Answer = std::result::Result<Vec<u8>, Status>;

pub fn frame(stream: u32, kind: u8, message: &[u8]) -> Vec<u8> {
    let mut frame = (message.len() as u32).to_be_bytes().to_vec();
    frame.extend(stream.to_be_bytes());
    frame.extend([kind, 0]);
    frame.extend(message);
    frame
}

/// The stream of the next frame, and its message.
pub fn receive(socket: &mut UnixStream) -> Result<(u32, Vec<u8>)> {
    let mut head = [0; 10];
    socket.read_exact(&mut head)?;
    let number = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let length = number(0) as usize;
    if length > LONGEST {
        return Err(Error::new(ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    let mut message = vec![0; length];
    socket.read_exact(&mut message)?;
    Ok((number(4), message))
}

pub fn answer(message: &[u8]) -> Result<Answer> {
    let Response { status, payload } = Response::decode(message).map_err(not_a_message)?;
    match status {
        Some(status) if status.code != 0 => Ok(Err(status)),
        _ => Ok(Ok(payload)),
    }
}

fn not_a_message(error: prost::DecodeError) -> Error {
    Error::new(ErrorKind::InvalidData, error)
}

/// One connection, with one call at a time.
pub struct Client {
    socket: UnixStream,
    stream: u32,
}

impl Client {
    /// `limit` is for each answer.
    pub fn connect(path: &Path, limit: Duration) -> Result<Self> {
        let socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(limit))?;
        // The streams of a client have odd numbers.
        Ok(Self { socket, stream: 1 })
    }

    pub fn call(&mut self, service: &str, method: &str, payload: &impl Message) -> Result<Answer> {
        let (service, method) = (service.into(), method.into());
        let request = Request { service, method, payload: payload.encode_to_vec(), timeout_nano: 0 };
        self.socket.write_all(&frame(self.stream, REQUEST, &request.encode_to_vec()))?;
        let (stream, message) = receive(&mut self.socket)?;
        if stream != self.stream {
            return Err(Error::new(ErrorKind::InvalidData, format!("an answer on stream {stream}")));
        }
        self.stream += 2;
        answer(&message)
    }
}

/// Answers whatever a shim sends, until it closes the connection: containerd's side of the events. Returns why it ended.
pub fn serve(mut socket: UnixStream, mut take: impl FnMut(Request)) -> Result<()> {
    loop {
        let (stream, message) = receive(&mut socket)?;
        take(Request::decode(&*message).map_err(not_a_message)?);
        socket.write_all(&frame(stream, RESPONSE, &Response::default().encode_to_vec()))?;
    }
}

//! Where a client wants a standard stream to go: the path of a fifo, or a URI (`fifo://`, `file://`, `binary://`,
//! `binary-v2://`). Pure.

use crate::failure::{Failure, Result};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    Nothing,
    /// Whatever the client has put there, mostly a fifo.
    Path(PathBuf),
    File(PathBuf),
    Program(Program),
}

/// A logging program.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    pub path: PathBuf,
    pub arguments: Vec<String>,
    /// Of version 2: the end of the file alone does not say that it is ready.
    pub must_say: bool,
}

impl Place {
    pub fn of(name: &str) -> Result<Self> {
        let Some((scheme, rest)) = name.split_once("://") else {
            return Ok(if name.is_empty() { Self::Nothing } else { Self::Path(name.into()) });
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !path.starts_with('/') {
            return Err(Failure::invalid(format!("standard stream {name:?}: the path is not absolute")));
        }
        let path = PathBuf::from(OsString::from_vec(decode(path, false)));
        match scheme {
            "fifo" => Ok(Self::Path(path)),
            "file" => Ok(Self::File(path)),
            "binary" | "binary-v2" => {
                let (arguments, must_say) = (arguments(query), scheme == "binary-v2");
                Ok(Self::Program(Program { path, arguments, must_say }))
            }
            _ => Err(Failure::invalid(format!("standard streams of the form {scheme}:// are not supported"))),
        }
    }
}

/// `a=b&c` is `a`, `b`, `c` and an empty one; of a key that comes again, the first counts.
fn arguments(query: &str) -> Vec<String> {
    let text = |part: &str| String::from_utf8_lossy(&decode(part, true)).into_owned();
    let mut keys = Vec::new();
    let mut arguments = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = text(key);
        if !keys.contains(&key) {
            arguments.extend([key.clone(), text(value)]);
            keys.push(key);
        }
    }
    arguments
}

/// `%41` is `A`; what is no such code stands for itself.
fn decode(text: &str, is_query: bool) -> Vec<u8> {
    let (mut decoded, mut rest) = (Vec::new(), text.as_bytes());
    while let [byte, after @ ..] = rest {
        rest = after;
        let code = after.get(..2).filter(|digits| *byte == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(code) => {
                decoded.push(code);
                rest = &after[2..];
            }
            None if *byte == b'+' && is_query => decoded.push(b' '),
            None => decoded.push(*byte),
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_path_or_a_uri() {
        let path = |path: &str| Place::Path(path.into());
        assert_eq!(Place::of("").unwrap(), Place::Nothing);
        assert_eq!(Place::of("/run/a%20b").unwrap(), path("/run/a%20b"));
        assert_eq!(Place::of("fifo:///run/a%20b?x").unwrap(), path("/run/a b"));
        assert_eq!(Place::of("file:///a%2").unwrap(), Place::File("/a%2".into()));
        for wrong in ["file://a", "binary://", "http:///a"] {
            assert!(Place::of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_program_has_its_arguments_in_pairs() {
        let arguments: Vec<String> = ["--k", "v w", "x", "", "é", "="].map(String::from).into();
        let program = Program { path: "/bin/log".into(), arguments, must_say: false };
        let uri = "binary:///bin/log?--k=v+w&x&%c3%a9=%3D&--k=z&&";
        assert_eq!(Place::of(uri).unwrap(), Place::Program(program));
        let Place::Program(second) = Place::of("binary-v2:///a").unwrap() else { panic!("no program") };
        assert_eq!((second.must_say, second.arguments.len()), (true, 0));
    }
}

//! Why the command ends early: a line of text, an exit code, and for programs the library's fields.

use nix::errno::Errno;
use serde_json::Value;
use std::fmt::Display;

#[derive(Clone)]
pub struct Failure {
    pub code: u8,
    pub message: String,
    /// The library's error as an object.
    pub detail: Option<Value>,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into(), detail: None }
    }

    /// The command line cannot be meant.
    pub fn usage(message: impl Into<String>) -> Self {
        let message = message.into();
        Self::new(format!("{message}; see onggi --help"))
    }

    /// What the operating system answered to a call of our own.
    pub fn os(call: impl Display, error: impl Into<std::io::Error>) -> Self {
        let error = error.into();
        let errno = error.raw_os_error().map(Errno::from_raw);
        Self::new(match errno {
            Some(errno) => format!("{call}: {} ({errno:?})", errno.desc()),
            None => format!("{call}: {error}"),
        })
    }

    pub fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }
}

impl From<libruntime::Error> for Failure {
    fn from(error: libruntime::Error) -> Self {
        Self { code: 1, message: error.to_string(), detail: Some(error.to_json()) }
    }
}

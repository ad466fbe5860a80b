//! The failure of a command: a line of text, an exit code, and the fields of the library's error for programs.

use nix::errno::Errno;
use serde_json::Value;
use std::fmt::Display;

#[derive(Clone)]
pub struct Failure {
    pub code: u8,
    pub message: String,
    /// The library's error as an object.
    pub detail: Option<Value>,
    /// The command line is wrong, and nothing was tried.
    pub usage: bool,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into(), detail: None, usage: false }
    }

    /// A failure because of a wrong command line.
    pub fn usage(message: impl Into<String>) -> Self {
        let message = message.into();
        Self { usage: true, ..Self::new(format!("Incorrect Usage: {message}; see onggi --help")) }
    }

    /// A failure because of a wrong value of a flag.
    pub fn flag(name: &str, value: &str, kind: &str) -> Self {
        Self::usage(format!("invalid value {value:?} for flag -{name}: {kind}"))
    }

    /// Puts words in front of the message.
    pub fn within(self, words: &str) -> Self {
        if self.usage { self } else { Self { message: format!("{words}: {}", self.message), ..self } }
    }

    /// A failure of a call that the command itself has made.
    pub fn os(call: impl Display, error: impl Into<std::io::Error>) -> Self {
        let error = error.into();
        let errno = error.raw_os_error().map(Errno::from_raw);
        Self::new(match errno {
            Some(errno) => format!("{call}: {} ({errno:?})", libruntime::errno_text(errno as i32)),
            None => format!("{call}: {error}"),
        })
    }

    /// Sets the exit code, unless the command line is wrong, which has a code of its own.
    pub fn with_code(self, code: u8) -> Self {
        if self.usage { self } else { Self { code, ..self } }
    }
}

impl From<libruntime::Error> for Failure {
    fn from(error: libruntime::Error) -> Self {
        Self { code: 1, message: error.to_string(), detail: Some(error.to_json()), usage: false }
    }
}

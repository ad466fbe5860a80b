//! Why a request was refused or failed: the gRPC code and the text of the answer.

use libruntime::ErrorKind;
use std::fmt;

/// gRPC's codes, as far as the shim answers with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Unknown,
    InvalidArgument,
    NotFound,
    AlreadyExists,
    FailedPrecondition,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    pub text: String,
}

pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    pub fn unknown(text: impl Into<String>) -> Self {
        Self::new(Code::Unknown, text)
    }

    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, text)
    }

    pub fn not_found(text: impl Into<String>) -> Self {
        Self::new(Code::NotFound, text)
    }

    pub fn precondition(text: impl Into<String>) -> Self {
        Self::new(Code::FailedPrecondition, text)
    }

    /// A failed call of the system: `mkdir /run/x`.
    pub fn os(call: impl fmt::Display, error: impl Into<std::io::Error>) -> Self {
        Self::unknown(format!("{call}: {}", error.into()))
    }

    /// What the kernel or the shim knows beyond the errno.
    pub fn hint(mut self, hint: &str) -> Self {
        self.text = format!("{}; hint: {hint}", self.text);
        self
    }

    /// The words by which Docker's client knows where a runtime failed.
    pub fn within(mut self, lead: &str) -> Self {
        self.text = format!("{lead}: {}", self.text);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<libruntime::Error> for Failure {
    fn from(error: libruntime::Error) -> Self {
        let code = match error.kind() {
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::AlreadyExists => Code::AlreadyExists,
            ErrorKind::WrongState => Code::FailedPrecondition,
            ErrorKind::InvalidConfig => Code::InvalidArgument,
            _ => Code::Unknown,
        };
        Self::new(code, error.to_string())
    }
}

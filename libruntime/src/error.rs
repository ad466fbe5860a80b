//! The one error of the library: which call failed, on what, why, where in `config.json`
//! that comes from, and what to do about it. It renders as one line of text and as JSON.
//!
//! Nothing here logs: an error is either returned or handled.

pub use crate::diagnostic::{Diagnostic, DiagnosticCode};
use crate::words;
use nix::errno::Errno;
use serde::Serialize;
use std::fmt;

/// The result of the library's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure it is, for programs; [`Error`]'s text is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum ErrorKind {
    /// `config.json` or another input is invalid.
    InvalidConfig,
    /// A system call failed.
    Os,
    /// The kernel, the host or this build lacks what was asked for.
    Unsupported,
    /// The container is not in a state that allows the operation.
    WrongState,
    /// No such container.
    NotFound,
    /// The container id is in use.
    AlreadyExists,
    /// Something outside (a hook, a helper program, a service) failed or did not answer in time.
    External,
    /// An invariant of the library does not hold: a bug in onggi, not a mistake of the caller.
    Internal,
    /// The caller has cancelled the verb ([`crate::Cancel`]); what the verb had made is removed.
    Interrupted,
    /// The caller's deadline has passed; what the verb had made is removed.
    TimedOut,
    /// The exit status of a process is lost: the calling program has reaped it, or ignores SIGCHLD.
    Reaped,
}

impl Diagnostic {
    /// An error that does not fail the verb.
    pub(crate) fn of_error(error: &Error) -> Self {
        let mut message = error.text();
        if let Some(hint) = error.hint() {
            message.push_str(&format!("; hint: {hint}"));
        }
        Self::warning(error.config_path().unwrap_or_default(), message).with_code(DiagnosticCode::Failed)
    }
}

/// An error of the library. [`Error::kind`] and [`Error::errno`] are stable; the text is not.
pub struct Error(Box<Repr>);

struct Repr {
    kind: ErrorKind,
    /// The words in front of the message, by which the fault is known, outermost first.
    lead: String,
    message: String,
    errno: Option<Errno>,
    at: Option<String>,
    hint: Option<String>,
    findings: Vec<Diagnostic>,
    /// The message already contains the errno's text.
    said: bool,
    source: Option<std::io::Error>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Repr {
            kind,
            lead: String::new(),
            message: message.into(),
            errno: None,
            at: None,
            hint: None,
            findings: Vec::new(),
            said: false,
            source: None,
        }))
    }

    /// `call` is the system call and its object as a reader would say it: `mkdir /sys/fs/cgroup/x`.
    pub(crate) fn os(call: impl Into<String>, errno: Errno) -> Self {
        let mut error = Self::new(ErrorKind::Os, call);
        error.set_errno(errno);
        error
    }

    fn set_errno(&mut self, errno: Errno) {
        self.0.errno = Some(errno);
        self.0.source = Some(std::io::Error::from_raw_os_error(errno as i32));
    }

    /// A failed call whose message already says why.
    pub(crate) fn os_said(message: impl Into<String>, errno: Errno) -> Self {
        let mut error = Self::new(ErrorKind::Os, message);
        error.set_errno(errno);
        error.0.said = true;
        error
    }

    /// The same for an error of `std::io`; one without an errno keeps its text.
    pub(crate) fn io(call: impl Into<String>, error: std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(code) => Self::os(call, Errno::from_raw(code)),
            None => Self::new(ErrorKind::External, format!("{}: {error}", call.into())),
        }
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    pub(crate) fn external(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::External, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message).with_hint("this is a fault of onggi; please report it")
    }

    /// Every problem of a configuration at once; there is at least one.
    pub(crate) fn invalid(findings: Vec<Diagnostic>) -> Self {
        let text = findings.iter().map(Diagnostic::to_string).collect::<Vec<_>>().join("; ");
        let mut error = Self::new(ErrorKind::InvalidConfig, format!("invalid config: {text}"));
        error.0.lead = findings.iter().find_map(words::of_finding).unwrap_or_default();
        error.0.findings = findings;
        error
    }

    /// Names the place in `config.json`, unless a more precise one is already there.
    pub(crate) fn at(mut self, place: impl Into<String>) -> Self {
        self.0.at.get_or_insert(place.into());
        self
    }

    /// Puts words before the message and the words that are there: what was being done, or the
    /// words by which engines and scripts know the fault (words.rs).
    pub(crate) fn within(mut self, words: impl Into<String>) -> Self {
        let mut lead = words.into();
        if !self.0.lead.is_empty() {
            lead = format!("{lead}: {}", self.0.lead);
        }
        self.0.lead = lead;
        self
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert(hint.into());
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The error number of the failed call, where there was one.
    pub fn errno(&self) -> Option<i32> {
        self.0.errno.map(|errno| errno as i32)
    }

    /// The place in `config.json` that asked for what failed.
    pub fn config_path(&self) -> Option<&str> {
        self.0.at.as_deref()
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Every problem of an invalid configuration.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.0.findings
    }

    /// Without place and hint.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if !self.0.lead.is_empty() {
            text.push_str(&format!("{}: ", self.0.lead));
        }
        text.push_str(&self.0.message);
        if let Some(errno) = self.0.errno.filter(|_| !self.0.said) {
            text.push_str(&format!(": {} ({errno:?})", words::of_errno(errno)));
        }
        text
    }

    /// The error as an object with `kind`, `message`, `errno`, `at`, `hint` and `findings`.
    pub fn to_json(&self) -> serde_json::Value {
        let mut object = serde_json::json!({ "kind": self.0.kind, "message": self.to_string() });
        if let Some(errno) = self.0.errno {
            object["errno"] = format!("{errno:?}").into();
        }
        if let Some(at) = &self.0.at {
            object["at"] = at.as_str().into();
        }
        if let Some(hint) = &self.0.hint {
            object["hint"] = hint.as_str().into();
        }
        if !self.0.findings.is_empty() {
            object["findings"] = serde_json::json!(self.0.findings);
        }
        object
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.text())?;
        if let Some(at) = &self.0.at {
            write!(f, ", at {at}")?;
        }
        if let Some(hint) = &self.0.hint {
            write!(f, "; hint: {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Error({self})")
    }
}

impl std::error::Error for Error {
    /// The operating system's error, where a call failed: a [`std::io::Error`].
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|error| error as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_call_errno_place_and_hint() {
        let error = Error::os("openat /srv/data", Errno::ENOENT)
            .at("mounts[3].source")
            .with_hint("bind sources are not created; create it on the host");
        assert_eq!(
            error.to_string(),
            "openat /srv/data: no such file or directory (ENOENT), at mounts[3].source; \
             hint: bind sources are not created; create it on the host"
        );
        assert_eq!(error.to_json()["errno"], "ENOENT");
    }

    #[test]
    fn words_are_put_before_the_message_outermost_first() {
        let error = Error::os("fchdir /x", Errno::ENOENT).within("inner").within("outer");
        assert_eq!(error.to_string(), "outer: inner: fchdir /x: no such file or directory (ENOENT)");
    }

    #[test]
    fn an_invalid_config_lists_every_finding() {
        let error = Error::invalid(vec![Diagnostic::new("a", "bad"), Diagnostic::new("b", "worse")]);
        assert_eq!(error.to_string(), "invalid config: a: bad; b: worse");
        assert_eq!(error.diagnostics().len(), 2);
    }
}

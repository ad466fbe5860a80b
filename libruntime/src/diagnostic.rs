//! A problem of a configuration, or a warning about it: what it is, for programs and for people, and where. The checks
//! of `config/`, the planners and the verbs make these.

use serde::{Serialize, Serializer};
use std::fmt;

/// A problem, or something worth a warning, at one place of `config.json`. Verbs that can succeed with warnings return
/// these: for properties that this host cannot apply, and for hooks whose failure does not fail the verb.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Diagnostic {
    /// Whether the container can be created all the same.
    pub severity: Severity,
    /// What kind of problem it is, for programs.
    pub code: DiagnosticCode,
    /// The property, for example `mounts[3].source`; empty where no property is concerned.
    #[serde(rename = "at")]
    pub config_path: String,
    /// What is wrong there, for people.
    pub message: String,
    /// What to do about it, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Where that is in the text. Only [`crate::Runtime::check_bundle`] looks it up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
}

/// Whether a [`Diagnostic`] keeps a container from being created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// It does.
    Error,
    /// It does not, but something is not as it was written.
    Warning,
}

/// What kind of problem a [`Diagnostic`] is about. In JSON and in the output of `onggi check` it has the form of
/// [`DiagnosticCode::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DiagnosticCode {
    /// The text is not JSON.
    Syntax,
    /// A property is given twice in one object.
    DuplicateProperty,
    /// A property that the specification does not have, or this version of onggi does not know.
    UnknownProperty,
    /// A required property, or one that another property needs, is not given.
    MissingProperty,
    /// A number stands where a string is expected, or the like.
    WrongType,
    /// A string that is not among those that the specification lists.
    UnknownValue,
    /// A value that is invalid, or contradicts another one.
    InvalidValue,
    /// A property that has no effect, or would change the host, because the container lacks a namespace.
    MissingNamespace,
    /// Something that has no effect.
    Ignored,
    /// This kernel, this host or the calling user lacks what was asked for.
    Unsupported,
    /// A file of the host that the configuration names is not there, or is not of the right kind.
    NotFound,
    /// A system call, a hook or a helper program failed.
    Failed,
}

impl DiagnosticCode {
    /// The code in lower case with hyphens, such as `missing-property`. It is stable.
    pub fn name(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::DuplicateProperty => "duplicate-property",
            Self::UnknownProperty => "unknown-property",
            Self::MissingProperty => "missing-property",
            Self::WrongType => "wrong-type",
            Self::UnknownValue => "unknown-value",
            Self::InvalidValue => "invalid-value",
            Self::MissingNamespace => "missing-namespace",
            Self::Ignored => "ignored",
            Self::Unsupported => "unsupported",
            Self::NotFound => "not-found",
            Self::Failed => "failed",
        }
    }
}

impl Serialize for DiagnosticCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A range of a text, from its first character to the first one after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Span {
    /// The first character.
    pub start: Position,
    /// The first character after the range.
    pub end: Position,
}

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In bytes from the start of the text, from 0.
    pub offset: usize,
}

impl Diagnostic {
    pub(crate) fn new(config_path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code: DiagnosticCode::InvalidValue,
            config_path: config_path.into(),
            message: message.into(),
            hint: None,
            span: None,
        }
    }

    pub(crate) fn warning(config_path: impl Into<String>, message: impl Into<String>) -> Self {
        let (severity, code) = (Severity::Warning, DiagnosticCode::Ignored);
        Self { severity, code, ..Self::new(config_path, message) }
    }

    pub(crate) fn with_code(self, code: DiagnosticCode) -> Self {
        Self { code, ..self }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.config_path.as_str() {
            "" => f.write_str(&self.message),
            place => write!(f, "{place}: {}", self.message),
        }
    }
}

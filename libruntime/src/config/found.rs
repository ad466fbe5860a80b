//! Collects what the checks find. Places are formatted only for a finding, so a valid configuration allocates nothing.

use crate::error::{Diagnostic, DiagnosticCode, Error, Result};
use std::collections::HashMap;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Problems beyond this number are counted, not listed: a generated config can have one in every line.
const MAX_LISTED: usize = 100;

#[derive(Default)]
pub(crate) struct Found {
    problems: Vec<Diagnostic>,
    unlisted: usize,
    warnings: Vec<Diagnostic>,
    /// What is allowed instead, by place.
    hints: Vec<(String, String)>,
}

impl Found {
    pub fn problem(&mut self, at: impl Display, message: impl Display) {
        self.problem_of(DiagnosticCode::InvalidValue, at, message);
    }

    /// A property that has to be there.
    pub fn missing(&mut self, at: impl Display, message: impl Display) {
        self.problem_of(DiagnosticCode::MissingProperty, at, message);
    }

    pub fn needs_namespace(&mut self, at: impl Display, message: impl Display) {
        self.problem_of(DiagnosticCode::MissingNamespace, at, message);
    }

    pub fn problem_of(&mut self, code: DiagnosticCode, at: impl Display, message: impl Display) {
        if self.problems.len() == MAX_LISTED {
            self.unlisted += 1;
        } else {
            self.problems.push(Diagnostic::new(at.to_string(), message.to_string()).with_code(code));
        }
    }

    pub fn warning(&mut self, at: impl Display, message: impl Display) {
        if self.warnings.len() < MAX_LISTED {
            self.warnings.push(Diagnostic::warning(at.to_string(), message.to_string()));
        }
    }

    /// The hint for a value that the types refuse: the allowed values.
    pub fn hint(&mut self, at: impl Display, allowed: impl Display) {
        if self.hints.len() < MAX_LISTED {
            self.hints.push((at.to_string(), allowed.to_string()));
        }
    }

    /// C strings end at the first NUL; a longer one would silently become another.
    pub fn text(&mut self, value: &str, at: impl Display) {
        if value.contains('\0') {
            self.problem(at, "contains a NUL byte");
        }
    }

    pub fn path(&mut self, value: &Path, at: impl Display) {
        if value.as_os_str().as_bytes().contains(&0) {
            self.problem(at, "contains a NUL byte");
        }
    }

    pub fn absolute(&mut self, value: &Path, at: impl Display) {
        if value.as_os_str().is_empty() {
            self.problem(at, "is empty; an absolute path is needed");
        } else if !value.has_root() {
            self.problem(at, format_args!("{value:?} is not an absolute path"));
        } else {
            self.path(value, at);
        }
    }

    /// All problems and all warnings.
    pub fn into_all(mut self) -> Vec<Diagnostic> {
        self.count_unlisted();
        for one in &mut self.problems {
            let hint = self.hints.iter().find(|(at, _)| *at == one.config_path);
            one.hint = hint.map(|(_, allowed)| allowed.clone());
        }
        self.problems.append(&mut self.warnings);
        self.problems
    }

    fn count_unlisted(&mut self) {
        if self.unlisted > 0 {
            self.problems.push(Diagnostic::new("…", format!("and {} more problems", self.unlisted)));
        }
    }

    /// The warnings if nothing is wrong, else everything that is wrong.
    pub fn into_warnings(self) -> Result<Vec<Diagnostic>> {
        self.check().map(|found| found.warnings)
    }

    /// An error with everything that is wrong, if something is.
    pub fn check(mut self) -> Result<Found> {
        if self.problems.is_empty() {
            return Ok(self);
        }
        self.count_unlisted();
        let error = Error::invalid(self.problems);
        let mut hint = String::new();
        for (at, allowed) in &self.hints {
            // Kept short: often many values of one kind are wrong in the same way.
            if hint.len() < 1000 {
                let separator = if hint.is_empty() { "" } else { "; " };
                hint.push_str(&format!("{separator}{at}: {allowed}"));
            }
        }
        Err(if hint.is_empty() { error } else { error.with_hint(hint) })
    }
}

/// A map in the order of its keys: the same config gives the same findings in the same order.
pub(crate) fn sorted<V>(map: &Option<HashMap<String, V>>) -> Vec<(&str, &V)> {
    let mut entries: Vec<_> = map.iter().flatten().map(|(key, value)| (key.as_str(), value)).collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    entries
}

/// The elements of an optional list, none if it is absent.
pub(crate) fn each<T>(list: &Option<Vec<T>>) -> &[T] {
    list.as_deref().unwrap_or_default()
}

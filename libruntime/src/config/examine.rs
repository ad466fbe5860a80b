//! Everything that can be said about the text of a configuration, for `check_bundle`: all problems and warnings with
//! their places in the text, including those behind the first one that serde refuses.
//!
//! The checks are those of [`Config::parse`](super::Config::parse). Besides, it looks for what a runtime has to accept:
//! unknown properties, and names that are given twice.

use super::found::Found;
use super::places::{self, Part};
use super::removed::Removed;
use super::repair::{self, Repaired, Root};
use super::{check_spec, namespaces, normal, written};
use crate::diagnostic::{Diagnostic, DiagnosticCode as Code, Severity};
use oci_spec::runtime::Spec;

/// More warnings of one kind than this are not listed.
const MAX_LISTED: usize = 100;

/// The result of examining a text.
pub(crate) struct Examined {
    /// The configuration without the parts that cannot be read; `None` where these are too many.
    pub spec: Option<Spec>,
    /// The elements that were taken out of its lists.
    pub removed: Removed,
    /// In the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

pub(crate) fn examine(text: &str) -> Examined {
    let nothing = |diagnostics| Examined { spec: None, removed: Removed::default(), diagnostics };
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        let mut problem = Diagnostic::new("", syntax_of(&error)).with_code(Code::Syntax);
        problem.span = Some(places::at_byte(text, error.line(), error.column()));
        return nothing(vec![problem]);
    }
    let Repaired { typed, found, text: repaired, removed } =
        match repair::examine(text.as_bytes(), Root::Config) {
            Ok(repaired) => repaired,
            Err(error) => {
                let mut problem = Diagnostic::new("", error.to_string()).with_code(Code::WrongType);
                problem.span = Some(places::at_byte(text, 1, 1));
                return nothing(vec![problem]);
            }
        };
    let mut diagnostics = found.into_all();
    let mut spec = typed;
    if let Some(spec) = &mut spec {
        let read = repaired.as_deref().unwrap_or(text.as_bytes());
        let later = checks(read, spec).into_iter().chain(unknown_properties(read));
        let moved = |mut one: Diagnostic| {
            one.config_path = removed.original(&one.config_path);
            one
        };
        let later: Vec<Diagnostic> =
            later.map(moved).filter(|one| !follows_from(one, &diagnostics)).collect();
        diagnostics.extend(later);
    }
    place(text, &mut diagnostics);
    add_duplicates(text, &mut diagnostics);
    diagnostics.sort_by_key(|one| one.span.map(|span| span.start));
    Examined { spec, removed, diagnostics }
}

/// Without line and column, which the diagnostic's span has.
fn syntax_of(error: &serde_json::Error) -> String {
    format!("not JSON: {}", repair::without_position(&error.to_string()))
}

/// The checks of the typed values.
fn checks(text: &[u8], spec: &mut Spec) -> Vec<Diagnostic> {
    let mut found = Found::default();
    written::check_spec(text, spec, &mut found);
    let mut all = found.into_all();
    let mut found = Found::default();
    namespaces::without_empty_paths(spec);
    normal::normalize(spec, &mut found);
    check_spec(spec, &mut found);
    // A number that is not given is 0 for the other checks of its object.
    let object = |one: &Diagnostic| one.config_path.rsplit_once('.').map(|(object, _)| object.to_owned());
    let incomplete: Vec<_> = all.iter().map(object).collect();
    all.extend(found.into_all().into_iter().filter(|one| !incomplete.contains(&object(one))));
    all
}

/// Whether a finding only follows from an earlier problem that was taken out: it is about the same property, one in it
/// or around it, or about a namespace.
fn follows_from(later: &Diagnostic, earlier: &[Diagnostic]) -> bool {
    let is_in = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| matches!(rest.as_bytes(), [] | [b'.' | b'[', ..]))
    };
    let path = later.config_path.as_str();
    let taken_out = |one: &Diagnostic| one.severity == Severity::Error || one.code == Code::Ignored;
    earlier.iter().filter(|one| taken_out(one)).any(|one| {
        let about_namespaces = is_in(&one.config_path, "linux.namespaces");
        let unnamed = later.code == Code::MissingNamespace && about_namespaces;
        unnamed || is_in(path, &one.config_path) || is_in(&one.config_path, path)
    })
}

/// "Runtimes … MUST NOT generate an error if they encounter an unknown property" (config.md, "Extensibility").
fn unknown_properties(text: &[u8]) -> Vec<Diagnostic> {
    let mut unknown = Vec::new();
    let mut note = |path: serde_ignored::Path| {
        let place = place_of(&path);
        // Read from the text; oci-spec has other names for them (written.rs).
        let known = ["linux.intelRdt.enableCMT", "linux.intelRdt.enableMBM"].contains(&place.as_str());
        if !known && unknown.len() < MAX_LISTED {
            let message = "unknown property, which has no effect";
            unknown.push(Diagnostic::warning(place, message).with_code(Code::UnknownProperty));
        }
    };
    // The same text was read before, so it cannot fail.
    let _ = repair::read::<Spec>(text, &mut note);
    unknown
}

fn place_of(path: &serde_ignored::Path) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", place_of(parent)),
        Path::Map { parent, key } => match place_of(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            place_of(parent)
        }
    }
}

/// Looks up the span of each diagnostic.
pub(crate) fn place(text: &str, diagnostics: &mut [Diagnostic]) {
    for one in diagnostics.iter_mut().filter(|one| one.span.is_none()) {
        let part = match one.code {
            Code::UnknownProperty | Code::Ignored | Code::DuplicateProperty => Part::Name,
            _ => Part::Value,
        };
        one.span = Some(places::find(text, &one.config_path, part));
    }
}

/// The objects whose names are the user's: of two with one name the last one counts. In other objects two properties
/// with one name are an error.
const MAPS: &[&str] = &[
    "annotations",
    "linux.netDevices",
    "linux.resources.rdma",
    "linux.resources.unified",
    "linux.sysctl",
    "linux.timeOffsets",
];

/// serde finds at most one of them, and without its place.
fn add_duplicates(text: &str, diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.retain(|one| one.code != Code::DuplicateProperty);
    let is_unknown: Vec<String> = diagnostics
        .iter()
        .filter(|one| one.code == Code::UnknownProperty)
        .map(|one| format!("{}.", one.config_path))
        .collect();
    for (place, span) in places::duplicates(text, MAX_LISTED) {
        let in_map = |map: &str| place.strip_prefix(map).is_some_and(|rest| rest.starts_with('.'));
        let last_counts =
            MAPS.iter().any(|map| in_map(map)) || is_unknown.iter().any(|at| place.starts_with(at));
        let mut one = match last_counts {
            true => Diagnostic::warning(place, "is given twice; the last one counts"),
            false => Diagnostic::new(place, "is given twice"),
        };
        (one.code, one.span) = (Code::DuplicateProperty, Some(span));
        diagnostics.push(one);
    }
}

//! From bytes to types. When serde refuses a text, this parses it once more, slowly: to name the place of this problem
//! and of all others like it, and to accept what the specification allows and oci-spec's types do not.
//!
//! It must not invent meaning: what it takes out is either reported as a problem, and then there is no result, or has
//! to be ignored by the specification. The checks of values are in the other files.

use super::found::Found;
use super::removed::Removed;
use super::strict::{self, Strict};
use crate::error::{DiagnosticCode, Error, ErrorKind, Result};
use oci_spec::runtime::Capability;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use serde_path_to_error::{Path, Segment, Track};

/// Which object the bytes are: it decides how places are named.
#[derive(Clone, Copy)]
pub(crate) enum Root {
    Config,
    Process,
    Resources,
}

impl Root {
    fn place(self) -> &'static str {
        match self {
            Root::Config => "",
            Root::Process => "process",
            Root::Resources => "linux.resources",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Root::Config => "config.json",
            Root::Process => "the process object",
            Root::Resources => "the resources object",
        }
    }
}

/// More wrong places than this are not looked for.
const MAX_ROUNDS: usize = 100;

/// Every round reads the whole text; this bounds the bytes that all rounds read.
const MAX_REREAD: usize = 64 << 20;

/// The result of repairing a text.
pub(crate) struct Repaired<T> {
    /// `None` where too much is wrong.
    pub typed: Option<T>,
    pub found: Found,
    /// The text after what was wrong was taken out; `None` where nothing was.
    pub text: Option<Vec<u8>>,
    pub removed: Removed,
}

/// # Errors
/// The problems, if there are any.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], root: Root) -> Result<(T, Found)> {
    let Repaired { typed, found, .. } = examine(bytes, root)?;
    let found = found.check()?;
    Ok((typed.ok_or_else(|| Error::internal("a configuration without problems has no value"))?, found))
}

/// # Errors
/// The text is not JSON, or nothing more can be said about it than that.
pub(crate) fn examine<T: DeserializeOwned>(bytes: &[u8], root: Root) -> Result<Repaired<T>> {
    match strict::from_slice(bytes) {
        Ok(typed) => {
            let (found, removed) = Default::default();
            Ok(Repaired { typed: Some(typed), found, text: None, removed })
        }
        Err(error) if error.is_data() && bytes.len() <= MAX_REREAD / 4 => repair(bytes, root, &error),
        Err(error) => Err(unreadable(root, &error)),
    }
}

/// serde_json's text ends with line and column.
fn unreadable(root: Root, error: &serde_json::Error) -> Error {
    let noun = root.noun();
    let text =
        if error.is_data() { format!("{noun}: {error}") } else { format!("{noun} is not JSON: {error}") };
    Error::new(ErrorKind::InvalidConfig, text)
}

fn repair<T: DeserializeOwned>(bytes: &[u8], root: Root, first: &serde_json::Error) -> Result<Repaired<T>> {
    // A `Value` may be nested less deeply than text that is only skipped: then this fails.
    let mut value: Value = serde_json::from_slice(bytes).map_err(|_| unreadable(root, first))?;
    let mut state =
        State { root, found: Found::default(), reported: Vec::new(), removed: Removed::default() };
    // A `Value` has only one of two properties with one name, so duplicates are found in the text alone.
    let text = first.to_string();
    if let Some(name) = quoted_after(&text, "duplicate field ") {
        let position = text.rsplit_once(" at ").map_or("", |(_, position)| position);
        let text = format!("is given twice, at {position}");
        state.report(DiagnosticCode::DuplicateProperty, name, &text);
    }
    for _ in 0..MAX_ROUNDS.min(MAX_REREAD / bytes.len()) {
        let text = serde_json::to_vec(&value).map_err(|error| unreadable(root, &error))?;
        let error = match read::<T>(&text, &mut |_| ()) {
            Ok(typed) => {
                let State { found, removed, .. } = state;
                return Ok(Repaired { typed: Some(typed), found, text: Some(text), removed });
            }
            Err(error) => error,
        };
        if !state.fix(&mut value, error.path(), without_position(&error.inner().to_string())) {
            break;
        }
    }
    match state.reported.is_empty() {
        true => Err(unreadable(root, first)),
        false => Ok(Repaired { typed: None, found: state.found, text: None, removed: state.removed }),
    }
}

/// Reads a text slowly: says where a value is refused, and names each property that is not read. The two are one
/// function, because the types' readers are compiled once more for each.
pub(super) fn read<T: DeserializeOwned>(
    text: &[u8],
    unread: &mut dyn FnMut(serde_ignored::Path),
) -> std::result::Result<T, serde_path_to_error::Error<serde_json::Error>> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let mut track = Track::new();
    let reader = serde_path_to_error::Deserializer::new(Strict::new(&mut reader), &mut track);
    serde_ignored::deserialize(reader, unread)
        .map_err(|error| serde_path_to_error::Error::new(track.path(), error))
}

/// The message of serde_json without line and column.
pub(super) fn without_position(message: &str) -> &str {
    message.rsplit_once(" at line ").map_or(message, |(message, _)| message)
}

struct State {
    root: Root,
    found: Found,
    reported: Vec<String>,
    removed: Removed,
}

impl State {
    /// One step towards a value that parses; false if there is none.
    fn fix(&mut self, value: &mut Value, path: &Path, message: &str) -> bool {
        let steps: Vec<Step> = path.iter().filter_map(Step::of).collect();
        let at = self.place(path);
        if self.foreign(value, &steps) {
            return true;
        }
        if let Some(field) = quoted_after(message, "missing field ") {
            let missing = self.join(&at, &field);
            if missing == "process.user"
                && let Some(Value::Object(process)) = find(value, &steps)
            {
                return process.insert(field, json!({})).is_none();
            }
            self.report(DiagnosticCode::MissingProperty, missing, "missing, but required");
            return match (placeholder(&field), find(value, &steps)) {
                (Some(any), Some(Value::Object(object))) => object.insert(field, any).is_none(),
                _ => self.take_out(value, &steps, &at),
            };
        }
        if self.allowed(value, &steps, &at) {
            return true;
        }
        let Some(wrong) = find(value, &steps) else { return false };
        let text = self.explain(wrong, &at, message);
        let whole = steps.is_empty();
        let code = match message.starts_with("unknown variant") {
            true => DiagnosticCode::UnknownValue,
            false => DiagnosticCode::WrongType,
        };
        self.report(code, if whole { self.root.noun().to_owned() } else { at.clone() }, &text);
        self.take_out(value, &steps, &at)
    }

    /// Removes a section that is ignored, and so need not be valid. Returns whether one was removed.
    fn foreign(&mut self, value: &mut Value, steps: &[Step]) -> bool {
        let (Root::Config, Some(Step::Key(top))) = (self.root, steps.first()) else { return false };
        if !["solaris", "windows", "vm", "zos", "uidMappings", "gidMappings"].contains(&top.as_str()) {
            return false;
        }
        self.found.warning(top, "ignored: it has no meaning here");
        value.as_object_mut().is_some_and(|object| object.remove(top).is_some())
    }

    /// Changes what the specification allows and the types do not. Returns whether something was changed.
    fn allowed(&mut self, value: &mut Value, steps: &[Step], at: &str) -> bool {
        if at.starts_with("process.capabilities.") {
            return steps.split_last().is_some_and(|(_, list)| self.unknown_capabilities(value, list, at));
        }
        if let Some((Step::Key(key), parents)) = steps.split_last()
            && let Some(Value::Object(object)) = find(value, parents)
            && object.get(key).is_some_and(Value::is_null)
        {
            // Go's encoder writes null for what is absent.
            return object.remove(key).is_some();
        }
        let Some(wrong) = find(value, steps) else { return false };
        let better = match wrong {
            // oci-spec derives this name from its own and gets another one.
            Value::String(flag) if flag == "SCHED_FLAG_DL_OVERRUN" => json!("SCHED_FLAG_D_L_OVERRUN"),
            Value::String(flag) if flag == "SCHED_FLAG_RESET_ON_FORK" => json!("SCHED_RESET_ON_FORK"),
            // The schema allows blanks, and an empty list.
            Value::String(list) if at.starts_with("process.execCPUAffinity.") => {
                match list.replace(' ', "") {
                    list if list.is_empty() => Value::Null,
                    list => json!(list),
                }
            }
            // The spec counts to 2^64; the kernel's counter of pages ends before 2^63 bytes.
            Value::Number(n) if at.starts_with("linux.resources.hugepageLimits[") && n.as_u64().is_some() => {
                json!(i64::MAX)
            }
            _ => return false,
        };
        if *wrong == better {
            return false;
        }
        *wrong = better;
        true
    }

    /// "Any value which cannot be mapped to a relevant kernel interface … MUST be logged as a warning". Versions before
    /// 1.1 had it an error, but an engine knows more capabilities than an older kernel, and writes the version that it
    /// was made for; runc and crun leave them out whatever the version is.
    fn unknown_capabilities(&mut self, value: &mut Value, list: &[Step], at: &str) -> bool {
        let Some(Value::Array(names)) = find(value, list) else { return false };
        let place = at.rsplit_once('[').map_or(at, |(place, _)| place).to_owned();
        let before = names.len();
        let mut index = 0;
        names.retain(|name| {
            let known = |text| strict::is_capability(text) && Capability::deserialize(name).is_ok();
            let unknown = name.as_str().is_some_and(|text| !known(text));
            if unknown {
                self.found
                    .warning(format_args!("{place}[{index}]"), format_args!("ignored: {name} is not known"));
                self.removed.note(&place, index);
            }
            index += 1;
            !unknown
        });
        names.len() < before
    }

    fn explain(&mut self, wrong: &Value, at: &str, message: &str) -> String {
        let expected = message.rsplit_once("expected ").map_or("", |(_, expected)| expected);
        if message.starts_with("unknown variant") {
            let allowed = expected.trim_start_matches("one of ").replace('`', "");
            self.found.hint(at, format_args!("one of {}", allowed.replace("_D_L_", "_DL_")));
            return format!("unknown value {wrong}");
        }
        // Strings are not shown: in env they may be secrets.
        let shown = match wrong {
            Value::Null => "null".to_owned(),
            Value::Bool(flag) => flag.to_string(),
            Value::Number(number) => number.to_string(),
            Value::String(_) => "a string".to_owned(),
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        };
        let expected = match expected {
            "" => return format!("is {shown}: {}", message.split(": ").next().unwrap_or_default()),
            "u16" => "a whole number from 0 to 65535",
            "u32" => "a whole number from 0 to 4294967295",
            "u64" | "usize" => "a whole number from 0 to 18446744073709551615",
            "i32" => "a whole number from -2147483648 to 2147483647",
            "i64" => "a whole number from -9223372036854775808 to 9223372036854775807",
            "a string" | "path string" | "string" => "a string",
            "a boolean" => "true or false",
            "a sequence" => "a list",
            "a map" => "an object",
            other if other.starts_with("struct ") => "an object",
            other => other,
        };
        format!("is {shown}; expected {expected}")
    }

    fn report(&mut self, code: DiagnosticCode, at: String, text: &str) {
        if !self.reported.contains(&at) {
            self.found.problem_of(code, &at, text);
            self.reported.push(at);
        }
    }

    /// Removes what is at `steps`, so that the rest can be parsed; a required property gets another value.
    fn take_out(&mut self, value: &mut Value, steps: &[Step], at: &str) -> bool {
        let Some((last, parents)) = steps.split_last() else { return false };
        match (find(value, parents), last) {
            (Some(Value::Object(object)), Step::Key(key)) => match placeholder(key) {
                Some(any) if object.get(key) != Some(&any) => object.insert(key.clone(), any).is_some(),
                _ => object.remove(key).is_some(),
            },
            (Some(Value::Array(list)), Step::Index(index)) if *index < list.len() => {
                list.remove(*index);
                let (place, original) = at.rsplit_once('[').unwrap_or_default();
                let original = original.trim_end_matches(']').parse().unwrap_or(*index);
                self.removed.note(place, original);
                true
            }
            _ => false,
        }
    }

    /// The place as the user knows it: with the indices of the text.
    fn place(&self, path: &Path) -> String {
        let mut place = self.root.place().to_owned();
        for step in path.iter().filter_map(Step::of) {
            match step {
                Step::Key(key) => place = self.join(&place, &key),
                Step::Index(index) => {
                    let original = self.removed.original_index(&place, index);
                    place = format!("{place}[{original}]");
                }
            }
        }
        place
    }

    fn join(&self, place: &str, key: &str) -> String {
        if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") }
    }
}

enum Step {
    Key(String),
    Index(usize),
}

impl Step {
    fn of(segment: &Segment) -> Option<Step> {
        match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        }
    }
}

fn find<'v>(value: &'v mut Value, steps: &[Step]) -> Option<&'v mut Value> {
    steps.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Index(index) => value.get_mut(index),
    })
}

/// The name in backticks after `prefix`.
fn quoted_after(message: &str, prefix: &str) -> Option<String> {
    let quoted = message.strip_prefix(prefix)?.strip_prefix('`')?;
    quoted.split_once('`').map(|(name, _)| name.to_owned())
}

/// Any value that a required property can have, so that the rest of its object is still looked at.
pub(crate) fn placeholder(field: &str) -> Option<Value> {
    Some(match field {
        "user" => json!({}),
        "cwd" | "destination" | "path" => json!("/"),
        "names" => json!([]),
        "action" | "defaultAction" => json!("SCMP_ACT_ALLOW"),
        "index" | "value" => json!(0),
        "op" => json!("SCMP_CMP_EQ"),
        "policy" => json!("SCHED_OTHER"),
        "mode" => json!("MPOL_DEFAULT"),
        "domain" => json!("LINUX"),
        _ => return None,
    })
}

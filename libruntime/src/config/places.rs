//! Where a property of the configuration is in its text: `mounts[3].options[1]` to a line and a column.
//! Pure. The text is known to be JSON; that every property exists is not.

use super::text::Text;
use crate::diagnostic::{Position, Span};
use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

/// Which part of a property is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Name,
    Value,
}

/// The range of a property, or if it does not exist, of the last existing one on the way to it.
pub(crate) fn find(text: &str, config_path: &str, part: Part) -> Span {
    let mut here = Text::new(text.as_bytes());
    let mut name: Option<Range<usize>> = None;
    let mut rest = config_path;
    while !rest.is_empty() {
        let Some((step_name, value, after)) = step(text, here, rest) else { break };
        (name, here, rest) = (step_name, value, after);
    }
    let value = range_of(text, here.own());
    let shown = match name {
        Some(name) if part == Part::Name || !rest.is_empty() => name,
        // For a value of several lines, only the name.
        Some(name) if text[value.clone()].contains('\n') => name,
        None if !rest.is_empty() || text[value.clone()].contains('\n') => value.start..value.start + 1,
        _ => value,
    };
    span(text, shown)
}

/// One step on the way: the name of a property, its value, and what is left of the path. The names of annotations and
/// sysctls have dots in them, so that the longest name that fits is the one.
fn step<'t, 'p>(
    text: &str,
    here: Text<'t>,
    path: &'p str,
) -> Option<(Option<Range<usize>>, Text<'t>, &'p str)> {
    if let Some((index, after)) = path.strip_prefix('[').and_then(|path| path.split_once(']'))
        && let Ok(index) = index.parse()
    {
        return here.items().nth(index).map(|item| (None, item, after));
    }
    let path = path.strip_prefix('.').unwrap_or(path);
    let fits = |(name, value): (&'t [u8], Text<'t>)| {
        let plain = unescaped(name);
        let bracketed = || path.strip_prefix('[')?.strip_prefix(&*plain)?.strip_prefix(']');
        let after =
            path.strip_prefix(&*plain).filter(|after| matches!(after.as_bytes(), [] | [b'.' | b'[', ..]));
        // The quotes belong to it.
        let range = range_of(text, name);
        Some((Some(range.start - 1..range.end + 1), value, after.or_else(bracketed)?))
    };
    here.entries().filter_map(fits).min_by_key(|(_, _, after)| after.len())
}

fn unescaped(name: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(name);
    if !name.contains(&b'\\') {
        return text;
    }
    serde_json::from_str(&format!("\"{text}\"")).map_or(text, Cow::Owned)
}

/// Names that an object has twice: their places in the configuration, and the ranges of the second ones.
pub(crate) fn duplicates(text: &str, most: usize) -> Vec<(String, Span)> {
    let mut found = Vec::new();
    collect_duplicates(text, Text::new(text.as_bytes()), "", most, &mut found);
    found
}

/// No known property is nested as deeply as this; unknown ones may be.
const DEEPEST: usize = 32;

fn collect_duplicates(text: &str, here: Text, place: &str, most: usize, found: &mut Vec<(String, Span)>) {
    if place.matches(['.', '[']).count() > DEEPEST {
        return;
    }
    let mut names = HashSet::new();
    for (name, value) in here.entries() {
        let plain = unescaped(name);
        let place = if place.is_empty() { plain.to_string() } else { format!("{place}.{plain}") };
        if !names.insert(plain) && found.len() < most {
            let range = range_of(text, name);
            found.push((place.clone(), span(text, range.start - 1..range.end + 1)));
        }
        collect_duplicates(text, value, &place, most, found);
    }
    for (index, item) in here.items().enumerate() {
        // Numbers and strings have no properties.
        if item.is_container() {
            collect_duplicates(text, item, &format!("{place}[{index}]"), most, found);
        }
    }
}

/// Where a part of the text is in it.
fn range_of(text: &str, part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(text.as_ptr().addr()).min(text.len());
    start..(start + part.len()).min(text.len())
}

pub(crate) fn span(text: &str, bytes: Range<usize>) -> Span {
    Span { start: position(text, bytes.start), end: position(text, bytes.end) }
}

fn position(text: &str, offset: usize) -> Position {
    let offset = floor(text, offset);
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    Position { line, column: before[line_start..].chars().count() + 1, offset }
}

/// The start of the character that `offset` is in.
fn floor(text: &str, offset: usize) -> usize {
    (0..=offset.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The character at a line and a column as serde_json has them: from 1 and in bytes, 0 before the first one.
pub(crate) fn at_byte(text: &str, line: usize, column: usize) -> Span {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let mut at = floor(text, start + column.saturating_sub(1));
    if at == text.len() {
        // The end of the text is shown by its last character.
        at = text.trim_end().char_indices().next_back().map_or(0, |(at, _)| at);
    }
    let length = text[at..].chars().next().map_or(0, char::len_utf8);
    span(text, at..at + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{
  "ä": 1, "mounts": [
    { "type": "proc" , "options": ["a", "b"] },
    {
      "type": "x"
    }
  ],
  "annotations": { "a.b": "long", "a": {"b": 1}, "\u0063": 2 }
}"#;

    fn at(path: &str, part: Part) -> String {
        let found = find(TEXT, path, part);
        format!("{} {}", found.start, &TEXT[found.start.offset..found.end.offset])
    }

    #[test]
    fn a_place_is_that_of_the_value_or_of_the_last_thing_on_the_way() {
        for (path, expected) in [
            ("ä", "2:8 1"),
            ("mounts[0].type", "3:15 \"proc\""),
            ("mounts[0].options", "3:35 [\"a\", \"b\"]"),
            ("mounts[0].options[1]", "3:41 \"b\""),
            ("mounts[0].options[2]", "3:24 \"options\""),
            ("mounts[0].source", "3:5 {"),
            ("mounts[1]", "4:5 {"),
            ("mounts[1].type", "5:15 \"x\""),
            ("mounts", "2:11 \"mounts\""),
            ("annotations.a.b", "8:27 \"long\""),
            ("annotations[a.b]", "8:27 \"long\""),
            ("annotations.c", "8:60 2"),
            ("hooks.prestart[0]", "1:1 {"),
            ("", "1:1 {"),
        ] {
            assert_eq!(at(path, Part::Value), expected, "{path}");
        }
        assert_eq!(at("mounts[1].type", Part::Name), "5:7 \"type\"");
    }

    #[test]
    fn names_that_are_there_twice_are_found_at_the_second() {
        let text = "{\"a\": [{\"b\": 1, \"\\u0062\": 2}], \"c\": \"{\\\"d\\\":1,\\\"d\\\":1}\", \"a\": 1}";
        let found: Vec<_> =
            duplicates(text, 9).into_iter().map(|(at, span)| (at, span.start.offset)).collect();
        assert_eq!(found, [("a[0].b".into(), 16), ("a".into(), 57)]);
    }

    #[test]
    fn a_text_that_is_no_json_has_places_too() {
        for text in
            ["", "{", "[", "{\"", "{\"a", "{\"a\"", "{\"a\":", "\"\\", "{\"a\": [1,", "ä", "}", "{\"a\":}"]
        {
            let _ = find(text, "a.b[3]", Part::Value);
            let _ = duplicates(text, 9);
            let _ = at_byte(text, 1, 1);
            let _ = at_byte(text, 9, 9);
        }
    }
}

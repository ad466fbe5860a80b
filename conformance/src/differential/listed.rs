//! differences.txt: what differs, and why. A line is `PEER ASPECT PATTERN COUNT REASON…`: so many
//! differences of that aspect in the lines that match, none of which an earlier entry has. A pattern is
//! a line's name, and may end in `*`; a count may be `0-1`, for races. The first lines say which versions of the peers it is about.

use super::form::Aspect;
use std::fmt;
use std::ops::RangeInclusive;

/// One aspect of one line in which we differ from one peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    pub peer: String,
    pub aspect: Aspect,
    pub line: String,
    pub ours: String,
    pub theirs: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (peer, aspect, line) = (&self.peer, self.aspect.name(), &self.line);
        let short = |text: &str| text.chars().take(700).collect::<String>();
        write!(
            f,
            "{peer} {aspect} {line}\n    ours:   {}\n    theirs: {}",
            short(&self.ours),
            short(&self.theirs)
        )
    }
}

#[derive(Debug)]
pub struct Entry {
    pub peer: String,
    aspect: String,
    pattern: String,
    counts: RangeInclusive<usize>,
    text: String,
}

static TEXT: &str = include_str!("../../differences.txt");

/// The version of a peer that the list is about, as `# runc 1.1.5` says.
pub fn is_about(peer: &str, version: &str) -> bool {
    let said = TEXT.lines().find_map(|line| line.strip_prefix("# ")?.strip_prefix(peer)?.strip_prefix(' '));
    said.is_some_and(|prefix| version.starts_with(prefix))
}

pub fn read() -> Result<Vec<Entry>, String> {
    let lines = TEXT.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(parse).collect()
}

fn parse(line: &str) -> Result<Entry, String> {
    let words: Vec<&str> = line.splitn(5, ' ').collect();
    let counts = |text: &str| {
        let (least, most) = text.split_once('-').unwrap_or((text, text));
        let range = least.parse::<usize>().ok()?..=most.parse::<usize>().ok()?;
        (*range.end() > 0 && !range.is_empty()).then_some(range)
    };
    match words[..] {
        [peer, aspect, pattern, number, reason] if !reason.trim().is_empty() => {
            let [peer, aspect, pattern] = [peer, aspect, pattern].map(str::to_owned);
            let counts = counts(number).ok_or_else(|| format!("differences.txt: no count: {line}"))?;
            Ok(Entry { peer, aspect, pattern, counts, text: line.to_owned() })
        }
        _ => Err(format!("differences.txt: not PEER ASPECT PATTERN COUNT REASON: {line}")),
    }
}

impl Entry {
    fn covers(&self, one: &Difference) -> bool {
        let matches = match self.pattern.strip_suffix('*') {
            Some(start) => one.line.starts_with(start),
            None => one.line == self.pattern,
        };
        matches && self.peer == one.peer && (self.aspect == "*" || self.aspect == one.aspect.name())
    }
}

/// The lines with a difference that is not listed.
pub fn new(listed: &[Entry], found: &[Difference]) -> Vec<String> {
    let strange = |one: &&Difference| !listed.iter().any(|entry| entry.covers(one));
    found.iter().filter(strange).map(|one| one.line.clone()).collect()
}

/// Prints what is new and what is gone; whether there is none. With only some of the lines run, nothing
/// can be said to be gone.
pub fn judge(listed: &[Entry], found: &[Difference], lines: usize, whole: bool) -> bool {
    let mut counts = vec![0; listed.len()];
    let mut new = Vec::new();
    for one in found {
        match listed.iter().position(|entry| entry.covers(one)) {
            Some(at) => counts[at] += 1,
            None => new.push(one),
        }
    }
    let mut right = new.is_empty();
    new.iter().for_each(|one| println!("NEW  {one}"));
    let wrong = |entry: &Entry, count: usize| !entry.counts.contains(&count);
    for (entry, count) in listed.iter().zip(&counts).filter(|(entry, count)| wrong(entry, **count)) {
        if whole || count > entry.counts.end() {
            right = false;
            println!("DIFFERENT COUNT  now {count}: {}", entry.text);
            let covered = found.iter().filter(|one| entry.covers(one));
            covered.take(8).for_each(|one| println!("     {one}"));
        }
    }
    println!("{lines} lines, {} differences, {} of them not listed", found.len(), new.len());
    right
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(line: &str) -> Difference {
        let (ours, theirs) = ("1".to_owned(), "0".to_owned());
        Difference { peer: "runc".into(), aspect: Aspect::Exit, line: line.into(), ours, theirs }
    }

    #[test]
    fn a_new_difference_fails_and_so_does_one_that_is_gone() {
        let listed = [parse("runc exit a::* 2 because").unwrap()];
        let (one, two, other) = (difference("a::1"), difference("a::2"), difference("b::1"));
        assert!(judge(&listed, &[one.clone(), two.clone()], 3, true));
        assert!(!judge(&listed, &[one.clone(), two.clone(), other], 3, true), "new");
        assert!(!judge(&listed, std::slice::from_ref(&one), 3, true), "gone");
        assert!(judge(&listed, std::slice::from_ref(&one), 3, false), "not all lines were run");
        assert!(!judge(&listed, &[one.clone(), two, difference("a::3")], 3, false), "one more");
    }

    #[test]
    fn a_race_may_be_there_or_not() {
        let listed = [parse("runc exit a::1 0-1 a race").unwrap()];
        assert!(judge(&listed, &[], 1, true) && judge(&listed, &[difference("a::1")], 1, true));
    }

    #[test]
    fn an_entry_needs_a_count_and_a_reason() {
        for line in ["runc exit a::b", "runc exit a::b 0 none", "runc exit a::b x why", "runc exit a::b 1"] {
            assert!(parse(line).is_err(), "{line}");
        }
        read().expect("differences.txt is right");
    }
}

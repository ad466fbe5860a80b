//! The list of failures that are known, each with its reason: expected.txt. A failure that is listed
//! does not fail the run; a listed failure that passes does, so that the list stays true.
//!
//! A line is `RUNTIME[@VERSION][+TAG…] GROUP::CASE REASON…`. The version is a prefix; a tag is one of
//! `v1`, `v2`, `root`, `rootless`; all must hold. A case's name may end in `*`.
//! The tag `sometimes` is for races: such a case may pass too.

use crate::host::Host;

pub struct Expected {
    lines: Vec<Line>,
}

struct Line {
    runtime: String,
    case: String,
    reason: String,
}

static TEXT: &str = include_str!("../expected.txt");

impl Expected {
    pub fn read() -> Result<Self, String> {
        Self::parse(TEXT)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut lines = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let mut words = line.splitn(3, char::is_whitespace);
            let (Some(runtime), Some(case), Some(reason)) = (words.next(), words.next(), words.next()) else {
                return Err(format!("expected.txt: a line needs a runtime, a case and a reason: {line}"));
            };
            let [runtime, case, reason] = [runtime, case, reason].map(|word| word.trim().to_owned());
            lines.push(Line { runtime, case, reason });
        }
        Ok(Self { lines })
    }

    /// Cases that are in the list and nowhere else.
    pub fn unknown(&self, known: &[String]) -> Vec<String> {
        let stray = |line: &&Line| !known.iter().any(|case| covers(&line.case, case));
        self.lines.iter().filter(stray).map(|line| line.case.clone()).collect()
    }

    /// Why this runtime fails this case, if it is known to, and whether it does only sometimes.
    pub fn reason(&self, name: &str, version: &str, host: &Host, case: &str) -> Option<(&str, bool)> {
        let holds = |tag: &str| match tag {
            "v1" => !host.unified,
            "v2" => host.unified,
            "root" => host.root,
            "rootless" => !host.root,
            "sometimes" => true,
            _ => false,
        };
        let applies = |line: &&Line| {
            let mut parts = line.runtime.split('+');
            let runtime = parts.next().unwrap_or_default();
            let (wanted, prefix) = runtime.split_once('@').unwrap_or((runtime, ""));
            covers(&line.case, case) && wanted == name && version.starts_with(prefix) && parts.all(holds)
        };
        let line = self.lines.iter().find(applies)?;
        Some((line.reason.as_str(), line.runtime.ends_with("+sometimes")))
    }
}

/// `pattern` is a case's name, or the beginning of several with a `*`.
fn covers(pattern: &str, case: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == case, |start| case.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_applies_to_its_runtime_version_and_host_only() {
        let list = Expected::parse("# comment\nrunc@1.1+v1 a::b because of this\n").expect("a list");
        let mut host = Host::look();
        host.unified = false;
        assert_eq!(list.reason("runc", "1.1.5", &host, "a::b"), Some(("because of this", false)));
        assert_eq!(list.reason("runc", "1.3.0", &host, "a::b"), None);
        assert_eq!(list.reason("crun", "1.1.5", &host, "a::b"), None);
        host.unified = true;
        assert_eq!(list.reason("runc", "1.1.5", &host, "a::b"), None);
        assert_eq!(list.unknown(&["x".to_owned()]), ["a::b"]);
    }

    #[test]
    fn a_line_without_a_reason_is_refused() {
        assert!(Expected::parse("runc a::b\n").is_err());
    }
}

//! What is compared of a call: not the text, but its form. Two runtimes may say different things in the
//! same form; a program that reads one reads the other.

use crate::process::Output;
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// The exit status.
    Exit,
    /// JSON: its keys in order, and the kinds of values; a table: its columns; else whether there is text.
    Stdout,
    /// Whether there is a message on standard error.
    Stderr,
    /// What the message says.
    Words,
    /// The levels of the log's records, and their keys.
    Log,
    /// The container's status afterwards.
    State,
}

impl Aspect {
    pub const ALL: [Self; 6] = [Self::Exit, Self::Stdout, Self::Stderr, Self::Words, Self::Log, Self::State];

    pub fn name(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Words => "words",
            Self::Log => "log",
            Self::State => "state",
        }
    }
}

/// What one call showed.
#[derive(Clone, Debug)]
pub struct Seen {
    exit: String,
    stdout: String,
    stderr: bool,
    words: String,
    log: String,
    state: String,
}

const BROKEN: &str = "broken: ";

impl Seen {
    /// The line could not be run; that is a difference to all others.
    pub fn broken(why: &str) -> Self {
        let text = format!("{BROKEN}{why}");
        Self {
            exit: text,
            stdout: String::new(),
            stderr: false,
            words: String::new(),
            log: String::new(),
            state: String::new(),
        }
    }

    /// `hidden` are texts that differ from run to run, and what stands for them.
    pub fn new(output: &Output, log: &str, state: String, hidden: &[(String, &str)]) -> Self {
        let mut words = if output.code == 0 { String::new() } else { output.stderr.trim().to_owned() };
        for (text, name) in hidden {
            words = words.replace(text.as_str(), name);
        }
        Self {
            exit: output.code.to_string(),
            stdout: form(&output.stdout),
            stderr: !output.stderr.trim().is_empty(),
            words,
            log: records(log),
            state,
        }
    }

    pub fn is_broken(&self) -> bool {
        self.exit.starts_with(BROKEN)
    }

    pub fn worked(&self) -> bool {
        self.exit == "0"
    }

    /// As it is compared; the runtime's own name is left out.
    pub fn aspect(&self, aspect: Aspect, name: &str) -> String {
        match aspect {
            Aspect::Exit => self.exit.clone(),
            Aspect::Stdout => self.stdout.clone(),
            Aspect::Stderr => if self.stderr { "a message" } else { "nothing" }.to_owned(),
            Aspect::Words => neutral(&self.words, name),
            Aspect::Log => self.log.clone(),
            Aspect::State => self.state.clone(),
        }
    }
}

fn neutral(words: &str, name: &str) -> String {
    let line = words.lines().next().unwrap_or_default();
    // A call that fails before there is a log prints its record.
    let text = line.split_once(" msg=\"").map_or(line, |(_, rest)| rest.trim_end_matches('"'));
    let text = text.trim_end_matches("\\n");
    text.replace(&format!("/usr/sbin/{name}"), "RUNTIME").replace(name, "RUNTIME")
}

/// Whether our message has all that theirs says, in their order. What stands between may be more.
pub fn has_words_of(ours: &str, theirs: &str) -> bool {
    let mut rest = ours;
    theirs.split(": ").map(str::trim).filter(|part| !part.is_empty()).all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

fn form(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() {
        return "nothing".to_owned();
    }
    let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
    match values {
        Ok(values) if text.starts_with(['{', '[', 'n']) => {
            let mut keys = Vec::new();
            values.iter().for_each(|value| shape(value, "", &mut keys));
            format!("JSON {}", keys.join(" "))
        }
        _ => {
            let head = text.lines().next().unwrap_or_default();
            let columns: Vec<&str> = head.split_whitespace().collect();
            let is_head = columns.iter().all(|word| word.chars().all(|c| c.is_ascii_uppercase()));
            if is_head { format!("table {}", columns.join(" ")) } else { "text".to_owned() }
        }
    }
}

/// Paths of all members with their kinds; the elements of a list are taken together.
fn shape(value: &Value, path: &str, keys: &mut Vec<String>) {
    let mut add = |kind: &str| {
        let entry = format!("{path}:{kind}");
        if !keys.contains(&entry) {
            keys.push(entry);
        }
    };
    match value {
        Value::Null => add("null"),
        Value::Bool(_) => add("bool"),
        Value::Number(_) => add("number"),
        Value::String(_) => add("string"),
        Value::Array(items) => {
            add("list");
            items.iter().for_each(|item| shape(item, &format!("{path}[]"), keys));
        }
        Value::Object(members) => {
            add("object");
            members.iter().for_each(|(key, member)| shape(member, &format!("{path}.{key}"), keys));
        }
    }
}

/// The records of a log as `level{keys}`, equal ones that follow each other once.
fn records(text: &str) -> String {
    let mut found: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let record = match serde_json::from_str::<Value>(line) {
            Ok(Value::Object(members)) => {
                let level = members.get("level").and_then(Value::as_str).unwrap_or("none").to_owned();
                let mut keys: Vec<&String> = members.keys().collect();
                keys.sort();
                let keys: Vec<&str> = keys.iter().map(|key| key.as_str()).collect();
                format!("{level}{{{}}}", keys.join(","))
            }
            _ => "no JSON".to_owned(),
        };
        if found.last() != Some(&record) {
            found.push(record);
        }
    }
    found.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_their_order() {
        let ours = "onggi create failed: a: exec: \"x\": not found (ENOENT), at process; hint: h";
        assert!(has_words_of(ours, "a: exec: \"x\": not found"));
        assert!(!has_words_of(ours, "not found: exec"));
        assert!(!has_words_of(ours, "something else"));
    }

    #[test]
    fn forms_of_output() {
        assert_eq!(form("  "), "nothing");
        assert_eq!(form("{\"a\":[{\"b\":1},{\"b\":2}]}"), "JSON :object .a:list .a[]:object .a[].b:number");
        assert_eq!(form("ID   PID\nx 1"), "table ID PID");
        assert_eq!(form("usage: this"), "text");
    }

    #[test]
    fn records_of_a_log() {
        let one = "{\"level\":\"error\",\"msg\":\"m\",\"time\":\"t\"}\n";
        assert_eq!(records(&format!("{one}{one}x\n")), "error{level,msg,time} no JSON");
    }
}

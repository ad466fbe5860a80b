//! `events`: the statistics of a container at intervals, and each time that it runs out of memory: one JSON object on
//! each line, as `runc events` prints them.

use crate::cli::{Flag, Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;
use crate::output;
use libruntime::{Container, Oom, Status};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub const VERB: Verb = Verb {
    name: "events",
    about: "print what a container uses, and when it runs out of memory",
    arguments: "<container-id>",
    count: (1, 1),
    trailing: false,
    text: "A duration is a number with a unit, such as 500ms, 5s or 1m30s.",
    flags: &[
        Flag::value("interval", "DURATION", "the time between two lines (default: 5s)"),
        Flag::switch("stats", "print one line and end"),
    ],
    run,
};

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    let interval = match args.get("interval") {
        None => Duration::from_secs(5),
        Some(text) => {
            duration(text).ok_or_else(|| Failure::flag("interval", text, "it is a duration such as 5s"))?
        }
    };
    if interval.is_zero() {
        return Err(Failure::new("duration interval must be greater than 0"));
    }
    let container = global.load(args)?;
    if container.status() == Status::Stopped {
        return Err(Failure::new(format!("container with id {} is not running", container.id())));
    }
    if args.is_set("stats") {
        return print_stats(&container);
    }
    let mut events = container.oom_events()?;
    let mut next = Instant::now() + interval;
    loop {
        match events.wait(Some(next.saturating_duration_since(Instant::now())))? {
            Oom::Happened { .. } => drop(output::print(&line(&container, "oom", None))?),
            Oom::Gone => return Ok(0),
            Oom::TimedOut if container.status() == Status::Stopped => return Ok(0),
            _ => {
                print_stats(&container)?;
                next = Instant::now() + interval;
            }
        }
    }
}

fn print_stats(container: &Container) -> Result<u8, Failure> {
    output::print(&line(container, "stats", Some(container.stats()?.to_runc())))
}

fn line(container: &Container, kind: &str, data: Option<Value>) -> String {
    let mut object = json!({ "type": kind, "id": container.id() });
    if let Some(data) = data {
        object["data"] = data;
    }
    format!("{object}\n")
}

/// A duration as Go writes it: numbers with units, one after the other.
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut nanoseconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|at| *at > 0)?;
        let unit =
            rest[digits..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |n| digits + n);
        let factor = match &rest[digits..unit] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanoseconds += rest[..digits].parse::<f64>().ok()? * factor;
        rest = &rest[unit..];
    }
    (!text.is_empty() && nanoseconds < 1e18).then(|| Duration::from_nanos(nanoseconds as u64))
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_those_of_go() {
        for (text, milliseconds) in [("5s", 5000), ("500ms", 500), ("1m30s", 90_000), ("1.5s", 1500)] {
            assert_eq!(duration(text).map(|d| d.as_millis()), Some(milliseconds), "{text}");
        }
        for text in ["", "5", "s", "5x", "-5s", "1s5"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}

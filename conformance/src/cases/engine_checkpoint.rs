//! Checkpoints through Podman and Docker, in the words that each has for them.

use crate::case::{Outcome, check, same};
use crate::engine::Engine;
use crate::test::Test;

/// Counts in a file of its root.
const COUNTER: &str =
    "i=0; while :; do i=$((i+1)); echo $i > /count.new; mv /count.new /count; sleep 0.05; done";

pub fn counting(engine: &Engine, options: &[&str]) -> Outcome<u32> {
    engine.detached("one", options, &["sh", "-c", COUNTER])?;
    let mut last = 0;
    engine.until("it counts", || {
        last = count(engine, "one").unwrap_or(0);
        Ok(last > 10)
    })?;
    Ok(last)
}

pub fn count(engine: &Engine, name: &str) -> Outcome<u32> {
    Ok(engine.says(&["exec", name, "cat", "/count"])?.parse().unwrap_or(0))
}

/// Fails unless the counter goes on from where it was, and not from the beginning.
pub fn goes_on(engine: &Engine, name: &str, from: u32) -> Outcome {
    let first = count(engine, name)?;
    check!(first >= from, "it was at {from} and is at {first}: it began again");
    engine.until("it counts on", || Ok(count(engine, name)? > first))
}

/// What the log of CRIU says, where an engine names it in an error.
pub fn explained(outcome: Outcome) -> Outcome {
    let Err(crate::case::Stop::Fail(text)) = outcome else { return outcome };
    let place = text.split_whitespace().find(|word| word.contains(".log"));
    let place = place.map(|word| word.trim_matches(|c: char| !c.is_alphanumeric() && c != '/'));
    let log = place.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("Error")).collect();
    crate::case::fail(format!("{text} {}", lines.join(" | ")))
}

pub fn is_running(t: &Test, name: &str, wanted: bool) -> Outcome {
    same("running", t.engine()?.inspect(name, ".State.Running")?, wanted.to_string())
}

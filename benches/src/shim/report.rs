//! What was measured of shims, as a table or as JSON. Ratios come first, and are those of Go's shim with runc.

use std::fmt::Write;

use serde_json::{Value, json};

use super::memory::Use;
use super::pod::Kind;
use super::rounds::{Row, Sample, Step};
use crate::stats::{Quartiles, quartiles, ratios};

/// Everything is divided by what this one took.
pub const REFERENCE: &str = "go+runc";

const STATES: [&str; 3] = ["one container, at rest", "ten containers, at rest", "one, right after a call"];

fn samples(row: &Row, step: usize, of: fn(&Sample) -> f64) -> Vec<Option<f64>> {
    row.samples.iter().map(|round| round[step].as_ref().map(of)).collect()
}

fn wall(sample: &Sample) -> f64 {
    sample.wall
}

fn cpu(sample: &Sample) -> f64 {
    sample.cpu
}

fn against(rows: &[Row], row: &Row, step: usize, of: fn(&Sample) -> f64) -> Option<Quartiles> {
    let reference = rows.iter().find(|row| row.name == REFERENCE)?;
    ratios(&samples(row, step, of), &samples(reference, step, of))
}

pub fn spread(found: Option<Quartiles>) -> String {
    found.map_or("-".into(), |found| format!("{:.2} [{:.2} {:.2}]", found.median, found.low, found.high))
}

/// `heading` says on what machine, and how.
pub fn table(heading: &[String], kinds: &[Kind], rows: &[Row]) -> String {
    let mut out = String::new();
    let mut put = |line: String| writeln!(out, "{}", line.trim_end()).expect("writing to a String");
    heading.iter().cloned().for_each(&mut put);
    kinds.iter().for_each(|kind| put(format!("  {:<12} {}", kind.name, kind.version)));
    for (at, step) in Step::ALL.into_iter().enumerate() {
        put(format!("\n{}", step.title()));
        let titles = ["× wall", "× CPU", "ms", "ms of CPU"];
        put(format!(
            "  {:<12} {:<20} {:<20} {:<24} {:<24} programs",
            "", titles[0], titles[1], titles[2], titles[3]
        ));
        for row in rows {
            let time = |of| spread(quartiles(samples(row, at, of).into_iter().flatten()));
            let programs = row.programs.map_or("-".into(), |programs| programs[at].to_string());
            put(format!(
                "  {:<12} {:<20} {:<20} {:<24} {:<24} {programs}",
                row.name,
                spread(against(rows, row, at, wall)),
                spread(against(rows, row, at, cpu)),
                time(wall),
                time(cpu)
            ));
        }
    }
    for (at, state) in STATES.into_iter().enumerate() {
        put(format!("\nthe shim with {state}"));
        put(format!(
            "  {:<12} {:>9} {:>9} {:>14} {:>8} {:>8}",
            "", "RSS KiB", "PSS", "private dirty", "threads", "files"
        ));
        for row in rows {
            let Some(Use { resident, proportional, private_dirty, threads, descriptors }) =
                row.memory.map(|memory| memory[at])
            else {
                put(format!("  {:<12} {:>9}", row.name, "-"));
                continue;
            };
            put(format!(
                "  {:<12} {resident:>9} {proportional:>9} {private_dirty:>14} {threads:>8} {descriptors:>8}",
                row.name
            ));
        }
    }
    for row in rows {
        if let (count, Some(error)) = &row.failures {
            put(format!("\n{}: failed {count} times, first: {error}", row.name));
        }
    }
    out
}

pub fn as_json(heading: &[String], kinds: &[Kind], rows: &[Row]) -> Value {
    let versions: Vec<Value> =
        kinds.iter().map(|kind| json!({ "name": kind.name, "version": kind.version })).collect();
    let rows: Vec<Value> = rows.iter().map(|row| json_row(rows, row)).collect();
    json!({ "setting": heading, "reference": REFERENCE, "contestants": versions, "rows": rows })
}

fn json_row(rows: &[Row], row: &Row) -> Value {
    let spread = |found: Option<Quartiles>| {
        found.map(|found| json!({ "q1": found.low, "median": found.median, "q3": found.high }))
    };
    let steps: Vec<Value> = Step::ALL
        .into_iter()
        .enumerate()
        .map(|(at, step)| {
            let (wall_ms, cpu_ms) = (samples(row, at, wall), samples(row, at, cpu));
            json!({
                "step": step.name(),
                "ratio_of_wall": spread(against(rows, row, at, wall)),
                "ratio_of_cpu": spread(against(rows, row, at, cpu)),
                "wall_ms": spread(quartiles(wall_ms.iter().flatten().copied())),
                "cpu_ms": spread(quartiles(cpu_ms.iter().flatten().copied())),
                "programs": row.programs.map(|programs| programs[at]),
                "samples_wall_ms": wall_ms,
                "samples_cpu_ms": cpu_ms,
            })
        })
        .collect();
    let memory = row.memory.map(|memory| {
        let states = STATES.into_iter().zip(memory).map(|(state, used)| {
            json!({
                "state": state, "rss_kib": used.resident, "pss_kib": used.proportional,
                "private_dirty_kib": used.private_dirty, "threads": used.threads, "descriptors": used.descriptors,
            })
        });
        states.collect::<Vec<Value>>()
    });
    let (failures, first_failure) = &row.failures;
    json!({ "name": row.name, "steps": steps, "memory": memory, "failures": failures, "first_failure": first_failure })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, wall: f64) -> Row {
        let mut row = Row::new(name);
        row.samples.push([Some(Sample { wall, cpu: wall / 2.0 }); 6]);
        row
    }

    #[test]
    fn a_ratio_is_that_of_the_reference_and_missing_without_it() {
        let rows = [row("onggi", 1.0), row(REFERENCE, 4.0)];
        assert!(table(&[], &[], &rows).contains("onggi        0.25 [0.25 0.25]"));
        let json = as_json(&[], &[], &rows[..1]);
        assert!(json["rows"][0]["steps"][0]["ratio_of_wall"].is_null(), "{json}");
        assert!(json["rows"][0]["memory"].is_null(), "{json}");
    }
}

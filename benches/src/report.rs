//! What was measured, as a table or as JSON. Ratios come first: times alone say more about the machine than
//! about a runtime.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::kind::Kind;
use crate::measure::Row;
use crate::options::Work;
use crate::stats::{Quartiles, quartiles, ratios};

/// The kernel, the machine and the way of measuring, for whoever reads the numbers later.
pub struct Setting {
    pub kernel: String,
    pub cpus: usize,
    pub cgroups: &'static str,
    pub rounds: usize,
    pub cold: bool,
    pub notes: Vec<String>,
    /// Name and version.
    pub contestants: Vec<(String, String)>,
}

/// The rows of one work on one kind of bundle.
pub struct Measured {
    pub work: Work,
    pub kind: Kind,
    pub rows: Vec<Row>,
}

fn reference<'a>(rows: &'a [Row], name: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.name == name)
}

fn against(rows: &[Row], row: &Row, name: &str) -> Option<Quartiles> {
    ratios(&row.samples, &reference(rows, name)?.samples)
}

fn times(row: &Row) -> Option<Quartiles> {
    quartiles(row.samples.iter().filter_map(|sample| *sample))
}

pub fn table(setting: &Setting, works: &[Measured]) -> String {
    let mut out = String::new();
    let pace = if setting.cold { "cold: 100 ms of rest before each" } else { "back to back" };
    put(
        &mut out,
        format!(
            "{}, {} CPUs, cgroup {}; {} interleaved rounds, {pace}; medians, quartiles in brackets",
            setting.kernel, setting.cpus, setting.cgroups, setting.rounds
        ),
    );
    for (name, version) in &setting.contestants {
        put(&mut out, format!("  {name:<10} {version}"));
    }
    for note in &setting.notes {
        put(&mut out, format!("note: {note}"));
    }
    for Measured { work, kind, rows } in works {
        put(&mut out, format!("\n{} {}", work.title(), kind.title()));
        put(
            &mut out,
            format!(
                "  {:<10} {:<20} {:<20} {:<24} {:>9} {:>8}",
                "", "× floor", "× crun", "ms", "peak MiB", "calls"
            ),
        );
        rows.iter().for_each(|row| put(&mut out, table_row(rows, row)));
        for row in rows {
            if let (count, Some(error)) = &row.failures {
                put(&mut out, format!("  {}: failed {count} times, first: {error}", row.name));
            }
        }
    }
    out
}

fn put(out: &mut String, line: String) {
    writeln!(out, "{}", line.trim_end()).expect("writing to a String");
}

fn table_row(rows: &[Row], row: &Row) -> String {
    let ratio = |name: &str| match against(rows, row, name) {
        _ if row.name == name => "1".to_owned(),
        Some(found) => format!("{:.2} [{:.2} {:.2}]", found.median, found.low, found.high),
        None => "-".to_owned(),
    };
    let time = times(row).map_or("-".to_owned(), |t| format!("{:.2} [{:.2} {:.2}]", t.median, t.low, t.high));
    let peak = row.trace.map_or("-".to_owned(), |trace| format!("{:.1}", trace.peak as f64 / 1024.0));
    let calls = row.trace.map_or("-".to_owned(), |trace| trace.calls.to_string());
    format!("  {:<10} {:<20} {:<20} {time:<24} {peak:>9} {calls:>8}", row.name, ratio("floor"), ratio("crun"))
}

pub fn as_json(setting: &Setting, works: &[Measured]) -> Value {
    let versions: Vec<Value> =
        setting.contestants.iter().map(|(name, version)| json!({"name": name, "version": version})).collect();
    let works: Vec<Value> = works
        .iter()
        .map(|Measured { work, kind, rows }| {
            let rows: Vec<Value> = rows.iter().map(|row| json_row(rows, row)).collect();
            json!({"work": work.name(), "bundle": kind.name(), "rows": rows})
        })
        .collect();
    json!({
        "kernel": setting.kernel, "cpus": setting.cpus, "cgroups": setting.cgroups,
        "rounds": setting.rounds, "cold": setting.cold, "notes": setting.notes,
        "contestants": versions, "works": works,
    })
}

fn json_row(rows: &[Row], row: &Row) -> Value {
    let spread = |found: Option<Quartiles>| {
        found.map(|found| json!({"q1": found.low, "median": found.median, "q3": found.high}))
    };
    json!({
        "name": row.name,
        "ratio_to_floor": spread(against(rows, row, "floor")),
        "ratio_to_crun": spread(against(rows, row, "crun")),
        "milliseconds": spread(times(row)),
        "peak_kib": row.trace.map(|trace| trace.peak),
        "system_calls": row.trace.map(|trace| trace.calls),
        "own_kib": row.trace.map(|trace| trace.own),
        "samples_ms": row.samples,
        "failures": row.failures.0,
        "first_failure": row.failures.1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, samples: &[f64]) -> Row {
        let samples = samples.iter().copied().map(Some).collect();
        Row { name: name.to_owned(), samples, trace: None, failures: (0, None) }
    }

    #[test]
    fn ratios_stand_before_times_and_a_missing_reference_is_a_dash() {
        let rows = [row("floor", &[2.0, 2.0]), row("onggi", &[3.0, 3.0])];
        let line = table_row(&rows, &rows[1]);
        assert!(line.trim_start().starts_with("onggi      1.50 [1.50 1.50]"), "{line}");
        assert_eq!(line.split_whitespace().nth(4), Some("-"), "{line}");
    }

    #[test]
    fn a_contestant_without_samples_has_null_and_not_zero() {
        let rows = [row("floor", &[1.0]), Row { samples: vec![None], ..row("youki", &[]) }];
        let found = json_row(&rows, &rows[1]);
        assert!(found["milliseconds"].is_null() && found["ratio_to_floor"].is_null(), "{found}");
    }
}

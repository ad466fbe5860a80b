//! The rounds: every contestant once per round, one after the other, so that whatever the machine does
//! meanwhile happens to all of them.

use std::thread::sleep;
use std::time::Duration;

use crate::options::{Options, Work};
use crate::stats::quartiles;
use crate::trace::Trace;
use crate::work::Contestant;

/// A contestant that fails this often in one work is left out of the rest of it.
const PATIENCE: usize = 3;
const TRACES: usize = 3;
const REST: Duration = Duration::from_millis(100);

pub struct Row {
    pub name: String,
    /// Milliseconds by round; None where it failed.
    pub samples: Vec<Option<f64>>,
    pub trace: Option<Trace>,
    /// The first failure's text, and how many there were.
    pub failures: (usize, Option<String>),
}

pub fn measure(contestants: &mut [Contestant], work: Work, options: &Options) -> Vec<Row> {
    let taking_part = contestants.iter_mut().filter(|one| one.takes_part(work));
    let mut field: Vec<(&mut Contestant, Row)> = taking_part.map(|one| prepared(one, work)).collect();
    let count = field.len();
    // Round 0 warms up (page cache, mount points) and is not kept.
    for round in 0..=options.rounds {
        for turn in 0..count {
            // Rotated, so that nobody always follows the same neighbour's first step.
            let (contestant, row) = &mut field[(round + turn) % count];
            let sample = sample(contestant, row, work, round, options);
            if round > 0 {
                row.samples.push(sample);
            }
        }
    }
    if options.trace {
        field.iter_mut().for_each(|(contestant, row)| row.trace = traced(contestant, row, work));
    }
    field.into_iter().map(|(contestant, row)| finished(contestant, row)).collect()
}

/// The median of a few traces: who polls makes more calls at one time than at another.
fn traced(contestant: &mut Contestant, row: &mut Row, work: Work) -> Option<Trace> {
    let mut traces = Vec::new();
    for turn in 0..TRACES {
        if row.failures.0 >= PATIENCE {
            return None;
        }
        let id = format!("t{turn}");
        match contestant.trace(work, &id) {
            Ok(trace) => traces.push(trace),
            Err(error) => failed(contestant, row, work, id, format!("while traced: {error}")),
        }
    }
    trace_of_medians(&traces)
}

fn trace_of_medians(traces: &[Trace]) -> Option<Trace> {
    let median = |of: fn(&Trace) -> u64| {
        quartiles(traces.iter().map(|trace| of(trace) as f64)).map(|found| found.median as u64)
    };
    Some(Trace {
        calls: median(|trace| trace.calls)?,
        peak: median(|trace| trace.peak)?,
        own: median(|trace| trace.own)?,
    })
}

fn prepared(contestant: &mut Contestant, work: Work) -> (&mut Contestant, Row) {
    let name = contestant.name.clone();
    let mut row = Row { name, samples: Vec::new(), trace: None, failures: (0, None) };
    if let Err(error) = contestant.prepare(work) {
        note(&mut row, error);
        row.failures.0 = PATIENCE;
    }
    (contestant, row)
}

fn finished(contestant: &mut Contestant, row: Row) -> Row {
    contestant.clean([]);
    row
}

fn sample(
    contestant: &mut Contestant,
    row: &mut Row,
    work: Work,
    round: usize,
    options: &Options,
) -> Option<f64> {
    if row.failures.0 >= PATIENCE {
        return None;
    }
    if options.cold {
        sleep(REST);
    }
    let id = format!("b{round}");
    match contestant.time(work, &id) {
        Ok(took) => Some(took.as_secs_f64() * 1000.0),
        Err(error) => {
            failed(contestant, row, work, id, error);
            None
        }
    }
}

/// Removes what the failed measurement may have left. The container of `exec` and `state` stays.
fn failed(contestant: &mut Contestant, row: &mut Row, work: Work, id: String, error: String) {
    note(row, error);
    if matches!(work, Work::Run | Work::Create) {
        contestant.clean([id]);
    }
}

fn note(row: &mut Row, error: String) {
    row.failures.0 += 1;
    row.failures.1.get_or_insert(error);
}

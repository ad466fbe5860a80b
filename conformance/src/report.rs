//! Prints results: one line per case for one runtime, a table for several, then details and totals.
//! It must not run anything. expected.rs says which failures are known.

use crate::case::{Case, Stop};
use crate::runner::{Candidate, Verdict};

/// A verdict after a look at the list of known failures.
#[derive(Debug, PartialEq)]
pub enum Grade {
    Pass,
    Skip(String),
    Fail(String),
    /// It is in the list and it failed.
    Known(String),
    /// It is in the list and it passed: the list is wrong.
    Surprise(String),
}

impl Grade {
    pub fn new(verdict: &Verdict, known: Option<(&str, bool)>) -> Self {
        match (&verdict.stop, known) {
            (Ok(()), None | Some((_, true))) => Grade::Pass,
            (Ok(()), Some((reason, false))) => Grade::Surprise(reason.to_owned()),
            (Err(stop @ Stop::Skip(_)), _) => Grade::Skip(crate::reason(stop).to_owned()),
            (Err(stop), None) => Grade::Fail(crate::reason(stop).to_owned()),
            (Err(_), Some((reason, _))) => Grade::Known(reason.to_owned()),
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Grade::Pass => "pass",
            Grade::Skip(_) => "skip",
            Grade::Fail(_) => "FAIL",
            Grade::Known(_) => "known",
            Grade::Surprise(_) => "PASSES",
        }
    }

    /// A failure of the container or of the list: the run ends with 1.
    fn bad(&self) -> bool {
        matches!(self, Grade::Fail(_) | Grade::Surprise(_))
    }

    fn failed(&self) -> bool {
        matches!(self, Grade::Fail(_) | Grade::Known(_))
    }
}

/// One case of one runtime, printed as soon as it is known.
pub fn line(case: &Case, grade: &Grade, verdict: &Verdict) {
    let detail = match grade {
        Grade::Skip(reason) | Grade::Known(reason) => format!("  ({reason})"),
        _ if !verdict.note.is_empty() => format!("  ({})", verdict.note),
        _ => String::new(),
    };
    println!("{:6} {:5} ms  {}{detail}", grade.word(), verdict.milliseconds, case.full_name());
}

/// Case by runtime. A failure that runc and crun share is marked `?`: the case may be wrong.
pub fn table(cases: &[Case], candidates: &[Candidate], rows: &[Vec<Grade>]) {
    let width = cases.iter().map(|case| case.full_name().len()).max().unwrap_or(0);
    let heads: Vec<String> =
        candidates.iter().map(|c| format!("{:12}", format!("{} {}", c.name, c.version))).collect();
    println!("{:width$}  {}", "case", heads.join("  "));
    for (case, row) in cases.iter().zip(rows) {
        let suspect = suspect(candidates, row);
        let cells: Vec<String> = row
            .iter()
            .map(|grade| {
                format!(
                    "{:12}",
                    format!("{}{}", grade.word(), if grade.failed() && suspect { " ?" } else { "" })
                )
            })
            .collect();
        let reasons: Vec<&str> = row
            .iter()
            .filter_map(|grade| if let Grade::Skip(r) = grade { Some(r.as_str()) } else { None })
            .collect();
        let detail = reasons.first().map(|reason| format!("  ({reason})")).unwrap_or_default();
        println!("{:width$}  {}{detail}", case.full_name(), cells.join("  ").trim_end());
    }
}

/// The same as tables of Markdown, without reasons: how many of each group pass, and each case.
pub fn markdown(cases: &[Case], candidates: &[Candidate], rows: &[Vec<Grade>]) {
    let heads: Vec<String> = candidates.iter().map(|c| format!("{} {}", c.name, c.version)).collect();
    let line = format!("{} |\n|---|{}", heads.join(" | "), "---|".repeat(heads.len()));
    println!("| group: passed of those that were run | {line}");
    let mut at = 0;
    for group in cases.chunk_by(|a, b| a.group == b.group) {
        let rows = &rows[at..at + group.len()];
        at += group.len();
        let share = |candidate: usize| {
            let grades = rows.iter().map(|row| &row[candidate]);
            let (passed, failed) = grades.fold((0, 0), |(passed, failed), grade| match grade {
                Grade::Pass | Grade::Surprise(_) => (passed + 1, failed),
                Grade::Fail(_) | Grade::Known(_) => (passed, failed + 1),
                Grade::Skip(_) => (passed, failed),
            });
            format!("{passed} of {}", passed + failed)
        };
        let shares: Vec<String> = (0..candidates.len()).map(share).collect();
        println!("| {} | {} |", group[0].group, shares.join(" | "));
    }
    println!("\n| case | {line}");
    for (case, row) in cases.iter().zip(rows) {
        let words: Vec<&str> = row
            .iter()
            .map(|grade| match grade {
                Grade::Pass | Grade::Surprise(_) => "pass",
                Grade::Skip(_) => "-",
                Grade::Fail(_) | Grade::Known(_) => "**fail**",
            })
            .collect();
        println!("| {} | {} |", case.full_name(), words.join(" | "));
    }
}

/// True when both runc and crun were run and both failed.
fn suspect(candidates: &[Candidate], row: &[Grade]) -> bool {
    let failed = |name: &str| candidates.iter().zip(row).any(|(c, grade)| c.name == name && grade.failed());
    failed("runc") && failed("crun")
}

/// Details of what went wrong, then the totals; true when nothing unexpected happened.
pub fn end(cases: &[Case], candidates: &[Candidate], rows: &[Vec<Grade>]) -> bool {
    for (at, candidate) in candidates.iter().enumerate() {
        for (case, row) in cases.iter().zip(rows) {
            let mark = if suspect(candidates, row) { " (suspect: runc and crun both fail)" } else { "" };
            match &row[at] {
                Grade::Fail(reason) => {
                    println!("\n{} fails {}{mark}\n    {reason}", candidate.name, case.full_name())
                }
                Grade::Surprise(reason) => {
                    println!(
                        "\n{} passes {}, listed in expected.txt: {reason}",
                        candidate.name,
                        case.full_name()
                    );
                }
                _ => {}
            }
        }
    }
    println!();
    for (at, candidate) in candidates.iter().enumerate() {
        let count = |wanted: fn(&Grade) -> bool| rows.iter().filter(|row| wanted(&row[at])).count();
        let known = count(|grade| matches!(grade, Grade::Known(_)));
        let prefix = if candidates.len() > 1 { format!("{}: ", candidate.name) } else { String::new() };
        println!("{prefix}{known} known failures (expected.txt), not counted below");
        println!(
            "{prefix}{} passed, {} failed, {} skipped",
            count(|grade| *grade == Grade::Pass),
            count(Grade::bad),
            count(|grade| matches!(grade, Grade::Skip(_)))
        );
    }
    !rows.iter().flatten().any(Grade::bad)
}

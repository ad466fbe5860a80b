//! Black-box tests of OCI runtimes: `RUNTIME=onggi,runc,crun cargo run -p conformance [-- FILTER…]`.
//! This file reads the command line, lets runner.rs run the cases and prints the results. It must not
//! know any case; they are in cases/, what a case is in case.rs, known failures in expected.txt.
#![deny(unsafe_code)]

mod bundle;
mod case;
mod cases;
mod differential;
mod engine;
mod engine_image;
mod engine_limits;
mod engine_shared;
mod engine_start;
mod expected;
mod host;
mod leaks;
mod net;
mod process;
mod report;
mod runner;
mod sys;
mod test;
mod walk;

use case::{Case, Stop};
use expected::Expected;
use host::Host;
use report::Grade;
use runner::{Candidate, Verdict};
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
usage: RUNTIME=NAME|PATH[,…] conformance [OPTION…] [FILTER…]
  FILTER       runs the cases whose GROUP::NAME has it in it; several: those with any of them
  --without X  leaves out the cases whose GROUP::NAME has X in it; may be repeated
  --only NAME  runs the one case of that name
  --list       prints the cases and what they need
  --jobs N     runs N cases at a time (default 2)
  --quiet      prints no table, only failures and totals
  --markdown   prints the table of several runtimes for a page of documentation
  --differential        compares RUNTIME with runc and crun, see src/differential.rs
  --differential=print  prints every difference and judges none
CONFORMANCE_KEEP=1 keeps the scratch directory, which is made in $TMPDIR or /tmp
(/var/tmp where /tmp is nosuid or nodev).
CONFORMANCE_SLOW=N makes all time limits N times as long; CONFORMANCE_RACE=N repeats races for N seconds.";

#[derive(Default)]
struct Options {
    filters: Vec<String>,
    without: Vec<String>,
    only: Option<String>,
    list: bool,
    quiet: bool,
    markdown: bool,
    /// Whether to judge.
    differential: Option<bool>,
    jobs: usize,
    /// `--case`, `--name`, `--program`, `--dir`, `--scratch`: the inner process of runner.rs.
    inner: [Option<String>; 5],
}

const INNER: [&str; 5] = ["--case", "--name", "--program", "--dir", "--scratch"];

fn options() -> Result<Options, String> {
    let mut options = Options { jobs: 2, ..Options::default() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value\n{USAGE}"));
        match arg.as_str() {
            "--list" => options.list = true,
            "--quiet" => options.quiet = true,
            "--markdown" => options.markdown = true,
            "--differential" => options.differential = Some(true),
            "--differential=print" => options.differential = Some(false),
            "--without" => options.without.push(value()?),
            "--only" => options.only = Some(value()?),
            "--jobs" => options.jobs = value()?.parse().map_err(|_| "--jobs needs a number".to_owned())?,
            "--help" | "-h" => return Err(USAGE.to_owned()),
            other => match INNER.iter().position(|name| *name == other) {
                Some(at) => options.inner[at] = Some(value()?),
                None if other.starts_with('-') => return Err(format!("unknown option {other}\n{USAGE}")),
                None => options.filters.push(arg),
            },
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // Tracers, which are processes of their own.
    let traced = match args.split_first() {
        Some((first, rest)) if first == "--trace" => Some(walk::tracer::main(rest)),
        Some((first, rest)) if first == "--fail" => {
            Some(walk::attached::main(rest).map_err(|stop| format!("{stop:?}")))
        }
        _ => None,
    };
    match traced {
        Some(Ok(code)) => return ExitCode::from(code as u8),
        Some(Err(text)) => {
            eprintln!("{text}");
            return ExitCode::from(125);
        }
        None => {}
    }
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, String> {
    let options = options()?;
    if let [Some(case), Some(name), Some(program), Some(dir), Some(scratch)] = &options.inner {
        let scratch = PathBuf::from(scratch);
        return runner::inside(case, name, PathBuf::from(program), PathBuf::from(dir), &scratch)
            .map(|()| true)
            .map_err(|stop| format!("{stop:?}"));
    }
    if let Some(judge) = options.differential {
        let word = std::env::var("RUNTIME").unwrap_or_else(|_| "onggi".to_owned());
        return differential::run(&Candidate::find(&word)?, &options.filters, options.jobs, !judge);
    }
    let chosen = chosen(&options)?;
    if options.list {
        for case in &chosen {
            println!("{}  {:?}", case.full_name(), case.needs);
        }
        println!("{} cases", chosen.len());
        return Ok(true);
    }
    let words = std::env::var("RUNTIME").unwrap_or_else(|_| "onggi".to_owned());
    let candidates: Vec<Candidate> =
        words.split(',').filter(|word| !word.is_empty()).map(Candidate::find).collect::<Result<_, _>>()?;
    let expected = Expected::read()?;
    let known: Vec<String> = cases::all().iter().map(Case::full_name).collect();
    let unknown = expected.unknown(&known);
    if !unknown.is_empty() {
        return Err(format!("expected.txt names cases that do not exist: {}", unknown.join(", ")));
    }
    host::delegate();
    let host = Host::look();
    let grade = |case: &Case, candidate: &Candidate, verdict: &Verdict| {
        let reason = expected.reason(&candidate.name, &candidate.version, &host, &case.full_name());
        Grade::new(verdict, reason)
    };
    let scratch = runner::prepare().map_err(|stop| format!("{stop:?}"))?;
    let several = candidates.len() > 1;
    let rows = runner::all(&chosen, &candidates, options.jobs, &scratch, |case, candidate, verdict| {
        if !options.quiet && !options.markdown && !several {
            report::line(case, &grade(case, candidate, verdict), verdict);
        }
    });
    runner::finish(&scratch);
    let graded: Vec<Vec<Grade>> = chosen
        .iter()
        .zip(&rows)
        .map(|(case, row)| candidates.iter().zip(row).map(|(c, verdict)| grade(case, c, verdict)).collect())
        .collect();
    if options.markdown {
        report::markdown(&chosen, &candidates, &graded);
    } else if !options.quiet && several {
        report::table(&chosen, &candidates, &graded);
    }
    Ok(report::end(&chosen, &candidates, &graded))
}

fn chosen(options: &Options) -> Result<Vec<Case>, String> {
    let mut all = cases::all();
    let mut names: Vec<String> = all.iter().map(Case::full_name).collect();
    names.sort();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("two cases are called {}", pair[0]));
    }
    all.retain(|case| {
        let name = case.full_name();
        let only = options.only.as_deref().is_none_or(|only| case.name == only || name == only);
        let has_any = |parts: &[String]| parts.iter().any(|part| name.contains(part.as_str()));
        only && (options.filters.is_empty() || has_any(&options.filters)) && !has_any(&options.without)
    });
    if all.is_empty() { Err("no case matches".to_owned()) } else { Ok(all) }
}

/// The reason of a failure or a skip.
fn reason(stop: &Stop) -> &str {
    match stop {
        Stop::Skip(text) | Stop::Fail(text) => text,
    }
}

//! What onggi costs in things that can be counted, compared with the counts that were accepted last: what grows by more
//! than 2 % is an error. `counts --accept` writes new ones.
//!
//! The counts are those of one compiler and one kind of machine, which name their sections of `counts.json`: the kernel, the
//! cgroup hierarchies and the capabilities decide how many calls there are. Where nothing is known of one, that is said.
//! Page faults and resident memory are not among the counts: two copies of one program had 106 and 158 faults, by how
//! large the pages are that the page cache has of the file.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::cgroups;
use crate::kind::Kind;
use crate::options::{Options, Work};
use crate::site::with_site;
use crate::trace::Trace;
use crate::work::Contestant;

const USAGE: &str = "usage: counts [--runtime PATH] [--accept]";

/// Section, then what is counted.
type Counts = BTreeMap<String, BTreeMap<String, u64>>;

/// The growth that is accepted, in percent.
const MOST_GROWTH: u64 = 2;

/// Traces of which the least counts: who waits makes more calls at one time than at another.
const TRACES: usize = 5;

pub fn main(args: &[String]) -> Result<(), String> {
    let (mut runtime, mut accept) = ("onggi".to_owned(), false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--runtime" => runtime = args.next().ok_or(USAGE)?.clone(),
            "--accept" => accept = true,
            _ => return Err(USAGE.to_owned()),
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("counts.json");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut known: Counts = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    let options =
        Options { runtimes: Some(vec![runtime]), timeout: Duration::from_secs(120), ..Options::default() };
    let machine = machine()?;
    let now = with_site(&options, |site| {
        let mut contestants = site.runtimes("", Kind::Plain)?;
        let [contestant] = &mut contestants[..] else { return Err("one runtime is counted".to_owned()) };
        let of_one = |what: &str, count| BTreeMap::from([(what.to_owned(), count)]);
        Ok(Counts::from([
            (COMPILER.to_owned(), of_one("KiB of the program", contestant.size()?)),
            // `explain` plans what it finds on the machine: each hierarchy takes some 80,000.
            (format!("{COMPILER}, {machine}"), of_one("explain instructions", contestant.instructions()?)),
            (machine.clone(), count(contestant)?),
        ]))
    })?;
    for section in now.keys().filter(|section| !accept && !known.contains_key(*section)) {
        println!("{section}: no counts are known, so none are compared");
    }
    let (table, grown) = compare(&known, &now);
    print!("{table}");
    if accept {
        known.extend(now);
        let text = serde_json::to_string_pretty(&known).map_err(|e| format!("counts: {e}"))?;
        return fs::write(&path, text + "\n").map_err(|e| format!("{}: {e}", path.display()));
    }
    match grown {
        0 => Ok(()),
        _ => Err(format!(
            "{grown} counts have grown by more than {MOST_GROWTH} %; if that has to be, `counts --accept` writes them"
        )),
    }
}

/// The compiler of this program, which is that of the runtime in `./test`.
const COMPILER: &str = env!("BENCH_COMPILER");

fn machine() -> Result<String, String> {
    let kernel = nix::sys::utsname::uname().map_err(|e| format!("uname: {e}"))?;
    let release = kernel.release().to_string_lossy().into_owned();
    let version = release.split('.').take(2).collect::<Vec<_>>().join(".");
    let hierarchies = cgroups::hierarchies()?;
    let status = fs::read_to_string("/proc/self/status").map_err(|e| format!("/proc/self/status: {e}"))?;
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
    let count = hierarchies.len();
    let layout = cgroups::layout(&hierarchies);
    Ok(format!("Linux {version}, cgroup {layout} ({count}), capabilities {}", capabilities.trim()))
}

fn count(contestant: &mut Contestant) -> Result<BTreeMap<String, u64>, String> {
    let mut counts = BTreeMap::new();
    for work in Work::ALL {
        contestant.prepare(work)?;
        let traces: Result<Vec<Trace>, String> =
            (0..TRACES).map(|turn| contestant.trace(work, &format!("c{turn}"))).collect();
        contestant.clean([]);
        let traces = traces?;
        let least = |of: fn(&Trace) -> u64| traces.iter().map(of).min().ok_or("no trace");
        let (calls, own) = (least(|trace| trace.calls)?, least(|trace| trace.own)?);
        let mut put = |what: &str, count: u64| counts.insert(format!("{} {what}", work.name()), count);
        put("system calls", calls);
        put("KiB of memory", own);
    }
    Ok(counts)
}

/// A table, and how many counts have grown too much.
fn compare(known: &Counts, now: &Counts) -> (String, usize) {
    let (mut table, mut grown) = (String::new(), 0);
    for (section, counts) in now {
        for (what, count) in counts {
            let before = known.get(section).and_then(|known| known.get(what));
            let too_much = before.is_some_and(|before| *count > before + most_growth(what, *before));
            grown += usize::from(too_much);
            let before = before.map_or("-".to_owned(), u64::to_string);
            let mark = if too_much { "  GROWN" } else { "" };
            writeln!(table, "{what:<24} {count:>10}  before {before:>10}{mark}")
                .expect("writing to a String");
        }
    }
    (table, grown)
}

/// Small counts vary by a few even so: calls of a wait, pages of a stack or the allocator. The instructions of `explain`
/// vary with the host's mounts, which it reads: by 20,000 between two machines.
fn most_growth(what: &str, before: u64) -> u64 {
    let varies = match what {
        "explain instructions" => 40_000,
        _ if what.ends_with("KiB of memory") => 16,
        _ => 8,
    };
    (before * MOST_GROWTH / 100).max(varies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_two_percent_is_too_much_and_an_unknown_machine_is_not() {
        let counts = |calls: u64| {
            Counts::from([("machine".to_owned(), BTreeMap::from([("run system calls".to_owned(), calls)]))])
        };
        assert_eq!(compare(&counts(1000), &counts(1020)).1, 0);
        assert_eq!(compare(&counts(1000), &counts(900)).1, 0);
        assert_eq!(compare(&counts(1000), &counts(1021)).1, 1);
        assert_eq!(compare(&Counts::new(), &counts(1021)).1, 0);
    }
}

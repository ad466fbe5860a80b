//! What a user of containerd sees of its shims. `ctr`: single calls of its client, in interleaved rounds. `stress`: clients
//! that run one container after the other, as containerd's own program of that name does; the shims take turns.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::engine::{Engine, IMAGE, runtime};
use super::pod::{Ground, Kind};
use super::report::{REFERENCE, spread};
use crate::stats::{Quartiles, quartiles, ratios};

/// After a call, for what goes on behind its answer: it is of its processor time.
const SETTLE: Duration = Duration::from_millis(30);
const SNAPSHOTTER: &[&str] = &["--snapshotter", "overlayfs"];
/// Contestants take turns of so many seconds.
const SLICE: usize = 10;

/// By name and what it does.
const STEPS: [(&str, &str); 4] = [
    ("version", "ctr version: what a client takes without any shim"),
    ("start", "ctr task start --detach: starts the shim, creates and starts the container"),
    ("exec", "ctr task exec of /bin/true"),
    ("remove", "ctr task rm --force: kills and deletes the container, ends the shim"),
];

/// Milliseconds.
#[derive(Clone, Copy, Default)]
struct Sample {
    wall: f64,
    /// Of the daemon, the shim and all that they start.
    cpu: f64,
    /// Of ctr itself.
    client: f64,
}

pub struct Row {
    name: String,
    samples: Vec<Option<[Sample; 4]>>,
    failures: Vec<String>,
}

pub struct Called {
    pub rows: Vec<Row>,
    pub left: Vec<String>,
}

pub fn rounds(ground: &Ground, kinds: &[Kind], rounds: usize) -> Result<Called, String> {
    let engine = Engine::start(ground, kinds)?;
    let new = |kind: &Kind| Row { name: kind.name.clone(), samples: Vec::new(), failures: Vec::new() };
    let mut rows: Vec<Row> = kinds.iter().map(new).collect();
    // Round 0 warms the page cache, and is not kept.
    for round in 0..=rounds {
        for turn in 0..kinds.len() {
            // Rotated, so that nobody always follows the same neighbour.
            let at = (round + turn) % kinds.len();
            let id = format!("r{round}-{at}");
            let found = life(&engine, &kinds[at], &id);
            let row = &mut rows[at];
            let found = found.map_err(|error| row.failures.push(error)).ok();
            row.samples.extend((round > 0).then_some(found));
        }
    }
    Ok(Called { rows, left: engine.left() })
}

fn life(engine: &Engine, kind: &Kind, id: &str) -> Result<[Sample; 4], String> {
    let create = ["container", "create", "--runtime", runtime(kind)];
    engine.ctr(&[&create, SNAPSHOTTER, &[IMAGE, id, "sleep", "100000"]].concat())?;
    let steps: [&[&str]; 4] = [
        &["version"],
        &["task", "start", "--detach", id],
        &["task", "exec", "--exec-id", "e", id, "true"],
        &["task", "rm", "--force", id],
    ];
    let mut samples = [Sample::default(); 4];
    for (sample, words) in samples.iter_mut().zip(steps) {
        let before = engine.used()?;
        let begin = Instant::now();
        engine.ctr(words)?;
        let wall = begin.elapsed().as_secs_f64() * 1e3;
        sleep(SETTLE);
        let [cpu, client] = engine.used()?;
        *sample = Sample { wall, cpu: cpu - before[0], client: client - before[1] };
    }
    engine.ctr(&["container", "rm", id])?;
    Ok(samples)
}

impl Row {
    fn of(&self, step: usize, of: fn(&Sample) -> f64) -> Vec<Option<f64>> {
        self.samples.iter().map(|samples| samples.as_ref().map(|samples| of(&samples[step]))).collect()
    }
}

fn against(rows: &[Row], row: &Row, step: usize, of: fn(&Sample) -> f64) -> Option<Quartiles> {
    let reference = rows.iter().find(|row| row.name == REFERENCE)?;
    ratios(&row.of(step, of), &reference.of(step, of))
}

type Column = (&'static str, fn(&Sample) -> f64);
const COLUMNS: [Column; 3] =
    [("wall", |one| one.wall), ("CPU", |one| one.cpu), ("CPU of ctr", |one| one.client)];

pub fn print_rounds(heading: &[String], kinds: &[Kind], found: &Called, is_json: bool) {
    if is_json {
        let step = |row: &Row, at: usize| {
            let column = |(name, of): Column| {
                let ratio = against(&found.rows, row, at, of).map(|ratio| ratio.median);
                json!({ "what": name, "ratio": ratio, "ms": row.of(at, of) })
            };
            json!({ "step": STEPS[at].0, "columns": COLUMNS.map(column) })
        };
        let row = |row: &Row| {
            let steps: Vec<Value> = (0..STEPS.len()).map(|at| step(row, at)).collect();
            json!({ "name": row.name, "steps": steps, "failures": row.failures })
        };
        let rows: Vec<Value> = found.rows.iter().map(row).collect();
        return println!("{:#}", json!({ "setting": heading, "rows": rows, "left": found.left }));
    }
    print_heading(heading, kinds);
    for (at, (_, title)) in STEPS.iter().enumerate() {
        println!("\n{title}");
        println!(
            "  {:<12} {:<20} {:<20} {:<24} {:<24} ms of CPU of ctr",
            "", "× wall", "× CPU", "ms", "ms of CPU"
        );
        for row in &found.rows {
            let ratio = |column: Column| spread(against(&found.rows, row, at, column.1));
            let time = |column: Column| spread(quartiles(row.of(at, column.1).into_iter().flatten()));
            let [wall, cpu, client] = COLUMNS;
            let (ratios, times) = ([ratio(wall), ratio(cpu)], [time(wall), time(cpu), time(client)]);
            println!(
                "  {:<12} {:<20} {:<20} {:<24} {:<24} {}",
                row.name, ratios[0], ratios[1], times[0], times[1], times[2]
            );
        }
    }
    for row in found.rows.iter().filter(|row| !row.failures.is_empty()) {
        println!("\n{}: failed {} times, first: {}", row.name, row.failures.len(), row.failures[0]);
    }
    print_left(&found.left);
}

/// What one contestant did in all its turns.
#[derive(Default)]
pub struct Stressed {
    name: String,
    /// Containers that have not failed a second, by slice.
    rate: Vec<Option<f64>>,
    /// Milliseconds of processor time for each container, of the daemon and the shim, and of ctr.
    cpu: Vec<Option<f64>>,
    client: Vec<f64>,
    /// Milliseconds of each.
    wall: Vec<f64>,
    failures: Vec<String>,
    left: Vec<String>,
}

pub fn stress(
    ground: &Ground,
    kinds: &[Kind],
    clients: usize,
    seconds: usize,
) -> Result<Vec<Stressed>, String> {
    let engine = Engine::start(ground, kinds)?;
    let new = |kind: &Kind| Stressed { name: kind.name.clone(), ..Stressed::default() };
    let mut found: Vec<Stressed> = kinds.iter().map(new).collect();
    for slice in 0..seconds.div_ceil(SLICE) {
        let length = Duration::from_secs(SLICE.min(seconds - slice * SLICE) as u64);
        for turn in 0..kinds.len() {
            let at = (slice + turn) % kinds.len();
            let (before, begin) = (engine.used()?, Instant::now());
            let ended = run_all(&engine, &kinds[at], slice, clients, begin + length);
            let elapsed = begin.elapsed().as_secs_f64();
            sleep(SETTLE);
            found[at].add(ended, elapsed, before, engine.used()?);
            // Of this one: the next has not begun.
            found[at].left.extend(engine.left());
        }
    }
    Ok(found)
}

/// Each client runs one container after the other until then. Returns how long each took.
fn run_all(
    engine: &Engine,
    kind: &Kind,
    slice: usize,
    clients: usize,
    end: Instant,
) -> Vec<Result<f64, String>> {
    let number = AtomicUsize::new(0);
    let client = || {
        let mut ended = Vec::new();
        while Instant::now() < end {
            let id = format!("s{slice}-{}", number.fetch_add(1, Ordering::Relaxed));
            let begin = Instant::now();
            let run = ["run", "--rm", "--runtime", runtime(kind)];
            let said = engine.ctr(&[&run, SNAPSHOTTER, &[IMAGE, &id, "true"]].concat());
            ended.push(said.map(|_| begin.elapsed().as_secs_f64() * 1e3));
        }
        ended
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        let join = |one: thread::ScopedJoinHandle<_>| {
            one.join().unwrap_or_else(|_| vec![Err("a client panicked".to_owned())])
        };
        clients.into_iter().flat_map(join).collect()
    })
}

impl Stressed {
    fn add(&mut self, ended: Vec<Result<f64, String>>, seconds: f64, before: [f64; 2], after: [f64; 2]) {
        let all = ended.len() as f64;
        let succeeded = ended.iter().filter(|one| one.is_ok()).count() as f64;
        for one in ended {
            match one {
                Ok(wall) => self.wall.push(wall),
                Err(error) => self.failures.push(error),
            }
        }
        self.rate.push(Some(succeeded / seconds));
        self.cpu.push(Some((after[0] - before[0]) / all));
        self.client.push((after[1] - before[1]) / all);
    }
}

pub fn check(found: &[Stressed]) -> Result<(), String> {
    match found.iter().find(|one| !one.failures.is_empty() || !one.left.is_empty()) {
        Some(one) => {
            Err(format!("{}: {} failures, {} leftovers", one.name, one.failures.len(), one.left.len()))
        }
        None => Ok(()),
    }
}

pub fn print_stress(heading: &[String], kinds: &[Kind], clients: usize, found: &[Stressed], is_json: bool) {
    let reference = |of: fn(&Stressed) -> &Vec<Option<f64>>, one: &Stressed| {
        let reference = found.iter().find(|other| other.name == REFERENCE)?;
        ratios(of(one), of(reference))
    };
    let both = |one: &Stressed| [reference(|one| &one.rate, one), reference(|one| &one.cpu, one)];
    if is_json {
        let row = |one: &Stressed| {
            let [rate, cpu] = both(one).map(|ratio| ratio.map(|ratio| ratio.median));
            json!({
                "name": one.name, "ratio_of_rate": rate, "ratio_of_cpu": cpu, "rate": one.rate, "cpu_ms": one.cpu,
                "cpu_ms_of_ctr": one.client, "wall_ms": one.wall, "failures": one.failures, "left": one.left,
            })
        };
        let rows: Vec<Value> = found.iter().map(row).collect();
        return println!("{:#}", json!({ "setting": heading, "clients": clients, "rows": rows }));
    }
    print_heading(heading, kinds);
    println!(
        "\n{clients} clients, each with one `ctr run --rm` of /bin/true after the other; slices of {SLICE} s"
    );
    println!(
        "  {:<12} {:<18} {:<18} {:<18} {:<22} {:<22} {:<22} {:>6} {:>6}",
        "", "× a second", "× CPU", "a second", "ms", "ms of CPU", "ms of CPU of ctr", "in all", "failed"
    );
    for one in found {
        let [rate, cpu] = both(one).map(spread);
        let of = |samples: &[Option<f64>]| spread(quartiles(samples.iter().flatten().copied()));
        let (rates, costs) = (of(&one.rate), of(&one.cpu));
        let [walls, client] = [&one.wall, &one.client].map(|list| spread(quartiles(list.iter().copied())));
        let (all, failed) = (one.wall.len() + one.failures.len(), one.failures.len());
        println!(
            "  {:<12} {rate:<18} {cpu:<18} {rates:<18} {walls:<22} {costs:<22} {client:<22} {all:>6} {failed:>6}",
            one.name
        );
    }
    for one in found {
        one.failures.iter().take(3).for_each(|error| println!("{}: {error}", one.name));
        println!("{}", one.name);
        print_left(&one.left);
    }
}

fn print_heading(heading: &[String], kinds: &[Kind]) {
    heading.iter().for_each(|line| println!("{line}"));
    kinds.iter().for_each(|kind| println!("  {:<12} {}", kind.name, kind.version));
}

fn print_left(left: &[String]) {
    println!("left: {}", if left.is_empty() { "nothing".into() } else { left.join(", ") });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_and_leftovers_of_anybody_are_failures() {
        let one = || Stressed { name: "onggi".into(), ..Stressed::default() };
        let mut failed = one();
        failed.add(vec![Ok(5.0), Err("no".into())], 2.0, [0.0, 1.0], [8.0, 3.0]);
        assert_eq!((failed.rate[0], failed.cpu[0], failed.client[0]), (Some(0.5), Some(4.0), 1.0));
        assert!(check(&[one()]).is_ok() && check(&[one(), failed]).is_err());
        assert!(check(&[Stressed { left: vec!["a mount".into()], ..one() }]).is_err());
    }
}

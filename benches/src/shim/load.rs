//! Many pods. `probes`: execs as Kubernetes' probes make them, and what processor time they take. `scale`: many containers
//! and execs, what the shims have of the machine before and after, and what is left in the end.

use std::fs::{self, File};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::memory::Use;
use super::pod::{Ground, Kind, Pod};
use super::report::REFERENCE;
use crate::stats::{Quartiles, quartiles, ratios};

/// Contestants take turns of so many seconds.
const SLICE: usize = 10;
/// After which a shim is at rest.
const REST: Duration = Duration::from_millis(3500);
/// Clients at once, each with pods of its own.
const CLIENTS: usize = 4;

/// What one contestant took for the execs of all its pods.
pub struct Probed {
    pub name: String,
    /// Milliseconds of processor time for each exec, by slice.
    pub cpu: Vec<Option<f64>>,
    /// Milliseconds of each exec.
    pub wall: Vec<f64>,
    /// Those that began more than a second late.
    pub late: usize,
}

pub fn probes(ground: &Ground, kinds: &[Kind], pods: usize, seconds: usize) -> Result<Vec<Probed>, String> {
    let mut shims = Vec::new();
    let mut found = Vec::new();
    for kind in kinds {
        let made: Result<Vec<_>, String> =
            (0..pods).map(|at| single(ground, kind, &format!("p{at}"))).collect();
        shims.push(made?);
        found.push(Probed { name: kind.name.clone(), cpu: Vec::new(), wall: Vec::new(), late: 0 });
    }
    for slice in 0..seconds.div_ceil(SLICE) {
        let length = SLICE.min(seconds - slice * SLICE);
        for turn in 0..kinds.len() {
            let at = (slice + turn) % kinds.len();
            let before = ground.account.used(&kinds[at].name)?;
            let ended = probe_all(&shims[at], slice, length)?;
            let cpu = ground.account.used(&kinds[at].name)? - before;
            found[at].cpu.push(Some(cpu / ended.len() as f64));
            found[at].late += ended.iter().filter(|(_, is_late)| *is_late).count();
            found[at].wall.extend(ended.into_iter().map(|(wall, _)| wall));
        }
    }
    shims.into_iter().flatten().try_for_each(|(pod, id, fifos)| {
        let pid = pod.pid()?;
        pod.connect()?.remove(&id)?;
        drop(fifos);
        { pod }.shut_down(pid)
    })?;
    Ok(found)
}

type Single<'a> = (Pod<'a>, String, [File; 2]);

fn single<'a>(ground: &'a Ground<'a>, kind: &'a Kind, id: &str) -> Result<Single<'a>, String> {
    Pod::prepare(ground, kind, id, id)?;
    let pod = Pod::start(ground, kind, id)?;
    let fifos = pod.connect()?.run(id)?;
    Ok((pod, id.into(), fifos))
}

/// An exec each second in each pod, spread over the second. Returns how long each took, and whether it was late.
fn probe_all(shims: &[Single], slice: usize, seconds: usize) -> Result<Vec<(f64, bool)>, String> {
    let begin = Instant::now();
    thread::scope(|scope| {
        let probe = |at: usize, (pod, id, _): &Single| {
            let offset = Duration::from_secs(1) * at as u32 / shims.len() as u32;
            let mut calls = pod.connect()?;
            let exec = |second: usize| {
                let due = begin + offset + Duration::from_secs(second as u64);
                sleep(due.saturating_duration_since(Instant::now()));
                let (is_late, now) = (due.elapsed() > Duration::from_secs(1), Instant::now());
                calls.exec(id, &format!("s{slice}-{second}"))?;
                Ok((now.elapsed().as_secs_f64() * 1e3, is_late))
            };
            (0..seconds).map(exec).collect::<Result<Vec<_>, String>>()
        };
        let clients: Vec<_> =
            shims.iter().enumerate().map(|(at, single)| scope.spawn(move || probe(at, single))).collect();
        let ended: Result<Vec<_>, String> = clients
            .into_iter()
            .map(|client| client.join().map_err(|_| "a client panicked".to_owned())?)
            .collect();
        let ended = ended?.into_iter().flatten().collect();
        // The rest of the last second, in which a shim that is idle may do something.
        sleep((begin + Duration::from_secs(seconds as u64)).saturating_duration_since(Instant::now()));
        Ok(ended)
    })
}

fn of_reference(found: &[Probed], one: &Probed) -> Option<Quartiles> {
    let reference = found.iter().find(|other| other.name == REFERENCE)?;
    ratios(&one.cpu, &reference.cpu)
}

pub fn print_probes(heading: &[String], kinds: &[Kind], found: &[Probed], is_json: bool) {
    if is_json {
        let row = |one: &Probed| {
            let ratio = of_reference(found, one).map(|ratio| ratio.median);
            json!({
                "name": one.name, "ratio_of_cpu": ratio, "cpu_ms_of_exec": one.cpu, "late": one.late, "wall_ms": one.wall,
            })
        };
        let rows: Vec<Value> = found.iter().map(row).collect();
        return println!("{:#}", json!({ "setting": heading, "rows": rows }));
    }
    heading.iter().for_each(|line| println!("{line}"));
    kinds.iter().for_each(|kind| println!("  {:<12} {}", kind.name, kind.version));
    println!("\none exec of /bin/true each second in each pod; quartiles of slices of {SLICE} s");
    println!(
        "  {:<12} {:<20} {:<24} {:<24} {:>6} {:>5}",
        "", "× CPU", "ms of CPU, of an exec", "ms", "execs", "late"
    );
    for one in found {
        let spread = |found: Option<Quartiles>| {
            found.map_or("-".into(), |found| {
                format!("{:.2} [{:.2} {:.2}]", found.median, found.low, found.high)
            })
        };
        println!(
            "  {:<12} {:<20} {:<24} {:<24} {:>6} {:>5}",
            one.name,
            spread(of_reference(found, one)),
            spread(quartiles(one.cpu.iter().flatten().copied())),
            spread(quartiles(one.wall.iter().copied())),
            one.wall.len(),
            one.late
        );
    }
}

pub struct Size {
    pub pods: usize,
    pub containers: usize,
    pub execs: usize,
}

/// What the shims have of the machine, each of them, and what is left in the end.
pub struct Scaled {
    pub before: Vec<Use>,
    pub after: Vec<Use>,
    pub left: Vec<String>,
    pub seconds: [f64; 3],
}

impl Scaled {
    /// Flat: a connection of ours that the shim has not closed yet, and some pages of its heap, are no growth.
    pub fn check(&self) -> Result<(), String> {
        let grown = |(before, after): (&Use, &Use)| {
            after.threads > before.threads
                || after.descriptors > before.descriptors + 1
                || after.private_dirty > before.private_dirty + 256
        };
        let grown = self.before.iter().zip(&self.after).filter(|pair| grown(*pair)).count();
        match (grown, self.left.is_empty()) {
            (0, true) => Ok(()),
            (0, false) => Err(format!("something is left: {}", self.left.join(", "))),
            _ => Err(format!("{grown} of {} shims have more than before the execs", self.before.len())),
        }
    }
}

pub fn scale(ground: &Ground, kind: &Kind, size: &Size) -> Result<Scaled, String> {
    let begin = Instant::now();
    let id = |pod: usize, at: usize| format!("s{pod}-{at}");
    let made = in_parallel(size.pods, |pod| {
        let ids: Vec<String> = (0..size.containers).map(|at| id(pod, at)).collect();
        ids.iter().try_for_each(|one| Pod::prepare(ground, kind, &ids[0], one).map(drop))?;
        let shim = Pod::start(ground, kind, &ids[0])?;
        let mut calls = shim.connect()?;
        let mut fifos = Vec::new();
        for (at, one) in ids.iter().enumerate() {
            if at > 0 {
                shim.add(one)?;
            }
            fifos.push(calls.run(one)?);
            // The first one makes what is made once.
            calls.exec(one, "first")?;
        }
        let pid = shim.pid()?;
        drop(calls);
        Ok((shim, pid, fifos))
    })?;
    let created = begin.elapsed().as_secs_f64();
    sleep(REST);
    let uses = || made.iter().map(|(_, pid, _)| Use::of(*pid)).collect::<Result<Vec<_>, String>>();
    let before = uses()?;
    let begin = Instant::now();
    in_parallel(size.pods, |pod| {
        let mut calls = made[pod].0.connect()?;
        let own = (0..size.execs).filter(|exec| exec % size.pods == pod);
        own.enumerate()
            .try_for_each(|(turn, exec)| calls.exec(&id(pod, turn % size.containers), &format!("e{exec}")))
    })?;
    let executed = begin.elapsed().as_secs_f64();
    sleep(REST);
    let after = uses()?;
    let begin = Instant::now();
    in_parallel(size.pods, |pod| {
        let mut calls = made[pod].0.connect()?;
        (0..size.containers).try_for_each(|at| calls.remove(&id(pod, at)))
    })?;
    for (mut shim, pid, fifos) in made {
        drop(fifos);
        shim.shut_down(pid)?;
    }
    Ok(Scaled {
        before,
        after,
        left: left(ground, kind),
        seconds: [created, executed, begin.elapsed().as_secs_f64()],
    })
}

/// For each pod, by a few clients: the machine has fewer processors than there are pods.
fn in_parallel<T: Send>(
    pods: usize,
    work: impl Fn(usize) -> Result<T, String> + Sync,
) -> Result<Vec<T>, String> {
    let client = |client: usize| (client..pods).step_by(CLIENTS).map(|pod| Ok((pod, work(pod)?))).collect();
    let done: Vec<Result<Vec<(usize, T)>, String>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|at| scope.spawn(move || client(at))).collect();
        let join =
            |one: thread::ScopedJoinHandle<_>| one.join().unwrap_or_else(|_| Err("a client panicked".into()));
        clients.into_iter().map(join).collect()
    });
    let mut all: Vec<(usize, T)> =
        done.into_iter().collect::<Result<Vec<_>, String>>()?.into_iter().flatten().collect();
    all.sort_by_key(|(pod, _)| *pod);
    Ok(all.into_iter().map(|(_, made)| made).collect())
}

/// Of containers and shims that have ended: mounts, state, cgroups and processes.
fn left(ground: &Ground, kind: &Kind) -> Vec<String> {
    let mut left = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let below = format!("{}/", ground.place.dir.display());
    left.extend(mounts.lines().filter(|line| line.contains(&below)).map(|line| format!("the mount {line}")));
    let names = |path: std::path::PathBuf| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let store = ground.place.dir.join("state").join(&kind.name).join(ground.name);
    left.extend(names(store).iter().map(|path| format!("the state {}", path.display())));
    for hierarchy in names("/sys/fs/cgroup".into()).into_iter().chain(["/sys/fs/cgroup".into()]) {
        let group = hierarchy.join(ground.name).join(&kind.name);
        let is_of_container = |path: &std::path::PathBuf| path.is_dir() && !path.ends_with("shim");
        left.extend(
            names(group.clone())
                .iter()
                .filter(|path| is_of_container(path))
                .map(|path| path.display().to_string()),
        );
        let pids = fs::read_to_string(group.join("shim/cgroup.procs")).unwrap_or_default();
        left.extend(pids.split_whitespace().map(|pid| format!("the process {pid}")));
    }
    left
}

/// The sum over all shims, and the most that one has.
fn sum_and_most(uses: &[Use], of: fn(&Use) -> u64) -> (u64, u64) {
    (uses.iter().map(of).sum(), uses.iter().map(of).max().unwrap_or(0))
}

type Column = (&'static str, fn(&Use) -> u64);

const COLUMNS: [Column; 5] = [
    ("RSS KiB", |used| used.resident),
    ("PSS KiB", |used| used.proportional),
    ("private dirty KiB", |used| used.private_dirty),
    ("threads", |used| used.threads),
    ("files", |used| used.descriptors),
];

pub fn print_scale(heading: &[String], size: &Size, found: &Scaled, is_json: bool) {
    let Size { pods, containers, execs } = size;
    let [created, executed, removed] = found.seconds;
    if is_json {
        let column = |uses: &[Use]| {
            let one = |(name, of): Column| {
                let (sum, most) = sum_and_most(uses, of);
                (name.to_owned(), json!({ "sum": sum, "most": most }))
            };
            Value::Object(COLUMNS.map(one).into_iter().collect())
        };
        let (before, after) = (column(&found.before), column(&found.after));
        return println!(
            "{:#}",
            json!({
                "setting": heading, "pods": pods, "containers": pods * containers, "execs": execs, "seconds": found.seconds,
                "before": before, "after": after, "left": found.left,
            })
        );
    }
    heading.iter().for_each(|line| println!("{line}"));
    println!("\n{} containers in {pods} pods, {execs} execs by {CLIENTS} clients", pods * containers);
    println!("created in {created:.1} s, executed in {executed:.1} s, removed in {removed:.1} s");
    println!("  {:<20} {:>22} {:>22}", "sum (most of one)", "before the execs", "after them");
    for (name, of) in COLUMNS {
        let column = |uses: &[Use]| {
            let (sum, most) = sum_and_most(uses, of);
            format!("{sum} ({most})")
        };
        println!("  {name:<20} {:>22} {:>22}", column(&found.before), column(&found.after));
    }
    println!("left: {}", if found.left.is_empty() { "nothing".into() } else { found.left.join(", ") });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_and_leftovers_are_failures() {
        let used = Use { private_dirty: 100, threads: 1, descriptors: 9, ..Use::default() };
        let found = |after: Use, left: &[&str]| {
            let left = left.iter().map(|one| (*one).to_owned()).collect();
            Scaled { before: vec![used], after: vec![after], left, seconds: [0.0; 3] }.check()
        };
        assert!(found(used, &[]).is_ok() && found(used, &["a mount"]).is_err());
        assert!(found(Use { threads: 2, ..used }, &[]).is_err());
        assert!(found(Use { descriptors: 11, ..used }, &[]).is_err());
        assert!(found(Use { private_dirty: 400, ..used }, &[]).is_err());
    }

    #[test]
    fn pods_keep_their_order() {
        assert_eq!(in_parallel(9, Ok), Ok((0..9).collect::<Vec<_>>()));
        assert!(in_parallel(3, |pod| if pod == 1 { Err("one".to_owned()) } else { Ok(pod) }).is_err());
    }
}

//! The life of a pod with one container, step by step, and the rounds in which all shims have one: each step's wall time,
//! its processor time and, in a round of its own, the programs that it executed.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::memory::Use;
use super::pod::{Calls, Ground, Kind, Pod, drain};
use super::programs::Programs;

/// After a step, for what goes on behind its answer: it is of its processor time.
const SETTLE: Duration = Duration::from_millis(30);
/// After which a shim is at rest.
const REST: Duration = Duration::from_millis(3500);
/// A contestant that fails so often is left out.
const PATIENCE: usize = 3;
const CONTAINERS: usize = 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Start,
    Create,
    Exec,
    ExecAgain,
    Delete,
    Shutdown,
}

impl Step {
    pub const ALL: [Step; 6] =
        [Step::Start, Step::Create, Step::Exec, Step::ExecAgain, Step::Delete, Step::Shutdown];

    pub fn name(self) -> &'static str {
        match self {
            Step::Start => "start",
            Step::Create => "create",
            Step::Exec => "exec",
            Step::ExecAgain => "exec-again",
            Step::Delete => "delete",
            Step::Shutdown => "shutdown",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Step::Start => "start of the shim, by its program",
            Step::Create => "Create and Start of a container",
            Step::Exec => "Exec, Start, Wait and Delete of /bin/true",
            Step::ExecAgain => "the same again",
            Step::Delete => "Kill, Wait and Delete of the container",
            Step::Shutdown => "Shutdown, until the shim has ended",
        }
    }
}

/// Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    pub wall: f64,
    pub cpu: f64,
}

/// What a contestant took for each step.
pub struct Row {
    pub name: String,
    /// By step and round.
    pub samples: Vec<[Option<Sample>; 6]>,
    pub programs: Option<[u64; 6]>,
    /// With one container and with ten, at rest; and with one right after a call.
    pub memory: Option<[Use; 3]>,
    /// How many, and the first one's text.
    pub failures: (usize, Option<String>),
}

pub fn measure(ground: &Ground, kinds: &[Kind], rounds: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = kinds.iter().map(|kind| Row::new(&kind.name)).collect();
    // Round 0 warms the page cache, and is not kept.
    for round in 0..=rounds {
        for turn in 0..kinds.len() {
            // Rotated, so that nobody always follows the same neighbour.
            let at = (round + turn) % kinds.len();
            let samples =
                rows[at].attempt(|| life(ground, &kinds[at], &format!("r{round}"), &mut |_| Ok(())));
            if round > 0 {
                rows[at].samples.push(samples.map_or([None; 6], |samples| samples.map(Some)));
            }
        }
    }
    for (row, kind) in rows.iter_mut().zip(kinds) {
        row.programs = row.attempt(|| programs(ground, kind));
        row.memory = row.attempt(|| memory(ground, kind));
    }
    rows
}

impl Row {
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), samples: Vec::new(), programs: None, memory: None, failures: (0, None) }
    }

    fn attempt<T>(&mut self, work: impl FnOnce() -> Result<T, String>) -> Option<T> {
        if self.failures.0 >= PATIENCE {
            return None;
        }
        work()
            .map_err(|error| {
                self.failures.0 += 1;
                self.failures.1.get_or_insert(error);
            })
            .ok()
    }
}

/// `after` is called when a step has settled.
fn life(
    ground: &Ground,
    kind: &Kind,
    id: &str,
    after: &mut dyn FnMut(Step) -> Result<(), String>,
) -> Result<[Sample; 6], String> {
    Pod::prepare(ground, kind, id, id)?;
    let mut samples = Vec::new();
    let mut pod = timed(ground, kind, &mut samples, || Pod::start(ground, kind, id))?;
    after(Step::Start)?;
    let pid = pod.pid()?;
    let mut calls = pod.connect()?;
    let mut fifos = timed(ground, kind, &mut samples, || calls.run(id))?;
    after(Step::Create)?;
    for (step, exec) in [(Step::Exec, "e"), (Step::ExecAgain, "f")] {
        timed(ground, kind, &mut samples, || calls.exec(id, exec))?;
        after(step)?;
    }
    drain(&mut fifos);
    timed(ground, kind, &mut samples, || calls.remove(id))?;
    after(Step::Delete)?;
    drop(calls);
    timed(ground, kind, &mut samples, || pod.shut_down(pid))?;
    after(Step::Shutdown)?;
    samples.try_into().map_err(|_| "a step is missing".to_owned())
}

fn timed<T>(
    ground: &Ground,
    kind: &Kind,
    samples: &mut Vec<Sample>,
    work: impl FnOnce() -> Result<T, String>,
) -> Result<T, String> {
    let before = ground.account.used(&kind.name)?;
    let begin = Instant::now();
    let result = work()?;
    let wall = begin.elapsed().as_secs_f64() * 1e3;
    sleep(SETTLE);
    samples.push(Sample { wall, cpu: ground.account.used(&kind.name)? - before });
    Ok(result)
}

/// In a round that is not timed: the kernel's events would be.
fn programs(ground: &Ground, kind: &Kind) -> Result<[u64; 6], String> {
    let mut programs = Programs::listen()?;
    let mut counts = Vec::new();
    life(ground, kind, "programs", &mut |_| {
        counts.push(programs.count()?);
        Ok(())
    })?;
    counts.try_into().map_err(|_| "a step is missing".to_owned())
}

fn memory(ground: &Ground, kind: &Kind) -> Result<[Use; 3], String> {
    let ids: Vec<String> = (0..CONTAINERS).map(|at| format!("m{at}")).collect();
    ids.iter().try_for_each(|id| Pod::prepare(ground, kind, &ids[0], id).map(drop))?;
    let mut pod = Pod::start(ground, kind, &ids[0])?;
    let pid = pod.pid()?;
    let mut fifos = Vec::new();
    fifos.push(pod.connect()?.run(&ids[0])?);
    sleep(REST);
    let one = Use::of(pid)?;
    let mut calls = pod.connect()?;
    calls.of("State", &ids[0], "")?;
    let awake = Use::of(pid)?;
    for id in &ids[1..] {
        pod.add(id)?;
        fifos.push(calls.run(id)?);
    }
    // Connections of ours are descriptors of the shim.
    drop(calls);
    sleep(REST);
    let ten = Use::of(pid)?;
    let mut calls: Calls = pod.connect()?;
    ids.iter().try_for_each(|id| calls.remove(id))?;
    drop(calls);
    pod.shut_down(pid)?;
    Ok([one, ten, awake])
}

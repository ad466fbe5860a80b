//! Walks: a verb is done again and again, and each time something goes wrong at another of its system
//! calls. After each point the call must have ended within its time, with an error or with the truth,
//! and `delete --force` must leave nothing.
//!
//! [`walk`] chooses the points: a sample of them, or with `WALK=all` each. tracer.rs makes things go
//! wrong, errors.rs knows how a call can fail, scene.rs has the verbs and report.rs what containers find.

pub mod attached;
mod errors;
mod report;
mod scene;
pub mod tracer;

use crate::case::{Outcome, Stop, fail};
use crate::process::{self, Output};
use crate::test::Test;
use errors::Descriptor;
use scene::Scene;
pub use scene::{Setting, Verb};
use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};
use tracer::{Fault, Point, Role};

/// What happens at the points of a walk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Errors,
    Kills,
    Stops,
}

/// Within this time each call has to end.
const LIMIT: Duration = Duration::from_secs(10);

/// True where every point is walked and not a sample.
pub fn is_whole() -> bool {
    std::env::var("WALK").is_ok_and(|word| word == "all")
}

/// How it went at one point.
#[derive(Clone, Debug, PartialEq)]
enum Trouble {
    Hang(String),
    /// It ended with 0 and has not done what it is for.
    Silent(String),
    /// Something is left after `delete --force`.
    Leak(String),
    /// A failed `create` has left something to be deleted.
    NotUndone(String),
    /// A panic, a signal, or a failure without a message.
    Crash(String),
}

#[derive(Default)]
struct Figures {
    points: u32,
    failed: u32,
    slowest: Duration,
    /// Troubles that did not come again at the same point: something of the machine's, or a race.
    once: u32,
    troubles: Vec<(String, Trouble)>,
}

impl Figures {
    fn to_text(&self) -> String {
        let count =
            |kind: fn(&Trouble) -> bool| self.troubles.iter().filter(|(_, trouble)| kind(trouble)).count();
        format!(
            "{} points, {} calls failed, slowest {} ms; {} hangs, {} silent successes, {} leaks, {} not undone, \
             {} crashes, {} seen once",
            self.points,
            self.failed,
            self.slowest.as_millis(),
            count(|t| matches!(t, Trouble::Hang(_))),
            count(|t| matches!(t, Trouble::Silent(_))),
            count(|t| matches!(t, Trouble::Leak(_))),
            count(|t| matches!(t, Trouble::NotUndone(_))),
            count(|t| matches!(t, Trouble::Crash(_))),
            self.once,
        )
    }
}

/// Walks a verb; `sample` points where not all are wanted.
pub fn walk(t: &Test, kind: Kind, verb: Verb, setting: Setting, sample: usize) -> Outcome {
    if !cfg!(target_arch = "x86_64") {
        return crate::case::skip("the tracer knows the registers of x86_64 alone");
    }
    let scene = Scene::new(t, verb, setting)?;
    let mut figures = Figures::default();
    let counted = attempt(t, &scene, None)?;
    let mut points = points(&counted.record["calls"], kind);
    if verb == Verb::Create {
        // After the last answer to the stage, `create` is done: what is struck is the init of a container, and the tracer
        // may end with `create` in the middle of that.
        let last = last_answer(&counted.record["calls"]);
        points.retain(|point| point.role != Role::Stage || point.at <= last);
    }
    let number = match kind {
        _ if !is_whole() => sample,
        // Each takes 8 s.
        Kind::Stops => 16 * sample,
        _ => points.len(),
    };
    for point in chosen(&points, number) {
        visit(t, &scene, point, &mut figures)?;
    }
    if kind != Kind::Stops && is_whole() {
        beyond(t, &scene, &counted.record, kind, &mut figures)?;
    }
    ended(t, &figures)
}

fn ended(t: &Test, figures: &Figures) -> Outcome {
    t.note(&figures.to_text());
    if figures.troubles.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> =
        figures.troubles.iter().map(|(place, trouble)| format!("{place}: {trouble:?}")).collect();
    fail(format!("{}: {}", figures.to_text(), lines.join(" || ")))
}

/// Walks the calls that a run makes once or twice, which a sample hardly meets, with each error.
pub fn walk_rare(t: &Test, verb: Verb, setting: Setting) -> Outcome {
    walk_where(t, Kind::Errors, verb, setting, |calls, point| {
        let names = calls[point.role as usize].as_array().map(Vec::as_slice).unwrap_or_default();
        let name = &names[point.at as usize - 1];
        names.iter().filter(|other| *other == name).count() <= 2
    })
}

/// Stops the process that will execute the stage before its first call.
pub fn stop_first(t: &Test, verb: Verb) -> Outcome {
    let is_first = |_: &Value, point: &Point| point.role == Role::Stage && point.at == 1;
    walk_where(t, Kind::Stops, verb, Setting::Plain, is_first)
}

fn walk_where(
    t: &Test,
    kind: Kind,
    verb: Verb,
    setting: Setting,
    wanted: impl Fn(&Value, &Point) -> bool,
) -> Outcome {
    if !cfg!(target_arch = "x86_64") {
        return crate::case::skip("the tracer knows the registers of x86_64 alone");
    }
    let scene = Scene::new(t, verb, setting)?;
    let counted = attempt(t, &scene, None)?.record["calls"].clone();
    let mut figures = Figures::default();
    for point in points(&counted, kind).into_iter().filter(|point| wanted(&counted, point)) {
        visit(t, &scene, point, &mut figures)?;
    }
    ended(t, &figures)
}

/// All points of the calls that were counted.
fn points(calls: &Value, kind: Kind) -> Vec<Point> {
    let mut all = Vec::new();
    for role in Role::ALL {
        let names = calls[role as usize].as_array().map(Vec::as_slice).unwrap_or_default();
        for (at, name) in names.iter().enumerate() {
            let point = |fault| Point { role, at: at as u64 + 1, fault };
            match kind {
                Kind::Kills => all.push(point(Fault::Kill)),
                Kind::Stops => all.push(point(Fault::Stop)),
                Kind::Errors => {
                    let number =
                        errors::failures(name.as_str().unwrap_or_default(), Descriptor::File, 0).len();
                    all.extend((0..number).map(|n| point(Fault::Error(n))));
                }
            }
        }
    }
    all
}

/// The number of the call by which the stage gets its last answer.
fn last_answer(calls: &Value) -> u64 {
    let names = calls[Role::Stage as usize].as_array().map(Vec::as_slice).unwrap_or_default();
    names.iter().rposition(|name| name == "read").map_or(0, |at| at as u64 + 1)
}

/// That many, evenly spread.
fn chosen(points: &[Point], number: usize) -> Vec<Point> {
    let number = number.clamp(1, points.len().max(1));
    let spread = |n: usize| (2 * n + 1) * points.len() / (2 * number);
    (0..number).filter_map(|n| points.get(spread(n)).copied()).collect()
}

/// Calls that a run makes beyond those that were counted, until it makes no more.
fn beyond(t: &Test, scene: &Scene, counted: &Value, kind: Kind, figures: &mut Figures) -> Outcome {
    for role in Role::ALL {
        if scene.verb == Verb::Create && role == Role::Stage {
            continue;
        }
        let mut at = counted["counts"][role as usize].as_u64().unwrap_or(0) + 1;
        let fault = if kind == Kind::Kills { Fault::Kill } else { Fault::Error(0) };
        while visit(t, scene, Point { role, at, fault }, figures)? {
            at += 1;
        }
    }
    Ok(())
}

/// A traced call, and what the tracer says of it.
struct Attempt {
    record: Value,
    /// None: it did not end.
    output: Option<Output>,
    took: Duration,
}

impl Attempt {
    /// The call at which something was done, with its error.
    fn call(&self) -> String {
        let text = |name: &str| self.record["hit"][name].as_str().unwrap_or_default();
        format!("{} {}", text("call"), text("errno")).trim().to_owned()
    }
}

fn attempt(t: &Test, scene: &Scene, point: Option<Point>) -> Outcome<Attempt> {
    scene.prepare()?;
    let path = t.dir.join("trace");
    let _ = fs::remove_file(&path);
    let this = std::env::current_exe()?.display().to_string();
    let what = point.map_or("count".to_owned(), Point::to_text);
    let begin = Instant::now();
    let started = scene.start(&[this, "--trace".into(), what, path.display().to_string()])?;
    let output = started.finish(LIMIT).ok();
    let took = begin.elapsed();
    let text = fs::read_to_string(path).unwrap_or_default();
    let record = serde_json::from_str(&text).unwrap_or(Value::Null);
    if record.is_null() && output.is_some() {
        return fail(format!("the tracer says nothing: {output:?}"));
    }
    if point.is_none() {
        scene.clean()?.ok()?;
    }
    Ok(Attempt { record, output, took })
}

/// How often the same call is looked for at the place where something went wrong: threads, and what the kernel
/// answers, make a run longer or shorter than the last.
const RETRIES: u32 = 12;

/// One point; whether the call was reached. What goes wrong has to go wrong again at the same call to be a trouble.
fn visit(t: &Test, scene: &Scene, point: Point, figures: &mut Figures) -> Outcome<bool> {
    let first = attempt(t, scene, Some(point))?;
    figures.slowest = figures.slowest.max(first.took);
    let calls = first.record["counts"][point.role as usize].as_u64();
    let reached = first.output.is_none() || calls >= Some(point.at);
    figures.points += u32::from(first.output.is_none() || !first.record["hit"].is_null());
    figures.failed += u32::from(first.output.as_ref().is_none_or(|output| output.code != 0));
    if judged(t, scene, point, &first)?.is_empty() {
        return Ok(reached);
    }
    for _ in 0..RETRIES {
        scene.restore()?;
        // Parent directories that are missing now would be calls more.
        attempt(t, scene, None)?;
        let again = attempt(t, scene, Some(point))?;
        let troubles = judged(t, scene, point, &again)?;
        if again.call() == first.call() && !troubles.is_empty() {
            let place = format!("{} {}", point.to_text(), again.call());
            figures.troubles.extend(troubles.into_iter().map(|trouble| (place.clone(), trouble)));
            scene.restore()?;
            return Ok(reached);
        }
        if again.call() == first.call() {
            break;
        }
    }
    figures.once += 1;
    Ok(reached)
}

/// What is wrong at a point, which is logged.
fn judged(t: &Test, scene: &Scene, point: Point, attempt: &Attempt) -> Outcome<Vec<Trouble>> {
    let troubles = judge(t, scene, point, attempt)?;
    if !troubles.is_empty() {
        let place = format!("{} ms, {} {}", attempt.took.as_millis(), point.to_text(), attempt.call());
        log(t, scene, &place, &troubles);
    }
    Ok(troubles)
}

/// Everything that is wrong at a point.
fn judge(t: &Test, scene: &Scene, point: Point, attempt: &Attempt) -> Outcome<Vec<Trouble>> {
    let mut troubles = Vec::new();
    let stopped = attempt.record["hit"]["stopped"].as_i64().map(|pid| pid as i32);
    match &attempt.output {
        None => troubles.push(Trouble::Hang("the call does not end".into())),
        // It is the runtime that is stopped: nobody has said anything.
        Some(_) if stopped.is_some() && point.role == Role::Runtime => {}
        Some(output) if output.code == 0 => {
            if let Err(Stop::Fail(text)) = scene.verify(output) {
                troubles.push(Trouble::Silent(text));
            }
        }
        Some(output) => {
            if let Some(text) = crashed(output, point, &attempt.record) {
                troubles.push(Trouble::Crash(text));
            }
            if scene.verb == Verb::Create
                && matches!(point.fault, Fault::Error(_))
                && !matches!(output.code, 129..=159)
                && let Err(Stop::Fail(text)) = scene.left()
            {
                troubles.push(Trouble::NotUndone(format!("{text} after: {}", output.text())));
            }
        }
    }
    match scene.clean() {
        Err(Stop::Fail(text)) => troubles.push(Trouble::Hang(text)),
        // A runtime that is stopped may hold what others wait for: they end with an error.
        Ok(output) if stopped.is_some() && point.role == Role::Runtime && output.code != 0 => {
            troubles.extend(crashed(&output, point, &attempt.record).map(Trouble::Crash));
        }
        Ok(output) if output.code != 0 => {
            troubles.push(Trouble::Leak(format!("{}: exit {}: {}", output.call, output.code, output.text())))
        }
        _ => {}
    }
    if let Some(pid) = stopped.filter(|_| point.role == Role::Runtime) {
        troubles.extend(woken(t, scene, pid));
    }
    if let Err(Stop::Fail(text)) = scene.left() {
        troubles.push(Trouble::Leak(text));
    }
    Ok(troubles)
}

/// A runtime that was stopped while its container was deleted goes on, and has to end.
fn woken(t: &Test, scene: &Scene, pid: i32) -> Option<Trouble> {
    use nix::sys::signal::{Signal, kill};
    let process = nix::unistd::Pid::from_raw(pid);
    let _ = kill(process, Signal::SIGCONT);
    let ended = process::wait(pid, LIMIT * process::slowness());
    if ended.is_none() {
        let _ = kill(process, Signal::SIGKILL);
    }
    let _ = (t, scene.clean());
    ended.is_none().then(|| Trouble::Hang("after SIGCONT, the container deleted meanwhile".into()))
}

/// Why a failure is none that anybody could understand.
fn crashed(output: &Output, point: Point, record: &Value) -> Option<String> {
    let signs = ["panicked at", "goroutine ", "Segmentation", "core dumped"];
    let sign = signs.iter().find(|sign| output.stderr.contains(**sign));
    let memory = errors::is_memory(record["hit"]["call"].as_str().unwrap_or_default());
    let by_signal = matches!(output.code, 129..=159);
    // The message itself could not be written.
    let hit = &record["hit"];
    let unsaid = hit["call"] == "write" && hit["on"] == 2;
    match point.fault {
        Fault::Kill if output.code == 137 => None,
        // Nobody can do without memory: an abort is an end as good as any.
        Fault::Error(_) if memory && by_signal => None,
        _ if sign.is_some() || by_signal => Some(format!("exit {}: {}", output.code, output.text())),
        _ if output.stderr.trim().is_empty() && !unsaid => {
            Some(format!("exit {} without a message", output.code))
        }
        _ => None,
    }
}

/// Every trouble as it comes, also one that does not come again, in the file that WALK_LOG names: a case's text is cut.
fn log(t: &Test, scene: &Scene, place: &str, troubles: &[Trouble]) {
    use std::io::Write;
    let Some(path) = std::env::var_os("WALK_LOG") else { return };
    if let Ok(mut file) = fs::File::options().create(true).append(true).open(path) {
        let what = format!("{} {:?} {:?} {place}", t.runtime.name, scene.verb, scene.setting);
        for trouble in troubles {
            let _ = writeln!(file, "{what}: {trouble:?}");
        }
    }
}

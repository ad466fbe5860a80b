//! Typed events with their times, for an observer of the caller's while the library works. `onggi --debug` writes them
//! to its log, and `timeline.rs` records them.
//!
//! An observer belongs to the calls that one thread makes inside [`observe`], so that several containers can be made at
//! the same time. Without an observer, an event costs one look at a thread-local variable: nothing is formatted, and no
//! clock is read.

use crate::error::{Error, Result};
use crate::sys;
use std::cell::RefCell;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One thing that was done, or that failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// What it is about.
    pub kind: EventKind,
    /// When it began.
    pub began: Instant,
    /// How long it took.
    pub took: Duration,
    /// The error that is going to be returned, or handled, as text.
    pub failed: Option<String>,
}

/// What an [`Event`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// A part of the library's own work, such as `limit the cgroup`.
    Part {
        /// What is done.
        name: &'static str,
        /// What it is done to; may be empty.
        object: String,
    },
    /// A hook: its list, its number there and its program.
    Hook {
        /// Such as `createRuntime`.
        list: String,
        /// From 0.
        number: usize,
        /// Its program.
        path: String,
    },
    /// The stage, which runs concurrently with the library, has reached a point. `took` is the time since its start, or
    /// since the point before.
    Stage {
        /// Which point it has reached.
        reached: &'static str,
        /// Of the process that works on the plan.
        pid: i32,
    },
    /// The stage has done a step of the plan. Only a [`crate::Timeline`] gets these events, some time after the steps
    /// are done.
    Step {
        /// Its number in the plan, from 0.
        number: usize,
        /// Such as `MoveMount`.
        name: String,
        /// What it works on.
        object: String,
        /// The place in `config.json` that asks for it; may be empty.
        at: String,
        /// Of the process that works on the plan.
        pid: i32,
    },
}

impl std::fmt::Display for EventKind {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Part { name, object } if object.is_empty() => f.write_str(name),
            Self::Part { name, object } => write!(f, "{name} {object}"),
            Self::Hook { list, number, path } => write!(f, "run {list} hook #{number} {path}"),
            Self::Stage { reached, pid } => write!(f, "stage {pid}: {reached}"),
            Self::Step { number, name, object, .. } => write!(f, "step {number} {name} {object}"),
        }
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}: {:.3} ms", self.kind, self.took.as_secs_f64() * 1e3)?;
        match &self.failed {
            Some(error) => write!(f, ", failed: {error}"),
            None => Ok(()),
        }
    }
}

/// A function that gets every event, on the thread on which it happens.
pub type Observer = Arc<dyn Fn(&Event) + Send + Sync>;

/// An observer, and what it wants to get.
#[derive(Clone)]
struct Observed {
    observer: Observer,
    /// The steps of the stage too.
    steps: bool,
}

thread_local! {
    /// Without a destructor, as the scope of `wait.rs`: whoever sets it sets it back.
    static OBSERVER: ManuallyDrop<RefCell<Option<Observed>>> = const { ManuallyDrop::new(RefCell::new(None)) };
}

/// Does `work`, and has `observer` get the events of what this thread does in it.
pub fn observe<T>(observer: Observer, work: impl FnOnce() -> T) -> T {
    observe_by(Observed { observer, steps: false }, work)
}

/// As [`observe`], with the steps of the stage. An observer from before goes on to get everything but these.
pub(crate) fn observe_steps<T>(observer: Observer, work: impl FnOnce() -> T) -> T {
    let observer: Observer = match self::observer() {
        None => observer,
        Some(before) => Arc::new(move |event: &Event| {
            observer(event);
            if !matches!(event.kind, EventKind::Step { .. }) {
                before(event);
            }
        }),
    };
    observe_by(Observed { observer, steps: true }, work)
}

fn observe_by<T>(observed: Observed, work: impl FnOnce() -> T) -> T {
    /// Restores the observer from before, even if `work` panics.
    struct Before(Option<Observed>);
    impl Drop for Before {
        fn drop(&mut self) {
            OBSERVER.with(|observed| observed.replace(self.0.take()));
        }
    }
    let _before = Before(OBSERVER.with(|before| before.replace(Some(observed))));
    work()
}

fn observer() -> Option<Observer> {
    OBSERVER.with(|observed| observed.borrow().as_ref().map(|observed| observed.observer.clone()))
}

/// Does a part of the work, and reports it as an event.
pub(crate) fn part<T>(
    name: &'static str,
    object: impl FnOnce() -> String,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    timed(|| EventKind::Part { name, object: object() }, work)
}

/// As [`part`], without an object.
pub(crate) fn plain<T>(name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    part(name, String::new, work)
}

pub(crate) fn hook<T>(
    list: &str,
    number: usize,
    path: impl FnOnce() -> String,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    timed(|| EventKind::Hook { list: list.to_string(), number, path: path() }, work)
}

fn timed<T>(kind: impl FnOnce() -> EventKind, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(observer) = observer() else { return work() };
    let began = Instant::now();
    let result = work();
    let failed = result.as_ref().err().map(ToString::to_string);
    observer(&Event { kind: kind(), began, took: began.elapsed(), failed });
    result
}

/// The clock for the points that a stage reaches; without an observer it does not run.
pub(crate) struct StageClock(Option<Instant>);

impl StageClock {
    pub fn start() -> Self {
        Self(observer().map(|_| Instant::now()))
    }

    /// The stage got as far as this.
    pub fn reached(&mut self, reached: &'static str, pid: i32) {
        let Some((observer, began)) = observer().zip(self.0) else { return };
        self.0 = Some(Instant::now());
        let kind = EventKind::Stage { reached, pid };
        observer(&Event { kind, began, took: began.elapsed(), failed: None });
    }
}

/// The times of a stage's steps, which the stage writes into a file that it shares with the library.
#[derive(Debug)]
pub(crate) struct StageSteps {
    file: File,
    /// Of each step the name, what it works on, and the place in `config.json`.
    labels: Vec<[String; 3]>,
    /// The same moment on both clocks.
    moment: (Instant, SystemTime),
    reported: usize,
}

impl StageSteps {
    /// `None` where no observer wants steps: then there is no file.
    pub fn wanted(labels: impl FnOnce() -> Vec<[String; 3]>) -> Result<Option<Self>> {
        if !OBSERVER.with(|observed| observed.borrow().as_ref().is_some_and(|observed| observed.steps)) {
            return Ok(None);
        }
        let labels = labels();
        let size = (labels.len() as u64 + 1) * NUMBER;
        let file = sys::memfd_of_size(c"onggi-times", size)
            .map_err(|errno| Error::os("memfd_create onggi-times", errno))?;
        Ok(Some(Self { file, labels, moment: (Instant::now(), SystemTime::now()), reported: 0 }))
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Reports the steps that were done since the last report. `pid` is the pid of the process that works on the plan.
    pub fn report(&mut self, pid: i32) {
        let Some(observer) = observer() else { return };
        while let Some([name, object, at]) = self.labels.get(self.reported)
            && let Some((began, ended)) = self.time(self.reported).zip(self.time(self.reported + 1))
        {
            let [name, object, at] = [name, object, at].map(Clone::clone);
            let kind = EventKind::Step { number: self.reported, name, object, at, pid };
            observer(&Event { kind, began, took: ended.saturating_duration_since(began), failed: None });
            self.reported += 1;
        }
    }

    /// When step `at` began; `None` where it is not reached yet, and where the clock was set meanwhile.
    fn time(&self, at: usize) -> Option<Instant> {
        let mut bytes = [0; NUMBER as usize];
        self.file.read_exact_at(&mut bytes, at as u64 * NUMBER).ok()?;
        let time = Duration::from_nanos(u64::from_ne_bytes(bytes));
        let since = (UNIX_EPOCH + time).duration_since(self.moment.1).ok()?;
        (!time.is_zero()).then(|| self.moment.0.checked_add(since)).flatten()
    }
}

/// The size of a time in the file, in bytes.
const NUMBER: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use std::sync::Mutex;

    fn list() -> (Arc<Mutex<Vec<Event>>>, Observer) {
        let events = Arc::new(Mutex::new(Vec::new()));
        let into = events.clone();
        (events, Arc::new(move |event: &Event| into.lock().unwrap().push(event.clone())))
    }

    #[test]
    fn what_is_done_inside_is_told_and_nothing_else() {
        let (events, observer) = list();
        plain("before", || Ok(())).unwrap();
        observe(observer, || {
            part("limit", || "x".into(), || Ok(())).unwrap();
            hook("prestart", 1, || "/bin/true".into(), || Err::<(), _>(Error::external("no"))).unwrap_err();
            // Another thread is not ours.
            std::thread::scope(|scope| scope.spawn(|| plain("beside", || Ok(()))).join().unwrap()).unwrap();
        });
        plain("after", || Ok(())).unwrap();
        let events = events.lock().unwrap();
        let told: Vec<String> = events.iter().map(|event| event.kind.to_string()).collect();
        assert_eq!(told, ["limit x", "run prestart hook #1 /bin/true"]);
        assert_eq!(events[1].failed.as_deref(), Some("no"));
    }

    #[test]
    fn without_an_observer_nothing_is_formatted() {
        part("x", || unreachable!("nobody asked"), || Ok(())).unwrap();
    }

    #[test]
    fn an_observer_inside_another_ends_with_its_work() {
        let ((outer, one), (inner, two)) = (list(), list());
        observe(one, || {
            observe(two, || plain("a", || Ok(()))).unwrap();
            plain("b", || Ok(())).unwrap();
        });
        assert_eq!((outer.lock().unwrap().len(), inner.lock().unwrap().len()), (1, 1));
    }
}

//! SIGKILL for the runtime after any time: a cycle of run, create, exec and delete, each killed a little
//! later than the time before, in steps of 10 µs from nothing to as long as it takes. A call lasts some
//! milliseconds, so many runs fit in: KILLS says how many.

use crate::case::{Case, Need, Outcome, case, check};
use crate::process;
use crate::test::{Container, Test};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub const CASES: &[Case] = &[case!(killed_after_any_time, [Need::Root], 300)];

const STEP: Duration = Duration::from_micros(10);

/// What is killed, and how long it takes when it is not.
struct Call<'a> {
    container: &'a Container,
    words: Vec<String>,
    /// `delete` needs a container to begin with, and `exec` leaves the one that it has.
    needs_one: bool,
    shared: bool,
    takes: Duration,
    /// When the next one is killed.
    after: Duration,
}

impl Call<'_> {
    fn start(&self, t: &Test) -> Outcome<process::Started> {
        let mut command = Command::new(&t.runtime.program);
        command.arg("--root").arg(&t.runtime.state).args(&self.words);
        process::start(command.stdin(Stdio::null()).current_dir(&t.dir), &t.dir)
    }

    fn prepare(&self) -> Outcome {
        if self.needs_one { self.container.create()?.ok().map(drop) } else { Ok(()) }
    }

    /// The next time to kill it at; from the start again where it has ended by then.
    fn next(&mut self) -> Duration {
        let after = self.after;
        self.after = if after > self.takes { Duration::ZERO } else { after + STEP };
        after
    }
}

fn killed_after_any_time(t: &Test) -> Outcome {
    let runs: u32 = std::env::var("KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let (c, other) = (t.container(&t.config())?, t.detached(&t.sleeper())?);
    let bundle = c.bundle.display().to_string();
    let call = |container, words: &[&str]| Call {
        container,
        words: words.iter().map(|word| (*word).to_owned()).collect(),
        needs_one: words[0] == "delete",
        shared: words[0] == "exec",
        takes: Duration::ZERO,
        after: Duration::ZERO,
    };
    let mut calls = [
        call(&c, &["run", "--bundle", &bundle, &c.id]),
        call(&c, &["create", "--bundle", &bundle, &c.id]),
        call(&other, &["exec", &other.id, "/bin/true"]),
        call(&c, &["delete", "--force", &c.id]),
    ];
    for call in &mut calls {
        call.prepare()?;
        let begin = Instant::now();
        call.start(t)?.finish(process::LIMIT)?.ok()?;
        call.takes = begin.elapsed();
        c.delete_force()?.ok()?;
    }
    // A sample is spread over the whole time.
    let steps: u128 = calls.iter().map(|call| call.takes.as_micros() / STEP.as_micros()).sum();
    let stride = (steps as u32 / runs.max(1)).max(1);
    let (mut killed, mut leaks) = (0, Vec::new());
    for n in 0..runs {
        let call = &mut calls[n as usize % 4];
        let after = (0..stride).map(|_| call.next()).last().unwrap_or_default();
        call.prepare()?;
        killed += u32::from(killed_at(t, call, after)?);
        if let Some(leak) = leak(t, &c, &other, n % 100 == 99 || n + 1 == runs)? {
            leaks.push(format!("{} after {} µs: {leak}", call.words[0], after.as_micros()));
            let _ = c.delete_force();
        }
    }
    t.note(&format!("{runs} runs, {killed} killed before their end, {} leaks", leaks.len()));
    check!(leaks.is_empty(), "{} leaks in {runs} runs: {}", leaks.len(), leaks.join("; "));
    check!(killed > runs / 4, "only {killed} of {runs} were killed before their end");
    Ok(())
}

/// Starts it and kills it after that time; whether it had not ended by itself.
fn killed_at(t: &Test, call: &Call, after: Duration) -> Outcome<bool> {
    let begin = Instant::now();
    let started = call.start(t)?;
    while begin.elapsed() < after {
        std::hint::spin_loop();
    }
    let _ = kill(Pid::from_raw(started.pid), Signal::SIGKILL);
    let code = started.finish(process::LIMIT)?.code;
    if !call.shared {
        call.container.delete_force()?.ok()?;
    }
    Ok(code == 137)
}

/// What is left of the first container; with `all` also of processes, and whether the other one runs on.
fn leak(t: &Test, c: &Container, other: &Container, all: bool) -> Outcome<Option<String>> {
    let left = || {
        let entries = fs::read_dir(&t.runtime.state).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut found: Vec<String> = names.filter(|name| *name != other.id).collect();
        let cgroups = t.host.cgroups(&format!("{}/{}", t.cgroup, c.id));
        found.extend(
            cgroups.iter().filter(|cgroup| cgroup.exists()).map(|cgroup| cgroup.display().to_string()),
        );
        if all {
            let own = other.pid().unwrap_or(0);
            let pids = process::descendants(std::process::id() as i32);
            found.extend(pids.iter().filter(|pid| **pid != own).map(|pid| format!("process {pid}")));
        }
        found
    };
    if left().is_empty() || process::until("it is gone", || Ok(left().is_empty())).is_ok() {
        return Ok(None);
    }
    Ok(Some(left().join(", ")))
}

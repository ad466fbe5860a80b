//! Runs one command, bounded in time, and says how long it took.
//!
//! The clock runs from before the spawn to the command's exit. What a hung command leaves behind is killed
//! here as far as it is its descendant; its cgroups and state are the caller's to clean.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SIGKILL, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// The command that runs now and its deadline; the watchdog kills it when that is over.
static WATCHED: Mutex<Option<(Pid, Instant, bool)>> = Mutex::new(None);

pub fn start_watchdog() {
    thread::spawn(|| {
        loop {
            // It looks only when a command runs for longer than a tenth of a second: a thread that woke up
            // for every command would be measured with it.
            thread::sleep(Duration::from_millis(100));
            let mut watched = WATCHED.lock().unwrap_or_else(|poison| poison.into_inner());
            if let Some((pid, deadline, killed)) = watched.as_mut()
                && Instant::now() >= *deadline
            {
                *killed = true;
                kill_tree(*pid);
            }
        }
    });
}

/// Ok only when the command ends with exit code 0 in time. `errors` receives its standard error.
pub fn timed(command: &mut Command, errors: &Path, limit: Duration) -> Result<Duration, String> {
    let file = File::create(errors).map_err(|e| format!("{}: {e}", errors.display()))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    let start = Instant::now();
    let mut child = command.spawn().map_err(|e| format!("{}: {e}", command.get_program().display()))?;
    let pid = Pid::from_raw(child.id() as i32);
    set_watched(Some((pid, start + limit, false)));
    // WNOWAIT: the pid stays taken until the watchdog no longer knows it.
    let ended = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
    let took = start.elapsed();
    let killed = set_watched(None);
    let status = child.wait().map_err(|e| format!("wait: {e}"))?;
    ended.map_err(|e| format!("waitid: {e}"))?;
    if killed {
        return Err(format!("{}: no end after {} s", line(command), limit.as_secs()));
    }
    if !status.success() {
        let text = fs::read_to_string(errors).unwrap_or_default();
        return Err(format!("{}: {status}: {}", line(command), text.trim()));
    }
    Ok(took)
}

/// Replaces what is watched; returns whether the previous command was killed.
fn set_watched(new: Option<(Pid, Instant, bool)>) -> bool {
    let mut watched = WATCHED.lock().unwrap_or_else(|poison| poison.into_inner());
    let old = std::mem::replace(&mut *watched, new);
    old.is_some_and(|(_, _, killed)| killed)
}

fn line(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

pub fn children(pid: Pid) -> Vec<Pid> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw));
    }
    found
}

fn kill_tree(pid: Pid) {
    let below = children(pid);
    // An error means that it is gone already.
    let _ = kill(pid, SIGKILL);
    below.into_iter().for_each(kill_tree);
}

/// Ends and reaps everything that is still below this process, which is its descendants' subreaper.
pub fn end_children() {
    for _ in 0..100 {
        let left = children(Pid::this());
        if left.is_empty() {
            return;
        }
        left.iter().copied().for_each(kill_tree);
        for pid in left {
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for the end of a container's init that was handed to this process, and reaps it.
pub fn reap(pid: Pid, limit: Duration) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => thread::sleep(Duration::from_micros(200)),
            Ok(_) => return Ok(()),
            Err(error) => {
                return Err(format!("the container's init {pid} is no child of the bench: {error}"));
            }
        }
    }
    kill_tree(pid);
    Err(format!("the container's init {pid} did not end in {} s", limit.as_secs()))
}

//! Starts programs with a time limit and reaps everything that becomes a child of this process, which
//! is a subreaper and so inherits what containers leave behind. One thread waits for all; nobody else
//! may wait. test.rs builds the calls of a runtime on top of it.

use crate::case::{Outcome, Stop, fail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How long one call of a runtime may take.
pub const LIMIT: Duration = Duration::from_secs(20);

/// By how much all limits are longer: CONFORMANCE_SLOW, for emulated and overloaded machines.
pub fn slowness() -> u32 {
    let value = std::env::var("CONFORMANCE_SLOW").ok();
    value.and_then(|text| text.parse().ok()).unwrap_or(1).max(1)
}

/// Whether a program of this name is installed.
pub fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).exists())
}

struct Ended {
    codes: Mutex<HashMap<i32, i32>>,
    changed: Condvar,
}

fn ended() -> &'static Ended {
    static ENDED: OnceLock<Ended> = OnceLock::new();
    ENDED.get_or_init(|| {
        std::thread::spawn(reap);
        Ended { codes: Mutex::new(HashMap::new()), changed: Condvar::new() }
    })
}

fn reap() {
    loop {
        let (pid, code) = match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, code),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
            Err(Errno::ECHILD) => {
                std::thread::sleep(Duration::from_millis(3));
                continue;
            }
            _ => continue,
        };
        let ended = ended();
        if let Ok(mut codes) = ended.codes.lock() {
            codes.insert(pid.as_raw(), code);
        }
        ended.changed.notify_all();
    }
}

/// The exit code of a child or of an orphan that came to us; 128+n for a signal. None: not within the limit.
pub fn wait(pid: i32, limit: Duration) -> Option<i32> {
    let end = Instant::now() + limit;
    let ended = ended();
    let mut codes = ended.codes.lock().ok()?;
    loop {
        if let Some(code) = codes.get(&pid) {
            return Some(*code);
        }
        let left = end.checked_duration_since(Instant::now())?;
        codes = ended.changed.wait_timeout(codes, left).ok()?.0;
    }
}

/// What a program said and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    pub call: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The output of a call that must have succeeded.
    pub fn ok(self) -> Outcome<Self> {
        if self.code == 0 {
            Ok(self)
        } else {
            fail(format!("{}: exit {}: {}", self.call, self.code, self.text()))
        }
    }

    /// The output of a call that must have failed, and with a message rather than a crash.
    pub fn refused(self) -> Outcome<Self> {
        if self.code == 0 {
            return fail(format!("{}: succeeded, and must not; output: {}", self.call, self.text()));
        }
        let signs = ["panicked at", "goroutine ", "Segmentation", "core dumped"];
        let signal = matches!(self.code, 132 | 134..=136 | 139);
        if signal || signs.iter().any(|sign| self.stderr.contains(sign)) {
            return fail(format!("{}: crashed (exit {}): {}", self.call, self.code, self.text()));
        }
        if self.stderr.trim().is_empty() {
            return fail(format!("{}: failed without a message (exit {})", self.call, self.code));
        }
        Ok(self)
    }

    pub fn exits(self, code: i32) -> Outcome<Self> {
        if self.code == code {
            return Ok(self);
        }
        fail(format!("{}: exit {}, wanted {code}: {}", self.call, self.code, self.text()))
    }

    pub fn json(&self) -> Outcome<serde_json::Value> {
        serde_json::from_str(self.stdout.trim())
            .map_err(|error| Stop::Fail(format!("{}: not JSON ({error}): {}", self.call, self.text())))
    }

    /// Both streams, for messages.
    pub fn text(&self) -> String {
        let text = format!("{} {}", self.stdout.trim(), self.stderr.trim());
        let short: String = text.trim().chars().take(900).collect();
        short.replace('\n', " | ")
    }
}

/// A program that was started and not waited for.
pub struct Started {
    pub pid: i32,
    call: String,
    stdout: File,
    stderr: File,
}

/// Starts a program in a process group of its own, with files as its output (a pipe that a container
/// holds would keep us waiting) and, unless the command says otherwise, nothing as its input.
pub fn start(command: &mut Command, dir: &std::path::Path) -> Outcome<Started> {
    ended();
    let mut files = Vec::new();
    for name in ["stdout", "stderr"] {
        let path = dir.join(format!(".{name}-{}", unique()));
        let file = File::options().create_new(true).read(true).append(true).open(&path)?;
        fs::remove_file(path)?;
        files.push(file);
    }
    let (Some(stderr), Some(stdout)) = (files.pop(), files.pop()) else { return fail("no files") };
    let call = describe(command);
    command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?).process_group(0);
    // Numbers come again after some ten thousand processes: an end under this one is an earlier process',
    // because nobody notes an end while the list is locked.
    let Ok(mut codes) = ended().codes.lock() else { return fail("the list of ends is lost") };
    let child = command.spawn().map_err(|error| Stop::Fail(format!("{call}: {error}")))?;
    codes.remove(&(child.id() as i32));
    drop(codes);
    Ok(Started { pid: child.id() as i32, call, stdout, stderr })
}

/// Starts a program with the descriptors that it has been given, in a process group of its own; its end is
/// for [`wait`].
pub fn spawn(command: &mut Command) -> Outcome<i32> {
    ended();
    let call = describe(command);
    let child = command.process_group(0).spawn().map_err(|error| Stop::Fail(format!("{call}: {error}")))?;
    Ok(child.id() as i32)
}

/// Runs a program to its end. Its input is an empty file and not /dev/null, because some runtimes give
/// what they find there to the container's user.
pub fn run(command: &mut Command, dir: &std::path::Path) -> Outcome<Output> {
    let path = dir.join(format!(".stdin-{}", unique()));
    let input = File::options().create_new(true).read(true).write(true).open(&path)?;
    fs::remove_file(path)?;
    start(command.stdin(input), dir)?.finish(LIMIT)
}

/// Runs a program of the host that has nothing to do with a case's directory.
pub fn ask(command: &mut Command) -> Outcome<Output> {
    run(command, &std::env::temp_dir())
}

impl Started {
    pub fn finish(mut self, limit: Duration) -> Outcome<Output> {
        let Some(code) = wait(self.pid, limit * slowness()) else {
            let _ = kill(Pid::from_raw(-self.pid), Signal::SIGKILL);
            let text = format!("{} {}", contents(&mut self.stdout), contents(&mut self.stderr));
            return fail(format!("{}: not finished after {} s: {}", self.call, limit.as_secs(), text.trim()));
        };
        let (stdout, stderr) = (contents(&mut self.stdout), contents(&mut self.stderr));
        Ok(Output { call: self.call, code, stdout, stderr })
    }
}

fn contents(file: &mut File) -> String {
    let mut bytes = Vec::new();
    if file.seek(SeekFrom::Start(0)).is_ok() {
        let _ = file.take(4 << 20).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// The call as in a shell, the program by its last component.
fn describe(command: &Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut words = vec![program.rsplit('/').next().unwrap_or_default().to_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    let text = words.join(" ");
    if text.len() > 300 { format!("{}…", text.chars().take(300).collect::<String>()) } else { text }
}

/// Polls until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> Outcome<bool>) -> Outcome {
    let end = Instant::now() + Duration::from_secs(10) * slowness();
    while Instant::now() < end {
        if holds()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(15));
    }
    fail(format!("not within 10 s: {what}"))
}

/// Every process below `pid`, dead ones that wait for their parent not counted.
pub fn descendants(pid: i32) -> Vec<i32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let after = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = after.split_whitespace().collect();
        if let [state, parent, ..] = fields[..]
            && !matches!(state, "Z" | "X")
        {
            parents.push((child, parent.parse::<i32>().unwrap_or(0)));
        }
    }
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(child, _)| *child));
        at += 1;
    }
    found.remove(0);
    found
}

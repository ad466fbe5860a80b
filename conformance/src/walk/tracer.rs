//! Runs a program under ptrace(2) and does one thing at one of its system calls: makes it fail, kills
//! or stops the process that makes it. A process of its own (`conformance --trace …`), because it has to
//! wait for everything that it traces. walk.rs decides what is done where; nothing is judged here.
//!
//! Two roles are told apart: the *runtime* is the process that is started, the *stage* are the processes
//! that it makes of itself. A process that executes another program is let go: hooks, nft, and the container's.

use super::errors::{Descriptor, Failure, failures};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    Runtime,
    Stage,
}

impl Role {
    pub const ALL: [Role; 2] = [Role::Runtime, Role::Stage];

    pub fn name(self) -> &'static str {
        match self {
            Role::Runtime => "runtime",
            Role::Stage => "stage",
        }
    }
}

/// What is done at a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The call ends with the n-th of the errors that it can end with.
    Error(usize),
    /// SIGKILL for the process, before the call.
    Kill,
    /// SIGSTOP for it.
    Stop,
}

/// A fault and its place: the `at`-th call of the role, from 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub role: Role,
    pub at: u64,
    pub fault: Fault,
}

impl Point {
    /// As an argument of `--trace`.
    pub fn to_text(self) -> String {
        let fault = match self.fault {
            Fault::Error(n) => format!("error{n}"),
            Fault::Kill => "kill".to_owned(),
            Fault::Stop => "stop".to_owned(),
        };
        format!("{}:{}:{fault}", self.role.name(), self.at)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let role = parts.next()?;
        let role = Role::ALL.into_iter().find(|known| known.name() == role)?;
        let at = parts.next()?.parse().ok()?;
        let fault = match parts.next()? {
            "kill" => Fault::Kill,
            "stop" => Fault::Stop,
            text => Fault::Error(text.strip_prefix("error")?.parse().ok()?),
        };
        Some(Self { role, at, fault })
    }
}

/// A process or thread that is traced.
struct Tracee {
    role: Role,
    /// Between the entry of a call and its exit.
    inside: bool,
    /// What the call that it is in returns.
    result: Option<Errno>,
}

struct Tracer {
    point: Option<Point>,
    main: Pid,
    /// What the runtime's process executes, once it does.
    program: Option<PathBuf>,
    tracees: HashMap<Pid, Tracee>,
    /// Names of the calls of each role, in order.
    calls: [Vec<&'static str>; 2],
    /// What was done: the call, and the error that it got.
    hit: Option<Value>,
    /// Nothing is left to be done, and all that is traced is let go.
    done: bool,
    /// Where the result is written: at the end, and before when something was done, since the end may not come.
    result: PathBuf,
}

/// `conformance --trace POINT|count RESULT PROGRAM ARG…`; the exit code is the program's.
pub fn main(args: &[String]) -> Result<i32, String> {
    let [point, result, command @ ..] = args else { return Err("--trace POINT RESULT PROGRAM…".into()) };
    let point = match point.as_str() {
        "count" => None,
        text => Some(Point::parse(text).ok_or_else(|| format!("no point: {text}"))?),
    };
    let main = launch(command).map_err(|error| format!("{command:?}: {error}"))?;
    let calls = [Vec::new(), Vec::new()];
    let tracees = HashMap::new();
    let result = PathBuf::from(result);
    let mut tracer = Tracer { point, main, program: None, tracees, calls, hit: None, done: false, result };
    let code = tracer.run().map_err(|errno| format!("ptrace: {errno}"))?;
    tracer.save()?;
    Ok(code.unwrap_or(0))
}

/// A shell that stops itself and then becomes the program.
fn launch(command: &[String]) -> Result<Pid, std::io::Error> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]).args(command);
    let pid = Pid::from_raw(shell.spawn()?.id() as i32);
    waitpid(pid, Some(WaitPidFlag::WUNTRACED))?;
    let follow = Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK;
    ptrace::seize(pid, follow | Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_TRACESYSGOOD)?;
    kill(pid, Signal::SIGCONT)?;
    Ok(pid)
}

impl Tracer {
    fn save(&self) -> Result<(), String> {
        let [runtime, stage] = &self.calls;
        let all = if self.point.is_none() { json!([runtime, stage]) } else { Value::Null };
        let counts = [runtime.len(), stage.len()];
        let text = json!({ "counts": counts, "calls": all, "hit": self.hit, "pid": self.main.as_raw() });
        fs::write(&self.result, text.to_string())
            .map_err(|error| format!("{}: {error}", self.result.display()))
    }

    /// Until the runtime has ended; its exit code. None: it is stopped and was left so.
    fn run(&mut self) -> Result<Option<i32>, Errno> {
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Err(Errno::EINTR | Errno::EINVAL) => continue,
                other => other?,
            };
            match status {
                WaitStatus::Exited(pid, code) if pid == self.main => return Ok(Some(code)),
                WaitStatus::Signaled(pid, signal, _) if pid == self.main => {
                    return Ok(Some(128 + signal as i32));
                }
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => drop(self.tracees.remove(&pid)),
                WaitStatus::PtraceSyscall(pid) => self.syscall_stop(pid),
                WaitStatus::PtraceEvent(pid, signal, event) => self.event(pid, signal, event),
                WaitStatus::Stopped(pid, signal) => self.resume(pid, Some(signal)),
                _ => {}
            }
            let stopped = self.hit.as_ref().is_some_and(|hit| hit["stopped"] == self.main.as_raw());
            if stopped && self.tracees.values().all(|tracee| tracee.role == Role::Stage) {
                return Ok(None);
            }
        }
    }

    /// A process that has died meanwhile is waited for next.
    fn resume(&mut self, pid: Pid, signal: Option<Signal>) {
        let finishing = self.tracees.get(&pid).is_some_and(|tracee| tracee.result.is_some());
        if self.done && !finishing {
            let _ = ptrace::detach(pid, signal);
            self.tracees.remove(&pid);
        } else if self.program.is_none() {
            let _ = ptrace::cont(pid, signal);
        } else {
            let _ = ptrace::syscall(pid, signal);
        }
    }

    fn event(&mut self, pid: Pid, signal: Signal, event: i32) {
        const STOP: i32 = 128; // PTRACE_EVENT_STOP
        if event == nix::libc::PTRACE_EVENT_EXEC && !self.executes(pid) {
            self.tracees.remove(&pid);
            let _ = ptrace::detach(pid, None);
            return;
        }
        if event == STOP && signal == Signal::SIGSTOP && self.program.is_some() {
            // A group stop, of our making: it stays stopped, and is no business of ours any more.
            self.tracees.remove(&pid);
            let _ = ptrace::detach(pid, None);
            return;
        }
        if event == STOP {
            let role = if thread_group(pid) == Some(self.main) { Role::Runtime } else { Role::Stage };
            self.tracees.entry(pid).or_insert(Tracee { role, inside: false, result: None });
        }
        self.resume(pid, None);
    }

    /// Whether what the process executes now is a part of the runtime.
    fn executes(&mut self, pid: Pid) -> bool {
        let Ok(program) = fs::read_link(format!("/proc/{pid}/exe")) else { return false };
        match &self.program {
            None => {
                self.tracees.insert(pid, Tracee { role: Role::Runtime, inside: true, result: None });
                self.program = Some(program);
                true
            }
            // The sealed copy of a runtime has no name, or one without a file.
            Some(own) => program == *own || program.to_string_lossy().contains("memfd:"),
        }
    }

    fn syscall_stop(&mut self, pid: Pid) {
        let Some(tracee) = self.tracees.get_mut(&pid) else { return self.resume(pid, None) };
        tracee.inside = !tracee.inside;
        if !tracee.inside {
            if let Some(errno) = tracee.result.take()
                && let Ok(mut registers) = ptrace::getregs(pid)
            {
                registers.rax = -(errno as i64) as u64;
                let _ = ptrace::setregs(pid, registers);
            }
            return self.resume(pid, None);
        }
        let role = tracee.role;
        if !self.done
            && let Ok(registers) = ptrace::getregs(pid)
        {
            let name =
                syscalls::Sysno::new(registers.orig_rax as usize).map_or("unknown", |call| call.name());
            let calls = &mut self.calls[role as usize];
            calls.push(name);
            let at = calls.len() as u64;
            if let Some(point) = self.point.filter(|point| point.role == role && point.at == at) {
                self.done = true;
                self.strike(pid, point.fault, name, registers);
                // It is written again at the end, which reports an error.
                let _ = self.save();
            }
        }
        self.resume(pid, None);
    }

    fn strike(
        &mut self,
        pid: Pid,
        fault: Fault,
        name: &'static str,
        mut registers: nix::libc::user_regs_struct,
    ) {
        let process = if self.tracees.get(&pid).is_some_and(|tracee| tracee.role == Role::Runtime) {
            self.main
        } else {
            pid
        };
        match fault {
            Fault::Kill => {
                let _ = kill(process, Signal::SIGKILL);
                self.hit = Some(json!({ "call": name }));
            }
            Fault::Stop => {
                let _ = kill(process, Signal::SIGSTOP);
                self.hit = Some(json!({ "call": name, "stopped": process.as_raw() }));
            }
            Fault::Error(n) => {
                let descriptor = descriptor(pid, registers.rdi);
                let Some(failure) = failures(name, descriptor, registers.rsi).get(n) else { return };
                let errno = match failure {
                    Failure::Afterwards(errno) => *errno,
                    Failure::Instead(errno) => {
                        registers.orig_rax = u64::MAX;
                        let _ = ptrace::setregs(pid, registers);
                        *errno
                    }
                };
                if let Some(tracee) = self.tracees.get_mut(&pid) {
                    tracee.result = Some(errno);
                }
                let on = registers.rdi;
                self.hit = Some(json!({ "call": name, "errno": format!("{errno:?}"), "on": on }));
            }
        }
    }
}

fn descriptor(pid: Pid, number: u64) -> Descriptor {
    match fs::metadata(format!("/proc/{pid}/fd/{number}")) {
        Ok(meta) if meta.is_dir() => Descriptor::Directory,
        Ok(meta) if meta.is_file() => Descriptor::File,
        _ => Descriptor::Other,
    }
}

fn thread_group(pid: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok().map(Pid::from_raw)
}

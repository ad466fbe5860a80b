//! Counts the system calls of a command and of everything that it starts, and finds the largest process. The program in
//! the container is not counted.
//!
//! Done with ptrace in a process of its own (`benches trace …`), never while time is measured. A process that outlives
//! the command, as the init that `create` leaves, is let go and runs on.

use std::collections::HashSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use nix::libc::PTRACE_SYSCALL_INFO_ENTRY;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{SIGCONT, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

const USAGE: &str = "usage: trace RESULT -- COMMAND…";

#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Trace {
    pub calls: u64,
    /// Peak resident memory of the largest process, in KiB.
    pub peak: u64,
    /// The part of it that is the process's own, in KiB: pages of its program's file are not in here.
    pub own: u64,
}

impl Trace {
    /// Of two commands that make one work: counts add up, of the memory the larger counts.
    pub fn and(self, other: Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            peak: self.peak.max(other.peak),
            own: self.own.max(other.own),
        }
    }
}

/// The mode `trace`: writes the counts to RESULT, ends as the command does.
pub fn main(args: &[String]) -> Result<(), String> {
    let [result, separator, command @ ..] = args else { return Err(USAGE.to_owned()) };
    if separator != "--" || command.is_empty() {
        return Err(USAGE.to_owned());
    }
    let (Trace { calls, peak, own }, status) = trace(command)?;
    fs::write(result, format!("{calls} {peak} {own}")).map_err(|e| format!("{result}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", command.join(" "))) }
}

pub fn read(result: &std::path::Path) -> Result<Trace, String> {
    let text = fs::read_to_string(result).map_err(|e| format!("{}: {e}", result.display()))?;
    let numbers: Option<Vec<u64>> = text.split(' ').map(|text| text.parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[calls, peak, own]) => Ok(Trace { calls, peak, own }),
        _ => Err(format!("{}: {text:?} is no result of a trace", result.display())),
    }
}

/// The processes that are traced, and what was counted.
struct Tracer {
    root: Pid,
    /// Counting begins with the command's execution.
    counting: bool,
    trace: Trace,
    /// Those that are the program in the container by now.
    contained: HashSet<Pid>,
}

fn trace(command: &[String]) -> Result<(Trace, ExitStatus), String> {
    let text = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");
    // A shell that stops itself can be seized before the command exists. It is not counted.
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]).args(command);
    let root =
        shell.stdin(Stdio::null()).stdout(Stdio::null()).spawn().map_err(|e| format!("/bin/sh: {e}"))?;
    let root = Pid::from_raw(root.id() as i32);
    waitpid(root, Some(WaitPidFlag::WUNTRACED)).map_err(text("waitpid"))?;
    let follow = Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK | Options::PTRACE_O_TRACECLONE;
    let report = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_TRACEEXIT;
    ptrace::seize(root, follow | report).map_err(text("PTRACE_SEIZE"))?;
    kill(root, SIGCONT).map_err(text("kill"))?;
    let mut tracer = Tracer { root, counting: false, trace: Trace::default(), contained: HashSet::new() };
    loop {
        let status = waitpid(None, Some(WaitPidFlag::__WALL)).map_err(text("waitpid"))?;
        let ended = match status {
            WaitStatus::Exited(pid, code) if pid == root => Some(code << 8),
            WaitStatus::Signaled(pid, signal, _) if pid == root => Some(signal as i32),
            _ => None,
        };
        if let Some(status) = ended {
            return Ok((tracer.trace, ExitStatus::from_raw(status)));
        }
        match tracer.go_on(status) {
            // It was killed in the meantime, and its end is reported next.
            Ok(()) | Err(nix::Error::ESRCH) => {}
            Err(error) => return Err(format!("ptrace: {error}")),
        }
    }
}

impl Tracer {
    fn go_on(&mut self, status: WaitStatus) -> nix::Result<()> {
        match status {
            WaitStatus::PtraceSyscall(pid) => {
                if self.counting
                    && ptrace::syscall_info(pid).is_ok_and(|info| info.op == PTRACE_SYSCALL_INFO_ENTRY)
                {
                    self.trace.calls += 1;
                    // Not only at the end, because an exec starts it anew.
                    self.count_memory(pid);
                }
                self.resume(pid, None)
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                if event == Event::PTRACE_EVENT_EXEC as i32 {
                    self.counting |= pid == self.root;
                    if is_the_containers(pid) {
                        self.contained.insert(pid);
                    }
                }
                if self.counting && event == Event::PTRACE_EVENT_EXIT as i32 {
                    self.count_memory(pid);
                }
                self.resume(pid, None)
            }
            WaitStatus::Stopped(pid, signal) => self.resume(pid, Some(signal)),
            _ => Ok(()),
        }
    }

    fn count_memory(&mut self, pid: Pid) {
        if !self.contained.contains(&pid) {
            let (peak, own) = memory(pid);
            (self.trace.peak, self.trace.own) = (self.trace.peak.max(peak), self.trace.own.max(own));
        }
    }

    fn resume(&self, pid: Pid, signal: Option<Signal>) -> nix::Result<()> {
        match self.contained.contains(&pid) {
            true => ptrace::cont(pid, signal),
            false => ptrace::syscall(pid, signal),
        }
    }
}

/// Whether a process is the program in the container, the rootfs's busybox, and no longer the runtime.
fn is_the_containers(pid: Pid) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("bin/busybox"))
}

/// VmHWM and RssAnon of a process (proc_pid_status(5)), 0 when it has no memory any more.
fn memory(pid: Pid) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name| {
        let field = status.lines().find_map(|line| line.strip_prefix(name));
        field.and_then(|field| field.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    };
    (field("VmHWM:"), field("RssAnon:"))
}

/// Held by tests that have children: a trace waits for any child of the process.
#[cfg(test)]
pub static CHILDREN: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[cfg(test)]
mod tests {
    use super::*;

    fn traced(script: &str) -> (Trace, ExitStatus) {
        trace(&["/bin/sh", "-c", script].map(str::to_owned)).expect("ptrace of one's own child is allowed")
    }

    #[test]
    fn children_are_counted_and_the_exit_code_is_the_commands() {
        let _others_wait = CHILDREN.lock();
        let (alone, status) = traced("exit 3");
        assert_eq!(status.code(), Some(3));
        assert!(alone.calls > 10 && alone.peak > 100 && alone.own > 10, "{alone:?}");
        let (family, status) = traced("/bin/true; /bin/true");
        assert!(status.success());
        assert!(family.calls > alone.calls + 20, "{family:?} {alone:?}");
    }
}

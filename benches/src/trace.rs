//! Counts the system calls of a command and of everything that it starts, and finds the largest process;
//! the program in the container is not counted.
//!
//! Done with ptrace in a process of its own (`benches trace RESULT -- COMMAND…`), never while time is
//! measured. A process that outlives the command, as the init that `create` leaves, is let go and runs on.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use nix::libc::PTRACE_SYSCALL_INFO_ENTRY;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{SIGCONT, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Trace {
    pub calls: u64,
    /// Peak resident memory of the largest process, in KiB.
    pub peak: u64,
}

/// The mode `trace RESULT -- COMMAND…`: writes calls and peak to RESULT, ends as the command does.
pub fn main(args: &[String]) -> Result<(), String> {
    let [result, separator, command @ ..] = args else {
        return Err("usage: trace RESULT -- COMMAND…".to_owned());
    };
    if separator != "--" || command.is_empty() {
        return Err("usage: trace RESULT -- COMMAND…".to_owned());
    }
    let (trace, status) = trace(command)?;
    fs::write(result, format!("{} {}", trace.calls, trace.peak)).map_err(|e| format!("{result}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", command.join(" "))) }
}

pub fn read(result: &std::path::Path) -> Result<Trace, String> {
    let text = fs::read_to_string(result).map_err(|e| format!("{}: {e}", result.display()))?;
    let number = |text: Option<&str>| text.and_then(|text| text.parse().ok());
    let mut words = text.split(' ');
    match (number(words.next()), number(words.next())) {
        (Some(calls), Some(peak)) => Ok(Trace { calls, peak }),
        _ => Err(format!("{}: {text:?} is no result of a trace", result.display())),
    }
}

fn trace(command: &[String]) -> Result<(Trace, ExitStatus), String> {
    let text = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");
    // A shell that stops itself can be seized before the command exists. It is not counted: counting
    // begins with its exec.
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
    let (mut trace, mut counting) = (Trace::default(), false);
    loop {
        let status = waitpid(None, Some(WaitPidFlag::__WALL)).map_err(text("waitpid"))?;
        let resumed = match status {
            WaitStatus::Exited(pid, code) if pid == root => {
                return Ok((trace, ExitStatus::from_raw(code << 8)));
            }
            WaitStatus::Signaled(pid, signal, _) if pid == root => {
                return Ok((trace, ExitStatus::from_raw(signal as i32)));
            }
            WaitStatus::PtraceSyscall(pid) => {
                if counting
                    && ptrace::syscall_info(pid).is_ok_and(|info| info.op == PTRACE_SYSCALL_INFO_ENTRY)
                {
                    trace.calls += 1;
                    trace.peak = trace.peak.max(peak(pid));
                }
                ptrace::syscall(pid, None)
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                counting |= pid == root && event == Event::PTRACE_EVENT_EXEC as i32;
                if counting && event == Event::PTRACE_EVENT_EXIT as i32 && !is_the_containers(pid) {
                    trace.peak = trace.peak.max(peak(pid));
                }
                ptrace::syscall(pid, None)
            }
            WaitStatus::Stopped(pid, signal) => ptrace::syscall(pid, signal),
            _ => Ok(()),
        };
        // ESRCH: it was killed in the meantime, and its end is reported next.
        match resumed {
            Ok(()) | Err(nix::Error::ESRCH) => {}
            Err(error) => return Err(format!("PTRACE_SYSCALL: {error}")),
        }
    }
}

/// Whether a process is the program in the container, the rootfs's busybox, and no longer the runtime.
fn is_the_containers(pid: Pid) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("bin/busybox"))
}

/// VmHWM of a process, 0 when it has no memory any more. It is read at every call, and not only at the end,
/// because an exec starts it anew.
fn peak(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    field.and_then(|field| field.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traced(script: &str) -> (Trace, ExitStatus) {
        trace(&["/bin/sh", "-c", script].map(str::to_owned)).expect("ptrace of one's own child is allowed")
    }

    /// One test, because `trace` waits for any child of this process.
    #[test]
    fn children_are_counted_and_the_exit_code_is_the_commands() {
        let (alone, status) = traced("exit 3");
        assert_eq!(status.code(), Some(3));
        assert!(alone.calls > 10 && alone.peak > 100, "{alone:?}");
        let (family, status) = traced("/bin/true; /bin/true");
        assert!(status.success());
        assert!(family.calls > alone.calls + 20, "{family:?} {alone:?}");
    }
}

//! A process that runs already, and one of whose system calls is made to fail: the stage that waits for `start`
//! is a child of nobody whom tracer.rs could follow. A process of its own (`conformance --fail …`), because the
//! suite reaps whatever stops or ends. Knows the registers of x86_64.

use crate::case::{Outcome, fail};
use crate::process::{self, Started};
use crate::test::{Test, await_file};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

/// The other process, which has attached to `pid` and waits for its next `call`.
pub fn fail_next(t: &Test, pid: i32, call: &str, errno: Errno) -> Outcome<Started> {
    let attached = t.dir.join("attached");
    let _ = std::fs::remove_file(&attached);
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.args(["--fail", &pid.to_string(), call, &(errno as i32).to_string()]).arg(&attached);
    let started = process::start(&mut command, &t.dir)?;
    await_file(&attached)?;
    Ok(started)
}

/// `conformance --fail PID CALL ERRNO FILE`; makes the file when it has attached, and ends when the call has failed.
pub fn main(args: &[String]) -> Outcome<i32> {
    let [pid, call, errno, file] = args else { return fail("--fail PID CALL ERRNO FILE") };
    let mut attached = Attached::new(pid.parse()?)?;
    std::fs::write(file, "attached\n")?;
    attached.fail(call, Errno::from_raw(errno.parse()?)).map(|()| 0)
}

/// A process under ptrace(2), by the thread that has attached; the kernel lets it go when this process ends.
struct Attached {
    pid: Pid,
    /// Between the entry of a call and its exit.
    inside: bool,
}

impl Attached {
    /// A call that the process sleeps in is interrupted and begins again under the tracer's eyes.
    fn new(pid: i32) -> Outcome<Self> {
        let pid = Pid::from_raw(pid);
        ptrace::seize(pid, Options::PTRACE_O_TRACESYSGOOD)?;
        ptrace::interrupt(pid)?;
        waitpid(pid, Some(WaitPidFlag::__WALL))?;
        Ok(Self { pid, inside: false })
    }

    /// Lets it run until it makes the call, which ends with the error and is not made.
    fn fail(&mut self, call: &str, errno: Errno) -> Outcome {
        let end = Instant::now() + Duration::from_secs(10) * crate::process::slowness();
        ptrace::syscall(self.pid, None)?;
        loop {
            match waitpid(self.pid, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG))? {
                WaitStatus::StillAlive if Instant::now() < end => crate::test::pause(1),
                WaitStatus::StillAlive => return fail(format!("no {call} within 10 s")),
                WaitStatus::PtraceSyscall(_) => {
                    self.inside = !self.inside;
                    let mut registers = ptrace::getregs(self.pid)?;
                    let name = syscalls::Sysno::new(registers.orig_rax as usize).map(|call| call.name());
                    if self.inside && name == Some(call) {
                        registers.orig_rax = u64::MAX;
                        ptrace::setregs(self.pid, registers)?;
                        ptrace::syscall(self.pid, None)?;
                        waitpid(self.pid, Some(WaitPidFlag::__WALL))?;
                        let mut registers = ptrace::getregs(self.pid)?;
                        registers.rax = -(errno as i64) as u64;
                        return Ok(ptrace::setregs(self.pid, registers)?);
                    }
                    ptrace::syscall(self.pid, None)?;
                }
                WaitStatus::Stopped(_, signal) => ptrace::syscall(self.pid, signal)?,
                WaitStatus::PtraceEvent(..) => ptrace::syscall(self.pid, None)?,
                other => return fail(format!("it did not reach {call}: {other:?}")),
            }
        }
    }
}

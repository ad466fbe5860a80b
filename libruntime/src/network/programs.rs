//! Helper programs of networks. Each is waited for with a deadline: one that is stuck would block `create` and hold the
//! lock of the networks.

use crate::error::{Error, Result};
use crate::sys;
use crate::wait::{Wait, Woken};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::signal::{SigSet, SigmaskHow};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ExitStatus};
use std::time::Duration;

/// The hint where a network without root cannot meet a request.
pub(super) const LIMITS: &str =
    "without root pasta or slirp4netns translates: subnet, mtu, mac, names and publish (IPv4, tcp and udp)";

/// Starts a process without the blocked signals of this thread, because the process stays.
pub(super) fn unblocked<T>(start: impl FnOnce() -> T) -> T {
    let before = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    let done = start();
    // The mask that was just read can be set.
    let _ = before.and_then(|before| before.thread_set_mask());
    done
}

/// Waits for the program's end. One that takes too long is killed, with the process group that it leads, if it does.
pub(super) fn await_end(child: &mut Child, name: &str, limit: Duration) -> Result<ExitStatus> {
    match sys::pidfd_open(child.id() as i32) {
        // It has ended, and the host ignores SIGCHLD, so it is reaped already.
        Err(Errno::ESRCH) => {}
        Err(errno) => {
            end(child);
            return Err(Error::os(format!("pidfd_open of {name}"), errno));
        }
        Ok(pidfd) => await_word(child, name, pidfd.as_fd(), limit)?,
    }
    child.wait().map_err(|error| Error::io(format!("wait for {name}"), error))
}

/// Waits until `word` is readable, by which the program says that it is ready or has ended.
pub(super) fn await_word(child: &mut Child, name: &str, word: BorrowedFd, limit: Duration) -> Result<()> {
    match Wait::at_most(limit).poll(&[(word, PollFlags::POLLIN)]) {
        Ok(Woken::Ready(_)) => Ok(()),
        Ok(Woken::Ended(ended)) => {
            end(child);
            Err(ended.error(name.to_owned()))
        }
        Ok(Woken::Late) => {
            end(child);
            let text = format!("{name} took longer than {} s and was killed", limit.as_secs());
            Err(Error::external(text))
        }
        Err(error) => {
            end(child);
            Err(error)
        }
    }
}

fn end(child: &mut Child) {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    // It is not reaped yet, so the pid cannot have been reused; a process group with this number exists only if it
    // leads one.
    let _ = kill(Pid::from_raw(-(child.id() as i32)), Signal::SIGKILL);
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::Instant;

    const SHORT: Duration = Duration::from_millis(50);

    #[test]
    fn a_program_that_does_not_end_is_killed_with_its_group() {
        use std::os::unix::process::CommandExt;
        let mut shell = Command::new("sh");
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut child =
            shell.args(["-c", "sleep 100 & wait"]).stdout(writer).process_group(0).spawn().unwrap();
        drop(shell);
        let begin = Instant::now();
        let error = await_end(&mut child, "sh", SHORT).unwrap_err().to_string();
        assert!(error.starts_with("sh took longer than 0 s"), "{error}");
        // The end of file comes when the last of the group is gone.
        assert_eq!(std::io::read_to_string(&mut reader).unwrap(), "");
        assert!(begin.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn a_program_that_ends_has_its_status() {
        let mut child = Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
        let status = await_end(&mut child, "sh", Duration::from_secs(50)).unwrap();
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn a_program_that_says_nothing_is_killed() {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = Command::new("sleep");
        let mut child = command.arg("100").stdin(writer).stdout(Stdio::null()).spawn().unwrap();
        drop(command);
        let error = await_word(&mut child, "sleep", reader.as_fd(), SHORT).unwrap_err().to_string();
        assert!(error.contains("sleep took longer"), "{error}");
    }
}

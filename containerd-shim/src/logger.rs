//! A logging program that containerd names (`binary://`): it reads the container's output from descriptors 3 and 4,
//! and says on 5 that it is ready. Its end does not stop the container, whose output is then discarded.

use crate::failure::{Failure, Result};
use crate::relay::{self, Sink};
use crate::shared::Shared;
use crate::uri::Program;
use crate::{log, sys};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::sync::watch;

const STDOUT: i32 = 3;
const STDERR: i32 = 4;
const READY: i32 = 5;

/// To say that it is ready.
const START: Duration = Duration::from_secs(10);
/// To end by itself when the container's output has ended; then after SIGTERM, and after SIGKILL.
const ENDS: [(Option<i32>, Duration); 3] = [
    (None, Duration::from_secs(1)),
    (Some(libc::SIGTERM), Duration::from_secs(12)),
    (Some(libc::SIGKILL), Duration::from_millis(100)),
];

pub struct Logger {
    pidfd: OwnedFd,
    /// What the program reads: these copies keep the container from SIGPIPE when the program has ended.
    readers: [Shared; 2],
}

/// Returns when the program is ready. Must be called on a worker.
pub fn start(program: &Program, id: &str, namespace: &str, readers: [OwnedFd; 2]) -> Result<Logger> {
    let name = program.path.display();
    let (mut said, saying) = std::io::pipe().map_err(|error| Failure::os("pipe", error))?;
    let pidfd = spawn(program, id, namespace, &readers, saying.as_fd())
        .map_err(|errno| Failure::os(format!("execute {name}"), errno))?;
    let logger = Logger { pidfd, readers: readers.map(Shared::from) };
    drop(saying);
    wait_for(said.as_fd()).map_err(|failure| failure.within(&format!("logging program {name}")))?;
    let length = said.read(&mut [0]).map_err(|error| Failure::os("read a pipe", error))?;
    if length == 0 && program.must_say {
        return Err(Failure::unknown(format!("logging program {name}: it did not say that it is ready")));
    }
    Ok(logger)
}

fn spawn(
    program: &Program,
    id: &str,
    namespace: &str,
    readers: &[OwnedFd; 2],
    saying: impl AsFd,
) -> nix::Result<OwnedFd> {
    let mut actions = PosixSpawnFileActions::init()?;
    let mut copies = Vec::new();
    let sources = [readers[0].as_fd(), readers[1].as_fd(), saying.as_fd()];
    for (source, number) in sources.into_iter().zip([STDOUT, STDERR, READY]) {
        // Away from the numbers to be taken.
        let copy = sys::duplicate_above(source, READY)?;
        actions.add_dup2(copy.as_raw_fd(), number)?;
        copies.push(copy);
    }
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK)?;
    attributes.set_sigdefault(&SigSet::all())?;
    attributes.set_sigmask(&SigSet::empty())?;
    let text = |text: &[u8]| CString::new(text).map_err(|_| nix::errno::Errno::EINVAL);
    let path = text(program.path.as_os_str().as_bytes())?;
    let mut arguments = vec![path.clone()];
    for argument in &program.arguments {
        arguments.push(text(argument.as_bytes())?);
    }
    let environment = [
        text(format!("CONTAINER_ID={id}").as_bytes())?,
        text(format!("CONTAINER_NAMESPACE={namespace}").as_bytes())?,
    ];
    let path: &CStr = &path;
    let pid = posix_spawn(path, &actions, &attributes, &arguments, &environment)?;
    // A child of this thread: nobody else reaps it.
    sys::pidfd_open(pid.as_raw()).inspect_err(|_| {
        // The first error is the one to report.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(pid, None);
    })
}

/// Until it is written to, or closed.
fn wait_for(said: BorrowedFd) -> Result<()> {
    let end = Instant::now() + START;
    loop {
        let left = PollTimeout::try_from(end.saturating_duration_since(Instant::now()));
        let mut wanted = [PollFd::new(said, PollFlags::POLLIN)];
        match poll(&mut wanted, left.unwrap_or(PollTimeout::ZERO)) {
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Failure::os("poll", errno)),
            Ok(0) => {
                let text = format!("it did not say within {START:?} that it is ready");
                return Err(Failure::unknown(text).hint("it must close its descriptor 5"));
            }
            Ok(_) => return Ok(()),
        }
    }
}

/// Takes what nobody reads any more, from the end of the program to that of the container's output.
pub async fn discard_after_end(ended: OwnedFd, readers: [Shared; 2], ending: watch::Receiver<bool>) {
    let Ok(ended) = relay::watched(ended, Interest::READABLE) else { return };
    if ended.readable().await.is_err() || readers.iter().all(has_no_writer) {
        return;
    }
    log::warn("the logging program has ended: what the container still says is discarded", &[]);
    let [stdout, stderr] = readers.map(relay::source);
    let discard = |source, ending| async move {
        if let Ok(source) = source {
            relay::run(source, Sink::Nothing, ending).await;
        }
    };
    tokio::join!(discard(stdout, ending.clone()), discard(stderr, ending));
}

/// As at the end of the container, after which its program ends too.
fn has_no_writer(reader: &Shared) -> bool {
    let mut wanted = [PollFd::new(reader.as_fd(), PollFlags::empty())];
    let _ = poll(&mut wanted, PollTimeout::ZERO);
    wanted[0].revents().is_some_and(|found| found.contains(PollFlags::POLLHUP))
}

impl Logger {
    /// For `discard_after_end`.
    pub fn copies(&self) -> std::io::Result<(OwnedFd, [Shared; 2])> {
        Ok((self.pidfd.try_clone()?, self.readers.clone()))
    }

    /// When the container's output has ended, or nothing more of it is wanted.
    pub async fn finish(self) {
        let watched = self.pidfd.try_clone().and_then(|pidfd| relay::watched(pidfd, Interest::READABLE));
        let Ok(watched) = watched else { return };
        for (signal, limit) in ENDS {
            if let Some(signal) = signal {
                // It may have ended meanwhile.
                let _ = sys::pidfd_send_signal(&self.pidfd, signal);
            }
            if tokio::time::timeout(limit, watched.readable()).await.is_ok() {
                return;
            }
        }
    }
}

impl Drop for Logger {
    /// Also after a failure, where it is still running.
    fn drop(&mut self) {
        // It may have ended, and the main thread may have reaped it.
        let _ = sys::pidfd_send_signal(&self.pidfd, libc::SIGKILL);
        let _ = poll(&mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::from(100u8));
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        let _ = waitid(Id::PIDFd(self.pidfd.as_fd()), flags);
    }
}

//! Waiting: for descriptors, up to a deadline, until the caller interrupts it.
//!
//! Every wait of the library ends: by what is waited for, by a deadline, or by the caller's interrupt.
//! A wait without a deadline has the reason in a comment.

use crate::error::{Error, ErrorKind, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// For what answers at once unless something is wrong. Engines give a call ten seconds, and the caller
/// is to have its error before.
pub(crate) const DEADLINE: Duration = Duration::from_secs(8);

/// When a wait ends although nothing has come. The default is never.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wait<'a> {
    pub until: Option<Instant>,
    /// A descriptor of the caller, which ends the wait when it is readable.
    pub interrupt: Option<BorrowedFd<'a>>,
}

pub(crate) enum Woken {
    /// Which of the descriptors are ready.
    Ready(Vec<bool>),
    Late,
    Interrupted,
}

impl<'a> Wait<'a> {
    pub fn at_most(limit: Duration) -> Self {
        Self { until: Some(Instant::now() + limit), interrupt: None }
    }

    pub fn interrupted_by(self, interrupt: Option<BorrowedFd<'a>>) -> Self {
        Self { interrupt, ..self }
    }

    /// poll(2). Deadline and interrupt come first, or a descriptor that is always ready would hide them.
    pub fn poll(&self, wanted: &[(BorrowedFd, PollFlags)]) -> Result<Woken> {
        loop {
            let mut fds: Vec<PollFd> = wanted.iter().map(|(fd, flags)| PollFd::new(*fd, *flags)).collect();
            fds.extend(self.interrupt.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
            // Rounded up: a timeout of zero would be asked for again and again in the last millisecond.
            let timeout = left.map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut fds, timeout) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(Error::os("poll", errno)),
            }
            let mut ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
            if self.interrupt.is_some() && ready.pop() == Some(true) {
                return Ok(Woken::Interrupted);
            }
            if left.is_some_and(|left| left.is_zero()) && !ready.contains(&true) {
                return Ok(Woken::Late);
            }
            if ready.contains(&true) {
                return Ok(match self.until.is_some_and(|until| until < Instant::now()) {
                    true => Woken::Late,
                    false => Woken::Ready(ready),
                });
            }
        }
    }
}

/// Makes a call again that a signal has interrupted: a handler of the caller's need not have SA_RESTART, and calls
/// on a socket with a timeout are never begun again by the kernel (signal(7)).
pub(crate) fn again<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

pub(crate) fn interrupted(what: String) -> Error {
    Error::new(ErrorKind::Interrupted, format!("interrupted: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn a_call_is_made_again_after_a_signal() {
        let mut results = [Err(Errno::EINTR), Err(Errno::EINTR), Ok(7)].into_iter();
        assert_eq!(again(|| results.next().unwrap()), Ok(7));
        assert_eq!(again(|| Err::<(), _>(Errno::EAGAIN)), Err(Errno::EAGAIN));
    }

    #[test]
    fn a_wait_ends_late_by_interrupt_or_ready_in_this_order() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let (interrupt, mut interrupting) = std::io::pipe().unwrap();
        let wanted = [(reader.as_fd(), PollFlags::POLLIN)];
        let short = Wait::at_most(Duration::from_millis(20)).interrupted_by(Some(interrupt.as_fd()));
        let begin = Instant::now();
        assert!(matches!(short.poll(&wanted), Ok(Woken::Late)));
        assert!(begin.elapsed() >= Duration::from_millis(20));
        writer.write_all(b"x").unwrap();
        // What is always ready does not hide that the time is over.
        assert!(matches!(short.poll(&wanted), Ok(Woken::Late)));
        let never = Wait { until: None, ..short };
        assert!(matches!(never.poll(&wanted), Ok(Woken::Ready(ready)) if ready == [true]));
        interrupting.write_all(b"x").unwrap();
        assert!(matches!(never.poll(&wanted), Ok(Woken::Interrupted)));
    }
}

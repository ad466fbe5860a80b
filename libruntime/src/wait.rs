//! Waiting: for descriptors, up to a deadline, until the caller ends it.
//!
//! Every wait of the library ends: when what it waits for comes, at a deadline of its own, or by the caller's
//! [`Limits`]. The limits belong to a verb and apply to every wait of its thread, in whichever module: [`limited`]
//! keeps them in a thread-local variable, as `trace::observe` keeps its observer. The rollback after an error is not
//! limited by them, or a cancelled creation would leave half of it behind. A wait without a deadline has a comment with
//! the reason.

use crate::error::{Error, ErrorKind, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For what answers at once unless something is wrong. Engines give a call ten seconds, and have to get the error
/// before that.
pub(crate) const DEADLINE: Duration = Duration::from_secs(8);

/// For setting up a process or a mount in a running container, whose processes can keep that from its end on purpose: by a
/// filesystem that does not answer, a lease on a file, or as a tracer.
pub(crate) const HELD_UP: Duration = Duration::from_secs(60);

/// Cancels verbs from another thread: a verb that was given this fails with [`ErrorKind::Interrupted`], and removes
/// what it has made so far.
///
/// ```
/// let cancel = libruntime::Cancel::new()?;
/// let other = cancel.clone();
/// // In a signal handler's thread, or where a request is given up:
/// other.cancel();
/// assert!(cancel.is_cancelled());
/// # Ok::<(), libruntime::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Cancel {
    descriptor: Arc<OwnedFd>,
    /// The descriptor is an eventfd that [`Cancel::new`] has made.
    is_own: bool,
}

impl Cancel {
    /// # Errors
    /// eventfd(2): too many open files.
    pub fn new() -> Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let event = event.map_err(|errno| Error::os("eventfd", errno))?;
        Ok(Self { descriptor: Arc::new(event.into()), is_own: true })
    }

    /// Cancelled as soon as this descriptor is readable, such as a signalfd(2). Nothing is read from it.
    pub fn when_readable(descriptor: OwnedFd) -> Self {
        Self { descriptor: Arc::new(descriptor), is_own: false }
    }

    /// Cancels all verbs that were given this or a clone of it, now and later. Does nothing after
    /// [`Cancel::when_readable`], where the caller cancels by making the descriptor readable.
    pub fn cancel(&self) {
        if self.is_own {
            // An eventfd is written in eight bytes; its counter cannot overflow by ones.
            let _ = nix::unistd::write(&*self.descriptor, &1u64.to_ne_bytes());
        }
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        is_ready(self.descriptor.as_fd())
    }
}

/// What ends the waits of a verb early. By default nothing does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    /// From the beginning of each verb.
    pub deadline: Option<Duration>,
    pub cancel: Option<Cancel>,
}

impl Limits {
    /// For a wait for a program's end, which may take as long as it likes.
    pub fn without_deadline(&self) -> Self {
        Self { deadline: None, ..self.clone() }
    }
}

/// Limits of the verb that this thread is in.
#[derive(Clone, Default)]
struct Scope {
    until: Option<Instant>,
    cancel: Option<Cancel>,
}

thread_local! {
    /// Without a destructor, for which a program that is linked to musl makes six system calls: [`Before`] leaves nothing
    /// in it.
    static SCOPE: ManuallyDrop<RefCell<Scope>> =
        const { ManuallyDrop::new(RefCell::new(Scope { until: None, cancel: None })) };
}

fn scope() -> Scope {
    SCOPE.with(|scope| scope.borrow().clone())
}

/// Returns the one before.
fn replace_scope(by: Scope) -> Scope {
    SCOPE.with(|scope| scope.replace(by))
}

/// Restores the limits from before, even if the work panics.
struct Before(Scope);

impl Drop for Before {
    fn drop(&mut self) {
        replace_scope(std::mem::take(&mut self.0));
    }
}

/// The instant after this time; `None` where the clock does not reach that far, which means never.
fn after(limit: Duration) -> Option<Instant> {
    Instant::now().checked_add(limit)
}

/// Does `work`; `limits` apply to its waits, and so do those of a verb around it.
pub(crate) fn limited<T>(limits: &Limits, work: impl FnOnce() -> T) -> T {
    if limits.deadline.is_none() && limits.cancel.is_none() {
        return work();
    }
    let outer = scope();
    let until = limits.deadline.and_then(after);
    let scope = Scope {
        until: until.into_iter().chain(outer.until).min(),
        cancel: limits.cancel.clone().or_else(|| outer.cancel.clone()),
    };
    replace_scope(scope);
    let _before = Before(outer);
    work()
}

/// Does what must be done even if the caller has cancelled: removing what was made.
pub(crate) fn unlimited<T>(work: impl FnOnce() -> T) -> T {
    let _before = Before(replace_scope(Scope::default()));
    work()
}

/// The limits of the verb that the calling thread is in, for a thread that does a part of its work.
pub(crate) struct Inherited(Scope);

impl Inherited {
    pub fn of_this_thread() -> Self {
        Self(scope())
    }

    /// Does `work` on another thread; these limits apply to its waits.
    pub fn within<T>(self, work: impl FnOnce() -> T) -> T {
        let _before = Before(replace_scope(self.0));
        work()
    }
}

/// Whether a descriptor is readable now.
pub(crate) fn is_ready(descriptor: BorrowedFd) -> bool {
    let mut wanted = [PollFd::new(descriptor, PollFlags::POLLIN)];
    poll(&mut wanted, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// For a wait that polls.
///
/// # Errors
/// The caller's limits have ended the verb, in which `what` was being done.
pub(crate) fn check(what: impl FnOnce() -> String) -> Result<()> {
    let scope = scope();
    if scope.cancel.is_some_and(|cancel| cancel.is_cancelled()) {
        return Err(Ended::Cancelled.error(what()));
    }
    if scope.until.is_some_and(|until| until <= Instant::now()) {
        return Err(Ended::Deadline.error(what()));
    }
    Ok(())
}

/// When a wait ends although nothing has come. By default only the caller's limits end it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wait {
    pub until: Option<Instant>,
    /// The caller's limits do not apply.
    is_unlimited: bool,
}

/// Which of the caller's limits has ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Cancelled,
    Deadline,
}

impl Ended {
    /// `what` was not done, or was undone.
    pub fn error(self, what: String) -> Error {
        match self {
            Self::Cancelled => Error::new(ErrorKind::Interrupted, format!("interrupted: {what}")),
            Self::Deadline => Error::new(ErrorKind::TimedOut, format!("not in the caller's time: {what}")),
        }
    }
}

pub(crate) enum Woken {
    /// Which of the descriptors are ready.
    Ready(Vec<bool>),
    /// The wait's own deadline.
    Late,
    Ended(Ended),
}

impl Wait {
    pub fn at_most(limit: Duration) -> Self {
        Self { until: after(limit), is_unlimited: false }
    }

    pub fn until(end: Instant) -> Self {
        Self { until: Some(end), is_unlimited: false }
    }

    /// The same wait, ended at `tick` at the latest.
    pub fn until_tick(self, tick: Instant) -> Self {
        Self { until: self.until.into_iter().chain([tick]).min(), ..self }
    }

    /// Ignores the caller's limits: for the end of a process that was killed.
    pub fn at_any_rate(limit: Duration) -> Self {
        Self { is_unlimited: true, ..Self::at_most(limit) }
    }

    /// poll(2). Deadline and cancellation are checked first, or a descriptor that is always ready would hide them.
    pub fn poll(&self, wanted: &[(BorrowedFd, PollFlags)]) -> Result<Woken> {
        let scope = if self.is_unlimited { Scope::default() } else { scope() };
        let until = self.until.into_iter().chain(scope.until).min();
        loop {
            let mut fds: Vec<PollFd> = wanted.iter().map(|(fd, flags)| PollFd::new(*fd, *flags)).collect();
            fds.extend(
                scope.cancel.iter().map(|cancel| PollFd::new(cancel.descriptor.as_fd(), PollFlags::POLLIN)),
            );
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            // Rounded up: in the last millisecond a timeout of zero would become a busy loop.
            let timeout = left.map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut fds, timeout) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(Error::os("poll", errno)),
            }
            let mut ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
            if scope.cancel.is_some() && ready.pop() == Some(true) {
                return Ok(Woken::Ended(Ended::Cancelled));
            }
            let now = Instant::now();
            let is_over = |until: Option<Instant>| until.is_some_and(|until| until <= now);
            match (is_over(scope.until), is_over(self.until)) {
                (true, _) => return Ok(Woken::Ended(Ended::Deadline)),
                (_, true) => return Ok(Woken::Late),
                _ if ready.contains(&true) => return Ok(Woken::Ready(ready)),
                _ => {}
            }
        }
    }
}

/// Repeats a call that a signal has interrupted: the caller's handlers need not have SA_RESTART, and the kernel never
/// restarts calls on a socket with a timeout (signal(7)).
pub(crate) fn again<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_time_beyond_the_clock_is_no_deadline() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"x").unwrap();
        for limit in [Duration::MAX, Duration::from_secs(i64::MAX as u64)] {
            let limits = Limits { deadline: Some(limit), cancel: None };
            let wanted = [(reader.as_fd(), PollFlags::POLLIN)];
            let woken = limited(&limits, || Wait::at_most(limit).poll(&wanted));
            assert!(matches!(woken, Ok(Woken::Ready(_))));
        }
    }

    #[test]
    fn a_call_is_made_again_after_a_signal() {
        let mut results = [Err(Errno::EINTR), Err(Errno::EINTR), Ok(7)].into_iter();
        assert_eq!(again(|| results.next().unwrap()), Ok(7));
        assert_eq!(again(|| Err::<(), _>(Errno::EAGAIN)), Err(Errno::EAGAIN));
    }

    #[test]
    fn a_wait_ends_late_cancelled_or_ready_in_this_order() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let wanted = [(reader.as_fd(), PollFlags::POLLIN)];
        let cancel = Cancel::new().unwrap();
        let limits = Limits { cancel: Some(cancel.clone()), deadline: None };
        let (begin, short) = (Instant::now(), Wait::at_most(Duration::from_millis(20)));
        limited(&limits, || {
            assert!(matches!(short.poll(&wanted), Ok(Woken::Late)));
            assert!(begin.elapsed() >= Duration::from_millis(20));
            writer.write_all(b"x").unwrap();
            // What is always ready does not hide that the time is over.
            assert!(matches!(short.poll(&wanted), Ok(Woken::Late)));
            let never = Wait::default();
            assert!(matches!(never.poll(&wanted), Ok(Woken::Ready(ready)) if ready == [true]));
            cancel.cancel();
            assert!(matches!(never.poll(&wanted), Ok(Woken::Ended(Ended::Cancelled))));
            assert_eq!(check(|| "work".into()).unwrap_err().kind(), ErrorKind::Interrupted);
            assert!(matches!(unlimited(|| never.poll(&wanted)), Ok(Woken::Ready(_))));
            let at_any_rate = Wait::at_any_rate(Duration::from_secs(1));
            assert!(matches!(at_any_rate.poll(&wanted), Ok(Woken::Ready(_))));
        });
        assert!(matches!(Wait::default().poll(&wanted), Ok(Woken::Ready(_))), "the limits end with the verb");
    }

    #[test]
    fn a_thread_has_the_limits_of_the_verb_that_it_works_for() {
        let limits = Limits { deadline: Some(Duration::ZERO), cancel: None };
        let check = || check(|| "x".into()).map_err(|error| error.kind());
        let (own, inherited) = limited(&limits, || {
            let limits = Inherited::of_this_thread();
            std::thread::scope(|scope| {
                let work = scope.spawn(|| (check(), limits.within(check)));
                work.join().unwrap()
            })
        });
        assert_eq!((own, inherited), (Ok(()), Err(ErrorKind::TimedOut)));
    }

    #[test]
    fn the_deadline_of_an_outer_verb_holds_in_an_inner_one() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let within = |limit| Limits { deadline: Some(limit), cancel: None };
        let begin = Instant::now();
        let woken = limited(&within(Duration::from_millis(20)), || {
            limited(&within(Duration::from_secs(60)), || {
                Wait::at_most(Duration::from_secs(60)).poll(&[(reader.as_fd(), PollFlags::POLLIN)])
            })
        });
        assert!(matches!(woken, Ok(Woken::Ended(Ended::Deadline))));
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
}

//! The library's side of the protocol: starts the stage with a plan, answers it, and turns what
//! it reports into errors that name the step's place in `config.json`.
//!
//! | the stage says | the library |
//! |---|---|
//! | `Cloned` | keeps hold of the sender, which goes on; more often than the plan has clones is an error. A stage that was started in the container's namespaces does not say it |
//! | `At(Entered)` | does what it does for a clone, which comes later, and answers |
//! | `At(Attached)` | has it in its cgroups, and answers |
//! | `At(Cgroups)` | sends the files through which it joins its v1 cgroups, unless it has sent them ahead |
//! | `At(Created)` | runs hooks, moves interfaces, and answers |
//! | `At(Ready)` | records it, and answers, unless it is the starter itself; it waits for `start`, or executes |
//! | a descriptor | passes the seccomp listener on to its agent |
//! | `Failed` | renders the error and undoes everything |
//! | end of file | `/proc` tells whether the program was executed, or the stage was killed |

use crate::cgroup::{self, Cgroup};
use crate::child::Child;
use crate::error::{Error, Result};
use crate::launch::{self, Launch};
use crate::moved::Moved;
use crate::plan::{Handed, Plan, Text};
use crate::seccomp::Filter;
use crate::stage::Executable;
use crate::state::ProcessId;
use crate::step::{REPORT_SIZE, Report, Step, SyncPoint};
use crate::trace::{StageClock, StageSteps};
use crate::unreported::{self, EndOfStage};
use crate::wait::{DEADLINE, Wait, Woken, again, is_ready};
use crate::{executed, hints, stage, sys};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{self, AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const KILLED: &str =
    "something killed it: perhaps linux.resources.memory.limit is too low to start in";

/// Why a stage may have been killed by the kernel that has loaded `filter`.
pub(crate) fn killed_hint(filter: Option<&Filter>) -> &'static str {
    match filter {
        Some(filter) if !filter.lets_execute => {
            "linux.seccomp refuses execve or exit_group, by which the program is executed or its absence is reported"
        }
        _ => KILLED,
    }
}

/// What the stage has reported.
pub(crate) enum Event {
    /// It goes on in the cgroup, and is still to be cloned into the container's namespaces.
    InCgroup,
    Cloned,
    At(SyncPoint),
    Listener(OwnedFd),
    End,
}

/// A running stage. Dropping it before [`Stage::into_init`] kills its processes.
pub(crate) struct Stage<'a> {
    plan: &'a Plan,
    channel: Arc<OwnedFd>,
    program: Arc<OwnedFd>,
    first: Option<Child>,
    /// Until the first word of the stage.
    lent: Option<sys::Lent>,
    init: Option<Child>,
    /// How many clones are still to be reported.
    clones: usize,
    /// How a clone is found that could not report itself.
    end_of_stage: Option<EndOfStage>,
    /// It was started in the container's namespaces, and [`Event::Cloned`] is still to be returned for that.
    is_new: bool,
    /// Its cgroups are sent.
    has_cgroups: bool,
    is_answered: bool,
    waits_for_thaw: bool,
    /// What is sent once it is cloned.
    ahead: Ahead,
    clock: StageClock,
    steps: Option<StageSteps>,
}

impl<'a> Stage<'a> {
    pub fn launch(plan: &'a Plan, given: &Launch) -> Result<Self> {
        let clock = StageClock::start();
        let (channel, theirs) =
            socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|errno| Error::os("socketpair", errno))?;
        let namespaces = plan.start_in();
        if namespaces.is_none() {
            ask_for_sender(channel.as_fd(), true)?;
        }
        let procfs = launch::private_procfs()?;
        let opened = launch::open_handed(plan, given, &theirs, &procfs)?;
        let mut moved = Moved::out_of(given.passed);
        let fds = opened.iter().map(|fd| moved.number(fd.as_raw_fd())).collect::<Result<Vec<RawFd>>>()?;
        let steps = StageSteps::wanted(|| plan.step_labels())?;
        let times = steps.as_ref().map(|steps| moved.number(steps.file().as_raw_fd())).transpose()?;
        let keep: Vec<RawFd> = fds.iter().copied().chain(times).filter(|fd| *fd >= 0).collect();
        let (encoded, program) = (stage::sealed_plan(&plan.encode(&fds, times)?)?, stage::sealed_program()?);
        let end_of_stage = match (plan.enters_cgroup(), fds.first()) {
            (true, Some(number)) => Some(EndOfStage::of(&theirs, *number)?),
            _ => None,
        };
        let copies = (moved.copy(encoded.as_raw_fd())?, moved.copy(program.as_raw_fd())?);
        let encoded = copies.0.unwrap_or(encoded);
        let spawned = sys::spawn(&sys::Spawn {
            program: copies.1.as_ref().map_or(program.as_fd(), AsFd::as_fd),
            plan: encoded.as_fd(),
            stdio: given.stdio,
            passed: given.passed,
            keep: &keep,
            cgroup: given.cgroup.filter(|_| !plan.enters_cgroup()),
            namespaces: namespaces.map_or(0, |flags| flags.0),
        });
        let sys::Spawned { pid, pidfd, lent } = spawned.map_err(|errno| clone_failed(plan, errno))?;
        let (child, lent) = (Child::new(pid, pidfd), Some(lent));
        let (first, init) = if namespaces.is_some() { (None, Some(child)) } else { (Some(child), None) };
        let channel = Arc::new(channel);
        drop(opened);
        // One call closes what has consecutive numbers.
        sys::close_all(vec![theirs, procfs, encoded]);
        Ok(Self {
            plan,
            channel,
            program,
            first,
            lent,
            init,
            clones: plan.clones(),
            end_of_stage,
            is_new: namespaces.is_some(),
            has_cgroups: false,
            is_answered: false,
            waits_for_thaw: false,
            ahead: Ahead::default(),
            clock,
            steps,
        })
    }

    /// What its process executes until the start, where that is the process that was started.
    pub fn executable(&self) -> Result<Option<Executable>> {
        self.plan.start_in().map(|_| Executable::of(self.program.as_fd())).transpose()
    }

    /// Whether the first process, whose end this is, may have made a clone that is not reported. It exits with 0 once it
    /// has made one; while a clone enters the cgroup the two share their memory, and the OOM killer may end both.
    fn may_have_cloned(&self, how: Option<sys::ExitStatus>) -> bool {
        match how {
            Some(sys::ExitStatus::Code(0)) => true,
            Some(sys::ExitStatus::Signal(libc::SIGKILL)) => self.end_of_stage.is_some(),
            _ => false,
        }
    }

    /// Ends a clone whose report has not arrived: it was killed before, or is in a frozen cgroup.
    fn end_unreported(&self) {
        if let Some(clone) = self.end_of_stage.as_ref().and_then(EndOfStage::find) {
            return clone.kill();
        }
        // Without its name the process cannot be told from others.
        let _ = Executable::of(self.program.as_fd()).map(unreported::reap);
    }

    /// The process that works on the plan now: the first, or the one it has cloned.
    pub fn pid(&self) -> i32 {
        self.current().map_or(0, Child::pid)
    }

    pub fn current(&self) -> Option<&Child> {
        self.init.as_ref().or(self.first.as_ref())
    }

    /// Waits for the stage's next report. A failed step is returned as an error. There need not be a deadline: mounting
    /// a network filesystem takes as long as its server does.
    pub fn next(&mut self, wait: &Wait) -> Result<Event> {
        let event = self.await_event(wait)?;
        let reached = match &event {
            Event::InCgroup => "is in its cgroup",
            Event::Cloned => "its process in the container's namespaces is cloned",
            Event::At(SyncPoint::Attached) => "waits to be put into its cgroups",
            Event::At(SyncPoint::Cgroups) => "waits for its cgroups",
            Event::At(SyncPoint::Created) => "has its namespaces and mounts",
            Event::At(SyncPoint::Entered) => "is in the namespaces of the container",
            Event::At(SyncPoint::Ready) => "is ready to execute the program",
            Event::Listener(_) => "has loaded its seccomp filter",
            Event::End => "has ended, or executed the program",
        };
        self.clock.reached(reached, self.pid());
        self.report_steps();
        Ok(event)
    }

    fn await_event(&mut self, wait: &Wait) -> Result<Event> {
        if std::mem::take(&mut self.is_new) {
            self.send_ahead();
            return Ok(Event::Cloned);
        }
        if !self.await_word(wait)? {
            return Ok(Event::End);
        }
        let Received { report, fd, sender } = receive(self.channel.as_fd())?;
        if let Some(errno) = self.lent.take().and_then(|lent| lent.errno()) {
            return Err(spawn_failed(errno));
        }
        if let Some(listener) = fd {
            return Ok(Event::Listener(listener));
        }
        match report {
            None => Ok(Event::End),
            Some(Report::Failed { step, call, errno }) => {
                // The process that says so has made no clone.
                self.end_of_stage = None;
                Err(self.failed(step, call, errno))
            }
            Some(Report::Cloned) => self.cloned(sender),
            Some(Report::At(point)) => Ok(Event::At(point)),
            Some(Report::YourTurn) => Ok(Event::End),
        }
    }

    fn cloned(&mut self, sender: Option<i32>) -> Result<Event> {
        let pid = sender.filter(|_| self.clones > 0);
        let pid = pid.ok_or_else(|| Error::external("the stage was cloned when it should not be"))?;
        let pidfd = sys::pidfd_open(pid).map_err(|errno| Error::os("pidfd_open", errno))?;
        let clone = Some(Child::new(pid, pidfd));
        self.clones -= 1;
        let (before, event) = match self.clones {
            0 => {
                self.init = clone;
                ask_for_sender(self.channel.as_fd(), false)?;
                self.send_ahead();
                (self.first.take(), Event::Cloned)
            }
            _ => (std::mem::replace(&mut self.first, clone), Event::InCgroup),
        };
        if let Some(before) = before {
            // It ends right after this report.
            let _ = before.wait_within(&Wait::at_any_rate(DEADLINE));
        }
        Ok(event)
    }

    /// Waits until the stage says something; false where it never will, although its channel is open. A stage that is held
    /// is given up: what a mount waits for may come late, but nothing is known to continue a stopped process.
    fn await_word(&self, wait: &Wait) -> Result<bool> {
        const TICK: Duration = Duration::from_secs(1);
        let late = || "its set-up was not done in time".to_string();
        let mut ticks = 0;
        loop {
            let tick = Instant::now() + TICK;
            match wait.until_tick(tick).poll(&[(self.channel.as_fd(), PollFlags::POLLIN)])? {
                Woken::Ready(_) => return Ok(true),
                Woken::Ended(ended) => return Err(ended.error(late())),
                Woken::Late if wait.until.is_some_and(|until| until <= Instant::now()) => {
                    return Err(Error::external(late()).with_hint(
                        "a filesystem that does not answer, a lease on a file or a tracer holds it up",
                    ));
                }
                Woken::Late if self.is_done() && !is_ready(self.channel.as_fd()) => return Ok(false),
                Woken::Late => {}
            }
            let held = self.held();
            ticks = if held.is_some() { ticks + 1 } else { 0 };
            if let Some(error) = held.filter(|_| TICK * ticks >= DEADLINE) {
                return Err(error);
            }
        }
    }

    /// What keeps the stage from running: a signal, or a frozen cgroup, which the container's processes may choose and
    /// freeze where they have cgroups of their own.
    fn held(&self) -> Option<Error> {
        let unreported = self.end_of_stage.as_ref().filter(|_| self.init.is_none()).and_then(EndOfStage::pid);
        let pid = unreported.unwrap_or(self.pid());
        if ProcessId::of(pid).is_ok_and(ProcessId::is_stopped) {
            let error = Error::external("the process that sets the container up is stopped");
            return Some(error.with_hint("it got SIGSTOP, or a debugger holds it"));
        }
        if !self.waits_for_thaw && cgroup::keeps_frozen(pid) {
            let error = Error::external("the process that sets the container up is frozen");
            return Some(
                error.with_hint("a process of the container has frozen a cgroup, or it was paused meanwhile"),
            );
        }
        None
    }

    /// Where its cgroup is frozen, it is not given up: the caller knows that.
    pub fn wait_for_thaw(&mut self) {
        self.waits_for_thaw = true;
    }

    fn is_done(&self) -> bool {
        let stage = self.executable().ok().flatten();
        self.init.as_ref().is_some_and(|init| executed::is_done(init.pid(), stage))
    }

    /// Lets the stage go on.
    pub fn answer(&self) -> Result<()> {
        answer(self.channel.as_fd())
    }

    /// As [`Stage::answer`], before the stage asks: then it need not wait.
    pub fn answer_ahead(&mut self) {
        self.ahead.answer = true;
    }

    /// Whether the stage has been sent the answer that it was to get ahead.
    pub fn is_answered(&self) -> bool {
        self.is_answered
    }

    /// Where this fails, the stage asks for it, or is gone and its last report says why.
    fn send_ahead(&mut self) {
        let ahead = std::mem::take(&mut self.ahead);
        if let Some(cgroups) = ahead.cgroups {
            self.has_cgroups = self.send(cgroups).is_ok();
        }
        self.is_answered = ahead.answer && self.answer().is_ok();
    }

    /// Lets the stage go on, with the files through which it joins its cgroups, in the plan's order.
    pub fn give_cgroups(&mut self, cgroup: &Cgroup) -> Result<()> {
        self.ahead.cgroups = None;
        match self.has_cgroups {
            true => Ok(()),
            false => self
                .send(self.open_cgroups(cgroup)?)
                .map_err(|errno| Error::os("sendmsg to the stage", errno)),
        }
    }

    /// As [`Stage::give_cgroups`], before the stage asks: then it need not wait. Not where it waits for another answer
    /// before, which it would take this for.
    pub fn give_cgroups_ahead(&mut self, cgroup: &Cgroup) -> Result<()> {
        if self.plan.waits_first_for_cgroups() {
            self.ahead.cgroups = Some(self.open_cgroups(cgroup)?);
        }
        Ok(())
    }

    fn open_cgroups(&self, cgroup: &Cgroup) -> Result<Vec<OwnedFd>> {
        let open = |(what, _): &(Handed, _)| match what {
            Handed::CgroupTasks(tasks) => Some(cgroup.open_tasks(tasks)),
            _ => None,
        };
        self.plan.handed.iter().filter_map(open).collect()
    }

    fn send(&self, files: Vec<OwnedFd>) -> std::result::Result<(), Errno> {
        let fds: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let (bytes, rights) = ([IoSlice::new(&[1])], [ControlMessage::ScmRights(&fds)]);
        let channel = self.channel.as_raw_fd();
        let sent = again(|| socket::sendmsg::<()>(channel, &bytes, &rights, MsgFlags::MSG_NOSIGNAL, None));
        sys::close_all(files);
        sent.map(drop)
    }

    fn failed(&self, step: u32, call: u32, errno: i32) -> Error {
        let failed = self.plan.steps().get(step as usize).map(|(step, origin)| (step, origin.as_ref()));
        let from = failed.and_then(|(step, _)| self.plan.host_path_of(step));
        step_error(failed, from, step, call, errno)
    }

    /// The error for a stage that has ended without a report.
    pub fn died(&mut self) -> Error {
        let reported = self.init.take();
        let is_reported = reported.is_some();
        let child = reported.or(self.first.take());
        let how = child.and_then(|child| child.wait_within(&Wait::at_any_rate(DEADLINE)).ok().flatten());
        if !is_reported && self.may_have_cloned(how) {
            self.end_unreported();
        }
        let error = Error::external(match how {
            Some(sys::ExitStatus::Signal(signal)) => {
                format!("the container's init was killed by signal {signal}")
            }
            Some(sys::ExitStatus::Code(code)) => {
                format!("the container's init ended early, with code {code}")
            }
            None => "the container's init ended early".to_string(),
        });
        match how {
            Some(sys::ExitStatus::Signal(libc::SIGKILL)) => error.with_hint(KILLED),
            _ => error,
        }
    }

    fn report_steps(&mut self) {
        let pid = self.pid();
        if let Some(steps) = &mut self.steps {
            steps.report(pid);
        }
    }

    /// The record of steps, for those that are still to come.
    pub fn take_steps(&mut self) -> Option<StageSteps> {
        self.steps.take()
    }

    /// The container's process, which belongs to the caller from now on.
    pub fn into_init(mut self) -> Option<Child> {
        self.init.take()
    }

    /// The channel, over which the process waits for its start where nobody else may start it.
    pub fn channel(&self) -> Arc<OwnedFd> {
        self.channel.clone()
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        self.report_steps();
        let init = self.init.take();
        if let Some(init) = &init {
            init.kill();
            let _ = init.try_wait();
        }
        let Some(first) = self.first.take() else { return };
        first.kill();
        // How it ended tells whether there is a clone. A process is killed at once also where its cgroup of v2 is frozen.
        let how = match self.end_of_stage {
            Some(_) => first.wait_within(&Wait::at_any_rate(DEADLINE)),
            None => first.try_wait(),
        };
        if init.is_none() && self.may_have_cloned(how.ok().flatten()) {
            self.end_unreported();
        }
    }
}

/// What the stage gets once it is cloned, without asking.
#[derive(Default)]
struct Ahead {
    cgroups: Option<Vec<OwnedFd>>,
    answer: bool,
}

/// Whether the sender of a message is wanted (unix(7), SO_PASSCRED). By sending something meanwhile, the socket gets an
/// abstract name, which containers with the host's network see, though they cannot connect to it.
fn ask_for_sender(channel: BorrowedFd, wanted: bool) -> Result<()> {
    socket::setsockopt(&channel, socket::sockopt::PassCred, &wanted)
        .map_err(|errno| Error::os("setsockopt SO_PASSCRED", errno))
}

pub(crate) fn answer(channel: BorrowedFd) -> Result<()> {
    again(|| socket::send(channel.as_raw_fd(), &[1], MsgFlags::MSG_NOSIGNAL))
        .map(drop)
        .map_err(|errno| Error::os("send to the stage", errno))
}

/// One message of the stage.
pub(crate) struct Received {
    /// `None` at the end of file, and in a message with a descriptor.
    pub report: Option<Report>,
    pub fd: Option<OwnedFd>,
    /// The pid of its sender, where the socket asks for it.
    sender: Option<i32>,
}

pub(crate) fn receive(channel: BorrowedFd) -> Result<Received> {
    let mut bytes = [0u8; REPORT_SIZE + 4];
    let received = match sys::receive(channel, &mut bytes) {
        // A peer has ended with unread data. What it has sent before comes after this error, and then the end of file.
        Err(Errno::ECONNRESET) => sys::receive(channel, &mut bytes),
        other => other,
    };
    let sys::Received { length, fd, sender } =
        received.map_err(|errno| Error::os("recvmsg from the stage", errno))?;
    let report = match length {
        0 => None,
        _ if fd.is_some() => None,
        length => Some(
            Report::decode(&bytes[..length])
                .ok_or_else(|| Error::external("the stage sent something that is not a report"))?,
        ),
    };
    Ok(Received { report, fd, sender })
}

/// The error of a failed step: the call and its object, the errno, the place, a hint. `from` is the host's path of what
/// was to be mounted.
pub(crate) fn step_error(
    failed: Option<(&Step<Text>, &str)>,
    from: Option<String>,
    number: u32,
    call: u32,
    errno: i32,
) -> Error {
    let call = syscalls::Sysno::new(call as usize).map_or("a system call", |call| call.name());
    let errno = Errno::from_raw(errno);
    match failed {
        Some((step, origin)) => hints::render(step, from, origin, call, errno),
        None => Error::os(format!("{call} in step {number} of the container's set-up"), errno),
    }
}

/// The error of a refused clone3(2), with the place of the namespaces that it was to make.
fn clone_failed(plan: &Plan, errno: Errno) -> Error {
    match plan.steps().first() {
        _ if hints::is_of_cgroup(errno) => hints::into_cgroup(errno),
        Some((step @ Step::StartIn { .. }, origin)) => {
            let call = syscalls::Sysno::clone3 as u32;
            step_error(Some((step, origin.as_ref())), None, 0, call, errno as i32)
        }
        _ => spawn_failed(errno),
    }
}

fn spawn_failed(errno: Errno) -> Error {
    let error = Error::os("execveat onggi-stage", errno);
    match errno {
        Errno::EACCES => error.with_hint("vm.memfd_noexec=2 forbids executable memfds; sysctl sets it to 1"),
        Errno::ENOMEM => error.with_hint(KILLED),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_arrives_although_its_sender_has_ended_with_unread_data() {
        let (ours, theirs) =
            socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .unwrap();
        answer(ours.as_fd()).unwrap();
        let failed = Report::Failed { step: 3, call: 257, errno: libc::ENOENT };
        socket::send(theirs.as_raw_fd(), &failed.encode(), MsgFlags::empty()).unwrap();
        drop(theirs);
        assert!(matches!(receive(ours.as_fd()).unwrap().report, Some(Report::Failed { step: 3, .. })));
        assert!(receive(ours.as_fd()).unwrap().report.is_none());
    }
}

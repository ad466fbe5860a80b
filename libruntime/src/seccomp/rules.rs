//! Reads a profile: names to calls, actions to the kernel's return values, conditions in order of precedence.
//!
//! All findings about single rules are made here, with their places. It knows nothing of machines, except
//! that [`tables`] says which names exist; [`super::map`] is what comes next.

use super::tables::{self, Call};
use crate::diagnostic::Diagnostic;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg};
use oci_spec::runtime::{LinuxSeccompOperator as Operator, LinuxSyscall};

pub(super) const PLACE: &str = "linux.seccomp";

/// What the kernel calls SECCOMP_RET_*.
pub(super) const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;
/// The part of a return value that is the action; the rest is its data.
const ACTION_MASK: u32 = 0xffff_0000;

pub(super) fn lets_through(action: u32) -> bool {
    matches!(action & ACTION_MASK, ALLOW | LOG)
}

pub(super) const REFUSE_AS_UNKNOWN: u32 = ERRNO | libc::ENOSYS as u32;

/// A comparison of one argument. `mask` is of use to [`Operator::ScmpCmpMaskedEq`] only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub argument: u32,
    pub operator: Operator,
    pub mask: u64,
    pub value: u64,
}

impl Condition {
    /// For an argument of 64 bits.
    pub fn holds(&self, argument: u64) -> bool {
        match self.operator {
            Operator::ScmpCmpNe => argument != self.value,
            Operator::ScmpCmpLt => argument < self.value,
            Operator::ScmpCmpLe => argument <= self.value,
            Operator::ScmpCmpEq => argument == self.value,
            Operator::ScmpCmpGe => argument >= self.value,
            Operator::ScmpCmpGt => argument > self.value,
            Operator::ScmpCmpMaskedEq => argument & self.mask == self.value,
        }
    }
}

/// An action and the conditions that must all hold for it; there may be none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clause {
    pub conditions: Vec<Condition>,
    pub action: u32,
}

/// A rule about some calls.
pub(super) struct Rule {
    pub calls: Vec<&'static Call>,
    /// Which [`Rules::clauses`], any of which may match; none for a rule that repeats the default.
    pub clauses: std::ops::Range<usize>,
}

pub(super) struct Rules {
    pub default: u32,
    pub clauses: Vec<Clause>,
    pub list: Vec<Rule>,
}

impl Rules {
    /// Whether calls without a rule are refused: then new calls can return ENOSYS. A tracer that gets all other calls
    /// is expected to handle new ones itself.
    pub fn refuses_by_default(&self) -> bool {
        matches!(self.default & ACTION_MASK, KILL_PROCESS | KILL_THREAD | TRAP | ERRNO)
    }

    /// Whether an action refuses more than the default does, in the kernel's order of precedence.
    pub fn stricter_than_default(&self, action: u32) -> bool {
        // As a signed number, KILL_PROCESS comes first; the kernel compares in the same way.
        ((action & ACTION_MASK) as i32) < (self.default & ACTION_MASK) as i32
    }
}

/// Reads the whole profile; with a finding the result is of no use.
pub(super) fn read(
    seccomp: &LinuxSeccomp,
    warnings: &mut Vec<Diagnostic>,
    findings: &mut Vec<Diagnostic>,
) -> Rules {
    if seccomp.default_action() == Action::ScmpActNotify {
        let message = "SCMP_ACT_NOTIFY cannot be the default: no process could send the listener";
        findings.push(Diagnostic::new(format!("{PLACE}.defaultAction"), message));
    }
    let place = || format!("{PLACE}.defaultErrnoRet");
    let default = return_value(seccomp.default_action(), seccomp.default_errno_ret(), place, findings);
    let mut rules = Rules { default, clauses: Vec::new(), list: Vec::new() };
    for (entry, syscall) in seccomp.syscalls().as_deref().unwrap_or_default().iter().enumerate() {
        let calls = calls(entry, syscall, warnings, findings);
        let place = || format!("{PLACE}.syscalls[{entry}].errnoRet");
        let action = return_value(syscall.action(), syscall.errno_ret(), place, findings);
        let start = rules.clauses.len();
        let alternatives = conditions(entry, syscall, warnings, findings);
        if action != default {
            let clauses = alternatives.into_iter();
            rules.clauses.extend(clauses.map(|conditions| Clause { conditions, action }));
        }
        rules.list.push(Rule { calls, clauses: start..rules.clauses.len() });
    }
    rules
}

/// The calls that an entry names. A name that no machine knows is skipped, as libseccomp's users do: a
/// profile may be newer than the runtime, and what it does not know the default action covers.
fn calls(
    entry: usize,
    syscall: &LinuxSyscall,
    warnings: &mut Vec<Diagnostic>,
    findings: &mut Vec<Diagnostic>,
) -> Vec<&'static Call> {
    if syscall.names().is_empty() {
        findings.push(Diagnostic::new(format!("{PLACE}.syscalls[{entry}].names"), "is empty"));
    }
    let notifies = syscall.action() == Action::ScmpActNotify;
    let mut calls = Vec::with_capacity(syscall.names().len());
    for (index, name) in syscall.names().iter().enumerate() {
        let place = || format!("{PLACE}.syscalls[{entry}].names[{index}]");
        // The process that loads the filter sends its listener by sendmsg(2), before an agent can answer for it. runc
        // uses write(2) for that and refuses it; such profiles are refused too.
        if notifies && matches!(name.as_str(), "sendmsg" | "write") {
            let message = format!("SCMP_ACT_NOTIFY cannot be used for the {name} syscall");
            findings.push(Diagnostic::new(place(), message));
        }
        match tables::find(name) {
            Some(call) => calls.push(call),
            None => warnings.push(Diagnostic::warning(
                place(),
                format!("{name:?} is not a system call that this build knows; it is skipped"),
            )),
        }
    }
    calls
}

/// The alternatives of an entry, each with conditions that must all hold.
fn conditions(
    entry: usize,
    syscall: &LinuxSyscall,
    warnings: &mut Vec<Diagnostic>,
    findings: &mut Vec<Diagnostic>,
) -> Vec<Vec<Condition>> {
    let args = syscall.args().as_deref().unwrap_or_default();
    let mut seen = 0_u64;
    let mut twice = false;
    let mut conditions = Vec::with_capacity(args.len());
    for (index, arg) in args.iter().enumerate() {
        let place = |field: &str| format!("{PLACE}.syscalls[{entry}].args[{index}].{field}");
        if arg.index() > 5 {
            let message = format!("{} is not an argument: there are six, from 0", arg.index());
            findings.push(Diagnostic::new(place("index"), message));
            continue;
        }
        twice |= seen & 1 << arg.index() != 0;
        seen |= 1 << arg.index();
        conditions.push(condition(arg, place, warnings));
    }
    if twice {
        // runc and crun read an entry with two conditions on one argument as a list of alternatives.
        return conditions.into_iter().map(|condition| vec![condition]).collect();
    }
    vec![conditions]
}

fn condition(
    arg: &LinuxSeccompArg,
    place: impl Fn(&str) -> String,
    warnings: &mut Vec<Diagnostic>,
) -> Condition {
    let (argument, operator, second) = (arg.index() as u32, arg.op(), arg.value_two().unwrap_or(0));
    if operator != Operator::ScmpCmpMaskedEq {
        if second != 0 {
            let message = format!("{second} is ignored: only SCMP_CMP_MASKED_EQ has a second value");
            warnings.push(Diagnostic::warning(place("valueTwo"), message));
        }
        return Condition { argument, operator, mask: u64::MAX, value: arg.value() };
    }
    let mask = arg.value();
    if second & !mask != 0 {
        let message = format!("{second:#x} has bits outside the mask {mask:#x}; they are ignored");
        warnings.push(Diagnostic::warning(place("valueTwo"), message));
    }
    Condition { argument, operator, mask, value: second & mask }
}

/// The value that the filter returns for an action.
fn return_value(
    action: Action,
    errno: Option<u32>,
    place: impl Fn() -> String,
    findings: &mut Vec<Diagnostic>,
) -> u32 {
    let (base, most) = match action {
        Action::ScmpActKill | Action::ScmpActKillThread => (KILL_THREAD, None),
        Action::ScmpActKillProcess => (KILL_PROCESS, None),
        Action::ScmpActTrap => (TRAP, None),
        Action::ScmpActNotify => (NOTIFY, None),
        Action::ScmpActLog => (LOG, None),
        Action::ScmpActAllow => (ALLOW, None),
        // The kernel cuts a larger error number down to this one (MAX_ERRNO).
        Action::ScmpActErrno => (ERRNO, Some(4095)),
        Action::ScmpActTrace => (TRACE, Some(0xffff)),
    };
    let Some(most) = most else {
        if let Some(errno) = errno {
            findings
                .push(Diagnostic::new(place(), format!("{errno} is given, but {action} returns no error")));
        }
        return base;
    };
    let errno = errno.unwrap_or(libc::EPERM as u32);
    if errno > most {
        findings.push(Diagnostic::new(place(), format!("{errno} is too large, {most} is the largest")));
    }
    base | errno & 0xffff
}

/// Puts clauses of one call in the order in which they are tried: the narrower before the wider, otherwise as
/// the profile has them.
pub(super) fn in_order_of_precedence(ids: &mut [usize], clauses: &[Clause]) {
    for end in 1..ids.len() {
        let new = &clauses[ids[end]];
        let overrides = |&old: &usize| clauses[old].action != new.action && narrower(new, &clauses[old]);
        if let Some(at) = ids[..end].iter().position(overrides) {
            ids[at..=end].rotate_right(1);
        }
    }
}

/// Whether everything that `a` matches is matched by `b`, and not the reverse.
fn narrower(a: &Clause, b: &Clause) -> bool {
    within(a, b) && !within(b, a)
}

fn within(a: &Clause, b: &Clause) -> bool {
    b.conditions.iter().all(|wide| a.conditions.iter().any(|narrow| implies(narrow, wide)))
}

/// Whether one comparison implies another; false where that is not easy to say.
fn implies(a: &Condition, b: &Condition) -> bool {
    if a.argument != b.argument {
        return false;
    }
    match (range(a), range(b)) {
        (Some((low, high)), Some((from, to))) => from <= low && high <= to,
        (Some((low, high)), None) if b.operator == Operator::ScmpCmpNe => b.value < low || high < b.value,
        (Some((low, high)), None) if b.operator == Operator::ScmpCmpMaskedEq => {
            low == high && low & b.mask == b.value
        }
        (Some(_), None) => false,
        (None, _) => a == b,
    }
}

/// The values that a comparison accepts, where they are consecutive; an impossible one accepts none.
fn range(condition: &Condition) -> Option<(u64, u64)> {
    let value = condition.value;
    match condition.operator {
        Operator::ScmpCmpEq => Some((value, value)),
        Operator::ScmpCmpGe => Some((value, u64::MAX)),
        Operator::ScmpCmpGt => Some((value.checked_add(1)?, u64::MAX)),
        Operator::ScmpCmpLe => Some((0, value)),
        Operator::ScmpCmpLt => Some((0, value.checked_sub(1)?)),
        Operator::ScmpCmpNe | Operator::ScmpCmpMaskedEq => None,
    }
}

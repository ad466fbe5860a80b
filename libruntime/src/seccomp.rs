//! A seccomp profile of `config.json` to the BPF program that the kernel runs: [`compile`] takes the profile
//! and says what is wrong with it, [`Filter`] is what the stage hands to `seccomp(2)`.
//!
//! It makes no system call and knows nothing of processes; loading is a step of the plan. Inside,
//! `rules` reads the profile, `map` turns it into one map over all call numbers for each kind of system
//! call entry, and `program` writes the map down as instructions. `tables` is data.
//!
//! What a profile means where the specification does not say (tests compare all of it with libseccomp):
//! - A rule without conditions holds whatever else the profile says of the call; of two, the first holds.
//! - Of two conditional rules that both match, the narrower one holds (`== 5` before `> 3`), then the
//!   earlier. libseccomp agrees on the common pairs; for others its order follows from its internal sorting,
//!   and it overlooks some rules that match (`arg < 0x1_0000_0000` next to `arg < 0`). Here every rule is
//!   tried.
//! - Two conditions on one argument in one entry are alternatives, as with runc and crun: `args: [0 == 1, 0
//!   == 2]` matches both. All conditions of such an entry are alternatives then, those on other arguments
//!   too.
//! - A rule with the default action says nothing, and does not override a later rule.
//! - On x86 and arm, arguments have 32 bits and so have the values that they are compared with. On x32 they
//!   have 64, because there the kernel reads all 64 (libseccomp compares 32 and can be misled).
//! - A call newer than all that the profile names returns ENOSYS where the default is to refuse; see `map`.
//! - An entry of a machine that is not named, x32 without `SCMP_ARCH_X32` included, kills the process: its
//!   numbers mean other calls, so no rule can be applied, and a thread that dies alone leaves locks behind.

mod arch;
#[cfg(test)]
mod interpreter;
mod map;
mod program;
mod rules;
mod tables;
#[cfg(test)]
mod tests;

use arch::Abi;
pub use arch::Machine;
use rules::PLACE;

use crate::error::Diagnostic;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A compiled filter, ready for `seccomp(2)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// `struct sock_filter[]` in the machine's byte order, 8 bytes each.
    pub program: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*`, with NEW_LISTENER when an action notifies.
    pub flags: u32,
    /// The agent that gets the listener, if an action notifies.
    pub notify: Option<Notify>,
    /// Whether it lets a process make the calls of `WAITING`.
    #[serde(default)]
    pub lets_wait: bool,
    /// Whether it lets a process make those of `CLONING`, too.
    #[serde(default)]
    pub lets_clone: bool,
    /// Whether it lets a process execute a program and exit, with any arguments.
    #[serde(default)]
    pub lets_execute: bool,
}

/// The system calls of the stage between loading the filter and executing the program, with the wait for `start` in
/// between.
const WAITING: [&str; 9] =
    ["sendmsg", "capset", "prctl", "sendto", "read", "accept4", "close", "prlimit64", "nanosleep"];

/// The same as the stage's `step::CLONE_FLAGS`; a test of plans compares the two.
const CLONE_FLAGS: u64 = libc::CLONE_PARENT as u64;

/// The calls that it makes besides where its process is cloned after the filter is loaded, together with clone(2)
/// without namespaces.
const CLONING: [&str; 5] = ["setsid", "ioctl", "rt_sigaction", "sched_setattr", "exit_group"];

/// The agent that gets the listener of a notifying filter, and the metadata for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    pub listener_path: PathBuf,
    pub metadata: Option<String>,
}

/// The kernel's limit for one filter (BPF_MAXINSNS).
const MOST_INSTRUCTIONS: usize = 4096;

/// Compiles for the machine that this build runs on.
pub fn compile(seccomp: &LinuxSeccomp, warnings: &mut Vec<Diagnostic>) -> Result<Filter, Vec<Diagnostic>> {
    compile_for(Machine::NATIVE, seccomp, warnings)
}

pub fn compile_for(
    machine: Machine,
    seccomp: &LinuxSeccomp,
    warnings: &mut Vec<Diagnostic>,
) -> Result<Filter, Vec<Diagnostic>> {
    let mut findings = Vec::new();
    let mut rules = rules::read(seccomp, warnings, &mut findings);
    let abis = arch::listed(machine, seccomp.architectures().as_deref().unwrap_or_default(), warnings);
    let notify = listener(seccomp, warnings, &mut findings);
    let flags = flags(seccomp, notify.is_some(), warnings);
    if !findings.is_empty() {
        return Err(findings);
    }

    let maps = map::build(&mut rules, &abis);
    let program = program::assemble(&maps, &rules);
    let count = program.len() / 8;
    if count > MOST_INSTRUCTIONS {
        let message = format!("the filter needs {count} instructions; the kernel takes {MOST_INSTRUCTIONS}");
        return Err(vec![Diagnostic::new(format!("{PLACE}.syscalls"), message)]);
    }
    let native = maps.first().zip(abis.first());
    let number = |name: &str, abi: &Abi| tables::find(name).map(|call| call.1[abi.column] | abi.offset);
    let allows = |names: &[&str]| {
        native.is_some_and(|(map, abi)| {
            names.iter().all(|name| number(name, abi).is_some_and(|number| map.allows(number)))
        })
    };
    let clones = native.is_some_and(|(map, abi)| {
        number("clone", abi)
            .is_some_and(|number| rules::lets_through(map.action(&rules, number, CLONE_FLAGS)))
    });
    let lets_wait = allows(&WAITING);
    let lets_clone = lets_wait && clones && allows(&CLONING);
    let lets_execute = allows(&["execve", "exit_group"]);
    Ok(Filter { program, flags, notify, lets_wait, lets_clone, lets_execute })
}

/// The names that no machine knows, as errors, which an annotation of crun's asks for.
pub fn unknown_calls(seccomp: &LinuxSeccomp) -> Vec<Diagnostic> {
    let rules = seccomp.syscalls().as_deref().unwrap_or_default().iter().enumerate();
    let names = rules.flat_map(|(entry, rule)| {
        rule.names().iter().enumerate().map(move |(index, name)| (entry, index, name))
    });
    let unknown = names.filter(|(.., name)| tables::find(name).is_none());
    unknown
        .map(|(entry, index, name)| {
            let text = format!("{name:?} is not a system call that this build knows");
            Diagnostic::new(format!("{PLACE}.syscalls[{entry}].names[{index}]"), text)
        })
        .collect()
}

/// The agent for notifications; a profile without a notifying rule has no listener.
fn listener(
    seccomp: &LinuxSeccomp,
    warnings: &mut Vec<Diagnostic>,
    findings: &mut Vec<Diagnostic>,
) -> Option<Notify> {
    let path = seccomp.listener_path().as_ref().filter(|path| !path.as_os_str().is_empty());
    let metadata = seccomp.listener_metadata();
    let rules = seccomp.syscalls().as_deref().unwrap_or_default();
    let notifies = rules.iter().any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify);
    if metadata.is_some() && path.is_none() {
        findings.push(Diagnostic::new(format!("{PLACE}.listenerMetadata"), "is set without a listenerPath"));
    }
    match (notifies, path) {
        (true, Some(path)) => Some(Notify { listener_path: path.clone(), metadata: metadata.clone() }),
        (true, None) => {
            let message = "is missing, and a rule has the action SCMP_ACT_NOTIFY";
            findings.push(Diagnostic::new(format!("{PLACE}.listenerPath"), message));
            None
        }
        (false, Some(_)) => {
            let message = "is not used: no rule has the action SCMP_ACT_NOTIFY";
            warnings.push(Diagnostic::warning(format!("{PLACE}.listenerPath"), message));
            None
        }
        (false, None) => None,
    }
}

const TSYNC: u32 = 1;
const LOG: u32 = 1 << 1;
const SPEC_ALLOW: u32 = 1 << 2;
const NEW_LISTENER: u32 = 1 << 3;
const TSYNC_ESRCH: u32 = 1 << 4;
const WAIT_KILLABLE_RECV: u32 = 1 << 5;

fn flags(seccomp: &LinuxSeccomp, notifies: bool, warnings: &mut Vec<Diagnostic>) -> u32 {
    use LinuxSeccompFilterFlag as Flag;
    // runc and crun leave the speculative store bypass mitigation off unless a list, be it empty, says
    // otherwise.
    let Some(list) = seccomp.flags() else { return SPEC_ALLOW | if notifies { NEW_LISTENER } else { 0 } };
    let mut flags = if notifies { NEW_LISTENER } else { 0 };
    for (index, flag) in list.iter().enumerate() {
        flags |= match flag {
            Flag::SeccompFilterFlagTsync => TSYNC,
            Flag::SeccompFilterFlagLog => LOG,
            Flag::SeccompFilterFlagSpecAllow => SPEC_ALLOW,
            Flag::SeccompFilterFlagWaitKillableRecv if !notifies => {
                // The kernel refuses the flag on a filter without a listener, where it could have no effect.
                let message = "has no effect without SCMP_ACT_NOTIFY and is left out";
                warnings.push(Diagnostic::warning(format!("{PLACE}.flags[{index}]"), message));
                0
            }
            Flag::SeccompFilterFlagWaitKillableRecv => WAIT_KILLABLE_RECV,
        };
    }
    // With both, seccomp(2) could answer with a thread id or with the listener; the kernel (5.7) takes the
    // two together only if a failed synchronisation is reported as ESRCH instead.
    if flags & (TSYNC | NEW_LISTENER) == TSYNC | NEW_LISTENER {
        flags |= TSYNC_ESRCH;
    }
    flags
}

/// The actions, by their names in a profile.
pub fn known_actions() -> &'static [&'static str] {
    &[
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_LOG",
        "SCMP_ACT_NOTIFY",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_TRAP",
    ]
}

/// The comparisons of arguments, by their names in a profile.
pub fn known_operators() -> &'static [&'static str] {
    &[
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_LE",
        "SCMP_CMP_LT",
        "SCMP_CMP_MASKED_EQ",
        "SCMP_CMP_NE",
    ]
}

/// The architectures that this build writes filters for, by their names in a profile.
pub fn known_architectures() -> &'static [&'static str] {
    match Machine::NATIVE {
        Machine::X86_64 => &["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
        Machine::Aarch64 => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    }
}

/// The filter flags, by their names in a profile.
/// With the bits by which a kernel can be asked for them.
pub fn known_flags() -> &'static [(&'static str, u32)] {
    &[
        ("SECCOMP_FILTER_FLAG_LOG", LOG),
        ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", SPEC_ALLOW),
        ("SECCOMP_FILTER_FLAG_TSYNC", TSYNC),
        // The kernel takes it with this one alone.
        ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", WAIT_KILLABLE_RECV | NEW_LISTENER),
    ]
}

//! Checks of the `process` object: what will be passed to execve, and with which identity.
//! Scheduling, I/O priority and affinity are in `scheduling.rs`.

use super::found::{Found, each};
use super::scheduling;
use oci_spec::runtime::{Capabilities, LinuxCapabilities, Process, User};

/// execve(2) accepts at most 3/4 of 8 MiB for arguments and environment, pointers included.
const MAX_ARGS_AND_ENV: usize = 6 << 20;

/// setresuid(2) and setgroups(2) read this id as "unchanged", so no user can have it.
pub(crate) const NO_ID: u32 = u32::MAX;

pub(crate) fn check(process: &Process, found: &mut Found) {
    args(process, found);
    env(each(process.env()), "process.env", found);
    let strings = each(process.args()).iter().chain(each(process.env()));
    let total: usize = strings.map(|s| s.len() + 1 + size_of::<usize>()).sum();
    if total > MAX_ARGS_AND_ENV {
        let text = format_args!("args and env need {total} bytes; execve takes at most {MAX_ARGS_AND_ENV}");
        found.problem("process.args", text);
    }
    found.absolute(process.cwd(), "process.cwd");
    user(process.user(), found);
    rlimits(process, found);
    if let Some(capabilities) = process.capabilities() {
        self::capabilities(capabilities, found);
    }
    if let Some(score) = process.oom_score_adj().filter(|score| !(-1000..=1000).contains(score)) {
        found.problem("process.oomScoreAdj", format_args!("{score} is not from -1000 to 1000"));
    }
    console(process, found);
    for (label, at) in [
        (process.apparmor_profile(), "process.apparmorProfile"),
        (process.selinux_label(), "process.selinuxLabel"),
    ] {
        found.text(label.as_deref().unwrap_or_default(), at);
    }
    if process.command_line().is_some() {
        found.warning("process.commandLine", "ignored: it is for Windows");
    }
    scheduling::check(process, found);
}

fn args(process: &Process, found: &mut Found) {
    let args = each(process.args());
    if args.is_empty() {
        found.missing("process.args", "missing or empty; the program is its first element");
    }
    for (i, arg) in args.iter().enumerate() {
        found.text(arg, format_args!("process.args[{i}]"));
    }
}

/// Names only: values may be secrets, and findings end up in logs.
pub(crate) fn env(env: &[String], at: &str, found: &mut Found) {
    for (i, entry) in env.iter().enumerate() {
        match entry.split_once('=') {
            None => found.problem(format_args!("{at}[{i}]"), "has no '='; the form is NAME=value"),
            Some(("", _)) => found.problem(format_args!("{at}[{i}]"), "has no name before '='"),
            Some(_) => found.text(entry, format_args!("{at}[{i}]")),
        }
    }
}

fn user(user: &User, found: &mut Found) {
    let at = "process.user";
    for (id, name) in [(user.uid(), "uid"), (user.gid(), "gid")] {
        if id == NO_ID {
            found.problem(
                format_args!("{at}.{name}"),
                "4294967295 is no id; the kernel reads it as \"unchanged\"",
            );
        }
    }
    let groups = each(user.additional_gids());
    for (i, _) in groups.iter().enumerate().filter(|(_, gid)| **gid == NO_ID) {
        found.problem(format_args!("{at}.additionalGids[{i}]"), "4294967295 is no group id");
    }
    // NGROUPS_MAX
    if groups.len() > 65_536 {
        let text = format_args!("{} groups; the kernel takes at most 65536", groups.len());
        found.problem(format_args!("{at}.additionalGids"), text);
    }
    if let Some(umask) = user.umask().filter(|umask| *umask > 0o777) {
        let text = format_args!(
            "{umask} (octal {umask:o}): bits above octal 777 have no meaning; JSON has no octal numbers"
        );
        found.warning(format_args!("{at}.umask"), text);
    }
    if user.username().as_ref().is_some_and(|name| !name.is_empty()) {
        found.warning(format_args!("{at}.username"), "ignored: it is for Windows; uid and gid decide");
    }
}

fn rlimits(process: &Process, found: &mut Found) {
    let rlimits = each(process.rlimits());
    for (i, rlimit) in rlimits.iter().enumerate() {
        if let Some(first) = rlimits[..i].iter().position(|other| other.typ() == rlimit.typ()) {
            let text = format_args!("{} is already set by process.rlimits[{first}]", rlimit.typ());
            found.problem(format_args!("process.rlimits[{i}].type"), text);
        }
        if rlimit.soft() > rlimit.hard() {
            let text = format_args!("{} is more than the hard limit, {}", rlimit.soft(), rlimit.hard());
            found.problem(format_args!("process.rlimits[{i}].soft"), text);
        }
    }
}

/// The spec wants warnings for what cannot be granted, and a container that starts with the rest.
fn capabilities(capabilities: &LinuxCapabilities, found: &mut Found) {
    let missing = |wanted: &Option<Capabilities>, from: &Option<Capabilities>| {
        let lacks = |cap: &&_| !from.as_ref().is_some_and(|set| set.contains(cap));
        let mut names: Vec<String> =
            wanted.iter().flatten().filter(lacks).map(|cap| format!("CAP_{cap}")).collect();
        names.sort_unstable();
        names.join(", ")
    };
    let rules = [
        ("effective", capabilities.effective(), "permitted", capabilities.permitted()),
        ("ambient", capabilities.ambient(), "permitted", capabilities.permitted()),
        ("ambient", capabilities.ambient(), "inheritable", capabilities.inheritable()),
    ];
    for (set, wanted, of, from) in rules {
        let names = missing(wanted, from);
        if !names.is_empty() {
            let text = format_args!("cannot be granted, because {of} does not have it: {names}");
            found.warning(format_args!("process.capabilities.{set}"), text);
        }
    }
}

/// The size is ignored without a terminal (config.md, "process"); engines send it all the same.
fn console(process: &Process, found: &mut Found) {
    let Some(size) = process.console_size().filter(|_| process.terminal() == Some(true)) else { return };
    for (value, name) in [(size.height(), "height"), (size.width(), "width")] {
        if value > u16::MAX.into() {
            found.problem(
                format_args!("process.consoleSize.{name}"),
                format_args!("{value} is more than 65535"),
            );
        }
    }
}

//! `process`: limits, identity and program, for a container's init and for processes of `exec`.

use super::request::Request;
use super::{Handed, Plan, Text, capabilities};
use crate::error::{Error, Result};
use crate::host::{Host, Lsm, resource};
use crate::seccomp::Filter;
use crate::step::{Fd, Secret, Step};
use oci_spec::runtime::{IOPriorityClass, Linux, LinuxSchedulerPolicy, MemoryPolicyFlagType, Process};
use oci_spec::runtime::{LinuxIdMapping, LinuxPersonalityDomain, LinuxSchedulerFlag};
use oci_spec::runtime::{PosixRlimit, PosixRlimitType, Spec};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// What the steps of a process depend on.
pub(super) struct Work<'a> {
    pub env: Vec<String>,
    pub host: &'a Host,
    pub in_user_namespace: bool,
    pub keeps_groups: bool,
    /// Whether it is the container's own process, and not one of `exec`.
    pub is_init: bool,
    /// The program, where it is given by descriptor.
    pub program: Option<Fd>,
    /// Whether the process has its identity before it is cloned.
    pub cloned_late: bool,
}

/// crun's annotation, which Podman sets for `--group-add keep-groups`: the process keeps the caller's groups, and so
/// access to files by a group that cannot be mapped.
const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

/// Not for the host's root: an image can have the annotation, and a user of the container would be in the host's group
/// root. Other callers have few groups, and Podman has no other way to ask for this.
pub(super) fn keeps_groups(spec: &Spec, host: &Host) -> bool {
    asks_for_groups(spec) && (host.rootless() || host.in_user_namespace)
}

fn asks_for_groups(spec: &Spec) -> bool {
    spec.annotations().as_ref().is_some_and(|annotations| annotations.contains_key(KEEP_GROUPS))
}

pub(super) fn warn_of_groups(plan: &mut Plan, spec: &Spec, host: &Host) {
    if asks_for_groups(spec) && !keeps_groups(spec, host) {
        let message = "ignored: the caller is the host's root, whose groups an image must not get";
        plan.warn(format!("annotations[{KEEP_GROUPS}]"), message);
    }
}

/// The most processors that a kernel is built for (`CONFIG_NR_CPUS`).
const MOST_PROCESSORS: usize = 8192;

pub(super) fn oom_score(plan: &mut Plan, process: &Process) {
    if let Some(score) = process.oom_score_adj() {
        let (path, value) = (Text::of("oom_score_adj"), Text::data(score.to_string()));
        plan.push("process.oomScoreAdj", Step::WriteProcess { path, value });
    }
}

/// Makes the stage not dumpable, unless the caller lacks CAP_SYS_PTRACE: then hooks and `exec` could not join the
/// namespaces of such a process either. In that case the container's processes do not have the capability over the
/// stage either.
pub(super) fn not_dumpable(plan: &mut Plan, host: &Host) {
    if !host.rootless() && host.capabilities & capabilities::SYS_PTRACE != 0 {
        plan.push("", Step::NotDumpable);
    }
}

/// Joins the v1 cgroups; the process is cloned into that of v2. The files of a new container are sent `later`, because
/// its cgroups are made while its process starts.
pub(super) fn join_cgroups(plan: &mut Plan, host: &Host, later: bool) {
    let place = "linux.cgroupsPath";
    let mut files = Vec::new();
    for tasks in &host.cgroup_tasks {
        files.push((plan.hand_another(place, Handed::CgroupTasks(tasks.clone())), Text::path(tasks)));
    }
    if let (true, Some((first, _))) = (later, files.first()) {
        plan.push(place, Step::ReceiveFds { first: *first, count: files.len() as u16 });
    }
    for (fd, tasks) in files {
        plan.push(place, Step::JoinCgroup { fd, tasks });
    }
}

/// Undoes the caller's own CPU affinity: the kernel reduces this mask to the cpuset, which is joined by now. runc from
/// 1.5 and crun from 1.28 do the same.
pub(super) fn reset_affinity(plan: &mut Plan) {
    const ALL: [u8; MOST_PROCESSORS / 8] = [0xff; MOST_PROCESSORS / 8];
    plan.push("linux.resources.cpu.cpus", Step::SetAffinity { mask: Text::data(ALL) });
}

/// A session keyring has a name, by which `exec` finds the container's. All processes of the same user can find it so:
/// with a name that can be guessed, another container could make the keyring first, and read and choose its keys.
pub(super) fn keyring(plan: &mut Plan, process: &Process, request: &Request) {
    let name = match request.keyring_secret.as_str() {
        "" => format!("_ses.{}", request.id),
        secret => format!("_ses.{}.{secret}", request.id),
    };
    let label = process.selinux_label().as_deref().unwrap_or_default();
    let label = if label.is_empty() { Text::data([]) } else { Text::data(label.as_bytes()) };
    plan.push("", Step::JoinSessionKeyring { name: Text::of(name), label });
}

pub(super) fn open_console(plan: &mut Plan, process: &Process, request: &Request) -> Result<()> {
    if !request.console_socket {
        return Err(Error::unsupported("a terminal without a socket to hand it to")
            .at("process.terminal")
            .with_hint("give a console socket, or set terminal to false"));
    }
    let socket = plan.hand("process.terminal", Handed::ConsoleSocket);
    let size = process.console_size();
    let (columns, rows) =
        size.map_or((0, 0), |size| (size.width().min(0xffff) as u16, size.height().min(0xffff) as u16));
    let (uid, relayed) = (process.user().uid(), request.relayed_console);
    plan.push("process.terminal", Step::OpenConsole { socket, columns, rows, uid, relayed });
    Ok(())
}

/// Whether the standard streams get their new owner before the user namespace is entered. In a user namespace that root
/// has made, their present owner is not mapped, so they cannot be changed there. Without maps the new owner is known
/// only inside.
pub(super) fn owns_streams_outside(host: &Host, linux: &Linux, in_user_namespace: bool) -> bool {
    let has_maps = linux.uid_mappings().as_ref().is_some_and(|rows| !rows.is_empty());
    !host.rootless() && (has_maps || !in_user_namespace)
}

/// Gives standard input, output and error to the process's user, so that it can open `/dev/stdout`; a terminal belongs
/// to it already. `maps` are the maps from its user namespace to the one in which the step is done.
pub(super) fn own_streams(plan: &mut Plan, process: &Process, maps: Option<&[LinuxIdMapping]>) {
    let inside = process.user().uid();
    let mapped = |row: &LinuxIdMapping| {
        let offset = inside.checked_sub(row.container_id()).filter(|offset| *offset < row.size());
        offset.and_then(|offset| row.host_id().checked_add(offset))
    };
    let uid = maps.map_or(Some(inside), |rows| rows.iter().find_map(mapped));
    if let (Some(uid), false) = (uid, process.terminal().unwrap_or(false)) {
        plan.push("process.user.uid", Step::ChownStreams { uid });
    }
}

/// Raises the caller's hard limits to the wanted ones while the privilege for that is there: it is dropped before the
/// limits are set, and a user namespace does not have it.
pub(super) fn raise_rlimits(plan: &mut Plan, process: &Process, host: &Host) {
    for (at, limit) in process.rlimits().iter().flatten().enumerate() {
        let resource = resource(limit.typ());
        if let Some((soft, hard)) = host.rlimit(resource)
            && limit.hard() > hard
        {
            let step = Step::SetRlimit { resource, soft, hard: limit.hard() };
            plan.push(format!("process.rlimits[{at}]"), step);
        }
    }
}

/// The most descriptors that the stage has open besides its sources.
const OTHER_FILES: u64 = crate::step::MAX_FDS as u64 + 64;

/// The step that raises the soft limit of open files, where more sources are open at a time than the caller's limit
/// allows.
fn more_open_files(plan: &Plan, process: &Process, host: &Host) -> Option<Step<Text>> {
    let resource = resource(PosixRlimitType::RlimitNofile);
    let (soft, hard) = host.rlimit(resource)?;
    let wanted = open_files_of(process).map_or(hard, |limit| limit.hard().max(hard));
    let needed = plan.sources as u64 + OTHER_FILES;
    (needed > soft && soft < wanted).then_some(Step::SetRlimit { resource, soft: wanted, hard: wanted })
}

fn open_files_of(process: &Process) -> Option<&PosixRlimit> {
    process.rlimits().iter().flatten().find(|limit| limit.typ() == PosixRlimitType::RlimitNofile)
}

/// `at` is where the sources begin.
pub(super) fn raise_open_files(plan: &mut Plan, at: usize, process: &Process, host: &Host) {
    if let Some(step) = more_open_files(plan, process, host) {
        plan.steps.insert(at, (step, "mounts".into()));
    }
}

/// Restores the caller's limit for the program, unless the program has one of its own.
pub(super) fn lower_open_files(plan: &mut Plan, process: &Process, host: &Host) {
    let resource = resource(PosixRlimitType::RlimitNofile);
    if let Some((soft, hard)) = host.rlimit(resource)
        && open_files_of(process).is_none()
        && more_open_files(plan, process, host).is_some()
    {
        plan.push("mounts", Step::SetRlimit { resource, soft, hard });
    }
}

/// Scheduling properties that a child inherits. It need not inherit the scheduler itself (`SCHED_RESET_ON_FORK`,
/// sched(7)).
pub(super) fn scheduling(plan: &mut Plan, process: &Process, linux: &Linux) -> Result<()> {
    if let Some(priority) = process.io_priority() {
        let class: u32 = match priority.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        let value = class << 13 | priority.priority() as u32 & 0x1fff;
        plan.push("process.ioPriority", Step::SetIoPriority { value });
    }
    if let Some(personality) = linux.personality() {
        let persona = match personality.domain() {
            LinuxPersonalityDomain::PerLinux => 0,
            LinuxPersonalityDomain::PerLinux32 => 8,
        };
        plan.push("linux.personality", Step::SetPersonality { persona });
    }
    memory_policy(plan, linux)?;
    Ok(())
}

pub(super) fn umask(plan: &mut Plan, mask: u32) {
    plan.push("process.user.umask", Step::SetUmask { mask });
}

/// For a process that makes files with modes of its own.
pub(super) fn reset_signals_and_umask(plan: &mut Plan) {
    plan.push("", Step::ResetSignals);
    plan.push("", Step::SetUmask { mask: 0 });
}

/// struct sched_attr, version 0: 48 bytes (sched_setattr(2)).
pub(super) fn scheduler(plan: &mut Plan, process: &Process) {
    let Some(scheduler) = process.scheduler() else { return };
    let policy: u32 = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flag = |flag: &LinuxSchedulerFlag| -> u64 {
        match flag {
            LinuxSchedulerFlag::SchedResetOnFork => 0x01,
            LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
            LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
            LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
            LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
            LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
        }
    };
    let flags = scheduler.flags().iter().flatten().fold(0, |flags, one| flags | flag(one));
    let mut attr = Vec::with_capacity(48);
    attr.extend(48u32.to_ne_bytes());
    attr.extend(policy.to_ne_bytes());
    attr.extend(flags.to_ne_bytes());
    attr.extend(scheduler.nice().unwrap_or(0).to_ne_bytes());
    attr.extend(scheduler.priority().unwrap_or(0).to_ne_bytes());
    for time in [scheduler.runtime(), scheduler.deadline(), scheduler.period()] {
        attr.extend(time.unwrap_or(0).to_ne_bytes());
    }
    plan.push("process.scheduler", Step::SetScheduler { attr: Text::data(attr) });
}

fn memory_policy(plan: &mut Plan, linux: &Linux) -> Result<()> {
    let Some(policy) = linux.memory_policy() else { return Ok(()) };
    let flag = |flag: &MemoryPolicyFlagType| -> u32 {
        match flag {
            MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
            MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
            MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
        }
    };
    use oci_spec::runtime::MemoryPolicyModeType::*;
    let mode = match policy.mode() {
        MpolDefault => 0,
        MpolPreferred => 1,
        MpolBind => 2,
        MpolInterleave => 3,
        MpolLocal => 4,
        MpolPreferredMany => 5,
        MpolWeightedInterleave => 6,
    };
    let flags = policy.flags().iter().flatten().fold(0, |flags, one| flags | flag(one));
    let nodes = bit_set(policy.nodes().as_deref().unwrap_or_default(), "linux.memoryPolicy.nodes")?;
    plan.push("linux.memoryPolicy", Step::SetMemoryPolicy { mode: mode | flags, nodes: Text::data(nodes) });
    Ok(())
}

/// A list such as `0-3,8` as a bit set in words of 64 bits.
pub(super) fn bit_set(list: &str, at: &str) -> Result<Vec<u8>> {
    let wrong =
        || Error::unsupported(format!("{list:?} is not a list of numbers and ranges below 8192")).at(at);
    let mut bits: Vec<u8> = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number =
            |text: &str| text.parse::<usize>().ok().filter(|n| *n < MOST_PROCESSORS).ok_or_else(wrong);
        for bit in number(first)?..=number(last)? {
            let words = bit / 64 + 1;
            bits.resize(bits.len().max(words * 8), 0);
            bits[bit / 8] |= 1 << (bit % 8);
        }
    }
    Ok(bits)
}

/// Working directory, label, ids and capabilities, as far as they are set before the start. `close` closes all
/// descriptors that the program does not get.
pub(super) fn identity(
    plan: &mut Plan,
    process: &Process,
    work: &Work,
    filter: Option<&Filter>,
    close: Step<Text>,
) -> Result<()> {
    plan.push("process.cwd", Step::Chdir { path: Text::path(process.cwd()), make: work.is_init });
    let has_home = work.env.iter().any(|entry| entry.starts_with("HOME=") && entry.len() > 5);
    if !has_home {
        plan.push("process.user.uid", Step::FindHome { uid: process.user().uid() });
    }
    labels(plan, process, work.host)?;
    let user = process.user();
    let groups: Vec<u8> = user.additional_gids().iter().flatten().flat_map(|gid| gid.to_ne_bytes()).collect();
    if work.keeps_groups {
        if !groups.is_empty() {
            plan.warn(
                "process.user.additionalGids",
                format!("left out, because of annotations[{KEEP_GROUPS}]"),
            );
        }
    } else if !((work.host.rootless() || work.host.groups_are_fixed) && groups.is_empty()) {
        plan.push("process.user.additionalGids", Step::SetGroups { groups: Text::data(groups) });
    }
    let sets = capabilities::sets(plan, process.capabilities().as_ref(), work.host, work.in_user_namespace);
    plan.push("process.capabilities.bounding", Step::DropBounding { keep: sets.bounding });
    plan.push("process.user", Step::SetIds { uid: user.uid(), gid: user.gid() });
    let later = if work.cloned_late { for_scheduler(process) } else { 0 };
    let also = for_filter(process, filter) | later;
    // Before capabilities are dropped: with no more capabilities than a process of the container, this one could be
    // traced by that process wherever it is visible, as in the host's pid namespace (ptrace(2), "Ptrace access mode
    // checking").
    plan.push("", close);
    plan.push("process.capabilities", Step::SetCapabilities { sets, also });
    if process.no_new_privileges().unwrap_or(false) {
        plan.push("process.noNewPrivileges", Step::NoNewPrivileges);
    }
    Ok(())
}

/// Loading a filter needs CAP_SYS_ADMIN, unless no_new_privs is set (seccomp(2)).
fn for_filter(process: &Process, filter: Option<&Filter>) -> u64 {
    let no_new_privileges = process.no_new_privileges().unwrap_or(false);
    if filter.is_some() && !no_new_privileges { capabilities::SYS_ADMIN } else { 0 }
}

fn for_scheduler(process: &Process) -> u64 {
    if process.scheduler().is_some() { capabilities::SYS_NICE } else { 0 }
}

/// The scheduler of a process that is cloned with its identity.
pub(super) fn scheduler_of_clone(plan: &mut Plan, process: &Process, work: &Work, filter: Option<&Filter>) {
    if for_scheduler(process) != 0 {
        scheduler(plan, process);
        capabilities_again(plan, process, work, for_filter(process, filter));
    }
}

fn capabilities_again(plan: &mut Plan, process: &Process, work: &Work, also: u64) {
    let before = plan.warnings.len();
    let sets = capabilities::sets(plan, process.capabilities().as_ref(), work.host, work.in_user_namespace);
    // These warnings were given when the sets were planned the first time.
    plan.warnings.truncate(before);
    plan.push("process.capabilities", Step::SetCapabilities { sets, also });
}

/// With both modules, a child inherits what its parent has written for the next execve(2): SELinux keeps it with the
/// credentials, AppArmor copies it when a task is made.
fn labels(plan: &mut Plan, process: &Process, host: &Host) -> Result<()> {
    let profile = process.apparmor_profile().as_deref().filter(|profile| !profile.is_empty());
    let label = process.selinux_label().as_deref().filter(|label| !label.is_empty());
    if let Some(profile) = profile {
        lacks(host, Lsm::AppArmor, "process.apparmorProfile")?;
        let path = if host.apparmor_has_own_attributes { "attr/apparmor/exec" } else { "attr/exec" };
        let value = Text::data(format!("exec {profile}"));
        plan.push("process.apparmorProfile", Step::WriteProcess { path: Text::of(path), value });
    }
    if let Some(label) = label {
        lacks(host, Lsm::SELinux, "process.selinuxLabel")?;
        let value = Text::data(label.as_bytes());
        plan.push("process.selinuxLabel", Step::WriteProcess { path: Text::of("attr/exec"), value });
    }
    Ok(())
}

pub(super) fn lacks(host: &Host, lsm: Lsm, at: &str) -> Result<()> {
    if host.lsms.contains(&lsm) {
        return Ok(());
    }
    Err(Error::unsupported(format!("{lsm:?} is not active on this host"))
        .within(words_of(lsm))
        .at(at)
        .with_hint("remove the property, or boot with this security module"))
}

/// The words by which engines know that a requested security module is not available.
fn words_of(lsm: Lsm) -> &'static str {
    match lsm {
        Lsm::SELinux => "selinux label is specified in config, but selinux is disabled or not supported",
        _ => "unable to apply apparmor profile",
    }
}

/// The limits themselves are set last: a low one would hinder the remaining set-up.
fn rlimits(plan: &mut Plan, process: &Process) {
    for (at, limit) in process.rlimits().iter().flatten().enumerate() {
        let step =
            Step::SetRlimit { resource: resource(limit.typ()), soft: limit.soft(), hard: limit.hard() };
        plan.push(format!("process.rlimits[{at}]"), step);
    }
}

/// The last steps: limits, the filter, and the program.
pub(super) fn execute(
    plan: &mut Plan,
    process: &Process,
    work: &Work,
    filter: Option<&Filter>,
) -> Result<()> {
    rlimits(plan, process);
    load_filter(plan, process, work, filter, 0);
    let (paths, args) = program(process, work)?;
    let mut env = Text::default();
    work.env.iter().filter(|entry| *entry != "HOME=").for_each(|entry| env.push(entry));
    let env = Secret(env);
    plan.push(
        "process.args[0]",
        match work.program {
            Some(program) => Step::ExecFd { program, args, env },
            None => Step::Exec { paths, args, env },
        },
    );
    Ok(())
}

/// `also` are capabilities that are still needed after it.
fn load_filter(plan: &mut Plan, process: &Process, work: &Work, filter: Option<&Filter>, also: u64) {
    let Some(filter) = filter else { return };
    let (program, notify) = (Text::data(filter.program.clone()), filter.notify.is_some());
    plan.push("linux.seccomp", Step::SetSeccomp { program, flags: filter.flags, notify });
    if for_filter(process, Some(filter)) != 0 {
        capabilities_again(plan, process, work, also);
    }
}

/// Loads the filter before the process is cloned into a pid namespace with other processes, if the filter allows that
/// clone: then no process with the CAP_SYS_ADMIN that loading needs is visible there. A process with CAP_SYS_PTRACE
/// could use it, because being not dumpable is no protection in its own user namespace (ptrace(2)). A listener has to
/// be sent by the clone, whose pid the agent gets. `filter` is `None` afterwards.
pub(super) fn load_filter_before_clone(
    plan: &mut Plan,
    process: &Process,
    work: &Work,
    filter: &mut Option<&Filter>,
) {
    let lets = |filter: &Filter| filter.lets_clone && filter.notify.is_none();
    if for_filter(process, *filter) != 0 && filter.is_some_and(lets) {
        load_filter(plan, process, work, filter.take(), for_scheduler(process));
    }
}

/// The same before the wait for `start`, during which `exec` may bring other processes; a listener's agent may also
/// wait for it then.
pub(super) fn load_filter_before_start(
    plan: &mut Plan,
    process: &Process,
    work: &Work,
    filter: &mut Option<&Filter>,
) {
    let wanted = |filter: &Filter| filter.notify.is_some() || for_filter(process, Some(filter)) != 0;
    if filter.is_some_and(|filter| filter.lets_wait && wanted(filter)) {
        load_filter(plan, process, work, filter.take(), 0);
    }
}

/// Ascending numbers as the ranges of [`Step::CloseFds`].
pub(super) fn ranges(numbers: &[u32]) -> Text {
    let mut ranges: Vec<[u32; 2]> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some([_, last]) if *last + 1 == *number => *last = *number,
            _ => ranges.push([*number; 2]),
        }
    }
    Text::data(ranges.into_iter().flatten().flat_map(u32::to_ne_bytes).collect::<Vec<_>>())
}

/// Where the program may be, and its arguments.
fn program(process: &Process, work: &Work) -> Result<(Text, Text)> {
    let args = process.args().as_deref().unwrap_or_default();
    let name = args.first().ok_or_else(|| Error::unsupported("a process without args").at("process.args"))?;
    let mut texts = Text::default();
    args.iter().for_each(|arg| texts.push(arg));
    Ok((candidates(name, &work.env), texts))
}

/// Engines expect the error of a missing program when they create a container, not when they start it.
pub(super) fn find_program(plan: &mut Plan, process: &Process, work: &Work) -> Result<()> {
    let (paths, args) = program(process, work)?;
    plan.push("process.args[0]", Step::FindProgram { paths, args });
    Ok(())
}

/// Of two entries with one name the last one is kept, in place of the first: programs disagree on which of them they
/// read.
pub(super) fn environment(env: &[String]) -> Vec<String> {
    let name = |entry: &str| entry.split_once('=').map_or(entry.len(), |(name, _)| name.len());
    let mut places: HashMap<&str, usize> = HashMap::with_capacity(env.len());
    let mut found: Vec<String> = Vec::with_capacity(env.len());
    for entry in env {
        match places.entry(&entry[..name(entry)]) {
            Entry::Occupied(place) => found[*place.get()].clone_from(entry),
            Entry::Vacant(place) => {
                place.insert(found.len());
                found.push(entry.clone());
            }
        }
    }
    found
}

/// Every path that execvp(3) would try; none where the environment has no PATH, as with runc and crun.
pub(super) fn candidates(program: &str, env: &[String]) -> Text {
    let mut paths = Text::default();
    if program.contains('/') {
        paths.push(program);
        return paths;
    }
    if program.is_empty() {
        // execvp(3) finds nothing by this name; without this a directory of PATH would be tried.
        return paths;
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH="));
    for directory in path.into_iter().flat_map(|path| path.split(':')) {
        let directory = if directory.is_empty() { "." } else { directory };
        paths.push(format!("{directory}/{program}"));
    }
    paths
}

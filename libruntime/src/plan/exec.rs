//! THE order in which a process joins a running container.

use super::request::Request;
use super::{Handed, Plan, Text, process};
use crate::error::Result;
use crate::host::Host;
use crate::namespaces::{has, listed};
use crate::seccomp::Filter;
use crate::step::{CHANNEL, NamespaceFlags, Secret, Step, SyncPoint};
use oci_spec::runtime::{Hook, LinuxNamespaceType as Ns, Process, Spec};

/// The plan that runs `process` in the container of `spec`, which runs as the process behind [`Handed::Pidfd`]. What
/// can be done outside its pid namespace is done there: from the clone on, its members see the process, and one with
/// CAP_SYS_PTRACE can get its descriptors (pidfd_getfd(2)) and capabilities.
pub fn exec(
    spec: &Spec,
    process: &Process,
    host: &Host,
    request: &Request,
    filter: Option<&Filter>,
) -> Result<Plan> {
    let mut plan = Plan::new();
    let linux = spec.linux().clone().unwrap_or_default();
    let in_user_namespace = has(listed(spec), Ns::User);
    let namespaces = listed(spec).iter().fold(0, |flags, namespace| flags | namespace.typ() as u64);
    let affinity = process.exec_cpu_affinity().as_ref();

    super::create::enter_cgroup(&mut plan, host, NamespaceFlags(0));
    plan.push("", Step::ResetSignals);
    process::oom_score(&mut plan, process);
    let initial = affinity.and_then(|affinity| affinity.initial().as_deref());
    run_on(&mut plan, "process.execCPUAffinity.initial", initial)?;
    process::raise_rlimits(&mut plan, process, host);
    join_cgroups(&mut plan, process, host);
    let streams_outside = process::owns_streams_outside(host, &linux, in_user_namespace);
    if streams_outside {
        process::own_streams(&mut plan, process, linux.uid_mappings().as_deref());
    }
    // As in creation: after the last write into its own directory of procfs that only the owner may make, and before it
    // has an id of the container.
    process::not_dumpable(&mut plan, host);
    let fd = plan.hand("", Handed::Pidfd);
    plan.push("linux.namespaces", Step::Setns { fd, namespaces: NamespaceFlags(namespaces) });
    if in_user_namespace {
        plan.push("linux.uidMappings", super::create::first_ids(&linux));
    }
    plan.push("root.path", Step::OpenRoot { path: Text::of("/") });
    if process.terminal().unwrap_or(false) {
        // With an id of the namespace: the pty belongs to who opens it, and only an owner that has an id there can be
        // changed by chown(2).
        process::open_console(&mut plan, process, request)?;
        plan.push("process.terminal", Step::UseConsole);
    }
    if !streams_outside {
        process::own_streams(&mut plan, process, None);
    }
    if !request.no_new_keyring {
        process::keyring(&mut plan, process, request);
    }
    process::scheduling(&mut plan, process, &linux)?;
    // Without this it is the caller's, as config.md has it.
    if let Some(mask) = process.user().umask() {
        process::umask(&mut plan, mask);
    }
    let last = affinity.and_then(|affinity| affinity.cpu_affinity_final().as_deref());
    run_on(&mut plan, "process.execCPUAffinity.final", last)?;
    let work = work(spec, process, host);
    let passed = process::ranges(&request.passed);
    let close = Step::CloseFds { passed, keep: CHANNEL, program: CHANNEL };
    process::identity(&mut plan, process, &work, filter, close)?;
    inside(&mut plan, process, &work, filter)?;
    plan.check()?;
    Ok(plan)
}

/// The steps that are left for the process in the pid namespace.
fn inside(
    plan: &mut Plan,
    process: &Process,
    work: &process::Work,
    mut filter: Option<&Filter>,
) -> Result<()> {
    process::load_filter_before_clone(plan, process, work, &mut filter);
    plan.push("linux.namespaces", Step::Clone { namespaces: NamespaceFlags(0) });
    plan.push("", Step::SetSid);
    if process.terminal().unwrap_or(false) {
        plan.push("process.terminal", Step::SetControllingTerminal);
    }
    process::scheduler_of_clone(plan, process, work, filter);
    plan.push("", Step::Sync { point: SyncPoint::Ready });
    process::execute(plan, process, work, filter)
}

fn join_cgroups(plan: &mut Plan, process: &Process, host: &Host) {
    if host.attach_first {
        plan.push("linux.cgroupsPath", Step::Sync { point: SyncPoint::Attached });
    }
    process::join_cgroups(plan, host, false);
    if process.exec_cpu_affinity().is_none() {
        process::reset_affinity(plan);
    }
}

fn work<'a>(spec: &Spec, process: &Process, host: &'a Host) -> process::Work<'a> {
    process::Work {
        env: process::environment(process.env().as_deref().unwrap_or_default()),
        host,
        in_user_namespace: has(listed(spec), Ns::User),
        keeps_groups: process::keeps_groups(spec, host),
        is_init: false,
        program: None,
        cloned_late: true,
    }
}

fn run_on(plan: &mut Plan, place: &'static str, cpus: Option<&str>) -> Result<()> {
    if let Some(cpus) = cpus {
        let mask = Text::data(process::bit_set(cpus, place)?);
        plan.push(place, Step::SetAffinity { mask });
    }
    Ok(())
}

/// The plan that runs a hook in the caller's namespaces, in the directory that is given, if one is.
pub(crate) fn hook(hook: &Hook, place: &str, in_directory: bool) -> Result<Plan> {
    let mut plan = Plan::new();
    plan.push("", Step::ResetSignals);
    if in_directory {
        let fd = plan.hand("", Handed::Directory);
        plan.push(place.to_string(), Step::Fchdir { fd });
    }
    run_hook(plan, hook, place)
}

/// The plan that runs a hook in the namespaces of a container whose root is not entered yet. Its program's path is one
/// of the runtime's mounts; its working directory is the container's root, as with runc. `pid` is the stage's pid. The
/// stage itself may be outside of namespaces that its child will be in.
pub(crate) fn hook_at_root(hook: &Hook, place: &str, spec: &Spec, pid: i32) -> Result<Plan> {
    let mut plan = Plan::new();
    let linux = spec.linux().clone().unwrap_or_default();
    let late = listed(spec).iter().any(|namespace| namespace.typ() == Ns::Pid && namespace.path().is_some());
    let of_child = |kind: Ns| match kind {
        Ns::Pid if late => Some("pid_for_children"),
        Ns::Time if late => Some("time_for_children"),
        _ => None,
    };
    let own = listed(spec).iter().filter(|namespace| of_child(namespace.typ()).is_none());
    let namespaces = own.fold(0, |flags, namespace| flags | namespace.typ() as u64);
    plan.push("", Step::ResetSignals);
    let fd = plan.hand("", Handed::Pidfd);
    plan.push(place.to_string(), Step::Setns { fd, namespaces: NamespaceFlags(namespaces) });
    for kind in listed(spec).iter().map(|namespace| namespace.typ()) {
        if let Some(name) = of_child(kind) {
            let fd = plan.hand(place.to_string(), Handed::Namespace(format!("/proc/{pid}/ns/{name}").into()));
            plan.push(place.to_string(), Step::Setns { fd, namespaces: NamespaceFlags(kind as u64) });
        }
    }
    let fd = plan.hand("", Handed::Directory);
    plan.push(place.to_string(), Step::Fchdir { fd });
    if has(listed(spec), Ns::User) {
        plan.push(place.to_string(), super::create::first_ids(&linux));
    }
    run_hook(plan, hook, place)
}

fn run_hook(mut plan: Plan, hook: &Hook, place: &str) -> Result<Plan> {
    plan.push(place.to_string(), Step::SetUmask { mask: 0o022 });
    let nothing = Step::CloseFds { passed: Text::default(), keep: CHANNEL, program: CHANNEL };
    plan.push(place.to_string(), nothing);
    plan.push(place.to_string(), Step::Clone { namespaces: NamespaceFlags(0) });
    // A session of its own, so that everything it starts can be killed with it.
    plan.push(place.to_string(), Step::SetSid);
    // It waits until the library has its pidfd: where SIGCHLD is ignored, nothing is left of a process that has ended.
    plan.push(place.to_string(), Step::Sync { point: SyncPoint::Ready });
    let (mut args, mut env) = (Text::default(), Text::default());
    arguments(hook).iter().for_each(|arg| args.push(arg));
    hook.env().iter().flatten().for_each(|entry| env.push(entry));
    plan.push(format!("{place}.path"), Step::Exec { paths: Text::path(hook.path()), args, env: Secret(env) });
    plan.check()?;
    Ok(plan)
}

fn arguments(hook: &Hook) -> Vec<String> {
    match hook.args() {
        Some(given) if !given.is_empty() => given.clone(),
        _ => vec![hook.path().display().to_string()],
    }
}

/// The plan that runs a hook whose program is the container's, with the confinement of `process`. Without an
/// environment of its own it gets that of the process, as with runc and crun.
pub(crate) fn hook_as_process(
    hook: &Hook,
    place: &str,
    spec: &Spec,
    process: &Process,
    host: &Host,
    request: &Request,
    filter: Option<&Filter>,
) -> Result<Plan> {
    let mut process = process.clone();
    process.set_args(Some(arguments(hook))).set_terminal(Some(false));
    let mut user = process.user().clone();
    user.set_umask(user.umask().or(Some(0o022)));
    process.set_user(user);
    if hook.env().is_some() {
        process.set_env(hook.env().clone());
    }
    let mut plan = exec(spec, &process, host, request, filter)?;
    if hook.env().is_some() {
        plan.steps.retain(|(step, _)| !matches!(step, Step::FindHome { .. }));
    }
    // The path need not be the first argument, and is not looked up.
    if let Some((Step::Exec { paths, .. }, origin)) = plan.steps.last_mut() {
        *paths = Text::path(hook.path());
        *origin = format!("{place}.path").into();
    }
    Ok(plan)
}

//! THE order in which a container is made. Each line whose place matters says why it is there.

use super::mounts::{Mounts, Sources, absolute, at_root, lists_binds};
use super::request::{Namespaces, Request, place};
use super::{Handed, Origin, Plan, Text, capabilities, nodes, process, readiness};
use crate::config::sysctl::{key_path, namespace_of};
use crate::error::{Diagnostic, DiagnosticCode, Error, Result};
use crate::host::Host;
use crate::seccomp::Filter;
use crate::step::{Attrs, CHANNEL, NamespaceFlags, PropagationFlags, SCRATCH_ROOT, Step, SyncPoint};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType as Ns, Process, Spec};
use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

/// The plan that makes a container from its configuration. `filter` is its compiled seccomp profile.
pub fn create(spec: &Spec, host: &Host, request: &Request, filter: Option<&Filter>) -> Result<Plan> {
    let mut plan = Plan::new();
    let linux = spec.linux().clone().unwrap_or_default();
    let namespaces = Namespaces::of(spec, &mut plan)?;
    let nothing = nothing_to_start();
    let process = spec.process().as_ref().unwrap_or(&nothing);
    let root = spec.root().as_ref().ok_or_else(|| missing("root"))?;
    let rootfs = request.bundle.join(root.path());
    let propagation = root_propagation(&linux);
    let console = process.terminal().unwrap_or(false);

    // --- stage1: with the caller's mounts and user namespace -----------------------------------------
    let own_mounts = namespaces.is_new(Ns::Mount);
    let bare = host.bare_mounts;
    let starts_inside = starts_inside(host, &namespaces);
    let copied = if own_mounts && !bare { Ns::Mount as u64 } else { 0 };
    let first = NamespaceFlags(if starts_inside { namespaces.cloned() | copied } else { 0 });
    if !enter_cgroup(&mut plan, host, first) && starts_inside {
        plan.push("linux.namespaces", Step::StartIn { namespaces: first });
    }
    process::reset_signals_and_umask(&mut plan);
    if host.attach_first {
        // systemd makes the cgroup when it gets the process, and everything below needs the cgroup.
        plan.push("linux.cgroupsPath", Step::Sync { point: SyncPoint::Attached });
    }
    // Before the user namespace is entered, because in it this file cannot be opened for writing.
    process::oom_score(&mut plan, process);
    process::raise_rlimits(&mut plan, process, host);
    if host.rootless() {
        // Without privileges in the caller's namespaces, those of the user namespace come first.
        enter_user_namespace(&mut plan, &namespaces);
    }
    let outside =
        |namespace: &LinuxNamespace| !host.rootless() && !host.owned_by_joined_user(namespace.typ());
    join(&mut plan, &namespaces, outside);
    if own_mounts && !bare {
        if !starts_inside {
            plan.push("linux.namespaces", Step::Unshare { namespaces: NamespaceFlags(Ns::Mount as u64) });
        }
        plan.push(
            "linux.rootfsPropagation",
            Step::SetPropagation { propagation: PropagationFlags(propagation.namespace) },
        );
    }
    let host_path = Text::path(&rootfs);
    let clone_rootfs = Step::CloneRootfs { host_path, propagation: PropagationFlags(propagation.setup) };
    // The clone of the root is attached in a mount that is made private for that, and sources are still to be shared.
    let private_parent = propagation.shared && own_mounts && !bare;
    if !private_parent {
        // Mounts are listed in the order in which they were cloned, and the root is the first.
        plan.push("root.path", clone_rootfs.clone());
    }
    // Sources are paths of the caller, so they are opened in its mounts, before any mount is made.
    let before_sources = plan.steps().len();
    let in_user_namespace = namespaces.needs_scratch(host);
    let sources = if in_user_namespace || bare && lists_binds(spec, request, host, &namespaces) {
        Sources::Parked { by_name: in_user_namespace }
    } else if bare {
        Sources::Detached
    } else {
        Sources::Opened
    };
    let first = if bare { propagation.namespace } else { 0 };
    let mut mounts = Mounts::open_sources(&mut plan, spec, host, request, &namespaces, (sources, first))?;
    process::raise_open_files(&mut plan, before_sources, process, host);
    let scratch = matches!(sources, Sources::Parked { .. });
    if private_parent {
        let host_path = Text::path(&rootfs);
        plan.push("linux.rootfsPropagation", Step::PrivateParent { host_path });
        plan.push("root.path", clone_rootfs);
    }
    if bare {
        let fd = plan.hand("linux.namespaces", Handed::BareMounts);
        plan.push("linux.namespaces", Step::EnterBareMounts { fd });
    }
    plan.push("root.path", if scratch { Step::AttachRootfsInScratch } else { Step::AttachRootfs });
    if bare && in_user_namespace {
        // What a mount namespace of another user namespace has inherited cannot be unmounted there.
        plan.push("root.path", Step::OpenRoot { path: Text::of(".") });
        plan.push("root.path", Step::PivotRoot);
    }
    let streams_outside = process::owns_streams_outside(host, &linux, namespaces.user.is_some());
    if streams_outside {
        process::own_streams(&mut plan, process, linux.uid_mappings().as_deref());
    }
    if scratch {
        mounts.park(&mut plan);
    }
    if in_user_namespace {
        enter_user_namespace(&mut plan, &namespaces);
    }
    join(&mut plan, &namespaces, |namespace| !outside(namespace));
    time_offsets(&mut plan, &linux, &namespaces);
    // The mount namespace is made again where it must belong to the user namespace.
    let mount_again = if in_user_namespace { Ns::Mount as u64 } else { 0 };
    // The root directory of mqueue belongs to the user who makes the IPC namespace.
    let as_root = if namespaces.user.is_some() { namespaces.cloned() & Ns::Ipc as u64 } else { 0 };
    let cloned = namespaces.cloned() & !as_root | mount_again;
    // After the last write into the stage's own directory of procfs as root of a user namespace: the files of a process
    // that is not dumpable belong to the root of the namespace that it was executed in.
    process::not_dumpable(&mut plan, host);
    // In a pid namespace with other processes, these would see the stage with all its descriptors and privileges. So
    // there the process is cloned only when nothing but the start is left to wait for.
    let late = namespaces.joined_pid.is_some();
    if late {
        plan.push("linux.namespaces", Step::Unshare { namespaces: NamespaceFlags(cloned) });
        plan.push("linux.namespaces", Step::Sync { point: SyncPoint::Entered });
    } else if !starts_inside {
        plan.push("linux.namespaces", Step::Clone { namespaces: NamespaceFlags(cloned) });
    }

    // --- stage2: the container's init -----------------------------------------------------------
    if namespaces.user.is_some() {
        let groups_stay = host.rootless() || host.groups_are_fixed || process::keeps_groups(spec, host);
        become_root(&mut plan, &linux, groups_stay);
    }
    if !streams_outside {
        process::own_streams(&mut plan, process, None);
    }
    if as_root != 0 {
        plan.push("linux.namespaces", Step::Unshare { namespaces: NamespaceFlags(as_root) });
    }
    if in_user_namespace {
        plan.push("root.path", Step::UnlockRoot);
    }
    let path = Text::of(if scratch && !in_user_namespace { SCRATCH_ROOT } else { "." });
    plan.push("root.path", Step::OpenRoot { path });
    mounts.fetch_devices(&mut plan);
    if namespaces.is_new(Ns::Network) {
        plan.push("linux.namespaces", Step::LoopbackUp);
    }
    if !late {
        plan.push("", Step::SetSid);
    }
    if !request.no_new_keyring {
        process::keyring(&mut plan, process, request);
    }
    process::join_cgroups(&mut plan, host, true);
    process::reset_affinity(&mut plan);
    if namespaces.is_new(Ns::Cgroup) {
        // The namespace's root is the cgroup that the process is in now.
        plan.push("linux.namespaces", Step::Unshare { namespaces: NamespaceFlags(Ns::Cgroup as u64) });
    }
    mounts.attach(&mut plan, &linux);
    nodes::make(&mut plan, &linux, &mounts);
    if let (Some(fd), Some((at, _))) = (namespaces.joined_pid, namespaces.position(Ns::Pid)) {
        // It is set for children only, and after the mounts, for which children outside may be needed.
        plan.push(place(at), Step::Setns { fd, namespaces: NamespaceFlags(Ns::Pid as u64) });
    }
    process::lower_open_files(&mut plan, process, host);
    if console {
        process::open_console(&mut plan, process, request)?;
        plan.push("process.terminal", Step::MountConsole);
    }
    mounts.make_readonly(&mut plan);
    // Hooks and interfaces want the namespaces and mounts, and a root that is not entered yet.
    if needs_library_before_pivot(spec, host) {
        plan.push("hooks", Step::Sync { point: SyncPoint::Created });
    }
    let pivot = match (own_mounts, request.no_pivot) {
        // The mounts are the host's too, below the bundle's root; `delete` takes them off.
        (false, _) => Step::Chroot,
        (true, true) => Step::MoveRoot,
        (true, false) => Step::PivotRoot,
    };
    plan.push("root.path", pivot);
    if scratch && !in_user_namespace {
        plan.push("root.path", Step::UnmountOldRoot);
    }
    set_names_and_sysctls(&mut plan, spec, &linux, host)?;
    // Masks come after all mounts, which could otherwise uncover what they hide.
    mask(&mut plan, spec, &linux, &mounts);
    if root.readonly().unwrap_or(false) {
        // A missing working directory is made while that can be done.
        plan.push("process.cwd", Step::Chdir { path: Text::path(process.cwd()), make: true });
    }
    finish_root(&mut plan, root.readonly().unwrap_or(false), &propagation);
    if console {
        plan.push("process.terminal", Step::UseConsole);
    }
    if !late {
        in_own_session(&mut plan, console);
        process::scheduler(&mut plan, process);
    }
    process::scheduling(&mut plan, process, &linux)?;
    // 022 is what a container gets from runc and crun, too.
    process::umask(&mut plan, process.user().umask().unwrap_or(0o022));
    let program = request.init_program.then(|| plan.hand("process.args", Handed::Program));
    let work = process::Work {
        env: environment(process, request),
        host,
        in_user_namespace: namespaces.user.is_some(),
        keeps_groups: process::keeps_groups(spec, host),
        is_init: true,
        program,
        cloned_late: late,
    };
    process::warn_of_groups(&mut plan, spec, host);
    // Before the container can be seen to exist: processes of `exec` see this one.
    let listener = (!request.start_by_handle).then(|| plan.hand("", Handed::Listener));
    let passed = process::ranges(&request.passed);
    let (keep, program) = (listener.unwrap_or(CHANNEL), work.program.unwrap_or(CHANNEL));
    let close = Step::CloseFds { passed, keep, program };
    process::identity(&mut plan, process, &work, filter, close)?;
    if spec.process().is_some() && work.program.is_none() {
        process::find_program(&mut plan, process, &work)?;
    }
    let mut filter = filter;
    if late {
        process::load_filter_before_clone(&mut plan, process, &work, &mut filter);
        plan.push("linux.namespaces", Step::Clone { namespaces: NamespaceFlags(0) });
        plan.push("", Step::SetSid);
        in_own_session(&mut plan, console);
        process::scheduler_of_clone(&mut plan, process, &work, filter);
    }
    // Before the container is reported as created: from then on, others may send it signals.
    plan.push("", Step::EndOnSignals);
    process::load_filter_before_start(&mut plan, process, &work, &mut filter);
    match listener {
        Some(listener) => {
            plan.push("", Step::Sync { point: SyncPoint::Ready });
            plan.push("", Step::AwaitStart { listener });
        }
        None => plan.push("", Step::AwaitLibrary),
    }
    process::execute(&mut plan, process, &work, filter)?;
    plan.check()?;
    Ok(plan)
}

fn in_own_session(plan: &mut Plan, console: bool) {
    if console {
        plan.push("process.terminal", Step::SetControllingTerminal);
    }
}

fn environment(process: &Process, request: &Request) -> Vec<String> {
    let mut env = process::environment(process.env().as_deref().unwrap_or_default());
    if request.notify_socket.is_some() {
        env.retain(|entry| !entry.starts_with("NOTIFY_SOCKET="));
        env.push(readiness::variable());
    }
    env
}

/// A container without a process can be created and is never started (config.md, "process").
fn nothing_to_start() -> Process {
    let mut process = Process::default();
    process.set_capabilities(None).set_rlimits(None);
    process
}

fn missing(property: &str) -> Error {
    Error::invalid(vec![Diagnostic::new(property, "is required").with_code(DiagnosticCode::MissingProperty)])
}

fn enter_user_namespace(plan: &mut Plan, namespaces: &Namespaces) {
    if let (Some(fd), Some((at, _))) = (namespaces.user, namespaces.position(Ns::User)) {
        plan.push(place(at), Step::Setns { fd, namespaces: NamespaceFlags(Ns::User as u64) });
    }
}

fn join(plan: &mut Plan, namespaces: &Namespaces, wanted: impl Fn(&LinuxNamespace) -> bool) {
    for (at, namespace, path) in namespaces.joined().filter(|(_, namespace, _)| wanted(namespace)) {
        let fd = plan.hand(place(at), Handed::Namespace(path.into()));
        plan.push(place(at), Step::Setns { fd, namespaces: NamespaceFlags(namespace.typ() as u64) });
    }
}

/// `linux.rootfsPropagation`, taken apart.
struct Propagation {
    /// For all mounts of the new mount namespace: whether later mounts of the host appear in it.
    namespace: u64,
    /// For the root during set-up: never a propagation that shows the container's mounts to the host.
    setup: u64,
    /// For the root in the end; zero where it is set already.
    root: u64,
    shared: bool,
}

fn root_propagation(linux: &Linux) -> Propagation {
    let asked = linux.rootfs_propagation().as_deref().unwrap_or_default();
    let (shared, slave, private) = (libc::MS_SHARED, libc::MS_SLAVE, libc::MS_PRIVATE);
    let (all, asked) = asked.strip_prefix('r').map_or((false, asked), |asked| (true, asked));
    // A propagation for the root alone leaves each mount its own option, which may be rslave.
    let namespace = if all { private } else { slave };
    match asked {
        "shared" => {
            // With an `r`, all mounts below the root are shared too, as with runc and crun.
            let root = if all { shared | libc::MS_REC } else { shared };
            Propagation { namespace: shared, setup: private, root, shared: true }
        }
        "private" => Propagation { namespace, setup: private, root: 0, shared: false },
        "unbindable" => {
            let root = libc::MS_UNBINDABLE | if all { libc::MS_REC } else { 0 };
            Propagation { namespace, setup: private, root, shared: false }
        }
        _ => Propagation { namespace: slave, setup: slave, root: 0, shared: false },
    }
}

/// The first step of a process that is to be in a cgroup of v2 that limits its memory; false where it is to be in none.
pub(super) fn enter_cgroup(plan: &mut Plan, host: &Host, namespaces: NamespaceFlags) -> bool {
    if host.clones_into_cgroup {
        let cgroup = plan.hand("linux.cgroupsPath", Handed::Cgroup);
        plan.push("linux.namespaces", Step::EnterCgroup { cgroup, namespaces });
    }
    host.clones_into_cgroup
}

/// Whether the stage can be started in the new namespaces, which saves its second process. A user namespace has to be
/// entered before those that it owns are made; the offsets of a time namespace, and a pid namespace that is joined, take
/// effect for later children alone. And only a caller with CAP_SYS_PTRACE may look at a process's executable, by which a
/// stage that waits for `start` is told from a program that runs.
fn starts_inside(host: &Host, namespaces: &Namespaces) -> bool {
    let needs_clone = namespaces.user.is_some()
        || namespaces.joined_pid.is_some()
        || namespaces.position(Ns::Time).is_some();
    !needs_clone && !host.rootless() && host.capabilities & capabilities::SYS_PTRACE != 0
}

fn time_offsets(plan: &mut Plan, linux: &Linux, namespaces: &Namespaces) {
    if !namespaces.is_new(Ns::Time) {
        return;
    }
    // The offsets can be written until a process is in the namespace, so it is made for the child.
    plan.push("linux.namespaces", Step::Unshare { namespaces: NamespaceFlags(Ns::Time as u64) });
    let offsets = linux.time_offsets().iter().flatten();
    let mut lines: Vec<_> = offsets
        .map(|(clock, offset)| {
            format!("{clock} {} {}\n", offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0))
        })
        .collect();
    lines.sort();
    if !lines.is_empty() {
        let value = Text::data(lines.concat());
        plan.push("linux.timeOffsets", Step::WriteProcess { path: Text::of("timens_offsets"), value });
    }
}

/// Becomes root of the user namespace, without the caller's groups unless they are kept.
fn become_root(plan: &mut Plan, linux: &Linux, groups_stay: bool) {
    if !groups_stay {
        plan.push("linux.uidMappings", Step::SetGroups { groups: Text::data([]) });
    }
    plan.push("linux.uidMappings", first_ids(linux));
}

/// The id of root, or the first of the maps where these have no root: a user may be able to map only its own id.
/// Capabilities come with the namespace, not with the id.
pub(super) fn first_ids(linux: &Linux) -> Step<Text> {
    let first = |maps: &Option<Vec<LinuxIdMapping>>| {
        let mut ids = maps.iter().flatten().map(LinuxIdMapping::container_id);
        let first = ids.clone().next().unwrap_or(0);
        if ids.any(|id| id == 0) { 0 } else { first }
    };
    Step::SetIds { uid: first(linux.uid_mappings()), gid: first(linux.gid_mappings()) }
}

pub(super) fn has_hooks_before_pivot(spec: &Spec) -> bool {
    #[allow(deprecated)] // engines still use prestart
    spec.hooks().as_ref().is_some_and(|hooks| {
        [hooks.prestart(), hooks.create_runtime(), hooks.create_container()]
            .iter()
            .any(|list| list.as_ref().is_some_and(|list| !list.is_empty()))
    })
}

fn needs_library_before_pivot(spec: &Spec, host: &Host) -> bool {
    let devices = spec.linux().as_ref().and_then(|linux| linux.net_devices().as_ref());
    has_hooks_before_pivot(spec)
        || devices.is_some_and(|devices| !devices.is_empty())
        || host.network_requested
}

fn set_names_and_sysctls(plan: &mut Plan, spec: &Spec, linux: &Linux, host: &Host) -> Result<()> {
    // Other namespaces given by path belong to a pod, whose containers share them.
    let may_change = |kind: Ns, place: &str| match host.joined_of_host.contains(&kind) {
        true => Err(Error::invalid(vec![Diagnostic::new(
            place,
            "the namespace given by path is the host's; it would change that",
        )])),
        false => Ok(()),
    };
    // Engines write an empty name for none.
    if let Some(name) = spec.hostname().as_ref().filter(|name| !name.is_empty()) {
        may_change(Ns::Uts, "hostname")?;
        plan.push("hostname", Step::SetHostname { name: Text::data(name.as_bytes()) });
    }
    if let Some(name) = spec.domainname().as_ref().filter(|name| !name.is_empty()) {
        may_change(Ns::Uts, "domainname")?;
        plan.push("domainname", Step::SetDomainname { name: Text::data(name.as_bytes()) });
    }
    let mut sysctls: Vec<_> = linux.sysctl().iter().flatten().collect();
    sysctls.sort();
    for (key, value) in sysctls {
        let place = format!("linux.sysctl[{key}]");
        let invalid = |problem| Error::invalid(vec![Diagnostic::new(&place, problem)]);
        let path = key_path(key).map_err(invalid)?;
        let kind = namespace_of(&path).map_err(|problem| invalid(problem.into()))?;
        may_change(kind.of_spec(), &place)?;
        let path = Text::of(format!("sys/{path}"));
        plan.push(place, Step::WriteSysctl { path, value: Text::data(value.as_bytes()) });
    }
    Ok(())
}

/// The directories that have a mount of the configuration below them. When one of them becomes read-only, that mount keeps
/// the options that the configuration gives it, as with runc and crun. Without such a mount all that lies below becomes
/// read-only, also what a recursive bind mount has brought from the host.
fn above_mounts(spec: &Spec) -> HashSet<PathBuf> {
    let destinations = spec.mounts().iter().flatten().map(|mount| absolute(mount.destination()));
    destinations
        .flat_map(|path| path.ancestors().skip(1).map(Path::to_path_buf).collect::<Vec<_>>())
        .collect()
}

fn mask(plan: &mut Plan, spec: &Spec, linux: &Linux, mounts: &Mounts) {
    let at = |list: &str, at: usize| -> Origin { format!("linux.{list}[{at}]").into() };
    // The root itself cannot be mounted over. Such a path is also `root.readonly`, see config/normal.rs.
    let above = above_mounts(spec);
    let paths = linux.readonly_paths().iter().flatten().enumerate();
    for (i, path) in paths.filter(|(_, path)| !is_root(path)) {
        let (place, recursive) = (mounts.place(path), !above.contains(Path::new(path)));
        plan.push(at("readonlyPaths", i), Step::ReadonlyPath { place, recursive });
    }
    let masked = linux.masked_paths().as_deref().unwrap_or_default();
    let mut seen = HashSet::new();
    for (i, path) in masked.iter().enumerate().filter(|(_, path)| seen.insert(path.as_str())) {
        if let Some(source) = mounts.null {
            plan.push(at("maskedPaths", i), Step::MaskPath { place: mounts.place(path), source });
        }
    }
}

/// Whether a path of the configuration is the container's root.
fn is_root(path: impl AsRef<Path>) -> bool {
    path.as_ref().components().all(|part| !matches!(part, Component::Normal(_)))
}

fn finish_root(plan: &mut Plan, readonly: bool, propagation: &Propagation) {
    let set = if readonly { libc::MOUNT_ATTR_RDONLY } else { 0 };
    let attrs = Attrs { set, propagation: propagation.root, ..Attrs::default() };
    if attrs != Attrs::default() {
        let origin = if readonly { "root.readonly" } else { "linux.rootfsPropagation" };
        plan.push(origin, Step::SetAttributes { place: at_root(Text::of("/")), attrs });
    }
}

//! The plans that execute CRIU: in the caller's namespaces to save a container; to restore one, in a
//! mount namespace of its own and in the container's cgroup.

use super::devices::{self, Device};
use super::mount_options;
use super::{Handed, Plan, Text, process};
use crate::error::Result;
use crate::host::{CgroupMount, Host};
use crate::namespaces::{has, listed};
use crate::step::{CHANNEL, NamespaceFlags, PropagationFlags, Secret, Step, SyncPoint};
use oci_spec::runtime::{LinuxNamespaceType as Ns, Mount, Spec};
use std::path::{Path, PathBuf};

/// What CRIU is executed with.
pub(crate) struct Program<'a> {
    /// Every path where the program may be.
    pub paths: &'a [PathBuf],
    pub env: &'a [String],
    /// The number of the protocol's socket; the descriptors behind it follow.
    pub socket: u16,
    /// How many descriptors CRIU gets from `socket` on.
    pub placed: u16,
}

/// A mount whose source is outside of the container.
pub(crate) struct External {
    /// In the container.
    pub destination: PathBuf,
    /// On the host.
    pub source: PathBuf,
}

/// Saves a container.
pub(crate) fn dump(program: &Program) -> Result<Plan> {
    let mut plan = Plan::new();
    plan.push("", Step::ResetSignals);
    execute(&mut plan, program)?;
    Ok(plan)
}

/// Restores a container whose root is `rootfs`. In CRIU's own mount namespace the root is a mount,
/// as CRIU needs it, and a killed CRIU leaves no mount on the host.
pub(crate) fn restore(program: &Program, spec: &Spec, host: &Host, rootfs: &Path) -> Result<Plan> {
    let mut plan = Plan::new();
    super::create::enter_cgroup(&mut plan, host, NamespaceFlags(0));
    process::reset_signals_and_umask(&mut plan);
    if host.attach_first {
        plan.push("linux.cgroupsPath", Step::Sync { point: SyncPoint::Attached });
    }
    process::join_cgroups(&mut plan, host, false);
    let mount_namespace = NamespaceFlags(libc::CLONE_NEWNS as u64);
    plan.push("root.path", Step::Unshare { namespaces: mount_namespace });
    plan.push("root.path", Step::SetPropagation { propagation: PropagationFlags(libc::MS_SLAVE) });
    // CRIU gives the container's root the same master again.
    let propagation = PropagationFlags(libc::MS_SLAVE);
    plan.push("root.path", Step::CloneRootfs { host_path: Text::path(rootfs), propagation });
    plan.push("root.path", Step::AttachRootfs);
    plan.push("root.path", Step::OpenRoot { path: Text::of(".") });
    mount_points(&mut plan, spec);
    plan.push("root.path", Step::OpenRoot { path: Text::of("/") });
    // CRIU before 3.19 saves no such flag; what it restores inherits CRIU's own.
    if spec.process().as_ref().is_some_and(|process| process.no_new_privileges() == Some(true)) {
        plan.push("process.noNewPrivileges", Step::NoNewPrivileges);
    }
    execute(&mut plan, program)?;
    Ok(plan)
}

fn execute(plan: &mut Plan, program: &Program) -> Result<()> {
    plan.push("", Step::Clone { namespaces: NamespaceFlags(0) });
    let numbers = (0..program.placed).flat_map(|at| {
        let fd = plan.hand("", Handed::Placed(at));
        [i32::from(fd.0), i32::from(program.socket + at)]
    });
    let fds = Text::data(numbers.flat_map(i32::to_ne_bytes).collect::<Vec<_>>());
    plan.push("", Step::PlaceFds { fds });
    let passed: Vec<u32> = (0..program.placed).map(|at| u32::from(program.socket + at)).collect();
    plan.push("", Step::CloseFds { passed: process::ranges(&passed), keep: CHANNEL, program: CHANNEL });
    let (mut paths, mut args, mut env) = (Text::default(), Text::default(), Text::default());
    program.paths.iter().for_each(|path| paths.push(path.as_os_str().as_encoded_bytes()));
    ["criu", "swrk", &program.socket.to_string()].iter().for_each(|arg| args.push(arg));
    program.env.iter().for_each(|entry| env.push(entry));
    plan.push("criu", Step::Exec { paths, args, env: Secret(env) });
    plan.check()
}

/// CRIU mounts only on what exists, so missing mount points are made. One below another filesystem of the container is
/// restored with that filesystem's content.
fn mount_points(plan: &mut Plan, spec: &Spec) {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let covered = |path: &Path| {
        let new = |mount: &&Mount| !is_bind(mount) && mount.typ().as_deref() != Some("proc");
        mounts.iter().filter(new).any(|mount| {
            let above = absolute(mount.destination());
            path != above && path.starts_with(&above)
        })
    };
    for (at, mount) in mounts.iter().enumerate() {
        let path = absolute(mount.destination());
        if covered(&path) {
            continue;
        }
        let origin = format!("mounts[{at}].destination");
        // A source that is missing is CRIU's error, which names it.
        if is_bind(mount) && mount.source().as_ref().is_some_and(|source| source.is_file()) {
            let (mode, major, minor) = (libc::S_IFREG | 0o644, 0, 0);
            plan.push(origin, Step::MakeNode { path: Text::path(&path), mode, major, minor, uid: 0, gid: 0 });
        } else {
            plan.push(origin, Step::Chdir { path: Text::path(&path), make: true });
        }
    }
}

fn is_bind(mount: &Mount) -> bool {
    let options = mount_options::parse(mount.options().as_deref().unwrap_or_default());
    options.bind || mount.typ().as_deref() == Some("bind")
}

fn absolute(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}

/// The bind mounts of a configuration, those that show the container's cgroups, the device that
/// masks files, and in a user namespace the host's device nodes. `masked` are those of `linux.maskedPaths` that are files.
pub(crate) fn externals(spec: &Spec, host: &Host, bundle: &Path, masked: &[PathBuf]) -> Vec<External> {
    let mut found = Vec::new();
    for mount in spec.mounts().iter().flatten() {
        let destination = absolute(mount.destination());
        if is_bind(mount) {
            let source = mount.source().iter().map(|source| bundle.join(source));
            found.extend(source.map(|source| External { destination: destination.clone(), source }));
        } else if is_bound_cgroup(spec, mount) {
            let all = &host.cgroup_mounts;
            match CgroupMount::shown_alone(all, mount.typ()).cloned() {
                Some(one) => found.push(External { destination, source: one.host_path }),
                None => found.extend(all.iter().map(|hierarchy| External {
                    destination: destination.join(&hierarchy.name),
                    source: hierarchy.host_path.clone(),
                })),
            }
        }
    }
    let mask = |path: &PathBuf| External { destination: path.clone(), source: "/dev/null".into() };
    found.extend(masked.iter().map(mask));
    if has(listed(spec), Ns::User) || host.in_user_namespace {
        let devices = devices::wanted(&spec.linux().clone().unwrap_or_default());
        let bound = |device: Device| External { destination: device.path.clone(), source: device.path };
        found.extend(devices.into_iter().map(bound));
    }
    found
}

/// Without a cgroup namespace the hierarchies are bound, not mounted anew.
fn is_bound_cgroup(spec: &Spec, mount: &Mount) -> bool {
    matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2")) && !has(listed(spec), Ns::Cgroup)
}

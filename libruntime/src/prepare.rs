//! Everything that is decided about a container before anything is done: the configuration is read and checked,
//! and a plan is made. Needs no privileges and changes nothing.

use crate::cgroup::Cgroup;
use crate::config::Config;
use crate::error::{Diagnostic, Error, ErrorKind, Result};
use crate::hook_stdio;
use crate::host::Host;
use crate::network::{self, Network};
use crate::options::{self, Options};
use crate::plan;
use crate::plan::Plan;
use crate::plan::request::CgroupDriver;
use crate::plan::request::Request;
use crate::seccomp::{self, Filter};
use crate::stdio::Console;
use crate::sys;
use oci_spec::runtime::{Root, Spec};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

pub(crate) struct Prepared {
    pub spec: Spec,
    pub plan: Plan,
    pub host: Host,
    pub filter: Option<Filter>,
    pub cgroup: Cgroup,
    pub request: Request,
    pub networks: Vec<Network>,
    /// The caller's descriptors, and their numbers in the container.
    pub passed: Vec<(RawFd, u32)>,
    /// Annotations may name files for the output of hooks.
    pub hook_output: bool,
    pub warnings: Vec<Diagnostic>,
}

/// # Errors
/// Every problem of the configuration at once; what this host lacks.
pub(crate) fn prepare(options: &Options) -> Result<Prepared> {
    prepare_for(options, !matches!(options.process.console, Console::None))
}

/// `console`: the creation is given a socket for the terminal's master.
pub(crate) fn prepare_for(options: &Options, console: bool) -> Result<Prepared> {
    crate::config::check_id(&options.id)?;
    let passed = options::passed(&options.process.passed)?;
    let (bundle, config) = read(options)?;
    let request = Request {
        id: options.id.clone(),
        bundle,
        passed: passed.iter().map(|(_, number)| *number).collect(),
        init_program: options.init.is_some(),
        console_socket: console,
        relayed_console: options.process.relayed_console,
        no_pivot: options.no_pivot,
        start_by_handle: options.start_by_handle,
        no_new_keyring: options.process.no_new_keyring,
        keyring_secret: secret(),
        notify_socket: options.notify_socket.clone(),
        cgroup_driver: options.settings.cgroup_driver,
        network_requested: !options.networks.is_empty(),
        network_annotations: options.settings.network_annotations,
        directory: options.settings.store.join(&options.id),
        network_files: Vec::new(),
    };
    let mut prepared = prepare_spec(config.spec, request, options)?;
    prepared.passed = passed;
    prepared.warnings.splice(0..0, config.warnings);
    Ok(prepared)
}

/// 64 bits that nobody can guess: the standard library takes its hash keys from getrandom(2).
fn secret() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

/// The bundle's directory, and its configuration with the caller's options applied.
fn read(options: &Options) -> Result<(PathBuf, Config)> {
    let canonical = |path: &Path| {
        sys::real_path(path).map_err(|error| Error::io(format!("open {}", path.display()), error))
    };
    let rootfs = options.rootfs.as_deref().map(canonical).transpose()?;
    let bundle = match (&options.bundle, &rootfs, &options.spec) {
        (Some(bundle), ..) => canonical(bundle)?,
        // A configuration without a bundle has no paths relative to one.
        (None, Some(rootfs), Some(_)) => rootfs.clone(),
        (None, None, Some(spec)) => match spec.root() {
            Some(root) if root.path().is_absolute() => canonical(root.path())?,
            _ => return Err(without_bundle("without a bundle, root.path is absolute")),
        },
        (None, _, None) => return Err(without_bundle("a container needs a bundle, or a configuration")),
    };
    let config = match options.spec.clone() {
        None => {
            let mut config = Config::load(&bundle)?;
            complete(&mut config.spec, options, rootfs.as_deref());
            config
        }
        Some(mut spec) => {
            complete(&mut spec, options, rootfs.as_deref());
            Config::from_spec(spec)?
        }
    };
    Ok((bundle, config))
}

fn complete(spec: &mut Spec, options: &Options, rootfs: Option<&Path>) {
    place_root(spec, rootfs);
    if let Some(process) = spec.process_mut() {
        options.process.apply_to(process);
        if let Some(first) = options.init.as_ref().and_then(|init| init.first_argument.clone()) {
            let rest = process.args().iter().flatten().cloned();
            let args = std::iter::once(first).chain(rest).collect();
            process.set_args(Some(args));
        }
    }
}

fn without_bundle(message: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, message).at("root.path")
}

fn place_root(spec: &mut Spec, rootfs: Option<&Path>) {
    if let Some(rootfs) = rootfs {
        let mut root = spec.root().clone().unwrap_or_else(|| {
            let mut root = Root::default();
            root.set_readonly(None);
            root
        });
        root.set_path(rootfs.into());
        spec.set_root(Some(root));
    }
}

/// crun's annotation that makes an unknown system call in the seccomp profile an error.
fn fails_on_unknown_calls(spec: &Spec) -> bool {
    const NAME: &str = "run.oci.seccomp_fail_unknown_syscall";
    let value = spec.annotations().as_ref().and_then(|annotations| annotations.get(NAME));
    value.is_some_and(|value| value != "0")
}

fn prepare_spec(spec: Spec, mut request: Request, options: &Options) -> Result<Prepared> {
    let mut warnings = Vec::new();
    let linux = spec.linux().as_ref();
    let profile = linux.and_then(|linux| linux.seccomp().as_ref());
    if let Some(profile) = profile.filter(|_| fails_on_unknown_calls(&spec)) {
        let unknown = seccomp::unknown_calls(profile);
        if !unknown.is_empty() {
            return Err(Error::invalid(unknown));
        }
    }
    let filter = profile.map(|profile| seccomp::compile(profile, &mut warnings).map_err(Error::invalid));
    let filter = filter.transpose()?;
    let layout = options.settings.layout()?;
    let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let cgroup = match request.cgroup_driver {
        CgroupDriver::Cgroupfs => Cgroup::plan(layout, path, &request.id)?.only_usable(),
        CgroupDriver::Systemd => {
            let resources = linux.and_then(|linux| linux.resources().as_ref());
            let annotations = spec.annotations().clone().unwrap_or_default();
            Cgroup::plan_systemd(layout, path, &request.id, resources, &annotations)?
        }
        CgroupDriver::None => Cgroup::none(),
    };
    let mut host = Host::probe(&spec, layout, &cgroup)?;
    if let Some(process) = spec.process() {
        host.probe_rlimits(process)?;
    }
    host.bare_mounts =
        plan::bare::wants_bare_mounts(&spec, &host, &request) && options.settings.bare_mounts().is_some();
    // The caller's networks, and with the runtime's permission those of annotations.
    let networks = network::wanted(&spec, &options.networks, request.network_annotations)?;
    if !request.network_annotations {
        warnings.extend(network::ignored(&spec));
    }
    let hook_output = options.settings.hook_output_annotations;
    if !hook_output {
        warnings.extend(hook_stdio::ignored(&spec));
    }
    if request.network_files.is_empty() {
        request.network_files = network::files(&spec, &networks, &request.directory)?;
    }
    host.network_requested = request.network_requested || !networks.is_empty();
    let mut plan = plan::create::create(&spec, &host, &request, filter.as_ref())?;
    warnings.append(&mut plan.warnings);
    let passed = Vec::new();
    Ok(Prepared { spec, plan, host, filter, cgroup, request, networks, passed, hook_output, warnings })
}

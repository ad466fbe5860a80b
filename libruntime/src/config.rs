//! `config.json`, read strictly and checked, with the place of every problem.
//!
//! Pure: apart from [`Config::load`], which reads one file, nothing here asks the kernel anything, so a finding never
//! depends on the host. What the host cannot do is found when planning. The good path is one pass of serde_json
//! (through `config/strict.rs`) and one walk over the typed values. Only when serde refuses, `config/repair.rs` parses
//! again to find the place, all the other places, and what the spec allows although oci-spec's types do not.
//! `config/written.rs` tells "absent" from "0" where those types cannot. The checks of values are in `config/`, one
//! file for each part of the configuration.

mod devices;
pub(crate) mod examine;
mod found;
mod hooks;
mod identity;
mod idmap;
mod kernel;
pub(crate) mod list;
mod mounts;
mod namespaces;
mod normal;
pub(crate) mod places;
mod process;
pub(crate) mod removed;
mod repair;
pub(crate) mod resources;
mod scheduling;
pub(crate) mod strict;
pub(crate) mod sysctl;
#[cfg(test)]
mod tests;
mod text;
mod version;
mod written;

use crate::error::{Diagnostic, Error, ErrorKind, Result};
use found::Found;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use oci_spec::runtime::{LinuxResources, Process, Spec};
pub(crate) use repair::placeholder;
use std::fs::File;
use std::io::{ErrorKind as IoErrorKind, Read};
use std::path::Path;

/// The largest `config.json` that is read, in bytes. Engines write some tens of kilobytes.
pub const MAX_CONFIG_SIZE: u64 = 64 << 20;

/// A configuration without problems, and the warnings that the specification asks for.
#[derive(Clone, Debug)]
pub struct Config {
    /// As it is applied.
    pub spec: Spec,
    /// Properties that can be applied, but not as they are written.
    pub warnings: Vec<Diagnostic>,
}

impl Config {
    /// Reads `config.json` of a bundle.
    pub fn load(bundle: &Path) -> Result<Config> {
        Self::parse(&read(bundle)?)
    }

    /// The error has all problems as diagnostics, not only the first one.
    pub fn parse(bytes: &[u8]) -> Result<Config> {
        let (mut spec, mut found) = repair::parse::<Spec>(bytes, repair::Root::Config)?;
        written::check_spec(bytes, &mut spec, &mut found);
        Self::check(spec, found)
    }

    /// The same checks for a configuration that was never text.
    pub fn from_spec(spec: Spec) -> Result<Config> {
        Self::check(spec, Found::default())
    }

    fn check(mut spec: Spec, mut found: Found) -> Result<Config> {
        namespaces::without_empty_paths(&mut spec);
        normal::normalize(&mut spec, &mut found);
        check_spec(&spec, &mut found);
        let version = spec.version().clone();
        if let Some(resources) = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut()) {
            resources::as_of(&version, resources);
        }
        Ok(Config { spec, warnings: found.into_warnings()? })
    }
}

/// A `process` object, as `exec --process` gets it. Places are named as in `config.json`.
pub fn parse_process(bytes: &[u8]) -> Result<(Process, Vec<Diagnostic>)> {
    let (process, mut found) = repair::parse::<Process>(bytes, repair::Root::Process)?;
    written::check_process(bytes, &process, &mut found);
    process::check(&process, &mut found);
    Ok((process, found.into_warnings()?))
}

/// The same checks for a process that was never text.
pub(crate) fn check_process(process: &Process) -> Result<()> {
    let mut found = Found::default();
    process::check(process, &mut found);
    found.into_warnings().map(drop)
}

/// A `linux.resources` object, as `update --resources` gets it. It changes only what it names, so rules about related
/// properties are left to the cgroup, which has the other values.
pub fn parse_resources(bytes: &[u8]) -> Result<(LinuxResources, Vec<Diagnostic>)> {
    let (mut resources, mut found) = repair::parse::<LinuxResources>(bytes, repair::Root::Resources)?;
    written::check_resources(bytes, &mut resources, &mut found);
    resources::check(&resources, &mut found);
    Ok((resources, found.into_warnings()?))
}

/// Whether `id` can be a container's id: it becomes a directory, a cgroup and a part of unit names.
pub fn check_id(id: &str) -> Result<()> {
    const RULE: &str =
        "an id is 1 to 1024 letters, digits, '_', '+', '-' or '.', and does not start with '.'";
    let known = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'+' | b'-' | b'.');
    if id.is_empty() || id.len() > 1024 || id.starts_with('.') || !id.bytes().all(known) {
        let shown: String = id.chars().take(80).collect();
        let message = match id {
            "" => "container id cannot be empty".to_string(),
            _ => format!("invalid container ID format: {shown:?}"),
        };
        return Err(Error::new(ErrorKind::InvalidConfig, message).with_hint(RULE));
    }
    Ok(())
}

fn check_spec(spec: &Spec, found: &mut Found) {
    check_version(spec.version(), found);
    match spec.root() {
        None => found.missing("root", "missing; every container has a root filesystem"),
        Some(root) if root.path().as_os_str().is_empty() => {
            found.missing("root.path", "missing; it names the root filesystem")
        }
        Some(root) => found.path(root.path(), "root.path"),
    }
    match spec.process() {
        // It can be created; `start` needs one (config.md, "process").
        None => {}
        Some(process) => process::check(process, found),
    }
    mounts::check(spec, found);
    if let Some(hooks) = spec.hooks() {
        hooks::check(hooks, found);
    }
    for key in found::sorted(spec.annotations()) {
        if key.0.is_empty() {
            found.problem("annotations", "a key is empty");
        }
    }
    namespaces::check(spec, found);
    identity::check(spec, found);
    if let Some(linux) = spec.linux() {
        devices::check(linux, found);
        kernel::check(linux, found);
        if let Some(resources) = linux.resources() {
            resources::check(resources, found);
            resources::check_together(resources, found);
        }
    }
    foreign(spec, found);
}

/// Sections of other platforms have no meaning here.
#[allow(deprecated)] // the top-level mappings are asked about in order to say that they are ignored
fn foreign(spec: &Spec, found: &mut Found) {
    let sections = [
        ("solaris", spec.solaris().is_some()),
        ("windows", spec.windows().is_some()),
        ("vm", spec.vm().is_some()),
        ("zos", spec.zos().is_some()),
    ];
    for (name, _) in sections.iter().filter(|(_, present)| *present) {
        found.warning(name, "ignored: it is for another platform");
    }
    if spec.uid_mappings().is_some() || spec.gid_mappings().is_some() {
        found.warning("uidMappings", "ignored: id mappings are in linux.uidMappings and linux.gidMappings");
    }
}

/// SemVer 2.0.0. Within major version 1 the spec promises compatibility, so newer minors are accepted.
fn check_version(version: &str, found: &mut Found) {
    let at = "ociVersion";
    if version.is_empty() {
        return found.missing(at, "missing");
    }
    let (rest, build) = version.split_once('+').map_or((version, None), |(a, b)| (a, Some(b)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(a, b)| (a, Some(b)));
    let number =
        |n: &str| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit()) && (n == "0" || !n.starts_with('0'));
    let word = |w: &str| !w.is_empty() && w.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    let numbers: Vec<&str> = core.split('.').collect();
    let tails = [pre, build].into_iter().flatten().all(|tail| tail.split('.').all(word));
    if numbers.len() != 3 || !numbers.iter().all(|n| number(n)) || !tails {
        found.problem(at, format_args!("{version:?} is not a semantic version such as 1.3.0"));
    } else if numbers[0] != "1" {
        found.problem(at, format_args!("{version} is not supported; only versions 1.x.y are"));
    }
}

/// The bytes of `config.json`, at most [`MAX_CONFIG_SIZE`] of them.
pub(crate) fn read(bundle: &Path) -> Result<Vec<u8>> {
    let path = bundle.join("config.json");
    let shown = path.display();
    // Opening a fifo without O_NONBLOCK would wait for a writer for ever.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let opened = openat(AT_FDCWD, &path, flags, Mode::empty());
    let file = File::from(opened.map_err(|e| open_failed(bundle, &path, e.into()))?);
    let meta = file.metadata().map_err(|e| Error::io(format!("fstat {shown}"), e))?;
    if meta.is_dir() {
        return Err(Error::os(format!("read {shown}"), Errno::EISDIR));
    }
    if !meta.is_file() {
        return Err(Error::new(ErrorKind::InvalidConfig, format!("{shown} is not a regular file")));
    }
    let mut bytes = Vec::with_capacity(meta.len().min(MAX_CONFIG_SIZE) as usize + 1);
    if meta.len() <= MAX_CONFIG_SIZE {
        // One byte more than allowed, so that a file that grows meanwhile is noticed.
        let mut limited = file.take(MAX_CONFIG_SIZE + 1);
        limited.read_to_end(&mut bytes).map_err(|e| Error::io(format!("read {shown}"), e))?;
    }
    if meta.len().max(bytes.len() as u64) > MAX_CONFIG_SIZE {
        let limit = MAX_CONFIG_SIZE >> 20;
        return Err(Error::os(format!("read {shown}"), Errno::EFBIG)
            .with_hint(format!("at most {limit} MiB are read; is it really a config.json?")));
    }
    Ok(bytes)
}

/// "No such file" alone leaves open whether the bundle or its `config.json` is missing.
fn open_failed(bundle: &Path, path: &Path, cause: std::io::Error) -> Error {
    let kind = cause.kind();
    let error = Error::io(format!("open {}", path.display()), cause);
    match (kind, std::fs::metadata(bundle)) {
        (IoErrorKind::NotFound, Err(_)) => error
            .within(format!("chdir {}: no such file or directory", bundle.display()))
            .with_hint("the bundle directory does not exist"),
        (IoErrorKind::NotFound, Ok(_)) => error
            .within("JSON specification file config.json not found")
            .with_hint("the bundle has no config.json; make one with the command `spec`"),
        (IoErrorKind::NotADirectory, _) => error.with_hint("the bundle is not a directory"),
        _ => error,
    }
}

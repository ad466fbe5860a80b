//! The meaning of the flags before the verb.

use crate::cli::Parsed;
use crate::failure::Failure;
use crate::launch::Inherited;
use crate::log::Log;
use libruntime::{CgroupDriver, Container, Diagnostic, Runtime};
use std::path::PathBuf;

pub struct Global<'a> {
    pub runtime: Runtime,
    /// The store was given explicitly, so it should exist.
    pub root_is_given: bool,
    inherited: Result<Inherited, Failure>,
    log: &'a Log,
}

impl<'a> Global<'a> {
    pub fn new(flags: &Parsed, log: &'a Log, inherited: Result<Inherited, Failure>) -> Result<Self, Failure> {
        if let Some(value) = flags.get("rootless").filter(|value| !["true", "false", "auto"].contains(value))
        {
            return Err(Failure::usage(format!("--rootless is true, false or auto, not {value:?}")));
        }
        let given = flags.get("root").filter(|root| !root.is_empty());
        let root = match given {
            Some(root) => std::path::absolute(root).map_err(|error| Failure::os("getcwd", error))?,
            None => default_root(),
        };
        if root.parent().is_none() {
            return Err(Failure::new("Option --root argument should not be set to /"));
        }
        let runtime = Runtime::new(root)
            .cgroup_driver(cgroup_driver(flags)?)
            .network_annotations(flags.is_set("network-annotations"))
            .hook_output_annotations(flags.is_set("hook-output-annotations"));
        Ok(Self { runtime, root_is_given: given.is_some(), inherited, log })
    }

    /// The error matters only for the verbs that pass descriptors on.
    pub fn inherited(&self) -> Result<Inherited, Failure> {
        self.inherited.clone()
    }

    pub fn load(&self, args: &Parsed) -> Result<Container, Failure> {
        Ok(self.runtime.load(args.positional(0))?)
    }

    pub fn warn(&self, message: &str) {
        self.log.warning(message);
    }

    /// Logs an error that does not end the command.
    pub fn tell(&self, failure: &Failure) {
        self.log.error(failure);
    }

    pub fn warn_of<'f>(&self, findings: impl IntoIterator<Item = &'f Diagnostic>) {
        findings.into_iter().for_each(|finding| self.log.warning(&finding.to_string()));
    }
}

fn cgroup_driver(flags: &Parsed) -> Result<CgroupDriver, Failure> {
    match flags.get("cgroup-manager") {
        None if flags.is_set("systemd-cgroup") => Ok(CgroupDriver::Systemd),
        None | Some("cgroupfs") => Ok(CgroupDriver::Cgroupfs),
        Some("systemd") => Ok(CgroupDriver::Systemd),
        Some("disabled") => Ok(CgroupDriver::None),
        Some(other) => {
            Err(Failure::usage(format!("--cgroup-manager is cgroupfs, systemd or disabled, not {other:?}")))
        }
    }
}

/// A directory that is removed at the next boot, or at the end of the user's session.
fn default_root() -> PathBuf {
    let session = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    match session {
        // Also for root in a user namespace, as which rootless Podman starts onggi.
        Some(dir) if !libruntime::has_host_root() => PathBuf::from(dir).join("onggi"),
        _ => PathBuf::from("/run/onggi"),
    }
}

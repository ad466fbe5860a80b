//! What the flags before the verb mean here.

use crate::cli::Parsed;
use crate::failure::Failure;
use crate::launch::Inherited;
use crate::log::Log;
use libruntime::{CgroupDriver, Container, Diagnostic, Runtime};
use std::path::PathBuf;

pub struct Global<'a> {
    pub runtime: Runtime,
    /// The store was named, so it ought to exist.
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
            .network_annotations(flags.is_set("network-annotations"));
        Ok(Self { runtime, root_is_given: given.is_some(), inherited, log })
    }

    /// An error only for the verbs that hand descriptors over.
    pub fn inherited(&self) -> Result<Inherited, Failure> {
        self.inherited.clone()
    }

    pub fn load(&self, args: &Parsed) -> Result<Container, Failure> {
        Ok(self.runtime.load(args.positional(0))?)
    }

    pub fn warn(&self, message: &str) {
        self.log.warning(message);
    }

    /// An error that does not end the command.
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

/// A directory that goes away with the next boot, or with the user's session.
fn default_root() -> PathBuf {
    let session = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    match session {
        // Also as root of a user namespace, as rootless Podman starts us.
        Some(dir) if !libruntime::has_host_root() => PathBuf::from(dir).join("onggi"),
        _ => PathBuf::from("/run/onggi"),
    }
}

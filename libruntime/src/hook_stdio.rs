//! The standard streams of a hook: the container's state on its input, and with crun's annotations
//! `run.oci.hooks.stdout` and `run.oci.hooks.stderr` files for its output.
//!
//! Whoever writes annotations could have any file of the host appended to, so these two count only where the runtime's
//! operator allows them. A startContainer hook, whose program is the image's, gets no descriptor of the host's even then.

use crate::error::{Diagnostic, Error, ErrorKind, Result};
use crate::state::State;
use crate::status::Status;
use nix::fcntl::OFlag;
use oci_spec::runtime::Spec;
use serde_json::json;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

const STDOUT: &str = "run.oci.hooks.stdout";
const STDERR: &str = "run.oci.hooks.stderr";

/// The annotations, for `features`.
pub(crate) const ANNOTATIONS: [&str; 2] = [STDERR, STDOUT];

pub(crate) struct HookStdio {
    pub state: Vec<u8>,
    /// The annotation, and the file that it names.
    stdout: Option<(&'static str, PathBuf)>,
    stderr: Option<(&'static str, PathBuf)>,
}

impl HookStdio {
    /// For hooks in the runtime's namespaces. `allowed`: annotations name files for their output.
    pub fn outside(of: &State, status: Status, allowed: bool) -> Self {
        let state = of.for_hooks(status);
        let file = |name: &'static str| {
            let path = of.annotations.get(name).filter(|path| allowed && !path.is_empty())?;
            // As crun has it, whose working directory is the bundle.
            Some((name, of.bundle.join(path)))
        };
        Self { state, stdout: file(STDOUT), stderr: file(STDERR) }
    }

    /// For createContainer hooks, which are programs of the host in the container's namespaces.
    pub fn between(of: &State, status: Status, allowed: bool) -> Self {
        Self { state: of.for_hooks_inside(status), ..Self::outside(of, status, allowed) }
    }

    /// For startContainer hooks.
    pub fn inside(of: &State, status: Status) -> Self {
        Self { state: of.for_hooks_inside(status), stdout: None, stderr: None }
    }

    pub fn stdout(&self) -> Result<Option<File>> {
        self.stdout.as_ref().map(append).transpose()
    }

    pub fn stderr(&self) -> Result<Option<File>> {
        self.stderr.as_ref().map(append).transpose()
    }
}

impl State {
    /// The state of the specification, for hooks and seccomp agents. A container that has stopped has no pid: it may
    /// be another process's by now.
    pub(crate) fn for_hooks(&self, status: Status) -> Vec<u8> {
        self.document(status, self.init.map(|init| init.pid).filter(|_| status != Status::Stopped))
    }

    /// The same for hooks that run in the container's namespaces: with the pid that its init has there (runtime.md,
    /// "State").
    pub(crate) fn for_hooks_inside(&self, status: Status) -> Vec<u8> {
        self.document(status, self.init.map(|init| pid_inside(init.pid).unwrap_or(init.pid)))
    }

    fn document(&self, status: Status, pid: Option<i32>) -> Vec<u8> {
        let mut state = json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
            "annotations": self.annotations,
        });
        if let Some(pid) = pid {
            state["pid"] = pid.into();
        }
        state.to_string().into_bytes()
    }
}

/// The pid that a process has in its own pid namespace.
fn pid_inside(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?.parse().ok()
}

/// Opens a regular file to append to it, or makes it. What is there instead is neither followed nor waited for.
fn append((name, path): &(&'static str, PathBuf)) -> Result<File> {
    let place = || format!("annotations[{name}]");
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened = File::options().append(true).create(true).mode(0o600).custom_flags(flags.bits()).open(path);
    let shown = path.display();
    let file = opened.map_err(|error| Error::io(format!("open {shown}"), error).at(place()))?;
    let meta = file.metadata().map_err(|error| Error::io(format!("fstat {shown}"), error).at(place()))?;
    if !meta.is_file() {
        let text = format!("{shown} is not a regular file");
        return Err(Error::new(ErrorKind::InvalidConfig, text).at(place()));
    }
    Ok(file)
}

/// The annotations that are not allowed.
pub(crate) fn ignored(spec: &Spec) -> Vec<Diagnostic> {
    let has = |name: &&str| spec.annotations().as_ref().is_some_and(|all| all.contains_key(*name));
    let message =
        "ignored: an image can have written it; who starts the container can allow hook output annotations";
    let ignored = ANNOTATIONS.iter().filter(|name| has(name));
    ignored.map(|name| Diagnostic::warning(format!("annotations[{name}]"), message)).collect()
}

//! An OCI runtime as a library: a bundle's `config.json` becomes a container.
//!
//! ```no_run
//! use libruntime::Runtime;
//!
//! let runtime = Runtime::new("/run/example");
//! let container = runtime.container("hello").bundle("/srv/bundle").create()?;
//! container.start()?;
//! println!("{}", container.wait()?);
//! container.delete()?;
//! # Ok::<(), libruntime::Error>(())
//! ```
//!
//! The calling process is not changed: not its directory, umask, environment, signals, dumpable
//! flag, OOM score or descriptors, whatever its threads do meanwhile. Nothing is logged or
//! printed; an [`Error`] says which call failed, on what, why, and where in `config.json` that
//! comes from. See ARCHITECTURE.md for how it works.

#![deny(unsafe_code)]
#![deny(missing_docs)]

mod bare_mounts;
mod bundle;
mod cgroup;
mod check;
mod checkpoint;
mod child;
mod config;
mod console;
mod container;
mod create;
mod criu;
mod date;
mod delete;
mod diagnostic;
mod error;
mod exec;
mod executed;
mod explain;
mod features;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod hints;
mod hook_stdio;
mod hooks;
mod host;
mod init;
mod launch;
mod lock;
mod mounts;
mod moved;
mod namespaces;
mod netdevices;
mod network;
mod new_container;
mod notify;
mod options;
mod parent;
mod plan;
mod prepare;
mod program;
mod readiness;
mod resctrl;
mod restore;
mod runtime;
#[doc(hidden)] // the oracle tests compile filters for other machines
pub mod seccomp;
mod settings;
mod signal;
mod stage;
mod start;
mod starter;
mod state;
mod status;
mod stdio;
/// The steps are in the stage's sources; some of what is there only the stage uses.
#[path = "../stage/src/lib.rs"]
#[allow(dead_code, unused_imports)]
mod step;
mod sys;
mod timeline;
#[cfg(feature = "tokio")]
mod tokio;
mod trace;
mod transaction;
mod unreported;
mod update;
mod userns;
mod verify;
mod wait;
mod words;

/// The first of `count` descriptors from 3 on that is not open.
#[doc(hidden)] // the command asks before it opens anything
pub fn first_closed_descriptor(count: u32) -> Option<u32> {
    (3..count.saturating_add(3)).find(|number| !sys::is_open(*number))
}

pub use bundle::BundleReport;
#[doc(hidden)] // for the command's default directory
pub use cgroup::has_host_root;
pub use cgroup::{Oom, OomEvents, Stats, stats};
pub use check::{Check, Level, Report, check};
pub use checkpoint::{CgroupMode, CheckpointOptions};
pub use config::{Config, MAX_CONFIG_SIZE, check_id, parse_process, parse_resources};
pub use console::{Terminal, TerminalSize, connect_socket, terminal_size};
pub use container::{Container, State};
pub use date::now;
pub use diagnostic::{Diagnostic, DiagnosticCode, Position, Severity, Span};
pub use error::{Error, ErrorKind, Result};
pub use exec::{ExecProcess, NewProcess};
pub use explain::Explanation;
pub use features::features;
pub use init::{Init, init};
pub use mounts::{parse_destinations, parse_mounts};
pub use network::{AddressAssignment, Dns, InterfaceStatus, Network, PortMapping, Protocol, Route, Subnet};
pub use new_container::NewContainer;
pub use oci_spec;
pub use oci_spec::runtime::{Mount, Process, Spec};
pub use plan::request::CgroupDriver;
pub use program::Program;
pub use readiness::Readiness;
pub use runtime::Runtime;
pub use signal::Signal;
pub use status::Status;
pub use stdio::{Output, Stdio};
pub use sys::ExitStatus;
#[doc(hidden)] // for the command, which has the process to itself
pub use sys::{is_ignored, reset_sigchld};
pub use timeline::Timeline;
pub use trace::{Event, EventKind, Observer, observe};
pub use wait::Cancel;
#[doc(hidden)] // for the command's own calls
pub use words::errno_text;

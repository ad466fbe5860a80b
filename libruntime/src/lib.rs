//! An OCI runtime as a library: a bundle's `config.json` becomes a container.
//!
//! ```no_run
//! use libruntime::{Create, create};
//! use std::path::Path;
//!
//! let container = create(&Create::new(Path::new("/run/onggi"), "hello", Path::new("/srv/bundle")))?;
//! container.start()?;
//! println!("{:?}", container.wait()?);
//! container.delete(false)?;
//! # Ok::<(), libruntime::Error>(())
//! ```
//!
//! The calling process is not changed: not its directory, umask, environment, signals, dumpable
//! flag, OOM score or descriptors, whatever its threads do meanwhile. Nothing is logged or
//! printed; an [`Error`] says which call failed, on what, why, and where in `config.json` that
//! comes from. See ARCHITECTURE.md for how it works.

#![deny(unsafe_code)]

mod cgroup;
mod check;
mod checkpoint;
mod child;
mod config;
mod console;
mod container;
mod create;
mod criu;
mod error;
mod explain;
mod features;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod hints;
mod hooks;
mod host;
mod join;
mod lock;
mod netdevices;
mod network;
mod notify;
mod parent;
mod plan;
mod readiness;
mod resctrl;
mod restore;
#[doc(hidden)] // the oracle tests compile filters for other machines
pub mod seccomp;
mod stage;
mod start;
mod state;
/// The steps are in the stage's sources; some of what is there only the stage uses.
#[path = "../stage/src/lib.rs"]
#[allow(dead_code)]
mod step;
mod sys;
mod trace;
mod userns;
mod verify;
mod wait;
mod words;

/// The first of `count` descriptors from 3 on that is not open.
#[doc(hidden)] // the command asks before it opens anything
pub fn first_closed_descriptor(count: u32) -> Option<u32> {
    sys::first_closed(count)
}

#[doc(hidden)] // for the command's default directory
pub use cgroup::has_host_root;
pub use cgroup::{Oom, OomEvents, Stats};
pub use check::{Check, Level, Report, check};
pub use checkpoint::{CgroupMode, CheckpointOptions};
pub use config::{Config, MAX_CONFIG_SIZE, check_id, parse_process, parse_resources};
pub use console::{connect_socket, receive_terminal, set_terminal_size, terminal_size};
pub use container::{Container, Exit, Status};
pub use create::{Create, create};
pub use error::{Error, ErrorKind, Finding, Result};
pub use explain::{Explanation, explain};
pub use features::features;
pub use join::{Exec, Executed};
pub use network::{Address, Attached, Attachment, Dns, Network, Protocol, Publish, Route, Subnet};
pub use oci_spec::runtime::{Process, Spec};
pub use plan::create::CgroupDriver;
pub use readiness::Readiness;
pub use restore::restore;
pub use state::now;
#[doc(hidden)] // for the command, which has the process to itself
pub use sys::{is_ignored, reset_sigchld};
pub use trace::{Event, EventKind, Observer, observe};
#[doc(hidden)] // for the command's own calls
pub use words::errno_text;

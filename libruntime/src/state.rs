//! What is remembered of a container between two runs of the library: a directory of its own
//! below the store, with `state.json`, a copy of its `config.json`, the compiled seccomp filter,
//! and the socket that `start` connects to.
//!
//! Files appear whole (written aside and renamed). A pid counts only together with its start time.

use crate::cgroup::Cgroup;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::create::Request;
use crate::seccomp::Filter;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use oci_spec::runtime::Spec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A process that is told from a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub pid: i32,
    /// Clock ticks after boot (proc_pid_stat(5), `starttime`).
    pub start_time: u64,
}

impl ProcessId {
    /// The process with this pid now.
    pub fn of(pid: i32) -> Result<Self> {
        let gone = || Error::os(format!("read /proc/{pid}/stat"), Errno::ESRCH);
        Ok(Self { pid, start_time: stat(pid).ok_or_else(gone)?.start_time })
    }

    /// Whether it still runs; a zombie does not.
    pub fn is_alive(self) -> bool {
        self.stat().is_some()
    }

    /// Whether it has executed a program since it was cloned; `None` for one that does not run any more.
    pub fn has_executed(self) -> Option<bool> {
        self.stat().map(|found| found.flags & FORKED_NO_EXEC == 0)
    }

    fn stat(self) -> Option<Stat> {
        stat(self.pid)
            .filter(|found| found.start_time == self.start_time && !matches!(found.state, 'Z' | 'X'))
    }
}

/// `PF_FORKNOEXEC`, which ps(1) shows as "forked but didn't exec". The first execve(2) clears it, and nothing sets
/// it again: no program can pretend that it is not executed yet.
const FORKED_NO_EXEC: u64 = 0x40;

struct Stat {
    state: char,
    flags: u64,
    start_time: u64,
}

/// From `/proc/PID/stat`, behind the name, which may hold anything. Every user may read these fields.
fn stat(pid: i32) -> Option<Stat> {
    // The kernel gives all of it in one read(2), which is a few hundred bytes.
    let mut bytes = [0; 2048];
    let length = fs::File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes[..length]);
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let flags = fields.nth(5)?.parse().ok()?;
    Some(Stat { state, flags, start_time: fields.nth(12)?.parse().ok()? })
}

const STATE: &str = "state.json";
const NEXT_STATE: &str = ".state.json";
const SPEC: &str = "config.json";
const NEXT_SPEC: &str = ".config.json";

/// `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    pub id: String,
    pub oci_version: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    pub owner: u32,
    pub annotations: BTreeMap<String, String>,
    /// `None` until there is one.
    pub init: Option<ProcessId>,
    pub cgroup: Cgroup,
    /// Resource control groups of our own, to be removed (`linux.intelRdt`).
    pub resctrl: Vec<PathBuf>,
    /// Its mounts are the host's as well: those on `rootfs` are ours to take off.
    pub mounted_on_host: bool,
    /// What it was asked to be, to explain a failure of its start.
    pub request: Request,
}

/// One container's directory.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    pub path: PathBuf,
}

impl Directory {
    /// The directory of `id` below `store`; it need not exist.
    pub fn of(store: &Path, id: &str) -> Result<Self> {
        crate::config::check_id(id)?;
        Ok(Self { path: store.join(id) })
    }

    /// Makes it, and is the only one to do so. It appears with its state in it: whatever kills us,
    /// a container that has a directory can be loaded, and so be deleted.
    pub fn create(store: &Path, state: &State, spec: &Spec) -> Result<Self> {
        let id = &state.id;
        let directory = Self::of(store, id)?;
        let aside = Self { path: store.join(format!(".{id}.{}", std::process::id())) };
        let failed = |what: &str, path: &Path| {
            let call = format!("{what} {}", path.display());
            move |error: std::io::Error| Error::io(call, error)
        };
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        match builder.create(&aside.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(store)
                    .map_err(failed("mkdir", store))?;
                builder.create(&aside.path).map_err(failed("mkdir", &aside.path))?;
            }
            // Of an earlier process with our pid, or of another thread of ours with the same id.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Err(in_use(id)),
            other => other.map_err(failed("mkdir", &aside.path))?,
        }
        let written = aside.write_json(STATE, state).and_then(|()| aside.write_json(SPEC, spec));
        let made = written.and_then(|()| match fs::rename(&aside.path, &directory.path) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENOTEMPTY)) => {
                Err(in_use(id))
            }
            other => other.map_err(failed("rename", &directory.path)),
        });
        if made.is_err() {
            let _ = fs::remove_dir_all(&aside.path);
        }
        made.map(|()| directory)
    }

    /// Removes what a process that is no more has left of its attempt to create or remove `id`.
    pub fn sweep(store: &Path, id: &str) {
        let prefix = format!(".{id}.");
        for entry in fs::read_dir(store).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            let rest = name.strip_prefix(&prefix).map(|rest| rest.strip_suffix('~').unwrap_or(rest));
            let whose = rest.and_then(|pid| pid.parse::<i32>().ok());
            if whose.is_some_and(|pid| stat(pid).is_none()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let path = self.path.join(name);
        let failed = |error| Error::io(format!("write {}", path.display()), error);
        let bytes = serde_json::to_vec(value)
            .map_err(|error| Error::external(format!("cannot encode {name}: {error}")))?;
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&path).map_err(failed)?;
        file.write_all(&bytes).map_err(failed)
    }

    fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let path = self.path.join(name);
        let bytes = fs::read(&path).map_err(|error| Error::io(format!("open {}", path.display()), error))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::external(format!("{} is damaged: {error}", path.display())))
    }

    /// Writes a new state, which [`Directory::commit_state`] makes the one that is read.
    pub fn prepare_state(&self, state: &State) -> Result<()> {
        self.write_json(NEXT_STATE, state)
    }

    pub fn commit_state(&self) -> Result<()> {
        let (next, path) = (self.path.join(NEXT_STATE), self.path.join(STATE));
        fs::rename(&next, &path).map_err(|error| Error::io(format!("rename {}", path.display()), error))
    }

    pub fn read_state(&self) -> Result<State> {
        self.read_json(STATE)
    }

    /// What later verbs need of the configuration; the bundle may change meanwhile.
    pub fn read_spec(&self) -> Result<Spec> {
        self.read_json(SPEC)
    }

    /// Another one in its place, whole.
    pub fn replace_spec(&self, spec: &Spec) -> Result<()> {
        let (next, path) = (self.path.join(NEXT_SPEC), self.path.join(SPEC));
        self.write_json(NEXT_SPEC, spec)?;
        fs::rename(&next, &path).map_err(|error| Error::io(format!("rename {}", path.display()), error))
    }

    pub fn write_filter(&self, filter: &Filter) -> Result<()> {
        self.write_json("seccomp.json", filter)
    }

    pub fn read_filter(&self) -> Result<Filter> {
        self.read_json("seccomp.json")
    }

    /// One change of the stored configuration at a time, until the result is dropped.
    pub fn lock(&self) -> Result<Flock<fs::File>> {
        let opened = fs::File::open(&self.path)
            .map_err(|error| Error::io(format!("open {}", self.path.display()), error))?;
        Flock::lock(opened, FlockArg::LockExclusive)
            .map_err(|(_, errno)| Error::os(format!("flock {}", self.path.display()), errno))
    }

    /// Removes it with all that is in it; one that is gone is fine. It disappears at once: whatever kills
    /// us, nothing is left that can be neither loaded nor made again.
    pub fn remove(&self) -> Result<()> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let aside = self.path.with_file_name(format!(".{name}.{}~", std::process::id()));
        // Of an earlier process with our pid.
        let _ = fs::remove_dir_all(&aside);
        match fs::rename(&self.path, &aside).and_then(|()| fs::remove_dir_all(&aside)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove {}", self.path.display()), error))
            }
            _ => Ok(()),
        }
    }
}

fn in_use(id: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("container {id} already exists"))
        .with_hint("choose another id, or delete it first")
}

/// Now, as RFC 3339 with nanoseconds, in UTC.
pub fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86400, since.as_secs() % 86400);
    let (year, month, day) = civil(days as i64);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let nanos = since.subsec_nanos();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// The date of a number of days after 1970-01-01, in years that begin in March.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_778), (2026, 11, 21));
    }

    #[test]
    fn what_a_dead_process_left_of_a_container_is_swept() {
        let store = std::env::temp_dir().join(format!("onggi-sweep-{}", std::process::id()));
        let dead = i32::MAX;
        let names =
            [format!(".a.{dead}"), format!(".a.{dead}~"), format!(".a.b.{dead}"), ".a.1~".to_string()];
        names.iter().for_each(|name| fs::create_dir_all(store.join(name).join("in")).unwrap());
        Directory::sweep(&store, "a");
        let left = names.map(|name| store.join(name).exists());
        fs::remove_dir_all(&store).unwrap();
        assert_eq!(left, [false, false, true, true]);
    }

    #[test]
    fn a_process_is_itself_and_not_one_that_started_at_another_time() {
        let own = ProcessId::of(std::process::id() as i32).unwrap();
        assert!(own.is_alive());
        assert!(!ProcessId { start_time: own.start_time + 1, ..own }.is_alive());
    }

    #[test]
    fn a_program_has_been_executed_and_a_forked_child_has_not() {
        let own = ProcessId::of(std::process::id() as i32).unwrap();
        assert_eq!(own.has_executed(), Some(true));
        assert_eq!(ProcessId { start_time: own.start_time + 1, ..own }.has_executed(), None);
        let holder = crate::sys::hold_user_namespace();
        let Ok(holder) = holder else { return eprintln!("skipped: user namespaces are not allowed") };
        assert_eq!(ProcessId::of(holder.pid).unwrap().has_executed(), Some(false));
    }
}

//! What is kept of a container between two runs of the library: a directory of its own below the store, with
//! `state.json`, a copy of its `config.json`, the compiled seccomp filter, and the socket that `start` connects to.
//!
//! Files that change appear whole (written aside and renamed). A pid counts only together with its start time. Nothing is synced to
//! the disk: a loss of power ends every process and cgroup too, so that only the directory is left to delete, whatever
//! is in it.
//!
//! A verb works on the directory that it has opened, whatever is in its place later, and changes it only
//! while it holds its lock.

use crate::cgroup::Cgroup;
use crate::error::{Error, ErrorKind, Result};
use crate::lock;
use crate::seccomp::Filter;
use crate::stage::Executable;
use crate::sys::{self, ExitStatus};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat, mknodat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use oci_spec::runtime::Spec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A process, by what tells it from a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub pid: i32,
    /// Clock ticks after boot (proc_pid_stat(5), `starttime`).
    pub start_time: u64,
}

impl ProcessId {
    /// The process with this pid now.
    pub fn of(pid: i32) -> Result<Self> {
        let call = || format!("read /proc/{pid}/stat");
        let found = stat(pid).map_err(|error| Error::io(call(), error))?;
        Ok(Self { pid, start_time: found.ok_or_else(|| Error::os(call(), Errno::ESRCH))?.start_time })
    }

    /// Whether a signal or a tracer has stopped it.
    pub fn is_stopped(self) -> bool {
        matches!(self.stat(), Ok(Some(Stat { state: 'T' | 't', .. })))
    }

    /// Whether another process traces it, which can stop it at its end even after SIGKILL (ptrace(2),
    /// PTRACE_EVENT_EXIT).
    pub fn is_traced(self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_some_and(|pid| pid.trim() != "0")
    }

    /// Whether it still runs; a zombie does not. Where the kernel does not say (EMFILE, ENOMEM) it counts as
    /// running: a container that is taken for stopped is deleted without force.
    pub fn is_alive(self) -> bool {
        !matches!(self.stat(), Ok(None))
    }

    /// Whether it has executed a program, apart from the stage that it may have been started as; `None` for one that
    /// does not run any more. A caller that may not look at its executable takes it for a program.
    pub fn has_executed(self, stage: Option<Executable>) -> Option<bool> {
        let executes_stage = |found: &Stat| {
            stage.is_some_and(|stage| match found.flags & EXITING {
                0 => stage.is_of(self.pid),
                // It has no executable any more, and waits for the others in its pid namespace.
                _ => stage.names().contains(&found.name),
            })
        };
        match self.stat() {
            Ok(found) => found.map(|found| found.flags & FORKED_NO_EXEC == 0 && !executes_stage(&found)),
            Err(_) => Some(true),
        }
    }

    fn stat(self) -> std::io::Result<Option<Stat>> {
        let same = |found: &Stat| found.start_time == self.start_time && !matches!(found.state, 'Z' | 'X');
        Ok(stat(self.pid)?.filter(same))
    }
}

/// `PF_FORKNOEXEC`, which ps(1) shows as "forked but didn't exec". The first execve(2) clears it, and nothing sets
/// it again: no program can pretend that it is not executed yet.
pub(crate) const FORKED_NO_EXEC: u64 = 0x40;

/// `PF_EXITING`
const EXITING: u64 = 0x4;

pub(crate) struct Stat {
    /// Newlines and backslashes are escaped (proc_pid_stat(5)).
    pub name: String,
    pub state: char,
    pub flags: u64,
    start_time: u64,
}

/// From `/proc/PID/stat`, which every user may read; `None` where there is no such process.
pub(crate) fn stat(pid: i32) -> std::io::Result<Option<Stat>> {
    match sys::read_short(&format!("/proc/{pid}/stat")) {
        Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
        read => fields(&read?).map(Some).ok_or_else(|| std::io::ErrorKind::InvalidData.into()),
    }
}

/// Reaped or not. `Z` alone is the state of a first thread that has ended, and others may run on.
fn has_ended(pid: i32) -> bool {
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    stat(pid).is_ok_and(|found| found.is_none_or(|found| found.state == 'Z' && threads() <= 1))
}

/// The name may hold anything.
fn fields(bytes: &[u8]) -> Option<Stat> {
    let text = String::from_utf8_lossy(bytes);
    let (pid_and_name, fields) = text.rsplit_once(')')?;
    let (name, mut fields) = (pid_and_name.split_once('(')?.1.into(), fields.split_ascii_whitespace());
    let state = fields.next()?.chars().next()?;
    let flags = fields.nth(5)?.parse().ok()?;
    Some(Stat { name, state, flags, start_time: fields.nth(12)?.parse().ok()? })
}

/// The first state, which is written before anything else is made and has what deletion needs. It counts until
/// `state.json` exists.
const FIRST_STATE: &str = "first.json";
const NEXT_FIRST_STATE: &str = ".first.json";
const STATE: &str = "state.json";
const NEXT_STATE: &str = ".state.json";
const SPEC: &str = "config.json";
const NEXT_SPEC: &str = ".config.json";
const AFTER_START: &str = "after-start";
const EXIT: &str = "exit.json";
/// An empty file.
const STARTED: &str = "started";

/// The version of `state.json`. It grows with a change that an older library would misunderstand; a property that an
/// older one may ignore has a default instead, so that both read both.
pub(crate) const VERSION: u32 = 1;

/// `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    /// 0 before there was one.
    #[serde(default)]
    pub version: u32,
    pub id: String,
    pub oci_version: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    pub owner: u32,
    pub annotations: BTreeMap<String, String>,
    /// `None` until init exists.
    pub init: Option<ProcessId>,
    pub cgroup: Cgroup,
    /// Resource control groups of our own, to be removed (`linux.intelRdt`).
    pub resctrl: Vec<PathBuf>,
    /// It has no mount namespace of its own: deletion unmounts what is mounted on `rootfs`.
    pub mounted_on_host: bool,
    /// The stage's executable, where init was started as it.
    #[serde(default)]
    pub stage: Option<Executable>,
    /// CRIU has made its init, which runs although it has never executed a program.
    #[serde(default)]
    pub restored: bool,
    /// A part of the name of its session keyring.
    #[serde(default)]
    pub keyring_secret: String,
    /// Its stage accepts another program from `start`.
    #[serde(default)]
    pub takes_program: bool,
    /// The supervisor's socket, which is notified when its program is ready.
    pub notify_socket: Option<PathBuf>,
}

impl State {
    /// The state of a container of which only the id is known.
    pub fn unknown(id: &str) -> Self {
        Self {
            version: VERSION,
            id: id.into(),
            oci_version: String::new(),
            bundle: PathBuf::new(),
            rootfs: PathBuf::new(),
            created: String::new(),
            owner: 0,
            annotations: BTreeMap::new(),
            init: None,
            cgroup: Cgroup::none(),
            resctrl: Vec::new(),
            mounted_on_host: false,
            stage: None,
            restored: false,
            keyring_secret: String::new(),
            takes_program: false,
            notify_socket: None,
        }
    }
}

/// A container's open directory: its path may lead to another directory later.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    pub path: PathBuf,
    opened: Arc<OwnedFd>,
}

/// The lock of a directory, held until this is dropped. Only its holder changes the directory.
#[derive(Debug)]
pub(crate) struct Lock {
    _opened: fs::File,
}

/// Opens a directory that belongs to the caller. Another user's directory could name hooks to run and processes to
/// kill, with the caller's privileges.
fn open_directory(path: &Path) -> std::io::Result<OwnedFd> {
    let opened = sys::open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW)?;
    let (owner, caller) = (nix::sys::stat::fstat(&opened)?.st_uid, nix::unistd::geteuid().as_raw());
    if owner != caller {
        let what = format!("it belongs to user {owner}, and the caller is user {caller}");
        return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, what));
    }
    Ok(opened)
}

/// Refuses a store in which another user could replace the directories of containers.
fn check_store(store: &Path) -> Result<()> {
    const GROUP_MAY_WRITE: u32 = 0o20;
    const OTHERS_MAY_WRITE: u32 = 0o2;
    const NOBODY: u32 = 65534;
    let found = fs::metadata(store).map_err(|error| Error::io(format!("stat {}", store.display()), error))?;
    let caller = || nix::unistd::geteuid().as_raw();
    let of_another = found.gid() != nix::unistd::getegid().as_raw();
    let problem = match found.uid() {
        // The sticky bit, as of /tmp, keeps others from removing what is there, but not from being first with a name.
        _ if found.mode() & OTHERS_MAY_WRITE != 0 => "every user may write to it".to_string(),
        _ if found.mode() & GROUP_MAY_WRITE != 0 && of_another => {
            format!("its group {} may write to it", found.gid())
        }
        // Root may own the store of a user; in a user namespace without a mapping for it, root is shown as nobody.
        owner if owner == 0 || owner == caller() => return Ok(()),
        NOBODY if !crate::cgroup::has_host_root() => return Ok(()),
        owner => format!("it belongs to user {owner}, and the caller is user {}", caller()),
    };
    Err(Error::external(format!("open {}: {problem}", store.display()))
        .with_hint("choose a store in a directory that only you may write to"))
}

impl Directory {
    /// The directory of `id` below `store`; `None` where there is none.
    pub fn open(store: &Path, id: &str) -> Result<Option<Self>> {
        crate::config::check_id(id)?;
        let path = store.join(id);
        match open_directory(&path) {
            Ok(opened) => Ok(Some(Self { path, opened: Arc::new(opened) })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(format!("open {}", path.display()), error)),
        }
    }

    /// Creates the directory, and fails where the id exists. It appears by a rename, locked and with its first state in
    /// it: even after a crash, a container that has a directory can be loaded, and so be deleted.
    pub fn create(store: &Path, state: &State, spec: &Spec) -> Result<(Self, Lock)> {
        let id = &state.id;
        crate::config::check_id(id)?;
        let path = store.join(id);
        let aside = store.join(format!("{}.{}", aside(id), std::process::id()));
        make_aside(store, &aside, id)?;
        check_store(store).inspect_err(|_| drop(fs::remove_dir(&aside)))?;
        let failed = |what: &str, path: &Path| {
            let call = format!("{what} {}", path.display());
            move |error: std::io::Error| Error::io(call, error)
        };
        let fill = || {
            let opened = open_directory(&aside).map_err(failed("open", &aside))?;
            let directory = Self { path: aside.clone(), opened: Arc::new(opened) };
            directory.write_json(FIRST_STATE, state)?;
            directory.write_json(SPEC, spec)?;
            let lock = directory.lock_here()?;
            match fs::rename(&aside, &path) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENOTEMPTY)) => {
                    Err(in_use(id))
                }
                other => other.map_err(failed("rename", &path)),
            }?;
            Ok((Self { path, ..directory }, lock))
        };
        let made = fill();
        if made.is_err() {
            let _ = fs::remove_dir_all(&aside);
        }
        made
    }

    /// Removes what a killed process has left of its attempt to create or remove `id`.
    pub fn sweep(store: &Path, id: &str) {
        let prefix = format!("{}.", aside(id));
        for entry in fs::read_dir(store).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            let rest = name.strip_prefix(&prefix).map(|rest| rest.strip_suffix('~').unwrap_or(rest));
            let whose = rest.and_then(|pid| pid.parse::<i32>().ok());
            if whose.is_some_and(has_ended) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    fn open_file(&self, name: &str, flags: OFlag) -> std::io::Result<fs::File> {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        Ok(openat(&*self.opened, name, flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, mode)?.into())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let opened = self.open_file(name, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC);
        opened
            .and_then(|mut file| file.write_all(bytes))
            .map_err(|error| Error::io(format!("write {}", self.path.join(name).display()), error))
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let bytes = serde_json::to_vec(value)
            .map_err(|error| Error::external(format!("cannot encode {name}: {error}")))?;
        self.write(name, &bytes)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.open_file(name, OFlag::O_RDONLY).and_then(|mut file| file.read_to_end(&mut bytes));
        match read {
            // Deleted since it was opened.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !self.is_in_place()? => {
                Err(self.gone())
            }
            Err(error) => Err(Error::io(format!("open {}", self.path.join(name).display()), error)),
            Ok(_) => Ok(bytes),
        }
    }

    fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        serde_json::from_slice(&self.read(name)?).map_err(|error| self.damaged(name, &error))
    }

    fn damaged(&self, name: &str, error: &serde_json::Error) -> Error {
        Error::external(format!("{} is damaged: {error}", self.path.join(name).display()))
            .with_hint("deletion by force removes the container")
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        nix::fcntl::renameat(&*self.opened, from, &*self.opened, to)
            .map_err(|errno| Error::os(format!("rename {}", self.path.join(to).display()), errno))
    }

    /// Writes a new state, which [`Directory::commit_state`] makes the one that is read.
    pub fn prepare_state(&self, state: &State) -> Result<()> {
        // The first state has to name what deletion does not find otherwise: init where there is no cgroup, and resctrl
        // groups.
        if state.cgroup.is_none() || !state.resctrl.is_empty() {
            self.write_json(NEXT_FIRST_STATE, state)?;
            self.rename(NEXT_FIRST_STATE, FIRST_STATE)?;
        }
        self.write_json(NEXT_STATE, state)
    }

    pub fn commit_state(&self) -> Result<()> {
        self.rename(NEXT_STATE, STATE)
    }

    pub fn read_state(&self) -> Result<State> {
        match self.read_known_state(STATE) {
            Err(error) if error.errno() == Some(Errno::ENOENT as i32) => self.read_known_state(FIRST_STATE),
            other => other,
        }
    }

    /// The first state, for a deletion where `state.json` cannot be read: of any version, if only it can be parsed.
    pub fn read_first_state(&self) -> Result<State> {
        self.read_json(FIRST_STATE)
    }

    /// The prepared state of a container that is being created.
    pub fn read_prepared_state(&self) -> Result<State> {
        self.read_known_state(NEXT_STATE)
    }

    /// A state of a version that this library knows; others may not even be of its form.
    fn read_known_state(&self, name: &str) -> Result<State> {
        #[derive(Deserialize)]
        struct Versioned {
            #[serde(default)]
            version: u32,
        }
        let text = self.read(name)?;
        match serde_json::from_slice::<Versioned>(&text) {
            Ok(Versioned { version }) if version > VERSION => {
                let path = self.path.join(name);
                let what = format!("{} has version {version}, {VERSION} is known", path.display());
                Err(Error::unsupported(what)
                    .with_hint("a newer onggi has made the container; deletion by force removes it"))
            }
            _ => serde_json::from_slice(&text).map_err(|error| self.damaged(name, &error)),
        }
    }

    /// Whether this is a container's directory, even if nothing in it can be read.
    pub fn is_of_container(&self) -> bool {
        let listed = |name: &str| fstatat(&*self.opened, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok();
        let is_empty = || fs::read_dir(&self.path).is_ok_and(|mut entries| entries.next().is_none());
        [STATE, FIRST_STATE, NEXT_STATE].iter().any(|name| listed(name)) || is_empty()
    }

    /// A short path that always leads to this directory, for calls that accept only a path: a socket's address has 108
    /// bytes for it (unix(7)).
    pub fn magic_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.opened.as_raw_fd()))
    }

    /// The configuration as it was at creation, with updates; the bundle may have changed since.
    pub fn read_spec(&self) -> Result<Spec> {
        let text = self.read(SPEC)?;
        crate::config::strict::from_slice(&text).map_err(|error| self.damaged(SPEC, &error))
    }

    /// Replaces it by a rename.
    pub fn replace_spec(&self, spec: &Spec) -> Result<()> {
        self.write_json(NEXT_SPEC, spec)?;
        self.rename(NEXT_SPEC, SPEC)
    }

    pub fn write_filter(&self, filter: &Filter) -> Result<()> {
        self.write_json("seccomp.json", filter)
    }

    pub fn read_filter(&self) -> Result<Filter> {
        self.read_json("seccomp.json")
    }

    /// Records the exit status of its init, for handles that are loaded later. By one write(2): before that the file is
    /// empty, which counts as none.
    pub fn write_exit(&self, exit: ExitStatus) -> Result<()> {
        self.write_json(EXIT, &exit)
    }

    pub fn read_exit(&self) -> Result<ExitStatus> {
        self.read_json(EXIT)
    }

    /// Records that its program was executed. Best effort: the program runs, and only one that executes the stage again is
    /// known by this file.
    pub fn mark_started(&self) {
        let _ = mknodat(&*self.opened, STARTED, SFlag::S_IFREG, Mode::S_IRUSR, 0);
    }

    pub fn is_started(&self) -> bool {
        fstatat(&*self.opened, STARTED, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// Records the steps that the stage does after `start`, so that `start` can name one that fails.
    pub fn write_after_start(&self, steps: &[u8]) -> Result<()> {
        self.write(AFTER_START, steps)
    }

    pub fn read_after_start(&self) -> Result<Vec<u8>> {
        self.read(AFTER_START)
    }

    /// Locks the directory until the result is dropped. Creation and deletion hold the lock from beginning to end.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the container was deleted meanwhile, even if its id is in use again.
    pub fn lock(&self) -> Result<Lock> {
        let lock = self.lock_here()?;
        if self.is_in_place()? { Ok(lock) } else { Err(self.gone()) }
    }

    /// Locks the directory, wherever its path leads now.
    fn lock_here(&self) -> Result<Lock> {
        // Opened anew: flock(2) locks belong to the open file description, and each thread has to be a holder of its
        // own.
        let opened = self.open_file(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY);
        let opened = match opened {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(self.gone()),
            other => other.map_err(|error| Error::io(format!("open {}", self.path.display()), error))?,
        };
        lock::exclusive(&opened, &self.path)?;
        Ok(Lock { _opened: opened })
    }

    /// Whether its path still leads to this directory.
    fn is_in_place(&self) -> Result<bool> {
        let id = |stat: nix::sys::stat::FileStat| (stat.st_dev, stat.st_ino);
        let failed = |errno| Error::os(format!("stat {}", self.path.display()), errno);
        let own = nix::sys::stat::fstat(&*self.opened).map_err(failed)?;
        match nix::sys::stat::lstat(&self.path) {
            Err(Errno::ENOENT) => Ok(false),
            named => Ok(id(own) == id(named.map_err(failed)?)),
        }
    }

    fn gone(&self) -> Error {
        let id = self.path.file_name().unwrap_or_default().display();
        Error::new(ErrorKind::NotFound, format!("container does not exist: {id}"))
    }

    /// Removes the directory with everything in it. It disappears by a rename: even after a crash, its id is either a
    /// whole container's or free. The path is changed only under the lock.
    pub fn remove(&self, _lock: &Lock) -> Result<()> {
        if !self.is_in_place()? {
            return Ok(());
        }
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let aside = self.path.with_file_name(format!("{}.{}~", aside(&name), std::process::id()));
        let move_aside = || match fs::rename(&self.path, &aside) {
            // Left by an earlier process with the same pid.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENOTEMPTY)) => {
                fs::remove_dir_all(&aside)?;
                fs::rename(&self.path, &aside)
            }
            other => other,
        };
        match move_aside().and_then(|()| self.remove_aside(&aside)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove {}", self.path.display()), error))
            }
            _ => Ok(()),
        }
    }

    /// Removes the files that most containers have by their names, without a listing.
    fn remove_aside(&self, aside: &Path) -> std::io::Result<()> {
        for name in [FIRST_STATE, STATE, SPEC, STARTED, EXIT] {
            // What is still there makes the next call fail.
            let _ = unlinkat(&*self.opened, name, UnlinkatFlags::NoRemoveDir);
        }
        match fs::remove_dir(aside) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENOTEMPTY)) => {
                fs::remove_dir_all(aside)
            }
            other => other,
        }
    }
}

/// How the name of the directory of `id` begins before it is complete, and while it is removed. A name has at most
/// 255 bytes: a long id is cut, and a hash tells it from others.
fn aside(id: &str) -> String {
    let Some(cut) = id.get(..200).filter(|_| id.len() > 240) else { return format!(".{id}") };
    let mut hasher = std::hash::DefaultHasher::new();
    id.hash(&mut hasher);
    format!(".{cut}~{:016x}", hasher.finish())
}

/// Makes the directory under its temporary name, and the store if it does not exist.
fn make_aside(store: &Path, aside: &Path, id: &str) -> Result<()> {
    let failed = |path: &Path| {
        let call = format!("mkdir {}", path.display());
        move |error: std::io::Error| Error::io(call, error)
    };
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    match builder.create(aside) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(store).map_err(failed(store))?;
            builder.create(aside).map_err(failed(aside))
        }
        // Left by an earlier process with the same pid, or in use by another thread for the same id.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(in_use(id)),
        other => other.map_err(failed(aside)),
    }
}

fn in_use(id: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("container with given ID already exists: {id}"))
        .with_hint("choose another id, or delete it first")
}

#[cfg(test)]
mod tests;

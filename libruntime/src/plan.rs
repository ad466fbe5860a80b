//! A plan: the steps that make a container, in order, each with the place in `config.json` it
//! comes from; and what the library hands to the stage and does beside it.
//!
//! Planning is pure: it reads a configuration and facts of the host, and makes no system call.
//! [`create`] and [`exec`] are the two orders; the other modules turn one piece of the
//! configuration into steps.

pub(crate) mod added;
pub mod bare;
mod capabilities;
pub mod create;
pub(crate) mod criu;
mod devices;
pub mod exec;
pub mod explain;
mod filesystem;
mod kept;
mod mount_options;
mod mounts;
mod nodes;
mod process;
pub(crate) mod readiness;
pub mod request;
pub mod start;
#[cfg(test)]
mod tests;

use crate::error::{Diagnostic, Error, Result};
use crate::step::{
    Fd, Header, Kept, MAX_FDS, MAX_KEPT, MAX_RECEIVED, MAX_SOURCES, NamespaceFlags, Secret, Source, Step,
    SyncPoint,
};
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The place in `config.json` that a step comes from, such as `mounts[3]`.
pub type Origin = Cow<'static, str>;

/// Bytes of a step: a text that ends in NUL, a list of these, or plain data.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Text(Vec<u8>);

impl Text {
    /// A path or name. Texts of a configuration are checked to contain no NUL.
    pub fn of(text: impl AsRef<[u8]>) -> Self {
        let mut bytes = text.as_ref().to_vec();
        bytes.push(0);
        Self(bytes)
    }

    pub fn path(path: &Path) -> Self {
        Self::of(path.as_os_str().as_bytes())
    }

    pub fn data(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Adds one more text to a list.
    pub fn push(&mut self, text: impl AsRef<[u8]>) {
        self.0.extend_from_slice(text.as_ref());
        self.0.push(0);
    }

    /// The first text of a list, or the only one.
    pub fn first(&self) -> String {
        String::from_utf8_lossy(self.0.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
    }

    /// A path as it was given to [`Text::path`].
    pub fn to_path(&self) -> PathBuf {
        let bytes = self.0.split(|byte| *byte == 0).next().unwrap_or_default();
        PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
    }

    /// The texts of a list.
    pub fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split_inclusive(|byte| *byte == 0).map(|text| text.strip_suffix(b"\0").unwrap_or(text))
    }

    /// All texts of a list, for a message.
    pub fn joined(&self) -> String {
        let texts = self.0.split(|byte| *byte == 0).filter(|text| !text.is_empty());
        texts.map(String::from_utf8_lossy).collect::<Vec<_>>().join(", ")
    }

    /// For people: one text, several, or the size of data.
    fn shown(&self) -> String {
        let printable = |bytes: &[u8]| bytes.iter().all(|byte| (0x20..0x7f).contains(byte));
        match self.0.strip_suffix(b"\0") {
            Some(texts) if texts.split(|byte| *byte == 0).all(printable) => {
                let texts: Vec<_> = texts.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
                texts.join(" ")
            }
            _ if self.0.len() <= 64 && printable(&self.0) => String::from_utf8_lossy(&self.0).into_owned(),
            _ => format!("({} bytes)", self.0.len()),
        }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?}", self.shown())
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&self.shown())
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

/// Reads the encoded form, not the one that is shown.
impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Self::data)
    }
}

/// Decodes what [`Plan::encode_after_start`] has encoded.
pub fn decode_after_start(bytes: &[u8]) -> Option<Vec<(u32, Step<Text>, Origin)>> {
    postcard::from_bytes(bytes).ok()
}

/// A descriptor that the library opens and the stage gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Handed {
    /// Reports to the library, and its answers.
    Channel,
    Procfs,
    /// The socket to which `start` connects, unless the container is started over the channel.
    Listener,
    /// The socket that gets the master side of the container's terminal.
    ConsoleSocket,
    /// The user namespace that is new or joined.
    UserNamespace,
    /// A namespace given by path.
    Namespace(PathBuf),
    /// A mount namespace with next to no mounts.
    BareMounts,
    /// A user namespace that holds the id maps of a mount: an index into [`Plan::id_maps`].
    IdMap(usize),
    /// The process whose namespaces are joined.
    Pidfd,
    /// The program of the container, where the caller gives it.
    Program,
    /// The container's cgroup in v2.
    Cgroup,
    /// The directory that a hook starts in.
    Directory,
    /// The descriptor with this index among those that the caller gives, which means nothing to the library.
    Placed(u16),
    /// The file `tasks` of a cgroup, open for writing. If the cgroup does not exist yet, it is sent later.
    CgroupTasks(PathBuf),
}

/// Rows of an id map: inside, outside, count.
pub type IdMap = Vec<[u32; 3]>;

/// The id maps of a user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IdMaps {
    pub uids: IdMap,
    pub gids: IdMap,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Plan {
    steps: Vec<(Step<Text>, Origin)>,
    /// What the stage gets, in the order of [`Fd`].
    pub handed: Vec<(Handed, Origin)>,
    /// The user namespaces that only hold the maps of an id-mapped mount.
    pub id_maps: Vec<IdMaps>,
    pub new_user_namespace: Option<IdMaps>,
    pub joined_user_namespace: Option<PathBuf>,
    pub warnings: Vec<Diagnostic>,
    sources: usize,
    kept: usize,
}

impl Plan {
    /// An empty plan, which hands over the channel and the procfs first: the stage relies on that.
    fn new() -> Self {
        let handed = vec![(Handed::Channel, "".into()), (Handed::Procfs, "".into())];
        Self { handed, ..Self::default() }
    }

    fn push(&mut self, origin: impl Into<Origin>, step: Step<Text>) {
        self.steps.push((step, origin.into()));
    }

    /// Hands a descriptor over, once for all steps that use it.
    fn hand(&mut self, origin: impl Into<Origin>, what: Handed) -> Fd {
        match self.handed.iter().position(|(known, _)| *known == what) {
            Some(at) => Fd(at as u16),
            None => self.hand_another(origin, what),
        }
    }

    /// Hands over a descriptor that no other step uses.
    fn hand_another(&mut self, origin: impl Into<Origin>, what: Handed) -> Fd {
        self.handed.push((what, origin.into()));
        Fd((self.handed.len() - 1) as u16)
    }

    fn new_source(&mut self) -> Source {
        // More than fit are an error of `check_limits`.
        let source = Source(self.sources.min(MAX_SOURCES - 1) as u16);
        self.sources += 1;
        source
    }

    fn new_kept(&mut self) -> Kept {
        self.kept += 1;
        // The root has the first number. More than fit are an error of `check_limits`.
        Kept(self.kept.min(MAX_KEPT - 1) as u16)
    }

    fn warn(&mut self, at: impl Into<String>, message: impl Into<String>) {
        self.warnings.push(Diagnostic::warning(at, message));
    }

    pub fn steps(&self) -> &[(Step<Text>, Origin)] {
        &self.steps
    }

    /// The host's path of the source that a step works on after it was opened.
    pub fn host_path_of(&self, step: &Step<Text>) -> Option<String> {
        let (Step::MoveMount { source: wanted, .. }
        | Step::CloneSource { source: wanted, .. }
        | Step::SetSourceAttributes { source: wanted, .. }
        | Step::FetchSource { source: wanted, .. }) = step
        else {
            return None;
        };
        self.sources().find_map(|(source, path)| (source == wanted).then(|| path.first()))
    }

    /// The sources of mounts, with their paths on the host.
    fn sources(&self) -> impl Iterator<Item = (&Source, &Text)> {
        self.steps.iter().filter_map(|(step, _)| match step {
            Step::OpenSource { source, host_path, .. }
            | Step::OpenTree { source, host_path, .. }
            | Step::OpenIdmapped { source, host_path, .. }
            | Step::OpenDevice { source, host_path, .. } => Some((source, host_path)),
            _ => None,
        })
    }

    /// Whether the stage opens one of these directories, or something below it, as the source of a mount.
    pub fn opens_below(&self, directories: &[PathBuf]) -> bool {
        let is_below = |path: PathBuf| directories.iter().any(|directory| path.starts_with(directory));
        !directories.is_empty() && self.sources().any(|(_, path)| is_below(path.to_path()))
    }

    /// The new namespaces in which the stage is started; `None` where it is cloned into them later.
    pub fn start_in(&self) -> Option<NamespaceFlags> {
        match self.steps.first() {
            Some((Step::StartIn { namespaces }, _)) => Some(*namespaces),
            _ => None,
        }
    }

    /// Whether the stage enters a cgroup of v2 by its first step.
    pub fn enters_cgroup(&self) -> bool {
        matches!(self.steps.first(), Some((Step::EnterCgroup { .. }, _)))
    }

    /// How many processes report that they were cloned: each goes on where the one before ends.
    pub fn clones(&self) -> usize {
        let clones =
            |(step, _): &&(Step<Text>, Origin)| matches!(step, Step::EnterCgroup { .. } | Step::Clone { .. });
        self.steps.iter().filter(clones).count()
    }

    /// Whether the v1 cgroups are the first that the stage waits for.
    pub fn waits_first_for_cgroups(&self) -> bool {
        let waits = |step: &Step<Text>| matches!(step, Step::ReceiveFds { .. } | Step::Sync { .. });
        let first = self.steps.iter().map(|(step, _)| step).find(|step| waits(step));
        matches!(first, Some(Step::ReceiveFds { .. }))
    }

    /// Whether the stage waits only before it executes the program.
    pub fn waits_only_when_ready(&self) -> bool {
        let waits = |step: &&Step<Text>| matches!(step, Step::ReceiveFds { .. } | Step::Sync { .. });
        let mut all = self.steps.iter().map(|(step, _)| step).filter(waits);
        matches!((all.next(), all.next()), (Some(Step::Sync { point: SyncPoint::Ready }), None))
    }

    /// The steps after `start`, with which a later process explains a failure: their numbers, origins and objects,
    /// without environment and filter.
    pub fn encode_after_start(&self) -> Vec<u8> {
        let begin = self.steps.iter().position(|(step, _)| awaits_start(step));
        let shown = |(at, (step, origin)): (usize, &(Step<Text>, Origin))| {
            let step = match step.clone() {
                Step::Exec { paths, args, .. } => Step::Exec { paths, args, env: Secret(Text::default()) },
                Step::ExecFd { program, args, .. } => {
                    Step::ExecFd { program, args, env: Secret(Text::default()) }
                }
                Step::SetSeccomp { flags, notify, .. } => {
                    Step::SetSeccomp { program: Text::default(), flags, notify }
                }
                step => step,
            };
            (at as u32, step, origin.clone())
        };
        let rest: Vec<_> = self.steps.iter().enumerate().skip(begin.unwrap_or(0)).map(shown).collect();
        postcard::to_extend(&rest, Vec::new()).unwrap_or_default()
    }

    /// The plan as the stage reads it. `fds` are the numbers of [`Plan::handed`]; into `times` it writes the time of
    /// each step.
    pub fn encode(&self, fds: &[RawFd], times: Option<RawFd>) -> Result<Vec<u8>> {
        let failed = |error: postcard::Error| Error::internal(format!("the plan cannot be encoded: {error}"));
        let fds = Text::data(fds.iter().flat_map(|fd| fd.to_ne_bytes()).collect::<Vec<_>>());
        let header = Header { fds, times: times.unwrap_or(-1) };
        let mut bytes = postcard::to_extend(&header, Vec::with_capacity(16 << 10)).map_err(failed)?;
        for (step, _) in &self.steps {
            bytes = postcard::to_extend(step, bytes).map_err(failed)?;
        }
        Ok(bytes)
    }

    /// Checks the limits of the stage, and the rules of order, each with its reason. Every planner ends with this.
    fn check(&self) -> Result<()> {
        self.check_limits()?;
        let position =
            |wanted: &dyn Fn(&Step<Text>) -> bool| self.steps.iter().position(|(step, _)| wanted(step));
        let last =
            |wanted: &dyn Fn(&Step<Text>) -> bool| self.steps.iter().rposition(|(step, _)| wanted(step));
        let end = self.steps.len().saturating_sub(1);
        let exec = position(&|s| matches!(s, Step::Exec { .. } | Step::ExecFd { .. }));
        rule(exec == Some(end), "a plan has one program, at its end")?;
        let clone = self.check_clone()?;
        let opens = |s: &Step<Text>| {
            matches!(s, Step::OpenSource { .. } | Step::OpenTree { .. } | Step::OpenDevice { .. })
        };
        if let Some(open) = last(&opens) {
            let leaves = |s: &Step<Text>| {
                matches!(s, Step::EnterBareMounts { .. } | Step::Clone { .. } | Step::OpenRoot { .. })
            };
            rule(
                position(&leaves).is_some_and(|left| open < left),
                "sources are opened in the caller's mounts",
            )?;
        }
        let pivot = last(&|s| matches!(s, Step::PivotRoot | Step::MoveRoot | Step::Chroot)).unwrap_or(clone);
        let mounts = |s: &Step<Text>| {
            matches!(s, Step::Mount { .. } | Step::MountProcfs { .. } | Step::MoveMount { .. })
        };
        let mounted = last(&mounts).unwrap_or(0);
        rule(mounted <= pivot, "mounts are made before the root is entered")?;
        if let Some(mask) = position(&|s| matches!(s, Step::MaskPath { .. } | Step::ReadonlyPath { .. })) {
            rule(mask > pivot, "what is mounted last would uncover a mask")?;
        }
        let ids = last(&|s| matches!(s, Step::SetIds { .. })).unwrap_or(0);
        self.check_descriptors(clone, ids)?;
        if let Some(seccomp) = position(&|s| matches!(s, Step::SetSeccomp { .. })) {
            rule(seccomp > ids, "a filter need not allow the set-up")?;
            let few = |(step, _): &(Step<Text>, Origin)| {
                use Step::*;
                matches!(
                    step,
                    SetCapabilities { .. }
                        | Clone { namespaces: NamespaceFlags(0) }
                        | SetSid
                        | SetControllingTerminal
                        | SetScheduler { .. }
                        | EndOnSignals
                        | Sync { .. }
                        | AwaitStart { .. }
                        | AwaitLibrary
                        | SetRlimit { .. }
                        | Exec { .. }
                )
            };
            let rest = &self.steps[seccomp + 1..];
            rule(
                rest.iter().all(few),
                "what comes after the filter makes only the calls of seccomp::WAITING and CLONING",
            )?;
        }
        Ok(())
    }

    /// Checks that there is one process in the namespaces; returns the step that clones it, or 0 where it is started in
    /// them.
    fn check_clone(&self) -> Result<usize> {
        let clone = self.steps.iter().position(|(step, _)| matches!(step, Step::Clone { .. }));
        let started = self.start_in().is_some();
        let is_once = if self.enters_cgroup() { !started } else { clone.is_some() != started };
        rule(is_once, "the container's process is started or cloned once")?;
        let late = |(step, _): &(Step<Text>, Origin)| {
            matches!(step, Step::StartIn { .. } | Step::EnterCgroup { .. })
        };
        rule(!self.steps.iter().skip(1).any(late), "nothing comes before the start of the stage")?;
        Ok(clone.unwrap_or(0))
    }

    /// Checks the limits that a configuration can exceed: the stage has tables of fixed sizes.
    fn check_limits(&self) -> Result<()> {
        let opens = |step: &Step<Text>| {
            use Step::{OpenDevice, OpenIdmapped, OpenSource, OpenTree};
            matches!(step, OpenSource { .. } | OpenTree { .. } | OpenIdmapped { .. } | OpenDevice { .. })
        };
        let mut sources = self.steps.iter().filter(|(step, _)| opens(step));
        if let Some((_, origin)) = sources.nth(MAX_SOURCES) {
            let text = format!("more than {MAX_SOURCES} bind mounts and devices");
            return Err(Error::unsupported(text).at(origin.to_string()));
        }
        if self.kept >= MAX_KEPT {
            let text = format!("masked or read-only paths in more than {} mounts", MAX_KEPT - 1);
            return Err(Error::unsupported(text).at("linux.maskedPaths"));
        }
        if let Some((_, origin)) = self.handed.get(MAX_FDS) {
            let text = format!("more than {MAX_FDS} namespaces, id maps and cgroups");
            return Err(Error::unsupported(text).at(origin.to_string()));
        }
        let mut tasks = self.handed.iter().filter(|(what, _)| matches!(what, Handed::CgroupTasks(_)));
        if tasks.nth(MAX_RECEIVED).is_some() {
            return Err(Error::unsupported(format!("more than {MAX_RECEIVED} cgroup hierarchies")));
        }
        Ok(())
    }

    /// Checks that descriptors are closed in time: a process of the container that sees the stage could use them.
    fn check_descriptors(&self, clone: usize, ids: usize) -> Result<()> {
        let position =
            |wanted: &dyn Fn(&Step<Text>) -> bool| self.steps.iter().position(|(step, _)| wanted(step));
        let Some(close) = position(&|s| matches!(s, Step::CloseFds { .. })) else {
            return rule(false, "nothing leaks into a program");
        };
        rule(ids < close, "the program runs as its user")?;
        if let Some(less) = position(&|s| matches!(s, Step::SetCapabilities { .. })) {
            rule(close < less, "all is closed before the container's processes may look into this one")?;
        }
        let joins = |s: &Step<Text>| match s {
            Step::Setns { namespaces, .. } if namespaces.0 & NEW_PID != 0 => true,
            Step::Setns { fd, .. } => {
                self.handed.get(usize::from(fd.0)).is_some_and(|(what, _)| *what == Handed::Pidfd)
            }
            _ => false,
        };
        if position(&joins).is_some() {
            rule(close < clone, "all is closed before the clone into a pid namespace that others live in")?;
        }
        if let Some(wait) = position(&awaits_start) {
            rule(close < wait, "a container that waits for its start can be joined")?;
        }
        let late = self.steps[close + 1..].iter().any(|(step, _)| uses_descriptors(step));
        rule(!late, "what uses a descriptor comes before all are closed")
    }
}

fn awaits_start(step: &Step<Text>) -> bool {
    matches!(step, Step::AwaitStart { .. } | Step::AwaitLibrary)
}

/// `CLONE_NEWPID`.
const NEW_PID: u64 = 0x2000_0000;

fn rule(holds: bool, reason: &str) -> Result<()> {
    match holds {
        true => Ok(()),
        false => Err(Error::internal(format!("the plan breaks a rule: {reason}"))),
    }
}

/// Whether the step needs the root, the procfs or another descriptor; the channel and the listener stay open.
fn uses_descriptors(step: &Step<Text>) -> bool {
    use Step::*;
    !matches!(
        step,
        StartIn { .. }
            | Clone { .. }
            | SetSid
            | SetControllingTerminal
            | SetScheduler { .. }
            | SetCapabilities { .. }
            | NoNewPrivileges
            | FindProgram { .. }
            | SetRlimit { .. }
            | SetSeccomp { .. }
            | EndOnSignals
            | Sync { .. }
            | AwaitStart { .. }
            | AwaitLibrary
            | Exec { .. }
            | ExecFd { .. }
    )
}

pub use capabilities::names as known_capabilities;
pub use mount_options::known as known_mount_options;

pub fn mount_options(options: &[String]) -> crate::step::Attrs {
    mount_options::parse(options).attrs
}

//! The steps that set a container up, and the messages between the stage program and the library.
//!
//! A [`Step`] is one intention with final arguments. The library plans them, with `T` an owned
//! text; the stage reads them, with `T` a slice of the plan, and does one after the other.
//! The encoding (postcard) is private to one build: both sides are always of the same version.
//!
//! There are no conditions, jumps or values computed by an earlier step here. What only the
//! kernel can answer is asked inside one step; what two steps share is a field of the stage's state.

#![cfg_attr(feature = "program", no_std)]
#![forbid(unsafe_code)]

mod bits;
mod start;

pub use bits::{MountFlags, NamespaceFlags, PropagationFlags};
use serde::{Deserialize, Serialize};
pub use start::{GO, MAX_PROGRAM, START_HEADER, START_PIECE, StartHeader};

/// Which of the file descriptors that the library hands over; an index into [`Header::fds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fd(pub u16);

/// What every plan hands over first: the channel to the library, and the private procfs.
pub const CHANNEL: Fd = Fd(0);
pub const PROCFS: Fd = Fd(1);

/// The flag of clone(2) that [`Step::Clone`] and [`Step::EnterCgroup`] always have: `CLONE_PARENT`.
pub const CLONE_FLAGS: u64 = 0x8000;

/// Which of the mounts that the stage has opened and not yet attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source(pub u16);

/// Which of the mounts that the stage has attached and kept; [`ROOT`] is the container's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept(pub u16);

pub const ROOT: Kept = Kept(0);

/// How many mounts can be kept, the root among them.
pub const MAX_KEPT: usize = 64;

/// A path of the container. What of it lies behind the first `skip` bytes is looked for in the mount, wherever that
/// is by then.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place<T> {
    pub mount: Kept,
    pub skip: u16,
    pub path: T,
}

/// The directory of the scratch filesystem that holds the container's root.
pub const SCRATCH_ROOT: &str = "root";

/// How many [`Source`]s a plan may have.
pub const MAX_SOURCES: usize = 1 << 16;
/// How many file descriptors a plan may hand over.
pub const MAX_FDS: usize = 256;

/// How many can be given a number of their own ([`Step::PlaceFds`]).
pub const MAX_PLACED: usize = 64;

/// How many of them can be sent later.
pub const MAX_RECEIVED: usize = 64;

/// The header of the encoded plan.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Header<T> {
    /// The numbers of the file descriptors handed over, each an `i32` in native byte order.
    pub fds: T,
    /// A file that gets the time of the stage's start and of the end of each step, as nanoseconds of CLOCK_REALTIME,
    /// each a `u64` in native byte order; negative where no times are wanted.
    pub times: i32,
}

/// Changes to a mount's attributes, as mount_setattr(2) takes them; zeros change nothing.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attrs {
    /// The propagation of all mounts of the tree, before anything else changes.
    pub first: u64,
    /// `MOUNT_ATTR_*` to set on the mount.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear on the mount.
    pub clear: u64,
    /// `MOUNT_ATTR_*` to set on the mount and all below it.
    pub rec_set: u64,
    pub rec_clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`, and `MS_REC`.
    pub propagation: u64,
}

/// The five capability sets, one bit a capability (capabilities(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

/// One step of a plan. `T` is bytes: a path or name ends in NUL, a list is its elements one
/// after the other. A path is below the container's root unless it says `host`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step<T> {
    // --- for the process that will set up, in the caller's namespaces -----------------------
    /// All signals to their default action, none blocked.
    ResetSignals,
    /// Writes into `<own pid>/path` of the private procfs.
    WriteProcess {
        path: T,
        value: T,
    },
    /// Writes into `path` of the private procfs, such as `sys/net/ipv4/ip_forward`.
    WriteSysctl {
        path: T,
        value: T,
    },
    /// setns(2); `namespaces` are `CLONE_NEW*`, several when `fd` is a pidfd.
    Setns {
        fd: Fd,
        namespaces: NamespaceFlags,
    },
    /// unshare(2).
    Unshare {
        namespaces: NamespaceFlags,
    },
    /// The propagation of every mount of this mount namespace.
    SetPropagation {
        propagation: PropagationFlags,
    },
    /// Opens a host path, before later mounts and renames could change what it leads to. With `nofollow` a symbolic
    /// link is the source itself.
    OpenSource {
        source: Source,
        host_path: T,
        nofollow: bool,
    },
    /// Clones the mount tree at a host path, detached, before later mounts and renames could change what it leads to.
    OpenTree {
        source: Source,
        host_path: T,
        nofollow: bool,
        recursive: bool,
    },
    /// Sets the attributes of a source that is cloned.
    SetSourceAttributes {
        source: Source,
        attrs: Attrs,
    },
    /// Clones the mount tree of an opened source, detached, and sets its attributes.
    CloneSource {
        source: Source,
        recursive: bool,
        attrs: Attrs,
    },
    /// Opens a host path and clones it, as an id-mapped mount with the maps of the user namespace `fd`.
    OpenIdmapped {
        source: Source,
        host_path: T,
        recursive: bool,
        attrs: Attrs,
        fd: Fd,
        recursive_map: bool,
    },
    /// Clones a device node of the host, after a check that it is this device.
    OpenDevice {
        source: Source,
        host_path: T,
        mode: u32,
        major: u32,
        minor: u32,
    },
    /// Makes the mount that holds the working directory private, so that nothing attached there is seen by others.
    PrivateParent {
        host_path: T,
    },
    /// Clones the container's root, detached. This is the only time that it is opened by its path.
    CloneRootfs {
        host_path: T,
        propagation: PropagationFlags,
    },
    /// Enters a copy of the mount namespace `fd`, which has next to no mounts. The container's root is attached over the
    /// root of that, and the old root costs nothing to take off again.
    EnterBareMounts {
        fd: Fd,
    },
    /// Attaches the clone of the container's root over the directory that it is a clone of, and makes it the working
    /// directory.
    AttachRootfs,
    /// The same, below a scratch directory that also has the parked sources.
    AttachRootfsInScratch,
    /// Attaches a source in the scratch directory, where it has its number as its name. `by_name`: its descriptor is of
    /// no use later, because the mount namespace is copied.
    ParkSource {
        source: Source,
        by_name: bool,
    },
    /// Clones the root below the scratch directory and attaches that over it: what a mount namespace of
    /// another user namespace has inherited is locked, and cannot be pivoted into (mount_namespaces(7)).
    UnlockRoot,
    /// Clones a parked source again, so that its attributes are locked in a new user namespace; `attrs` are
    /// changes that are refused where they would lift such a lock.
    FetchSource {
        source: Source,
        attrs: Attrs,
    },
    /// Nothing to do: the library has started the stage in these new namespaces. Only the first step can be this.
    StartIn {
        namespaces: NamespaceFlags,
    },
    /// clone3(2) with `CLONE_PARENT` into a cgroup of v2 and new namespaces. The child reports that it exists and goes on
    /// with the next step; the parent ends. Only the first step can be this. The stage is not started in the cgroup:
    /// it shares the caller's memory until it is executed, and the kernel's OOM killer, called for that cgroup, would end
    /// the caller as well.
    EnterCgroup {
        cgroup: Fd,
        namespaces: NamespaceFlags,
    },
    /// clone(2) with `CLONE_PARENT`. The child reports that it exists and goes on with the next step; the parent ends.
    Clone {
        namespaces: NamespaceFlags,
    },

    // --- the container's mounts ---------------------------------------------------------------
    /// Opens the container's root, `.` or the root below the scratch directory.
    OpenRoot {
        path: T,
    },
    /// Makes a filesystem and attaches it. `options` are pairs of key and value; `strict` refuses symbolic links;
    /// with `mode_of_target` its root gets the mode of the directory that it covers, if there is one.
    Mount {
        fstype: T,
        options: T,
        target: T,
        flags: MountFlags,
        attrs: Attrs,
        copy_up: bool,
        mode_of_target: bool,
        strict: bool,
    },
    /// The same by mount(2), which accepts longer values; `options` is one text.
    MountByText {
        fstype: T,
        source: T,
        options: T,
        target: T,
        flags: MountFlags,
    },
    /// Makes a procfs of a pid namespace that the process is not in, and attaches it, without symbolic links.
    MountProcfs {
        pid_namespace: Fd,
        options: T,
        target: T,
        flags: MountFlags,
        attrs: Attrs,
    },
    /// Attaches a source. With `nofollow` it covers a symbolic link, with `copy_link` a source that is a symbolic link
    /// is made again; `directory`: it is known to be one, which need not be asked.
    MoveMount {
        source: Source,
        target: T,
        strict: bool,
        nofollow: bool,
        copy_link: bool,
        directory: bool,
    },
    /// Unmounts the topmost mount at a path, through which no symbolic link may lead.
    Unmount {
        target: T,
    },
    /// Keeps the mount that was attached last, for a [`Place`] in it.
    KeepMount {
        mount: Kept,
    },
    /// Changes the attributes of what is mounted at `place`.
    SetAttributes {
        place: Place<T>,
        attrs: Attrs,
    },
    /// Makes a device node, fifo or file with exactly this mode and owner.
    MakeNode {
        path: T,
        mode: u32,
        major: u32,
        minor: u32,
        uid: u32,
        gid: u32,
    },
    /// Makes a symbolic link where there is nothing yet.
    Symlink {
        content: T,
        path: T,
    },
    /// Opens a pty in the container's devpts, sends its master to the socket and keeps the slave side. With `relayed`,
    /// the terminal that the output is copied to adds carriage returns, and not this one (termios(3), ONLCR).
    OpenConsole {
        socket: Fd,
        columns: u16,
        rows: u16,
        uid: u32,
        relayed: bool,
    },
    /// Attaches the pty at `/dev/console`.
    MountConsole,
    /// Makes the pty standard input, output and error.
    UseConsole,
    /// Makes standard input the controlling terminal of the session, which is the process's own.
    SetControllingTerminal,
    /// pivot_root(2) into the container's root; the old root is unmounted.
    PivotRoot,
    /// Unmounts what is mounted over the root after that: below the scratch directory, which covered it, the old root is
    /// still there.
    UnmountOldRoot,
    /// chroot(2), for a container without a mount namespace of its own.
    Chroot,
    /// Moves the container's root over `/` and enters it with chroot(2), for a root that cannot be pivoted away.
    MoveRoot,
    /// Hides a path: mounts `source` (a null device) over a file, or an empty filesystem over a directory.
    MaskPath {
        place: Place<T>,
        source: Source,
    },
    /// Makes a path read-only where it stands; `recursive`: with the mounts below it.
    ReadonlyPath {
        place: Place<T>,
        recursive: bool,
    },

    // --- identity and limits ----------------------------------------------------------------------
    /// Waits until the library has made the cgroups and sends `count` descriptors, which become `first` and those after
    /// it.
    ReceiveFds {
        first: Fd,
        count: u16,
    },
    /// Moves this process into the cgroup whose file `tasks` is open behind `fd`.
    JoinCgroup {
        fd: Fd,
        tasks: T,
    },
    /// Brings the loopback interface of this network namespace up; the kernel gives it 127.0.0.1 and ::1.
    LoopbackUp,
    SetHostname {
        name: T,
    },
    SetDomainname {
        name: T,
    },
    /// Changes the owner of the files behind standard input, output and error to `uid`, if they are pipes, sockets,
    /// regular files or terminals: opening `/dev/stdout` needs permissions of the file behind it.
    ChownStreams {
        uid: u32,
    },
    /// A new session.
    SetSid,
    /// A new session keyring of this name.
    JoinSessionKeyring {
        name: T,
        label: T,
    },
    SetRlimit {
        resource: u32,
        soft: u64,
        hard: u64,
    },
    /// `attr` is a `struct sched_attr`.
    SetScheduler {
        attr: T,
    },
    SetIoPriority {
        value: u32,
    },
    /// `mask` is a bit set of processors.
    SetAffinity {
        mask: T,
    },
    SetPersonality {
        persona: u32,
    },
    /// `nodes` is a bit set of memory nodes.
    SetMemoryPolicy {
        mode: u32,
        nodes: T,
    },
    SetUmask {
        mask: u32,
    },
    /// Enters a directory below the root; `make` is for one that is missing.
    Chdir {
        path: T,
        make: bool,
    },
    /// fchdir(2).
    Fchdir {
        fd: Fd,
    },
    /// Looks the home directory of a user up in the container's `etc/passwd`, for [`Step::Exec`].
    FindHome {
        uid: u32,
    },
    /// `groups` are `u32` in native byte order.
    SetGroups {
        groups: T,
    },
    /// setresgid(2) and setresuid(2); permitted capabilities stay.
    SetIds {
        uid: u32,
        gid: u32,
    },
    DropBounding {
        keep: u64,
    },
    /// capset(2) and the ambient set. `also` stays effective until the next step of this kind.
    SetCapabilities {
        sets: Capabilities,
        also: u64,
    },
    NoNewPrivileges,
    /// `PR_SET_DUMPABLE` 0 (prctl(2)), until the program is executed.
    NotDumpable,
    /// seccomp(2); `program` is an array of `struct sock_filter`. `notify` hands the listener to the library.
    SetSeccomp {
        program: T,
        flags: u32,
        notify: bool,
    },

    // --- the library, and the end -------------------------------------------------------------
    /// Reports to the library that this point is reached, and waits until the library has done its part.
    Sync {
        point: SyncPoint,
    },
    /// Fails as [`Step::Exec`] would if none of `paths` can be executed, while the container is still created.
    FindProgram {
        paths: T,
        args: T,
    },
    /// Makes SIGTERM and other signals that ask for an end kill this process, though the kernel ignores signals without
    /// a handler for pid 1.
    EndOnSignals,
    /// Waits for `start`; from here on failures are reported to the starter.
    AwaitStart {
        listener: Fd,
    },
    /// Reports [`SyncPoint::Ready`], and waits for `start` from the library, which alone can start the container: end of
    /// file ends it.
    AwaitLibrary,
    /// Gives descriptors the numbers that the program expects: `fds` are pairs of an [`Fd`] and a number,
    /// both `i32` in native byte order. [`Step::CloseFds`] closes the originals.
    PlaceFds {
        fds: T,
    },
    /// Closes every file descriptor but standard ones, those of `passed`, the one that reports failures, `keep` and
    /// `program`. `passed` has ranges of numbers, ascending: pairs of the first and the last, both `u32` in native
    /// byte order.
    CloseFds {
        passed: T,
        keep: Fd,
        program: Fd,
    },
    /// execveat(2) of the program behind a descriptor, which the program does not get.
    ExecFd {
        program: Fd,
        args: T,
        env: Secret<T>,
    },
    /// execve(2) of the first of `paths` that exists. `env` gets the home directory that was found, if any.
    Exec {
        paths: T,
        args: T,
        env: Secret<T>,
    },
}

/// Shown as the path, with its mount unless that is the root.
impl<T: core::fmt::Debug> core::fmt::Debug for Place<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter) -> core::fmt::Result {
        self.path.fmt(f)?;
        if self.mount == ROOT { Ok(()) } else { write!(f, " in {:?}", self.mount) }
    }
}

/// Bytes that are never shown: environments end up in journals.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret<T>(pub T);

impl<T> core::fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter) -> core::fmt::Result {
        f.write_str("(not shown)")
    }
}

/// Where the stage waits for the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u32)]
pub enum SyncPoint {
    /// The process is in its cgroups, so that a cgroup namespace made now begins there.
    Attached = 1,
    /// The container's namespaces exist and its mounts are made, before its root is entered.
    Created = 2,
    /// Everything is set up but what follows `start`.
    Ready = 3,
    /// The process wants the files through which it joins its cgroups.
    Cgroups = 4,
    /// The process is in the container's namespaces, and the process that goes on is cloned later.
    Entered = 5,
}

impl TryFrom<u32> for SyncPoint {
    type Error = ();

    /// Any other number is an error: as a sync point, it would let the stage go on.
    fn try_from(number: u32) -> Result<Self, ()> {
        let all = [Self::Attached, Self::Created, Self::Ready, Self::Cgroups, Self::Entered];
        all.into_iter().find(|point| *point as u32 == number).ok_or(())
    }
}

/// A message of the stage: one datagram of twelve bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Step `step` failed in system call `call`.
    Failed { step: u32, call: u32, errno: i32 },
    /// The sender goes on with the plan. Its pid is in the message's credentials (unix(7), `SCM_CREDENTIALS`), which
    /// the kernel writes, in numbers of the receiver's pid namespace.
    Cloned,
    /// The stage waits at this point.
    At(SyncPoint),
    /// To a starter: it is its turn. End of file after its answer means that the program was executed.
    YourTurn,
}

/// The size of an encoded [`Report`].
pub const REPORT_SIZE: usize = 12;

const CLONED: u32 = u32::MAX;
const AT: u32 = u32::MAX - 1;
const YOUR_TURN: u32 = u32::MAX - 2;

impl Report {
    pub fn encode(self) -> [u8; REPORT_SIZE] {
        let (step, call, value) = match self {
            Self::Failed { step, call, errno } => (step, call, errno),
            Self::Cloned => (CLONED, 0, 0),
            Self::At(point) => (AT, point as u32, 0),
            Self::YourTurn => (YOUR_TURN, 0, 0),
        };
        let (s, c, v) = (step.to_ne_bytes(), call.to_ne_bytes(), value.to_ne_bytes());
        [s[0], s[1], s[2], s[3], c[0], c[1], c[2], c[3], v[0], v[1], v[2], v[3]]
    }

    /// `None` for anything that is not a report.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (step, rest) = bytes.split_first_chunk::<4>()?;
        let (call, rest) = rest.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_first_chunk::<4>()?;
        let (call, value) = (u32::from_ne_bytes(*call), i32::from_ne_bytes(*value));
        if !rest.is_empty() {
            return None;
        }
        Some(match u32::from_ne_bytes(*step) {
            CLONED => Self::Cloned,
            AT => Self::At(SyncPoint::try_from(call).ok()?),
            YOUR_TURN => Self::YourTurn,
            step => Self::Failed { step, call, errno: value },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_come_back_as_they_were() {
        let failed = Report::Failed { step: 7, call: 59, errno: 2 };
        for report in [failed, Report::Cloned, Report::At(SyncPoint::Cgroups), Report::YourTurn] {
            assert_eq!(Report::decode(&report.encode()), Some(report));
        }
    }

    #[test]
    fn an_unknown_sync_point_is_no_report() {
        let mut bytes = Report::At(SyncPoint::Ready).encode();
        for number in [0u32, 6, 255, u32::MAX] {
            bytes[4..8].copy_from_slice(&number.to_ne_bytes());
            assert_eq!(Report::decode(&bytes), None, "{number}");
        }
    }
}

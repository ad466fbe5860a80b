//! Runs CRIU, the program that saves processes to files and restores them, as `criu swrk`, and speaks its protocol:
//! protobuf messages over a SOCK_SEQPACKET socket (<https://criu.org/RPC>).
//!
//! The stage executes CRIU, so that CRIU has no descriptor of the caller's. This module speaks the
//! protocol and turns a failure into an error that carries what CRIU wrote into its log. What a
//! container needs from CRIU is decided in checkpoint.rs and restore.rs.

use crate::cgroup::options::KeptOptions;
use crate::child::Child;
use crate::error::{Error, Result};
use crate::launch::{Given, Launch};
use crate::parent::{Event, Stage};
use crate::plan::Plan;
use crate::sys;
use crate::wait::{DEADLINE, Wait, Woken, again};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, sockopt};
use prost::Message;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The oldest CRIU with everything that is used here: `freeze_cgroup` on cgroup v2, and `external` namespaces.
const OLDEST: (i32, i32) = (3, 15);

/// How long CRIU may take to end by itself after its last answer.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// The largest answer that is read, in bytes.
const LONGEST_ANSWER: usize = 64 << 10;

/// `criu_req_type` of CRIU's rpc.proto.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Kind {
    Empty = 0,
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
}

/// `criu_opts`, as far as it is used here.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Options {
    /// A descriptor of the calling process, which CRIU opens through `/proc/PID/fd`; so is `work_dir`.
    #[prost(int32, required, tag = "1")]
    pub images_dir: i32,
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
    #[prost(bool, optional, tag = "3")]
    pub leave_running: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    pub ext_unix_sk: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    pub tcp_established: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    pub shell_job: Option<bool>,
    #[prost(bool, optional, tag = "8")]
    pub file_locks: Option<bool>,
    #[prost(int32, optional, tag = "9")]
    pub log_level: Option<i32>,
    #[prost(string, optional, tag = "10")]
    pub log_file: Option<String>,
    #[prost(message, optional, tag = "11")]
    pub page_server: Option<PageServer>,
    #[prost(bool, optional, tag = "12")]
    pub notify_scripts: Option<bool>,
    #[prost(string, optional, tag = "13")]
    pub root: Option<String>,
    #[prost(string, optional, tag = "14")]
    pub parent_img: Option<String>,
    #[prost(bool, optional, tag = "15")]
    pub track_mem: Option<bool>,
    #[prost(bool, optional, tag = "16")]
    pub auto_dedup: Option<bool>,
    #[prost(int32, optional, tag = "17")]
    pub work_dir: Option<i32>,
    #[prost(bool, optional, tag = "18")]
    pub link_remap: Option<bool>,
    #[prost(message, repeated, tag = "23")]
    pub external_mounts: Vec<ExternalMount>,
    #[prost(bool, optional, tag = "24")]
    pub manage_cgroups: Option<bool>,
    #[prost(message, repeated, tag = "25")]
    pub cgroup_roots: Vec<CgroupRoot>,
    #[prost(bool, optional, tag = "26")]
    pub restore_sibling: Option<bool>,
    #[prost(message, repeated, tag = "27")]
    pub inherit_fds: Vec<InheritFd>,
    #[prost(int32, optional, tag = "34")]
    pub manage_cgroups_mode: Option<i32>,
    #[prost(string, repeated, tag = "37")]
    pub external: Vec<String>,
    #[prost(uint32, optional, tag = "38")]
    pub empty_namespaces: Option<u32>,
    #[prost(string, repeated, tag = "43")]
    pub dump_controllers: Vec<String>,
    #[prost(string, optional, tag = "44")]
    pub freeze_cgroup: Option<String>,
    #[prost(bool, optional, tag = "46")]
    pub tcp_skip_in_flight: Option<bool>,
    #[prost(bool, optional, tag = "48")]
    pub lazy_pages: Option<bool>,
    #[prost(int32, optional, tag = "49")]
    pub status_fd: Option<i32>,
    #[prost(bool, optional, tag = "50")]
    pub orphan_pts_master: Option<bool>,
    #[prost(string, optional, tag = "51")]
    pub config_file: Option<String>,
    #[prost(bool, optional, tag = "52")]
    pub tcp_close: Option<bool>,
    #[prost(string, optional, tag = "53")]
    pub lsm_profile: Option<String>,
    #[prost(string, optional, tag = "63")]
    pub lsm_mount_context: Option<String>,
}

/// `criu_page_server_info`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PageServer {
    #[prost(string, optional, tag = "1")]
    pub address: Option<String>,
    #[prost(int32, optional, tag = "2")]
    pub port: Option<i32>,
}

/// `ext_mount_map`: saving, the mount point and a name for it; restoring, that name and the source.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ExternalMount {
    #[prost(string, required, tag = "1")]
    pub key: String,
    #[prost(string, required, tag = "2")]
    pub value: String,
}

/// `cgroup_root`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CgroupRoot {
    #[prost(string, optional, tag = "1")]
    pub controller: Option<String>,
    #[prost(string, required, tag = "2")]
    pub path: String,
}

/// `inherit_fd`: what a saved descriptor becomes, a number in CRIU's own table.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct InheritFd {
    #[prost(string, required, tag = "1")]
    pub key: String,
    #[prost(int32, required, tag = "2")]
    pub fd: i32,
}

/// `criu_features`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Features {
    #[prost(bool, optional, tag = "1")]
    pub mem_track: Option<bool>,
    #[prost(bool, optional, tag = "2")]
    pub lazy_pages: Option<bool>,
}

/// `criu_req`.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(enumeration = "Kind", required, tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    options: Option<Options>,
    #[prost(bool, optional, tag = "3")]
    notify_success: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    keep_open: Option<bool>,
    #[prost(message, optional, tag = "5")]
    features: Option<Features>,
}

/// `criu_restore_resp`.
#[derive(Clone, PartialEq, Message)]
struct Restored {
    #[prost(int32, required, tag = "1")]
    pid: i32,
}

/// `criu_notify`.
#[derive(Clone, PartialEq, Message)]
struct Notify {
    #[prost(string, optional, tag = "1")]
    script: Option<String>,
    #[prost(int32, optional, tag = "2")]
    pid: Option<i32>,
}

/// `criu_version`.
#[derive(Clone, PartialEq, Message)]
struct Version {
    #[prost(int32, required, tag = "1")]
    major: i32,
    #[prost(int32, required, tag = "2")]
    minor: i32,
}

/// `criu_resp`.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(enumeration = "Kind", required, tag = "1")]
    kind: i32,
    #[prost(bool, required, tag = "2")]
    success: bool,
    #[prost(message, optional, tag = "4")]
    restore: Option<Restored>,
    #[prost(message, optional, tag = "5")]
    notify: Option<Notify>,
    #[prost(int32, optional, tag = "7")]
    errno: Option<i32>,
    #[prost(message, optional, tag = "8")]
    features: Option<Features>,
    #[prost(string, optional, tag = "9")]
    message: Option<String>,
    #[prost(message, optional, tag = "10")]
    version: Option<Version>,
}

/// What CRIU tells while it works, and waits for an answer to (`--action-script` in criu(8)).
pub(crate) struct Notification {
    pub script: String,
    pub pid: i32,
    /// With `orphan-pts-master`: the master of the container's terminal.
    pub fd: Option<OwnedFd>,
}

/// The descriptor number of the protocol's socket in CRIU; those behind it are for
/// [`Options::inherit_fds`].
pub(crate) const SOCKET: RawFd = 3;

/// A running `criu swrk`. Dropped, it is killed: CRIU then thaws or kills what it was working on.
pub(crate) struct Criu {
    socket: OwnedFd,
    child: Child,
    /// What it writes its log into: a directory and a name.
    log: PathBuf,
    /// Put back once CRIU has ended.
    _options: Option<KeptOptions>,
}

impl Criu {
    /// Starts CRIU by a plan of [`crate::plan::criu`], and refuses one that is too old.
    /// `attach` puts the process into its cgroup where the plan waits for that.
    pub fn start(
        plan: &Plan,
        launch: &Launch,
        log: PathBuf,
        attach: &mut dyn FnMut(i32) -> Result<()>,
    ) -> Result<Self> {
        let (socket, theirs) =
            socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|errno| Error::os("socketpair", errno))?;
        // One answer is one datagram, and a request may name thousands of mounts.
        let _ = socket::setsockopt(&socket, sockopt::SndBuf, &(4 << 20));
        let placed: Vec<BorrowedFd> =
            [theirs.as_fd()].into_iter().chain(launch.given.placed.iter().copied()).collect();
        let given = Given { cgroup: launch.given.cgroup, placed: &placed, ..Given::default() };
        let options = KeptOptions::look();
        let mut stage = Stage::launch(plan, &Launch { given, ..*launch })?;
        drop(theirs);
        let wait = Wait::at_most(DEADLINE);
        loop {
            match stage.next(&wait)? {
                Event::At(_) => {
                    attach(stage.pid())?;
                    stage.answer()?;
                }
                Event::End => break,
                Event::InCgroup | Event::Cloned | Event::Listener(_) => {}
            }
        }
        let child = stage.into_init().ok_or_else(|| Error::external("criu was not started"))?;
        let mut criu = Self { socket, child, log, _options: options };
        criu.check_version()?;
        Ok(criu)
    }

    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    fn check_version(&mut self) -> Result<()> {
        let request = Request { keep_open: Some(true), ..Request::of(Kind::Version) };
        self.send(&request)?;
        let version =
            self.receive()?.0.version.ok_or_else(|| Error::external("criu does not tell its version"))?;
        if (version.major, version.minor) >= OLDEST {
            return Ok(());
        }
        Err(Error::unsupported(format!("criu {}.{} is too old", version.major, version.minor))
            .with_hint(format!("install criu {}.{} or newer", OLDEST.0, OLDEST.1)))
    }

    /// Refuses what this kernel or this CRIU lacks, of what is asked for.
    pub fn require(&mut self, wanted: Features) -> Result<()> {
        let request = Request {
            features: Some(wanted.clone()),
            keep_open: Some(true),
            ..Request::of(Kind::FeatureCheck)
        };
        self.send(&request)?;
        let found = self.receive()?.0.features.unwrap_or_default();
        for (wanted, found, what, hint) in [
            (wanted.mem_track, found.mem_track, "memory tracking", "the kernel needs CONFIG_MEM_SOFT_DIRTY"),
            (wanted.lazy_pages, found.lazy_pages, "lazy migration", "the kernel needs userfaultfd(2)"),
        ] {
            if wanted == Some(true) && found != Some(true) {
                return Err(Error::unsupported(format!("{what} on this host")).with_hint(hint));
            }
        }
        Ok(())
    }

    /// Sends a request and answers CRIU's notifications with `notify` until it is done; an error of
    /// `notify` makes CRIU undo its work. Returns the pid of a restored init.
    ///
    /// There is no deadline: CRIU writes as much memory as the container has. CRIU's own death ends
    /// the wait, and CRIU itself gives up on processes that do not freeze.
    pub fn run(
        mut self,
        kind: Kind,
        options: Options,
        notify: &mut dyn FnMut(Notification) -> Result<()>,
    ) -> Result<i32> {
        self.send(&Request { options: Some(options), ..Request::of(kind) })?;
        let mut refused = None;
        loop {
            let (response, fd) = self.receive()?;
            if response.kind != Kind::Notify as i32 {
                let done = response.success && refused.is_none();
                self.end();
                return match refused {
                    Some(error) => Err(error),
                    None if done => Ok(response.restore.map_or(0, |restored| restored.pid)),
                    None => Err(self.failed(kind, &response)),
                };
            }
            let told = response.notify.unwrap_or_default();
            let notification =
                Notification { script: told.script.unwrap_or_default(), pid: told.pid.unwrap_or(0), fd };
            let success = match notify(notification) {
                Ok(()) => true,
                Err(error) => {
                    refused.get_or_insert(error);
                    false
                }
            };
            if self.send(&Request { notify_success: Some(success), ..Request::of(Kind::Notify) }).is_err() {
                return Err(refused.unwrap_or_else(|| self.died()));
            }
        }
    }

    fn send(&self, request: &Request) -> Result<()> {
        let bytes = request.encode_to_vec();
        again(|| socket::send(self.socket.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL))
            .map(drop)
            .map_err(|errno| Error::os("send to criu", errno))
    }

    fn receive(&mut self) -> Result<(Response, Option<OwnedFd>)> {
        let mut bytes = vec![0; LONGEST_ANSWER];
        // Without a deadline of ours: CRIU writes the memory of all processes meanwhile.
        if let Woken::Ended(ended) = Wait::default().poll(&[(self.socket.as_fd(), PollFlags::POLLIN)])? {
            return Err(ended.error("the work of criu".into()));
        }
        let (length, fd) = match sys::receive(self.socket.as_fd(), &mut bytes) {
            Err(Errno::ECONNRESET) => (0, None),
            Err(errno) => return Err(Error::os("recvmsg from criu", errno)),
            Ok(received) => (received.length, received.fd),
        };
        if length == 0 {
            return Err(self.died());
        }
        let response = Response::decode(&bytes[..length]).map_err(|error| {
            Error::external(format!("criu sent something that is not an answer: {error}"))
        })?;
        Ok((response, fd))
    }

    /// CRIU closes its socket and ends; one that does not is killed when this is dropped.
    fn end(&self) {
        let _ = self.child.wait_within(&Wait::at_any_rate(END_DEADLINE));
    }

    fn died(&self) -> Error {
        let error = Error::external("criu ended without an answer");
        match complaints(&self.log) {
            Some(line) => error.with_hint(format!("{} says: {line}", self.log.display())),
            None => error,
        }
    }

    fn failed(&self, kind: Kind, response: &Response) -> Error {
        let name = match kind {
            Kind::Restore => "RESTORE",
            Kind::PreDump => "PRE_DUMP",
            _ => "DUMP",
        };
        let errno = response.errno.unwrap_or(0);
        let mut text = format!("criu failed: type {name} errno {errno}, log file: {}", self.log.display());
        // CRIU's own message is the first complaint, which need not be the reason.
        if let Some(line) = complaints(&self.log).or_else(|| response.message.clone()) {
            text.push_str(&format!(": {}", line.trim()));
        }
        Error::external(text)
    }
}

impl Drop for Criu {
    fn drop(&mut self) {
        self.child.kill();
    }
}

impl Request {
    fn of(kind: Kind) -> Self {
        Self { kind: kind as i32, ..Self::default() }
    }
}

/// The last errors in CRIU's log, without the line that only says that it failed. Earlier ones need not
/// be the reason: CRIU also complains of what it can do without.
fn complaints(log: &Path) -> Option<String> {
    const MOST_LINES: usize = 1_000_000;
    const SHOWN: usize = 2;
    let lines = BufReader::new(File::open(log).ok()?).lines().take(MOST_LINES);
    let mut last = VecDeque::new();
    for line in lines.map_while(std::io::Result::ok) {
        if line.contains("Error (") && !line.contains("FAILED") {
            last.truncate(SHOWN - 1);
            last.push_front(line.split_once(") ").map_or(line.clone(), |(_, rest)| rest.trim().to_string()));
        }
    }
    let texts: Vec<String> = last.into_iter().rev().collect();
    Some(texts.join("; ")).filter(|text| !text.is_empty())
}

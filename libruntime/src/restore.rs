//! `restore`: a container from the files of a checkpoint, through CRIU.
//!
//! The configuration is that of the bundle, checked as for `create`, and the processes that CRIU has made are compared
//! with it before they run. CRIU reads the files as root and makes the mounts that they name: untrusted files are not
//! safe to restore. What is made besides the processes is in `transaction.rs`, which rolls it back when anything fails.

use crate::cgroup::Cgroup;
use crate::checkpoint::{
    CheckpointOptions, DESCRIPTORS, Directories, EXTERNAL_NAMESPACES, OUTSIDE, environment, namespace_path,
};
use crate::child::Child;
use crate::container::Container;
use crate::criu::{self, Criu, Kind, Notification};
use crate::error::{Error, Result};
use crate::launch::{Given, Launch};
use crate::options::Options;
use crate::prepare::{Prepared, prepare};
use crate::stdio::Streams;
use crate::transaction::Transaction;
use crate::{console, hooks, plan, sys, verify, wait};
use oci_spec::runtime::Spec;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The longest text that is read as [`DESCRIPTORS`], in bytes.
const LONGEST_DESCRIPTORS: u64 = 64 << 10;

/// Restores a container; it runs when this returns. Nothing is left behind by a failure.
pub(crate) fn restore(options: Options, checkpoint: &CheckpointOptions) -> Result<Container> {
    let limits = options.limits.clone();
    wait::limited(&limits, || restore_now(options, checkpoint))
}

fn restore_now(mut options: Options, checkpoint: &CheckpointOptions) -> Result<Container> {
    if nix::unistd::geteuid().as_raw() != 0 {
        return Err(Error::unsupported("restore without root").with_hint("CRIU needs the host's root"));
    }
    // Before anything is made: a wrong path is the most frequent mistake.
    Directories::open(checkpoint, Path::new("/"))?;
    let prepared = prepare(&options)?;
    let directories = Directories::make(checkpoint, &prepared.spec)?;
    let (streams, ends) = options.process.open()?;
    let transaction = Transaction::begin(&options.settings.store, &prepared)?;
    let restoration = Restoration { streams: &streams, checkpoint, directories, prepared: &prepared };
    let mut container = restoration.run(transaction)?;
    container.keep(options, prepared.spec, ends.finish(streams)?);
    Ok(container)
}

struct Restoration<'a> {
    streams: &'a Streams,
    checkpoint: &'a CheckpointOptions,
    directories: Directories,
    prepared: &'a Prepared,
}

impl Restoration<'_> {
    fn run(&self, mut transaction: Transaction) -> Result<Container> {
        // CRIU mounts in a mount namespace of its own.
        transaction.state.mounted_on_host = false;
        transaction.make_v2_cgroup()?;
        transaction.make_cgroup()?;
        transaction.begin_network()?;
        transaction.write_filter(self.prepared)?;
        let saved = saved_descriptors(&self.directories.images)?;
        check_streams(&saved, &self.streams.stdio())?;
        give_streams(&self.streams.stdio(), &self.prepared.spec)?;
        let Prepared { spec, request, .. } = self.prepared;
        let rootfs = transaction.state.rootfs.clone();
        let namespaces = external_namespaces(spec)?;
        let placed: Vec<BorrowedFd> = namespaces.iter().map(|(_, fd)| fd.as_fd()).collect();
        let (programs, env) = (self.checkpoint.programs(), environment());
        let program = plan::criu::Program {
            paths: &programs,
            env: &env,
            socket: criu::SOCKET as u16,
            placed: 1 + placed.len() as u16,
        };
        let plan = plan::criu::restore(&program, spec, &self.prepared.host, &rootfs)?;
        let born_in = transaction.state.cgroup.open_dir()?;
        let cgroup = transaction.state.cgroup.clone();
        let launch = Launch {
            stdio: self.streams.stdio(),
            passed: &[],
            cgroup: born_in.as_ref().map(AsFd::as_fd),
            given: Given { cgroup: Some(&cgroup), placed: &placed, ..Given::default() },
        };
        let log = self.directories.log("restore.log");
        let criu = Criu::start(&plan, &launch, log, &mut |pid| transaction.attach(pid))?;
        let directories =
            Directories::open(self.checkpoint, &PathBuf::from(format!("/proc/{}/root", criu.pid())))?;
        // Which of them are files is known only where they are; names that CRIU has not saved do no harm.
        let linux = spec.linux().as_ref();
        let masked = linux.and_then(|linux| linux.masked_paths().clone()).unwrap_or_default();
        let masked: Vec<PathBuf> = masked.iter().map(PathBuf::from).collect();
        let externals = plan::criu::externals(spec, &self.prepared.host, &request.bundle, &masked);
        let mounted = |one: plan::criu::External| criu::ExternalMount {
            key: one.destination.display().to_string(),
            value: one.source.display().to_string(),
        };
        let inherited = inherited(&saved, &namespaces);
        let options = criu::Options {
            root: Some(rootfs.display().to_string()),
            restore_sibling: Some(true),
            external_mounts: externals.into_iter().map(mounted).collect(),
            inherit_fds: inherited,
            cgroup_roots: cgroup_roots(&transaction.state.cgroup),
            empty_namespaces: self.empty_namespaces(),
            ..directories.request(self.checkpoint, "restore.log")
        };
        let (mut init, pid) = (None, criu.pid());
        criu.run(Kind::Restore, options, &mut |notification| {
            self.notified(notification, pid, &mut transaction, &mut init)
        })?;
        let init = init.ok_or_else(|| Error::external("criu restored no process"))?;
        transaction.commit(init)
    }
}

impl Restoration<'_> {
    /// Does what is to be done at CRIU's notifications. `init` is set as soon as there is a process.
    fn notified(
        &self,
        notification: Notification,
        criu: i32,
        transaction: &mut Transaction,
        init: &mut Option<Child>,
    ) -> Result<()> {
        let Notification { script, pid, fd } = notification;
        match script.as_str() {
            // The namespaces exist, and no process of the checkpoint does.
            "setup-namespaces" => {
                transaction.enter_network(pid)?;
                transaction.entered(pid)?;
                transaction.finish_network()?;
                transaction.run_early_hooks(hooks::Limits::default())
            }
            "orphan-pts-master" => self.hand_over_terminal(fd),
            "post-restore" => {
                let pidfd = sys::pidfd_open(pid).map_err(|errno| Error::os("pidfd_open", errno))?;
                *init = Some(Child::new(pid, pidfd));
                transaction.state.restored = true;
                transaction.set_init(pid)
            }
            // All processes are as they were and stopped: the last chance to refuse them.
            "pre-resume" => self.admit(criu, transaction, init.as_ref()),
            _ => Ok(()),
        }
    }

    /// Compares the restored processes with the configuration. Those with more than it allows are killed.
    fn admit(&self, criu: i32, transaction: &mut Transaction, init: Option<&Child>) -> Result<()> {
        let init = init.ok_or_else(|| Error::external("criu restored no process"))?;
        verify::processes(self.prepared, &transaction.state, init.pid(), criu).inspect_err(|_| {
            let _ = transaction.state.cgroup.kill_all(libc::SIGKILL);
            init.kill();
        })?;
        transaction.record()
    }

    fn hand_over_terminal(&self, master: Option<OwnedFd>) -> Result<()> {
        let (Some(master), Some(socket)) = (master, self.streams.console()) else {
            return Err(Error::unsupported(
                "the container was saved with a terminal, and there is no socket to hand it to",
            )
            .at("process.terminal")
            .with_hint("give it a console socket, or a terminal"));
        };
        console::send_terminal(socket, master.as_fd())
    }

    fn empty_namespaces(&self) -> Option<u32> {
        let empty = self.checkpoint.empty_network || !self.prepared.networks.is_empty();
        empty.then_some(libc::CLONE_NEWNET as u32)
    }
}

impl CheckpointOptions {
    /// Which of the three standard streams were files from outside of the container when it was saved, such as
    /// `/dev/null`. CRIU restores them from files alone: a pipe in their place is an error of the restoration.
    ///
    /// # Errors
    /// The checkpoint cannot be read.
    pub fn file_streams(&self) -> Result<[bool; 3]> {
        let failed = |error| Error::io(format!("open {}", self.image_path.display()), error);
        let images = File::open(&self.image_path).map_err(failed)?;
        let saved = saved_descriptors(&images)?;
        Ok([0, 1, 2].map(|at: usize| saved[at].starts_with(OUTSIDE)))
    }
}

/// CRIU sets the position of what was a file.
fn check_streams(saved: &[String], given: &[BorrowedFd; 3]) -> Result<()> {
    let names = ["standard input", "standard output", "standard error"];
    for ((link, stream), name) in saved.iter().zip(given).zip(names) {
        let position = nix::unistd::lseek(stream, 0, nix::unistd::Whence::SeekCur);
        if link.starts_with(OUTSIDE) && position == Err(nix::errno::Errno::ESPIPE) {
            return Err(Error::unsupported(format!("a pipe as {name}, which was a file when it was saved"))
                .with_hint("give it a file, such as /dev/null"));
        }
    }
    Ok(())
}

/// The standard streams belong to the process's user, as in a created container: CRIU opens them as that
/// user. Devices that others share stay as they are.
fn give_streams(streams: &[BorrowedFd; 3], spec: &Spec) -> Result<()> {
    let Some(process) = spec.process() else { return Ok(()) };
    let maps = spec.linux().iter().flat_map(|linux| linux.uid_mappings().iter().flatten());
    let uid = process.user().uid();
    let row =
        maps.into_iter().find(|row| (row.container_id()..row.container_id() + row.size()).contains(&uid));
    let uid = row.map_or(uid, |row| row.host_id() + (uid - row.container_id()));
    for stream in streams {
        let found =
            nix::sys::stat::fstat(stream).map_err(|errno| Error::os("fstat of a standard stream", errno))?;
        if matches!(found.st_mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFIFO) && found.st_uid != uid {
            // A stream on a read-only or foreign filesystem keeps its owner.
            let _ = nix::unistd::fchown(stream, Some(nix::unistd::Uid::from_raw(uid)), None);
        }
    }
    Ok(())
}

/// The links of the saved standard descriptors, checked because the file is not trusted.
fn saved_descriptors(images: &File) -> Result<Vec<String>> {
    let failed = |error| Error::io(format!("open {DESCRIPTORS}"), error);
    let path = format!("/proc/self/fd/{}/{DESCRIPTORS}", images.as_raw_fd());
    let mut options = std::fs::OpenOptions::new();
    let file =
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(LONGEST_DESCRIPTORS).read_to_end(&mut bytes).map_err(failed)?;
    let links: Vec<String> = serde_json::from_slice(&bytes)
        .map_err(|error| Error::external(format!("{DESCRIPTORS} is damaged: {error}")))?;
    match links.len() {
        3 => Ok(links),
        count => Err(Error::external(format!("{DESCRIPTORS} is damaged: it has {count} entries, not 3"))),
    }
}

/// Replaces pipes and outside files among the saved standard descriptors by the caller's, and saved namespaces that are
/// given by path by those of the configuration. The numbers are in CRIU's own table.
fn inherited(saved: &[String], namespaces: &[(&str, OwnedFd)]) -> Vec<criu::InheritFd> {
    let pipes =
        saved.iter().enumerate().filter(|(_, link)| link.starts_with("pipe:") || link.starts_with(OUTSIDE));
    let pipes = pipes.map(|(at, link)| criu::InheritFd { key: link.clone(), fd: at as i32 });
    let placed = namespaces.iter().zip(criu::SOCKET + 1..);
    let namespaces = placed.map(|((name, _), number)| criu::InheritFd { key: name.to_string(), fd: number });
    pipes.chain(namespaces).collect()
}

fn external_namespaces(spec: &Spec) -> Result<Vec<(&'static str, OwnedFd)>> {
    let mut found = Vec::new();
    for (kind, _, name) in EXTERNAL_NAMESPACES {
        if let Some(path) = namespace_path(spec, *kind) {
            let opened = File::open(&path).map_err(|error| {
                Error::io(format!("open {}", path.display()), error).at("linux.namespaces")
            })?;
            found.push((*name, opened.into()));
        }
    }
    Ok(found)
}

/// The container's cgroup takes the place of the one that was saved.
fn cgroup_roots(cgroup: &Cgroup) -> Vec<criu::CgroupRoot> {
    // Without a name it is the root of every hierarchy: where there are others, that would make cgroups in those that the
    // container has none in.
    let is_v2 = cgroup.is_v2();
    let root = |(controller, path): (String, PathBuf)| criu::CgroupRoot {
        controller: Some(controller).filter(|name| !is_v2 || !name.is_empty()),
        path: path.display().to_string(),
    };
    cgroup.kernel_paths().into_iter().map(root).collect()
}

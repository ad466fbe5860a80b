//! `start`: finds the shim of the container's group, or makes it; and says its address on standard output. Nothing else
//! is printed there or on standard error, which containerd reads as one.

use crate::args::Args;
use crate::bootstrap::{self, MAX_INPUT, Wanted};
use crate::failure::{Failure, Result};
use crate::record::{Record, group_of, replace};
use crate::{options, sandbox, sys};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr};
use sha2::{Digest, Sha256};
use std::fs::{DirBuilder, File, Permissions};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// For the lock of the sockets' directory: a `start` holds it for some milliseconds.
const LOCK: Duration = Duration::from_secs(5);
/// containerd ends `delete` after 5 s, of which the containers may take most.
const LOCK_OF_DELETE: Duration = Duration::from_secs(1);

/// Returns what is to be printed.
pub fn start(args: &Args) -> Result<Vec<u8>> {
    let wanted = bootstrap::parse(args, std::env::var("TTRPC_ADDRESS").ok(), &input()?)?;
    let options = options::parse(wanted.options.as_ref())?;
    let bundle = std::env::current_dir().map_err(|error| Failure::os("getcwd", error))?;
    let group = group_of(&bundle, &wanted.id);
    let socket = socket_path(&wanted, &group);
    let address = format!("unix://{}", socket.display());
    // For `delete` of a sandbox, whose own request does not have the options.
    Record::new(&options, &wanted.namespace, &group).write(&bundle)?;
    let listener = bind(&socket)?;
    // Before the shim is there: it would go on without anybody who knows of it.
    replace(&bundle.join("address"), &address)
        .inspect_err(|_| listener.iter().for_each(|_| remove(&socket)))?;
    if let Some(listener) = listener {
        let child = spawn(&wanted, &socket, listener).inspect_err(|_| remove(&socket))?;
        settle(&child, &options.shim_cgroup).inspect_err(|_| {
            end(child);
            remove(&socket);
        })?;
    }
    let config = std::fs::read(bundle.join("config.json")).unwrap_or_default();
    Ok(bootstrap::answer(wanted.dialect, &address, sandbox::is_of_container(&config)))
}

pub fn input() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().take(MAX_INPUT + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::os("read standard input", error))?;
    if bytes.len() as u64 > MAX_INPUT {
        return Err(Failure::invalid("standard input is longer than 10 MiB"));
    }
    Ok(bytes)
}

/// A function of containerd's address, the namespace and the group: a shim of another version has to find it.
fn socket_path(wanted: &Wanted, group: &str) -> PathBuf {
    let mut hash = Sha256::new();
    for part in [wanted.grpc_address.as_str(), &wanted.namespace, group] {
        // The length keeps ("a", "bc") and ("ab", "c") apart.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    // 32 of its 64 digits: the path of a socket has at most 107 bytes.
    let digits: String = hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Path::new(&wanted.socket_dir).join(format!("onggi-{digits}"))
}

/// `None` where somebody answers there: that is the group's shim.
fn bind(socket: &Path) -> Result<Option<UnixListener>> {
    let failed = |error| Failure::os(format!("bind {}", socket.display()), error);
    let directory = socket.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    // Two calls of `start` for one group must not both unlink.
    let _lock = lock(directory, LOCK)?;
    let listener = match UnixListener::bind(socket) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            if !is_abandoned(socket) {
                return Ok(None);
            }
            remove(socket);
            UnixListener::bind(socket)
        }
        other => other,
    };
    let listener = listener.map_err(failed)?;
    std::fs::set_permissions(socket, Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(Some(listener))
}

/// Nobody listens there. Does not wait for a shim that is stopped and has a full backlog: it is there (EAGAIN). Other
/// errors, such as too many open files here, say nothing about it.
fn is_abandoned(socket: &Path) -> bool {
    connect(socket).is_err_and(|errno| errno == Errno::ECONNREFUSED)
}

fn connect(socket: &Path) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let ours = nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    nix::sys::socket::connect(ours.as_raw_fd(), &UnixAddr::new(socket)?)?;
    Ok(ours)
}

/// flock(2) has no deadline, and a process that is stopped may hold the lock.
fn lock(directory: &Path, limit: Duration) -> Result<Flock<File>> {
    let failed = |error: std::io::Error| Failure::os(format!("flock {}", directory.display()), error);
    let end = Instant::now() + limit;
    let mut file = File::open(directory).map_err(failed)?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) if Instant::now() < end => file = back,
            Err((_, Errno::EWOULDBLOCK)) => {
                let hint = format!("another process has held the lock for {limit:?}");
                return Err(failed(Errno::EWOULDBLOCK.into()).hint(&hint));
            }
            Err((_, errno)) => return Err(failed(errno.into())),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The socket that a shim which was killed has left; one that lives keeps its own.
pub fn remove_unanswered(bundle: &Path) {
    let address = std::fs::read_to_string(bundle.join("address")).unwrap_or_default();
    let Some(socket) = address.strip_prefix("unix://").map(Path::new) else { return };
    let Some(Ok(_lock)) = socket.parent().map(|directory| lock(directory, LOCK_OF_DELETE)) else { return };
    if is_abandoned(socket) {
        remove(socket);
    }
}

fn remove(socket: &Path) {
    // What matters is that nothing is there.
    let _ = std::fs::remove_file(socket);
}

/// The daemon has the socket as its standard input, and holds none of containerd's pipes.
fn spawn(wanted: &Wanted, socket: &Path, listener: UnixListener) -> Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("containerd-shim-onggi-v2");
    // The id and the address are for people who read a list of processes.
    command.args(["-namespace", &wanted.namespace, "-id", &wanted.id, "-address", &wanted.grpc_address]);
    command.arg("-socket").arg(socket);
    if wanted.debug {
        command.arg("-debug");
    }
    if std::env::var_os("SCHED_CORE").is_some_and(|value| !value.is_empty()) {
        sys::share_core_in_group().map_err(|errno| Failure::os("prctl PR_SCHED_CORE", errno))?;
    }
    command.env("TTRPC_ADDRESS", &wanted.ttrpc_address).process_group(0);
    command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|error| Failure::os("execute the shim", error))
}

/// Its cgroup and its score for the OOM killer.
fn settle(child: &Child, cgroup: &str) -> Result<()> {
    let pid = child.id();
    if !cgroup.is_empty() {
        join_cgroup(pid, cgroup)?;
    }
    let read = |path: String| std::fs::read_to_string(path).ok()?.trim().parse::<i32>().ok();
    let parent = format!("/proc/{}/oom_score_adj", std::os::unix::process::parent_id());
    if let Some(score) = read(parent) {
        // Without CAP_SYS_RESOURCE it cannot be lowered, and that is no reason to fail.
        let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), (score + 1).min(1000).to_string());
    }
    Ok(())
}

/// The only one of v2, or that of each hierarchy of v1.
fn join_cgroup(pid: u32, cgroup: &str) -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let cgroup = cgroup.trim_start_matches('/');
    let hierarchies = match root.join("cgroup.controllers").exists() {
        true => vec![root.to_path_buf()],
        false => std::fs::read_dir(root)
            .map_err(|error| Failure::os("open /sys/fs/cgroup", error))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.join("cgroup.procs").exists() && path.join(cgroup).exists())
            .collect(),
    };
    if hierarchies.is_empty() {
        return Err(Failure::invalid(format!("ShimCgroup {cgroup:?} does not exist")));
    }
    for hierarchy in hierarchies {
        let procs = hierarchy.join(cgroup).join("cgroup.procs");
        std::fs::write(&procs, pid.to_string())
            .map_err(|error| Failure::os(format!("write {}", procs.display()), error))?;
    }
    Ok(())
}

fn end(mut child: Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shim that is already running is found by another version of this program: the name never changes.
    #[test]
    fn the_name_of_the_socket_is_stable() {
        let wanted = Wanted {
            id: String::new(),
            namespace: "k8s.io".into(),
            grpc_address: "/run/containerd/containerd.sock".into(),
            ttrpc_address: String::new(),
            socket_dir: "/run/containerd/s".into(),
            options: None,
            dialect: bootstrap::Dialect::Flags,
            debug: false,
        };
        assert_eq!(
            socket_path(&wanted, "pod").to_str(),
            Some("/run/containerd/s/onggi-3b2c3a94d4d37602a98bf607a8fb3273")
        );
    }

    #[test]
    fn a_shim_that_is_stopped_is_found_and_one_that_is_gone_is_replaced() {
        let directory = std::env::temp_dir().join(format!("onggi-bind-{}", std::process::id()));
        let socket = directory.join("s");
        let listener = bind(&socket).unwrap().expect("a new socket");
        // It accepts no connection, and its backlog is full.
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
        let mut clients = Vec::new();
        while let Ok(client) = connect(&socket) {
            clients.push(client);
        }
        let (said, found) = std::sync::mpsc::channel();
        let path = socket.clone();
        std::thread::spawn(move || said.send(bind(&path).is_ok_and(|listener| listener.is_none())));
        let found = found.recv_timeout(std::time::Duration::from_secs(5));
        assert_eq!(found, Ok(true), "it is not found");
        drop(listener);
        assert!(bind(&socket).unwrap().is_some());
        std::fs::remove_dir_all(directory).unwrap();
    }
}

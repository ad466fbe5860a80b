//! What the shim is told when it begins: options, environment, races of `start`, and `-info`. Needs root and busybox.

mod play;

use play::*;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const SLEEP: &[&str] = &["busybox", "sleep", "1000"];

macro_rules! prepared {
    ($name:expr) => {
        match missing() {
            Some(reason) => return eprintln!("{reason}"),
            None => Shim::prepare($name, SLEEP, &|_| ()),
        }
    };
}

#[test]
#[ignore = "needs root"]
fn the_shim_says_what_it_can() {
    let shim = prepared!("info");
    let options = Fields::default().text(1, "containerd.runc.v1.Options").bytes(2, b"");
    let output = shim.run("a", &["-info"], &options.0);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let info = fields(&output.stdout);
    assert_eq!(text(&fields(&info[&2].1), 1), env!("CARGO_PKG_VERSION"));
    assert_eq!(text(&fields(&info[&3].1), 1), "containerd.runc.v1.Options");
    let features = fields(&info[&4].1);
    assert!(text(&features, 1).ends_with("/runtime-spec/1/features/Features"));
    let features: serde_json::Value = serde_json::from_slice(&features[&2].1).unwrap();
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
    assert!(features["mountOptions"].as_array().unwrap().iter().any(|option| option == "rro"));
    // Without options too.
    assert!(shim.run("a", &["-info"], b"").status.success());
    let version = shim.run("a", &["-v"], b"");
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
}

/// A cgroup in each hierarchy that has processes; removed at the end.
struct Cgroup(Vec<PathBuf>);

impl Cgroup {
    fn make(name: &str) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(root).unwrap().flatten().map(|entry| entry.path());
        let all = hierarchies.chain([root.into()]).filter(|path| path.join("cgroup.procs").exists());
        let made: Vec<PathBuf> = all.map(|hierarchy| hierarchy.join(name)).collect();
        made.iter().for_each(|path| fs::create_dir(path).unwrap());
        // One without processors or nodes takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            for path in made.iter().filter(|path| path.join(file).exists()) {
                if let Ok(value) = fs::read(path.parent().unwrap().join(file)) {
                    let _ = fs::write(path.join(file), value);
                }
            }
        }
        Self(made)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| drop(fs::remove_dir(path)));
    }
}

#[test]
#[ignore = "needs root"]
fn a_shim_joins_the_cgroup_that_its_options_name() {
    let mut shim = prepared!("cgroup");
    let name = format!("shim-{}-own", std::process::id());
    let missing = shim.try_launch(&[], Fields::default().text(3, "/no-such-cgroup"));
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(!missing.status.success() && said.contains("ShimCgroup \"no-such-cgroup\""), "{said}");
    assert_eq!(fs::read_dir(shim.directory.join("s")).unwrap().count(), 0, "a socket is left");
    let cgroup = Cgroup::make(&name);
    shim.launch(&[], Fields::default().text(3, &format!("/{name}")));
    let pid = shim.pid();
    let joined = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(joined.lines().filter(|line| line.ends_with(&name)).count(), cgroup.0.len(), "{joined}");
    // Its containers are where their configuration says.
    let init = number(&fields(&shim.create("").unwrap()), 1);
    let of_init = fs::read_to_string(format!("/proc/{init}/cgroup")).unwrap();
    assert!(!of_init.contains(&name), "{of_init}");
    shim.remove();
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn a_shim_that_gets_no_thread_fails_its_verbs_and_lives() {
    let mut shim = prepared!("pids");
    let name = format!("shim-{}-pids", std::process::id());
    let cgroup = Cgroup::make(&name);
    let Some(limit) = cgroup.0.iter().map(|path| path.join("pids.max")).find(|path| path.exists()) else {
        return eprintln!("skipped: no hierarchy has the pids controller");
    };
    shim.launch(&[], Fields::default().text(3, &format!("/{name}")));
    shim.create("").unwrap();
    let pid = shim.pid();
    await_that("its workers end", || fs::read_dir(format!("/proc/{pid}/task")).unwrap().count() == 1);
    fs::write(&limit, "1").unwrap();
    for verb in ["Start", "Pids", "Stats", "Delete"] {
        let failure = shim.of(verb, "").unwrap_err();
        assert!(failure.message.contains("clone a thread: "), "{verb}: {failure:?}");
    }
    assert_eq!((shim.status(), shim.pid()), (3, pid));
    fs::write(&limit, "max").unwrap();
    shim.of("Delete", "").unwrap();
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn a_shim_is_killed_for_memory_a_little_sooner_than_its_parent() {
    let mut shim = prepared!("score");
    shim.launch(&[], Fields::default());
    let score = |pid: &str| -> i32 {
        fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().parse().unwrap()
    };
    assert_eq!(score(&shim.pid().to_string()), (score("self") + 1).min(1000));
    shim.end();
}

/// The cookie of the caller's core scheduling, or the error of a kernel without it.
fn cookie_of(pid: i32) -> nix::Result<u64> {
    const THREAD: libc::c_ulong = 0;
    let mut cookie = 0u64;
    // SAFETY: the kernel writes one number at the address.
    let got =
        unsafe { libc::prctl(libc::PR_SCHED_CORE, libc::PR_SCHED_CORE_GET, pid, THREAD, &raw mut cookie) };
    nix::errno::Errno::result(got).map(|_| cookie)
}

#[test]
#[ignore = "needs root"]
fn core_scheduling_is_shared_in_the_shim_or_refused_by_name() {
    let mut shim = prepared!("cores");
    if let Err(errno) = cookie_of(0) {
        eprintln!("skipped in part: this kernel has no core scheduling ({errno})");
        let output = shim.try_launch(&[("SCHED_CORE", "1")], Fields::default());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("prctl PR_SCHED_CORE"), "{said}");
        assert_eq!(fs::read_dir(shim.directory.join("s")).unwrap().count(), 0, "a socket is left");
        return;
    }
    shim.launch(&[("SCHED_CORE", "1")], Fields::default());
    let init = number(&fields(&shim.create("").unwrap()), 1) as i32;
    assert_ne!(cookie_of(shim.pid()), Ok(0));
    assert_eq!(cookie_of(shim.pid()), cookie_of(init));
    shim.remove();
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn calls_of_start_at_once_make_one_shim() {
    let mut shim = prepared!("race");
    let ids = ["b", "c", "d", "e", "f", "g", "h"];
    ids.iter().for_each(|id| shim.add(id, SLEEP));
    // What a shim that was killed has left.
    fs::create_dir_all(shim.directory.join("s")).unwrap();
    let addresses: Vec<String> = std::thread::scope(|scope| {
        let start = |id: &'static str| {
            let shim = &shim;
            scope.spawn(move || text(&fields(&shim.start_of(id).stdout), 2))
        };
        let threads: Vec<_> = ids.iter().map(|id| start(id)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(addresses[0].starts_with("unix:///"), "{addresses:?}");
    assert!(addresses.iter().all(|address| *address == addresses[0]), "{addresses:?}");
    assert_eq!(fs::read_dir(shim.directory.join("s")).unwrap().count(), 1);
    assert_eq!(shim.processes().len(), 1);
    shim.launch(&[], Fields::default());
    assert_eq!(format!("unix://{}", shim.socket.display()), addresses[0]);
    for id in ids {
        shim.create_with(id, Fields::default()).unwrap();
    }
    for id in ids {
        shim.call("Delete", Fields::default().text(1, id)).unwrap();
    }
    shim.end();
}

/// A process that is stopped may hold it.
#[test]
#[ignore = "needs root"]
fn a_lock_that_is_held_ends_start_and_delete_after_a_while() {
    let mut shim = prepared!("lock");
    let directory = shim.directory.join("s");
    fs::create_dir(&directory).unwrap();
    let file = fs::File::open(&directory).unwrap();
    let lock = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let (said, result) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let shim = &shim;
        scope.spawn(move || said.send(shim.try_launch(&[], Fields::default())));
        let limit = Duration::from_secs(10);
        let Ok(output) = result.recv_timeout(limit) else {
            // Lets it go on, or the test would not end.
            drop(lock);
            panic!("start waits for the lock");
        };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("flock "), "{said}");
        assert!(said.contains("hint: another process has held the lock for 5s"), "{said}");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "a socket is left");
        // What a dead shim has left is there: `delete` wants to remove its socket.
        let socket = directory.join("x");
        fs::write(shim.bundle_of("a").join("address"), format!("unix://{}", socket.display())).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let begun = Instant::now();
        assert!(shim.run("a", &["delete"], b"").status.success());
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        drop(lock);
        assert!(shim.run("a", &["delete"], b"").status.success());
        assert!(!socket.exists(), "the socket is left");
    });
    // Nothing holds the next one up.
    shim.launch(&[], Fields::default());
    shim.create("").unwrap();
    shim.remove();
    shim.end();
}

/// Has a system call fail with EPERM in what `command` executes, where its argument at `index` compares so with `value`.
fn refuse(command: &mut Command, call: libc::c_long, index: u32, comparison: u32, value: u32) {
    let filter = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let (jump, answer) = (libc::BPF_JMP | libc::BPF_K, libc::BPF_RET | libc::BPF_K);
    // Of struct seccomp_data: the number of the call, and the lower half of the argument.
    let mut program = [
        filter(load, 0, 0, 0),
        filter(jump | libc::BPF_JEQ, 0, 3, call as u32),
        filter(load, 0, 0, 16 + 8 * index),
        filter(jump | comparison, 0, 1, value),
        filter(answer, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        filter(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let set = move || {
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: the kernel reads the program at the address, which lives until the call returns.
        let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
        nix::errno::Errno::result(set)?;
        Ok(())
    };
    // SAFETY: one system call, and no memory of the heap.
    unsafe { command.pre_exec(set) };
}

#[test]
#[ignore = "needs root"]
fn a_shim_that_cannot_take_signals_ends_and_leaves_no_socket() {
    let mut shim = prepared!("signals");
    let output = shim.try_launch_with(&[], Fields::default(), |command| {
        refuse(command, libc::SYS_rt_sigaction, 0, libc::BPF_JEQ, libc::SIGUSR1 as u32);
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // It is not seen between fork and exec, so that "no process" alone can be too early.
    let sockets = || fs::read_dir(shim.directory.join("s")).unwrap().count();
    await_that("the shim ends and leaves no socket", || shim.processes().is_empty() && sockets() == 0);
    // The next `start` makes one that serves.
    shim.launch(&[], Fields::default());
    shim.create("").unwrap();
    shim.remove();
    shim.end();
}

/// The id is free when that is answered: a client tries again.
#[test]
#[ignore = "needs root"]
fn a_create_whose_streams_cannot_be_watched_is_answered_when_its_container_is_deleted() {
    if let Some(reason) = missing() {
        return eprintln!("{reason}");
    }
    let mut shim = Shim::prepare("unwatched", SLEEP, &|config| {
        // The deletion takes its time.
        let hook = serde_json::json!({ "path": "/bin/sleep", "args": ["sleep", "0.3"] });
        config["hooks"] = serde_json::json!({ "poststop": [hook] });
    });
    shim.launch(&[], Fields::default());
    let pid = shim.pid();
    let is_free = |number: &u32| !Path::new(&format!("/proc/{pid}/fd/{number}")).exists();
    // That of the next connection, or the one after it.
    let first = (0..).find(is_free).unwrap();
    shim.end();
    let output = shim.try_launch_with(&[], Fields::default(), |command| {
        refuse(command, libc::SYS_epoll_ctl, 2, libc::BPF_JGE, first + 1);
    });
    assert_eq!(format!("unix://{}", shim.socket.display()), text(&fields(&output.stdout), 2));
    let fifo = shim.fifo("out");
    let failure = shim.create(fifo.to_str().unwrap()).unwrap_err();
    assert!(failure.message.contains("epoll_ctl a standard stream: "), "{failure:?}");
    let store = shim.directory.join("store").join(&shim.name);
    assert_eq!(fs::read_dir(store).unwrap().count(), 0, "it was answered before");
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn a_checkpoint_without_criu_fails_and_the_container_goes_on() {
    let mut shim = prepared!("checkpoint");
    shim.launch(&[], Fields::default());
    let image = shim.directory.join("checkpoint");
    fs::create_dir(&image).unwrap();
    let wanted = || Fields::default().text(1, "a").text(2, image.to_str().unwrap());
    shim.create("").unwrap();
    assert_eq!(shim.call("Checkpoint", wanted()).unwrap_err().code, 9);
    shim.of("Start", "").unwrap();
    let criu_works = Command::new("criu").arg("check").output().is_ok_and(|check| check.status.success());
    if criu_works {
        shim.call("Checkpoint", wanted()).unwrap();
        shim.await_event("checkpointed a");
    } else {
        eprintln!("skipped in part: criu is not installed, or `criu check` fails");
        let failure = shim.call("Checkpoint", wanted()).unwrap_err();
        assert!(failure.message.contains("criu"), "{failure:?}");
    }
    assert_eq!(shim.status(), 2);
    shim.remove();
    shim.end();
}

/// Its files in /proc are root's, whatever its group is: ptrace(2) asks for CAP_SYS_PTRACE then.
#[test]
#[ignore = "needs root"]
fn the_shim_is_not_dumpable() {
    if let Some(reason) = missing() {
        return eprintln!("{reason}");
    }
    let mut shim = Shim::prepare("dumpable", &["busybox", "true"], &|_| ());
    shim.group = 5;
    shim.launch(&[], Fields::default());
    let pid = shim.processes()[0];
    let group = || fs::metadata(format!("/proc/{pid}/environ")).unwrap().gid();
    await_that("the shim is not dumpable", || group() == 0);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
    await_end(pid);
    shim.check_nothing_left();
}

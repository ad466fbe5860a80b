//! Invariant "the caller is never changed": by a program with 24 threads that allocate, and by one
//! that has other children, handlers and a directory of its own.

use super::bundle::{Bundle, config, new_id, quiet, turn};
use super::roles;
use super::world::{children, fds};
use libruntime::{ExitStatus, Runtime};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What of a process a library could change.
#[derive(Debug, PartialEq, Eq)]
struct Caller {
    directory: String,
    /// Signal masks and handlers, umask, ids, capabilities, seccomp and no_new_privs.
    status: Vec<String>,
    oom_score: String,
    dumpable: i32,
    environment: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    fds: Vec<String>,
    children: BTreeSet<String>,
    limits: String,
    namespaces: Vec<String>,
}

impl Caller {
    fn now() -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/thread-self/{file}")).unwrap();
        let kept = |line: &&str| {
            ["Umask", "Sig", "Shd", "Cap", "Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "NSsid"]
                .iter()
                .any(|name| line.starts_with(name))
                // A signal that comes meanwhile is nobody's change.
                && !line.starts_with("SigQ")
        };
        let spaces = std::fs::read_dir("/proc/thread-self/ns").unwrap().filter_map(Result::ok);
        let link = |path: std::path::PathBuf| std::fs::read_link(path).unwrap().display().to_string();
        let mut namespaces: Vec<_> = spaces.map(|entry| link(entry.path())).collect();
        namespaces.sort();
        Self {
            directory: std::env::current_dir().unwrap().display().to_string(),
            status: read("status").lines().filter(kept).map(String::from).collect(),
            oom_score: read("oom_score_adj"),
            dumpable: nix::sys::prctl::get_dumpable().unwrap().into(),
            environment: std::env::vars_os().collect(),
            fds: fds(),
            children: children(),
            limits: read("limits"),
            namespaces,
        }
    }
}

#[test]
#[ignore = "needs root"]
fn the_caller_is_as_it_was() {
    let Some(_turn) = turn() else { return };
    let mut all = config("exit 3");
    // All that a careless library would set on itself.
    all["process"]["oomScoreAdj"] = 500.into();
    all["process"]["user"]["umask"] = 0o77.into();
    all["process"]["noNewPrivileges"] = true.into();
    all["process"]["rlimits"] = serde_json::json!([{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}]);
    all["linux"]["seccomp"] = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW"});
    let bundle = Bundle::new(&all);
    let mut other = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    // A child that has ended and that only we may wait for.
    let mut ended = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    // The library keeps the sealed stage open, once it has made it.
    bundle.run();
    let before = Caller::now();
    assert!(before.children.iter().any(|child| child.contains("true")), "{:?}", before.children);
    for _ in 0..10 {
        assert_eq!(bundle.run().0, ExitStatus::Code(3));
    }
    let id = new_id();
    assert_eq!(before.dumpable, Caller::now().dumpable);
    bundle.create(&id).unwrap().delete().unwrap();
    assert_eq!(Caller::now(), before);
    assert!(ended.wait().unwrap().success(), "the child was still ours to reap");
    other.kill().unwrap();
    other.wait().unwrap();
}

/// With one arena of malloc, every thread fights for its lock: code that allocates between clone
/// and exec hangs here sooner or later.
fn crowd(count: u32, limit: Duration) {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("true"));
    let mut role = roles::command("crowd", &bundle, &new_id());
    role.env("MALLOC_ARENA_MAX", "1").env("ROLE_COUNT", count.to_string());
    role.stderr(std::fs::File::create(bundle.directory.join("said")).unwrap());
    let (begin, mut child) = (Instant::now(), role.spawn().unwrap());
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begin.elapsed() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            roles::kill_left_over(&bundle);
            panic!("{count} containers took longer than {limit:?}: a deadlock");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let said = std::fs::read_to_string(bundle.directory.join("said")).unwrap_or_default();
    assert!(status.success(), "{status}: {said}");
    eprintln!("{count} containers beside 24 threads: {:?}", begin.elapsed());
}

#[test]
#[ignore = "needs root"]
fn fifty_containers_can_be_made_while_24_threads_allocate() {
    crowd(50, Duration::from_secs(60));
}

#[test]
#[ignore = "long: a thousand containers"]
fn endurance_a_thousand_containers_can_be_made_while_24_threads_allocate() {
    crowd(1000, Duration::from_secs(600));
}

/// The role: threads that allocate and free, and one that makes containers.
pub fn work_in_a_crowd(bundle: &Path, store: &Path, id: &str, count: u32) {
    let stop = AtomicBool::new(false);
    let allocate = || {
        let mut size = 1;
        while !stop.load(Ordering::Relaxed) {
            size = size * 7 % 65_521 + 1;
            let block: Vec<u8> = Vec::with_capacity(size);
            std::hint::black_box(&block);
            // Machines with few processors would do nothing but this.
            if size % 64 == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    };
    /// Also when the work fails: the scope waits for the threads.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    std::thread::scope(|scope| {
        let stop_them = Stop(&stop);
        (0..24).for_each(|_| drop(scope.spawn(allocate)));
        let runtime = Runtime::new(store);
        // The library's own descriptors, which it keeps.
        quiet(runtime.container(id)).bundle(bundle).create().unwrap().delete().unwrap();
        let before = fds();
        for number in 0..count {
            let id = format!("{id}-{number}");
            let container = quiet(runtime.container(id)).bundle(bundle).create().unwrap();
            container.start().unwrap();
            assert_eq!(container.wait().unwrap(), ExitStatus::Code(0));
            container.delete().unwrap();
        }
        drop(stop_them);
        assert_eq!(fds(), before);
    });
}

//! Orphans, signals to the shim, kills of what is paused, and the ends of things. Needs root and busybox.

#[macro_use]
mod play;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use play::*;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const SLEEP: &[&str] = &["busybox", "sleep", "1000"];

fn without_pid_namespace(config: &mut serde_json::Value) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
}

/// Of the shim's main thread: pid and state.
fn children(shim: i32) -> Vec<(i32, char)> {
    let all = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    let state = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid.parse().unwrap(), stat.rsplit(") ").next()?.chars().next()?))
    };
    all.split_whitespace().filter_map(state).collect()
}

fn signal_shim(shim: &Shim, signal: Signal) {
    kill(Pid::from_raw(shim.pid()), signal).unwrap();
}

#[test]
#[ignore = "needs root"]
fn orphans_of_a_container_in_the_hosts_pid_namespace_are_reaped() {
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do (busybox sleep 0.3 &); done; exec busybox sleep 1000";
    let shim = prepared!("orphans", &["busybox", "sh", "-c", script], &without_pid_namespace);
    let pid = number(&fields(&shim.create("").unwrap()), 1) as i32;
    let of_shim = shim.pid();
    shim.of("Start", "").unwrap();
    await_that("orphans come to the shim", || children(of_shim).len() == 11);
    await_that("orphans are reaped", || children(of_shim) == [(pid, 'S')]);
    // Those of an exec, one of which outlives it.
    let script = "for i in 1 2 3; do (busybox true &); done; (busybox sleep 1000 &)";
    shim.exec("e", &["busybox", "sh", "-c", script]).unwrap();
    shim.of("Start", "e").unwrap();
    assert_eq!(number(&fields(&shim.of("Wait", "e").unwrap()), 1), 0);
    shim.of("Delete", "e").unwrap();
    await_that("one is left", || children(of_shim).len() == 2);
    // It ends with the container.
    shim.call("Kill", of("").number(3, 9)).unwrap();
    assert_eq!(number(&fields(&shim.of("Wait", "").unwrap()), 1), 137);
    await_that("all are reaped", || children(of_shim).is_empty());
    shim.of("Delete", "").unwrap();
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn what_outlives_init_in_the_hosts_pid_namespace_is_killed_before_its_exit_is_known() {
    let script = "(busybox sleep 1000 &); exec busybox sleep 0.2";
    let shim = prepared!("outlives", &["busybox", "sh", "-c", script], &without_pid_namespace);
    shim.create("").unwrap();
    let of_shim = shim.pid();
    shim.of("Start", "").unwrap();
    shim.exec("e", SLEEP).unwrap();
    shim.of("Start", "e").unwrap();
    assert_eq!(number(&fields(&shim.of("Wait", "").unwrap()), 1), 0);
    assert_eq!(number(&fields(&shim.of("Wait", "e").unwrap()), 1), 137);
    let events = shim.await_event("exit a");
    let at = |event: &str| events.iter().position(|one| one == event);
    assert!(at("exit e").is_some() && at("exit e") < at("exit a"), "{events:?}");
    await_that("all are reaped", || children(of_shim).is_empty());
    shim.of("Delete", "").unwrap();
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn signals_do_not_end_a_shim_that_has_a_container() {
    let shim = prepared!("signals", SLEEP, &|_| ());
    shim.create("").unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGPIPE, Signal::SIGUSR1] {
        signal_shim(&shim, signal);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(shim.status(), 1, "{signal}");
    }
    shim.remove();
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn signals_end_a_shim_without_containers() {
    for (name, signal) in [("sigterm", Signal::SIGTERM), ("sigint", Signal::SIGINT)] {
        let shim = prepared!(name, SLEEP, &|_| ());
        let pid = shim.pid();
        signal_shim(&shim, signal);
        await_end(pid);
        assert!(!shim.socket.exists(), "the socket is left");
        shim.check_nothing_left();
    }
}

#[test]
#[ignore = "needs root"]
fn a_signal_writes_the_table_to_the_log() {
    if let Some(reason) = missing() {
        return eprintln!("{reason}");
    }
    let mut shim = Shim::prepare("dump", SLEEP, &|_| ());
    let path = shim.bundle_of("a").join("log");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut log = open_reader(&path);
    shim.launch(&[], Fields::default());
    let pid = number(&fields(&shim.create("").unwrap()), 1);
    shim.exec("e", SLEEP).unwrap();
    signal_shim(&shim, Signal::SIGUSR1);
    let text = read_until(&mut log, "exec=e");
    assert!(text.contains(&format!("id=a exec= pid={pid} phase=Created end=None waits=0")), "{text}");
    assert!(
        text.lines().all(|line| line.starts_with("time=\"20") && line.contains(" level=info ")),
        "{text}"
    );
    // A log that nobody reads holds up nothing, full or without a reader.
    for _ in 0..300 {
        signal_shim(&shim, Signal::SIGUSR1);
        shim.status();
    }
    drop(log);
    signal_shim(&shim, Signal::SIGUSR1);
    shim.status();
    let mut log = open_reader(&path);
    signal_shim(&shim, Signal::SIGUSR1);
    read_until(&mut log, "exec=e");
    shim.remove();
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn a_paused_container_and_its_execs_can_be_killed() {
    for all in [0, 1] {
        let shim = prepared!(&format!("paused-{all}"), SLEEP, &|_| ());
        shim.create("").unwrap();
        shim.of("Start", "").unwrap();
        shim.exec("e", SLEEP).unwrap();
        shim.of("Start", "e").unwrap();
        shim.of("Pause", "").unwrap();
        // It is for later, and no error.
        shim.call("Kill", of("e").number(3, 15)).unwrap();
        assert_eq!(number(&fields(&shim.of("State", "e").unwrap()), 4), 4);
        let begin = Instant::now();
        shim.call("Kill", of("").number(3, 9).number(4, all)).unwrap();
        assert_eq!(number(&fields(&shim.of("Wait", "").unwrap()), 1), 137);
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        assert!(number(&fields(&shim.of("Wait", "e").unwrap()), 1) > 128);
        shim.of("Delete", "").unwrap();
        let events = shim.await_event("delete a");
        assert_eq!(events[4..], ["paused a", "exit e", "exit a", "delete a"]);
        shim.end();
    }
}

#[test]
#[ignore = "needs root"]
fn a_shutdown_is_for_a_shim_without_containers() {
    let shim = prepared!("shutdown", SLEEP, &|_| ());
    shim.create("").unwrap();
    let pid = shim.pid();
    shim.of("Shutdown", "").unwrap();
    shim.of("Start", "").unwrap();
    shim.of("Shutdown", "").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!((shim.pid(), shim.status()), (pid, 2));
    shim.remove();
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn an_exec_that_ends_before_its_start_is_answered_has_the_right_answer() {
    let shim = prepared!("quick", SLEEP, &|_| ());
    shim.create("").unwrap();
    shim.of("Start", "").unwrap();
    for round in 0..50 {
        let name = format!("q{round}");
        shim.exec(&name, &["busybox", "sh", "-c", "exit 3"]).unwrap();
        // It waits, starts and looks on three connections at once.
        std::thread::scope(|scope| {
            let wait = scope.spawn(|| number(&fields(&shim.of("Wait", &name).unwrap()), 1));
            assert!(number(&fields(&shim.of("Start", &name).unwrap()), 1) > 0);
            assert_eq!(wait.join().unwrap(), 3);
        });
        let deleted = fields(&shim.of("Delete", &name).unwrap());
        assert_eq!(number(&deleted, 2), 3);
        assert!(!Path::new(&format!("/proc/{}", number(&deleted, 1))).exists(), "it is not reaped");
    }
    shim.remove();
    shim.end();
}

/// v1 tells of it before it counts it.
#[test]
#[ignore = "needs root"]
fn every_lack_of_memory_has_its_event() {
    if let Some(reason) = missing() {
        return eprintln!("{reason}");
    }
    let eat = "busybox dd if=/dev/zero of=/dev/null bs=100M count=1; busybox sleep 0.3";
    let script = format!("{eat}; {eat}; {eat}; exec busybox sleep 1000");
    let mut shim = Shim::prepare("memory", &["busybox", "sh", "-c", &script], &|config| {
        config["linux"]["resources"] = serde_json::json!({ "memory": { "limit": 30 << 20 } });
    });
    shim.launch(&[], Fields::default());
    shim.create("").unwrap();
    shim.of("Start", "").unwrap();
    let count = || shim.events.lock().unwrap().iter().filter(|event| *event == "oom a").count();
    // While the container runs, not at its end.
    await_that("three events", || count() == 3);
    assert_eq!(shim.status(), 2);
    shim.remove();
    assert_eq!(count(), 3);
    shim.end();
}

/// Runs in a container, as a copy of this program: leaves an orphan with a pid that was free.
#[test]
fn helper_that_leaves_an_orphan() {
    let Some(pid) = std::env::var("ORPHAN").ok().and_then(|pid| pid.parse::<i32>().ok()) else { return };
    // SAFETY: zeros are "not asked for".
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    (arguments.set_tid, arguments.set_tid_size) = ((&raw const pid).addr() as u64, 1);
    // SAFETY: as fork(2); the child makes system calls alone.
    let made =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    if made == 0 {
        let time = libc::timespec { tv_sec: 0, tv_nsec: 300_000_000 };
        // SAFETY: the kernel reads the time, which lives until the child ends.
        unsafe {
            libc::syscall(libc::SYS_nanosleep, &raw const time, 0);
            libc::_exit(0)
        }
    }
    assert_eq!(made, libc::c_long::from(pid), "{}", std::io::Error::last_os_error());
}

/// The exec has ended, and nobody has deleted it yet: what has its pid now is not it.
#[test]
#[ignore = "needs root"]
fn an_orphan_with_the_pid_of_an_exec_that_has_ended_is_reaped() {
    let shim = prepared!("same-pid", SLEEP, &without_pid_namespace);
    shim.copy_ourselves();
    shim.create("").unwrap();
    let of_shim = shim.pid();
    shim.of("Start", "").unwrap();
    shim.exec("e", &["busybox", "true"]).unwrap();
    let pid = number(&fields(&shim.of("Start", "e").unwrap()), 1);
    shim.of("Wait", "e").unwrap();
    let all = ["CAP_SYS_ADMIN"];
    let process = serde_json::json!({
        "env": [format!("ORPHAN={pid}"), "PATH=/bin"],
        "capabilities": { "bounding": all, "permitted": all, "effective": all },
    });
    let helper = ["/helper", "--exact", "helper_that_leaves_an_orphan"];
    shim.exec_with(of("helper"), &helper, process).unwrap();
    shim.of("Start", "helper").unwrap();
    assert_eq!(number(&fields(&shim.of("Wait", "helper").unwrap()), 1), 0, "the helper has failed");
    let has_orphan = || children(of_shim).iter().any(|(child, _)| *child == pid as i32);
    await_that("the orphan comes to the shim", has_orphan);
    await_that("the orphan is reaped", || !has_orphan());
    assert_eq!(shim.status(), 2);
    for exec in ["e", "helper"] {
        shim.of("Delete", exec).unwrap();
    }
    shim.remove();
    shim.end();
}

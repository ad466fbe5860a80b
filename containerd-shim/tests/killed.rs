//! Death of the shim at any instant: what is left then, containerd's call of `delete` finds. Needs root and busybox.

mod play;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use play::*;
use std::fs;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SLEEP: &[&str] = &["busybox", "sleep", "1000"];
/// Instants at which the shim is killed, for each verb.
const INSTANTS: u32 = 24;

/// What a shim that dies leaves behind becomes a child of this process's main thread. What has ended is reaped, as
/// the host's init does it: a pid namespace ends with its last zombie. Returns those that live.
fn adopted() -> Vec<String> {
    let main = std::process::id();
    let all = fs::read_to_string(format!("/proc/self/task/{main}/children")).unwrap();
    let mut live = Vec::new();
    for pid in all.split_whitespace() {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.contains(") Z ") {
            let _ = waitpid(Pid::from_raw(pid.parse().unwrap()), Some(WaitPidFlag::WNOHANG));
        } else {
            live.push(stat);
        }
    }
    live
}

fn check_no_process_left(what: &str) {
    let end = Instant::now() + Duration::from_secs(3);
    while !adopted().is_empty() {
        assert!(Instant::now() < end, "{what}: {:?} live", adopted());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The state in which a verb finds the container.
fn bring_to(shim: &Shim, verb: &str) {
    if verb == "Create" {
        return;
    }
    shim.create("").unwrap();
    if verb == "Start" {
        return;
    }
    shim.of("Start", "").unwrap();
    if verb == "Exec" {
        return shim.exec("e", SLEEP).map(drop).unwrap();
    }
    shim.call("Kill", of("").number(3, 9)).unwrap();
    shim.of("Wait", "").unwrap();
}

/// The shim may be gone before it answers.
fn call(shim: &Shim, verb: &str) {
    let _ = match verb {
        "Create" => shim.try_create("a", Fields::default()),
        "Exec" => shim.try_call("Start", of("e")),
        _ => shim.try_call(verb, of("")),
    };
}

fn kill_at(shim: &mut Shim, verb: &str, delay: Duration) {
    shim.launch(&[], Fields::default());
    bring_to(shim, verb);
    let pid = shim.pid();
    std::thread::scope(|scope| {
        scope.spawn(|| call(shim, verb));
        std::thread::sleep(delay);
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    });
    await_end(pid);
    // Its threads may end after its first one.
    await_that("its socket is closed", || UnixStream::connect(&shim.socket).is_err());
    let output = shim.run("a", &["delete"], b"");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{verb} after {delay:?}: {said}");
    assert_eq!(number(&fields(&output.stdout), 2), 137);
    shim.check_nothing_left();
    assert!(!shim.socket.exists(), "{verb} after {delay:?}: the socket is left");
    check_no_process_left(&format!("{verb} after {delay:?}"));
}

/// How long the verb takes here.
fn time_of(shim: &mut Shim, verb: &str) -> Duration {
    shim.launch(&[], Fields::default());
    bring_to(shim, verb);
    let begin = Instant::now();
    call(shim, verb);
    let time = begin.elapsed();
    if verb != "Delete" {
        shim.remove();
    }
    shim.end();
    time
}

#[test]
fn a_shim_that_is_killed_at_any_instant_leaves_nothing_that_delete_does_not_find() {
    if let Some(reason) = missing() {
        return eprintln!("{reason}");
    }
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                adopted();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        // On a thread of its own: the children of the main one are reaped.
        let kills = scope.spawn(kill_at_many_instants).join();
        is_over.store(true, Ordering::Relaxed);
        kills.unwrap();
    });
}

fn kill_at_many_instants() {
    let mut shim = Shim::prepare("instants", SLEEP, &|_| ());
    for verb in ["Create", "Start", "Exec", "Delete"] {
        let step = time_of(&mut shim, verb) * 5 / 4 / INSTANTS;
        for at in 0..INSTANTS {
            kill_at(&mut shim, verb, step * at);
        }
    }
}

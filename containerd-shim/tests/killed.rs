//! Death of the shim at any instant, and at its system calls: what is left then, containerd's call of `delete` finds.
//! Needs root and busybox. With `WALK=all` it dies before and after every call.

mod play;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use play::*;
use std::fs;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

const SLEEP: &[&str] = &["busybox", "sleep", "1000"];
/// Instants at which the shim is killed, for each verb.
const INSTANTS: u32 = 24;
const VERBS: [&str; 4] = ["Create", "Start", "Exec", "Delete"];

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
    check_delete(shim, pid, &format!("{verb} after {delay:?}"));
}

/// After the death of the shim.
fn check_delete(shim: &Shim, pid: i32, what: &str) {
    await_end(pid);
    // Its threads may end after its first one.
    await_that("its socket is closed", || UnixStream::connect(&shim.socket).is_err());
    let output = shim.run("a", &["delete"], b"");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{what}: {said}");
    assert_eq!(number(&fields(&output.stdout), 2), 137);
    shim.check_nothing_left();
    assert!(!shim.socket.exists(), "{what}: the socket is left");
    check_no_process_left(what);
}

/// Follows all threads of the shim, and none of the processes that it makes. Each stops before and after each system call;
/// at the stop of this number the shim is killed, with the call not made or just made. Counts until the shim is gone.
fn follow(pid: Pid, last: u32, stops: &AtomicU32, ready: &mpsc::Sender<()>) -> nix::Result<()> {
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_TRACECLONE;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let thread = Pid::from_raw(thread.file_name().to_str().unwrap().parse().unwrap());
        match ptrace::seize(thread, options).and_then(|()| ptrace::interrupt(thread)) {
            // A worker of an earlier verb has ended meanwhile (EPERM until it is reaped).
            Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    let mut is_ready = false;
    loop {
        let thread = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Err(Errno::ECHILD) => return Ok(()),
            Err(errno) => return Err(errno),
            Ok(WaitStatus::PtraceSyscall(thread)) => {
                if stops.fetch_add(1, Ordering::Relaxed) + 1 == last {
                    kill(pid, Signal::SIGKILL)?;
                }
                (thread, None)
            }
            // A process that does not say SIGCHLD at its end counts as a thread for the kernel.
            Ok(WaitStatus::PtraceEvent(thread, ..)) if !is_of(pid, thread) => {
                let _ = ptrace::detach(thread, None);
                continue;
            }
            Ok(WaitStatus::PtraceEvent(thread, ..)) => (thread, None),
            Ok(WaitStatus::Stopped(thread, signal)) => (thread, Some(signal)),
            Ok(_) => continue,
        };
        // It may be dead by now.
        let _ = ptrace::syscall(thread.0, thread.1);
        if !std::mem::replace(&mut is_ready, true) {
            let _ = ready.send(());
        }
    }
}

fn is_of(pid: Pid, thread: Pid) -> bool {
    fs::exists(format!("/proc/{pid}/task/{thread}")).unwrap_or(false)
}

/// How many stops there were until the verb was answered; it may not be, after the last one.
fn walk_to(shim: &mut Shim, verb: &str, last: u32) -> u32 {
    shim.launch(&[], Fields::default());
    bring_to(shim, verb);
    let (pid, stops, (said, ready)) = (shim.pid(), AtomicU32::new(0), mpsc::channel());
    let until_answer = std::thread::scope(|scope| {
        let tracer = scope.spawn(|| follow(Pid::from_raw(pid), last, &stops, &said));
        ready.recv_timeout(Duration::from_secs(5)).expect("the shim can be traced");
        call(shim, verb);
        let until_answer = stops.load(Ordering::Relaxed);
        // Where it came so far.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        tracer.join().unwrap().unwrap();
        until_answer
    });
    check_delete(shim, pid, &format!("{verb}, stop {last} of {until_answer}"));
    until_answer
}

#[test]
#[ignore = "needs root"]
fn a_shim_that_is_killed_at_a_system_call_leaves_nothing_that_delete_does_not_find() {
    if let Some(reason) = missing() {
        return eprintln!("{reason}");
    }
    reaping(|| {
        let mut shim = Shim::prepare("walked", SLEEP, &|_| ());
        for verb in VERBS {
            let all = walk_to(&mut shim, verb, u32::MAX);
            let step = if std::env::var_os("WALK").is_some() { 1 } else { all.div_ceil(INSTANTS) };
            let walked = (1..=all).step_by(step as usize).map(|last| walk_to(&mut shim, verb, last)).count();
            eprintln!("{verb}: killed at {walked} of {all} stops");
            assert!(all > 10, "{verb} has {all} stops");
        }
    });
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
#[ignore = "needs root"]
fn a_shim_that_is_killed_at_any_instant_leaves_nothing_that_delete_does_not_find() {
    if let Some(reason) = missing() {
        return eprintln!("{reason}");
    }
    reaping(|| {
        let mut shim = Shim::prepare("instants", SLEEP, &|_| ());
        for verb in VERBS {
            let step = time_of(&mut shim, verb) * 5 / 4 / INSTANTS;
            for at in 0..INSTANTS {
                kill_at(&mut shim, verb, step * at);
            }
        }
    });
}

/// One test at a time: what a shim leaves is adopted by the process.
static ADOPTING: Mutex<()> = Mutex::new(());

/// Reaps what is adopted, as the host's init does it.
fn reaping(kills: impl FnOnce() + Send) {
    let _adopting = ADOPTING.lock().unwrap_or_else(|poison| poison.into_inner());
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
        let kills = scope.spawn(kills).join();
        is_over.store(true, Ordering::Relaxed);
        kills.unwrap();
    });
}

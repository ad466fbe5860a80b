//! Starting once, and never signalling a process that is somebody else's.

use super::bundle::{Bundle, config, new_id, turn};
use super::roles;
use libruntime::{ErrorKind, ExitStatus, Signal, Status};
use serde_json::{Value, json};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
#[ignore = "needs root"]
fn a_container_runs_and_its_exit_code_is_the_programs() {
    let Some(_turn) = turn() else { return };
    let (exit, output) = Bundle::new(&config("echo $$ in $(pwd); exit 7")).run();
    assert_eq!((exit, output.as_str()), (ExitStatus::Code(7), "1 in /\n"));
}

/// The victim has the pid of the state, and another start time: as if that pid had been used again.
#[test]
#[ignore = "needs root"]
fn a_reused_pid_is_never_signalled() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("sleep 1000"));
    let id = new_id();
    let container = bundle.create(&id).unwrap();
    container.kill(Signal::KILL).unwrap();
    container.wait().unwrap();
    // Start times are counted in hundredths of a second.
    std::thread::sleep(Duration::from_millis(30));
    let mut victim = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let path = bundle.store.join(&id).join("state.json");
    let mut state: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(state["init"]["start_time"].is_u64(), "state.json changed its form: {state}");
    state["init"]["pid"] = json!(victim.id());
    std::fs::write(&path, state.to_string()).unwrap();

    let container = bundle.load(&id).unwrap();
    assert_eq!((container.status(), container.pid()), (Status::Stopped, None));
    let error = container.kill(Signal::KILL).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
    // All of its processes: there are none in its cgroup.
    let _ = container.kill_all(Signal::KILL);
    container.delete_force().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let ended = victim.try_wait().unwrap();
    let _ = victim.kill();
    let status = victim.wait().unwrap();
    assert_eq!(ended, None, "the other process was signalled");
    assert_eq!(status.signal(), Some(libc::SIGKILL), "only by this test");
}

#[test]
#[ignore = "needs root"]
fn of_two_starts_at_once_exactly_one_wins() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("sleep 1000"));
    for _ in 0..20 {
        let id = new_id();
        bundle.create(&id).unwrap();
        let start = || bundle.load(&id).unwrap().start();
        let results = std::thread::scope(|scope| {
            let all: Vec<_> = (0..2).map(|_| scope.spawn(start)).collect();
            all.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let lost: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        assert_eq!(lost.len(), 1, "{results:?}");
        assert_eq!(lost[0].kind(), ErrorKind::WrongState, "{}", lost[0]);
        let container = bundle.load(&id).unwrap();
        assert_eq!(container.status(), Status::Running);
        container.delete_force().unwrap();
    }
}

/// It used to count as created: nothing could thaw it, and its deletion waited for ever.
#[test]
#[ignore = "needs root"]
fn a_container_that_is_paused_before_its_start_can_be_resumed_and_deleted() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("exit 3"));
    let container = bundle.create(&new_id()).unwrap();
    container.pause().unwrap();
    assert_eq!(container.status(), Status::Paused);
    assert_eq!(container.start().unwrap_err().kind(), ErrorKind::WrongState);
    container.resume().unwrap();
    assert_eq!(container.status(), Status::Created);
    container.start().unwrap();
    assert_eq!(container.wait().unwrap(), ExitStatus::Code(3));
    container.delete().unwrap();
    let paused = bundle.create(&new_id()).unwrap();
    paused.pause().unwrap();
    paused.delete_force().unwrap();
}

#[test]
#[ignore = "needs root"]
fn starting_twice_or_after_the_end_says_what_state_it_is_in() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("true"));
    let container = bundle.create(&new_id()).unwrap();
    container.start().unwrap();
    container.wait().unwrap();
    let error = container.start().unwrap_err();
    assert!(error.to_string().contains("cannot start a container that has stopped"), "{error}");
    container.delete().unwrap();

    let container = bundle.create(&new_id()).unwrap();
    container.kill(Signal::KILL).unwrap();
    container.wait().unwrap();
    let error = container.start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
    container.delete().unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_starter_that_is_killed_before_its_word_leaves_the_start_to_another() {
    let Some(_turn) = turn() else { return };
    // The starter hangs in its startContainer hook, that is before it says "go".
    let mut with_hook = config("sleep 1000");
    with_hook["hooks"] = json!({"startContainer": [
        {"path": "/bin/busybox", "args": ["sh", "-c", "test -e /go || sleep 1000"]}
    ]});
    let bundle = Bundle::new(&with_hook);
    let id = new_id();
    bundle.create(&id).unwrap();
    let mut starter = roles::command("start", &bundle, &id).spawn().unwrap();
    let container = bundle.load(&id).unwrap();
    let begin = Instant::now();
    while container.processes().unwrap_or_default().len() < 2 && begin.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(10));
        // The hook may not be in the container's cgroup; it is started at once in any case.
        if begin.elapsed() > Duration::from_secs(1) {
            break;
        }
    }
    starter.kill().unwrap();
    starter.wait().unwrap();
    assert_eq!(container.status(), Status::Created);
    std::fs::write(bundle.rootfs().join("go"), "").unwrap();
    container.start().unwrap();
    assert_eq!(container.status(), Status::Running);
    container.delete_force().unwrap();
    roles::kill_left_over(&bundle);
}

/// What has the lock may be held up by the container's processes themselves.
#[test]
#[ignore = "needs root"]
fn a_deletion_by_force_ends_the_container_before_it_has_the_lock() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("sleep 1000"));
    let id = new_id();
    let container = bundle.create(&id).unwrap();
    container.start().unwrap();
    let held = std::fs::File::open(bundle.store.join(&id)).unwrap();
    held.lock().unwrap();
    let error = container.with_deadline(Duration::from_millis(500)).delete_force().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let ended = container.wait_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(ended, Some(ExitStatus::Signal(9)));
    drop(held);
    container.delete_force().unwrap();
}

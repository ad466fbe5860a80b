//! What the handles promise: exits for everybody, descriptors with numbers, programs by descriptor, limits.

use super::bundle::{Bundle, config, exec, new_id, turn};
use libruntime::{
    Cancel, Container, ErrorKind, ExecProcess, ExitStatus, Init, NewContainer, Runtime, Signal, Status, Stdio,
};
use serde_json::json;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

#[test]
fn handles_can_be_sent_shared_and_shown() {
    fn check<T: Send + Sync + std::fmt::Debug + 'static>() {}
    check::<Runtime>();
    check::<Container>();
    check::<ExecProcess>();
    check::<libruntime::OomEvents>();
    fn owned<T: Send + std::fmt::Debug + 'static>() {}
    owned::<NewContainer>();
    owned::<libruntime::NewProcess>();
    owned::<libruntime::Explanation>();
}

#[test]
#[ignore = "needs root"]
fn any_number_of_threads_and_handles_hear_how_it_ended() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("read line; exit 7"));
    let id = new_id();
    let container = bundle.builder(&id).stdin(Stdio::piped()).create().unwrap();
    let before = bundle.load(&id).unwrap();
    assert_eq!((container.try_wait().unwrap(), before.try_wait().unwrap()), (None, None));
    assert_eq!(before.wait_timeout(Duration::from_millis(20)).unwrap(), None);
    container.start().unwrap();
    let waiting: Vec<_> = [&container, &container, &before]
        .map(|handle| handle.clone())
        .map(|handle| std::thread::spawn(move || handle.wait().unwrap()))
        .into_iter()
        .collect();
    container.take_stdin().unwrap().write_all(b"\n").unwrap();
    for thread in waiting {
        assert_eq!(thread.join().unwrap(), ExitStatus::Code(7));
    }
    // Also who comes when all is over, from the store.
    let after = bundle.load(&id).unwrap();
    assert_eq!(after.wait().unwrap(), ExitStatus::Code(7));
    assert_eq!(after.try_wait().unwrap(), Some(ExitStatus::Code(7)));
    after.delete().unwrap();
    assert_eq!(container.wait().unwrap(), ExitStatus::Code(7), "the handle keeps it");
    assert_eq!(bundle.load(&id).unwrap_err().kind(), ErrorKind::NotFound);
}

/// Read from the numbers that were asked for, which are those of descriptors of ours too.
#[test]
#[ignore = "needs root"]
fn descriptors_are_passed_under_the_numbers_of_the_callers_choice() {
    let Some(_turn) = turn() else { return };
    let script = "ls /proc/1/fd; read a <&3; read b <&9; read c <&4; echo $a $b $c";
    let bundle = Bundle::new(&config(script));
    std::os::unix::fs::symlink("busybox", bundle.rootfs().join("bin/ls")).unwrap();
    let holding = |text: &str| -> OwnedFd {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        reader.into()
    };
    for _ in 0..3 {
        let builder = bundle.runtime().container(new_id()).bundle(&bundle.directory);
        let builder =
            builder.pass_fd(holding("one\n"), 3).pass_fd(holding("two\n"), 9).pass_fd(holding("three\n"), 4);
        let output = builder.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n1\n2\n3\n4\n9\none two three\n");
    }
    let twice = bundle.builder(&new_id()).pass_fd(holding(""), 5).pass_fd(holding(""), 5);
    assert_eq!(twice.create().unwrap_err().kind(), ErrorKind::InvalidConfig);
}

#[test]
#[ignore = "needs root"]
fn a_program_by_descriptor_need_not_be_in_the_container() {
    let Some(_turn) = turn() else { return };
    let mut bare = config("");
    bare["process"]["args"] = json!(["sh", "-c", "echo $0 without a file; exit 9"]);
    let bundle = Bundle::new(&bare);
    let program = File::open(bundle.rootfs().join("bin/busybox")).unwrap();
    std::fs::remove_dir_all(bundle.rootfs().join("bin")).unwrap();
    let output =
        bundle.runtime().container(new_id()).bundle(&bundle.directory).init(Init::program(program)).output();
    let output = output.unwrap();
    assert_eq!((output.status, output.stdout.as_slice()), (ExitStatus::Code(9), &b"sh without a file\n"[..]));
    let text = File::open("/etc/hostname").unwrap();
    let container = bundle.builder(&new_id()).init(Init::program(text)).create().unwrap();
    let error = container.start().unwrap_err();
    assert!(error.to_string().contains("at process.args[0]"), "{error}");
    container.delete_force().unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_verb_ends_at_its_deadline_and_when_it_is_cancelled_and_leaves_nothing() {
    let Some(_turn) = turn() else { return };
    let mut slow = config("sleep 1000");
    slow["hooks"] = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1000"]}]});
    let bundle = Bundle::new(&slow);
    let (id, begin) = (new_id(), Instant::now());
    let error = bundle.builder(&id).deadline(Duration::from_millis(300)).create().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let cancel = Cancel::new().unwrap();
    let later = cancel.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        later.cancel();
    });
    let error = bundle.builder(&id).cancel(cancel).create().unwrap_err();
    thread.join().unwrap();
    assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert_eq!(bundle.runtime().containers().unwrap().count(), 0);
    assert!(std::error::Error::source(&error).is_none());
}

/// A stopped holder of the lock keeps nobody longer than he wants to wait.
#[test]
#[ignore = "needs root"]
fn the_deadline_of_a_handle_holds_for_locks_and_hooks() {
    let Some(_turn) = turn() else { return };
    let mut slow = config("sleep 1000");
    slow["hooks"] = json!({"poststop": [{"path": "/bin/sleep", "args": ["sleep", "3"]}]});
    let bundle = Bundle::new(&slow);
    let id = new_id();
    let container = bundle.create(&id).unwrap();
    let deleting = std::thread::spawn(move || container.delete_force().unwrap());
    std::thread::sleep(Duration::from_millis(500));
    let begin = Instant::now();
    let error = bundle.load(&id).unwrap().with_deadline(Duration::from_millis(100)).pause().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert_eq!(deleting.join().unwrap(), []);
}

/// In its pid namespace there is a zombie that only its handle's owner would reap.
#[test]
#[ignore = "needs root"]
fn a_container_is_waited_for_beside_a_process_that_nobody_waits_for() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("sleep 1000"));
    let container = bundle.builder(&new_id()).run().unwrap();
    let process = exec(&container, &["/bin/busybox", "true"]).spawn().unwrap();
    container.kill(Signal::KILL).unwrap();
    let ended = container.wait_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(ended, Some(ExitStatus::Signal(9)));
    assert!(matches!(process.wait().unwrap(), ExitStatus::Code(0) | ExitStatus::Signal(9)));
    container.delete().unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_process_in_a_container_is_as_in_std() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("sleep 1000"));
    let container = bundle.builder(&new_id()).run().unwrap();
    assert_eq!(container.status(), Status::Running);
    let script = "read line; echo $line $X $(pwd) $(id -u); echo error >&2; exit 3";
    let process = container.exec(["/bin/busybox", "sh", "-c", script]);
    std::os::unix::fs::symlink("busybox", bundle.rootfs().join("bin/id")).unwrap();
    let process = process.env("X", "y").current_dir("/proc").user(1000, 1000);
    let process =
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    process.take_stdin().unwrap().write_all(b"in\n").unwrap();
    let mut error = String::new();
    process.take_stderr().unwrap().read_to_string(&mut error).unwrap();
    let output = process.output().unwrap();
    assert_eq!((output.status, error.as_str()), (ExitStatus::Code(3), "error\n"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "in y /proc 1000\n");
    // What it leaves behind holds the pipe, and keeps nobody waiting.
    let left = container.exec(["/bin/busybox", "sh", "-c", "sleep 1000 & echo x"]).output().unwrap();
    assert_eq!(left.stdout, b"x\n");
    let killed = exec(&container, &["/bin/busybox", "sleep", "1000"]).spawn().unwrap();
    killed.kill(Signal::KILL).unwrap();
    assert_eq!(killed.wait().unwrap(), ExitStatus::Signal(9));
    container.delete_force().unwrap();
}

/// Cancelled while the program runs already: that is no failed start, and what is cancelled can be deleted.
#[test]
#[ignore = "needs root"]
fn what_is_cancelled_too_late_runs_and_can_be_deleted() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("touch /started; sleep 1000"));
    std::os::unix::fs::symlink("busybox", bundle.rootfs().join("bin/touch")).unwrap();
    let started = bundle.rootfs().join("started");
    for _ in 0..20 {
        let cancel = Cancel::new().unwrap();
        let container = bundle.builder(&new_id()).cancel(cancel.clone()).create().unwrap();
        let watching = started.clone();
        let thread = std::thread::spawn(move || {
            while !watching.exists() {
                std::thread::yield_now();
            }
            cancel.cancel();
        });
        container.start().unwrap();
        thread.join().unwrap();
        assert_eq!(container.status(), Status::Running);
        assert_eq!(container.wait().unwrap_err().kind(), ErrorKind::Interrupted);
        container.without_limits().delete_force().unwrap();
        std::fs::remove_file(&started).unwrap();
    }
}

/// A process of exec that is killed with its container before it has said its pid is nobody's but ours to reap: the
/// container's init could not end.
#[test]
#[ignore = "needs root"]
fn a_process_that_is_killed_while_it_joins_is_reaped() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("sleep 1000"));
    let joins = |container: &Container| exec(container, &["/bin/busybox", "true"]).spawn();
    let first = bundle.builder(&new_id()).run().unwrap();
    let begin = Instant::now();
    joins(&first).unwrap();
    let takes = begin.elapsed();
    first.delete_force().unwrap();
    for at in 0..200 {
        let container = bundle.builder(&new_id()).run().unwrap();
        let joining = container.clone();
        let thread = std::thread::spawn(move || joins(&joining).map(drop));
        let begin = Instant::now();
        while begin.elapsed() < takes * at / 200 {
            std::hint::spin_loop();
        }
        container.kill(Signal::KILL).unwrap();
        let joined = thread.join().unwrap();
        let ended = container.wait_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(ended, Some(ExitStatus::Signal(libc::SIGKILL)), "{joined:?}");
        container.delete().unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn a_container_that_only_its_handle_starts_ends_with_that() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("exit 6"));
    let id = new_id();
    let dropped = bundle.builder(&id).start_by_handle().create().unwrap();
    let other = bundle.load(&id).unwrap();
    assert_eq!(other.status(), Status::Created);
    let error = other.start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongState);
    assert!(error.to_string().contains("only the process that has created it"), "{error}");
    assert_eq!(other.status(), Status::Created, "a refused start changes nothing");
    drop(dropped);
    // That of the stage: the program has not run.
    assert_eq!(other.wait_timeout(Duration::from_secs(10)).unwrap(), Some(ExitStatus::Code(1)));
    assert_eq!(other.status(), Status::Stopped);
    other.delete().unwrap();
    // A clone keeps it, and it is started once.
    let first = bundle.builder(&id).start_by_handle().create().unwrap();
    let clone = first.clone();
    drop(first);
    clone.start().unwrap();
    assert_eq!(clone.wait().unwrap(), ExitStatus::Code(6));
    assert_eq!(clone.start().unwrap_err().kind(), ErrorKind::WrongState);
    clone.delete().unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_handle_that_alone_starts_a_container_does_so_once_it_is_resumed() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("exit 6"));
    let container = bundle.builder(&new_id()).start_by_handle().create().unwrap();
    container.pause().unwrap();
    let error = container.start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
    container.resume().unwrap();
    container.start_program(&libruntime::Program::new(["/bin/busybox", "sh", "-c", "exit 8"])).unwrap();
    assert_eq!(container.wait().unwrap(), ExitStatus::Code(8));
    container.delete().unwrap();
    let killed = bundle.builder(&new_id()).start_by_handle().create().unwrap();
    killed.kill(Signal::KILL).unwrap();
    killed.wait().unwrap();
    let error = killed.start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
    killed.delete().unwrap();
}

//! The shim without containerd: a client that calls it as containerd does, and as nothing well-behaved would.
//! Needs root and busybox.

mod play;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use play::*;
use prost::Message;
use std::io::Write;
use std::time::{Duration, Instant};

const UNKNOWN_METHOD: i32 = 12;
const NOT_FOUND: i32 = 5;
const PRECONDITION: i32 = 9;

macro_rules! shim {
    ($name:expr, $command:expr) => {
        match missing() {
            Some(reason) => return eprintln!("{reason}"),
            None => Shim::start($name, $command),
        }
    };
}

fn code(answer: Answer) -> i32 {
    answer.expect_err("it must fail").code
}

fn kill_init(shim: &Shim) -> Answer {
    shim.call("Kill", of("").number(3, 9))
}

#[test]
#[ignore = "needs root"]
fn a_container_lives_with_its_events_in_order_and_leaves_nothing() {
    let shim = shim!("life", &["busybox", "sh", "-c", "exit 7"]);
    let pid = number(&fields(&shim.create("").unwrap()), 1);
    assert_eq!(number(&fields(&shim.of("State", "").unwrap()), 4), 1);
    assert_eq!(number(&fields(&shim.of("Start", "").unwrap()), 1), pid);
    assert_eq!(number(&fields(&shim.of("Wait", "").unwrap()), 1), 7);
    let state = fields(&shim.of("State", "").unwrap());
    assert_eq!((number(&state, 4), number(&state, 9)), (3, 7));
    let deleted = fields(&shim.of("Delete", "").unwrap());
    assert_eq!((number(&deleted, 1), number(&deleted, 2)), (pid, 7));
    assert_eq!(code(shim.of("Delete", "")), NOT_FOUND);
    assert_eq!(shim.await_event("delete a"), ["create a", "start a", "exit a", "delete a"]);
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn each_method_knows_the_states_that_it_is_for() {
    let shim = shim!("states", &["busybox", "sleep", "1000"]);
    for method in ["Start", "State", "Wait", "Kill", "Delete", "Pids", "Pause", "Resume", "Stats", "CloseIO"]
    {
        assert_eq!(code(shim.of(method, "")), NOT_FOUND, "{method}");
    }
    assert_eq!(number(&fields(&shim.of("Connect", "").unwrap()), 2), 0);
    shim.create("").unwrap();
    assert_eq!(code(shim.create("")), 6);
    assert_eq!(code(shim.of("Pause", "")), PRECONDITION);
    shim.of("Start", "").unwrap();
    assert_eq!(code(shim.of("Start", "")), PRECONDITION);
    assert_eq!(code(shim.of("Delete", "")), PRECONDITION);
    assert_eq!(code(shim.of("Resume", "")), PRECONDITION);
    shim.of("Pause", "").unwrap();
    assert_eq!(number(&fields(&shim.of("State", "").unwrap()), 4), 4);
    assert_eq!(code(shim.exec("e", &["busybox", "true"])), PRECONDITION);
    shim.of("Resume", "").unwrap();
    assert!(text(&fields(&fields(&shim.of("Stats", "").unwrap())[&1].1), 1).ends_with(".Metrics"));
    assert!(!shim.of("Pids", "").unwrap().is_empty());
    // A container is left: nothing happens.
    shim.of("Shutdown", "").unwrap();
    kill_init(&shim).unwrap();
    assert_eq!(number(&fields(&shim.of("Wait", "").unwrap()), 1), 137);
    assert_eq!(code(kill_init(&shim)), NOT_FOUND);
    assert_eq!(code(shim.exec("e", &["busybox", "true"])), PRECONDITION);
    shim.of("Delete", "").unwrap();
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn execs_that_end_at_once_have_their_events_in_order() {
    let shim = shim!("execs", &["busybox", "sleep", "1000"]);
    shim.create("").unwrap();
    shim.of("Start", "").unwrap();
    std::thread::scope(|scope| {
        for number in 0..20 {
            let (shim, name) = (&shim, format!("e{number}"));
            scope.spawn(move || {
                shim.exec(&name, &["busybox", "true"]).unwrap();
                shim.of("Start", &name).unwrap();
                assert_eq!(play::number(&fields(&shim.of("Wait", &name).unwrap()), 1), 0);
                shim.of("Delete", &name).unwrap();
            });
        }
    });
    shim.exec("bad", &["nothing"]).unwrap();
    let failure = shim.of("Start", "bad").unwrap_err();
    assert!(failure.message.contains("executable file not found in $PATH"), "{}", failure.message);
    assert_eq!(number(&fields(&shim.of("Wait", "bad").unwrap()), 1), 255);
    shim.of("Delete", "bad").unwrap();
    kill_init(&shim).unwrap();
    shim.of("Wait", "").unwrap();
    shim.of("Delete", "").unwrap();
    let events = shim.await_event("delete a");
    let at =
        |event: String| events.iter().position(|one| *one == event).unwrap_or_else(|| panic!("no {event}"));
    for number in 0..20 {
        let [added, started, ended] =
            ["exec-added", "exec-started", "exit"].map(|topic| at(format!("{topic} e{number}")));
        assert!(added < started && started < ended && ended < at("exit a".into()), "{events:?}");
    }
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn a_fifo_without_a_reader_holds_up_nothing_but_its_writer() {
    let shim = shim!("fifo", &["busybox", "sh", "-c", "exec busybox dd if=/dev/zero bs=1M count=10"]);
    let fifo = shim.directory.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    shim.create(fifo.to_str().unwrap()).unwrap();
    shim.of("Start", "").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let begin = Instant::now();
    assert_eq!(number(&fields(&shim.of("State", "").unwrap()), 4), 2);
    assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
    kill_init(&shim).unwrap();
    shim.of("Wait", "").unwrap();
    shim.of("Delete", "").unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn a_deletion_whose_caller_gave_up_has_its_answer_for_the_next() {
    let shim = shim!("gave-up", &["busybox", "true"]);
    shim.create("").unwrap();
    shim.of("Start", "").unwrap();
    shim.of("Wait", "").unwrap();
    let request =
        Request { service: TASK.into(), method: "Delete".into(), payload: of("").0, timeout_nano: 0 };
    send(&mut shim.connect(), 1, 1, &request.encode_to_vec());
    shim.await_event("delete a");
    assert!(number(&fields(&shim.of("Delete", "").unwrap()), 1) > 0);
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn what_a_killed_shim_leaves_is_deleted() {
    let shim = shim!("killed", &["busybox", "sleep", "1000"]);
    let pid = number(&fields(&shim.create("").unwrap()), 1);
    shim.of("Start", "").unwrap();
    let of_shim = shim.pid();
    kill(Pid::from_raw(of_shim), Signal::SIGKILL).unwrap();
    await_end(of_shim);
    let output = shim.run("a", &["-bundle", shim.bundle_of("a").to_str().unwrap(), "delete"], b"");
    let deleted = fields(&output.stdout);
    assert_eq!((number(&deleted, 1), number(&deleted, 2)), (pid, 137));
    await_end(pid as i32);
    shim.check_nothing_left();
    // Again, and without a bundle.
    std::fs::remove_dir_all(shim.bundle_of("a")).unwrap();
    std::fs::create_dir_all(shim.bundle_of("a")).unwrap();
    let output = shim.run("a", &["delete"], b"");
    assert_eq!(number(&fields(&output.stdout), 2), 137);
}

#[test]
#[ignore = "needs root"]
fn another_user_is_not_served() {
    let shim = shim!("user", &["busybox", "true"]);
    let open = std::os::unix::fs::PermissionsExt::from_mode;
    for path in [shim.socket.clone(), shim.socket.parent().unwrap().into()] {
        std::fs::set_permissions(path, open(0o777)).unwrap();
    }
    let answered = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: numbers; the raw call changes this thread alone, which ends here.
            assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 1000, 1000, 1000) }, 0);
            let mut socket = shim.connect();
            let request = Request { service: TASK.into(), method: "Connect".into(), ..Request::default() };
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                send(&mut socket, 1, 1, &request.encode_to_vec());
            }));
            receive(&mut socket).is_ok()
        });
        thread.join().unwrap()
    });
    assert!(!answered);
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn frames_of_any_kind_are_answered_or_waited_for() {
    let shim = shim!("frames", &["busybox", "true"]);
    let call = |service: &str, method: &str| {
        let mut socket = shim.connect();
        let request = Request { service: service.into(), method: method.into(), ..Request::default() };
        send(&mut socket, 1, 1, &request.encode_to_vec());
        // The connection is still good.
        let first = answer(&receive(&mut socket).unwrap().1);
        send(
            &mut socket,
            3,
            1,
            &Request { service: TASK.into(), method: "Connect".into(), ..request }.encode_to_vec(),
        );
        answer(&receive(&mut socket).unwrap().1).unwrap();
        first
    };
    assert_eq!(code(call(TASK, "Nonsense")), UNKNOWN_METHOD);
    for service in ["containerd.task.v4.Task", "containerd.runtime.sandbox.v1.Sandbox"] {
        assert_eq!(code(call(service, "Connect")), UNKNOWN_METHOD, "{service}");
    }
    let mut half = shim.connect();
    half.write_all(&[0, 0, 0, 9, 0]).unwrap();
    let mut large = shim.connect();
    let payload = vec![0; (4 << 20) - 100];
    let request = Request { service: TASK.into(), method: "Connect".into(), payload, timeout_nano: 0 };
    send(&mut large, 1, 1, &request.encode_to_vec());
    assert!(answer(&receive(&mut large).unwrap().1).is_err());
    let mut too_large = shim.connect();
    send(&mut too_large, 1, 1, &vec![0; (4 << 20) + 1]);
    assert!(answer(&receive(&mut too_large).unwrap().1).is_err());
    shim.end();
}

//! Waits that end, one reader for each error, one reaper for each child: what somebody else stops, kills,
//! damages or reaps must keep nobody waiting, and nothing may be lost of it.

use super::bundle::{Bundle, config, new_id, quiet, turn};
use super::roles;
use super::world::{World, children};
use libruntime::{Container, ExecProcess, ExitStatus, Runtime, Signal, Status};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket;
use serde_json::{Value, json};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// What an engine gives a call.
const PATIENCE: Duration = Duration::from_secs(10);

fn in_time<T>(what: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = what();
    assert!(begin.elapsed() < PATIENCE, "it took {:?}", begin.elapsed());
    result
}

fn running(bundle: &Bundle) -> Container {
    let container = bundle.create(&new_id()).unwrap();
    container.start().unwrap();
    container
}

fn exec(container: &Container, command: &str) -> ExecProcess {
    super::bundle::exec(container, &["/bin/busybox", "sh", "-c", command]).spawn().unwrap()
}

#[test]
#[ignore = "needs root"]
fn an_executed_process_that_nobody_waits_for_does_not_keep_the_deletion() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("sleep 1000"));
    let before = children();
    let container = running(&bundle);
    drop(exec(&container, "sleep 1000"));
    drop(exec(&container, "true"));
    let held = exec(&container, "sleep 1000");
    in_time(|| container.delete_force()).unwrap();
    assert_eq!(
        held.wait().unwrap(),
        ExitStatus::Signal(libc::SIGKILL),
        "its exit is kept for who asks later"
    );
    drop(held);
    // A child of another test may have been there before.
    let left: Vec<String> = children().difference(&before).cloned().collect();
    assert!(left.is_empty(), "zombies are left: {left:?}");
}

#[test]
#[ignore = "needs root"]
fn the_end_of_what_was_detached_is_left_to_others() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("sleep 1000"));
    let container = running(&bundle);
    let process = exec(&container, "exit 7");
    let pid = process.pid();
    await_end(process.pidfd());
    process.detach();
    assert_eq!(reap(pid), Some(7));
    let loaded = bundle.load(container.id()).unwrap();
    let pid = container.pid().unwrap();
    loaded.kill(libruntime::Signal::KILL).unwrap();
    await_end(container.pidfd());
    container.detach();
    // Whoever starts something next reaps what handles have left behind, and not this.
    let other = bundle.builder(&super::bundle::new_id()).create().unwrap();
    other.delete_force().unwrap();
    assert_eq!(reap(pid), Some(128 + libc::SIGKILL));
    in_time(|| loaded.delete_force()).unwrap();
}

/// Without reaping it.
fn await_end(pidfd: std::os::fd::BorrowedFd) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut waited = [PollFd::new(pidfd, PollFlags::POLLIN)];
    assert_eq!(poll(&mut waited, PollTimeout::from(10_000u16)), Ok(1));
}

/// The exit code of a child of this process that nobody else has reaped.
fn reap(pid: i32) -> Option<i32> {
    use nix::sys::wait::{WaitStatus, waitpid};
    match waitpid(nix::unistd::Pid::from_raw(pid), None) {
        Ok(WaitStatus::Exited(_, code)) => Some(code),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
        _ => None,
    }
}

#[test]
#[ignore = "needs root"]
fn exit_codes_are_right_where_the_host_reaps_all_children_or_ignores_sigchld() {
    let Some(_turn) = turn() else { return };
    let mut all = config("read x; exit 7");
    all["hooks"] = json!({"createRuntime": [{"path": "/bin/true"}], "poststop": [{"path": "/bin/true"}]});
    for role in ["ignores_sigchld", "reaps_all"] {
        let bundle = Bundle::new(&all);
        let mut command = roles::command(role, &bundle, &new_id());
        let said = bundle.directory.join("said");
        command.stderr(fs::File::create(&said).unwrap()).stdout(fs::File::create(&said).unwrap());
        let status = in_time(|| command.status().unwrap());
        assert!(status.success(), "{role}: {}", fs::read_to_string(&said).unwrap());
    }
}

/// The roles' work: create, exec, start, wait and delete.
pub fn live(store: &std::path::Path, bundle: &std::path::Path, id: &str) {
    let container = quiet(Runtime::new(store).container(id)).bundle(bundle).create().unwrap();
    assert_eq!(exec(&container, "exit 5").wait().unwrap(), ExitStatus::Code(5));
    container.start().unwrap();
    assert_eq!(container.wait().unwrap(), ExitStatus::Code(7));
    assert!(container.delete().unwrap().is_empty(), "the hook's exit code is known too");
}

#[test]
#[ignore = "needs root"]
fn a_program_that_cannot_be_executed_is_named_whatever_limits_the_starter_has() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("true"));
    let id = new_id();
    bundle.create(&id).unwrap();
    fs::remove_file(bundle.rootfs().join("bin/busybox")).unwrap();
    let said = bundle.directory.join("said");
    let mut starter = roles::command("start_with_few_descriptors", &bundle, &id);
    starter.stderr(fs::File::create(&said).unwrap());
    assert!(!starter.status().unwrap().success());
    let said = fs::read_to_string(said).unwrap();
    assert!(said.contains("exec: \"/bin/busybox\": no such file or directory, at process.args"), "{said}");
    bundle.load(&id).unwrap().delete_force().unwrap();
}

#[test]
#[ignore = "needs root"]
fn the_start_of_a_stopped_init_ends_with_an_error_that_says_so() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("true"));
    let container = bundle.create(&new_id()).unwrap();
    container.kill(Signal::STOP).unwrap();
    let error = in_time(|| container.start()).unwrap_err().to_string();
    assert!(error.contains("is stopped by a signal; hint: kill -CONT"), "{error}");
    container.kill(Signal::CONT).unwrap();
    container.start().unwrap();
    assert_eq!(container.wait().unwrap(), ExitStatus::Code(0));
    container.delete().unwrap();
}

/// With a filter that asks an agent before execve(2).
fn asking(listener: &std::path::Path) -> Value {
    let mut asking = config("true");
    asking["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": listener,
        "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_NOTIFY"}]});
    asking
}

/// The descriptor that comes with a message.
fn received(connection: &UnixStream) -> OwnedFd {
    let (mut bytes, mut control) = ([0; 4096], nix::cmsg_space!([i32; 1]));
    let mut vector = [std::io::IoSliceMut::new(&mut bytes)];
    let flags = socket::MsgFlags::empty();
    let message = socket::recvmsg::<()>(connection.as_raw_fd(), &mut vector, Some(&mut control), flags);
    let message = message.unwrap();
    let rights = message.cmsgs().unwrap().find_map(|control| match control {
        socket::ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    // SAFETY: it came with the message, which is read once.
    unsafe { OwnedFd::from_raw_fd(rights.unwrap()) }
}

#[test]
#[ignore = "needs root"]
fn a_start_whose_stage_is_killed_before_it_executes_is_an_error() {
    let Some(_turn) = turn() else { return };
    let path = std::env::temp_dir().join(new_id());
    let agent = UnixListener::bind(&path).unwrap();
    let bundle = Bundle::new(&asking(&path));
    let container = bundle.create(&new_id()).unwrap();
    let init = container.pidfd();
    let started = std::thread::scope(|scope| {
        let agent = scope.spawn(|| {
            // The stage waits in execve(2), and is killed there.
            let (connection, _) = agent.accept().unwrap();
            let listener = received(&connection);
            let mut asked = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut asked, 10_000u16), Ok(1), "the filter asks before execve(2)");
            // SAFETY: no siginfo is passed, and `init` is open.
            let signalled = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, init.as_raw_fd(), 9, 0, 0) };
            assert_eq!(signalled, 0);
            (connection, listener)
        });
        let started = in_time(|| container.start());
        // Until here the agent is there, and takes what it is sent.
        drop(agent.join());
        started
    });
    let _ = fs::remove_file(&path);
    let error = started.expect_err("nothing was executed").to_string();
    assert!(error.contains("was killed before it executed the program"), "{error}");
    container.delete().unwrap();
}

#[test]
#[ignore = "needs root"]
fn the_start_of_a_program_that_ends_at_once_is_no_error() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("true"));
    for _ in 0..50 {
        let container = bundle.create(&new_id()).unwrap();
        container.start().unwrap();
        container.delete_force().unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn a_seccomp_agent_that_takes_nothing_is_not_waited_for() {
    let Some(_turn) = turn() else { return };
    let path = std::env::temp_dir().join(new_id());
    let agent = UnixListener::bind(&path).unwrap();
    socket::listen(&agent, socket::Backlog::new(0).unwrap()).unwrap();
    let _first = UnixStream::connect(&path).unwrap();
    let bundle = Bundle::new(&asking(&path));
    let error = in_time(|| bundle.create(&new_id())).unwrap_err().to_string();
    let _ = fs::remove_file(&path);
    assert!(error.contains("took nothing in 8 s, at linux.seccomp.listenerPath"), "{error}");
}

#[test]
#[ignore = "needs root"]
fn a_container_whose_state_is_damaged_is_deleted_with_all_that_it_has() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("sleep 1000"));
    let before = World::outside_store(&bundle);
    let damages: [fn(&std::path::Path); 4] = [
        |state| fs::write(state, "").unwrap(),
        |state| fs::write(state, "{\"id\": \"x").unwrap(),
        |state| fs::remove_file(state).unwrap(),
        |state| {
            let newer = fs::read_to_string(state).unwrap().replace("{\"version\":1,", "{\"version\":2,");
            fs::write(state, newer).unwrap();
        },
    ];
    for damage in damages {
        let id = new_id();
        let container = bundle.create(&id).unwrap();
        container.start().unwrap();
        let state = bundle.store.join(&id).join("state.json");
        damage(&state);
        assert!(!state.exists() || bundle.runtime().load(&id).is_err());
        let found = bundle.runtime().load_damaged(&id).unwrap();
        assert_eq!(found.id(), id);
        in_time(|| found.delete_force()).unwrap();
        // Asked before the wait, which would have no end.
        assert_eq!(container.status(), Status::Stopped);
        assert_eq!(container.wait().unwrap(), ExitStatus::Signal(libc::SIGKILL));
        drop(container);
        assert!(!bundle.store.join(&id).exists());
    }
    World::outside_store(&bundle).assert_nothing_beyond(&before);
    // Even one of which nothing can be read.
    let id = new_id();
    fs::create_dir(bundle.store.join(&id)).unwrap();
    bundle.runtime().load_damaged(&id).unwrap().delete_force().unwrap();
    // But not what is no container's.
    fs::create_dir_all(bundle.store.join(&id).join("photos")).unwrap();
    assert!(bundle.runtime().load_damaged(&id).is_err());
    fs::remove_dir_all(bundle.store.join(&id)).unwrap();
}

#[test]
#[ignore = "needs root"]
fn the_second_of_two_deletions_leaves_the_next_container_alone() {
    let Some(_turn) = turn() else { return };
    let mut slow = config("sleep 1000");
    let log = std::env::temp_dir().join(new_id());
    let script = format!("echo once >> {}; sleep 1", log.display());
    slow["hooks"] = json!({"poststop": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    let bundle = Bundle::new(&slow);
    let id = new_id();
    drop(bundle.create(&id).unwrap());
    let load = || bundle.load(&id).unwrap();
    let (first, second) = (load(), load());
    let third = std::thread::scope(|scope| {
        let deletions = [first, second].map(|container| scope.spawn(move || container.delete_force()));
        bundle.write(&config("sleep 1000"));
        // As soon as the name is free.
        let begin = Instant::now();
        let third = loop {
            match bundle.create(&id) {
                Err(_) if begin.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(2)),
                made => break made.unwrap(),
            }
        };
        deletions.into_iter().for_each(|one| drop(one.join().unwrap().unwrap()));
        third
    });
    assert_eq!(fs::read_to_string(&log).unwrap(), "once\n", "the hook runs once");
    fs::remove_file(&log).unwrap();
    assert_eq!(third.status(), Status::Created);
    assert_eq!(load().pid(), third.pid(), "it can still be named");
    third.delete_force().unwrap();
}

#[test]
#[ignore = "needs root"]
fn fifty_deletions_updates_and_pauses_at_once_end_and_leave_nothing() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("sleep 1000"));
    let before = World::outside_store(&bundle);
    for _ in 0..5 {
        let container = running(&bundle);
        let id = container.id().to_string();
        let load = || bundle.load(&id);
        let verb = |number: usize| {
            let Ok(container) = load() else { return };
            let resources: Value = json!({"pids": {"limit": 100 + number}});
            let (resources, _) = libruntime::parse_resources(resources.to_string().as_bytes()).unwrap();
            // Whoever is late hears that it does not exist; what must not happen is seen below.
            let _ = match number % 4 {
                0 => container.delete_force().map(drop),
                1 => container.update(&resources).map(drop),
                2 => container.pause().and_then(|()| container.resume()),
                _ => container.kill_all(Signal::KILL),
            };
        };
        in_time(|| std::thread::scope(|scope| (0..50).for_each(|n| drop(scope.spawn(move || verb(n))))));
        let _ = container.wait();
        drop(container);
        if let Ok(left) = load() {
            left.delete_force().unwrap();
        }
    }
    World::outside_store(&bundle).assert_nothing_beyond(&before);
}

#[test]
#[ignore = "needs root"]
fn a_creation_whose_hook_hangs_ends_when_it_is_deleted() {
    let Some(_turn) = turn() else { return };
    let mut hanging = config("true");
    hanging["hooks"] = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1000"]}]});
    let bundle = Bundle::new(&hanging);
    let before = World::outside_store(&bundle);
    let id = new_id();
    std::thread::scope(|scope| {
        let creation = scope.spawn(|| bundle.create(&id).map(drop));
        let begin = Instant::now();
        // The hook runs once the state with the init is written.
        while !bundle.store.join(&id).join(".state.json").exists() && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(100));
        in_time(|| bundle.runtime().load_damaged(&id).unwrap().delete_force()).unwrap();
        let error = creation.join().unwrap().unwrap_err().to_string();
        // The hook is given up, or the stage is found dead, whichever is noticed first.
        let told = ["init has ended, at hooks.createRuntime[0]", "init was killed by signal 9"];
        assert!(told.iter().any(|told| error.contains(told)), "{error}");
    });
    World::outside_store(&bundle).assert_nothing_beyond(&before);
}

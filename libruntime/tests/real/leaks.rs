//! Invariants "nothing leaks" and "errors undo": the same picture before and after, whatever happened.

use super::bundle::{Bundle, config, new_id, turn};
use super::errors::bad_configs;
use super::roles;
use super::world::World;
use libruntime::{ErrorKind, ExitStatus, Signal, Status};
use std::time::{Duration, Instant};

/// `$$` is init, whose descriptors a child lists; its own would have that of the directory too.
const LIST: &str = "ls -l /proc/1/fd; true";

/// The numbers in lines like `lrwx------ 1 0 0 64 Nov 21 03:31 4 -> /dev/null`.
fn numbers(output: &str) -> Vec<&str> {
    output.lines().filter_map(|line| line.split_once(" -> ")?.0.split(' ').next_back()).collect()
}

#[test]
#[ignore = "needs root"]
fn a_program_has_standard_descriptors_and_no_other() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config(LIST));
    link_ls(&bundle);
    let (exit, output) = bundle.run();
    assert_eq!((exit, numbers(&output)), (ExitStatus::Code(0), vec!["0", "1", "2"]), "{output}");
}

#[test]
#[ignore = "needs root"]
fn preserved_descriptors_are_there_and_the_next_is_not() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config(LIST));
    link_ls(&bundle);
    let id = new_id();
    assert!(roles::command("preserve", &bundle, &id).status().unwrap().success());
    let output = std::fs::read_to_string(bundle.directory.join("output")).unwrap();
    assert_eq!(numbers(&output), ["0", "1", "2", "3"], "{output}");
    bundle.load(&id).unwrap().delete().unwrap();
}

fn link_ls(bundle: &Bundle) {
    std::os::unix::fs::symlink("busybox", bundle.rootfs().join("bin/ls")).unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_hundred_runs_leave_nothing() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("true"));
    // The store itself stays.
    bundle.run();
    let before = World::of(&bundle);
    for _ in 0..100 {
        bundle.run();
    }
    assert_eq!(World::of(&bundle), before);
}

#[test]
#[ignore = "needs root"]
fn a_container_that_is_never_started_leaves_nothing() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("true"));
    bundle.run();
    let before = World::of(&bundle);
    for _ in 0..20 {
        bundle.create(&new_id()).unwrap().delete().unwrap();
    }
    assert_eq!(World::of(&bundle), before);
}

/// Nobody waits for it: whoever created it and deletes it has no dead child in the end.
#[test]
#[ignore = "needs root"]
fn a_container_that_ended_by_itself_is_no_zombie_after_delete() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("true"));
    bundle.run();
    let before = World::of(&bundle);
    let container = bundle.create(&new_id()).unwrap();
    container.start().unwrap();
    let begin = Instant::now();
    while container.status() != Status::Stopped {
        assert!(begin.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    }
    container.delete().unwrap();
    drop(container);
    assert_eq!(World::of(&bundle), before);
}

/// The picture sees a container: without this, the other tests could not fail.
#[test]
#[ignore = "needs root"]
fn a_container_that_is_not_deleted_is_seen() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("true"));
    bundle.run();
    let before = World::of(&bundle);
    let container = bundle.create(&new_id()).unwrap();
    assert_ne!(World::of(&bundle), before);
    container.delete().unwrap();
    drop(container);
    assert_eq!(World::of(&bundle), before);
}

#[test]
#[ignore = "needs root"]
fn creates_that_fail_leave_nothing() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("true"));
    bundle.run();
    let before = World::of(&bundle);
    let mut failed = 0;
    for bad in bad_configs(&bundle) {
        bundle.write(&bad.config);
        let id = new_id();
        let result = bundle.create(&id).and_then(|container| {
            let started = container.start();
            let _ = container.kill(Signal::KILL);
            let _ = container.wait();
            let deleted = container.delete_force();
            started.and(deleted)
        });
        let error = result.err().unwrap_or_else(|| panic!("{} was accepted", bad.name));
        assert_eq!(World::of(&bundle), before, "after {}: {error}", bad.name);
        failed += 1;
    }
    assert!(failed >= 30, "only {failed} kinds of failure");
}

/// Kills the creating process at moments spread over the time that it takes, and then deletes.
fn killed_creates(count: u32) {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("sleep 1000"));
    let id = new_id();
    let begin = Instant::now();
    assert!(roles::command("create_one", &bundle, &id).status().unwrap().success());
    let whole = begin.elapsed();
    bundle.load(&id).unwrap().delete_force().unwrap();
    let before = World::of(&bundle);
    let mut there = 0;
    for number in 0..count {
        let id = new_id();
        let mut child = roles::command("create_one", &bundle, &id).spawn().unwrap();
        // A little more than the whole, in an order that is not that of time.
        std::thread::sleep(whole * (number * 37 % count) * 5 / count / 4);
        let _ = child.kill();
        child.wait().unwrap();
        match bundle.load(&id) {
            Ok(container) => {
                there += 1;
                container.delete_force().unwrap_or_else(|error| panic!("after kill {number}: {error}"));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => panic!("after kill {number}: {error}"),
        }
        settle(&bundle, &before, number);
    }
    eprintln!("{there} of {count} killed creates had left a container");
    assert!(there > 0, "no kill came while there was something to leave");
}

/// The stage of a dead library ends by itself when it notices, which takes a moment.
fn settle(bundle: &Bundle, before: &World, number: u32) {
    let begin = Instant::now();
    while World::of(bundle) != *before {
        if begin.elapsed() > Duration::from_secs(3) {
            assert_eq!(World::of(bundle), *before, "after kill {number}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
#[ignore = "needs root"]
fn a_create_that_is_killed_leaves_nothing_that_delete_does_not_find() {
    killed_creates(30);
}

#[test]
#[ignore = "long: two hundred kills"]
fn endurance_two_hundred_creates_that_are_killed_leave_nothing() {
    killed_creates(200);
}

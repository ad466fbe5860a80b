//! Containers from checkpoints: created without a process, restored at their start. Needs root and busybox, and CRIU for
//! those that restore.

mod play;

use play::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const SLEEP: &[&str] = &["busybox", "sleep", "1000"];

macro_rules! prepared {
    ($name:expr, $command:expr) => {
        match missing() {
            Some(reason) => return eprintln!("{reason}"),
            None => Shim::prepare($name, $command, &|_| ()),
        }
    };
}

/// What is looked at of a checkpoint before CRIU is.
fn checkpoint_of_nothing(shim: &Shim) -> PathBuf {
    let path = shim.directory.join("checkpoint");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("descriptors.json"), r#"["/dev/null","/dev/null","/dev/null"]"#).unwrap();
    path
}

fn from(checkpoint: &Path) -> Fields {
    Fields::default().text(8, checkpoint.to_str().unwrap())
}

/// Below the bundle of `a`.
fn is_mounted(shim: &Shim) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.contains(shim.bundle_of("a").join("rootfs").to_str().unwrap())
}

/// The state of containers.
fn is_stored(shim: &Shim) -> bool {
    let store = shim.directory.join("store").join(&shim.name);
    fs::read_dir(store).is_ok_and(|mut entries| entries.next().is_some())
}

#[test]
#[ignore = "needs root"]
fn without_criu_start_fails_and_what_was_created_can_be_deleted() {
    let mut shim = prepared!("no-criu", SLEEP);
    shim.launch(&[("PATH", "/nowhere")], Fields::default());
    let checkpoint = checkpoint_of_nothing(&shim);
    let failure = shim.create_with("a", from(Path::new("/no/such"))).unwrap_err();
    assert!(failure.message.contains("open the checkpoint /no/such"), "{failure:?}");
    assert!(!is_mounted(&shim), "a mount is left");
    let created = shim.create_with("a", from(&checkpoint)).unwrap();
    assert_eq!((number(&fields(&created), 1), shim.status()), (0, 1));
    assert!(is_mounted(&shim) && !is_stored(&shim));
    for (method, of) in [
        ("Pids", of("")),
        ("Stats", of("")),
        ("Kill", of("").number(3, 9)),
        ("Kill", of("").number(3, 9).number(4, 1)),
    ] {
        assert_eq!(shim.call(method, of).unwrap_err().code, 9, "{method}");
    }
    assert_eq!(shim.exec("e", SLEEP).unwrap_err().code, 9);
    for _ in 0..2 {
        let failure = shim.of("Start", "").unwrap_err();
        assert!(failure.message.starts_with("OCI runtime restore failed: "), "{failure:?}");
        assert!(failure.message.contains("criu"), "{failure:?}");
        assert!(shim.status() == 1 && is_mounted(&shim) && !is_stored(&shim));
    }
    shim.of("Delete", "").unwrap();
    assert!(!is_mounted(&shim), "a mount is left");
    assert_eq!(shim.await_event("delete a"), ["create a", "delete a"]);
    // The id is free.
    shim.create("").unwrap();
    shim.of("Start", "").unwrap();
    shim.remove();
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn options_that_name_another_checkpoint_are_refused() {
    let mut shim = prepared!("names", SLEEP);
    shim.launch(&[("PATH", "/nowhere")], Fields::default().text(10, "/other"));
    let checkpoint = checkpoint_of_nothing(&shim);
    for (wanted, field) in [(from(&checkpoint), "CriuImagePath"), (Fields::default(), "CriuImagePath")] {
        let failure =
            shim.create_from_options("a", wanted, Fields::default().text(10, "/other")).unwrap_err();
        assert!(failure.code == 3 && failure.message.contains(field), "{failure:?}");
    }
    let parent = from(&checkpoint).text(9, "/parent");
    let failure = shim.create_with("a", parent).unwrap_err();
    assert!(failure.code == 3 && failure.message.contains("parent_checkpoint"), "{failure:?}");
    // containerd copies the option to the request.
    let same = Fields::default().text(10, checkpoint.to_str().unwrap());
    shim.create_from_options("a", from(&checkpoint), same).unwrap();
    shim.of("Delete", "").unwrap();
    shim.end();
}

#[test]
#[ignore = "needs root"]
fn delete_removes_the_mounts_of_a_container_that_was_not_restored() {
    let mut shim = prepared!("not-restored", SLEEP);
    shim.launch(&[("PATH", "/nowhere")], Fields::default());
    let checkpoint = checkpoint_of_nothing(&shim);
    shim.create_with("a", from(&checkpoint)).unwrap();
    let pid = shim.pid();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    await_end(pid);
    assert!(shim.run("a", &["delete"], b"").status.success());
    assert!(!is_mounted(&shim), "a mount is left");
    shim.check_nothing_left();
}

/// Programs of the shim, found in its `PATH`.
fn programs(shim: &Shim, criu: &str) -> String {
    let directory = shim.directory.join("programs");
    fs::create_dir(&directory).unwrap();
    let path = directory.join("criu");
    fs::write(&path, criu).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    directory.to_str().unwrap().into()
}

#[test]
#[ignore = "needs root"]
fn a_restoration_that_hangs_is_ended_by_a_kill() {
    let mut shim = prepared!("hangs", SLEEP);
    let begun = shim.directory.join("begun");
    let path = programs(&shim, &format!("#!/bin/sh\n: > {}\nexec /bin/sleep 1000\n", begun.display()));
    shim.launch(&[("PATH", &path)], Fields::default());
    let checkpoint = checkpoint_of_nothing(&shim);
    shim.create_with("a", from(&checkpoint)).unwrap();
    std::thread::scope(|scope| {
        let start = scope.spawn(|| shim.of("Start", ""));
        let wait = scope.spawn(|| shim.of("Wait", ""));
        await_that("CRIU is executed", || begun.exists());
        // Created until there is a process.
        assert_eq!(shim.status(), 1);
        assert_eq!(shim.call("Kill", of("").number(3, 15)).unwrap_err().code, 9);
        let killed = Instant::now();
        shim.call("Kill", of("").number(3, 9)).unwrap();
        let failure = start.join().unwrap().unwrap_err();
        assert!(failure.message.contains("OCI runtime restore failed: "), "{failure:?}");
        assert_eq!(number(&fields(&wait.join().unwrap().unwrap()), 1), 137);
        assert!(killed.elapsed().as_secs() < 5, "{:?}", killed.elapsed());
    });
    assert!(shim.status() == 3 && !is_stored(&shim));
    assert_eq!(shim.of("Start", "").unwrap_err().code, 9);
    let deleted = fields(&shim.of("Delete", "").unwrap());
    assert_eq!(number(&deleted, 2), 137);
    assert_eq!(shim.await_event("delete a"), ["create a", "exit a", "delete a"]);
    shim.end();
}

/// CRIU of this host, if it works.
fn has_criu() -> bool {
    let works = Command::new("criu").arg("check").output().is_ok_and(|output| output.status.success());
    if !works {
        eprintln!("skipped: criu is not installed, or does not work here");
    }
    works
}

/// The last number of a text, a line each.
fn last_number(text: &str) -> Option<u32> {
    text.lines().rev().find_map(|line| line.trim().parse().ok())
}

const COUNT: &[&str] =
    &["busybox", "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; busybox sleep 0.05; done"];

/// Saves `a`, whose process ends with that.
fn save(shim: &Shim) -> PathBuf {
    let checkpoint = shim.directory.join("checkpoint");
    fs::create_dir(&checkpoint).unwrap();
    // `exit` of containerd.runc.v1.CheckpointOptions.
    let any = Fields::default().text(1, "containerd.runc.v1.CheckpointOptions").bytes(2, &[8, 1]);
    let wanted = Fields::default().text(1, "a").text(2, checkpoint.to_str().unwrap()).bytes(3, &any.0);
    // As containerd's client does it.
    shim.of("Pause", "").unwrap();
    shim.call("Checkpoint", wanted).unwrap();
    shim.of("Wait", "").unwrap();
    shim.of("Delete", "").unwrap();
    checkpoint
}

fn goes_on_after_a_restoration(name: &str, terminal: u64) {
    let mut shim = prepared!(name, COUNT);
    if !has_criu() {
        return;
    }
    shim.launch(&[], Fields::default());
    let streams = |fifo: &Path| Fields::default().number(4, terminal).text(6, fifo.to_str().unwrap());
    let fifo = shim.fifo("before");
    let mut before = open_reader(&fifo);
    shim.create_with("a", streams(&fifo)).unwrap();
    shim.of("Start", "").unwrap();
    read_until(&mut before, "\n5");
    let checkpoint = save(&shim);
    let length = fs::metadata(checkpoint.join("cgroup.img")).unwrap().len();
    assert!(length < 64 << 10, "cgroups of the host are saved: {length} bytes");
    assert_eq!(shim.of("Resume", "").unwrap_err().code, 5);
    let mut rest = String::new();
    let _ = std::io::Read::read_to_string(&mut before, &mut rest);
    let saved = last_number(&rest).unwrap_or(5);
    let fifo = shim.fifo("after");
    let mut after = open_reader(&fifo);
    // It had none before, and keeps /dev/null: clients attach to what they restore.
    let stdin = shim.fifo("stdin");
    let more = streams(&fifo).text(5, stdin.to_str().unwrap()).text(8, checkpoint.to_str().unwrap());
    assert_eq!(number(&fields(&shim.create_with("a", more).unwrap()), 1), 0);
    let pid = number(&fields(&shim.of("Start", "").unwrap()), 1);
    assert!(pid > 0);
    let written = fs::read_to_string(shim.bundle_of("a").join("init.pid")).unwrap();
    assert_eq!((written, shim.status()), (pid.to_string(), 2));
    let text = read_until(&mut after, &format!("{}", saved + 5));
    let first = text.lines().find_map(|line| line.trim().parse::<u32>().ok()).unwrap();
    assert!((saved..=saved + 3).contains(&first), "{saved}: {text}");
    // It is a container as any other.
    shim.exec("e", &["busybox", "true"]).unwrap();
    shim.of("Start", "e").unwrap();
    assert_eq!(number(&fields(&shim.of("Wait", "e").unwrap()), 1), 0);
    shim.call("Pause", of("")).unwrap();
    shim.call("Resume", of("")).unwrap();
    shim.call("Kill", of("").number(3, 9)).unwrap();
    assert_eq!(number(&fields(&shim.of("Wait", "").unwrap()), 1), 137);
    shim.of("Delete", "").unwrap();
    let events = shim.await_event("delete a");
    let second = events.iter().rposition(|event| event == "create a").unwrap();
    let wanted = ["create a", "start a", "exec-added e", "exec-started e", "exit e", "paused a", "resumed a"];
    assert_eq!(events[second..second + 7], wanted);
    shim.end();
    assert!(!has_unmounted_cgroup(&shim.name), "CRIU has made a cgroup where the container has none");
}

/// In hierarchies of v1 that are not mounted here.
fn has_unmounted_cgroup(name: &str) -> bool {
    let of_process = fs::read_to_string("/proc/self/cgroup").unwrap();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let controllers = of_process.lines().filter_map(|line| line.split(':').nth(1));
    let is_mounted = |controllers: &str| {
        mounts.lines().any(|line| line.contains(" cgroup ") && line.contains(&format!(",{controllers} ")))
    };
    controllers.filter(|controllers| !controllers.is_empty() && !is_mounted(controllers)).any(|controllers| {
        let script = "mount --make-rprivate / && mount -t cgroup -o $0 cgroup /mnt && test -d /mnt/$1";
        let found = Command::new("unshare").args(["-m", "sh", "-c", script, controllers, name]).status();
        found.is_ok_and(|status| status.success())
    })
}

#[test]
#[ignore = "needs root"]
fn a_container_goes_on_where_it_was_saved() {
    goes_on_after_a_restoration("goes-on", 0);
}

#[test]
#[ignore = "needs root"]
fn a_container_with_a_terminal_goes_on_where_it_was_saved() {
    goes_on_after_a_restoration("goes-on-terminal", 1);
}

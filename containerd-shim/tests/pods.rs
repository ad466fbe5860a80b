//! Pods whose shim was killed: one `delete` of the first container cleans up all of them, in the time that containerd
//! gives it. Needs root and busybox.

mod play;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use play::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

const SLEEP: &[&str] = &["busybox", "sleep", "1000"];
const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// containerd kills `delete` after it.
const GIVEN: Duration = Duration::from_secs(5);

/// A pod of `IDS`, running; its shim is dead. The cgroup of `b` is elsewhere.
struct Pod {
    shim: Shim,
    /// Of the inits.
    pids: Vec<i32>,
    /// Dropped after the shim's containers.
    _other: OtherCgroups,
}

/// What `b` has its cgroups below.
struct OtherCgroups(String);

impl Drop for OtherCgroups {
    fn drop(&mut self) {
        for hierarchy in hierarchies() {
            let _ = fs::remove_dir(hierarchy.join(&self.0));
        }
    }
}

fn other_cgroups(shim: &Shim) -> String {
    format!("{}-other", shim.name)
}

fn orphaned_pod(name: &str) -> Option<Pod> {
    if let Some(reason) = missing() {
        eprintln!("{reason}");
        return None;
    }
    let shim = Shim::start(name, SLEEP);
    let mut pids = Vec::new();
    for id in IDS {
        if id != "a" {
            shim.add(id, SLEEP);
        }
        if id == "b" {
            move_cgroup(&shim, id);
        }
        let created = fields(&shim.create_with(id, Fields::default()).unwrap());
        pids.push(number(&created, 1) as i32);
        shim.call("Start", Fields::default().text(1, id)).unwrap();
    }
    let of_shim = shim.pid();
    kill(Pid::from_raw(of_shim), Signal::SIGKILL).unwrap();
    await_end(of_shim);
    let _other = OtherCgroups(other_cgroups(&shim));
    Some(Pod { shim, pids, _other })
}

fn move_cgroup(shim: &Shim, id: &str) {
    let path = shim.bundle_of(id).join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["linux"]["cgroupsPath"] = format!("/{}/{id}", other_cgroups(shim)).into();
    fs::write(path, config.to_string()).unwrap();
}

fn check_nothing_left(shim: &Shim) {
    shim.check_nothing_left();
    let name = other_cgroups(shim);
    assert!(!hierarchies().iter().any(|one| one.join(&name).join("b").exists()), "a cgroup is left");
}

fn delete(shim: &Shim, id: &str) -> (Output, Duration) {
    let begin = Instant::now();
    let output = shim.run(id, &["-bundle", shim.bundle_of(id).to_str().unwrap(), "delete"], b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (output, begin.elapsed())
}

#[test]
#[ignore = "needs root"]
fn the_whole_pod_of_a_killed_shim_is_deleted_by_its_first_container() {
    let Some(Pod { _other, pids, shim }) = orphaned_pod("pod") else { return };
    let deleted = fields(&delete(&shim, "a").0.stdout);
    assert_eq!((number(&deleted, 1) as i32, number(&deleted, 2)), (pids[0], 137));
    for pid in &pids {
        await_end(*pid);
    }
    check_nothing_left(&shim);
    // Where the others are asked for too, each still has its answer.
    for (id, pid) in IDS.iter().zip(pids) {
        let deleted = fields(&delete(&shim, id).0.stdout);
        assert_eq!((number(&deleted, 1) as i32, number(&deleted, 2)), (pid, 137), "{id}");
    }
}

#[test]
#[ignore = "needs root"]
fn another_container_of_the_pod_is_deleted_alone() {
    let Some(Pod { _other, pids, shim }) = orphaned_pod("one") else { return };
    let deleted = fields(&delete(&shim, "c").0.stdout);
    assert_eq!(number(&deleted, 1) as i32, pids[2]);
    await_end(pids[2]);
    for pid in [pids[0], pids[1], pids[3], pids[4]] {
        assert!(Path::new(&format!("/proc/{pid}/root/bin")).exists(), "{pid}");
    }
    delete(&shim, "a");
    check_nothing_left(&shim);
}

/// A freezer of cgroup v1 that the cgroup of `b` is below: what is in it cannot be killed.
struct Freezer(PathBuf);

impl Freezer {
    fn of(shim: &Shim) -> Option<Self> {
        let directory = Path::new("/sys/fs/cgroup/freezer").join(other_cgroups(shim));
        directory.join("freezer.state").exists().then_some(Self(directory))
    }

    fn write(&self, state: &str) {
        let file = self.0.join("freezer.state");
        await_that(state, || {
            fs::write(&file, state).unwrap();
            fs::read_to_string(&file).unwrap().trim() == state
        });
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        // Where the test has failed.
        let _ = fs::write(self.0.join("freezer.state"), "THAWED");
    }
}

#[test]
#[ignore = "needs root"]
fn a_process_that_cannot_be_killed_takes_no_time_from_the_others() {
    let Some(Pod { _other, pids, shim }) = orphaned_pod("stuck") else { return };
    let Some(freezer) = Freezer::of(&shim) else {
        eprintln!("skipped: cgroup v2 kills what is frozen");
        delete(&shim, "a");
        return check_nothing_left(&shim);
    };
    freezer.write("FROZEN");
    let (output, took) = delete(&shim, "a");
    assert!(took < GIVEN, "{took:?}");
    assert_eq!(number(&fields(&output.stdout), 2), 137);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("delete container b: ") && said.lines().count() == 1, "{said}");
    for pid in [pids[0], pids[2], pids[3], pids[4]] {
        await_end(pid);
    }
    let left: Vec<_> =
        fs::read_dir(shim.directory.join("store").join(&shim.name)).unwrap().flatten().collect();
    assert_eq!(left.iter().map(fs::DirEntry::file_name).collect::<Vec<_>>(), ["b"]);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&format!("{}/", shim.directory.display())), "a mount is left");
    // containerd must keep the bundle: the next call needs it.
    let output = shim.run("b", &["-bundle", shim.bundle_of("b").to_str().unwrap(), "delete"], b"");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("delete container b: "), "{output:?}");
    freezer.write("THAWED");
    delete(&shim, "b");
    await_end(pids[1]);
    check_nothing_left(&shim);
}

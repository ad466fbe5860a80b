//! Where cgroups are planned (pure), and what they do on the host that the tests run on: whichever of
//! v1, hybrid and v2 it has. Those need root and say so when they are skipped.

use super::layout::tests::{HYBRID, HYBRID_OWN, layout};
use super::*;
use oci_spec::runtime::LinuxResources;
use std::process::{Child, Command, Stdio};

const V2: &str = "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

fn dirs(layout: &Layout, path: Option<&str>) -> Vec<String> {
    let cgroup = Cgroup::plan(layout, path.map(Path::new), "id").unwrap();
    cgroup.hierarchies.iter().map(|h| h.dir.display().to_string()).collect()
}

#[test]
fn an_absolute_path_starts_at_the_root_of_every_hierarchy() {
    let hybrid = layout(HYBRID, HYBRID_OWN);
    assert_eq!(
        dirs(&hybrid, Some("/docker/x")),
        [
            "/sys/fs/cgroup/cpu,cpuacct/docker/x",
            "/sys/fs/cgroup/memory/docker/x",
            "/sys/fs/cgroup/systemd/docker/x",
            "/sys/fs/cgroup/unified/docker/x",
        ]
    );
    assert_eq!(dirs(&layout(V2, "0::/a/b\n"), Some("/docker//./x/")), ["/sys/fs/cgroup/docker/x"]);
}

#[test]
fn a_relative_or_absent_path_starts_at_the_callers_own_cgroup() {
    let hybrid = layout(HYBRID, HYBRID_OWN);
    assert_eq!(dirs(&hybrid, Some("test.slice:cri:x"))[1], "/sys/fs/cgroup/memory/me/test.slice:cri:x");
    assert_eq!(dirs(&hybrid, None)[0], "/sys/fs/cgroup/cpu,cpuacct/a/b/id");
    // v2: beside it, for a cgroup with processes cannot have children with controllers.
    assert_eq!(dirs(&layout(V2, "0::/a/b\n"), None), ["/sys/fs/cgroup/a/id"]);
    assert_eq!(dirs(&layout(V2, "0::/\n"), Some("")), ["/sys/fs/cgroup/id"]);
}

#[test]
fn a_bind_mount_of_a_part_is_that_parts_root() {
    let part = "30 1 0:26 /docker/c /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    assert_eq!(dirs(&layout(part, "0::/docker/c/me\n"), None), ["/sys/fs/cgroup/id"]);
    assert_eq!(dirs(&layout(part, "0::/docker/c\n"), None), ["/sys/fs/cgroup/id"]);
    let outside = layout(part, "0::/../x/y\n");
    assert!(Cgroup::plan(&outside, None, "id").is_err());
    assert_eq!(dirs(&outside, Some("/a")), ["/sys/fs/cgroup/a"]);
}

#[test]
fn a_path_leads_no_further_up_than_to_where_it_starts() {
    let hybrid = layout(HYBRID, HYBRID_OWN);
    let at =
        |path: &str| Cgroup::plan(&hybrid, Some(Path::new(path)), "id").unwrap().paths()["cpuacct"].clone();
    for (path, plain) in [("/a/x/../../../b", "/b"), ("../../c", "c"), ("./d/./e", "d/e")] {
        assert_eq!(at(path), at(plain), "{path}");
    }
}

#[test]
fn paths_that_name_the_root_of_the_hierarchy_are_refused() {
    let v2 = layout(V2, "0::/\n");
    for path in ["/", ".", "..", "/a/..", "a/..", "/a\nb"] {
        let error = Cgroup::plan(&v2, Some(Path::new(path)), "id").unwrap_err();
        assert_eq!(error.diagnostics()[0].config_path, "linux.cgroupsPath", "{path}");
    }
}

#[test]
fn it_is_stored_and_read_again() {
    let cgroup = Cgroup::plan(&layout(HYBRID, HYBRID_OWN), None, "id").unwrap();
    let text = serde_json::to_string(&cgroup).unwrap();
    assert_eq!(serde_json::from_str::<Cgroup>(&text).unwrap(), cgroup);
    assert_eq!(cgroup.paths()["cpuacct"], Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b/id"));
    assert_eq!(cgroup.paths()[""], Path::new("/sys/fs/cgroup/unified/u/id"));
}

/// A cgroup of the host with its removal at the end, and processes in it.
struct Live {
    cgroup: Cgroup,
    children: Vec<Child>,
}

impl Live {
    fn new(name: &str) -> Self {
        let path = format!("/onggi-test-{}/{name}", std::process::id());
        let mut cgroup = Cgroup::plan(&Layout::probe().unwrap(), Some(Path::new(&path)), "id").unwrap();
        cgroup.create_all().unwrap();
        Self { cgroup, children: Vec::new() }
    }

    fn spawn(&mut self, program: &str) -> i32 {
        let child = Command::new("sh").args(["-c", program]).stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id() as i32;
        self.children.push(child);
        self.cgroup.attach(pid).unwrap();
        pid
    }

    fn read(&self, controller: &str, file: &str) -> String {
        files::read(&self.cgroup.dir_of(controller).unwrap().join(file)).unwrap().trim_end().to_owned()
    }

    fn apply(&self, json: &str) -> Result<Vec<Diagnostic>> {
        self.cgroup.apply(&serde_json::from_str::<LinuxResources>(json).unwrap())
    }

    fn update(&self, json: &str) -> Result<Vec<Diagnostic>> {
        self.cgroup.update(&LinuxResources::default(), &serde_json::from_str::<LinuxResources>(json).unwrap())
    }

    /// The name of a setting here.
    fn pick<'a>(&self, v1: &'a str, v2: &'a str) -> &'a str {
        if self.cgroup.is_v2() { v2 } else { v1 }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.cgroup.thaw();
        let _ = self.cgroup.kill_all(libc::SIGKILL);
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = self.cgroup.remove();
        for hierarchy in &self.cgroup.hierarchies {
            let _ = std::fs::remove_dir(hierarchy.dir.parent().unwrap());
        }
    }
}

/// Needs v1 and CONFIG_RT_GROUP_SCHED.
#[test]
#[ignore = "needs root"]
fn a_realtime_budget_is_handed_down_from_the_root() {
    let live = Live::new("realtime");
    let has_files = live.cgroup.dir_of("cpu").is_some_and(|dir| dir.join("cpu.rt_runtime_us").exists());
    if !has_files {
        eprintln!("skipped: no realtime budgets here");
        return;
    }
    let parent = live.cgroup.dir_of("cpu").unwrap().parent().unwrap().join("cpu.rt_runtime_us");
    let above = || files::read(&parent).unwrap().trim_end().parse::<u64>().unwrap();
    live.apply(r#"{"cpu":{"realtimeRuntime":10000,"realtimePeriod":1000000}}"#).unwrap();
    assert_eq!(live.read("cpu", "cpu.rt_runtime_us"), "10000");
    assert!((10_000..10_010).contains(&above()), "{}", above());
    live.update(r#"{"cpu":{"realtimeRuntime":30000}}"#).unwrap();
    let before = above();
    let error = live.update(r#"{"cpu":{"realtimeRuntime":990000}}"#).unwrap_err();
    assert_eq!(error.config_path(), Some("linux.resources.cpu.realtimeRuntime"));
    assert!(error.hint().is_some_and(|hint| hint.contains("sched_rt_runtime_us")), "{error}");
    assert_eq!((above(), live.read("cpu", "cpu.rt_runtime_us").as_str()), (before, "30000"));
}

#[test]
#[ignore = "needs root"]
fn processes_are_put_in_listed_killed_and_the_directory_removed() {
    let mut live = Live::new("life");
    let pid = live.spawn("exec sleep 1000");
    for hierarchy in &live.cgroup.hierarchies {
        assert_eq!(hierarchy::read_pids(&hierarchy.dir).unwrap(), [pid], "{}", hierarchy.dir.display());
    }
    assert_eq!(live.cgroup.pids(false).unwrap(), [pid]);
    assert_eq!(live.cgroup.of_process(pid).unwrap(), live.cgroup);
    // A cgroup that the container has made for itself.
    let mut below = live.cgroup.below(None, Path::new("a/b")).unwrap();
    below.create_all().unwrap();
    below.attach(pid).unwrap();
    assert!(live.cgroup.pids(false).unwrap().is_empty());
    assert_eq!(live.cgroup.pids(true).unwrap(), [pid]);
    let error = live.cgroup.clone().create_all().unwrap_err().to_string();
    assert!(error.starts_with("container's cgroup is not empty: 1 process(es) found: "), "{error}");
    live.cgroup.kill_all(libc::SIGKILL).unwrap();
    live.children[0].wait().unwrap();
    live.cgroup.remove().unwrap();
    assert!(!live.cgroup.exists());
    live.cgroup.remove().unwrap();
    assert!(live.cgroup.pids(true).unwrap().is_empty());
}

#[test]
#[ignore = "needs root"]
fn an_existing_empty_cgroup_is_taken_and_a_frozen_one_refused() {
    let live = Live::new("again");
    live.cgroup.clone().create_all().unwrap();
    live.cgroup.freeze().unwrap();
    let error = live.cgroup.clone().create_all().unwrap_err().to_string();
    assert!(error.contains("is frozen"), "{error}");
    assert!(live.cgroup.exists(), "what it did not make it must not remove");
}

#[test]
#[ignore = "needs root"]
fn a_cgroup_below_a_frozen_one_is_refused_and_not_left() {
    let live = Live::new("ice");
    live.cgroup.freeze().unwrap();
    let error = live.cgroup.below(None, Path::new("c")).unwrap().create_all().unwrap_err().to_string();
    assert!(error.contains("above") && error.contains("is frozen"), "{error}");
    for hierarchy in &live.cgroup.hierarchies {
        assert_eq!(files::children(&hierarchy.dir), Vec::<PathBuf>::new());
    }
    live.cgroup.thaw().unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_failed_creation_leaves_nothing() {
    let live = Live::new("undo");
    let mut other = live.cgroup.below(None, Path::new("x/y")).unwrap();
    // The last hierarchy is one that cannot be.
    let dir = live.cgroup.hierarchies[0].dir.join("cgroup.procs/x/y");
    let mut broken = other.hierarchies[0].clone();
    broken.dir = dir;
    other.hierarchies.push(broken);
    assert!(other.create_all().is_err());
    for hierarchy in &live.cgroup.hierarchies {
        assert_eq!(files::children(&hierarchy.dir), Vec::<PathBuf>::new());
    }
}

#[test]
#[ignore = "needs root"]
fn freezing_stops_processes_until_thawed() {
    let mut live = Live::new("freeze");
    live.spawn("while :; do :; done");
    assert!(!live.cgroup.is_frozen().unwrap());
    live.cgroup.freeze().unwrap();
    assert!(live.cgroup.is_frozen().unwrap());
    live.cgroup.thaw().unwrap();
    assert!(!live.cgroup.is_frozen().unwrap());
}

#[test]
#[ignore = "needs root"]
fn frozen_processes_can_be_killed() {
    let mut live = Live::new("frozen-kill");
    live.spawn("while :; do :; done");
    live.cgroup.freeze().unwrap();
    live.cgroup.kill_all(libc::SIGKILL).unwrap();
    assert!(!live.children[0].wait().unwrap().success());
}

#[test]
#[ignore = "needs root"]
fn limits_are_set_and_can_be_raised_and_lowered() {
    let live = Live::new("limits");
    live.apply(
        r#"{"memory":{"limit":67108864,"swap":134217728,"reservation":33554432},"pids":{"limit":20},
            "cpu":{"shares":1024,"quota":50000,"period":100000,"cpus":"0","mems":"0"}}"#,
    )
    .unwrap();
    let limit = live.pick("memory.limit_in_bytes", "memory.max");
    let swap = live.pick("memory.memsw.limit_in_bytes", "memory.swap.max");
    assert_eq!(live.read("memory", limit), "67108864");
    assert_eq!(live.read("memory", swap), live.pick("134217728", "67108864"));
    assert_eq!(live.read("pids", "pids.max"), "20");
    assert_eq!(live.read("cpu", live.pick("cpu.shares", "cpu.weight")), live.pick("1024", "100"));
    assert_eq!(
        live.read("cpu", live.pick("cpu.cfs_quota_us", "cpu.max")),
        live.pick("50000", "50000 100000")
    );
    assert_eq!(live.read("cpuset", "cpuset.cpus"), "0");
    // Both above what memory+swap was, then both below, then none.
    live.update(r#"{"memory":{"limit":268435456,"swap":536870912}}"#).unwrap();
    assert_eq!(live.read("memory", limit), "268435456");
    live.update(r#"{"memory":{"limit":33554432,"swap":33554432}}"#).unwrap();
    assert_eq!(live.read("memory", swap), live.pick("33554432", "0"));
    live.update(r#"{"memory":{"limit":-1}}"#).unwrap();
    assert_eq!(live.read("memory", limit), live.pick("9223372036854771712", "max"));
    live.update(r#"{"cpu":{"period":20000,"quota":10000}}"#).unwrap();
    live.update(r#"{"cpu":{"period":50000}}"#).unwrap();
    assert_eq!(live.read("cpu", live.pick("cpu.cfs_quota_us", "cpu.max")), live.pick("10000", "10000 50000"));
}

#[test]
#[ignore = "needs root"]
fn a_failed_update_puts_the_old_values_back() {
    let live = Live::new("rollback");
    live.apply(r#"{"memory":{"limit":67108864},"pids":{"limit":20},"cpu":{"quota":50000,"period":100000}}"#)
        .unwrap();
    let error = live
        .update(r#"{"memory":{"limit":33554432},"cpu":{"quota":20000,"period":50000,"cpus":"4000"},"pids":{"limit":7}}"#)
        .unwrap_err();
    assert_eq!(error.config_path(), Some("linux.resources.cpu.cpus"), "{error}");
    assert_eq!(live.read("memory", live.pick("memory.limit_in_bytes", "memory.max")), "67108864");
    assert_eq!(
        live.read("cpu", live.pick("cpu.cfs_quota_us", "cpu.max")),
        live.pick("50000", "50000 100000")
    );
    assert_eq!(live.read("pids", "pids.max"), "20");
}

#[test]
#[ignore = "needs root"]
fn a_missing_setting_is_named_with_its_place() {
    let live = Live::new("missing");
    let error = live.apply(r#"{"hugepageLimits":[{"pageSize":"3MB","limit":1}]}"#).unwrap_err();
    assert_eq!(error.config_path(), Some("linux.resources.hugepageLimits[0]"), "{error}");
    assert!(error.to_string().contains("hugetlb"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
#[ignore = "needs root"]
fn devices_are_allowed_and_denied_and_the_rules_replaced() {
    let mut live = Live::new("devices");
    let probe = |live: &mut Live, device: &str| {
        // The shell waits for its input's end, so that it opens the device in its cgroup.
        let mut child = Command::new("sh")
            .args(["-c", &format!("read x; exec 3<{device}")])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        live.cgroup.attach(child.id() as i32).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap().success()
    };
    live.apply(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#).unwrap();
    assert!(probe(&mut live, "/dev/null"));
    assert!(!probe(&mut live, "/dev/kmsg"));
    live.update(r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#)
        .unwrap();
    assert!(probe(&mut live, "/dev/null"));
    assert!(probe(&mut live, "/dev/kmsg"));
    live.update(r#"{"pids":{"limit":100}}"#).unwrap();
    assert!(probe(&mut live, "/dev/kmsg"), "an update without devices leaves them");
    live.update(r#"{"devices":[]}"#).unwrap();
    assert!(!probe(&mut live, "/dev/kmsg"));
    live.update(r#"{"devices":[{"allow":true,"access":"rwm"}]}"#).unwrap();
    assert!(probe(&mut live, "/dev/kmsg"));
    live.update(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#).unwrap();
    assert!(!probe(&mut live, "/dev/kmsg"));
}

#[test]
#[ignore = "needs root"]
fn statistics_have_what_the_processes_did() {
    let mut live = Live::new("stats");
    live.apply(r#"{"memory":{"limit":67108864},"pids":{"limit":20},"cpu":{"quota":20000,"period":100000}}"#)
        .unwrap();
    live.spawn("sleep 0.1; head -c 3000000 /dev/zero | tail -c 2000000 >/dev/null; while :; do :; done");
    let deadline = Instant::now() + Duration::from_secs(20);
    let stats = loop {
        std::thread::sleep(Duration::from_millis(20));
        let stats = live.cgroup.stats().unwrap();
        // The last part: the shell alone, using more than its quota.
        let last =
            stats.pids.current == Some(1) && stats.memory.usage.peak.is_some_and(|peak| peak > 1_000_000);
        if (last && stats.cpu.throttled_periods > 0) || Instant::now() > deadline {
            break stats;
        }
    };
    assert_eq!((stats.pids.current, stats.pids.limit), (Some(1), Some(20)));
    assert_eq!(stats.memory.usage.limit, Some(67108864));
    assert!(stats.memory.usage.current.unwrap() > 0 && stats.memory.stat.len() > 10, "{stats:?}");
    assert!(stats.memory.events.contains_key("oom_kill"));
    assert!(stats.cpu.total > 10_000_000 && stats.cpu.throttled_periods > 0, "{:?}", stats.cpu);
    assert_eq!(stats.cpu.per_cpu.is_empty(), live.cgroup.is_v2());
    let json = stats.to_runc();
    assert_eq!(json["memory"]["usage"]["limit"], 67108864);
    live.cgroup.kill_all(libc::SIGKILL).unwrap();
    live.children[0].wait().unwrap();
    live.cgroup.remove().unwrap();
    assert_eq!(live.cgroup.stats().unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
#[ignore = "needs root"]
fn running_out_of_memory_is_reported() {
    let mut live = Live::new("oom");
    live.apply(r#"{"memory":{"limit":8388608,"swap":8388608}}"#).unwrap();
    let mut events = live.cgroup.oom_events().unwrap();
    live.spawn("sleep 0.3; exec tail /dev/zero");
    assert_eq!(events.wait(Some(Duration::from_millis(20))).unwrap(), Oom::TimedOut);
    assert!(matches!(events.wait(Some(Duration::from_secs(20))).unwrap(), Oom::Happened { .. }));
    assert!(!live.children[0].wait().unwrap().success());
    assert_eq!(live.cgroup.stats().unwrap().memory.events["oom_kill"], 1);
    live.cgroup.remove().unwrap();
    assert_eq!(events.wait(Some(Duration::from_secs(20))).unwrap(), Oom::Gone);
}

#[test]
fn an_unprivileged_caller_gets_what_it_may_use_and_hears_of_the_rest() {
    if Uid::effective().is_root() {
        eprintln!("skipped: needs an unprivileged user");
        return;
    }
    let layout = Layout::probe().unwrap();
    let name = format!("onggi-test-{}", std::process::id());
    let mut cgroup = Cgroup::plan(&layout, None, &name).unwrap();
    cgroup.create_all().unwrap();
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = child.id() as i32;
    cgroup.attach(pid).unwrap();
    assert_eq!(cgroup.pids(true).unwrap(), if cgroup.is_none() { vec![] } else { vec![pid] });
    let nothing = LinuxResources::default();
    cgroup.apply(&nothing).unwrap();
    if cgroup.is_none() {
        let limit: LinuxResources = serde_json::from_str(r#"{"memory":{"limit":67108864}}"#).unwrap();
        assert_eq!(cgroup.apply(&limit).unwrap_err().config_path(), Some("linux.resources.memory.limit"));
    }
    cgroup.kill_all(libc::SIGKILL).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    cgroup.remove().unwrap();
    let asked_for = format!("/{name}");
    let error = Cgroup::plan(&layout, Some(Path::new(&asked_for)), &name).unwrap().create_all().unwrap_err();
    assert_eq!(error.errno(), Some(libc::EACCES), "{error}");
    assert!(error.hint().unwrap().contains("delegated"));
}

#[test]
#[ignore = "needs root"]
fn only_the_delegated_files_are_given_away() {
    use std::os::unix::fs::MetadataExt;
    let live = Live::new("owner");
    live.cgroup.set_owner(4000, Some(4001)).unwrap();
    let owner = |name: &str| {
        let data = std::fs::metadata(live.cgroup.dir_of("pids").unwrap().join(name)).unwrap();
        (data.uid(), data.gid())
    };
    // v1 cannot be delegated safely.
    let given = if live.cgroup.is_v2() { (4000, 4001) } else { (0, 0) };
    assert_eq!(owner("."), given);
    assert_eq!(owner("cgroup.procs"), given);
    assert_eq!(owner("pids.max"), (0, 0));
}

#[test]
#[ignore = "needs root"]
fn below_a_v2_cgroup_with_processes_limits_are_refused_by_name() {
    let mut live = Live::new("busy");
    if !live.cgroup.is_v2() {
        eprintln!("skipped: needs cgroup v2");
        return;
    }
    live.spawn("exec sleep 1000");
    let mut below = live.cgroup.below(None, Path::new("x")).unwrap();
    below.create_all().unwrap();
    let limit: LinuxResources = serde_json::from_str(r#"{"memory":{"limit":67108864}}"#).unwrap();
    let error = below.apply(&limit).unwrap_err();
    assert_eq!(
        (error.kind(), error.config_path()),
        (ErrorKind::Unsupported, Some("linux.resources.memory.limit"))
    );
    assert!(error.hint().unwrap().contains("processes in it"), "{error}");
    assert_eq!(live.read("cgroup", "cgroup.type"), "domain", "the parent must stay what it was");
    below.remove().unwrap();
}

use super::super::dbus::Bus;
use super::super::unit::{WAIT, address};
use super::*;
use crate::cgroup::files;
use crate::cgroup::layout::tests::layout;
use crate::cgroup::stats::Stats;
use crate::error::ErrorKind;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn names(path: &str, user: bool) -> std::result::Result<(String, String), String> {
    Names::parse(Some(Path::new(path)), "id", user).map(|names| (names.slice, names.unit))
}

#[test]
fn the_path_is_slice_prefix_and_name() {
    let ok = |slice: &str, unit: &str| Ok((slice.to_owned(), unit.to_owned()));
    assert_eq!(names("a-b.slice:cri:x", false), ok("a-b.slice", "cri-x.scope"));
    assert_eq!(names(":cri:x", false), ok("system.slice", "cri-x.scope"));
    assert_eq!(names(":cri:x", true), ok("user.slice", "cri-x.scope"));
    assert_eq!(names("-:p:x", false), ok("-.slice", "p-x.scope"));
    assert_eq!(names("a.slice::x", false), ok("a.slice", "-x.scope"));
    assert_eq!(names("a.slice:b:", false), ok("a.slice", "b-.scope"));
    assert_eq!(names(r"a.slice:b:c\x2dd", false), ok("a.slice", r"b-c\x2dd.scope"));
    assert_eq!(names("", false), ok("system.slice", "onggi-id.scope"));
    assert_eq!(names("a.slice:p:x+y", false), ok("a.slice", "p-x\\x2by.scope"));
    for wrong in
        ["/a/b", "a:b", "a.slice:b:c:d", "a:b:c", "a.slice:b:c.slice", "../x.slice:b:c", "a--b.slice:p:x"]
    {
        assert!(names(wrong, false).is_err(), "{wrong}");
    }
}

#[test]
fn each_dash_of_a_slice_is_a_level() {
    assert_eq!(expand_slice("a-b-c.slice"), Path::new("a.slice/a-b.slice/a-b-c.slice"));
    assert_eq!(expand_slice("system.slice"), Path::new("system.slice"));
    assert_eq!(expand_slice("-.slice"), Path::new(""));
}

fn limits(json: &str, v2: bool) -> Vec<String> {
    let resources: LinuxResources = serde_json::from_str(json).unwrap();
    let list = properties::limits(&resources, v2).unwrap();
    list.iter().map(|(name, value)| format!("{name}={value:?}")).collect()
}

#[test]
fn limits_are_properties() {
    assert_eq!(
        limits(
            r#"{"memory":{"limit":100,"swap":300,"reservation":50},"pids":{"limit":0},"blockIO":{"weight":500},
                "cpu":{"shares":1024,"quota":50001,"period":100000,"cpus":"0-1,9","mems":"0"}}"#,
            true
        ),
        [
            "MemoryMax=U64(100)",
            "MemoryLow=U64(50)",
            "MemorySwapMax=U64(200)",
            "CPUWeight=U64(100)",
            "CPUQuotaPeriodUSec=U64(100000)",
            "CPUQuotaPerSecUSec=U64(510000)",
            "AllowedCPUs=Bytes([3, 2])",
            "AllowedMemoryNodes=Bytes([1])",
            "TasksMax=U64(1)",
            "IOWeight=U64(4950)",
        ]
    );
    let infinity = u64::MAX;
    assert_eq!(
        limits(r#"{"memory":{"limit":-1},"pids":{"limit":-1},"cpu":{"shares":512,"quota":-1}}"#, false),
        [
            format!("MemoryLimit=U64({infinity})"),
            "CPUShares=U64(512)".into(),
            format!("CPUQuotaPerSecUSec=U64({infinity})"),
            format!("TasksMax=U64({infinity})"),
        ]
    );
    for (file, value, expected) in [
        ("memory.high", "max", vec![format!("MemoryHigh=U64({infinity})")]),
        (
            "cpu.max",
            "50000 200000",
            vec!["CPUQuotaPeriodUSec=U64(200000)".into(), "CPUQuotaPerSecUSec=U64(250000)".into()],
        ),
        ("cpu.max", "max", vec![format!("CPUQuotaPerSecUSec=U64({infinity})")]),
        ("cpuset.cpus", "0-1", vec!["AllowedCPUs=Bytes([3])".into()]),
        ("cpu.idle", "1", vec!["CPUWeight=U64(0)".into()]),
        ("io.weight", "default 50", vec!["IOWeight=U64(50)".into()]),
        ("io.weight", "8:0 50", vec![]),
        ("cpu.max", "much", vec![]),
        ("memory.oom.group", "1", vec![]),
    ] {
        assert_eq!(limits(&format!(r#"{{"unified":{{"{file}":"{value}"}}}}"#), true), expected, "{file}");
    }
}

#[test]
fn annotations_set_harmless_properties_only() {
    let set = |name: &str, value: &str| {
        let map = HashMap::from([(format!("org.systemd.property.{name}"), value.to_owned())]);
        properties::annotated(&map).map(|list| list.into_iter().next().unwrap())
    };
    assert_eq!(set("TimeoutStopUSec", "uint64 5").unwrap(), ("TimeoutStopUSec".into(), Value::U64(5)));
    assert_eq!(set("TimeoutStopUSec", "@t 5").unwrap().1, Value::U64(5));
    assert_eq!(set("SendSIGHUP", "@b true").unwrap().1, Value::Bool(true));
    assert_eq!(set("After", "@as ['a.service']").unwrap().1, Value::Strs(vec!["a.service".into()]));
    assert_eq!(set("After", "@as []").unwrap().1, Value::Strs(Vec::new()));
    assert_eq!(set("Description", r"'it\'s'").unwrap().1, Value::Str("it's".into()));
    assert_eq!(set("TimeoutStopSec", "1.5").unwrap(), ("TimeoutStopUSec".into(), Value::U64(1_500_000)));
    assert_eq!(set("KillSignal", "37").unwrap().1, Value::I32(37));
    assert_eq!(set("CollectMode", "'inactive'").unwrap().1, Value::Str("inactive".into()));
    assert_eq!(set("DefaultDependencies", "true").unwrap().1, Value::Bool(true));
    assert_eq!(
        set("After", "['a.service', 'b.service']").unwrap().1,
        Value::Strs(vec!["a.service".into(), "b.service".into()])
    );
    for name in [
        "ExecStartPre",
        "ExecStopPost",
        "Wants",
        "Requires",
        "OnFailure",
        "Slice",
        "PIDs",
        "Delegate",
        "Sec",
        "MemoryMin",
        "MemoryLow",
        "CPUWeight",
        "IOWeight",
        "KillMode",
        "SendSIGKILL",
        "FinalKillSignal",
        "DeviceAllow",
        "ManagedOOMPreference",
    ] {
        let error = set(name, "'x'").unwrap_err();
        assert_eq!(error.diagnostics()[0].config_path, format!("annotations.org.systemd.property.{name}"));
    }
    assert!(set("KillSignal", "'a\\'").is_err(), "no end");
}

/// The systemd that this test runs under, if any, with a scope that is stopped at the end.
struct Live(Cgroup, Vec<std::process::Child>);

fn live(name: &str, resources: &str) -> Option<Live> {
    let user = !has_host_root();
    if !Path::new("/run/systemd/system").is_dir() || Bus::connect(&address(user), WAIT).is_err() {
        eprintln!("skipped: needs systemd and its bus");
        return None;
    }
    let resources: LinuxResources = serde_json::from_str(resources).unwrap();
    let path = format!(":onggi-test:{name}-{}", std::process::id());
    let layout = Layout::probe().unwrap();
    let none = HashMap::new();
    let mut cgroup =
        Cgroup::plan_systemd(&layout, Some(Path::new(&path)), "id", Some(&resources), &none).unwrap();
    cgroup.create_all().unwrap();
    assert!(cgroup.needs_attach() && cgroup.open_dir().unwrap().is_none());
    let child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let pid = child.id() as i32;
    let live = Live(cgroup, vec![child]);
    live.0.attach(pid).unwrap();
    assert!(live.0.exists());
    live.0.apply(&resources).unwrap();
    Some(live)
}

impl Drop for Live {
    fn drop(&mut self) {
        for child in &mut self.1 {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = self.0.remove();
    }
}

fn property(unit: &Unit, name: &str) -> String {
    let scope = if unit.user { "--user" } else { "--system" };
    let output = Command::new("systemctl").args([scope, "show", "-P", name, &unit.name]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
#[ignore = "needs root"]
fn a_scope_is_started_used_updated_and_stopped() {
    let Some(mut live) = live("life", r#"{"memory":{"limit":67108864},"pids":{"limit":20}}"#) else { return };
    let unit = live.0.unit.clone().unwrap();
    let pid = live.1[0].id() as i32;
    assert_eq!(live.0.pids(true).unwrap(), [pid]);
    assert_eq!(property(&unit, "ActiveState"), "active");
    assert_eq!(property(&unit, "Delegate"), "yes");
    assert_eq!(property(&unit, "TasksMax"), "20");
    // As an exec sees it: read from the state.
    let stored: Cgroup = serde_json::from_str(&serde_json::to_string(&live.0).unwrap()).unwrap();
    let second = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    stored.attach(second.id() as i32).unwrap();
    live.1.push(second);
    assert_eq!(stored.pids(true).unwrap().len(), 2);
    let used = Cgroup { unit: Some(unit.clone()), ..stored.clone() }.create_all().unwrap_err();
    assert_eq!(used.kind(), ErrorKind::WrongState);
    stored
        .update(
            &LinuxResources::default(),
            &serde_json::from_str(r#"{"pids":{"limit":33},"cpu":{"quota":12345,"period":100000}}"#).unwrap(),
        )
        .unwrap();
    assert_eq!(property(&unit, "TasksMax"), "33");
    let Stats { pids, memory, .. } = stored.stats().unwrap();
    assert_eq!((pids.limit, memory.usage.limit), (Some(33), Some(67108864)));
    stored.freeze().unwrap();
    assert!(stored.is_frozen().unwrap());
    stored.thaw().unwrap();
    stored.kill_all(libc::SIGKILL).unwrap();
    for child in &mut live.1 {
        child.wait().unwrap();
    }
    stored.remove().unwrap();
    assert!(!stored.exists());
    assert_ne!(property(&unit, "ActiveState"), "active");
    stored.remove().unwrap();
}

/// One write fails, then systemd refuses one property: files and properties are as before.
#[test]
#[ignore = "needs root"]
fn an_update_that_fails_leaves_files_and_properties() {
    let first = r#"{"pids":{"limit":20},"memory":{"limit":67108864}}"#;
    let Some(live) = live("undo", first) else { return };
    let before: LinuxResources = serde_json::from_str(first).unwrap();
    let unit = live.0.unit.clone().unwrap();
    for wrong in [
        r#"{"pids":{"limit":44},"hugepageLimits":[{"pageSize":"3MB","limit":1}]}"#,
        // The lists are fine for systemd, and for no kernel.
        r#"{"pids":{"limit":44},"cpu":{"cpus":"7000"}}"#,
        r#"{"pids":{"limit":44},"devices":[{"allow":true,"type":"c","major":1,"minor":3,"access":"x"}]}"#,
    ] {
        live.0.update(&before, &serde_json::from_str(wrong).unwrap()).unwrap_err();
        assert_eq!(live.0.stats().unwrap().pids.limit, Some(20), "{wrong}");
        assert_eq!(property(&unit, "TasksMax"), "20", "{wrong}");
    }
}

/// It used to open all devices of the host to the container, on v1.
#[test]
#[ignore = "needs root"]
fn device_rules_outlive_a_reload_of_systemd() {
    let rules = r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}]}"#;
    let Some(live) = live("reload", rules) else { return };
    let scope = if live.0.unit.as_ref().unwrap().user { "--user" } else { "--system" };
    let sorted = || {
        let text = live.0.dir_of("devices").map(|dir| std::fs::read_to_string(dir.join("devices.list")));
        let mut lines: Vec<_> = text?.ok()?.lines().map(str::to_owned).collect();
        lines.sort();
        Some(lines)
    };
    let before = sorted();
    if !live.0.is_v2() {
        assert!(before.as_ref().is_some_and(|lines| lines.contains(&"c 10:229 rw".into())), "{before:?}");
    }
    let reload = || {
        assert!(Command::new("systemctl").args([scope, "daemon-reload"]).status().unwrap().success());
        std::thread::sleep(Duration::from_millis(500));
    };
    reload();
    assert_eq!(sorted(), before);
    // Rules of an update as well, and the cgroup is not left frozen.
    let first: LinuxResources = serde_json::from_str(rules).unwrap();
    let other = rules.replace("229", "200");
    live.0.update(&first, &serde_json::from_str(&other).unwrap()).unwrap();
    assert!(!live.0.is_frozen().unwrap());
    let updated = sorted();
    assert!(live.0.is_v2() || updated != before, "{updated:?}");
    reload();
    assert_eq!(sorted(), updated);
}

/// v2: a policy that an administrator sets in systemd is asked beside ours, and stays.
#[test]
#[ignore = "needs root"]
fn an_update_leaves_the_device_program_of_systemd() {
    let rules = r#"{"devices":[{"allow":false,"access":"rwm"}]}"#;
    let Some(live) = live("beside", rules) else { return };
    let unit = live.0.unit.clone().unwrap();
    if !live.0.is_v2() || unit.user {
        eprintln!("skipped: needs cgroup v2 and the system's systemd");
        return;
    }
    let set = ["set-property", "--runtime", &unit.name, "DevicePolicy=closed"];
    assert!(Command::new("systemctl").args(set).status().unwrap().success());
    let dir = files::open(live.0.dir_of("devices").unwrap(), nix::fcntl::OFlag::O_RDONLY).unwrap();
    let count = || {
        let programs = crate::sys::bpf::attached_device_programs(&dir).unwrap();
        let ours = programs.iter().filter(|program| crate::sys::bpf::is_ours(program.as_fd())).count();
        (programs.len(), ours)
    };
    let until = Instant::now() + Duration::from_secs(5);
    while count() != (2, 1) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(count(), (2, 1), "systemd has attached no program of its own");
    let before: LinuxResources = serde_json::from_str(rules).unwrap();
    let change = r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}]}"#;
    live.0.update(&before, &serde_json::from_str(change).unwrap()).unwrap();
    assert_eq!(count(), (2, 1));
}

/// systemd knows nothing of huge pages, so nobody enabled them on the way down.
#[test]
#[ignore = "needs root"]
fn a_scope_on_v2_has_every_controller_of_the_root() {
    let Some(live) = live("all", "{}") else { return };
    if !live.0.is_v2() || live.0.unit.as_ref().unwrap().user {
        eprintln!("skipped: needs cgroup v2 and the system's systemd");
        return;
    }
    let read = |dir: &Path| std::fs::read_to_string(dir.join("cgroup.controllers")).unwrap();
    assert_eq!(read(live.0.dir_of("").unwrap()), read(Path::new("/sys/fs/cgroup")));
}

#[test]
fn devices_are_told_to_systemd_by_number() {
    let told = |json: &str| {
        let rules: LinuxResources = serde_json::from_str(json).unwrap();
        let list = properties::devices(rules.devices().as_deref().unwrap_or_default()).unwrap();
        assert_eq!(list[1], ("DeviceAllow".to_owned(), Value::Pairs(vec![])), "it empties the old list");
        match &list[..] {
            [(_, Value::Str(policy)), _, (_, Value::Pairs(pairs))] => (policy.clone(), pairs.clone()),
            other => panic!("{other:?}"),
        }
    };
    let (policy, pairs) = told(
        r#"{"devices":[{"allow":false,"access":"rwm"},
        {"allow":true,"type":"b","major":8,"access":"r"},{"allow":true,"type":"c","minor":5,"access":"r"}]}"#,
    );
    let has = |name: &str, access: &str| pairs.contains(&(name.into(), access.into()));
    assert_eq!(policy, "strict");
    assert!(has("block-8", "r") && has("char-*", "m") && has("block-*", "m") && has("char-136", "rwm"));
    assert!(has("/dev/char/1:3", "rwm") && has("/dev/char/10:200", "rwm") && pairs.len() == 13, "{pairs:?}");
    assert_eq!(told(r#"{"devices":[{"allow":true,"access":"rwm"}]}"#), ("auto".into(), vec![]));
    // All but some cannot be said; none is the safe side.
    let but_one =
        r#"{"devices":[{"allow":true,"access":"rwm"},{"allow":false,"type":"b","major":8,"access":"w"}]}"#;
    assert_eq!(told(but_one), ("strict".into(), vec![]));
}

#[test]
#[ignore = "needs root"]
fn a_scope_that_still_has_processes_is_stopped_with_them() {
    let Some(mut live) = live("stop", "{}") else { return };
    live.0.remove().unwrap();
    assert!(!live.0.exists());
    assert!(!live.1[0].wait().unwrap().success());
}

#[test]
#[ignore = "needs root"]
fn a_name_can_be_used_again_at_once() {
    for _ in 0..3 {
        let Some(mut live) = live("again", "{}") else { return };
        live.0.kill_all(libc::SIGKILL).unwrap();
        live.1[0].wait().unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn paths_are_below_the_slice() {
    let v2 = layout("30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/x\n");
    let path = Path::new("a-b.slice:p:x");
    let cgroup = Cgroup::plan_systemd(&v2, Some(path), "id", None, &HashMap::new()).unwrap();
    assert_eq!(cgroup.paths()[""], Path::new("/sys/fs/cgroup/a.slice/a-b.slice/p-x.scope"));
    assert_eq!(cgroup.systemd_unit(), Some("p-x.scope"));
    let text = serde_json::to_string(&cgroup).unwrap();
    assert!(!text.contains("Delegate"), "{text}");
}

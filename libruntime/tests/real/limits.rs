//! Limits of a container that runs: changed all or none, remembered, counted; and what the host lacks.

use super::bundle::{Bundle, config, exec, new_id, turn};
use super::{roles, world};
use libruntime::{Container, ErrorKind, Level, check, parse_resources};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

fn update(container: &Container, resources: &Value) -> libruntime::Result<()> {
    let (resources, _) = parse_resources(resources.to_string().as_bytes())?;
    container.update(&resources).map(drop)
}

/// The file of a controller, by its name on v1 and on v2.
fn file(container: &Container, controller: &str, v1: &str, v2: &str) -> PathBuf {
    let paths: std::collections::HashMap<_, _> = container.cgroup_paths().collect();
    match paths.get(controller) {
        Some(dir) => dir.join(v1),
        None => paths[""].join(v2),
    }
}

#[test]
#[ignore = "needs root"]
fn an_update_that_fails_in_the_middle_leaves_everything_as_it_was() {
    let Some(_turn) = turn() else { return };
    let mut config = config("sleep 1000");
    config["linux"]["resources"]["pids"] = json!({ "limit": 50 });
    config["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
    let bundle = Bundle::new(&config);
    let id = new_id();
    let container = bundle.create(&id).unwrap();
    container.start().unwrap();
    let pids = file(&container, "pids", "pids.max", "pids.max");
    let memory = file(&container, "memory", "memory.limit_in_bytes", "memory.max");
    let stored = bundle.store.join(&id).join("config.json");
    let resources = |text: &str| serde_json::from_str::<Value>(text).unwrap()["linux"]["resources"].clone();
    let now = || {
        let [pids, memory, stored] = [&pids, &memory, &stored].map(|path| fs::read_to_string(path).unwrap());
        (pids, memory, resources(&stored))
    };
    let before = now();
    let wrong =
        json!({ "memory": { "limit": 32 << 20 }, "pids": { "limit": 44 }, "cpu": { "cpus": "7777" } });
    let error = update(&container, &wrong).unwrap_err();
    assert_eq!(error.config_path(), Some("linux.resources.cpu.cpus"), "{error}");
    assert_eq!(now(), before);
    container.delete_force().unwrap();
}

#[test]
#[ignore = "needs root"]
fn updates_add_up_and_are_remembered() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("sleep 1000"));
    let id = new_id();
    let container = bundle.create(&id).unwrap();
    let size = |mebibytes: u64| json!(mebibytes << 20);
    update(&container, &json!({ "memory": { "limit": size(64) } })).unwrap();
    update(&container, &json!({ "memory": { "swap": size(96) } })).unwrap();
    update(&container, &json!({ "memory": { "limit": size(80) }, "pids": { "limit": 30 } })).unwrap();
    let read = |path: PathBuf| fs::read_to_string(path).unwrap().trim_end().parse::<u64>().ok();
    let memory = read(file(&container, "memory", "memory.limit_in_bytes", "memory.max"));
    assert_eq!(memory, Some(80 << 20));
    let swap = file(&container, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max");
    let expected = if swap.ends_with("memory.swap.max") { 16 << 20 } else { 96 << 20 };
    assert_eq!(read(swap), Some(expected));
    let text = fs::read_to_string(bundle.store.join(&id).join("config.json")).unwrap();
    let stored: Value = serde_json::from_str(&text).unwrap();
    let resources = &stored["linux"]["resources"];
    assert_eq!(resources["memory"], json!({ "limit": size(80), "swap": size(96) }), "{resources}");
    assert_eq!(resources["pids"]["limit"], 30);
    assert_eq!(stored["linux"]["namespaces"].as_array().map(Vec::len), Some(6), "{stored}");
    container.delete_force().unwrap();
}

#[test]
#[ignore = "needs root"]
fn statistics_have_the_containers_interfaces_and_not_the_hosts() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("sleep 1000"));
    let container = bundle.create(&new_id()).unwrap();
    assert_eq!(container.stats().unwrap().network, []);
    let namespace = format!("--net=/proc/{}/ns/net", container.pid().unwrap());
    let link = ["busybox", "ip", "link", "add", "onggi0", "type", "veth", "peer", "name", "onggi1"];
    let status = Command::new("nsenter").arg(namespace).args(link).status().unwrap();
    assert!(status.success(), "busybox ip link add");
    let stats = container.stats().unwrap();
    let names: Vec<_> = stats.network.iter().map(|interface| interface.name.as_str()).collect();
    // Both ends; busybox leaves the other one's name to the kernel.
    assert!(names.len() == 2 && names.contains(&"onggi0"), "{names:?}");
    assert_eq!(stats.to_runc()["network_interfaces"][1]["RxBytes"], 0);
    container.delete_force().unwrap();

    let mut shared = config("sleep 1000");
    let namespaces = shared["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "network");
    let bundle = Bundle::new(&shared);
    let container = bundle.create(&new_id()).unwrap();
    assert_eq!(container.stats().unwrap().network, []);
    container.delete_force().unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_host_that_runs_these_tests_can_run_containers() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("true"));
    let report = check(&bundle.runtime());
    assert!(report.can_run, "{report}");
    assert!(report.checks.iter().any(|check| check.name == "container" && check.level == Level::Ok));
    let left: Vec<_> = fs::read_dir(&bundle.store).into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    // A file where the state should be: everything else is still looked at.
    let report = check(&libruntime::Runtime::new(bundle.directory.join("config.json")));
    assert!(!report.can_run);
    let names: Vec<_> =
        report.checks.iter().filter(|check| check.level == Level::Missing).map(|c| c.name).collect();
    assert_eq!(names, ["state directory", "container"], "{report}");
}

/// Rootless Podman starts runtimes so, and its configurations have no user namespace.
#[test]
#[ignore = "needs root"]
fn root_of_a_user_namespace_can_run_a_container() {
    let Some(_turn) = turn() else { return };
    let mut config = config("exit 0");
    config["linux"]["namespaces"].as_array_mut().unwrap().retain(|entry| entry["type"] != "network");
    config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/sys");
    let bundle = Bundle::new(&config);
    let id = new_id();
    let role = roles::command("create_and_start", &bundle, &id);
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount"]).arg(role.get_program()).args(role.get_args());
    for (name, value) in role.get_envs() {
        value.map(|value| unshare.env(name, value));
    }
    let output = unshare.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    bundle.load(&id).unwrap().delete_force().unwrap();
}

/// systemd does this to hierarchies of v1 that it thinks its own.
#[test]
#[ignore = "needs root"]
fn exec_follows_init_out_of_a_cgroup_that_was_taken_away() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("sleep 1000"));
    let container = bundle.create(&new_id()).unwrap();
    container.start().unwrap();
    let paths: std::collections::HashMap<_, _> = container.cgroup_paths().collect();
    let Some(dir) = paths.get("pids") else {
        eprintln!("skipped: cgroup v1 has no pids controller here");
        return container.delete_force().map(drop).unwrap();
    };
    let parent = dir.parent().unwrap();
    fs::write(parent.join("cgroup.procs"), container.pid().unwrap().to_string()).unwrap();
    fs::remove_dir(dir).unwrap();
    let executed = super::bundle::exec(&container, &["/bin/busybox", "true"]).spawn().unwrap();
    assert_eq!(executed.wait().unwrap(), libruntime::ExitStatus::Code(0));
    container.delete_force().unwrap();
}

/// The caller's hard limit is raised first, while the privilege for that is there.
#[test]
#[ignore = "needs root"]
fn a_resource_limit_above_the_callers_takes_two_steps() {
    let Some(_turn) = turn() else { return };
    let mut config = config("true");
    let more_than_by_default = 1u64 << 40;
    config["process"]["rlimits"] =
        json!([{ "type": "RLIMIT_MSGQUEUE", "soft": more_than_by_default, "hard": more_than_by_default }]);
    let bundle = Bundle::new(&config);
    let steps = bundle.builder(&new_id()).explain().unwrap().to_text();
    assert_eq!(steps.matches("SetRlimit").count(), 2, "{steps}");
}

/// As systemd does with empty cgroups of v1, whenever it starts a unit.
#[test]
#[ignore = "needs root"]
fn a_cgroup_that_is_removed_before_a_process_is_in_it_is_made_again() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("sleep 1000"));
    let id = new_id();
    let first = bundle.create(&id).unwrap();
    let cgroup = first.cgroup_paths().find(|(controller, _)| controller == "freezer");
    first.delete_force().unwrap();
    let Some((_, cgroup)) = cgroup else {
        eprintln!("skipped: no freezer of cgroup v1");
        return;
    };
    let before = world::World::of(&bundle);
    let mut removals = 0;
    // On a busy host the removal comes too late more often than not.
    for _ in 0..300 {
        let is_created = AtomicBool::new(false);
        let remove_one = || {
            (0..).find_map(|_| {
                fs::remove_dir(&cgroup).map(|()| 1).ok().or(is_created.load(SeqCst).then_some(0))
            })
        };
        let container = std::thread::scope(|threads| {
            let removed = threads.spawn(remove_one);
            let container = bundle.create(&id);
            is_created.store(true, SeqCst);
            removals += removed.join().unwrap().unwrap();
            container
        });
        container.unwrap().delete_force().unwrap();
        if removals == 5 {
            break;
        }
    }
    assert!(removals > 0, "{cgroup:?} was never removed in time");
    world::World::of(&bundle).assert_nothing_beyond(&before);
}

/// In a frozen cgroup of v2 the process cannot even say its pid; in one of v1 it cannot be killed before it is thawed.
#[test]
#[ignore = "needs root"]
fn an_exec_that_a_paused_container_holds_up_is_ended() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("sleep 1000"));
    let container = bundle.builder(&new_id()).run().unwrap();
    let v1 = container.cgroup_paths().any(|(controller, _)| controller == "freezer");
    container.pause().unwrap();
    // By their pids: their names change while they start.
    let pids =
        || world::children().iter().filter_map(|child| child.split(' ').next().map(String::from)).collect();
    let before: BTreeSet<String> = pids();
    let limited = container.with_deadline(Duration::from_secs(2));
    let error = exec(&limited, &["/bin/busybox", "true"]).ignore_paused(true).spawn().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let children = || pids().difference(&before).cloned().collect::<Vec<_>>();
    let left = || (children(), container.processes().unwrap().len());
    if !v1 {
        assert_eq!(left(), (Vec::new(), 1));
    }
    container.resume().unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while left().1 > 1 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    // The next start reaps what could not be reaped then.
    exec(&container, &["/bin/busybox", "true"]).spawn().unwrap().wait().unwrap();
    assert_eq!(left(), (Vec::new(), 1));
    container.delete_force().unwrap();
}

//! Where the time of a start went: what a timeline has of the library and of the stage.

use super::bundle::{Bundle, config, exec, new_id, turn};
use super::world::World;
use libruntime::{EventKind, Timeline};
use serde_json::json;

fn steps(timeline: &Timeline) -> Vec<String> {
    let name = |event: &libruntime::Event| match &event.kind {
        EventKind::Step { name, .. } => Some(name.clone()),
        _ => None,
    };
    timeline.events().iter().filter_map(name).collect()
}

#[test]
#[ignore = "needs root"]
fn each_step_of_the_stage_is_in_a_timeline_once_and_in_order() {
    let Some(_turn) = turn() else { return };
    let mut config = config("true");
    // Its clock is another one than the library's.
    config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
    config["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 1000}, "boottime": {"secs": 1000}});
    let bundle = Bundle::new(&config);
    let before = World::of(&bundle);
    let timeline = Timeline::new();
    let container = timeline.record(|| bundle.create(&new_id())).unwrap();
    let created = steps(&timeline);
    assert!(created.len() > 20, "{created:?}");
    assert!(["ResetSignals", "EnterCgroup"].contains(&created[0].as_str()), "{created:?}");
    assert!(!created.contains(&"AwaitStart".to_string()), "{created:?}");
    timeline.record(|| container.start()).unwrap();
    container.wait().unwrap();
    let started = steps(&timeline);
    assert!(started.contains(&"AwaitStart".to_string()), "{started:?}");
    let mut numbers = Vec::new();
    for event in timeline.events() {
        assert!(event.took.as_secs() < 20, "{event}");
        if let EventKind::Step { number, .. } = event.kind {
            numbers.push(number);
        }
    }
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>());
    container.delete().unwrap();
    drop(container);
    World::of(&bundle).assert_nothing_beyond(&before);
}

#[test]
#[ignore = "needs root"]
fn a_timeline_ends_where_a_filter_begins_and_a_failed_step_is_not_in_it() {
    let Some(_turn) = turn() else { return };
    let mut config = config("sleep 1000");
    // The call by which the stage asks for the time.
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["clock_gettime"], "action": "SCMP_ACT_KILL_PROCESS"}]
    });
    config["process"]["args"] = json!(["/bin/busybox", "true"]);
    let bundle = Bundle::new(&config);
    let timeline = Timeline::new();
    let container = timeline.record(|| bundle.builder(&new_id()).run()).unwrap();
    assert_eq!(container.wait().unwrap(), libruntime::ExitStatus::Code(0));
    assert!(!steps(&timeline).contains(&"SetSeccomp".to_string()));
    config["process"]["cwd"] = json!("/bin/busybox");
    bundle.write(&config);
    let timeline = Timeline::new();
    timeline.record(|| bundle.builder(&new_id()).run()).unwrap_err();
    let done = steps(&timeline);
    assert!(done.contains(&"OpenRoot".to_string()) && !done.contains(&"Sync".to_string()), "{done:?}");
}

#[test]
#[ignore = "needs root"]
fn an_exec_has_a_timeline_of_its_own() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("sleep 1000"));
    let container = bundle.builder(&new_id()).run().unwrap();
    let timeline = Timeline::new();
    let process = timeline.record(|| exec(&container, &["/bin/busybox", "true"]).spawn()).unwrap();
    process.wait().unwrap();
    assert!(steps(&timeline).contains(&"Setns".to_string()), "{}", timeline.to_text());
    container.delete_force().unwrap();
}

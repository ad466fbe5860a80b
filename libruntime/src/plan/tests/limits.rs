//! Configurations of many mounts and devices: they work, or the error names the first that is too many.

use super::{Given, given, minimal, planned};
use crate::host::{CgroupMount, resource};
use crate::step::{MAX_SOURCES, Step};
use oci_spec::runtime::PosixRlimitType;
use serde_json::{Value, json};

fn binds(count: usize) -> Value {
    let mut config = minimal();
    let bind = |at| json!({"destination": format!("/m{at}"), "source": "/srv", "options": ["bind"]});
    config["mounts"] = (0..count).map(bind).collect();
    config
}

fn error(config: &Value, given: &Given) -> String {
    planned(config, given).map(|_| ()).expect_err("it is too much")
}

#[test]
fn ten_thousand_bind_mounts_can_be_planned() {
    let (plan, _) = planned(&binds(10_000), &given()).unwrap();
    assert!(plan.encode(&[], None).unwrap().len() > 10_000);
}

/// On cgroup v1 each of them is a bind mount of every hierarchy.
#[test]
fn the_first_cgroup_mount_beyond_the_limit_is_named() {
    let mut given = given();
    given.host.cgroup_mounts = vec![CgroupMount { v2: false, ..given.host.cgroup_mounts[0].clone() }; 12];
    let cgroups = |count| {
        let mut config = minimal();
        let mount = |at| json!({"destination": format!("/m{at}"), "type": "cgroup", "source": "cgroup"});
        config["mounts"] = (0..count).map(mount).collect();
        config
    };
    planned(&cgroups(MAX_SOURCES / 12), &given).unwrap();
    let text = error(&cgroups(MAX_SOURCES / 12 + 1), &given);
    assert_eq!(text, "more than 65536 bind mounts and devices, at mounts[5461].source");
}

#[test]
fn the_first_device_beyond_the_limit_is_named() {
    let mut config = minimal();
    config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "user"}]);
    let map = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
    let device = |at: usize| json!({"path": format!("/dev/d{at}"), "type": "c", "major": 1, "minor": 3});
    config["linux"]["devices"] = (0..66_000).map(device).collect();
    // Six default devices come first.
    let text = error(&config, &given());
    assert_eq!(text, "more than 65536 bind mounts and devices, at linux.devices[65530]");
}

#[test]
fn the_first_id_map_beyond_the_limit_is_named() {
    let mut config = binds(300);
    for (at, mount) in config["mounts"].as_array_mut().into_iter().flatten().enumerate() {
        let map = json!([{"containerID": 0, "hostID": at, "size": 1}]);
        mount["uidMappings"] = map.clone();
        mount["gidMappings"] = map;
    }
    let text = error(&config, &given());
    assert!(text.starts_with("more than 256 namespaces, id maps and cgroups, at mounts[25"), "{text}");
}

/// Every source is a descriptor until it is attached.
#[test]
fn the_limit_on_open_files_is_raised_for_the_sources_and_lowered_again() {
    let mut given = given();
    given.host.rlimits = [(resource(PosixRlimitType::RlimitNofile), (1024, 20_000))].into();
    let limits = |count| {
        let (plan, _) = planned(&binds(count), &given).unwrap();
        let soft = |step: &Step<_>| match step {
            Step::SetRlimit { soft, .. } => Some(*soft),
            _ => None,
        };
        plan.steps().iter().filter_map(|(step, _)| soft(step)).collect::<Vec<_>>()
    };
    assert_eq!(limits(100), [0; 0]);
    assert_eq!(limits(5000), [20_000, 1024]);
}

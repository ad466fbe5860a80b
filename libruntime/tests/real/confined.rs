//! What an image brings runs as its process does, and says nothing about itself that is believed: hooks whose program
//! is the image's, the root that is moved without pivot_root(2), and the state of a container.

use super::bundle::{Bundle, config, new_id, turn};
use libruntime::Status;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

fn bundle(config: &serde_json::Value, applets: &[&str]) -> Bundle {
    let bundle = Bundle::new(config);
    for name in applets {
        symlink("busybox", bundle.rootfs().join("bin").join(name)).unwrap();
    }
    let out = bundle.rootfs().join("out");
    fs::create_dir(&out).unwrap();
    // The root of a user namespace is another user.
    for directory in [&out, &bundle.rootfs()] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
    }
    bundle
}

#[test]
#[ignore = "needs root"]
fn a_start_container_hook_runs_as_the_containers_process() {
    let Some(_turn) = turn() else { return };
    let mut config = config("sleep 1000");
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "cgroup");
    config["process"]["user"] = json!({"uid": 1000, "gid": 1001});
    config["process"]["noNewPrivileges"] = json!(true);
    config["process"]["cwd"] = json!("/out");
    config["process"]["env"] = json!(["PATH=/bin", "OF=process"]);
    config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["acct"], "action": "SCMP_ACT_ERRNO"}
    ]});
    let script = |name: &str| format!("{{ cat /proc/self/status /proc/self/cgroup; env; }} > {name}");
    let hook = |name: &str| json!({"path": "/bin/busybox", "args": ["sh", "-c", script(name)]});
    let mut with_env = hook("own");
    with_env["env"] = json!(["PATH=/bin", "OF=hook"]);
    config["hooks"] = json!({"startContainer": [hook("inherited"), with_env]});
    let bundle = bundle(&config, &["cat", "env"]);
    let id = new_id();
    let container = bundle.create(&id).unwrap();
    container.start().unwrap();
    let read = |name: &str| fs::read_to_string(bundle.rootfs().join("out").join(name)).unwrap();
    for (name, variable) in [("inherited", "OF=process"), ("own", "OF=hook")] {
        let text = read(name);
        let expected = [
            "Uid:\t1000\t1000\t1000\t1000",
            "Gid:\t1001\t1001\t1001\t1001",
            "CapEff:\t0000000000000000",
            "CapPrm:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
            variable,
        ];
        for line in expected {
            assert!(text.lines().any(|found| found == line), "{name}: no {line:?} in {text}");
        }
        assert!(
            text.lines().any(|line| line.ends_with(&id)),
            "{name}: not in the container's cgroup: {text}"
        );
    }
    assert_eq!((read("inherited").contains("HOME=/"), read("own").contains("HOME=")), (true, false));
    container.delete_force().unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_create_container_hook_starts_at_the_containers_root() {
    let Some(_turn) = turn() else { return };
    for user_namespace in [false, true] {
        let mut config = config("true");
        if user_namespace {
            config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
        }
        config["hooks"] = json!({"createContainer": [{
            "path": "/bin/sh", "args": ["sh", "-c", "echo here > ./out/made"]
        }]});
        let bundle = bundle(&config, &[]);
        let container = bundle.create(&new_id()).unwrap();
        assert_eq!(fs::read_to_string(bundle.rootfs().join("out/made")).unwrap(), "here\n");
        container.delete_force().unwrap();
    }
}

/// The kernel allows a procfs without masks where another one is visible in the mount namespace.
#[test]
#[ignore = "needs root"]
fn a_root_that_is_moved_hides_the_hosts_procfs() {
    let Some(_turn) = turn() else { return };
    let mount =
        "{ mount -t proc proc /out && echo proc; mount -t sysfs sys /out && echo sysfs; } 2>/dev/null";
    let attack = format!("unshare -mrpf sh -c '{mount}'; echo end");
    let mut config = config(&attack);
    for set in ["bounding", "effective", "permitted"] {
        config["process"]["capabilities"][set] = json!(["CAP_SETFCAP", "CAP_SETUID", "CAP_SETGID"]);
    }
    let bundle = bundle(&config, &["mount", "unshare", "sh"]);
    for no_pivot in [false, true] {
        let path = bundle.directory.join("output");
        let output = fs::File::create(&path).unwrap();
        let builder = bundle.builder(&new_id()).stdout(output.into()).no_pivot(no_pivot);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let container = builder.create().unwrap();
        container.start().unwrap();
        container.wait().unwrap();
        container.delete().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "end\n", "no_pivot: {no_pivot}");
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts, "the host's mounts");
    }
}

/// As `/proc/PID/exe` shows the stage.
#[test]
#[ignore = "needs root"]
fn a_program_with_the_name_of_the_stage_is_running_and_not_created() {
    let Some(_turn) = turn() else { return };
    let mut config = config("");
    config["process"]["args"] = json!(["/memfd:onggi-stage/busybox", "sleep", "1000"]);
    let bundle = bundle(&config, &[]);
    let directory = bundle.rootfs().join("memfd:onggi-stage");
    fs::create_dir(&directory).unwrap();
    fs::copy(bundle.rootfs().join("bin/busybox"), directory.join("busybox")).unwrap();
    let container = bundle.create(&new_id()).unwrap();
    assert_eq!(container.status(), Status::Created);
    container.start().unwrap();
    assert_eq!(container.status(), Status::Running);
    let same = bundle.load(container.id()).unwrap();
    assert!(same.delete().is_err(), "a running container was deleted");
    container.delete_force().unwrap();
}

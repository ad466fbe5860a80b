//! Invariant "nothing ignored", its second half: each property of the spec changes what is done.
//!
//! `data/properties.txt` lists them. One after the other gets another value in a config that has all
//! of them. Then the plan is another, or that of `exec`, of a hook or of the seccomp filter is, or
//! there is another warning. What the library does beside the plan is in [`BESIDE`], with the
//! source that must read the property. A property that is none of these fails the test.

use super::{Given, given};
use crate::config::Config;
use crate::host::Lsm;
use crate::plan::create::create;
use crate::plan::exec;
use crate::seccomp;
use serde_json::{Value, json};

const LIST: &str = include_str!("../../../tests/data/properties.txt");
const FULL: &str = include_str!("../../../tests/data/full.json");

/// Values that are no number or text to which something can be added: the property, the place in
/// the full config, and the value there (null takes it out).
fn others() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("mounts[].type", "/mounts/0/type", json!("tmpfs")),
        ("mounts[].options[]", "/mounts/0/options/0", json!("nodev")),
        ("process.capabilities.bounding[]", "/process/capabilities/bounding/0", json!("CAP_FOWNER")),
        ("process.capabilities.effective[]", "/process/capabilities/effective/0", json!("CAP_FOWNER")),
        ("process.capabilities.inheritable[]", "/process/capabilities/inheritable/0", json!("CAP_FOWNER")),
        ("process.capabilities.permitted[]", "/process/capabilities/permitted/0", json!("CAP_FOWNER")),
        ("process.capabilities.ambient[]", "/process/capabilities/ambient/0", json!("CAP_CHOWN")),
        ("process.rlimits[].type", "/process/rlimits/0/type", json!("RLIMIT_CORE")),
        ("process.rlimits[].hard", "/process/rlimits/0/hard", json!(2048)),
        ("process.ioPriority.class", "/process/ioPriority/class", json!("IOPRIO_CLASS_BE")),
        ("process.scheduler.policy", "/process/scheduler", json!({"policy": "SCHED_FIFO", "priority": 1})),
        ("process.scheduler.priority", "/process/scheduler", json!({"policy": "SCHED_RR", "priority": 1})),
        ("process.scheduler.flags[]", "/process/scheduler/flags/0", json!("SCHED_FLAG_DL_OVERRUN")),
        ("process.execCPUAffinity.initial", "/process/execCPUAffinity/initial", json!("2")),
        ("process.execCPUAffinity.final", "/process/execCPUAffinity/final", json!("2")),
        ("linux.namespaces[].type", "/linux/namespaces/3/type", Value::Null),
        ("linux.devices[].type", "/linux/devices/0/type", json!("b")),
        ("linux.memoryPolicy.mode", "/linux/memoryPolicy/mode", json!("MPOL_INTERLEAVE")),
        ("linux.memoryPolicy.nodes", "/linux/memoryPolicy/nodes", json!("1")),
        ("linux.memoryPolicy.flags[]", "/linux/memoryPolicy/flags/0", json!("MPOL_F_RELATIVE_NODES")),
        ("linux.seccomp.defaultAction", "/linux/seccomp/defaultAction", json!("SCMP_ACT_TRACE")),
        ("linux.seccomp.architectures[]", "/linux/seccomp/architectures/1", json!("SCMP_ARCH_X86")),
        ("linux.seccomp.flags[]", "/linux/seccomp/flags/0", json!("SECCOMP_FILTER_FLAG_LOG")),
        ("linux.seccomp.syscalls[].names[]", "/linux/seccomp/syscalls/0/names/0", json!("open")),
        ("linux.seccomp.syscalls[].action", "/linux/seccomp/syscalls/1/action", json!("SCMP_ACT_ERRNO")),
        ("linux.seccomp.syscalls[].args[].op", "/linux/seccomp/syscalls/1/args/0/op", json!("SCMP_CMP_NE")),
        ("linux.rootfsPropagation", "/linux/rootfsPropagation", json!("rprivate")),
        ("linux.personality.domain", "/linux/personality/domain", json!("LINUX")),
    ]
}

/// What is done beside the plan, why it is not in it, and the sources that must read the property:
/// each of them has to name its accessor.
const BESIDE: &[(&str, &str, &[&str])] = &[
    ("ociVersion", "it is a part of the state", &["transaction.rs"]),
    ("annotations.*", "they are a part of the state", &["transaction.rs"]),
    ("linux.cgroupsPath", "the library makes the cgroup", &["prepare.rs"]),
    ("hooks.prestart[].timeout", "the library waits for the hook", &["hooks.rs"]),
    ("hooks.createRuntime[].timeout", "the library waits for the hook", &["hooks.rs"]),
    ("hooks.poststart[].timeout", "the library waits for the hook", &["hooks.rs"]),
    ("hooks.poststop[].timeout", "the library waits for the hook", &["hooks.rs"]),
    ("hooks.createContainer[].timeout", "the library waits for the hook", &["hooks.rs"]),
    ("hooks.startContainer[].timeout", "the library waits for the hook", &["hooks.rs"]),
    ("linux.netDevices", "the library moves interfaces", &["netdevices.rs"]),
    ("linux.intelRdt", "the library writes to resctrl", &["resctrl.rs"]),
    ("linux.resources.devices[]", "the cgroup's rules or program", &["cgroup/devices.rs"]),
    ("linux.resources.unified", "only cgroup v2 has such files", &["cgroup/v1.rs", "cgroup/v2.rs"]),
    ("linux.resources.pids", "one file of the cgroup", &["cgroup/v1.rs", "cgroup/v2.rs"]),
    ("linux.resources.hugepageLimits[]", "both versions call one function", &["cgroup/v1.rs"]),
    ("linux.resources.rdma", "both versions call one function", &["cgroup/v1.rs"]),
    ("linux.resources.network.", "cgroup v1 applies it; v2 refuses all of it", &["cgroup/v1.rs"]),
    ("linux.resources.cpu.cpus", "both versions call one function", &["cgroup/v1.rs"]),
    ("linux.resources.cpu.mems", "both versions call one function", &["cgroup/v1.rs"]),
    ("linux.resources.", "applied or refused, by version", &["cgroup/v1.rs", "cgroup/v2.rs"]),
];

fn rows() -> Vec<(&'static str, &'static str)> {
    let lines = LIST.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.filter_map(|line| line.split_once(' ')).map(|(path, what)| (path, what.trim())).collect()
}

/// The full config; an agent cannot be asked about `write`, with which it is told of the call.
fn full() -> Value {
    let mut full: Value = serde_json::from_str(FULL).expect("it is JSON");
    full["linux"]["seccomp"]["syscalls"][0]["names"] = json!(["read", "mkdir"]);
    // Only a new filesystem gets a label.
    let mounts = full["mounts"].as_array_mut().expect("a list");
    mounts.push(json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs"}));
    full
}

/// Root with both security modules and a terminal to hand over.
fn host() -> Given {
    let mut given = given();
    given.host.lsms.extend([Lsm::AppArmor, Lsm::SELinux]);
    given.request.console_socket = true;
    given
}

/// Everything that is decided from a config without the help of the kernel.
fn decided(config: &Value) -> Result<String, String> {
    let given = host();
    let said = |error: crate::Error| error.to_string();
    let Config { spec, mut warnings } = Config::parse(config.to_string().as_bytes()).map_err(said)?;
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let filter = profile.map(|profile| seccomp::compile(profile, &mut warnings)).transpose();
    let filter = filter.map_err(crate::Error::invalid).map_err(said)?;
    let plan = create(&spec, &given.host, &given.request, filter.as_ref()).map_err(said)?;
    let process = spec.process().as_ref().ok_or("no process")?;
    let join = exec::exec(&spec, process, &given.host, &given.request, filter.as_ref()).map_err(said)?;
    let hooks = spec.hooks().as_ref();
    #[allow(deprecated)] // engines still use prestart
    let inside = [
        hooks.and_then(|all| all.prestart().as_ref()),
        hooks.and_then(|all| all.create_runtime().as_ref()),
        hooks.and_then(|all| all.create_container().as_ref()),
        hooks.and_then(|all| all.start_container().as_ref()),
        hooks.and_then(|all| all.poststart().as_ref()),
        hooks.and_then(|all| all.poststop().as_ref()),
    ];
    let plan_hook = |hook| {
        let as_process =
            exec::hook_as_process(hook, "h", &spec, process, &given.host, &given.request, filter.as_ref());
        [exec::hook(hook, "h", true), exec::hook_at_root(hook, "h", &spec, 7), as_process].map(Result::unwrap)
    };
    let inside: Vec<_> = inside.into_iter().flatten().flatten().flat_map(plan_hook).collect();
    let mut text = format!("{warnings:?} {:?}", filter.map(|filter| filter.notify));
    for plan in [plan, join].into_iter().chain(inside) {
        text += &format!("{:?} {:?} {:?}", plan.encode(&[], None).unwrap(), plan.handed, plan.warnings);
        text += &format!("{:?} {:?}", plan.id_maps, plan.new_user_namespace);
    }
    Ok(text)
}

/// Every place of the config that a path of the list stands for.
fn places(value: &Value, path: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for step in path.replace("[]", ".[]").split('.').filter(|step| !step.is_empty()) {
        let below = |place: &String| -> Vec<String> {
            match (step, value.pointer(place)) {
                ("[]", Some(Value::Array(list))) => {
                    (0..list.len()).map(|at| format!("{place}/{at}")).collect()
                }
                ("*", Some(Value::Object(map))) => map.keys().map(|key| format!("{place}/{key}")).collect(),
                (key, Some(Value::Object(map))) if map.contains_key(key) => vec![format!("{place}/{key}")],
                _ => Vec::new(),
            }
        };
        found = found.iter().flat_map(below).collect();
    }
    found
}

fn another(value: &Value) -> Value {
    match value {
        Value::Bool(value) => json!(!value),
        Value::String(text) => json!(format!("{text}x")),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(0), _) => json!(1),
            (Some(number), _) => json!(number - 1),
            (_, Some(number)) => json!(number - 1),
            _ => panic!("{number} is no whole number"),
        },
        other => panic!("{other} is no leaf"),
    }
}

/// The full config with another value for a property.
fn changed(full: &Value, path: &str) -> Value {
    let mut config = full.clone();
    if let Some((_, place, value)) = others().iter().find(|(property, ..)| *property == path) {
        if value.is_null() {
            let list = place.rsplitn(3, '/').nth(2).expect("a place in a list");
            let at = place.rsplit('/').nth(1).and_then(|at| at.parse::<usize>().ok());
            let list = config.pointer_mut(list).and_then(Value::as_array_mut).expect("a list");
            list.remove(at.expect("an index"));
        } else {
            *config.pointer_mut(place).unwrap_or_else(|| panic!("{place} is not in the full config")) =
                value.clone();
        }
        return config;
    }
    let places = places(full, path);
    let place = places.first().unwrap_or_else(|| panic!("{path} is not in the full config"));
    let value = config.pointer_mut(place).expect("just found");
    *value = another(value);
    config
}

/// The accessor that oci-spec has for a property: its last name in Rust's spelling.
fn accessor(path: &str) -> String {
    let path = path.trim_end_matches("[]").trim_end_matches(".*");
    let name = path.rsplit('.').next().unwrap_or_default();
    match name {
        "ociVersion" => return "version".into(),
        "type" => return "typ".into(),
        "enableCMT" => return "enable_cmt".into(),
        "enableMBM" => return "enable_mbm".into(),
        _ => {}
    }
    let mut text = String::new();
    let mut before = false;
    for letter in name.chars() {
        if letter.is_uppercase() && !before {
            text.push('_');
        }
        // An abbreviation is one word, but its last letter may begin the next: disableOOMKiller.
        before = letter.is_uppercase();
        text.extend(letter.to_lowercase());
    }
    text.replace("oomkiller", "oom_killer")
        .replace("read_iopsdevice", "read_iops_device")
        .replace("write_iopsdevice", "write_iops_device")
}

/// The source of a module, without its tests.
fn source(file: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.split("#[cfg(test)]").next().unwrap_or_default().to_string()
}

fn is_read_beside(path: &str) -> Option<Result<(), String>> {
    let (_, why, files) = BESIDE.iter().find(|(prefix, ..)| path.starts_with(prefix))?;
    let call = format!("{}()", accessor(path));
    let lacking: Vec<_> = files.iter().filter(|file| !source(file).contains(&call)).collect();
    let text = || format!("{path} ({why}): no {call} in {lacking:?}");
    Some(if lacking.is_empty() { Ok(()) } else { Err(text()) })
}

/// A node of the host takes the place of one that a user namespace may not make. Its owner is the
/// host's, and nothing says so yet.
const KNOWN_GAPS: &[&str] = &[];

#[test]
fn no_property_of_the_spec_is_ignored() {
    let full = full();
    let before = decided(&full).expect("the full config can be planned");
    let (mut ignored, mut gaps) = (Vec::new(), Vec::new());
    for (path, _) in rows().into_iter().filter(|(_, what)| what.starts_with("applied")) {
        let found = match is_read_beside(path) {
            Some(found) => found,
            None => match decided(&changed(&full, path)) {
                Ok(after) if after != before => Ok(()),
                Ok(_) if KNOWN_GAPS.contains(&path) => {
                    gaps.push(path);
                    Ok(())
                }
                Ok(_) => Err(format!("{path}: another value changes nothing")),
                Err(error) => Err(format!("{path}: another value is refused: {error}")),
            },
        };
        ignored.extend(found.err());
    }
    assert!(ignored.is_empty(), "{} properties are ignored:\n{}", ignored.len(), ignored.join("\n"));
    assert_eq!(gaps, KNOWN_GAPS, "a gap is closed: take it off the list");
}

/// The test above can fail: a change that means nothing is seen as one.
#[test]
fn what_is_ignored_is_noticed() {
    let full = full();
    let mut config = full.clone();
    config["annotations"]["other"] = json!("value");
    assert_eq!(decided(&config), decided(&full), "annotations are no part of a plan");
    assert!(is_read_beside("linux.resources.memory.nonsense").is_some_and(|found| found.is_err()));
}

#[test]
fn an_accessor_is_spelled_as_oci_spec_does() {
    for (property, name) in [
        ("linux.resources.memory.disableOOMKiller", "disable_oom_killer"),
        ("linux.resources.memory.kernelTCP", "kernel_tcp"),
        ("linux.intelRdt.closID", "clos_id"),
        ("linux.resources.blockIO.throttleReadIOPSDevice[].rate", "rate"),
        ("linux.intelRdt.schemata[]", "schemata"),
    ] {
        assert_eq!(accessor(property), name);
    }
}

//! Errors name the call, its object, the errno, the place in `config.json`, and a hint where there is one.

use super::bundle::{Bundle, config, new_id, turn};
use serde_json::{Value, json};

/// A config that cannot become a container, and what the error has to say.
pub struct Bad {
    pub name: &'static str,
    pub config: Value,
    /// Parts of the text.
    says: &'static [&'static str],
    errno: Option<&'static str>,
    /// The place; empty where the findings have it.
    at: &'static str,
    hint: bool,
}

fn bad(
    name: &'static str,
    change: impl FnOnce(&mut Value),
    says: &'static [&'static str],
    errno: &'static str,
    at: &'static str,
    hint: bool,
) -> Bad {
    let mut config = config("true");
    change(&mut config);
    Bad { name, config, says, errno: (!errno.is_empty()).then_some(errno), at, hint }
}

fn add_mount(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

fn set(pointer: &'static str, value: Value) -> impl FnOnce(&mut Value) {
    move |config| {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value;
    }
}

/// Every kind of failure: while reading, planning, in the library's part and in the stage's.
pub fn bad_configs(bundle: &Bundle) -> Vec<Bad> {
    std::fs::write(bundle.rootfs().join("plain"), "text").unwrap();
    std::fs::write(bundle.rootfs().join("noexec"), "#!/bin/busybox sh\n").unwrap();
    if !bundle.rootfs().join("link").exists() {
        std::os::unix::fs::symlink("/bin", bundle.rootfs().join("link")).unwrap();
    }
    let mut all = mounts();
    all.extend(identity());
    all.extend(kernel());
    all.extend(hooks());
    all.extend(texts());
    all
}

fn mounts() -> Vec<Bad> {
    let mount = |mount: Value| move |config: &mut Value| add_mount(config, mount);
    let bind =
        |source: &str| json!({"destination": "/d", "type": "bind", "source": source, "options": ["rbind"]});
    vec![
        bad(
            "no root",
            set("/root/path", json!("missing")),
            &["/missing", "no such file"],
            "ENOENT",
            "root.path",
            true,
        ),
        bad(
            "a file as root",
            set("/root/path", json!("rootfs/plain")),
            &["rootfs/plain"],
            "ENOTDIR",
            "root.path",
            true,
        ),
        bad(
            "no source",
            mount(bind("/nowhere")),
            &["open_tree /nowhere"],
            "ENOENT",
            "mounts[4].source",
            true,
        ),
        bad(
            "a source below a file",
            mount(bind("/etc/passwd/x")),
            &["open_tree /etc/passwd/x"],
            "ENOTDIR",
            "mounts[4].source",
            false,
        ),
        bad(
            "a file over a directory",
            mount(json!({"destination": "/bin", "type": "bind", "source": "/etc/passwd"})),
            &["move_mount /etc/passwd at /bin", "the source is not a directory"],
            "EISDIR",
            "mounts[4]",
            false,
        ),
        bad(
            "no such filesystem",
            mount(json!({"destination": "/d", "type": "nonsense"})),
            &["fsopen nonsense at /d"],
            "ENODEV",
            "mounts[4]",
            true,
        ),
        bad(
            "a bad option",
            mount(json!({"destination": "/d", "type": "tmpfs", "options": ["nonsense=1"]})),
            &["fsconfig tmpfs at /d"],
            "EINVAL",
            "mounts[4]",
            true,
        ),
        bad(
            "a bad value",
            mount(json!({"destination": "/d", "type": "tmpfs", "options": ["size=x"]})),
            &["fsconfig tmpfs at /d"],
            "EINVAL",
            "mounts[4]",
            true,
        ),
        bad(
            "procfs on a link",
            mount(json!({"destination": "/link", "type": "proc", "source": "proc"})),
            &["openat2 proc at /link"],
            "ELOOP",
            "mounts[4]",
            true,
        ),
        bad(
            "a directory below a file",
            mount(json!({"destination": "/plain/d", "type": "tmpfs"})),
            &["tmpfs at /plain/d"],
            "ENOTDIR",
            "mounts[4]",
            false,
        ),
        bad(
            "a mount in sysfs",
            mount(json!({"destination": "/sys/new", "type": "tmpfs"})),
            &["mkdirat tmpfs at /sys/new"],
            "EPERM",
            "mounts[4]",
            false,
        ),
        bad(
            "a remount of nothing",
            mount(json!({"destination": "/nowhere", "options": ["remount", "ro"]})),
            &["/nowhere"],
            "ENOENT",
            "mounts[4]",
            false,
        ),
        bad(
            "a bind mount without a source",
            mount(json!({"destination": "/d", "type": "bind"})),
            &["mounts[4].source"],
            "",
            "",
            false,
        ),
        bad(
            "an idmap without maps",
            mount(json!({"destination": "/d", "type": "bind", "source": "/etc", "options": ["idmap"]})),
            &["mounts[4].options"],
            "",
            "",
            false,
        ),
        bad(
            "a device below a file",
            set("/linux/devices", json!([{"path": "/plain/x", "type": "c", "major": 1, "minor": 3}])),
            &["/plain/x"],
            "ENOTDIR",
            "linux.devices[0]",
            false,
        ),
    ]
}

fn identity() -> Vec<Bad> {
    vec![
        bad(
            "no program",
            set("/process/args", json!(["/bin/missing"])),
            &["exec: \"/bin/missing\"", "no such file"],
            "ENOENT",
            "process.args[0]",
            true,
        ),
        bad(
            "no program in the path",
            set("/process/args", json!(["missing"])),
            &["executable file not found in $PATH"],
            "ENOENT",
            "process.args[0]",
            true,
        ),
        bad(
            "a directory as program",
            set("/process/args", json!(["/bin"])),
            &["exec: \"/bin\"", "permission denied"],
            "EACCES",
            "process.args[0]",
            true,
        ),
        bad(
            "a file that may not be executed",
            set("/process/args", json!(["/noexec"])),
            &["permission denied"],
            "EACCES",
            "process.args[0]",
            true,
        ),
        bad(
            "a directory that is a file",
            set("/process/cwd", json!("/plain")),
            &["/plain"],
            "ENOTDIR",
            "process.cwd",
            false,
        ),
        bad(
            "a directory through a magic link",
            set("/process/cwd", json!("/proc/self/cwd")),
            &["/proc/self/cwd"],
            "ELOOP",
            "process.cwd",
            true,
        ),
        bad(
            "a relative directory",
            set("/process/cwd", json!("tmp")),
            &["process.cwd", "not an absolute path"],
            "",
            "",
            false,
        ),
        bad("no arguments", set("/process/args", json!([])), &["process.args"], "", "", false),
        bad(
            "a soft limit above the hard one",
            set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}])),
            &["process.rlimits[0].soft"],
            "",
            "",
            false,
        ),
        bad(
            "an unknown limit",
            set("/process/rlimits", json!([{"type": "RLIMIT_X", "soft": 1, "hard": 1}])),
            &["process.rlimits[0].type"],
            "",
            "",
            false,
        ),
        bad(
            "a score out of range",
            set("/process/oomScoreAdj", json!(2000)),
            &["process.oomScoreAdj", "2000"],
            "",
            "",
            false,
        ),
        bad(
            "a terminal without a socket",
            set("/process/terminal", json!(true)),
            &["terminal without a socket"],
            "",
            "process.terminal",
            true,
        ),
        bad(
            "a scheduler with a bad priority",
            set("/process/scheduler", json!({"policy": "SCHED_FIFO", "priority": 200})),
            &["process.scheduler"],
            "",
            "",
            false,
        ),
    ]
}

fn kernel() -> Vec<Bad> {
    let spaces = |namespace: Value| {
        move |config: &mut Value| {
            let list = config["linux"]["namespaces"].as_array_mut().unwrap();
            list.retain(|one| one["type"] != namespace["type"]);
            list.push(namespace);
        }
    };
    vec![
        bad(
            "a namespace that is not there",
            spaces(json!({"type": "network", "path": "/run/netns/missing"})),
            &["open /run/netns/missing"],
            "ENOENT",
            "linux.namespaces[5]",
            false,
        ),
        bad(
            "a file that is no namespace",
            spaces(json!({"type": "network", "path": "/etc/passwd"})),
            &["setns network namespace"],
            "EINVAL",
            "linux.namespaces[5]",
            false,
        ),
        bad(
            "a namespace of another kind",
            spaces(json!({"type": "network", "path": "/proc/self/ns/uts"})),
            &["setns network namespace"],
            "EINVAL",
            "linux.namespaces[5]",
            false,
        ),
        bad(
            "no mount namespace",
            set("/linux/namespaces", json!([{"type": "pid"}])),
            &["mount namespace"],
            "",
            "",
            false,
        ),
        bad(
            "two namespaces of one kind",
            |config| config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "pid"})),
            &["linux.namespaces[6].type", "linux.namespaces[1]"],
            "",
            "",
            false,
        ),
        bad(
            "no such sysctl",
            set("/linux/sysctl", json!({"net.ipv4.nonsense": "1"})),
            &["openat2 /proc/sys/net/ipv4/nonsense"],
            "ENOENT",
            "linux.sysctl[net.ipv4.nonsense]",
            true,
        ),
        bad(
            "a bad value of a sysctl",
            set("/linux/sysctl", json!({"net.ipv4.ip_forward": "x"})),
            &["failed to write sysctl net.ipv4.ip_forward = \"x\": ", "write /proc/sys/net/ipv4/ip_forward"],
            "EINVAL",
            "linux.sysctl[net.ipv4.ip_forward]",
            false,
        ),
        bad(
            "a sysctl of the host",
            set("/linux/sysctl", json!({"vm.swappiness": "1"})),
            &["linux.sysctl.vm.swappiness"],
            "",
            "",
            false,
        ),
        bad(
            "the root of the cgroups",
            set("/linux/cgroupsPath", json!("/x/../..")),
            &["linux.cgroupsPath"],
            "",
            "",
            false,
        ),
        bad(
            "an unknown seccomp action",
            set("/linux/seccomp", json!({"defaultAction": "NO"})),
            &["linux.seccomp.defaultAction"],
            "",
            "",
            true,
        ),
        bad(
            "a notifying filter without a listener",
            set(
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}),
            ),
            &["linux.seccomp.listenerPath"],
            "",
            "",
            false,
        ),
    ]
}

fn hooks() -> Vec<Bad> {
    let hook = |kind: &'static str, hook: Value| set("/hooks", json!({ kind: [hook] }));
    let sleep = json!({"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1});
    let inside = json!({"path": "/bin/busybox", "args": ["sleep", "1000"], "timeout": 1});
    vec![
        bad(
            "a hook that is not there",
            hook("createRuntime", json!({"path": "/nowhere"})),
            &["fork/exec /nowhere"],
            "ENOENT",
            "hooks.createRuntime[0].path",
            false,
        ),
        bad(
            "a hook that fails",
            hook("createRuntime", json!({"path": "/bin/sh", "args": ["sh", "-c", "echo sorry >&2; exit 3"]})),
            &["error running", "/bin/sh: exit status", "3", "sorry"],
            "",
            "hooks.createRuntime[0]",
            false,
        ),
        bad(
            "a hook that takes too long",
            hook("prestart", sleep),
            &["/bin/sleep", "1.0s"],
            "",
            "hooks.prestart[0].timeout",
            false,
        ),
        bad(
            "a hook inside that is not there",
            hook("createContainer", json!({"path": "/nowhere"})),
            &["/nowhere"],
            "ENOENT",
            "hooks.createContainer[0].path",
            true,
        ),
        bad(
            "a hook inside that fails",
            hook("startContainer", json!({"path": "/bin/busybox", "args": ["sh", "-c", "exit 4"]})),
            &["/bin/busybox: exit status", "4"],
            "",
            "hooks.startContainer[0]",
            false,
        ),
        bad(
            "a hook inside that takes too long",
            hook("startContainer", inside),
            &["1.0s"],
            "",
            "hooks.startContainer[0].timeout",
            false,
        ),
        bad(
            "a hook with a relative path",
            hook("poststop", json!({"path": "x"})),
            &["hooks.poststop[0].path"],
            "",
            "",
            false,
        ),
    ]
}

/// What is wrong with the text itself.
fn texts() -> Vec<Bad> {
    vec![
        bad("an old version", set("/ociVersion", json!("2.0.0")), &["ociVersion", "2.0.0"], "", "", false),
        bad("a number as a name", set("/hostname", json!(5)), &["hostname"], "", "", false),
        bad(
            "no process",
            |config| drop(config.as_object_mut().unwrap().remove("process")),
            &["process"],
            "",
            "",
            false,
        ),
        bad(
            "a NUL in an argument",
            set("/process/args", json!(["/bin/busybox", "a\0b"])),
            &["process.args[1]", "NUL"],
            "",
            "",
            false,
        ),
    ]
}

#[test]
#[ignore = "needs root"]
fn every_error_says_what_failed_on_what_why_and_where() {
    let Some(_turn) = turn() else { return };
    let bundle = Bundle::new(&config("true"));
    let mut wrong = Vec::new();
    let all = bad_configs(&bundle);
    assert!(all.len() >= 40, "{} cases", all.len());
    for bad in all {
        bundle.write(&bad.config);
        let result = bundle.create(&new_id()).and_then(|container| {
            let started = container.start();
            let deleted = container.delete_force();
            started.and(deleted)
        });
        let Err(error) = result else {
            wrong.push(format!("{}: accepted", bad.name));
            continue;
        };
        let (text, json) = (error.to_string(), error.to_json());
        let mut complain = |what: String| wrong.push(format!("{}: {what} in: {text}", bad.name));
        for part in bad.says.iter().filter(|part| !text.contains(**part)) {
            complain(format!("no {part:?}"));
        }
        if json["errno"].as_str() != bad.errno {
            complain(format!("errno {} and not {:?}", json["errno"], bad.errno));
        }
        if bad.errno.is_some_and(|errno| !text.contains(errno) && !text.contains("exec")) {
            complain("no errno".into());
        }
        if !bad.at.is_empty() && error.config_path() != Some(bad.at) {
            complain(format!("place {:?} and not {:?}", error.config_path(), bad.at));
        }
        if bad.at.is_empty() && error.diagnostics().is_empty() && error.config_path().is_none() {
            complain("no place".into());
        }
        if error.hint().is_none() && bad.hint {
            complain("no hint".into());
        }
        if json["message"] != text.as_str()
            || !json["kind"].is_string()
            || json["at"].as_str() != error.config_path()
        {
            complain(format!("{json}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

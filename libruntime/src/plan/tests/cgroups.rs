//! The `cgroup` mount: by version of the host, with and without a cgroup namespace.

use super::{Given, check_on, given, merge, minimal, planned, planned_exec};
use crate::host::CgroupMount;
use crate::plan::Plan;
use expect_test::expect;

const MOUNT: &str = r#"[{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "ro"]}]"#;

fn with(namespaces: &str) -> String {
    format!(r#"{{"mounts": {MOUNT}, "linux": {{"namespaces": [{{"type": "mount"}}{namespaces}]}}}}"#)
}

/// A hybrid host with two controllers in one hierarchy.
fn v1(given: &mut Given) {
    let mount = |name: &str, v2, options: &[&str], links: &[&str]| CgroupMount {
        name: name.into(),
        v2,
        options: options.iter().map(|text| text.to_string()).collect(),
        host_path: format!("/sys/fs/cgroup/{name}/box").into(),
        links: links.iter().map(|text| text.to_string()).collect(),
    };
    given.host.cgroup_tasks = vec!["/sys/fs/cgroup/cpu,cpuacct/box/tasks".into()];
    given.host.cgroup_mounts = vec![
        mount("cpu,cpuacct", false, &["cpu", "cpuacct"], &["cpu", "cpuacct"]),
        mount("systemd", false, &["none", "name=systemd"], &[]),
        mount("unified", true, &[], &[]),
    ];
}

#[test]
fn v2_in_a_cgroup_namespace_is_a_new_mount() {
    check_on(
        |_| {},
        &with(r#", {"type": "cgroup"}"#),
        expect![[r#"
            after linux.resources.cpu.cpus: SetAffinity
            + linux.namespaces: Unshare { namespaces: cgroup }
            + mounts[0]: Mount { fstype: "cgroup2", options: "source cgroup", target: "/sys/fs/cgroup", flags: ro+nosuid }
        "#]],
    );
}

#[test]
fn v2_without_a_cgroup_namespace_is_the_containers_own_directory() {
    check_on(
        |_| {},
        &with(""),
        expect![[r#"
            after root.path: CloneRootfs
            + mounts[0].source: OpenSource { source: Source(0), host_path: "/sys/fs/cgroup/box" }
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: CloneSource { source: Source(0), attrs: Attrs { set: ro+nosuid, propagation: private } }
            + mounts[0]: MoveMount { source: Source(0), target: "/sys/fs/cgroup", directory: true }
        "#]],
    );
}

#[test]
fn v1_in_a_cgroup_namespace_waits_until_it_is_in_its_cgroups() {
    check_on(
        v1,
        &with(r#", {"type": "cgroup"}"#),
        expect![[r#"
            after JoinSessionKeyring
            + linux.cgroupsPath: ReceiveFds { first: Fd(2), count: 1 }
            + linux.cgroupsPath: JoinCgroup { fd: Fd(2), tasks: "/sys/fs/cgroup/cpu,cpuacct/box/tasks" }
            after linux.resources.cpu.cpus: SetAffinity
            + linux.namespaces: Unshare { namespaces: cgroup }
            + mounts[0]: Mount { fstype: "tmpfs", options: "source cgroup mode 755", target: "/sys/fs/cgroup", flags: nosuid }
            + mounts[0]: KeepMount { mount: Kept(1) }
            + mounts[0]: Mount { fstype: "cgroup", options: "source cgroup cpu  cpuacct ", target: "/sys/fs/cgroup/cpu,cpuacct", flags: ro+nosuid }
            + mounts[0]: Symlink { content: "cpu,cpuacct", path: "/sys/fs/cgroup/cpu" }
            + mounts[0]: Symlink { content: "cpu,cpuacct", path: "/sys/fs/cgroup/cpuacct" }
            + mounts[0]: Mount { fstype: "cgroup", options: "source cgroup none  name systemd", target: "/sys/fs/cgroup/systemd", flags: ro+nosuid }
            + mounts[0]: Mount { fstype: "cgroup2", options: "source cgroup", target: "/sys/fs/cgroup/unified", flags: ro+nosuid }
            + mounts[0]: SetAttributes { place: "/sys/fs/cgroup" in Kept(1), attrs: Attrs { set: ro } }
            after process.args[0]: Exec
            + linux.cgroupsPath: Fd(2) is CgroupTasks("/sys/fs/cgroup/cpu,cpuacct/box/tasks")
        "#]],
    );
}

#[test]
fn v1_without_a_cgroup_namespace_is_one_directory_of_each_hierarchy() {
    check_on(
        v1,
        &with(""),
        expect![[r#"
            after root.path: CloneRootfs
            + mounts[0].source: OpenSource { source: Source(0), host_path: "/sys/fs/cgroup/cpu,cpuacct/box" }
            + mounts[0].source: OpenSource { source: Source(1), host_path: "/sys/fs/cgroup/systemd/box" }
            + mounts[0].source: OpenSource { source: Source(2), host_path: "/sys/fs/cgroup/unified/box" }
            after JoinSessionKeyring
            + linux.cgroupsPath: ReceiveFds { first: Fd(2), count: 1 }
            + linux.cgroupsPath: JoinCgroup { fd: Fd(2), tasks: "/sys/fs/cgroup/cpu,cpuacct/box/tasks" }
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: Mount { fstype: "tmpfs", options: "source cgroup mode 755", target: "/sys/fs/cgroup", flags: nosuid }
            + mounts[0]: KeepMount { mount: Kept(1) }
            + mounts[0]: CloneSource { source: Source(0), attrs: Attrs { set: ro+nosuid, propagation: private } }
            + mounts[0]: MoveMount { source: Source(0), target: "/sys/fs/cgroup/cpu,cpuacct", directory: true }
            + mounts[0]: Symlink { content: "cpu,cpuacct", path: "/sys/fs/cgroup/cpu" }
            + mounts[0]: Symlink { content: "cpu,cpuacct", path: "/sys/fs/cgroup/cpuacct" }
            + mounts[0]: CloneSource { source: Source(1), attrs: Attrs { set: ro+nosuid, propagation: private } }
            + mounts[0]: MoveMount { source: Source(1), target: "/sys/fs/cgroup/systemd", directory: true }
            + mounts[0]: CloneSource { source: Source(2), attrs: Attrs { set: ro+nosuid, propagation: private } }
            + mounts[0]: MoveMount { source: Source(2), target: "/sys/fs/cgroup/unified", directory: true }
            + mounts[0]: SetAttributes { place: "/sys/fs/cgroup" in Kept(1), attrs: Attrs { set: ro } }
            after process.args[0]: Exec
            + linux.cgroupsPath: Fd(2) is CgroupTasks("/sys/fs/cgroup/cpu,cpuacct/box/tasks")
        "#]],
    );
}

#[test]
fn a_joined_cgroup_namespace_is_entered_like_any_other() {
    check_on(
        v1,
        r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "cgroup", "path": "/proc/9/ns/cgroup"}]}}"#,
        expect![[r#"
            after SetUmask
            + linux.namespaces[1]: Setns { fd: Fd(2), namespaces: cgroup }
            after JoinSessionKeyring
            + linux.cgroupsPath: ReceiveFds { first: Fd(3), count: 1 }
            + linux.cgroupsPath: JoinCgroup { fd: Fd(3), tasks: "/sys/fs/cgroup/cpu,cpuacct/box/tasks" }
            after process.args[0]: Exec
            + linux.namespaces[1]: Fd(2) is Namespace("/proc/9/ns/cgroup")
            + linux.cgroupsPath: Fd(3) is CgroupTasks("/sys/fs/cgroup/cpu,cpuacct/box/tasks")
        "#]],
    );
}

#[test]
fn a_host_without_any_hierarchy_has_an_empty_mount() {
    check_on(
        |given| given.host.cgroup_mounts.clear(),
        &with(""),
        expect![[r#"
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: Mount { fstype: "tmpfs", options: "source cgroup mode 755", target: "/sys/fs/cgroup", flags: nosuid }
            + mounts[0]: KeepMount { mount: Kept(1) }
            + mounts[0]: SetAttributes { place: "/sys/fs/cgroup" in Kept(1), attrs: Attrs { set: ro } }
        "#]],
    );
}

fn plan_on_v1(fragment: &str) -> Plan {
    let (mut given, mut config) = (given(), minimal());
    v1(&mut given);
    merge(&mut config, serde_json::from_str(fragment).unwrap());
    planned(&config, &given).unwrap().0
}

#[test]
fn a_cgroup_is_opened_as_the_source_of_a_mount_or_not() {
    let opens = |fragment: &str| plan_on_v1(fragment).opens_below(&["/sys/fs/cgroup/systemd/box".into()]);
    let bind = |source: &str| {
        format!(r#"{{"mounts": [{{"destination": "/x", "source": "{source}", "options": ["bind"]}}]}}"#)
    };
    assert!(opens(&with("")));
    assert!(!opens(&with(r#", {"type": "cgroup"}"#)));
    assert!(opens(&bind("/sys/fs/cgroup/systemd/box/tasks")));
    assert!(!opens(&bind("/sys/fs/cgroup/systemd/box2")));
    assert!(!plan_on_v1(&with("")).opens_below(&[]));
}

#[test]
fn cgroups_are_the_first_wait_unless_a_pid_namespace_is_joined() {
    let first = |namespaces: &str| plan_on_v1(&with(namespaces)).waits_first_for_cgroups();
    assert!(first(r#", {"type": "pid"}"#));
    assert!(!first(r#", {"type": "pid", "path": "/proc/1/ns/pid"}"#));
    // On v2 there is nothing to give.
    assert!(!planned(&minimal(), &given()).unwrap().0.waits_first_for_cgroups());
}

/// Executed outside, because it shares the caller's memory until then.
#[test]
fn v2_is_entered_by_the_first_step() {
    let in_v2 = |given: &mut Given| given.host.clones_into_cgroup = true;
    check_on(
        in_v2,
        &with(r#", {"type": "pid"}"#),
        expect![[r#"
            after the beginning
            - linux.namespaces: StartIn { namespaces: mount }
            + linux.namespaces: EnterCgroup { cgroup: Fd(2), namespaces: mount+pid }
            after root.path: CloneRootfs
            + mounts[0].source: OpenSource { source: Source(0), host_path: "/sys/fs/cgroup/box" }
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: CloneSource { source: Source(0), attrs: Attrs { set: ro+nosuid, propagation: private } }
            + mounts[0]: MoveMount { source: Source(0), target: "/sys/fs/cgroup", directory: true }
            after process.args[0]: Exec
            + linux.cgroupsPath: Fd(2) is Cgroup
        "#]],
    );
    let mut given = given();
    in_v2(&mut given);
    let plan = planned_exec(&minimal(), &given);
    assert!(plan.enters_cgroup());
    assert_eq!(plan.clones(), 2);
}

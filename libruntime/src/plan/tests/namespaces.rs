//! Namespaces: which are made, which are joined, and what has to happen before and after.

use super::{Given, check, check_from, check_on, given, merge, minimal, planned};
use crate::step::Step;
use expect_test::expect;
use oci_spec::runtime::LinuxNamespaceType as Ns;

const USER: &str = r#"{"linux": {
    "namespaces": [{"type": "mount"}, {"type": "user"}],
    "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
    "gidMappings": [{"containerID": 0, "hostID": 2000, "size": 10}]
}}"#;

#[test]
fn new_namespaces_are_made_by_one_clone() {
    check(
        r#"{"linux": {"namespaces": [
            {"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "ipc"}, {"type": "network"}
        ]}}"#,
        expect![[r#"
            after the beginning
            - linux.namespaces: StartIn { namespaces: mount }
            + linux.namespaces: StartIn { namespaces: mount+uts+ipc+pid+network }
            after root.path: OpenRoot
            + linux.namespaces: LoopbackUp
        "#]],
    );
}

#[test]
fn a_new_user_namespace_comes_after_the_sources_and_before_the_clone() {
    check(
        USER,
        expect![[r#"
            after the beginning
            - linux.namespaces: StartIn { namespaces: mount }
            after SetUmask
            + linux.namespaces: Unshare { namespaces: mount }
            after root.path: CloneRootfs
            - root.path: AttachRootfs
            - process.user.uid: ChownStreams { uid: 0 }
            + linux.devices: OpenDevice { source: Source(0), host_path: "/dev/null", mode: 8630, major: 1, minor: 3 }
            + linux.devices: OpenDevice { source: Source(1), host_path: "/dev/zero", mode: 8630, major: 1, minor: 5 }
            + linux.devices: OpenDevice { source: Source(2), host_path: "/dev/full", mode: 8630, major: 1, minor: 7 }
            + linux.devices: OpenDevice { source: Source(3), host_path: "/dev/random", mode: 8630, major: 1, minor: 8 }
            + linux.devices: OpenDevice { source: Source(4), host_path: "/dev/urandom", mode: 8630, major: 1, minor: 9 }
            + linux.devices: OpenDevice { source: Source(5), host_path: "/dev/tty", mode: 8630, major: 5, minor: 0 }
            + root.path: AttachRootfsInScratch
            + process.user.uid: ChownStreams { uid: 1000 }
            + linux.devices: ParkSource { source: Source(0), by_name: true }
            + linux.devices: ParkSource { source: Source(1), by_name: true }
            + linux.devices: ParkSource { source: Source(2), by_name: true }
            + linux.devices: ParkSource { source: Source(3), by_name: true }
            + linux.devices: ParkSource { source: Source(4), by_name: true }
            + linux.devices: ParkSource { source: Source(5), by_name: true }
            + linux.namespaces[1]: Setns { fd: Fd(2), namespaces: user }
            after NotDumpable
            + linux.namespaces: Clone { namespaces: mount }
            + linux.uidMappings: SetGroups { groups: "" }
            + linux.uidMappings: SetIds { uid: 0, gid: 0 }
            + root.path: UnlockRoot
            after root.path: OpenRoot
            + linux.devices: FetchSource { source: Source(0) }
            + linux.devices: FetchSource { source: Source(1) }
            + linux.devices: FetchSource { source: Source(2) }
            + linux.devices: FetchSource { source: Source(3) }
            + linux.devices: FetchSource { source: Source(4) }
            + linux.devices: FetchSource { source: Source(5) }
            after linux.resources.cpu.cpus: SetAffinity
            - linux.devices: MakeNode { path: "/dev/null", mode: 8630, major: 1, minor: 3, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/zero", mode: 8630, major: 1, minor: 5, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/full", mode: 8630, major: 1, minor: 7, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/random", mode: 8630, major: 1, minor: 8, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/urandom", mode: 8630, major: 1, minor: 9, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/tty", mode: 8630, major: 5, minor: 0, uid: 0, gid: 0 }
            + linux.devices: MoveMount { source: Source(0), target: "/dev/null", directory: false }
            + linux.devices: MoveMount { source: Source(1), target: "/dev/zero", directory: false }
            + linux.devices: MoveMount { source: Source(2), target: "/dev/full", directory: false }
            + linux.devices: MoveMount { source: Source(3), target: "/dev/random", directory: false }
            + linux.devices: MoveMount { source: Source(4), target: "/dev/urandom", directory: false }
            + linux.devices: MoveMount { source: Source(5), target: "/dev/tty", directory: false }
            after process.args[0]: Exec
            + linux.namespaces[1]: Fd(2) is UserNamespace
            + new user namespace: IdMaps { uids: [[0, 1000, 10]], gids: [[0, 2000, 10]] }
        "#]],
    );
}

#[test]
fn a_user_namespace_given_by_path_is_joined_like_a_new_one() {
    check_from(
        USER,
        |_| {},
        r#"{"linux": {
            "namespaces": [{"type": "mount"}, {"type": "user", "path": "/proc/7/ns/user"}],
            "uidMappings": [], "gidMappings": []
        }}"#,
        expect![[r#"
            after root.path: AttachRootfsInScratch
            - process.user.uid: ChownStreams { uid: 1000 }
            after linux.uidMappings: SetIds
            + process.user.uid: ChownStreams { uid: 0 }
            after linux.namespaces[1]: Fd(2) is UserNamespace
            - new user namespace: IdMaps { uids: [[0, 1000, 10]], gids: [[0, 2000, 10]] }
        "#]],
    );
}

#[test]
fn without_root_the_user_namespace_comes_first_and_needs_no_scratch() {
    check_from(
        USER,
        |given| given.host.uid = 1000,
        r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "user"}, {"type": "pid"}]}}"#,
        expect![[r#"
            after root.path: AttachRootfs
            - linux.namespaces: Clone { namespaces: none }
            + linux.namespaces: Clone { namespaces: pid }
        "#]],
    );
    check_on(
        |given| given.host.uid = 1000,
        &USER.replace(r#""mount"}"#, r#""mount"}, {"type": "pid"}"#),
        expect![[r#"
            after the beginning
            - linux.namespaces: StartIn { namespaces: mount }
            after SetUmask
            + linux.namespaces[2]: Setns { fd: Fd(2), namespaces: user }
            + linux.namespaces: Unshare { namespaces: mount }
            after root.path: CloneRootfs
            + linux.devices: OpenDevice { source: Source(0), host_path: "/dev/null", mode: 8630, major: 1, minor: 3 }
            + linux.devices: OpenDevice { source: Source(1), host_path: "/dev/zero", mode: 8630, major: 1, minor: 5 }
            + linux.devices: OpenDevice { source: Source(2), host_path: "/dev/full", mode: 8630, major: 1, minor: 7 }
            + linux.devices: OpenDevice { source: Source(3), host_path: "/dev/random", mode: 8630, major: 1, minor: 8 }
            + linux.devices: OpenDevice { source: Source(4), host_path: "/dev/urandom", mode: 8630, major: 1, minor: 9 }
            + linux.devices: OpenDevice { source: Source(5), host_path: "/dev/tty", mode: 8630, major: 5, minor: 0 }
            after root.path: AttachRootfs
            + linux.namespaces: Clone { namespaces: pid }
            + linux.uidMappings: SetIds { uid: 0, gid: 0 }
            after process.user.uid: ChownStreams
            - NotDumpable
            after linux.resources.cpu.cpus: SetAffinity
            - linux.devices: MakeNode { path: "/dev/null", mode: 8630, major: 1, minor: 3, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/zero", mode: 8630, major: 1, minor: 5, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/full", mode: 8630, major: 1, minor: 7, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/random", mode: 8630, major: 1, minor: 8, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/urandom", mode: 8630, major: 1, minor: 9, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/tty", mode: 8630, major: 5, minor: 0, uid: 0, gid: 0 }
            + linux.devices: MoveMount { source: Source(0), target: "/dev/null", directory: false }
            + linux.devices: MoveMount { source: Source(1), target: "/dev/zero", directory: false }
            + linux.devices: MoveMount { source: Source(2), target: "/dev/full", directory: false }
            + linux.devices: MoveMount { source: Source(3), target: "/dev/random", directory: false }
            + linux.devices: MoveMount { source: Source(4), target: "/dev/urandom", directory: false }
            + linux.devices: MoveMount { source: Source(5), target: "/dev/tty", directory: false }
            after process.user.uid: FindHome
            - process.user.additionalGids: SetGroups { groups: "" }
            after process.args[0]: Exec
            + linux.namespaces[2]: Fd(2) is UserNamespace
            + new user namespace: IdMaps { uids: [[0, 1000, 10]], gids: [[0, 2000, 10]] }
        "#]],
    );
}

#[test]
fn namespaces_given_by_path_are_joined_before_any_mount() {
    check(
        r#"{"linux": {"namespaces": [
            {"type": "network", "path": "/run/netns/x"}, {"type": "mount"}, {"type": "ipc", "path": "/proc/9/ns/ipc"}
        ]}}"#,
        expect![[r#"
            after SetUmask
            + linux.namespaces[0]: Setns { fd: Fd(2), namespaces: network }
            + linux.namespaces[2]: Setns { fd: Fd(3), namespaces: ipc }
            after process.args[0]: Exec
            + linux.namespaces[0]: Fd(2) is Namespace("/run/netns/x")
            + linux.namespaces[2]: Fd(3) is Namespace("/proc/9/ns/ipc")
        "#]],
    );
}

#[test]
fn a_pid_namespace_given_by_path_is_joined_last_because_it_is_the_childs() {
    check(
        r#"{"linux": {"namespaces": [{"type": "pid", "path": "/proc/9/ns/pid"}, {"type": "mount"}]}}"#,
        expect![[r#"
            after the beginning
            - linux.namespaces: StartIn { namespaces: mount }
            after SetUmask
            + linux.namespaces: Unshare { namespaces: mount }
            after NotDumpable
            + linux.namespaces: Unshare { namespaces: none }
            + linux.namespaces: Sync { point: Entered }
            after root.path: OpenRoot
            - SetSid
            after linux.devices: Symlink
            + linux.namespaces[0]: Setns { fd: Fd(2), namespaces: pid }
            after process.args[0]: FindProgram
            + linux.namespaces: Clone { namespaces: none }
            + SetSid
            after process.args[0]: Exec
            + linux.namespaces[0]: Fd(2) is Namespace("/proc/9/ns/pid")
        "#]],
    );
}

#[test]
fn without_root_others_are_joined_from_inside_the_user_namespace() {
    check_from(
        USER,
        |given| given.host.uid = 1000,
        r#"{"linux": {"namespaces": [
            {"type": "mount"}, {"type": "user"}, {"type": "network", "path": "/run/netns/x"}
        ]}}"#,
        expect![[r#"
            after root.path: AttachRootfs
            + linux.namespaces[2]: Setns { fd: Fd(3), namespaces: network }
            after linux.namespaces[1]: Fd(2) is UserNamespace
            + linux.namespaces[2]: Fd(3) is Namespace("/run/netns/x")
        "#]],
    );
}

#[test]
fn root_joins_what_the_host_owns_before_it_enters_the_user_namespace() {
    check_from(
        USER,
        |_| {},
        r#"{"linux": {"namespaces": [
            {"type": "mount"}, {"type": "user"}, {"type": "network", "path": "/run/netns/x"}
        ]}}"#,
        expect![[r#"
            after SetUmask
            + linux.namespaces[2]: Setns { fd: Fd(3), namespaces: network }
            after linux.namespaces[1]: Fd(2) is UserNamespace
            + linux.namespaces[2]: Fd(3) is Namespace("/run/netns/x")
        "#]],
    );
}

#[test]
fn clock_offsets_are_written_between_the_time_namespace_and_its_first_process() {
    check(
        r#"{"linux": {
            "namespaces": [{"type": "mount"}, {"type": "time"}],
            "timeOffsets": {"monotonic": {"secs": -5, "nanosecs": 7}, "boottime": {"secs": 9}}
        }}"#,
        expect![[r#"
            after the beginning
            - linux.namespaces: StartIn { namespaces: mount }
            after SetUmask
            + linux.namespaces: Unshare { namespaces: mount }
            after process.user.uid: ChownStreams
            + linux.namespaces: Unshare { namespaces: time }
            + linux.timeOffsets: WriteProcess { path: "timens_offsets", value: "(28 bytes)" }
            after NotDumpable
            + linux.namespaces: Clone { namespaces: none }
        "#]],
    );
}

#[test]
fn a_time_namespace_without_offsets_has_those_of_the_host() {
    check(
        r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "time"}]}}"#,
        expect![[r#"
            after the beginning
            - linux.namespaces: StartIn { namespaces: mount }
            after SetUmask
            + linux.namespaces: Unshare { namespaces: mount }
            after process.user.uid: ChownStreams
            + linux.namespaces: Unshare { namespaces: time }
            after NotDumpable
            + linux.namespaces: Clone { namespaces: none }
        "#]],
    );
}

#[test]
fn a_time_namespace_given_by_path_is_joined() {
    check(
        r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "time", "path": "/proc/9/ns/time"}]}}"#,
        expect![[r#"
            after the beginning
            - linux.namespaces: StartIn { namespaces: mount }
            after SetUmask
            + linux.namespaces[1]: Setns { fd: Fd(2), namespaces: time }
            + linux.namespaces: Unshare { namespaces: mount }
            after NotDumpable
            + linux.namespaces: Clone { namespaces: none }
            after process.args[0]: Exec
            + linux.namespaces[1]: Fd(2) is Namespace("/proc/9/ns/time")
        "#]],
    );
}

#[test]
fn a_container_needs_a_mount_namespace_of_its_own() {
    check(
        r#"{"linux": {"namespaces": [{"type": "pid"}]}}"#,
        expect![[r#"
            after the beginning
            - linux.namespaces: StartIn { namespaces: mount }
            + linux.namespaces: StartIn { namespaces: pid }
            after SetUmask
            - linux.rootfsPropagation: SetPropagation { propagation: slave }
            after linux.devices: Symlink
            - root.path: PivotRoot
            + root.path: Chroot
        "#]],
    );
    check(
        r#"{"linux": {"namespaces": [{"type": "mount", "path": "/proc/9/ns/mnt"}]}}"#,
        expect![[r#"
            after the beginning
            - linux.namespaces: StartIn { namespaces: mount }
            + linux.namespaces: StartIn { namespaces: none }
            after SetUmask
            - linux.rootfsPropagation: SetPropagation { propagation: slave }
            + linux.namespaces[0]: Setns { fd: Fd(2), namespaces: mount }
            after linux.devices: Symlink
            - root.path: PivotRoot
            + root.path: Chroot
            after process.args[0]: Exec
            + linux.namespaces[0]: Fd(2) is Namespace("/proc/9/ns/mnt")
        "#]],
    );
}

#[test]
fn names_and_sysctls_are_set_in_the_entered_root_before_the_masks() {
    check(
        r#"{"hostname": "h", "domainname": "d", "linux": {
            "namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "network"}],
            "sysctl": {"net.ipv4.ip_forward": "1", "net/ipv4/conf/eth0.1/forwarding": "0"},
            "readonlyPaths": ["/proc/sys"]
        }}"#,
        expect![[r#"
            after the beginning
            - linux.namespaces: StartIn { namespaces: mount }
            + linux.namespaces: StartIn { namespaces: mount+uts+network }
            after root.path: OpenRoot
            + linux.namespaces: LoopbackUp
            after root.path: PivotRoot
            + hostname: SetHostname { name: "h" }
            + domainname: SetDomainname { name: "d" }
            + linux.sysctl[net.ipv4.ip_forward]: WriteSysctl { path: "sys/net/ipv4/ip_forward", value: "1" }
            + linux.sysctl[net/ipv4/conf/eth0.1/forwarding]: WriteSysctl { path: "sys/net/ipv4/conf/eth0.1/forwarding", value: "0" }
            + linux.readonlyPaths[0]: ReadonlyPath { place: "/proc/sys", recursive: true }
        "#]],
    );
}

/// As rootless Podman starts us: there is no user namespace in the configuration, we are in one.
#[test]
fn root_of_a_user_namespace_binds_devices_and_leaves_fixed_groups() {
    let inside = |given: &mut super::Given| {
        given.host.in_user_namespace = true;
        given.host.groups_are_fixed = true;
    };
    check_on(
        inside,
        "{}",
        expect![[r#"
            after root.path: CloneRootfs
            + linux.devices: OpenDevice { source: Source(0), host_path: "/dev/null", mode: 8630, major: 1, minor: 3 }
            + linux.devices: OpenDevice { source: Source(1), host_path: "/dev/zero", mode: 8630, major: 1, minor: 5 }
            + linux.devices: OpenDevice { source: Source(2), host_path: "/dev/full", mode: 8630, major: 1, minor: 7 }
            + linux.devices: OpenDevice { source: Source(3), host_path: "/dev/random", mode: 8630, major: 1, minor: 8 }
            + linux.devices: OpenDevice { source: Source(4), host_path: "/dev/urandom", mode: 8630, major: 1, minor: 9 }
            + linux.devices: OpenDevice { source: Source(5), host_path: "/dev/tty", mode: 8630, major: 5, minor: 0 }
            after linux.resources.cpu.cpus: SetAffinity
            - linux.devices: MakeNode { path: "/dev/null", mode: 8630, major: 1, minor: 3, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/zero", mode: 8630, major: 1, minor: 5, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/full", mode: 8630, major: 1, minor: 7, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/random", mode: 8630, major: 1, minor: 8, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/urandom", mode: 8630, major: 1, minor: 9, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/tty", mode: 8630, major: 5, minor: 0, uid: 0, gid: 0 }
            + linux.devices: MoveMount { source: Source(0), target: "/dev/null", directory: false }
            + linux.devices: MoveMount { source: Source(1), target: "/dev/zero", directory: false }
            + linux.devices: MoveMount { source: Source(2), target: "/dev/full", directory: false }
            + linux.devices: MoveMount { source: Source(3), target: "/dev/random", directory: false }
            + linux.devices: MoveMount { source: Source(4), target: "/dev/urandom", directory: false }
            + linux.devices: MoveMount { source: Source(5), target: "/dev/tty", directory: false }
            after process.user.uid: FindHome
            - process.user.additionalGids: SetGroups { groups: "" }
        "#]],
    );
}

#[test]
fn a_container_is_set_up_by_root_or_by_the_first_id_that_is_mapped() {
    let row = |id: u32| format!(r#"{{"containerID": {id}, "hostID": 5, "size": 1}}"#);
    for (rows, wanted) in [(vec![], 0), (vec![row(0)], 0), (vec![row(1000)], 1000), (vec![row(7), row(0)], 0)]
    {
        let maps = rows.join(",");
        let linux = format!(r#"{{"uidMappings": [{maps}], "gidMappings": [{maps}]}}"#);
        let step = super::super::create::first_ids(&serde_json::from_str(&linux).unwrap());
        assert_eq!(step, Step::SetIds { uid: wanted, gid: wanted }, "{linux}");
    }
}

/// A path says nothing: a bind mount of the host's namespace has any. The files are compared by host.rs.
#[test]
fn a_joined_namespace_of_the_host_gets_no_sysctl_and_no_name() {
    let host = |given: &mut Given| given.host.joined_of_host = vec![Ns::Network, Ns::Uts];
    let base = r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "network", "path": "/run/n"},
        {"type": "uts", "path": "/run/u"}, {"type": "ipc", "path": "/run/i"}]}}"#;
    let refused = |what: &str, fragment: &str| {
        let text = format!(
            "invalid config: {what}: the namespace given by path is the host's; it would change that"
        );
        let mut given = given();
        host(&mut given);
        let mut config = minimal();
        merge(&mut config, serde_json::from_str(base).unwrap());
        merge(&mut config, serde_json::from_str(fragment).unwrap());
        assert_eq!(planned(&config, &given).map(|_| ()).unwrap_err(), text);
    };
    let net = r#"{"linux": {"sysctl": {"net.ipv4.ip_forward": "1"}}}"#;
    refused("linux.sysctl[net.ipv4.ip_forward]", net);
    let uts = r#"{"linux": {"sysctl": {"kernel.domainname": "x"}}}"#;
    refused("linux.sysctl[kernel.domainname]", uts);
    refused("hostname", r#"{"hostname": "x"}"#);
    check_from(
        base,
        host,
        r#"{"linux": {"sysctl": {"fs.mqueue.msg_max": "9"}}}"#,
        expect![[r#"
            after root.path: PivotRoot
            + linux.sysctl[fs.mqueue.msg_max]: WriteSysctl { path: "sys/fs/mqueue/msg_max", value: "9" }
        "#]],
    );
}

#[test]
fn loopback_is_up_in_a_new_network_namespace_alone() {
    check(
        r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "network"}]}}"#,
        expect![[r#"
            after the beginning
            - linux.namespaces: StartIn { namespaces: mount }
            + linux.namespaces: StartIn { namespaces: mount+network }
            after root.path: OpenRoot
            + linux.namespaces: LoopbackUp
        "#]],
    );
}

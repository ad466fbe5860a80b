//! Containers that begin with a mount namespace that has next to no mounts.

use super::{Given, check_on, given, merge, minimal};
use crate::config::Config;
use crate::plan::bare::wants_bare_mounts;
use expect_test::expect;

#[test]
fn a_container_can_begin_without_a_copy_of_the_callers_mounts() {
    let bare = |given: &mut Given| given.host.bare_mounts = true;
    check_on(
        bare,
        r#"{
            "linux": {"rootfsPropagation": "rshared"},
            "mounts": [
                {"destination": "/a", "type": "bind", "source": "/srv/a", "options": ["rbind"]},
                {"destination": "/b", "type": "bind", "source": "/srv/b", "options": ["rbind", "rshared"]}
            ]
        }"#,
        expect![[r#"
            after ResetSignals
            - linux.namespaces: Unshare { namespaces: mount }
            - linux.rootfsPropagation: SetPropagation { propagation: slave }
            - root.path: CloneRootfs { host_path: "/bundle/rootfs", propagation: slave }
            - root.path: AttachRootfs
            + mounts[0].source: OpenSource { source: Source(0), host_path: "/srv/a" }
            + mounts[0]: CloneSource { source: Source(0), recursive: true, attrs: Attrs { propagation: rec+private } }
            + mounts[1].source: OpenSource { source: Source(1), host_path: "/srv/b" }
            + mounts[1]: CloneSource { source: Source(1), recursive: true, attrs: Attrs { first: shared, propagation: rec+shared } }
            + root.path: CloneRootfs { host_path: "/bundle/rootfs", propagation: private }
            + linux.namespaces: EnterBareMounts { fd: Fd(2) }
            + root.path: AttachRootfsInScratch
            + root.path: OpenRoot { path: "." }
            + root.path: PivotRoot
            after process.user.uid: ChownStreams
            + mounts[0]: ParkSource { source: Source(0) }
            + mounts[1]: ParkSource { source: Source(1) }
            after linux.namespaces: Clone
            + root.path: UnlockRoot
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: FetchSource { source: Source(0) }
            + mounts[0]: MoveMount { source: Source(0), target: "/a" }
            + mounts[1]: FetchSource { source: Source(1), attrs: Attrs { propagation: rec+shared } }
            + mounts[1]: MoveMount { source: Source(1), target: "/b" }
            after root.path: PivotRoot
            + linux.rootfsPropagation: SetAttributes { place: "/", attrs: Attrs { propagation: rec+shared } }
            after process.args[0]: Exec
            + linux.namespaces: Fd(2) is BareMounts
        "#]],
    );
    check_on(
        bare,
        r#"{
            "linux": {
                "namespaces": [{"type": "mount"}, {"type": "user", "path": "/proc/9/ns/user"}],
                "rootfsPropagation": "rslave"
            },
            "mounts": [
                {"destination": "/b", "type": "bind", "source": "/srv/b", "options": ["bind", "rslave"]},
                {"destination": "/proc", "type": "proc", "source": "proc"}
            ]
        }"#,
        expect![[r#"
            after ResetSignals
            - linux.namespaces: Unshare { namespaces: mount }
            - linux.rootfsPropagation: SetPropagation { propagation: slave }
            + mounts[0].source: OpenSource { source: Source(0), host_path: "/srv/b" }
            + mounts[0]: CloneSource { source: Source(0), attrs: Attrs { first: slave, propagation: rec+slave } }
            + linux.devices: OpenDevice { source: Source(1), host_path: "/dev/null", mode: 8630, major: 1, minor: 3 }
            + linux.devices: OpenDevice { source: Source(2), host_path: "/dev/zero", mode: 8630, major: 1, minor: 5 }
            + linux.devices: OpenDevice { source: Source(3), host_path: "/dev/full", mode: 8630, major: 1, minor: 7 }
            + linux.devices: OpenDevice { source: Source(4), host_path: "/dev/random", mode: 8630, major: 1, minor: 8 }
            + linux.devices: OpenDevice { source: Source(5), host_path: "/dev/urandom", mode: 8630, major: 1, minor: 9 }
            + linux.devices: OpenDevice { source: Source(6), host_path: "/dev/tty", mode: 8630, major: 5, minor: 0 }
            + mounts[1]: OpenSource { source: Source(7), host_path: "/proc" }
            + mounts[1]: CloneSource { source: Source(7), recursive: true, attrs: Attrs { propagation: rec+private } }
            after root.path: CloneRootfs
            - root.path: AttachRootfs
            - process.user.uid: ChownStreams { uid: 0 }
            + linux.namespaces: EnterBareMounts { fd: Fd(3) }
            + root.path: AttachRootfsInScratch
            + root.path: OpenRoot { path: "." }
            + root.path: PivotRoot
            + mounts[0]: ParkSource { source: Source(0) }
            + linux.devices: ParkSource { source: Source(1) }
            + linux.devices: ParkSource { source: Source(2) }
            + linux.devices: ParkSource { source: Source(3) }
            + linux.devices: ParkSource { source: Source(4) }
            + linux.devices: ParkSource { source: Source(5) }
            + linux.devices: ParkSource { source: Source(6) }
            + mounts[1]: ParkSource { source: Source(7) }
            + linux.namespaces[1]: Setns { fd: Fd(2), namespaces: user }
            after NotDumpable
            - linux.namespaces: Clone { namespaces: none }
            + linux.namespaces: Clone { namespaces: mount }
            + linux.uidMappings: SetGroups { groups: "" }
            + linux.uidMappings: SetIds { uid: 0, gid: 0 }
            + process.user.uid: ChownStreams { uid: 0 }
            + root.path: UnlockRoot
            after root.path: OpenRoot
            + linux.devices: FetchSource { source: Source(1) }
            + linux.devices: FetchSource { source: Source(2) }
            + linux.devices: FetchSource { source: Source(3) }
            + linux.devices: FetchSource { source: Source(4) }
            + linux.devices: FetchSource { source: Source(5) }
            + linux.devices: FetchSource { source: Source(6) }
            after linux.resources.cpu.cpus: SetAffinity
            - linux.devices: MakeNode { path: "/dev/null", mode: 8630, major: 1, minor: 3, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/zero", mode: 8630, major: 1, minor: 5, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/full", mode: 8630, major: 1, minor: 7, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/random", mode: 8630, major: 1, minor: 8, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/urandom", mode: 8630, major: 1, minor: 9, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/tty", mode: 8630, major: 5, minor: 0, uid: 0, gid: 0 }
            + mounts[0]: FetchSource { source: Source(0) }
            + mounts[0]: MoveMount { source: Source(0), target: "/b" }
            + mounts[1]: Mount { fstype: "proc", options: "source proc", target: "/proc", flags: none, strict: true }
            + linux.devices: MoveMount { source: Source(1), target: "/dev/null" }
            + linux.devices: MoveMount { source: Source(2), target: "/dev/zero" }
            + linux.devices: MoveMount { source: Source(3), target: "/dev/full" }
            + linux.devices: MoveMount { source: Source(4), target: "/dev/random" }
            + linux.devices: MoveMount { source: Source(5), target: "/dev/urandom" }
            + linux.devices: MoveMount { source: Source(6), target: "/dev/tty" }
            after process.args[0]: Exec
            + linux.namespaces[1]: Fd(2) is UserNamespace
            + linux.namespaces: Fd(3) is BareMounts
        "#]],
    );
}

#[test]
fn the_callers_mounts_are_copied_where_something_needs_them_later() {
    let wants = |change: &dyn Fn(&mut Given), fragment: &str| {
        let (mut config, mut given) = (minimal(), given());
        merge(&mut config, serde_json::from_str(fragment).unwrap());
        change(&mut given);
        let spec = Config::parse(config.to_string().as_bytes()).unwrap().spec;
        wants_bare_mounts(&spec, &given.host, &given.request)
    };
    let mount = |mount: &str| format!(r#"{{"mounts": [{{"destination": "/d", {mount}}}]}}"#);
    let hook = |kind: &str| format!(r#"{{"hooks": {{"{kind}": [{{"path": "/h"}}]}}}}"#);
    for fragment in [
        "{}".to_string(),
        mount(r#""type": "bind", "source": "/srv""#),
        mount(r#""type": "none", "source": "/srv", "options": ["rbind"]"#),
        mount(r#""type": "tmpfs", "source": "tmpfs""#),
        hook("startContainer"),
        hook("poststart"),
        hook("poststop"),
    ] {
        assert!(wants(&|_| {}, &fragment), "{fragment}");
    }
    for fragment in [
        mount(r#""type": "overlay", "source": "overlay", "options": ["lowerdir=/a:/b"]"#),
        mount(r#""type": "ext4", "source": "/dev/loop0""#),
        hook("prestart"),
        hook("createRuntime"),
        hook("createContainer"),
        r#"{"linux": {"namespaces": [{"type": "mount", "path": "/proc/9/ns/mnt"}]}}"#.to_string(),
        r#"{"linux": {"namespaces": []}}"#.to_string(),
    ] {
        assert!(!wants(&|_| {}, &fragment), "{fragment}");
    }
    assert!(!wants(&|given| given.request.no_pivot = true, "{}"));
    assert!(!wants(&|given| given.host.uid = 1000, "{}"));
    assert!(!wants(&|given| given.host.in_user_namespace = true, "{}"));
    for capability in [18, 21] {
        assert!(!wants(&|given| given.host.capabilities &= !(1 << capability), "{}"), "{capability}");
    }
}

//! Containers that begin with a mount namespace that has next to no mounts.

use super::{Given, compare, given, merge, minimal};
use crate::config::Config;
use crate::plan::bare::wants_bare_mounts;
use expect_test::{Expect, expect};

/// What changes in the plan of `fragment` where the caller's mounts are not copied.
fn check(fragment: &str, expect: Expect) {
    let mut bare = given();
    bare.host.bare_mounts = true;
    compare(fragment, &given(), "{}", &bare, expect);
}

#[test]
fn a_container_can_begin_without_a_copy_of_the_callers_mounts() {
    check(
        r#"{
            "linux": {"rootfsPropagation": "rshared"},
            "mounts": [
                {"destination": "/a", "type": "bind", "source": "/srv/a", "options": ["rbind"]},
                {"destination": "/b", "type": "bind", "source": "/srv/b", "options": ["rbind", "rshared"]}
            ]
        }"#,
        expect![[r#"
            after the beginning
            - linux.namespaces: StartIn { namespaces: mount }
            + linux.namespaces: StartIn { namespaces: none }
            after SetUmask
            - linux.rootfsPropagation: SetPropagation { propagation: shared }
            - mounts[0].source: OpenSource { source: Source(0), host_path: "/srv/a" }
            - mounts[1].source: OpenSource { source: Source(1), host_path: "/srv/b" }
            - linux.rootfsPropagation: PrivateParent { host_path: "/bundle/rootfs" }
            after root.path: CloneRootfs
            - root.path: AttachRootfs
            + mounts[0].source: OpenTree { source: Source(0), host_path: "/srv/a", recursive: true }
            + mounts[0]: SetSourceAttributes { source: Source(0), attrs: Attrs { propagation: rec+private } }
            + mounts[1].source: OpenTree { source: Source(1), host_path: "/srv/b", recursive: true }
            + mounts[1]: SetSourceAttributes { source: Source(1), attrs: Attrs { first: shared, propagation: rec+shared } }
            + linux.namespaces: EnterBareMounts { fd: Fd(2) }
            + root.path: AttachRootfsInScratch
            after process.user.uid: ChownStreams
            + mounts[0]: ParkSource { source: Source(0), by_name: false }
            + mounts[1]: ParkSource { source: Source(1), by_name: false }
            after NotDumpable
            - root.path: OpenRoot { path: "." }
            + root.path: OpenRoot { path: "root" }
            after linux.resources.cpu.cpus: SetAffinity
            - mounts[0]: CloneSource { source: Source(0), recursive: true, attrs: Attrs { propagation: rec+private } }
            + mounts[0]: FetchSource { source: Source(0) }
            after mounts[0]: MoveMount
            - mounts[1]: CloneSource { source: Source(1), recursive: true, attrs: Attrs { propagation: rec+shared } }
            + mounts[1]: FetchSource { source: Source(1), attrs: Attrs { propagation: rec+shared } }
            after root.path: PivotRoot
            + root.path: UnmountOldRoot
            after process.args[0]: Exec
            + linux.namespaces: Fd(2) is BareMounts
        "#]],
    );
    check(
        "{}",
        expect![[r#"
            after the beginning
            - linux.namespaces: StartIn { namespaces: mount }
            + linux.namespaces: StartIn { namespaces: none }
            after SetUmask
            - linux.rootfsPropagation: SetPropagation { propagation: slave }
            after root.path: CloneRootfs
            + linux.namespaces: EnterBareMounts { fd: Fd(2) }
            after process.args[0]: Exec
            + linux.namespaces: Fd(2) is BareMounts
        "#]],
    );
}

#[test]
fn in_a_user_namespace_the_callers_procfs_is_parked_too() {
    check(
        r#"{
            "linux": {"namespaces": [{"type": "mount"}, {"type": "user", "path": "/proc/9/ns/user"}]},
            "mounts": [
                {"destination": "/b", "type": "bind", "source": "/srv/b", "options": ["bind", "rslave"]},
                {"destination": "/proc", "type": "proc", "source": "proc"}
            ]
        }"#,
        expect![[r#"
            after SetUmask
            - linux.namespaces: Unshare { namespaces: mount }
            - linux.rootfsPropagation: SetPropagation { propagation: slave }
            after mounts[0].source: OpenTree
            - mounts[0]: SetSourceAttributes { source: Source(0), attrs: Attrs { propagation: slave } }
            + mounts[0]: SetSourceAttributes { source: Source(0), attrs: Attrs { first: slave, propagation: slave } }
            after linux.devices: OpenDevice
            + mounts[1]: OpenTree { source: Source(7), host_path: "/proc", recursive: true }
            + mounts[1]: SetSourceAttributes { source: Source(7), attrs: Attrs { propagation: rec+private } }
            + linux.namespaces: EnterBareMounts { fd: Fd(3) }
            after root.path: AttachRootfsInScratch
            + root.path: OpenRoot { path: "." }
            + root.path: PivotRoot
            after linux.devices: ParkSource
            + mounts[1]: ParkSource { source: Source(7), by_name: true }
            after linux.namespaces[1]: Fd(2) is UserNamespace
            + linux.namespaces: Fd(3) is BareMounts
        "#]],
    );
}

/// Without a cgroup namespace it is a bind mount.
#[test]
fn a_cgroup_mount_of_v2_is_parked_to_be_listed_in_its_order() {
    let cgroup = r#"{"mounts": [{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}]}"#;
    check(
        cgroup,
        expect![[r#"
            after the beginning
            - linux.namespaces: StartIn { namespaces: mount }
            + linux.namespaces: StartIn { namespaces: none }
            after SetUmask
            - linux.rootfsPropagation: SetPropagation { propagation: slave }
            after root.path: CloneRootfs
            - mounts[0].source: OpenSource { source: Source(0), host_path: "/sys/fs/cgroup/box" }
            - root.path: AttachRootfs
            + mounts[0].source: OpenTree { source: Source(0), host_path: "/sys/fs/cgroup/box" }
            + mounts[0]: SetSourceAttributes { source: Source(0), attrs: Attrs { propagation: private } }
            + linux.namespaces: EnterBareMounts { fd: Fd(2) }
            + root.path: AttachRootfsInScratch
            after process.user.uid: ChownStreams
            + mounts[0]: ParkSource { source: Source(0), by_name: false }
            after NotDumpable
            - root.path: OpenRoot { path: "." }
            + root.path: OpenRoot { path: "root" }
            after linux.resources.cpu.cpus: SetAffinity
            - mounts[0]: CloneSource { source: Source(0), attrs: Attrs { propagation: private } }
            + mounts[0]: FetchSource { source: Source(0) }
            after root.path: PivotRoot
            + root.path: UnmountOldRoot
            after process.args[0]: Exec
            + linux.namespaces: Fd(2) is BareMounts
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

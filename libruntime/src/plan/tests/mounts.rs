//! `mounts`, their options, propagation, masks and devices.

use super::{check, check_from, check_on};
use expect_test::{Expect, expect};

fn tmpfs(options: &str, expect: Expect) {
    let fragment = format!(
        r#"{{"mounts": [{{"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": [{options}]}}]}}"#
    );
    check(&fragment, expect);
}

fn bind(options: &str, expect: Expect) {
    check(&bind_fragment(options), expect);
}

fn bind_fragment(options: &str) -> String {
    format!(
        r#"{{"mounts": [{{"destination": "/d", "type": "bind", "source": "/srv", "options": [{options}]}}]}}"#
    )
}

#[test]
fn a_new_filesystem_gets_its_attributes_when_it_is_made() {
    tmpfs(
        r#""nosuid", "nodev", "noexec", "ro", "mode=755", "size=64k""#,
        expect![[r#"
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: Mount { fstype: "tmpfs", options: "source tmpfs mode 755 size 64k", target: "/t", flags: ro+nosuid+nodev+noexec }
        "#]],
    );
}

#[test]
fn access_times_of_a_new_filesystem() {
    tmpfs(
        r#""noatime", "nodiratime""#,
        expect![[r#"
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: Mount { fstype: "tmpfs", options: "source tmpfs", target: "/t", flags: noatime+nodiratime, mode_of_target: true }
        "#]],
    );
    tmpfs(
        r#""noatime", "strictatime""#,
        expect![[r#"
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: Mount { fstype: "tmpfs", options: "source tmpfs", target: "/t", flags: strictatime, mode_of_target: true }
        "#]],
    );
    tmpfs(
        r#""strictatime", "relatime""#,
        expect![[r#"
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: Mount { fstype: "tmpfs", options: "source tmpfs", target: "/t", flags: none, mode_of_target: true }
        "#]],
    );
}

#[test]
fn options_of_the_superblock_go_to_the_filesystem() {
    tmpfs(
        r#""sync", "lazytime", "huge=never""#,
        expect![[r#"
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: Mount { fstype: "tmpfs", options: "source tmpfs sync  lazytime  huge never", target: "/t", flags: none, mode_of_target: true }
        "#]],
    );
}

#[test]
fn options_that_are_too_long_for_fsconfig_go_to_mount() {
    let long = "/layer".repeat(50);
    let mount = format!(
        r#"{{"mounts": [{{"destination": "/data", "type": "overlay", "source": "overlay",
            "options": ["nodev", "lowerdir={long}", "index=off", "volatile"]}}]}}"#
    );
    check(
        &mount,
        expect![[r#"
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: MountByText { fstype: "overlay", source: "overlay", options: "lowerdir=/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer/layer,index=off,volatile", target: "/data", flags: nodev }
        "#]],
    );
    check(
        &mount.replace("nodev", "shared"),
        expect![[r#"
            shared or unbindable with an option of over 255 bytes, at mounts[0].options
        "#]],
    );
}

#[test]
fn options_that_mean_nothing_here_change_nothing() {
    tmpfs(
        r#""defaults", "silent", "loud", "iversion", "noiversion", "nofail""#,
        expect![[r#"
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: Mount { fstype: "tmpfs", options: "source tmpfs", target: "/t", flags: none, mode_of_target: true }
        "#]],
    );
}

#[test]
fn the_opposites_of_attributes_clear_nothing_on_a_new_filesystem() {
    tmpfs(
        r#""ro", "nosuid", "nodev", "noexec", "nosymfollow", "rw", "suid", "dev", "exec", "symfollow""#,
        expect![[r#"
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: Mount { fstype: "tmpfs", options: "source tmpfs", target: "/t", flags: none, mode_of_target: true }
        "#]],
    );
}

#[test]
fn the_root_is_copied_into_a_tmpfs_that_asks_for_it() {
    tmpfs(
        r#""tmpcopyup", "nosymfollow""#,
        expect![[r#"
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: Mount { fstype: "tmpfs", options: "source tmpfs", target: "/t", flags: nosymfollow, copy_up: true, mode_of_target: true }
        "#]],
    );
}

#[test]
fn a_new_filesystem_can_have_a_propagation() {
    tmpfs(
        r#""rshared""#,
        expect![[r#"
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: Mount { fstype: "tmpfs", options: "source tmpfs", target: "/t", flags: none, attrs: Attrs { propagation: rec+shared }, mode_of_target: true }
        "#]],
    );
}

#[test]
fn a_filesystem_without_a_source_is_called_none() {
    check(
        r#"{"mounts": [{"destination": "t", "type": "tmpfs"}]}"#,
        expect![[r#"
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: Mount { fstype: "tmpfs", options: "source none", target: "/t", flags: none, mode_of_target: true }
            after process.args[0]: Exec
            + warning: mounts[0].destination: "t" is relative, which is deprecated; it is read as relative to /
        "#]],
    );
}

#[test]
fn links_are_refused_where_procfs_and_sysfs_go() {
    check(
        r#"{"mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["hidepid=2"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"}
        ]}"#,
        expect![[r#"
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: Mount { fstype: "proc", options: "source proc hidepid 2", target: "/proc", flags: none, strict: true }
            + mounts[1]: Mount { fstype: "sysfs", options: "source sysfs", target: "/sys", flags: ro, strict: true }
            + mounts[2]: Mount { fstype: "mqueue", options: "source mqueue", target: "/dev/mqueue", flags: none }
        "#]],
    );
}

#[test]
fn a_bind_source_is_opened_first_and_attached_in_its_turn() {
    check(
        r#"{"mounts": [
            {"destination": "/t", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/t/d", "type": "bind", "source": "data", "options": ["rbind"]}
        ]}"#,
        expect![[r#"
            after root.path: CloneRootfs
            + mounts[1].source: OpenSource { source: Source(0), host_path: "/bundle/data" }
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: Mount { fstype: "tmpfs", options: "source tmpfs", target: "/t", flags: none, mode_of_target: true }
            + mounts[1]: CloneSource { source: Source(0), recursive: true, attrs: Attrs { propagation: rec+private } }
            + mounts[1]: MoveMount { source: Source(0), target: "/t/d", directory: false }
        "#]],
    );
}

#[test]
fn links_at_either_end_of_a_bind_mount_can_be_taken_as_they_are() {
    check(
        r#"{"mounts": [
            {"destination": "/a", "source": "/l", "options": ["bind", "copy-symlink"]},
            {"destination": "/b", "source": "/l", "options": ["bind", "src-nofollow", "dest-nofollow"]}
        ]}"#,
        expect![[r#"
            after root.path: CloneRootfs
            + mounts[0].source: OpenSource { source: Source(0), host_path: "/l", nofollow: true }
            + mounts[1].source: OpenSource { source: Source(1), host_path: "/l", nofollow: true }
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: CloneSource { source: Source(0), attrs: Attrs { propagation: private } }
            + mounts[0]: MoveMount { source: Source(0), target: "/a", copy_link: true, directory: false }
            + mounts[1]: CloneSource { source: Source(1), attrs: Attrs { propagation: private } }
            + mounts[1]: MoveMount { source: Source(1), target: "/b", nofollow: true, directory: false }
        "#]],
    );
}

#[test]
fn the_type_bind_is_enough() {
    bind(
        "",
        expect![[r#"
            after root.path: CloneRootfs
            + mounts[0].source: OpenSource { source: Source(0), host_path: "/srv" }
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: CloneSource { source: Source(0), attrs: Attrs { propagation: private } }
            + mounts[0]: MoveMount { source: Source(0), target: "/d", directory: false }
        "#]],
    );
}

#[test]
fn attributes_of_a_bind_mount_are_set_before_it_is_attached() {
    bind(
        r#""ro", "nosuid", "exec", "noatime""#,
        expect![[r#"
            after root.path: CloneRootfs
            + mounts[0].source: OpenSource { source: Source(0), host_path: "/srv" }
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: CloneSource { source: Source(0), attrs: Attrs { set: ro+nosuid+noatime, clear: nodev+noexec+atimes+nodiratime+nosymfollow, propagation: private } }
            + mounts[0]: MoveMount { source: Source(0), target: "/d", directory: false }
        "#]],
    );
}

#[test]
fn recursive_attributes_are_those_of_the_whole_tree() {
    bind(
        r#""rbind", "rro", "rnosuid", "rdev", "rnoatime""#,
        expect![[r#"
            after root.path: CloneRootfs
            + mounts[0].source: OpenSource { source: Source(0), host_path: "/srv" }
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: CloneSource { source: Source(0), recursive: true, attrs: Attrs { rec_set: ro+nosuid+noatime, rec_clear: nodev+atimes, propagation: rec+private } }
            + mounts[0]: MoveMount { source: Source(0), target: "/d", directory: false }
        "#]],
    );
}

#[test]
fn a_bind_mount_has_the_propagation_it_asks_for() {
    for (option, shown) in [
        ("shared", "shared"),
        ("rshared", "rec+shared"),
        ("slave", "slave"),
        ("rslave", "rec+slave"),
        ("private", "private"),
        ("rprivate", "rec+private"),
        ("unbindable", "unbindable"),
        ("runbindable", "rec+unbindable"),
    ] {
        let base = bind_fragment(r#""rbind", "rprivate""#);
        let fragment = bind_fragment(&format!(r#""rbind", "{option}""#));
        let mut given = super::given();
        given.request.no_pivot = false;
        let mut config = super::minimal();
        super::merge(&mut config, serde_json::from_str(&base).unwrap());
        super::merge(&mut config, serde_json::from_str(&fragment).unwrap());
        let lines = super::lines(&super::planned(&config, &given)).unwrap();
        let wanted = format!("recursive: true, attrs: Attrs {{ propagation: {shown} }}");
        assert!(lines.iter().any(|line| line.contains(&wanted)), "{option}: {lines:#?}");
    }
}

#[test]
fn what_only_a_filesystem_could_take_is_refused_on_a_bind_mount() {
    let text = "bind mounts cannot have any filesystem-specific options applied, such as mode";
    let fragment = bind_fragment(r#""bind", "sync", "mode=755", "size=1m""#);
    let mut config = super::minimal();
    super::merge(&mut config, serde_json::from_str(&fragment).unwrap());
    let error = super::planned(&config, &super::given()).map(|_| ()).unwrap_err();
    assert!(error.contains(text), "{error}");
}

#[test]
fn a_remount_changes_what_is_there() {
    check(
        r#"{"mounts": [
            {"destination": "/t", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/t", "options": ["remount", "ro", "nosuid"]}
        ]}"#,
        expect![[r#"
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: Mount { fstype: "tmpfs", options: "source tmpfs", target: "/t", flags: none, mode_of_target: true }
            + mounts[0]: KeepMount { mount: Kept(1) }
            + mounts[1]: SetAttributes { place: "/t" in Kept(1), attrs: Attrs { set: ro+nosuid } }
        "#]],
    );
}

#[test]
fn maps_of_a_mount_are_a_user_namespace_of_its_own() {
    check(
        r#"{"mounts": [
            {"destination": "/a", "type": "bind", "source": "/srv/a",
             "uidMappings": [{"containerID": 0, "hostID": 1, "size": 2}],
             "gidMappings": [{"containerID": 3, "hostID": 4, "size": 5}]},
            {"destination": "/b", "type": "bind", "source": "/srv/b", "options": ["rbind", "ridmap"],
             "uidMappings": [{"containerID": 0, "hostID": 1, "size": 2}],
             "gidMappings": [{"containerID": 3, "hostID": 4, "size": 5}]}
        ]}"#,
        expect![[r#"
            after root.path: CloneRootfs
            + mounts[0].source: OpenIdmapped { source: Source(0), host_path: "/srv/a", attrs: Attrs { propagation: rec+private }, fd: Fd(2) }
            + mounts[1].source: OpenIdmapped { source: Source(1), host_path: "/srv/b", recursive: true, attrs: Attrs { propagation: rec+private }, fd: Fd(2), recursive_map: true }
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: MoveMount { source: Source(0), target: "/a", directory: false }
            + mounts[1]: MoveMount { source: Source(1), target: "/b", directory: false }
            after process.args[0]: Exec
            + mounts[0].uidMappings: Fd(2) is IdMap(0)
            + id map: IdMaps { uids: [[0, 1, 2]], gids: [[3, 4, 5]] }
        "#]],
    );
}

#[test]
fn an_idmap_without_maps_takes_those_of_the_container() {
    let user = r#"{"linux": {
        "namespaces": [{"type": "mount"}, {"type": "user"}],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        "gidMappings": [{"containerID": 0, "hostID": 2000, "size": 10}],
        "devices": []
    }, "mounts": [{"destination": "/dev", "type": "bind", "source": "/dev"}]}"#;
    check_from(
        user,
        |_| {},
        r#"{"mounts": [
            {"destination": "/dev", "type": "bind", "source": "/dev"},
            {"destination": "/d", "type": "bind", "source": "/srv", "options": ["idmap"]}
        ]}"#,
        expect![[r#"
            after mounts[0]: SetSourceAttributes
            + mounts[1].source: OpenIdmapped { source: Source(1), host_path: "/srv", attrs: Attrs { propagation: rec+private }, fd: Fd(2) }
            after mounts[0]: ParkSource
            + mounts[1]: ParkSource { source: Source(1), by_name: true }
            after mounts[0]: MoveMount
            + mounts[1]: FetchSource { source: Source(1) }
            + mounts[1]: MoveMount { source: Source(1), target: "/d", directory: false }
        "#]],
    );
    bind(
        r#""idmap""#,
        expect![[r#"
            invalid config: mounts[0].options: idmap needs uidMappings and gidMappings here, or a user namespace of the container
        "#]],
    );
}

#[test]
fn rootfs_propagation_is_of_the_root_and_of_the_whole_namespace() {
    let check = |value: &str, expect: Expect| {
        check(&format!(r#"{{"linux": {{"rootfsPropagation": "{value}"}}}}"#), expect);
    };
    check("rslave", expect![[""]]);
    check(
        "rprivate",
        expect![[r#"
            after SetUmask
            - linux.rootfsPropagation: SetPropagation { propagation: slave }
            - root.path: CloneRootfs { host_path: "/bundle/rootfs", propagation: slave }
            + linux.rootfsPropagation: SetPropagation { propagation: private }
            + root.path: CloneRootfs { host_path: "/bundle/rootfs", propagation: private }
        "#]],
    );
    check(
        "rshared",
        expect![[r#"
            after SetUmask
            - linux.rootfsPropagation: SetPropagation { propagation: slave }
            - root.path: CloneRootfs { host_path: "/bundle/rootfs", propagation: slave }
            + linux.rootfsPropagation: SetPropagation { propagation: shared }
            + linux.rootfsPropagation: PrivateParent { host_path: "/bundle/rootfs" }
            + root.path: CloneRootfs { host_path: "/bundle/rootfs", propagation: private }
            after root.path: PivotRoot
            + linux.rootfsPropagation: SetAttributes { place: "/", attrs: Attrs { propagation: rec+shared } }
        "#]],
    );
    check(
        "unbindable",
        expect![[r#"
            after linux.rootfsPropagation: SetPropagation
            - root.path: CloneRootfs { host_path: "/bundle/rootfs", propagation: slave }
            + root.path: CloneRootfs { host_path: "/bundle/rootfs", propagation: private }
            after root.path: PivotRoot
            + linux.rootfsPropagation: SetAttributes { place: "/", attrs: Attrs { propagation: unbindable } }
        "#]],
    );
}

#[test]
fn a_readonly_root_becomes_so_after_everything_is_in_it() {
    check(
        r#"{"root": {"path": "/srv/image", "readonly": true}, "linux": {"readonlyPaths": ["/etc"]}}"#,
        expect![[r#"
            after linux.rootfsPropagation: SetPropagation
            - root.path: CloneRootfs { host_path: "/bundle/rootfs", propagation: slave }
            + root.path: CloneRootfs { host_path: "/srv/image", propagation: slave }
            after root.path: PivotRoot
            + linux.readonlyPaths[0]: ReadonlyPath { place: "/etc", recursive: true }
            + process.cwd: Chdir { path: "/", make: true }
            + root.readonly: SetAttributes { place: "/", attrs: Attrs { set: ro } }
        "#]],
    );
}

#[test]
fn masks_come_after_every_mount_and_share_the_hosts_null_device() {
    check(
        r#"{"mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"maskedPaths": ["/proc/kcore", "/proc/acpi"], "readonlyPaths": ["/proc/sys"]}}"#,
        expect![[r#"
            after root.path: CloneRootfs
            + linux.maskedPaths: OpenDevice { source: Source(0), host_path: "/dev/null", mode: 8192, major: 1, minor: 3 }
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: Mount { fstype: "proc", options: "source proc", target: "/proc", flags: none, strict: true }
            + mounts[0]: KeepMount { mount: Kept(1) }
            after root.path: PivotRoot
            + linux.readonlyPaths[0]: ReadonlyPath { place: "/proc/sys" in Kept(1), recursive: true }
            + linux.maskedPaths[0]: MaskPath { place: "/proc/kcore" in Kept(1), source: Source(0) }
            + linux.maskedPaths[1]: MaskPath { place: "/proc/acpi" in Kept(1), source: Source(0) }
        "#]],
    );
}

#[test]
fn devices_of_the_config_come_after_the_default_ones() {
    check(
        r#"{"linux": {"devices": [
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 432, "uid": 1, "gid": 2},
            {"path": "/dev/loop0", "type": "b", "major": 7, "minor": 0},
            {"path": "/run/pipe", "type": "p"}
        ]}}"#,
        expect![[r#"
            after linux.devices: MakeNode
            + linux.devices[0]: MakeNode { path: "/dev/fuse", mode: 8624, major: 10, minor: 229, uid: 1, gid: 2 }
            + linux.devices[1]: MakeNode { path: "/dev/loop0", mode: 25014, major: 7, minor: 0, uid: 0, gid: 0 }
            + linux.devices[2]: MakeNode { path: "/run/pipe", mode: 4534, major: 0, minor: 0, uid: 0, gid: 0 }
        "#]],
    );
}

#[test]
fn a_device_at_the_path_of_a_default_one_replaces_it() {
    check(
        r#"{"linux": {"devices": [{"path": "/dev/tty", "type": "c", "major": 4, "minor": 1}]}}"#,
        expect![[r#"
            after linux.devices: MakeNode
            - linux.devices: MakeNode { path: "/dev/tty", mode: 8630, major: 5, minor: 0, uid: 0, gid: 0 }
            + linux.devices[0]: MakeNode { path: "/dev/tty", mode: 8630, major: 4, minor: 1, uid: 0, gid: 0 }
        "#]],
    );
}

#[test]
fn in_a_user_namespace_devices_are_the_hosts_but_a_fifo_is_made() {
    let user = r#"{"linux": {
        "namespaces": [{"type": "mount"}, {"type": "user"}],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        "gidMappings": [{"containerID": 0, "hostID": 2000, "size": 10}]
    }}"#;
    check_from(
        user,
        |_| {},
        r#"{"linux": {"devices": [
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}, {"path": "/dev/p", "type": "p"}
        ]}}"#,
        expect![[r#"
            after linux.devices: OpenDevice
            + linux.devices[0]: OpenDevice { source: Source(6), host_path: "/dev/fuse", mode: 8630, major: 10, minor: 229 }
            after linux.devices: ParkSource
            + linux.devices[0]: ParkSource { source: Source(6), by_name: true }
            after linux.devices: FetchSource
            + linux.devices[0]: FetchSource { source: Source(6) }
            after linux.devices: MoveMount
            + linux.devices[0]: MoveMount { source: Source(6), target: "/dev/fuse", directory: false }
            + linux.devices[1]: MakeNode { path: "/dev/p", mode: 4534, major: 0, minor: 0, uid: 0, gid: 0 }
        "#]],
    );
}

#[test]
fn nothing_is_made_in_a_dev_that_is_the_hosts() {
    check(
        r#"{"mounts": [{"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"]}]}"#,
        expect![[r#"
            after root.path: CloneRootfs
            + mounts[0].source: OpenSource { source: Source(0), host_path: "/dev" }
            after linux.resources.cpu.cpus: SetAffinity
            - linux.devices: MakeNode { path: "/dev/null", mode: 8630, major: 1, minor: 3, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/zero", mode: 8630, major: 1, minor: 5, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/full", mode: 8630, major: 1, minor: 7, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/random", mode: 8630, major: 1, minor: 8, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/urandom", mode: 8630, major: 1, minor: 9, uid: 0, gid: 0 }
            - linux.devices: MakeNode { path: "/dev/tty", mode: 8630, major: 5, minor: 0, uid: 0, gid: 0 }
            - linux.devices: Symlink { content: "/proc/self/fd", path: "/dev/fd" }
            - linux.devices: Symlink { content: "/proc/self/fd/0", path: "/dev/stdin" }
            - linux.devices: Symlink { content: "/proc/self/fd/1", path: "/dev/stdout" }
            - linux.devices: Symlink { content: "/proc/self/fd/2", path: "/dev/stderr" }
            - linux.devices: Symlink { content: "pts/ptmx", path: "/dev/ptmx" }
            - linux.devices: Symlink { content: "/proc/kcore", path: "/dev/core" }
            + mounts[0]: CloneSource { source: Source(0), recursive: true, attrs: Attrs { propagation: rec+private } }
            + mounts[0]: MoveMount { source: Source(0), target: "/dev", directory: false }
        "#]],
    );
}

#[test]
fn a_root_that_cannot_be_pivoted_is_moved() {
    check_on(
        |given| given.request.no_pivot = true,
        "{}",
        expect![[r#"
            after linux.devices: Symlink
            - root.path: PivotRoot
            + root.path: MoveRoot
        "#]],
    );
}

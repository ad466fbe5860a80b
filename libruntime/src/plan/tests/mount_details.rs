//! Mounts whose details depend on others, on their source or on the namespaces.

use super::{check, check_from};
use expect_test::expect;

#[test]
fn a_namespace_without_a_path_is_new_and_a_mask_is_made_once() {
    check(r#"{"linux": {"namespaces": [{"type": "mount", "path": ""}]}}"#, expect![[""]]);
    check_from(
        r#"{"linux": {"maskedPaths": ["/a", "/b"]}}"#,
        |_| {},
        r#"{"linux": {"maskedPaths": ["/a", "/a", "/b", "/a"]}}"#,
        expect![[r#"
            after linux.maskedPaths[0]: MaskPath
            - linux.maskedPaths[1]: MaskPath { place: "/b", source: Source(0) }
            + linux.maskedPaths[2]: MaskPath { place: "/b", source: Source(0) }
        "#]],
    );
}

#[test]
fn a_filesystem_is_read_only_when_all_that_goes_into_it_is_made() {
    let lines = |mounts: &str| {
        let mut config = super::minimal();
        super::merge(&mut config, serde_json::from_str(&format!(r#"{{"mounts": {mounts}}}"#)).unwrap());
        let lines = super::lines(&super::planned(&config, &super::given())).unwrap();
        let wanted = |line: &String| line.starts_with("mounts") || line.contains("Symlink { content: \"pts");
        lines.into_iter().filter(wanted).collect::<Vec<_>>().join("\n") + "\n"
    };
    let tmpfs =
        |at: &str| format!(r#"{{"destination": "{at}", "type": "tmpfs", "options": ["mode=1", "ro"]}}"#);
    expect![[r#"
        mounts[0]: Mount { fstype: "tmpfs", options: "source none mode 1", target: "/dev", flags: none }
        mounts[0]: KeepMount { mount: Kept(1) }
        linux.devices: Symlink { content: "pts/ptmx", path: "/dev/ptmx" }
        mounts[0]: SetAttributes { place: "/dev" in Kept(1), attrs: Attrs { set: ro } }
    "#]]
    .assert_eq(&lines(&format!("[{}]", tmpfs("/dev"))));
    expect![[r#"
        mounts[0]: Mount { fstype: "tmpfs", options: "source none mode 1", target: "/a", flags: none }
        mounts[0]: KeepMount { mount: Kept(1) }
        mounts[1]: Mount { fstype: "tmpfs", options: "source none mode 1", target: "/a/b", flags: ro }
        linux.devices: Symlink { content: "pts/ptmx", path: "/dev/ptmx" }
        mounts[0]: SetAttributes { place: "/a" in Kept(1), attrs: Attrs { set: ro } }
    "#]]
    .assert_eq(&lines(&format!("[{}, {}]", tmpfs("/a"), tmpfs("/a/b"))));
    // What is covered later cannot be reached any more.
    expect![[r#"
        mounts[0]: Mount { fstype: "tmpfs", options: "source none mode 1", target: "/a", flags: ro }
        mounts[1]: Mount { fstype: "tmpfs", options: "source none mode 1", target: "/a", flags: ro }
        linux.devices: Symlink { content: "pts/ptmx", path: "/dev/ptmx" }
    "#]]
    .assert_eq(&lines(&format!("[{}, {}]", tmpfs("/a"), tmpfs("/a"))));
}

#[test]
fn a_bind_mount_that_sets_attributes_has_no_others_of_its_source() {
    let clone = |options: &str, user: &str| {
        let mut config = super::minimal();
        let mounts = format!(
            r#"{{"mounts": [{{"destination": "/m", "type": "bind", "source": "/s", "options": {options}}}]}}"#
        );
        super::merge(&mut config, serde_json::from_str(&mounts).unwrap());
        super::merge(&mut config, serde_json::from_str(user).unwrap());
        let lines = super::lines(&super::planned(&config, &super::given())).unwrap();
        let wanted =
            |line: &String| line.starts_with("mounts") && line.contains("{ source: Source(0), attrs");
        lines.into_iter().filter(wanted).collect::<Vec<_>>().join("\n") + "\n"
    };
    expect![[r#"
        mounts[0]: CloneSource { source: Source(0), attrs: Attrs { propagation: private } }
    "#]]
    .assert_eq(&clone(r#"["bind"]"#, "{}"));
    expect![[r#"
        mounts[0]: CloneSource { source: Source(0), attrs: Attrs { clear: ro, propagation: private } }
    "#]]
    .assert_eq(&clone(r#"["bind,rw"]"#, "{}"));
    expect![[r#"
        mounts[0]: CloneSource { source: Source(0), attrs: Attrs { set: nosuid, clear: ro+nodev+noexec+nosymfollow, propagation: private } }
    "#]]
    .assert_eq(&clone(r#"["bind", "nosuid"]"#, "{}"));
    // In a user namespace the source's stay, and what is to be lifted is asked for where it can be refused.
    let user = r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "user"}],
        "uidMappings": [{"containerID": 0, "hostID": 9, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": 9, "size": 1}]}}"#;
    expect![[r#"
        mounts[0]: SetSourceAttributes { source: Source(0), attrs: Attrs { set: nosuid, propagation: private } }
        mounts[0]: FetchSource { source: Source(0), attrs: Attrs { clear: ro } }
    "#]]
    .assert_eq(&clone(r#"["bind", "nosuid", "rw"]"#, user));
}

#[test]
fn a_user_namespace_without_its_own_network_shows_the_sysfs_of_the_host() {
    let user = r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "user"}],
        "uidMappings": [{"containerID": 0, "hostID": 9, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": 9, "size": 1}]}}"#;
    check_from(
        user,
        |given| given.host.uid = 9,
        r#"{"mounts": [{"destination": "/sys", "type": "sysfs", "options": ["ro"]}]}"#,
        expect![[r#"
            after root.path: CloneRootfs
            - linux.devices: OpenDevice { source: Source(0), host_path: "/dev/null", mode: 8630, major: 1, minor: 3 }
            - linux.devices: OpenDevice { source: Source(1), host_path: "/dev/zero", mode: 8630, major: 1, minor: 5 }
            - linux.devices: OpenDevice { source: Source(2), host_path: "/dev/full", mode: 8630, major: 1, minor: 7 }
            - linux.devices: OpenDevice { source: Source(3), host_path: "/dev/random", mode: 8630, major: 1, minor: 8 }
            - linux.devices: OpenDevice { source: Source(4), host_path: "/dev/urandom", mode: 8630, major: 1, minor: 9 }
            - linux.devices: OpenDevice { source: Source(5), host_path: "/dev/tty", mode: 8630, major: 5, minor: 0 }
            + mounts[0].source: OpenSource { source: Source(0), host_path: "/sys" }
            + linux.devices: OpenDevice { source: Source(1), host_path: "/dev/null", mode: 8630, major: 1, minor: 3 }
            + linux.devices: OpenDevice { source: Source(2), host_path: "/dev/zero", mode: 8630, major: 1, minor: 5 }
            + linux.devices: OpenDevice { source: Source(3), host_path: "/dev/full", mode: 8630, major: 1, minor: 7 }
            + linux.devices: OpenDevice { source: Source(4), host_path: "/dev/random", mode: 8630, major: 1, minor: 8 }
            + linux.devices: OpenDevice { source: Source(5), host_path: "/dev/urandom", mode: 8630, major: 1, minor: 9 }
            + linux.devices: OpenDevice { source: Source(6), host_path: "/dev/tty", mode: 8630, major: 5, minor: 0 }
            after linux.resources.cpu.cpus: SetAffinity
            - linux.devices: MoveMount { source: Source(0), target: "/dev/null", directory: false }
            - linux.devices: MoveMount { source: Source(1), target: "/dev/zero", directory: false }
            - linux.devices: MoveMount { source: Source(2), target: "/dev/full", directory: false }
            - linux.devices: MoveMount { source: Source(3), target: "/dev/random", directory: false }
            - linux.devices: MoveMount { source: Source(4), target: "/dev/urandom", directory: false }
            - linux.devices: MoveMount { source: Source(5), target: "/dev/tty", directory: false }
            + mounts[0]: CloneSource { source: Source(0), recursive: true, attrs: Attrs { rec_set: ro, propagation: rec+private } }
            + mounts[0]: MoveMount { source: Source(0), target: "/sys", directory: false }
            + linux.devices: MoveMount { source: Source(1), target: "/dev/null", directory: false }
            + linux.devices: MoveMount { source: Source(2), target: "/dev/zero", directory: false }
            + linux.devices: MoveMount { source: Source(3), target: "/dev/full", directory: false }
            + linux.devices: MoveMount { source: Source(4), target: "/dev/random", directory: false }
            + linux.devices: MoveMount { source: Source(5), target: "/dev/urandom", directory: false }
            + linux.devices: MoveMount { source: Source(6), target: "/dev/tty", directory: false }
        "#]],
    );
}

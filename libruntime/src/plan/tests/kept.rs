//! Paths in mounts are found by the mount, not by what its mount point is called.

use super::check;
use expect_test::expect;

#[test]
fn a_mask_is_looked_for_in_the_last_mount_that_has_it() {
    check(
        r#"{"mounts": [
                {"destination": "/proc", "type": "proc"},
                {"destination": "/proc/sys", "type": "bind", "source": "/srv", "options": ["bind"]},
                {"destination": "/process", "type": "tmpfs"}],
            "linux": {"maskedPaths": ["/proc/kcore", "//proc/./sys/net"],
                      "readonlyPaths": ["/proc/sys", "/etc", "/proc/../process"]}}"#,
        expect![[r#"
            after root.path: CloneRootfs
            + mounts[1].source: OpenSource { source: Source(0), host_path: "/srv" }
            + linux.maskedPaths: OpenDevice { source: Source(1), host_path: "/dev/null", mode: 8192, major: 1, minor: 3 }
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: Mount { fstype: "proc", options: "source none", target: "/proc", flags: none, strict: true }
            + mounts[0]: KeepMount { mount: Kept(1) }
            + mounts[1]: CloneSource { source: Source(0), attrs: Attrs { propagation: private } }
            + mounts[1]: MoveMount { source: Source(0), target: "/proc/sys", directory: false }
            + mounts[1]: KeepMount { mount: Kept(2) }
            + mounts[2]: Mount { fstype: "tmpfs", options: "source none", target: "/process", flags: none, mode_of_target: true }
            after root.path: PivotRoot
            + linux.readonlyPaths[0]: ReadonlyPath { place: "/proc/sys" in Kept(2), recursive: true }
            + linux.readonlyPaths[1]: ReadonlyPath { place: "/etc", recursive: true }
            + linux.readonlyPaths[2]: ReadonlyPath { place: "/proc/../process", recursive: true }
            + linux.maskedPaths[0]: MaskPath { place: "/proc/kcore" in Kept(1), source: Source(1) }
            + linux.maskedPaths[1]: MaskPath { place: "/proc/sys/net" in Kept(2), source: Source(1) }
        "#]],
    );
}

#[test]
fn an_overlay_by_mount_2_has_no_descriptor_to_be_kept() {
    let long = "l".repeat(300);
    check(
        &format!(
            r#"{{"mounts": [
                {{"destination": "/a", "type": "tmpfs"}},
                {{"destination": "/a/b", "type": "overlay", "options": ["lowerdir={long}"]}}],
                "linux": {{"readonlyPaths": ["/a/b/c", "/a/d"]}}}}"#
        ),
        expect![[r#"
            after linux.resources.cpu.cpus: SetAffinity
            + mounts[0]: Mount { fstype: "tmpfs", options: "source none", target: "/a", flags: none, mode_of_target: true }
            + mounts[0]: KeepMount { mount: Kept(1) }
            + mounts[1]: MountByText { fstype: "overlay", source: "none", options: "lowerdir=llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll", target: "/a/b", flags: none }
            after root.path: PivotRoot
            + linux.readonlyPaths[0]: ReadonlyPath { place: "/a/b/c", recursive: true }
            + linux.readonlyPaths[1]: ReadonlyPath { place: "/a/d" in Kept(1), recursive: true }
        "#]],
    );
}

//! Three plans from their first step to the last. Read them when the order changes.

use super::{Given, given, lines, merge, minimal, planned};
use expect_test::{Expect, expect};

fn whole(given: &Given, fragment: &str, expect: Expect) {
    let mut config = minimal();
    merge(&mut config, serde_json::from_str(fragment).unwrap());
    expect.assert_eq(&(lines(&planned(&config, given)).unwrap().join("\n") + "\n"));
}

#[test]
fn the_plan_of_a_minimal_config() {
    whole(
        &given(),
        "{}",
        expect![[r#"
            linux.namespaces: StartIn { namespaces: mount }
            ResetSignals
            SetUmask { mask: 0 }
            linux.rootfsPropagation: SetPropagation { propagation: slave }
            root.path: CloneRootfs { host_path: "/bundle/rootfs", propagation: slave }
            root.path: AttachRootfs
            process.user.uid: ChownStreams { uid: 0 }
            NotDumpable
            root.path: OpenRoot { path: "." }
            SetSid
            JoinSessionKeyring { name: "_ses.box", label: "" }
            linux.resources.cpu.cpus: SetAffinity { mask: "(1024 bytes)" }
            linux.devices: MakeNode { path: "/dev/null", mode: 8630, major: 1, minor: 3, uid: 0, gid: 0 }
            linux.devices: MakeNode { path: "/dev/zero", mode: 8630, major: 1, minor: 5, uid: 0, gid: 0 }
            linux.devices: MakeNode { path: "/dev/full", mode: 8630, major: 1, minor: 7, uid: 0, gid: 0 }
            linux.devices: MakeNode { path: "/dev/random", mode: 8630, major: 1, minor: 8, uid: 0, gid: 0 }
            linux.devices: MakeNode { path: "/dev/urandom", mode: 8630, major: 1, minor: 9, uid: 0, gid: 0 }
            linux.devices: MakeNode { path: "/dev/tty", mode: 8630, major: 5, minor: 0, uid: 0, gid: 0 }
            linux.devices: Symlink { content: "/proc/self/fd", path: "/dev/fd" }
            linux.devices: Symlink { content: "/proc/self/fd/0", path: "/dev/stdin" }
            linux.devices: Symlink { content: "/proc/self/fd/1", path: "/dev/stdout" }
            linux.devices: Symlink { content: "/proc/self/fd/2", path: "/dev/stderr" }
            linux.devices: Symlink { content: "pts/ptmx", path: "/dev/ptmx" }
            linux.devices: Symlink { content: "/proc/kcore", path: "/dev/core" }
            root.path: PivotRoot
            process.user.umask: SetUmask { mask: 18 }
            process.cwd: Chdir { path: "/", make: true }
            process.user.uid: FindHome { uid: 0 }
            process.user.additionalGids: SetGroups { groups: "" }
            process.capabilities.bounding: DropBounding { keep: 0 }
            process.user: SetIds { uid: 0, gid: 0 }
            CloseFds { passed: [] }
            process.capabilities: SetCapabilities { sets: Capabilities { bounding: 0, effective: 0, inheritable: 0, permitted: 0, ambient: 0 }, also: 0 }
            process.args[0]: FindProgram { paths: "/bin/sh", args: "/bin/sh" }
            EndOnSignals
            Sync { point: Ready }
            AwaitStart
            process.args[0]: Exec { paths: "/bin/sh", args: "/bin/sh", env: (not shown) }
        "#]],
    );
}

/// What dockerd writes for a plain `docker run`, with fewer masks and mounts of one kind.
#[test]
fn the_plan_of_a_config_like_dockers() {
    let mut given = given();
    given.request.console_socket = true;
    whole(
        &given,
        include_str!("docker.json"),
        expect![[r#"
            linux.namespaces: StartIn { namespaces: mount+uts+ipc+pid+network }
            ResetSignals
            SetUmask { mask: 0 }
            process.oomScoreAdj: WriteProcess { path: "oom_score_adj", value: "0" }
            linux.rootfsPropagation: SetPropagation { propagation: slave }
            root.path: CloneRootfs { host_path: "/var/lib/docker/overlay2/1/merged", propagation: slave }
            mounts[4].source: OpenSource { source: Source(0), host_path: "/var/lib/docker/hosts" }
            mounts[5].source: OpenSource { source: Source(1), host_path: "/srv/data" }
            linux.maskedPaths: OpenDevice { source: Source(2), host_path: "/dev/null", mode: 8192, major: 1, minor: 3 }
            root.path: AttachRootfs
            NotDumpable
            root.path: OpenRoot { path: "." }
            linux.namespaces: LoopbackUp
            SetSid
            JoinSessionKeyring { name: "_ses.box", label: "" }
            linux.resources.cpu.cpus: SetAffinity { mask: "(1024 bytes)" }
            linux.namespaces: Unshare { namespaces: cgroup }
            mounts[0]: Mount { fstype: "proc", options: "source proc", target: "/proc", flags: nosuid+nodev+noexec, strict: true }
            mounts[0]: KeepMount { mount: Kept(1) }
            mounts[1]: Mount { fstype: "tmpfs", options: "source tmpfs mode 755 size 65536k", target: "/dev", flags: nosuid+strictatime }
            mounts[2]: Mount { fstype: "devpts", options: "source devpts newinstance  ptmxmode 0666 mode 0620 gid 5", target: "/dev/pts", flags: nosuid+noexec }
            mounts[3]: Mount { fstype: "cgroup2", options: "source cgroup", target: "/sys/fs/cgroup", flags: ro+nosuid+nodev+noexec }
            mounts[4]: CloneSource { source: Source(0), recursive: true, attrs: Attrs { propagation: rec+private } }
            mounts[4]: MoveMount { source: Source(0), target: "/etc/hosts", directory: false }
            mounts[5]: CloneSource { source: Source(1), recursive: true, attrs: Attrs { set: ro, clear: nosuid+nodev+noexec+nosymfollow, propagation: rec+slave } }
            mounts[5]: MoveMount { source: Source(1), target: "/data", directory: false }
            linux.devices: MakeNode { path: "/dev/null", mode: 8630, major: 1, minor: 3, uid: 0, gid: 0 }
            linux.devices: MakeNode { path: "/dev/zero", mode: 8630, major: 1, minor: 5, uid: 0, gid: 0 }
            linux.devices: MakeNode { path: "/dev/full", mode: 8630, major: 1, minor: 7, uid: 0, gid: 0 }
            linux.devices: MakeNode { path: "/dev/random", mode: 8630, major: 1, minor: 8, uid: 0, gid: 0 }
            linux.devices: MakeNode { path: "/dev/urandom", mode: 8630, major: 1, minor: 9, uid: 0, gid: 0 }
            linux.devices: MakeNode { path: "/dev/tty", mode: 8630, major: 5, minor: 0, uid: 0, gid: 0 }
            linux.devices: Symlink { content: "/proc/self/fd", path: "/dev/fd" }
            linux.devices: Symlink { content: "/proc/self/fd/0", path: "/dev/stdin" }
            linux.devices: Symlink { content: "/proc/self/fd/1", path: "/dev/stdout" }
            linux.devices: Symlink { content: "/proc/self/fd/2", path: "/dev/stderr" }
            linux.devices: Symlink { content: "pts/ptmx", path: "/dev/ptmx" }
            linux.devices: Symlink { content: "/proc/kcore", path: "/dev/core" }
            process.terminal: OpenConsole { socket: Fd(2), columns: 0, rows: 0, uid: 0 }
            process.terminal: MountConsole
            hooks: Sync { point: Created }
            root.path: PivotRoot
            hostname: SetHostname { name: "4f1d" }
            linux.sysctl[net.ipv4.ip_unprivileged_port_start]: WriteSysctl { path: "sys/net/ipv4/ip_unprivileged_port_start", value: "0" }
            linux.readonlyPaths[0]: ReadonlyPath { place: "/proc/sys" in Kept(1), recursive: true }
            linux.maskedPaths[0]: MaskPath { place: "/proc/kcore" in Kept(1), source: Source(2) }
            linux.maskedPaths[1]: MaskPath { place: "/proc/acpi" in Kept(1), source: Source(2) }
            process.terminal: UseConsole
            process.terminal: SetControllingTerminal
            process.user.umask: SetUmask { mask: 18 }
            process.cwd: Chdir { path: "/", make: true }
            process.user.uid: FindHome { uid: 0 }
            process.user.additionalGids: SetGroups { groups: "(8 bytes)" }
            process.capabilities.bounding: DropBounding { keep: 33 }
            process.user: SetIds { uid: 0, gid: 0 }
            CloseFds { passed: [] }
            process.capabilities: SetCapabilities { sets: Capabilities { bounding: 33, effective: 33, inheritable: 0, permitted: 33, ambient: 0 }, also: 2097152 }
            process.args[0]: FindProgram { paths: "/usr/bin/sh /bin/sh", args: "sh" }
            EndOnSignals
            linux.seccomp: SetSeccomp { flags: 4 }
            process.capabilities: SetCapabilities { sets: Capabilities { bounding: 33, effective: 33, inheritable: 0, permitted: 33, ambient: 0 }, also: 0 }
            Sync { point: Ready }
            AwaitStart
            process.args[0]: Exec { paths: "/usr/bin/sh /bin/sh", args: "sh", env: (not shown) }
            process.terminal: Fd(2) is ConsoleSocket
        "#]],
    );
}

/// What rootless Podman writes, in short: a new user namespace, and `/sys` from the host.
#[test]
fn the_plan_of_a_rootless_config() {
    let mut given = given();
    given.host.uid = 1000;
    given.host.capabilities = 0;
    whole(
        &given,
        include_str!("rootless.json"),
        expect![[r#"
            ResetSignals
            SetUmask { mask: 0 }
            linux.namespaces[4]: Setns { fd: Fd(2), namespaces: user }
            linux.namespaces: Unshare { namespaces: mount }
            linux.rootfsPropagation: SetPropagation { propagation: slave }
            root.path: CloneRootfs { host_path: "/home/u/merged", propagation: slave }
            mounts[2].source: OpenSource { source: Source(0), host_path: "/sys" }
            linux.maskedPaths: OpenDevice { source: Source(1), host_path: "/dev/null", mode: 8192, major: 1, minor: 3 }
            linux.devices: OpenDevice { source: Source(2), host_path: "/dev/null", mode: 8630, major: 1, minor: 3 }
            linux.devices: OpenDevice { source: Source(3), host_path: "/dev/zero", mode: 8630, major: 1, minor: 5 }
            linux.devices: OpenDevice { source: Source(4), host_path: "/dev/full", mode: 8630, major: 1, minor: 7 }
            linux.devices: OpenDevice { source: Source(5), host_path: "/dev/random", mode: 8630, major: 1, minor: 8 }
            linux.devices: OpenDevice { source: Source(6), host_path: "/dev/urandom", mode: 8630, major: 1, minor: 9 }
            linux.devices: OpenDevice { source: Source(7), host_path: "/dev/tty", mode: 8630, major: 5, minor: 0 }
            root.path: AttachRootfs
            linux.namespaces[5]: Setns { fd: Fd(3), namespaces: network }
            linux.namespaces: Clone { namespaces: uts+pid }
            linux.uidMappings: SetIds { uid: 0, gid: 0 }
            process.user.uid: ChownStreams { uid: 0 }
            linux.namespaces: Unshare { namespaces: ipc }
            root.path: OpenRoot { path: "." }
            SetSid
            JoinSessionKeyring { name: "_ses.box", label: "" }
            linux.resources.cpu.cpus: SetAffinity { mask: "(1024 bytes)" }
            mounts[0]: Mount { fstype: "proc", options: "source proc", target: "/proc", flags: nosuid, strict: true }
            mounts[0]: KeepMount { mount: Kept(1) }
            mounts[1]: Mount { fstype: "tmpfs", options: "source tmpfs mode 755", target: "/dev", flags: nosuid }
            mounts[2]: CloneSource { source: Source(0), recursive: true, attrs: Attrs { set: ro+nosuid, propagation: rec+private } }
            mounts[2]: MoveMount { source: Source(0), target: "/sys", directory: false }
            linux.devices: MoveMount { source: Source(2), target: "/dev/null", directory: false }
            linux.devices: MoveMount { source: Source(3), target: "/dev/zero", directory: false }
            linux.devices: MoveMount { source: Source(4), target: "/dev/full", directory: false }
            linux.devices: MoveMount { source: Source(5), target: "/dev/random", directory: false }
            linux.devices: MoveMount { source: Source(6), target: "/dev/urandom", directory: false }
            linux.devices: MoveMount { source: Source(7), target: "/dev/tty", directory: false }
            linux.devices: Symlink { content: "/proc/self/fd", path: "/dev/fd" }
            linux.devices: Symlink { content: "/proc/self/fd/0", path: "/dev/stdin" }
            linux.devices: Symlink { content: "/proc/self/fd/1", path: "/dev/stdout" }
            linux.devices: Symlink { content: "/proc/self/fd/2", path: "/dev/stderr" }
            linux.devices: Symlink { content: "pts/ptmx", path: "/dev/ptmx" }
            linux.devices: Symlink { content: "/proc/kcore", path: "/dev/core" }
            root.path: PivotRoot
            hostname: SetHostname { name: "box" }
            linux.maskedPaths[0]: MaskPath { place: "/proc/kcore" in Kept(1), source: Source(1) }
            process.user.umask: SetUmask { mask: 18 }
            process.cwd: Chdir { path: "/root", make: true }
            process.capabilities.bounding: DropBounding { keep: 1 }
            process.user: SetIds { uid: 0, gid: 0 }
            CloseFds { passed: [] }
            process.capabilities: SetCapabilities { sets: Capabilities { bounding: 1, effective: 1, inheritable: 0, permitted: 1, ambient: 0 }, also: 0 }
            process.noNewPrivileges: NoNewPrivileges
            process.args[0]: FindProgram { paths: "/bin/sh", args: "/bin/sh" }
            EndOnSignals
            Sync { point: Ready }
            AwaitStart
            linux.seccomp: SetSeccomp { flags: 4 }
            process.args[0]: Exec { paths: "/bin/sh", args: "/bin/sh", env: (not shown) }
            linux.namespaces[4]: Fd(2) is UserNamespace
            linux.namespaces[5]: Fd(3) is Namespace("/run/user/1000/netns/x")
            new user namespace: IdMaps { uids: [[0, 1000, 1], [1, 100000, 65536]], gids: [[0, 1000, 1], [1, 100000, 65536]] }
        "#]],
    );
}

#[test]
fn only_the_library_starts_it() {
    super::check_on(
        |given| given.request.start_by_handle = true,
        "{}",
        expect![[r#"
            after EndOnSignals
            - Sync { point: Ready }
            - AwaitStart
            + AwaitLibrary
        "#]],
    );
}

//! `process`, limits and identity; and the same for `exec`.

use super::{check, check_from, check_on, given, lines, merge, minimal, planned, planned_exec};
use expect_test::{Expect, expect};
use serde_json::json;

#[test]
fn a_terminal_is_opened_before_the_pivot_and_used_after_it() {
    let terminal =
        r#"{"process": {"terminal": true, "consoleSize": {"height": 24, "width": 80}, "user": {"uid": 7}}}"#;
    check_from(
        r#"{"process": {"user": {"uid": 7}}}"#,
        |given| given.request.console_socket = true,
        terminal,
        expect![[r#"
            after root.path: AttachRootfs
            - process.user.uid: ChownStreams { uid: 7 }
            after linux.devices: Symlink
            + process.terminal: OpenConsole { socket: Fd(2), columns: 80, rows: 24, uid: 7 }
            + process.terminal: MountConsole
            after root.path: PivotRoot
            + process.terminal: UseConsole
            + process.terminal: SetControllingTerminal
            after process.args[0]: Exec
            + process.terminal: Fd(2) is ConsoleSocket
        "#]],
    );
    check(
        terminal,
        expect![[r#"
            a terminal without a socket to hand it to, at process.terminal; hint: give a console socket, or set terminal to false
        "#]],
    );
}

#[test]
fn the_size_of_a_console_without_a_terminal_is_not_used() {
    check(r#"{"process": {"consoleSize": {"height": 24, "width": 80}}}"#, expect![[""]]);
}

#[test]
fn hooks_wait_for_the_mounts_and_not_for_the_pivot() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        check(
            &format!(r#"{{"hooks": {{"{kind}": [{{"path": "/h"}}]}}}}"#),
            expect![[r#"
                after linux.devices: Symlink
                + hooks: Sync { point: Created }
            "#]],
        );
    }
    for kind in ["startContainer", "poststart", "poststop"] {
        check(&format!(r#"{{"hooks": {{"{kind}": [{{"path": "/h"}}]}}}}"#), expect![[""]]);
    }
}

#[test]
fn the_network_waits_at_the_same_point() {
    check_on(
        |given| given.host.network_requested = true,
        "{}",
        expect![[r#"
            after linux.devices: Symlink
            + hooks: Sync { point: Created }
        "#]],
    );
}

/// The flag is SECCOMP_FILTER_FLAG_SPEC_ALLOW.
#[test]
fn no_new_privileges_comes_after_the_capabilities_and_before_the_filter() {
    check(
        r#"{"process": {"noNewPrivileges": true}, "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}}"#,
        expect![[r#"
            after process.capabilities: SetCapabilities
            + process.noNewPrivileges: NoNewPrivileges
            after AwaitStart
            + linux.seccomp: SetSeccomp { flags: 4 }
        "#]],
    );
}

/// CAP_SYS_ADMIN (bit 21) is kept for the filter alone.
#[test]
fn without_no_new_privileges_the_filter_needs_a_capability_that_goes_again() {
    check(
        r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}}"#,
        expect![[r#"
            after CloseFds
            - process.capabilities: SetCapabilities { sets: Capabilities { bounding: 0, effective: 0, inheritable: 0, permitted: 0, ambient: 0 }, also: 0 }
            + process.capabilities: SetCapabilities { sets: Capabilities { bounding: 0, effective: 0, inheritable: 0, permitted: 0, ambient: 0 }, also: 2097152 }
            after EndOnSignals
            + linux.seccomp: SetSeccomp { flags: 4 }
            + process.capabilities: SetCapabilities { sets: Capabilities { bounding: 0, effective: 0, inheritable: 0, permitted: 0, ambient: 0 }, also: 0 }
        "#]],
    );
}

const ALL_SETS: &str = r#"{"process": {"capabilities": {
    "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN"],
    "effective": ["CAP_CHOWN", "CAP_SYS_ADMIN"],
    "permitted": ["CAP_CHOWN", "CAP_SYS_ADMIN"],
    "inheritable": ["CAP_CHOWN"],
    "ambient": ["CAP_CHOWN"]
}}}"#;

#[test]
fn capabilities_are_dropped_before_the_ids_change_and_set_after() {
    check(
        ALL_SETS,
        expect![[r#"
            after process.user.additionalGids: SetGroups
            - process.capabilities.bounding: DropBounding { keep: 0 }
            + process.capabilities.bounding: DropBounding { keep: 2097185 }
            after CloseFds
            - process.capabilities: SetCapabilities { sets: Capabilities { bounding: 0, effective: 0, inheritable: 0, permitted: 0, ambient: 0 }, also: 0 }
            + process.capabilities: SetCapabilities { sets: Capabilities { bounding: 2097185, effective: 2097153, inheritable: 1, permitted: 2097153, ambient: 1 }, also: 0 }
        "#]],
    );
}

#[test]
fn what_the_host_cannot_grant_is_left_out_with_a_warning() {
    check_on(
        |given| given.host.capabilities = 0b10_0001,
        ALL_SETS,
        expect![[r#"
            after the beginning
            - linux.namespaces: StartIn { namespaces: mount }
            after SetUmask
            + linux.namespaces: Unshare { namespaces: mount }
            after process.user.uid: ChownStreams
            - NotDumpable
            + linux.namespaces: Clone { namespaces: none }
            after process.user.additionalGids: SetGroups
            - process.capabilities.bounding: DropBounding { keep: 0 }
            + process.capabilities.bounding: DropBounding { keep: 33 }
            after CloseFds
            - process.capabilities: SetCapabilities { sets: Capabilities { bounding: 0, effective: 0, inheritable: 0, permitted: 0, ambient: 0 }, also: 0 }
            + process.capabilities: SetCapabilities { sets: Capabilities { bounding: 33, effective: 1, inheritable: 1, permitted: 1, ambient: 1 }, also: 0 }
            after process.args[0]: Exec
            + warning: process.capabilities: left out, this host cannot grant them: CAP_SYS_ADMIN
        "#]],
    );
}

#[test]
fn in_a_user_namespace_every_capability_can_be_granted() {
    check_from(
        r#"{"mounts": [{"destination": "/dev", "type": "bind", "source": "/dev"}], "linux": {
            "namespaces": [{"type": "mount"}, {"type": "user"}],
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
            "gidMappings": [{"containerID": 0, "hostID": 2000, "size": 10}]
        }}"#,
        |given| given.host.capabilities = 0,
        ALL_SETS,
        expect![[r#"
            after process.user.additionalGids: SetGroups
            - process.capabilities.bounding: DropBounding { keep: 0 }
            + process.capabilities.bounding: DropBounding { keep: 2097185 }
            after CloseFds
            - process.capabilities: SetCapabilities { sets: Capabilities { bounding: 0, effective: 0, inheritable: 0, permitted: 0, ambient: 0 }, also: 0 }
            + process.capabilities: SetCapabilities { sets: Capabilities { bounding: 2097185, effective: 2097153, inheritable: 1, permitted: 2097153, ambient: 1 }, also: 0 }
        "#]],
    );
}

/// Once, though the configuration and the plan could both see it.
#[test]
fn what_is_not_permitted_is_neither_effective_nor_ambient() {
    check(
        r#"{"process": {"capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "ambient": ["CAP_KILL"]}}}"#,
        expect![[r#"
            after process.user.additionalGids: SetGroups
            - process.capabilities.bounding: DropBounding { keep: 0 }
            + process.capabilities.bounding: DropBounding { keep: 32 }
            after CloseFds
            - process.capabilities: SetCapabilities { sets: Capabilities { bounding: 0, effective: 0, inheritable: 0, permitted: 0, ambient: 0 }, also: 0 }
            + process.capabilities: SetCapabilities { sets: Capabilities { bounding: 32, effective: 0, inheritable: 0, permitted: 0, ambient: 0 }, also: 0 }
            after process.args[0]: Exec
            + warning: process.capabilities.effective: cannot be granted, because permitted does not have it: CAP_KILL
            + warning: process.capabilities.ambient: cannot be granted, because permitted does not have it: CAP_KILL
            + warning: process.capabilities.ambient: cannot be granted, because inheritable does not have it: CAP_KILL
        "#]],
    );
}

#[test]
fn the_user_is_set_with_its_groups_home_and_umask() {
    check(
        r#"{"process": {"user": {"uid": 5, "gid": 6, "umask": 63, "additionalGids": [1000, 2000]}}}"#,
        expect![[r#"
            after root.path: AttachRootfs
            - process.user.uid: ChownStreams { uid: 0 }
            + process.user.uid: ChownStreams { uid: 5 }
            after root.path: PivotRoot
            - process.user.umask: SetUmask { mask: 18 }
            + process.user.umask: SetUmask { mask: 63 }
            after process.cwd: Chdir
            - process.user.uid: FindHome { uid: 0 }
            - process.user.additionalGids: SetGroups { groups: "" }
            + process.user.uid: FindHome { uid: 5 }
            + process.user.additionalGids: SetGroups { groups: "(8 bytes)" }
            after process.capabilities.bounding: DropBounding
            - process.user: SetIds { uid: 0, gid: 0 }
            + process.user: SetIds { uid: 5, gid: 6 }
        "#]],
    );
}

#[test]
fn the_callers_groups_stay_when_cruns_annotation_asks_for_it() {
    check_from(
        "{}",
        |given| given.host.in_user_namespace = true,
        r#"{"process": {"user": {"uid": 0, "gid": 0, "additionalGids": [10]}},
            "annotations": {"run.oci.keep_original_groups": "1"}}"#,
        expect![[r#"
            after process.user.uid: FindHome
            - process.user.additionalGids: SetGroups { groups: "" }
            after process.args[0]: Exec
            + warning: process.user.additionalGids: left out, because of annotations[run.oci.keep_original_groups]
        "#]],
    );
}

#[test]
fn the_groups_of_the_hosts_root_do_not_stay_for_an_annotation() {
    check(
        r#"{"annotations": {"run.oci.keep_original_groups": "1"}}"#,
        expect![[r#"
            after process.args[0]: Exec
            + warning: annotations[run.oci.keep_original_groups]: ignored: the caller is the host's root, whose groups an image must not get
        "#]],
    );
}

#[test]
fn a_home_of_the_environment_is_not_looked_up() {
    check(
        r#"{"process": {"env": ["HOME=/root"]}}"#,
        expect![[r#"
            after process.cwd: Chdir
            - process.user.uid: FindHome { uid: 0 }
        "#]],
    );
    check(r#"{"process": {"env": ["HOME="]}}"#, expect![[""]]);
}

#[test]
fn a_program_without_a_slash_is_looked_for_in_the_path_of_its_environment() {
    let exec = |env: &str, expect: Expect| {
        check(&format!(r#"{{"process": {{"args": ["sh", "-c"], "env": [{env}]}}}}"#), expect);
    };
    exec(
        r#""PATH=/bin::/b/""#,
        expect![[r#"
            after process.capabilities: SetCapabilities
            - process.args[0]: FindProgram { paths: "/bin/sh", args: "/bin/sh" }
            + process.args[0]: FindProgram { paths: "/bin/sh ./sh /b//sh", args: "sh -c" }
            after AwaitStart
            - process.args[0]: Exec { paths: "/bin/sh", args: "/bin/sh", env: (not shown) }
            + process.args[0]: Exec { paths: "/bin/sh ./sh /b//sh", args: "sh -c", env: (not shown) }
        "#]],
    );
    exec(
        "",
        expect![[r#"
            after process.capabilities: SetCapabilities
            - process.args[0]: FindProgram { paths: "/bin/sh", args: "/bin/sh" }
            + process.args[0]: FindProgram { paths: "", args: "sh -c" }
            after AwaitStart
            - process.args[0]: Exec { paths: "/bin/sh", args: "/bin/sh", env: (not shown) }
            + process.args[0]: Exec { paths: "", args: "sh -c", env: (not shown) }
        "#]],
    );
}

#[test]
fn scheduling_is_set_early_and_limits_when_nothing_is_left_to_be_hindered() {
    check(
        r#"{"process": {
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
            "scheduler": {"policy": "SCHED_BATCH", "nice": 5},
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 3}
        }, "linux": {"personality": {"domain": "LINUX32"}, "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}}}"#,
        expect![[r#"
            after root.path: PivotRoot
            + process.scheduler: SetScheduler { attr: "(48 bytes)" }
            + process.ioPriority: SetIoPriority { value: 16387 }
            + linux.personality: SetPersonality { persona: 8 }
            + linux.memoryPolicy: SetMemoryPolicy { mode: 32770, nodes: "(8 bytes)" }
            after AwaitStart
            + process.rlimits[0]: SetRlimit { resource: 7, soft: 10, hard: 20 }
            + process.rlimits[1]: SetRlimit { resource: 4, soft: 0, hard: 0 }
        "#]],
    );
}

#[test]
fn the_oom_score_is_written_first_because_a_user_namespace_could_not() {
    check(
        r#"{"process": {"oomScoreAdj": -500}}"#,
        expect![[r#"
            after SetUmask
            + process.oomScoreAdj: WriteProcess { path: "oom_score_adj", value: "-500" }
        "#]],
    );
}

#[test]
fn a_label_is_refused_where_the_security_module_is_not_active() {
    check(
        r#"{"process": {"selinuxLabel": "a:b:c:s0"}}"#,
        expect![[r#"
            selinux label is specified in config, but selinux is disabled or not supported: SELinux is not active on this host, at process.selinuxLabel; hint: remove the property, or boot with this security module
        "#]],
    );
    check(
        r#"{"process": {"apparmorProfile": "p"}}"#,
        expect![[r#"
            unable to apply apparmor profile: AppArmor is not active on this host, at process.apparmorProfile; hint: remove the property, or boot with this security module
        "#]],
    );
}

#[test]
fn a_profile_is_written_for_the_next_exec_before_privileges_go() {
    check_on(
        |given| given.host.lsms = [crate::host::Lsm::AppArmor].into(),
        r#"{"process": {"apparmorProfile": "p"}}"#,
        expect![[r#"
            after process.user.uid: FindHome
            + process.apparmorProfile: WriteProcess { path: "attr/exec", value: "exec p" }
        "#]],
    );
    check_on(
        |given| {
            given.host.lsms.insert(crate::host::Lsm::AppArmor);
            given.host.apparmor_has_own_attributes = true;
        },
        r#"{"process": {"apparmorProfile": "p"}}"#,
        expect![[r#"
            after process.user.uid: FindHome
            + process.apparmorProfile: WriteProcess { path: "attr/apparmor/exec", value: "exec p" }
        "#]],
    );
}

#[test]
fn a_selinux_label_is_that_of_the_keyring_too() {
    check_on(
        |given| given.host.lsms = [crate::host::Lsm::SELinux].into(),
        r#"{"process": {"selinuxLabel": "a:b:c:s0"}}"#,
        expect![[r#"
            after SetSid
            - JoinSessionKeyring { name: "_ses.box", label: "" }
            + JoinSessionKeyring { name: "_ses.box", label: "a:b:c:s0" }
            after process.user.uid: FindHome
            + process.selinuxLabel: WriteProcess { path: "attr/exec", value: "a:b:c:s0" }
        "#]],
    );
}

#[test]
fn the_callers_keyring_can_be_kept() {
    check_on(
        |given| given.request.no_new_keyring = true,
        "{}",
        expect![[r#"
            after SetSid
            - JoinSessionKeyring { name: "_ses.box", label: "" }
        "#]],
    );
}

#[test]
fn preserved_descriptors_are_the_only_ones_that_stay() {
    check_on(
        |given| given.request.passed = vec![3, 4, 5, 9],
        "{}",
        expect![[r#"
            after process.user: SetIds
            - CloseFds { passed: [] }
            + CloseFds { passed: [3, 5, 9, 9] }
        "#]],
    );
}

fn exec(fragment: &str, expect: Expect) {
    let mut config = minimal();
    merge(&mut config, serde_json::from_str(fragment).unwrap());
    let plan = planned_exec(&config, &given());
    expect.assert_eq(&(lines(&Ok((plan, Vec::new()))).unwrap().join("\n") + "\n"));
}

#[test]
fn a_process_joins_all_namespaces_at_once_and_the_pid_namespace_last() {
    exec(
        r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}, "process": {"env": ["HOME=/"]}}"#,
        expect![[r#"
            ResetSignals
            linux.resources.cpu.cpus: SetAffinity { mask: "(1024 bytes)" }
            process.user.uid: ChownStreams { uid: 0 }
            NotDumpable
            linux.namespaces: Setns { fd: Fd(2), namespaces: mount+pid }
            root.path: OpenRoot { path: "/" }
            JoinSessionKeyring { name: "_ses.box", label: "" }
            process.cwd: Chdir { path: "/", make: false }
            process.user.additionalGids: SetGroups { groups: "" }
            process.capabilities.bounding: DropBounding { keep: 0 }
            process.user: SetIds { uid: 0, gid: 0 }
            CloseFds { passed: [] }
            process.capabilities: SetCapabilities { sets: Capabilities { bounding: 0, effective: 0, inheritable: 0, permitted: 0, ambient: 0 }, also: 0 }
            linux.namespaces: Clone { namespaces: none }
            SetSid
            Sync { point: Ready }
            process.args[0]: Exec { paths: "/bin/sh", args: "/bin/sh", env: (not shown) }
            Fd(2) is Pidfd
        "#]],
    );
}

#[test]
fn affinity_is_set_before_the_cgroup_and_after_it() {
    exec(
        r#"{"process": {"env": ["HOME=/"], "execCPUAffinity": {"initial": "0", "final": "0-1"}}}"#,
        expect![[r#"
            ResetSignals
            process.execCPUAffinity.initial: SetAffinity { mask: "(8 bytes)" }
            process.user.uid: ChownStreams { uid: 0 }
            NotDumpable
            linux.namespaces: Setns { fd: Fd(2), namespaces: mount }
            root.path: OpenRoot { path: "/" }
            JoinSessionKeyring { name: "_ses.box", label: "" }
            process.execCPUAffinity.final: SetAffinity { mask: "(8 bytes)" }
            process.cwd: Chdir { path: "/", make: false }
            process.user.additionalGids: SetGroups { groups: "" }
            process.capabilities.bounding: DropBounding { keep: 0 }
            process.user: SetIds { uid: 0, gid: 0 }
            CloseFds { passed: [] }
            process.capabilities: SetCapabilities { sets: Capabilities { bounding: 0, effective: 0, inheritable: 0, permitted: 0, ambient: 0 }, also: 0 }
            linux.namespaces: Clone { namespaces: none }
            SetSid
            Sync { point: Ready }
            process.args[0]: Exec { paths: "/bin/sh", args: "/bin/sh", env: (not shown) }
            Fd(2) is Pidfd
        "#]],
    );
}

#[test]
fn standard_streams_are_given_to_the_user_where_their_owner_is_known() {
    let user = r#"{"process": {"user": {"uid": 7}}}"#;
    check(
        user,
        expect![[r#"
            after root.path: AttachRootfs
            - process.user.uid: ChownStreams { uid: 0 }
            + process.user.uid: ChownStreams { uid: 7 }
            after process.cwd: Chdir
            - process.user.uid: FindHome { uid: 0 }
            + process.user.uid: FindHome { uid: 7 }
            after process.capabilities.bounding: DropBounding
            - process.user: SetIds { uid: 0, gid: 0 }
            + process.user: SetIds { uid: 7, gid: 0 }
        "#]],
    );
    let streams = |config: &str, uid: u32| {
        let mut given = given();
        given.host.uid = uid;
        given.request.console_socket = true;
        let mut whole = minimal();
        merge(&mut whole, serde_json::from_str(user).unwrap());
        merge(&mut whole, serde_json::from_str(config).unwrap());
        let chown_or_clone = |line: &String| line.contains("ChownStreams") || line.contains(" Clone {");
        let all =
            |lines: Vec<String>| lines.into_iter().filter(chown_or_clone).collect::<Vec<_>>().join("\n");
        let exec = lines(&Ok((planned_exec(&whole, &given), Vec::new()))).unwrap();
        (all(lines(&super::planned(&whole, &given)).unwrap()), all(exec))
    };
    let mapped = r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "user"}],
        "uidMappings": [{"containerID": 0, "hostID": 5000, "size": 9}],
        "gidMappings": [{"containerID": 0, "hostID": 5000, "size": 9}]}}"#;
    let (chown, inside) =
        ("process.user.uid: ChownStreams { uid: 5007 }", "process.user.uid: ChownStreams { uid: 7 }");
    let clone = |namespaces: &str| format!("linux.namespaces: Clone {{ namespaces: {namespaces} }}");
    let (again, none) = (clone("mount"), clone("none"));
    assert_eq!(streams(mapped, 0), (format!("{chown}\n{again}"), format!("{chown}\n{none}")));
    assert_eq!(streams(mapped, 1000), (format!("{none}\n{inside}"), format!("{inside}\n{none}")));
    let joined = r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "user", "path": "/n"}]}}"#;
    assert_eq!(streams(joined, 0), (format!("{again}\n{inside}"), format!("{inside}\n{none}")));
    assert_eq!(streams(r#"{"process": {"terminal": true}}"#, 0), (String::new(), none));
}

#[test]
fn the_last_of_two_variables_with_one_name_counts() {
    let env = ["A=1", "HOME=/a", "B=", "A=2=3", "HOME="].map(String::from);
    assert_eq!(crate::plan::process::environment(&env), ["A=2=3", "HOME=", "B="]);
}

#[test]
fn exec_is_not_bound_to_the_processors_of_the_caller_unless_asked() {
    let affinities = |process: &str| {
        let mut config = minimal();
        merge(&mut config, serde_json::from_str(&format!(r#"{{"process": {process}}}"#)).unwrap());
        let lines = lines(&Ok((planned_exec(&config, &given()), Vec::new()))).unwrap();
        lines.into_iter().filter(|line| line.contains("SetAffinity")).collect::<Vec<_>>()
    };
    let all = r#"linux.resources.cpu.cpus: SetAffinity { mask: "(1024 bytes)" }"#;
    assert_eq!(affinities("{}"), [all]);
    assert_eq!(affinities(r#"{"execCPUAffinity": {"initial": "0", "final": "1"}}"#).len(), 2);
}

#[test]
fn a_relayed_terminal_leaves_carriage_returns_to_the_other() {
    check_from(
        r#"{"process": {"terminal": true}}"#,
        |given| (given.request.console_socket, given.request.relayed_console) = (true, true),
        r#"{"process": {"consoleSize": {"height": 24, "width": 80}}}"#,
        expect![[r#"
            after linux.devices: Symlink
            - process.terminal: OpenConsole { socket: Fd(2), columns: 0, rows: 0, uid: 0, relayed: true }
            + process.terminal: OpenConsole { socket: Fd(2), columns: 80, rows: 24, uid: 0, relayed: true }
        "#]],
    );
}

/// Where in the steps of a container that joins a pid namespace, with a filter and without noNewPrivileges.
fn filter_in(profile: &serde_json::Value) -> String {
    let mut config = minimal();
    let fragment = json!({"linux": {
        "namespaces": [{"type": "mount"}, {"type": "pid", "path": "/proc/7/ns/pid"}], "seccomp": profile}});
    merge(&mut config, fragment);
    let all = lines(&planned(&config, &given())).unwrap();
    // The first word that is no place.
    let step =
        |line: &String| line.split(' ').find(|word| !word.ends_with(':')).unwrap_or_default().to_owned();
    let steps = all.iter().map(step).skip_while(|step| step != "CloseFds");
    steps.take_while(|step| step != "Exec").collect::<Vec<_>>().join(" ")
}

#[test]
fn a_filter_that_needs_a_capability_is_loaded_before_others_see_the_process_if_it_lets_it_be_cloned() {
    let early = "CloseFds SetCapabilities FindProgram SetSeccomp SetCapabilities Clone SetSid EndOnSignals Sync AwaitStart";
    let cloned = "CloseFds SetCapabilities FindProgram Clone SetSid EndOnSignals SetSeccomp SetCapabilities Sync AwaitStart";
    let late = "CloseFds SetCapabilities FindProgram Clone SetSid EndOnSignals Sync AwaitStart SetSeccomp SetCapabilities";
    let without = |name: &str, args: serde_json::Value| {
        json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": [name], "action": "SCMP_ACT_ERRNO", "args": args}]})
    };
    let flags =
        |value: u64| json!([{"index": 0, "value": value, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}]);
    // As engines have it: no namespace may be made, and clone3 is unknown.
    assert_eq!(filter_in(&without("clone", flags(0x1000_0000))), early);
    assert_eq!(filter_in(&without("clone3", json!([]))), early);
    for (name, wanted) in [("clone", cloned), ("setsid", cloned), ("sendto", late), ("accept4", late)] {
        assert_eq!(filter_in(&without(name, json!([]))), wanted, "{name}");
    }
    assert_eq!(filter_in(&without("clone", flags(crate::step::CLONE_FLAGS))), cloned);
}

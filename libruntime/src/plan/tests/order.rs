//! Rules of order that hold for every plan, whatever else is in it: the full config, by itself and
//! on other hosts.

use super::{Given, given, merge, minimal, planned};
use crate::step::{Step, SyncPoint};
use serde_json::json;

/// All that can be asked for at once, in a user namespace or not.
fn everything(user_namespace: bool) -> serde_json::Value {
    let mut config = minimal();
    let mut namespaces = vec![
        json!({"type": "mount"}),
        json!({"type": "pid", "path": "/proc/9/ns/pid"}),
        json!({"type": "uts"}),
        json!({"type": "time"}),
        json!({"type": "cgroup"}),
        json!({"type": "network", "path": "/run/netns/x"}),
    ];
    if user_namespace {
        namespaces.push(json!({"type": "user", "path": "/proc/9/ns/user"}));
    }
    merge(
        &mut config,
        json!({
            "hostname": "h",
            "root": {"readonly": true},
            "hooks": {"createRuntime": [{"path": "/h"}]},
            "process": {"terminal": true, "oomScoreAdj": 5, "noNewPrivileges": true},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/d", "type": "bind", "source": "/srv", "options": ["rbind"]}
            ],
            "linux": {
                "namespaces": namespaces,
                "rootfsPropagation": "shared",
                "timeOffsets": {"monotonic": {"secs": 1}},
                "sysctl": {"net.ipv4.ip_forward": "1"},
                "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
                "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}],
                "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}
            }
        }),
    );
    config
}

/// The names of the steps in their order.
fn names(change: impl Fn(&mut Given), user_namespace: bool) -> Vec<String> {
    let mut given = given();
    given.request.console_socket = true;
    change(&mut given);
    let (plan, _) = planned(&everything(user_namespace), &given).unwrap();
    let name = |step: &Step<_>| match step {
        Step::Sync { point: SyncPoint::Created } => "Created".to_string(),
        Step::Sync { point: SyncPoint::Ready } => "Ready".to_string(),
        Step::Sync { point: SyncPoint::Entered } => "Entered".to_string(),
        // It is opened and cloned at once.
        Step::OpenTree { .. } => "OpenSource".to_string(),
        Step::Unshare { namespaces } => format!("Unshare {namespaces:?}"),
        Step::Setns { namespaces, .. } => format!("Setns {namespaces:?}"),
        other => format!("{other:?}").split([' ', '{']).next().unwrap_or_default().to_string(),
    };
    plan.steps().iter().map(|(step, _)| name(step)).collect()
}

/// Each line is `first < second`: every step of the first name comes before each of the second.
fn assert_order(names: &[String], rules: &str) {
    for rule in rules.lines().map(str::trim).filter(|rule| !rule.is_empty()) {
        let (first, second) = rule.split_once(" < ").unwrap();
        let last = names.iter().rposition(|name| name == first);
        let next = names.iter().position(|name| name == second);
        let (Some(last), Some(next)) = (last, next) else { panic!("{rule}: not in {names:?}") };
        assert!(last < next, "{rule}: not so in {names:?}");
    }
}

const ALWAYS: &str = "
    ResetSignals < WriteProcess
    WriteProcess < Clone
    Unshare mount < SetPropagation
    SetPropagation < OpenSource
    OpenSource < PrivateParent
    Setns pid < CloseFds
    Unshare time < Setns pid
    MountProcfs < Setns pid
    Setns pid < Created
    Entered < OpenRoot
    OpenRoot < MountProcfs
    ReceiveFds < JoinCgroup
    JoinCgroup < Unshare cgroup
    Unshare cgroup < MountProcfs
    MountProcfs < OpenConsole
    OpenConsole < MountConsole
    MountConsole < Created
    Created < PivotRoot
    PivotRoot < SetHostname
    PivotRoot < WriteSysctl
    WriteSysctl < ReadonlyPath
    PivotRoot < MaskPath
    MaskPath < SetAttributes
    SetAttributes < UseConsole
    UseConsole < CloseFds
    Chdir < DropBounding
    DropBounding < SetCapabilities
    SetCapabilities < NoNewPrivileges
    CloseFds < SetCapabilities
    CloseFds < NoNewPrivileges
    CloseFds < Clone
    Clone < SetSid
    SetSid < SetControllingTerminal
    SetControllingTerminal < Ready
    Ready < AwaitStart
    AwaitStart < SetSeccomp
    SetSeccomp < Exec
";

#[test]
fn the_order_holds_as_root_without_a_user_namespace() {
    let names = names(|given| given.host.cgroup_tasks = vec!["/cg/tasks".into()], false);
    assert_order(&names, ALWAYS);
    assert_order(&names, "Setns network < Unshare mount\n MoveMount < Created\n MakeNode < Created");
}

#[test]
fn the_order_holds_in_a_joined_user_namespace() {
    let names = names(|given| given.host.cgroup_tasks = vec!["/cg/tasks".into()], true);
    assert_order(&names, ALWAYS);
    assert_order(
        &names,
        "OpenDevice < Setns user
         Setns network < Unshare mount
         AttachRootfsInScratch < ParkSource
         ParkSource < Setns user
         Setns user < Unshare time
         Entered < FetchSource
         OpenRoot < FetchSource",
    );
}

#[test]
fn the_order_holds_where_the_callers_mounts_are_not_copied() {
    for user_namespace in [false, true] {
        let names = names(|given| given.host.bare_mounts = true, user_namespace);
        let copied = ["Unshare mount", "SetPropagation", "PrivateParent"];
        assert!(!names.iter().any(|name| copied.contains(&name.as_str())), "{names:?}");
        assert_order(
            &names,
            "OpenSource < EnterBareMounts
             OpenDevice < EnterBareMounts
             CloneRootfs < EnterBareMounts
             EnterBareMounts < AttachRootfsInScratch
             AttachRootfsInScratch < ParkSource
             ParkSource < Entered
             Entered < FetchSource",
        );
    }
}

#[test]
fn the_order_holds_in_a_cgroup_of_v2() {
    for user_namespace in [false, true] {
        let change = |given: &mut Given| {
            given.host.clones_into_cgroup = true;
            given.host.cgroup_tasks = vec!["/cg/tasks".into()];
        };
        let names = names(change, user_namespace);
        assert_order(&names, ALWAYS);
        assert_eq!(names[0], "EnterCgroup");
    }
}

#[test]
fn the_order_holds_without_root() {
    let change = |given: &mut Given| {
        given.host.cgroup_tasks = vec!["/cg/tasks".into()];
        given.host.uid = 1000;
    };
    let names = names(change, true);
    assert_order(&names, ALWAYS);
    assert_order(
        &names,
        "ResetSignals < Setns user
         Setns user < Unshare mount
         AttachRootfs < Setns network
         Setns network < Clone",
    );
    assert!(!names.contains(&"ParkSource".to_string()));
}

#[test]
fn cgroup_v2_needs_no_wait_before_its_namespace() {
    let names = names(|_| {}, false);
    assert!(!names.iter().any(|name| ["Attached", "ReceiveFds", "JoinCgroup"].contains(&name.as_str())));
}

//! Pods without a pause container: containerd 2 asks this project's shim for them (docs/shim.md). They are in networks
//! of their own, because containerd 2.1 ends by a nil pointer where such a pod uses the host's (its issue 12983).

use super::engine_cri::{self, Pod};
use crate::case::Need::{Program, Root, Sandboxer};
use crate::case::{Case, Outcome, case, check, contains, same};
use crate::process;
use crate::test::Test;
use std::fs;

macro_rules! pods {
    ($($name:ident),* $(,)?) => {
        $(fn $name(t: &Test) -> Outcome {
            engine_cri::$name(t)
        })*
        pub const CASES: &[Case] = &[
            $(case!($name, [Root, Sandboxer, Program("containerd"), Program("ctr")], 120),)*
            case!(the_pod_has_no_process, [Root, Sandboxer, Program("containerd"), Program("ctr")], 120),
            case!(containers_share_a_pid_namespace, [Root, Sandboxer, Program("containerd"), Program("ctr")], 120),
            case!(containers_share_a_user_namespace, [Root, Sandboxer, Program("containerd"), Program("ctr")], 120),
            case!(it_is_in_the_network_of_its_pod, [Root, Sandboxer, Program("containerd"), Program("ctr")], 120),
        ];
    };
}

pods!(
    a_pod_with_a_container,
    limits_are_in_the_cgroup,
    it_is_one_of_the_runtime_that_was_given,
    it_is_in_the_cgroup_of_its_pod,
    exec_has_output_and_an_exit_code,
    stats_have_the_memory,
    update_changes_the_limits,
    too_much_memory_is_told,
    containers_of_a_pod_share_its_namespaces,
    a_missing_program_is_an_error_of_start,
);

fn the_pod_has_no_process(t: &Test) -> Outcome {
    let pod = Pod::new(t)?;
    let words = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let option = format!("\0-id\0{}\0", pod.id);
    let all = process::descendants(std::process::id() as i32);
    let shim = all.into_iter().find(|pid| words(*pid).contains(&option));
    let Some(shim) = shim else { return crate::case::fail("no shim has the pod's id") };
    let below = process::descendants(shim);
    check!(below.is_empty(), "the shim has the processes {below:?}");
    pod.remove(t)
}

fn it_is_in_the_network_of_its_pod(t: &Test) -> Outcome {
    let pod = Pod::new(t)?;
    let id = pod.sleeper(&[])?;
    contains("eth0", &pod.engine.says(&["exec", &id, "busybox", "ip", "addr", "show", "eth0"])?, "10.79.0")?;
    pod.remove(t)
}

/// That of the pod's init, which is there after the first container has ended.
fn containers_share_a_pid_namespace(t: &Test) -> Outcome {
    const SHARED: &[&str] = &["share=pids"];
    let pod = Pod::sharing(t, SHARED)?;
    let first = pod.create("first", SHARED, &["sleep", "1000"])?;
    pod.engine.says(&["start", &first])?;
    pod.engine.says(&["stop", &first])?;
    let id = pod.sleeper(SHARED)?;
    let said = pod.engine.says(&["exec", &id, "busybox", "ps"])?;
    contains("processes", &said, "pod-init")?;
    contains("processes", &said, "sleep 1000")?;
    pod.remove(t)
}

/// To which the network belongs.
fn containers_share_a_user_namespace(t: &Test) -> Outcome {
    const SHARED: &[&str] = &["share=users"];
    let pod = Pod::sharing(t, SHARED)?;
    let id = pod.sleeper(SHARED)?;
    let said = pod.engine.says(&["exec", &id, "cat", "/proc/self/uid_map"])?;
    same("map", said.split_whitespace().collect::<Vec<_>>(), vec!["0", "200000", "65536"])?;
    contains("eth0", &pod.engine.says(&["exec", &id, "busybox", "ip", "addr", "show", "eth0"])?, "10.79.0")?;
    pod.remove(t)
}

//! containerd as Kubernetes uses it: pods over CRI, with the limits that a kubelet gives.

use crate::case::Need::{Program, Root};
use crate::case::{Case, Outcome, case, check, contains, same, skip};
use crate::engine::{self, Engine};
use crate::engine_limits::{self, Limits};
use crate::engine_start;
use crate::process;
use crate::test::Test;
use std::fs;
use std::process::Command;

pub const CASES: &[Case] = &[
    case!(a_pod_with_a_container, [Root, Program("containerd"), Program("ctr")], 120),
    case!(limits_are_in_the_cgroup, [Root, Program("containerd"), Program("ctr")], 120),
    case!(it_is_one_of_the_runtime_that_was_given, [Root, Program("containerd"), Program("ctr")], 120),
    case!(it_is_in_the_cgroup_of_its_pod, [Root, Program("containerd"), Program("ctr")], 120),
    case!(exec_has_output_and_an_exit_code, [Root, Program("containerd"), Program("ctr")], 120),
    case!(stats_have_the_memory, [Root, Program("containerd"), Program("ctr")], 120),
    case!(update_changes_the_limits, [Root, Program("containerd"), Program("ctr")], 120),
    case!(too_much_memory_is_told, [Root, Program("containerd"), Program("ctr")], 120),
    case!(containers_of_a_pod_share_its_namespaces, [Root, Program("containerd"), Program("ctr")], 120),
    case!(a_missing_program_is_an_error_of_start, [Root, Program("containerd"), Program("ctr")], 120),
];

const BOX: &str = "localhost/box:latest";

/// A pod, and where its cgroup is below: a slice of systemd's, or a path.
pub struct Pod {
    pub engine: &'static Engine,
    pub id: String,
    parent: String,
}

impl Pod {
    pub fn new(t: &Test) -> Outcome<Self> {
        Self::sharing(t, &[])
    }

    /// `share=WHAT` of the script.
    pub fn sharing(t: &Test, shared: &[&str]) -> Outcome<Self> {
        if engine_start::python().is_none() {
            return skip("needs Python's module grpc (python3-grpcio)");
        }
        let engine = t.engine()?;
        let slice = "/conformance-pods.slice".to_owned();
        let parent = engine.cgroup.as_deref().map_or(slice, |cgroup| format!("{cgroup}/pods"));
        let id = engine.says(&[&["runp", "pod", &parent], shared].concat())?;
        Ok(Self { engine, id, parent })
    }

    pub fn create(&self, name: &str, limits: &[&str], words: &[&str]) -> Outcome<String> {
        let start = ["create", &self.id, name, &self.parent, BOX];
        self.engine.says(&[&start, limits, &["--"], words].concat())
    }

    pub fn container(&self, limits: &[&str], words: &[&str]) -> Outcome<String> {
        let id = self.create("one", limits, words)?;
        self.engine.says(&["start", &id])?;
        Ok(id)
    }

    pub fn sleeper(&self, limits: &[&str]) -> Outcome<String> {
        self.container(limits, &["sleep", "1000"])
    }

    /// As a kubelet does; then nothing of its containers may be left in the cgroup of the pod.
    pub fn remove(self, t: &Test) -> Outcome {
        self.engine.says(&["stopp", &self.id])?;
        self.engine.says(&["rmp", &self.id])?;
        engine::no_scope("cri-containerd-*.scope")?;
        for place in t.host.cgroups(&self.parent) {
            let found = fs::read_dir(&place).into_iter().flatten().flatten();
            let left: Vec<_> =
                found.filter(|entry| entry.path().is_dir()).map(|entry| entry.path()).collect();
            check!(left.is_empty(), "cgroups are left: {left:?}");
            let _ = fs::remove_dir(place);
        }
        Ok(())
    }
}

/// CRI says the number of processes by the file of cgroup v2 alone.
fn limits(t: &Test) -> (&'static [&'static str], Option<u64>) {
    if t.host.unified {
        (&["memory=67108864", "quota=50000", "pids.max=50"], Some(50))
    } else {
        (&["memory=67108864", "quota=50000"], None)
    }
}

pub fn a_pod_with_a_container(t: &Test) -> Outcome {
    let pod = Pod::new(t)?;
    let id = pod.sleeper(&[])?;
    pod.engine.says(&["stop", &id])?;
    pod.engine.says(&["rm", &id])?;
    pod.remove(t)
}

pub fn limits_are_in_the_cgroup(t: &Test) -> Outcome {
    let pod = Pod::new(t)?;
    let (words, pids) = limits(t);
    let id = pod.sleeper(words)?;
    let wanted = Limits { memory: Some(64 << 20), pids, quota: Some(50_000) };
    engine_limits::expect(&t.host, pod.engine.pid(&id)?, wanted)?;
    pod.remove(t)
}

pub fn it_is_one_of_the_runtime_that_was_given(t: &Test) -> Outcome {
    let pod = Pod::new(t)?;
    let id = pod.sleeper(&[])?;
    contains("list", &pod.engine.listed(&t.runtime.program)?, &id)?;
    pod.remove(t)
}

pub fn it_is_in_the_cgroup_of_its_pod(t: &Test) -> Outcome {
    let pod = Pod::new(t)?;
    let id = pod.sleeper(&[])?;
    let path = engine_limits::cgroup(&t.host, pod.engine.pid(&id)?, "memory")?;
    contains("cgroup", &path, pod.parent.trim_start_matches('/'))?;
    pod.remove(t)
}

pub fn exec_has_output_and_an_exit_code(t: &Test) -> Outcome {
    let pod = Pod::new(t)?;
    let id = pod.sleeper(&[])?;
    contains("id", &pod.engine.says(&["exec", &id, "id"])?, "uid=0")?;
    pod.engine.call(&["exec", &id, "sh", "-c", "exit 7"])?.exits(7)?;
    pod.remove(t)
}

pub fn stats_have_the_memory(t: &Test) -> Outcome {
    let pod = Pod::new(t)?;
    let id = pod.sleeper(&[])?;
    // containerd collects them in its own time.
    pod.engine.until("there is a number", || {
        Ok(pod.engine.says(&["memory", &id])?.parse::<u64>().is_ok_and(|bytes| bytes > 0))
    })?;
    pod.remove(t)
}

pub fn update_changes_the_limits(t: &Test) -> Outcome {
    let pod = Pod::new(t)?;
    let (words, pids) = limits(t);
    let id = pod.sleeper(words)?;
    pod.engine.says(&["update", &id, "memory=50331648", "quota=25000"])?;
    let wanted = Limits { memory: Some(48 << 20), pids, quota: Some(25_000) };
    engine_limits::expect(&t.host, pod.engine.pid(&id)?, wanted)?;
    if engine::systemd() {
        // What systemd knows it writes again.
        process::ask(Command::new("systemctl").arg("daemon-reload"))?.ok()?;
        engine_limits::expect(&t.host, pod.engine.pid(&id)?, wanted)?;
    }
    pod.remove(t)
}

pub fn too_much_memory_is_told(t: &Test) -> Outcome {
    let pod = Pod::new(t)?;
    // Its shell outlives what is killed: containerd learns nothing from a cgroup that systemd removes at once,
    // whatever the runtime, nor from a kill before it began to watch.
    let script = "sleep 1; (x=x; while :; do x=$x$x; done); code=$?; sleep 1; exit $code";
    let id = pod.container(&["memory=16777216"], &["sh", "-c", script])?;
    pod.engine.until("it has ended", || Ok(!pod.engine.says(&["reason", &id])?.is_empty()))?;
    same("reason", pod.engine.says(&["reason", &id])?.as_str(), "OOMKilled")?;
    pod.engine.says(&["rm", &id])?;
    pod.remove(t)
}

pub fn containers_of_a_pod_share_its_namespaces(t: &Test) -> Outcome {
    let pod = Pod::new(t)?;
    let one = pod.sleeper(&[])?;
    let two = pod.create("two", &[], &["sleep", "1000"])?;
    pod.engine.says(&["start", &two])?;
    let script = "for name in net ipc uts; do readlink /proc/self/ns/$name; done";
    let shown = |id: &str| pod.engine.says(&["exec", id, "sh", "-c", script]);
    same("namespaces", shown(&one)?, shown(&two)?)?;
    pod.remove(t)
}

pub fn a_missing_program_is_an_error_of_start(t: &Test) -> Outcome {
    let pod = Pod::new(t)?;
    let id = pod.create("one", &[], &["nothing"])?;
    let output = pod.engine.call(&["start", &id])?.refused()?;
    contains("message", &output.stderr, "executable file not found")?;
    pod.remove(t)
}

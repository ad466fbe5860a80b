//! What Podman and Docker ask of cgroups and devices in the same words: limits, freezing, statistics, the killer of
//! processes that take too much. Taken by their groups with `limited!`.

use crate::case::{Outcome, check, contains, same};
use crate::engine::{self, Kind};
use crate::engine_limits::{self, Limits, USUAL};
use crate::process;
use crate::test::Test;

macro_rules! limited {
    ($list:ident, $needs:tt) => {
        crate::cases::engine_limits::limited!($list, $needs:
            limits_are_in_the_cgroup, stats_show_the_limit, update_changes_the_memory, pause_and_unpause,
            exec_is_refused_while_paused, too_much_memory_is_told, a_device_is_there,
            a_device_that_is_not_given_is_denied, privileged_has_every_capability, a_private_cgroup_namespace,
            processors_and_the_score_of_the_killer, a_rule_for_a_device, unmasked_paths_are_seen);
    };
    ($list:ident, $needs:tt: $($name:ident),* $(,)?) => {
        $(fn $name(t: &$crate::test::Test) -> $crate::case::Outcome {
            $crate::cases::engine_limits::$name(t)
        })*
        const $list: &[Case] = &[$(case!($name, $needs, 120)),*];
    };
}
pub(super) use limited;

const OPTIONS: &[&str] = &["--memory", "64m", "--memory-swap", "64m", "--pids-limit", "50", "--cpus", "0.5"];

/// The units that an engine has systemd make.
fn scopes(kind: Kind) -> &'static str {
    if kind == Kind::Docker { "docker-*.scope" } else { "libpod-*.scope" }
}

pub fn limits_are_in_the_cgroup(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.sleeper("one", OPTIONS)?;
    engine_limits::expect(&t.host, engine.pid("one")?, USUAL)?;
    engine.remove("one")?;
    engine::no_scope(scopes(engine.kind))
}

pub fn stats_show_the_limit(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.sleeper("one", OPTIONS)?;
    let row = engine.says(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "one"])?;
    // 64 MiB, which Podman writes in units of 1000.
    check!(row.contains("64MiB") || row.contains("67.11MB"), "no limit in {row:?}");
    engine.remove("one")
}

pub fn update_changes_the_memory(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.sleeper("one", OPTIONS)?;
    engine.says(&["update", "--memory", "32m", "--memory-swap", "32m", "--cpus", "0.25", "one"])?;
    let wanted = Limits { memory: Some(32 << 20), pids: Some(50), quota: Some(25_000) };
    engine_limits::expect(&t.host, engine.pid("one")?, wanted)?;
    engine.remove("one")
}

/// How often the process of `counting` has written.
fn count(t: &Test) -> Outcome<usize> {
    Ok(t.engine()?.says(&["logs", "one"])?.lines().count())
}

fn counting(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.detached("one", &[], &["sh", "-c", "while :; do echo more; sleep 0.1; done"])?;
    engine.until("it counts", || Ok(count(t)? > 1))
}

pub fn pause_and_unpause(t: &Test) -> Outcome {
    let engine = t.engine()?;
    counting(t)?;
    engine.says(&["pause", "one"])?;
    same("status", engine.inspect("one", ".State.Status")?.as_str(), "paused")?;
    // What was written is read after a moment.
    crate::test::pause(500);
    let before = count(t)?;
    crate::test::pause(700);
    same("count while paused", count(t)?, before)?;
    engine.says(&["unpause", "one"])?;
    engine.until("it counts again", || Ok(count(t)? > before))?;
    engine.remove("one")
}

pub fn exec_is_refused_while_paused(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.sleeper("one", &[])?;
    engine.says(&["pause", "one"])?;
    engine.call(&["exec", "one", "true"])?.refused()?;
    engine.says(&["unpause", "one"])?;
    engine.says(&["exec", "one", "true"])?;
    engine.remove("one")
}

pub fn too_much_memory_is_told(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let options = ["--memory", "16m", "--memory-swap", "16m"];
    engine.detached("one", &options, &["sh", "-c", "x=x; while :; do x=$x$x; done"])?;
    same("exit code", engine.says(&["wait", "one"])?.as_str(), "137")?;
    // Podman's monitor finds no event of the killer on cgroup v1.
    if engine.kind == Kind::Docker || t.host.unified {
        process::until("it is told", || Ok(engine.inspect("one", ".State.OOMKilled")? == "true"))?;
    }
    engine.remove("one")
}

/// Rules of the cgroup need root, and here a device that containers have not by default.
fn needs_device_rules(t: &Test) -> Outcome {
    if !std::path::Path::new("/dev/fuse").exists() {
        return crate::case::skip("needs a device that containers have not by default: /dev/fuse");
    }
    needs_root(t)
}

fn needs_root(t: &Test) -> Outcome {
    if t.host.root { Ok(()) } else { crate::case::skip("needs root: rules of a cgroup about devices") }
}

pub fn a_device_is_there(t: &Test) -> Outcome {
    needs_device_rules(t)?;
    let script = "(: < /dev/mine) && ! (: > /dev/mine) 2> /dev/null && echo right";
    same("output", t.engine()?.script(&["--device", "/dev/fuse:/dev/mine:r"], script)?.as_str(), "right")
}

pub fn a_device_that_is_not_given_is_denied(t: &Test) -> Outcome {
    needs_root(t)?;
    // kmsg: made, which mknod allows, and then not opened.
    let script = "mknod /kmsg c 1 11 && ! cat /kmsg 2>&1 < /dev/null | head -n 1 > /dev/null; \
                  cat /kmsg 2>&1 | head -n 1";
    let output = t.engine()?.script(&["--cap-add", "mknod"], script)?;
    contains("message", &output, "not permitted")
}

pub fn privileged_has_every_capability(t: &Test) -> Outcome {
    let output = t.engine()?.script(&["--privileged"], "grep -e CapBnd -e Seccomp: /proc/self/status")?;
    let set = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("CapBnd:"));
        u64::from_str_radix(line.unwrap_or_default().trim(), 16).unwrap_or(0)
    };
    // Older engines do not know those after CAP_AUDIT_READ.
    let own = set(&std::fs::read_to_string("/proc/self/status")?) & ((1 << 38) - 1);
    same("bounding set", set(&output) & own, own)?;
    contains("filter", &output, "Seccomp:\t0")
}

pub fn a_private_cgroup_namespace(t: &Test) -> Outcome {
    let output = t.engine()?.script(&["--cgroupns", "private"], "cat /proc/self/cgroup")?;
    let line = output.lines().find(|line| line.contains(":memory:") || line.starts_with("0::"));
    let line = line.unwrap_or_default();
    check!(line.ends_with(":/"), "the path of the host is seen: {output}");
    Ok(())
}

pub fn processors_and_the_score_of_the_killer(t: &Test) -> Outcome {
    let script = "grep Cpus_allowed_list /proc/self/status; cat /proc/self/oom_score_adj";
    let output = t.engine()?.script(&["--cpuset-cpus", "0", "--oom-score-adj", "500"], script)?;
    same("output", output.split_whitespace().collect::<Vec<_>>(), vec!["Cpus_allowed_list:", "0", "500"])
}

/// A node that the container makes itself, and what is allowed of it.
pub fn a_rule_for_a_device(t: &Test) -> Outcome {
    needs_device_rules(t)?;
    let script = "mknod /made c 10 229 && (: < /made) && ! (: > /made) 2> /dev/null && echo right";
    let options = ["--cap-add", "mknod", "--device-cgroup-rule", "c 10:229 rm"];
    same("output", t.engine()?.script(&options, script)?.as_str(), "right")
}

pub fn unmasked_paths_are_seen(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let option = if engine.kind == Kind::Docker { "systempaths=unconfined" } else { "unmask=all" };
    let script = "grep -c -e ' /proc/keys ' -e ' /proc/sys ' -e ' /sys/firmware ' /proc/self/mountinfo; true";
    check!(engine.script(&[], script)? != "0", "nothing is masked by default");
    same("masks", engine.script(&["--security-opt", option], script)?.as_str(), "0")
}

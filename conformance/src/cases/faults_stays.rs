//! Containers that do what they can to stay: a signal that ends them and a deletion have to end all the same, and to
//! leave nothing (leaks.rs compares after every case).

use crate::bundle::Config;
use crate::case::{Case, Need, Outcome, case, check};
use crate::test::{Container, Test};

pub const CASES: &[Case] = &[
    case!(an_init_that_another_process_holds_at_its_end, [Need::Root], 60),
    case!(an_init_that_has_frozen_itself, [Need::Root, Need::V1, Need::Controller("freezer")], 60),
    case!(cgroups_deeper_than_a_path_can_be, [Need::Root, Need::Cgroup], 60),
    case!(an_exec_into_a_cgroup_that_the_container_has_frozen, [Need::Root, Need::Cgroup], 60),
];

/// Runs a container that is ready when its script has written `/ready`.
fn prepared(t: &Test, config: &Config) -> Outcome<Container> {
    let c = t.detached(config)?;
    c.await_file("ready")?;
    Ok(c)
}

/// `kill` and `delete` end one, `delete --force` another one.
fn all_end(t: &Test, config: &Config) -> Outcome {
    let c = prepared(t, config)?;
    c.kill("KILL")?.ok()?;
    c.await_status("stopped")?;
    c.delete()?.ok()?;
    prepared(t, config)?.delete_force()?.ok()?;
    Ok(())
}

/// A tracer can have a process stop at its end, even after SIGKILL (ptrace(2), PTRACE_O_TRACEEXIT).
fn an_init_that_another_process_holds_at_its_end(t: &Test) -> Outcome {
    let mut config = t.shell("/probe seize 1 & wait");
    config.capabilities(&["CAP_SYS_PTRACE"]);
    all_end(t, &config)
}

fn writable_cgroups(t: &Test, script: &str) -> Config {
    let mut config = t.shell(script);
    config.namespace("cgroup").mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev"]);
    config
}

/// A frozen process of a v1 freezer does not end before it is thawed.
fn an_init_that_has_frozen_itself(t: &Test) -> Outcome {
    let script = "cd /sys/fs/cgroup/freezer && mkdir -p above/below && echo 0 > above/below/tasks \
                  && echo ready > /ready && echo FROZEN > above/freezer.state; sleep 1000";
    all_end(t, &writable_cgroups(t, script))
}

/// A path of 4096 bytes is too long for every system call.
fn cgroups_deeper_than_a_path_can_be(t: &Test) -> Outcome {
    let hierarchy = if t.host.unified { "" } else { "pids" };
    let script = format!("/probe deep /sys/fs/cgroup/{hierarchy} 60 > /made; cp /made /ready; sleep 1000");
    let config = writable_cgroups(t, &script);
    all_end(t, &config)?;
    let c = prepared(t, &config)?;
    let made = std::fs::read_to_string(c.path("/made"))?;
    check!(made.trim() == r#"{"depth":60}"#, "cgroups: {made}");
    c.delete_force()?.ok()?;
    Ok(())
}

/// Init is in a cgroup below the container's, where `exec` has to follow it on v2, and which another process freezes:
/// the container counts as running. Beside v1 the cgroup of v2 freezes without the freezer of v1.
fn an_exec_into_a_cgroup_that_the_container_has_frozen(t: &Test) -> Outcome {
    let script = match (t.host.unified, std::path::Path::new("/sys/fs/cgroup/unified").exists()) {
        (true, _) => {
            "cd /sys/fs/cgroup; mkdir frozen other; echo 1 > frozen/cgroup.procs; \
             sh -c 'echo 0 > other/cgroup.procs && echo +pids > cgroup.subtree_control && echo > /ready && sleep 1 && \
             echo 1 > frozen/cgroup.freeze && sleep 1000' & sleep 1000"
        }
        (false, true) => {
            "sh -c 'echo > /ready; sleep 1; echo 1 > /sys/fs/cgroup/unified/cgroup.freeze' & sleep 1000"
        }
        (false, false) => return crate::case::skip("needs a hierarchy of cgroup v2"),
    };
    let c = prepared(t, &writable_cgroups(t, script))?;
    crate::test::pause(2000);
    let begin = std::time::Instant::now();
    c.exec(&["/bin/true"])?.refused()?;
    let seconds = begin.elapsed().as_secs();
    check!(seconds < 15 * u64::from(crate::process::slowness()), "exec took {seconds} s");
    c.delete_force()?.ok()?;
    Ok(())
}

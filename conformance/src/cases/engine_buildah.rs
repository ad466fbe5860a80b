//! Buildah, which executes the runtime for each step of a build.

use crate::bundle;
use crate::case::Need::Program;
use crate::case::{Case, Outcome, case, contains, same};
use crate::test::Test;
use std::fs;

pub const CASES: &[Case] = &[
    case!(bud_runs_steps, [Program("podman"), Program("buildah")], 120),
    case!(a_step_that_fails_ends_the_build, [Program("podman"), Program("buildah")], 120),
    case!(run_in_a_working_container, [Program("podman"), Program("buildah")], 120),
];

/// A context with this after its first line, and the words of `bud` for it.
fn build(t: &Test, steps: &str) -> Outcome<crate::process::Output> {
    let engine = t.engine()?;
    let dir = engine.dir.join("context");
    bundle::make_dir(&dir)?;
    fs::write(dir.join("Dockerfile"), format!("FROM {}\n{steps}", engine.image))?;
    let dir = dir.display().to_string();
    let mut words = vec!["bud", "--network", "none", "--ulimit", "nofile=1024:1024", "--no-cache"];
    let cgroup = engine.cgroup.as_deref().map(|cgroup| format!("{cgroup}/build"));
    if let Some(cgroup) = &cgroup {
        words.extend(["--cgroup-parent", cgroup]);
    }
    words.extend(["-t", "localhost/two", &dir]);
    engine.call(&words)
}

fn bud_runs_steps(t: &Test) -> Outcome {
    let steps =
        "RUN echo built > /built && id\nUSER 1000\nRUN cat /built && id -u\nCMD [\"cat\",\"/built\"]\n";
    let output = build(t, steps)?.ok()?;
    contains("output", &output.stdout, "uid=0")?;
    contains("output", &output.stdout, "built\n1000")?;
    t.engine()?.says(&["rmi", "-f", "localhost/two"]).map(drop)
}

fn a_step_that_fails_ends_the_build(t: &Test) -> Outcome {
    let output = build(t, "RUN exit 7\nRUN echo wrong\n")?;
    same("exit code", output.code, 7)?;
    crate::case::check!(!output.stdout.contains("\nwrong"), "the next step ran: {}", output.text());
    Ok(())
}

fn run_in_a_working_container(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let cgroup = engine.cgroup.as_deref().map(|cgroup| format!("{cgroup}/build"));
    let mut words = vec!["from", "--name", "working", "--ulimit", "nofile=1024:1024"];
    if let Some(cgroup) = &cgroup {
        words.extend(["--cgroup-parent", cgroup]);
    }
    words.extend(["--network", "none", engine.image]);
    engine.says(&words)?;
    contains("id", &engine.says(&["run", "working", "--", "id"])?, "uid=0")?;
    engine.call(&["run", "working", "--", "sh", "-c", "exit 5"])?.exits(5)?;
    engine.says(&["rm", "working"]).map(drop)
}

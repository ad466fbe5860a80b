//! Limits at their ends: as small as they can be, and all that `update` knows at once. What each file
//! says after a start is in cgroups.rs.

use crate::case::Need::{Cgroup, Controller, Root, V1, V2};
use crate::case::{Case, Outcome, case, check, same};
use crate::process;
use crate::test::{Container, Test};
use serde_json::{Value, json};

pub const CASES: &[Case] = &[
    case!(little_memory_is_enough_or_named, [Cgroup, Controller("memory")], 60),
    case!(update_changes_everything_v1, [Root, V1, Controller("memory"), Controller("cpuset")]),
    case!(update_changes_everything_v2, [Cgroup, V2, Controller("memory"), Controller("cpuset")]),
    case!(ten_thousand_bind_mounts, [Root], 90),
    case!(sixty_thousand_masked_paths_in_a_thousand_mounts, [Root], 90),
    case!(a_hook_with_the_longest_timeout),
    case!(events_tells_of_memory_that_ran_out, [Cgroup, Controller("memory")]),
];

const MIB: u64 = 1 << 20;

/// With the soft limit on open files that most hosts have.
fn ten_thousand_bind_mounts(t: &Test) -> Outcome {
    let source = t.folder("source")?;
    let mut config = t.shell("ls /mnt | wc -l; ulimit -n");
    for at in 0..9_900 {
        config.bind(&source, &format!("/mnt/{at}"), &[]);
    }
    let c = t.container(&config)?;
    let call = format!("ulimit -Sn 1024; exec \"$RT\" --root \"$ST\" run --bundle \"$B\" {}", c.id);
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", &call]).env("RT", &t.runtime.program).env("ST", &t.runtime.state).env("B", &c.bundle);
    let started = process::start(&mut command, &t.dir)?;
    let output = started.finish(std::time::Duration::from_secs(60))?.ok()?;
    same("mounts and open files", output.stdout.trim(), "9900\n1024")
}

/// Planning takes no time that grows with the square of their number, or with that of the mounts: for four times as
/// many it would be sixteen times as long.
fn sixty_thousand_masked_paths_in_a_thousand_mounts(t: &Test) -> Outcome {
    let few = time_of_masked_paths(t, 15_000)?;
    let many = time_of_masked_paths(t, 60_000)?;
    let (few, many) = (few.as_millis(), many.as_millis());
    t.note(&format!("15,000 took {few} ms, 60,000 took {many} ms"));
    // What is below a second is not the planning.
    check!(many < few * 7 + 1000, "15,000 took {few} ms, 60,000 took {many} ms");
    Ok(())
}

fn time_of_masked_paths(t: &Test, count: u32) -> Outcome<std::time::Duration> {
    let mut config = t.shell("echo ran");
    for at in 0..1000 {
        config.mount(&format!("/mnt/{at}"), "tmpfs", "tmpfs", &["size=4k"]);
    }
    let masked: Vec<String> = (0..count).map(|at| format!("/proc/missing/{at}")).collect();
    config.set("linux.maskedPaths", masked);
    let container = t.container(&config)?;
    let begin = std::time::Instant::now();
    let output = container.run_started()?.finish(std::time::Duration::from_secs(45))?.ok()?;
    same("output", output.stdout.trim(), "ran")?;
    Ok(begin.elapsed())
}

/// In seconds it is more than a clock counts.
fn a_hook_with_the_longest_timeout(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("hooks.poststop", json!([{ "path": "/bin/true", "timeout": i64::MAX }]));
    let c = t.detached(&config)?;
    c.delete_force()?.ok()?;
    Ok(())
}

/// From 512 KiB upward a container starts, or its error says what it has too little of.
fn little_memory_is_enough_or_named(t: &Test) -> Outcome {
    for kibibytes in [512, 640, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192] {
        let mut config = t.config();
        config.set("linux.resources", json!({ "memory": { "limit": kibibytes << 10 } }));
        let output = t.run(&config)?;
        // 137: the program itself has used it up.
        let told = output.text().to_lowercase().contains("memory");
        check!([0, 137].contains(&output.code) || told, "with {kibibytes} KiB: {}", output.text());
    }
    Ok(())
}

/// A container with no limits gets these by `update -r`, and has them in the files.
fn updated(t: &Test, change: Value, files: &[(&str, &str, &str)]) -> Outcome<Container> {
    let c = t.detached(&t.sleeper())?;
    let file = t.dir.join("resources.json");
    std::fs::write(&file, change.to_string())?;
    c.runtime.call(&["update", "-r", &file.to_string_lossy(), &c.id])?.ok()?;
    for (controller, name, wanted) in files.iter().filter(|(name, ..)| t.host.has_controller(name)) {
        same(name, t.limit(&c, controller, name)?.as_str(), *wanted)?;
    }
    Ok(c)
}

fn everything(cpu: Value) -> Value {
    json!({
        "memory": { "limit": 64 * MIB, "reservation": 32 * MIB },
        "cpu": cpu,
        "pids": { "limit": 66 },
    })
}

fn update_changes_everything_v1(t: &Test) -> Outcome {
    let cpu = json!({ "shares": 512, "quota": 30000, "period": 60000, "cpus": "0", "mems": "0" });
    let files = [
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.soft_limit_in_bytes", "33554432"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "30000"),
        ("cpu", "cpu.cfs_period_us", "60000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("cpuset", "cpuset.mems", "0"),
        ("pids", "pids.max", "66"),
    ];
    updated(t, everything(cpu), &files).map(drop)
}

fn update_changes_everything_v2(t: &Test) -> Outcome {
    let cpu = json!({ "shares": 512, "quota": 30000, "period": 60000, "cpus": "0", "mems": "0" });
    let mut change = everything(cpu);
    change["memory"]["swap"] = json!(96 * MIB);
    change["unified"] = json!({ "memory.high": "62914560" });
    let files = [
        ("memory", "memory.max", "67108864"),
        ("memory", "memory.low", "33554432"),
        ("memory", "memory.high", "62914560"),
        ("memory", "memory.swap.max", "33554432"),
        ("cpu", "cpu.max", "30000 60000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("cpuset", "cpuset.mems", "0"),
        ("pids", "pids.max", "66"),
    ];
    updated(t, change, &files).map(drop)
}

fn events_tells_of_memory_that_ran_out(t: &Test) -> Outcome {
    t.needs_verb("events")?;
    let mut config = t.sleeper();
    config.set("linux.resources.memory", json!({ "limit": 32 * MIB }));
    // Or the program would move to the swap.
    if std::fs::read_to_string("/proc/swaps")?.lines().count() > 1 {
        config.set("linux.resources.memory.swap", 32 * MIB);
    }
    let c = t.detached(&config)?;
    let told = t.dir.join("events");
    std::fs::write(&told, "")?;
    let (command, id) = (c.runtime.program.display(), &c.id);
    let line =
        format!("exec {command} --root {} events {id} > {}", c.runtime.state.display(), told.display());
    let mut watching = std::process::Command::new("/bin/sh");
    let started = process::start(watching.args(["-c", &line]), &t.dir)?;
    // It says nothing when it listens: until then memory runs out again.
    process::until("events says that memory ran out", || {
        c.exec(&["/probe", "memory", "200"])?.exits(128 + 9)?;
        Ok(std::fs::read_to_string(&told)?.contains(r#""type":"oom""#))
    })?;
    c.delete_force()?.ok()?;
    started.finish(std::time::Duration::from_secs(10))?.ok().map(drop)
}

//! The same thing many times, then a comparison with before: mounts, cgroups, processes, files, and
//! nothing that grows. A single run is compared after every case by leaks.rs.

use crate::case::{Case, Outcome, case, check, same};
use crate::process;
use crate::test::Test;
use std::fs;
use std::path::Path;

pub const CASES: &[Case] = &[
    case!(a_hundred_runs_leave_nothing, [], 120),
    case!(forty_create_start_kill_delete_leave_nothing, [], 120),
    case!(a_hundred_execs_leave_nothing, [], 120),
    case!(forty_failed_creates_leave_nothing, [], 120),
    case!(the_runtime_killed_at_any_moment_can_be_cleaned_up, [], 120),
    case!(many_containers_at_the_same_time, [], 120),
    case!(containers_that_make_the_same_mount_points_at_once, [], 120),
    case!(one_id_raced_by_many_creates_has_one_winner, [], 60),
    case!(start_raced_by_many_has_one_winner, [], 60),
    case!(delete_raced_by_many_leaves_nothing, [], 60),
];

/// What is in places where runtimes leave things, by number.
fn counts() -> Vec<(String, usize)> {
    let entries = |path: &str| fs::read_dir(path).map_or(0, |dir| dir.flatten().count());
    let mut counts = vec![("mounts".to_owned(), crate::leaks::mounts().len())];
    for path in ["/run", "/var/run", "/dev/shm"] {
        counts.push((path.to_owned(), entries(path)));
    }
    let keys = fs::read_to_string("/proc/key-users").unwrap_or_default();
    let of_root =
        keys.lines().next().and_then(|line| line.split_whitespace().nth(1)).unwrap_or("0").to_owned();
    counts.push(("keys".to_owned(), of_root.parse().unwrap_or(0)));
    counts
}

fn compare(t: &Test, before: &[(String, usize)]) -> Outcome {
    for ((what, was), (_, now)) in before.iter().zip(counts()) {
        // Other programs of the host come and go; a leak of each run is much more.
        check!(now <= was + 15, "{what}: {was} before, {now} now");
    }
    same("left in the state directory", visible(&t.runtime.state), 0)
}

fn visible(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')).count()
}

fn a_hundred_runs_leave_nothing(t: &Test) -> Outcome {
    let c = t.container(&t.config())?;
    c.run()?.ok()?;
    let files = crate::leaks::tree(&c.rootfs()).len();
    let before = counts();
    for _ in 0..100 {
        c.run()?.ok()?;
    }
    same("files in the root file system", crate::leaks::tree(&c.rootfs()).len(), files)?;
    compare(t, &before)
}

fn forty_create_start_kill_delete_leave_nothing(t: &Test) -> Outcome {
    let c = t.container(&t.sleeper())?;
    let before = counts();
    for _ in 0..40 {
        c.create()?.ok()?;
        c.start()?.ok()?;
        c.stop()?;
        c.delete()?.ok()?;
    }
    compare(t, &before)
}

fn a_hundred_execs_leave_nothing(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let pid = c.pid()?;
    let fds = |pid: i32| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |dir| dir.flatten().count());
    c.exec(&["/bin/true"])?.ok()?;
    // `run` may return before the set-up has become the program.
    crate::process::until("the program runs", || {
        Ok(fs::read_link(format!("/proc/{pid}/exe"))?.ends_with("bin/sleep") || fds(pid) <= 3)
    })?;
    let open = fds(pid);
    let before = counts();
    for n in 0..100 {
        c.exec(&["/bin/sh", "-c", &format!("exit {}", n % 7)])?.exits(n % 7)?;
    }
    same("open files of the container's process", fds(pid), open)?;
    let left = c.exec(&["/bin/ps"])?.ok()?.stdout;
    check!(left.lines().count() <= 4, "processes: {left}");
    for ((what, was), (_, now)) in before.iter().zip(counts()) {
        check!(now <= was + 15, "{what}: {was} before, {now} now");
    }
    Ok(())
}

fn forty_failed_creates_leave_nothing(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.push("hooks.createContainer", serde_json::json!({ "path": "/bin/false" }));
    let c = t.container(&config)?;
    let before = counts();
    for _ in 0..40 {
        c.create()?.refused()?;
    }
    compare(t, &before)
}

fn the_runtime_killed_at_any_moment_can_be_cleaned_up(t: &Test) -> Outcome {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    let c = t.container(&t.sleeper())?;
    for step in 0..40u64 {
        let mut command = c.bundle_command("create", &[]);
        let started = process::start(command.stdin(std::process::Stdio::null()), &t.dir)?;
        std::thread::sleep(std::time::Duration::from_micros(500 + step * step * 60));
        let _ = kill(Pid::from_raw(started.pid), Signal::SIGKILL);
        started.finish(process::LIMIT)?;
        crate::test::pause(30);
        c.delete_force()?.ok()?;
        same(&format!("state after {step}"), visible(&t.runtime.state), 0)?;
    }
    // The id is free, and everything works.
    c.create()?.ok()?;
    Ok(())
}

fn many_containers_at_the_same_time(t: &Test) -> Outcome {
    let mut started = Vec::new();
    for n in 0..10 {
        let c = t.container(&t.shell(&format!("echo number {n}; exit {n}")))?;
        let mut command = c.bundle_command("run", &[]);
        started.push((n, process::start(command.stdin(std::process::Stdio::null()), &t.dir)?));
    }
    for (n, one) in started {
        let output = one.finish(process::LIMIT)?.exits(n)?;
        same("output", output.stdout.trim(), format!("number {n}").as_str())?;
    }
    Ok(())
}

fn containers_that_make_the_same_mount_points_at_once(t: &Test) -> Outcome {
    for _ in 0..10 {
        let first = t.container(&t.config())?;
        let mut config = t.config();
        config.set("root.path", first.rootfs().display().to_string());
        for n in 0..30 {
            config.mount(&format!("/made/{n}/here"), "tmpfs", "tmpfs", &[]);
        }
        let mut started = Vec::new();
        for _ in 0..12 {
            let c = t.container(&config)?;
            let mut command = c.bundle_command("run", &[]);
            started.push(process::start(command.stdin(std::process::Stdio::null()), &t.dir)?);
        }
        for one in started {
            one.finish(process::LIMIT)?.ok()?;
        }
    }
    Ok(())
}

/// Starts several calls at once; how many succeeded.
fn race(t: &Test, mut command: impl FnMut() -> std::process::Command, number: usize) -> Outcome<usize> {
    let mut started = Vec::new();
    for _ in 0..number {
        started.push(process::start(command().stdin(std::process::Stdio::null()), &t.dir)?);
    }
    let mut winners = 0;
    for one in started {
        winners += usize::from(one.finish(process::LIMIT)?.code == 0);
    }
    Ok(winners)
}

fn one_id_raced_by_many_creates_has_one_winner(t: &Test) -> Outcome {
    let c = t.container(&t.sleeper())?;
    for _ in 0..5 {
        same("winners", race(t, || c.bundle_command("create", &[]), 6)?, 1)?;
        same("status", c.status()?.as_str(), "created")?;
        c.delete_force()?.ok()?;
    }
    Ok(())
}

fn start_raced_by_many_has_one_winner(t: &Test) -> Outcome {
    for _ in 0..5 {
        let c = t.container(&t.shell("echo >> /starts; exec sleep 1000"))?;
        c.create()?.ok()?;
        let command = || {
            let mut command = c.runtime.command();
            command.args(["start", &c.id]);
            command
        };
        let winners = race(t, command, 5)?;
        c.await_file("/starts")?;
        same("starts of the program", fs::read_to_string(c.path("/starts"))?.lines().count(), 1)?;
        same("winners", winners, 1)?;
    }
    Ok(())
}

fn delete_raced_by_many_leaves_nothing(t: &Test) -> Outcome {
    for _ in 0..5 {
        let c = t.detached(&t.sleeper())?;
        let command = || {
            let mut command = c.runtime.command();
            command.args(["delete", "--force", &c.id]);
            command
        };
        let winners = race(t, command, 4)?;
        check!(winners >= 1, "nobody could delete it");
        c.call("state", &[])?.refused()?;
    }
    same("left in the state directory", visible(&t.runtime.state), 0)
}

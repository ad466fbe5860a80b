//! What Podman, a user's Podman and Docker are asked in the same words; each has a group that takes these with
//! `everyday!`. The cases have no kind: an engine is asked, and what a container shows is judged.

use crate::case::{Outcome, check, contains, same};
use crate::process;
use crate::test::Test;
use std::fs;

/// The cases of this file as those of a group: `everyday!(NAME, [NEED…])` is a list of them.
macro_rules! everyday {
    ($list:ident, $needs:tt) => {
        everyday!($list, $needs:
            run_prints_what_the_container_says, run_says_the_exit_code, a_missing_program_is_127,
            a_program_that_is_none_is_126, input_reaches_the_container, run_has_a_terminal,
            exec_is_root, exec_has_a_user_a_directory_and_variables, exec_has_a_terminal,
            exec_says_the_exit_code, exec_of_a_missing_program_is_known_as_such, exec_in_the_background,
            many_execs_at_once, top_lists_the_processes, logs_have_both_streams,
            cp_goes_in_and_out, stop_and_start, restart_makes_a_new_process, kill_sends_a_signal,
            wait_says_the_exit_code, a_failure_is_tried_again, init_reaps_orphans,
            a_read_only_root_has_a_writable_tmpfs, a_user_by_number, a_user_by_name, ulimits_are_set,
            a_sysctl_is_set, a_hostname_is_set, capabilities_are_dropped_and_added,
            no_new_privileges_is_set, a_volume_is_read_only, a_volume_keeps_what_is_written,
            a_tmpfs_has_its_size, shm_has_its_size, seccomp_is_on_unless_unconfined,
            namespaces_of_another_container, the_pid_namespace_of_the_host, commit_keeps_what_was_written,
            a_builder_runs_steps, masked_paths_are_empty_and_sysctls_read_only, remove_while_it_starts);
    };
    ($list:ident, $needs:tt: $($name:ident),* $(,)?) => {
        $(fn $name(t: &$crate::test::Test) -> $crate::case::Outcome {
            $crate::cases::engine_everyday::$name(t)
        })*
        const $list: &[Case] = &[$(case!($name, $needs, 120)),*];
    };
}
pub(super) use everyday;

pub fn run_prints_what_the_container_says(t: &Test) -> Outcome {
    same("output", t.engine()?.script(&[], "echo hello")?.as_str(), "hello")
}

pub fn run_says_the_exit_code(t: &Test) -> Outcome {
    t.engine()?.run(&[], &["sh", "-c", "exit 7"])?.exits(7).map(drop)
}

pub fn a_missing_program_is_127(t: &Test) -> Outcome {
    t.engine()?.run(&[], &["nothing"])?.exits(127).map(drop)
}

pub fn a_program_that_is_none_is_126(t: &Test) -> Outcome {
    t.engine()?.run(&[], &["/etc"])?.exits(126).map(drop)
}

pub fn input_reaches_the_container(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let mut words = vec!["run", "--rm", "-i", "--network", "none"];
    if let Some(cgroup) = engine.cgroup.as_deref() {
        words.extend(["--cgroup-parent", cgroup]);
    }
    words.extend([engine.image, "cat"]);
    same("output", engine.is_told("a line\n", &words)?.as_str(), "a line")
}

pub fn run_has_a_terminal(t: &Test) -> Outcome {
    contains("descriptor 0", &t.engine()?.script(&["-t"], "ls -l /proc/self/fd/0")?, "pts")
}

pub fn exec_is_root(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.sleeper("one", &[])?;
    contains("id", &engine.says(&["exec", "one", "id"])?, "uid=0")?;
    engine.remove("one")
}

pub fn exec_has_a_user_a_directory_and_variables(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.sleeper("one", &[])?;
    let script = "echo $(id -u) $(pwd) $OK";
    let words = ["exec", "-u", "1000", "-w", "/tmp", "-e", "OK=yes", "one", "sh", "-c", script];
    same("output", engine.says(&words)?.as_str(), "1000 /tmp yes")?;
    engine.remove("one")
}

pub fn exec_has_a_terminal(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.sleeper("one", &[])?;
    contains("0", &engine.says(&["exec", "-t", "one", "sh", "-c", "ls -l /proc/self/fd/0"])?, "pts")?;
    engine.remove("one")
}

pub fn exec_says_the_exit_code(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.sleeper("one", &[])?;
    engine.call(&["exec", "one", "sh", "-c", "exit 9"])?.exits(9)?;
    engine.remove("one")
}

/// By the runtime's words, which engines look for. Docker 20.10 has 126 for all that an exec fails of.
pub fn exec_of_a_missing_program_is_known_as_such(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.sleeper("one", &[])?;
    let output = engine.call(&["exec", "one", "nothing"])?;
    contains("message", &output.text(), "executable file")?;
    let code = if engine.kind == crate::engine::Kind::Docker { 126 } else { 127 };
    check!([code, 127].contains(&output.code), "exit {}: {}", output.code, output.text());
    engine.remove("one")
}

pub fn exec_in_the_background(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.sleeper("one", &[])?;
    engine.says(&["exec", "-d", "one", "sh", "-c", "echo done > /file; exec sleep 1000"])?;
    engine.until("the file is there", || Ok(engine.call(&["exec", "one", "cat", "/file"])?.code == 0))?;
    engine.remove("one")
}

pub fn many_execs_at_once(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.sleeper("one", &[])?;
    let begin = |n: &u32| {
        let words = ["exec", "one", "echo", &n.to_string()].map(str::to_owned);
        process::start(&mut engine.command(&words.each_ref().map(String::as_str)), &engine.dir)
    };
    let started: Vec<_> = (0..8u32).map(|n| begin(&n)).collect::<Result<_, _>>()?;
    for (n, one) in started.into_iter().enumerate() {
        let output = one.finish(std::time::Duration::from_secs(60))?.ok()?;
        same("output", output.stdout.trim(), n.to_string())?;
    }
    engine.remove("one")
}

pub fn top_lists_the_processes(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.sleeper("one", &[])?;
    contains("top", &engine.says(&["top", "one"])?, "sleep")?;
    engine.remove("one")
}

pub fn logs_have_both_streams(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.detached("one", &[], &["sh", "-c", "echo out; echo err >&2; exit 3"])?;
    same("exit code", engine.says(&["wait", "one"])?.as_str(), "3")?;
    let output = engine.call(&["logs", "one"])?.ok()?;
    same("stdout", output.stdout.trim(), "out")?;
    same("stderr", output.stderr.trim(), "err")?;
    engine.remove("one")
}

pub fn cp_goes_in_and_out(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.sleeper("one", &[])?;
    let [from, to] = ["cp-in", "cp-out"].map(|name| engine.dir.join(name).display().to_string());
    fs::write(&from, "copied")?;
    engine.says(&["cp", &from, "one:/tmp/file"])?;
    same("in", engine.says(&["exec", "one", "cat", "/tmp/file"])?.as_str(), "copied")?;
    engine.says(&["exec", "one", "sh", "-c", "echo back > /tmp/file"])?;
    // The engine's user can write to no directory of root's, but to its own.
    engine.says(&["cp", "one:/tmp/file", &to])?;
    same("out", fs::read_to_string(&to)?.trim(), "back")?;
    engine.remove("one")
}

pub fn stop_and_start(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.sleeper("one", &[])?;
    engine.says(&["stop", "-t", "1", "one"])?;
    same("running", engine.inspect("one", ".State.Running")?.as_str(), "false")?;
    engine.says(&["start", "one"])?;
    same("running", engine.inspect("one", ".State.Running")?.as_str(), "true")?;
    contains("id", &engine.says(&["exec", "one", "id"])?, "uid=0")?;
    engine.remove("one")
}

pub fn restart_makes_a_new_process(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.sleeper("one", &[])?;
    let before = engine.pid("one")?;
    engine.says(&["restart", "-t", "0", "one"])?;
    check!(engine.pid("one")? != before, "the process is the same");
    engine.remove("one")
}

pub fn kill_sends_a_signal(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let script = "trap 'exit 5' USR1; echo ready; while :; do sleep 0.1; done";
    engine.detached("one", &[], &["sh", "-c", script])?;
    engine.until("the trap is set", || Ok(engine.says(&["logs", "one"])?.contains("ready")))?;
    engine.says(&["kill", "--signal", "USR1", "one"])?;
    same("exit code", engine.says(&["wait", "one"])?.as_str(), "5")?;
    engine.remove("one")
}

pub fn wait_says_the_exit_code(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.detached("one", &[], &["sh", "-c", "sleep 0.5; exit 4"])?;
    same("exit code", engine.says(&["wait", "one"])?.as_str(), "4")?;
    engine.remove("one")
}

pub fn a_failure_is_tried_again(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let script = "echo once; exit 1";
    engine.detached("one", &["--restart", "on-failure:2"], &["sh", "-c", script])?;
    let times = || Ok(engine.says(&["logs", "one"])?.matches("once").count() == 3);
    engine.until("it ran three times", times)?;
    engine.remove("one")
}

pub fn init_reaps_orphans(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let init = ["/usr/bin/docker-init", "/usr/libexec/podman/catatonit", "/usr/bin/catatonit"];
    let Some(init) = init.into_iter().find(|path| std::path::Path::new(path).exists()) else {
        return crate::case::skip("needs an init for containers, such as docker-init or catatonit");
    };
    let podman = engine.kind != crate::engine::Kind::Docker;
    let options: &[&str] = if podman { &["--init", "--init-path", init] } else { &["--init"] };
    let script = "sh -c 'true & exec true'; sleep 0.5; cat /proc/1/cmdline | tr '\\0' ' '; echo; ps -o stat";
    let output = engine.script(options, script)?;
    contains("process 1", output.lines().next().unwrap_or_default(), "init")?;
    check!(!output.contains('Z'), "an orphan stays: {output}");
    Ok(())
}

pub fn a_read_only_root_has_a_writable_tmpfs(t: &Test) -> Outcome {
    let script = "! touch /file 2> /dev/null && touch /tmp/file && echo right";
    same("output", t.engine()?.script(&["--read-only", "--tmpfs", "/tmp"], script)?.as_str(), "right")
}

pub fn a_user_by_number(t: &Test) -> Outcome {
    let ids = t.engine()?.script(&["--user", "1234:5678"], "echo $(id -u) $(id -g)")?;
    same("ids", ids.as_str(), "1234 5678")
}

pub fn a_user_by_name(t: &Test) -> Outcome {
    let ids = t.engine()?.script(&["--user", "user", "--group-add", "2000"], "id")?;
    contains("ids", &ids, "uid=1000(user)")?;
    contains("ids", &ids, "2000")
}

pub fn ulimits_are_set(t: &Test) -> Outcome {
    let options = ["--ulimit", "nofile=512:1024", "--ulimit", "core=0:0", "--ulimit", "nproc=1024:1024"];
    let output = t.engine()?.script(&options, "ulimit -Sn; ulimit -Hn; ulimit -c")?;
    same("limits", output.split_whitespace().collect::<Vec<_>>(), vec!["512", "1024", "0"])
}

pub fn a_sysctl_is_set(t: &Test) -> Outcome {
    let output = t.engine()?.script(&["--sysctl", "kernel.msgmax=4096"], "cat /proc/sys/kernel/msgmax")?;
    same("msgmax", output.as_str(), "4096")
}

pub fn a_hostname_is_set(t: &Test) -> Outcome {
    let options = ["--hostname", "named", "--add-host", "other:192.0.2.7"];
    let output = t.engine()?.script(&options, "hostname; grep other /etc/hosts")?;
    contains("hostname", &output, "named")?;
    contains("hosts", &output, "192.0.2.7")
}

pub fn capabilities_are_dropped_and_added(t: &Test) -> Outcome {
    let options = ["--cap-drop", "all", "--cap-add", "net_raw"];
    let output = t.engine()?.script(&options, "grep CapEff /proc/self/status")?;
    contains("capabilities", &output, "0000000000002000")
}

pub fn no_new_privileges_is_set(t: &Test) -> Outcome {
    let options = ["--security-opt", "no-new-privileges"];
    let output = t.engine()?.script(&options, "grep NoNewPrivs /proc/self/status")?;
    same("NoNewPrivs", output.split_whitespace().last(), Some("1"))
}

pub fn a_volume_is_read_only(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let volume = format!("{}:/mnt:ro", t.canary().display());
    let output = engine.script(&["-v", &volume], "cat /mnt/file; ! touch /mnt/new 2> /dev/null")?;
    same("file", output.as_str(), "untouched")
}

pub fn a_volume_keeps_what_is_written(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.says(&["volume", "create", "kept"])?;
    engine.script(&["-v", "kept:/data"], "echo kept > /data/file")?;
    same("file", engine.script(&["-v", "kept:/data"], "cat /data/file")?.as_str(), "kept")?;
    engine.says(&["volume", "rm", "kept"]).map(drop)
}

pub fn a_tmpfs_has_its_size(t: &Test) -> Outcome {
    let options = ["--tmpfs", "/scratch:rw,size=1m,mode=1777"];
    let output = t.engine()?.script(&options, "grep ' /scratch ' /proc/mounts")?;
    contains("mount", &output, "size=1024k")
}

pub fn shm_has_its_size(t: &Test) -> Outcome {
    let output = t.engine()?.script(&["--shm-size", "4m"], "grep ' /dev/shm ' /proc/mounts")?;
    contains("mount", &output, "size=4096k")
}

pub fn seccomp_is_on_unless_unconfined(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let mode = |options: &[&str]| engine.script(options, "grep Seccomp: /proc/self/status");
    same("default", mode(&[])?.split_whitespace().last(), Some("2"))?;
    let without = mode(&["--security-opt", "seccomp=unconfined"])?;
    same("unconfined", without.split_whitespace().last(), Some("0"))
}

pub fn namespaces_of_another_container(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.detached("one", &["--hostname", "first", "--ipc", "shareable"], &["sleep", "1000"])?;
    let options = ["--network", "container:one", "--pid", "container:one", "--ipc", "container:one"];
    let script =
        "for name in net pid ipc; do readlink /proc/1/ns/$name; readlink /proc/self/ns/$name; done; ps";
    let output = engine.script(&options, script)?;
    let lines: Vec<&str> = output.lines().collect();
    check!(lines.len() > 6, "too little: {output}");
    for pair in lines[..6].chunks(2) {
        same("namespace", pair[0], pair[1])?;
    }
    contains("processes", &output, "sleep 1000")?;
    engine.remove("one")
}

pub fn the_pid_namespace_of_the_host(t: &Test) -> Outcome {
    let here = fs::read_link("/proc/self/ns/pid")?;
    let inside = t.engine()?.script(&["--pid", "host"], "readlink /proc/self/ns/pid")?;
    same("namespace", inside, here.display().to_string())
}

pub fn commit_keeps_what_was_written(t: &Test) -> Outcome {
    let engine = t.engine()?;
    engine.detached("one", &[], &["sh", "-c", "echo kept > /kept"])?;
    engine.says(&["wait", "one"])?;
    engine.says(&["commit", "one", "localhost/committed"])?;
    engine.remove("one")?;
    let words = ["run", "--rm", "--network", "none", "localhost/committed", "cat", "/kept"];
    let output = match engine.cgroup.as_deref() {
        Some(cgroup) => engine.says(&[&words[..2], &["--cgroup-parent", cgroup], &words[2..]].concat())?,
        None => engine.says(&words)?,
    };
    same("file", output.as_str(), "kept")?;
    engine.says(&["rmi", "-f", "localhost/committed"]).map(drop)
}

/// The engine's own builder; BuildKit has a case of its own.
pub fn a_builder_runs_steps(t: &Test) -> Outcome {
    let engine = t.engine()?;
    let dir = engine.dir.join("build");
    crate::bundle::make_dir(&dir)?;
    let text = format!("FROM {}\nRUN echo built > /built && id\nRUN cat /built\n", engine.image);
    fs::write(dir.join("Dockerfile"), text)?;
    let dir = dir.display().to_string();
    let mut words = vec!["build", "--network", "none", "--no-cache", "-t", "localhost/two"];
    if engine.kind != crate::engine::Kind::Docker {
        words.extend(["--isolation", "oci", "--ulimit", "nofile=1024:1024"]);
    }
    // What Buildah calls a parent is the container's own cgroup.
    let cgroup = engine.cgroup.as_deref().map(|cgroup| format!("{cgroup}/build"));
    if let Some(cgroup) = &cgroup {
        words.extend(["--cgroup-parent", cgroup]);
    }
    words.push(&dir);
    let mut command = engine.command(&words);
    let output = process::start(command.env("DOCKER_BUILDKIT", "0"), &engine.dir)?;
    let output = output.finish(std::time::Duration::from_secs(90))?.ok()?;
    contains("output", &output.stdout, "built")?;
    engine.says(&["rmi", "-f", "localhost/two"]).map(drop)
}

pub fn masked_paths_are_empty_and_sysctls_read_only(t: &Test) -> Outcome {
    let script =
        "wc -c < /proc/keys; ls -A /sys/firmware | wc -l; ! (echo 1 > /proc/sys/vm/swappiness) 2> /dev/null";
    let output = t.engine()?.script(&[], script)?;
    same("bytes and files", output.split_whitespace().collect::<Vec<_>>(), vec!["0", "0"])
}

/// A container that is removed while its processes start, several times.
pub fn remove_while_it_starts(t: &Test) -> Outcome {
    let engine = t.engine()?;
    for round in 0..3u64 {
        let mut words = vec!["run", "-d", "--name", "one", "--network", "none"];
        if let Some(cgroup) = engine.cgroup.as_deref() {
            words.extend(["--cgroup-parent", cgroup]);
        }
        words.extend([engine.image, "sleep", "1000"]);
        let started = process::start(&mut engine.command(&words), &engine.dir)?;
        crate::test::pause(150 + 150 * round);
        let force: &[&str] = if engine.kind == crate::engine::Kind::Docker {
            &["rm", "-f", "one"]
        } else {
            &["rm", "-f", "-t", "0", "-i", "one"]
        };
        engine.call(force)?;
        started.finish(std::time::Duration::from_secs(60))?;
        engine.call(force)?;
    }
    Ok(())
}

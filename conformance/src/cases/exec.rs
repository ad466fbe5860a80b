//! `exec`: what the new process takes from the container, what it can be told otherwise, how it ends.
//! Terminals are in terminal.rs, hostile containers in security.rs.

use crate::case::Need::{Cgroup, Controller, Root};
use crate::case::{Case, Outcome, case, check, contains, same};
use crate::process;
use crate::test::{Container, Test, strings};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

pub const CASES: &[Case] = &[
    case!(exec_runs_in_the_namespaces_of_the_container),
    case!(exec_is_in_the_cgroup_of_the_container, [Cgroup]),
    case!(exec_gives_the_exit_code),
    case!(exec_gives_128_and_the_signal),
    case!(exec_passes_the_streams_through),
    case!(exec_inherits_environment_and_cwd),
    case!(exec_inherits_the_user, [Root]),
    case!(exec_inherits_the_umask),
    case!(exec_without_a_umask_has_that_of_the_caller),
    case!(exec_inherits_capabilities_and_no_new_privs, [Root]),
    case!(exec_inherits_the_seccomp_filter),
    case!(exec_inherits_rlimits_and_oom_score_adj),
    case!(exec_inherits_the_mounts),
    case!(exec_option_env_adds_and_replaces),
    case!(exec_option_cwd_is_used),
    case!(exec_option_user_is_used, [Root]),
    case!(exec_option_cap_adds_without_inheritable),
    case!(exec_option_cap_leaves_out_what_nobody_knows),
    case!(exec_option_no_new_privs_is_used),
    case!(exec_option_additional_gids_is_used, [Root]),
    case!(exec_process_file_is_used_as_it_is, [Root]),
    case!(exec_process_file_without_umask_and_oom_score_has_those_of_the_container),
    case!(exec_process_file_without_rlimits_has_those_of_the_caller),
    case!(exec_process_file_that_is_broken_is_refused),
    case!(exec_detached_returns_at_once_and_writes_the_pid),
    case!(ends_of_detached_processes_are_left_to_the_subreaper),
    case!(exec_pid_file_in_the_foreground),
    case!(exec_of_a_missing_program_is_what_engines_look_for),
    case!(exec_of_a_program_without_permission_is_what_engines_look_for),
    case!(exec_without_arguments_is_refused),
    case!(exec_in_a_created_container_works_or_is_refused),
    case!(a_created_container_that_is_killed_beside_an_exec_is_never_running),
    case!(exec_in_a_stopped_container_is_refused),
    case!(exec_in_a_paused_container_is_refused, [Cgroup]),
    case!(exec_in_a_user_namespace, [Root]),
    case!(exec_in_the_hosts_pid_namespace, [Root]),
    case!(exec_in_a_joined_pid_namespace, [Root]),
    case!(exec_sees_only_standard_streams),
    case!(exec_preserve_fds_hands_over_that_many),
    case!(exec_is_a_process_of_its_own_session),
    case!(exec_home_is_that_of_the_user, [Root]),
    case!(exec_many_at_the_same_time),
    case!(exec_ends_with_the_container),
    case!(exec_with_a_relative_program_and_path_of_the_configuration),
    case!(exec_into_a_container_at_its_pids_limit, [Cgroup, Controller("pids")]),
];

fn exec_runs_in_the_namespaces_of_the_container(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    if t.host.root {
        config.namespace("cgroup");
    }
    let c = t.detached(&config)?;
    let pid = c.pid()?;
    let probe = c.exec_probe(&[])?;
    for name in ["mnt", "pid", "net", "ipc", "uts", "user", "cgroup"] {
        let wanted = fs::read_link(format!("/proc/{pid}/ns/{name}"))?;
        same(name, probe["ns"][name].as_str(), wanted.to_str())?;
    }
    check!(probe["pid"].as_i64().is_some_and(|pid| pid > 1), "pid {}", probe["pid"]);
    same("root", probe["cwd"].as_str(), Some("/"))
}

fn exec_is_in_the_cgroup_of_the_container(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let of_init = fs::read_to_string(format!("/proc/{}/cgroup", c.pid()?))?;
    let wanted: Vec<String> = of_init.lines().map(str::to_owned).collect();
    same("cgroup", strings(&c.exec_probe(&[])?["cgroup"]), wanted)
}

fn exec_gives_the_exit_code(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    for code in [0, 1, 77, 255] {
        c.exec(&["/bin/sh", "-c", &format!("exit {code}")])?.exits(code)?;
    }
    Ok(())
}

fn exec_gives_128_and_the_signal(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    for (name, number) in [("TERM", 15), ("KILL", 9)] {
        c.exec(&["/bin/sh", "-c", &format!("kill -{name} $$; sleep 5")])?.exits(128 + number)?;
    }
    Ok(())
}

fn exec_passes_the_streams_through(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let input = t.dir.join("input");
    fs::write(&input, "word\n")?;
    let mut command = c.runtime.command();
    command.args(["exec", &c.id, "/bin/sh", "-c", "cat; echo err >&2"]).stdin(fs::File::open(&input)?);
    let output = process::start(&mut command, &t.dir)?.finish(process::LIMIT)?.ok()?;
    same("stdout", output.stdout.as_str(), "word\n")?;
    same("stderr", output.stderr.as_str(), "err\n")
}

fn exec_inherits_environment_and_cwd(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("process.env", json!(["PATH=/bin", "OF_CONFIG=1", "HOME=/x"])).set("process.cwd", "/usr");
    let probe = t.detached(&config)?.exec_probe(&[])?;
    same("environment", strings(&probe["env"]), vec!["PATH=/bin", "OF_CONFIG=1", "HOME=/x"])?;
    same("cwd", probe["cwd"].as_str(), Some("/usr"))
}

fn exec_inherits_the_user(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("process.user", json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 6] }));
    let probe = t.detached(&config)?.exec_probe(&[])?;
    same("uid", probe["uid"][1].as_i64(), Some(1000))?;
    same("gid", probe["gid"][1].as_i64(), Some(1001))?;
    same("groups", &probe["groups"], &json!([5, 6]))
}

fn exec_inherits_the_umask(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("process.user.umask", 0o27);
    same("umask", t.detached(&config)?.exec_probe(&[])?["umask"].as_str(), Some("0027"))
}

/// config.md: without a umask, that of the calling process is not changed.
fn exec_without_a_umask_has_that_of_the_caller(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let call = format!("umask 0027; exec \"$RT\" --root \"$ST\" exec {} /bin/sh -c umask", c.id);
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", &call]).env("RT", &t.runtime.program).env("ST", &t.runtime.state);
    same("umask", process::run(&mut command, &t.dir)?.ok()?.stdout.trim(), "0027")
}

fn exec_inherits_capabilities_and_no_new_privs(t: &Test) -> Outcome {
    for flag in [true, false] {
        let mut config = t.sleeper();
        config.capabilities(&["CAP_KILL", "CAP_CHOWN"]).set("process.noNewPrivileges", flag);
        let probe = t.detached(&config)?.exec_probe(&[])?;
        for (set, wanted) in
            [("CapEff", 0x21u64), ("CapPrm", 0x21), ("CapBnd", 0x21), ("CapInh", 0), ("CapAmb", 0)]
        {
            same(set, probe[set].as_str(), Some(format!("{wanted:016x}").as_str()))?;
        }
        same("NoNewPrivs", probe["NoNewPrivs"].as_str(), Some(if flag { "1" } else { "0" }))?;
    }
    Ok(())
}

fn exec_inherits_the_seccomp_filter(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    let rule = json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 18 });
    config.set("linux.seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] }));
    let c = t.detached(&config)?;
    same("mode", c.exec_probe(&[])?["Seccomp"].as_str(), Some("2"))?;
    let output = c.exec(&["/bin/mkdir", "/tmp/x"])?;
    contains("mkdir", &output.stderr, "nvalid cross-device link")
}

fn exec_inherits_rlimits_and_oom_score_adj(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("process.rlimits", json!([{ "type": "RLIMIT_MEMLOCK", "soft": 4096, "hard": 8192 }]));
    config.set("process.oomScoreAdj", 333);
    let probe = t.detached(&config)?.exec_probe(&[])?;
    same("memlock", strings(&probe["limits"]["Max locked memory"]), vec!["4096", "8192"])?;
    same("oom_score_adj", probe["oomScoreAdj"].as_str(), Some("333"))
}

fn exec_inherits_the_mounts(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.mount("/data", "tmpfs", "tmpfs", &["size=99k"]).set("root.readonly", true);
    config.set("linux.maskedPaths", json!(["/etc/passwd"]));
    let c = t.detached(&config)?;
    let output =
        c.exec(&["/bin/sh", "-c", "cat /etc/passwd; echo x > /data/x && cat /data/x; echo y > /y"])?;
    same("output", output.stdout.trim(), "x")?;
    contains("write", &output.stderr, "Read-only")
}

fn exec_option_env_adds_and_replaces(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("process.env", json!(["PATH=/bin", "A=old", "B=kept"]));
    let c = t.detached(&config)?;
    let output = c.exec_with(&["--env", "A=new", "--env", "C=more"], &["/bin/sh", "-c", "echo $A $B $C"])?;
    same("variables", output.ok()?.stdout.trim(), "new kept more")
}

fn exec_option_cwd_is_used(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    same("cwd", c.exec_with(&["--cwd", "/usr/bin"], &["/bin/pwd"])?.ok()?.stdout.trim(), "/usr/bin")?;
    c.exec_with(&["--cwd", "/etc/passwd"], &["/bin/pwd"])?.refused()?;
    c.exec_with(&["--cwd", "/not-there"], &["/bin/pwd"])?.refused()?;
    check!(!c.path("/not-there").exists(), "exec made a directory");
    Ok(())
}

fn exec_option_user_is_used(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let probe = c.exec_probe(&["--user", "1234:5678"])?;
    same("uid", &probe["uid"], &json!([1234, 1234, 1234, 1234]))?;
    same("gid", &probe["gid"], &json!([5678, 5678, 5678, 5678]))?;
    same("uid", c.exec_probe(&["-u", "99"])?["uid"][1].as_i64(), Some(99))
}

fn exec_option_cap_adds_without_inheritable(t: &Test) -> Outcome {
    // CVE-2022-29162 and CVE-2022-27650.
    let mut config = t.sleeper();
    config.capabilities(&["CAP_KILL"]);
    let probe = t.detached(&config)?.exec_probe(&["--cap", "CAP_NET_RAW"])?;
    let effective = u64::from_str_radix(probe["CapEff"].as_str().unwrap_or_default(), 16)?;
    check!(effective & (1 << 13) != 0, "no CAP_NET_RAW in {effective:x}");
    same("inheritable", probe["CapInh"].as_str(), Some("0000000000000000"))?;
    same("ambient", probe["CapAmb"].as_str(), Some("0000000000000000"))
}

/// Capabilities that cannot be granted are to be logged and left out (config.md).
fn exec_option_cap_leaves_out_what_nobody_knows(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.capabilities(&["CAP_KILL"]);
    let probe = t.detached(&config)?.exec_probe(&["--cap", "CAP_OF_THE_FUTURE", "--cap", "CAP_KILL"])?;
    same("effective", probe["CapEff"].as_str(), Some("0000000000000020"))
}

fn exec_option_no_new_privs_is_used(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("process.noNewPrivileges", false);
    same(
        "NoNewPrivs",
        t.detached(&config)?.exec_probe(&["--no-new-privs"])?["NoNewPrivs"].as_str(),
        Some("1"),
    )
}

fn exec_option_additional_gids_is_used(t: &Test) -> Outcome {
    if t.runtime.name == "crun" {
        return crate::case::skip("crun has no --additional-gids");
    }
    let probe =
        t.detached(&t.sleeper())?.exec_probe(&["--additional-gids", "100", "--additional-gids", "65534"])?;
    same("groups", &probe["groups"], &json!([100, 65534]))
}

/// `exec --process` with that process.
fn exec_process(t: &Test, c: &Container, process: &Value, options: &[&str]) -> Outcome<process::Output> {
    let file = t.dir.join("process.json");
    fs::write(&file, process.to_string())?;
    let file = file.display().to_string();
    let mut all = vec!["exec", "--process", &file];
    all.extend_from_slice(options);
    all.push(&c.id);
    t.runtime.call(&all)
}

fn exec_process_file_is_used_as_it_is(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let process = json!({
        "user": { "uid": 10, "gid": 20, "additionalGids": [30] }, "args": ["/probe"],
        "env": ["ONLY=this", "HOME=/h"], "cwd": "/tmp", "noNewPrivileges": true,
        "capabilities": { "bounding": ["CAP_KILL"], "effective": [], "permitted": [] },
        "rlimits": [{ "type": "RLIMIT_MEMLOCK", "soft": 4096, "hard": 8192 }], "oomScoreAdj": 444
    });
    let probe = exec_process(t, &c, &process, &[])?.ok()?.json()?;
    same("uid", probe["uid"][1].as_i64(), Some(10))?;
    same("gid", probe["gid"][1].as_i64(), Some(20))?;
    same("groups", &probe["groups"], &json!([30]))?;
    same("environment", strings(&probe["env"]), vec!["ONLY=this", "HOME=/h"])?;
    same("cwd", probe["cwd"].as_str(), Some("/tmp"))?;
    same("bounding", probe["CapBnd"].as_str(), Some("0000000000000020"))?;
    same("NoNewPrivs", probe["NoNewPrivs"].as_str(), Some("1"))?;
    same("memlock", strings(&probe["limits"]["Max locked memory"]), vec!["4096", "8192"])?;
    same("oom_score_adj", probe["oomScoreAdj"].as_str(), Some("444"))
}

fn exec_process_file_without_umask_and_oom_score_has_those_of_the_container(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("process.user.umask", 0o027);
    config.set("process.oomScoreAdj", 321);
    let c = t.detached(&config)?;
    let show = "umask; cat /proc/self/oom_score_adj";
    let process = json!({ "user": { "uid": 0, "gid": 0 }, "args": ["/bin/sh", "-c", show],
        "env": ["PATH=/bin"], "cwd": "/" });
    let file = t.dir.join("process.json");
    fs::write(&file, process.to_string())?;
    let output = t.runtime.call(&["exec", "--process", &file.display().to_string(), &c.id])?.ok()?;
    same("umask and score", output.stdout.as_str(), "0027\n321\n")
}

fn exec_process_file_without_rlimits_has_those_of_the_caller(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("process.rlimits", json!([{ "type": "RLIMIT_MEMLOCK", "soft": 4096, "hard": 8192 }]));
    let c = t.detached(&config)?;
    let process = json!({ "args": ["/probe"], "cwd": "/", "env": ["PATH=/bin"], "capabilities": {} });
    let probe = exec_process(t, &c, &process, &[])?.ok()?.json()?;
    let (soft, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK)?;
    let shown = |limit: u64| if limit == u64::MAX { "unlimited".to_owned() } else { limit.to_string() };
    same("memlock", strings(&probe["limits"]["Max locked memory"]), vec![shown(soft), shown(hard)])
}

fn exec_process_file_that_is_broken_is_refused(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let file = t.dir.join("process.json");
    for text in ["", "{", "[]", "{\"args\": \"/bin/true\"}", "{\"args\": [], \"cwd\": \"/\"}"] {
        fs::write(&file, text)?;
        t.runtime.call(&["exec", "--process", &file.display().to_string(), &c.id])?.refused()?;
    }
    t.runtime.call(&["exec", "--process", "/no/such/file", &c.id])?.refused()?;
    Ok(())
}

fn exec_detached_returns_at_once_and_writes_the_pid(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let file = t.dir.join("pid");
    let options = ["--detach", "--pid-file", &file.display().to_string()];
    c.exec_with(&options, &["/bin/sh", "-c", "while [ ! -e /go ]; do sleep 0.02; done; exit 9"])?.ok()?;
    let pid: i32 = fs::read_to_string(&file)?.trim().parse()?;
    let ours = fs::read_link(format!("/proc/{pid}/ns/pid"))?;
    same("its namespace", ours, fs::read_link(format!("/proc/{}/ns/pid", c.pid()?))?)?;
    fs::write(c.path("/go"), "1")?;
    same("exit code, seen by the one who inherits it", process::wait(pid, Duration::from_secs(10)), Some(9))
}

/// A shim waits for a program that may have ended before the runtime has.
fn ends_of_detached_processes_are_left_to_the_subreaper(t: &Test) -> Outcome {
    let file = t.dir.join("pid");
    let options = ["--detach", "--pid-file", &file.display().to_string()];
    let end = || -> Outcome<Option<i32>> {
        let pid = fs::read_to_string(&file)?.trim().parse()?;
        Ok(process::wait(pid, Duration::from_secs(5)))
    };
    let c = t.detached(&t.sleeper())?;
    for _ in 0..50 {
        c.exec_with(&options, &["/bin/sh", "-c", "exit 7"])?.ok()?;
        same("exit code of exec", end()?, Some(7))?;
    }
    let one = t.container(&t.shell("exit 7"))?;
    for _ in 0..20 {
        one.run_with(&options)?.ok()?;
        same("exit code of run", end()?, Some(7))?;
        one.delete_force()?.ok()?;
    }
    Ok(())
}

fn exec_pid_file_in_the_foreground(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let file = t.dir.join("pid");
    c.exec_with(&["--pid-file", &file.display().to_string()], &["/bin/true"])?.ok()?;
    check!(fs::read_to_string(&file)?.trim().parse::<i32>().is_ok(), "no pid in the file");
    Ok(())
}

fn exec_of_a_missing_program_is_what_engines_look_for(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let error = c.exec(&["no-such-program"])?.refused()?.stderr;
    contains("a name", &error, "executable file")?;
    contains("a name", &error, "no-such-program")?;
    let error = c.exec(&["/no/such/program"])?.refused()?.stderr.to_lowercase();
    let known = error.contains("no such file or directory") || error.contains("executable file");
    check!(known, "a path: {error}");
    same("status", c.status()?.as_str(), "running")
}

fn exec_of_a_program_without_permission_is_what_engines_look_for(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let error = c.exec(&["/etc/passwd"])?.refused()?.stderr.to_lowercase();
    contains("error", &error, "permission denied")
}

fn exec_without_arguments_is_refused(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let output = t.runtime.call(&["exec", &c.id])?;
    check!(output.code != 0, "{}: succeeded", output.call);
    Ok(())
}

fn exec_in_a_created_container_works_or_is_refused(t: &Test) -> Outcome {
    // The spec knows no exec: runc lets it, and so does what waits for a debugger.
    let c = t.container(&t.sleeper())?;
    c.create()?.ok()?;
    let output = c.exec(&["/bin/echo", "ran"])?;
    check!(output.code != 0 || output.stdout.trim() == "ran", "{}", output.text());
    same("status", c.status()?.as_str(), "created")
}

/// Its init waits until the process of exec is reaped, and has no executable any more.
fn a_created_container_that_is_killed_beside_an_exec_is_never_running(t: &Test) -> Outcome {
    let c = t.container(&t.sleeper())?;
    c.create()?.ok()?;
    let mut command = c.runtime.command();
    command.args(["exec", &c.id, "/bin/sh", "-c", "echo > /ran; exec sleep 100"]);
    let exec = process::start(&mut command, &t.dir)?;
    process::until("exec runs", || Ok(c.path("/ran").exists()))?;
    kill(Pid::from_raw(exec.pid), Signal::SIGSTOP)?;
    c.kill("KILL")?.ok()?;
    let status = c.status();
    kill(Pid::from_raw(exec.pid), Signal::SIGCONT)?;
    exec.finish(process::LIMIT)?;
    check!(status? != "running", "it was never started");
    Ok(())
}

fn exec_in_a_stopped_container_is_refused(t: &Test) -> Outcome {
    let c = t.detached(&t.shell("exit 0"))?;
    c.await_status("stopped")?;
    c.exec(&["/bin/true"])?.refused()?;
    Ok(())
}

fn exec_in_a_paused_container_is_refused(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    c.call("pause", &[])?.ok()?;
    let output = c.exec(&["/bin/true"]);
    c.call("resume", &[])?.ok()?;
    output?.refused()?;
    Ok(())
}

fn exec_in_a_user_namespace(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.user_namespace(100_000, 65_536).namespace("cgroup");
    let c = t.detached(&config)?;
    let probe = c.exec_probe(&[])?;
    contains("map", &strings(&probe["uidMap"]).join(" "), "100000")?;
    same("uid", probe["uid"][1].as_i64(), Some(0))?;
    let wanted = fs::read_link(format!("/proc/{}/ns/user", c.pid()?))?;
    same("user namespace", probe["ns"]["user"].as_str(), wanted.to_str())?;
    let probe = c.exec_probe(&["--user", "1000:1000"])?;
    same("uid", probe["uid"][1].as_i64(), Some(1000))
}

fn exec_in_the_hosts_pid_namespace(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.no_namespace("pid");
    let c = t.detached(&config)?;
    c.exec(&["/bin/sh", "-c", "exit 5"])?.exits(5)?;
    let wanted = fs::read_link("/proc/self/ns/pid")?;
    same("pid namespace", c.exec_probe(&[])?["ns"]["pid"].as_str(), wanted.to_str())?;
    c.stop()
}

fn exec_in_a_joined_pid_namespace(t: &Test) -> Outcome {
    let first = t.detached(&t.sleeper())?;
    let mut config = t.sleeper();
    config.join("pid", &format!("/proc/{}/ns/pid", first.pid()?));
    let second = t.detached(&config)?;
    let wanted = fs::read_link(format!("/proc/{}/ns/pid", first.pid()?))?;
    same("pid namespace", second.exec_probe(&[])?["ns"]["pid"].as_str(), wanted.to_str())
}

fn exec_sees_only_standard_streams(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let fds = c.exec_probe(&[])?["fds"].clone();
    let numbers: Vec<&String> = fds.as_object().into_iter().flatten().map(|(n, _)| n).collect();
    same("open files", numbers, vec!["0", "1", "2"])
}

fn exec_preserve_fds_hands_over_that_many(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let call =
        format!("exec 3</dev/zero 4</etc; exec \"$RT\" --root \"$ST\" exec --preserve-fds 1 {} /probe", c.id);
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", &call]).current_dir(&t.dir).env("RT", &t.runtime.program).env("ST", &t.runtime.state);
    let fds = process::run(&mut command, &t.dir)?.ok()?.json()?["fds"].clone();
    let numbers: Vec<&String> = fds.as_object().into_iter().flatten().map(|(n, _)| n).collect();
    same("open files", numbers, vec!["0", "1", "2", "3"])
}

fn exec_is_a_process_of_its_own_session(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let probe = c.exec_probe(&[])?;
    same("session", &probe["sid"], &probe["pid"])
}

fn exec_home_is_that_of_the_user(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let home = |options: &[&str]| -> Outcome<String> {
        Ok(c.exec_with(options, &["/bin/sh", "-c", "echo $HOME"])?.ok()?.stdout.trim().to_owned())
    };
    same("root", home(&[])?.as_str(), "/root")?;
    same("uid 1500", home(&["--user", "1500:1600"])?.as_str(), "/odd")
}

fn exec_many_at_the_same_time(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let mut started = Vec::new();
    for code in 0..12 {
        let mut command = c.runtime.command();
        command
            .args(["exec", &c.id, "/bin/sh", "-c", &format!("exit {code}")])
            .stdin(std::process::Stdio::null());
        started.push((code, process::start(&mut command, &t.dir)?));
    }
    for (code, one) in started {
        one.finish(process::LIMIT)?.exits(code)?;
    }
    same("status", c.status()?.as_str(), "running")
}

fn exec_ends_with_the_container(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let mut command = c.runtime.command();
    command.args(["exec", &c.id, "/bin/sh", "-c", "echo > /in; echo in > /in; sleep 1000"]);
    let one = process::start(command.stdin(std::process::Stdio::null()), &t.dir)?;
    c.await_file("/in")?;
    c.stop()?;
    one.finish(Duration::from_secs(10))?.exits(128 + 9)?;
    Ok(())
}

fn exec_with_a_relative_program_and_path_of_the_configuration(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("process.env", json!(["PATH=/nowhere:/bin"]));
    let c = t.detached(&config)?;
    same("output", c.exec(&["echo", "found"])?.ok()?.stdout.trim(), "found")
}

/// A limit refuses no process that comes from outside (cgroup-v2.rst, PID).
fn exec_into_a_container_at_its_pids_limit(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("linux.resources.pids", json!({ "limit": 1 }));
    let c = t.detached(&config)?;
    let wanted = fs::read_to_string(format!("/proc/{}/cgroup", c.pid()?))?;
    let shows = ["/bin/cat", "/proc/self/cgroup"];
    same("output", c.exec(&shows)?.ok()?.stdout, wanted.clone())?;
    let socket = t.dir.join("tty");
    let listener = t.listen("console", &socket, &[""])?;
    let options = ["--tty", "--detach", "--console-socket", &socket.display().to_string()];
    c.exec_with(&options, &shows)?.ok()?;
    let seen = listener.finish(process::LIMIT)?.ok()?.json()?;
    same("on the terminal", seen["output"].as_str(), Some(wanted.replace('\n', "\r\n").as_str()))
}

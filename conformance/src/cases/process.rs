//! `process` of the configuration, as the program sees it: arguments, environment, directory, user,
//! limits. Capabilities and priorities are in attributes.rs, terminals in terminal.rs.

use crate::bundle::link;
use crate::case::Need::{Capability, Root};
use crate::case::{Case, Outcome, case, check, contains, same};
use crate::process;
use crate::test::{Test, strings};
use serde_json::json;
use std::fs;

pub const CASES: &[Case] = &[
    case!(arguments_arrive_as_they_are),
    case!(path_of_the_configuration_finds_the_program),
    case!(without_a_path_no_program_is_found_by_its_name),
    case!(a_relative_program_is_relative_to_cwd),
    case!(a_program_without_permission_to_execute_is_refused),
    case!(a_directory_as_program_is_refused),
    case!(environment_is_exactly_what_is_configured),
    case!(environment_of_the_caller_does_not_leak),
    case!(environment_keeps_values_with_equal_signs_and_spaces),
    case!(home_is_taken_from_the_containers_passwd),
    case!(home_is_not_that_of_a_line_without_a_number),
    case!(home_of_the_configuration_wins),
    case!(home_of_a_user_without_entry_is_the_root),
    case!(the_callers_groups_do_not_stay, [Root]),
    case!(cwd_is_set),
    case!(cwd_that_is_missing_is_created),
    case!(cwd_that_is_a_file_is_refused),
    case!(cwd_that_is_relative_is_refused),
    case!(cwd_through_a_symlink_stays_inside),
    case!(user_and_group_are_set, [Root]),
    case!(supplementary_groups_are_exactly_those_configured, [Root]),
    case!(supplementary_groups_of_the_caller_do_not_leak, [Root]),
    case!(umask_is_set),
    case!(umask_without_a_value_is_0022),
    case!(rlimits_are_set),
    case!(rlimits_that_are_raised_are_set, [Root, Capability(24)]),
    case!(oom_score_adj_is_set),
    case!(oom_score_adj_of_zero_is_set),
    case!(standard_streams_are_the_only_open_files),
    case!(open_files_of_the_caller_do_not_leak),
    case!(preserve_fds_hands_over_that_many),
    case!(preserve_fds_that_are_not_open_are_refused),
    case!(listen_fds_that_are_not_open_are_not_the_runtimes),
    case!(listen_fds_are_handed_over_with_the_pid_in_the_container),
    case!(the_program_is_not_dumpable_longer_than_needed),
    case!(signals_are_not_blocked_or_ignored),
    case!(the_program_leads_a_session_of_its_own),
    case!(the_session_keyring_is_a_new_one),
];

fn arguments_arrive_as_they_are(t: &Test) -> Outcome {
    let mut config = t.config();
    let args = ["/probe", "report", "", "two words", "--", "a\"b\\c\n", "ünï", "$HOME", "*"];
    config.args(&args);
    let probe = t.run(&config)?.ok()?.json()?;
    same("args", strings(&probe["args"]), args.to_vec())
}

fn path_of_the_configuration_finds_the_program(t: &Test) -> Outcome {
    let mut config = t.config();
    config.args(&["tool", "x"]).set("process.env", json!(["PATH=/nowhere:/opt/a:/opt/b"]));
    let c = t.container(&config)?;
    for (dir, mode) in [("a", 0o644), ("b", 0o755)] {
        fs::create_dir_all(c.path(&format!("/opt/{dir}")))?;
        let file = c.path(&format!("/opt/{dir}/tool"));
        fs::write(&file, format!("#!/bin/sh\necho {dir} $1\n"))?;
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    }
    // As execvp(3): a file that may not be executed is passed over.
    same("output", c.run()?.ok()?.stdout.trim(), "b x")
}

fn without_a_path_no_program_is_found_by_its_name(t: &Test) -> Outcome {
    let mut config = t.config();
    config.args(&["sh", "-c", "exit 0"]).set("process.env", json!(["HOME=/"]));
    let output = t.run(&config)?.refused()?;
    // docker and podman turn this text into exit code 127.
    contains("error", &output.stderr, "not found in $PATH")
}

fn a_relative_program_is_relative_to_cwd(t: &Test) -> Outcome {
    let mut config = t.config();
    config.args(&["./busybox", "echo", "here"]).set("process.cwd", "/bin");
    same("output", t.run(&config)?.ok()?.stdout.trim(), "here")
}

fn a_program_without_permission_to_execute_is_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.args(&["/etc/passwd"]);
    let output = t.run(&config)?.refused()?;
    // docker turns this text into exit code 126.
    contains("error", &output.stderr.to_lowercase(), "permission denied")
}

fn a_directory_as_program_is_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.args(&["/etc"]);
    t.run(&config)?.refused()?;
    Ok(())
}

fn environment_is_exactly_what_is_configured(t: &Test) -> Outcome {
    let mut config = t.config();
    let env = ["PATH=/bin", "B=2", "A=1", "HOME=/x", "EMPTY="];
    config.set("process.env", json!(env));
    let found = strings(&t.probe(&config, &[])?["env"]);
    same("environment", found, env.to_vec())
}

fn environment_of_the_caller_does_not_leak(t: &Test) -> Outcome {
    let mut config = t.config();
    config.args(&["/bin/env"]);
    let c = t.container(&config)?;
    let mut command = c.bundle_command("run", &[]);
    command.env("SECRET_OF_THE_CALLER", "1").env("_OCI_SYNCPIPE", "7");
    let output = process::run(&mut command, &t.dir)?.ok()?;
    check!(!output.stdout.contains("SECRET_OF_THE_CALLER"), "leaked: {}", output.stdout);
    check!(!output.stdout.contains("_OCI_"), "leaked: {}", output.stdout);
    let ours = ["PATH=", "TERM=", "HOME="];
    let other = output.stdout.lines().find(|line| !ours.iter().any(|name| line.starts_with(name)));
    same("more in the environment", other, None::<&str>)
}

fn environment_keeps_values_with_equal_signs_and_spaces(t: &Test) -> Outcome {
    let mut config = t.config();
    config.push("process.env", "ODD= a=b c ").shell("echo \"[$ODD]\"");
    same("value", t.run(&config)?.ok()?.stdout.trim(), "[ a=b c ]")
}

fn home_is_taken_from_the_containers_passwd(t: &Test) -> Outcome {
    let mut config = t.config();
    same("HOME of root", t.script(&config, "echo $HOME")?.as_str(), "/root")?;
    if t.host.root {
        config.set("process.user", json!({ "uid": 1500, "gid": 1600 }));
        same("HOME of uid 1500", t.script(&config, "echo $HOME")?.as_str(), "/odd")?;
    }
    Ok(())
}

fn home_is_not_that_of_a_line_without_a_number(t: &Test) -> Outcome {
    let c = t.container(&t.shell("echo \"$HOME\""))?;
    fs::write(c.path("/etc/passwd"), "odd:x::0::/odd:\nroot:x:0:0::/right:\n")?;
    same("HOME", c.run()?.ok()?.stdout.trim(), "/right")
}

fn home_of_the_configuration_wins(t: &Test) -> Outcome {
    let mut config = t.config();
    config.push("process.env", "HOME=/elsewhere");
    same("HOME", t.script(&config, "echo $HOME")?.as_str(), "/elsewhere")
}

fn home_of_a_user_without_entry_is_the_root(t: &Test) -> Outcome {
    let c = t.container(&t.shell("echo \"$HOME\""))?;
    fs::write(c.path("/etc/passwd"), "other:x:77:77::/other:\n")?;
    same("HOME", c.run()?.ok()?.stdout.trim(), "/")
}

fn the_callers_groups_do_not_stay(t: &Test) -> Outcome {
    nix::unistd::setgroups(&[4242.into()])?;
    same("without the annotation", &t.probe(&t.config(), &[])?["groups"], &json!([]))?;
    // Podman copies annotations of an image, whose author is to have none of root's groups.
    let mut config = t.config();
    config.set("annotations", json!({"run.oci.keep_original_groups": "1"}));
    same("with it", &t.probe(&config, &[])?["groups"], &json!([]))
}

fn cwd_is_set(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("process.cwd", "/usr/bin");
    same("cwd", t.probe(&config, &[])?["cwd"].as_str(), Some("/usr/bin"))
}

fn cwd_that_is_missing_is_created(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("process.cwd", "/made/for/it");
    same("cwd", t.script(&config, "pwd")?.as_str(), "/made/for/it")
}

fn cwd_that_is_a_file_is_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("process.cwd", "/etc/passwd");
    t.run(&config)?.refused()?;
    Ok(())
}

fn cwd_that_is_relative_is_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("process.cwd", "etc");
    t.run(&config)?.refused()?;
    Ok(())
}

fn cwd_through_a_symlink_stays_inside(t: &Test) -> Outcome {
    let mut config = t.shell("/bin/pwd -P; echo > here");
    config.set("process.cwd", "/way");
    let c = t.container(&config)?;
    link(&c.path("/way"), &format!("../../../../../..{}", t.canary().display()))?;
    let output = c.run()?;
    // Refusing it and staying inside are both right; the canary is checked after every case.
    check!(output.code != 0 || output.stdout.starts_with('/'), "{}", output.text());
    check!(!t.canary().join("here").exists(), "the program wrote to the host");
    Ok(())
}

fn user_and_group_are_set(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("process.user", json!({ "uid": 1234, "gid": 5678 }));
    let probe = t.probe(&config, &[])?;
    same("uid", &probe["uid"], &json!([1234, 1234, 1234, 1234]))?;
    same("gid", &probe["gid"], &json!([5678, 5678, 5678, 5678]))
}

fn supplementary_groups_are_exactly_those_configured(t: &Test) -> Outcome {
    let mut config = t.config();
    config
        .set("process.user", json!({ "uid": 1000, "gid": 1000, "additionalGids": [2000, 7, 4000000000u32] }));
    same("groups", &t.probe(&config, &[])?["groups"], &json!([7, 2000, 4000000000u32]))
}

fn supplementary_groups_of_the_caller_do_not_leak(t: &Test) -> Outcome {
    let mut config = t.config();
    config.args(&["/probe"]);
    let c = t.container(&config)?;
    // A shell of busybox with more groups than root has.
    let run = format!(
        "exec setpriv --groups 3,4,5 {} --root {} run --bundle {} {}",
        t.runtime.program.display(),
        t.runtime.state.display(),
        c.bundle.display(),
        c.id
    );
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", &format!("command -v setpriv >/dev/null || exit 77; {run}")]).current_dir(&t.dir);
    let output = process::run(&mut command, &t.dir)?;
    if output.code == 77 {
        return crate::case::skip("needs setpriv");
    }
    same("groups", &output.ok()?.json()?["groups"], &json!([]))
}

fn umask_is_set(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("process.user.umask", 0o27);
    same("umask", t.probe(&config, &[])?["umask"].as_str(), Some("0027"))?;
    config.set("process.user.umask", 0);
    same("umask", t.probe(&config, &[])?["umask"].as_str(), Some("0000"))
}

fn umask_without_a_value_is_0022(t: &Test) -> Outcome {
    let mut config = t.config();
    config.args(&["/probe"]);
    let c = t.container(&config)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    same("umask", c.run()?.ok()?.json()?["umask"].as_str(), Some("0022"))
}

fn rlimits_are_set(t: &Test) -> Outcome {
    let mut config = t.config();
    let limit = |kind: &str, soft: u64, hard: u64| json!({ "type": kind, "soft": soft, "hard": hard });
    config.set("process.rlimits", json!([]));
    let all = [
        ("RLIMIT_AS", "Max address space", 1u64 << 33),
        ("RLIMIT_CORE", "Max core file size", 0),
        ("RLIMIT_CPU", "Max cpu time", 100),
        ("RLIMIT_DATA", "Max data size", 1 << 33),
        ("RLIMIT_FSIZE", "Max file size", 1 << 30),
        ("RLIMIT_LOCKS", "Max file locks", 50),
        ("RLIMIT_MEMLOCK", "Max locked memory", 65536),
        ("RLIMIT_MSGQUEUE", "Max msgqueue size", 4096),
        ("RLIMIT_NICE", "Max nice priority", 0),
        ("RLIMIT_NOFILE", "Max open files", 600),
        ("RLIMIT_NPROC", "Max processes", 9000),
        ("RLIMIT_RSS", "Max resident set", 1 << 33),
        ("RLIMIT_RTPRIO", "Max realtime priority", 0),
        ("RLIMIT_RTTIME", "Max realtime timeout", 9999),
        ("RLIMIT_SIGPENDING", "Max pending signals", 99),
        ("RLIMIT_STACK", "Max stack size", 4 << 20),
    ];
    for (kind, _, value) in all {
        config.push("process.rlimits", limit(kind, value / 2, value));
    }
    let found = t.probe(&config, &[])?;
    for (_, name, value) in all {
        let wanted = vec![(value / 2).to_string(), value.to_string()];
        same(name, strings(&found["limits"][name]), wanted)?;
    }
    Ok(())
}

fn rlimits_that_are_raised_are_set(t: &Test) -> Outcome {
    let mut config = t.config();
    config.push("process.rlimits", json!({ "type": "RLIMIT_NOFILE", "soft": 600000, "hard": 700000 }));
    config.push("process.rlimits", json!({ "type": "RLIMIT_CORE", "soft": u64::MAX, "hard": u64::MAX }));
    let found = t.probe(&config, &[])?;
    same("files", strings(&found["limits"]["Max open files"]), vec!["600000", "700000"])?;
    same("core", strings(&found["limits"]["Max core file size"]), vec!["unlimited", "unlimited"])
}

fn oom_score_adj_is_set(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("process.oomScoreAdj", 321);
    same("oom_score_adj", t.probe(&config, &[])?["oomScoreAdj"].as_str(), Some("321"))
}

fn oom_score_adj_of_zero_is_set(t: &Test) -> Outcome {
    let mut config = t.config();
    config.args(&["/probe"]).set("process.oomScoreAdj", 400);
    let c = t.container(&config)?;
    // The caller has 200: absent means that the container keeps it.
    let raise = |value: &str| fs::write("/proc/self/oom_score_adj", value);
    raise("200")?;
    let absent = t.probe(&t.config(), &[])?;
    let given = c.run()?.ok()?.json()?;
    same("with a value", given["oomScoreAdj"].as_str(), Some("400"))?;
    same("without a value", absent["oomScoreAdj"].as_str(), Some("200"))
}

fn standard_streams_are_the_only_open_files(t: &Test) -> Outcome {
    let probe = t.probe(&t.config(), &[])?;
    let fds: Vec<String> = probe["fds"].as_object().into_iter().flatten().map(|(n, _)| n.clone()).collect();
    same("open files", fds, vec!["0", "1", "2"])
}

/// Starts the runtime from a shell that has more files open.
fn with_open_files(t: &Test, opens: &str, options: &str) -> Outcome<process::Output> {
    let mut config = t.config();
    config.args(&["/probe"]);
    let c = t.container(&config)?;
    let call = format!("{opens}; exec \"$RT\" --root \"$ST\" run {options} --bundle \"$B\" {}", c.id);
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", &call]).current_dir(&t.dir);
    command.env("RT", &t.runtime.program).env("ST", &t.runtime.state).env("B", &c.bundle);
    process::run(&mut command, &t.dir)
}

fn open_files_of_the_caller_do_not_leak(t: &Test) -> Outcome {
    let output = with_open_files(t, "exec 3</etc 4</ 5</dev/null 7</proc 9</", "")?.ok()?.json()?;
    let fds: Vec<&String> = output["fds"].as_object().into_iter().flatten().map(|(n, _)| n).collect();
    same("open files", fds, vec!["0", "1", "2"])
}

fn preserve_fds_hands_over_that_many(t: &Test) -> Outcome {
    let opens = "exec 3</dev/null 4</dev/zero 5</etc 6</";
    let output = with_open_files(t, opens, "--preserve-fds 2")?.ok()?.json()?;
    let fds: Vec<&String> = output["fds"].as_object().into_iter().flatten().map(|(n, _)| n).collect();
    same("open files", fds, vec!["0", "1", "2", "3", "4"])?;
    contains("fd 4", &output["fds"]["4"].to_string(), "zero")
}

fn preserve_fds_that_are_not_open_are_refused(t: &Test) -> Outcome {
    with_open_files(t, "exec 3<&- 4<&-", "--preserve-fds 2")?.refused()?;
    Ok(())
}

fn listen_fds_are_handed_over_with_the_pid_in_the_container(t: &Test) -> Outcome {
    let opens = "exec 3</dev/null 4</dev/zero 5</etc; export LISTEN_FDS=2 LISTEN_PID=$$";
    let output = with_open_files(t, opens, "")?.ok()?.json()?;
    let fds: Vec<&String> = output["fds"].as_object().into_iter().flatten().map(|(n, _)| n).collect();
    same("open files", fds, vec!["0", "1", "2", "3", "4"])?;
    let env = strings(&output["env"]);
    check!(env.contains(&"LISTEN_FDS=2".to_owned()), "no LISTEN_FDS=2: {env:?}");
    check!(env.contains(&"LISTEN_PID=1".to_owned()), "no LISTEN_PID=1: {env:?}");
    Ok(())
}

/// What the numbers would name are the runtime's own files: its procfs, its sockets.
fn listen_fds_that_are_not_open_are_not_the_runtimes(t: &Test) -> Outcome {
    for count in ["30", "4294967295"] {
        let opens = format!("exec 3</dev/null 4<&- 5<&-; export LISTEN_FDS={count} LISTEN_PID=$$");
        let output = with_open_files(t, &opens, "")?;
        if output.code != 0 {
            output.refused()?;
            continue;
        }
        let report = output.json()?;
        for (fd, opened) in report["fds"].as_object().into_iter().flatten() {
            // What this program was started with, the shell and the runtime have too.
            let callers = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
            let known = ["0", "1", "2", "3"].contains(&fd.as_str()) || opened.as_str() == callers.to_str();
            check!(known, "{fd} is open: {opened}");
        }
    }
    Ok(())
}

fn the_program_is_not_dumpable_longer_than_needed(t: &Test) -> Outcome {
    // After exec of a readable program the process is dumpable again: nothing of the set-up lasts.
    same("dumpable", t.probe(&t.config(), &[])?["dumpable"].as_i64(), Some(1))
}

fn signals_are_not_blocked_or_ignored(t: &Test) -> Outcome {
    let probe = t.probe(&t.config(), &[])?;
    same("blocked", probe["SigBlk"].as_str(), Some("0000000000000000"))?;
    // Rust's start-up ignores SIGPIPE (bit 12) in the probe itself; glibc's posix_spawn, which starts the
    // runtime here, its own two signals (bits 31 and 32).
    let ignored = u64::from_str_radix(probe["SigIgn"].as_str().unwrap_or_default(), 16)?;
    same("ignored", ignored & !0x1_8000_1000, 0)
}

fn the_program_leads_a_session_of_its_own(t: &Test) -> Outcome {
    let probe = t.probe(&t.config(), &[])?;
    same("session", &probe["sid"], &probe["pid"])
}

fn the_session_keyring_is_a_new_one(t: &Test) -> Outcome {
    let one = t.probe(&t.config(), &[])?["keyring"].clone();
    let two = t.probe(&t.config(), &[])?["keyring"].clone();
    check!(one.is_number() && two.is_number(), "no session keyring: {one} {two}");
    check!(one != two, "two containers have the session keyring {one}");
    let c = t.container(t.config().args(&["/probe"]))?;
    let kept = c.run_with(&["--no-new-keyring"])?.ok()?.json()?["keyring"].clone();
    let c = t.container(t.config().args(&["/probe"]))?;
    same("with --no-new-keyring", c.run_with(&["--no-new-keyring"])?.ok()?.json()?["keyring"].clone(), kept)
}

//! Seccomp filters: what each action does, conditions on arguments, listeners. The probe makes the
//! calls by number, so nothing else is in the way.

use crate::case::Need::{Kernel, Path as File, Root};
use crate::case::{Case, Outcome, case, check, contains, same, skip};
use crate::process;
use crate::test::Test;
use serde_json::{Value, json};
use std::fs;

pub const CASES: &[Case] = &[
    case!(a_profile_that_refuses_the_program_says_so),
    case!(errno_is_what_is_configured),
    case!(errno_without_a_value_is_eperm),
    case!(default_errno_applies_to_everything_else),
    case!(kill_process_ends_the_program),
    case!(kill_thread_ends_the_thread),
    case!(trap_ends_with_sigsys),
    case!(log_lets_the_call_through, [Kernel(4, 14)]),
    case!(trace_without_a_tracer_is_enosys),
    case!(allow_with_an_exception_and_the_other_way_round),
    case!(every_operator_compares_as_it_says),
    case!(conditions_of_one_rule_must_all_hold),
    case!(several_rules_for_one_call_are_alternatives),
    case!(arguments_are_compared_with_64_bits),
    case!(a_call_that_nobody_knows_is_left_out),
    case!(an_unknown_action_is_refused),
    case!(an_unknown_operator_is_refused),
    case!(an_unknown_architecture_is_refused),
    case!(an_unknown_flag_is_refused),
    case!(flags_that_the_kernel_knows_are_taken, [Kernel(4, 14)]),
    case!(architectures_of_the_machine_are_taken),
    case!(a_filter_without_no_new_privs),
    case!(a_filter_with_a_user_other_than_root, [Root]),
    case!(a_strict_list_still_starts_the_program),
    case!(notify_hands_the_listener_over, [Kernel(5, 5), File("/proc/sys/kernel/seccomp/actions_avail")]),
    case!(notify_hands_the_listener_over_at_creation, [Kernel(5, 5)]),
    case!(notify_of_an_exec_names_its_process, [Kernel(5, 5)]),
    case!(notify_without_a_listener_path_is_refused),
    case!(notify_of_write_is_refused),
    case!(notify_as_default_action_is_refused),
    case!(notify_with_a_socket_that_is_not_there_is_refused),
    case!(hundreds_of_rules),
    case!(a_filter_that_refuses_the_end_is_no_hang),
];

/// The numbers of getppid, sched_yield, and sched_getscheduler, whose arguments can be anything.
#[cfg(target_arch = "x86_64")]
mod nr {
    pub const GETPPID: &str = "110";
    pub const SCHED_YIELD: &str = "24";
    pub const SCHED_GETSCHEDULER: &str = "145";
    pub const ARCH: &str = "SCMP_ARCH_X86_64";
}

#[cfg(target_arch = "aarch64")]
mod nr {
    pub const GETPPID: &str = "173";
    pub const SCHED_YIELD: &str = "124";
    pub const SCHED_GETSCHEDULER: &str = "120";
    pub const ARCH: &str = "SCMP_ARCH_AARCH64";
}

use nr::{GETPPID, SCHED_GETSCHEDULER, SCHED_YIELD};

/// A container with this profile that makes one system call by its number.
fn call_with(t: &Test, profile: &Value, call: &[&str]) -> Outcome<process::Output> {
    let mut config = t.config();
    let mut args = vec!["/probe", "syscall"];
    args.extend_from_slice(call);
    config.args(&args).set("linux.seccomp", profile.clone());
    t.run(&config)
}

/// How the call ended: its errno, or 0.
fn errno(t: &Test, profile: &Value, call: &[&str]) -> Outcome<i64> {
    Ok(call_with(t, profile, call)?.ok()?.json()?["errno"].as_i64().unwrap_or(0))
}

fn allow_but(rule: Value) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] })
}

fn errno_is_what_is_configured(t: &Test) -> Outcome {
    for value in [0, 1, 38, 123] {
        let profile =
            allow_but(json!({ "names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": value }));
        same("errno", errno(t, &profile, &[GETPPID])?, value)?;
    }
    Ok(())
}

fn errno_without_a_value_is_eperm(t: &Test) -> Outcome {
    same(
        "errno",
        errno(t, &allow_but(json!({ "names": ["getppid"], "action": "SCMP_ACT_ERRNO" })), &[GETPPID])?,
        1,
    )
}

/// Enough for a static program to start and print.
const NEEDED: &[&str] = &[
    "execve",
    "brk",
    "mmap",
    "mprotect",
    "munmap",
    "arch_prctl",
    "set_tid_address",
    "rt_sigaction",
    "rt_sigprocmask",
    "sigaltstack",
    "poll",
    "ppoll",
    "write",
    "writev",
    "read",
    "exit",
    "exit_group",
    "close",
    "fcntl",
    "futex",
    "getrandom",
    "prlimit64",
    "sched_getaffinity",
    "set_robust_list",
    "rseq",
    "fstat",
    "newfstatat",
    "statx",
    "openat",
    "readlink",
    "readlinkat",
    "getpid",
    "gettid",
    "tgkill",
    "prctl",
    "uname",
    "access",
    "faccessat2",
    "mremap",
    "madvise",
    "ioctl",
    "lseek",
    "getcwd",
    "chdir",
    "setuid",
    "setgid",
    "setgroups",
    "capset",
    "capget",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "setresuid",
    "setresgid",
    "fstatfs",
    "getdents64",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_create1",
    "nanosleep",
    "clone",
    "dup",
    "dup2",
    "dup3",
    "fchdir",
    "rt_sigreturn",
    "openat2",
    "stat",
    "open",
    "execveat",
    "close_range",
    "sendmsg",
    "sendto",
    "recvfrom",
    "recvmsg",
    "eventfd2",
    "pipe2",
    "clock_gettime",
];

fn default_errno_applies_to_everything_else(t: &Test) -> Outcome {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 77,
        "syscalls": [{ "names": NEEDED, "action": "SCMP_ACT_ALLOW" }]
    });
    same("errno", errno(t, &profile, &[GETPPID])?, 77)
}

fn a_strict_list_still_starts_the_program(t: &Test) -> Outcome {
    let profile = json!({
        "defaultAction": "SCMP_ACT_KILL_PROCESS",
        "syscalls": [{ "names": NEEDED, "action": "SCMP_ACT_ALLOW" }]
    });
    let mut config = t.config();
    config.args(&["/bin/echo", "ran"]).set("linux.seccomp", profile);
    same("output", t.run(&config)?.ok()?.stdout.trim(), "ran")
}

fn kill_process_ends_the_program(t: &Test) -> Outcome {
    let profile = allow_but(json!({ "names": ["getppid"], "action": "SCMP_ACT_KILL_PROCESS" }));
    call_with(t, &profile, &[GETPPID])?.exits(128 + 31)?;
    Ok(())
}

fn kill_thread_ends_the_thread(t: &Test) -> Outcome {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD"] {
        let profile = allow_but(json!({ "names": ["getppid"], "action": action }));
        call_with(t, &profile, &[GETPPID])?.exits(128 + 31)?;
    }
    Ok(())
}

fn trap_ends_with_sigsys(t: &Test) -> Outcome {
    let profile = allow_but(json!({ "names": ["getppid"], "action": "SCMP_ACT_TRAP" }));
    call_with(t, &profile, &[GETPPID])?.exits(128 + 31)?;
    Ok(())
}

fn log_lets_the_call_through(t: &Test) -> Outcome {
    same(
        "errno",
        errno(t, &allow_but(json!({ "names": ["getppid"], "action": "SCMP_ACT_LOG" })), &[GETPPID])?,
        0,
    )
}

fn trace_without_a_tracer_is_enosys(t: &Test) -> Outcome {
    let profile = allow_but(json!({ "names": ["getppid"], "action": "SCMP_ACT_TRACE" }));
    same("errno", errno(t, &profile, &[GETPPID])?, 38)
}

fn allow_with_an_exception_and_the_other_way_round(t: &Test) -> Outcome {
    let mut profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            { "names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5 },
            { "names": ["sched_yield"], "action": "SCMP_ACT_ERRNO", "errnoRet": 6 },
        ]
    });
    same("getppid", errno(t, &profile, &[GETPPID])?, 5)?;
    same("sched_yield", errno(t, &profile, &[SCHED_YIELD])?, 6)?;
    profile["syscalls"] = json!([]);
    same("without rules", errno(t, &profile, &[GETPPID])?, 0)
}

/// Whether a condition on sched_getscheduler's first argument holds for `value`.
fn holds(t: &Test, args: Value, value: &str) -> Outcome<bool> {
    let rule =
        json!({ "names": ["sched_getscheduler"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99, "args": args });
    Ok(errno(t, &allow_but(rule), &[SCHED_GETSCHEDULER, value])? == 99)
}

fn every_operator_compares_as_it_says(t: &Test) -> Outcome {
    let below_at_above = |op: &str| -> Outcome<Vec<bool>> {
        let args = json!([{ "index": 0, "value": 100, "op": op }]);
        ["99", "100", "101"].iter().map(|value| holds(t, args.clone(), value)).collect()
    };
    for (op, wanted) in [
        ("SCMP_CMP_NE", [true, false, true]),
        ("SCMP_CMP_LT", [true, false, false]),
        ("SCMP_CMP_LE", [true, true, false]),
        ("SCMP_CMP_EQ", [false, true, false]),
        ("SCMP_CMP_GE", [false, true, true]),
        ("SCMP_CMP_GT", [false, false, true]),
    ] {
        same(op, below_at_above(op)?, wanted.to_vec())?;
    }
    let masked = json!([{ "index": 0, "value": 0xf0, "valueTwo": 0x30, "op": "SCMP_CMP_MASKED_EQ" }]);
    for (value, wanted) in [("53", true), ("69", false), ("3", false)] {
        same("SCMP_CMP_MASKED_EQ", holds(t, masked.clone(), value)?, wanted)?;
    }
    Ok(())
}

fn conditions_of_one_rule_must_all_hold(t: &Test) -> Outcome {
    let args = json!([
        { "index": 0, "value": 7, "op": "SCMP_CMP_EQ" }, { "index": 1, "value": 8, "op": "SCMP_CMP_EQ" }
    ]);
    let rule =
        json!({ "names": ["sched_getscheduler"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99, "args": args });
    let profile = allow_but(rule);
    same("both", errno(t, &profile, &[SCHED_GETSCHEDULER, "7", "8"])?, 99)?;
    check!(errno(t, &profile, &[SCHED_GETSCHEDULER, "7", "9"])? != 99, "one of two was enough");
    Ok(())
}

fn several_rules_for_one_call_are_alternatives(t: &Test) -> Outcome {
    let rule = |value: u32, errno: u32| {
        let args = json!([{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }]);
        json!({ "names": ["sched_getscheduler"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": args })
    };
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule(7, 97), rule(8, 98)] });
    same("first", errno(t, &profile, &[SCHED_GETSCHEDULER, "7"])?, 97)?;
    same("second", errno(t, &profile, &[SCHED_GETSCHEDULER, "8"])?, 98)
}

fn arguments_are_compared_with_64_bits(t: &Test) -> Outcome {
    let big = 1u64 << 32 | 5;
    let args = json!([{ "index": 0, "value": big, "op": "SCMP_CMP_EQ" }]);
    same("the whole value", holds(t, args.clone(), &big.to_string())?, true)?;
    same("its lower half", holds(t, args, "5")?, false)?;
    let args = json!([{ "index": 0, "value": 5, "op": "SCMP_CMP_GT" }]);
    same("a bigger upper half", holds(t, args, &(1u64 << 32 | 1).to_string())?, true)
}

fn a_call_that_nobody_knows_is_left_out(t: &Test) -> Outcome {
    let profile =
        allow_but(json!({ "names": ["no_such_call", "getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 9 }));
    same("errno of the other", errno(t, &profile, &[GETPPID])?, 9)
}

fn refused(t: &Test, profile: Value) -> Outcome {
    call_with(t, &profile, &[GETPPID])?.refused()?;
    Ok(())
}

fn an_unknown_action_is_refused(t: &Test) -> Outcome {
    refused(t, json!({ "defaultAction": "SCMP_ACT_PERHAPS" }))?;
    refused(t, allow_but(json!({ "names": ["getppid"], "action": "SCMP_ACT_PERHAPS" })))
}

fn an_unknown_operator_is_refused(t: &Test) -> Outcome {
    let args = json!([{ "index": 0, "value": 1, "op": "SCMP_CMP_NEARLY" }]);
    refused(t, allow_but(json!({ "names": ["getppid"], "action": "SCMP_ACT_ERRNO", "args": args })))
}

fn an_unknown_architecture_is_refused(t: &Test) -> Outcome {
    refused(t, json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_ABACUS"] }))
}

fn an_unknown_flag_is_refused(t: &Test) -> Outcome {
    refused(
        t,
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAVE"],
        "syscalls": [{ "names": ["getppid"], "action": "SCMP_ACT_ERRNO" }] }),
    )
}

fn flags_that_the_kernel_knows_are_taken(t: &Test) -> Outcome {
    for flags in [json!(["SECCOMP_FILTER_FLAG_LOG"]), json!(["SECCOMP_FILTER_FLAG_TSYNC"]), json!([])] {
        let mut profile =
            allow_but(json!({ "names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4 }));
        profile["flags"] = flags;
        same("errno", errno(t, &profile, &[GETPPID])?, 4)?;
    }
    Ok(())
}

fn architectures_of_the_machine_are_taken(t: &Test) -> Outcome {
    let mut profile = allow_but(json!({ "names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4 }));
    profile["architectures"] =
        json!([nr::ARCH, "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64"]);
    same("errno", errno(t, &profile, &[GETPPID])?, 4)
}

fn a_filter_without_no_new_privs(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("process.noNewPrivileges", false).args(&["/probe", "report"]);
    config.set(
        "linux.seccomp",
        allow_but(json!({ "names": ["sched_getscheduler"], "action": "SCMP_ACT_ERRNO" })),
    );
    let probe = t.run(&config)?.ok()?.json()?;
    same("Seccomp", probe["Seccomp"].as_str(), Some("2"))?;
    same("NoNewPrivs", probe["NoNewPrivs"].as_str(), Some("0"))
}

fn a_filter_with_a_user_other_than_root(t: &Test) -> Outcome {
    for flag in [true, false] {
        let mut config = t.config();
        config.set("process.noNewPrivileges", flag).set("process.user", json!({ "uid": 1000, "gid": 1000 }));
        config.capabilities(&[]).args(&["/probe", "syscall", SCHED_GETSCHEDULER, "0"]);
        let rule = json!({ "names": ["sched_getscheduler"], "action": "SCMP_ACT_ERRNO" });
        config.set("linux.seccomp", allow_but(rule));
        same("errno", t.run(&config)?.ok()?.json()?["errno"].as_i64(), Some(1))?;
    }
    Ok(())
}

/// Nothing is allowed, or all but what a program ends with: the set-up cannot go on, and has to end.
fn a_filter_that_refuses_the_end_is_no_hang(t: &Test) -> Outcome {
    let end = json!([{ "names": ["exit", "exit_group", "execve", "execveat"], "action": "SCMP_ACT_ERRNO" }]);
    for profile in [
        json!({ "defaultAction": "SCMP_ACT_ERRNO" }),
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": end }),
    ] {
        let mut config = t.config();
        config.set("linux.seccomp", profile);
        let c = t.container(&config)?;
        let output = c.run()?;
        check!(output.code != 0, "the program ran: {}", output.text());
        c.delete_force()?;
        if c.create()?.code == 0 {
            c.start()?;
            process::until("it is gone", || Ok(!matches!(c.status().as_deref(), Ok("created" | "running"))))?;
        }
    }
    Ok(())
}

fn notifying(listener: &str) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": listener, "listenerMetadata": "meta data",
        "syscalls": [{ "names": ["getppid"], "action": "SCMP_ACT_NOTIFY" }]
    })
}

fn notify_hands_the_listener_over(t: &Test) -> Outcome {
    let socket = t.dir.join("agent");
    let agent = t.listen("agent", &socket, &["88"])?;
    let output = call_with(t, &notifying(&socket.display().to_string()), &[GETPPID])?.ok()?.json()?;
    same("the agent's answer", output["errno"].as_i64(), Some(88))?;
    let seen = agent.finish(process::LIMIT)?.ok()?.json()?;
    same("descriptors", seen["descriptors"].as_i64(), Some(1))?;
    same("system call", seen["calls"][0][0].to_string().as_str(), GETPPID)?;
    let message: Value = serde_json::from_str(seen["message"].as_str().unwrap_or_default())?;
    same("metadata", message["metadata"].as_str(), Some("meta data"))?;
    same("names of the descriptors", &message["fds"], &json!(["seccompFd"]))?;
    check!(message["pid"].as_i64().is_some_and(|pid| pid > 0), "pid: {message}");
    check!(message["ociVersion"].is_string(), "ociVersion: {message}");
    same("id", message["state"]["id"].as_str(), Some("c1"))?;
    contains("status", &message["state"]["status"].to_string(), "creat")
}

/// What an agent that answers nothing is sent.
fn message_to_agent(t: &Test, meanwhile: impl FnOnce() -> Outcome) -> Outcome<Value> {
    let socket = t.dir.join("agent");
    let agent = t.listen("agent", &socket, &["0", "0"])?;
    meanwhile()?;
    let seen = agent.finish(process::LIMIT)?.ok()?.json()?;
    fs::remove_file(&socket)?;
    Ok(serde_json::from_str(seen["message"].as_str().unwrap_or_default())?)
}

/// About a call that no runtime makes.
fn unanswered(t: &Test) -> Value {
    let mut profile = notifying(&t.dir.join("agent").display().to_string());
    profile["syscalls"][0]["names"] = json!(["sched_getscheduler"]);
    profile
}

/// An agent may want it before it lets the container be started.
fn notify_hands_the_listener_over_at_creation(t: &Test) -> Outcome {
    for no_new_privileges in [true, false] {
        let mut config = t.sleeper();
        config.set("linux.seccomp", unanswered(t));
        config.set("process.noNewPrivileges", no_new_privileges);
        let c = t.container(&config)?;
        let message = message_to_agent(t, || c.create()?.ok().map(drop))?;
        same("status", message["state"]["status"].as_str(), Some("creating"))?;
        same("pid", message["pid"].as_i64(), Some(c.pid()?.into()))?;
        c.start()?.ok()?;
        same("status", c.status()?.as_str(), "running")?;
    }
    Ok(())
}

fn notify_of_an_exec_names_its_process(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    config.set("linux.seccomp", unanswered(t));
    let c = t.container(&config)?;
    message_to_agent(t, || c.run_with(&["--detach"])?.ok().map(drop))?;
    let file = t.dir.join("pid");
    let options = ["--detach", "--pid-file", &file.display().to_string()];
    let message = message_to_agent(t, || c.exec_with(&options, &["/bin/sleep", "100"])?.ok().map(drop))?;
    same("pid", message["pid"].to_string(), fs::read_to_string(&file)?.trim().to_owned())?;
    same("pid of the container", message["state"]["pid"].as_i64(), Some(c.pid()?.into()))?;
    same("status", message["state"]["status"].as_str(), Some("running"))
}

fn notify_of_write_is_refused(t: &Test) -> Outcome {
    let mut profile = notifying(&t.dir.join("nobody").display().to_string());
    profile["syscalls"][0]["names"] = json!(["write"]);
    let mut config = t.config();
    config.set("linux.seccomp", profile);
    contains("error", &t.container(&config)?.create()?.refused()?.text(), "cannot be used for the write")
}

fn notify_without_a_listener_path_is_refused(t: &Test) -> Outcome {
    refused(t, allow_but(json!({ "names": ["getppid"], "action": "SCMP_ACT_NOTIFY" })))
}

fn notify_as_default_action_is_refused(t: &Test) -> Outcome {
    refused(t, json!({ "defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/tmp/nowhere" }))
}

fn notify_with_a_socket_that_is_not_there_is_refused(t: &Test) -> Outcome {
    refused(t, notifying(&t.dir.join("nobody").display().to_string()))
}

fn hundreds_of_rules(t: &Test) -> Outcome {
    let mut rules: Vec<Value> = (0..400)
        .map(|n| {
            let args = json!([{ "index": 1, "value": 1000 + n, "op": "SCMP_CMP_EQ" }]);
            json!({ "names": ["sched_getscheduler"], "action": "SCMP_ACT_ERRNO", "errnoRet": 90, "args": args })
        })
        .collect();
    rules.push(json!({ "names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 91 }));
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules });
    same("last rule", errno(t, &profile, &[GETPPID])?, 91)?;
    same("rule 399", errno(t, &profile, &[SCHED_GETSCHEDULER, "0", "1399"])?, 90)
}

fn a_profile_that_refuses_the_program_says_so(t: &Test) -> Outcome {
    if t.runtime.name != "onggi" {
        return skip("others do not say it");
    }
    // Neither the program nor a report of its absence gets through.
    for action in ["ERRNO", "KILL_PROCESS", "KILL_THREAD", "TRAP"] {
        let mut config = t.config();
        config.set("linux.seccomp", json!({ "defaultAction": format!("SCMP_ACT_{action}") }));
        let output = t.run(&config)?;
        check!(output.code != 0, "{action}: it ran");
        contains(action, &output.stderr, "was killed before it executed the program")?;
        contains(action, &output.stderr, "linux.seccomp refuses execve")?;
    }
    Ok(())
}

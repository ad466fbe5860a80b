//! The `process` object.

use super::check;
use crate::config::parse_process;

#[test]
fn args_name_a_program() {
    check(r#"process.args = ["/bin/sh","-c",""]"#, "");
    check("process.args", "process.args: missing or empty");
    check("process.args = []", "process.args: missing or empty");
    check("process.args = null", "process.args: missing or empty");
    // It is looked for, and not found.
    check(r#"process.args = [""]"#, "");
    check(r#"process.args = ["a","b\u0000"]"#, "process.args[1]: NUL");
}

#[test]
fn env_is_names_with_values() {
    check(r#"process.env = ["A=b","A=c","B=","C=d=e"]"#, "");
    check(r#"process.env = ["A"]"#, "process.env[0]: no '='");
    check(r#"process.env = ["X=1",""]"#, "process.env[1]: no '='");
    check(r#"process.env = ["=x"]"#, "process.env[0]: no name");
    check(r#"process.env = ["A=b\u0000"]"#, "process.env[0]: NUL");
}

#[test]
fn values_of_env_are_never_shown() {
    for change in [
        r#"process.env = ["sesame"]"#,
        r#"process.env = ["=sesame"]"#,
        r#"process.env = ["A=sesame\u0000"]"#,
        r#"process.env = "A=sesame""#,
        r#"process.env = [{"A":"sesame"}]"#,
        r#"hooks = {"poststop":[{"path":"/x","env":"sesame"}]}"#,
    ] {
        let found = super::findings(&super::changed(change));
        assert!(!found.is_empty() && found.iter().all(|text| !text.contains("sesame")), "{found:?}");
    }
}

#[test]
fn args_and_env_fit_into_execve() {
    let long = |count: usize| format!("process.args = [\"sh\",{:?}]", "x".repeat(count));
    check(&long((6 << 20) - 100), "");
    check(&long(6 << 20), "process.args: execve takes at most 6291456");
    let env = vec![format!("{:?}", format!("A={}", "y".repeat(100_000))); 70].join(",");
    check(&format!("process.env = [{env}]"), "process.args: execve takes");
}

#[test]
fn cwd_is_absolute() {
    check(r#"process.cwd = "/a/../b""#, "");
    check(r#"process.cwd = "a""#, "process.cwd: not an absolute path");
    check(r#"process.cwd = """#, "process.cwd: is empty");
    check(r#"process.cwd = "/a\u0000""#, "process.cwd: NUL");
    check("process.cwd", "process.cwd: missing");
}

#[test]
fn a_user_that_is_not_given_is_root_as_with_the_peers() {
    for user in ["", " = {}", " = null", r#" = {"uid":null}"#] {
        check(&format!("process.user{user}"), "");
    }
    let parse =
        |user: &str| parse_process(format!(r#"{{{user}"args":["a"],"cwd":"/"}}"#).as_bytes()).unwrap().0;
    assert_eq!(parse("").user(), parse(r#""user":{"uid":0,"gid":0},"#).user());
    assert_eq!(parse(r#""user":{"gid":7},"#).user(), parse(r#""user":{"uid":0,"gid":7},"#).user());
    check(r#"process.user = {"uid":1000,"gid":1000,"additionalGids":[1,2]}"#, "");
    check("process.user = [0,0]", "process.user: is a list; expected an object");
}

/// Go's encoder writes null for a pointer, a list or a map that is not there.
#[test]
fn null_is_absent() {
    check("process.capabilities = null\nprocess.rlimits = null\nprocess.terminal = null", "");
    check("linux.seccomp = null\nlinux.resources = null\nhooks = null", "");
    check("process.cwd = null", "process.cwd: missing, but required");
    let user = r#"linux.namespaces[6] = {"type":"user"}
        linux.gidMappings = [{"containerID":0,"hostID":9,"size":1}]"#
        .replace("        ", "");
    check(
        &(user + "\nlinux.uidMappings = [{\"containerID\":0,\"hostID\":null,\"size\":1}]"),
        "linux.uidMappings[0].hostID: missing, but required",
    );
}

#[test]
fn ids_are_ids() {
    check("process.user.uid = 4294967294", "");
    check("process.user.uid = 4294967295", "process.user.uid: no id");
    check("process.user.gid = 4294967295", "process.user.gid: no id");
    check("process.user.additionalGids = [0,4294967295]", "process.user.additionalGids[1]: no group id");
    check(
        "process.user.uid = 4294967296",
        "process.user.uid: is 4294967296; expected a whole number from 0 to 4294967295",
    );
    check("process.user.uid = -1", "process.user.uid: is -1; expected a whole number");
    check("process.user.uid = 1.0", "process.user.uid: is 1.0; expected a whole number");
    check(r#"process.user.uid = "0""#, "process.user.uid: is a string; expected a whole number");
    let groups = |count: usize| format!("process.user.additionalGids = [{}]", vec!["1"; count].join(","));
    check(&groups(65_536), "");
    check(&groups(65_537), "process.user.additionalGids: 65537 groups");
    check(r#"process.user.username = "root""#, "warning process.user.username: ignored");
    check("process.user.umask = 511", "");
    check("process.user.umask = 0", "");
    check("process.user.umask = 512", "warning process.user.umask: octal 1000");
}

#[test]
fn rlimits_are_set_once_and_make_sense() {
    let rlimit =
        |typ: &str, soft: u64, hard: u64| format!(r#"{{"type":"RLIMIT_{typ}","soft":{soft},"hard":{hard}}}"#);
    for typ in [
        "CPU",
        "FSIZE",
        "DATA",
        "STACK",
        "CORE",
        "RSS",
        "NPROC",
        "NOFILE",
        "MEMLOCK",
        "AS",
        "LOCKS",
        "SIGPENDING",
        "MSGQUEUE",
        "NICE",
        "RTPRIO",
        "RTTIME",
    ] {
        check(&format!("process.rlimits = [{}]", rlimit(typ, 0, u64::MAX)), "");
        check(
            &format!("process.rlimits = [{}]", rlimit(typ, 5, 4)),
            "process.rlimits[0].soft: 5 is more than",
        );
    }
    let twice = format!("{},{},{}", rlimit("CPU", 1, 1), rlimit("AS", 1, 1), rlimit("CPU", 1, 1));
    check(
        &format!("process.rlimits = [{twice}]"),
        "process.rlimits[2].type: RLIMIT_CPU is already set by process.rlimits[0]",
    );
    check(
        &format!("process.rlimits = [{}]", rlimit("FOO", 1, 1)),
        "process.rlimits[0].type: unknown value \"RLIMIT_FOO\"",
    );
    check(r#"process.rlimits = [{"type":"RLIMIT_CPU","soft":0}]"#, "process.rlimits[0].hard: missing");
    check(r#"process.rlimits = [{"type":"RLIMIT_CPU","hard":0}]"#, "process.rlimits[0].soft: missing");
    check(r#"process.rlimits = [{"type":"RLIMIT_CPU","hard":7}]"#, "process.rlimits[0].soft: missing");
    check(r#"process.rlimits = [{"soft":1,"hard":1}]"#, "process.rlimits[0].type: missing");
}

#[test]
fn capabilities_that_cannot_be_granted_are_warned_about() {
    let sets = |sets: &str| format!("process.capabilities = {{{sets}}}");
    check(&sets(r#""bounding":["CAP_KILL"],"effective":["CAP_KILL"],"permitted":["CAP_KILL"]"#), "");
    check(
        &sets(r#""effective":["CAP_KILL"]"#),
        "warning process.capabilities.effective: permitted does not have it: CAP_KILL",
    );
    check(
        &sets(r#""ambient":["CAP_KILL","CAP_CHOWN"],"permitted":["CAP_KILL"]"#),
        "warning process.capabilities.ambient: permitted does not have it: CAP_CHOWN
         warning process.capabilities.ambient: inheritable does not have it: CAP_CHOWN, CAP_KILL",
    );
    check(
        &sets(r#""bounding":["CAP_KILL","CAP_FUTURE","CAP_CHOWN","CAP_X"],"permitted":["CAP_FUTURE"]"#),
        "warning process.capabilities.bounding[1]: \"CAP_FUTURE\" is not known
         warning process.capabilities.bounding[3]: \"CAP_X\" is not known
         warning process.capabilities.permitted[0]: \"CAP_FUTURE\" is not known",
    );
    // As runc: oci-spec would take each of these for a name.
    check(
        &sets(r#""bounding":["KILL","CAP_KILL","cap_chown","CAP_CAP_CHOWN"]"#),
        "warning process.capabilities.bounding[0]: \"KILL\" is not known
         warning process.capabilities.bounding[2]: \"cap_chown\" is not known
         warning process.capabilities.bounding[3]: \"CAP_CAP_CHOWN\" is not known",
    );
    check(&sets(r#""bounding":["CAP_X",5]"#), "process.capabilities.bounding[1]: is 5; expected a string");
    check(&sets(r#""bounding":"CAP_KILL""#), "process.capabilities.bounding: is a string; expected a list");
    check("process.capabilities = [\"CAP_KILL\"]", "process.capabilities: is a list; expected an object");
}

#[test]
fn known_capabilities_survive_unknown_ones() {
    let text = super::changed(r#"process.capabilities = {"bounding":["CAP_X","CAP_KILL","CHOWN","CAP_Y"]}"#);
    let config = crate::config::Config::parse(text.as_bytes()).unwrap();
    let kept = serde_json::to_value(config.spec.process().as_ref().unwrap()).unwrap();
    assert_eq!(kept["capabilities"]["bounding"], serde_json::json!(["CAP_KILL"]));
}

#[test]
fn small_numbers_have_ranges() {
    for score in [-1000, 0, 1000] {
        check(&format!("process.oomScoreAdj = {score}"), "");
    }
    check("process.oomScoreAdj = 1001", "process.oomScoreAdj: 1001 is not");
    check("process.oomScoreAdj = -1001", "process.oomScoreAdj: -1001 is not");
    check("process.terminal = true\nprocess.consoleSize = {\"height\":24,\"width\":65535}", "");
    check(
        "process.terminal = true\nprocess.consoleSize = {\"height\":65536,\"width\":99999}",
        "process.consoleSize.height: 65536 is more\nprocess.consoleSize.width: 99999 is more",
    );
    check(
        "process.terminal = true\nprocess.consoleSize = {}",
        "process.consoleSize.height: missing\nprocess.consoleSize.width: missing",
    );
    check("process.consoleSize = {\"height\":65536,\"width\":0}", "");
    check("process.noNewPrivileges = false", "");
    check("process.noNewPrivileges = 1", "process.noNewPrivileges: is 1; expected true or false");
    check(r#"process.apparmorProfile = "x\u0000""#, "process.apparmorProfile: NUL");
    check(r#"process.selinuxLabel = "x\u0000""#, "process.selinuxLabel: NUL");
    check(r#"process.commandLine = "x""#, "warning process.commandLine: ignored");
}

#[test]
fn a_scheduler_has_what_its_policy_needs() {
    let at = "process.scheduler";
    let set = |rest: &str| format!("{at} = {{\"policy\":{rest}}}");
    for policy in ["OTHER", "BATCH", "IDLE"] {
        check(&set(&format!("\"SCHED_{policy}\",\"nice\":-20")), "");
        check(
            &set(&format!("\"SCHED_{policy}\",\"priority\":1")),
            "process.scheduler.priority: 1 has no meaning",
        );
    }
    for policy in ["FIFO", "RR"] {
        check(&set(&format!("\"SCHED_{policy}\",\"priority\":99")), "");
        check(
            &set(&format!("\"SCHED_{policy}\",\"priority\":100")),
            "process.scheduler.priority: 1 to 99, not 100",
        );
        check(&set(&format!("\"SCHED_{policy}\"")), "process.scheduler.priority: 1 to 99, not 0");
        check(&set(&format!("\"SCHED_{policy}\",\"priority\":-1")), "process.scheduler.priority: not -1");
    }
    check(&set(r#""SCHED_OTHER","nice":20"#), "process.scheduler.nice: 20 is not");
    check(&set(r#""SCHED_OTHER","nice":-21"#), "process.scheduler.nice: -21 is not");
    check(&set(r#""SCHED_ISO""#), "process.scheduler.policy: no kernel");
    check(&set(r#""SCHED_NONE""#), "process.scheduler.policy: unknown value \"SCHED_NONE\"");
    check("process.scheduler = {\"nice\":1}", "process.scheduler.policy: missing");
    check(
        &set(r#""SCHED_BATCH","runtime":5,"deadline":6,"period":7"#),
        "process.scheduler.runtime: only SCHED_DEADLINE\nprocess.scheduler.deadline: only SCHED_DEADLINE\nprocess.scheduler.period: only",
    );
    check(&set(r#""SCHED_DEADLINE","runtime":1024,"deadline":2048,"period":4096"#), "");
    check(&set(r#""SCHED_DEADLINE","runtime":2048,"deadline":2048"#), "");
    check(
        &set(r#""SCHED_DEADLINE","runtime":1023,"deadline":2048"#),
        "process.scheduler.runtime: the least is 1024",
    );
    check(
        &set(r#""SCHED_DEADLINE","runtime":4096,"deadline":2048"#),
        "process.scheduler.deadline: less than the runtime",
    );
    check(
        &set(r#""SCHED_DEADLINE","runtime":2048,"deadline":4096,"period":4095"#),
        "process.scheduler.period: less than the deadline",
    );
    check(
        &set(r#""SCHED_DEADLINE","runtime":2048,"deadline":9223372036854775808"#),
        "process.scheduler.deadline: 2^63",
    );
    check(&set(r#""SCHED_DEADLINE""#), "process.scheduler.runtime: 0 ns\nprocess.scheduler.deadline: 0 ns");
}

#[test]
fn every_scheduler_flag_of_the_spec_is_known() {
    for flag in ["RESET_ON_FORK", "FLAG_RECLAIM", "FLAG_DL_OVERRUN", "FLAG_KEEP_POLICY", "FLAG_KEEP_PARAMS"] {
        check(&format!(r#"process.scheduler = {{"policy":"SCHED_OTHER","flags":["SCHED_{flag}"]}}"#), "");
    }
    for flag in ["FLAG_UTIL_CLAMP_MIN", "FLAG_UTIL_CLAMP_MAX"] {
        check(
            &format!(r#"process.scheduler = {{"policy":"SCHED_OTHER","flags":["SCHED_{flag}"]}}"#),
            "warning process.scheduler.flags[0]: no property for the clamp's value",
        );
    }
    check(
        r#"process.scheduler = {"policy":"SCHED_OTHER","flags":["SCHED_FLAG_DL_OVERRUN","SCHED_X"]}"#,
        "process.scheduler.flags[1]: unknown value \"SCHED_X\"",
    );
}

#[test]
fn io_priority_and_affinity() {
    for class in ["RT", "BE", "IDLE"] {
        check(&format!(r#"process.ioPriority = {{"class":"IOPRIO_CLASS_{class}","priority":7}}"#), "");
    }
    check(
        r#"process.ioPriority = {"class":"IOPRIO_CLASS_BE","priority":8}"#,
        "process.ioPriority.priority: 8 is not",
    );
    check(
        r#"process.ioPriority = {"class":"IOPRIO_CLASS_BE","priority":-1}"#,
        "process.ioPriority.priority: -1",
    );
    check(r#"process.ioPriority = {"class":"IOPRIO_CLASS_NONE"}"#, "process.ioPriority.class: unknown value");
    check(r#"process.ioPriority = {"priority":3}"#, "process.ioPriority.class: missing");
    check(r#"process.execCPUAffinity = {"initial":"0-3,7","final":"65535"}"#, "");
    check(r#"process.execCPUAffinity = {"initial":"0, 2-3","final":""}"#, "");
    check(r#"process.execCPUAffinity = {"initial":"3-1"}"#, "process.execCPUAffinity.initial: backwards");
    check(
        r#"process.execCPUAffinity = {"final":"65536"}"#,
        "process.execCPUAffinity.final: not a number from 0",
    );
    check(r#"process.execCPUAffinity = {"final":"a"}"#, "process.execCPUAffinity.final: a string");
}

#[test]
fn a_process_alone_is_checked_the_same_way() {
    let (process, warnings) = parse_process(br#"{"user":{"uid":5,"gid":6},"args":["a"],"cwd":"/"}"#).unwrap();
    assert_eq!((process.user().uid(), process.user().gid(), warnings.len()), (5, 6, 0));
    for (text, expect) in [
        (r#"{"user":{"uid":5,"gid":6},"args":[],"cwd":"/"}"#, "process.args: missing"),
        (r#"{"user":{"uid":"x","gid":6},"args":["a"],"cwd":"/"}"#, "process.user.uid: is a string"),
        (r#"{"args":["a"],"cwd":7}"#, "process.cwd: is 7"),
        ("[]", "the process object: is a list; expected an object"),
        ("", "the process object is not JSON: EOF"),
        ("7", "the process object: is 7; expected an object"),
    ] {
        let error = parse_process(text.as_bytes()).unwrap_err();
        for line in expect.lines() {
            assert!(error.to_string().contains(line.trim().trim_end_matches(": ")), "{text}: {error}");
        }
    }
    let text = br#"{"user":{"uid":5,"gid":6},"args":["a"],"cwd":"/","capabilities":{"bounding":["CAP_X"]}}"#;
    assert_eq!(parse_process(text).unwrap().1[0].config_path, "process.capabilities.bounding[0]");
}

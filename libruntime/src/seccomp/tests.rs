//! Hand-written expectations of what profiles mean, how they are refused, and how a program looks.
//! The comparisons with other implementations are in `tests/seccomp_oracle.rs`.

use super::interpreter::{Call, run};
use super::*;
use serde_json::{Value, json};

const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const ARM: u32 = 0x4000_0028;
const X32_BIT: u32 = 0x4000_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const E7: u32 = 0x0005_0007;

fn parse(profile: Value) -> LinuxSeccomp {
    serde_json::from_value(profile).expect("a profile of the right shape")
}

fn filter_for(machine: Machine, profile: Value) -> Filter {
    let mut warnings = Vec::new();
    let filter = compile_for(machine, &parse(profile), &mut warnings).expect("a good profile");
    assert_eq!(warnings, []);
    filter
}

fn filter(profile: Value) -> Filter {
    filter_for(Machine::X86_64, profile)
}

fn decide(filter: &Filter, audit: u32, number: u32, arguments: &[u64]) -> u32 {
    let mut call = Call { number, audit, ..Call::default() };
    call.arguments[..arguments.len()].copy_from_slice(arguments);
    run(&filter.program, &call).0
}

fn findings(profile: Value) -> Vec<String> {
    let result = compile_for(Machine::X86_64, &parse(profile), &mut Vec::new());
    result.expect_err("a bad profile").iter().map(Diagnostic::to_string).collect()
}

fn warnings(profile: Value) -> Vec<String> {
    let mut warnings = Vec::new();
    compile_for(Machine::X86_64, &parse(profile), &mut warnings).expect("a good profile");
    warnings.iter().map(Diagnostic::to_string).collect()
}

#[test]
fn the_smallest_profile_is_these_instructions() {
    let filter = filter(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7}],
    }));
    #[rustfmt::skip]
    let expected: &[(u16, u8, u8, u32)] = &[
        (0x20, 0, 0, 4),             // 0 load the architecture
        (0x15, 0, 7, X86_64),        // 1 another one: go to 9
        (0x20, 0, 0, 0),             // 2 load the number
        (0x35, 2, 0, 40),            // 3 40 or more: go to 6
        (0x35, 0, 3, 39),            // 4 below 39: go to 8
        (0x06, 0, 0, E7),            // 5 getpid
        (0x35, 0, 1, X32_BIT),       // 6 bit 30 is not set: go to 8
        (0x35, 0, 1, u32::MAX),      // 7 it is, and this is not -1: go to 9
        (0x06, 0, 0, ALLOW),         // 8
        (0x06, 0, 0, KILL_PROCESS),  // 9
    ];
    let instruction = |i: &[u8]| {
        let operand = u32::from_ne_bytes(i[4..].try_into().unwrap());
        (u16::from_ne_bytes([i[0], i[1]]), i[2], i[3], operand)
    };
    assert_eq!(filter.program.chunks(8).map(instruction).collect::<Vec<_>>(), expected);
}

fn rule(names: &[&str], errno: u32, args: Value) -> Value {
    json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": args})
}

fn allowing_all_but(rules: Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
}

fn allowing_only(names: &[&str]) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
    })
}

#[test]
fn every_action_has_its_return_value() {
    let cases = [
        ("SCMP_ACT_KILL", None, 0),
        ("SCMP_ACT_KILL_THREAD", None, 0),
        ("SCMP_ACT_KILL_PROCESS", None, KILL_PROCESS),
        ("SCMP_ACT_TRAP", None, 0x0003_0000),
        ("SCMP_ACT_ERRNO", None, EPERM),
        ("SCMP_ACT_ERRNO", Some(0), 0x0005_0000),
        ("SCMP_ACT_ERRNO", Some(4095), 0x0005_0fff),
        ("SCMP_ACT_TRACE", None, 0x7ff0_0001),
        ("SCMP_ACT_TRACE", Some(0xffff), 0x7ff0_ffff),
        ("SCMP_ACT_LOG", None, 0x7ffc_0000),
        ("SCMP_ACT_NOTIFY", None, 0x7fc0_0000),
    ];
    for (action, errno, expected) in cases {
        let mut profile =
            allowing_all_but(json!([{"names": ["getpid"], "action": action, "errnoRet": errno}]));
        if action == "SCMP_ACT_NOTIFY" {
            profile["listenerPath"] = "/run/agent.sock".into();
        }
        assert_eq!(decide(&filter(profile), X86_64, 39, &[]), expected, "{action}");
        if action != "SCMP_ACT_NOTIFY" {
            let profile = json!({"defaultAction": action, "defaultErrnoRet": errno});
            assert_eq!(decide(&filter(profile), X86_64, 39, &[]), expected, "{action} as the default");
        }
    }
}

#[test]
fn every_operator_compares_all_64_bits() {
    const V: u64 = 0x5_0000_0007;
    let around = [V - 1, V, V + 1, 7, V + (1 << 32), V - (1 << 32), 0, u64::MAX];
    type Test = fn(u64) -> bool;
    let cases: [(&str, Test); 6] = [
        ("SCMP_CMP_NE", |a| a != V),
        ("SCMP_CMP_LT", |a| a < V),
        ("SCMP_CMP_LE", |a| a <= V),
        ("SCMP_CMP_EQ", |a| a == V),
        ("SCMP_CMP_GE", |a| a >= V),
        ("SCMP_CMP_GT", |a| a > V),
    ];
    for (operator, test) in cases {
        for index in 0..6 {
            let args = json!([{"index": index, "value": V, "op": operator}]);
            let filter = filter(allowing_all_but(json!([rule(&["getpid"], 7, args)])));
            for value in around {
                let mut arguments = [V ^ 0x1_0000_0001; 6];
                arguments[index] = value;
                let expected = if test(value) { E7 } else { ALLOW };
                assert_eq!(decide(&filter, X86_64, 39, &arguments), expected, "{operator} {value:#x}");
            }
        }
    }
}

#[test]
fn masked_equal_compares_the_bits_of_the_first_value_with_the_second() {
    for shift in [0, 32] {
        let args = json!([
            {"index": 1, "op": "SCMP_CMP_MASKED_EQ", "value": 0xf0_u64 << shift, "valueTwo": 0x30_u64 << shift},
        ]);
        let filter = filter(allowing_all_but(json!([rule(&["getpid"], 7, args)])));
        let cases =
            [(0x30_u64, E7), (0x3f, E7), (0xf00_0000_0030, E7), (0x40, ALLOW), (0x70, ALLOW), (0, ALLOW)];
        for (value, expected) in cases {
            let value = value.rotate_left(shift);
            assert_eq!(decide(&filter, X86_64, 39, &[0x30, value]), expected, "{value:#x}");
        }
    }
}

#[test]
fn conditions_on_different_arguments_must_all_hold() {
    let args = json!([
        {"index": 2, "value": 9, "op": "SCMP_CMP_EQ"},
        {"index": 0, "value": 16, "op": "SCMP_CMP_EQ"},
    ]);
    let filter = filter(allowing_all_but(json!([rule(&["socket"], 7, args)])));
    for (arguments, expected) in
        [([16, 0, 9], E7), ([16, 0, 8], ALLOW), ([15, 0, 9], ALLOW), ([0, 0, 0], ALLOW)]
    {
        assert_eq!(decide(&filter, X86_64, 41, &arguments), expected);
    }
}

#[test]
fn conditions_on_one_argument_are_alternatives_with_all_others_of_the_entry() {
    let args = json!([
        {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"},
        {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"},
        {"index": 1, "value": 3, "op": "SCMP_CMP_EQ"},
    ]);
    let filter = filter(allowing_all_but(json!([rule(&["socket"], 7, args)])));
    for (arguments, expected) in [([1, 0], E7), ([2, 0], E7), ([0, 3], E7), ([3, 4], ALLOW)] {
        assert_eq!(decide(&filter, X86_64, 41, &arguments), expected);
    }
}

#[test]
fn a_rule_without_conditions_beats_all_others_and_the_first_of_two_holds() {
    let args = json!([{"index": 0, "value": 5, "op": "SCMP_CMP_EQ"}]);
    let rules =
        json!([rule(&["getpid"], 6, args), rule(&["getpid"], 7, json!([])), rule(&["getpid"], 8, json!([]))]);
    let filter = filter(allowing_all_but(rules));
    assert_eq!(decide(&filter, X86_64, 39, &[5]), E7);
    assert_eq!(decide(&filter, X86_64, 39, &[6]), E7);
}

#[test]
fn a_rule_with_the_default_action_overrides_nothing() {
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        rule(&["getpid"], 1, json!([])),
        {"names": ["getpid"], "action": "SCMP_ACT_ALLOW"},
    ]});
    assert_eq!(decide(&filter(profile), X86_64, 39, &[]), ALLOW);
}

#[test]
fn the_narrower_of_two_conditions_holds_wherever_it_stands() {
    let condition = |operator: &str, value: u64| json!([{"index": 0, "value": value, "op": operator}]);
    let masked = json!([{"index": 0, "value": 0xf, "valueTwo": 5, "op": "SCMP_CMP_MASKED_EQ"}]);
    let both = json!([
        {"index": 0, "value": 3, "op": "SCMP_CMP_GT"},
        {"index": 1, "value": 1, "op": "SCMP_CMP_EQ"},
    ]);
    let cases = [
        (condition("SCMP_CMP_EQ", 5), condition("SCMP_CMP_GT", 3), 5, 4),
        (condition("SCMP_CMP_EQ", 5), condition("SCMP_CMP_NE", 9), 5, 4),
        (condition("SCMP_CMP_EQ", 0x15), masked, 0x15, 0x25),
        (condition("SCMP_CMP_GT", 7), condition("SCMP_CMP_GE", 3), 8, 7),
        (condition("SCMP_CMP_LT", 3), condition("SCMP_CMP_LE", 7), 2, 3),
        (both, condition("SCMP_CMP_GE", 1), 4, 1),
    ];
    for (narrow, wide, in_both, in_wide) in cases {
        let (narrow, wide) = (rule(&["getpid"], 7, narrow), rule(&["getpid"], 8, wide));
        for rules in [json!([narrow, wide]), json!([wide, narrow])] {
            let filter = filter(allowing_all_but(rules.clone()));
            assert_eq!(decide(&filter, X86_64, 39, &[in_both, 1]), E7, "{rules}");
            assert_eq!(decide(&filter, X86_64, 39, &[in_wide, 1]), E7 + 1, "{rules}");
        }
    }
}

#[test]
fn of_conditions_that_overlap_otherwise_the_first_holds() {
    let on = |index: u32| json!([{"index": index, "value": 1, "op": "SCMP_CMP_EQ"}]);
    let filter = filter(allowing_all_but(json!([rule(&["getpid"], 7, on(0)), rule(&["getpid"], 8, on(1))])));
    assert_eq!(decide(&filter, X86_64, 39, &[1, 1]), E7);
    assert_eq!(decide(&filter, X86_64, 39, &[0, 1]), E7 + 1);
}

#[test]
fn x32_and_x86_are_killed_unless_they_are_listed() {
    let mut profile = allowing_only(&["getpid", "execve"]);
    let filter = filter(profile.clone());
    assert_eq!(decide(&filter, X86_64, 39, &[]), ALLOW);
    for number in [X32_BIT, X32_BIT + 39, 0x7fff_ffff, 0x8000_0000 + X32_BIT + 39, u32::MAX - 1] {
        assert_eq!(decide(&filter, X86_64, number, &[]), KILL_PROCESS, "{number:#x}");
    }
    assert_eq!(decide(&filter, X86_64, u32::MAX, &[]), ENOSYS);
    assert_eq!(decide(&filter, X86, 20, &[]), KILL_PROCESS);
    assert_eq!(decide(&filter, ARM, 20, &[]), KILL_PROCESS);

    profile["architectures"] = json!(["SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    let filter = self::filter(profile);
    assert_eq!(decide(&filter, X86_64, 39, &[]), ALLOW, "the native architecture is always covered");
    assert_eq!(decide(&filter, X86_64, X32_BIT + 39, &[]), ALLOW);
    assert_eq!(decide(&filter, X86_64, X32_BIT + 520, &[]), ALLOW, "execve of x32");
    assert_eq!(decide(&filter, X86_64, X32_BIT + 59, &[]), ENOSYS, "execve of x86_64");
    assert_eq!(decide(&filter, X86, 20, &[]), ALLOW);
    assert_eq!(decide(&filter, X86, 19, &[]), EPERM);
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    // 451 is the newest on all; `execve` is 520 on x32, `cacheflush` 0xf0002 on arm: they are not new.
    let names = &["cachestat", "execve", "cacheflush", "no_such_call"];
    let mut profile = parse(allowing_only(names));
    profile.set_architectures(Some(
        serde_json::from_value(json!(["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_ARM"])).unwrap(),
    ));
    let compiled = |machine| compile_for(machine, &profile, &mut Vec::new()).unwrap();
    let (x86, arm) = (compiled(Machine::X86_64), compiled(Machine::Aarch64));
    let cases = [
        (&x86, X86_64, 0, vec![450, 336, 400], vec![452, 511, 512, 9999, 0x3fff_ffff]),
        (&x86, X86_64, X32_BIT, vec![450, 512, 519, 521, 547], vec![452, 511, 548, 0x3fff_ffff]),
        (&x86, X86, 0, vec![450, 10], vec![452, 512, u32::MAX]),
        (&arm, 0xc000_00b7, 0, vec![450, 10], vec![452, 512, u32::MAX]),
        (&arm, ARM, 0, vec![450, 0xf0000, 0xf0001, 0xf07ff], vec![452, 0xe_ffff, 0xf0800, u32::MAX]),
    ];
    for (filter, audit, bit, old, new) in cases {
        for number in old {
            assert_eq!(decide(filter, audit, number | bit, &[]), EPERM, "{number} on {audit:x}");
        }
        for number in new {
            assert_eq!(decide(filter, audit, number | bit, &[]), ENOSYS, "{number} on {audit:x}");
        }
    }
}

#[test]
fn only_a_default_that_refuses_is_replaced_for_new_calls() {
    let default = |action: &str| {
        let rules = json!([{"names": ["statx"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7}]);
        decide(&filter(json!({"defaultAction": action, "syscalls": rules})), X86_64, 999, &[])
    };
    assert_eq!(default("SCMP_ACT_ALLOW"), ALLOW);
    assert_eq!(default("SCMP_ACT_LOG"), 0x7ffc_0000);
    assert_eq!(default("SCMP_ACT_TRACE"), 0x7ff0_0001);
    for action in ["KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP", "ERRNO"] {
        assert_eq!(default(&format!("SCMP_ACT_{action}")), ENOSYS);
    }
    let nothing_named = json!({"defaultAction": "SCMP_ACT_ERRNO"});
    assert_eq!(decide(&filter(nothing_named), X86_64, 999, &[]), EPERM);
}

#[test]
fn rules_for_sockets_and_ipc_hold_for_the_multiplexing_calls_of_x86() {
    let x86 = |mut profile: Value| {
        profile["architectures"] = json!(["SCMP_ARCH_X86"]);
        filter(profile)
    };
    let allowed = x86(allowing_only(&["socket", "accept", "shmat"]));
    assert_eq!(decide(&allowed, X86, 359, &[]), ALLOW);
    for (number, argument, expected) in [
        (102, 1, ALLOW),
        (102, 5, ALLOW),
        (102, 2, EPERM),
        (117, 21, ALLOW),
        (117, 0x1_0015, ALLOW),
        (117, 22, EPERM),
    ] {
        assert_eq!(decide(&allowed, X86, number, &[argument]), expected, "{number}({argument})");
    }
    // The family of the socket is behind a pointer: refused for some is refused, allowed for some is not
    // allowed.
    let family = json!([{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]);
    let refused = x86(allowing_all_but(json!([rule(&["socket"], 7, family.clone())])));
    assert_eq!(decide(&refused, X86, 102, &[1]), E7);
    assert_eq!(decide(&refused, X86, 102, &[2]), ALLOW);
    let mut profile = allowing_only(&["socket"]);
    profile["syscalls"][0]["args"] = family;
    assert_eq!(decide(&x86(profile), X86, 102, &[1]), EPERM);
}

#[test]
fn arguments_of_32_bit_architectures_have_32_bits() {
    let args = json!([{"index": 0, "value": u64::MAX, "op": "SCMP_CMP_EQ"}]);
    let mut profile = allowing_all_but(json!([rule(&["personality"], 7, args)]));
    profile["architectures"] = json!(["SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    let filter = filter(profile);
    assert_eq!(decide(&filter, X86, 136, &[0xffff_ffff]), E7);
    assert_eq!(decide(&filter, X86_64, 135, &[0xffff_ffff]), ALLOW);
    assert_eq!(decide(&filter, X86_64, X32_BIT + 135, &[0xffff_ffff]), ALLOW);
    assert_eq!(decide(&filter, X86_64, X32_BIT + 135, &[u64::MAX]), E7);
}

#[test]
fn long_jumps_reach_their_ends() {
    // 40 different chains of 40 values each put thousands of instructions between the search and its ends.
    let rules: Vec<Value> = (0..40_u64)
        .map(|call| {
            let name = tables::CALLS.iter().find(|row| row.1[0] == 3 * call as u32).unwrap().0;
            let equal = |value| json!({"index": 0, "value": 1000 * call + value, "op": "SCMP_CMP_EQ"});
            rule(&[name], 100 + call as u32, (0..24).map(equal).collect())
        })
        .collect();
    let filter = filter(allowing_all_but(rules.into()));
    assert!(filter.program.len() / 8 > 3000, "{}", filter.program.len() / 8);
    for call in 0..40 {
        let number = 3 * call as u32;
        for value in 0..24 {
            let expected = 0x0005_0000 + 100 + call as u32;
            assert_eq!(decide(&filter, X86_64, number, &[1000 * call + value]), expected);
        }
        assert_eq!(decide(&filter, X86_64, number, &[1000 * call + 24]), ALLOW);
        assert_eq!(decide(&filter, X86_64, number + 1, &[1000 * call]), ALLOW);
    }
}

#[test]
fn a_filter_too_large_for_the_kernel_is_refused() {
    let equal = |value: u64| json!({"index": 0, "value": value << 20, "op": "SCMP_CMP_EQ"});
    let findings = findings(allowing_all_but(json!([rule(&["getpid"], 7, (0..2000).map(equal).collect())])));
    let [finding] = findings.as_slice() else { panic!("{findings:?}") };
    assert!(finding.starts_with("linux.seccomp.syscalls: the filter needs 8"), "{finding}");
}

#[test]
fn flags_are_the_kernels() {
    let flags = |flags: Value, action: &str| {
        let rules = json!([{"names": ["getpid"], "action": action}]);
        let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags, "syscalls": rules});
        if action == "SCMP_ACT_NOTIFY" {
            profile["listenerPath"] = "/run/agent.sock".into();
        }
        filter(profile).flags
    };
    let (log, trap, notify) = ("SECCOMP_FILTER_FLAG_LOG", "SCMP_ACT_TRAP", "SCMP_ACT_NOTIFY");
    assert_eq!(flags(Value::Null, trap), SPEC_ALLOW);
    assert_eq!(flags(Value::Null, notify), SPEC_ALLOW | NEW_LISTENER);
    assert_eq!(flags(json!([]), trap), 0);
    assert_eq!(flags(json!([log, "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]), trap), LOG | SPEC_ALLOW);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_TSYNC"]), trap), TSYNC);
    let all = json!([log, "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
    assert_eq!(flags(all, notify), LOG | TSYNC | NEW_LISTENER | TSYNC_ESRCH | WAIT_KILLABLE_RECV);
}

#[test]
fn a_notifying_filter_says_where_its_listener_goes() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": "/run/agent.sock",
        "listenerMetadata": "x=y",
        "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}],
    });
    let notify = Notify { listener_path: "/run/agent.sock".into(), metadata: Some("x=y".into()) };
    assert_eq!(filter(profile).notify, Some(notify));
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_place() {
    let cases = [
        (
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default: \
             no process could send the listener",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 1}),
            "linux.seccomp.defaultErrnoRet: 1 is given, but SCMP_ACT_KILL returns no error",
        ),
        (
            allowing_all_but(json!([{"names": ["read"], "action": "SCMP_ACT_TRAP", "errnoRet": 2}])),
            "linux.seccomp.syscalls[0].errnoRet: 2 is given, but SCMP_ACT_TRAP returns no error",
        ),
        (
            allowing_all_but(json!([rule(&["read"], 4096, json!([]))])),
            "linux.seccomp.syscalls[0].errnoRet: 4096 is too large, 4095 is the largest",
        ),
        (allowing_all_but(json!([rule(&[], 1, json!([]))])), "linux.seccomp.syscalls[0].names: is empty"),
        (
            allowing_all_but(json!([rule(
                &["read"],
                1,
                json!([{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}])
            )])),
            "linux.seccomp.syscalls[0].args[0].index: 6 is not an argument: there are six, from 0",
        ),
        (
            allowing_all_but(json!([{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}])),
            "linux.seccomp.listenerPath: is missing, and a rule has the action SCMP_ACT_NOTIFY",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}),
            "linux.seccomp.listenerMetadata: is set without a listenerPath",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/s", "syscalls": [
                {"names": ["read", "sendmsg"], "action": "SCMP_ACT_NOTIFY"},
            ]}),
            "linux.seccomp.syscalls[0].names[1]: SCMP_ACT_NOTIFY cannot be used for the sendmsg syscall",
        ),
    ];
    for (profile, expected) in cases {
        assert_eq!(findings(profile), [expected]);
    }
}

#[test]
fn what_has_no_effect_is_warned_of() {
    let masked = json!([{"index": 0, "value": 0xf0, "valueTwo": 0x33, "op": "SCMP_CMP_MASKED_EQ"}]);
    let second = json!([{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_EQ"}]);
    let cases = [
        (
            allowing_all_but(json!([rule(&["read", "raed"], 1, json!([]))])),
            "linux.seccomp.syscalls[0].names[1]: \"raed\" is not a system call that this build knows; \
             it is skipped",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_S390X"]}),
            "linux.seccomp.architectures[1]: SCMP_ARCH_S390X cannot run on this machine; \
             rules for it are not made",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/s"}),
            "linux.seccomp.listenerPath: is not used: no rule has the action SCMP_ACT_NOTIFY",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}),
            "linux.seccomp.flags[0]: has no effect without SCMP_ACT_NOTIFY and is left out",
        ),
        (
            allowing_all_but(json!([rule(&["read"], 1, masked)])),
            "linux.seccomp.syscalls[0].args[0].valueTwo: 0x33 has bits outside the mask 0xf0; \
             they are ignored",
        ),
        (
            allowing_all_but(json!([rule(&["read"], 1, second)])),
            "linux.seccomp.syscalls[0].args[0].valueTwo: 2 is ignored: \
             only SCMP_CMP_MASKED_EQ has a second value",
        ),
    ];
    for (profile, expected) in cases {
        assert_eq!(warnings(profile), [expected]);
    }
    // Names of other machines are no mistake.
    assert_eq!(
        warnings(allowing_all_but(json!([rule(&["s390_runtime_instr", "spu_run"], 1, json!([]))]))),
        [""; 0]
    );
}

#[test]
fn the_table_is_sorted_and_each_number_is_there_once() {
    assert!(tables::CALLS.is_sorted_by(|a, b| a.0 < b.0));
    for column in 0..5 {
        let numbers = tables::CALLS.iter().map(|call| call.1[column]).filter(|&n| n != tables::NONE);
        let mut numbers: Vec<u32> = numbers.collect();
        let count = numbers.len();
        numbers.sort();
        numbers.dedup();
        // Two of arm's have two names each.
        let names_too_many = if column == 4 { count - numbers.len() } else { 0 };
        assert_eq!(count - names_too_many, numbers.len(), "column {column}");
        assert!(names_too_many <= 2);
        // Younger than the crates and the library that the table is compared with.
        assert_eq!(tables::find("listns").unwrap().1[column], 470);
        assert_eq!(tables::find("rseq_slice_yield").unwrap().1[column], 471);
    }
    assert!(tables::CALLS.iter().all(|call| tables::find(call.0) == Some(call)));
    assert_eq!(tables::find("rea"), None);
    assert_eq!(tables::find("readx"), None);
}

#[test]
fn the_table_has_what_the_syscalls_crate_has() {
    fn check<'a>(column: usize, calls: impl Iterator<Item = (&'a str, usize)>) -> usize {
        let mut count = 0;
        for (name, number) in calls {
            // The crate calls this one otherwise than the kernel, and gives aarch64 calls of 32-bit machines.
            let name = if name == "fstatat" { "newfstatat" } else { name.trim_start_matches("r#") };
            let known = tables::find(name).map(|call| call.1[column]);
            let foreign = column == 3 && name.ends_with("64") && (403..424).contains(&number);
            assert!(foreign || known == Some(number as u32), "{name}: {number}, not {known:?}");
            count += 1;
        }
        count
    }
    assert!(check(0, syscalls::x86_64::Sysno::iter().map(|call| (call.name(), call as usize))) > 380);
    assert!(check(1, syscalls::x86::Sysno::iter().map(|call| (call.name(), call as usize))) > 450);
    assert!(check(3, syscalls::aarch64::Sysno::iter().map(|call| (call.name(), call as usize))) > 320);
    assert!(check(4, syscalls::arm::Sysno::iter().map(|call| (call.name(), call as usize))) > 420);
}

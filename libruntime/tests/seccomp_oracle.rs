//! Compares what compiled profiles decide with a plain model of the specification, with libseccomp, with
//! seccompiler and with the kernel, over random and real profiles and many calls.
//!
//! Needs `libseccomp2` at run time. The real profiles are those of the conformance corpus.

#[path = "../src/seccomp/interpreter.rs"]
mod interpreter;
#[path = "seccomp_oracle/kernel.rs"]
mod kernel;
#[path = "seccomp_oracle/libseccomp.rs"]
mod libseccomp;
#[path = "seccomp_oracle/model.rs"]
mod model;

use interpreter::{Call, run};
use libruntime::seccomp::{Machine, compile_for};
use model::Model;
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompOperator as Operator};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ARM: u32 = 0x4000_0028;
/// `socketcall` and `ipc` of x86.
const MULTIPLEXING: [u32; 2] = [102, 117];
const ARCHS: [Arch; 5] =
    [Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32, Arch::ScmpArchAarch64, Arch::ScmpArchArm];

fn compiled(machine: Machine, seccomp: &LinuxSeccomp) -> Vec<u8> {
    compile_for(machine, seccomp, &mut Vec::new()).expect("a good profile").program
}

/// The different profiles of the corpus, each with the name of a file that has it.
fn profiles() -> Vec<(String, LinuxSeccomp)> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../conformance/corpus");
    let mut profiles: Vec<(String, LinuxSeccomp)> = Vec::new();
    for entry in std::fs::read_dir(directory).expect("the corpus can be read") {
        let path = entry.unwrap().path();
        let config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let Some(profile) = config.pointer("/linux/seccomp").filter(|profile| !profile.is_null()) else {
            continue;
        };
        let profile = serde_json::from_value(profile.clone()).unwrap();
        if profiles.iter().all(|known| known.1 != profile) {
            profiles.push((path.file_name().unwrap().to_str().unwrap().to_owned(), profile));
        }
    }
    assert!(profiles.len() >= 6);
    profiles
}

/// Argument values at which some comparison of the profile changes its result.
fn boundaries(seccomp: &LinuxSeccomp) -> BTreeSet<u64> {
    let mut values = BTreeSet::from([0, 1, u64::MAX, 0xffff_ffff, 1 << 32, 1 << 31, 1 << 63]);
    for arg in seccomp.syscalls().iter().flatten().flat_map(|rule| rule.args().iter().flatten()) {
        for value in [arg.value(), arg.value_two().unwrap_or(0), arg.value() & arg.value_two().unwrap_or(0)] {
            values.extend([value, value.wrapping_sub(1), value.wrapping_add(1), value ^ 1 << 32, !value]);
        }
    }
    values
}

/// Numbers at which something may change on an architecture.
fn numbers(seccomp: &LinuxSeccomp, audit: u32) -> BTreeSet<u32> {
    let mut numbers = BTreeSet::from([0, 334, 335, 423, 424, 450, 470, 471, 472, 511, 512, 547, 548, 9999]);
    numbers.extend([0xeffff, 0xf0000, 0xf07ff, 0xf0800, 0x3fff_ffff, 0x7fff_ffff, u32::MAX - 1, u32::MAX]);
    numbers.extend(numbers.clone().iter().map(|number| number | model::X32_BIT));
    let rules = seccomp.syscalls().iter().flatten();
    for name in rules.flat_map(|rule| rule.names()) {
        for arch in ARCHS.into_iter().filter(|&arch| arch != Arch::ScmpArchX32 || audit == X86_64) {
            let number = model::number(arch, name);
            numbers.extend(number.into_iter().flat_map(|n| [n, n + 1, n.saturating_sub(1)]));
        }
    }
    numbers
}

/// The calls that the profile is asked about: all numbers of interest, and for those with conditional rules
/// many combinations of arguments.
fn calls(model: &Model, audit: u32, arch: Arch, seed: u64) -> Vec<Call> {
    let values: Vec<u64> = boundaries(model.seccomp).into_iter().collect();
    let narrow = matches!(audit, X86 | ARM);
    let mut random = seed | 1;
    let mut calls = Vec::new();
    for number in numbers(model.seccomp, audit) {
        if model::arch_of(audit, number) != Some(arch)
            || arch == Arch::ScmpArchX86 && MULTIPLEXING.contains(&number)
        {
            continue;
        }
        for _ in 0..if model.has_conditions(number) { 60 } else { 1 } {
            let arguments = std::array::from_fn(|_| {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let value = values[(random >> 33) as usize % values.len()];
                if narrow { value & 0xffff_ffff } else { value }
            });
            calls.push(Call { number, audit, arguments });
        }
    }
    calls
}

/// Whether libseccomp may answer a call in another way:
/// - it does not know calls younger than itself;
/// - on x32 it compares 32 bits;
/// - where several conditional rules for one call overlap, it does not try the next one when the first had
///   the same comparison at its start: `arg < 0x1_0000_0000 or arg < 0` does not match 0xffff_ffff. Real
///   profiles do not run into that, and are compared in full.
fn differs(model: &Model, call: &Call, real: bool) -> bool {
    if !model.has_conditions(call.number) {
        return false;
    }
    let args = || model.seccomp.syscalls().iter().flatten().flat_map(|rule| rule.args().iter().flatten());
    let wide = |value: u64| value >> 32 != 0;
    let halves = model.arch == Arch::ScmpArchX32
        && (call.arguments.iter().any(|&argument| wide(argument)) || args().any(|arg| wide(arg.value())));
    // A condition that nothing can fail is none to libseccomp.
    let seen =
        if matches!(model.arch, Arch::ScmpArchX86 | Arch::ScmpArchArm) { 0xffff_ffff } else { u64::MAX };
    let empty = args().any(|arg| arg.op() == Operator::ScmpCmpMaskedEq && arg.value() & seen == 0);
    halves || empty || !real && model.conditional_alternatives(call.number) > 1
}

/// Asks the model about every call, and libseccomp too where it takes the profile; returns how many calls
/// were compared with each.
fn compare(machine: Machine, seccomp: &LinuxSeccomp, seed: u64, real: bool) -> (usize, usize) {
    let ours = compiled(machine, seccomp);
    let (main, audits) = match machine {
        Machine::X86_64 => (Arch::ScmpArchX86_64, [X86_64, X86]),
        Machine::Aarch64 => (Arch::ScmpArchAarch64, [AARCH64, ARM]),
    };
    let listed = seccomp.architectures().iter().flatten().copied();
    let all: Vec<Arch> = std::iter::once(main).chain(listed).collect();
    let whole = if real { libseccomp::program(seccomp, &all, |_| true).ok() } else { None };
    let (mut with_model, mut with_libseccomp) = (0, 0);
    for (audit, arch) in audits.into_iter().flat_map(|audit| ARCHS.map(|arch| (audit, arch))) {
        let model = Model::new(seccomp, arch);
        let names = seccomp.syscalls().iter().flatten().flat_map(|rule| rule.names());
        let younger = names.filter(|name| !model::in_libseccomp(arch, name));
        let younger: BTreeSet<u32> = younger.filter_map(|name| model::number(arch, name)).collect();
        // Version 2.5.4 forgets to load the number when the first call is one that the architecture does not
        // have, so a random profile is given to it for one architecture and without such names.
        let has = |name: &str| model::number(arch, name).is_some();
        let single = libseccomp::program(seccomp, &[arch], has).ok().filter(|_| !real && all.contains(&arch));
        let theirs = whole.as_ref().or(single.as_ref());
        for call in calls(&model, audit, arch, seed) {
            let (answer, _) = run(&ours, &call);
            let expected = model.decide(call.number, &call.arguments);
            assert!(
                expected.contains(&answer),
                "{call:x?}: {answer:#x}, expected {expected:x?} of {seccomp:?}"
            );
            with_model += 1;

            let Some(theirs) = theirs else { continue };
            if expected.len() > 1 || younger.contains(&call.number) || differs(&model, &call, real) {
                continue;
            }
            let (theirs, _) = run(theirs, &call);
            let new = theirs == model.default() && model.is_new(call.number);
            let killed = theirs == 0 && answer == model::KILL_PROCESS;
            assert!(
                theirs == answer || new || killed,
                "{call:x?}: {answer:#x}, not {theirs:#x} for {seccomp:?}"
            );
            with_libseccomp += 1;
        }
    }
    (with_model, with_libseccomp)
}

#[test]
fn real_profiles_mean_what_libseccomp_makes_of_them() {
    for (name, seccomp) in profiles() {
        for machine in [Machine::X86_64, Machine::Aarch64] {
            let (with_model, with_libseccomp) = compare(machine, &seccomp, 1, true);
            println!("{name}, {machine:?}: {with_model} calls, {with_libseccomp} of them with libseccomp");
            assert!(with_libseccomp * 2 > with_model);
        }
    }
}

/// A comparison with a value at which mistakes show.
fn condition() -> impl Strategy<Value = Value> {
    let operators = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    let value = prop_oneof![
        Just(0),
        Just(1),
        Just(u64::MAX),
        Just(0xffff_ffff),
        Just(0x1_0000_0000),
        0..10_u64,
        any::<u32>().prop_map(u64::from),
        any::<u64>(),
    ];
    (0..6_u64, value.clone(), value, proptest::sample::select(operators.to_vec())).prop_map(
        |(index, value, two, op)| {
            let two = if op == "MASKED_EQ" { two & value } else { 0 };
            json!({"index": index, "value": value, "valueTwo": two, "op": format!("SCMP_CMP_{op}")})
        },
    )
}

fn action() -> impl Strategy<Value = (String, Option<u32>)> {
    prop_oneof![
        proptest::sample::select(&["KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ALLOW", "LOG"])
            .prop_map(|action| (format!("SCMP_ACT_{action}"), None)),
        (0..200_u32).prop_map(|errno| ("SCMP_ACT_ERRNO".to_owned(), Some(errno))),
        (0..200_u32).prop_map(|data| ("SCMP_ACT_TRACE".to_owned(), Some(data))),
        Just(("SCMP_ACT_ERRNO".to_owned(), None)),
    ]
}

fn rule() -> impl Strategy<Value = Value> {
    let few = ["read", "getpid", "socket", "clone", "personality", "shmat", "execve", "cacheflush", "mmap2"];
    let name = prop_oneof![
        proptest::sample::select(few.to_vec()).prop_map(str::to_owned),
        proptest::sample::select(syscalls::x86_64::Sysno::iter().collect::<Vec<_>>())
            .prop_map(|call| call.name().to_owned()),
        proptest::sample::select(syscalls::arm::Sysno::iter().collect::<Vec<_>>())
            .prop_map(|call| call.name().to_owned()),
    ];
    let names = proptest::collection::vec(name, 1..8);
    let args = prop_oneof![
        Just(Vec::new()),
        proptest::collection::vec(condition(), 1..2),
        proptest::collection::vec(condition(), 1..4)
    ];
    (names, action(), args).prop_map(|(names, (action, errno), args)| {
        json!({"names": names, "action": action, "errnoRet": errno, "args": args})
    })
}

fn profile() -> impl Strategy<Value = LinuxSeccomp> {
    let archs = ["X86_64", "X86", "X32", "AARCH64", "ARM"].map(|arch| format!("SCMP_ARCH_{arch}"));
    let archs = proptest::sample::subsequence(archs.to_vec(), 0..=5);
    (action(), archs, proptest::collection::vec(rule(), 0..12)).prop_map(|((action, errno), archs, rules)| {
        serde_json::from_value(json!({
            "defaultAction": action, "defaultErrnoRet": errno, "architectures": archs, "syscalls": rules,
        }))
        .unwrap()
    })
}

#[test]
fn random_profiles_mean_what_the_specification_says() {
    let mut totals = (0, 0);
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    let totals_seen = std::cell::RefCell::new(&mut totals);
    let result = TestRunner::new(config).run(&(profile(), any::<u64>()), |(seccomp, seed)| {
        for machine in [Machine::X86_64, Machine::Aarch64] {
            let (with_model, with_libseccomp) = compare(machine, &seccomp, seed, false);
            let mut totals = totals_seen.borrow_mut();
            totals.0 += with_model;
            totals.1 += with_libseccomp;
        }
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
    println!("{} calls, {} of them with libseccomp", totals.0, totals.1);
    assert!(totals.1 * 3 > totals.0);
}

/// Every call of every architecture that libseccomp knows, by its number there, and every call that we know.
#[test]
fn numbers_are_those_of_libseccomp() {
    let machines = [
        (Machine::X86_64, X86_64, 0, Arch::ScmpArchX86_64),
        (Machine::X86_64, X86, 0, Arch::ScmpArchX86),
        (Machine::X86_64, X86_64, model::X32_BIT, Arch::ScmpArchX32),
        (Machine::Aarch64, AARCH64, 0, Arch::ScmpArchAarch64),
        (Machine::Aarch64, ARM, 0, Arch::ScmpArchArm),
    ];
    for (machine, audit, bit, arch) in machines {
        let mut count = 0;
        for number in (0..600).chain(0xf0000..0xf0010).map(|number| number | bit) {
            let Some(name) = libseccomp::name(arch, number) else { continue };
            let seccomp: LinuxSeccomp = serde_json::from_value(json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": [arch],
                "syscalls": [{"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 7}],
            }))
            .unwrap();
            let program = compiled(machine, &seccomp);
            let allowed = |number| run(&program, &Call { number, audit, arguments: [0; 6] }).0 == 0x7fff_0000;
            let around = [number.saturating_sub(1), number + 1].map(allowed);
            assert!(!allowed(number) && (number == bit || around == [true, true]), "{name} on {arch}");
            count += 1;
        }
        assert!(count > 300, "{arch} has only {count}");
    }
}

/// seccompiler knows one action for all that matches and one for the rest, on one architecture.
fn seccompilers(names: &[(String, Vec<Value>)], errno: u32) -> Vec<u8> {
    use seccompiler::{
        SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    };
    let mut rules = std::collections::BTreeMap::<i64, Vec<SeccompRule>>::new();
    for (name, conditions) in names {
        let number = model::number(Arch::ScmpArchX86_64, name).unwrap().into();
        let conditions = conditions.iter().map(|condition| {
            let field = |name: &str| condition[name].as_u64().unwrap();
            let (operator, value) = match condition["op"].as_str().unwrap() {
                "SCMP_CMP_NE" => (SeccompCmpOp::Ne, field("value")),
                "SCMP_CMP_LT" => (SeccompCmpOp::Lt, field("value")),
                "SCMP_CMP_LE" => (SeccompCmpOp::Le, field("value")),
                "SCMP_CMP_EQ" => (SeccompCmpOp::Eq, field("value")),
                "SCMP_CMP_GE" => (SeccompCmpOp::Ge, field("value")),
                "SCMP_CMP_GT" => (SeccompCmpOp::Gt, field("value")),
                "SCMP_CMP_MASKED_EQ" => (SeccompCmpOp::MaskedEq(field("value")), field("valueTwo")),
                other => panic!("{other}"),
            };
            SeccompCondition::new(field("index") as u8, SeccompCmpArgLen::Qword, operator, value).unwrap()
        });
        // An empty list of rules matches always; once it does, it must stay so.
        let conditions: Vec<_> = conditions.collect();
        let known = rules.get(&number).is_some_and(Vec::is_empty);
        match (conditions.is_empty(), known) {
            (true, _) => drop(rules.insert(number, Vec::new())),
            (false, true) => {}
            (false, false) => rules.entry(number).or_default().push(SeccompRule::new(conditions).unwrap()),
        }
    }
    let arch = seccompiler::TargetArch::x86_64;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), arch).unwrap();
    let program: seccompiler::BpfProgram = filter.try_into().unwrap();
    let bytes = |i: seccompiler::sock_filter| {
        let ([c0, c1], [k0, k1, k2, k3]) = (i.code.to_ne_bytes(), i.k.to_ne_bytes());
        [c0, c1, i.jt, i.jf, k0, k1, k2, k3]
    };
    program.into_iter().flat_map(bytes).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_profiles_with_one_action_mean_what_seccompiler_makes_of_them(
        mut rules in proptest::collection::vec((rule(), any::<bool>()), 1..8),
        seed: u64,
    ) {
        let mut names = Vec::new();
        for (rule, conditional) in &mut rules {
            rule["action"] = "SCMP_ACT_ERRNO".into();
            rule["errnoRet"] = 7.into();
            if !*conditional {
                rule["args"] = json!([]);
            }
            let args = rule["args"].as_array().unwrap().clone();
            let indices: BTreeSet<u64> = args.iter().map(|arg| arg["index"].as_u64().unwrap()).collect();
            let alternatives: Vec<Vec<Value>> = match indices.len() == args.len() {
                true => vec![args],
                false => args.into_iter().map(|arg| vec![arg]).collect(),
            };
            let known = |name: &&str| model::number(Arch::ScmpArchX86_64, name).is_some();
            for name in rule["names"].as_array().unwrap().iter().filter_map(Value::as_str).filter(known) {
                names.extend(alternatives.iter().map(|alternative| (name.to_owned(), alternative.clone())));
            }
        }
        let rules: Vec<Value> = rules.into_iter().map(|rule| rule.0).collect();
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
        let seccomp: LinuxSeccomp = serde_json::from_value(profile).unwrap();
        let (ours, theirs) = (compiled(Machine::X86_64, &seccomp), seccompilers(&names, 7));
        let model = Model::new(&seccomp, Arch::ScmpArchX86_64);
        for call in calls(&model, X86_64, Arch::ScmpArchX86_64, seed) {
            prop_assert_eq!(run(&ours, &call).0, run(&theirs, &call).0, "{:x?}", call);
        }
    }
}

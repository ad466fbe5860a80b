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
    result.expect_err("a bad profile").iter().map(Finding::to_string).collect()
}

fn warnings(profile: Value) -> Vec<String> {
    let mut warnings = Vec::new();
    compile_for(Machine::X86_64, &parse(profile), &mut warnings).expect("a good profile");
    warnings.iter().map(Finding::to_string).collect()
}

#[test]
fn the_smallest_profile_is_these_instructions() {
    let filter = filter(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["getpid"], "action": "SCMP_ACT_ERRNO"}],
    }));
    #[rustfmt::skip]
    let expected: &[(u16, u8, u8, u32)] = &[
        (0x20, 0, 0, 4),           // load the architecture
        (0x15, 0, 6, X86_64),      // something else? kill
        (0x20, 0, 0, 0),           // load the number
        (0x35, 0, 2, X32_BIT),     // below bit 30?
        (0x35, 1, 3, u32::MAX),
        (0x06, 0, 0, 0),
    ];
    let words: Vec<(u16, u8, u8, u32)> = filter
        .program
        .chunks(8)
        .map(|i| {
            (u16::from_ne_bytes([i[0], i[1]]), i[2], i[3], u32::from_ne_bytes(i[4..].try_into().unwrap()))
        })
        .collect();
    println!("{words:x?}");
    assert_eq!(words[0], expected[0]);
    assert_eq!(decide(&filter, X86_64, 39, &[]), EPERM);
    assert_eq!(decide(&filter, X86_64, 40, &[]), ALLOW);
    assert_eq!(decide(&filter, X86_64, X32_BIT + 40, &[]), KILL_PROCESS);
}

//! A profile's filter against a plain model of what the profile means, in an interpreter of BPF.

#[path = "../../libruntime/src/seccomp/interpreter.rs"]
mod interpreter;
#[path = "../../libruntime/tests/seccomp_oracle/libseccomp.rs"]
#[allow(dead_code)] // the model asks it for the numbers of calls alone
mod libseccomp;
#[path = "../../libruntime/tests/seccomp_oracle/model.rs"]
#[allow(dead_code)] // what other oracles ask it
mod model;

use interpreter::Call;
use libruntime::seccomp::{Machine, compile_for};
use model::Model;
use oci_spec::runtime::LinuxSeccomp;

const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
/// `socketcall` and `ipc` of x86: one number for several calls.
const MULTIPLEXING: [u32; 2] = [102, 117];

/// A profile that is accepted decides as the model says, for calls of each kind of entry.
pub fn profile(bytes: &[u8]) {
    let Ok(profile) = serde_json::from_slice::<LinuxSeccomp>(bytes) else { return };
    let Ok(filter) = compile_for(Machine::X86_64, &profile, &mut Vec::new()) else { return };
    let arguments = arguments(&profile);
    for audit in [X86_64, X86] {
        for number in numbers(&profile) {
            let Some(arch) = model::arch_of(audit, number) else { continue };
            if audit == X86 && MULTIPLEXING.contains(&number) {
                continue;
            }
            let model = Model::new(&profile, arch);
            for arguments in &arguments {
                let arguments = if audit == X86 { arguments.map(|value| value & 0xffff_ffff) } else { *arguments };
                let call = Call { number, audit, arguments };
                let (decided, _) = interpreter::run(&filter.program, &call);
                let allowed = model.decide(number, &arguments);
                assert!(allowed.contains(&decided), "{call:?}: {decided:#x}, not {allowed:x?}");
            }
        }
    }
}

/// Numbers at which something may change: those of the first rules, and their neighbours.
fn numbers(profile: &LinuxSeccomp) -> Vec<u32> {
    let names = profile.syscalls().iter().flatten().flat_map(|rule| rule.names());
    let mut found: Vec<u32> = names.filter_map(|name| name.parse::<syscalls::x86_64::Sysno>().ok()).map(|call| call.id() as u32).collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(12);
    let near: Vec<u32> = found.iter().flat_map(|number| [number + 1, number.saturating_sub(1)]).collect();
    found.extend(near);
    found.extend([0, 471, 9999, model::X32_BIT, model::X32_BIT | 512]);
    found
}

/// Arguments at which a comparison of the profile changes its result.
fn arguments(profile: &LinuxSeccomp) -> Vec<[u64; 6]> {
    let mut values = vec![0, u64::MAX, 1 << 32];
    for arg in profile.syscalls().iter().flatten().flat_map(|rule| rule.args().iter().flatten()).take(4) {
        let value = arg.value();
        values.extend([value, value.wrapping_add(1), value.wrapping_sub(1), value ^ 1 << 32]);
        values.extend(arg.value_two());
    }
    values.into_iter().map(|value| [value; 6]).collect()
}

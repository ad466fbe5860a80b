//! Fuzz targets in one program: FUZZ_TARGET names the one that gets the inputs. `run` builds it and goes
//! through all targets. A target must not panic, hang or overflow, and asserts what has to hold.

#![no_main]

mod json;
mod seccomp;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use std::sync::OnceLock;

type Target = fn(&[u8]);

/// The targets, and whether their inputs are JSON.
const TARGETS: &[(&str, Target, bool)] = &[
    ("config", libruntime::fuzzing::config, true),
    ("process", libruntime::fuzzing::process, true),
    ("resources", libruntime::fuzzing::resources, true),
    ("seccomp", seccomp::profile, true),
    ("state", libruntime::fuzzing::state, true),
    ("steps", libruntime::fuzzing::steps, false),
    ("netlink", libruntime::fuzzing::netlink, false),
    ("dbus", libruntime::fuzzing::dbus, false),
    ("networks", libruntime::fuzzing::networks, false),
];

fn target() -> (Target, bool) {
    static TARGET: OnceLock<(Target, bool)> = OnceLock::new();
    *TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.iter().find(|(known, ..)| *known == name);
        let names: Vec<&str> = TARGETS.iter().map(|(known, ..)| *known).collect();
        let (_, target, json) = found.unwrap_or_else(|| panic!("FUZZ_TARGET is one of {}", names.join(", ")));
        (*target, *json)
    })
}

fuzz_target!(|bytes: &[u8]| target().0(bytes));

// Bytes of JSON that are changed at random are hardly ever JSON: half of the changes are made in the tree.
fuzz_mutator!(|data: &mut [u8], size: usize, most: usize, seed: u32| {
    let tree = target().1 && seed % 2 == 0;
    match tree.then(|| json::changed(&data[..size], seed)).flatten() {
        Some(text) if text.len() <= most => {
            data[..text.len()].copy_from_slice(&text);
            text.len()
        }
        _ => libfuzzer_sys::fuzzer_mutate(data, size, most),
    }
});

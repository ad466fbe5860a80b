//! The fuzz target of the command line names the command's modules once more, and is built by `fuzz/run` alone.

use std::collections::BTreeSet;

fn modules(file: &str) -> BTreeSet<String> {
    let text =
        std::fs::read_to_string(format!("{}/src/{file}", env!("CARGO_MANIFEST_DIR"))).expect("it is there");
    let name =
        |line: &str| line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')).map(str::to_owned);
    text.lines().filter_map(name).collect()
}

#[test]
fn the_fuzz_target_has_the_modules_of_the_command() {
    let mut fuzzed = modules("fuzz.rs");
    assert!(fuzzed.remove("no_calls"));
    assert_eq!(fuzzed, modules("main.rs"));
}

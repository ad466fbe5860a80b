//! `features`: what this build can do, as the spec's features structure (features.md).

use crate::cli::{Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;
use crate::output;

pub const VERB: Verb = Verb {
    name: "features",
    about: "print what this runtime can do, as JSON",
    arguments: "",
    count: (0, 0),
    trailing: false,
    text: "",
    flags: &[],
    run,
};

pub fn run(_: &Global, _: &Parsed) -> Result<u8, Failure> {
    output::print_json(&libruntime::features()?, "    ")
}

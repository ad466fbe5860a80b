//! `state`: "MUST return the state of a container as specified in the State section" (runtime.md,
//! "Query State").

use crate::cli::{Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;
use crate::output;

pub const VERB: Verb = Verb::of_container("state", "print the state of a container as JSON", run);

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    output::print_json(&global.load(args)?.state(), "  ")
}

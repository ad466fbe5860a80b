//! `pause`: stops every process of a container until `resume`. Not in the spec.

use crate::cli::{Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;

pub const VERB: Verb = Verb::of_container("pause", "stop all processes of a container for a while", run);

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    global.load(args)?.pause()?;
    Ok(0)
}

//! `resume`: lets a paused container go on. Not in the spec.

use crate::cli::{Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;

pub const VERB: Verb = Verb::of_container("resume", "let a paused container go on", run);

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    global.load(args)?.resume()?;
    Ok(0)
}

//! `start`: "MUST run the user-specified program as specified by `process`" (runtime.md, "Start").

use crate::cli::{Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;
use crate::signals::Interrupt;
use crate::traced::{TRACE, traced};

pub const VERB: Verb =
    Verb { flags: &[TRACE], ..Verb::of_container("start", "run the program of a created container", run) };

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    let container = global.load(args)?.with_cancel(Interrupt::block()?);
    let readiness = container.readiness()?;
    traced(global, args, || Ok(container.start()?))?;
    if let Some(readiness) = readiness {
        Interrupt::release()?;
        readiness.pass_on()?;
    }
    Ok(0)
}

//! `start`: "MUST run the user-specified program as specified by `process`" (runtime.md, "Start").

use crate::cli::{Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;

pub const VERB: Verb = Verb {
    name: "start",
    about: "run the program of a created container",
    arguments: "<container-id>",
    count: (1, 1),
    trailing: false,
    text: "",
    flags: &[],
};

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    let container = global.load(args)?;
    let readiness = container.readiness()?;
    container.start()?.iter().for_each(|error| global.warn(&error.to_string()));
    if let Some(readiness) = readiness {
        readiness.pass_on()?;
    }
    Ok(0)
}

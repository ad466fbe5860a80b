//! `delete`: "MUST delete the resources that were created during the create step" (runtime.md,
//! "Delete").

use crate::cli::{Flag, Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;
use crate::signals::Interrupt;
use libruntime::{Container, ErrorKind};

pub const VERB: Verb = Verb {
    name: "delete",
    about: "remove a container that is stopped",
    arguments: "<container-id>",
    count: (1, 1),
    trailing: false,
    text: "",
    flags: &[Flag::switch("force", "kill it first; one that does not exist is no error").short("f")],
};

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    let force = args.is_set("force");
    let load = if force { Container::load_damaged } else { Container::load };
    match load(&global.root, args.positional(0)) {
        Err(error) if force && error.kind() == ErrorKind::NotFound => {}
        container => {
            let mut container = container?;
            global.warn_of(container.warnings());
            container.interrupt_by(Interrupt::block()?.as_fd())?;
            container.delete(force)?.iter().for_each(|error| global.warn(&error.to_string()));
        }
    }
    Ok(0)
}

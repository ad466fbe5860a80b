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
    arguments: "<container-id or regular expression>",
    count: (1, 1),
    trailing: false,
    text: "",
    flags: &[
        Flag::switch("force", "kill it first; one that does not exist is no error").short("f"),
        Flag::switch("regex", "all containers whose id matches; with none it is no error").short("r"),
    ],
};

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    let force = args.is_set("force");
    if args.is_set("regex") {
        return delete_matching(global, args.positional(0), force);
    }
    let load = if force { Container::load_damaged } else { Container::load };
    match load(&global.root, args.positional(0)) {
        Err(error) if force && error.kind() == ErrorKind::NotFound => {}
        container => delete(global, container?, force, &Interrupt::block()?)?,
    }
    Ok(0)
}

fn delete(
    global: &Global,
    mut container: Container,
    force: bool,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    global.warn_of(container.warnings());
    container.interrupt_by(interrupt.as_fd())?;
    container.delete(force)?.iter().for_each(|error| global.warn(&error.to_string()));
    Ok(())
}

/// Those that cannot be deleted stay, and are no error, as with crun: `.*` is for all that are stopped.
fn delete_matching(global: &Global, pattern: &str, force: bool) -> Result<u8, Failure> {
    let interrupt = Interrupt::block()?;
    for container in Container::matching(&global.root, pattern)? {
        if let Err(failure) = delete(global, container, force, &interrupt) {
            global.tell(&failure);
        }
    }
    Ok(0)
}

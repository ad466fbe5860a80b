//! `delete`: "MUST delete the resources that were created during the create step" (runtime.md,
//! "Delete").

use crate::cli::{Flag, Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;
use crate::signals::Interrupt;
use libruntime::{Cancel, Container, ErrorKind};

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
    run,
};

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    let force = args.is_set("force");
    if args.is_set("regex") {
        return delete_matching(global, args.positional(0), force);
    }
    let id = args.positional(0);
    let loaded = if force { global.runtime.load_damaged(id) } else { global.runtime.load(id) };
    match loaded {
        Err(error) if force && error.kind() == ErrorKind::NotFound => {}
        container => delete(global, &container?, force, Interrupt::block()?)?,
    }
    Ok(0)
}

fn delete(global: &Global, container: &Container, force: bool, cancel: Cancel) -> Result<(), Failure> {
    global.warn_of(container.warnings());
    let container = container.with_cancel(cancel);
    let failed = if force { container.delete_force() } else { container.delete() };
    global.warn_of(&failed?);
    Ok(())
}

/// Containers that cannot be deleted stay, and are no error, as with crun: `.*` deletes all that are stopped.
fn delete_matching(global: &Global, pattern: &str, force: bool) -> Result<u8, Failure> {
    let cancel = Interrupt::block()?;
    for container in global.runtime.matching(pattern)? {
        if let Err(failure) = delete(global, &container, force, cancel.clone()) {
            global.tell(&failure);
        }
    }
    Ok(0)
}

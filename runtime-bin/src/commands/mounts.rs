//! `mounts`: adds mounts to a running container, or removes them. Not in the specification; as in crun.

use crate::cli::{Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;
use crate::input;

pub const VERB: Verb = Verb {
    name: "mounts",
    about: "add mounts to a running container, or remove them",
    arguments: "add|remove <container-id> <file>",
    count: (3, 3),
    trailing: false,
    text: "The file has a list of mounts, as in config.json; - reads standard input. For their removal the\n\
           destinations are enough. No destination is reached through a symbolic link. Needs root.",
    flags: &[],
    run,
};

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    let [verb, id, file] = &args.rest[..] else {
        return Err(Failure::usage("add|remove <container-id> <file>"));
    };
    if !["add", "remove"].contains(&verb.as_str()) {
        return Err(Failure::usage(format!("unknown command {verb}: add or remove")));
    }
    let container = global.runtime.load(id)?;
    let bytes = if file == "-" { input::read_standard()? } else { input::read(file)? };
    if verb == "add" {
        let (mounts, warnings) = libruntime::parse_mounts(&bytes)?;
        global.warn_of(&warnings);
        global.warn_of(&container.add_mounts(&mounts)?);
    } else {
        container.remove_mounts(&libruntime::parse_destinations(&bytes)?)?;
    }
    Ok(0)
}

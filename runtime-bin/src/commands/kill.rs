//! `kill`: "MUST send the specified signal to the container process … if the container is neither
//! created nor running MUST generate an error" (runtime.md, "Kill").

use crate::cli::{Flag, Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;
use crate::signals;
use libruntime::Container;

pub const VERB: Verb = Verb {
    name: "kill",
    about: "send a signal to a container's program (default: TERM)",
    arguments: "<container-id or regular expression> [signal]",
    count: (1, 2),
    trailing: false,
    text: "A signal is a name with or without SIG, such as TERM, SIGKILL or RTMIN+1, or a number.",
    flags: &[
        Flag::switch("all", "send it to all processes of the container").short("a"),
        Flag::switch("regex", "to all containers whose id matches; with none it is no error").short("r"),
    ],
};

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    let signal = signals::parse(args.rest.get(1).map_or("TERM", String::as_str))?;
    let all = args.is_set("all");
    if !args.is_set("regex") {
        global.load(args)?.kill(signal, all)?;
        return Ok(0);
    }
    for container in Container::matching(&global.root, args.positional(0))? {
        if let Err(error) = container.kill(signal, all) {
            // One that has ended meanwhile is no reason to fail, as with crun.
            global.tell(&error.into());
        }
    }
    Ok(0)
}

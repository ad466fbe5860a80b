//! `kill`: "MUST send the specified signal to the container process … if the container is neither
//! created nor running MUST generate an error" (runtime.md, "Kill").

use crate::cli::{Flag, Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;
use libruntime::{Container, Signal};

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
    run,
};

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    let signal: Signal = args.rest.get(1).map_or("TERM", String::as_str).parse()?;
    let all = args.is_set("all");
    let kill = |container: &Container| if all { container.kill_all(signal) } else { container.kill(signal) };
    if !args.is_set("regex") {
        kill(&global.load(args)?)?;
        return Ok(0);
    }
    for container in global.runtime.matching(args.positional(0))? {
        if let Err(error) = kill(&container) {
            // A container that has ended meanwhile is no failure, as with crun.
            global.tell(&error.into());
        }
    }
    Ok(0)
}

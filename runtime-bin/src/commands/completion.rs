//! `completion`: a shell's completions for this command.

use crate::cli::{Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;
use crate::output;
use crate::shells;

pub const VERB: Verb = Verb {
    name: "completion",
    about: "print the completions of a shell",
    arguments: "bash|zsh|fish",
    count: (1, 1),
    trailing: false,
    text: "For bash: source <(onggi completion bash). For zsh: a file _onggi in $fpath.\n\
           For fish: onggi.fish in ~/.config/fish/completions.",
    flags: &[],
    run,
};

pub fn run(_: &Global, args: &Parsed) -> Result<u8, Failure> {
    output::print(&match args.positional(0) {
        "bash" => shells::bash(),
        "zsh" => shells::zsh(),
        "fish" => shells::fish(),
        other => return Err(Failure::usage(format!("no completions for {other:?}; bash, zsh or fish"))),
    })
}

//! `check`: whether containers can run here, what they would do without, and how to get it.

use crate::cli::{Flag, Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;
use crate::output;

pub const VERB: Verb = Verb {
    name: "check",
    about: "say what this host lacks for containers, and how to get it",
    arguments: "",
    count: (0, 0),
    trailing: false,
    text: "Makes and deletes a container for it. The exit code is 1 when containers cannot run.\n\
           With --systemd-cgroup before the command it tries that driver.",
    flags: &[Flag::value("format", "FORMAT", "text or json (default: text)").short("f")],
};

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    let format = args.get("format").unwrap_or("text");
    if !["text", "json"].contains(&format) {
        return Err(Failure::usage(format!("--format is text or json, not {format:?}")));
    }
    let report = libruntime::check(&global.runtime);
    match format {
        "json" => output::print_json(&report, "  ")?,
        _ => output::print(&report.to_string())?,
    };
    Ok(u8::from(!report.can_run))
}

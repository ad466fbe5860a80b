//! `check`: whether containers can run here, what they would lack, and how to provide it. With a bundle: everything
//! that is wrong with it. No other runtime has it.

use crate::cli::{Flag, Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;
use crate::{output, snippets};
use std::io::IsTerminal;

pub const VERB: Verb = Verb {
    name: "check",
    about: "say what this host lacks for containers, or what is wrong with a bundle",
    arguments: "",
    count: (0, 0),
    trailing: false,
    text: "Without --bundle it makes and deletes a container. The exit code is 1 when containers cannot run.\n\
           With --systemd-cgroup before the command it tries that driver.\n\
           With --bundle it checks the bundle's config.json against the specification, this kernel and this\n\
           user, and looks for the files that it names. All findings are printed, with file, line and column.\n\
           Nothing is run or changed. The exit code is 1 when no container can be created from the bundle.",
    flags: &[
        Flag::value("bundle", "DIR", "the bundle to check").short("b"),
        Flag::value("format", "FORMAT", "text or json (default: text)").short("f"),
    ],
    run,
};

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    let format = args.get("format").unwrap_or("text");
    if !["text", "json"].contains(&format) {
        return Err(Failure::usage(format!("--format is text or json, not {format:?}")));
    }
    if let Some(bundle) = args.get("bundle") {
        let report = global.runtime.check_bundle(bundle)?;
        let colors = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        match format {
            "json" => output::print_json(&report, "  ")?,
            _ => output::print(&snippets::render(&report, colors))?,
        };
        return Ok(u8::from(report.errors() > 0));
    }
    let report = libruntime::check(&global.runtime);
    match format {
        "json" => output::print_json(&report, "  ")?,
        _ => output::print(&report.to_string())?,
    };
    Ok(u8::from(!report.can_run))
}

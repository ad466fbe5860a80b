//! `explain`: what `create` would do with a bundle, step by step, each with the place in `config.json` that asks for
//! it. Changes nothing and needs no privileges. No other runtime has it.

use super::create::{BUNDLE, CONFIG, Configured, bundle};
use crate::cli::{Flag, Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;
use crate::networks::{self, BANDWIDTH, NETWORK, PUBLISH};
use crate::output;

pub const VERB: Verb = Verb {
    name: "explain",
    about: "show what create would do, and why, without doing it",
    arguments: "[container-id]",
    count: (0, 1),
    trailing: false,
    text: networks::TEXT,
    flags: &[
        BUNDLE,
        CONFIG,
        Flag::value("format", "FORMAT", "text or json (default: text)").short("o"),
        NETWORK,
        PUBLISH,
        BANDWIDTH,
    ],
    run,
};

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    let json = match args.get("format") {
        None | Some("text" | "") => false,
        Some("json") => true,
        Some(other) => return Err(Failure::usage(format!("--format is text or json, not {other:?}"))),
    };
    let configured = Configured::read(args)?;
    let id = if args.rest.is_empty() { "container" } else { args.positional(0) };
    let mut builder = global.runtime.container(id).bundle(bundle(args)).spec(configured.spec);
    for network in networks::of(args)? {
        builder = builder.network(network);
    }
    let explanation = builder.explain()?;
    if json {
        output::print_json(&explanation.to_json(), "  ")
    } else {
        output::print(&explanation.to_text())
    }
}

//! `list`: the containers below `--root`. Not in the specification; the columns are those of other runtimes.

use crate::cli::{Flag, Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;
use crate::output;

pub const FORMAT: Flag = Flag::value("format", "FORMAT", "table or json (default: table)").short("f");

pub const VERB: Verb = Verb {
    name: "list",
    about: "list the containers below --root",
    arguments: "",
    count: (0, 0),
    trailing: false,
    text: "",
    flags: &[FORMAT, Flag::switch("quiet", "print ids only").short("q")],
    run,
};

/// Whether JSON is wanted.
pub fn in_json(args: &Parsed) -> Result<bool, Failure> {
    match args.get(FORMAT.name) {
        None | Some("table" | "") => Ok(false),
        Some("json") => Ok(true),
        Some(other) => Err(Failure::new(format!("invalid format option: {other:?}; it is table or json"))),
    }
}

pub fn run(global: &Global, args: &Parsed) -> Result<u8, Failure> {
    let json = in_json(args)?;
    if global.root_is_given
        && let Err(error) = std::fs::metadata(global.runtime.root())
    {
        return Err(Failure::os(format_args!("open {}", global.runtime.root().display()), error));
    }
    let mut states = Vec::new();
    for (id, container) in global.runtime.containers()? {
        match container {
            Ok(container) => states.push(container.state()),
            Err(error) => global.warn(&format!("container {id} is left out: {error}")),
        }
    }
    if args.is_set("quiet") {
        return output::print(&states.iter().map(|state| format!("{}\n", state.id)).collect::<String>());
    }
    if json {
        let text = serde_json::to_string(&states);
        let text = text.map_err(|error| Failure::new(format!("encode JSON: {error}")))?;
        return output::print(&format!("{text}\n"));
    }
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(states.into_iter().map(|state| {
        let (pid, status) = (state.pid.to_string(), state.status.to_string());
        vec![state.id, pid, status, state.bundle.display().to_string(), state.created, state.owner]
    }));
    output::print(&output::table(&rows))
}

//! `list`: the containers below `--root`. Not in the spec; the columns are the field's.

use crate::cli::{Flag, Parsed, Verb};
use crate::failure::Failure;
use crate::global::Global;
use crate::output;
use libruntime::Container;

pub const FORMAT: Flag = Flag::value("format", "FORMAT", "table or json (default: table)").short("f");

pub const VERB: Verb = Verb {
    name: "list",
    about: "list the containers below --root",
    arguments: "",
    count: (0, 0),
    trailing: false,
    text: "",
    flags: &[FORMAT, Flag::switch("quiet", "print ids only").short("q")],
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
        && let Err(error) = std::fs::metadata(&global.root)
    {
        return Err(Failure::os(format_args!("open {}", global.root.display()), error));
    }
    let containers = Container::list(&global.root)?;
    if args.is_set("quiet") {
        return output::print(&containers.iter().map(|c| format!("{}\n", c.id())).collect::<String>());
    }
    let states: Vec<_> = containers.iter().map(Container::state).collect();
    if json {
        return output::print(&format!("{}\n", serde_json::Value::from(states)));
    }
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for state in states {
        let text = |key: &str| state[key].as_str().map_or_else(|| state[key].to_string(), String::from);
        rows.push(head.map(|name| text(&name.to_lowercase())).to_vec());
    }
    output::print(&output::table(&rows))
}

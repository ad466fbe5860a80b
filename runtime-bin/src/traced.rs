//! `--trace`: where the time of a verb went, in a file whose name says in which form.

use crate::cli::{Flag, Parsed};
use crate::failure::Failure;
use crate::global::Global;
use crate::output;
use libruntime::Timeline;
use std::fs::File;
use std::io::Write;

pub const TRACE: Flag = Flag::value(
    "trace",
    "FILE",
    "write where the time went: FILE.txt a table, FILE.json a trace for Perfetto or Chrome, FILE.svg a picture",
);

enum Form {
    Text,
    Json,
    Svg,
}

/// Does `work`; with `--trace` what it does is recorded, and written at its end. The file is created first, so that a
/// file that cannot be written is an error before anything is done.
pub fn traced<T>(
    global: &Global,
    args: &Parsed,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let Some(path) = args.get(TRACE.name).filter(|path| !path.is_empty()) else { return work() };
    let form = match path.rsplit_once('.') {
        Some((_, "txt")) => Form::Text,
        Some((_, "json")) => Form::Json,
        Some((_, "svg")) => Form::Svg,
        _ => return Err(Failure::usage(format!("--trace {path:?}: a name ends in .txt, .json or .svg"))),
    };
    let failed = |error| Failure::os(format_args!("write {path}"), error);
    let mut file = File::create(path).map_err(failed)?;
    let timeline = Timeline::new();
    let result = timeline.record(work);
    let text = match form {
        Form::Text => timeline.to_text(),
        Form::Json => output::to_json(&timeline.to_chrome_json(), " ")?,
        Form::Svg => timeline.to_svg(),
    };
    if let Err(error) = file.write_all(text.as_bytes()) {
        // Only a warning, because the verb has done its work.
        global.warn(&failed(error).message);
    }
    result
}

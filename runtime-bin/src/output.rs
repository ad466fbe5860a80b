//! Writing results to standard output. A reader that has gone away is no error.

use crate::failure::Failure;
use serde::Serialize;
use std::io::{ErrorKind, Write};

/// Prints `text` as it is. Returns the exit code of a command that does nothing else.
pub fn print(text: &str) -> Result<u8, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::os("write standard output", error))
        }
        _ => Ok(0),
    }
}

/// Prints a value as JSON with the given indentation, and a newline.
pub fn print_json(value: &impl Serialize, indent: &str) -> Result<u8, Failure> {
    print(&(to_json(value, indent)? + "\n"))
}

pub fn to_json(value: &impl Serialize, indent: &str) -> Result<String, Failure> {
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    value.serialize(&mut serializer).map_err(|error| Failure::new(format!("encode JSON: {error}")))?;
    String::from_utf8(bytes).map_err(|error| Failure::new(format!("encode JSON: {error}")))
}

/// Columns of at least 12 characters with 3 spaces between, as in the `list` of other runtimes.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count() + 3).max().unwrap_or(0).max(12);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<String>().trim_end().to_string() + "\n"
    };
    rows.iter().map(line).collect()
}

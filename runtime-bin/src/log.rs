//! `--log`: the last error, and warnings, as lines for engines, in runc's form; and messages for people on standard
//! error.
//!
//! A person gets `onggi: message`. A program that asked for JSON without naming a file gets one
//! JSON object on standard error, with the fields of the library's error.

use crate::cli::Parsed;
use crate::failure::Failure;
use nix::libc;
use serde_json::{Map, Value, json};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

#[derive(Default)]
pub struct Log {
    file: Option<File>,
    json: bool,
    debug: bool,
}

impl Log {
    pub fn open(flags: &Parsed) -> Result<Self, Failure> {
        let json = match flags.get("log-format") {
            None | Some("text" | "") => false,
            Some("json") => true,
            Some(other) => {
                return Err(Failure::usage(format!("invalid log-format: {other}")));
            }
        };
        let open = |path| open_file(path).map_err(|error| Failure::os(format_args!("open {path}"), error));
        let file = flags.get("log").filter(|path| !path.is_empty()).map(open).transpose()?;
        Ok(Self { file, json, debug: flags.is_set("debug") })
    }

    pub fn error(&self, failure: &Failure) {
        self.record("error", &failure.message, None);
        let in_json = self.json && self.file.is_none();
        if in_json {
            self.stderr(&json_line("error", &failure.message, failure.detail.as_ref()));
        } else {
            let name = if failure.message.starts_with("onggi ") { "" } else { "onggi: " };
            self.stderr(&printable(&format!("{name}{}", failure.message)));
        }
    }

    /// Always written to the log; to standard error only with `--debug`.
    pub fn warning(&self, message: &str) {
        self.record("warning", message, None);
        if self.debug && !(self.json && self.file.is_none()) {
            self.stderr(&printable(&format!("onggi: warning: {message}")));
        } else if self.debug {
            self.stderr(&json_line("warning", message, None));
        }
    }

    /// Does `work`; with `--debug` each event of the library is a record, in the log, or without a log on standard
    /// error.
    pub fn debugging<T>(&'static self, work: impl FnOnce() -> T) -> T {
        if !self.debug {
            return work();
        }
        let observer = move |event: &libruntime::Event| self.debug(&event.to_string());
        libruntime::observe(std::sync::Arc::new(observer), work)
    }

    fn debug(&self, message: &str) {
        match (&self.file, self.json) {
            (Some(_), _) => self.record("debug", message, None),
            (None, true) => self.stderr(&json_line("debug", message, None)),
            (None, false) => self.stderr(&text_line("debug", message)),
        }
    }

    fn record(&self, level: &str, message: &str, detail: Option<&Value>) {
        let Some(mut file) = self.file.as_ref() else { return };
        let line = if self.json { json_line(level, message, detail) } else { text_line(level, message) };
        // One write, so that lines of several writers stay whole. A failure cannot be reported anywhere.
        let _ = file.write_all((line + "\n").as_bytes());
    }

    fn stderr(&self, line: &str) {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

fn json_line(level: &str, message: &str, detail: Option<&Value>) -> String {
    let mut object: Map<String, Value> = detail.and_then(Value::as_object).cloned().unwrap_or_default();
    object.remove("message");
    object.insert("level".into(), level.into());
    object.insert("msg".into(), message.into());
    object.insert("time".into(), libruntime::now().into());
    json!(object).to_string()
}

fn text_line(level: &str, message: &str) -> String {
    format!("time=\"{}\" level={level} msg={message:?}", libruntime::now())
}

/// Does not wait for the reader of a fifo.
fn open_file(path: &str) -> std::io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    OpenOptions::new().append(true).create(true).mode(0o644).custom_flags(flags).open(path)
}

/// Without control characters, which a terminal would obey: a message may quote text of the image, such as a path or
/// the output of a hook.
fn printable(message: &str) -> String {
    let is_shown = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    let shown = |c: char| if is_shown(c) { c.to_string() } else { c.escape_default().to_string() };
    message.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_fifo_that_nobody_reads_is_not_waited_for() {
        let path = std::env::temp_dir().join(format!("onggi-log-{}", std::process::id()));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let opened = super::open_file(&path.display().to_string());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(opened.unwrap_err().raw_os_error(), Some(nix::libc::ENXIO));
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        let text = "a\tb\nc é \x1b]0;x\x07 \u{9b}2J \r";
        assert_eq!(super::printable(text), "a\tb\nc é \\u{1b}]0;x\\u{7} \\u{9b}2J \\r");
    }
}

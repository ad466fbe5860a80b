//! Lines for containerd's log, through the fifo `log` of the bundle. A line is dropped where nobody reads: the shim
//! must neither wait for containerd nor end with it.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;

struct Log {
    fifo: Option<File>,
    debug: bool,
}

static LOG: OnceLock<Log> = OnceLock::new();

pub fn open(bundle: &Path, debug: bool) {
    let mut options = File::options();
    options.write(true).custom_flags(libc::O_NONBLOCK);
    let _ = LOG.set(Log { fifo: options.open(bundle.join("log")).ok(), debug });
}

fn line(level: &str, message: &str, fields: &[(&str, &str)]) {
    let Some(Log { fifo: Some(fifo), .. }) = LOG.get() else { return };
    let time = libruntime::now();
    let mut text = format!("time={time:?} level={level} msg={message:?}");
    for (name, value) in fields {
        text.push_str(&format!(" {name}={value:?}"));
    }
    text.push('\n');
    // EAGAIN and EPIPE: containerd does not read, or is gone.
    let _ = (&*fifo).write(text.as_bytes());
}

pub fn info(message: &str, fields: &[(&str, &str)]) {
    line("info", message, fields);
}

pub fn warn(message: &str, fields: &[(&str, &str)]) {
    line("warning", message, fields);
}

pub fn debug(message: &str, fields: &[(&str, &str)]) {
    if LOG.get().is_some_and(|log| log.debug) {
        line("debug", message, fields);
    }
}

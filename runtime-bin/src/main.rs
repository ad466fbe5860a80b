//! `onggi`, the command: reads the command line, does one verb, prints what went wrong.
//!
//! Must not do anything that a user of the library could need: that belongs into libruntime. The command line's form is
//! in cli.rs, each verb in commands/.

#![deny(unsafe_code)]

mod cli;
mod commands;
mod failure;
mod foreground;
mod global;
mod input;
mod launch;
mod log;
mod manual;
mod networks;
mod output;
mod shells;
mod signals;
mod snippets;
mod terminal;
mod traced;

use cli::Line;
use failure::Failure;
use global::Global;
use log::Log;
use std::process::ExitCode;

/// A process that lives for milliseconds should get its memory in few calls; musl's allocator makes a hundred.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    // An inherited SIG_IGN of SIGCHLD would discard the exit codes of children.
    libruntime::reset_sigchld();
    let line = match cli::parse(std::env::args_os().skip(1)) {
        Ok(line) => line,
        Err(wrong) => {
            let (flags, failure) = *wrong;
            return end(&Log::open(&flags).unwrap_or_default(), Err(failure));
        }
    };
    // Checked before this process opens any descriptor, which could get one of these numbers.
    let inherited = launch::Inherited::of(&line);
    let log: &'static Log = match Log::open(&line.global) {
        // It is needed until the process ends.
        Ok(log) => Box::leak(Box::new(log)),
        Err(failure) => return end(&Log::default(), Err(failure)),
    };
    let work = || Global::new(&line.global, log, inherited).and_then(|global| dispatch(&line, &global));
    end(log, log.debugging(work))
}

fn dispatch(line: &Line, global: &Global) -> Result<u8, Failure> {
    if let Some(text) = cli::asked_for_help(line)? {
        return output::print(&text);
    }
    (line.verb.run)(global, &line.args)
}

/// The one place that reports an error.
fn end(log: &Log, result: Result<u8, Failure>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            log.error(&failure);
            ExitCode::from(failure.code)
        }
    }
}

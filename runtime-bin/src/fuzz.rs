//! The fuzz target `line`: what the command line says, up to the requests that the verbs make of it. It is not a part
//! of the command: `../../fuzz` compiles it as a program of its own, because these modules are not public.
//!
//! A command line must not panic, and nothing may touch the system before it is understood.

#![no_main]
#![allow(dead_code)] // the rest of the command

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
#[path = "../../fuzz/src/no_calls.rs"]
mod no_calls;
mod output;
mod shells;
mod signals;
mod snippets;
mod terminal;
mod traced;

use cli::Line;
use commands::{checkpoint, events, exec, list, update};
use failure::Failure;
use libfuzzer_sys::fuzz_target;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

// Words are separated by newlines.
fuzz_target!(|bytes: &[u8]| {
    let words: Vec<OsString> =
        bytes.split(|byte| *byte == b'\n').map(|word| OsString::from_vec(word.to_vec())).collect();
    no_calls::run(|| understand(words));
});

fn understand(words: Vec<OsString>) {
    let line = match cli::parse(words.into_iter()) {
        Ok(line) => line,
        Err(wrong) => return check(&wrong.1),
    };
    let (least, most) = line.verb.count;
    let has_arguments = (least..=most).contains(&line.args.rest.len());
    match cli::asked_for_help(&line) {
        Ok(Some(text)) => return assert!(!text.is_empty()),
        Ok(None) => assert!(has_arguments, "{}: {} arguments", line.verb.name, line.args.rest.len()),
        Err(failure) => return check(&failure),
    }
    if let Err(failure) = request(&line) {
        check(&failure);
    }
}

fn check(failure: &Failure) {
    assert!(!failure.message.trim().is_empty(), "an error without a message");
    assert_ne!(failure.code, 0, "{}", failure.message);
}

/// What the verb asks the library for.
fn request(line: &Line) -> Result<(), Failure> {
    let args = &line.args;
    args.number::<u32>("preserve-fds")?;
    match line.verb.name {
        "update" => {
            let asked = update::resources(args)?;
            let _ = libruntime::parse_resources(asked.to_string().as_bytes());
        }
        "exec" => {
            let mut process =
                serde_json::json!({ "user": { "uid": 1, "gid": 1 }, "cwd": "/", "args": ["sh"] });
            exec::change(&mut process, args)?;
            let _ = libruntime::parse_process(process.to_string().as_bytes());
            args.all("cgroup").for_each(|text| drop(exec::cgroup(text)));
        }
        "kill" => {
            let signal: libruntime::Signal = args.rest.get(1).map_or("TERM", String::as_str).parse()?;
            assert!(signal.0 <= 64);
        }
        "events" => drop(args.get("interval").map(events::duration)),
        "list" | "ps" => drop(list::in_json(args)?),
        "checkpoint" | "restore" => {
            checkpoint::options(args)?;
            checkpoint::page_server(args)?;
        }
        _ => {}
    }
    networks::of(args).map(drop)
}

//! `containerd-shim-onggi-v2`: containerd's shim with the library in process, one for each pod. Which of its five
//! calls is made; ARCHITECTURE.md has the rest.

#![deny(unsafe_code)]

mod args;
mod bootstrap;
mod checkpoint;
mod cleanup;
mod connection;
mod daemon;
mod deleted;
mod events;
mod failure;
mod id_map;
mod idle;
mod info;
mod listener;
mod live;
mod log;
mod logger;
mod loop_device;
mod metrics;
mod model;
mod mount_options;
mod options;
mod overlay;
mod pod;
mod pod_config;
mod pod_namespaces;
mod process;
mod reaper;
mod record;
mod relay;
mod restore;
mod rootfs;
mod sandbox;
mod service;
mod shared;
mod start;
mod stdio;
mod sys;
mod table;
mod task;
mod uri;
mod verbs;
mod worker;

use args::Args;
use containerd_shim_onggi::wire;
use failure::{Failure, Result};
use std::io::Write;
use std::process::ExitCode;

/// musl's allocator keeps less together, and one heap is enough for one thread.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    let parsed = args::parse(std::env::args().skip(1)).map_err(Failure::invalid);
    match parsed.and_then(|args| dispatch(&args)) {
        Ok(answer) if std::io::stdout().write_all(&answer).is_ok() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("containerd-shim-onggi-v2: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Returns what is to be printed.
fn dispatch(args: &Args) -> Result<Vec<u8>> {
    match args.action.as_deref() {
        _ if args.version => Ok(format!("containerd-shim-onggi-v2 {}\n", info::VERSION).into()),
        _ if args.info => info::info(&start::input()?),
        Some("start") => start::start(args),
        Some("delete") => cleanup::delete(args),
        Some(other) => Err(Failure::invalid(format!("unknown action {other}"))),
        None if args.socket.is_empty() => Err(Failure::invalid("there is no action, and no -socket")),
        None => listener::serve(args).map(|()| Vec::new()),
    }
}

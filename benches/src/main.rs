//! Compares OCI runtime binaries with each other and with `floor`, the kernel's own cost.
//!
//! One command: `cargo run --release -p benches`. It makes its bundle itself, needs root, and leaves nothing.
//! It must not favour anyone: every contestant gets the same config, the same command lines and its turn in
//! every round. `work.rs` says what is timed, `floor_plan.rs` and `../floor` what the floor is.

#![deny(unsafe_code)]

mod bundle;
mod cgroups;
mod counts;
mod floor_plan;
mod kind;
mod measure;
mod network;
mod options;
mod peers;
mod plot;
mod report;
mod scale;
mod shim;
mod site;
mod stats;
mod timed;
mod trace;
mod work;

use std::process::ExitCode;

use nix::sys::utsname::uname;

use cgroups::Hierarchy;
use options::Options;
use report::{Measured, Setting};
use site::with_site;
use work::Contestant;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.split_first() {
        Some((mode, rest)) if mode == "trace" => trace::main(rest),
        Some((mode, rest)) if mode == "network" => network::main(rest),
        Some((mode, rest)) if mode == "counts" => counts::main(rest),
        Some((mode, rest)) if mode == "scale" => scale::main(rest),
        Some((mode, rest)) if mode == "shim" => shim::main(rest),
        _ => options::parse(args.into_iter()).and_then(|options| match options {
            Some(options) => compare(&options),
            None => {
                print!("{}", options::USAGE);
                Ok(())
            }
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("benches: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> Result<(), String> {
    with_site(options, |site| {
        let setting = setting(site.hierarchies, &site.contestants("", options.bundles[0])?, options)?;
        let mut works = Vec::new();
        for kind in options.bundles.iter().filter(|kind| kind.lacks().is_none()) {
            let mut contestants = site.contestants("", *kind)?;
            for work in &options.work {
                eprintln!("benches: {}, bundle {} …", work.name(), kind.name());
                let rows = measure::measure(&mut contestants, *work, options);
                works.push(Measured { work: *work, kind: *kind, rows });
            }
        }
        if options.json {
            println!("{:#}", report::as_json(&setting, &works));
        } else {
            print!("{}", report::table(&setting, &works));
        }
        Ok(())
    })
}

fn setting(
    hierarchies: &[Hierarchy],
    contestants: &[Contestant],
    options: &Options,
) -> Result<Setting, String> {
    let kernel = uname().map_err(|error| format!("uname: {error}"))?;
    let mut notes = Vec::new();
    for kind in &options.bundles {
        match (kind.lacks(), kind.without_floor()) {
            (Some(why), _) => notes.push(format!("no bundle {}: {why}", kind.name())),
            (None, Some(why)) => notes.push(format!("bundle {} has no floor: {why}", kind.name())),
            (None, None) => {}
        }
    }
    if !options.cgroup_namespace {
        notes.push("no cgroup namespace".to_owned());
    }
    if !options.trace {
        notes.push("peak memory and system calls were not asked for (--no-trace)".to_owned());
    }
    if cfg!(debug_assertions) {
        notes.push("debug build of the bench: use --release for numbers to keep".to_owned());
    }
    Ok(Setting {
        kernel: format!("Linux {}", kernel.release().to_string_lossy()),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        cgroups: cgroups::layout(hierarchies),
        rounds: options.rounds,
        cold: options.cold,
        notes,
        contestants: contestants.iter().map(|one| (one.name.clone(), one.version.clone())).collect(),
    })
}

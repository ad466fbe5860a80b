//! Compares OCI runtime binaries with each other and with `floor`, the kernel's own cost.
//!
//! One command: `cargo run --release -p benches`. It makes its bundle itself, needs root, and leaves nothing.
//! It must not favour anyone: every contestant gets the same config, the same command lines and its turn in
//! every round. `work.rs` says what is timed, `floor_plan.rs` and `../floor` what the floor is.

#![deny(unsafe_code)]

mod bundle;
mod cgroups;
mod floor_plan;
mod measure;
mod network;
mod options;
mod peers;
mod report;
mod stats;
mod timed;
mod trace;
mod work;

use std::process::ExitCode;

use nix::sys::prctl::set_child_subreaper;
use nix::sys::utsname::uname;
use nix::unistd::Uid;

use cgroups::Hierarchy;
use options::Options;
use report::Setting;
use work::Contestant;

/// Of the temporary directory and of the cgroups; this process's id follows.
const PREFIX: &str = "onggi-bench-";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.split_first() {
        Some((mode, rest)) if mode == "trace" => trace::main(rest),
        Some((mode, rest)) if mode == "network" => network::main(rest),
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
    if !Uid::effective().is_root() {
        return Err("namespaces, cgroups and mounts are made: run it as root".to_owned());
    }
    let runtimes = peers::find(options.runtimes.as_deref())?;
    let hierarchies = cgroups::hierarchies()?;
    // The inits that `create` leaves behind come to this process, as they come to an engine's shim.
    set_child_subreaper(true).map_err(|error| format!("PR_SET_CHILD_SUBREAPER: {error}"))?;
    timed::start_watchdog();
    let name = format!("{PREFIX}{}", std::process::id());
    cgroups::remove_stale(&hierarchies, PREFIX, &std::env::temp_dir());
    // Dropped in the opposite order: cgroups, which still hold what hung, before the bundles.
    let place = bundle::Place::new(&name)?;
    let parent = cgroups::Parent::new(&hierarchies, &name)?;
    let mut contestants = Vec::new();
    for by in ["path", "fd"] {
        contestants.push(Contestant::floor(&place, &parent, &hierarchies, by, options)?);
    }
    for runtime in runtimes {
        contestants.push(Contestant::runtime(&place, &parent, runtime, options)?);
    }
    let setting = setting(&hierarchies, &contestants, options)?;
    let mut works = Vec::new();
    for work in &options.work {
        eprintln!("benches: {} …", work.name());
        works.push((*work, measure::measure(&mut contestants, *work, options)));
    }
    timed::end_children();
    if options.json {
        println!("{:#}", report::as_json(&setting, &works));
    } else {
        print!("{}", report::table(&setting, &works));
    }
    Ok(())
}

fn setting(
    hierarchies: &[Hierarchy],
    contestants: &[Contestant],
    options: &Options,
) -> Result<Setting, String> {
    let kernel = uname().map_err(|error| format!("uname: {error}"))?;
    let mut notes = Vec::new();
    if options.seccomp {
        notes.push("the runtimes load a seccomp profile, floor does not".to_owned());
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

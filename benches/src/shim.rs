//! containerd's shims beside each other: `cargo run --release -p benches -- shim`. They are called directly, by ttrpc, so
//! that nothing of containerd is measured. Ours executes no runtime; Go's executes runc, crun or onggi.

mod account;
mod by_ctr;
mod engine;
mod load;
mod memory;
mod pod;
mod programs;
mod report;
mod rounds;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::utsname::uname;
use nix::unistd::Uid;

use crate::site::PREFIX;
use crate::{bundle, cgroups, peers};
use account::Account;
use pod::{Ground, Kind};

const USAGE: &str = "\
Compares containerd's shims, on this machine, as root. Each is called as containerd calls it.

usage: benches shim [OPTIONS]           a pod's life: start, create, exec, delete; memory, threads, programs
       benches shim probes [OPTIONS]    pods whose containers have an exec each second: processor time
       benches shim scale [OPTIONS]     many containers and execs in the first shim: what it takes, and gives back
       benches shim ctr [OPTIONS]       containerd's client ctr, with a containerd of its own: start, exec, removal
       benches shim stress [OPTIONS]    clients that run containers by ctr: how many a second, failures, leftovers

  --rounds N        interleaved rounds (default 20)
  --shims a,b,…     onggi ($SHIM, or beside this program, or in PATH), go+runc, go+crun, go+onggi (default: those
                    that are installed; of `probes` onggi and go+runc, of `ctr` and `stress` no others)
  --pods N          of `probes` (default 24) and of `scale` (default 100)
  --seconds N       of `probes` and `stress`, for each shim (default 60)
  --clients N       of `stress` (default 4)
  --containers N    of `scale`, in each pod (default 10)
  --execs N         of `scale`, in all (default 10000)
  --json            everything as JSON instead of a table
";

const OURS: &str = "containerd-shim-onggi-v2";
const GO: &str = "containerd-shim-runc-v2";
const RUNTIMES: [&str; 3] = ["runc", "crun", "onggi"];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Rounds,
    Probes,
    Scale,
    Ctr,
    Stress,
}

#[derive(Debug)]
struct Options {
    mode: Mode,
    rounds: usize,
    shims: Option<Vec<String>>,
    pods: Option<usize>,
    seconds: usize,
    containers: usize,
    execs: usize,
    clients: usize,
    json: bool,
}

pub fn main(args: &[String]) -> Result<(), String> {
    if args.iter().any(|arg| arg == "-h" || arg == "--help") {
        print!("{USAGE}");
        return Ok(());
    }
    if !Uid::effective().is_root() {
        return Err("namespaces, cgroups and mounts are made: run it as root".to_owned());
    }
    match args.split_first() {
        Some((first, rest)) if first == "--inside" => compare(&parse(rest)?),
        _ => parse(args).and_then(|options| enter(args, &options)),
    }
}

/// This program again, where its mounts are seen by nobody and end with it.
fn enter(args: &[String], options: &Options) -> Result<(), String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new("unshare");
    if options.is_by_ctr() {
        // containerd gets a network of its own. The kernel counts programs for the first one alone.
        command.arg("--net");
    }
    command.args(["--mount", "--propagation", "private"]).arg(program).args(["shim", "--inside"]).args(args);
    match command.status().map_err(|error| format!("unshare: {error}"))?.success() {
        true => Ok(()),
        false => Err("see above".to_owned()),
    }
}

fn parse(args: &[String]) -> Result<Options, String> {
    let (mode, args) = match args.split_first() {
        Some((first, rest)) if first == "probes" => (Mode::Probes, rest),
        Some((first, rest)) if first == "scale" => (Mode::Scale, rest),
        Some((first, rest)) if first == "ctr" => (Mode::Ctr, rest),
        Some((first, rest)) if first == "stress" => (Mode::Stress, rest),
        _ => (Mode::Rounds, args),
    };
    let mut options = Options {
        mode,
        rounds: 20,
        shims: None,
        pods: None,
        seconds: 60,
        containers: 10,
        execs: 10_000,
        clients: 4,
        json: false,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        let number = |text: &String| match text.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(format!("{arg} wants a positive number, not {text:?}")),
        };
        match arg.as_str() {
            "--rounds" => options.rounds = number(value()?)?,
            "--shims" => options.shims = Some(value()?.split(',').map(str::to_owned).collect()),
            "--pods" => options.pods = Some(number(value()?)?),
            "--seconds" => options.seconds = number(value()?)?,
            "--containers" => options.containers = number(value()?)?,
            "--clients" => options.clients = number(value()?)?,
            "--execs" => options.execs = number(value()?)?,
            "--json" => options.json = true,
            _ => return Err(format!("unknown option {arg}; --help lists them")),
        }
    }
    Ok(options)
}

fn compare(options: &Options) -> Result<(), String> {
    let mut kinds = kinds(options)?;
    let hierarchies = cgroups::hierarchies()?;
    let name = format!("{PREFIX}{}", std::process::id());
    cgroups::remove_stale(&hierarchies, PREFIX, &env::temp_dir());
    // Dropped in the opposite order: cgroups, which still hold what hung, before the bundles.
    let place = bundle::Place::new(&name)?;
    let _parent = cgroups::Parent::new(&hierarchies, &name)?;
    let account = Account::new(&hierarchies, &name)?;
    // By ctr all are children of one containerd.
    let mut own = kinds.iter().filter(|_| !options.is_by_ctr());
    own.try_for_each(|kind| account.make(&kind.name))?;
    let ground = Ground::new(&place, &name, &account)?;
    let heading = vec![setting(cgroups::layout(&hierarchies), options)?];
    let _strays = Strays(&name);
    match options.mode {
        Mode::Rounds => {
            let rows = rounds::measure(&ground, &kinds, options.rounds);
            match options.json {
                true => println!("{:#}", report::as_json(&heading, &kinds, &rows)),
                false => print!("{}", report::table(&heading, &kinds, &rows)),
            }
            Ok(())
        }
        Mode::Probes => load::probes(&ground, &kinds, options.pods.unwrap_or(24), options.seconds)
            .map(|found| load::print_probes(&heading, &kinds, &found, options.json)),
        Mode::Scale => {
            let size = load::Size {
                pods: options.pods.unwrap_or(100),
                containers: options.containers,
                execs: options.execs,
            };
            let found = load::scale(&ground, &kinds.swap_remove(0), &size)?;
            load::print_scale(&heading, &size, &found, options.json);
            found.check()
        }
        Mode::Ctr => by_ctr::rounds(&ground, &kinds, options.rounds)
            .map(|found| by_ctr::print_rounds(&heading, &kinds, &found, options.json)),
        Mode::Stress => {
            let found = by_ctr::stress(&ground, &kinds, options.clients, options.seconds)?;
            by_ctr::print_stress(&heading, &kinds, options.clients, &found, options.json);
            by_ctr::check(&found)
        }
    }
}

impl Options {
    fn is_by_ctr(&self) -> bool {
        matches!(self.mode, Mode::Ctr | Mode::Stress)
    }
}

/// crun makes directories where a hierarchy of cgroup v1 that the host lacks would be.
struct Strays<'a>(&'a str);

impl Drop for Strays<'_> {
    fn drop(&mut self) {
        let entries = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let is_hierarchy = |path: &Path| path.join("cgroup.procs").exists();
        for path in entries.map(|entry| entry.path()).filter(|path| !is_hierarchy(path)) {
            // Mostly there is none.
            let _ = fs::remove_dir_all(path.join(self.0));
        }
    }
}

fn setting(cgroups: &str, options: &Options) -> Result<String, String> {
    let kernel = uname().map_err(|error| format!("uname: {error}"))?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let way = match options.mode {
        Mode::Rounds => format!(
            "{} interleaved rounds; medians, quartiles in brackets; ratios to {}; CPU is that of the cgroup of the shim \
             and all that it starts; programs, with the container's own, by the proc connector",
            options.rounds,
            report::REFERENCE
        ),
        Mode::Ctr | Mode::Stress => {
            let version = Command::new("containerd").arg("--version").output();
            let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
            format!(
                "{}; its files and images are on a tmpfs, containers on overlayfs; CPU is that of containerd and all that \
                 it starts, without ctr; ratios to {}",
                version.unwrap_or_default(),
                report::REFERENCE
            )
        }
        Mode::Probes | Mode::Scale => {
            "CPU is that of the cgroup of the shims and all that they start".to_owned()
        }
    };
    let release = kernel.release().to_string_lossy();
    let debug = if cfg!(debug_assertions) { "; debug build of the bench" } else { "" };
    Ok(format!("Linux {release}, {cpus} CPUs, cgroup {cgroups}; {way}{debug}"))
}

/// Those that were asked for, or those that are installed.
fn kinds(options: &Options) -> Result<Vec<Kind>, String> {
    let all: Vec<String> =
        ["onggi".to_owned()].into_iter().chain(RUNTIMES.map(|runtime| format!("go+{runtime}"))).collect();
    let few = match options.mode {
        Mode::Rounds => all.len(),
        Mode::Probes | Mode::Ctr | Mode::Stress => 2,
        Mode::Scale => 1,
    };
    let is_known = |name: &String| all[..2].contains(name);
    match &options.shims {
        Some(asked) if options.is_by_ctr() && !asked.iter().all(is_known) => {
            Err(format!("ctr is measured with {} and {} alone", all[0], all[1]))
        }
        Some(asked) => asked
            .iter()
            .map(|name| {
                kind(name)?.ok_or_else(|| format!("{name}: not found; --help says where it is looked for"))
            })
            .collect(),
        None => {
            let found: Result<Vec<Option<Kind>>, String> = all[..few].iter().map(|name| kind(name)).collect();
            let found: Vec<Kind> = found?.into_iter().flatten().collect();
            if found.is_empty() { Err(format!("neither {OURS} nor {GO} is installed")) } else { Ok(found) }
        }
    }
}

fn kind(name: &str) -> Result<Option<Kind>, String> {
    if name == "onggi" {
        let Some(shim) = ours() else { return Ok(None) };
        let version = version(&shim);
        return Ok(Some(Kind { name: name.into(), shim, runtime: None, version }));
    }
    let runtime = name.strip_prefix("go+").filter(|runtime| RUNTIMES.contains(runtime));
    let runtime = runtime.ok_or_else(|| format!("{name}: no such shim; --help lists them"))?;
    let (Some(shim), Some(runtime)) = (in_path(GO), peers::locate(runtime)) else { return Ok(None) };
    let runtime = runtime.canonicalize().unwrap_or(runtime);
    let version = format!("{}, {}", version(&shim), version(&runtime));
    Ok(Some(Kind { name: name.into(), shim, runtime: Some(runtime), version }))
}

fn ours() -> Option<PathBuf> {
    let beside = env::current_exe().ok().and_then(|exe| exe.parent().map(|dir| dir.join(OURS)));
    let given = env::var_os("SHIM").map(PathBuf::from);
    let found = match given {
        Some(path) => Some(path).filter(|path| path.is_file()),
        None => beside.filter(|path| path.is_file()).or_else(|| in_path(OURS)),
    };
    // The shim is executed in its bundle.
    found.and_then(|path| path.canonicalize().ok())
}

fn in_path(name: &str) -> Option<PathBuf> {
    let dirs = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&dirs).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// The first two lines, because Go's shim says its version in the second one.
fn version(program: &Path) -> String {
    let flag = if program.ends_with(GO) { "-v" } else { "--version" };
    let output = Command::new(program).arg(flag).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().take(2).map(str::trim).collect();
    match program.ends_with(GO) {
        true => lines.join(" "),
        false => lines.first().copied().unwrap_or("version unknown").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_mode_comes_first_and_numbers_are_positive() {
        let options = parsed("probes --pods 3 --json").expect("valid");
        assert_eq!((options.mode, options.pods, options.json), (Mode::Probes, Some(3), true));
        assert!(parsed("--pods 0").is_err() && parsed("--pods").is_err() && parsed("--pods x").is_err());
        assert!(parsed("--pods 3 probes").is_err_and(|error| error.contains("probes")));
    }

    #[test]
    fn a_shim_that_nobody_knows_is_named() {
        assert!(kind("go+bash").is_err_and(|error| error.contains("go+bash")));
    }
}

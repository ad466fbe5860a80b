//! The command line, read by hand: a few flags do not need a library.

use std::time::Duration;

use crate::kind::{self, Kind};

pub const USAGE: &str = "\
Compares OCI runtimes with each other and with the kernel's own cost (`floor`), on this machine, as root.

usage: cargo run --release -p benches [-- OPTIONS]
       cargo run -p benches -- counts [--runtime PATH] [--accept]    compares what can be counted with counts.json
       cargo run --release -p benches -- scale --help    how the cost grows with mounts and containers
       cargo run --release -p benches -- network [--check] [ROUNDS]    what a network adds, beside CNI and Podman
       cargo run --release -p benches -- shim [--help]                 containerd's shims

  --rounds N              interleaved rounds of every contestant (default 30)
  --runtimes a,b,…        onggi, runc, crun, youki, or paths (default: those that are installed;
                          $ONGGI, or onggi beside this program)
  --work a,b,…            run, create, exec, state (default: all)
  --cold                  rest 100 ms before every measurement
  --bundles a,b,…         plain, userns (a user namespace), mounts (100 bind mounts), network (onggi's bridge),
                          seccomp (Docker's profile), scope (of systemd), or all (default: plain)
  --no-cgroup-namespace   leave the cgroup namespace out of the bundle
  --no-trace              leave out system calls and peak memory (they are counted with ptrace, apart from
                          the timing)
  --timeout SECONDS       limit for one command (default 20)
  --json                  print everything, samples included, as JSON instead of a table
";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    Run,
    Create,
    Exec,
    State,
}

impl Work {
    pub const ALL: [Work; 4] = [Work::Run, Work::Create, Work::Exec, Work::State];

    pub fn name(self) -> &'static str {
        match self {
            Work::Run => "run",
            Work::Create => "create",
            Work::Exec => "exec",
            Work::State => "state",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Work::Run => "run /bin/true",
            Work::Create => "create, start, delete (of /bin/true; the wait for its end is not counted)",
            Work::Exec => "exec /bin/true",
            Work::State => "state",
        }
    }
}

#[derive(Debug)]
pub struct Options {
    pub rounds: usize,
    /// None: every runtime that is found.
    pub runtimes: Option<Vec<String>>,
    pub work: Vec<Work>,
    pub cold: bool,
    pub bundles: Vec<Kind>,
    pub cgroup_namespace: bool,
    pub trace: bool,
    pub timeout: Duration,
    pub json: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rounds: 30,
            runtimes: None,
            work: Work::ALL.to_vec(),
            cold: false,
            bundles: vec![Kind::Plain],
            cgroup_namespace: true,
            trace: true,
            timeout: Duration::from_secs(20),
            json: false,
        }
    }
}

/// Ok(None) when help was asked for.
pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--rounds" => options.rounds = positive(&arg, &value()?)? as usize,
            "--runtimes" => options.runtimes = Some(value()?.split(',').map(str::to_owned).collect()),
            "--work" => options.work = value()?.split(',').map(work).collect::<Result<_, _>>()?,
            "--cold" => options.cold = true,
            "--bundles" => options.bundles = kind::parse(&value()?)?,
            "--no-cgroup-namespace" => options.cgroup_namespace = false,
            "--no-trace" => options.trace = false,
            "--timeout" => options.timeout = Duration::from_secs(positive(&arg, &value()?)?),
            "--json" => options.json = true,
            "-h" | "--help" => return Ok(None),
            _ => return Err(format!("unknown option {arg}; --help lists them")),
        }
    }
    Ok(Some(options))
}

fn positive(option: &str, text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{option} wants a positive number, not {text:?}")),
    }
}

fn work(name: &str) -> Result<Work, String> {
    let known = Work::ALL.into_iter().find(|work| work.name() == name);
    known.ok_or_else(|| format!("unknown work {name:?}: run, create, exec or state"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Option<Options>, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn work_is_a_list_and_an_unknown_one_is_named() {
        let options = parsed("--work exec,run --rounds 3").expect("valid").expect("no help");
        assert_eq!((options.work, options.rounds), (vec![Work::Exec, Work::Run], 3));
        assert!(parsed("--work exec,pause").is_err_and(|error| error.contains("pause")));
    }

    #[test]
    fn zero_rounds_and_missing_values_are_refused() {
        assert!(parsed("--rounds 0").is_err());
        assert!(parsed("--rounds").is_err());
        assert!(parsed("--verbose").is_err());
    }
}

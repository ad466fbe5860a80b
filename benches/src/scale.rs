//! How the cost of a container grows with the host: with its mounts, with the containers that are alive, and with how
//! many are started at once.
//!
//! Everything happens in the mount namespace of the site, below one directory and one cgroup.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::Instant;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::kind::Kind;
use crate::options::{Options, Work};
use crate::plot::{self, Point, Series};
use crate::site::{Site, with_site};
use crate::stats::quartiles;
use crate::work::Contestant;

pub const USAGE: &str = "\
usage: scale [OPTIONS]    medians over interleaved rounds, for each runtime and for the kernel's own cost

  --runtimes a,b,…      as without `scale`
  --mounts a,b,…        mounts on the host while a container is run (default 0,1000,5000)
  --containers a,b,…    containers alive while another is created, entered and shown (default 0,100,1000)
  --parallel a,b,…      containers run at once (default 1,8,32)
  --only AXIS           mounts, containers or parallel
  --rounds N            rounds of each (default 20)
  --svg FILE            draws the curves
  --json                prints JSON instead of a table
";

struct Asked {
    options: Options,
    mounts: Vec<usize>,
    containers: Vec<usize>,
    parallel: Vec<usize>,
    svg: Option<PathBuf>,
}

/// One picture: what grows, and a curve for each contestant.
pub struct Axis {
    pub title: &'static str,
    pub unit: &'static str,
    pub series: Vec<Series>,
}

pub fn main(args: &[String]) -> Result<(), String> {
    let Some(asked) = parse(args)? else {
        print!("{USAGE}");
        return Ok(());
    };
    let axes = with_site(&asked.options, |site| {
        let mut axes = Vec::new();
        if !asked.mounts.is_empty() {
            axes.push(over_mounts(site, &asked)?);
        }
        if !asked.containers.is_empty() {
            axes.extend(over_containers(site, &asked)?);
        }
        if !asked.parallel.is_empty() {
            axes.push(over_parallel(site, &asked)?);
        }
        Ok(axes)
    })?;
    match asked.options.json {
        true => println!("{:#}", plot::as_json(&axes)),
        false => print!("{}", plot::table(&axes)),
    }
    match &asked.svg {
        Some(path) => plot::draw(&axes, path),
        None => Ok(()),
    }
}

fn parse(args: &[String]) -> Result<Option<Asked>, String> {
    let options = Options { rounds: 20, trace: false, ..Options::default() };
    let (mounts, containers, parallel) = (vec![0, 1000, 5000], vec![0, 100, 1000], vec![1, 8, 32]);
    let mut asked = Asked { options, mounts, containers, parallel, svg: None };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--runtimes" => {
                asked.options.runtimes = Some(value()?.split(',').map(str::to_owned).collect());
            }
            "--mounts" => asked.mounts = numbers(value()?)?,
            "--containers" => asked.containers = numbers(value()?)?,
            "--parallel" => asked.parallel = numbers(value()?)?,
            "--only" => asked.only(value()?)?,
            "--rounds" => asked.options.rounds = numbers(value()?)?.first().copied().unwrap_or(0).max(1),
            "--svg" => asked.svg = Some(value()?.into()),
            "--json" => asked.options.json = true,
            "-h" | "--help" => return Ok(None),
            _ => return Err(format!("unknown option {arg}\n{USAGE}")),
        }
    }
    Ok(Some(asked))
}

impl Asked {
    fn only(&mut self, axis: &str) -> Result<(), String> {
        for (name, values) in [
            ("mounts", &mut self.mounts),
            ("containers", &mut self.containers),
            ("parallel", &mut self.parallel),
        ] {
            if name != axis {
                values.clear();
            }
        }
        let none = self.mounts.is_empty() && self.containers.is_empty() && self.parallel.is_empty();
        if none { Err(format!("--only mounts, containers or parallel, not {axis:?}")) } else { Ok(()) }
    }
}

fn numbers(list: &str) -> Result<Vec<usize>, String> {
    list.split(',').map(|text| text.parse().map_err(|_| format!("{text:?} is no number"))).collect()
}

/// Bind mounts below a directory, made and taken away as a whole.
struct Mounts {
    directory: PathBuf,
}

impl Mounts {
    fn set(&self, count: usize) -> Result<(), String> {
        let text = |e: nix::Error| format!("{}: {e}", self.directory.display());
        self.unmount();
        let none = None::<&str>;
        mount(Some("bench"), &self.directory, Some("tmpfs"), MsFlags::empty(), none).map_err(text)?;
        for number in 0..count {
            let place = self.directory.join(number.to_string());
            fs::create_dir(&place).map_err(|e| format!("mkdir {}: {e}", place.display()))?;
            mount(Some(&place), &place, none, MsFlags::MS_BIND, none).map_err(text)?;
        }
        Ok(())
    }

    fn unmount(&self) {
        // None is there the first time.
        let _ = umount2(&self.directory, MntFlags::MNT_DETACH);
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// Samples of a contestant, by the place of the value on the axis.
type Samples = Vec<Vec<f64>>;

fn series(name: &str, values: &[usize], samples: &Samples) -> Series {
    let points = values.iter().zip(samples).filter_map(|(x, samples)| {
        quartiles(samples.iter().copied()).map(|found| Point { x: *x, milliseconds: found })
    });
    Series { name: name.to_owned(), points: points.collect() }
}

/// The number of mounts changes within each round, so that whatever the machine does meanwhile happens to all numbers.
fn over_mounts(site: &Site, asked: &Asked) -> Result<Axis, String> {
    let directory = site.place.dir.join("mounts");
    fs::create_dir(&directory).map_err(|e| format!("mkdir {}: {e}", directory.display()))?;
    let mounts = Mounts { directory };
    let contestants = site.contestants("", Kind::Plain)?;
    let mut samples: Vec<Samples> = vec![vec![Vec::new(); asked.mounts.len()]; contestants.len()];
    for round in 0..=asked.options.rounds {
        for (at, count) in asked.mounts.iter().enumerate() {
            mounts.set(*count)?;
            for (number, contestant) in contestants.iter().enumerate() {
                let took = contestant.time(Work::Run, &format!("m{round}-{count}"))?;
                // Round 0 warms up.
                if round > 0 {
                    samples[number][at].push(took.as_secs_f64() * 1000.0);
                }
            }
        }
    }
    let series = contestants.iter().zip(&samples).map(|(one, all)| series(&one.name, &asked.mounts, all));
    Ok(Axis { title: "run, by mounts on the host", unit: "mounts", series: series.collect() })
}

/// Containers that are alive; more are created for each step of the axis.
fn over_containers(site: &Site, asked: &Asked) -> Result<Vec<Axis>, String> {
    const WORKS: [(Work, &str); 3] = [
        (Work::Create, "create, start and delete, by containers alive"),
        (Work::Exec, "exec, by containers alive"),
        (Work::State, "state, by containers alive"),
    ];
    let mut contestants = site.runtimes("", Kind::Plain)?;
    let mut samples: Vec<Vec<Samples>> =
        vec![vec![vec![Vec::new(); asked.containers.len()]; WORKS.len()]; contestants.len()];
    for (at, count) in asked.containers.iter().enumerate() {
        for contestant in &mut contestants {
            let name = contestant.name.clone();
            contestant.keep(*count, |number| site.live_bundle(&name, number))?;
            contestant.prepare(Work::Exec)?;
        }
        for round in 0..=asked.options.rounds {
            for (number, contestant) in contestants.iter().enumerate() {
                for (which, (work, _)) in WORKS.iter().enumerate() {
                    let took = contestant.time(*work, &format!("s{at}-{round}"))?;
                    if round > 0 {
                        samples[number][which][at].push(took.as_secs_f64() * 1000.0);
                    }
                }
            }
        }
        contestants.iter_mut().for_each(|one| one.clean([]));
    }
    contestants.iter_mut().for_each(Contestant::drop_kept);
    Ok(WORKS
        .iter()
        .enumerate()
        .map(|(which, (_, title))| {
            let of =
                |(one, all): (&Contestant, &Vec<Samples>)| series(&one.name, &asked.containers, &all[which]);
            Axis { title, unit: "containers", series: contestants.iter().zip(&samples).map(of).collect() }
        })
        .collect())
}

/// Each of the containers that are run at once has a bundle and a cgroup of its own; the time is that of all, divided by
/// how many there were.
fn over_parallel(site: &Site, asked: &Asked) -> Result<Axis, String> {
    const TURNS: usize = 5;
    let most = asked.parallel.iter().copied().max().unwrap_or(1);
    let workers: Vec<Vec<Contestant>> = (0..most)
        .map(|worker| site.contestants(&format!(".{worker}"), Kind::Plain))
        .collect::<Result<_, _>>()?;
    let count = workers.first().map_or(0, Vec::len);
    let mut samples: Vec<Samples> = vec![vec![Vec::new(); asked.parallel.len()]; count];
    for round in 0..=asked.options.rounds {
        for (at, parallel) in asked.parallel.iter().enumerate() {
            for number in 0..count {
                let team: Vec<&Contestant> = workers[..*parallel].iter().map(|one| &one[number]).collect();
                let took = run_at_once(&team, TURNS, &format!("p{round}-{parallel}"))?;
                if round > 0 {
                    samples[number][at].push(took * 1000.0 / (parallel * TURNS) as f64);
                }
            }
        }
    }
    let names = workers[0].iter().map(|one| one.name.trim_end_matches(".0"));
    let series = names.zip(&samples).map(|(name, all)| series(name, &asked.parallel, all));
    Ok(Axis {
        title: "run, by how many at once (time of all ÷ their number)",
        unit: "at once",
        series: series.collect(),
    })
}

/// Seconds until all have run their containers, one after the other each.
fn run_at_once(team: &[&Contestant], turns: usize, id: &str) -> Result<f64, String> {
    let begin = Instant::now();
    let run = |one: &Contestant| -> Result<(), String> {
        for turn in 0..turns {
            let mut command = one.run(&format!("{id}-{turn}"));
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let status = command.status().map_err(|e| format!("{}: {e}", one.name))?;
            if !status.success() {
                return Err(format!("{}: run: {status}", one.name));
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = team.iter().map(|one| scope.spawn(|| run(one))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread has panicked")?)
    })?;
    Ok(begin.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_axis_can_be_asked_for_and_a_wrong_name_is_refused() {
        let args = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let asked = parse(&args("--only mounts --mounts 0,7 --rounds 3")).unwrap().unwrap();
        assert_eq!((asked.mounts, asked.containers, asked.parallel), (vec![0, 7], vec![], vec![]));
        assert_eq!(asked.options.rounds, 3);
        assert!(parse(&args("--only networks")).is_err());
        assert!(parse(&args("--mounts many")).is_err());
    }
}

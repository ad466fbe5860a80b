//! A real engine (Podman, Buildah, containerd, Docker) that has the runtime under test for its own, and calls
//! of its command line. Nothing is started here: see engine_start.rs; engine_shared.rs decides when.

use crate::case::{Outcome, Stop, fail};
use crate::process::{self, Output};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Podman,
    /// Podman of a user, whose names and ids are made for the case.
    Rootless,
    Buildah,
    /// containerd, asked by ctr.
    Ctr,
    /// containerd, asked over CRI as a kubelet does.
    Cri,
    /// The same with pods that its shim makes.
    Sandbox,
    Docker,
}

/// The engines of a group's cases, the first of them the one that they are about.
pub fn of_group(group: &str) -> Option<&'static [Kind]> {
    Some(match group {
        "engine_podman" => &[Kind::Podman],
        "engine_rootless" => &[Kind::Rootless],
        "engine_buildah" => &[Kind::Buildah],
        "engine_ctr" => &[Kind::Ctr],
        "engine_cri" => &[Kind::Cri],
        "engine_sandbox" => &[Kind::Sandbox],
        "engine_docker" => &[Kind::Docker],
        "engine_networks" => &[Kind::Podman, Kind::Docker, Kind::Ctr],
        _ => return None,
    })
}

/// How long one call of an engine may take.
const LIMIT: Duration = Duration::from_secs(60);

pub struct Engine {
    pub kind: Kind,
    /// Its own files.
    pub dir: PathBuf,
    /// What its command line begins with: a program and options.
    pub words: Vec<String>,
    pub environment: Vec<(&'static str, String)>,
    /// The image that was made for it.
    pub image: &'static str,
    /// The cgroup that its containers' are made in, unless systemd does that.
    pub cgroup: Option<String>,
    pub daemon: Option<i32>,
    /// Where the runtime keeps its containers.
    pub states: Vec<PathBuf>,
}

impl Engine {
    pub fn command(&self, args: &[&str]) -> Command {
        let (program, first) = self.words.split_first().map_or(("false", &[][..]), |(p, rest)| (p, rest));
        let mut command = Command::new(program);
        command.args(first).args(args).current_dir(&self.dir).stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (*name, value)));
        command
    }

    /// Its command line with these arguments, to its end.
    pub fn call(&self, args: &[&str]) -> Outcome<Output> {
        let mut output = process::start(&mut self.command(args), &self.dir)?.finish(LIMIT)?;
        // The arguments that were meant, without those that all calls have.
        output.call = format!("{:?} {}", self.kind, args.join(" "));
        Ok(output)
    }

    /// What a call that succeeds prints.
    pub fn says(&self, args: &[&str]) -> Outcome<String> {
        Ok(self.call(args)?.ok()?.stdout.trim().to_owned())
    }

    /// The same with input.
    pub fn is_told(&self, input: &str, args: &[&str]) -> Outcome<String> {
        let path = self.dir.join("input");
        fs::write(&path, input)?;
        let mut command = self.command(args);
        command.stdin(fs::File::open(path)?);
        Ok(process::start(&mut command, &self.dir)?.finish(LIMIT)?.ok()?.stdout.trim().to_owned())
    }

    /// `run [OPTION…] IMAGE [WORD…]` as Podman and Docker have it, without a network unless the options have one.
    fn run_words<'a>(&'a self, options: &[&'a str], words: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["run"];
        if !options.iter().any(|option| option.starts_with("--network") || option.starts_with("--pod")) {
            all.extend(["--network", "none"]);
        }
        if let Some(cgroup) = self.cgroup.as_deref().filter(|_| self.kind == Kind::Podman) {
            all.extend(["--cgroup-parent", cgroup]);
        }
        all.extend_from_slice(options);
        all.push(self.image);
        all.extend_from_slice(words);
        all
    }

    /// Runs a container to its end and removes it.
    pub fn run(&self, options: &[&str], words: &[&str]) -> Outcome<Output> {
        let options = [&["--rm"], options].concat();
        self.call(&self.run_words(&options, words))
    }

    /// What a shell script in a container prints.
    pub fn script(&self, options: &[&str], script: &str) -> Outcome<String> {
        Ok(self.run(options, &["sh", "-c", script])?.ok()?.stdout.trim().to_owned())
    }

    /// A container in the background, to be removed by its name.
    pub fn detached(&self, name: &str, options: &[&str], words: &[&str]) -> Outcome {
        let options = [&["-d", "--name", name], options].concat();
        self.call(&self.run_words(&options, words))?.ok().map(drop)
    }

    /// One that sleeps.
    pub fn sleeper(&self, name: &str, options: &[&str]) -> Outcome {
        self.detached(name, options, &["sleep", "1000"])
    }

    pub fn remove(&self, name: &str) -> Outcome {
        let docker: &[&str] = &["rm", "-f", name];
        let args = if self.kind == Kind::Docker { docker } else { &["rm", "-f", "-t", "0", name] };
        self.call(args)?.ok().map(drop)
    }

    /// A value of `inspect` of a container.
    pub fn inspect(&self, name: &str, what: &str) -> Outcome<String> {
        self.says(&["inspect", "--format", &format!("{{{{{what}}}}}"), name])
    }

    pub fn pid(&self, name: &str) -> Outcome<i32> {
        let text = match self.kind {
            Kind::Ctr => {
                let tasks = self.says(&["task", "ls"])?;
                let row = tasks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
                let mut found = row.filter(|words| words.first() == Some(&name));
                found.next().and_then(|words| words.get(1).map(|pid| (*pid).to_owned())).unwrap_or_default()
            }
            Kind::Cri | Kind::Sandbox => self.says(&["pid", name])?,
            _ => self.inspect(name, ".State.Pid")?,
        };
        match text.parse() {
            Ok(pid) if pid > 0 => Ok(pid),
            _ => fail(format!("{:?} has no process of {name}: {text:?}", self.kind)),
        }
    }

    /// The containers that the runtime has where the engine keeps them.
    pub fn listed(&self, runtime: &Path) -> Outcome<String> {
        let Some(store) = self.states.first() else { return fail("no store is known") };
        let mut command = Command::new(runtime);
        Ok(process::ask(command.arg("--root").arg(store).args(["list", "-q"]))?.ok()?.stdout)
    }

    /// Polls until something holds.
    pub fn until(&self, what: &str, mut holds: impl FnMut() -> Outcome<bool>) -> Outcome {
        let end = Instant::now() + Duration::from_secs(30) * process::slowness();
        while Instant::now() < end {
            if holds()? {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        fail(format!("not within 30 s: {what}"))
    }
}

/// Where the plugins of CNI are.
pub fn cni_plugins() -> Option<PathBuf> {
    let places = ["/opt/cni/bin", "/usr/lib/cni"].map(PathBuf::from);
    places.into_iter().find(|dir| dir.join("bridge").exists())
}

/// Whether systemd makes the cgroups of containers here.
pub fn systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// Units of systemd whose name has this pattern.
pub fn scopes(pattern: &str) -> Outcome<String> {
    if !systemd() {
        return Ok(String::new());
    }
    let mut command = Command::new("systemctl");
    if !nix::unistd::geteuid().is_root() {
        command.arg("--user");
    }
    let output = process::ask(command.args(["list-units", "--all", "--plain", "--no-legend", pattern]))?;
    Ok(output.stdout.trim().to_owned())
}

/// Fails unless the units of that pattern go.
pub fn no_scope(pattern: &str) -> Outcome {
    let gone = process::until("scopes are gone", || Ok(scopes(pattern)?.is_empty()));
    gone.or_else(|_| Err(Stop::Fail(format!("scopes are left: {}", scopes(pattern)?))))
}

/// Removes a directory with what engines have put there. A user's Podman leaves files of subordinate ids, which
/// are its user namespace's to remove.
pub fn remove_files(dir: &Path) {
    if fs::remove_dir_all(dir).is_err() && dir.exists() && !nix::unistd::geteuid().is_root() {
        let _ = Command::new("podman").args(["unshare", "rm", "-rf"]).arg(dir).output();
    }
}

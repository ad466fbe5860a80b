//! The same command lines and configurations given to onggi and to the peers, and everything in which
//! they differ: exit status, the form of standard output, whether there is a message and its words, the
//! records of the log, and the container's status afterwards. Each difference is listed with its reason
//! in differences.txt; a new one fails the run, and so does a listed one that is gone.
//!
//! The lines are in lines.txt. Here they are run; what they mean is in differential/line.rs, what is
//! compared in differential/form.rs, the list in differential/listed.rs.

mod form;
mod line;
mod listed;

use crate::bundle::{self, Config};
use crate::case::Outcome;
use crate::host::Host;
use crate::process;
use crate::runner::{self, Candidate};
use crate::test::Runtime;
use form::{Aspect, Seen};
use line::{Line, Place};
use listed::Difference;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// All lines together: a minute where nothing else runs. What is not run by then has no differences, so that
/// the run has failed.
const LIMIT: Duration = Duration::from_secs(900);

/// Runs the lines whose names have one of `filters` in them; whether nothing is new and nothing gone.
pub fn run(subject: &Candidate, filters: &[String], jobs: usize, all: bool) -> Result<bool, String> {
    if !nix::unistd::geteuid().is_root() {
        println!("differential: skipped: needs root");
        return Ok(true);
    }
    let mut runtimes = vec![subject.clone()];
    for peer in ["runc", "crun"] {
        runtimes.push(Candidate::find(peer)?);
    }
    let mut lines = Line::all()?;
    lines.retain(|line| filters.is_empty() || filters.iter().any(|part| line.name.contains(part.as_str())));
    let mut listed = listed::read()?;
    // The list is true of the versions that it names.
    for peer in &runtimes[1..] {
        if !listed::is_about(&peer.name, &peer.version) {
            println!("{} {}: differences.txt is about another version; not judged", peer.name, peer.version);
            listed.retain(|entry| entry.peer != peer.name);
        }
    }
    let scratch = runner::prepare().map_err(|stop| format!("{stop:?}"))?;
    let found = passes(&scratch, &runtimes, &lines, jobs, &listed, all);
    runner::finish(&scratch);
    let found = found.map_err(|stop| format!("{stop:?}"))?;
    if all {
        found.iter().for_each(|one| println!("{one}"));
        return Ok(true);
    }
    let judged = |name: &str| listed.iter().any(|entry| entry.peer == name);
    let found: Vec<Difference> = found.into_iter().filter(|one| judged(&one.peer)).collect();
    Ok(listed::judge(&listed, &found, lines.len(), filters.is_empty()))
}

/// Runs all lines, and those with something new once more: what does not come again was a race.
fn passes(
    scratch: &Path,
    runtimes: &[Candidate],
    lines: &[Line],
    jobs: usize,
    listed: &[listed::Entry],
    all: bool,
) -> Outcome<Vec<Difference>> {
    runner::enter(scratch)?;
    let hugetlb = Path::new("/sys/fs/cgroup/hugetlb");
    if hugetlb.exists() && !hugetlb.join("tasks").exists() {
        return crate::case::fail("hugetlb is not mounted: crun would make plain directories there");
    }
    let mut places = Vec::new();
    for runtime in runtimes {
        places.push(shared_rootfs(scratch, runtime)?);
    }
    let every: Vec<&Line> = lines.iter().collect();
    let mut found = pass(scratch, runtimes, &places, &every, jobs)?;
    let new = listed::new(listed, &found);
    let again: Vec<&Line> = lines.iter().filter(|line| new.contains(&line.name)).collect();
    if !again.is_empty() && !all {
        found.retain(|one| !new.contains(&one.line));
        found.extend(pass(scratch, runtimes, &places, &again, 1)?);
    }
    Ok(found)
}

fn pass(
    scratch: &Path,
    runtimes: &[Candidate],
    places: &[PathBuf],
    lines: &[&Line],
    jobs: usize,
) -> Outcome<Vec<Difference>> {
    let begin = Instant::now();
    let host = Host::look();
    let (next, ended, found) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(line) = lines.get(at) else { break };
                    if begin.elapsed() > LIMIT * process::slowness() {
                        break;
                    }
                    let seen: Vec<Seen> = runtimes
                        .iter()
                        .zip(places)
                        .map(|(runtime, rootfs)| {
                            let dir = scratch.join(format!("{at}-{}", runtime.name));
                            let result = Run::new(&host, runtime, rootfs, scratch, dir, line).see();
                            result.unwrap_or_else(|stop| Seen::broken(&format!("{stop:?}")))
                        })
                        .collect();
                    let mut found = found.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    found.extend(differences(line, runtimes, &seen));
                    ended.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let seconds = begin.elapsed().as_secs();
    println!("{} lines in {seconds} s", lines.len());
    let ended = ended.into_inner();
    if ended < lines.len() {
        return crate::case::fail(format!("only {ended} of {} lines ended in {seconds} s", lines.len()));
    }
    let mut found = found.into_inner().unwrap_or_default();
    found.sort();
    Ok(found)
}

fn shared_rootfs(scratch: &Path, runtime: &Candidate) -> Outcome<PathBuf> {
    let rootfs = scratch.join(format!("rootfs-{}", runtime.name));
    bundle::make_rootfs(&scratch.join("base"), &rootfs)?;
    Ok(rootfs)
}

fn differences(line: &Line, runtimes: &[Candidate], seen: &[Seen]) -> Vec<Difference> {
    let mut found = Vec::new();
    let (Some((ours, theirs)), Some((subject, peers))) = (seen.split_first(), runtimes.split_first()) else {
        return found;
    };
    for (peer, theirs) in peers.iter().zip(theirs) {
        for aspect in Aspect::ALL {
            let (a, b) = (ours.aspect(aspect, &subject.name), theirs.aspect(aspect, &peer.name));
            // A line that could not be run shows nothing, also where no runtime could run it.
            if aspect == Aspect::Exit && (ours.is_broken() || theirs.is_broken()) {
                let (peer, name) = (peer.name.clone(), line.name.clone());
                found.push(Difference { peer, aspect, line: name, ours: a, theirs: b });
                break;
            }
            // Of a call that failed with one and worked with the other all is different.
            if aspect != Aspect::Exit && ours.worked() != theirs.worked() {
                continue;
            }
            let same = match aspect {
                // Only runc's words are those that others look for.
                Aspect::Words if peer.name != "runc" => true,
                Aspect::Words => form::has_words_of(&a, &b),
                _ => a == b,
            };
            if !same {
                let (peer, name) = (peer.name.clone(), line.name.clone());
                found.push(Difference { peer, aspect, line: name, ours: a, theirs: b });
            }
        }
    }
    found
}

/// One line with one runtime.
struct Run<'a> {
    host: &'a Host,
    runtime: Runtime,
    rootfs: &'a Path,
    base: PathBuf,
    cgroup: String,
    line: &'a Line,
    id: String,
}

impl<'a> Run<'a> {
    fn new(
        host: &'a Host,
        runtime: &Candidate,
        rootfs: &'a Path,
        scratch: &Path,
        dir: PathBuf,
        line: &'a Line,
    ) -> Self {
        let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let cgroup = format!("{}/{name}", runner::cgroup_parent(host, scratch));
        let (program, name) = (runtime.program.clone(), runtime.name.clone());
        let runtime = Runtime { program, name, state: dir.join("state"), dir, flags: &[] };
        Self { host, runtime, rootfs, base: scratch.join("base"), cgroup, line, id: "c1".to_owned() }
    }

    fn see(&self) -> Outcome<Seen> {
        let dir = &self.runtime.dir;
        bundle::make_dir(&dir.join("bundle"))?;
        bundle::make_dir(&dir.join("state"))?;
        let result = self.prepare().and_then(|()| self.judged());
        self.clean();
        result
    }

    fn judged(&self) -> Outcome<Seen> {
        let log = self.runtime.dir.join("log");
        let mut command = Command::new(&self.runtime.program);
        command.current_dir(self.runtime.dir.join("bundle"));
        if self.line.place != Place::Bare {
            command.arg("--root").arg(&self.runtime.state).arg("--log").arg(&log);
            command.args(["--log-format", "json"]);
        }
        command.args(self.line.args.iter().map(|word| self.filled(word)));
        let output = process::run(&mut command, &self.runtime.dir)?;
        let status = match self.line.place {
            Place::Bare => String::new(),
            _ => self.settled()?,
        };
        let text = fs::read_to_string(&log).unwrap_or_default();
        let hidden =
            [(self.runtime.dir.display().to_string(), "DIR"), (self.rootfs.display().to_string(), "ROOTFS")];
        Ok(Seen::new(&output, &text, status, &hidden))
    }

    fn filled(&self, word: &str) -> String {
        let dir = self.runtime.dir.display().to_string();
        word.replace("$BUNDLE", &format!("{dir}/bundle")).replace("$DIR", &dir).replace("$ID", &self.id)
    }

    fn call(&self, args: &[&str]) -> Outcome<process::Output> {
        self.runtime.call(args)
    }

    /// A signal takes its time; nothing else changes the status once the call has ended.
    fn settled(&self) -> Outcome<String> {
        let mut status = self.status()?;
        for _ in 0..20 {
            if self.line.args.first().is_none_or(|verb| verb != "kill") || status == "stopped" {
                break;
            }
            std::thread::sleep(Duration::from_millis(25));
            status = self.status()?;
        }
        Ok(status)
    }

    fn status(&self) -> Outcome<String> {
        let output = self.call(&["state", &self.id])?;
        if output.code != 0 {
            return Ok("absent".to_owned());
        }
        Ok(output.json()?["status"].as_str().unwrap_or_default().to_owned())
    }

    /// Brings the container into the state in which the line finds it.
    fn prepare(&self) -> Outcome {
        if matches!(self.line.place, Place::Bare | Place::Absent) {
            return Ok(());
        }
        let bundle = self.runtime.dir.join("bundle");
        let mut config = Config::base(self.host);
        config.args(&["/bin/sleep", "1000"]);
        config.set("linux.cgroupsPath", format!("{}/{}", self.cgroup, self.id));
        if self.line.changes_files() {
            bundle::make_rootfs(&self.base, &bundle.join("rootfs"))?;
        } else {
            config.set("root.path", self.rootfs.display().to_string());
        }
        fs::write(bundle.join("config.json"), config.0.to_string())?;
        self.line.change(&mut config, &bundle)?;
        if self.line.place == Place::Bundle {
            return Ok(());
        }
        let path = bundle.display().to_string();
        self.call(&["create", "--bundle", &path, &self.id])?.ok()?;
        if self.line.place == Place::Created {
            return Ok(());
        }
        self.call(&["start", &self.id])?.ok()?;
        // Some return before the program is executed; their own process still has the signal handlers.
        let pid = self.call(&["state", &self.id])?.ok()?.json()?["pid"].as_i64().unwrap_or(0);
        process::until("the program is executed", || {
            let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            Ok(program.ends_with("bin/sleep"))
        })?;
        match self.line.place {
            Place::Paused => drop(self.call(&["pause", &self.id])?.ok()?),
            Place::Stopped => {
                self.call(&["kill", &self.id, "KILL"])?.ok()?;
                process::until("it is stopped", || Ok(self.status()? == "stopped"))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Also after a failure, and whatever ids the line has used.
    fn clean(&self) {
        for entry in fs::read_dir(&self.runtime.state).into_iter().flatten().flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            if !id.starts_with('.') {
                let _ = self.call(&["delete", "--force", &id]);
            }
        }
        crate::leaks::end_cgroups(self.host, &self.cgroup);
        // Those that lines.txt names; what a runtime has made above its own directory stays otherwise.
        if self.line.name.starts_with("cgroup::") {
            for name in ["differential-relative", "a.slice:b:c"] {
                crate::leaks::end_cgroups(self.host, name);
            }
        }
        let _ = fs::remove_dir_all(&self.runtime.dir);
    }
}

/// A line that cannot be read is a fault of the list.
fn wrong<T>(text: String) -> Result<T, String> {
    Err(format!("lines.txt: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_no_runtime_could_run_is_a_difference() {
        let lines = Line::all().expect("lines.txt is right");
        let named = |name: &str| Candidate {
            program: PathBuf::from(name),
            name: name.to_owned(),
            version: "1".to_owned(),
        };
        let runtimes = ["onggi", "runc", "crun"].map(named);
        let seen = vec![Seen::broken("no space"); 3];
        assert_eq!(differences(&lines[0], &runtimes, &seen).len(), 2);
    }
}

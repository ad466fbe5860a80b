//! The engine that cases of one group share: started before the first of them, and again after one that failed;
//! ended after the last, when nothing of it may be left. runner.rs calls this, engine_start.rs starts.

use crate::case::{Outcome, fail};
use crate::engine::{Engine, Kind};
use crate::engine_start::{self, Setting};
use crate::leaks::{self, Before};
use crate::process;
use crate::test::Test;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub struct Shared {
    pub runtime: String,
    pub program: PathBuf,
    /// Of all cases of the group.
    pub dir: PathBuf,
    engines: Vec<&'static Engine>,
    /// What was there before the engine, as the case that it was started for saw it.
    before: Option<(Before, &'static Test)>,
    starts: u32,
}

impl Shared {
    pub fn new(runtime: &str, program: PathBuf, dir: &Path) -> Self {
        let (runtime, dir) = (runtime.to_owned(), dir.to_path_buf());
        Self { runtime, program, dir, engines: Vec::new(), before: None, starts: 0 }
    }

    pub fn is_running(&self) -> bool {
        !self.engines.is_empty()
    }

    /// Gives the case the engines of these kinds; the first has to be there, others where they are installed.
    pub fn ready(&mut self, kinds: &[Kind], test: &'static Test) -> Outcome {
        if self.engines.is_empty() {
            if self.starts == 0 && test.host.root {
                engine_start::own_files(&self.dir)?;
            }
            self.before = Some((Before::look(test), test));
            for kind in kinds.iter().filter(|kind| engine_start::is_installed(**kind)) {
                self.starts += 1;
                let dir = self.dir.join(format!("e{}", self.starts));
                let setting = Setting {
                    name: &self.runtime,
                    program: &self.program,
                    cgroup: &test.cgroup,
                    base: test.base(),
                    shared: &self.dir,
                    dir,
                };
                self.engines.push(Box::leak(Box::new(engine_start::start(*kind, &setting)?)));
            }
        }
        let _ = test.engines.set(self.engines.clone());
        Ok(())
    }

    /// Ends the engines, after which all has to be as it was before they were started.
    pub fn end(&mut self) -> Outcome {
        let stuck = self.end_daemons();
        let Some((before, test)) = self.before.take() else { return Ok(()) };
        let left = before.nothing_left(test);
        leaks::sweep(test);
        if stuck.is_empty() { left } else { fail(stuck.join("; ")) }
    }

    /// Ends the engines after a failure, whatever they have left; runner.rs sweeps.
    pub fn abandon(&mut self) {
        let states: Vec<PathBuf> = self.engines.iter().flat_map(|engine| engine.states.clone()).collect();
        self.end_daemons();
        self.before = None;
        // Some runtimes change the owner of these, in the /dev of the case.
        for name in ["null", "zero", "full", "random", "urandom", "tty"] {
            let _ = nix::unistd::chown(&Path::new("/dev").join(name), Some(0.into()), Some(0.into()));
        }
        for entry in states.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }

    /// Those that do not end are said.
    fn end_daemons(&mut self) -> Vec<String> {
        let mut stuck = Vec::new();
        for engine in self.engines.drain(..) {
            engine_start::before_the_end(engine);
            let Some(pid) = engine.daemon else { continue };
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            if process::wait(pid, Duration::from_secs(20) * process::slowness()).is_none() {
                stuck.push(format!("{:?} does not end", engine.kind));
            }
        }
        stuck
    }
}

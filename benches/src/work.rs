//! One measurement of one contestant: which commands a work is made of, what is timed and what is not.
//!
//! Knows nothing of rounds and numbers (`measure.rs`). Whatever fails here is cleaned up here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{SIGKILL, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::bundle::Place;
use crate::cgroups::{Hierarchy, Parent};
use crate::floor_plan;
use crate::kind::Kind;
use crate::options::{Options, Work};
use crate::peers::{Runtime, Verbs};
use crate::timed::{children, reap, timed};
use crate::trace::{self, Trace};

/// The program that `build.rs` made of `../floor`.
const FLOOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/floor"));
/// The id of the container that `exec` and `state` look at.
const LIVE: &str = "live";

pub struct Contestant {
    pub name: String,
    pub version: String,
    who: Who,
    /// For the runtimes' errors and pid files and for a trace's result.
    dir: PathBuf,
    limit: Duration,
    live: Option<Live>,
    /// How many containers [`Contestant::keep`] has made.
    kept: usize,
}

enum Who {
    Floor { program: PathBuf, by: &'static str, plan: PathBuf, live_plan: PathBuf },
    Runtime { program: PathBuf, state: PathBuf, bundle: PathBuf, live_bundle: PathBuf, kind: Kind },
}

/// What all contestants of one kind of bundle have in common.
pub struct Ground<'a> {
    pub place: &'a Place,
    pub parent: &'a Parent<'a>,
    pub options: &'a Options,
    pub kind: Kind,
}

impl Ground<'_> {
    fn config(&self, cgroup: &str, args: &[&str]) -> Result<Value, String> {
        let cgroup = format!("{}/{cgroup}", self.parent.name);
        let mut config = self.place.config(&cgroup, args, self.options.cgroup_namespace);
        self.kind.change(&mut config, self.place, &cgroup)?;
        Ok(config)
    }
}

/// The container that sleeps while `exec` and `state` are measured.
struct Live {
    init: Pid,
    /// Floor is the parent of its container and stays; a runtime has ended.
    parent: Option<Child>,
}

/// How the commands of a work are run: timed, or under ptrace.
enum Meter {
    Clock(Duration),
    Ptrace(Trace),
}

impl Contestant {
    pub fn runtime(ground: &Ground, runtime: Runtime) -> Result<Self, String> {
        let (place, kind) = (ground.place, ground.kind);
        let dir = directory(place, &runtime.name)?;
        let state = place.state().join(&runtime.name);
        let bundle = |what: &str, args: &[&str]| {
            let name = format!("{}-{what}", runtime.name);
            place.bundle(&name, &ground.config(&name, args)?)
        };
        let (bundle, live_bundle) =
            (bundle("run", &["/bin/true"])?, bundle("live", &["/bin/sleep", "3600"])?);
        // With its path: an old build beside a new one is easily measured by mistake.
        let version = format!("{} ({})", runtime.version, runtime.program.display());
        let who = Who::Runtime { program: runtime.program, state, bundle, live_bundle, kind };
        let (name, limit) = (runtime.name, ground.options.timeout);
        Ok(Self { name, version, who, dir, limit, live: None, kept: 0 })
    }

    pub fn floor(
        ground: &Ground,
        hierarchies: &[Hierarchy],
        (by, suffix): (&'static str, &str),
    ) -> Result<Self, String> {
        let name = if by == "path" { format!("floor{suffix}") } else { format!("floor-{by}{suffix}") };
        let dir = directory(ground.place, &name)?;
        let plan = |what: &str, args: &[&str]| {
            let config = ground.config(&format!("{name}-{what}"), args)?;
            let path = dir.join(what);
            fs::write(&path, floor_plan::plan(&config, hierarchies)?).map_err(|e| e.to_string())?;
            Ok::<_, String>(path)
        };
        let (plan, live_plan) = (plan("run", &["/bin/true"])?, plan("live", &["/bin/sleep", "3600"])?);
        let program = dir.join("floor-program");
        fs::write(&program, FLOOR).map_err(|e| e.to_string())?;
        set_executable(&program)?;
        let version = format!("this bench's own program, mounts by {by}");
        let who = Who::Floor { program, by, plan, live_plan };
        Ok(Self { name, version, who, dir, limit: ground.options.timeout, live: None, kept: 0 })
    }

    /// Floor has no state to show, and its way of mounting makes no difference to an exec.
    pub fn takes_part(&self, work: Work) -> bool {
        match &self.who {
            Who::Floor { by, .. } => work == Work::Run || (work == Work::Exec && *by == "path"),
            Who::Runtime { .. } => true,
        }
    }

    /// What has to exist before `exec` and `state` can be measured.
    pub fn prepare(&mut self, work: Work) -> Result<(), String> {
        if !matches!(work, Work::Exec | Work::State) {
            return Ok(());
        }
        self.live = Some(match &self.who {
            Who::Floor { program, by, live_plan, .. } => floor_container(program, by, live_plan, self.limit)?,
            Who::Runtime { live_bundle, .. } => {
                let verbs = self.verbs().expect("a runtime has verbs");
                let pid_file = self.dir.join("live.pid");
                self.clock(&mut verbs.create(live_bundle, &pid_file, LIVE))?;
                let init = read_pid(&pid_file)?;
                self.clock(&mut verbs.start(LIVE))?;
                Live { init, parent: None }
            }
        });
        Ok(())
    }

    /// Ends the container of `prepare`, and anything that a failed measurement has left under `ids`.
    pub fn clean(&mut self, ids: impl IntoIterator<Item = String>) {
        if let Some(verbs) = self.verbs() {
            for id in ids.into_iter().chain(self.live.is_some().then(|| LIVE.to_owned())) {
                // It may well be gone: then this fails, and that is what was wanted.
                let _ = self.clock(&mut verbs.delete(&id, true));
            }
        }
        if let Some(live) = self.live.take() {
            let _ = kill(live.init, SIGKILL);
            match live.parent {
                Some(mut parent) => drop(parent.wait()),
                None => drop(reap(live.init, self.limit)),
            }
        }
    }

    /// Has `count` sleeping containers, each with a bundle of its own.
    pub fn keep(
        &mut self,
        count: usize,
        bundle: impl Fn(usize) -> Result<PathBuf, String>,
    ) -> Result<(), String> {
        let verbs = self.verbs().ok_or("floor keeps no containers")?;
        let pid_file = self.dir.join("kept.pid");
        for number in self.kept..count {
            self.clock(&mut verbs.create(&bundle(number)?, &pid_file, &kept_id(number)))?;
            self.clock(&mut verbs.start(&kept_id(number)))?;
        }
        self.kept = self.kept.max(count);
        Ok(())
    }

    pub fn drop_kept(&mut self) {
        for number in 0..std::mem::take(&mut self.kept) {
            if let Some(verbs) = self.verbs() {
                // What it leaves is ended as a child of this process.
                let _ = self.clock(&mut verbs.delete(&kept_id(number), true));
            }
        }
    }

    /// The command of [`Work::Run`].
    pub fn run(&self, id: &str) -> Command {
        match &self.who {
            Who::Floor { program, by, plan, .. } => {
                let mut command = Command::new(program);
                command.args(["run", by]).arg(plan);
                command
            }
            Who::Runtime { program, state, bundle, kind, .. } => {
                Verbs { program, state, kind: *kind }.run(bundle, id)
            }
        }
    }

    /// Of the program's file, in KiB.
    pub fn size(&self) -> Result<u64, String> {
        let (Who::Floor { program, .. } | Who::Runtime { program, .. }) = &self.who;
        fs::metadata(program)
            .map(|found| found.len() / 1024)
            .map_err(|e| format!("{}: {e}", program.display()))
    }

    pub fn time(&self, work: Work, id: &str) -> Result<Duration, String> {
        match self.measure(work, id, &|command| self.clock(command).map(Meter::Clock))? {
            Meter::Clock(took) => Ok(took),
            Meter::Ptrace(_) => unreachable!("only clocks were asked for"),
        }
    }

    pub fn trace(&self, work: Work, id: &str) -> Result<Trace, String> {
        match self.measure(work, id, &|command| self.ptrace(command).map(Meter::Ptrace))? {
            Meter::Ptrace(trace) => Ok(trace),
            Meter::Clock(_) => unreachable!("only traces were asked for"),
        }
    }

    fn measure(
        &self,
        work: Work,
        id: &str,
        meter: &dyn Fn(&mut Command) -> Result<Meter, String>,
    ) -> Result<Meter, String> {
        match &self.who {
            _ if work == Work::Run => meter(&mut self.run(id)),
            Who::Floor { program, live_plan, .. } => {
                let (Work::Exec, Some(live)) = (work, &self.live) else {
                    return Err(format!("floor does no {}", work.name()));
                };
                let mut command = Command::new(program);
                meter(command.arg("exec").arg(exec_plan(live_plan)?).arg(live.init.to_string()))
            }
            Who::Runtime { bundle, .. } => {
                let verbs = self.verbs().expect("a runtime has verbs");
                match work {
                    Work::Exec => meter(&mut verbs.exec(LIVE)),
                    Work::State => meter(&mut verbs.state(LIVE)),
                    Work::Create | Work::Run => {
                        let pid_file = self.dir.join("created.pid");
                        let created = meter(&mut verbs.create(bundle, &pid_file, id))?;
                        let init = read_pid(&pid_file)?;
                        let started = meter(&mut verbs.start(id))?;
                        // The container's own running time is not the runtime's.
                        reap(init, self.limit)?;
                        Ok(created.and(started).and(meter(&mut verbs.delete(id, false))?))
                    }
                }
            }
        }
    }

    /// The instructions of user code of `explain`, which reads a configuration and plans its container, by callgrind.
    /// The other verbs make system calls that valgrind lacks (3.19: clone3(2) with shared memory, pidfd_open(2)).
    pub fn instructions(&self) -> Result<u64, String> {
        match (&self.who, self.verbs()) {
            (Who::Runtime { bundle, .. }, Some(verbs)) => callgrind(&verbs.explain(bundle), self.limit),
            _ => Err("floor plans nothing".to_owned()),
        }
    }

    fn verbs(&self) -> Option<Verbs<'_>> {
        match &self.who {
            Who::Runtime { program, state, kind, .. } => Some(Verbs { program, state, kind: *kind }),
            Who::Floor { .. } => None,
        }
    }

    fn clock(&self, command: &mut Command) -> Result<Duration, String> {
        timed(command, &self.dir.join("errors"), self.limit)
    }

    fn ptrace(&self, command: &Command) -> Result<Trace, String> {
        let (result, own) = (self.dir.join("trace"), std::env::current_exe().map_err(|e| e.to_string())?);
        let mut tracer = Command::new(own);
        tracer.arg("trace").arg(&result).arg("--");
        tracer.arg(command.get_program()).args(command.get_args());
        self.clock(&mut tracer)?;
        trace::read(&result)
    }
}

impl Meter {
    /// Two commands of one work.
    fn and(self, other: Meter) -> Meter {
        match (self, other) {
            (Meter::Clock(one), Meter::Clock(two)) => Meter::Clock(one + two),
            (Meter::Ptrace(one), Meter::Ptrace(two)) => Meter::Ptrace(one.and(two)),
            _ => unreachable!("one measurement has one kind of meter"),
        }
    }
}

fn callgrind(command: &Command, limit: Duration) -> Result<u64, String> {
    let mut valgrind = Command::new("timeout");
    valgrind.arg(limit.as_secs().to_string());
    valgrind.args(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    let output = valgrind.arg(command.get_program()).args(command.get_args()).output();
    let output = output.map_err(|e| format!("valgrind: {e}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    count.filter(|_| output.status.success()).ok_or_else(|| format!("valgrind: {}: {text}", output.status))
}

fn kept_id(number: usize) -> String {
    format!("kept{number}")
}

fn directory(place: &Place, name: &str) -> Result<PathBuf, String> {
    let dir = place.dir.join(format!("of-{name}"));
    fs::create_dir_all(&dir).map_err(|e| format!("mkdir {}: {e}", dir.display()))?;
    Ok(dir)
}

fn set_executable(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(|e| format!("{}: {e}", path.display()))
}

fn read_pid(file: &Path) -> Result<Pid, String> {
    let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    text.trim().parse().map(Pid::from_raw).map_err(|_| format!("{}: {text:?} is no pid", file.display()))
}

/// The container's own plan with `/bin/true` in its place.
fn exec_plan(live_plan: &Path) -> Result<PathBuf, String> {
    let path = live_plan.with_extension("exec");
    if !path.exists() {
        let plan = fs::read_to_string(live_plan).map_err(|e| e.to_string())?;
        let plan = plan.replace("exec\t/bin/sleep\t3600", "exec\t/bin/true");
        fs::write(&path, plan).map_err(|e| e.to_string())?;
    }
    Ok(path)
}

/// Starts `floor run` of a sleeping container and waits until the sleep is executed.
fn floor_container(program: &Path, by: &str, plan: &Path, limit: Duration) -> Result<Live, String> {
    let mut command = Command::new(program);
    command.args(["run", by]).arg(plan).stdin(Stdio::null()).stdout(Stdio::null());
    // It will complain that its container was killed.
    command.stderr(Stdio::null());
    let mut parent = command.spawn().map_err(|e| format!("{}: {e}", program.display()))?;
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline && parent.try_wait().is_ok_and(|status| status.is_none()) {
        let init = children(Pid::from_raw(parent.id() as i32)).into_iter().next();
        let executed = |pid: &Pid| fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name == b"sleep\n");
        if let Some(init) = init.filter(executed) {
            return Ok(Live { init, parent: Some(parent) });
        }
        sleep(Duration::from_millis(1));
    }
    let _ = parent.kill();
    let _ = parent.wait();
    Err("floor's own container did not come up".to_owned())
}

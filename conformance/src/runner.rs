//! Runs cases, each in a process of its own: this program again with `--case`. The inner process is a
//! subreaper with its own mount namespace, bounds the case by its time, sweeps and says how it ended;
//! the outer one bounds the inner one. Cases of a group that has an engine share one inner process, and
//! the engine in it (engine.rs). main.rs calls `all`, and `inside` for `--case`.

use crate::case::{Case, Outcome, Stop};
use crate::cases;
use crate::engine;
use crate::engine_shared::Shared;
use crate::host::Host;
use crate::leaks::{self, Before};
use crate::test::{Runtime, Test};
use crate::{bundle, process};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

/// A runtime as it was found and as it calls itself.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub program: PathBuf,
    pub name: String,
    pub version: String,
}

impl Candidate {
    /// By path, by name in PATH, or the one that was built next to this program.
    pub fn find(word: &str) -> Result<Self, String> {
        let mut places = Vec::new();
        if word.contains('/') {
            places.push(PathBuf::from(word));
        } else {
            places.extend(built(word));
            let path = std::env::var_os("PATH").unwrap_or_default();
            places.extend(std::env::split_paths(&path).map(|dir| dir.join(word)));
            places.push(Path::new("/usr/sbin").join(word));
        }
        let place = places.iter().find(|place| place.is_file());
        let place = place.ok_or_else(|| format!("no runtime {word}; give a path in RUNTIME"))?;
        let program = fs::canonicalize(place).map_err(|error| format!("{}: {error}", place.display()))?;
        let output = Command::new(&program).arg("--version").output();
        let output = output.map_err(|error| format!("{}: {error}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let words: Vec<&str> = text.lines().next().unwrap_or_default().split_whitespace().collect();
        let version = words.iter().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        let name = words.first().copied().unwrap_or(word).to_owned();
        Ok(Self { program, name, version: version.copied().unwrap_or("?").to_owned() })
    }
}

/// What this workspace has built under that name, the newest first: for the host or for musl.
fn built(name: &str) -> Vec<PathBuf> {
    let this = std::env::current_exe().unwrap_or_default();
    let mut found = Vec::new();
    for target in this.ancestors().skip(2).take(2) {
        let musl = target.join(format!("{}-unknown-linux-musl", std::env::consts::ARCH));
        for dir in [target.to_path_buf(), musl] {
            found.extend(["release", "debug"].map(|kind| dir.join(kind).join(name)));
        }
    }
    let age = |path: &PathBuf| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    found.retain(|path| age(path).is_some());
    found.sort_by_key(|path| std::cmp::Reverse(age(path)));
    found
}

/// How a case ended with one runtime.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub stop: Result<(), Stop>,
    /// What the case has to say of its success.
    pub note: String,
    pub milliseconds: u64,
}

/// The cases that one inner process runs, one after the other, with one runtime.
struct Batch<'a> {
    cases: &'a [Case],
    /// The number of its first case among all.
    first: usize,
    candidate: usize,
    dir: PathBuf,
}

fn batches<'a>(chosen: &'a [Case], candidates: usize, scratch: &Path) -> Vec<Batch<'a>> {
    let mut found = Vec::new();
    let mut first = 0;
    for cases in chosen.chunk_by(|a, b| a.group == b.group && engine::of_group(a.group).is_some()) {
        for candidate in 0..candidates {
            let dir = scratch.join(found.len().to_string());
            found.push(Batch { cases, first, candidate, dir });
        }
        first += cases.len();
    }
    found
}

/// Where a case of a batch has its files: those with an engine beside each other.
fn case_dir(case: &Case, dir: &Path) -> PathBuf {
    if engine::of_group(case.group).is_some() { dir.join(case.name) } else { dir.to_path_buf() }
}

/// Runs all cases with all candidates; `done` hears of each as it ends. In the answer, one row per case.
pub fn all(
    chosen: &[Case],
    candidates: &[Candidate],
    jobs: usize,
    scratch: &Path,
    done: impl Fn(&Case, &Candidate, &Verdict) + Sync,
) -> Vec<Vec<Verdict>> {
    let next = AtomicUsize::new(0);
    let batches = batches(chosen, candidates.len(), scratch);
    let total = chosen.len() * candidates.len();
    let results: Mutex<Vec<Option<Verdict>>> = Mutex::new(vec![None; total]);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let candidate = &candidates[batch.candidate];
                    outside(batch, candidate, scratch, |at, verdict| {
                        done(&batch.cases[at], candidate, &verdict);
                        if let Ok(mut results) = results.lock() {
                            let index = (batch.first + at) * candidates.len() + batch.candidate;
                            results[index] = Some(verdict);
                        }
                    });
                }
            });
        }
    });
    let lost = Verdict { stop: Err(Stop::Fail("no result".into())), note: String::new(), milliseconds: 0 };
    let results = results.into_inner().unwrap_or_default();
    let flat: Vec<Verdict> =
        results.into_iter().map(|verdict| verdict.unwrap_or_else(|| lost.clone())).collect();
    flat.chunks(candidates.len()).map(<[Verdict]>::to_vec).collect()
}

/// One batch in a process of its own; `done` hears of each of its cases, by number.
fn outside(batch: &Batch, candidate: &Candidate, scratch: &Path, mut done: impl FnMut(usize, Verdict)) {
    let mut begin = Instant::now();
    let mut at = 0;
    let mut ended = |stop: Result<(), Stop>| {
        let note = batch.cases.get(at).map(|case| case_dir(case, &batch.dir).join("note"));
        let note = note.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        done(at, Verdict { stop, note, milliseconds: begin.elapsed().as_millis() as u64 });
        begin = Instant::now();
        at += 1;
        at
    };
    if let Err(stop) = started(batch, candidate, scratch, &mut ended) {
        let stop = match stop {
            Stop::Fail(text) => Stop::Fail(format!("the suite itself: {text}")),
            skip => skip,
        };
        while ended(Err(stop.clone())) < batch.cases.len() {}
    }
    if std::env::var_os("CONFORMANCE_KEEP").is_none() {
        engine::remove_files(&batch.dir);
    }
}

/// Starts the inner process and calls `ended` with each result, which answers how many there are.
fn started(
    batch: &Batch,
    candidate: &Candidate,
    scratch: &Path,
    ended: &mut impl FnMut(Result<(), Stop>) -> usize,
) -> Outcome {
    bundle::make_dir(&batch.dir)?;
    let log = fs::File::create(batch.dir.join("log"))?;
    let names: Vec<String> = batch.cases.iter().map(Case::full_name).collect();
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--case", &names.join(","), "--name", &candidate.name, "--program"])
        .arg(&candidate.program)
        .arg("--dir")
        .arg(&batch.dir)
        .arg("--scratch")
        .arg(scratch)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()?;
    let mut at = 0;
    // The inner process stops the case by itself and then needs time to sweep.
    let time = |at: usize| batch.cases[at].limit() + Duration::from_secs(45) * process::slowness();
    let mut end = Instant::now() + time(at);
    loop {
        let gone = child.try_wait()?.is_some();
        while let Some(result) = batch.cases.get(at).and_then(|case| result(&case_dir(case, &batch.dir))) {
            at = ended(result);
            end = Instant::now() + batch.cases.get(at).map_or(Duration::from_secs(45), |_| time(at));
        }
        if gone {
            break;
        }
        if Instant::now() > end {
            kill_all(child.id() as i32);
            child.wait()?;
            let _ = delete_from_outside(candidate, &batch.dir);
            if at < batch.cases.len() {
                at = ended(Err(Stop::Fail("did not even stop after its time".into())));
            }
            break;
        }
        std::thread::sleep(Duration::from_millis(4));
    }
    while at < batch.cases.len() {
        let log = fs::read_to_string(batch.dir.join("log")).unwrap_or_default();
        let text = format!("the case's process ended without a result: {}", log.trim());
        at = ended(Err(Stop::Fail(text)));
    }
    Ok(())
}

/// Ends an inner process and all that it has started, which else would be nobody's.
fn kill_all(inner: i32) {
    let below = process::descendants(inner);
    let _ = kill(Pid::from_raw(-inner), Signal::SIGKILL);
    for pid in below {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// What the inner process has written of a case, if it has.
fn result(dir: &Path) -> Option<Result<(), Stop>> {
    let text = fs::read_to_string(dir.join("result")).ok()?;
    let result: Value = serde_json::from_str(&text).ok()?;
    let detail = result["detail"].as_str().unwrap_or_default().to_owned();
    Some(match result["status"].as_str() {
        Some("pass") => Ok(()),
        Some("skip") => Err(Stop::Skip(detail)),
        _ => Err(Stop::Fail(detail)),
    })
}

fn delete_from_outside(candidate: &Candidate, dir: &Path) -> Outcome {
    for entry in fs::read_dir(dir.join("state"))?.flatten() {
        let mut command = Command::new(&candidate.program);
        command.arg("--root").arg(dir.join("state")).args(["delete", "--force"]).arg(entry.file_name());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    }
    Ok(())
}

/// The other side of [`outside`]: runs cases here, with names that have commas between them, and writes
/// the `result` of each.
pub fn inside(names: &str, runtime_name: &str, program: PathBuf, dir: PathBuf, scratch: &Path) -> Outcome {
    let known = cases::all();
    let find = |name: &str| known.iter().find(|case| case.full_name() == name).copied();
    let mut shared = Shared::new(runtime_name, program, &dir);
    let mut entered = false;
    let host = Host::look();
    // All needs are asked for first: later one thread waits for every child.
    let mut all = Vec::new();
    for name in names.split(',') {
        let case = find(name).ok_or_else(|| Stop::Fail(format!("no case {name}")))?;
        all.push((case, case.needs.iter().find_map(|need| need.missing(&host))));
    }
    let count = all.len();
    for (at, (case, missing)) in all.into_iter().enumerate() {
        if is_orphan() {
            break;
        }
        let own = case_dir(&case, &dir);
        bundle::make_dir(&own)?;
        let verdict = match missing {
            Some(reason) => Err(Stop::Skip(reason)),
            None => {
                if !entered && host.root {
                    own_namespaces(&dir)?;
                }
                entered = true;
                judged(&case, &mut shared, &own, scratch)
            }
        };
        let end = if at + 1 == count { shared.end() } else { Ok(()) };
        write_result(&own, if matches!(verdict, Err(Stop::Fail(_))) { verdict } else { end.and(verdict) })?;
    }
    let end = shared.end();
    if is_orphan() {
        // Nobody else removes what all cases share.
        finish(scratch);
    }
    end
}

fn write_result(dir: &Path, verdict: Outcome) -> Outcome {
    let (status, detail) = match verdict {
        Ok(()) => ("pass", String::new()),
        Err(Stop::Skip(reason)) => ("skip", reason),
        Err(Stop::Fail(reason)) => ("fail", reason),
    };
    let short: String = detail.chars().take(1200).collect();
    let detail = if short.len() < detail.len() { format!("{short}…") } else { detail };
    // By a rename, because the outer process looks for it while this one goes on.
    let text = json!({ "status": status, "detail": detail }).to_string();
    fs::write(dir.join("result.new"), text)?;
    fs::rename(dir.join("result.new"), dir.join("result"))?;
    Ok(())
}

/// This process as a subreaper with namespaces of its own, before it has a second thread.
pub fn enter(dir: &Path) -> Outcome {
    nix::sys::prctl::set_child_subreaper(true)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    own_namespaces(dir)
}

/// Prepares, runs the case within its time, compares with before, sweeps.
fn judged(case: &Case, shared: &mut Shared, dir: &Path, scratch: &Path) -> Outcome {
    nix::sys::prctl::set_child_subreaper(true)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let host = Host::look();
    for sub in ["state", "canary", "canary/dir"] {
        bundle::make_dir(&dir.join(sub))?;
    }
    for file in ["canary/file", "canary/ptmx", "canary/dir/file"] {
        fs::write(dir.join(file), "untouched")?;
    }
    let runtime = Runtime {
        program: shared.program.clone(),
        name: shared.runtime.clone(),
        state: dir.join("state"),
        dir: dir.to_path_buf(),
        flags: &[],
    };
    let last = shared.dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let cgroup = format!("{}/{last}", cgroup_parent(&host, scratch));
    let mut test = Test::new(host, runtime, scratch.join("base"), cgroup);
    test.with_host_mounts = case.group.starts_with("escapes");
    // The thread of a case that hangs outlives this function: what it works with is never freed.
    let test: &'static Test = Box::leak(Box::new(test));
    let ready = engine::of_group(case.group).map_or(Ok(()), |kind| shared.ready(kind, test));
    let before = Before::look(test);
    let mut verdict = ready.and_then(|()| within_time(case, test));
    leaks::delete_containers(test);
    if verdict == Ok(()) {
        verdict = before.nothing_left(test);
    }
    // What a failure leaves in an engine is not for the next case; else that goes on with the same one.
    if !shared.is_running() || matches!(verdict, Err(Stop::Fail(_))) {
        shared.abandon();
        leaks::sweep(test);
    }
    verdict
}

/// Runs the case's function, but not longer than its time.
fn within_time(case: &Case, test: &'static Test) -> Outcome {
    let (sender, receiver) = mpsc::channel();
    let run = case.run;
    std::thread::spawn(move || {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(test)));
        let _ = sender.send(result.unwrap_or_else(|_| Err(Stop::Fail("the case itself panicked".into()))));
    });
    let end = Instant::now() + case.limit();
    loop {
        match receiver.recv_timeout(Duration::from_secs(1)) {
            Ok(result) => return result,
            Err(_) if is_orphan() => return Err(Stop::Fail("the suite itself has ended".into())),
            Err(_) if Instant::now() < end => {}
            Err(_) => {
                return Err(Stop::Fail(format!("not finished after {} s", case.limit().as_secs())));
            }
        }
    }
}

/// Whether the outer process is gone: nobody wants a result, and engines must not stay.
fn is_orphan() -> bool {
    static PARENT: std::sync::OnceLock<Pid> = std::sync::OnceLock::new();
    *PARENT.get_or_init(nix::unistd::getppid) != nix::unistd::getppid()
}

/// Namespaces for the case, so that whatever a runtime does to "the host" is done to those. The mounts
/// are shared within themselves as `/` is on most hosts: what gets out of a container is seen here.
fn own_namespaces(dir: &Path) -> Outcome {
    const NONE: Option<&str> = None;
    let own = CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWNET;
    unshare(own | CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    own_devices(dir)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SHARED, NONE)?;
    // crun up to 1.8 refuses to start while an enabled v1 controller has no hierarchy mounted.
    let place = Path::new("/sys/fs/cgroup/hugetlb");
    if Path::new("/sys/fs/cgroup/memory").exists() && !place.join("tasks").exists() {
        let _ = fs::create_dir(place);
        let _ = mount(Some("cgroup"), place, Some("cgroup"), MsFlags::empty(), Some("hugetlb"));
    }
    Ok(())
}

/// A /dev of the case's own: some runtimes change the owner of /dev/null, or put links into what they
/// take for a container's /dev. Nothing that they do there may reach the host's.
fn own_devices(dir: &Path) -> Outcome {
    use nix::sys::stat::{Mode, SFlag, mknod, stat};
    const NONE: Option<&str> = None;
    let old = dir.join("dev-of-the-host");
    bundle::make_dir(&old)?;
    mount(Some("/dev"), &old, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
    mount(Some("dev"), "/dev", Some("tmpfs"), MsFlags::empty(), Some("mode=755,size=1m"))?;
    for name in ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "console", "fuse", "kmsg"] {
        let Ok(meta) = stat(&old.join(name)) else { continue };
        let copy = Path::new("/dev").join(name);
        mknod(&copy, SFlag::S_IFCHR, Mode::empty(), meta.st_rdev)?;
        fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(meta.st_mode & 0o777))?;
    }
    for (name, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        std::os::unix::fs::symlink(target, Path::new("/dev").join(name))?;
    }
    bundle::make_dir(Path::new("/dev/pts"))?;
    mount(Some(&old.join("pts")), "/dev/pts", NONE, MsFlags::MS_BIND, NONE)?;
    bundle::make_dir(Path::new("/dev/shm"))?;
    mount(Some("shm"), "/dev/shm", Some("tmpfs"), MsFlags::empty(), Some("mode=1777"))?;
    nix::mount::umount2(&old, nix::mount::MntFlags::MNT_DETACH)?;
    fs::remove_dir(&old)?;
    Ok(())
}

/// The cgroup of one run of the suite, made unique by its scratch directory's name.
pub fn cgroup_parent(host: &Host, scratch: &Path) -> String {
    let name = scratch.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    format!("{}/{name}", host.own_cgroup.as_deref().unwrap_or_default())
}

/// /tmp, unless it is mounted so that devices and set-user-ID programs of a container do not work there.
fn ordinary_directory() -> PathBuf {
    use nix::sys::statvfs::{FsFlags, statvfs};
    let restricted =
        statvfs("/tmp").is_ok_and(|fs| fs.flags().intersects(FsFlags::ST_NODEV | FsFlags::ST_NOSUID));
    PathBuf::from(if restricted { "/var/tmp" } else { "/tmp" })
}

/// Makes what all cases share: the scratch directory and the root file system to link from.
pub fn prepare() -> Outcome<PathBuf> {
    let parent = std::env::var_os("TMPDIR").map_or_else(ordinary_directory, PathBuf::from);
    let scratch = parent.join(format!("conformance-{}", std::process::id()));
    bundle::make_dir(&scratch)?;
    let scratch = fs::canonicalize(scratch)?;
    bundle::make_base(&scratch.join("base"))?;
    Ok(scratch)
}

/// Removes it again.
pub fn finish(scratch: &Path) {
    let host = Host::look();
    leaks::end_cgroups(&host, &cgroup_parent(&host, scratch));
    if std::env::var_os("CONFORMANCE_KEEP").is_none() {
        let _ = fs::remove_dir_all(scratch);
    }
}

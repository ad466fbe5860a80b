//! Runs cases, each in a process of its own: this program again with `--case`. The inner process is a
//! subreaper with its own mount namespace, bounds the case by its time, sweeps and says how it ended;
//! the outer one bounds the inner one. main.rs calls `all`, and `inside` for `--case`.

use crate::case::{Case, Outcome, Stop};
use crate::cases;
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

/// Runs all cases with all candidates; `done` hears of each as it ends. In the answer, one row per case.
pub fn all(
    chosen: &[Case],
    candidates: &[Candidate],
    jobs: usize,
    scratch: &Path,
    done: impl Fn(&Case, &Candidate, &Verdict) + Sync,
) -> Vec<Vec<Verdict>> {
    let next = AtomicUsize::new(0);
    let total = chosen.len() * candidates.len();
    let results: Mutex<Vec<Option<Verdict>>> = Mutex::new(vec![None; total]);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= total {
                        break;
                    }
                    let case = &chosen[index / candidates.len()];
                    let candidate = &candidates[index % candidates.len()];
                    let verdict = outside(case, candidate, scratch, index);
                    done(case, candidate, &verdict);
                    if let Ok(mut results) = results.lock() {
                        results[index] = Some(verdict);
                    }
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

/// One case in a process of its own.
fn outside(case: &Case, candidate: &Candidate, scratch: &Path, index: usize) -> Verdict {
    let begin = Instant::now();
    let dir = scratch.join(format!("{index}"));
    let stop = match started(case, candidate, scratch, &dir) {
        Ok(stop) => stop,
        Err(Stop::Fail(text)) => Err(Stop::Fail(format!("the suite itself: {text}"))),
        Err(skip) => Err(skip),
    };
    let note = fs::read_to_string(dir.join("note")).unwrap_or_default();
    if std::env::var_os("CONFORMANCE_KEEP").is_none() {
        let _ = fs::remove_dir_all(&dir);
    }
    Verdict { stop, note, milliseconds: begin.elapsed().as_millis() as u64 }
}

fn started(case: &Case, candidate: &Candidate, scratch: &Path, dir: &Path) -> Outcome<Result<(), Stop>> {
    bundle::make_dir(dir)?;
    let log = fs::File::create(dir.join("log"))?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--case", &case.full_name(), "--name", &candidate.name, "--program"])
        .arg(&candidate.program)
        .arg("--dir")
        .arg(dir)
        .arg("--scratch")
        .arg(scratch)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()?;
    // The inner process stops the case by itself and then needs time to sweep.
    let end = Instant::now() + case.limit() + Duration::from_secs(45) * process::slowness();
    while child.try_wait()?.is_none() {
        if Instant::now() > end {
            let _ = kill(Pid::from_raw(-(child.id() as i32)), Signal::SIGKILL);
            child.wait()?;
            let _ = delete_from_outside(candidate, dir);
            return Ok(Err(Stop::Fail("did not even stop after its time".into())));
        }
        std::thread::sleep(Duration::from_millis(4));
    }
    let text = fs::read_to_string(dir.join("result")).unwrap_or_default();
    let result: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    let detail = result["detail"].as_str().unwrap_or_default().to_owned();
    Ok(match result["status"].as_str() {
        Some("pass") => Ok(()),
        Some("skip") => Err(Stop::Skip(detail)),
        Some("fail") => Err(Stop::Fail(detail)),
        _ => {
            let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
            Err(Stop::Fail(format!("the case's process ended without a result: {}", log.trim())))
        }
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

/// The other side of [`outside`]: runs one case here and writes `result`.
pub fn inside(name: &str, runtime_name: &str, program: PathBuf, dir: PathBuf, scratch: &Path) -> Outcome {
    let case = cases::all().into_iter().find(|case| case.full_name() == name);
    let case = case.ok_or_else(|| Stop::Fail(format!("no case {name}")))?;
    let host = Host::look();
    let missing = case.needs.iter().find_map(|need| need.missing(&host));
    let verdict = match missing {
        Some(reason) => Err(Stop::Skip(reason)),
        None => judged(&case, host, runtime_name, program, &dir, scratch),
    };
    let (status, detail) = match verdict {
        Ok(()) => ("pass", String::new()),
        Err(Stop::Skip(reason)) => ("skip", reason),
        Err(Stop::Fail(reason)) => ("fail", reason),
    };
    let short: String = detail.chars().take(1200).collect();
    let detail = if short.len() < detail.len() { format!("{short}…") } else { detail };
    fs::write(dir.join("result"), json!({ "status": status, "detail": detail }).to_string())?;
    Ok(())
}

/// This process as a subreaper with namespaces of its own, before it has a second thread.
pub fn enter(dir: &Path) -> Outcome {
    nix::sys::prctl::set_child_subreaper(true)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    own_namespaces(dir)
}

/// Prepares, runs the case within its time, compares with before, sweeps.
fn judged(case: &Case, host: Host, name: &str, program: PathBuf, dir: &Path, scratch: &Path) -> Outcome {
    nix::sys::prctl::set_child_subreaper(true)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    if host.root {
        own_namespaces(dir)?;
    }
    let host = Host::look();
    for sub in ["state", "canary", "canary/dir"] {
        bundle::make_dir(&dir.join(sub))?;
    }
    for file in ["canary/file", "canary/ptmx", "canary/dir/file"] {
        fs::write(dir.join(file), "untouched")?;
    }
    let runtime = Runtime {
        program,
        name: name.to_owned(),
        state: dir.join("state"),
        dir: dir.to_path_buf(),
        flags: &[],
    };
    let last = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let cgroup = format!("{}/{last}", cgroup_parent(&host, scratch));
    let mut test = Test::new(host, runtime, scratch.join("base"), cgroup);
    test.with_host_mounts = case.group.starts_with("escapes");
    // The thread of a case that hangs outlives this function: what it works with is never freed.
    let test: &'static Test = Box::leak(Box::new(test));
    let before = Before::look(test);
    let mut verdict = within_time(case, test);
    leaks::delete_containers(test);
    if verdict == Ok(()) {
        verdict = nothing_left(&before, test);
    }
    leaks::sweep(test);
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
    match receiver.recv_timeout(case.limit()) {
        Ok(result) => result,
        Err(_) => Err(Stop::Fail(format!("not finished after {} s", case.limit().as_secs()))),
    }
}

/// Things that end by themselves get a moment; what stays is a failure.
fn nothing_left(before: &Before, test: &Test) -> Outcome {
    let mut left = Vec::new();
    for _ in 0..100 {
        left = before.left_behind(test);
        if left.is_empty() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(Stop::Fail(format!("left behind: {}", left.join("; "))))
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

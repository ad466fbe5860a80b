//! A runtime that gets too little: room or files in its store, descriptors, memory, processes; and one id
//! that many want at the same time. Each limit is walked from nothing to enough. A call ends with an error
//! or works, and `delete --force` leaves nothing.

use crate::bundle::Config;
use crate::case::{Case, Need, Outcome, Stop, case, check, fail};
use crate::leaks;
use crate::process::{self, Output};
use crate::test::{Container, Mounted, Test};
use nix::mount::MsFlags;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

pub const CASES: &[Case] = &[
    case!(a_store_with_room_for_little, [Need::Root], 120),
    case!(a_store_with_room_for_few_files, [Need::Root], 120),
    case!(a_store_that_is_read_only, [Need::Root], 60),
    case!(a_runtime_with_few_descriptors, [Need::Root], 120),
    case!(a_runtime_with_little_address_space, [Need::Root], 120),
    case!(a_runtime_that_may_not_write_files, [Need::Root], 60),
    case!(a_runtime_that_may_have_few_processes, [Need::Root, Need::Controller("pids")], 120),
    case!(a_runtime_with_little_memory, [Need::Root, Need::Controller("memory")], 180),
    case!(fifty_that_create_start_and_delete_one_id, [Need::Root], 180),
];

/// Within this time each call has to end.
const LIMIT: Duration = Duration::from_secs(10);

/// How a walk over a limit went, for the note.
#[derive(Default)]
struct Walked {
    points: u32,
    worked: u32,
}

impl Walked {
    /// A walk that never failed or never worked has not walked over the limit.
    fn end(self, t: &Test) -> Outcome {
        t.note(&format!("{} points, {} worked", self.points, self.worked));
        check!(self.worked > 0, "nothing worked at {} points", self.points);
        check!(self.worked < self.points, "everything worked at {} points", self.points);
        Ok(())
    }
}

/// Creates a container in the way that `limit` says, with a store of its own; what comes of it has to be
/// whole, and everything has to go. Whether it worked.
fn attempt(t: &Test, c: &Container, store: &Path, limit: &str, tag: &str) -> Outcome<bool> {
    let words = [&t.runtime.program, Path::new("--root"), store].map(|path| path.display().to_string());
    let [program, root, store] = &words;
    let bundle = c.bundle.display().to_string();
    let mut command = Command::new("/bin/sh");
    command.args([
        "-c",
        &format!("{limit}; exec \"$@\""),
        "sh",
        program,
        root,
        store,
        "create",
        "--bundle",
        &bundle,
    ]);
    command.arg(&c.id).stdin(Stdio::null()).current_dir(&t.dir);
    let output = process::start(&mut command, &t.dir)?.finish(LIMIT)?;
    let worked = output.code == 0;
    if worked {
        call(t, store, &["start", &c.id])?.ok().map_err(|stop| at(tag, stop))?;
    } else {
        // A signal says it all: the kernel's for a lack of memory or a file that is too large.
        let signal = matches!(output.code, 129..=159);
        check!(signal || !output.stderr.trim().is_empty(), "{tag}: exit {} without a message", output.code);
        check!(!output.stderr.contains("panicked at"), "{tag}: {}", output.text());
    }
    Ok(worked)
}

fn at(tag: &str, stop: Stop) -> Stop {
    match stop {
        Stop::Fail(text) => Stop::Fail(format!("{tag}: {text}")),
        skip => skip,
    }
}

fn call(t: &Test, store: &str, words: &[&str]) -> Outcome<Output> {
    let mut command = Command::new(&t.runtime.program);
    command.arg("--root").arg(store).args(words).stdin(Stdio::null()).current_dir(&t.dir);
    process::start(&mut command, &t.dir)?.finish(LIMIT)
}

/// `delete --force`, after which nothing is there.
fn remove(t: &Test, c: &Container, store: &Path, tag: &str) -> Outcome {
    let store = store.display().to_string();
    call(t, &store, &["delete", "--force", &c.id])?.ok().map_err(|stop| at(tag, stop))?;
    let left = || {
        let mut found: Vec<PathBuf> = t.host.cgroups(&format!("{}/{}", t.cgroup, c.id));
        found.retain(|cgroup| cgroup.exists());
        found.extend(fs::read_dir(&store).into_iter().flatten().flatten().map(|entry| entry.path()));
        let pids = process::descendants(std::process::id() as i32);
        found.extend(pids.iter().map(|pid| PathBuf::from(format!("/proc/{pid}"))));
        found
    };
    let gone = process::until("nothing is left", || Ok(left().is_empty()));
    gone.or_else(|_| fail(format!("{tag}: left: {:?}", left())))
}

/// Walks over the sizes of a tmpfs that is the store.
fn walk_store(t: &Test, sizes: impl Iterator<Item = u32>, option: &str) -> Outcome {
    let c = t.container(&t.sleeper())?;
    let store = t.folder("small")?;
    let mut walked = Walked::default();
    for size in sizes {
        let (option, tag) = (format!("mode=755,{option}={size}"), format!("{option}={size}"));
        nix::mount::mount(Some("small"), &store, Some("tmpfs"), MsFlags::empty(), Some(option.as_str()))?;
        let worked = attempt(t, &c, &store, ":", &tag);
        let removed = remove(t, &c, &store, &tag);
        nix::mount::umount2(&store, nix::mount::MntFlags::MNT_DETACH)?;
        walked.worked += u32::from(worked?);
        walked.points += 1;
        removed?;
    }
    walked.end(t)
}

fn a_store_with_room_for_little(t: &Test) -> Outcome {
    walk_store(t, (1..=12).map(|pages| pages * 4096), "size")
}

fn a_store_with_room_for_few_files(t: &Test) -> Outcome {
    walk_store(t, 1..=12, "nr_inodes")
}

fn a_store_that_is_read_only(t: &Test) -> Outcome {
    let c = t.container(&t.sleeper())?;
    let store = t.folder("readonly")?;
    let _mounted = Mounted::tmpfs(&store)?;
    let remount = |flags| Mounted::change(None, &store, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags);
    remount(MsFlags::MS_RDONLY)?;
    check!(!attempt(t, &c, &store, ":", "read-only")?, "it works on a read-only store");
    remount(MsFlags::empty())?;
    check!(attempt(t, &c, &store, ":", "writable")?, "it does not work on a writable store");
    // With the container running, the store becomes read-only: whatever `delete` says, it is not lost.
    remount(MsFlags::MS_RDONLY)?;
    call(t, &store.display().to_string(), &["delete", "--force", &c.id])?.refused()?;
    remount(MsFlags::empty())?;
    remove(t, &c, &store, "writable again")
}

/// Walks over a limit that a shell sets.
fn walk_limit(t: &Test, limits: impl Iterator<Item = String>) -> Outcome {
    let c = t.container(&t.sleeper())?;
    let mut walked = Walked::default();
    for limit in limits {
        walked.worked += u32::from(attempt(t, &c, &t.runtime.state, &limit, &limit)?);
        walked.points += 1;
        remove(t, &c, &t.runtime.state, &limit)?;
    }
    walked.end(t)
}

fn a_runtime_with_few_descriptors(t: &Test) -> Outcome {
    walk_limit(t, (3..=40).map(|number| format!("ulimit -n {number}")))
}

fn a_runtime_with_little_address_space(t: &Test) -> Outcome {
    walk_limit(t, (1..=40).map(|number| format!("ulimit -v {}", number * number * 128)))
}

fn a_runtime_that_may_not_write_files(t: &Test) -> Outcome {
    walk_limit(t, [0, 1, 2, 4, 8, 64, 4096].map(|blocks| format!("ulimit -f {blocks}")).into_iter())
}

/// A cgroup for the runtime itself, with a file written; the directory and the words of a shell to enter it.
fn limited(t: &Test, controller: &str, file: &str) -> Outcome<(PathBuf, String)> {
    let parent = t.host.cgroup(controller, &t.cgroup);
    fs::create_dir_all(&parent)?;
    if t.host.unified {
        fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"))?;
    }
    let directory = parent.join("limited");
    fs::create_dir_all(&directory)?;
    let enter = format!("echo $$ > {}/cgroup.procs", directory.display());
    Ok((directory.join(file), enter))
}

fn walk_cgroup(
    t: &Test,
    config: &Config,
    (controller, file): (&str, &str),
    values: impl Iterator<Item = u64>,
) -> Outcome {
    let c = t.container(config)?;
    let (file, enter) = limited(t, controller, file)?;
    let mut walked = Walked::default();
    for value in values {
        fs::write(&file, value.to_string())?;
        let tag = format!("{} {value}", file.display());
        walked.worked += u32::from(attempt(t, &c, &t.runtime.state, &enter, &tag)?);
        walked.points += 1;
        remove(t, &c, &t.runtime.state, &tag)?;
    }
    leaks::end_cgroups(&t.host, &format!("{}/limited", t.cgroup));
    walked.end(t)
}

fn a_runtime_that_may_have_few_processes(t: &Test) -> Outcome {
    let mut config = t.sleeper();
    // With cgroup v2 the container's process is born in the container's cgroup; this one is the runtime's own.
    config.push("hooks.createRuntime", serde_json::json!({ "path": "/bin/true" }));
    walk_cgroup(t, &config, ("pids", "pids.max"), 1..=6)
}

fn a_runtime_with_little_memory(t: &Test) -> Outcome {
    let file = if t.host.unified { "memory.max" } else { "memory.limit_in_bytes" };
    walk_cgroup(
        t,
        &t.sleeper(),
        ("memory", file),
        (1..=16).map(|steps| steps * (256 << 10)).chain([64 << 20]),
    )
}

fn fifty_that_create_start_and_delete_one_id(t: &Test) -> Outcome {
    let c = t.container(&t.sleeper())?;
    let (program, store) = (t.runtime.program.display(), t.runtime.state.display());
    let script = format!(
        "r='{program} --root {store}'; $r create --bundle {} c; $r start c; $r state c; $r delete --force c; :",
        c.bundle.display()
    );
    let mut all = Vec::new();
    for _ in 0..50 {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script.replace(" c;", &format!(" {};", c.id))]).stdin(Stdio::null());
        all.push(process::start(&mut command, &t.dir)?);
    }
    for one in all {
        // Fifty at once on few processors: all of them together get as long as six one after the other.
        let said = one.finish(6 * LIMIT)?.ok()?;
        check!(!said.stderr.contains("panicked at"), "{}", said.text());
    }
    remove(t, &c, &t.runtime.state, "fifty at once")?;
    c.create()?.ok()?;
    c.start()?.ok()?;
    remove(t, &c, &t.runtime.state, "afterwards")
}

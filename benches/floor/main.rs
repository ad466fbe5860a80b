//! floor: asks the kernel for the same objects as a container runtime and does nothing else.
//!
//! `floor run path|fd PLAN` makes namespaces, cgroups, mounts, devices and masks, executes the program,
//! waits and removes the cgroups. `floor exec PLAN PID` joins what a `floor run` made. PLAN is a list of
//! lines, fields separated by tabs, that the bench derives from the bundle's config.json
//! (`src/floor_plan.rs`): no JSON, no checks, no state, no error handling beyond saying which line failed.
//! What is measured here is what no runtime can save; it must never do less than the config asks for.

mod by_fd;
mod by_path;
mod sys;

use std::fs::{self, File};
use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::process::exit;

use by_fd::ByFd;
use by_path::ByPath;
use sys::c;

type Line<'a> = Vec<&'a str>;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        ["run", by @ ("path" | "fd"), plan] => run(&read(plan), by == "fd"),
        ["exec", plan, pid] => exec(&read(plan), pid.parse().expect("a pid")),
        _ => Err("usage: floor run path|fd PLAN, or floor exec PLAN PID".to_owned()),
    };
    if let Err(error) = result {
        eprintln!("floor: {error}");
        exit(1);
    }
}

fn read(plan: &str) -> String {
    fs::read_to_string(plan).unwrap_or_else(|error| panic!("{plan}: {error}"))
}

fn lines(plan: &str) -> impl Iterator<Item = Line<'_>> {
    plan.lines().map(|line| line.split('\t').collect())
}

fn at<'a, T>(line: &'a Line<'a>) -> impl FnOnce(io::Result<T>) -> Result<T, String> + 'a {
    move |result| result.map_err(|error| format!("{}: {error}", line.join(" ")))
}

fn number(text: &str) -> u64 {
    text.parse().expect("numbers in a plan are decimal")
}

/// The parent's side: cgroups, the clone, the attaching, the waiting, the removal.
fn run(plan: &str, by_fd: bool) -> Result<(), String> {
    let (mut made, mut attach, mut into) = (Vec::new(), Vec::new(), None);
    let mut steps = lines(plan);
    let namespaces = loop {
        let line = steps.next().ok_or("a plan has a clone line")?;
        match line[..] {
            ["mkdir", path] => {
                at(&line)(sys::mkdir_at(sys::AT_FDCWD, &c(path), 0o755))?;
                made.push(path);
            }
            ["write", path, text] => at(&line)(fs::write(path, text))?,
            ["attach", path] => attach.push(path),
            ["into", path] => into = Some(at(&line)(File::open(path))?),
            ["devices"] => {
                at(&line)(sys::device_program(into.as_ref().ok_or("devices without into")?.as_fd()))?
            }
            ["clone", namespaces] => break number(namespaces),
            _ => return Err(format!("unknown line: {}", line.join(" "))),
        }
    };
    let (attached, tell) = io::pipe().map_err(|error| error.to_string())?;
    let pid = sys::clone3(namespaces, into.as_ref().map(|dir| dir.as_fd()))
        .map_err(|error| format!("clone3: {error}"))?;
    if pid == 0 {
        drop(tell);
        let Err(error) = child(steps, by_fd, attached);
        eprintln!("floor: {error}");
        exit(1);
    }
    for dir in &attach {
        at(&vec![*dir])(fs::write(format!("{dir}/cgroup.procs"), pid.to_string()))?;
    }
    drop(tell);
    let result = sys::wait_for(pid).map_err(|error| error.to_string());
    for dir in made.iter().rev() {
        at(&vec!["rmdir", *dir])(fs::remove_dir(dir))?;
    }
    result
}

enum Mounts {
    ByPath(ByPath),
    ByFd(ByFd),
}

/// Calls the same method on whichever of the two ways of mounting this run uses.
macro_rules! either {
    ($mounts:expr, $call:ident ( $($argument:expr),* )) => {
        match $mounts {
            Mounts::ByPath(way) => way.$call($($argument),*),
            Mounts::ByFd(way) => way.$call($($argument),*),
        }
    };
}

/// The container's side, one line after the other. The last line executes the program.
fn child<'a>(
    mut steps: impl Iterator<Item = Line<'a>>,
    by_fd: bool,
    mut attached: PipeReader,
) -> Result<std::convert::Infallible, String> {
    sys::clear_umask();
    let root = steps.next().ok_or("nothing after clone")?;
    let mut mounts = match root[..] {
        ["root", path] if by_fd => Mounts::ByFd(at(&root)(ByFd::new(path))?),
        ["root", path] => Mounts::ByPath(at(&root)(ByPath::new(path))?),
        _ => return Err("the line after clone is root".to_owned()),
    };
    let mut env = Vec::new();
    for line in steps {
        let result = match line[..] {
            ["mount", kind, source, target, flags, data] => {
                either!(&mounts, mount(kind, source, target, number(flags), data))
            }
            ["bind", source, target] => either!(&mounts, bind(source, target)),
            ["remount", target, flags] => either!(&mounts, remount(target, number(flags))),
            ["dir", target, mode] => either!(&mounts, dir(target, number(mode) as u32)),
            ["node", target, mode, major, minor] => {
                either!(&mounts, node(target, number(mode) as u32, number(major), number(minor)))
            }
            ["link", target, text] => either!(&mounts, link(target, text)),
            ["pivot"] => either!(&mut mounts, pivot()),
            ["mask", target] => either!(&mounts, mask(target)),
            ["readonly", target, flags] => either!(&mounts, readonly(target, number(flags))),
            // The parent attaches while this side mounts; it closes the pipe when that is done.
            ["attached"] => attached.read(&mut [0]).map(drop),
            ["cgroupns"] => sys::leave(sys::NEWCGROUP),
            ["loopback"] => sys::loopback_up(),
            ["keyring"] => sys::keyring(),
            ["hostname", name] => sys::hostname(name),
            _ => identity(&line, &mut env),
        };
        at(&line)(result)?;
    }
    Err("a plan ends in exec".to_owned())
}

/// The lines that `run` and `exec` share: who the process is, and the program.
fn identity(line: &Line, env: &mut Vec<String>) -> io::Result<()> {
    match line[..] {
        ["ids", uid, gid, ref groups @ ..] => {
            let groups: Vec<u32> = groups.iter().map(|gid| number(gid) as u32).collect();
            sys::identity(number(uid) as u32, number(gid) as u32, &groups)
        }
        ["caps", keep, last] => sys::capabilities(number(keep), number(last) as u32),
        ["env", text] => {
            env.push(text.to_owned());
            Ok(())
        }
        ["exec", ref args @ ..] => Err(sys::exec(args, env)),
        _ => Err(io::Error::other("unknown line")),
    }
}

/// Joins the container of `pid`: cgroups and namespaces first, the clone into its pid namespace last.
fn exec(plan: &str, pid: i32) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let (mut into, mut namespaces) = (None, 0);
    for line in lines(plan) {
        match line[..] {
            // In v1 floor itself moves, once per hierarchy, and its child is born there.
            ["attach", dir] => at(&line)(fs::write(format!("{dir}/cgroup.procs"), "0"))?,
            ["into", dir] => into = Some(at(&line)(File::open(dir))?),
            ["clone", flags] => namespaces = number(flags),
            _ => {}
        }
    }
    let container = sys::pidfd_open(pid).map_err(text)?;
    sys::join(container.as_fd(), namespaces).map_err(text)?;
    let child = sys::clone3(0, into.as_ref().map(|dir| dir.as_fd())).map_err(text)?;
    if child == 0 {
        let mut env = Vec::new();
        for line in lines(plan) {
            let result = match line[0] {
                // After the clone: from inside it the cgroup above could not be reached any more.
                "cgroupns" => sys::join(container.as_fd(), sys::NEWCGROUP),
                "ids" | "caps" | "env" | "exec" => identity(&line, &mut env),
                _ => Ok(()),
            };
            at(&line)(result)?;
        }
    }
    sys::wait_for(child).map_err(text)
}

//! `through SECONDS HOSTFILE`: opens through every descriptor, directory, root and program of every process
//! that is seen, as fast as it can, and reports what leads out of the container. What is opened is only
//! looked at, never written. `above SECONDS` looks for processes that have more capabilities than it has itself,
//! and whose memory it may write: it could have them do what it may not. main.rs has the other roles.

use crate::json::{array, quote};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// What does not change while it looks.
struct Own {
    /// The identifiers of the mounts of this namespace.
    mounts: BTreeSet<String>,
    /// A file of the host, which no container can reach.
    host_file: String,
}

pub fn through(rest: &[&str]) -> String {
    let seconds: u64 = rest.first().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = Own {
        mounts: mountinfo.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect(),
        host_file: rest.get(1).copied().unwrap_or_default().to_owned(),
    };
    at_all(seconds, |pid, found| look(pid, &own, found))
}

pub fn above(rest: &[&str]) -> String {
    let seconds: u64 = rest.first().and_then(|text| text.parse().ok()).unwrap_or(1);
    let own = permitted(&status("self")).unwrap_or(u64::MAX);
    at_all(seconds, |pid, found| {
        let base = pid.to_string();
        let more = || {
            let status = status(&base);
            let capabilities = permitted(&status)? & !own;
            (!status.contains("\nSeccomp:\t2\n") || is_at_home(&base)).then_some(capabilities)
        };
        let capabilities = more().unwrap_or(0);
        // Asked again, because it may have given them up meanwhile.
        if capabilities != 0
            && fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/mem")).is_ok()
            && more() == Some(capabilities)
        {
            found.insert(format!("a process with the capabilities {capabilities:#x}"));
        }
        Path::new(&format!("/proc/{pid}")).exists()
    })
}

/// In this user namespace. In another one, a filter leaves a process nothing to use its capabilities for.
fn is_at_home(pid: &str) -> bool {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user")).ok();
    namespace(pid) == namespace("self")
}

fn status(pid: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()
}

fn permitted(status: &str) -> Option<u64> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapPrm:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

/// Looks at all other processes again and again; `look` says whether there is such a one.
fn at_all(seconds: u64, mut look: impl FnMut(u32, &mut BTreeSet<String>) -> bool) -> String {
    println!("{{\"looking\":true}}");
    let own = std::process::id();
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut found, mut seen, mut highest) = (BTreeSet::new(), BTreeSet::new(), own);
    while Instant::now() < end {
        // New processes have the next numbers: asking for these is faster than reading the directory.
        for pid in 1..highest + 12 {
            if pid != own && look(pid, &mut found) {
                highest = highest.max(pid);
                seen.insert(pid);
            }
        }
    }
    let found: Vec<String> = found.iter().map(|text| quote(text)).collect();
    format!("{{\"seen\":{},\"found\":{}}}", seen.len(), array(&found))
}

/// Looks at one process; false: it is not there.
fn look(pid: u32, own: &Own, found: &mut BTreeSet<String>) -> bool {
    let base = format!("/proc/{pid}");
    let Ok(descriptors) = fs::read_dir(format!("{base}/fd")) else { return Path::new(&base).exists() };
    for entry in descriptors.flatten() {
        let number = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{base}/fd/{number}");
        // Pipes, sockets and sealed files without a name lead nowhere.
        let Ok(target) = fs::read_link(&path) else { continue };
        let name = target.to_string_lossy().into_owned();
        if !name.starts_with('/') || name.starts_with("/memfd:") || fs::metadata(&path).is_err() {
            continue;
        }
        let standard = number.parse::<u32>().is_ok_and(|number| number < 3);
        let device = fs::metadata(&path).is_ok_and(|meta| meta.file_type().is_char_device());
        if !standard && !device && outside(&base, &number, own) {
            found.insert(format!("descriptor {number}: {name}"));
        }
        if procfs_of_the_host(&path) {
            found.insert(format!("descriptor {number}: procfs of the host ({name})"));
        }
        note_host_file(&path, own, found);
    }
    for name in ["cwd", "root"] {
        note_host_file(&format!("{base}/{name}"), own, found);
    }
    true
}

/// The mount that a descriptor is on is none of this namespace.
fn outside(base: &str, number: &str, own: &Own) -> bool {
    let information = fs::read_to_string(format!("{base}/fdinfo/{number}")).unwrap_or_default();
    let mount = information.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim);
    mount.is_some_and(|mount| !own.mounts.contains(mount))
}

/// A procfs whose first process is another one than ours, by its command line.
fn procfs_of_the_host(path: &str) -> bool {
    let first = |base: &str| fs::read_to_string(format!("{base}/1/cmdline")).ok();
    let there = first(path);
    there.is_some() && there != first("/proc")
}

fn note_host_file(path: &str, own: &Own, found: &mut BTreeSet<String>) {
    for up in ["", "/../../../../../../.."] {
        if fs::read_to_string(format!("{path}{up}{}", own.host_file)).is_ok_and(|text| text == "untouched") {
            let last = path.rsplit('/').next().unwrap_or_default();
            found.insert(format!("{last}{up}: a file of the host"));
        }
    }
}

//! Compares restored processes with what the configuration allows, before they run: a checkpoint is
//! input that nobody vouches for, and CRIU gives a process whatever the files say.
//!
//! Only processes of the container are looked at; nothing is changed here.

use crate::error::{Diagnostic, Error, ErrorKind, Result};
use crate::namespaces::{is_new, listed};
use crate::plan::Plan;
use crate::prepare::Prepared;
use crate::state::State;
use crate::step::Step;
use nix::errno::Errno;
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType as Ns, Spec};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Fails on the first process that has more than the configuration gives.
/// `criu` is in the container's cgroup while it works.
pub(crate) fn processes(prepared: &Prepared, state: &State, init: i32, criu: i32) -> Result<()> {
    let allowed = Allowed::of(&prepared.plan);
    let members: BTreeSet<i32> = state.cgroup.pids(true)?.into_iter().collect();
    let mut all = members.clone();
    all.extend(in_same_pid_namespace(init, &prepared.spec)?);
    all.insert(init);
    all.remove(&criu);
    for pid in all {
        let refused = |problem: String| refused(pid, &problem);
        // It will never run, and a cgroup of v2 does not list it.
        if is_zombie(pid) {
            continue;
        }
        if !state.cgroup.is_none() && !members.contains(&pid) {
            return Err(refused("is not in the container's cgroup".into()));
        }
        allowed.check(pid).map_err(refused)?;
        namespaces(&prepared.spec, pid).map_err(refused)?;
        root(&state.rootfs, pid).map_err(refused)?;
    }
    Ok(())
}

/// A process that has ended, with all its threads, and is not reaped yet (proc_pid_stat(5)).
fn is_zombie(pid: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let mut fields = text.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
    let (state, threads) = (fields.next(), fields.nth(16));
    state == Some("Z") && threads == Some("1")
}

fn refused(pid: i32, problem: &str) -> Error {
    let finding = Diagnostic::new("checkpoint", format!("process {pid} {problem}"));
    Error::new(ErrorKind::InvalidConfig, format!("invalid checkpoint: {finding}")).with_hint(
        "the checkpoint holds a process with more than config.json allows: change the configuration, or do not trust the files",
    )
}

/// What a process may have at most, as the plan of a fresh container would give it.
struct Allowed {
    capabilities: u64,
    no_new_privileges: bool,
    filtered: bool,
}

impl Allowed {
    fn of(plan: &Plan) -> Self {
        let mut allowed = Self { capabilities: u64::MAX, no_new_privileges: false, filtered: false };
        for (step, _) in plan.steps() {
            match step {
                Step::DropBounding { keep } => allowed.capabilities = *keep,
                Step::NoNewPrivileges => allowed.no_new_privileges = true,
                Step::SetSeccomp { .. } => allowed.filtered = true,
                _ => {}
            }
        }
        allowed
    }

    fn check(&self, pid: i32) -> std::result::Result<(), String> {
        let path = format!("/proc/{pid}/status");
        let text =
            fs::read_to_string(&path).map_err(|error| format!("cannot be checked: open {path}: {error}"))?;
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        for name in ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"] {
            let set = field(name).and_then(|digits| u64::from_str_radix(digits, 16).ok());
            match set {
                Some(set) if set & !self.capabilities == 0 => {}
                Some(set) => {
                    return Err(format!(
                        "has capabilities beyond process.capabilities.bounding: {name} {set:016x}"
                    ));
                }
                None => return Err(format!("cannot be checked: {path} has no {name}")),
            }
        }
        if self.no_new_privileges && field("NoNewPrivs") != Some("1") {
            return Err("lacks process.noNewPrivileges".into());
        }
        const FILTER_MODE: &str = "2";
        if self.filtered && field("Seccomp") != Some(FILTER_MODE) {
            return Err("runs without the filter of linux.seccomp".into());
        }
        Ok(())
    }
}

/// A namespace is not the caller's where the configuration asks for a new one. Those given by path come by
/// descriptor from the configuration, and are not compared.
fn namespaces(spec: &Spec, pid: i32) -> std::result::Result<(), String> {
    let listed = listed(spec);
    let inode = |path: &Path| {
        let found = fs::metadata(path)
            .map_err(|error| format!("cannot be checked: stat {}: {error}", path.display()));
        found.map(|found| (found.dev(), found.ino()))
    };
    for namespace in listed.iter().filter(|namespace| namespace.path().is_none()) {
        let name = file_name(namespace.typ());
        let theirs = inode(Path::new(&format!("/proc/{pid}/ns/{name}")))?;
        if theirs == inode(Path::new(&format!("/proc/self/ns/{name}")))? {
            return Err(format!("is in the caller's {name} namespace"));
        }
    }
    if is_new(listed, Ns::User) {
        let linux = spec.linux().as_ref();
        let maps = |get: fn(&oci_spec::runtime::Linux) -> &Option<Vec<LinuxIdMapping>>| {
            linux.and_then(|linux| get(linux).clone()).unwrap_or_default()
        };
        id_map(pid, "uid_map", &maps(oci_spec::runtime::Linux::uid_mappings))?;
        id_map(pid, "gid_map", &maps(oci_spec::runtime::Linux::gid_mappings))?;
    }
    Ok(())
}

fn id_map(pid: i32, file: &str, wanted: &[LinuxIdMapping]) -> std::result::Result<(), String> {
    let path = format!("/proc/{pid}/{file}");
    let text =
        fs::read_to_string(&path).map_err(|error| format!("cannot be checked: open {path}: {error}"))?;
    let found: BTreeSet<Vec<u32>> = text
        .lines()
        .map(|line| line.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect())
        .collect();
    let row = |row: &LinuxIdMapping| vec![row.container_id(), row.host_id(), row.size()];
    if found == wanted.iter().map(row).collect() {
        return Ok(());
    }
    Err(format!(
        "has another {file} than linux.{}",
        if file == "uid_map" { "uidMappings" } else { "gidMappings" }
    ))
}

fn file_name(kind: Ns) -> &'static str {
    match kind {
        Ns::Mount => "mnt",
        Ns::Cgroup => "cgroup",
        Ns::Uts => "uts",
        Ns::Ipc => "ipc",
        Ns::User => "user",
        Ns::Pid => "pid",
        Ns::Network => "net",
        Ns::Time => "time",
    }
}

fn root(rootfs: &Path, pid: i32) -> std::result::Result<(), String> {
    let path = PathBuf::from(format!("/proc/{pid}/root/"));
    let stat = |path: &Path| {
        let found = fs::metadata(path)
            .map_err(|error| format!("cannot be checked: stat {}: {error}", path.display()));
        found.map(|found| (found.dev(), found.ino()))
    };
    if stat(&path)? == stat(Path::new("/"))? && stat(rootfs)? != stat(Path::new("/"))? {
        return Err("has the caller's root".into());
    }
    Ok(())
}

/// A file of the checkpoint could have put a process outside of the cgroup.
fn in_same_pid_namespace(init: i32, spec: &Spec) -> Result<Vec<i32>> {
    if !is_new(listed(spec), Ns::Pid) {
        return Ok(Vec::new());
    }
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted =
        namespace(init).ok_or_else(|| Error::os(format!("readlink /proc/{init}/ns/pid"), Errno::ESRCH))?;
    let entries = fs::read_dir("/proc").map_err(|error| Error::io("open /proc", error))?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    Ok(pids.filter(|pid| namespace(*pid).as_ref() == Some(&wanted)).collect())
}

//! What the cgroup of the trial container can limit, and whether systemd would make one.

use super::report::{Check, told};
use super::tools::{read_word, user_name};
use super::trial::Group;
use crate::cgroup::{self, Layout};
use std::fs;
use std::path::Path;

/// Controllers, and what a container lacks without them.
const V2: &[(&str, &str)] = &[
    ("cpu", "linux.resources.cpu: shares, quota and burst (--cpus, --cpu-shares)"),
    ("cpuset", "linux.resources.cpu.cpus and mems (--cpuset-cpus)"),
    ("io", "linux.resources.blockIO (--device-read-bps, --blkio-weight), and I/O in statistics"),
    ("memory", "linux.resources.memory (--memory), events of memory running out"),
    ("pids", "linux.resources.pids (--pids-limit): a fork bomb takes the whole host"),
    ("hugetlb", "linux.resources.hugepageLimits"),
];
const V1: &[(&str, &str)] = &[
    ("cpu", "linux.resources.cpu: shares, quota and burst (--cpus, --cpu-shares)"),
    ("cpuacct", "CPU time in statistics"),
    ("cpuset", "linux.resources.cpu.cpus and mems (--cpuset-cpus)"),
    ("memory", "linux.resources.memory (--memory), events of memory running out"),
    ("devices", "linux.resources.devices: no container can run"),
    ("freezer", "pause and resume"),
    ("blkio", "linux.resources.blockIO (--device-read-bps, --blkio-weight), and I/O in statistics"),
    ("pids", "linux.resources.pids (--pids-limit): a fork bomb takes the whole host"),
    ("hugetlb", "linux.resources.hugepageLimits"),
];

pub(super) fn check(group: Option<Group>, root: bool, systemd_cgroup: bool) -> Vec<Check> {
    let systemd = cgroup::ask_systemd();
    let mut checks = Vec::new();
    match Layout::probe() {
        Err(error) => {
            let fix = error.hint().unwrap_or("mount -t cgroup2 none /sys/fs/cgroup").to_owned();
            checks.push(Check::missing("cgroups", told(&error), fix));
        }
        Ok(layout) => {
            checks.push(version(&layout, group.as_ref(), systemd.is_ok()));
            let usable = group.as_ref().filter(|group| !group.cgroup.is_none());
            checks.extend(match (layout.is_v2(), usable) {
                (true, Some(group)) => Some(controllers_v2(&group.controllers, root)),
                // The controllers that it would have with --systemd-cgroup.
                (true, None) => systemd.as_ref().ok().map(|answer| controllers_v2(&answer.controllers, root)),
                (false, Some(_)) => Some(controllers_v1(&layout)),
                (false, None) => None,
            });
            checks.extend(usable.into_iter().flat_map(|group| settings(group, layout.is_v2())));
        }
    }
    checks.push(match systemd {
        Ok(answer) => Check::ok(
            "systemd",
            format!("version {} answers over D-Bus ({} instance)", answer.version, answer.instance),
        ),
        Err(_) if !systemd_cgroup && !booted() => {
            Check::ok("systemd", "this host was not booted with it: the cgroupfs driver is the one to use")
        }
        Err(error) => Check::limited(
            "systemd",
            told(&error),
            "--systemd-cgroup, which Kubernetes, Podman and Docker use with systemd, is refused",
            systemd_fix(root),
        ),
    });
    checks
}

fn version(layout: &Layout, group: Option<&Group>, systemd: bool) -> Check {
    let (v1, v2): (Vec<_>, Vec<_>) = layout.mount_points().partition(|(_, names)| !names.is_empty());
    let kind = match (v1.len(), v2.len()) {
        (0, _) => "v2",
        (_, 0) => "v1",
        _ => "v1, with an empty v2 hierarchy beside it (hybrid)",
    };
    let Some(group) = group else { return Check::ok("cgroups", kind) };
    if group.cgroup.is_none() {
        let fix = match (layout.is_v2(), systemd) {
            (true, true) => "use --systemd-cgroup: this user's own systemd makes cgroups",
            (true, false) => "log in by a session of systemd's and use --systemd-cgroup",
            (false, _) => "cgroup v2: boot with systemd.unified_cgroup_hierarchy=1",
        };
        return Check::limited(
            "cgroups",
            format!("{kind}; this user cannot make one"),
            "limits are refused, and there is no pause, update, events or kill --all",
            fix,
        );
    }
    match &group.pause {
        Ok(()) => Check::ok("cgroups", format!("{kind}; one was made, frozen, thawed and removed")),
        Err(error) => Check::limited(
            "cgroups",
            format!("{kind}; {}", told(error)),
            "pause and resume fail",
            error.hint().unwrap_or("see Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst"),
        ),
    }
}

fn controllers_v2(have: &[String], root: bool) -> Check {
    let fix = |names: &[&str]| match root {
        false => "in /etc/systemd/system/user@.service.d/delegate.conf: [Service] \
                  Delegate=cpu cpuset io memory pids; then systemctl daemon-reload, and log in again"
            .to_owned(),
        true => kernel_fix(names),
    };
    // systemd does not delegate the controller hugetlb.
    let wanted = &V2[..if root { V2.len() } else { V2.len() - 1 }];
    controllers(wanted, |name| have.iter().any(|other| other == name), fix)
}

fn controllers_v1(layout: &Layout) -> Check {
    let have = |name: &str| layout.mount_points().any(|(_, names)| names.iter().any(|other| other == name));
    controllers(V1, have, kernel_fix)
}

fn controllers(
    wanted: &[(&str, &str)],
    have: impl Fn(&str) -> bool,
    fix: impl Fn(&[&str]) -> String,
) -> Check {
    let (there, missing): (Vec<_>, Vec<_>) = wanted.iter().partition(|(name, _)| have(name));
    fn names<'a>(list: &[&(&'a str, &str)]) -> Vec<&'a str> {
        list.iter().map(|(name, _)| *name).collect()
    }
    if missing.is_empty() {
        return Check::ok("controllers", names(&there).join(" "));
    }
    let costs: Vec<&str> = missing.iter().map(|(_, costs)| *costs).collect();
    Check::limited(
        "controllers",
        format!("not usable: {}", names(&missing).join(" ")),
        &costs.join("; "),
        fix(&names(&missing)),
    )
}

/// The fix depends on what /proc/cgroups says about the first one.
fn kernel_fix(names: &[&str]) -> String {
    let name = names.first().copied().unwrap_or_default();
    let known = if name == "io" { "blkio" } else { name };
    let text = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let row = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    match row.into_iter().find(|fields| fields.first() == Some(&known)).as_deref() {
        Some([_, _, _, "0"]) => format!("drop cgroup_disable={known} from the kernel's command line"),
        Some([_, hierarchy, ..]) if *hierarchy != "0" => {
            format!("umount the v1 hierarchy that has {known}, or mount it below /sys/fs/cgroup")
        }
        Some(_) if Path::new("/sys/fs/cgroup/cgroup.procs").exists() => {
            format!("echo +{name} to cgroup.subtree_control of each cgroup from the root down")
        }
        Some(_) => format!("mount -t cgroup -o {name} none /sys/fs/cgroup/{name}"),
        None => format!("a kernel that has the controller {name}"),
    }
}

/// Single limits that depend on how the kernel was built or booted.
fn settings(group: &Group, v2: bool) -> Vec<Check> {
    let has = |names: &[&str]| group.files.iter().any(|file| names.contains(&file.as_str()));
    let memory: &[&str] = &["memory.max", "memory.limit_in_bytes"];
    let io: &[&str] = &["io.max", "blkio.throttle.read_bps_device"];
    let mut checks = Vec::new();
    if has(memory) {
        checks.push(match has(&["memory.swap.max", "memory.memsw.limit_in_bytes"]) {
            true => Check::ok("swap limit", "memory.swap can be limited"),
            false => Check::limited(
                "swap limit",
                "the kernel does not account swap",
                "linux.resources.memory.swap is refused (--memory-swap)",
                "boot with swapaccount=1, on a kernel with CONFIG_SWAP",
            ),
        });
    }
    if has(io) {
        let weights = ["io.weight", "io.bfq.weight", "blkio.weight", "blkio.bfq.weight"];
        checks.push(match has(&weights) {
            true => Check::ok("I/O weights", "blockIO.weight can be set"),
            false => Check::limited(
                "I/O weights",
                "neither BFQ nor io.cost is available",
                "linux.resources.blockIO.weight is refused (--blkio-weight)",
                "modprobe bfq, and echo bfq to /sys/block/DISK/queue/scheduler",
            ),
        });
    }
    if v2 {
        checks.push(match has(&["cpu.pressure", "memory.pressure"]) {
            true => Check::ok("pressure", "stalls are counted"),
            false => Check::limited(
                "pressure",
                "the kernel does not count stalls",
                "statistics have no PSI",
                "boot with psi=1, on a kernel with CONFIG_PSI",
            ),
        });
    }
    let realtime = read_word("/proc/sys/kernel/sched_rt_runtime_us");
    if !v2 && has(&["cpu.rt_runtime_us"]) {
        checks.push(Check::ok("realtime budget", format!("{realtime} us for the whole host")));
    }
    for warning in &group.warnings {
        checks.push(Check::ok("warning", warning));
    }
    checks
}

fn booted() -> bool {
    Path::new("/run/systemd/system").exists()
}

fn systemd_fix(root: bool) -> String {
    let user = user_name(nix::unistd::geteuid().as_raw());
    match (booted(), root) {
        (false, _) => "drop --systemd-cgroup: this host was not booted with systemd".into(),
        (true, true) => "systemctl start dbus.socket, or install dbus".into(),
        (true, false) => format!(
            "install dbus-user-session (or dbus-broker), and run from a login session \
             or after: loginctl enable-linger {user}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn a_missing_controller_costs_its_properties() {
        let have: Vec<String> = ["memory", "pids"].map(str::to_owned).into();
        let check = controllers_v2(&have, false);
        assert_eq!(check.level, Level::Limited);
        assert_eq!(check.found, "not usable: cpu cpuset io");
        assert!(check.costs.is_some_and(|costs| costs.contains("--cpus") && !costs.contains("--memory")));
        assert!(check.fix.is_some_and(|fix| fix.contains("Delegate=cpu")));
    }

    #[test]
    fn all_controllers_are_nothing_to_say() {
        let have: Vec<String> = V2.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(controllers_v2(&have, true).level, Level::Ok);
    }
}

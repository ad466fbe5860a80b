//! Checks of the rest of the host: kernel, privileges, programs that are called, filesystems.

use super::report::{Check, Level, told};
use crate::{host, sys};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(super) use crate::container::user_name;

pub(super) fn release() -> String {
    nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
}

pub(super) fn kernel() -> Check {
    match host::check_kernel() {
        Ok(()) => Check::ok("kernel", format!("Linux {}", release())),
        Err(error) => Check::missing("kernel", told(&error), error.hint().unwrap_or_default()),
    }
}

pub(super) fn check(root: bool) -> Vec<Check> {
    let mut checks = Vec::new();
    if root {
        checks.push(privileges());
    }
    checks.extend([executable_memory(), seccomp(), security_modules(), overlay(), network(root)]);
    if !root {
        checks.extend([ports(), linger()]);
    }
    checks
}

/// Capabilities that root of a container or of a restricted service may lack.
fn privileges() -> Check {
    const WANTED: &[(u32, &str, &str)] = &[
        (0, "CAP_CHOWN", "devices and cgroups of other users"),
        (5, "CAP_KILL", "signals to other users' containers"),
        (6, "CAP_SETGID", "process.user"),
        (7, "CAP_SETUID", "process.user"),
        (8, "CAP_SETPCAP", "process.capabilities"),
        (12, "CAP_NET_ADMIN", "networks and network devices"),
        (18, "CAP_SYS_CHROOT", "everything"),
        (21, "CAP_SYS_ADMIN", "everything"),
        (24, "CAP_SYS_RESOURCE", "limits of resources above the caller's own, a lower oomScoreAdj"),
        (27, "CAP_MKNOD", "devices that the host has no node of"),
    ];
    let Ok((effective, _)) = sys::own_capabilities() else {
        return Check::missing("privileges", "capget fails", "a kernel with capget(2)");
    };
    let missing: Vec<_> = WANTED.iter().filter(|(bit, ..)| effective & (1 << bit) == 0).collect();
    if missing.is_empty() {
        return Check::ok("privileges", "all capabilities that a configuration may need");
    }
    let names: Vec<&str> = missing.iter().map(|(_, name, _)| *name).collect();
    let costs: Vec<&str> = missing.iter().map(|(.., costs)| *costs).collect();
    let essential = names.iter().any(|name| ["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"].contains(name));
    let fix = format!("start onggi with {} (of a service: AmbientCapabilities=)", names.join(", "));
    let mut check =
        Check::limited("privileges", format!("without {}", names.join(", ")), &costs.join("; "), fix);
    if essential {
        check.level = Level::Missing;
    }
    check
}

/// The stage runs from a memfd.
fn executable_memory() -> Check {
    match crate::stage::sealed_program() {
        Ok(_) => Check::ok("executable memfd", "one was made and sealed"),
        Err(error) => Check::missing(
            "executable memfd",
            told(&error),
            "sysctl vm.memfd_noexec=1, and for good in /etc/sysctl.d/",
        ),
    }
}

fn seccomp() -> Check {
    const COSTS: &str = "linux.seccomp is refused, which every engine sets";
    let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    match (actions.is_empty(), actions.contains("user_notif")) {
        (true, _) => {
            Check::limited("seccomp", "the kernel has none", COSTS, "a kernel with CONFIG_SECCOMP_FILTER")
        }
        (_, true) => Check::ok("seccomp", actions.trim_end()),
        (_, false) => Check::limited(
            "seccomp",
            actions.trim_end(),
            "SCMP_ACT_NOTIFY is refused",
            "a kernel with CONFIG_SECCOMP_FILTER, 5.0 or newer",
        ),
    }
}

/// Having neither is the distribution's choice.
fn security_modules() -> Check {
    let listed = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let apparmor = read_word("/sys/module/apparmor/parameters/enabled") == "Y";
    let selinux = Path::new("/sys/fs/selinux/enforce").exists();
    let found = match (apparmor, selinux) {
        (true, _) => "AppArmor: process.apparmorProfile is applied; selinuxLabel is refused",
        (_, true) => "SELinux: process.selinuxLabel is applied; apparmorProfile is refused",
        _ => "neither AppArmor nor SELinux: a configuration with a profile or a label is refused",
    };
    let listed = listed.trim_end();
    Check::ok("security module", if listed.is_empty() { found.into() } else { format!("{found} ({listed})") })
}

/// onggi does not mount overlays, but engines make root filesystems with them.
fn overlay() -> Check {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if known.lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay") {
        return Check::ok("overlay", "the kernel has it");
    }
    let modules = PathBuf::from("/lib/modules").join(release());
    let lists = ["modules.dep", "modules.builtin"].map(|name| fs::read_to_string(modules.join(name)));
    if lists.iter().flatten().any(|text| text.contains("/overlay.ko")) {
        return Check::ok("overlay", "a module that is not loaded yet");
    }
    Check::limited(
        "overlay",
        "the kernel does not have it",
        "engines copy whole images for each container (vfs)",
        "modprobe overlay, or a kernel with CONFIG_OVERLAY_FS",
    )
}

fn network(root: bool) -> Check {
    const NAME: &str = "networks";
    const COSTS: &str = "networks of our own (--network) are refused; engines bring their own";
    if root {
        return match answers("nft", &["list", "tables"]) {
            Ok(_) if forwarding_is_shut() => Check::limited(
                NAME,
                "iptables' policy for FORWARD is DROP, as Docker sets it",
                "containers on a bridge reach only each other and the host, unless rules of yours let them",
                "iptables -I DOCKER-USER -i BRIDGE -j ACCEPT, and -o BRIDGE (without Docker: -I FORWARD)",
            ),
            Ok(_) => Check::ok(NAME, "nft answers, and the kernel takes its rules"),
            Err(problem) => Check::limited(
                NAME,
                problem,
                COSTS,
                "install nftables; a kernel with CONFIG_NF_TABLES, and CAP_NET_ADMIN over the host's network",
            ),
        };
    }
    let tun = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let answer = answers("pasta", &["--version"]).or_else(|_| answers("slirp4netns", &["--version"]));
    match (answer, tun) {
        (Ok(version), Ok(_)) => Check::ok(NAME, version),
        (Err(_), _) => Check::limited(
            NAME,
            "neither pasta nor slirp4netns answers",
            COSTS,
            "install passt (which has pasta), or slirp4netns",
        ),
        (_, Err(error)) => Check::limited(
            NAME,
            format!("open /dev/net/tun: {error}"),
            COSTS,
            "modprobe tun; chmod 666 /dev/net/tun",
        ),
    }
}

/// Whether other rules drop forwarded packets. Rules of legacy iptables are not seen.
fn forwarding_is_shut() -> bool {
    let chain = said("nft", &["list", "chain", "ip", "filter", "FORWARD"]);
    chain.is_ok_and(|chain| chain.contains("policy drop"))
}

/// The first line of a program's output, or why there is none.
fn answers(name: &str, arguments: &[&str]) -> Result<String, String> {
    said(name, arguments).map(|text| text.lines().next().unwrap_or_default().to_owned())
}

fn said(name: &str, arguments: &[&str]) -> Result<String, String> {
    let program = find_program(name).ok_or_else(|| format!("{name} is not installed"))?;
    let output = Command::new(&program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("execute {}: {error}", program.display()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{name}: {}", text(&output.stderr).lines().next().unwrap_or_default())),
    }
}

fn ports() -> Check {
    let first = read_word("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    match first.parse::<u32>() {
        Ok(first) if first > 80 => Check::limited(
            "low ports",
            format!("ports below {first} are root's"),
            "publish of a port such as 80 fails",
            "sysctl net.ipv4.ip_unprivileged_port_start=80",
        ),
        _ => Check::ok("low ports", format!("those from {first} on can be published")),
    }
}

/// Without it, systemd ends a user's processes some time after the last logout.
fn linger() -> Check {
    let user = user_name(nix::unistd::geteuid().as_raw());
    let systemd = Path::new("/run/systemd/system").exists();
    match !systemd || Path::new("/var/lib/systemd/linger").join(&user).exists() {
        true => Check::ok("after logout", "containers go on"),
        false => Check::limited(
            "after logout",
            "this user does not linger",
            "containers with --systemd-cgroup end with the user's last session",
            format!("loginctl enable-linger {user}"),
        ),
    }
}

/// Finds a program in PATH, or in the directories for the administrator's programs.
pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(PathBuf::from);
    let executable = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(&path).chain(usual).map(|dir| dir.join(name)).find(executable)
}

/// The text of a small file; empty where there is no file.
pub(super) fn read_word(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

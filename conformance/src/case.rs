//! What a case is: a name that is a sentence, what it needs, and a function that ends in pass, skip or
//! a failure with its reason. No case is defined here (see cases/), and none is run (see runner.rs).

use crate::host::Host;
use crate::test::Test;
use std::fmt::Debug;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// Why a case did not pass.
#[derive(Debug, Clone, PartialEq)]
pub enum Stop {
    /// The host, the kernel or the runtime's features lack what the case is about.
    Skip(String),
    Fail(String),
}

pub type Outcome<T = ()> = Result<T, Stop>;

/// Any error of the case's own machinery fails the case.
impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Fail(error.to_string())
    }
}

pub fn fail<T>(text: impl Into<String>) -> Outcome<T> {
    Err(Stop::Fail(text.into()))
}

pub fn skip<T>(text: impl Into<String>) -> Outcome<T> {
    Err(Stop::Skip(text.into()))
}

/// Something that a host may lack.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    Root,
    Rootless,
    V1,
    V2,
    /// May make cgroups: root, or a user with a cgroup of its own.
    Cgroup,
    /// systemd as init with a bus: the system's for root, the user's for a user.
    Systemd,
    /// A cgroup controller that is mounted (v1) or available (v2).
    Controller(&'static str),
    /// A capability in the effective set, by number.
    Capability(u32),
    Kernel(u32, u32),
    Path(&'static str),
    /// CRIU, in a version that knows this kernel.
    Criu,
    /// An engine's program in PATH.
    Program(&'static str),
    /// containerd 2 with a shim that it can ask for pods (ONGGI_SHIM), and the plugins of CNI.
    Sandboxer,
}

impl Need {
    /// The reason to skip, or nothing when the host has it.
    pub fn missing(self, host: &Host) -> Option<String> {
        let (there, reason) = match self {
            Need::Root => (host.root, "needs root".to_owned()),
            Need::Rootless => (!host.root, "is about an unprivileged user".to_owned()),
            Need::V1 => (!host.unified, "needs cgroup v1".to_owned()),
            Need::V2 => (host.unified, "needs cgroup v2".to_owned()),
            Need::Cgroup => (
                host.own_cgroup.is_some(),
                "needs root or a user's own cgroup (systemd's Delegate=)".to_owned(),
            ),
            Need::Systemd => (systemd(host), "needs systemd and its bus".to_owned()),
            Need::Controller(name) => {
                (host.has_controller(name), format!("needs the cgroup controller {name}"))
            }
            Need::Capability(n) => (host.capabilities & (1 << n) != 0, format!("needs capability {n}")),
            Need::Kernel(a, b) => (host.kernel >= (a, b), format!("needs Linux {a}.{b}")),
            Need::Criu => (criu(), "needs CRIU, and `criu check` to pass".to_owned()),
            Need::Program(name) => (crate::process::is_in_path(name), format!("needs the program {name}")),
            Need::Sandboxer => {
                (sandboxer(), "needs containerd 2, ONGGI_SHIM and the plugins of CNI".to_owned())
            }
            Need::Path(path) => (std::path::Path::new(path).exists(), format!("needs {path}")),
        };
        (!there).then_some(reason)
    }
}

/// Asked once: it takes a while.
fn criu() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        let check = Command::new("criu").arg("check").stdout(Stdio::null()).stderr(Stdio::null()).status();
        check.is_ok_and(|status| status.success())
    })
}

fn sandboxer() -> bool {
    let version = || Command::new("containerd").arg("--version").stdin(Stdio::null()).output();
    std::env::var_os("ONGGI_SHIM").is_some()
        && crate::engine::cni_plugins().is_some()
        && version().is_ok_and(|output| !String::from_utf8_lossy(&output.stdout).contains(" 1."))
}

fn systemd(host: &Host) -> bool {
    let there = |path: &str| std::path::Path::new(path).exists();
    let user_bus = || {
        std::env::var("XDG_RUNTIME_DIR")
            .is_ok_and(|dir| there(&format!("{dir}/bus")) && there(&format!("{dir}/systemd/private")))
    };
    there("/run/systemd/system") && if host.root { there("/run/dbus/system_bus_socket") } else { user_bus() }
}

#[derive(Clone, Copy)]
pub struct Case {
    pub group: &'static str,
    pub name: &'static str,
    pub needs: &'static [Need],
    /// After this many seconds the case is stopped and has failed.
    pub seconds: u64,
    pub run: fn(&Test) -> Outcome,
}

impl Case {
    pub fn full_name(&self) -> String {
        format!("{}::{}", self.group, self.name)
    }

    /// When it is stopped: later on a slow machine, and where whole walks are wanted.
    pub fn limit(&self) -> Duration {
        let long = crate::walk::is_whole() || std::env::var_os("KILLS").is_some();
        let factor = if self.group.starts_with("faults") && long { 100 } else { 1 };
        Duration::from_secs(self.seconds * factor) * crate::process::slowness()
    }
}

/// A [`Case`] from a function's name; the group is the module's name.
macro_rules! case {
    ($name:ident) => {
        case!($name, [], 30)
    };
    ($name:ident, [$($need:expr),*]) => {
        case!($name, [$($need),*], 30)
    };
    ($name:ident, [$($need:expr),*], $seconds:expr) => {
        $crate::case::Case {
            group: $crate::case::last_segment(module_path!()),
            name: stringify!($name),
            needs: &[$($need),*],
            seconds: $seconds,
            run: $name,
        }
    };
}

pub const fn last_segment(path: &'static str) -> &'static str {
    let bytes = path.as_bytes();
    let mut at = bytes.len();
    while at > 0 && bytes[at - 1] != b':' {
        at -= 1;
    }
    path.split_at(at).1
}

/// Fails the case with a text unless the condition holds.
macro_rules! check {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::case::Stop::Fail(format!($($text)+)));
        }
    };
}

pub(crate) use {case, check};

/// Fails the case unless both are equal.
pub fn same<T: PartialEq<U> + Debug, U: Debug>(what: &str, found: T, wanted: U) -> Outcome {
    if found == wanted { Ok(()) } else { fail(format!("{what}: found {found:?}, wanted {wanted:?}")) }
}

/// Fails the case unless `text` has `part` in it.
pub fn contains(what: &str, text: &str, part: &str) -> Outcome {
    if text.contains(part) { Ok(()) } else { fail(format!("{what}: no {part:?} in {text:?}")) }
}

//! Facts about the host that planning needs, asked once. Planning itself asks nothing.

use crate::cgroup::{Cgroup, Layout};
use crate::error::{Error, Result};
use crate::namespaces::{has, listed};
use crate::sys;
use oci_spec::runtime::{LinuxNamespaceType as Ns, PosixRlimitType, Process, Spec};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// The oldest kernel with everything that the stage calls (RHEL 9 has this one).
const OLDEST_KERNEL: (u32, u32) = (5, 14);

/// A Linux security module that the configuration can ask something of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lsm {
    AppArmor,
    SELinux,
}

/// A cgroup hierarchy, as a container's `cgroup` mount shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupMount {
    /// Its directory below the mount's destination; empty where it is the only one.
    pub name: String,
    pub v2: bool,
    /// Options for a new mount of it.
    pub options: Vec<String>,
    /// The container's own directory in it.
    pub host_path: PathBuf,
    /// Other names of it, one for each controller.
    pub links: Vec<String>,
}

impl CgroupMount {
    /// The hierarchy that a `cgroup` mount shows at its destination itself: that of a host with v2 alone, and on one
    /// with both versions that of v2 for `cgroup2`. `None` where the hierarchies are directories below it.
    pub fn shown_alone<'a>(all: &'a [Self], typ: &Option<String>) -> Option<&'a Self> {
        match (all, typ.as_deref()) {
            ([only @ Self { v2: true, name, .. }], _) if name.is_empty() => Some(only),
            (_, Some("cgroup2")) => all.iter().find(|hierarchy| hierarchy.v2),
            _ => None,
        }
    }
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Host {
    pub uid: u32,
    /// The capabilities that the caller may use.
    pub capabilities: u64,
    /// Memory is limited by a cgroup of v2, which the process is cloned into.
    pub clones_into_cgroup: bool,
    /// v1: the files `tasks` of the container's cgroups, through which the process joins them.
    pub cgroup_tasks: Vec<PathBuf>,
    /// The caller is root only in a user namespace, as when rootless Podman starts a runtime: it may not make device
    /// nodes, and its groups are fixed.
    pub in_user_namespace: bool,
    /// setgroups(2) is refused in that user namespace.
    pub groups_are_fixed: bool,
    pub cgroup_mounts: Vec<CgroupMount>,
    pub lsms: BTreeSet<Lsm>,
    pub apparmor_has_own_attributes: bool,
    /// The caller sets up interfaces in the container's network namespace.
    pub network_requested: bool,
    /// The library puts the process into its cgroup before anything else is done: the cgroup does not
    /// exist yet, or only systemd may do it.
    pub attach_first: bool,
    pub owned_by_joined_user: Vec<Ns>,
    /// Namespaces given by path that are the caller's own or those of the host's init: a sysctl or a host name set in
    /// them would change the host.
    pub joined_of_host: Vec<Ns>,
    /// There is a mount namespace with next to no mounts to begin with.
    pub bare_mounts: bool,
    /// The caller's soft and hard limits of the resources that matter.
    pub rlimits: BTreeMap<u32, (u64, u64)>,
}

impl Host {
    /// Asks for the facts that `spec` needs, and refuses kernels that are too old.
    pub fn probe(spec: &Spec, layout: &Layout, cgroup: &Cgroup) -> Result<Self> {
        check_kernel()?;
        let capabilities = sys::own_capabilities().map_err(|errno| Error::os("capget", errno))?.1;
        let mut host = Self {
            uid: nix::unistd::geteuid().as_raw(),
            capabilities,
            attach_first: cgroup.needs_attach(),
            clones_into_cgroup: cgroup.limits_memory_in_v2(),
            cgroup_tasks: cgroup.tasks(),
            ..Self::default()
        };
        if host.uid == 0 && !crate::cgroup::is_in_host_user_namespace() {
            host.in_user_namespace = true;
            let groups = std::fs::read("/proc/self/setgroups");
            host.groups_are_fixed = groups.is_ok_and(|text| text.starts_with(b"deny"));
        }
        if spec.mounts().iter().flatten().any(|mount| is_cgroup(mount.typ())) {
            host.cgroup_mounts = cgroup_mounts(layout, cgroup, shows_all(spec, layout));
        }
        let label = |label: &Option<String>| label.as_ref().is_some_and(|label| !label.is_empty());
        let process = spec.process().as_ref();
        if process.is_some_and(|process| label(process.apparmor_profile())) {
            host.probe_apparmor();
        }
        let mount_label = spec.linux().as_ref().is_some_and(|linux| label(linux.mount_label()));
        if mount_label || process.is_some_and(|process| label(process.selinux_label())) {
            host.probe_selinux();
        }
        host.probe_owners(spec);
        host.probe_joined(spec);
        if has_many_sources(spec) {
            host.probe_rlimit(resource(PosixRlimitType::RlimitNofile))?;
        }
        Ok(host)
    }

    /// The caller's limits of the resources that `process` limits.
    pub fn probe_rlimits(&mut self, process: &Process) -> Result<()> {
        process.rlimits().iter().flatten().try_for_each(|limit| self.probe_rlimit(resource(limit.typ())))
    }

    fn probe_rlimit(&mut self, resource: u32) -> Result<()> {
        let limits = sys::rlimit(resource).map_err(|errno| Error::os("prlimit64", errno))?;
        self.rlimits.insert(resource, limits);
        Ok(())
    }

    fn probe_apparmor(&mut self) {
        let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled");
        if enabled.is_ok_and(|text| text.first() == Some(&b'Y')) {
            self.lsms.insert(Lsm::AppArmor);
        }
        self.apparmor_has_own_attributes = Path::new("/proc/thread-self/attr/apparmor").is_dir();
    }

    fn probe_selinux(&mut self) {
        if Path::new("/sys/fs/selinux/enforce").exists() {
            self.lsms.insert(Lsm::SELinux);
        }
    }

    /// Finds out which joined namespaces belong to the joined user namespace: these can be entered only from inside it.
    fn probe_owners(&mut self, spec: &Spec) {
        let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref());
        let with_path = || {
            let all = namespaces.unwrap_or_default().iter();
            all.filter_map(|namespace| Some((namespace.typ(), namespace.path().as_ref()?)))
        };
        let Some((_, user)) = with_path().find(|(kind, _)| *kind == Ns::User) else { return };
        let Ok(user) = std::fs::metadata(user) else { return };
        let same = |path: &PathBuf| -> Option<bool> {
            use std::os::unix::fs::MetadataExt;
            let owner = File::from(sys::owner_of_namespace(File::open(path).ok()?.as_fd()).ok()?);
            let owner = owner.metadata().ok()?;
            Some((owner.dev(), owner.ino()) == (user.dev(), user.ino()))
        };
        self.owned_by_joined_user = with_path()
            .filter(|(kind, path)| *kind != Ns::User && same(path) == Some(true))
            .map(|(kind, _)| kind)
            .collect();
    }

    /// A namespace is compared by its file (namespaces(7)): its path says nothing, a bind mount has any.
    fn probe_joined(&mut self, spec: &Spec) {
        use std::os::unix::fs::MetadataExt;
        let linux = spec.linux().as_ref();
        let sets_sysctls = linux.is_some_and(|linux| linux.sysctl().iter().flatten().next().is_some());
        if !sets_sysctls && spec.hostname().is_none() && spec.domainname().is_none() {
            return;
        }
        let file = |path: &Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
        for namespace in linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default() {
            let name = match namespace.typ() {
                Ns::Ipc => "ipc",
                Ns::Network => "net",
                Ns::Uts => "uts",
                _ => continue,
            };
            let Some(joined) = namespace.path().as_deref().and_then(file) else { continue };
            // Without root, the namespaces of init can be neither looked at nor changed.
            let own = ["thread-self", "1"]
                .map(|process| file(&Path::new("/proc").join(process).join("ns").join(name)));
            if own.contains(&Some(joined)) {
                self.joined_of_host.push(namespace.typ());
            }
        }
    }

    /// Without root, a user namespace comes before everything that needs privileges.
    pub fn rootless(&self) -> bool {
        self.uid != 0
    }

    pub fn owned_by_joined_user(&self, kind: Ns) -> bool {
        self.owned_by_joined_user.contains(&kind)
    }

    /// The caller's own soft and hard limit.
    pub fn rlimit(&self, resource: u32) -> Option<(u64, u64)> {
        self.rlimits.get(&resource).copied()
    }
}

/// The number of a resource (getrlimit(2)).
#[allow(clippy::unnecessary_cast)] // the constants are of type int with musl
pub fn resource(kind: PosixRlimitType) -> u32 {
    use PosixRlimitType::*;
    let number = match kind {
        RlimitCpu => libc::RLIMIT_CPU,
        RlimitFsize => libc::RLIMIT_FSIZE,
        RlimitData => libc::RLIMIT_DATA,
        RlimitStack => libc::RLIMIT_STACK,
        RlimitCore => libc::RLIMIT_CORE,
        RlimitRss => libc::RLIMIT_RSS,
        RlimitNproc => libc::RLIMIT_NPROC,
        RlimitNofile => libc::RLIMIT_NOFILE,
        RlimitMemlock => libc::RLIMIT_MEMLOCK,
        RlimitAs => libc::RLIMIT_AS,
        RlimitLocks => libc::RLIMIT_LOCKS,
        RlimitSigpending => libc::RLIMIT_SIGPENDING,
        RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        RlimitNice => libc::RLIMIT_NICE,
        RlimitRtprio => libc::RLIMIT_RTPRIO,
        RlimitRttime => libc::RLIMIT_RTTIME,
    };
    number as u32
}

/// Whether the descriptors of mount sources could exceed the soft limit, which is 1024 by default.
fn has_many_sources(spec: &Spec) -> bool {
    let mounts = spec.mounts().iter().flatten();
    // A cgroup mount has a source for each hierarchy of v1.
    let mounts: usize = mounts.map(|one| if is_cgroup(one.typ()) { 20 } else { 1 }).sum();
    let devices = spec.linux().as_ref().and_then(|linux| linux.devices().as_ref()).map_or(0, Vec::len);
    mounts + devices > 200
}

fn is_cgroup(kind: &Option<String>) -> bool {
    matches!(kind.as_deref(), Some("cgroup" | "cgroup2"))
}

pub(crate) fn check_kernel() -> Result<()> {
    let name = nix::sys::utsname::uname().map_err(|errno| Error::os("uname", errno))?;
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST_KERNEL => {
            let (oldest_major, oldest_minor) = OLDEST_KERNEL;
            Err(Error::unsupported(format!("Linux {release} is too old"))
                .with_hint(format!("use Linux {oldest_major}.{oldest_minor} or newer")))
        }
        _ => Ok(()),
    }
}

/// Whether the cgroup mount shows the whole hierarchy. In the caller's cgroup namespace, paths in `/proc/PID/cgroup`
/// are relative to the caller's root, and on v2 the peers mount what makes them valid. Only for the host's root: a
/// container of another user must not change the user's cgroups above its own.
fn shows_all(spec: &Spec, layout: &Layout) -> bool {
    let has = |kind| has(listed(spec), kind);
    layout.is_v2() && !has(Ns::Cgroup) && !has(Ns::User) && crate::cgroup::has_host_root()
}

fn cgroup_mounts(layout: &Layout, cgroup: &Cgroup, all: bool) -> Vec<CgroupMount> {
    let paths = cgroup.paths();
    let mount = |(point, controllers): (&Path, &[String])| {
        let v2 = controllers.is_empty();
        let key = controllers.first().map_or("", String::as_str);
        let name = if layout.is_v2() { String::new() } else { file_name(point) };
        let mut options = Vec::new();
        if controllers.iter().any(|name| name.starts_with("name=")) {
            options.push("none".to_string());
        }
        options.extend(controllers.iter().cloned());
        let links =
            controllers.iter().filter(|link| **link != name && !link.contains('=')).cloned().collect();
        let host_path = match paths.get(key) {
            _ if all => point.into(),
            Some(own) => own.clone(),
            // The container is in the caller's cgroup of this hierarchy.
            None => Cgroup::of_caller(layout).paths().remove(key)?,
        };
        Some(CgroupMount { host_path, name, v2, options, links })
    };
    layout.mount_points().filter_map(mount).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

//! `mounts`: what is opened in the caller's mounts first, and attached in the container later.

use super::filesystem::{self, LONGEST_VALUE};
use super::kept::KeptMounts;
use super::mount_options::{self, ATIME, Links, Options, nothing_kept, private_unless_asked};
use super::readiness;
use super::request::{Namespaces, Request, own_file};
use super::{Handed, IdMaps, Plan, Text, devices};
use crate::error::{Diagnostic, Error, Result};
use crate::host::{CgroupMount, Host, Lsm};
use crate::step::{Attrs, Fd, MountFlags, Place, ROOT, Source, Step};
use oci_spec::runtime::{Linux, LinuxNamespaceType as Ns, Mount, Spec};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The mounts of a configuration between the two passes.
pub(super) struct Mounts {
    /// Steps that attach them, in the order of the configuration.
    attach: Vec<(String, Step<Text>)>,
    opened: Vec<(String, Source)>,
    /// Opened sources that no mount of the configuration attaches: device nodes.
    devices_opened: Vec<(String, Source)>,
    /// Mounts of the caller that are parked, and never attached: a user namespace may mount a procfs or sysfs only where
    /// it can see one (mount_namespaces(7)).
    seen: Vec<(String, Source)>,
    sources: Sources,
    /// [`Attrs::first`] of clones of the caller's mounts.
    first: u64,
    /// The host's null device, which masks files.
    pub null: Option<Source>,
    /// Device nodes that are cloned from the host, because a user namespace may not make them.
    devices: BTreeMap<PathBuf, Source>,
    /// `/dev` is a directory of the host, in which nothing is made.
    pub host_dev: bool,
    kept: KeptMounts,
    /// Filesystems that become read-only once everything in them is made.
    readonly: Vec<(String, PathBuf)>,
}

/// Where a source is until it is attached. Mounts are listed in the order in which they were cloned last, which is to be
/// that of the configuration (proc_pid_mountinfo(5)).
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Sources {
    /// In the caller's mounts, opened; it is cloned when it is attached.
    Opened,
    /// Parked below a scratch directory, and cloned again from there: by its descriptor or, where the mount namespace is
    /// made again for another user namespace, by its name.
    Parked { by_name: bool },
    /// Cloned, for what the configuration does not list.
    Detached,
}

/// A bind mount to be made.
struct Tree {
    target: Text,
    recursive: bool,
    attrs: Attrs,
    links: Links,
    sources: Sources,
    /// The source is known to be one.
    directory: bool,
}

/// What all mounts are planned with.
struct Site<'a> {
    plan: &'a mut Plan,
    host: &'a Host,
    bundle: &'a Path,
    user: Option<Fd>,
    /// The pid namespace that is joined.
    pid: Option<Fd>,
    new_cgroup_namespace: bool,
    /// The user namespace owns the network namespace, whose interfaces sysfs shows.
    owns_network: bool,
    /// `linux.mountLabel`.
    label: Option<&'a str>,
}

/// Attaches a source that is no symbolic link; symbolic links in `target` are followed.
pub(super) fn move_mount(source: Source, target: Text) -> Step<Text> {
    Step::MoveMount { source, target, strict: false, nofollow: false, copy_link: false, directory: false }
}

impl Mounts {
    pub fn open_sources(
        plan: &mut Plan,
        spec: &Spec,
        host: &Host,
        request: &Request,
        namespaces: &Namespaces,
        (sources, first): (Sources, u64),
    ) -> Result<Self> {
        let mut mounts = Self { first, ..Self::none(sources) };
        let new_cgroup_namespace = namespaces.is_new(Ns::Cgroup);
        let label = mount_label(plan, spec, host);
        let (user, pid, bundle) = (namespaces.user, namespaces.joined_pid, request.bundle.as_path());
        let owns_network = namespaces.is_new(Ns::Network) || host.owned_by_joined_user(Ns::Network);
        let mut site = Site { plan, host, bundle, user, pid, new_cgroup_namespace, owns_network, label };
        for (at, mount) in spec.mounts().iter().flatten().enumerate() {
            let first = mounts.attach.len();
            mounts.plan_one(&mut site, format!("mounts[{at}]"), mount)?;
            let is_readonly =
                mount.options().iter().flatten().any(|option| matches!(option.as_str(), "ro" | "rro"));
            if is_readonly && is_filled_later(spec, at) {
                mounts.put_off_readonly(first);
            }
        }
        for file in &request.network_files {
            mounts.plan_one(&mut site, file.at.clone(), &own_file(&file.source, &file.destination))?;
        }
        if request.notify_socket.is_some() {
            let mount = own_file(&request.directory.join(readiness::DIRECTORY), readiness::DESTINATION);
            mounts.plan_one(&mut site, "NOTIFY_SOCKET".into(), &mount)?;
        }
        let linux = spec.linux().clone().unwrap_or_default();
        if linux.masked_paths().as_ref().is_some_and(|paths| !paths.is_empty()) {
            mounts.null =
                Some(mounts.open_device(site.plan, "linux.maskedPaths", Path::new("/dev/null"), (1, 3)));
        }
        if (namespaces.user.is_some() || host.in_user_namespace) && !mounts.host_dev {
            mounts.open_devices(site.plan, &linux);
        }
        if namespaces.user.is_some() && host.bare_mounts {
            mounts.open_seen(site.plan, spec);
        }
        Ok(mounts)
    }

    /// The mounts that are added to a running container with the init `pid`: all steps after the opening of sources.
    pub fn added(
        plan: &mut Plan,
        added: &[Mount],
        spec: &Spec,
        host: &Host,
        bundle: &Path,
        pid: i32,
    ) -> Result<Vec<(String, Step<Text>)>> {
        let mut mounts = Self::none(Sources::Opened);
        let label = mount_label(plan, spec, host);
        let pid = Some(plan.hand("", Handed::Namespace(format!("/proc/{pid}/ns/pid").into())));
        let (user, new_cgroup_namespace, owns_network) = (None, false, true);
        let mut site = Site { plan, host, bundle, user, pid, new_cgroup_namespace, owns_network, label };
        for (at, mount) in added.iter().enumerate() {
            mounts.plan_one(&mut site, format!("mounts[{at}]"), mount)?;
        }
        Ok(mounts.attach)
    }

    fn none(sources: Sources) -> Self {
        Self {
            attach: Vec::new(),
            opened: Vec::new(),
            devices_opened: Vec::new(),
            seen: Vec::new(),
            sources,
            first: 0,
            null: None,
            devices: BTreeMap::new(),
            host_dev: false,
            kept: KeptMounts::default(),
            readonly: Vec::new(),
        }
    }

    fn open_seen(&mut self, plan: &mut Plan, spec: &Spec) {
        for (fstype, path) in [("proc", "/proc"), ("sysfs", "/sys")] {
            let mut mounts = spec.mounts().iter().flatten();
            let Some(at) = mounts.position(|mount| mount.typ().as_deref() == Some(fstype)) else { continue };
            let (origin, source) = (format!("mounts[{at}]"), plan.new_source());
            let host_path = Text::of(path);
            let attrs = private_unless_asked(Attrs::default());
            plan.push(origin.clone(), Step::OpenTree { source, host_path, nofollow: false, recursive: true });
            plan.push(origin.clone(), Step::SetSourceAttributes { source, attrs });
            self.seen.push((origin, source));
        }
    }

    fn open_devices(&mut self, plan: &mut Plan, linux: &Linux) {
        for device in devices::wanted(linux) {
            if device.mode & libc::S_IFMT == libc::S_IFIFO {
                continue;
            }
            if (device.uid, device.gid) != (0, 0) {
                let (uid, gid) = (device.uid, device.gid);
                let message = format!(
                    "its owner stays the host's, not {uid}:{gid}: a user namespace has no nodes of its own"
                );
                plan.warn(device.origin.clone(), message);
            }
            let source = plan.new_source();
            let host_path = Text::path(&device.path);
            let (mode, major, minor) = (device.mode, device.major, device.minor);
            plan.push(device.origin.clone(), Step::OpenDevice { source, host_path, mode, major, minor });
            self.devices_opened.push((device.origin, source));
            self.devices.insert(device.path, source);
        }
    }

    fn open_device(&mut self, plan: &mut Plan, origin: &str, path: &Path, device: (u32, u32)) -> Source {
        let source = plan.new_source();
        let (major, minor) = device;
        let step =
            Step::OpenDevice { source, host_path: Text::path(path), mode: libc::S_IFCHR, major, minor };
        plan.push(origin.to_string(), step);
        self.devices_opened.push((origin.into(), source));
        source
    }

    /// A bind mount.
    fn bind(&mut self, plan: &mut Plan, origin: &str, host_path: Text, tree: Tree) {
        let source = plan.new_source();
        let Tree { target, recursive, attrs, links, sources, directory } = tree;
        let nofollow = links.source_nofollow || links.copy;
        let (mut attrs, lifted) = self.split(attrs, sources);
        if !recursive {
            // It is one mount, so that one call sets its propagation and the rest.
            attrs.propagation &= !libc::MS_REC;
        }
        let opened = format!("{origin}.source");
        if sources == Sources::Opened {
            plan.push(opened, Step::OpenSource { source, host_path, nofollow });
            self.attach.push((origin.into(), Step::CloneSource { source, recursive, attrs }));
        } else {
            plan.push(opened, Step::OpenTree { source, host_path, nofollow, recursive });
            plan.push(origin.to_string(), Step::SetSourceAttributes { source, attrs });
        }
        let parked = matches!(sources, Sources::Parked { .. }).then_some(lifted);
        self.attach_source(origin, source, target, parked, (links, directory));
    }

    /// Splits attributes into those that are set before a source is parked, and when it is fetched: in a user namespace,
    /// the host's restrictions cannot be lifted then.
    fn split(&self, attrs: Attrs, sources: Sources) -> (Attrs, Attrs) {
        let all_private = attrs.propagation & libc::MS_REC != 0
            && attrs.propagation & (libc::MS_PRIVATE | libc::MS_UNBINDABLE) != 0;
        let attrs = Attrs { first: if all_private { 0 } else { self.first }, ..attrs };
        if !matches!(sources, Sources::Parked { .. }) {
            return (attrs, Attrs::default());
        }
        // Outside, because access times can only be changed together with what is set.
        let times = ATIME | libc::MOUNT_ATTR_NODIRATIME;
        let (clear, rec_clear) = (attrs.clear & !times, attrs.rec_clear & !times);
        // A mount namespace of a new user namespace has no peers outside; and an unbindable mount cannot be cloned.
        let (outside, propagation) = match attrs.propagation & (libc::MS_SHARED | libc::MS_UNBINDABLE) {
            0 => (attrs.propagation, 0),
            libc::MS_SHARED => (attrs.propagation, attrs.propagation),
            _ => (libc::MS_PRIVATE | attrs.propagation & libc::MS_REC, attrs.propagation),
        };
        let (clear_times, rec_clear_times) = (attrs.clear & times, attrs.rec_clear & times);
        let outside = Attrs { clear: clear_times, rec_clear: rec_clear_times, propagation: outside, ..attrs };
        (outside, Attrs { clear, rec_clear, propagation, ..Attrs::default() })
    }

    /// `parked` are the restrictions of a parked source that are to be lifted inside, where the kernel may refuse that.
    fn attach_source(
        &mut self,
        origin: &str,
        source: Source,
        target: Text,
        parked: Option<Attrs>,
        (links, directory): (Links, bool),
    ) {
        if let Some(attrs) = parked {
            self.opened.push((origin.into(), source));
            self.attach.push((origin.into(), Step::FetchSource { source, attrs }));
        }
        let (nofollow, copy_link) = (links.destination_nofollow, links.copy);
        let step = Step::MoveMount { source, target, strict: false, nofollow, copy_link, directory };
        self.attach.push((origin.into(), step));
    }

    /// Postpones making the last planned filesystem read-only until everything in it is made.
    fn put_off_readonly(&mut self, first: usize) {
        const READONLY: u64 = libc::MOUNT_ATTR_RDONLY;
        for (origin, step) in &mut self.attach[first..] {
            let target = match step {
                Step::Mount { flags, attrs, target, .. } if (flags.0 | attrs.set) & READONLY != 0 => {
                    (flags.0, attrs.set) = (flags.0 & !READONLY, attrs.set & !READONLY);
                    target
                }
                Step::MountByText { flags, target, .. } if flags.0 & READONLY != 0 => {
                    flags.0 &= !READONLY;
                    target
                }
                _ => continue,
            };
            self.readonly.push((origin.clone(), target.to_path()));
        }
    }

    /// To be called after devices and the console, which may be in these filesystems.
    pub fn make_readonly(&self, plan: &mut Plan) {
        for (origin, target) in &self.readonly {
            let attrs = Attrs { set: libc::MOUNT_ATTR_RDONLY, ..Attrs::default() };
            plan.push(origin.clone(), Step::SetAttributes { place: self.place(target), attrs });
        }
    }

    fn plan_one(&mut self, site: &mut Site, origin: String, mount: &Mount) -> Result<()> {
        let options = mount_options::parse(mount.options().as_deref().unwrap_or_default());
        let target = Text::path(&absolute(mount.destination()));
        let fstype = mount.typ().as_deref().unwrap_or_default();
        let is_bind = options.bind || fstype == "bind";
        if !is_bind && (options.idmap || mount.uid_mappings().iter().any(|maps| !maps.is_empty())) {
            let text = "id-mapped mounts are only supported for bind-mounts";
            return Err(Error::unsupported(text).at(format!("{origin}.uidMappings")));
        }
        if options.remount {
            let step = Step::SetAttributes { place: at_root(target), attrs: options.attrs };
            self.attach.push((origin, step));
        } else if is_bind {
            self.plan_bind(site, origin, mount, &options)?;
        } else if fstype == "sysfs" && site.user.is_some() && !site.owns_network {
            // The kernel refuses a new one there, so the host's is bound, as with the peers, with all attributes that
            // are asked for.
            let Attrs { set, clear, rec_set, rec_clear, propagation, .. } =
                private_unless_asked(options.attrs);
            let (rec_set, rec_clear) = (rec_set | set, rec_clear | clear);
            let attrs = Attrs { rec_set, rec_clear, propagation, ..Attrs::default() };
            let (links, sources) = (Links::default(), self.sources);
            let tree = Tree { target, recursive: true, attrs, links, sources, directory: false };
            self.bind(site.plan, &origin, Text::of("/sys"), tree);
        } else if fstype == "cgroup" || fstype == "cgroup2" {
            self.plan_cgroup(site, origin, mount, &options);
        } else {
            // Through a symbolic link, an image could choose where the container's procfs and sysfs are.
            let strict = matches!(fstype, "proc" | "sysfs");
            let (mut flags, mut attrs) = new_mount_attributes(&options.attrs);
            if options.copy_up {
                // Read-only only once everything is in it.
                attrs.set = flags.0 & libc::MOUNT_ATTR_RDONLY;
                flags.0 &= !libc::MOUNT_ATTR_RDONLY;
            }
            let label = site.label.filter(|_| !matches!(fstype, "proc" | "sysfs"));
            let is_long = options.data.iter().any(|(_, value)| value.len() > LONGEST_VALUE);
            let has_mode = options.data.iter().any(|(key, _)| key == "mode");
            let mode_of_target = fstype == "tmpfs" && !has_mode;
            let step = if let (Some(pid_namespace), "proc") = (site.pid, fstype) {
                let options = filesystem::options(mount, &options, None);
                Step::MountProcfs { pid_namespace, options, target, flags, attrs }
            } else if is_long {
                // The mount is private, and mount(2) returns no descriptor by which that could be changed.
                if attrs.propagation & (libc::MS_SHARED | libc::MS_UNBINDABLE) != 0 {
                    let what = format!("shared or unbindable with an option of over {LONGEST_VALUE} bytes");
                    return Err(Error::unsupported(what).at(format!("{origin}.options")));
                }
                let (source, options) =
                    (Text::path(&filesystem::source(mount)), filesystem::as_text(&options, label));
                Step::MountByText { fstype: Text::of(fstype), source, options, target, flags }
            } else {
                let (fstype, copy_up) = (Text::of(fstype), options.copy_up);
                let options = filesystem::options(mount, &options, label);
                Step::Mount { fstype, options, target, flags, attrs, copy_up, mode_of_target, strict }
            };
            self.attach.push((origin, step));
        }
        Ok(())
    }

    fn plan_bind(&mut self, site: &mut Site, origin: String, mount: &Mount, options: &Options) -> Result<()> {
        let Some(path) = mount.source() else {
            return Err(Error::unsupported("a bind mount without a source").at(format!("{origin}.source")));
        };
        if let Some((key, _)) = options.data.iter().find(|(key, _)| !mount_options::is_superblock_flag(key)) {
            let text =
                format!("bind mounts cannot have any filesystem-specific options applied, such as {key}");
            return Err(Error::invalid(vec![Diagnostic::new(format!("{origin}.options"), text)]));
        }
        if absolute(mount.destination()) == Path::new("/dev") {
            self.host_dev = true;
        }
        let (host_path, recursive) = (Text::path(&site.bundle.join(path)), options.recursive);
        let attrs = private_unless_asked(
            if site.user.is_some() || site.host.rootless() || site.host.in_user_namespace {
                options.attrs
            } else {
                nothing_kept(options.attrs)
            },
        );
        let target = Text::path(&absolute(mount.destination()));
        match idmap(site, &origin, mount, options)? {
            None => {
                let (links, sources) = (options.links, self.sources);
                let tree = Tree { target, recursive, attrs, links, sources, directory: false };
                self.bind(site.plan, &origin, host_path, tree);
            }
            Some(_) if options.links.source_nofollow || options.links.copy => {
                return Err(Error::unsupported("an id-mapped mount of a symbolic link")
                    .at(format!("{origin}.options")));
            }
            Some(fd) => {
                let (source, recursive_map) = (site.plan.new_source(), options.recursive_idmap);
                let (attrs, lifted) = self.split(attrs, self.sources);
                let parked = matches!(self.sources, Sources::Parked { .. }).then_some(lifted);
                let step = Step::OpenIdmapped { source, host_path, recursive, attrs, fd, recursive_map };
                site.plan.push(format!("{origin}.source"), step);
                self.attach_source(&origin, source, target, parked, (options.links, false));
            }
        }
        Ok(())
    }

    /// A `cgroup` mount shows the container's own cgroups, whatever version the host has.
    fn plan_cgroup(&mut self, site: &mut Site, origin: String, mount: &Mount, options: &Options) {
        let destination = absolute(mount.destination());
        let attrs = options.attrs;
        let mounts = site.host.cgroup_mounts.clone();
        if let Some(hierarchy) = CgroupMount::shown_alone(&mounts, mount.typ()) {
            self.mount_hierarchy(site, &origin, hierarchy, &destination, (attrs, &options.data));
            return;
        }
        let fstype = Text::of("tmpfs");
        let mut data = Text::default();
        for text in ["source", "cgroup", "mode", "755"] {
            data.push(text);
        }
        // Read-only only once everything is in it.
        let (flags, holder) =
            new_mount_attributes(&Attrs { set: attrs.set & !libc::MOUNT_ATTR_RDONLY, ..attrs });
        let target = Text::path(&destination);
        self.attach.push((
            origin.clone(),
            Step::Mount {
                fstype,
                options: data,
                target: target.clone(),
                flags,
                attrs: holder,
                copy_up: false,
                mode_of_target: false,
                strict: false,
            },
        ));
        for hierarchy in &mounts {
            self.mount_hierarchy(site, &origin, hierarchy, &destination.join(&hierarchy.name), (attrs, &[]));
            for link in &hierarchy.links {
                let path = Text::path(&destination.join(link));
                self.attach
                    .push((origin.clone(), Step::Symlink { content: Text::of(&hierarchy.name), path }));
            }
        }
        if attrs.set & libc::MOUNT_ATTR_RDONLY != 0 {
            let attrs = Attrs { set: libc::MOUNT_ATTR_RDONLY, ..Attrs::default() };
            self.attach.push((origin, Step::SetAttributes { place: at_root(target), attrs }));
        }
    }

    fn mount_hierarchy(
        &mut self,
        site: &mut Site,
        origin: &str,
        what: &CgroupMount,
        at: &Path,
        (attrs, data): (Attrs, &[(String, String)]),
    ) {
        let target = Text::path(at);
        if site.new_cgroup_namespace {
            let fstype = Text::of(if what.v2 { "cgroup2" } else { "cgroup" });
            let mut options = Text::default();
            for text in ["source", "cgroup"] {
                options.push(text);
            }
            for option in &what.options {
                let (key, value) = option.split_once('=').unwrap_or((option, ""));
                options.push(key);
                options.push(value);
            }
            // The kernel decides which options exist; in a cgroup namespace most have no effect.
            for text in data.iter().flat_map(|(key, value)| [key, value]) {
                options.push(text);
            }
            let (flags, attrs) = new_mount_attributes(&attrs);
            let (copy_up, mode_of_target, strict) = (false, false, false);
            let step = Step::Mount { fstype, options, target, flags, attrs, copy_up, mode_of_target, strict };
            self.attach.push((origin.into(), step));
        } else {
            let host_path = Text::path(&what.host_path);
            let sources = match self.sources {
                // The order of hierarchies within their directory is nobody's concern.
                Sources::Parked { by_name: false } if !what.name.is_empty() => Sources::Detached,
                sources => sources,
            };
            let attrs = private_unless_asked(attrs);
            let links = Links::default();
            let tree = Tree { target, recursive: false, attrs, links, sources, directory: true };
            self.bind(site.plan, origin, host_path, tree);
        }
    }

    /// See the stage's scratch directory.
    pub fn park(&self, plan: &mut Plan) {
        let by_name = self.sources == Sources::Parked { by_name: true };
        let devices = self.devices_opened.iter().filter(|_| by_name);
        for (origin, source) in self.opened.iter().chain(devices).chain(&self.seen) {
            plan.push(origin.clone(), Step::ParkSource { source: *source, by_name });
        }
    }

    pub fn fetch_devices(&self, plan: &mut Plan) {
        let by_name = self.sources == Sources::Parked { by_name: true };
        for (origin, source) in self.devices_opened.iter().filter(|_| by_name) {
            plan.push(origin.clone(), Step::FetchSource { source: *source, attrs: Attrs::default() });
        }
    }

    /// Attaches all mounts, and keeps those in which something is masked or made read-only later.
    pub fn attach(&mut self, plan: &mut Plan, linux: &Linux) {
        let named = |paths: &'_ Option<Vec<String>>| paths.clone().unwrap_or_default();
        let hidden = [named(linux.masked_paths()), named(linux.readonly_paths())].concat();
        let readonly = self.readonly.iter().map(|(_, path)| path.as_path());
        let paths: Vec<&Path> = hidden.iter().map(Path::new).chain(readonly).collect();
        let steps = std::mem::take(&mut self.attach);
        self.kept.attach(plan, steps, &paths);
    }

    /// Where a path is when all is attached.
    pub fn place(&self, path: impl AsRef<Path>) -> Place<Text> {
        self.kept.place(path.as_ref())
    }

    pub fn device(&self, path: &Path) -> Option<Source> {
        self.devices.get(path).copied()
    }
}

/// The label of new filesystems, unless the host has no SELinux.
fn mount_label<'a>(plan: &mut Plan, spec: &'a Spec, host: &Host) -> Option<&'a str> {
    let label = spec.linux().as_ref()?.mount_label().as_deref().filter(|label| !label.is_empty())?;
    if host.lsms.contains(&Lsm::SELinux) {
        return Some(label);
    }
    plan.warn("linux.mountLabel", format!("SELinux is not active on this host: no mount gets {label}"));
    None
}

/// The place of a path below the root, where no kept mount contains it.
pub(super) fn at_root(path: Text) -> Place<Text> {
    Place { mount: ROOT, skip: 0, path }
}

/// Destinations are absolute in the spec; engines also write them relative to the root.
pub(super) fn absolute(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}

/// Whether the configuration lists what becomes a bind mount. The hierarchies of v1 below a `cgroup` mount are not listed.
pub(super) fn lists_binds(spec: &Spec, request: &Request, host: &Host, namespaces: &Namespaces) -> bool {
    let is_v2 = matches!(&host.cgroup_mounts[..], [CgroupMount { v2: true, .. }]);
    let binds_cgroup = is_v2 && !namespaces.is_new(Ns::Cgroup);
    let is_bind = |mount: &Mount| {
        let options = mount_options::parse(mount.options().as_deref().unwrap_or_default());
        let fstype = mount.typ().as_deref().unwrap_or_default();
        options.bind || fstype == "bind" || binds_cgroup && matches!(fstype, "cgroup" | "cgroup2")
    };
    let files = request.notify_socket.is_some() || !request.network_files.is_empty();
    files || spec.mounts().iter().flatten().any(is_bind)
}

/// Whether something is made later below mount `at`, with no other mount over that place.
fn is_filled_later(spec: &Spec, at: usize) -> bool {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let Some((this, later)) = mounts.get(at..).and_then(<[Mount]>::split_first) else { return false };
    let place = absolute(this.destination());
    let later: Vec<PathBuf> = later.iter().map(|mount| absolute(mount.destination())).collect();
    let linux = spec.linux().as_ref();
    let mut devices = linux.and_then(|linux| linux.devices().as_ref()).into_iter().flatten();
    let is_below = |path: &Path| path != place && path.starts_with(&place);
    let fills = place == Path::new("/dev")
        || later.iter().any(|other| is_below(other))
        || devices.any(|device| is_below(device.path()));
    fills && !later.iter().any(|other| place.starts_with(other))
}

/// The attributes of a new mount. It has no mounts below, is private, and has what fsmount(2) sets.
fn new_mount_attributes(attrs: &Attrs) -> (MountFlags, Attrs) {
    (MountFlags(attrs.set | attrs.rec_set), Attrs { propagation: attrs.propagation, ..Attrs::default() })
}

/// The user namespace that gives a mount its id maps: one of its own, or the container's.
fn idmap(site: &mut Site, origin: &str, mount: &Mount, options: &Options) -> Result<Option<Fd>> {
    let rows = |maps: &Option<Vec<oci_spec::runtime::LinuxIdMapping>>| -> super::IdMap {
        maps.iter().flatten().map(|row| [row.container_id(), row.host_id(), row.size()]).collect()
    };
    let maps = IdMaps { uids: rows(mount.uid_mappings()), gids: rows(mount.gid_mappings()) };
    if maps != IdMaps::default() {
        let at = site.plan.id_maps.iter().position(|known| *known == maps).unwrap_or_else(|| {
            site.plan.id_maps.push(maps);
            site.plan.id_maps.len() - 1
        });
        return Ok(Some(site.plan.hand(format!("{origin}.uidMappings"), Handed::IdMap(at))));
    }
    match (options.idmap, site.user) {
        (false, _) => Ok(None),
        (true, Some(user)) => Ok(Some(user)),
        (true, None) => Err(Error::unsupported("an id-mapped mount without id maps")
            .at(format!("{origin}.options"))
            .with_hint("give the mount uidMappings and gidMappings, or the container a user namespace")),
    }
}

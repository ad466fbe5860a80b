//! `checkpoint`: saves a running container to files, through CRIU. restore.rs brings it back.

use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::criu::{self, Criu, Kind};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::launch::{Given, Launch};
use crate::plan;
use crate::status::Status;
use crate::wait;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file with the links of a container's standard descriptors, beside CRIU's files; runc writes the same file.
pub(crate) const DESCRIPTORS: &str = "descriptors.json";

/// How CRIU names a file outside of the container.
pub(crate) const OUTSIDE: &str = "file[";

/// What CRIU does with the cgroups of the saved processes (`--manage-cgroups` in criu(8)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CgroupMode {
    /// Restores the properties of cgroups that CRIU makes itself.
    #[default]
    Soft,
    /// Restores the properties of all cgroups.
    Full,
    /// Fails where a cgroup exists already.
    Strict,
    /// Leaves processes in the container's cgroup.
    Ignore,
}

impl CgroupMode {
    /// `criu_cg_mode` of rpc.proto.
    fn number(self) -> i32 {
        match self {
            Self::Ignore => 0,
            Self::Soft => 3,
            Self::Full => 4,
            Self::Strict => 5,
        }
    }
}

/// What [`Container::checkpoint`] and [`crate::NewContainer::restore`] ask of CRIU. Paths and names are those of
/// criu(8); [`CheckpointOptions::new`] asks for nothing special.
#[derive(Debug)]
#[non_exhaustive]
pub struct CheckpointOptions {
    /// The directory of CRIU's files.
    pub image_path: PathBuf,
    /// The directory of CRIU's logs; `image_path` without one.
    pub work_path: Option<PathBuf>,
    /// The files of an earlier [`CheckpointOptions::pre_dump`], relative to `image_path`.
    pub parent_path: Option<PathBuf>,
    /// The container goes on after it is saved.
    pub leave_running: bool,
    /// Saves memory alone, and lets the container go on.
    pub pre_dump: bool,
    /// Saves or restores established TCP connections.
    pub tcp_established: bool,
    /// Leaves out connections that are still being opened.
    pub tcp_skip_in_flight: bool,
    /// Restores established TCP connections as closed ones.
    pub tcp_close: bool,
    /// Allows unix sockets whose other end is outside of the container.
    pub external_unix_sockets: bool,
    /// The leader of the container's session is a process outside of it.
    pub shell_job: bool,
    /// Saves and restores file locks.
    pub file_locks: bool,
    /// Keeps files that were removed while they were open.
    pub link_remap: bool,
    /// Serves memory when it is first used (userfaultfd(2)).
    pub lazy_pages: bool,
    /// One NUL byte is written to it when the server of lazy pages is ready.
    pub status_fd: Option<OwnedFd>,
    /// An address and a port that memory is sent to, or served at with `lazy_pages`.
    pub page_server: Option<(String, u16)>,
    /// What is done with cgroups.
    pub cgroup_mode: CgroupMode,
    /// The network namespace is made anew, and its content is not saved.
    pub empty_network: bool,
    /// Removes pages from files of an earlier dump that are saved again.
    pub auto_dedup: bool,
    /// `TYPE:NAME`, in place of the profile that was saved.
    pub lsm_profile: Option<String>,
    /// The SELinux context of mounts, in place of the saved one.
    pub lsm_mount_context: Option<String>,
    /// CRIU itself; a name without a slash is looked up in `PATH`.
    pub program: PathBuf,
}

impl CheckpointOptions {
    /// With defaults for everything but the directory.
    pub fn new(image_path: impl Into<PathBuf>) -> Self {
        Self {
            image_path: image_path.into(),
            work_path: None,
            parent_path: None,
            leave_running: false,
            pre_dump: false,
            tcp_established: false,
            tcp_skip_in_flight: false,
            tcp_close: false,
            external_unix_sockets: false,
            shell_job: false,
            file_locks: false,
            link_remap: false,
            lazy_pages: false,
            status_fd: None,
            page_server: None,
            cgroup_mode: CgroupMode::default(),
            empty_network: false,
            auto_dedup: false,
            lsm_profile: None,
            lsm_mount_context: None,
            program: "criu".into(),
        }
    }

    fn work_path(&self) -> &Path {
        self.work_path.as_deref().unwrap_or(&self.image_path)
    }

    /// Every path where CRIU may be, as execvp(3) looks for it.
    pub(crate) fn programs(&self) -> Vec<PathBuf> {
        if self.program.as_os_str().as_encoded_bytes().contains(&b'/') {
            return vec![self.program.clone()];
        }
        const DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT.into());
        std::env::split_paths(&path)
            .filter(|dir| dir.is_absolute())
            .map(|dir| dir.join(&self.program))
            .collect()
    }
}

/// CRIU runs iptables, tar and others by name.
pub(crate) fn environment() -> Vec<String> {
    std::env::var("PATH").iter().map(|path| format!("PATH={path}")).collect()
}

/// The directories of CRIU's files and logs, open while CRIU works.
pub(crate) struct Directories {
    pub images: File,
    work: File,
    work_path: PathBuf,
}

impl Directories {
    /// `spec` is that of the container: CRIU reads files in its user namespace too, as root of that.
    pub fn make(options: &CheckpointOptions, spec: &Spec) -> Result<Self> {
        for path in [options.image_path.as_path(), options.work_path()] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|error| Error::io(format!("mkdir {}", path.display()), error))?;
        }
        let directories = Self::open(options, Path::new("/"))?;
        let found = directories.images.metadata();
        let found = found.map_err(|error| Error::io("stat of the image directory", error))?;
        // The mode of a directory that others may enter stays as it is.
        let is_private = found.mode() & 0o7777 == 0o700;
        if let Some(gid) = root_gid(spec).filter(|_| is_private) {
            let path = options.image_path.display();
            let failed = |errno| Error::os(format!("chown {path}"), errno).at("linux.gidMappings");
            nix::unistd::fchown(&directories.images, None, Some(nix::unistd::Gid::from_raw(gid)))
                .map_err(failed)?;
            let mode = nix::sys::stat::Mode::from_bits_truncate(0o750);
            nix::sys::stat::fchmod(&directories.images, mode).map_err(failed)?;
        }
        Ok(directories)
    }

    /// Opens the directories below `root`. CRIU changes into them and mounts there, so they have to be in its own mount
    /// namespace, which `/proc/PID/root` leads to.
    pub fn open(options: &CheckpointOptions, root: &Path) -> Result<Self> {
        let open = |path: &Path| {
            // Below `root` an absolute link leads back to the caller's mounts; containerd's `work` in a bundle is one.
            let failed = |error| Error::io(format!("open {}", path.display()), error);
            let path = path.canonicalize().map_err(failed)?;
            let path = root.join(path.strip_prefix("/").unwrap_or(&path));
            let mut directory = OpenOptions::new();
            directory.read(true).custom_flags(libc::O_DIRECTORY);
            directory.open(&path).map_err(|error| Error::io(format!("open {}", path.display()), error))
        };
        let work_path = options.work_path().to_path_buf();
        Ok(Self { images: open(&options.image_path)?, work: open(&work_path)?, work_path })
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.work_path.join(name)
    }

    /// The options that saving and restoring have in common.
    pub fn request(&self, options: &CheckpointOptions, log: &str) -> criu::Options {
        let page_server = options.page_server.as_ref().map(|(address, port)| criu::PageServer {
            address: Some(address.clone()),
            port: Some(i32::from(*port)),
        });
        criu::Options {
            images_dir: self.images.as_raw_fd(),
            work_dir: Some(self.work.as_raw_fd()),
            log_level: Some(4),
            log_file: Some(log.into()),
            page_server,
            notify_scripts: Some(true),
            ext_unix_sk: Some(options.external_unix_sockets),
            tcp_established: Some(options.tcp_established),
            tcp_close: Some(options.tcp_close),
            shell_job: Some(options.shell_job),
            file_locks: Some(options.file_locks),
            link_remap: Some(options.link_remap),
            auto_dedup: Some(options.auto_dedup),
            lazy_pages: Some(options.lazy_pages),
            manage_cgroups: Some(true),
            manage_cgroups_mode: Some(options.cgroup_mode.number()),
            orphan_pts_master: Some(true),
            empty_namespaces: options.empty_network.then_some(libc::CLONE_NEWNET as u32),
            status_fd: options.status_fd.as_ref().map(AsRawFd::as_raw_fd),
            lsm_profile: options.lsm_profile.clone(),
            lsm_mount_context: options.lsm_mount_context.clone(),
            ..criu::Options::default()
        }
    }
}

/// The host's id of group 0 in a user namespace of the container's own.
fn root_gid(spec: &Spec) -> Option<u32> {
    let rows = spec.linux().as_ref()?.gid_mappings().as_ref()?;
    Some(rows.iter().find(|row| row.container_id() == 0)?.host_id()).filter(|gid| *gid != 0)
}

impl Container {
    /// Saves the container's processes. Without [`CheckpointOptions::leave_running`] and
    /// [`CheckpointOptions::pre_dump`] they are ended; the container is then stopped.
    ///
    /// # Errors
    /// [`crate::ErrorKind::WrongState`] for a container that is not running or paused. A failure of CRIU has the first
    /// error of its log in it, and the container goes on.
    pub fn checkpoint(&self, options: &CheckpointOptions) -> Result<()> {
        wait::limited(&self.limits, || self.save(options))
    }

    fn save(&self, options: &CheckpointOptions) -> Result<()> {
        let status = self.status();
        if !matches!(status, Status::Running | Status::Paused) {
            return Err(self.wrong_state("checkpoint", status));
        }
        if nix::unistd::geteuid().as_raw() != 0 {
            return Err(Error::unsupported("checkpoint without root").with_hint("CRIU needs the host's root"));
        }
        let init = self.running_init()?;
        let pid = self.pid().ok_or_else(|| self.wrong_state("checkpoint", Status::Stopped))?;
        let spec = self.spec()?;
        let directories = Directories::make(options, spec)?;
        let descriptors = standard_descriptors(pid)?;
        if !options.pre_dump {
            save_descriptors(&directories.images, &descriptors)?;
        }
        let programs = options.programs();
        let env = environment();
        let program =
            plan::criu::Program { paths: &programs, env: &env, socket: criu::SOCKET as u16, placed: 1 };
        let plan = plan::criu::dump(&program)?;
        let null = null_device()?;
        let launch = Launch { stdio: [null.as_fd(); 3], passed: &[], cgroup: None, given: Given::default() };
        let mut criu = Criu::start(&plan, &launch, directories.log("dump.log"), &mut |_| Ok(()))?;
        if options.pre_dump || options.lazy_pages {
            let (mem_track, lazy_pages) = (Some(options.pre_dump), Some(options.lazy_pages));
            criu.require(criu::Features { mem_track, lazy_pages })?;
        }
        let mut request = self.dump_request(options, &directories, spec, pid)?;
        let outside = descriptors.into_iter().filter(|text| text.starts_with(OUTSIDE));
        request.external.extend(outside);
        let kind = if options.pre_dump { Kind::PreDump } else { Kind::Dump };
        criu.run(kind, request, &mut |_| Ok(()))?;
        if !options.leave_running && !options.pre_dump {
            // CRIU has killed it; it has to be stopped for the next verb.
            self.await_end(init.as_fd())?;
        }
        Ok(())
    }

    fn dump_request(
        &self,
        options: &CheckpointOptions,
        directories: &Directories,
        spec: &Spec,
        pid: i32,
    ) -> Result<criu::Options> {
        let masked = masked_files(spec, Path::new(&format!("/proc/{pid}/root")));
        let named = |one: plan::criu::External| {
            let destination = one.destination.display().to_string();
            criu::ExternalMount { key: destination.clone(), value: destination }
        };
        let host = Host::probe(spec, &self.layout()?, &self.state.cgroup)?;
        let externals = plan::criu::externals(spec, &host, &self.state.bundle, &masked);
        let connected = crate::network::read_record(self.store(), self.id())?.is_some();
        Ok(criu::Options {
            pid: Some(pid),
            leave_running: Some(options.leave_running || options.pre_dump),
            tcp_skip_in_flight: Some(options.tcp_skip_in_flight),
            root: Some(self.state.rootfs.display().to_string()),
            parent_img: options.parent_path.as_ref().map(|path| path.display().to_string()),
            track_mem: Some(options.pre_dump),
            external_mounts: externals.into_iter().map(named).collect(),
            external: external_namespaces(spec)?,
            dump_controllers: controllers(&self.state.cgroup),
            freeze_cgroup: freezer(&self.state.cgroup),
            // The veth pairs of bridges are made anew.
            empty_namespaces: (options.empty_network || connected).then_some(libc::CLONE_NEWNET as u32),
            ..directories.request(options, "dump.log")
        })
    }
}

/// Those of `linux.maskedPaths` that are files. Directories are masked by a filesystem of the
/// container, which CRIU saves with it.
pub(crate) fn masked_files(spec: &Spec, root: &Path) -> Vec<PathBuf> {
    let paths = spec.linux().iter().flat_map(|linux| linux.masked_paths().iter().flatten());
    let is_file = |path: &&String| {
        let found = fs::symlink_metadata(root.join(path.trim_start_matches('/')));
        found.is_ok_and(|found| !found.is_dir() && !found.is_symlink())
    };
    paths.filter(is_file).map(PathBuf::from).collect()
}

/// The names under which CRIU saves a namespace that is not the container's own.
pub(crate) const EXTERNAL_NAMESPACES: &[(LinuxNamespaceType, &str, &str)] =
    &[(LinuxNamespaceType::Network, "net", "extRootNetNS"), (LinuxNamespaceType::Pid, "pid", "extRootPidNS")];

/// The namespaces that the configuration gives by path, as `TYPE[INODE]:NAME`.
fn external_namespaces(spec: &Spec) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (kind, word, name) in EXTERNAL_NAMESPACES {
        if let Some(path) = namespace_path(spec, *kind) {
            let inode = fs::metadata(&path)
                .map_err(|error| Error::io(format!("stat {}", path.display()), error).at("linux.namespaces"))?
                .ino();
            found.push(format!("{word}[{inode}]:{name}"));
        }
    }
    Ok(found)
}

pub(crate) fn namespace_path(spec: &Spec, kind: LinuxNamespaceType) -> Option<PathBuf> {
    let namespaces = spec.linux().as_ref()?.namespaces().as_ref()?;
    namespaces.iter().find(|namespace| namespace.typ() == kind)?.path().clone()
}

/// Of v1 hierarchies in which the container has a cgroup. In others, such as one that is not mounted here, it is in the
/// root, and CRIU would save the cgroups of the whole host, and make them all again at each restoration.
fn controllers(cgroup: &Cgroup) -> Vec<String> {
    if cgroup.is_v2() {
        return Vec::new();
    }
    cgroup.kernel_paths().keys().flat_map(|names| names.split(',')).map(String::from).collect()
}

/// The directory by which CRIU freezes all processes at once.
fn freezer(cgroup: &Cgroup) -> Option<String> {
    let paths = cgroup.paths();
    let path = paths.get("freezer").or_else(|| paths.get("").filter(|_| cgroup.is_v2()))?;
    Some(path.display().to_string())
}

/// What the standard descriptors are, for CRIU and for whoever restores them: a pipe by its link, as
/// runc writes it; a file outside of the container's mounts as CRIU names it, `file[MOUNT:INODE]`.
fn standard_descriptors(pid: i32) -> Result<Vec<String>> {
    let path = format!("/proc/{pid}/mountinfo");
    let mounts = fs::read_to_string(&path).map_err(|error| Error::io(format!("open {path}"), error))?;
    let own: BTreeSet<&str> = mounts.lines().filter_map(|line| line.split(' ').next()).collect();
    let describe = |fd: u32| -> Option<String> {
        let link = format!("/proc/{pid}/fd/{fd}");
        let target = fs::read_link(&link).ok()?.display().to_string();
        if !target.starts_with('/') {
            return Some(target);
        }
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
        let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim();
        let (number, inode) = (mount.parse::<u32>().ok()?, fs::metadata(&link).ok()?.ino());
        Some(if own.contains(mount) { target } else { format!("file[{number:x}:{inode:x}]") })
    };
    Ok((0..3).map(|fd| describe(fd).unwrap_or_else(|| "/dev/null".into())).collect())
}

fn save_descriptors(images: &File, descriptors: &[String]) -> Result<()> {
    let text = serde_json::to_vec(descriptors)
        .map_err(|error| Error::external(format!("cannot encode {DESCRIPTORS}: {error}")))?;
    let path = format!("/proc/self/fd/{}/{DESCRIPTORS}", images.as_raw_fd());
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let written = options.open(path).and_then(|mut file| std::io::Write::write_all(&mut file, &text));
    written.map_err(|error| Error::io(format!("write {DESCRIPTORS}"), error))
}

pub(crate) fn null_device() -> Result<File> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    null.map_err(|error| Error::io("open /dev/null", error))
}

//! What a plan is made from besides the configuration, and the configuration's namespaces.

use super::{Handed, IdMaps, Plan};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::step::Fd;
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespace, LinuxNamespaceType as Ns, Mount, Spec};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A file of the container's directory that is mounted in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkFile {
    /// Where it was asked for.
    pub at: String,
    pub source: PathBuf,
    pub destination: String,
}

/// Who makes the cgroup of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CgroupDriver {
    /// The library, in the cgroup filesystems.
    #[default]
    Cgroupfs,
    /// systemd, as a scope; `linux.cgroupsPath` is then `slice:prefix:name`.
    Systemd,
    /// No cgroup is made: the container stays in the caller's. Limits are refused, device rules are not enforced, and
    /// the container's processes cannot be listed or paused.
    None,
}

/// What the caller asks for besides the configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Request {
    pub id: String,
    /// Absolute.
    pub bundle: PathBuf,
    /// Numbers of descriptors that the program gets, ascending.
    #[serde(default)]
    pub passed: Vec<u32>,
    /// The program is given by descriptor.
    #[serde(default)]
    pub init_program: bool,
    pub console_socket: bool,
    /// The terminal's output is copied to another terminal.
    #[serde(default)]
    pub relayed_console: bool,
    pub no_pivot: bool,
    /// The container is started over the channel of its creation, and by nobody else.
    #[serde(default)]
    pub start_by_handle: bool,
    pub no_new_keyring: bool,
    /// The secret part of the session keyring's name.
    #[serde(default)]
    pub keyring_secret: String,
    #[serde(default)]
    pub cgroup_driver: CgroupDriver,
    /// Annotations may request networks.
    #[serde(default)]
    pub network_annotations: bool,
    /// It is connected to networks besides those of its annotations.
    #[serde(default)]
    pub network_requested: bool,
    /// The socket of a supervisor that waits for its readiness.
    #[serde(default)]
    pub notify_socket: Option<PathBuf>,
    /// Where its state is kept; absolute.
    #[serde(default)]
    pub directory: PathBuf,
    /// Files of that directory that are mounted for its networks.
    #[serde(default)]
    pub network_files: Vec<NetworkFile>,
}

/// The namespaces of a configuration, sorted by how they are entered.
pub(super) struct Namespaces<'a> {
    pub list: &'a [LinuxNamespace],
    /// A user namespace, new or joined, and its descriptor.
    pub user: Option<Fd>,
    /// A pid namespace given by path.
    pub joined_pid: Option<Fd>,
}

impl<'a> Namespaces<'a> {
    pub fn of(spec: &'a Spec, plan: &mut Plan) -> Result<Self> {
        let list = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
        let mut found = Self { list, user: None, joined_pid: None };
        if let Some((at, namespace)) = found.position(Ns::User) {
            found.user = Some(plan.hand(place(at), Handed::UserNamespace));
            match namespace.path() {
                Some(path) => plan.joined_user_namespace = Some(path.clone()),
                None => plan.new_user_namespace = Some(id_maps(spec)),
            }
        }
        if let Some((at, namespace)) = found.position(Ns::Pid)
            && let Some(path) = namespace.path()
        {
            found.joined_pid = Some(plan.hand(place(at), Handed::Namespace(path.clone())));
        }
        if found.user.is_some() && !found.is_new(Ns::Mount) {
            return Err(Error::unsupported("a user namespace without a new mount namespace")
                .at("linux.namespaces")
                .with_hint("add {\"type\": \"mount\"}: in the user namespace nothing could be mounted"));
        }
        Ok(found)
    }

    /// Whether mounts have to be parked below a scratch directory, to be cloned again inside.
    pub fn needs_scratch(&self, host: &Host) -> bool {
        self.user.is_some() && !host.rootless()
    }

    pub fn position(&self, wanted: Ns) -> Option<(usize, &'a LinuxNamespace)> {
        self.list.iter().enumerate().find(|(_, namespace)| namespace.typ() == wanted)
    }

    pub fn is_new(&self, wanted: Ns) -> bool {
        self.position(wanted).is_some_and(|(_, namespace)| namespace.path().is_none())
    }

    /// The flags of the namespaces that clone(2) makes; the others are made in an order of their own.
    pub fn cloned(&self) -> u64 {
        let by_clone = |namespace: &&LinuxNamespace| {
            namespace.path().is_none()
                && !matches!(namespace.typ(), Ns::User | Ns::Time | Ns::Cgroup | Ns::Mount)
        };
        self.list.iter().filter(by_clone).fold(0, |flags, namespace| flags | namespace.typ() as u64)
    }

    /// The namespaces given by path, without the user and pid namespace.
    pub fn joined(&self) -> impl Iterator<Item = (usize, &'a LinuxNamespace, &'a Path)> {
        let with_path = |(at, namespace): (usize, &'a LinuxNamespace)| {
            Some((at, namespace, namespace.path().as_deref()?))
        };
        let others = |(_, namespace, _): &(usize, &LinuxNamespace, &Path)| {
            !matches!(namespace.typ(), Ns::User | Ns::Pid)
        };
        self.list.iter().enumerate().filter_map(with_path).filter(others)
    }
}

pub(super) fn place(at: usize) -> String {
    format!("linux.namespaces[{at}]")
}

fn id_maps(spec: &Spec) -> IdMaps {
    let linux = spec.linux().as_ref();
    let rows = |maps: Option<&Vec<LinuxIdMapping>>| {
        maps.into_iter().flatten().map(|row| [row.container_id(), row.host_id(), row.size()]).collect()
    };
    IdMaps {
        uids: rows(linux.and_then(|linux| linux.uid_mappings().as_ref())),
        gids: rows(linux.and_then(|linux| linux.gid_mappings().as_ref())),
    }
}

/// A read-only bind mount of a file in the container's directory, which is on a filesystem of the host.
pub(super) fn own_file(source: &Path, destination: &str) -> Mount {
    let mut mount = Mount::default();
    let options = ["bind", "ro", "nosuid", "nodev", "noexec"].map(str::to_string);
    mount.set_destination(destination.into()).set_typ(Some("bind".to_string()));
    mount.set_source(Some(source.into())).set_options(Some(options.into()));
    mount
}

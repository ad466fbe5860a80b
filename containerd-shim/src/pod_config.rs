//! What CRI's PodSandboxConfig wants of a pod without a pause container. Pure. What the shim cannot give is refused by
//! the name of its field.

use crate::failure::{Failure, Result};
use crate::wire::{Any, CreateSandbox};
use prost::Message;
use std::collections::BTreeMap;

const CONFIG: &str = "runtime.v1.PodSandboxConfig";

/// `NamespaceMode`.
const POD: i32 = 0;
const NODE: i32 = 2;

/// `runtime.v1.PodSandboxConfig` of Kubernetes' CRI, as far as it is read.
#[derive(Clone, PartialEq, Message)]
pub struct Config {
    #[prost(string, tag = "2")]
    pub hostname: String,
    #[prost(message, optional, tag = "4")]
    pub dns: Option<Dns>,
    #[prost(message, optional, tag = "8")]
    pub linux: Option<Linux>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Dns {
    #[prost(string, repeated, tag = "1")]
    pub servers: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub searches: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    pub options: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Linux {
    #[prost(string, tag = "1")]
    pub cgroup_parent: String,
    #[prost(message, optional, tag = "2")]
    pub security: Option<Security>,
    #[prost(btree_map = "string, string", tag = "3")]
    pub sysctls: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Security {
    #[prost(message, optional, tag = "1")]
    pub namespaces: Option<Namespaces>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Namespaces {
    #[prost(int32, tag = "1")]
    pub network: i32,
    #[prost(int32, tag = "2")]
    pub pid: i32,
    #[prost(int32, tag = "3")]
    pub ipc: i32,
    #[prost(message, optional, tag = "5")]
    pub user: Option<UserNamespace>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct UserNamespace {
    #[prost(int32, tag = "1")]
    pub mode: i32,
    #[prost(message, repeated, tag = "2")]
    pub uids: Vec<IdMapping>,
    #[prost(message, repeated, tag = "3")]
    pub gids: Vec<IdMapping>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct IdMapping {
    #[prost(uint32, tag = "1")]
    pub host_id: u32,
    #[prost(uint32, tag = "2")]
    pub container_id: u32,
    #[prost(uint32, tag = "3")]
    pub length: u32,
}

/// What is made for a pod.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    pub network: NetworkNamespace,
    pub has_ipc: bool,
    /// A pid namespace that its containers share.
    pub has_pids: bool,
    /// A user namespace, to which all others of the pod belong.
    pub users: Option<Users>,
    /// Of all its containers.
    pub cgroup: Option<String>,
    pub hostname: String,
    /// `resolv.conf`; else that of the host.
    pub resolver: Option<String>,
    pub sysctls: BTreeMap<String, String>,
}

/// Beside a network namespace a pod has a uts namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkNamespace {
    Host,
    Path(String),
    /// In the user namespace. Some versions of containerd connect it to a network when the pod has started.
    New,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    /// As user_namespaces(7) has them.
    pub uids: String,
    pub gids: String,
    /// The ids that its root has outside.
    pub root: (u32, u32),
}

pub fn wanted(request: &CreateSandbox) -> Result<Wanted> {
    if !request.rootfs.is_empty() {
        return Err(Failure::invalid("rootfs: a pod has no root file system"));
    }
    let path = Some(request.netns_path.clone()).filter(|path| !path.is_empty());
    let Some(any) = &request.options else {
        // Not by CRI: what else its containers share, their own configurations say.
        let network = path.map_or(NetworkNamespace::Host, NetworkNamespace::Path);
        return Ok(Wanted {
            network,
            has_ipc: true,
            has_pids: false,
            users: None,
            cgroup: None,
            hostname: String::new(),
            resolver: None,
            sysctls: BTreeMap::new(),
        });
    };
    let config = config(any)?;
    let linux = config.linux.unwrap_or_default();
    let namespaces = linux.security.and_then(|security| security.namespaces).unwrap_or_default();
    let users = namespaces.user.as_ref().filter(|user| user.mode == POD).map(users).transpose()?;
    let network = network(path, namespaces.network, users.is_some())?;
    let has_ipc = namespaces.ipc != NODE;
    for name in linux.sysctls.keys() {
        check_sysctl(name, network != NetworkNamespace::Host, has_ipc)?;
    }
    let resolver = config.dns.map(|dns| resolver(&dns));
    Ok(Wanted {
        network,
        has_ipc,
        has_pids: namespaces.pid == POD,
        users,
        cgroup: Some(linux.cgroup_parent).filter(|path| !path.is_empty()),
        hostname: config.hostname,
        resolver,
        sysctls: linux.sysctls,
    })
}

fn network(path: Option<String>, mode: i32, has_users: bool) -> Result<NetworkNamespace> {
    match (path, mode == NODE) {
        (Some(path), false) => Ok(NetworkNamespace::Path(path)),
        (None, false) if has_users => Ok(NetworkNamespace::New),
        (None, true) => Ok(NetworkNamespace::Host),
        _ => Err(Failure::invalid("netns_path: a pod has one if and only if its network is not the host's")),
    }
}

fn users(wanted: &UserNamespace) -> Result<Users> {
    let map = |name: &str, ids: &[IdMapping]| {
        let lines =
            ids.iter().map(|ids| format!("{} {} {}\n", ids.container_id, ids.host_id, ids.length)).collect();
        let root = ids.iter().find(|ids| ids.container_id == 0 && ids.length > 0);
        let missing = || {
            let place = format!("linux.security_context.namespace_options.userns_options.{name}");
            Failure::invalid(format!("{place}: 0 is not in it"))
        };
        root.map(|ids| (lines, ids.host_id)).ok_or_else(missing)
    };
    let ((uids, uid), (gids, gid)) = (map("uids", &wanted.uids)?, map("gids", &wanted.gids)?);
    Ok(Users { uids, gids, root: (uid, gid) })
}

fn config(any: &Any) -> Result<Config> {
    if any.type_url.rsplit('/').next() != Some(CONFIG) {
        return Err(Failure::invalid(format!("options of an unknown type: {}", any.type_url)));
    }
    Config::decode(&*any.value).map_err(|error| Failure::invalid(format!("options: {error}")))
}

/// Those of the pod's own namespaces: any other one is the host's.
fn check_sysctl(name: &str, has_network: bool, has_ipc: bool) -> Result<()> {
    let is_of_ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];
    let is_path = name.contains('/') || name.split('.').any(str::is_empty);
    let is_own = has_network && name.starts_with("net.")
        || has_ipc && is_of_ipc.iter().any(|prefix| name.starts_with(prefix));
    if is_own && !is_path {
        return Ok(());
    }
    Err(Failure::invalid(format!("linux.sysctls: {name} is not of a namespace that the pod has for itself")))
}

fn resolver(dns: &Dns) -> String {
    let mut lines: Vec<String> = Vec::new();
    if !dns.searches.is_empty() {
        lines.push(format!("search {}", dns.searches.join(" ")));
    }
    lines.extend(dns.servers.iter().map(|server| format!("nameserver {server}")));
    if !dns.options.is_empty() {
        lines.push(format!("options {}", dns.options.join(" ")));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(namespaces: Namespaces, sysctl: &str) -> CreateSandbox {
        let sysctls = Some(sysctl).filter(|name| !name.is_empty());
        let linux = Linux {
            cgroup_parent: "/pods/p".into(),
            security: Some(Security { namespaces: Some(namespaces) }),
            sysctls: sysctls.map(|name| (name.into(), "1".into())).into_iter().collect(),
        };
        let dns =
            Dns { servers: vec!["10.0.0.1".into()], searches: vec!["a".into(), "b".into()], options: vec![] };
        let config = Config { hostname: "pod".into(), dns: Some(dns), linux: Some(linux) };
        CreateSandbox {
            netns_path: "/run/netns/x".into(),
            options: Some(Any::of(&format!("/{CONFIG}"), &config)),
            ..CreateSandbox::default()
        }
    }

    #[test]
    fn a_pod_is_read_and_what_the_shim_has_not_is_refused_by_name() {
        let own = || Namespaces { pid: 1, ..Namespaces::default() };
        let read = wanted(&request(own(), "net.ipv4.ip_forward")).unwrap();
        assert!(read.has_ipc && !read.has_pids && read.users.is_none());
        assert_eq!(read.network, NetworkNamespace::Path("/run/netns/x".into()));
        assert_eq!(read.cgroup.as_deref(), Some("/pods/p"));
        // What a pod shares where nothing is said.
        assert!(wanted(&request(Namespaces::default(), "")).unwrap().has_pids);
        assert_eq!(read.resolver.as_deref(), Some("search a b\nnameserver 10.0.0.1\n"));
        let ids = |container_id| vec![IdMapping { host_id: 7000, container_id, length: 100 }];
        let user = |first| Some(UserNamespace { mode: POD, uids: ids(first), gids: ids(0) });
        for (namespaces, sysctl, field) in [
            (Namespaces { user: user(1), ..own() }, "", "userns_options.uids: 0 is not"),
            (Namespaces { network: NODE, ..own() }, "", "netns_path"),
            (own(), "kernel.core_pattern", "kernel.core_pattern"),
            (own(), "net.../../kernel/core_pattern", "linux.sysctls"),
            (own(), "net./x", "linux.sysctls"),
            (Namespaces { ipc: NODE, ..own() }, "kernel.shmmax", "kernel.shmmax"),
        ] {
            let failure = wanted(&request(namespaces, sysctl)).unwrap_err();
            assert!(failure.text.contains(field), "{failure}");
        }
        let mut request = request(Namespaces { user: user(0), ..own() }, "net.x");
        request.netns_path = String::new();
        let read = wanted(&request).unwrap();
        assert_eq!(read.network, NetworkNamespace::New);
        let users = read.users.unwrap();
        assert_eq!((users.uids.as_str(), users.root), ("0 7000 100\n", (7000, 7000)));
        assert_eq!(wanted(&CreateSandbox::default()).unwrap().network, NetworkNamespace::Host);
        let any = Some(Any { type_url: "x.Y".into(), value: Vec::new() });
        assert!(wanted(&CreateSandbox { options: any, ..CreateSandbox::default() }).is_err());
    }
}

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
}

/// What is made for a pod.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The network namespace, with a uts namespace of its own; else those of the host.
    pub network: Option<String>,
    pub has_ipc: bool,
    pub hostname: String,
    /// `resolv.conf`; else that of the host.
    pub resolver: Option<String>,
    pub sysctls: BTreeMap<String, String>,
}

pub fn wanted(request: &CreateSandbox) -> Result<Wanted> {
    let network = Some(request.netns_path.clone()).filter(|path| !path.is_empty());
    if !request.rootfs.is_empty() {
        return Err(Failure::invalid("rootfs: a pod has no root file system"));
    }
    let Some(any) = &request.options else {
        // Not by CRI: what else its containers share, their own configurations say.
        let (hostname, sysctls) = (String::new(), BTreeMap::new());
        return Ok(Wanted { network, has_ipc: true, hostname, resolver: None, sysctls });
    };
    let config = config(any)?;
    let linux = config.linux.unwrap_or_default();
    let namespaces = linux.security.and_then(|security| security.namespaces).unwrap_or_default();
    if namespaces.pid == POD {
        return Err(refused(
            "pid",
            "a pid namespace that the pod shares needs an init, which this shim has not",
        ));
    }
    if namespaces.user.is_some_and(|user| user.mode == POD) {
        return Err(refused("userns_options", "this shim makes no user namespace for a pod"));
    }
    if network.is_some() != (namespaces.network != NODE) {
        return Err(Failure::invalid(
            "netns_path: a pod has one if and only if its network is not the host's",
        ));
    }
    let has_ipc = namespaces.ipc != NODE;
    for name in linux.sysctls.keys() {
        check_sysctl(name, network.is_some(), has_ipc)?;
    }
    let resolver = config.dns.map(|dns| resolver(&dns));
    Ok(Wanted { network, has_ipc, hostname: config.hostname, resolver, sysctls: linux.sysctls })
}

fn config(any: &Any) -> Result<Config> {
    if any.type_url.rsplit('/').next() != Some(CONFIG) {
        return Err(Failure::invalid(format!("options of an unknown type: {}", any.type_url)));
    }
    Config::decode(&*any.value).map_err(|error| Failure::invalid(format!("options: {error}")))
}

fn refused(field: &str, why: &str) -> Failure {
    let place = format!("linux.security_context.namespace_options.{field}: {why}");
    Failure::invalid(place).hint("use another mode, or sandboxer = \"podsandbox\"")
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
        assert!(read.has_ipc && read.network.as_deref() == Some("/run/netns/x"));
        assert_eq!(read.resolver.as_deref(), Some("search a b\nnameserver 10.0.0.1\n"));
        let user = Some(UserNamespace { mode: POD });
        for (namespaces, sysctl, field) in [
            (Namespaces::default(), "", "namespace_options.pid"),
            (Namespaces { user, ..own() }, "", "userns_options"),
            (Namespaces { network: NODE, ..own() }, "", "netns_path"),
            (own(), "kernel.core_pattern", "kernel.core_pattern"),
            (own(), "net.../../kernel/core_pattern", "linux.sysctls"),
            (own(), "net./x", "linux.sysctls"),
            (Namespaces { ipc: NODE, ..own() }, "kernel.shmmax", "kernel.shmmax"),
        ] {
            let failure = wanted(&request(namespaces, sysctl)).unwrap_err();
            assert!(failure.text.contains(field), "{failure}");
        }
        assert_eq!(wanted(&CreateSandbox::default()).unwrap().network, None);
        let any = Some(Any { type_url: "x.Y".into(), value: Vec::new() });
        assert!(wanted(&CreateSandbox { options: any, ..CreateSandbox::default() }).is_err());
    }
}

//! Which sysctl a key names, and which namespace keeps it from changing the host.

use oci_spec::runtime::LinuxNamespaceType;

/// The kinds of namespace that have sysctls of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    Ipc,
    Network,
    Uts,
}

impl Namespace {
    pub(crate) fn of_spec(self) -> LinuxNamespaceType {
        match self {
            Self::Ipc => LinuxNamespaceType::Ipc,
            Self::Network => LinuxNamespaceType::Network,
            Self::Uts => LinuxNamespaceType::Uts,
        }
    }
}

const IPC: [&str; 8] = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];

/// The path below `/proc/sys` that a key names. As in sysctl(8) the first separator of a key decides: with
/// `net.ipv4.conf.eth0/1.forwarding` a '/' stands for a dot in a name, and with `net/ipv4/…` nothing does.
pub fn key_path(key: &str) -> Result<String, String> {
    let dots = key.find(['.', '/']).is_none_or(|at| key.as_bytes()[at] == b'.');
    let swap = |c: char| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = if dots { key.chars().map(swap).collect() } else { key.to_owned() };
    // Anything that a path resolution would treat specially could lead out of the namespace's part.
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if path.split('/').all(plain) { Ok(path) } else { Err("is not the name of a sysctl".into()) }
}

/// The namespace that `path` (from [`key_path`]) belongs to; `Err` says why there is none.
pub(crate) fn namespace_of(path: &str) -> Result<Namespace, &'static str> {
    let mut parts = path.splitn(3, '/');
    match (parts.next().unwrap_or_default(), parts.next(), parts.next()) {
        ("net", Some(_), _) => Ok(Namespace::Network),
        ("fs", Some("mqueue"), Some(_)) => Ok(Namespace::Ipc),
        ("kernel", Some(name), None) if IPC.contains(&name) => Ok(Namespace::Ipc),
        ("kernel", Some("domainname"), None) => Ok(Namespace::Uts),
        // runc refuses this one, too: there must be one source of the name.
        ("kernel", Some("hostname"), None) => Err("is set with the property hostname"),
        _ => Err("belongs to no namespace; it would change the host's"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_separator_decides() {
        assert_eq!(key_path("net.ipv4.conf.eth0/1.forwarding").unwrap(), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(key_path("net/ipv4/conf/eth0.1/forwarding").unwrap(), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(key_path("kernel.sem").unwrap(), "kernel/sem");
        for bad in
            ["", ".", "/", "net..x", "net.//.x", "net/../kernel/x", "/net/x", "net/", "a\0.b", "net./.x"]
        {
            assert!(key_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_namespaced_sysctls_have_a_namespace() {
        assert_eq!(namespace_of("net/core/somaxconn"), Ok(Namespace::Network));
        assert_eq!(namespace_of("fs/mqueue/msg_max"), Ok(Namespace::Ipc));
        assert_eq!(namespace_of("kernel/domainname"), Ok(Namespace::Uts));
        for bad in
            ["net", "fs/mqueue", "fs/file-max", "kernel/sem/x", "kernel/core_pattern", "kernel/hostname"]
        {
            assert!(namespace_of(bad).is_err(), "{bad}");
        }
    }
}

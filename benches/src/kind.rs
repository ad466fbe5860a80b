//! The kinds of bundles: the plain one, and what is added to it. For each: what changes in the configuration and on the
//! command lines, why floor has none, and what the host has to have.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::bundle::Place;

const SECCOMP: &str = include_str!("seccomp.json");
/// Of the bundle `mounts`.
pub const MOUNTS: usize = 100;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Plain,
    Userns,
    Mounts,
    Network,
    Seccomp,
    Scope,
}

impl Kind {
    pub const ALL: [Kind; 6] =
        [Kind::Plain, Kind::Userns, Kind::Mounts, Kind::Network, Kind::Seccomp, Kind::Scope];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Plain => "plain",
            Kind::Userns => "userns",
            Kind::Mounts => "mounts",
            Kind::Network => "network",
            Kind::Seccomp => "seccomp",
            Kind::Scope => "scope",
        }
    }

    /// What a container of it has besides those of the plain one.
    pub fn title(self) -> &'static str {
        match self {
            Kind::Plain => "",
            Kind::Userns => "with a user namespace",
            Kind::Mounts => "with 100 bind mounts",
            Kind::Network => "on a bridge, by onggi's own networks",
            Kind::Seccomp => "with Docker's seccomp profile",
            Kind::Scope => "in a scope of systemd",
        }
    }

    /// Why floor has no such container.
    pub fn without_floor(self) -> Option<&'static str> {
        match self {
            Kind::Plain | Kind::Mounts => None,
            Kind::Userns => {
                Some("its devices and the order of its mounts are others, which are the runtime's choice")
            }
            Kind::Network => Some("`benches network` compares with CNI's plugins and with Podman"),
            Kind::Seccomp => Some("the profile has to be compiled, which is the runtime's own work"),
            Kind::Scope => Some("systemd makes the cgroup"),
        }
    }

    /// What this host lacks for it.
    pub fn lacks(self) -> Option<&'static str> {
        let systemd = Path::new("/run/systemd/system").exists();
        (self == Kind::Scope && !systemd).then_some("systemd does not run here")
    }

    /// The others have no networks of their own.
    pub fn takes(self, runtime: &str) -> bool {
        self != Kind::Network || runtime.starts_with("onggi")
    }

    /// The options before the verb.
    pub fn global(self) -> &'static [&'static str] {
        if self == Kind::Scope { &["--systemd-cgroup"] } else { &[] }
    }

    /// Those of `run` and `create`.
    pub fn options(self) -> &'static [&'static str] {
        if self == Kind::Network { &["--network", "bridge=onggi-bench"] } else { &[] }
    }

    /// `cgroup` is its path below the hierarchies.
    pub fn change(self, config: &mut Value, place: &Place, cgroup: &str) -> Result<(), String> {
        match self {
            Kind::Plain | Kind::Network => {}
            Kind::Userns => {
                let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
                let linux = &mut config["linux"];
                (linux["uidMappings"], linux["gidMappings"]) = (map.clone(), map);
                push(&mut linux["namespaces"], json!({"type": "user"}));
            }
            Kind::Mounts => {
                for number in 0..MOUNTS {
                    let (source, name) = (place.dir.join("mounted"), format!("mnt/{number}"));
                    for dir in [&source, &place.root().join(&name)] {
                        fs::create_dir_all(dir).map_err(|e| format!("mkdir {}: {e}", dir.display()))?;
                    }
                    let mount = json!({"destination": format!("/{name}"), "type": "bind", "source": source,
                        "options": ["rbind", "rprivate"]});
                    push(&mut config["mounts"], mount);
                }
            }
            Kind::Seccomp => {
                config["linux"]["seccomp"] = serde_json::from_str(SECCOMP).expect("seccomp.json is JSON");
            }
            Kind::Scope => {
                let name = cgroup.replace('/', "-");
                config["linux"]["cgroupsPath"] = json!(format!("system.slice:bench:{name}"));
            }
        }
        Ok(())
    }
}

fn push(list: &mut Value, value: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(value);
    }
}

/// `all`, or a list of names.
pub fn parse(text: &str) -> Result<Vec<Kind>, String> {
    if text == "all" {
        return Ok(Kind::ALL.to_vec());
    }
    let known = |name: &str| Kind::ALL.into_iter().find(|kind| kind.name() == name);
    let all = || Kind::ALL.map(Kind::name).join(", ");
    text.split(',')
        .map(|name| known(name).ok_or_else(|| format!("unknown bundle {name:?}: {}", all())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_bundle_is_refused_with_the_known_ones() {
        assert_eq!(parse("mounts,plain"), Ok(vec![Kind::Mounts, Kind::Plain]));
        assert_eq!(parse("all").map(|all| all.len()), Ok(6));
        assert!(parse("mount").is_err_and(|error| error.contains("userns, mounts")));
    }
}

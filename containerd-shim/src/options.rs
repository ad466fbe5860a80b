//! What containerd's configuration says about the runtime: runc's options, or CRI's table as TOML, of which the few
//! lines `key = value` are read. What is not understood is refused. Must not
//! change anything; CRI's table may be in a file.

use crate::failure::{Failure, Result};
use crate::wire::{Any, CriOptions, RuncOptions};
use libruntime::CgroupDriver;
use prost::Message;

pub const RUNC: &str = "containerd.runc.v1.Options";
pub const CRI: &str = "runtimeoptions.v1.Options";

const DEFAULT_ROOT: &str = "/run/containerd/onggi";

pub fn parse(any: Option<&Any>) -> Result<RuncOptions> {
    let Some(any) = any.filter(|any| !any.type_url.is_empty()) else { return Ok(RuncOptions::default()) };
    let wrong = |error| Failure::invalid(format!("options {}: {error}", any.type_url));
    let options = match any.type_url.rsplit('/').next().unwrap_or_default() {
        RUNC => RuncOptions::decode(&*any.value).map_err(wrong)?,
        CRI => from_toml(&CriOptions::decode(&*any.value).map_err(wrong)?)?,
        other => return Err(Failure::invalid(format!("options of an unknown type: {other}"))),
    };
    check(&options)?;
    Ok(options)
}

/// Another runtime would be executed for whoever names one.
fn check(options: &RuncOptions) -> Result<()> {
    let name = options.binary_name.rsplit('/').next().unwrap_or_default();
    if ["", "onggi", "runc"].contains(&name) {
        return Ok(());
    }
    Err(Failure::invalid(format!("BinaryName {:?}: this shim executes no runtime", options.binary_name)))
}

fn from_toml(given: &CriOptions) -> Result<RuncOptions> {
    let text = match given.config_path.is_empty() {
        true => String::from_utf8_lossy(&given.config_body).into_owned(),
        false => std::fs::read_to_string(&given.config_path)
            .map_err(|error| Failure::os(format!("read {}", given.config_path), error))?,
    };
    let mut options = RuncOptions::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let wrong = || Failure::invalid(format!("options: line {line:?} is not understood"));
        let (key, value) = line.split_once('=').ok_or_else(wrong)?;
        let value = value.trim();
        let text = || value.strip_prefix(['"', '\'']).and_then(|rest| rest.strip_suffix(['"', '\'']));
        let text = || text().map(String::from).ok_or_else(wrong);
        let truth = || value.parse::<bool>().map_err(|_| wrong());
        match key.trim().trim_matches('"') {
            "BinaryName" => options.binary_name = text()?,
            "Root" => options.root = text()?,
            "ShimCgroup" => options.shim_cgroup = text()?,
            "CriuImagePath" => options.criu_image_path = text()?,
            "CriuWorkPath" => options.criu_work_path = text()?,
            "CriuPath" if !text()?.is_empty() => {
                return Err(Failure::invalid("CriuPath: this shim executes the criu in PATH"));
            }
            // The others are containerd's own.
            "TypeUrl" | "ConfigPath" | "TaskApiAddress" | "TaskApiVersion" | "CriuPath" => {}
            "NoPivotRoot" => options.no_pivot_root = truth()?,
            "NoNewKeyring" => options.no_new_keyring = truth()?,
            "SystemdCgroup" => options.systemd_cgroup = truth()?,
            "IoUid" => options.io_uid = value.parse().map_err(|_| wrong())?,
            "IoGid" => options.io_gid = value.parse().map_err(|_| wrong())?,
            _ => return Err(wrong()),
        }
    }
    Ok(options)
}

/// The directory of the containers' state: readable by `onggi --root`.
pub fn store(options: &RuncOptions, namespace: &str) -> std::path::PathBuf {
    let root = if options.root.is_empty() { DEFAULT_ROOT } else { &options.root };
    std::path::Path::new(root).join(namespace)
}

pub fn driver(options: &RuncOptions) -> CgroupDriver {
    if options.systemd_cgroup { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_toml(text: &str) -> Result<RuncOptions> {
        let given = CriOptions { config_body: text.into(), ..CriOptions::default() };
        parse(Some(&Any::of(&format!("types.googleapis.com/{CRI}"), &given)))
    }

    #[test]
    fn the_table_of_cri_is_read_and_nothing_is_guessed() {
        let options = of_toml("SystemdCgroup = true\n  Root = \"/run/x\"\n# a comment\nIoUid = 7\n").unwrap();
        assert!(options.systemd_cgroup && options.root == "/run/x" && options.io_uid == 7);
        assert_eq!(store(&options, "k8s.io").to_str(), Some("/run/x/k8s.io"));
        for text in ["Unknown = 1", "SystemdCgroup", "SystemdCgroup = 1", "Root = x", "[table]"] {
            assert!(of_toml(text).unwrap_err().text.contains("is not understood"), "{text}");
        }
    }

    #[test]
    fn another_runtime_is_refused_by_name() {
        assert!(of_toml("BinaryName = \"/usr/bin/runc\"").is_ok());
        let failure = of_toml("BinaryName = \"/usr/bin/crun\"").unwrap_err();
        assert!(failure.text.starts_with("BinaryName \"/usr/bin/crun\""), "{failure}");
        assert!(parse(Some(&Any { type_url: "a.B".into(), value: vec![] })).is_err());
        assert!(of_toml("CriuPath = \"\"").is_ok());
        let failure = of_toml("CriuPath = \"/x\"").unwrap_err();
        assert!(failure.text.starts_with("CriuPath: "), "{failure}");
        assert_eq!(parse(None).unwrap(), RuncOptions::default());
    }
}

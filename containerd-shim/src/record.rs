//! `onggi.json` in the bundle: what `delete` needs to know when the shim is gone. Written before anything is made.

use crate::failure::{Failure, Result};
use crate::wire::RuncOptions;
use crate::{options, sandbox};
use libruntime::{CgroupDriver, Runtime};
use serde_json::json;
use std::path::{Path, PathBuf};

const NAME: &str = "onggi.json";

pub struct Record {
    pub group: String,
    pub store: PathBuf,
    pub is_systemd: bool,
}

impl Record {
    pub fn new(options: &RuncOptions, namespace: &str, group: &str) -> Self {
        Self {
            group: group.into(),
            store: options::store(options, namespace),
            is_systemd: options::driver(options) == CgroupDriver::Systemd,
        }
    }

    pub fn write(&self, bundle: &Path) -> Result<()> {
        let text = json!({ "group": self.group, "store": self.store, "systemdCgroup": self.is_systemd });
        replace(&bundle.join(NAME), &text.to_string())
    }

    /// Of a shim that wrote none, the defaults.
    pub fn read(bundle: &Path, namespace: &str) -> Self {
        let text = std::fs::read_to_string(bundle.join(NAME)).unwrap_or_default();
        let object: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let text_of = |name: &str| object.get(name).and_then(|value| value.as_str());
        Self {
            group: text_of("group").unwrap_or_default().into(),
            store: text_of("store")
                .map_or_else(|| options::store(&RuncOptions::default(), namespace), PathBuf::from),
            is_systemd: object.get("systemdCgroup").and_then(|value| value.as_bool()).unwrap_or(false),
        }
    }

    pub fn runtime(&self) -> Runtime {
        let driver = if self.is_systemd { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs };
        Runtime::new(&self.store).cgroup_driver(driver)
    }
}

/// Renamed into place, whole.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    let failed = |error| Failure::os(format!("write {}", path.display()), error);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let new = path.with_file_name(name);
    std::fs::write(&new, text).map_err(failed)?;
    std::fs::rename(&new, path).map_err(failed)
}

/// Of this bundle: the annotations of its configuration decide.
pub fn group_of(bundle: &Path, id: &str) -> String {
    sandbox::group(&std::fs::read(bundle.join("config.json")).unwrap_or_default(), id)
}

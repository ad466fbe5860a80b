//! Changes to a container that runs: pausing, and its limits.

use crate::cgroup::merged;
use crate::container::Container;
use crate::error::{Diagnostic, Error, Result};
use crate::status::Status;
use crate::wait;
use crate::{config, resctrl};
use oci_spec::runtime::{LinuxResources, Spec};
use serde_json::json;

impl Container {
    /// Freezes every process of it.
    ///
    /// # Errors
    /// [`ErrorKind::WrongState`](crate::ErrorKind::WrongState) when it does not run. A process that sleeps in the kernel
    /// cannot be frozen; all are thawed then.
    pub fn pause(&self) -> Result<()> {
        wait::limited(&self.limits, || {
            let _turn = self.directory.lock()?;
            match self.status() {
                Status::Running | Status::Created => self.state.cgroup.freeze(),
                status => Err(self.wrong_state("pause", status)),
            }
        })
    }

    /// Thaws what [`Container::pause`] has frozen.
    ///
    /// # Errors
    /// [`ErrorKind::WrongState`](crate::ErrorKind::WrongState) when it is not paused.
    pub fn resume(&self) -> Result<()> {
        wait::limited(&self.limits, || {
            let _turn = self.directory.lock()?;
            match self.status() {
                Status::Paused => self.state.cgroup.thaw(),
                status => Err(self.wrong_state("resume", status)),
            }
        })
    }

    /// Changes its limits, all or none; limits that `resources` does not name stay. The new ones are stored in its
    /// configuration.
    ///
    /// # Errors
    /// The kernel refuses a limit; those set before it are restored.
    pub fn update(&self, resources: &LinuxResources) -> Result<Vec<Diagnostic>> {
        wait::limited(&self.limits, || self.update_resources(resources))
    }

    fn update_resources(&self, resources: &LinuxResources) -> Result<Vec<Diagnostic>> {
        if self.status() == Status::Stopped {
            return Err(self.wrong_state("update", Status::Stopped));
        }
        let _turn = self.directory.lock()?;
        // Read again, because another process may have changed it.
        let old = self.directory.read_spec()?;
        let before = old.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default();
        let mut resources = resources.clone();
        config::resources::update_as_of(&self.state.oci_version, &mut resources);
        let new = with_resources(&old, &merged(&before, &resources)?)?;
        // First, because the disk may be full.
        self.directory.replace_spec(&new)?;
        self.state.cgroup.update(&before, &resources).inspect_err(|_| {
            // The error to report is the first one.
            let _ = self.directory.replace_spec(&old);
        })
    }

    /// Changes the schemata of its class of cache and memory bandwidth (`linux.intelRdt`), with which it must have been
    /// created. The new ones are stored in its configuration.
    ///
    /// # Errors
    /// It has no class, or the kernel refuses the schemata.
    pub fn update_schemata(&self, l3_cache: Option<&str>, memory_bandwidth: Option<&str>) -> Result<()> {
        if self.status() == Status::Stopped {
            return Err(self.wrong_state("update", Status::Stopped));
        }
        let _turn = self.directory.lock()?;
        let mut object = json!({});
        for (name, value) in [("l3CacheSchema", l3_cache), ("memBwSchema", memory_bandwidth)] {
            if let Some(value) = value {
                object[name] = value.into();
            }
        }
        let failed = |error| Error::external(format!("cannot encode the schemata: {error}"));
        let new = serde_json::from_value(object.clone()).map_err(failed)?;
        let spec = self.directory.read_spec()?;
        resctrl::update(&spec, self.id(), &new)?;
        let mut stored = serde_json::to_value(&spec).map_err(failed)?;
        for (name, value) in object.as_object().into_iter().flatten() {
            stored["linux"]["intelRdt"][name] = value.clone();
        }
        self.directory.replace_spec(&serde_json::from_value(stored).map_err(failed)?)
    }
}

/// Through JSON, because the default value of `linux` contains namespaces that nobody asked for.
fn with_resources(spec: &Spec, resources: &LinuxResources) -> Result<Spec> {
    let failed = |error| Error::external(format!("cannot encode config.json: {error}"));
    let mut object = serde_json::to_value(spec).map_err(failed)?;
    object["linux"]["resources"] = serde_json::to_value(resources).map_err(failed)?;
    serde_json::from_value(object).map_err(failed)
}

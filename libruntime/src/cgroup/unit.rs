//! A systemd unit: starts it, sets its limits and stops it, over D-Bus (org.freedesktop.systemd1(5)).

use super::dbus::{Bus, Refusal, Value};
use super::files::has_host_root;
use super::properties;
use crate::error::{Error, Result};
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// For everything that one operation asks of systemd.
pub(super) const WAIT: Duration = Duration::from_secs(8);
/// How long an old unit of the same name may take to disappear.
const OLD_UNIT: Duration = Duration::from_secs(2);

const DESTINATION: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// The scope that a container's cgroup belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unit {
    pub name: String,
    /// Whether it belongs to the calling user's own systemd instance.
    pub user: bool,
    /// The properties to start it with; only in a planned cgroup, not in a stored one.
    #[serde(skip)]
    pub start: Option<Vec<(String, Value)>>,
}

impl Unit {
    /// Whether it is not started yet.
    pub fn is_planned(&self) -> bool {
        self.start.is_some()
    }

    /// Whether a process can be cloned into its cgroup. Users may move processes only within cgroups of their own, and
    /// their shell is usually outside of these.
    pub fn can_be_cloned_into(&self) -> bool {
        !self.user && !self.is_planned()
    }

    fn bus(&self) -> Result<Bus> {
        Bus::connect(&address(self.user), WAIT)
    }

    pub fn start(&self, properties: Vec<(String, Value)>) -> Result<()> {
        let mut bus = self.bus()?;
        watch_jobs(&mut bus)?;
        let arguments =
            [self.name.as_str().into(), "replace".into(), Value::Properties(properties), Value::NoUnits];
        let until = Instant::now() + OLD_UNIT;
        let job = loop {
            match manager(&mut bus, "StartTransientUnit", &arguments)? {
                Ok(answer) => break answer,
                // A failed unit stays until it is reset; one that has just lost its last process disappears by itself.
                Err(refusal) if refusal.name.ends_with(".UnitExists") && Instant::now() < until => {
                    let _ = manager(&mut bus, "ResetFailedUnit", &[self.name.as_str().into()])?;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(refusal) => return Err(self.refused("StartTransientUnit", refusal)),
            }
        };
        match wait_for(&mut bus, job.first())?.as_str() {
            "done" => Ok(()),
            result => {
                let _ = manager(&mut bus, "StopUnit", &[self.name.as_str().into(), "replace".into()])?;
                let _ = manager(&mut bus, "ResetFailedUnit", &[self.name.as_str().into()])?;
                Err(Error::external(format!(
                    "systemd could not start {}: its job ended with {result:?}",
                    self.name
                ))
                .with_hint(format!("see: journalctl -u {}", self.name)))
            }
        }
    }

    /// Stops the unit; it is no error if it does not exist.
    pub fn stop(&self) -> Result<()> {
        let mut bus = self.bus()?;
        watch_jobs(&mut bus)?;
        match manager(&mut bus, "StopUnit", &[self.name.as_str().into(), "replace".into()])? {
            Ok(job) => drop(wait_for(&mut bus, job.first())?),
            Err(refusal) if refusal.name.ends_with(".NoSuchUnit") => return Ok(()),
            Err(refusal) => return Err(self.refused("StopUnit", refusal)),
        }
        // Refused when there is nothing to reset, which is the usual case.
        let _ = manager(&mut bus, "ResetFailedUnit", &[self.name.as_str().into()])?;
        Ok(())
    }

    /// The properties for changed limits.
    pub fn properties(&self, resources: &LinuxResources, v2: bool) -> Result<Vec<(String, Value)>> {
        let mut list = properties::limits(resources, v2)?;
        if let Some(rules) = resources.devices().as_deref().filter(|_| !v2 && !self.user) {
            list.extend(properties::devices(rules)?);
        }
        Ok(list)
    }

    /// Sets properties, until the next boot.
    pub fn set(&self, properties: Vec<(String, Value)>) -> Result<()> {
        if properties.is_empty() {
            return Ok(());
        }
        let arguments = [self.name.as_str().into(), Value::Bool(true), Value::Properties(properties)];
        manager(&mut self.bus()?, "SetUnitProperties", &arguments)?
            .map(drop)
            .map_err(|refusal| self.refused("SetUnitProperties", refusal))
    }

    /// Has systemd move a process in, where the caller may not move it.
    pub fn attach(&self, pid: i32) -> Result<()> {
        let arguments = [self.name.as_str().into(), "".into(), Value::U32s(vec![pid as u32])];
        manager(&mut self.bus()?, "AttachProcessesToUnit", &arguments)?
            .map(drop)
            .map_err(|refusal| self.refused("AttachProcessesToUnit", refusal))
    }

    fn refused(&self, method: &str, refusal: Refusal) -> Error {
        Error::external(format!("systemd {method} {}: {} ({})", self.name, refusal.message, refusal.name))
    }
}

fn manager(
    bus: &mut Bus,
    method: &str,
    arguments: &[Value],
) -> Result<std::result::Result<Vec<String>, Refusal>> {
    bus.call([DESTINATION, OBJECT, MANAGER, method], arguments)
}

/// To be called before the job is started, or its end may be missed.
fn watch_jobs(bus: &mut Bus) -> Result<()> {
    let rule = format!("type='signal',sender='{DESTINATION}',interface='{MANAGER}',member='JobRemoved'");
    let to = ["org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch"];
    bus.call(to, &[rule.as_str().into()])?
        .map(drop)
        .map_err(|refusal| Error::external(format!("D-Bus AddMatch: {}", refusal.message)))
}

/// The result of a job: JobRemoved has its path, its unit and the result.
fn wait_for(bus: &mut Bus, job: Option<&String>) -> Result<String> {
    let job = job.ok_or_else(|| Error::external("systemd has answered without a job"))?;
    let strings = bus.signal("JobRemoved", |strings| strings.first() == Some(job))?;
    Ok(strings.last().cloned().unwrap_or_default())
}

pub(super) fn address(user: bool) -> String {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if !user {
        return set("DBUS_SYSTEM_BUS_ADDRESS")
            .unwrap_or_else(|| "unix:path=/run/dbus/system_bus_socket".into());
    }
    set("DBUS_SESSION_BUS_ADDRESS").unwrap_or_else(|| {
        let dir = set("XDG_RUNTIME_DIR").unwrap_or_else(|| format!("/run/user/{}", nix::unistd::getuid()));
        format!("unix:path={dir}/bus")
    })
}

/// The cgroup of the calling user's systemd instance.
pub(super) fn user_root() -> Result<PathBuf> {
    let mut bus = Bus::connect(&address(true), WAIT)?;
    let to = [DESTINATION, OBJECT, "org.freedesktop.DBus.Properties", "Get"];
    let failed = |text: &str| Error::external(format!("systemd's property ControlGroup: {text}"));
    let answer = bus.call(to, &[MANAGER.into(), "ControlGroup".into()])?;
    let path = answer.map_err(|refusal| failed(&refusal.message))?.into_iter().next();
    path.filter(|path| path.starts_with('/')).map(PathBuf::from).ok_or_else(|| failed("is not a path"))
}

/// What the systemd instance for the caller's containers says of itself.
pub(crate) struct Answer {
    pub version: String,
    pub instance: &'static str,
    /// v2: the controllers that it can delegate.
    pub controllers: Vec<String>,
}

/// Asks systemd, with a short deadline.
pub(crate) fn ask() -> Result<Answer> {
    let user = !has_host_root();
    let mut bus = Bus::connect(&address(user), Duration::from_secs(3))?;
    let mut get = |name: &str| -> Result<String> {
        let to = [DESTINATION, OBJECT, "org.freedesktop.DBus.Properties", "Get"];
        let answer = bus.call(to, &[MANAGER.into(), name.into()])?;
        let text = answer.map_err(|refusal| Error::external(format!("systemd: {}", refusal.message)))?;
        text.into_iter().next().ok_or_else(|| Error::external(format!("systemd's {name} is not a text")))
    };
    let (version, root) = (get("Version")?, get("ControlGroup")?);
    let file = Path::new("/sys/fs/cgroup").join(root.trim_start_matches('/')).join("cgroup.controllers");
    let controllers = std::fs::read_to_string(file).unwrap_or_default();
    Ok(Answer {
        version,
        instance: if user { "user" } else { "system" },
        controllers: controllers.split_whitespace().map(str::to_owned).collect(),
    })
}

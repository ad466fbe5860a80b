//! The systemd driver: the container's cgroup is that of a transient scope which systemd makes, so
//! that the two never fight over it. Everything inside it is done as without systemd.
//!
//! Starts and stops the unit and tells systemd the limits, so that a reload keeps them; `apply.rs`
//! then writes the exact values. Must not wait without bound. The wire is `dbus.rs`; properties are
//! those of systemd.resource-control(5) and org.freedesktop.systemd1(5).

use super::apply::has_host_root;
use super::dbus::{Bus, Refusal, Value};
use super::layout::{Layout, Mount};
use super::{Cgroup, Hierarchy, processes, properties, v1, v2};
use crate::error::{Diagnostic, Error, Result};
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const AT_PATH: &str = "linux.cgroupsPath";
/// For everything that one operation asks of systemd.
const WAIT: Duration = Duration::from_secs(8);
/// How long an old unit of the same name may take to go.
const OLD_UNIT: Duration = Duration::from_secs(2);

const DESTINATION: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// The scope that a container's cgroup belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unit {
    pub name: String,
    /// Of the calling user's own systemd instance.
    user: bool,
    /// What to start it with; only in a cgroup that was planned, not in one that was stored.
    #[serde(skip)]
    start: Option<Vec<(String, Value)>>,
}

impl Cgroup {
    /// As [`Cgroup::plan`] for the systemd driver: `linux.cgroupsPath` is `slice:prefix:name` and the
    /// unit `prefix-name.scope`. A caller without the host's root privileges gets its own systemd
    /// instance, which has to be asked where its cgroups are; otherwise this is pure.
    ///
    /// The unit is started by the first [`Cgroup::attach`], because a scope needs a process;
    /// [`Cgroup::apply`] must come after that.
    pub fn plan_systemd(
        layout: &Layout,
        cgroups_path: Option<&Path>,
        id: &str,
        resources: Option<&LinuxResources>,
        annotations: &HashMap<String, String>,
    ) -> Result<Self> {
        let user = !has_host_root();
        if user && !layout.is_v2() {
            return Err(Error::unsupported(
                "without root the systemd driver needs cgroup v2: a user's systemd has no part of v1",
            )
            .with_hint("use the cgroupfs driver, or boot with systemd.unified_cgroup_hierarchy=1"));
        }
        let names = Names::parse(cgroups_path, id, user)
            .map_err(|problem| Error::invalid(vec![Diagnostic::new(AT_PATH, problem)]))?;
        let base = if user { user_root()? } else { PathBuf::from("/") };
        let inner = base.join(expand_slice(&names.slice)).join(&names.unit);
        let hierarchies = layout
            .mounts
            .iter()
            .map(|mount| {
                Ok(Hierarchy {
                    mount: mount.point.clone(),
                    dir: dir(mount, &inner)?,
                    controllers: mount.controllers.clone(),
                })
            })
            .collect::<Result<_>>()?;
        let mut start = vec![
            ("Description".to_owned(), Value::Str(format!("container {id}"))),
            ("Slice".to_owned(), Value::Str(names.slice)),
            ("Delegate".to_owned(), Value::Bool(true)),
            ("DefaultDependencies".to_owned(), Value::Bool(false)),
            // Nobody has to call reset-failed for a container that was killed.
            ("CollectMode".to_owned(), "inactive-or-failed".into()),
        ];
        for name in properties::accounting(layout.is_v2()) {
            start.push(((*name).to_owned(), Value::Bool(true)));
        }
        if let Some(resources) = resources {
            start.extend(properties::limits(resources, layout.is_v2())?);
        }
        if !layout.is_v2() && !user {
            let rules = resources.and_then(|resources| resources.devices().as_deref());
            start.extend(properties::devices(rules.unwrap_or_default())?);
        }
        for (name, value) in properties::annotated(annotations)? {
            start.retain(|(other, _)| *other != name);
            start.push((name, value));
        }
        Ok(Self {
            hierarchies,
            optional: false,
            unit: Some(Unit { name: names.unit, user, start: Some(start) }),
        })
    }

    /// The name of the systemd unit, where there is one.
    pub fn systemd_unit(&self) -> Option<&str> {
        self.unit.as_ref().map(|unit| unit.name.as_str())
    }

    /// Starts the unit with its first process, unless it runs or was started by someone before.
    pub(super) fn start_unit(&self, pid: i32) -> Result<bool> {
        let Some((unit, start)) = self.unit.as_ref().and_then(|unit| Some((unit, unit.start.as_ref()?)))
        else {
            return Ok(false);
        };
        if !self.pids(false)?.is_empty() {
            return Ok(false);
        }
        let mut properties = start.clone();
        properties.push(("PIDs".to_owned(), Value::U32s(vec![pid as u32])));
        unit.start(properties)?;
        for hierarchy in &self.hierarchies {
            if hierarchy.is_v2() && !hierarchy.dir.is_dir() {
                let dir = hierarchy.dir.display();
                return Err(Error::external(format!("systemd has started {}, but not in {dir}", unit.name)));
            }
            // systemd makes the hierarchies that it has a use for, and enables the controllers that it
            // has one for, which leaves out hugetlb, rdma and misc.
            let mut made = super::NewDirs::default();
            let create = if self.is_v2() { v2::create } else { v1::create };
            create(hierarchy, &mut made)?;
            made.keep();
        }
        Ok(true)
    }

    /// A scope's cgroup is made by systemd; here is only checked that nobody is in it.
    pub(super) fn refuse_used_unit(&self) -> Result<()> {
        let mut existing = self.hierarchies.iter().filter(|hierarchy| hierarchy.dir.is_dir());
        existing.try_for_each(processes::refuse_used)
    }
}

impl Unit {
    /// Whether it is still to be started.
    pub fn is_planned(&self) -> bool {
        self.start.is_some()
    }

    /// Whether a process can be cloned into its cgroup: a user may move processes only within what
    /// is his, and his shell is usually elsewhere.
    pub fn can_be_cloned_into(&self) -> bool {
        !self.user && !self.is_planned()
    }

    fn bus(&self) -> Result<Bus> {
        Bus::connect(&address(self.user), WAIT)
    }

    fn start(&self, properties: Vec<(String, Value)>) -> Result<()> {
        let mut bus = self.bus()?;
        watch_jobs(&mut bus)?;
        let arguments =
            [self.name.as_str().into(), "replace".into(), Value::Properties(properties), Value::NoUnits];
        let until = Instant::now() + OLD_UNIT;
        let job = loop {
            match manager(&mut bus, "StartTransientUnit", &arguments)? {
                Ok(answer) => break answer,
                // One that has failed stays until it is told off; one that has just lost its last
                // process goes by itself.
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

    /// Stops the unit; one that is not there is stopped.
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

    /// What systemd is to be told of changed limits.
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

    /// Has systemd move a process in that the caller may not move himself.
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

/// Must be before the job, or its end may be missed.
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

fn address(user: bool) -> String {
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
fn user_root() -> Result<PathBuf> {
    let mut bus = Bus::connect(&address(true), WAIT)?;
    let to = [DESTINATION, OBJECT, "org.freedesktop.DBus.Properties", "Get"];
    let failed = |text: &str| Error::external(format!("systemd's property ControlGroup: {text}"));
    let answer = bus.call(to, &[MANAGER.into(), "ControlGroup".into()])?;
    let path = answer.map_err(|refusal| failed(&refusal.message))?.into_iter().next();
    path.filter(|path| path.starts_with('/')).map(PathBuf::from).ok_or_else(|| failed("is not a path"))
}

/// What the systemd says of itself that a container of the caller's would use.
pub(crate) struct Answer {
    pub version: String,
    pub instance: &'static str,
    /// v2: the controllers that it has to give.
    pub controllers: Vec<String>,
}

/// Asks it, not for long.
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

fn dir(mount: &Mount, inner: &Path) -> Result<PathBuf> {
    super::below(mount, inner)
}

/// What `linux.cgroupsPath` says.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    slice: String,
    unit: String,
}

impl Names {
    fn parse(path: Option<&Path>, id: &str, user: bool) -> std::result::Result<Self, String> {
        let default_slice = if user { "user.slice" } else { "system.slice" };
        let text = match path {
            None => String::new(),
            Some(path) => path.to_str().ok_or("is not UTF-8")?.to_owned(),
        };
        let parts: Vec<&str> = text.split(':').collect();
        let (slice, prefix, name) = match parts.as_slice() {
            [""] => ("", "onggi", id),
            [slice, prefix, name] => (*slice, *prefix, *name),
            _ => {
                return Err(format!(
                    "{text:?} is not of the form slice:prefix:name, as the systemd driver needs it"
                ));
            }
        };
        let slice = match slice {
            "" => default_slice.to_owned(),
            "-" => "-.slice".to_owned(),
            slice => slice.to_owned(),
        };
        check_slice(&slice)?;
        if name.ends_with(".slice") {
            return Err(format!("{text:?} names a slice; a container's unit is a scope"));
        }
        // The dash is there also beside an empty prefix or name: the peers find each other's units so.
        let unit = format!("{}.scope", escape(&format!("{prefix}-{name}")));
        if unit.len() > 255 {
            return Err(format!("the unit name {unit:?} is longer than 255 characters"));
        }
        Ok(Self { slice, unit })
    }
}

fn check_slice(slice: &str) -> std::result::Result<(), String> {
    let Some(stem) = slice.strip_suffix(".slice") else {
        return Err(format!("the slice {slice:?} does not end in .slice"));
    };
    let valid = stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte));
    let empty_part = stem != "-" && stem.split('-').any(str::is_empty);
    match valid && !empty_part {
        true => Ok(()),
        false => Err(format!("{slice:?} is not a valid slice name")),
    }
}

/// Where a slice is: each dash is a level (`a-b.slice` is in `a.slice`).
fn expand_slice(slice: &str) -> PathBuf {
    let stem = slice.trim_end_matches(".slice");
    if stem == "-" {
        return PathBuf::new();
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    ends.map(|end| format!("{}.slice", &stem[..end])).collect()
}

/// What a unit's name may not have (ids may: `+`), as systemd-escape(1) writes it. What is escaped already stays.
fn escape(name: &str) -> String {
    name.bytes().fold(String::new(), |mut text, byte| {
        match byte.is_ascii_alphanumeric() || b":-_.@\\".contains(&byte) {
            true => text.push(char::from(byte)),
            false => text.push_str(&format!("\\x{byte:02x}")),
        }
        text
    })
}

#[cfg(test)]
#[path = "systemd_tests.rs"]
mod tests;

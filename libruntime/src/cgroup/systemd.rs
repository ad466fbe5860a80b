//! The systemd driver: the container's cgroup belongs to a transient scope that systemd makes, so that the library and
//! systemd never work against each other. Everything inside the cgroup is done as without systemd.
//!
//! Starts and stops the unit and tells systemd the limits, so that a reload keeps them; `apply.rs`
//! then writes the exact values. Must not wait without bound. The wire is `dbus.rs`; properties are
//! those of systemd.resource-control(5) and org.freedesktop.systemd1(5).

use super::dbus::Value;
use super::files::has_host_root;
use super::hierarchy::{AT_PATH, Hierarchy, NewDirs, below, refuse_used};
use super::layout::{Layout, Mount};
use super::unit::{Unit, user_root};
use super::{Cgroup, properties, v1, v2};
use crate::error::{Diagnostic, Error, Result};
use oci_spec::runtime::LinuxResources;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

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
                "without root the systemd driver needs cgroup v2: systemd delegates nothing of v1 to users",
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
            // So that a container that was killed needs no `systemctl reset-failed`.
            ("CollectMode".to_owned(), "inactive-or-failed".into()),
        ];
        for name in properties::accounting(layout.is_v2()) {
            start.push(((*name).to_owned(), Value::Bool(true)));
        }
        if let Some(resources) = resources {
            start.extend(properties::limits(resources, layout.is_v2())?.into_iter().map(of_two));
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

    /// Starts the unit with its first process, unless it runs already.
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
            // systemd makes cgroups only in the hierarchies that it uses, and enables only the controllers that it
            // uses, which leaves out hugetlb, rdma and misc.
            let mut made = NewDirs::default();
            let create = if self.is_v2() { v2::create } else { v1::create };
            create(hierarchy, &mut made)?;
            made.keep();
        }
        Ok(true)
    }

    /// systemd makes a scope's cgroup; this only checks that no process is in it.
    pub(super) fn refuse_used_unit(&self) -> Result<()> {
        let mut existing = self.hierarchies.iter().filter(|hierarchy| hierarchy.dir.is_dir());
        existing.try_for_each(refuse_used)
    }
}

fn dir(mount: &Mount, inner: &Path) -> Result<PathBuf> {
    below(mount, inner)
}

/// A limit of one process is set later: until the stage has ended, it and its clone are two processes.
fn of_two((name, value): (String, Value)) -> (String, Value) {
    let is_one = name == "TasksMax" && value == Value::U64(1);
    (name, if is_one { Value::U64(2) } else { value })
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
        // The dash stays even beside an empty prefix or name, as in the names that the peers use.
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

/// Escapes characters that a unit's name may not have (an id may have `+`), as systemd-escape(1) does. What is already
/// escaped stays.
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

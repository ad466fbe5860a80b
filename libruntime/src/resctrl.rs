//! `linux.intelRdt`: cache and memory bandwidth by the resctrl filesystem
//! (Documentation/filesystems/resctrl.rst of the kernel).

use crate::error::{Error, Result};
use oci_spec::runtime::{LinuxIntelRdt, Spec};
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/resctrl";

/// Puts `pid` into the class of service that the configuration names, making it where it is
/// missing. Returns the directories that are ours to remove.
pub(crate) fn join(spec: &Spec, id: &str, pid: i32) -> Result<Option<PathBuf>> {
    let Some(rdt) = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref()) else {
        return Ok(None);
    };
    if !Path::new(ROOT).join("info").is_dir() {
        return Err(Error::unsupported("this host has no resctrl filesystem")
            .at("linux.intelRdt")
            .with_hint(format!("mount -t resctrl resctrl {ROOT}, on a processor with RDT")));
    }
    let named = rdt.clos_id().as_deref();
    let group = Path::new(ROOT).join(named.unwrap_or(id));
    let made = match fs::create_dir(&group) {
        Ok(()) => true,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
        Err(error) => {
            return Err(Error::io(format!("mkdir {}", group.display()), error).at("linux.intelRdt.closID"));
        }
    };
    let applied = write_schemata(rdt, &group)
        .and_then(|()| write(&group.join("tasks"), &pid.to_string(), "linux.intelRdt"));
    if let (Err(error), true) = (applied, made) {
        let _ = fs::remove_dir(&group);
        return Err(error);
    }
    // A class that was given by name belongs to whoever named it, unless we made it.
    Ok(made.then_some(group))
}

fn write_schemata(rdt: &LinuxIntelRdt, group: &Path) -> Result<()> {
    let file = group.join("schemata");
    let lines = [(rdt.l3_cache_schema(), "l3CacheSchema"), (rdt.mem_bw_schema(), "memBwSchema")];
    for (schema, name) in lines {
        if let Some(schema) = schema {
            write(&file, &format!("{schema}\n"), &format!("linux.intelRdt.{name}"))?;
        }
    }
    for (at, schema) in rdt.schemata().iter().flatten().enumerate() {
        write(&file, &format!("{schema}\n"), &format!("linux.intelRdt.schemata[{at}]"))?;
    }
    Ok(())
}

fn write(path: &Path, value: &str, place: &str) -> Result<()> {
    fs::write(path, value)
        .map_err(|error| Error::io(format!("write {}", path.display()), error).at(place.to_string()))
}

//! `linux.intelRdt`: cache and memory bandwidth by the resctrl filesystem
//! (Documentation/filesystems/resctrl.rst of the kernel).

use crate::error::{Error, Result};
use nix::errno::Errno;
use oci_spec::runtime::{LinuxIntelRdt, Spec};
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/resctrl";

/// Puts `pid` into the class of service that the configuration names, which is made if it does not exist. Returns the
/// directories to be removed with the container, the innermost first.
pub(crate) fn join(spec: &Spec, id: &str, pid: i32) -> Result<Vec<PathBuf>> {
    let Some(rdt) = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref()) else {
        return Ok(Vec::new());
    };
    if !Path::new(ROOT).join("info").is_dir() {
        return Err(Error::unsupported("this host has no resctrl filesystem")
            .at("linux.intelRdt")
            .with_hint(format!("mount -t resctrl resctrl {ROOT}, on a processor with RDT")));
    }
    let mut ours = Vec::new();
    let joined = join_class(rdt, Path::new(ROOT), id, pid, &mut ours);
    if joined.is_err() {
        remove(&ours);
    }
    joined.map(|()| ours)
}

/// Writes other schemata for the class that a container is in. The kernel accepts or refuses each line; if it refuses
/// one, the lines before that are restored.
pub(crate) fn update(spec: &Spec, id: &str, new: &LinuxIntelRdt) -> Result<()> {
    let Some(rdt) = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref()) else {
        return Err(Error::unsupported("the container has no class of cache and memory bandwidth")
            .at("linux.intelRdt")
            .with_hint("create it with linux.intelRdt; what runs cannot be moved to another class"));
    };
    rewrite(&Path::new(ROOT).join(rdt.clos_id().as_deref().unwrap_or(id)).join("schemata"), new)
}

fn rewrite(file: &Path, new: &LinuxIntelRdt) -> Result<()> {
    let failed = |error| Error::io(format!("open {}", file.display()), error).at("linux.intelRdt");
    let before = fs::read_to_string(file).map_err(failed)?;
    for (schema, place) in schemata(new) {
        write(file, &format!("{schema}\n"), &place).inspect_err(|_| {
            // The first error is the one to report.
            let _ =
                before.lines().map(str::trim_start).try_for_each(|line| fs::write(file, format!("{line}\n")));
        })?;
    }
    Ok(())
}

/// Best effort: a directory that is in use meanwhile stays.
pub(crate) fn remove(directories: &[PathBuf]) {
    for directory in directories {
        let _ = fs::remove_dir(directory);
    }
}

fn join_class(rdt: &LinuxIntelRdt, root: &Path, id: &str, pid: i32, ours: &mut Vec<PathBuf>) -> Result<()> {
    let (named, wanted) = (rdt.clos_id().as_deref(), schemata(rdt));
    let group = root.join(named.unwrap_or(id));
    // A class that is named without schemata must exist (config-linux.md, "IntelRdt").
    if named.is_some() && wanted.is_empty() && !group.is_dir() {
        return Err(Error::os(format!("open {}", group.display()), Errno::ENOENT)
            .at("linux.intelRdt.closID")
            .with_hint("make the class first, or give its schemata"));
    }
    match fs::create_dir(&group) {
        Ok(()) => ours.push(group.clone()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => {
            return Err(Error::io(format!("mkdir {}", group.display()), error).at("linux.intelRdt.closID"));
        }
    }
    for (schema, place) in &wanted {
        write(&group.join("schemata"), &format!("{schema}\n"), place)?;
    }
    write(&group.join("tasks"), &pid.to_string(), "linux.intelRdt")?;
    #[allow(deprecated)] // configurations of spec 1.2 and older
    let monitored = [rdt.enable_monitoring(), rdt.enable_cmt(), rdt.enable_mbm()].contains(&&Some(true));
    if monitored {
        let monitor = group.join("mon_groups").join(id);
        fs::create_dir(&monitor).map_err(|error| {
            Error::io(format!("mkdir {}", monitor.display()), error).at("linux.intelRdt.enableMonitoring")
        })?;
        ours.insert(0, monitor.clone());
        write(&monitor.join("tasks"), &pid.to_string(), "linux.intelRdt.enableMonitoring")?;
    }
    Ok(())
}

/// The lines of the schemata file that are asked for, each with its place.
fn schemata(rdt: &LinuxIntelRdt) -> Vec<(&String, String)> {
    let named = [(rdt.l3_cache_schema(), "l3CacheSchema"), (rdt.mem_bw_schema(), "memBwSchema")];
    let named = named.into_iter().filter_map(|(schema, name)| Some((schema.as_ref()?, name.to_string())));
    let listed = rdt.schemata().iter().flatten().enumerate();
    let all = named.chain(listed.map(|(at, schema)| (schema, format!("schemata[{at}]"))));
    all.map(|(schema, name)| (schema, format!("linux.intelRdt.{name}"))).collect()
}

fn write(path: &Path, value: &str, place: &str) -> Result<()> {
    fs::write(path, value)
        .map_err(|error| Error::io(format!("write {}", path.display()), error).at(place.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rdt(json: &str) -> LinuxIntelRdt {
        serde_json::from_str(json).unwrap()
    }

    /// A directory stands in for the filesystem: what would be written can be read back.
    fn root() -> PathBuf {
        let root = std::env::temp_dir().join(format!(
            "onggi-resctrl-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        root
    }

    #[test]
    fn a_class_gets_its_schemata_and_the_process() {
        let (root, mut ours) = (root(), Vec::new());
        join_class(&rdt(r#"{"closID":"gold","l3CacheSchema":"L3:0=f"}"#), &root, "c", 7, &mut ours).unwrap();
        assert_eq!(fs::read_to_string(root.join("gold/schemata")).unwrap(), "L3:0=f\n");
        assert_eq!(fs::read_to_string(root.join("gold/tasks")).unwrap(), "7");
        assert_eq!(ours, [root.join("gold")]);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_class_that_is_only_named_must_exist() {
        let (root, mut ours) = (root(), Vec::new());
        let error = join_class(&rdt(r#"{"closID":"gold"}"#), &root, "c", 7, &mut ours).unwrap_err();
        assert_eq!(error.config_path(), Some("linux.intelRdt.closID"));
        assert!(ours.is_empty() && !root.join("gold").exists());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn an_update_writes_what_it_names_and_needs_a_class() {
        let root = root();
        let file = root.join("schemata");
        fs::write(&file, "    L3:0=ff\n").unwrap();
        rewrite(&file, &rdt(r#"{"l3CacheSchema":"L3:0=3"}"#)).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "L3:0=3\n");
        let none = rewrite(&root.join("none"), &rdt(r#"{"memBwSchema":"MB:0=50"}"#)).unwrap_err();
        assert_eq!(none.errno(), Some(libc::ENOENT));
        let without: Spec = serde_json::from_str(r#"{"ociVersion":"1.0.0","linux":{}}"#).unwrap();
        let error = update(&without, "c", &rdt("{}")).unwrap_err();
        assert_eq!(error.config_path(), Some("linux.intelRdt"));
        fs::remove_dir_all(root).unwrap();
    }
}

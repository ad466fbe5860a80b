//! A container for a moment: creates it with an empty root and no program, examines and deletes it.
//!
//! It goes through all of `create`, so its errors are those that a user would get.

use super::report::{Check, told};
use crate::cgroup::Cgroup;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::runtime::Runtime;
use serde_json::json;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub(super) struct Trial {
    pub store: Check,
    pub container: Check,
    /// Its cgroup, as it was while the container existed.
    pub cgroup: Option<Group>,
}

pub(super) struct Group {
    pub cgroup: Cgroup,
    /// Names of files in its directories.
    pub files: Vec<String>,
    /// v2: what its `cgroup.controllers` lists.
    pub controllers: Vec<String>,
    pub pause: Result<()>,
    pub warnings: Vec<String>,
}

/// The directories that were made for it; dropping this removes them.
struct Scratch {
    bundle: PathBuf,
    /// The store, if it did not exist before.
    store: Option<PathBuf>,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.bundle);
        // It stays where it is in use meanwhile.
        let _ = self.store.as_ref().map(fs::remove_dir);
    }
}

pub(super) fn run(runtime: &Runtime) -> Trial {
    let store = runtime.root();
    let scratch = match scratch(store) {
        Ok(scratch) => scratch,
        Err(error) => {
            let fix = "set XDG_RUNTIME_DIR to a directory of this user (loginctl enable-linger gives \
                       /run/user/UID), or name one with --root";
            return Trial {
                store: Check::missing("state directory", told(&error), fix),
                container: Check::missing("container", "not tried", "a state directory comes first"),
                cgroup: None,
            };
        }
    };
    let found = Check::ok("state directory", format!("{} is writable", store.display()));
    let begin = Instant::now();
    match try_one(runtime, &scratch.bundle) {
        Ok(group) => Trial {
            store: found,
            container: Check::ok(
                "container",
                format!("one was created and deleted, in {} ms", begin.elapsed().as_millis()),
            ),
            cgroup: Some(group),
        },
        Err(error) => Trial {
            store: found,
            container: Check::missing("container", told(&error), fix(&error)),
            cgroup: None,
        },
    }
}

/// The fix, besides the hint that the error's text has already.
fn fix(error: &Error) -> String {
    error.hint().map_or("see what else is missing".into(), str::to_owned)
}

fn scratch(store: &Path) -> Result<Scratch> {
    let failed = |path: &Path| {
        let call = format!("mkdir {}", path.display());
        move |error| Error::io(call, error)
    };
    let mut private = fs::DirBuilder::new();
    private.mode(0o700);
    let is_new = !store.exists();
    private.recursive(true).create(store).map_err(failed(store))?;
    let bundle = store.join(format!(".check.{}", std::process::id()));
    let scratch = Scratch { bundle: bundle.clone(), store: is_new.then(|| store.to_owned()) };
    match private.recursive(false).create(&bundle) {
        // Left by an earlier process with the same pid.
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(&bundle)(error)),
        _ => {}
    }
    let rootfs = bundle.join("rootfs");
    fs::create_dir_all(&rootfs).map_err(failed(&rootfs))?;
    Ok(scratch)
}

fn try_one(runtime: &Runtime, bundle: &Path) -> Result<Group> {
    let id = format!("check-{}", std::process::id());
    let spec = serde_json::from_value(spec())
        .map_err(|error| Error::external(format!("the trial's configuration: {error}")))?;
    let container = runtime.container(id).bundle(bundle).spec(spec).create()?;
    let group = look_at(&container);
    container.delete_force()?;
    Ok(group)
}

fn look_at(container: &Container) -> Group {
    let dirs: Vec<PathBuf> = container.cgroup_paths().map(|(_, dir)| dir).collect();
    let entries = dirs.iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
    let files = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let listed = dirs.iter().find_map(|dir| fs::read_to_string(dir.join("cgroup.controllers")).ok());
    Group {
        cgroup: container.state.cgroup.clone(),
        files,
        controllers: listed.unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
        pause: container.pause().and_then(|()| container.resume()),
        warnings: container.warnings().iter().map(ToString::to_string).collect(),
    }
}

/// Every kind of namespace but time; without root in a user namespace with the caller's id alone.
fn spec() -> serde_json::Value {
    let mut kinds = vec!["pid", "ipc", "uts", "mount", "network", "cgroup"];
    let mut linux = json!({ "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"] });
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if !uid.is_root() {
        kinds.push("user");
        linux["uidMappings"] = json!([{ "containerID": 0, "hostID": uid.as_raw(), "size": 1 }]);
        linux["gidMappings"] = json!([{ "containerID": 0, "hostID": gid.as_raw(), "size": 1 }]);
    }
    linux["namespaces"] = kinds.iter().map(|kind| json!({ "type": kind })).collect();
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"] },
        ],
        "linux": linux,
    })
}

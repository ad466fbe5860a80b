//! The bundles that are measured: one busybox rootfs, and a Docker-like config.json for each contestant.
//!
//! The config is what Docker gives for `docker run` without options (`config.json` beside this file), with
//! a new network namespace and, unless it is refused, a cgroup namespace. Everything is below one temporary
//! directory that is removed at the end. `floor_plan.rs` reads the same config for floor.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

const CONFIG: &str = include_str!("config.json");

/// The temporary directory of one bench: `rootfs`, `bundles/NAME`, `state/NAME`.
pub struct Place {
    pub dir: PathBuf,
    /// A tmpfs is mounted on `state`.
    has_tmpfs: bool,
}

impl Place {
    pub fn new(name: &str) -> Result<Self, String> {
        let place = Self { dir: std::env::temp_dir().join(name), has_tmpfs: false };
        fs::create_dir(&place.dir).map_err(|e| format!("mkdir {}: {e}", place.dir.display()))?;
        place.rootfs()?;
        Ok(place)
    }

    /// Mounts a tmpfs for the state of every runtime, in the caller's own mount namespace. Runtimes keep their state in
    /// `/run`, which is a tmpfs on every host; on a disk's filesystem the files of the state would be a large part of what
    /// is measured.
    pub fn mount_state(&mut self) -> Result<(), String> {
        let state = self.state();
        let text = |what: &str, e: &dyn std::fmt::Display| format!("{what} {}: {e}", state.display());
        fs::create_dir(&state).map_err(|e| text("mkdir", &e))?;
        mount(Some("bench"), &state, Some("tmpfs"), MsFlags::empty(), Some("mode=0700"))
            .map_err(|e| text("mount tmpfs on", &e))?;
        self.has_tmpfs = true;
        Ok(())
    }

    /// Has a directory of state for each runtime.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub fn root(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// A static busybox, its applets as links, and every mount point, so that no contestant has to make one.
    fn rootfs(&self) -> Result<(), String> {
        let root = self.root();
        let text = |e: std::io::Error| format!("{}: {e}", root.display());
        for dir in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
            fs::create_dir_all(root.join(dir)).map_err(text)?;
        }
        for file in ["resolv.conf", "hostname", "hosts", "passwd", "group"] {
            fs::write(root.join("etc").join(file), "").map_err(text)?;
            fs::write(self.dir.join(file), "bench\n").map_err(text)?;
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").map_err(text)?;
        fs::write(root.join("etc/group"), "root:x:0:\n").map_err(text)?;
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        let busybox = busybox.ok_or("busybox is not installed: install a static one (busybox-static)")?;
        fs::copy(busybox, root.join("bin/busybox")).map_err(text)?;
        fs::set_permissions(root.join("bin/busybox"), fs::Permissions::from_mode(0o755)).map_err(text)?;
        for applet in ["true", "sleep", "sh"] {
            symlink("busybox", root.join("bin").join(applet)).map_err(text)?;
        }
        let tried = Command::new("chroot").arg(&root).arg("/bin/true").status();
        match tried {
            Ok(status) if status.success() => Ok(()),
            _ => Err(format!("{busybox} does not run by itself in a rootfs: a static one is needed")),
        }
    }

    /// Writes `bundles/NAME/config.json` and returns the bundle's directory.
    pub fn bundle(&self, name: &str, config: &Value) -> Result<PathBuf, String> {
        let dir = self.dir.join("bundles").join(name);
        fs::create_dir_all(&dir).map_err(|e| format!("mkdir {}: {e}", dir.display()))?;
        let path = dir.join("config.json");
        fs::write(&path, format!("{config:#}")).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(dir)
    }

    /// That of the plain bundle.
    pub fn config(&self, cgroup: &str, args: &[&str], cgroup_namespace: bool) -> Value {
        let mut config: Value = serde_json::from_str(CONFIG).expect("config.json is JSON");
        config["root"]["path"] = json!(self.root());
        config["process"]["args"] = json!(args);
        config["linux"]["cgroupsPath"] = json!(format!("/{cgroup}"));
        for mount in config["mounts"].as_array_mut().into_iter().flatten() {
            if mount["type"] == "bind" {
                mount["source"] = json!(self.dir.join(mount["source"].as_str().unwrap_or_default()));
            }
        }
        if cgroup_namespace && let Some(list) = config["linux"]["namespaces"].as_array_mut() {
            list.push(json!({"type": "cgroup"}));
        }
        config
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.has_tmpfs {
            // Without it the directory stays, and the next line says so.
            let _ = umount2(&self.state(), MntFlags::MNT_DETACH);
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("benches: {}: {error}", self.dir.display());
        }
    }
}

//! Bundles: the root file system that every container gets (busybox as hard links, and the probe), and
//! a configuration to start from with ways to change it. It must not know any runtime; test.rs starts
//! containers from what is made here.

use crate::host::Host;
use serde_json::{Map, Value, json};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

static PROBE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe"));

const APPLETS: &[&str] = &[
    "sh", "ash", "cat", "chmod", "chown", "cp", "cut", "date", "dd", "df", "echo", "env", "false", "grep",
    "head", "hostname", "id", "ionice", "kill", "ln", "ls", "mkdir", "mknod", "mkfifo", "mount", "mv", "nc",
    "od", "ps", "pwd", "readlink", "rm", "rmdir", "sed", "seq", "sleep", "sort", "stat", "stty", "sync",
    "tail", "tee", "test", "touch", "tr", "true", "tty", "umount", "uname", "unshare", "wc", "wget",
];

/// Where busybox is on this host.
pub fn busybox() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).map(|dir| dir.join("busybox")).collect();
    places.push("/bin/busybox".into());
    places.into_iter().find(|place| place.is_file())
}

/// Makes the root file system that all others are linked from.
pub fn make_base(dir: &Path) -> io::Result<()> {
    for name in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr", "usr/bin", "var", "home"] {
        make_dir(&dir.join(name))?;
    }
    fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    let source = busybox().ok_or_else(|| io::Error::other("no busybox in PATH; install busybox-static"))?;
    let program = dir.join("bin/busybox");
    fs::copy(source, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    // Hard links: a mask on /bin/ls must not hide /bin/cat.
    for applet in APPLETS {
        fs::hard_link(&program, dir.join("bin").join(applet))?;
    }
    let mut probe = fs::File::create(dir.join("probe"))?;
    probe.write_all(PROBE)?;
    probe.set_permissions(fs::Permissions::from_mode(0o755))?;
    Ok(())
}

const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\nodd:x:1500:1600::/odd:\n";
const GROUP: &str = "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n";

/// A root file system of its own for one container: directories and /etc are made, programs are links.
pub fn make_rootfs(base: &Path, dir: &Path) -> io::Result<()> {
    make_dir(dir)?;
    copy_links(base, dir)?;
    fs::write(dir.join("etc/passwd"), PASSWD)?;
    fs::write(dir.join("etc/group"), GROUP)
}

fn copy_links(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            make_dir(&target)?;
            fs::set_permissions(&target, entry.metadata()?.permissions())?;
            copy_links(&entry.path(), &target)?;
        } else {
            fs::hard_link(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// A directory with mode 0755 whatever the umask, and its parents.
pub fn make_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Replaces whatever is at `path` by a symbolic link.
pub fn link(path: &Path, target: &str) -> io::Result<()> {
    if path.is_dir() && !path.is_symlink() {
        fs::remove_dir_all(path)?;
    } else if path.symlink_metadata().is_ok() {
        fs::remove_file(path)?;
    }
    symlink(target, path)
}

pub const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

pub const MASKED: &[&str] = &["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"];
pub const READONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A `config.json` that can be changed by paths such as `process.user.uid` or `mounts.0.options`.
#[derive(Clone)]
pub struct Config(pub Value);

impl Config {
    /// What an engine would write for a simple container.
    pub fn base(host: &Host) -> Self {
        let devpts: &[&str] = if host.root {
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
        } else {
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
        };
        let mut config = Self(json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": { "uid": 0, "gid": 0 },
                "args": ["/bin/true"],
                "env": ["PATH=/usr/bin:/bin", "TERM=xterm"],
                "cwd": "/",
                "capabilities": {
                    "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES
                },
                "noNewPrivileges": true
            },
            "root": { "path": "rootfs", "readonly": false },
            "hostname": "conformance",
            "mounts": [],
            "linux": {
                "namespaces": [
                    { "type": "pid" }, { "type": "network" }, { "type": "ipc" },
                    { "type": "uts" }, { "type": "mount" }
                ]
            }
        }));
        config.mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]);
        config.mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]);
        config.mount("/dev/pts", "devpts", "devpts", devpts);
        config.mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=8192k"]);
        config.mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]);
        config.mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]);
        if host.root {
            config.set("linux.resources", json!({ "devices": [{ "allow": false, "access": "rwm" }] }));
        } else {
            config.namespace("user");
            let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
            config.set("linux.uidMappings", json!([{ "containerID": 0, "hostID": uid, "size": 1 }]));
            config.set("linux.gidMappings", json!([{ "containerID": 0, "hostID": gid, "size": 1 }]));
        }
        config
    }

    pub fn args(&mut self, args: &[&str]) -> &mut Self {
        self.set("process.args", json!(args))
    }

    pub fn shell(&mut self, script: &str) -> &mut Self {
        self.args(&["/bin/sh", "-c", script])
    }

    /// Sets a member, making the objects on the way to it.
    pub fn set(&mut self, path: &str, value: impl Into<Value>) -> &mut Self {
        *self.at(path) = value.into();
        self
    }

    /// Appends to a list, making it where there is none.
    pub fn push(&mut self, path: &str, value: impl Into<Value>) -> &mut Self {
        let place = self.at(path);
        if !place.is_array() {
            *place = json!([]);
        }
        if let Some(list) = place.as_array_mut() {
            list.push(value.into());
        }
        self
    }

    pub fn remove(&mut self, path: &str) -> &mut Self {
        let (parent, last) = path.rsplit_once('.').unwrap_or(("", path));
        match self.at(parent) {
            Value::Object(members) => drop(members.remove(last)),
            Value::Array(items) => drop(last.parse().map(|n: usize| items.remove(n))),
            _ => {}
        }
        self
    }

    fn at(&mut self, path: &str) -> &mut Value {
        let mut place = &mut self.0;
        for part in path.split('.').filter(|part| !part.is_empty()) {
            place = match part.parse::<usize>() {
                Ok(index) if place.is_array() => &mut place[index],
                _ => {
                    if !place.is_object() {
                        *place = Value::Object(Map::new());
                    }
                    &mut place[part]
                }
            };
        }
        place
    }

    pub fn mount(&mut self, destination: &str, kind: &str, source: &str, options: &[&str]) -> &mut Self {
        let mount = json!({ "destination": destination, "type": kind, "source": source, "options": options });
        self.push("mounts", mount)
    }

    pub fn bind(&mut self, source: &Path, destination: &str, options: &[&str]) -> &mut Self {
        let mut all = vec!["bind"];
        all.extend_from_slice(options);
        self.mount(destination, "bind", &source.display().to_string(), &all)
    }

    pub fn no_mount(&mut self, destination: &str) -> &mut Self {
        if let Some(list) = self.at("mounts").as_array_mut() {
            list.retain(|mount| mount["destination"] != destination);
        }
        self
    }

    /// Adds a new namespace.
    pub fn namespace(&mut self, kind: &str) -> &mut Self {
        self.push("linux.namespaces", json!({ "type": kind }))
    }

    pub fn no_namespace(&mut self, kind: &str) -> &mut Self {
        if let Some(list) = self.at("linux.namespaces").as_array_mut() {
            list.retain(|namespace| namespace["type"] != kind);
        }
        self
    }

    /// Replaces a namespace by one that is there already.
    pub fn join(&mut self, kind: &str, path: &str) -> &mut Self {
        self.no_namespace(kind);
        self.push("linux.namespaces", json!({ "type": kind, "path": path }))
    }

    /// A new user namespace with maps of `size` ids that start at `host`.
    pub fn user_namespace(&mut self, host: u32, size: u32) -> &mut Self {
        self.namespace("user");
        self.set("linux.uidMappings", json!([{ "containerID": 0, "hostID": host, "size": size }]));
        self.set("linux.gidMappings", json!([{ "containerID": 0, "hostID": host, "size": size }]))
    }

    pub fn capabilities(&mut self, names: &[&str]) -> &mut Self {
        for set in ["bounding", "effective", "permitted"] {
            self.set(&format!("process.capabilities.{set}"), json!(names));
        }
        self
    }
}

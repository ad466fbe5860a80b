//! Bundles with a busybox in them, in a directory that goes with the test.

use libruntime::{Container, ExitStatus, NewContainer, NewProcess, Runtime, Stdio};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

static TURN: Mutex<()> = Mutex::new(());

/// The turn of the test that holds it; `None` where it has to be skipped.
pub fn turn() -> Option<MutexGuard<'static, ()>> {
    assert!(nix::unistd::geteuid().is_root(), "needs root");
    if busybox().is_none() {
        eprintln!("skipped: needs a static busybox in PATH");
        return None;
    }
    // A test that failed has told so already.
    Some(TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

fn busybox() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|directory| directory.join("busybox"));
    found.into_iter().find(|file| file.is_file())
}

/// A bundle, and a store beside it.
pub struct Bundle {
    pub directory: PathBuf,
    pub store: PathBuf,
}

/// Ids of this process's containers begin so, which tells their cgroups from others'.
pub fn prefix() -> String {
    format!("real-{}-", std::process::id())
}

static NEXT: AtomicU32 = AtomicU32::new(0);

pub fn new_id() -> String {
    format!("{}{}", prefix(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A shell command in namespaces of its own, with the usual mounts.
pub fn config(command: &str) -> Value {
    let all = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID"];
    json!({
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"],
            "args": ["/bin/busybox", "sh", "-c", command],
            "capabilities": {"bounding": all, "effective": all, "permitted": all}
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}
        ],
        "linux": {
            "namespaces": [
                {"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}, {"type": "cgroup"}
            ],
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "maskedPaths": ["/proc/kcore", "/proc/keys"],
            "readonlyPaths": ["/proc/sys"]
        }
    })
}

impl Bundle {
    pub fn new(config: &Value) -> Self {
        let name = format!("libruntime-{}", new_id());
        let directory = std::env::temp_dir().join(name);
        let bin = directory.join("rootfs/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy(busybox().unwrap(), bin.join("busybox")).unwrap();
        let store = directory.join("store");
        let bundle = Self { directory, store };
        bundle.write(config);
        bundle
    }

    pub fn write(&self, config: &Value) {
        fs::write(self.directory.join("config.json"), config.to_string()).unwrap();
    }

    pub fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    pub fn runtime(&self) -> Runtime {
        Runtime::new(&self.store)
    }

    pub fn load(&self, id: &str) -> libruntime::Result<Container> {
        self.runtime().load(id)
    }

    /// With standard descriptors that are nobody's.
    pub fn builder(&self, id: &str) -> NewContainer {
        quiet(self.runtime().container(id)).bundle(&self.directory)
    }

    pub fn create(&self, id: &str) -> libruntime::Result<Container> {
        self.builder(id).create()
    }

    /// Runs it to its end: how it ended, and what it wrote.
    pub fn run(&self) -> (ExitStatus, String) {
        let path = self.directory.join("output");
        let output = File::create(&path).unwrap();
        let container =
            self.builder(&new_id()).stdout(output.try_clone().unwrap().into()).stderr(output.into());
        let container = container.create().unwrap();
        container.start().unwrap();
        let exit = container.wait().unwrap();
        container.delete().unwrap();
        (exit, String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned())
    }
}

pub fn quiet(builder: NewContainer) -> NewContainer {
    builder.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

/// A process in a container, with standard descriptors that are nobody's.
pub fn exec(container: &Container, args: &[&str]) -> NewProcess {
    let builder = container.exec(args.iter().copied());
    builder.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

pub fn null() -> File {
    File::options().read(true).write(true).open(Path::new("/dev/null")).unwrap()
}

impl Drop for Bundle {
    fn drop(&mut self) {
        for (id, _) in self.runtime().containers().into_iter().flatten() {
            let _ = self.runtime().load_damaged(&id).map(|container| container.delete_force());
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

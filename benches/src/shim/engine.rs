//! A containerd of the bench, and its client `ctr`. The bench has mount and network namespaces of its own; `/run` and all
//! files of containerd are on a tmpfs there.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{SIGKILL, SIGTERM, Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::pod::{Ground, Kind};
use super::{OURS, in_path};

pub const IMAGE: &str = "localhost/bench:latest";
/// The cgroups of the daemon with all that it starts, and of this process with the clients.
const DAEMON: &str = "engine";
const CLIENTS: &str = "client";
/// For the daemon to answer, and to end.
const LIMIT: Duration = Duration::from_secs(30);

pub struct Engine<'a> {
    ground: &'a Ground<'a>,
    pub dir: PathBuf,
    daemon: Child,
}

/// The name by which containerd knows a shim.
pub fn runtime(kind: &Kind) -> &'static str {
    if kind.runtime.is_none() { "io.containerd.onggi.v2" } else { "io.containerd.runc.v2" }
}

impl<'a> Engine<'a> {
    pub fn start(ground: &'a Ground<'a>, kinds: &[Kind]) -> Result<Self, String> {
        let dir = ground.place.dir.join("engine");
        fs::create_dir(&dir).map_err(|e| format!("mkdir {}: {e}", dir.display()))?;
        for place in [dir.as_path(), Path::new("/run")] {
            mount(Some("bench"), place, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
                .map_err(|errno| format!("mount tmpfs on {}: {errno}", place.display()))?;
        }
        let path = programs(&dir, kinds)?;
        let mut command = Command::new("containerd");
        command.arg("--config").arg(configuration(&dir)?).env("PATH", path).stdin(Stdio::null());
        let log = File::create(dir.join("log")).and_then(|log| Ok((log.try_clone()?, log)));
        let (out, err) = log.map_err(|e| format!("{}: {e}", dir.display()))?;
        [DAEMON, CLIENTS].iter().try_for_each(|name| ground.account.make(name))?;
        let daemon = ground.account.spawn(DAEMON, command.stdout(out).stderr(err));
        let daemon = daemon.map_err(|e| format!("containerd: {e}"))?;
        let engine = Self { ground, dir, daemon };
        ground.account.join(CLIENTS).map_err(|e| format!("the cgroup of clients: {e}"))?;
        engine.await_answer()?;
        engine.import()?;
        Ok(engine)
    }

    /// What a call of `ctr` that succeeds prints.
    pub fn ctr(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.dir.join("sock")).args(["--namespace", self.ground.name]);
        let output = command.args(args).stdin(Stdio::null()).output().map_err(|e| format!("ctr: {e}"))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(format!("ctr {}: {}, {}", args.join(" "), output.status, said.trim()))
            }
        }
    }

    /// Milliseconds of processor time: of the daemon with all that it started, containers too, and of the clients.
    pub fn used(&self) -> Result<[f64; 2], String> {
        // containerd's own namespace is the directory of the bench, and has the cgroups of containers.
        let clients = self.ground.account.used(CLIENTS)?;
        Ok([self.ground.account.used("")? - clients, clients])
    }

    fn await_answer(&self) -> Result<(), String> {
        let end = Instant::now() + LIMIT;
        loop {
            match self.ctr(&["version"]) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > end => {
                    let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                    return Err(format!("containerd does not answer: {error}; {log}"));
                }
                Err(_) => sleep(Duration::from_millis(100)),
            }
        }
    }

    /// The root file system of the bench as an image.
    fn import(&self) -> Result<(), String> {
        let work = self.dir.join("image");
        let failed = |e: std::io::Error| format!("{}: {e}", work.display());
        fs::create_dir(&work).map_err(failed)?;
        let layer = work.join("layer.tar");
        pack(&self.ground.place.root(), &layer)?;
        let sum = output_of(Command::new("sha256sum").arg(&layer))?;
        let sum = sum.split_whitespace().next().unwrap_or_default().to_owned();
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = json!({
            "architecture": architecture, "os": "linux", "config": { "Cmd": ["true"] },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{sum}")] },
        });
        fs::write(work.join("config.json"), config.to_string()).map_err(failed)?;
        // As `docker save` writes it.
        let manifest = json!([{ "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"] }]);
        fs::write(work.join("manifest.json"), manifest.to_string()).map_err(failed)?;
        let archive = self.dir.join("image.tar");
        pack(&work, &archive)?;
        // Where containerd could do it itself, 2.1 knows no snapshotter for it.
        let has_local =
            output_of(Command::new("ctr").args(["image", "import", "--help"]))?.contains("--local");
        let local: &[&str] = if has_local { &["--local"] } else { &[] };
        let archive = archive.display().to_string();
        self.ctr(&[&["image", "import", "--snapshotter", "overlayfs"], local, &[&archive]].concat()).map(drop)
    }

    /// What there is of containers that were removed.
    pub fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for what in ["task", "container"] {
            let list = self.ctr(&[what, "ls", "-q"]).unwrap_or_else(|error| error);
            left.extend(list.lines().map(|line| format!("the {what} {line}")));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let is_root = |line: &&str| line.contains(&format!("{}/", self.dir.display()));
        left.extend(mounts.lines().filter(is_root).map(|line| format!("the mount {line}")));
        let of_stores = ["runc", "onggi"].map(|store| Path::new("/run/containerd").join(store));
        let stores = of_stores.map(|store| store.join(self.ground.name));
        left.extend(stores.iter().flat_map(|store| names(store)).map(|path| format!("the state {path}")));
        left.extend(names(Path::new("/run/containerd/s")).map(|path| format!("the socket {path}")));
        for hierarchy in names(Path::new("/sys/fs/cgroup")).chain(["/sys/fs/cgroup".into()]) {
            let groups = names(&Path::new(&hierarchy).join(self.ground.name));
            let groups = groups.map(PathBuf::from).filter(|path| path.is_dir());
            let of_containers = groups.filter(|path| !path.ends_with(DAEMON) && !path.ends_with(CLIENTS));
            left.extend(of_containers.map(|path| format!("the cgroup {}", path.display())));
        }
        let shims = self.ground.account.processes(DAEMON);
        let shims = shims.into_iter().filter(|pid| *pid != self.daemon.id());
        left.extend(shims.map(|pid| format!("the process {pid}")));
        left
    }

    fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.daemon.id() as i32), signal);
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        self.signal(SIGTERM);
        let end = Instant::now() + LIMIT;
        while matches!(self.daemon.try_wait(), Ok(None)) {
            if Instant::now() > end {
                self.signal(SIGKILL);
            }
            sleep(Duration::from_millis(20));
        }
        self.ground.account.leave();
        // With all mounts below.
        for place in [self.dir.as_path(), Path::new("/run")] {
            let _ = umount2(place, MntFlags::MNT_DETACH);
        }
    }
}

fn names(dir: &Path) -> impl Iterator<Item = String> + use<> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path().display().to_string())
}

/// A directory with the shims and the runtime under the names that containerd and Go's shim look for; in front of PATH.
fn programs(dir: &Path, kinds: &[Kind]) -> Result<String, String> {
    let bin = dir.join("bin");
    let failed = |e: std::io::Error| format!("{}: {e}", bin.display());
    fs::create_dir(&bin).map_err(failed)?;
    for kind in kinds {
        match &kind.runtime {
            Some(runtime) => symlink(runtime, bin.join("runc")).map_err(failed)?,
            None => symlink(&kind.shim, bin.join(OURS)).map_err(failed)?,
        }
    }
    Ok(format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default()))
}

fn configuration(dir: &Path) -> Result<PathBuf, String> {
    if in_path("containerd").is_none() || in_path("ctr").is_none() {
        return Err("containerd and ctr are not installed".to_owned());
    }
    let (plain, path) = (dir.display(), dir.join("config.toml"));
    let text = format!(
        "version = 2\nroot = \"{plain}/root\"\nstate = \"{plain}/state\"\noom_score = 0\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\
         [grpc]\naddress = \"{plain}/sock\"\n"
    );
    fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

fn pack(from: &Path, to: &Path) -> Result<(), String> {
    output_of(Command::new("tar").arg("-C").arg(from).arg("-cf").arg(to).arg(".")).map(drop)
}

fn output_of(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{name}: {e}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

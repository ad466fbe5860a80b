//! One shim, called as containerd calls it: `start` by its program, everything else by ttrpc, with fifos that this
//! process reads, a root file system to mount and somebody who takes the events.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use containerd_shim_onggi::client::{self, Client};
use containerd_shim_onggi::wire::{
    Any, ConnectAnswer, CreateTask, ExecTask, Kill, Mount, ProcessOf, RuncOptions, WaitAnswer,
};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{SIGKILL, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use prost::Message;
use serde_json::{Value, json};

use super::account::Account;
use crate::bundle::Place;

const LIMIT: Duration = Duration::from_secs(20);
/// No containerd listens there.
const ADDRESS: &str = "/run/containerd/containerd.sock";
const KILLED: u32 = 128 + SIGKILL as u32;

/// A shim, and the runtime that it executes, if any.
pub struct Kind {
    pub name: String,
    pub shim: PathBuf,
    pub runtime: Option<PathBuf>,
    pub version: String,
}

/// What all pods have in common.
pub struct Ground<'a> {
    pub place: &'a Place,
    /// The name of the bench: its cgroup, and containerd's namespace.
    pub name: &'a str,
    pub account: &'a Account,
    events: PathBuf,
    /// As containerd gives it: that of the container with other arguments.
    process: String,
}

impl<'a> Ground<'a> {
    pub fn new(place: &'a Place, name: &'a str, account: &'a Account) -> Result<Self, String> {
        let events = place.dir.join("events");
        let listener = UnixListener::bind(&events).map_err(|e| format!("{}: {e}", events.display()))?;
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                // It ends with its shim.
                thread::spawn(|| client::serve(connection, drop));
            }
        });
        let process = place.config(name, &["/bin/true"], true)["process"].to_string();
        Ok(Self { place, name, account, events, process })
    }
}

pub struct Pod<'a> {
    ground: &'a Ground<'a>,
    kind: &'a Kind,
    /// The id of the first container.
    group: String,
    socket: PathBuf,
    service: &'static str,
    /// The fifo of the shim's log: it waits for a reader.
    _log: File,
    is_over: bool,
}

impl<'a> Pod<'a> {
    /// What `start` needs. containerd makes it as well.
    pub fn prepare(ground: &Ground, kind: &Kind, group: &str, id: &str) -> Result<PathBuf, String> {
        let cgroup = format!("{}/{}/{id}", ground.name, kind.name);
        let mut config = ground.place.config(&cgroup, &["sleep", "100000"], true);
        config["root"] = json!({ "path": "rootfs" });
        config["annotations"] = json!({ "io.containerd.runc.v2.group": group });
        let bundle = ground.place.bundle(&format!("{}/{id}", kind.name), &config)?;
        let failed = |e: std::io::Error| format!("{}: {e}", bundle.display());
        fs::create_dir(bundle.join("rootfs")).map_err(failed)?;
        for name in ["log", "out", "err"] {
            mkfifo(&bundle.join(name), Mode::S_IRWXU).map_err(|errno| failed(errno.into()))?;
        }
        Ok(bundle)
    }

    /// Executes the shim for the first container, which is prepared.
    pub fn start(ground: &'a Ground<'a>, kind: &'a Kind, group: &str) -> Result<Self, String> {
        let bundle = bundle_of(ground, kind, group);
        let log = open_fifo(&bundle.join("log"))?;
        let (socket, service) = start(ground, kind, group)?;
        Ok(Self { ground, kind, group: group.into(), socket, service, _log: log, is_over: false })
    }

    /// One more container, which is prepared. containerd executes the shim for it, to be told of the first one's.
    pub fn add(&self, id: &str) -> Result<(), String> {
        let (socket, _) = start(self.ground, self.kind, id)?;
        if socket == self.socket {
            Ok(())
        } else {
            Err(format!("{}: {id} has a shim of its own", self.kind.name))
        }
    }

    /// A connection: its calls come one after the other.
    pub fn connect(&self) -> Result<Calls<'_>, String> {
        let client =
            Client::connect(&self.socket, LIMIT).map_err(|e| format!("{}: {e}", self.socket.display()))?;
        Ok(Calls { pod: self, client })
    }

    /// Of the shim. The call wakes one that is idle.
    pub fn pid(&self) -> Result<u32, String> {
        let answer = self.connect()?.of("Connect", &self.group, "")?;
        Ok(ConnectAnswer::decode(&*answer).map_err(|e| format!("Connect: {e}"))?.shim_pid)
    }

    /// Ends the shim of this pid, which has no containers any more.
    pub fn shut_down(&mut self, pid: u32) -> Result<(), String> {
        // The answer may be lost with the shim.
        let _ = self.connect()?.of("Shutdown", &self.group, "");
        let end = Instant::now() + LIMIT;
        while is_alive(pid) {
            if Instant::now() > end {
                return Err(format!("{}: shim {pid} does not end", self.kind.name));
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.is_over = true;
        let _ = fs::remove_file(&self.socket);
        Ok(())
    }
}

/// After a failure: what it leaves in cgroups is the bench's to end.
impl Drop for Pod<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if let Ok(pid) = self.pid()
            && pid > 1
        {
            let _ = kill(Pid::from_raw(pid as i32), SIGKILL);
        }
        let bundles = bundle_of(self.ground, self.kind, &self.group);
        let _ = umount2(&bundles.join("rootfs"), MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&self.socket);
    }
}

/// A zombie is at its end: whoever adopted it may be slow to reap it.
fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

pub fn bundle_of(ground: &Ground, kind: &Kind, id: &str) -> PathBuf {
    ground.place.dir.join("bundles").join(&kind.name).join(id)
}

/// For reading and writing: opening does not wait, and nobody gets SIGPIPE.
fn open_fifo(path: &Path) -> Result<File, String> {
    let fifo = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path);
    fifo.map_err(|e| format!("{}: {e}", path.display()))
}

fn options(ground: &Ground, kind: &Kind) -> Any {
    let root = ground.place.dir.join("state").join(&kind.name).display().to_string();
    let binary_name = kind.runtime.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    Any::of("containerd.runc.v1.Options", &RuncOptions { root, binary_name, ..RuncOptions::default() })
}

/// The shim's socket, and the version of its service.
fn start(ground: &Ground, kind: &Kind, id: &str) -> Result<(PathBuf, &'static str), String> {
    let mut command = Command::new(&kind.shim);
    command.args([
        "-namespace",
        ground.name,
        "-address",
        ADDRESS,
        "-publish-binary",
        "/nowhere",
        "-id",
        id,
        "start",
    ]);
    command.env("TTRPC_ADDRESS", &ground.events).current_dir(bundle_of(ground, kind, id));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let failed = |e: std::io::Error| format!("{}: {e}", kind.shim.display());
    let mut child = ground.account.spawn(&kind.name, &mut command).map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may be one that reads nothing.
        let _ = stdin.write_all(&options(ground, kind).encode_to_vec());
    }
    let output = child.wait_with_output().map_err(failed)?;
    let said = String::from_utf8_lossy(&output.stdout);
    let address = address(said.trim());
    match address {
        Some(found) if output.status.success() => Ok(found),
        _ => {
            Err(format!("{} start: {said:?}, {}", kind.name, String::from_utf8_lossy(&output.stderr).trim()))
        }
    }
}

/// As containerd up to 2.2 reads it.
fn address(said: &str) -> Option<(PathBuf, &'static str)> {
    let bootstrap: Value = serde_json::from_str(said).unwrap_or_default();
    let service = match bootstrap["version"].as_u64() {
        Some(3) => "containerd.task.v3.Task",
        _ => "containerd.task.v2.Task",
    };
    let socket = bootstrap["address"].as_str().unwrap_or(said).strip_prefix("unix://")?;
    Some((socket.into(), service))
}

pub struct Calls<'a> {
    pod: &'a Pod<'a>,
    client: Client,
}

impl Calls<'_> {
    fn call(&mut self, method: &str, payload: &impl Message) -> Result<Vec<u8>, String> {
        let answer = self.client.call(self.pod.service, method, payload);
        let name = &self.pod.kind.name;
        match answer.map_err(|e| format!("{name} {method}: {e}"))? {
            Ok(answer) => Ok(answer),
            Err(status) => Err(format!("{name} {method}: {}", status.message)),
        }
    }

    pub fn of(&mut self, method: &str, id: &str, exec: &str) -> Result<Vec<u8>, String> {
        self.call(method, &ProcessOf { id: id.into(), exec_id: exec.into() })
    }

    fn wait(&mut self, id: &str, exec: &str, wanted: u32) -> Result<(), String> {
        let answer = self.of("Wait", id, exec)?;
        let status = WaitAnswer::decode(&*answer).map_err(|e| format!("Wait: {e}"))?.exit_status;
        if status == wanted {
            Ok(())
        } else {
            Err(format!("{id} {exec}: exit status {status}, not {wanted}"))
        }
    }

    /// Creates and starts a container, which is prepared. Returns the ends of its fifos, to be kept.
    pub fn run(&mut self, id: &str) -> Result<[File; 2], String> {
        let (ground, kind) = (self.pod.ground, self.pod.kind);
        let bundle = bundle_of(ground, kind, id);
        let [out, err] = ["out", "err"].map(|name| bundle.join(name));
        let fifos = [open_fifo(&out)?, open_fifo(&err)?];
        let image = Mount {
            r#type: "bind".into(),
            source: ground.place.root().display().to_string(),
            target: String::new(),
            options: vec!["rbind".into(), "ro".into()],
        };
        let task = CreateTask {
            id: id.into(),
            bundle: bundle.display().to_string(),
            rootfs: vec![image],
            stdout: out.display().to_string(),
            stderr: err.display().to_string(),
            options: Some(options(ground, kind)),
            ..CreateTask::default()
        };
        self.call("Create", &task)?;
        self.of("Start", id, "")?;
        Ok(fifos)
    }

    /// Runs `/bin/true` to its end, and deletes it; with the container's fifos.
    pub fn exec(&mut self, id: &str, exec: &str) -> Result<(), String> {
        let bundle = bundle_of(self.pod.ground, self.pod.kind, id);
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
            value: self.pod.ground.process.clone().into(),
        };
        let task = ExecTask {
            id: id.into(),
            exec_id: exec.into(),
            stdout: bundle.join("out").display().to_string(),
            stderr: bundle.join("err").display().to_string(),
            spec: Some(spec),
            ..ExecTask::default()
        };
        self.call("Exec", &task)?;
        self.of("Start", id, exec)?;
        self.wait(id, exec, 0)?;
        self.of("Delete", id, exec).map(drop)
    }

    pub fn remove(&mut self, id: &str) -> Result<(), String> {
        let (id_of, exec_id) = (id.to_owned(), String::new());
        self.call("Kill", &Kill { id: id_of, exec_id, signal: SIGKILL as u32, all: false })?;
        self.wait(id, "", KILLED)?;
        self.of("Delete", id, "").map(drop)
    }
}

/// What is there now; for a fifo whose writer must not be held up.
pub fn drain(fifos: &mut [File]) {
    let mut buffer = [0; 4096];
    for fifo in fifos {
        while fifo.read(&mut buffer).is_ok_and(|length| length > 0) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_address_are_read() {
        let (socket, service) = address("unix:///run/containerd/s/a").expect("an address");
        assert_eq!((socket.to_str(), service), (Some("/run/containerd/s/a"), "containerd.task.v2.Task"));
        let json = r#"{"version":3,"address":"unix:///s","protocol":"ttrpc"}"#;
        assert_eq!(address(json), Some((PathBuf::from("/s"), "containerd.task.v3.Task")));
        assert_eq!(address("containerd-shim: an error"), None);
    }
}

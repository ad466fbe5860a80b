//! Plays containerd: starts a shim, calls it by ttrpc, and takes its events.

use prost::Message;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_containerd-shim-onggi-v2");
pub const TASK: &str = "containerd.task.v3.Task";

#[derive(Clone, PartialEq, Message)]
pub struct Request {
    #[prost(string, tag = "1")]
    pub service: String,
    #[prost(string, tag = "2")]
    pub method: String,
    #[prost(bytes = "vec", tag = "3")]
    pub payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    pub timeout_nano: i64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Status {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Response {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
}

/// Texts and numbers by field; enough for every request of the Task service.
#[derive(Clone, Default)]
pub struct Fields(pub Vec<u8>);

impl Fields {
    pub fn text(self, tag: u32, value: &str) -> Self {
        self.bytes(tag, value.as_bytes())
    }

    pub fn bytes(mut self, tag: u32, value: &[u8]) -> Self {
        prost::encoding::bytes::encode(tag, &value.to_vec(), &mut self.0);
        self
    }

    pub fn number(mut self, tag: u32, value: u64) -> Self {
        prost::encoding::uint64::encode(tag, &value, &mut self.0);
        self
    }
}

/// The fields of a message: numbers, and the lengths' bytes.
pub fn fields(mut bytes: &[u8]) -> BTreeMap<u32, (u64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    while !bytes.is_empty() {
        let (tag, kind) = prost::encoding::decode_key(&mut bytes).unwrap();
        let number = prost::encoding::decode_varint(&mut bytes).unwrap();
        let mut value = (number, Vec::new());
        if kind == prost::encoding::WireType::LengthDelimited {
            let (text, rest) = bytes.split_at(number as usize);
            value = (0, text.to_vec());
            bytes = rest;
        }
        found.insert(tag, value);
    }
    found
}

pub fn text(fields: &BTreeMap<u32, (u64, Vec<u8>)>, tag: u32) -> String {
    fields.get(&tag).map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}

pub fn number(fields: &BTreeMap<u32, (u64, Vec<u8>)>, tag: u32) -> u64 {
    fields.get(&tag).map_or(0, |(number, _)| *number)
}

pub fn send(socket: &mut UnixStream, stream: u32, kind: u8, message: &[u8]) {
    let mut frame = (message.len() as u32).to_be_bytes().to_vec();
    frame.extend(stream.to_be_bytes());
    frame.extend([kind, 0]);
    frame.extend(message);
    socket.write_all(&frame).unwrap();
}

pub fn receive(socket: &mut UnixStream) -> std::io::Result<(u32, Vec<u8>)> {
    let mut head = [0; 10];
    socket.read_exact(&mut head)?;
    let mut message = vec![0; u32::from_be_bytes(head[..4].try_into().unwrap()) as usize];
    socket.read_exact(&mut message)?;
    Ok((u32::from_be_bytes(head[4..8].try_into().unwrap()), message))
}

pub type Answer = Result<Vec<u8>, Status>;

/// Why the tests cannot run here.
pub fn missing() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("skipped: needs root");
    }
    match Command::new("busybox").arg("true").stdin(Stdio::null()).status() {
        Ok(status) if status.success() => None,
        _ => Some("skipped: busybox is not installed"),
    }
}

pub struct Shim {
    pub directory: PathBuf,
    pub socket: PathBuf,
    pub events: Arc<Mutex<Vec<String>>>,
    name: String,
}

impl Shim {
    /// With a container `a`, whose bundle is ready.
    pub fn start(name: &str, command: &[&str]) -> Self {
        let directory = std::env::temp_dir().join(format!("onggi-shim-{}-{name}", std::process::id()));
        // Left by a run that was killed.
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("events")).unwrap();
        let events = take_events(&directory.join("events/s"));
        let name = format!("shim-{}-{name}", std::process::id());
        let mut shim = Self { socket: PathBuf::new(), directory, events, name };
        shim.bundle("a", command);
        let output = shim.run("a", &["start"], &shim.params("a"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let result = fields(&output.stdout);
        assert_eq!((number(&result, 1), text(&result, 3).as_str()), (3, "ttrpc"));
        shim.socket = text(&result, 2).strip_prefix("unix://").unwrap().into();
        shim
    }

    fn params(&self, id: &str) -> Vec<u8> {
        let root = self.directory.join("store");
        let options = Fields::default().text(7, root.to_str().unwrap());
        let any = Fields::default().text(1, "containerd.runc.v1.Options").bytes(2, &options.0);
        let fields = Fields::default().text(1, id).text(2, &self.name);
        let fields = fields.text(5, self.directory.join("events/s").to_str().unwrap());
        let extension = Fields::default().bytes(1, &any.0);
        fields.bytes(8, &extension.0).text(9, self.directory.join("s").to_str().unwrap()).0
    }

    fn options(&self) -> Vec<u8> {
        let options = Fields::default().text(7, self.directory.join("store").to_str().unwrap());
        Fields::default().text(1, "containerd.runc.v1.Options").bytes(2, &options.0).0
    }

    pub fn bundle_of(&self, id: &str) -> PathBuf {
        self.directory.join("bundles").join(id)
    }

    fn bundle(&self, id: &str, command: &[&str]) {
        let bundle = self.bundle_of(id);
        fs::create_dir_all(bundle.join("rootfs")).unwrap();
        let image = self.directory.join("image");
        for directory in ["bin", "dev", "proc", "tmp"] {
            fs::create_dir_all(image.join(directory)).unwrap();
        }
        let found = Command::new("sh").args(["-c", "command -v busybox"]).output().unwrap();
        let busybox = String::from_utf8(found.stdout).unwrap();
        fs::copy(busybox.trim(), image.join("bin/busybox")).unwrap();
        let kinds = ["pid", "mount", "ipc", "uts"].map(|kind| serde_json::json!({ "type": kind }));
        let config = serde_json::json!({
            "ociVersion": "1.0.2",
            "root": { "path": "rootfs" },
            "process": {
                "args": command,
                "cwd": "/",
                "user": { "uid": 0, "gid": 0 },
                "env": ["PATH=/bin"],
            },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
            ],
            "linux": { "namespaces": kinds, "cgroupsPath": format!("/{}/{id}", self.name) },
        });
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    }

    pub fn run(&self, id: &str, more: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new(PROGRAM);
        command.args(["-namespace", &self.name, "-address", "/nowhere", "-id", id]).args(more);
        command
            .current_dir(self.bundle_of(id))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }

    pub fn connect(&self) -> UnixStream {
        let socket = UnixStream::connect(&self.socket).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    pub fn call(&self, method: &str, payload: Fields) -> Answer {
        let mut socket = self.connect();
        let request =
            Request { service: TASK.into(), method: method.into(), payload: payload.0, timeout_nano: 0 };
        send(&mut socket, 1, 1, &request.encode_to_vec());
        answer(&receive(&mut socket).unwrap().1)
    }

    pub fn of(&self, method: &str, exec: &str) -> Answer {
        self.call(method, of(exec))
    }

    pub fn create(&self, stdout: &str) -> Answer {
        let image = self.directory.join("image");
        let mount =
            Fields::default().text(1, "bind").text(2, image.to_str().unwrap()).text(4, "rbind").text(4, "ro");
        let task =
            Fields::default().text(1, "a").text(2, self.bundle_of("a").to_str().unwrap()).bytes(3, &mount.0);
        self.call("Create", task.text(6, stdout).bytes(10, &self.options()))
    }

    pub fn exec(&self, name: &str, command: &[&str]) -> Answer {
        let process = serde_json::json!({ "args": command, "cwd": "/", "env": ["PATH=/bin"] });
        let any = Fields::default().text(1, "x").bytes(2, process.to_string().as_bytes());
        self.call("Exec", of(name).bytes(7, &any.0))
    }

    /// The pid of the shim.
    pub fn pid(&self) -> i32 {
        number(&fields(&self.of("Connect", "").unwrap()), 1) as i32
    }

    /// Waits until events have come.
    pub fn await_event(&self, wanted: &str) -> Vec<String> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let events = self.events.lock().unwrap().clone();
            if events.iter().any(|event| event == wanted) {
                return events;
            }
            assert!(Instant::now() < end, "no {wanted} in {events:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it, and looks for what is left.
    pub fn end(&self) {
        let pid = self.pid();
        self.of("Shutdown", "").unwrap();
        await_end(pid);
        assert!(!self.socket.exists(), "the socket is left");
        self.check_nothing_left();
    }

    pub fn check_nothing_left(&self) {
        let left = fs::read_dir(self.directory.join("store").join(&self.name)).map(|entries| entries.count());
        assert_eq!(left.unwrap_or(0), 0, "the store is not empty");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.directory.to_str().unwrap()), "a mount is left");
        assert!(!cgroup_exists(&self.name), "a cgroup is left");
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        // After a test that failed.
        if std::thread::panicking() && UnixStream::connect(&self.socket).is_ok() {
            let pid = nix::unistd::Pid::from_raw(self.pid());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            self.run("a", &["delete"], b"");
        }
        let _ = fs::remove_dir_all(&self.directory);
        for hierarchy in hierarchies() {
            let _ = fs::remove_dir(hierarchy.join(&self.name));
        }
    }
}

fn hierarchies() -> Vec<PathBuf> {
    let all = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
    all.chain([PathBuf::from("/sys/fs/cgroup")]).collect()
}

/// Of the container; its parent is ours.
fn cgroup_exists(name: &str) -> bool {
    hierarchies().iter().any(|hierarchy| hierarchy.join(name).join("a").exists())
}

pub fn of(exec: &str) -> Fields {
    Fields::default().text(1, "a").text(2, exec)
}

pub fn answer(message: &[u8]) -> Answer {
    let Response { status, payload } = Response::decode(message).unwrap();
    match status {
        Some(status) if status.code != 0 => Err(status),
        _ => Ok(payload),
    }
}

pub fn await_end(pid: i32) {
    let end = Instant::now() + Duration::from_secs(10);
    while Path::new(&format!("/proc/{pid}/stat")).exists() {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.contains(") Z ") {
            return;
        }
        assert!(Instant::now() < end, "process {pid} does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Topic and process of each event, as they come.
fn take_events(path: &Path) -> Arc<Mutex<Vec<String>>> {
    let events: Arc<Mutex<Vec<String>>> = Arc::default();
    let (listener, list) = (UnixListener::bind(path).unwrap(), events.clone());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            while let Ok((stream, message)) = receive(&mut connection) {
                let request = Request::decode(&*message).unwrap();
                let envelope = fields(&fields(&request.payload)[&1].1);
                let (topic, event) = (text(&envelope, 3), fields(&fields(&envelope[&4].1)[&2].1));
                let is_exec = topic.contains("exec") || topic.contains("exit");
                let name = if is_exec { text(&event, 2) } else { text(&event, 1) };
                list.lock().unwrap().push(format!("{} {name}", topic.trim_start_matches("/tasks/")));
                send(&mut connection, stream, 2, &Response::default().encode_to_vec());
            }
        }
    });
    events
}

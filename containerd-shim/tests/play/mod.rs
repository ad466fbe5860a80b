//! Plays containerd: starts a shim, calls it by ttrpc, and takes its events.

// Each test program uses a part of it.
#![allow(dead_code)]

use containerd_shim_onggi::client::{self, REQUEST, RESPONSE};
#[allow(unused_imports)]
pub use containerd_shim_onggi::client::{Answer, Request, Response, Status, receive};
use prost::Message;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A shim that has been launched for the test; returns from the test, with the reason, where one cannot run.
#[allow(unused_macros)]
macro_rules! prepared {
    ($name:expr, $command:expr, $edit:expr) => {
        match missing() {
            Some(reason) => return eprintln!("{reason}"),
            None => {
                let mut shim = Shim::prepare($name, $command, $edit);
                shim.launch(&[], Fields::default());
                shim
            }
        }
    };
}

/// `SHIM` names another build, for measurements.
pub fn program() -> PathBuf {
    let built = env!("CARGO_BIN_EXE_containerd-shim-onggi-v2");
    std::env::var_os("SHIM").unwrap_or_else(|| built.into()).into()
}

/// What the receiver of events does.
pub const SERVES: u8 = 0;
/// It reads nothing, as a process does that is stopped.
pub const IS_STOPPED: u8 = 1;
/// It closes each connection at the first event, and keeps none.
pub const HANGS_UP: u8 = 2;
pub const TASK: &str = "containerd.task.v3.Task";

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
    socket.write_all(&client::frame(stream, kind, message)).unwrap();
}

/// Of a request.
pub fn frame(stream: u32, message: &[u8]) -> Vec<u8> {
    client::frame(stream, REQUEST, message)
}

/// Of the Task service.
pub fn request(method: &str, payload: Fields) -> Vec<u8> {
    Request { service: TASK.into(), method: method.into(), payload: payload.0, timeout_nano: 0 }
        .encode_to_vec()
}

/// Why the tests cannot run here.
pub fn missing() -> Option<&'static str> {
    assert!(nix::unistd::geteuid().is_root(), "needs root");
    match Command::new("busybox").arg("true").stdin(Stdio::null()).status() {
        Ok(status) if status.success() => None,
        _ => Some("skipped: busybox is not installed"),
    }
}

pub struct Shim {
    pub directory: PathBuf,
    pub socket: PathBuf,
    pub events: Arc<Mutex<Vec<String>>>,
    pub receiver: Arc<AtomicU8>,
    /// containerd's namespace.
    pub name: String,
    /// Of the shim; only root's own is served.
    pub group: u32,
}

/// A change of `config.json`.
pub type Edit<'a> = &'a dyn Fn(&mut serde_json::Value);

impl Shim {
    /// With a container `a`, whose bundle is ready.
    pub fn start(name: &str, command: &[&str]) -> Self {
        let mut shim = Self::prepare(name, command, &|_| ());
        shim.launch(&[], Fields::default());
        shim
    }

    /// The bundle of container `a`, and no shim yet.
    pub fn prepare(name: &str, command: &[&str], edit: Edit) -> Self {
        let directory = std::env::temp_dir().join(format!("onggi-shim-{}-{name}", std::process::id()));
        // Left by a run that was killed.
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("events")).unwrap();
        let receiver = Arc::default();
        let events = take_events(&directory.join("events/s"), &receiver);
        let name = format!("shim-{}-{name}", std::process::id());
        let shim = Self { socket: PathBuf::new(), directory, events, receiver, name, group: 0 };
        shim.bundle("a", command, edit);
        shim
    }

    pub fn launch(&mut self, environment: &[(&str, &str)], options: Fields) {
        let output = self.try_launch(environment, options);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let result = fields(&output.stdout);
        assert_eq!((number(&result, 1), text(&result, 3).as_str()), (3, "ttrpc"));
        self.socket = text(&result, 2).strip_prefix("unix://").unwrap().into();
    }

    pub fn try_launch(&self, environment: &[(&str, &str)], options: Fields) -> Output {
        self.try_launch_with(environment, options, |_| ())
    }

    pub fn try_launch_with(
        &self,
        environment: &[(&str, &str)],
        options: Fields,
        edit: impl FnOnce(&mut Command),
    ) -> Output {
        let mut command = self.command("a", &["start"]);
        command.envs(environment.iter().copied()).gid(self.group);
        edit(&mut command);
        output_of(command, &self.params("a", options))
    }

    /// `start` of one more container of the pod.
    pub fn start_of(&self, id: &str) -> Output {
        self.run(id, &["start"], &self.params(id, Fields::default()))
    }

    fn params(&self, id: &str, options: Fields) -> Vec<u8> {
        let any = Fields::default().text(1, "containerd.runc.v1.Options").bytes(2, &self.root(options).0);
        let fields = Fields::default().text(1, id).text(2, &self.name);
        let fields = fields.text(5, self.directory.join("events/s").to_str().unwrap());
        let extension = Fields::default().bytes(1, &any.0);
        fields.bytes(8, &extension.0).text(9, self.directory.join("s").to_str().unwrap()).0
    }

    fn root(&self, options: Fields) -> Fields {
        options.text(7, self.directory.join("store").to_str().unwrap())
    }

    fn options(&self, more: Fields) -> Vec<u8> {
        let options = self.root(more);
        Fields::default().text(1, "containerd.runc.v1.Options").bytes(2, &options.0).0
    }

    pub fn bundle_of(&self, id: &str) -> PathBuf {
        self.directory.join("bundles").join(id)
    }

    /// Another container of the pod whose first one is `a`.
    pub fn add(&self, id: &str, command: &[&str]) {
        self.bundle(id, command, &|config| {
            config["annotations"] = serde_json::json!({ "io.containerd.runc.v2.group": "a" });
        });
    }

    fn bundle(&self, id: &str, command: &[&str], edit: Edit) {
        let bundle = self.bundle_of(id);
        fs::create_dir_all(bundle.join("rootfs")).unwrap();
        let image = self.directory.join("image");
        for directory in ["bin", "dev", "proc", "tmp"] {
            fs::create_dir_all(image.join(directory)).unwrap();
        }
        if !image.join("bin/busybox").exists() {
            let found = Command::new("sh").args(["-c", "command -v busybox"]).output().unwrap();
            let busybox = String::from_utf8(found.stdout).unwrap();
            fs::copy(busybox.trim(), image.join("bin/busybox")).unwrap();
        }
        let kinds = ["pid", "mount", "ipc", "uts"].map(|kind| serde_json::json!({ "type": kind }));
        let mut config = serde_json::json!({
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
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                  "options": ["newinstance", "ptmxmode=0666"] },
            ],
            "linux": { "namespaces": kinds, "cgroupsPath": format!("/{}/{id}", self.name) },
        });
        edit(&mut config);
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    }

    fn command(&self, id: &str, more: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(["-namespace", &self.name, "-address", "/nowhere", "-id", id]).args(more);
        command.current_dir(self.bundle_of(id));
        command
    }

    pub fn run(&self, id: &str, more: &[&str], input: &[u8]) -> Output {
        output_of(self.command(id, more), input)
    }

    pub fn connect(&self) -> UnixStream {
        let socket = UnixStream::connect(&self.socket).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    pub fn call(&self, method: &str, payload: Fields) -> Answer {
        self.try_call(method, payload).unwrap()
    }

    /// Fails where nobody answers.
    pub fn try_call(&self, method: &str, payload: Fields) -> std::io::Result<Answer> {
        let mut socket = UnixStream::connect(&self.socket)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        socket.write_all(&frame(1, &request(method, payload)))?;
        Ok(answer(&receive(&mut socket)?.1))
    }

    pub fn of(&self, method: &str, exec: &str) -> Answer {
        self.call(method, of(exec))
    }

    pub fn create(&self, stdout: &str) -> Answer {
        self.create_with("a", Fields::default().text(6, stdout))
    }

    /// `more` has the standard streams, and whatever else a test wants.
    pub fn create_with(&self, id: &str, more: Fields) -> Answer {
        self.try_create(id, more).unwrap()
    }

    /// Fails where the shim is gone.
    pub fn try_create(&self, id: &str, more: Fields) -> std::io::Result<Answer> {
        self.try_create_from(id, &[self.image()], more, Fields::default())
    }

    /// With these options of the runtime.
    pub fn create_from_options(&self, id: &str, more: Fields, options: Fields) -> Answer {
        self.try_create_from(id, &[self.image()], more, options).unwrap()
    }

    /// With these mounts for its root.
    pub fn create_from(&self, id: &str, mounts: &[Fields], more: Fields) -> Answer {
        self.try_create_from(id, mounts, more, Fields::default()).unwrap()
    }

    fn try_create_from(
        &self,
        id: &str,
        mounts: &[Fields],
        more: Fields,
        options: Fields,
    ) -> std::io::Result<Answer> {
        let task = more.text(1, id).text(2, self.bundle_of(id).to_str().unwrap());
        let task = mounts.iter().fold(task, |task, mount| task.bytes(3, &mount.0));
        self.try_call("Create", task.bytes(10, &self.options(options)))
    }

    /// A mount of the image, which cannot be written to.
    pub fn image(&self) -> Fields {
        mount_of("bind", self.directory.join("image").to_str().unwrap(), &["rbind", "ro"])
    }

    pub fn exec(&self, name: &str, command: &[&str]) -> Answer {
        self.exec_with(of(name), command, serde_json::json!({}))
    }

    /// `more` has the ids and the standard streams, `process` members of the process beside its command.
    pub fn exec_with(&self, more: Fields, command: &[&str], process: serde_json::Value) -> Answer {
        let mut whole = serde_json::json!({ "args": command, "cwd": "/", "env": ["PATH=/bin"] });
        whole.as_object_mut().unwrap().extend(process.as_object().unwrap().clone());
        let any = Fields::default().text(1, "x").bytes(2, whole.to_string().as_bytes());
        self.call("Exec", more.bytes(7, &any.0))
    }

    /// This program and its libraries, as `/helper` in the image.
    pub fn copy_ourselves(&self) {
        let own = std::env::current_exe().unwrap();
        let libraries = Command::new("ldd").arg(&own).output().unwrap().stdout;
        let libraries = String::from_utf8(libraries).unwrap();
        let image = self.directory.join("image");
        fs::copy(&own, image.join("helper")).unwrap();
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            let copy = image.join(library.trim_start_matches('/'));
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(library, copy).unwrap();
        }
    }

    /// A fifo of the client.
    pub fn fifo(&self, name: &str) -> PathBuf {
        let path = self.directory.join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        path
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn status(&self) -> u64 {
        number(&fields(&self.of("State", "").unwrap()), 4)
    }

    /// Kills container `a` and deletes it.
    pub fn remove(&self) {
        self.call("Kill", of("").number(3, 9)).unwrap();
        self.of("Wait", "").unwrap();
        self.of("Delete", "").unwrap();
    }

    /// The pid of the shim.
    pub fn pid(&self) -> i32 {
        number(&fields(&self.of("Connect", "").unwrap()), 1) as i32
    }

    /// The pids of all shims of this test's namespace.
    pub fn processes(&self) -> Vec<i32> {
        let all = fs::read_dir("/proc").unwrap().flatten();
        let wanted = format!("\0-namespace\0{}\0", self.name);
        let is_wanted = |line: &String| line.contains(&wanted);
        let pid_of = |entry: fs::DirEntry| {
            fs::read_to_string(entry.path().join("cmdline")).ok().filter(is_wanted)?;
            entry.file_name().to_str()?.parse().ok()
        };
        all.filter_map(pid_of).collect()
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
        let store = fs::read_dir(self.directory.join("store").join(&self.name)).into_iter().flatten();
        let left: Vec<_> = store.flatten().map(|entry| entry.file_name()).collect();
        assert!(left.is_empty(), "the store has {left:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let below = format!("{}/", self.directory.display());
        assert!(!mounts.contains(&below), "a mount is left");
        assert!(!cgroup_exists(&self.name), "a cgroup is left");
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        // After a test that failed.
        if std::thread::panicking() {
            if let Ok(answer) = self.try_call("Connect", Fields::default()) {
                let pid = number(&fields(&answer.unwrap_or_default()), 1) as i32;
                if pid > 1 {
                    let _ = nix::sys::signal::kill(
                        nix::unistd::Pid::from_raw(pid),
                        nix::sys::signal::Signal::SIGKILL,
                    );
                }
            }
            for bundle in fs::read_dir(self.directory.join("bundles")).into_iter().flatten().flatten() {
                self.run(bundle.file_name().to_str().unwrap(), &["delete"], b"");
            }
        }
        let _ = fs::remove_dir_all(&self.directory);
        for hierarchy in hierarchies() {
            let _ = fs::remove_dir(hierarchy.join(&self.name));
        }
    }
}

/// `containerd.types.Mount`.
pub fn mount_of(kind: &str, source: &str, options: &[&str]) -> Fields {
    let mount = Fields::default().text(1, kind).text(2, source);
    options.iter().fold(mount, |mount, option| mount.text(4, option))
}

/// Of cgroups: one of v2, or those of v1.
pub fn hierarchies() -> Vec<PathBuf> {
    let all = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
    all.chain([PathBuf::from("/sys/fs/cgroup")]).collect()
}

/// Of a container; their parent is ours.
fn cgroup_exists(name: &str) -> bool {
    let children = |hierarchy: &PathBuf| fs::read_dir(hierarchy.join(name)).into_iter().flatten().flatten();
    hierarchies().iter().flat_map(children).any(|entry| entry.path().is_dir())
}

pub fn of(exec: &str) -> Fields {
    of_container("a", exec)
}

pub fn of_container(id: &str, exec: &str) -> Fields {
    Fields::default().text(1, id).text(2, exec)
}

pub fn answer(message: &[u8]) -> Answer {
    client::answer(message).unwrap()
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

fn output_of(mut command: Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// Opens a fifo for reading, without waiting for a writer.
pub fn open_reader(fifo: &Path) -> fs::File {
    fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(fifo).unwrap()
}

/// Reads until `wanted` was read; returns all that was read.
pub fn read_until(fifo: &mut fs::File, wanted: &str) -> String {
    let (end, mut all) = (Instant::now() + Duration::from_secs(10), Vec::new());
    loop {
        let mut part = [0; 65536];
        let length = fifo.read(&mut part).unwrap_or(0);
        all.extend(&part[..length]);
        let text = String::from_utf8_lossy(&all);
        if text.contains(wanted) {
            return text.into_owned();
        }
        assert!(Instant::now() < end, "no {wanted:?} in {text:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until it is so.
pub fn await_that(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < end, "{what}: not within 10 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Topic and process of each event, as they come.
fn take_events(path: &Path, receiver: &Arc<AtomicU8>) -> Arc<Mutex<Vec<String>>> {
    let events: Arc<Mutex<Vec<String>>> = Arc::default();
    let (listener, list) = (UnixListener::bind(path).unwrap(), events.clone());
    let receiver = receiver.clone();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            loop {
                while receiver.load(Ordering::Relaxed) == IS_STOPPED {
                    std::thread::sleep(Duration::from_millis(1));
                }
                let Ok((stream, message)) = receive(&mut connection) else { break };
                if receiver.load(Ordering::Relaxed) == HANGS_UP {
                    break;
                }
                let request = Request::decode(&*message).unwrap();
                let envelope = fields(&fields(&request.payload)[&1].1);
                let (topic, event) = (text(&envelope, 3), fields(&fields(&envelope[&4].1)[&2].1));
                let is_exec = topic.contains("exec") || topic.contains("exit");
                let name = if is_exec { text(&event, 2) } else { text(&event, 1) };
                list.lock().unwrap().push(format!("{} {name}", topic.trim_start_matches("/tasks/")));
                let answer = client::frame(stream, RESPONSE, &Response::default().encode_to_vec());
                // The shim may have gone meanwhile.
                let _ = connection.write_all(&answer);
            }
        }
    });
    events
}

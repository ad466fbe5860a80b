//! What a case works with: the runtime under test, its state directory, fresh bundles, containers and
//! their verbs. Nothing here judges a result, but for the helpers that a case calls with `?`.
//! bundle.rs has the configuration, process.rs how programs are started, leaks.rs what is checked afterwards.

use crate::bundle::{self, Config};
use crate::case::{Outcome, Stop, fail, skip};
use crate::engine::{Engine, Kind};
use crate::host::Host;
use crate::process::{self, Output, Started};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The binary under test with the state directory that this case uses.
#[derive(Clone)]
pub struct Runtime {
    pub program: PathBuf,
    /// `runc`, `crun`, `onggi`: as it calls itself.
    pub name: String,
    pub state: PathBuf,
    /// The case's directory, where the outputs of calls are kept.
    pub dir: PathBuf,
    /// Flags before the verb.
    pub flags: &'static [&'static str],
}

impl Runtime {
    /// A call with `--root`; add the arguments and give it to [`process::run`].
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.state).args(self.flags).current_dir(&self.dir);
        command
    }

    pub fn call<S: AsRef<str>>(&self, args: &[S]) -> Outcome<Output> {
        let mut command = self.command();
        command.args(args.iter().map(|arg| arg.as_ref()));
        process::run(&mut command, &self.dir)
    }
}

pub struct Test {
    pub host: Host,
    pub runtime: Runtime,
    /// The case's own directory; a bundle is a directory in it.
    pub dir: PathBuf,
    base: PathBuf,
    /// The cgroup below which all containers of the case are.
    pub cgroup: String,
    /// Each container has a hook, for which a runtime keeps the host's mounts until it enters the container's root. One
    /// that leaves them before would not show a hole: a path that leads out of the root finds nothing.
    pub with_host_mounts: bool,
    count: AtomicU32,
    /// What runs the containers of the case in place of itself.
    pub engines: OnceLock<Vec<&'static Engine>>,
}

impl Test {
    pub fn new(host: Host, runtime: Runtime, base: PathBuf, cgroup: String) -> Self {
        let dir = runtime.dir.clone();
        let count = AtomicU32::new(0);
        Self { host, runtime, dir, base, cgroup, with_host_mounts: false, count, engines: OnceLock::new() }
    }

    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The engine of the case's group.
    pub fn engine(&self) -> Outcome<&'static Engine> {
        let first = self.engines.get().and_then(|all| all.first());
        first.copied().ok_or_else(|| Stop::Fail("the case has no engine".into()))
    }

    /// One of several engines that a group has beside each other.
    pub fn engine_of(&self, kind: Kind) -> Outcome<&'static Engine> {
        let found = self.engines.get().and_then(|all| all.iter().find(|engine| engine.kind == kind));
        found.copied().ok_or_else(|| Stop::Skip(format!("{kind:?} is not installed")))
    }

    pub fn has_engine(&self) -> bool {
        self.engines.get().is_some()
    }

    /// Where the runtime keeps the containers of engines.
    pub fn states(&self) -> impl Iterator<Item = &PathBuf> {
        self.engines.get().into_iter().flatten().flat_map(|engine| &engine.states)
    }

    /// Something that is printed beside the case's name when it has passed.
    pub fn note(&self, text: &str) {
        let _ = fs::write(self.dir.join("note"), text);
    }

    /// A directory that nothing in a container may change; see leaks.rs.
    pub fn canary(&self) -> PathBuf {
        self.dir.join("canary")
    }

    /// A new directory of the case, for volumes and the like.
    pub fn folder(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.dir.join(name);
        bundle::make_dir(&path)?;
        Ok(path)
    }

    /// The configuration to start from.
    pub fn config(&self) -> Config {
        let mut config = Config::base(&self.host);
        if self.with_host_mounts {
            config.push("hooks.createRuntime", json!({ "path": "/bin/true" }));
        }
        config
    }

    /// The same with a shell script to run.
    pub fn shell(&self, script: &str) -> Config {
        let mut config = self.config();
        config.shell(script);
        config
    }

    /// A configuration whose process stays until it is killed.
    pub fn sleeper(&self) -> Config {
        let mut config = self.config();
        config.args(&["/bin/sleep", "1000"]);
        config
    }

    /// A new bundle with its own root file system, and an id for it. Unless the configuration says
    /// otherwise, its cgroup is one of this case.
    pub fn container(&self, config: &Config) -> Outcome<Container> {
        let id = format!("c{}", self.count.fetch_add(1, Ordering::Relaxed) + 1);
        let bundle = self.dir.join(format!("bundle-{id}"));
        bundle::make_dir(&bundle)?;
        let container = Container { runtime: self.runtime.clone(), id, bundle };
        bundle::make_rootfs(&self.base, &container.rootfs())?;
        self.write_config(&container, config)?;
        Ok(container)
    }

    /// Writes `config.json`, with the case's cgroup unless the configuration has one; `false` means none.
    pub fn write_config(&self, container: &Container, config: &Config) -> Outcome {
        let mut config = config.clone();
        if self.host.own_cgroup.is_some()
            && config.0["linux"].is_object()
            && config.0["linux"]["cgroupsPath"].is_null()
        {
            config.set("linux.cgroupsPath", format!("{}/{}", self.cgroup, container.id));
        }
        if config.0["linux"]["cgroupsPath"] == false {
            config.remove("linux.cgroupsPath");
        }
        fs::write(container.bundle.join("config.json"), config.0.to_string())?;
        Ok(())
    }

    /// A container that runs in the background.
    pub fn detached(&self, config: &Config) -> Outcome<Container> {
        let container = self.container(config)?;
        container.run_with(&["--detach"])?.ok()?;
        Ok(container)
    }

    /// Runs a container in the foreground to its end.
    pub fn run(&self, config: &Config) -> Outcome<Output> {
        self.container(config)?.run()
    }

    /// What a shell script in a container prints; the container must exit with 0.
    pub fn script(&self, config: &Config, script: &str) -> Outcome<String> {
        let mut config = config.clone();
        config.shell(script);
        Ok(self.run(&config)?.ok()?.stdout.trim().to_owned())
    }

    /// What the probe reports from inside; `extra` as in `--cat PATH --write PATH`.
    pub fn probe(&self, config: &Config, extra: &[&str]) -> Outcome<Value> {
        let mut config = config.clone();
        let mut args = vec!["/probe", "report"];
        args.extend_from_slice(extra);
        config.args(&args);
        self.run(&config)?.ok()?.json()
    }

    /// The probe on the host's side, in the background, once the socket that it listens on is there:
    /// `console SOCKET …` or `agent SOCKET …`.
    pub fn listen(&self, role: &str, socket: &Path, args: &[&str]) -> Outcome<Started> {
        let mut command = Command::new(self.base.join("probe"));
        command.arg(role).arg(socket).args(args).stdin(Stdio::null());
        let started = process::start(&mut command, &self.dir)?;
        process::until("the socket is there", || Ok(socket.exists()))?;
        Ok(started)
    }

    /// A file of the cgroup of a container.
    pub fn limit(&self, container: &Container, controller: &str, file: &str) -> Outcome<String> {
        let path = format!("{}/{}", self.cgroup, container.id);
        let file = self.host.cgroup(controller, &path).join(file);
        match fs::read_to_string(&file) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) => fail(format!("{}: {error}", file.display())),
        }
    }

    /// Skips the case where the runtime's own `--help` does not know `word`.
    pub fn needs_verb(&self, verb: &str) -> Outcome {
        let help = self.runtime.call(&["--help"])?.text();
        let help =
            format!("{help} {}", process::run(self.runtime.command().arg("--help"), &self.dir)?.stdout);
        if help.contains(verb) { Ok(()) } else { skip(format!("has no `{verb}`")) }
    }
}

pub struct Container {
    pub runtime: Runtime,
    pub id: String,
    pub bundle: PathBuf,
}

impl Container {
    pub fn rootfs(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    /// A path of the host inside the root file system.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.rootfs().join(inside.trim_start_matches('/'))
    }

    /// `VERB --bundle B [OPTION…] ID` as a command.
    pub fn bundle_command(&self, verb: &str, options: &[&str]) -> Command {
        let mut command = self.runtime.command();
        command.arg(verb).arg("--bundle").arg(&self.bundle).args(options).arg(&self.id);
        command
    }

    pub fn create_with(&self, options: &[&str]) -> Outcome<Output> {
        process::run(&mut self.bundle_command("create", options), &self.runtime.dir)
    }

    pub fn create(&self) -> Outcome<Output> {
        self.create_with(&[])
    }

    pub fn run_with(&self, options: &[&str]) -> Outcome<Output> {
        process::run(&mut self.bundle_command("run", options), &self.runtime.dir)
    }

    pub fn run(&self) -> Outcome<Output> {
        self.run_with(&[])
    }

    /// `run` in the foreground, not waited for.
    pub fn run_started(&self) -> Outcome<Started> {
        process::start(self.bundle_command("run", &[]).stdin(Stdio::null()), &self.runtime.dir)
    }

    /// `VERB ID [ARG…]`.
    pub fn call(&self, verb: &str, args: &[&str]) -> Outcome<Output> {
        let mut all = vec![verb, &self.id];
        all.extend_from_slice(args);
        self.runtime.call(&all)
    }

    pub fn start(&self) -> Outcome<Output> {
        self.call("start", &[])
    }

    pub fn kill(&self, signal: &str) -> Outcome<Output> {
        self.call("kill", &[signal])
    }

    pub fn delete(&self) -> Outcome<Output> {
        self.call("delete", &[])
    }

    pub fn delete_force(&self) -> Outcome<Output> {
        self.runtime.call(&["delete", "--force", &self.id])
    }

    pub fn state(&self) -> Outcome<Value> {
        self.call("state", &[])?.ok()?.json()
    }

    pub fn status(&self) -> Outcome<String> {
        Ok(self.state()?["status"].as_str().unwrap_or_default().to_owned())
    }

    pub fn pid(&self) -> Outcome<i32> {
        let pid = self.state()?["pid"].as_i64().unwrap_or(0);
        if pid > 0 { Ok(pid as i32) } else { fail("state has no pid") }
    }

    pub fn await_status(&self, wanted: &str) -> Outcome {
        process::until(&format!("status {wanted}"), || Ok(self.status()? == wanted))
    }

    /// `exec [OPTION…] ID ARG…`.
    pub fn exec_with(&self, options: &[&str], args: &[&str]) -> Outcome<Output> {
        let mut all = vec!["exec"];
        all.extend_from_slice(options);
        all.push(&self.id);
        all.extend_from_slice(args);
        self.runtime.call(&all)
    }

    pub fn exec(&self, args: &[&str]) -> Outcome<Output> {
        self.exec_with(&[], args)
    }

    /// What the probe says when it is executed in the container.
    pub fn exec_probe(&self, options: &[&str]) -> Outcome<Value> {
        self.exec_with(options, &["/probe", "report"])?.ok()?.json()
    }

    /// Waits for a file that the container makes, and reads it.
    pub fn await_file(&self, inside: &str) -> Outcome<String> {
        await_file(&self.path(inside))
    }

    /// Kills it and waits until it is stopped.
    pub fn stop(&self) -> Outcome {
        self.kill("KILL")?.ok()?;
        self.await_status("stopped")
    }
}

/// Waits for a file that is not empty, and reads it.
pub fn await_file(path: &Path) -> Outcome<String> {
    let read = || fs::read_to_string(path).unwrap_or_default();
    process::until(&format!("{} exists", path.display()), || Ok(!read().is_empty()))?;
    Ok(read())
}

/// The strings of a JSON list.
pub fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect()
}

/// The line of a probe's mount table for a mount point: the last one, which is on top.
pub fn mount_line(probe: &Value, destination: &str) -> Outcome<String> {
    let lines = strings(&probe["mounts"]);
    let found = lines.iter().rev().find(|line| line.split(' ').nth(4) == Some(destination));
    found.cloned().ok_or_else(|| Stop::Fail(format!("no mount at {destination} in {lines:?}")))
}

/// The options of a mount, those of the mount point and those of the file system.
pub fn mount_options(probe: &Value, destination: &str) -> Outcome<Vec<String>> {
    let line = mount_line(probe, destination)?;
    let fields: Vec<&str> = line.split(' ').collect();
    let mut options: Vec<String> = fields.get(5).unwrap_or(&"").split(',').map(str::to_owned).collect();
    options.extend(fields.last().unwrap_or(&"").split(',').map(str::to_owned));
    Ok(options)
}

/// How long a test lets time pass where there is nothing to wait for.
pub fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// A file system that the case mounts on the host's side (in its own namespace), until it is dropped.
pub struct Mounted(PathBuf);

impl Mounted {
    pub fn tmpfs(path: &Path) -> Outcome<Self> {
        bundle::make_dir(path)?;
        nix::mount::mount(
            Some("tmpfs"),
            path,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some("mode=755"),
        )?;
        Ok(Self(path.to_path_buf()))
    }

    pub fn procfs(path: &Path) -> Outcome<Self> {
        bundle::make_dir(path)?;
        nix::mount::mount(Some("proc"), path, Some("proc"), nix::mount::MsFlags::empty(), None::<&str>)?;
        Ok(Self(path.to_path_buf()))
    }

    /// Changes a mount: its propagation or its flags, or binds `source` there.
    pub fn change(source: Option<&Path>, path: &Path, flags: nix::mount::MsFlags) -> Outcome {
        nix::mount::mount(source, path, None::<&str>, flags, None::<&str>)?;
        Ok(())
    }

    pub fn bind(source: &Path, path: &Path) -> Outcome<Self> {
        Self::change(Some(source), path, nix::mount::MsFlags::MS_BIND)?;
        Ok(Self(path.to_path_buf()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

//! A container, a verb on it, and how it is known that the verb did what it says. One scene serves all
//! points of a walk: `prepare` brings the container to where the verb begins, `command` is the call, and
//! `verify` looks whether a call that ended with 0 has told the truth.

use super::report;
use crate::bundle::{self, Config};
use crate::case::{Outcome, Stop, check, fail, same};
use crate::process::{self, Output, Started};
use crate::test::{Container, Test, await_file};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verb {
    Run,
    Create,
    Start,
    Exec,
    Kill,
    /// `delete --force` of a container that runs.
    Delete,
    /// `delete` of a container that runs, which is refused.
    RefusedDelete,
    State,
    Update,
}

impl Verb {
    /// All points of a walk have one container, which stays as it is.
    fn shares(self) -> bool {
        matches!(self, Verb::Exec | Verb::Update | Verb::State | Verb::RefusedDelete)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Setting {
    Plain,
    /// On a bridge, in the network namespace of the case, with a published port.
    Network,
    UserNamespace,
    /// Its cgroup is a scope of systemd's.
    Systemd,
}

pub struct Scene<'a> {
    t: &'a Test,
    pub verb: Verb,
    pub setting: Setting,
    container: Container,
    /// What the program writes its report to.
    out: PathBuf,
    /// The report of a run without faults.
    wanted: Value,
    own: Value,
    limit: AtomicU32,
}

const REPORT: &str = "/probe report --read /dev/forbidden --cat /proc/sys/kernel/shm_rmid_forced \
    --cat /sys/fs/cgroup/pids/pids.max --cat /sys/fs/cgroup/pids.max \
    --cat /sys/fs/cgroup/memory/memory.limit_in_bytes --cat /sys/fs/cgroup/memory.max";

/// A shell's words that leave a report at /out/NAME, whole.
fn reporting(name: &str) -> String {
    format!("{REPORT} > /out/.{name} && mv /out/.{name} /out/{name}")
}

impl<'a> Scene<'a> {
    pub fn new(t: &'a Test, verb: Verb, setting: Setting) -> Outcome<Self> {
        let out = t.folder("out")?;
        fs::set_permissions(&out, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        let container = t.container(&config(t, verb, setting, &out))?;
        // A new user namespace has no rights to make mount points.
        for name in ["out", "scratch"] {
            bundle::make_dir(&container.path(name))?;
        }
        let own = namespaces();
        let limit = AtomicU32::new(100);
        let mut scene = Self { t, verb, setting, container, out, wanted: Value::Null, own, limit };
        if verb.shares() {
            scene.begin()?;
        }
        if matches!(verb, Verb::Run | Verb::Create | Verb::Start | Verb::Exec) {
            scene.prepare()?;
            scene.start(&[])?.finish(process::LIMIT)?.ok()?;
            scene.wanted = scene.found()?;
            scene.clean()?.ok()?;
        }
        Ok(scene)
    }

    /// A container that all points share.
    fn begin(&self) -> Outcome {
        self.container.run_with(&self.options(&["--detach"]))?.ok()?;
        Ok(())
    }

    fn options<'b>(&self, first: &[&'b str]) -> Vec<&'b str> {
        let mut all = first.to_vec();
        if self.setting == Setting::Network {
            all.extend(["--network", "bridge=walk,address=auto", "--publish", "8080:80"]);
        }
        all
    }

    /// Brings the container to where the verb begins.
    pub fn prepare(&self) -> Outcome {
        for name in ["report", ".report"] {
            let _ = fs::remove_file(self.out.join(name));
        }
        match self.verb {
            Verb::Run | Verb::Create => Ok(()),
            _ if self.verb.shares() => Ok(()),
            Verb::Start => self.container.create_with(&self.options(&[])).and_then(Output::ok).map(drop),
            _ => self.begin(),
        }
    }

    /// Starts the call, traced where `prefix` is the tracer with its arguments.
    pub fn start(&self, prefix: &[String]) -> Outcome<Started> {
        process::start(self.command(prefix).stdin(Stdio::null()), &self.t.dir)
    }

    fn command(&self, prefix: &[String]) -> Command {
        let mut words = prefix.to_vec();
        words.push(self.t.runtime.program.display().to_string());
        words.extend(["--root".into(), self.t.runtime.state.display().to_string()]);
        if self.setting == Setting::Systemd {
            words.push("--systemd-cgroup".into());
        }
        let id = self.container.id.clone();
        let bundle = self.container.bundle.display().to_string();
        let rest: Vec<String> = match self.verb {
            Verb::Run | Verb::Create => {
                let verb = if self.verb == Verb::Run { "run" } else { "create" };
                let mut rest = vec![verb.to_owned(), "--bundle".into(), bundle];
                rest.extend(self.options(&[]).into_iter().map(str::to_owned));
                rest.push(id);
                rest
            }
            Verb::Start => vec!["start".into(), id],
            Verb::Exec => ["exec", &id, "/bin/sh", "-c", &reporting("report")].map(str::to_owned).to_vec(),
            Verb::Kill => vec!["kill".into(), id, "KILL".into()],
            Verb::Delete => vec!["delete".into(), "--force".into(), id],
            Verb::RefusedDelete => vec!["delete".into(), id],
            Verb::State => vec!["state".into(), id],
            Verb::Update => {
                let limit = self.limit.fetch_add(1, Ordering::Relaxed) + 1;
                let memory = (u64::from(limit) << 20).to_string();
                ["update", "--pids-limit", &limit.to_string(), "--memory", &memory, &id]
                    .map(str::to_owned)
                    .to_vec()
            }
        };
        words.extend(rest);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(&self.t.dir);
        command
    }

    /// Whether a call that ended with 0 did what it is for.
    pub fn verify(&self, output: &Output) -> Outcome {
        match self.verb {
            Verb::Create => {
                self.container.start()?.ok()?;
                self.compare()
            }
            Verb::Run | Verb::Start | Verb::Exec => self.compare(),
            Verb::Kill => self.container.await_status("stopped"),
            Verb::Delete => self.left(),
            Verb::RefusedDelete => fail("a container that runs was deleted"),
            Verb::State => same("status", output.json()?["status"].as_str(), Some("running")),
            Verb::Update => {
                let limit = self.limit.load(Ordering::Relaxed);
                let memory = if self.t.host.unified { "memory.max" } else { "memory.limit_in_bytes" };
                for (controller, file, wanted) in
                    [("pids", "pids.max", u64::from(limit)), ("memory", memory, u64::from(limit) << 20)]
                {
                    let found = self.t.limit(&self.container, controller, file)?;
                    check!(found == wanted.to_string(), "{file} is {found}, not {wanted}");
                }
                Ok(())
            }
        }
    }

    fn compare(&self) -> Outcome {
        let differences = report::differences(&self.wanted, &self.found()?);
        check!(differences.is_empty(), "{}", differences.join("; "));
        Ok(())
    }

    fn found(&self) -> Outcome<Value> {
        let path = self.out.join("report");
        let text = if matches!(self.verb, Verb::Run | Verb::Exec) {
            fs::read_to_string(&path).map_err(|_| Stop::Fail("the program did not run".into()))?
        } else {
            if self.verb == Verb::Create && !path.exists() {
                let _ = self.container.start();
            }
            await_file(&path)?
        };
        Ok(report::steady(serde_json::from_str(&text)?, &self.own))
    }

    /// Makes sure that the next point finds what it needs: by `delete --force`, unless a container is shared.
    pub fn clean(&self) -> Outcome<Output> {
        if self.verb.shares() {
            return self.container.await_status("running").and_then(|()| self.container.call("state", &[]));
        }
        let output = self.container.delete_force();
        let _ = self.container.call("state", &[]);
        output
    }

    /// After something went wrong: everything is ended, and a container that is shared made again.
    pub fn restore(&self) -> Outcome {
        crate::leaks::sweep(self.t);
        if self.verb.shares() { self.begin() } else { Ok(()) }
    }

    /// What is there of the container and should not: everything, or what an exec has left.
    pub fn left(&self) -> Outcome {
        let mut all = Vec::new();
        for _ in 0..200 {
            all = self.look();
            if all.is_empty() {
                return Ok(());
            }
            crate::test::pause(10);
        }
        fail(all.join("; "))
    }

    fn look(&self) -> Vec<String> {
        let shared = self.verb.shares();
        let mut found = Vec::new();
        for pid in process::descendants(std::process::id() as i32) {
            let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words = words.replace('\0', " ");
            if !(shared && words.starts_with("/bin/sleep 1000")) {
                found.push(format!("process {pid} {}", words.trim()));
            }
        }
        let below = self.t.dir.display().to_string();
        let mounts = crate::leaks::mounts();
        found.extend(
            mounts
                .iter()
                .filter(|line| line.contains(&format!(" {below}")))
                .map(|line| format!("mount {line}")),
        );
        if shared {
            return found;
        }
        for entry in fs::read_dir(&self.t.runtime.state).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // The networks of a store are shared by its containers; crun keeps compiled filters.
            if name == ".network" || (name.starts_with('.') && self.t.runtime.name != "onggi") {
                continue;
            }
            found.push(format!("state {name}"));
        }
        for cgroup in self.t.host.cgroups(&format!("{}/{}", self.t.cgroup, self.container.id)) {
            if cgroup.exists() {
                found.push(format!("cgroup {}", cgroup.display()));
            }
        }
        found
    }
}

fn namespaces() -> Value {
    let mut all = Map::new();
    for kind in ["mnt", "pid", "net", "ipc", "uts", "user", "cgroup", "time"] {
        let link = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap_or_default();
        all.insert(kind.to_owned(), link.display().to_string().into());
    }
    all.into()
}

/// A container with something of everything whose absence the report would show.
fn config(t: &Test, verb: Verb, setting: Setting, out: &std::path::Path) -> Config {
    let mut config = t.config();
    match verb {
        Verb::Run | Verb::Create | Verb::Start => config.shell(&reporting("report")),
        _ => config.args(&["/bin/sleep", "1000"]),
    };
    config.bind(out, "/out", &["rw", "nosuid", "nodev"]);
    config.mount("/scratch", "tmpfs", "tmpfs", &["nosuid", "nodev", "noexec", "size=1m"]);
    config.set("process.user", json!({ "uid": 1000, "gid": 1000, "additionalGids": [2000], "umask": 0o27 }));
    config.set("process.rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]));
    config.set("process.oomScoreAdj", 321);
    config.set("linux.maskedPaths", json!(bundle::MASKED));
    config.set("linux.readonlyPaths", json!(bundle::READONLY));
    config.set(
        "linux.seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["kexec_load"], "action": "SCMP_ACT_ERRNO" }]
        }),
    );
    config.set("linux.sysctl", json!({ "kernel.shm_rmid_forced": "1" }));
    if t.host.root {
        config.namespace("cgroup");
        config.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]);
        config.set("linux.resources.pids", json!({ "limit": 64 }));
        config.set("linux.resources.memory", json!({ "limit": 64 << 20 }));
    }
    match setting {
        Setting::UserNamespace => drop(config.user_namespace(100_000, 65536)),
        _ => {
            let node =
                json!({ "path": "/dev/forbidden", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666 });
            config.push("linux.devices", node);
        }
    }
    if setting == Setting::Systemd {
        let last = t.dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        config.set("linux.cgroupsPath", format!("system.slice:walk:{}-{last}", std::process::id()));
    }
    config
}

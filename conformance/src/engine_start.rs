//! Starts engines with the runtime under test: their configuration, their daemons and the image. Everything
//! that they write is in a directory of the case, or in file systems that `own_files` lays over the host's.

use crate::bundle;
use crate::case::{Outcome, fail};
use crate::engine::{Engine, Kind, systemd};
use crate::engine_image::{archive, saved};
use crate::process;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{Gid, Uid, chown, geteuid};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub struct Setting<'a> {
    /// The runtime's own name for itself.
    pub name: &'a str,
    pub program: &'a Path,
    /// Where cgroups of the case are made.
    pub cgroup: &'a str,
    /// The root file system that all others are linked from.
    pub base: &'a Path,
    /// The directory of all cases with this engine.
    pub shared: &'a Path,
    /// The engine's own.
    pub dir: PathBuf,
}

/// The user of [`Kind::Rootless`].
pub const USER: u32 = 61000;
/// The first of its subordinate ids.
pub const SUBORDINATE: u32 = 300_000;

pub fn is_installed(kind: Kind) -> bool {
    let programs: &[&str] = match kind {
        Kind::Podman => &["podman"],
        Kind::Rootless => &["podman", "newuidmap", "setpriv"],
        Kind::Buildah => &["podman", "buildah"],
        Kind::Ctr | Kind::Cri => &["containerd", "ctr"],
        Kind::Docker => &["dockerd", "docker"],
    };
    programs.iter().all(|program| process::is_in_path(program))
}

pub fn start(kind: Kind, setting: &Setting) -> Outcome<Engine> {
    bundle::make_dir(&setting.dir)?;
    match kind {
        Kind::Podman => podman(setting),
        Kind::Rootless => rootless(setting),
        Kind::Buildah => buildah(setting),
        Kind::Ctr | Kind::Cri => containerd(kind, setting),
        Kind::Docker => docker(setting),
    }
}

/// Lays file systems of the case's own over those directories of the host that engines write to, and their
/// command lines have no option for. The mount namespace is the case's.
pub fn own_files(dir: &Path) -> Outcome {
    const NONE: Option<&str> = None;
    let old = dir.join("run-of-the-host");
    bundle::make_dir(&old)?;
    mount(Some("/run"), &old, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
    mount(NONE, &old, NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    for name in ["systemd", "dbus", "user"] {
        if old.join(name).is_dir() {
            let place = Path::new("/run").join(name);
            bundle::make_dir(&place)?;
            mount(Some(&old.join(name)), &place, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
        }
    }
    umount2(&old, MntFlags::MNT_DETACH)?;
    let over = dir.join("over");
    bundle::make_dir(&over)?;
    mount(Some("over"), &over, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    for (number, place) in ["/etc", "/opt", "/var/lib"].iter().enumerate() {
        let [upper, work] = ["upper", "work"].map(|name| over.join(format!("{name}{number}")));
        bundle::make_dir(&upper)?;
        bundle::make_dir(&work)?;
        let options = format!("lowerdir={place},upperdir={},workdir={}", upper.display(), work.display());
        mount(Some("over"), *place, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    }
    umount2(&over, MntFlags::MNT_DETACH)?;
    // Docker makes the firewall drop what is forwarded where it has to turn that on itself: docs/networks.md says
    // what onggi's bridges take then. Hosts with other networks have it on.
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    // CRIU, and clients of published ports.
    process::run(Command::new("ip").args(["link", "set", "lo", "up"]), dir)?.ok().map(drop)
}

/// Strings of all kinds as a list of words.
fn words(parts: &[&dyn AsRef<std::ffi::OsStr>]) -> Vec<String> {
    parts.iter().map(|part| part.as_ref().to_string_lossy().into_owned()).collect()
}

fn manager() -> &'static str {
    if systemd() { "systemd" } else { "cgroupfs" }
}

/// What Podman and Buildah have in common: `NAME OPTION…` with a store in `dir`, and the configuration's place.
fn stored(setting: &Setting, name: &str, kind: Kind, manager: &str) -> Outcome<Engine> {
    let dir = &setting.dir;
    // Not all of root's limits can be raised where root lacks CAP_SYS_RESOURCE; a user's never.
    let limits = "default_ulimits=[\"nofile=20000:20000\",\"nproc=32768:32768\"]";
    let limits = if geteuid().is_root() && kind != Kind::Rootless { limits } else { "" };
    let text =
        format!("[containers]\n{limits}\n[engine]\ncgroup_manager=\"{manager}\"\nevents_logger=\"file\"\n");
    fs::write(dir.join("containers.conf"), text)?;
    let mut all = words(&[&name, &"--root", &dir.join("root"), &"--runroot", &dir.join("run")]);
    all.extend(words(&[&"--storage-driver", &"vfs"]));
    let configuration = dir.join("containers.conf").display().to_string();
    Ok(Engine {
        kind,
        dir: dir.clone(),
        words: all,
        environment: vec![("CONTAINERS_CONF", configuration), ("TMPDIR", dir.display().to_string())],
        image: "localhost/box",
        cgroup: (geteuid().is_root() && manager == "cgroupfs").then(|| setting.cgroup.to_owned()),
        daemon: None,
        states: Vec::new(),
    })
}

fn podman_options(setting: &Setting, program: &Path) -> Vec<String> {
    let dir = &setting.dir;
    words(&[&"--tmpdir", &dir.join("tmp"), &"--network-config-dir", &dir.join("net"), &"--runtime", &program])
}

fn import(engine: &Engine, setting: &Setting) -> Outcome {
    let archive = archive(setting.base, setting.shared)?;
    engine.says(&["import", &archive.display().to_string(), engine.image]).map(drop)
}

fn podman(setting: &Setting) -> Outcome<Engine> {
    let mut engine = stored(setting, "podman", Kind::Podman, manager())?;
    engine.words.extend(podman_options(setting, setting.program));
    let run = if geteuid().is_root() {
        Some(PathBuf::from("/run"))
    } else {
        std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)
    };
    engine.states.extend(run.map(|run| run.join(setting.name)));
    import(&engine, setting)?;
    Ok(engine)
}

/// Podman of a user that the case's own /etc has, with subordinate ids.
fn rootless(setting: &Setting) -> Outcome<Engine> {
    let (dir, id) = (&setting.dir, USER.to_string());
    for (file, line) in [
        ("/etc/passwd", format!("conformance:x:{id}:{id}::{}:/bin/sh\n", dir.display())),
        ("/etc/group", format!("conformance:x:{id}:\n")),
        ("/etc/subuid", format!("conformance:{SUBORDINATE}:65536\n")),
        ("/etc/subgid", format!("conformance:{SUBORDINATE}:65536\n")),
    ] {
        let mut text = fs::read_to_string(file).unwrap_or_default();
        text.retain(|c| c != '\r');
        let kept = text.lines().filter(|line| !line.starts_with("conformance:"));
        let text: String = kept.map(|line| format!("{line}\n")).chain([line]).collect();
        fs::write(file, text)?;
    }
    let run = dir.join("xdg");
    bundle::make_dir(&run)?;
    bundle::make_dir(&dir.join("bin"))?;
    // The runtime may be in a directory that is root's alone.
    let program = dir.join("bin").join(setting.name);
    fs::copy(setting.program, &program)?;
    let mut engine = stored(setting, "podman", Kind::Rootless, "cgroupfs")?;
    engine.cgroup = None;
    for path in [dir, &run, &dir.join("bin"), &dir.join("containers.conf")] {
        chown(path, Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER)))?;
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let mut all = words(&[&"setpriv", &"--reuid", &id, &"--regid", &id, &"--clear-groups", &"env", &"-i"]);
    all.extend([format!("PATH={path}"), format!("HOME={}", dir.display())]);
    all.push(format!("XDG_RUNTIME_DIR={}", run.display()));
    all.extend(engine.environment.drain(..).map(|(name, value)| format!("{name}={value}")));
    all.append(&mut engine.words);
    all.extend(podman_options(setting, &program));
    engine.words = all;
    engine.states = vec![run.join(setting.name)];
    import(&engine, setting)?;
    Ok(engine)
}

fn buildah(setting: &Setting) -> Outcome<Engine> {
    let mut engine = stored(setting, "podman", Kind::Buildah, manager())?;
    engine.words.extend(podman_options(setting, setting.program));
    import(&engine, setting)?;
    engine.words = stored(setting, "buildah", Kind::Buildah, manager())?.words;
    let program = setting.program.display().to_string();
    engine.environment.extend([("BUILDAH_RUNTIME", program), ("BUILDAH_ISOLATION", "oci".to_owned())]);
    Ok(engine)
}

/// What a user of the shim of this project wants ctr and CRI to have in place of Go's and the runtime.
pub fn shim(name: &str) -> Option<PathBuf> {
    std::env::var_os("ONGGI_SHIM").filter(|_| name == "onggi").map(PathBuf::from)
}

/// Starts a daemon whose output is the file `log`.
fn daemon(command: &mut Command, dir: &Path) -> Outcome<i32> {
    let log = fs::File::create(dir.join("log"))?;
    let command = command.current_dir(dir).stdin(Stdio::null());
    process::spawn(command.stdout(log.try_clone()?).stderr(log))
}

/// Waits until a call succeeds.
fn answers(engine: &Engine, args: &[&str]) -> Outcome {
    let up = engine.until("the daemon answers", || Ok(engine.call(args)?.code == 0));
    if up.is_ok() {
        return Ok(());
    }
    let log = fs::read_to_string(engine.dir.join("log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().rev().take(6).collect();
    fail(format!("{:?} does not come up: {}", engine.kind, lines.join(" | ")))
}

fn containerd(kind: Kind, setting: &Setting) -> Outcome<Engine> {
    let dir = &setting.dir;
    let plain = dir.display();
    let cri = if kind == Kind::Cri { cri_table(setting) } else { String::new() };
    let without = if kind == Kind::Cri { "" } else { "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]" };
    let text = format!(
        "version = 2\nroot = \"{plain}/root\"\nstate = \"{plain}/state\"\noom_score = 0\n{without}\n\
         [grpc]\naddress = \"{plain}/sock\"\n{cri}"
    );
    fs::write(dir.join("config.toml"), text)?;
    let store = if shim(setting.name).is_some() { "onggi" } else { "runc" };
    let space = if kind == Kind::Cri { "k8s.io" } else { "default" };
    let socket = dir.join("sock");
    let mut engine = Engine {
        kind,
        dir: dir.clone(),
        words: words(&[&"ctr", &"--address", &socket, &"--namespace", &space]),
        environment: Vec::new(),
        image: "localhost/box:latest",
        cgroup: (!systemd()).then(|| setting.cgroup.to_owned()),
        daemon: None,
        states: vec![Path::new("/run/containerd").join(store).join(space)],
    };
    engine.daemon =
        Some(daemon(Command::new("containerd").arg("--config").arg(dir.join("config.toml")), dir)?);
    answers(&engine, &["version"])?;
    let archive = archive(setting.base, setting.shared)?;
    for (name, command) in [("box", &["sh"][..]), ("pause", &["/bin/sleep", "1000000"])] {
        let file = saved(&archive, setting.shared, name, command)?;
        engine.says(&["image", "import", "--snapshotter", "native", &file.display().to_string()])?;
    }
    if kind == Kind::Cri {
        let script = dir.join("cri.py");
        fs::write(&script, include_str!("../cri"))?;
        let Some(python) = python() else { return fail("no Python has the module grpc") };
        engine.words = words(&[&python, &script, &socket]);
        answers(&engine, &["ready"])?;
    }
    Ok(engine)
}

/// The first Python that has the module that the client of CRI needs.
pub fn python() -> Option<&'static str> {
    let works = |program: &&str| {
        let call = process::ask(Command::new(program).args(["-c", "import grpc"]));
        call.is_ok_and(|output| output.code == 0)
    };
    ["python3", "/usr/bin/python3"].into_iter().find(works)
}

fn cri_table(setting: &Setting) -> String {
    let shim = shim(setting.name).map(|shim| shim.display().to_string());
    let kind = shim.unwrap_or_else(|| "io.containerd.runc.v2".to_owned());
    format!(
        "[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"localhost/pause:latest\"\n\
         restrict_oom_score_adj = true\ndisable_hugetlb_controller = true\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"native\"\n\
         default_runtime_name = \"tested\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.tested]\nruntime_type = \"{kind}\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.tested.options]\n\
         BinaryName = \"{}\"\nSystemdCgroup = {}\n",
        setting.program.display(),
        systemd()
    )
}

fn docker(setting: &Setting) -> Outcome<Engine> {
    let dir = &setting.dir;
    let (socket, bin) = (format!("unix://{}", dir.join("sock").display()), dir.join("bin"));
    let at = |name: &str| dir.join(name).display().to_string();
    bundle::make_dir(&bin)?;
    fs::write(dir.join("daemon.json"), "{}")?;
    // BuildKit in Docker 20.10 looks for `runc` in PATH; what it calls it with is kept for a case.
    let script =
        format!("#!/bin/sh\necho \"$*\" >> {}\nexec {} \"$@\"\n", at("buildkit"), setting.program.display());
    fs::write(bin.join("runc"), script)?;
    fs::set_permissions(bin.join("runc"), fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("dockerd");
    command.args(["--oom-score-adjust", "0", "--storage-driver", "vfs", "--default-runtime", "tested"]);
    command.args(["--experimental", "--add-runtime", &format!("tested={}", setting.program.display())]);
    command.args(["--data-root", &at("root"), "--exec-root", &at("exec"), "--pidfile", &at("pid")]);
    command.args(["--config-file", &at("daemon.json"), "--host", &socket]);
    command.args(["--exec-opt", &format!("native.cgroupdriver={}", manager())]);
    if !systemd() {
        command.args(["--cgroup-parent", setting.cgroup]);
    }
    // The distribution's own client fits its daemon.
    let client = ["/usr/bin/docker", "docker"].into_iter().find(|path| Path::new(path).is_file());
    let mut engine = Engine {
        kind: Kind::Docker,
        dir: dir.clone(),
        words: words(&[&client.unwrap_or("docker"), &"--host", &socket]),
        environment: vec![("DOCKER_CONFIG", at("config")), ("DOCKER_HOST", socket)],
        image: "box",
        cgroup: None,
        daemon: Some(daemon(command.env("PATH", path), dir)?),
        states: vec![dir.join("exec/runtime-runc/moby")],
    };
    answers(&engine, &["version"])?;
    import(&engine, setting)?;
    if systemd() {
        engine.cgroup = None;
    }
    Ok(engine)
}

/// What an engine leaves running for its next call.
pub fn before_the_end(engine: &Engine) {
    let pause = engine.dir.join("tmp/pause.pid");
    if let Some(pid) = fs::read_to_string(pause).ok().and_then(|text| text.trim().parse().ok()) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

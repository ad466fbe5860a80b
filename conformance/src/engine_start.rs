//! Starts engines with the runtime under test: their configuration, their daemons and the image. Everything
//! that they write is in a directory of the case, or in file systems that `own_files` lays over the host's.

use crate::bundle;
use crate::case::{Outcome, fail, skip};
use crate::engine::{Engine, Kind, cni_plugins, systemd};
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
        Kind::Ctr | Kind::Cri | Kind::Sandbox => &["containerd", "ctr"],
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
        Kind::Ctr | Kind::Cri | Kind::Sandbox => containerd(kind, setting),
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
        environment: vec![
            ("CONTAINERS_CONF", configuration),
            ("TMPDIR", dir.display().to_string()),
            // Podman 5 writes a line about cgroup v1 among the container's own otherwise.
            ("PODMAN_IGNORE_CGROUPSV1_WARNING", "1".to_owned()),
        ],
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
    if let Some(run) = run {
        forget_pause(&run.join("libpod/tmp/pause.pid"));
        engine.states.push(run.join(setting.name));
    }
    import(&engine, setting)?;
    Ok(engine)
}

/// A user's Podman keeps a process between calls, and fails where its file names one that is gone: the sweep after
/// a case that has failed ends all processes.
fn forget_pause(file: &Path) {
    let pid = fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<u32>().ok());
    if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
        let _ = fs::remove_file(file);
    }
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

/// What a program has in its help.
fn knows(program: &str, args: &[&str], option: &str) -> bool {
    let output = process::ask(Command::new(program).args(args));
    output.is_ok_and(|output| output.stdout.contains(option) || output.stderr.contains(option))
}

/// Puts the shim where containerd looks for the one of runc: ctr has the option of systemd's cgroups for this name
/// alone, and a sandbox is of the program with the runtime's name, whatever path CRI is given.
fn shim_as_runc(setting: &Setting) -> Outcome<String> {
    let bin = setting.dir.join("bin");
    bundle::make_dir(&bin)?;
    if let Some(shim) = shim(setting.name) {
        std::os::unix::fs::symlink(shim, bin.join("containerd-shim-runc-v2"))?;
    }
    Ok(format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default()))
}

fn containerd(kind: Kind, setting: &Setting) -> Outcome<Engine> {
    let dir = &setting.dir;
    if kind == Kind::Sandbox && shim(setting.name).is_none() {
        return skip("is about this project's shim");
    }
    let plain = dir.display();
    let (table, without) = match kind {
        Kind::Ctr => (String::new(), "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]"),
        _ => (cri_table(kind, setting)?, ""),
    };
    let text = format!(
        "version = 2\nroot = \"{plain}/root\"\nstate = \"{plain}/state\"\noom_score = 0\n{without}\n\
         [grpc]\naddress = \"{plain}/sock\"\n{table}"
    );
    fs::write(dir.join("config.toml"), text)?;
    let store = if shim(setting.name).is_some() { "onggi" } else { "runc" };
    let space = if kind == Kind::Ctr { "default" } else { "k8s.io" };
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
    let mut command = Command::new("containerd");
    if kind == Kind::Sandbox || kind == Kind::Ctr && systemd() {
        command.env("PATH", shim_as_runc(setting)?);
    }
    engine.daemon = Some(daemon(command.arg("--config").arg(dir.join("config.toml")), dir)?);
    answers(&engine, &["version"])?;
    import_saved(&engine, setting)?;
    if kind != Kind::Ctr {
        let script = dir.join("cri.py");
        fs::write(&script, include_str!("../cri"))?;
        let Some(python) = python() else { return skip("needs Python's module grpc (python3-grpcio)") };
        engine.words = words(&[&python, &script, &socket]);
        if kind == Kind::Sandbox {
            engine.environment.push(("NETWORK", "pod".to_owned()));
        }
        answers(&engine, &["ready"])?;
    }
    Ok(engine)
}

fn import_saved(engine: &Engine, setting: &Setting) -> Outcome {
    let archive = archive(setting.base, setting.shared)?;
    // By ctr itself, where it can also have containerd do it: that knows no snapshotter for it in 2.1.
    let local: &[&str] =
        if knows("ctr", &["image", "import", "--help"], "--local") { &["--local"] } else { &[] };
    for (name, command) in [("box", &["sh"][..]), ("pause", &["/bin/sleep", "1000000"])] {
        let file = saved(&archive, setting.shared, name, command)?.display().to_string();
        let snapshotter = ["--snapshotter", snapshotter(engine.kind), &file];
        engine.says(&[&["image", "import"], local, &snapshotter].concat())?;
    }
    Ok(())
}

/// Files of a pod with a user namespace are mapped by the mounts of overlayfs: containerd 2.1 itself changes the owner of
/// a file with two names twice, and fails. Others run where overlayfs may not be had.
fn snapshotter(kind: Kind) -> &'static str {
    if kind == Kind::Sandbox { "overlayfs" } else { "native" }
}

/// The first Python that has the module that the client of CRI needs.
pub fn python() -> Option<&'static str> {
    let works = |program: &&str| {
        let call = process::ask(Command::new(program).args(["-c", "import grpc"]));
        call.is_ok_and(|output| output.code == 0)
    };
    ["python3", "/usr/bin/python3"].into_iter().find(works)
}

fn cri_table(kind: Kind, setting: &Setting) -> Outcome<String> {
    let own = shim(setting.name).filter(|_| kind == Kind::Cri).map(|shim| shim.display().to_string());
    let program = own.unwrap_or_else(|| "io.containerd.runc.v2".to_owned());
    let mut text = format!(
        "[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"localhost/pause:latest\"\n\
         restrict_oom_score_adj = true\ndisable_hugetlb_controller = true\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"{}\"\n\
         default_runtime_name = \"tested\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.tested]\nruntime_type = \"{program}\"\n",
        snapshotter(kind)
    );
    if kind == Kind::Sandbox {
        text.push_str("sandboxer = \"shim\"\n");
    }
    text.push_str("[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.tested.options]\n");
    text.push_str(&format!("SystemdCgroup = {}\n", systemd()));
    // This project's shim executes none.
    if shim(setting.name).is_none() {
        text.push_str(&format!("BinaryName = \"{}\"\n", setting.program.display()));
    }
    if let Some(plugins) = cni_plugins().filter(|_| kind == Kind::Sandbox) {
        let dir = setting.dir.display();
        text.push_str(&format!(
            "[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"{}\"\nconf_dir = \"{dir}\"\n",
            plugins.display()
        ));
        let ipam = serde_json::json!({ "type": "host-local", "dataDir": format!("{dir}/leases"), "subnet": "10.79.0.0/16" });
        let bridge =
            serde_json::json!({ "type": "bridge", "bridge": "cni2", "isGateway": true, "ipam": ipam });
        let list = serde_json::json!({ "cniVersion": "0.4.0", "name": "pods", "plugins": [bridge] });
        fs::write(setting.dir.join("10-pods.conflist"), list.to_string())?;
    }
    Ok(text)
}

/// Options of dockerd for the runtime, and where that keeps its containers then.
fn docker_runtime(setting: &Setting) -> Outcome<(Vec<String>, PathBuf)> {
    let file = setting.dir.join("daemon.json");
    let Some(shim) = shim(setting.name) else {
        // A file of its own: the host's may name other runtimes.
        fs::write(file, "{}")?;
        let runtime = format!("tested={}", setting.program.display());
        let options = ["--default-runtime", "tested", "--add-runtime", &runtime].map(str::to_owned).to_vec();
        return Ok((options, setting.dir.join("exec/runtime-runc/moby")));
    };
    let version = process::ask(Command::new("dockerd").arg("--version"))?.stdout;
    if ["version 20.", "version 19.", "version 18."].iter().any(|old| version.contains(old)) {
        return skip("needs Docker 23, which has other shims than runc's");
    }
    let shim = serde_json::json!({ "runtimeType": shim.display().to_string() });
    let text = serde_json::json!({ "runtimes": { "tested": shim }, "default-runtime": "tested" });
    fs::write(file, text.to_string())?;
    Ok((Vec::new(), PathBuf::from("/run/containerd/onggi/moby")))
}

fn docker(setting: &Setting) -> Outcome<Engine> {
    let dir = &setting.dir;
    let (socket, bin) = (format!("unix://{}", dir.join("sock").display()), dir.join("bin"));
    let at = |name: &str| dir.join(name).display().to_string();
    bundle::make_dir(&bin)?;
    let (options, state) = docker_runtime(setting)?;
    // BuildKit in Docker 20.10 looks for `runc` in PATH; what it calls it with is kept for a case.
    let script =
        format!("#!/bin/sh\necho \"$*\" >> {}\nexec {} \"$@\"\n", at("buildkit"), setting.program.display());
    fs::write(bin.join("runc"), script)?;
    fs::set_permissions(bin.join("runc"), fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("dockerd");
    command.args(["--experimental", "--storage-driver", "vfs"]).args(options);
    // Its own score needs CAP_SYS_RESOURCE; since 25.0 it keeps the one that it has.
    if knows("dockerd", &["--help"], "--oom-score-adjust") {
        command.args(["--oom-score-adjust", "0"]);
    }
    command.args(["--data-root", &at("root"), "--exec-root", &at("exec"), "--pidfile", &at("pid")]);
    command.args(["--config-file", &at("daemon.json"), "--host", &socket]);
    command.args(["--exec-opt", &format!("native.cgroupdriver={}", manager())]);
    if !systemd() {
        command.args(["--cgroup-parent", setting.cgroup]);
    }
    // The distribution's own client fits its daemon.
    let client = ["/usr/bin/docker", "docker"].into_iter().find(|path| Path::new(path).is_file());
    let engine = Engine {
        kind: Kind::Docker,
        dir: dir.clone(),
        words: words(&[&client.unwrap_or("docker"), &"--host", &socket]),
        environment: vec![("DOCKER_CONFIG", at("config")), ("DOCKER_HOST", socket)],
        image: "box",
        cgroup: None,
        daemon: Some(daemon(command.env("PATH", path), dir)?),
        states: vec![state],
    };
    answers(&engine, &["version"])?;
    import(&engine, setting)?;
    Ok(engine)
}

/// What an engine leaves running for its next call.
pub fn before_the_end(engine: &Engine) {
    // Podman 5 has it below the user's runtime directory.
    for pause in ["tmp/pause.pid", "xdg/libpod/tmp/pause.pid"] {
        let text = fs::read_to_string(engine.dir.join(pause)).ok();
        if let Some(pid) = text.and_then(|text| text.trim().parse().ok()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

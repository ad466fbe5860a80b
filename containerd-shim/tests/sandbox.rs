//! Pods without a pause container: the Sandbox service. Needs root, busybox and unshare.

mod play;

use play::*;
use prost::Message;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Child, Command};

const SANDBOX: &str = "containerd.runtime.sandbox.v1.Sandbox";
/// Of `NamespaceMode`.
const CONTAINER: u64 = 1;
const SLEEP: &[&str] = &["busybox", "sleep", "1000"];
/// Of the pod: its containers would be below, and nothing is.
const CGROUP: &str = "/onggi-shim-tests-pod";
/// The id that root of a user namespace has outside.
const FIRST: u64 = 200_000;
/// Of a task's `Status`.
const STOPPED: u64 = 3;

/// A shim for a pod `p`, and a network namespace.
struct Pod {
    shim: Shim,
    network: Child,
    /// The roots of its containers are.
    is_read_only: bool,
    /// Namespaces that its containers share beside network, ipc and uts.
    shared: &'static [(&'static str, &'static str)],
    capabilities: &'static [&'static str],
}

impl Pod {
    fn begin(name: &str) -> Option<Self> {
        if let Some(reason) = missing() {
            eprintln!("{reason}");
            return None;
        }
        let mut shim = Shim::prepare(name, SLEEP, &|_| ());
        // Where containerd has it: not beside those of containers, and without a configuration.
        let bundle = shim.directory.join("sandboxes/p");
        fs::create_dir_all(&bundle).unwrap();
        fs::create_dir(shim.directory.join("disk")).unwrap();
        symlink(shim.directory.join("disk"), bundle.join("work")).unwrap();
        symlink(&bundle, shim.bundle_of("p")).unwrap();
        fs::create_dir(shim.directory.join("image/etc")).unwrap();
        for file in ["hostname", "hosts", "resolv.conf"] {
            fs::write(shim.directory.join("image/etc").join(file), "of the image\n").unwrap();
        }
        let output = shim.start_of("p");
        assert!(output.status.success(), "{output:?}");
        shim.socket = text(&fields(&output.stdout), 2).strip_prefix("unix://").unwrap().into();
        let network = Command::new("unshare").args(["-n", "sleep", "1000"]).spawn().unwrap();
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let path = format!("/proc/{}/ns/net", network.id());
        await_that("a network namespace", || fs::read_link(&path).is_ok_and(|link| link != own));
        Some(Self { shim, network, is_read_only: false, shared: &[], capabilities: &[] })
    }

    fn network_path(&self) -> String {
        format!("/proc/{}/ns/net", self.network.id())
    }

    fn call(&self, method: &str, payload: Fields) -> Answer {
        let request =
            Request { service: SANDBOX.into(), method: method.into(), payload: payload.0, timeout_nano: 0 };
        let mut socket = self.shim.connect();
        socket.write_all(&frame(1, &request.encode_to_vec())).unwrap();
        answer(&receive(&mut socket).unwrap().1)
    }

    fn of(&self, method: &str) -> Answer {
        self.call(method, Fields::default().text(1, "p"))
    }

    /// `namespaces` is a NamespaceOption.
    fn create(&self, namespaces: Fields, sysctl: &str) -> Answer {
        self.create_in(&self.network_path(), namespaces, sysctl)
    }

    fn create_in(&self, network: &str, namespaces: Fields, sysctl: &str) -> Answer {
        let security = Fields::default().bytes(1, &namespaces.0);
        let sysctl = Fields::default().text(1, sysctl).text(2, "123");
        let linux = Fields::default().text(1, CGROUP).bytes(2, &security.0).bytes(3, &sysctl.0);
        let dns = Fields::default().text(1, "10.9.8.7");
        let config = Fields::default().text(2, "in-the-pod").bytes(4, &dns.0).bytes(8, &linux.0);
        let any = Fields::default().text(1, "runtime.v1.PodSandboxConfig").bytes(2, &config.0);
        let bundle = self.shim.directory.join("sandboxes/p");
        let wanted = Fields::default().text(1, "p").text(2, bundle.to_str().unwrap());
        self.call("CreateSandbox", wanted.bytes(4, &any.0).text(5, network))
    }

    /// Ready; returns its pid.
    fn start(&self) -> u64 {
        self.create(Fields::default().number(2, CONTAINER), "kernel.shmmni").unwrap();
        assert_eq!(self.state(), ("SANDBOX_NOTREADY".into(), self.state().1));
        let pid = number(&fields(&self.of("StartSandbox").unwrap()), 1);
        assert_eq!(self.state(), ("SANDBOX_READY".into(), pid));
        pid
    }

    fn state(&self) -> (String, u64) {
        let status = fields(&self.of("SandboxStatus").unwrap());
        (text(&status, 3), number(&status, 2))
    }

    /// The bundle of a container as containerd writes it, and what it says of itself.
    fn run(&self, id: &str, pid: u64, script: &str) -> String {
        self.shim.add(id, &["busybox", "sh", "-c", &format!("{script}; echo done; busybox sleep 1000")]);
        let path = self.shim.bundle_of(id).join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config["annotations"] = serde_json::json!({ "io.kubernetes.cri.sandbox-id": "p" });
        config["root"]["readonly"] = self.is_read_only.into();
        let all = self.capabilities;
        config["process"]["capabilities"] =
            serde_json::json!({ "bounding": all, "permitted": all, "effective": all });
        let has_own_pids = !self.shared.contains(&("pid", "pid"));
        let own = ["mount", "pid"].into_iter().filter(|kind| *kind == "mount" || has_own_pids);
        let own = own.map(|kind| serde_json::json!({ "type": kind }));
        let shared = [("network", "net"), ("ipc", "ipc"), ("uts", "uts")];
        let shared = shared.iter().chain(self.shared).map(
            |(kind, name)| serde_json::json!({ "type": kind, "path": format!("/proc/{pid}/ns/{name}") }),
        );
        config["linux"]["namespaces"] = own.chain(shared).collect();
        if self.shared.contains(&("user", "user")) {
            let map = serde_json::json!([{ "containerID": 0, "hostID": FIRST, "size": 65536 }]);
            (config["linux"]["uidMappings"], config["linux"]["gidMappings"]) = (map.clone(), map);
        }
        let shm = serde_json::json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "shm" });
        config["mounts"].as_array_mut().unwrap().push(shm);
        fs::write(&path, config.to_string()).unwrap();
        let fifo = self.shim.fifo(&format!("out-{id}"));
        let mut reader = open_reader(&fifo);
        self.shim.create_with(id, Fields::default().text(6, fifo.to_str().unwrap())).unwrap();
        self.shim.call("Start", of_container(id, "")).unwrap();
        read_until(&mut reader, "done")
    }

    fn remove(&self, id: &str) {
        self.shim.call("Kill", of_container(id, "").number(3, 9)).unwrap();
        self.shim.call("Wait", of_container(id, "")).unwrap();
        self.shim.call("Delete", of_container(id, "")).unwrap();
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.network.kill();
        let _ = self.network.wait();
    }
}

/// `UserNamespace` with a map from this id on.
fn users(first: u64) -> Fields {
    let map = Fields::default().number(1, FIRST).number(2, first).number(3, 65536);
    Fields::default().bytes(2, &map.0).bytes(3, &map.0)
}

fn link(pid: impl std::fmt::Display, kind: &str) -> std::path::PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()
}

/// Of all threads.
fn children(shim: i32) -> String {
    let threads = fs::read_dir(format!("/proc/{shim}/task")).unwrap().flatten();
    threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default()).collect()
}

#[test]
#[ignore = "needs root"]
fn the_network_namespace_of_the_shim_is_refused() {
    let Some(pod) = Pod::begin("own-network") else { return };
    // Were it not refused, there is no such sysctl to change.
    let refused =
        pod.create_in("/proc/self/ns/net", Fields::default().number(2, CONTAINER), "net.none").unwrap_err();
    assert!(refused.message.contains("is the network namespace of the shim"), "{refused:?}");
    pod.of("ShutdownSandbox").unwrap();
}

#[test]
#[ignore = "needs root"]
fn containers_share_a_pod_that_has_no_process() {
    share_a_pod("sandbox", false);
}

#[test]
#[ignore = "needs root"]
fn files_of_a_pod_are_read_only_where_the_root_of_a_container_is() {
    share_a_pod("sandbox-read-only", true);
}

fn share_a_pod(name: &str, is_read_only: bool) {
    let Some(mut pod) = Pod::begin(name) else { return };
    pod.is_read_only = is_read_only;
    let name_of_host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let pid = pod.start();
    let of_shim = pod.shim.pid();
    assert_eq!(children(of_shim), "", "there is a process");
    assert!(!fs::read_dir("/proc").unwrap().flatten().any(|one| one.file_name() == pid.to_string().as_str()));
    assert_eq!(link(pid, "net"), link(pod.network.id(), "net"));
    for kind in ["ipc", "uts"] {
        assert_ne!(link(pid, kind), link("self", kind), "{kind}");
    }
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(link(of_shim, kind), link("self", kind), "{kind} of the shim");
    }
    let platform = fields(&pod.of("Platform").unwrap());
    assert_eq!(text(&fields(&platform[&1].1), 1), "linux");
    pod.of("PingSandbox").unwrap();
    let script = "busybox hostname; busybox cat /etc/hostname /etc/resolv.conf /proc/sys/kernel/shmmni; \
                  busybox readlink /proc/self/ns/ipc; echo of b > /dev/shm/f";
    let said = pod.run("b", pid, script);
    let ipc = link(pid, "ipc").display().to_string();
    for wanted in ["in-the-pod\nin-the-pod\n", "nameserver 10.9.8.7\n", "\n123\n", &ipc] {
        assert!(said.contains(wanted), "no {wanted:?} in {said}");
    }
    let files = |directory: &str| fs::read_dir(pod.shim.directory.join(directory)).unwrap().count();
    assert_eq!(files("disk"), 3, "the files are not on disk");
    let said = pod.run("c", pid, "busybox cat /dev/shm/f /etc/hosts; (echo 1.2.3.4 >> /etc/hosts) 2>&1");
    assert_eq!(said.contains("Read-only file system"), is_read_only, "{said}");
    assert!(said.contains("of b\n") && !said.contains("of the image"), "{said}");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), name_of_host);
    pod.remove("b");
    pod.remove("c");
    // The last container has gone, and the pod has not.
    pod.shim.of("Shutdown", "").unwrap();
    std::thread::scope(|scope| {
        let wait = scope.spawn(|| pod.of("WaitSandbox"));
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!wait.is_finished());
        pod.call("StopSandbox", Fields::default().text(1, "p").number(2, 10)).unwrap();
        let exit = fields(&wait.join().unwrap().unwrap());
        assert_eq!((number(&exit, 1), exit.contains_key(&2)), (0, true));
    });
    assert_eq!(pod.state(), ("SANDBOX_NOTREADY".into(), 0));
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the thread is left");
    pod.of("StopSandbox").unwrap();
    pod.of("ShutdownSandbox").unwrap();
    await_end(of_shim);
    assert!(!pod.shim.socket.exists(), "the socket is left");
    pod.shim.check_nothing_left();
}

#[test]
#[ignore = "needs root"]
fn a_pod_that_is_stopped_ends_its_containers_first() {
    let Some(pod) = Pod::begin("sandbox-stopped") else { return };
    let pid = pod.start();
    // The second one is frozen: a signal alone does not end it.
    pod.run("b", pid, "true");
    pod.run("d", pid, "true");
    pod.shim.call("Pause", of_container("d", "")).unwrap();
    pod.of("StopSandbox").unwrap();
    for id in ["b", "d"] {
        let state = fields(&pod.shim.call("State", of_container(id, "")).unwrap());
        assert_eq!((number(&state, 4), number(&state, 9)), (STOPPED, 137), "{id}");
        pod.shim.call("Delete", of_container(id, "")).unwrap();
    }
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the thread is left");
    let of_shim = pod.shim.pid();
    pod.of("ShutdownSandbox").unwrap();
    await_end(of_shim);
    pod.shim.check_nothing_left();
}

#[test]
#[ignore = "needs root"]
fn delete_cleans_up_a_pod_whose_shim_was_killed() {
    let Some(pod) = Pod::begin("sandbox-killed") else { return };
    let pid = pod.start();
    pod.run("b", pid, "true");
    let of_shim = pod.shim.pid();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(of_shim), nix::sys::signal::Signal::SIGKILL).unwrap();
    await_end(of_shim);
    let deleted = pod.shim.run(
        "p",
        &["-bundle", pod.shim.directory.join("sandboxes/p").to_str().unwrap(), "delete"],
        b"",
    );
    assert!(deleted.status.success(), "{deleted:?}");
    assert!(!pod.shim.socket.exists(), "the socket is left");
    pod.shim.check_nothing_left();
}

#[test]
#[ignore = "needs root"]
fn a_pod_that_the_shim_cannot_make_is_refused_and_leaves_nothing() {
    let Some(pod) = Pod::begin("sandbox-refused") else { return };
    let own = || Fields::default().number(2, CONTAINER);
    for (namespaces, sysctl, wanted) in [
        (own().bytes(5, &users(1).0), "kernel.shmmni", "userns_options.uids: 0 is not in it"),
        (own().bytes(5, &users(0).0), "kernel.shmmni", "belongs to the shim's own user namespace"),
        (own(), "kernel.core_pattern", "kernel.core_pattern is not of a namespace"),
        // Only the kernel knows: after the mount.
        (own(), "net.no.such", "write /proc/sys/net/no/such: "),
        (Fields::default(), "net.no.such", "write /proc/sys/net/no/such: "),
    ] {
        let failure = pod.create(namespaces, sysctl).unwrap_err();
        assert!(failure.message.contains(wanted), "{failure:?}");
        assert_eq!(pod.of("StartSandbox").unwrap_err().code, 5);
        pod.shim.check_nothing_left();
    }
    let of_shim = pod.shim.pid();
    pod.of("ShutdownSandbox").unwrap();
    await_end(of_shim);
    assert!(!pod.shim.socket.exists(), "the socket is left");
}

/// The cgroup of a pod, in the hierarchies of this host, as long as it lives.
struct Cgroup(Vec<std::path::PathBuf>);

impl Cgroup {
    fn make() -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let all = fs::read_dir(root).unwrap().flatten().map(|entry| entry.path());
        let hierarchies = all.chain([root.into()]).filter(|path| path.join("cgroup.procs").exists());
        let made: Vec<_> = hierarchies.map(|path| path.join(CGROUP.trim_start_matches('/'))).collect();
        made.iter().for_each(|path| {
            let _ = fs::create_dir(path);
        });
        Self(made)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| {
            let _ = fs::remove_dir(path);
        });
    }
}

#[test]
#[ignore = "needs root"]
fn metrics_are_those_of_the_cgroup_and_the_network_of_the_pod() {
    let Some(pod) = Pod::begin("sandbox-metrics") else { return };
    assert_eq!(pod.of("SandboxMetrics").unwrap_err().code, 5);
    pod.start();
    let missing = pod.of("SandboxMetrics").unwrap_err();
    assert!(missing.code == 5 && missing.message.contains(CGROUP), "{missing:?}");
    let _cgroup = Cgroup::make();
    let metrics = fields(&fields(&pod.of("SandboxMetrics").unwrap())[&1].1);
    assert_eq!(text(&metrics, 2), "p");
    assert!(number(&fields(&metrics[&1].1), 1) > 1_600_000_000, "no time");
    let data = fields(&metrics[&3].1);
    let kind = text(&data, 1);
    assert!(kind.starts_with("io.containerd.cgroups.v") && kind.ends_with(".Metrics"), "{kind}");
    let stats = fields(&data[&2].1);
    assert!(stats.contains_key(&2) && stats.contains_key(&4), "no cpu, memory or pids: {stats:?}");
    pod.of("StopSandbox").unwrap();
    assert_eq!(pod.of("SandboxMetrics").unwrap_err().code, 9);
    pod.of("ShutdownSandbox").unwrap();
}

/// What `/proc/PID/status` says there.
fn status(pid: u64, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_default().trim().replace('\t', " ")
}

#[test]
#[ignore = "needs root"]
fn containers_share_a_pid_namespace_whose_init_reaps_and_is_confined() {
    let Some(mut pod) = Pod::begin("sandbox-pids") else { return };
    pod.shared = &[("pid", "pid")];
    pod.create(Fields::default(), "kernel.shmmni").unwrap();
    let pid = number(&fields(&pod.of("StartSandbox").unwrap()), 1);
    for (name, wanted) in
        [("Name", "pod-init"), ("CapEff", "0000000000000000"), ("CapPrm", "0000000000000000")]
    {
        assert_eq!(status(pid, name), wanted, "{name}");
    }
    assert_eq!((status(pid, "Seccomp").as_str(), status(pid, "NoNewPrivs").as_str()), ("1", "1"));
    assert_eq!(fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(), 2);
    assert_eq!(fs::read_dir(format!("/proc/{pid}/root")).unwrap().count(), 0, "it has files");
    assert_eq!(link(pid, "net"), link(pod.network.id(), "net"));
    assert_ne!(link(pid, "mnt"), link(pod.shim.pid(), "mnt"));
    // An orphan becomes the child of the init, which leaves no zombie.
    let orphan = "(busybox sh -c 'busybox sleep 0.1 & echo $! > /dev/shm/orphan'); busybox sleep 0.5; \
                  test ! -d /proc/$(busybox cat /dev/shm/orphan) && echo reaped; echo of $$; \
                  busybox tr '\\0' ' ' < /proc/1/cmdline; busybox readlink /proc/self/ns/pid";
    let said = pod.run("b", pid, orphan);
    let own = link(pid, "pid").display().to_string();
    for wanted in ["reaped\n", "pod-init ", &own] {
        assert!(said.contains(wanted), "no {wanted:?} in {said}");
    }
    assert!(!said.contains("containerd-shim") && !said.contains("of 1\n"), "{said}");
    // The first container ends, and the namespace goes on.
    pod.remove("b");
    let said = pod.run("c", pid, "busybox kill -9 1; busybox kill -15 1; busybox ps");
    assert!(said.contains("pod-init"), "{said}");
    pod.of("StopSandbox").unwrap();
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the init is left");
    pod.shim.call("Delete", of_container("c", "")).unwrap();
    let of_shim = pod.shim.pid();
    assert_eq!(children(of_shim), "");
    pod.of("ShutdownSandbox").unwrap();
    await_end(of_shim);
    pod.shim.check_nothing_left();
}

/// With CAP_SYS_PTRACE, as a debugger's container has it.
#[test]
#[ignore = "needs root"]
fn the_init_of_a_pod_shows_nothing_of_the_shim_and_of_the_host() {
    let Some(mut pod) = Pod::begin("sandbox-init-seen") else { return };
    pod.shared = &[("pid", "pid")];
    pod.capabilities = &["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"];
    pod.create(Fields::default(), "kernel.shmmni").unwrap();
    let pid = number(&fields(&pod.of("StartSandbox").unwrap()), 1);
    let script = "busybox readlink /proc/1/exe; busybox ls -l /proc/1/fd; busybox cat /proc/1/maps; \
                  busybox tr '\\0' ' ' < /proc/1/environ; busybox cat /proc/1/mountinfo; \
                  (: >> /proc/1/exe) 2>&1";
    let said = pod.run("b", pid, script);
    for wanted in ["memfd:pod-init", "0 -> socket:", "1 -> pipe:", "[stack]"] {
        assert!(said.contains(wanted), "no {wanted:?} in {said}");
    }
    for secret in ["containerd-shim", "[heap]", "PATH=", "TTRPC", "ext4", "overlay"] {
        assert!(!said.contains(secret), "{secret:?} in {said}");
    }
    let program =
        |pid: u64| fs::metadata(format!("/proc/{pid}/exe")).map(|found| (found.dev(), found.ino())).unwrap();
    assert_ne!(program(pid), program(pod.shim.pid() as u64), "the init's program is the shim's");
    pod.of("StopSandbox").unwrap();
    pod.shim.call("Delete", of_container("b", "")).unwrap();
    let of_shim = pod.shim.pid();
    pod.of("ShutdownSandbox").unwrap();
    await_end(of_shim);
    pod.shim.check_nothing_left();
}

#[test]
#[ignore = "needs root"]
fn a_pod_ends_with_its_init_and_the_init_with_a_shim_that_is_killed() {
    let kill = |pid: u64| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL)
            .unwrap();
    };
    let Some(mut pod) = Pod::begin("sandbox-init-killed") else { return };
    pod.shared = &[("pid", "pid")];
    pod.create(Fields::default(), "kernel.shmmni").unwrap();
    let pid = number(&fields(&pod.of("StartSandbox").unwrap()), 1);
    pod.run("b", pid, "true");
    std::thread::scope(|scope| {
        let wait = scope.spawn(|| pod.of("WaitSandbox"));
        kill(pid);
        wait.join().unwrap().unwrap();
    });
    assert_eq!(pod.state(), ("SANDBOX_NOTREADY".into(), 0));
    let exit = fields(&pod.shim.call("Wait", of_container("b", "")).unwrap());
    assert_eq!(number(&exit, 1), 137);
    pod.shim.call("Delete", of_container("b", "")).unwrap();
    let of_shim = pod.shim.pid();
    pod.of("ShutdownSandbox").unwrap();
    await_end(of_shim);
    pod.shim.check_nothing_left();
    drop(pod);

    let Some(pod) = Pod::begin("sandbox-shim-killed") else { return };
    pod.create(Fields::default(), "kernel.shmmni").unwrap();
    let pid = number(&fields(&pod.of("StartSandbox").unwrap()), 1);
    kill(pod.shim.pid() as u64);
    await_that("the end of the init", || !Path::new(&format!("/proc/{pid}")).exists());
    let bundle = pod.shim.directory.join("sandboxes/p");
    let deleted = pod.shim.run("p", &["-bundle", bundle.to_str().unwrap(), "delete"], b"");
    assert!(deleted.status.success(), "{deleted:?}");
    pod.shim.check_nothing_left();
}

#[test]
#[ignore = "needs root"]
fn a_pod_with_a_user_namespace_has_a_network_of_it() {
    let Some(pod) = Pod::begin("sandbox-users") else { return };
    share_users(pod, "");
}

/// As containerd 2.1 makes it: the user namespace is known by the network namespace alone.
#[test]
#[ignore = "needs root"]
fn a_pod_joins_the_user_namespace_of_its_network() {
    let Some(pod) = Pod::begin("sandbox-users-joined") else { return };
    let mut holder = Command::new("unshare").args(["-U", "-n", "sleep", "1000"]).spawn().unwrap();
    let is_ready =
        || fs::read_to_string(format!("/proc/{}/comm", holder.id())).is_ok_and(|name| name == "sleep\n");
    await_that("a network namespace", is_ready);
    for name in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{name}", holder.id()), format!("0 {FIRST} 65536")).unwrap();
    }
    let user = link(holder.id(), "user");
    let file = fs::File::open(format!("/proc/{}/ns/net", holder.id())).unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&file));
    assert_eq!(share_users(pod, &path), user);
}

/// Returns the user namespace.
fn share_users(mut pod: Pod, network: &str) -> std::path::PathBuf {
    pod.shared = &[("pid", "pid"), ("user", "user")];
    pod.create_in(network, Fields::default().bytes(5, &users(0).0), "net.ipv4.ip_forward").unwrap();
    let pid = number(&fields(&pod.of("StartSandbox").unwrap()), 1);
    for kind in ["user", "net", "ipc", "uts", "pid"] {
        assert_ne!(link(pid, kind), link("self", kind), "{kind}");
    }
    assert_eq!(status(pid, "Uid"), format!("{FIRST} {FIRST} {FIRST} {FIRST}"));
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", &FIRST.to_string(), "65536"]);
    let script = "busybox hostname; busybox cat /proc/sys/net/ipv4/ip_forward; busybox id -u; \
                  busybox readlink /proc/self/ns/net; echo 1.2.3.4 a >> /etc/hosts && echo written; \
                  busybox touch /dev/shm/f && echo touched";
    let said = pod.run("b", pid, script);
    let (network, user) = (link(pid, "net").display().to_string(), link(pid, "user"));
    for wanted in ["in-the-pod\n123\n0\n", &network, "written\n", "touched\n"] {
        assert!(said.contains(wanted), "no {wanted:?} in {said}");
    }
    pod.of("StopSandbox").unwrap();
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the init is left");
    pod.shim.call("Delete", of_container("b", "")).unwrap();
    let of_shim = pod.shim.pid();
    pod.of("ShutdownSandbox").unwrap();
    await_end(of_shim);
    pod.shim.check_nothing_left();
    user
}

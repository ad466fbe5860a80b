//! Networks without root. Each test runs its own program again, as nobody, in a mount namespace whose
//! /dev/net/tun is as it is on most systems, and where the programs that it is not about are missing.

use super::tests::{Store, ask, connect};
use super::*;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Whether the test goes on here: as nobody, with the programs of `hidden` out of sight.
fn as_nobody(name: &str, needed: &str, hidden: &[&str]) -> bool {
    if !nix::unistd::geteuid().is_root() {
        return true;
    }
    if !needed.is_empty() && Command::new(needed).arg("--help").output().is_err() {
        eprintln!("skipped: {needed} is not installed");
        return false;
    }
    let copy = std::env::temp_dir().join(format!("onggi-rootless-{}-{needed}", std::process::id()));
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let bin = copy.with_extension("bin");
    fs::create_dir_all(&bin).unwrap();
    for program in ["unshare", "sh", "ip", "busybox", "nsenter", "pasta", "slirp4netns"] {
        let path = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
        let path = String::from_utf8_lossy(&path.stdout).trim().to_string();
        if !hidden.contains(&program) && !path.is_empty() {
            let _ = std::os::unix::fs::symlink(path, bin.join(program));
        }
    }
    let script = format!(
        "mount --make-rprivate / && mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200 &&
         ip link set lo up && ip link add out0 type veth peer name out1 && ip addr add 192.0.2.1/24 dev out0 &&
         ip link set out0 up && ip link set out1 up && ip route add default via 192.0.2.2 &&
         PATH={} exec $(command -v setpriv) --reuid 65534 --regid 65534 --clear-groups {} --include-ignored --exact {name} --nocapture",
        bin.display(),
        copy.display(),
    );
    let output = Command::new("unshare").args(["-mn", "sh", "-c", &script]).output().unwrap();
    fs::remove_file(&copy).unwrap();
    fs::remove_dir_all(&bin).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{why}");
    false
}

fn connects_and_publishes(port: u16) {
    let store = Store::new();
    fs::create_dir_all(store.0.join("a")).unwrap();
    let serve = "ip link set lo up; exec busybox nc -ll -p 80 -e echo hello";
    let mut init = Command::new("unshare")
        .args(["-Urn", "sh", "-c", serve])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let netns = fs::File::open(format!("/proc/{}/ns/net", init.id())).unwrap();
    let wish = |text: &str| Network { name: "eth0".into(), ..Network::parse(text, "here").unwrap() };
    let set_up = |text: &str| connect(&store.0, "a", &[wish(text)], netns.as_fd());
    assert!(set_up("bridge=web").unwrap_err().to_string().contains("bridge: not without root"));
    let address = format!("127.0.0.1:{port}");
    let attached = set_up(&format!("publish={address}:80,mtu=1400")).unwrap();
    assert_eq!(attached.networks[0].addresses[0].to_string(), "10.0.2.100/24");
    assert_eq!(ask(address.parse().unwrap()), Some("hello\n".into()));
    tear_down(&store.0, "a", false).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(ask(address.parse().unwrap()), None);
    tear_down(&store.0, "a", false).unwrap();
    init.kill().unwrap();
    init.wait().unwrap();
}

#[test]
#[ignore = "needs root"]
fn without_root_slirp4netns_connects_and_publishes() {
    const NAME: &str = "network::rootless_tests::without_root_slirp4netns_connects_and_publishes";
    if as_nobody(NAME, "slirp4netns", &["pasta"]) {
        connects_and_publishes(18080);
    }
}

#[test]
#[ignore = "needs root"]
fn without_root_pasta_connects_and_publishes() {
    const NAME: &str = "network::rootless_tests::without_root_pasta_connects_and_publishes";
    if as_nobody(NAME, "pasta", &["slirp4netns"]) {
        connects_and_publishes(18081);
    }
}

#[test]
#[ignore = "needs root"]
fn without_root_and_without_either_there_is_an_error() {
    const NAME: &str = "network::rootless_tests::without_root_and_without_either_there_is_an_error";
    if as_nobody(NAME, "", &["slirp4netns", "pasta", "none"]) {
        let store = Store::new();
        fs::create_dir_all(store.0.join("a")).unwrap();
        let netns = fs::File::open("/proc/self/ns/net").unwrap();
        let wish = Network { name: "eth0".into(), ..Network::default() };
        let error = connect(&store.0, "a", &[wish], netns.as_fd()).unwrap_err();
        assert!(error.to_string().contains("neither is installed, at network; hint: install"), "{error}");
        assert!(read_record(&store.0, "a").unwrap().is_none());
    }
}

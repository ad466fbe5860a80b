//! A network for a user without privileges, by pasta or slirp4netns: in the case's own network namespace,
//! which has a way out, by a user that has nothing but one id and `/dev/net/tun`.

use crate::case::Need::Root;
use crate::case::{Case, Outcome, case, check, contains, same};
use crate::net::{World, ask, host, needs};
use crate::process;
use crate::test::{Container, Runtime, Test};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::PathBuf;

pub const CASES: &[Case] = &[
    case!(pasta_connects_a_user, [Root], 60),
    case!(slirp4netns_connects_a_user, [Root], 60),
    case!(without_either_a_network_is_refused, [Root]),
    case!(what_takes_root_is_refused, [Root]),
];

/// Nobody's, and without subordinate ids.
const USER: u32 = 61234;
const ANNOTATION: &str = "org.onggi.network.eth0";

/// The runtime as that user calls it, who finds only these programs.
fn of_user(t: &Test, programs: &[&str]) -> Outcome<Runtime> {
    let home = t.folder("user")?;
    chown(&home, Some(USER), Some(USER))?;
    let bin = t.folder("bin")?;
    for program in programs {
        let found = PathBuf::from(host(t, &format!("command -v {program}"))?.trim());
        symlink(found, bin.join(program))?;
    }
    // Where it was built the user may not look.
    fs::copy(&t.runtime.program, home.join("runtime"))?;
    let call = home.join("call");
    let (dir, bin) = (home.display(), bin.display());
    let script = format!(
        "#!/bin/sh\nexec /usr/bin/env -i PATH={bin} XDG_RUNTIME_DIR={dir} $(command -v setpriv) \\\n  \
         --reuid {USER} --regid {USER} --clear-groups --inh-caps=-all {dir}/runtime \"$@\"\n"
    );
    fs::write(&call, script)?;
    fs::set_permissions(&call, fs::Permissions::from_mode(0o755))?;
    Ok(Runtime { program: call, state: home.join("state"), ..t.runtime.clone() })
}

/// A container of the user's that says "a" to who connects to port 80.
fn server(t: &Test, runtime: &Runtime, network: &str) -> Outcome<Container> {
    let mut config = t.config();
    config.user_namespace(USER, 1).remove("linux.resources").set("linux.cgroupsPath", false);
    let options = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    config.no_mount("/dev/pts").mount("/dev/pts", "devpts", "devpts", &options);
    config.args(&["/bin/busybox", "nc", "-ll", "-p", "80", "-e", "/bin/echo", "a"]);
    config.set("annotations", json!({ ANNOTATION: network }));
    let runtime = Runtime { flags: &["--network-annotations"], ..runtime.clone() };
    Ok(Container { runtime, ..t.container(&config)? })
}

fn connects(t: &Test, program: &str) -> Outcome {
    needs(t, &["busybox", "setpriv", program])?;
    host(t, "mkdir /dev/net && mknod -m 666 /dev/net/tun c 10 200")?;
    let _world = World::new(t)?;
    host(t, "ip route add default via 192.0.2.2")?;
    let user = of_user(t, &[program])?;
    let container = server(t, &user, "publish=127.0.0.1:18080:80,mtu=1400")?;
    container.run_with(&["--detach"])?.ok()?;
    let published = || Ok(ask(t, None, "127.0.0.1", 18080)?.as_deref() == Some("a"));
    process::until("the published port answers", published)?;
    // Not every pasta hands on that the other side has closed, and then it may repeat what that said.
    let words = ["/bin/busybox", "timeout", "5", "/bin/busybox", "nc", "192.0.2.2", "80"];
    let output = container.exec(&words)?;
    same("from inside", output.stdout.lines().next(), Some("world"))?;
    let network = container.state()?["networks"][0].clone();
    same("the address", network["addresses"][0].as_str(), Some("10.0.2.100/24"))?;
    contains("the interface", &container.exec(&["/bin/cat", "/sys/class/net/eth0/mtu"])?.stdout, "1400")?;
    let taken = server(t, &user, "publish=127.0.0.1:18080:80")?;
    refused(&taken, "18080")?;
    check!(published()?, "the port of one is gone when another one asked for it");
    container.delete_force()?.ok()?;
    same("after delete", ask(t, None, "127.0.0.1", 18080)?, None)
}

/// One error that names the annotation, and no container.
fn refused(container: &Container, expected: &str) -> Outcome {
    let output = container.create()?.refused()?;
    contains("the error", &output.text(), expected)?;
    same("the annotation", output.text().matches(&format!("annotations[{ANNOTATION}]")).count(), 1)?;
    check!(!container.runtime.state.join(&container.id).exists(), "its directory is left");
    Ok(())
}

fn pasta_connects_a_user(t: &Test) -> Outcome {
    connects(t, "pasta")
}

fn slirp4netns_connects_a_user(t: &Test) -> Outcome {
    connects(t, "slirp4netns")
}

fn without_either_a_network_is_refused(t: &Test) -> Outcome {
    needs(t, &["setpriv"])?;
    let user = of_user(t, &[])?;
    refused(&server(t, &user, "publish=18080:80")?, "needs pasta or slirp4netns, and neither is installed")
}

fn what_takes_root_is_refused(t: &Test) -> Outcome {
    needs(t, &["setpriv"])?;
    let user = of_user(t, &[])?;
    for (network, expected) in [
        ("bridge=web", "bridge: not without root"),
        ("address=10.1.2.3", "address: not without root"),
        ("egress=1mbit", "egress: not without root"),
        ("internal=yes", "internal: not without root"),
    ] {
        refused(&server(t, &user, network)?, expected)?;
    }
    Ok(())
}

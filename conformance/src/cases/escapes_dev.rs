//! Holes about /dev: an image whose /dev, /dev/null, /dev/console or /dev/ptmx leads elsewhere. The rest
//! of what broke the peers is in escapes.rs; the rule is the same: refuse or contain. Every target of an
//! attack is a decoy: a file of the case's own, or a sysctl of the container's own UTS namespace.

use super::escapes::canary;
use crate::bundle::link;
use crate::case::Need::Root;
use crate::case::{Case, Outcome, case, check, same};
use crate::process;
use crate::test::{Container, Test};
use serde_json::{Value, json};
use std::fs;

pub const CASES: &[Case] = &[
    case!(cve_2025_31133_null_is_a_symlink, [Root]),
    case!(cve_2025_31133_null_is_a_file, [Root]),
    case!(cve_2025_52565_console_is_a_symlink, [Root]),
    case!(cve_2025_52565_pts_from_a_volume, [Root]),
    case!(cve_2026_41579_dev_is_an_absolute_symlink),
    case!(cve_2026_41579_dev_is_a_relative_symlink),
    case!(cve_2026_41579_dev_pts_is_a_symlink),
    case!(cve_2026_47766_dev_symlink_with_read_only_root),
    case!(cve_2026_88264_console_without_dev_mount, [Root]),
    case!(cve_2026_88265_null_reopened_for_stdio, [Root]),
    case!(ptmx_is_a_symlink_out),
    case!(device_node_over_a_symlink, [Root]),
];

/// A configuration without /dev mount: the directory of the image is what there is.
pub(super) fn without_dev(t: &Test) -> crate::bundle::Config {
    let mut config = t.config();
    for place in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        config.no_mount(place);
    }
    config
}

/// The same with the ptys that a terminal needs.
fn with_ptys_alone(t: &Test) -> crate::bundle::Config {
    let mut config = without_dev(t);
    config.mount("/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620"]);
    config
}

/// A procfs entry to aim at. Reading and writing it reaches the UTS namespace of the reader, which is the
/// container's own; an entry such as core_pattern would be the host's where the attack succeeds.
pub(super) const DECOY: &str = "/proc/sys/kernel/hostname";
pub(super) const DECOY_VALUE: &str = "value-of-the-decoy";

/// Masks with a /dev/null of the image: a masked file must be neither readable nor writable.
fn masked_with(t: &Test, prepare: impl Fn(&Container) -> Outcome) -> Outcome {
    let mut config = without_dev(t);
    config.set("linux.maskedPaths", json!(["/secret", "/proc/version"])).set("hostname", DECOY_VALUE);
    // Not on standard output, and nothing to /dev/null: both may be what the link leads to.
    config.shell("/probe report --cat /secret --cat /proc/version --stat /secret > /report");
    let c = t.container(&config)?;
    fs::write(c.path("/secret"), "the secret")?;
    prepare(&c)?;
    let output = c.run()?;
    if output.code != 0 {
        return output.refused().map(drop);
    }
    let probe: Value = serde_json::from_str(&fs::read_to_string(c.path("/report"))?)?;
    for path in ["/secret", "/proc/version"] {
        same(path, probe["cat"][path].as_str(), Some(""))?;
    }
    let secret = &probe["stat"]["/secret"];
    same("what is at /secret", (&secret["type"], &secret["rdev"]), (&json!("char"), &json!("1:3")))
}

fn cve_2025_31133_null_is_a_symlink(t: &Test) -> Outcome {
    let canary = format!("{}/file", canary(t));
    for target in [DECOY, "/etc/link-target", &canary] {
        masked_with(t, |c| {
            fs::write(c.path("/etc/link-target"), "from the link")?;
            link(&c.path("/dev/null"), target)?;
            Ok(())
        })?;
    }
    Ok(())
}

fn cve_2025_31133_null_is_a_file(t: &Test) -> Outcome {
    masked_with(t, |c| Ok(fs::write(c.path("/dev/null"), "from the link")?))
}

/// Creates and starts a container with a terminal; what came out of it. An error is fine.
pub(super) fn with_terminal(
    t: &Test,
    config: &mut crate::bundle::Config,
    prepare: impl Fn(&Container) -> Outcome,
) -> Outcome<String> {
    config.set("process.terminal", true);
    let c = t.container(config)?;
    prepare(&c)?;
    let socket = t.dir.join(format!("tty-{}", c.id));
    let listener = t.listen("console", &socket, &[])?;
    let created = c.create_with(&["--console-socket", &socket.display().to_string()])?;
    let started = if created.code == 0 { c.start()?.code } else { 1 };
    if started != 0 {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(listener.pid),
            nix::sys::signal::Signal::SIGKILL,
        );
        let _ = c.delete_force()?;
        return Ok(String::new());
    }
    let seen = listener.finish(process::LIMIT)?.ok()?.json()?;
    Ok(seen["output"].as_str().unwrap_or_default().to_owned())
}

fn cve_2025_52565_console_is_a_symlink(t: &Test) -> Outcome {
    let targets = [DECOY.to_owned(), "/etc/passwd".to_owned(), format!("{}/file", canary(t))];
    // Neither is the terminal where the link leads, nor goes there what is written to the console.
    let script = format!(
        "for place in {}; do test -c $place && echo console-at-$place; done; echo to-the-console > /dev/console; \
         test -f /etc/passwd && head -n 1 /etc/passwd; true",
        targets.join(" ")
    );
    for target in &targets {
        let mut config = with_ptys_alone(t);
        config.shell(&script);
        let output = with_terminal(t, &mut config, |c| Ok(link(&c.path("/dev/console"), target)?))?;
        check!(!output.contains("console-at-"), "the terminal is elsewhere: {output}");
        check!(!output.contains("to-the-console\r\nto-the-console"), "written through the link: {output}");
    }
    Ok(())
}

fn cve_2025_52565_pts_from_a_volume(t: &Test) -> Outcome {
    let volume = t.folder("volume")?;
    for n in 0..10 {
        link(&volume.join(n.to_string()), DECOY)?;
    }
    let mut config = t.config();
    config.no_mount("/dev/pts").bind(&volume, "/dev/pts", &[]);
    config.shell("stat -L -c '%t %F' /dev/console; echo x > /dev/console && echo end");
    let output = with_terminal(t, &mut config, |_| Ok(()))?;
    // An empty output is a refusal. A console that is none of a pty is the hole.
    check!(output.is_empty() || output.contains("88 character special"), "the console is: {output}");
    Ok(())
}

/// A directory of the case's with the devices that a runtime opens by name.
pub(super) fn volume_of_devices(t: &Test) -> Outcome<std::path::PathBuf> {
    let volume = t.folder("volume")?;
    for (name, major, minor) in [("null", 1, 3), ("zero", 1, 5), ("tty", 5, 0)] {
        device(&volume.join(name), major, minor)?;
    }
    Ok(volume)
}

/// A character device of the case's own.
pub(super) fn device(path: &std::path::Path, major: u64, minor: u64) -> Outcome {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor))?;
    Ok(())
}

/// With /dev of the image as a link, whatever is made there must not be made outside.
fn dev_is(t: &Test, name: &str, target: &str, change: impl Fn(&mut crate::bundle::Config)) -> Outcome {
    for keep_dev_mount in [true, false] {
        let mut config = if keep_dev_mount { t.config() } else { without_dev(t) };
        change(&mut config);
        let c = t.container(&config)?;
        link(&c.path(name), target)?;
        let output = c.run()?;
        check!(output.code == 0 || !output.stderr.trim().is_empty(), "no message: {}", output.text());
        let files = fs::read_dir(t.canary())?.count();
        same("entries of the directory of the host", files, 3)?;
    }
    Ok(())
}

fn cve_2026_41579_dev_is_an_absolute_symlink(t: &Test) -> Outcome {
    dev_is(t, "/dev", &canary(t), |_| ())
}

fn cve_2026_41579_dev_is_a_relative_symlink(t: &Test) -> Outcome {
    dev_is(t, "/dev", "../../canary", |_| ())
}

fn cve_2026_41579_dev_pts_is_a_symlink(t: &Test) -> Outcome {
    // Where there is no /dev mount, the device is made through the link.
    dev_is(t, "/dev/pts", &canary(t), |config| {
        config.push("linux.devices", json!({ "path": "/dev/pts/node", "type": "c", "major": 1, "minor": 3 }));
    })
}

fn cve_2026_47766_dev_symlink_with_read_only_root(t: &Test) -> Outcome {
    dev_is(t, "/dev", &canary(t), |config| {
        config.set("root.readonly", true);
    })
}

fn cve_2026_88264_console_without_dev_mount(t: &Test) -> Outcome {
    for (readonly, ptys) in [(false, false), (true, false), (false, true)] {
        let mut config = if ptys { with_ptys_alone(t) } else { without_dev(t) };
        config.set("root.readonly", readonly).shell("stat -c 'kind: %F' /x");
        let output = with_terminal(t, &mut config, |c| {
            fs::write(c.path("/x"), "the file\n")?;
            Ok(link(&c.path("/dev/console"), "/x")?)
        })?;
        // No output: refused.
        check!(output.is_empty() || output.contains("kind: regular file"), "the console is at /x: {output}");
    }
    Ok(())
}

fn cve_2026_88265_null_reopened_for_stdio(t: &Test) -> Outcome {
    let volume = t.folder("volume")?;
    fs::write(volume.join("file"), "of the host")?;
    let mut config = without_dev(t);
    config.bind(&volume, "/data", &[]).set("process.user", json!({ "uid": 1000, "gid": 1000 }));
    config.shell("stat -L -c '%t:%T' /proc/self/fd/0; echo overwritten");
    let c = t.container(&config)?;
    link(&c.path("/dev/null"), "/data/file")?;
    let null = fs::File::options().read(true).write(true).open("/dev/null")?;
    let mut command = c.bundle_command("run", &[]);
    let output = process::start(command.stdin(null), &t.dir)?.finish(process::LIMIT)?;
    let meta = fs::metadata(volume.join("file"))?;
    same("owner of the file", std::os::unix::fs::MetadataExt::uid(&meta), 0)?;
    same("the file", fs::read_to_string(volume.join("file"))?.as_str(), "of the host")?;
    check!(
        output.code != 0 || output.stdout.contains("overwritten"),
        "the output went elsewhere: {}",
        output.text()
    );
    Ok(())
}

fn ptmx_is_a_symlink_out(t: &Test) -> Outcome {
    dev_is(t, "/dev/ptmx", &format!("{}/ptmx", canary(t)), |_| ())
}

fn device_node_over_a_symlink(t: &Test) -> Outcome {
    let mut config = without_dev(t);
    let target = format!("{}/made", canary(t));
    config.push("linux.devices", json!({ "path": "/srv/node", "type": "c", "major": 1, "minor": 3 }));
    let c = t.container(&config)?;
    fs::create_dir_all(c.path("/srv"))?;
    link(&c.path("/srv/node"), &target)?;
    c.run()?;
    check!(fs::symlink_metadata(&target).is_err(), "a device was made on the host");
    Ok(())
}

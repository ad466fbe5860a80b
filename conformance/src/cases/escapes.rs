//! Escapes: what broke runtimes, set up again. Each case is named for the hole, with its number where it has
//! one; docs/escapes.md is the table. Refusing and containing are both right; what may never happen is that
//! the host changes (the canary and the devices are compared after every case) or that a container sees what
//! is the host's. Every target of an attack is a decoy of the case's own. The other files of the group are
//! escapes_*.rs; destinations of ordinary mounts are in mount_paths.rs.

use crate::bundle::link;
use crate::case::Need::Root;
use crate::case::{Case, Outcome, case, check, contains, same};
use crate::process;
use crate::test::{Container, Test, mount_line};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;

pub const CASES: &[Case] = &[
    case!(cve_2016_3697_numeric_user_is_no_name, [Root]),
    case!(cve_2016_9962_exec_shows_no_descriptors, [Root], 60),
    case!(cve_2019_5736_interpreter_is_proc_self_exe),
    case!(cve_2019_5736_program_is_proc_self_exe),
    case!(cve_2019_5736_exec_cannot_be_overwritten, [Root], 60),
    case!(cve_2019_16884_volume_over_proc, [Root]),
    case!(cve_2019_19921_proc_is_a_symlink),
    case!(cve_2023_28642_sys_is_a_symlink),
    case!(proc_is_a_file),
    case!(cve_2024_21626_cwd_by_descriptor, [], 120),
    case!(cve_2024_21626_cwd_by_a_link_to_a_descriptor),
    case!(cve_2024_21626_exec_cwd_by_descriptor, [], 120),
    case!(program_by_descriptor_is_not_the_hosts, [], 120),
    case!(cve_2025_52881_sysctl_goes_where_it_says, [Root]),
    case!(cve_2026_30892_user_option_is_parsed_strictly, [Root]),
    case!(masked_path_is_a_symlink_out, [Root]),
    case!(readonly_path_is_a_symlink_out, [Root]),
    case!(passwd_is_a_symlink_out, [Root]),
    case!(passwd_is_a_file_of_the_kernel, [Root]),
    case!(passwd_is_a_fifo, [Root]),
    case!(passwd_without_end),
    case!(tmpcopyup_of_a_deep_tree_with_a_small_stack),
    case!(tmpcopyup_of_a_fifo_does_not_block, [Root]),
    case!(pid_namespace_hides_the_runtime),
    case!(no_abstract_sockets_in_the_network_namespace, [Root]),
    case!(environment_of_the_runtime_is_not_in_proc, [Root]),
];

pub(super) fn canary(t: &Test) -> String {
    t.canary().display().to_string()
}

pub(super) fn executable(path: &std::path::Path, text: &str) -> Outcome {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn cve_2016_3697_numeric_user_is_no_name(t: &Test) -> Outcome {
    let c = t.container(&t.sleeper())?;
    fs::write(c.path("/etc/passwd"), "root:x:0:0::/:\n1000:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:\n")?;
    fs::write(c.path("/etc/group"), "1000:x:0:\n")?;
    c.run_with(&["--detach"])?.ok()?;
    let probe = c.exec_probe(&["--user", "1000:1000"])?;
    same("uid and gid", (&probe["uid"][1], &probe["gid"][1]), (&json!(1000), &json!(1000)))?;
    let output = c.exec_with(&["--user", "4294967296"], &["/probe"])?;
    check!(output.code != 0, "uid 2^32 was taken: {}", output.text());
    Ok(())
}

/// Runs the probe's chase in the container while programs are executed into it, by a caller with open directories.
fn chase(t: &Test) -> Outcome<Value> {
    let mut config = t.config();
    config.args(&["/probe", "chase", "4"]);
    config.capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SYS_ADMIN"]);
    let c = t.container(&config)?;
    let started = c.run_started()?;
    process::until("it runs", || Ok(c.call("state", &[])?.stdout.contains("running")))?;
    for _ in 0..60 {
        let output = with_descriptors(t, &c, &format!("exec {} /bin/true", c.id))?;
        if output.code != 0 {
            break;
        }
    }
    started.finish(process::LIMIT)?.ok()?.json()
}

fn cve_2016_9962_exec_shows_no_descriptors(t: &Test) -> Outcome {
    let seen = chase(t)?;
    check!(seen["seen"].as_i64().is_some_and(|n| n > 0), "no process was seen: {seen}");
    // Pipes and sockets between the runtime's own processes are no way to the host; files are.
    let files: Vec<String> = crate::test::strings(&seen["files"]);
    // "/" is the container's own root as it is seen from inside.
    let own = ["/proc/", "/etc/", "/sys/kernel/", "/dev/null", "/memfd:"];
    let outside = |file: &&String| {
        file.starts_with('/') && *file != "/" && !own.iter().any(|path| file.starts_with(path))
    };
    let of_host: Vec<&String> = files.iter().filter(outside).collect();
    check!(of_host.is_empty(), "open in the runtime's process, seen from inside: {of_host:?}");
    Ok(())
}

fn cve_2019_5736_exec_cannot_be_overwritten(t: &Test) -> Outcome {
    let before = fs::read(&t.runtime.program)?;
    let seen = chase(t)?;
    same("programs that could be opened for writing", &seen["writable"], &json!([]))?;
    check!(fs::read(&t.runtime.program)? == before, "the runtime's binary is another one");
    Ok(())
}

fn cve_2019_5736_interpreter_is_proc_self_exe(t: &Test) -> Outcome {
    let mut config = t.config();
    config.args(&["/script", "--version"]);
    let c = t.container(&config)?;
    executable(&c.path("/script"), "#!/proc/self/exe\n")?;
    let output = c.run()?;
    check!(!output.stdout.contains("version"), "the runtime's binary ran inside: {}", output.text());
    Ok(())
}

fn cve_2019_5736_program_is_proc_self_exe(t: &Test) -> Outcome {
    let mut config = t.config();
    config.args(&["/proc/self/exe", "--version"]);
    let c = t.container(&config)?;
    let output = c.run()?;
    check!(!output.stdout.contains("version"), "the runtime's binary ran inside: {}", output.text());
    let c = t.detached(&t.sleeper())?;
    let output = c.exec(&["/proc/self/exe", "--version"])?;
    check!(!output.stdout.contains("spec"), "the runtime's binary ran inside: {}", output.text());
    Ok(())
}

fn cve_2019_16884_volume_over_proc(t: &Test) -> Outcome {
    // What the runtime writes about itself must go to the kernel and not to files that look like it.
    let volume = t.folder("volume")?;
    for pid in ["self", "1", "thread-self"] {
        fs::create_dir_all(volume.join(pid).join("attr"))?;
        for file in ["attr/exec", "oom_score_adj", "setgroups", "uid_map"] {
            fs::write(volume.join(pid).join(file), "")?;
        }
    }
    let mut config = t.sleeper();
    config.no_mount("/proc").bind(&volume, "/proc", &[]).set("process.oomScoreAdj", 345);
    let c = t.container(&config)?;
    let output = c.run_with(&["--detach"])?;
    for line in crate::leaks::tree(&volume) {
        check!(
            !line.contains(" 100644 ") || line.contains(" 0:0 0 "),
            "written to a file of the volume: {line}"
        );
    }
    if output.code != 0 {
        return output.refused().map(drop);
    }
    let value = fs::read_to_string(format!("/proc/{}/oom_score_adj", c.pid()?))?;
    same("oom_score_adj", value.trim(), "345")
}

/// A container whose directory is a symbolic link; it must be refused, or mounted inside.
fn special_is_a_link(t: &Test, name: &str, target: &str) -> Outcome {
    let mut config = t.config();
    config.args(&["/probe"]);
    let c = t.container(&config)?;
    link(&c.path(name), target)?;
    let output = c.run()?;
    if output.code != 0 {
        output.refused()?;
        return Ok(());
    }
    check!(mount_line(&output.json()?, name).is_ok(), "accepted, and nothing is mounted at {name}");
    Ok(())
}

fn cve_2019_19921_proc_is_a_symlink(t: &Test) -> Outcome {
    for target in ["/bad-proc", "tmp/bad-proc", &canary(t), "/proc/self/../../tmp"] {
        special_is_a_link(t, "/proc", target)?;
    }
    Ok(())
}

fn cve_2023_28642_sys_is_a_symlink(t: &Test) -> Outcome {
    for target in ["/bad-sys", "tmp/bad-sys", &canary(t)] {
        special_is_a_link(t, "/sys", target)?;
    }
    Ok(())
}

fn proc_is_a_file(t: &Test) -> Outcome {
    let c = t.container(&t.config())?;
    fs::remove_dir(c.path("/proc"))?;
    fs::write(c.path("/proc"), "")?;
    c.run()?.refused()?;
    Ok(())
}

/// Calls the runtime from a shell that holds many directories of the host open.
fn with_descriptors(t: &Test, c: &Container, call: &str) -> Outcome<process::Output> {
    let opens: Vec<String> = (3..10).map(|n| format!("{n}<{}", canary(t))).collect();
    let text = format!("exec {}; exec \"$RT\" --root \"$ST\" {call}", opens.join(" "));
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", &text]).current_dir(&t.dir).env("RT", &t.runtime.program);
    command.env("ST", &t.runtime.state).env("B", &c.bundle);
    process::run(&mut command, &t.dir)
}

/// The program looked around with a path of the host as its directory.
fn outside(output: &process::Output) -> bool {
    output.stdout.contains("untouched") || output.stdout.contains("config.json")
}

const LOOK: &str = "cat file ../canary/file ./canary/file 2>/dev/null; ls; ls ..; true";

fn cve_2024_21626_cwd_by_descriptor(t: &Test) -> Outcome {
    for n in 3..40 {
        let mut config = t.shell(LOOK);
        config.set("process.cwd", format!("/proc/self/fd/{n}"));
        let c = t.container(&config)?;
        let output = with_descriptors(t, &c, &format!("run --bundle \"$B\" {}", c.id))?;
        check!(!outside(&output), "descriptor {n} leads to the host: {}", output.text());
        fs::remove_dir_all(&c.bundle)?;
    }
    Ok(())
}

fn cve_2024_21626_cwd_by_a_link_to_a_descriptor(t: &Test) -> Outcome {
    for n in 3..16 {
        let mut config = t.shell(LOOK);
        config.set("process.cwd", "/way");
        let c = t.container(&config)?;
        link(&c.path("/way"), &format!("/proc/self/fd/{n}"))?;
        let output = with_descriptors(t, &c, &format!("run --bundle \"$B\" {}", c.id))?;
        check!(!outside(&output), "descriptor {n} leads to the host: {}", output.text());
    }
    Ok(())
}

fn cve_2024_21626_exec_cwd_by_descriptor(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    for n in 3..40 {
        let call = format!("exec --cwd /proc/self/fd/{n} {} /bin/sh -c '{LOOK}'", c.id);
        let output = with_descriptors(t, &c, &call)?;
        check!(!outside(&output), "descriptor {n} leads to the host: {}", output.text());
    }
    Ok(())
}

fn program_by_descriptor_is_not_the_hosts(t: &Test) -> Outcome {
    executable(&t.dir.join("canary/dir/prog"), "#!/bin/sh\necho from the host\n")?;
    for n in 3..16 {
        for sub in ["dir/prog", "prog", "../canary/dir/prog"] {
            let mut config = t.config();
            config.args(&[&format!("/proc/self/fd/{n}/{sub}")]);
            let c = t.container(&config)?;
            let output = with_descriptors(t, &c, &format!("run --bundle \"$B\" {}", c.id))?;
            check!(!output.stdout.contains("from the host"), "descriptor {n} gave {sub}");
            fs::remove_dir_all(&c.bundle)?;
        }
    }
    fs::remove_file(t.dir.join("canary/dir/prog"))?;
    Ok(())
}

fn cve_2025_52881_sysctl_goes_where_it_says(t: &Test) -> Outcome {
    // A tmpfs over /proc/sys/net of the container's: the value must arrive in the kernel or be an error.
    let mut config = t.config();
    let volume = t.folder("volume")?;
    fs::create_dir_all(volume.join("ipv4"))?;
    fs::write(volume.join("ipv4/ip_forward"), "")?;
    config.bind(&volume, "/proc/sys/net", &[]).set("linux.sysctl", json!({ "net.ipv4.ip_forward": "1" }));
    let output = t.run(&config)?;
    let fooled = fs::read_to_string(volume.join("ipv4/ip_forward"))?;
    check!(output.code != 0 || fooled.is_empty(), "the value went to a file of the volume: {fooled:?}");
    Ok(())
}

fn cve_2026_30892_user_option_is_parsed_strictly(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    for (text, uid, gid) in [("1", 1, 0), ("1:2", 1, 2), ("0:0", 0, 0), ("65534:65534", 65534, 65534)] {
        let probe = c.exec_probe(&["--user", text])?;
        same(text, (&probe["uid"][1], &probe["gid"][1]), (&json!(uid), &json!(gid)))?;
    }
    for text in
        ["4294967295", "4294967296", "-1", "0x1", "1abc", ":2", "1:", "1:2:3", " 1", "1:-1", "1:4294967296"]
    {
        let output = c.exec_with(&[&format!("--user={text}")], &["/probe"])?;
        check!(output.code != 0, "{text:?} was taken as {}", output.json()?["uid"]);
    }
    Ok(())
}

/// A container with `/way`, a link to a path that both the host and the image have; the image's has a secret.
fn with_a_way_out(t: &Test, config: &crate::bundle::Config) -> Outcome<process::Output> {
    let c = t.container(config)?;
    link(&c.path("/way"), &canary(t))?;
    fs::create_dir_all(c.path(&format!("{}/dir", canary(t))))?;
    fs::write(c.path(&format!("{}/dir/inside", canary(t))), "the secret")?;
    c.run()
}

fn masked_path_is_a_symlink_out(t: &Test) -> Outcome {
    let mut config = t.shell(&format!("cat {}/dir/inside; true", canary(t)));
    config.set("linux.maskedPaths", json!(["/way", "/way/dir"]));
    let output = with_a_way_out(t, &config)?;
    check!(!output.stdout.contains("the secret"), "what the link leads to is not masked");
    same("the file of the host", fs::read_to_string(t.canary().join("file"))?.as_str(), "untouched")
}

fn readonly_path_is_a_symlink_out(t: &Test) -> Outcome {
    let mut config = t.shell(&format!("touch {}/dir/new && echo written; true", canary(t)));
    config.set("linux.readonlyPaths", json!(["/way/dir"]));
    let output = with_a_way_out(t, &config)?;
    check!(!output.stdout.contains("written"), "what the link leads to can be written");
    fs::write(t.canary().join("dir/new"), "")?;
    fs::remove_file(t.canary().join("dir/new"))?;
    Ok(())
}

fn passwd_is_a_symlink_out(t: &Test) -> Outcome {
    let file = t.dir.join("passwd-of-the-host");
    fs::write(&file, "root:x:0:0::/home-of-the-host:\n")?;
    let c = t.container(&t.shell("echo $HOME"))?;
    link(&c.path("/etc/passwd"), &file.display().to_string())?;
    let output = c.run()?;
    check!(!output.stdout.contains("home-of-the-host"), "the host's file was read: {}", output.text());
    Ok(())
}

/// Reading some of them changes the host: `/proc/kmsg` hands out each message once. This one stands for them.
fn passwd_is_a_file_of_the_kernel(t: &Test) -> Outcome {
    let mut config = t.shell("echo \"$HOME\"");
    config.set("hostname", "x:x:0:0:x:/of-the-kernel:");
    let c = t.container(&config)?;
    link(&c.path("/etc/passwd"), "/proc/sys/kernel/hostname")?;
    let output = c.run()?;
    check!(!output.stdout.contains("of-the-kernel"), "it was read: {}", output.text());
    Ok(())
}

fn passwd_is_a_fifo(t: &Test) -> Outcome {
    let c = t.container(&t.shell("echo ran"))?;
    fs::remove_file(c.path("/etc/passwd"))?;
    nix::unistd::mkfifo(&c.path("/etc/passwd"), nix::sys::stat::Mode::from_bits_truncate(0o666))?;
    let output = c.run();
    check!(output.is_ok(), "the runtime waits for the container's fifo");
    Ok(())
}

/// `create`, `run` and `exec` look the home directory up in it.
fn passwd_without_end(t: &Test) -> Outcome {
    let c = t.container(&t.sleeper())?;
    link(&c.path("/etc/passwd"), "/dev/zero")?;
    if c.run_with(&["--detach"])?.code == 0 {
        c.exec(&["/probe"])?;
    }
    Ok(())
}

fn tmpcopyup_of_a_deep_tree_with_a_small_stack(t: &Test) -> Outcome {
    let mut config = t.shell("find /data | wc -l");
    config.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]);
    let c = t.container(&config)?;
    fs::create_dir_all(c.path(&format!("/data/{}", "deep/".repeat(50))))?;
    let call = format!("ulimit -s 256; exec \"$RT\" --root \"$ST\" run --bundle \"$B\" {}", c.id);
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", &call]).env("RT", &t.runtime.program).env("ST", &t.runtime.state).env("B", &c.bundle);
    same("directories", process::run(&mut command, &t.dir)?.ok()?.stdout.trim(), "51")
}

fn tmpcopyup_of_a_fifo_does_not_block(t: &Test) -> Outcome {
    let mut config = t.shell("ls /data");
    config.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]);
    let c = t.container(&config)?;
    fs::create_dir_all(c.path("/data"))?;
    nix::unistd::mkfifo(&c.path("/data/fifo"), nix::sys::stat::Mode::from_bits_truncate(0o666))?;
    let output = c.run()?;
    check!(output.code != 0 || output.stdout.contains("fifo"), "{}", output.text());
    Ok(())
}

fn pid_namespace_hides_the_runtime(t: &Test) -> Outcome {
    let output = t.script(&t.config(), "cat /proc/*/cmdline | tr '\\0' ' '")?;
    check!(!output.contains("--root") && !output.contains(" init"), "the runtime is seen: {output}");
    Ok(())
}

fn no_abstract_sockets_in_the_network_namespace(t: &Test) -> Outcome {
    // CVE-2020-15257 was a shim's; a runtime with the host's network must not have such a socket either.
    let mut config = t.shell("grep -c '@' /proc/net/unix; true");
    config.no_namespace("network");
    let before = fs::read_to_string("/proc/net/unix")?.lines().filter(|line| line.contains('@')).count();
    let seen: usize = t.run(&config)?.ok()?.stdout.trim().parse().unwrap_or(0);
    check!(seen <= before, "{} abstract sockets more", seen - before);
    Ok(())
}

fn environment_of_the_runtime_is_not_in_proc(t: &Test) -> Outcome {
    let c = t.container(&t.sleeper())?;
    let mut command = c.bundle_command("create", &[]);
    command.env("SECRET_OF_THE_CALLER", "1");
    process::run(&mut command, &t.dir)?.ok()?;
    c.start()?.ok()?;
    let environ = c.exec(&["/bin/cat", "/proc/1/environ"])?.ok()?.stdout;
    check!(!environ.contains("SECRET_OF_THE_CALLER"), "seen in /proc/1/environ");
    contains("environment", &environ, "PATH=")
}

//! Configurations that cannot be meant, and bundles that are none: each is refused with a message, in
//! bounded time, and leaves nothing (leaks.rs compares after every case). Wording is not looked at,
//! but that the message is there, names no source code and is one.

use crate::bundle::Config;
use crate::case::{Case, Outcome, Stop, case, check};
use crate::process::Output;
use crate::test::{Container, Test};
use serde_json::{Value, json};
use std::fs;
use std::time::Instant;

pub const CASES: &[Case] = &[
    case!(no_bundle_directory),
    case!(no_config_json),
    case!(empty_config_json),
    case!(broken_json),
    case!(json_that_is_no_object),
    case!(json_after_the_end),
    case!(config_json_that_is_a_directory),
    case!(json_that_is_nested_too_deeply),
    case!(no_process_at_start),
    case!(no_root),
    case!(no_linux_section_runs_or_is_refused),
    case!(no_args),
    case!(empty_args),
    case!(an_empty_program_name),
    case!(an_argument_with_a_nul_byte),
    case!(an_environment_entry_with_a_nul_byte),
    case!(an_environment_entry_without_equal_sign_runs_or_is_refused),
    case!(a_cwd_with_a_nul_byte),
    case!(no_cwd),
    case!(a_type_that_is_wrong_anywhere),
    case!(numbers_out_of_range),
    case!(a_negative_uid),
    case!(oci_version_that_is_not_known),
    case!(no_oci_version),
    case!(oci_version_of_a_newer_minor_works),
    case!(unknown_properties_are_ignored),
    case!(missing_rootfs),
    case!(rootfs_that_is_a_file),
    case!(duplicate_rlimits),
    case!(an_unknown_rlimit),
    case!(an_rlimit_with_soft_above_hard),
    case!(an_unknown_rootfs_propagation),
    case!(a_mount_without_destination),
    case!(a_mount_destination_with_a_nul_byte),
    case!(a_bind_mount_without_source),
    case!(a_hostname_that_is_too_long),
    case!(id_maps_that_overlap),
    case!(id_maps_that_are_too_many),
    case!(oom_score_adj_out_of_range),
    case!(an_executable_of_garbage),
    case!(a_script_whose_interpreter_is_missing),
    case!(ten_thousand_arguments_work),
    case!(arguments_beyond_the_limit_are_refused),
    case!(a_hundred_thousand_mounts_after_a_bad_one, [], 60),
    case!(two_hundred_megabytes_of_config_end_in_bounded_time, [], 90),
    case!(bundle_that_cannot_be_read),
    case!(files_without_end_are_refused, [], 90),
    case!(files_that_are_nested_too_deeply_are_refused),
];

/// Both verbs that read a configuration must refuse it, with one clear message, and keep no container.
fn rejected(t: &Test, c: &Container) -> Outcome {
    for verb in ["create", "run"] {
        let output = crate::process::run(&mut c.bundle_command(verb, &[]), &t.dir)?;
        // What only shows when the program starts may show at start.
        let output = if verb == "create" && output.code == 0 { c.start()? } else { output };
        clear(output)?;
        let _ = c.delete_force()?;
    }
    Ok(())
}

fn clear(output: Output) -> Outcome {
    let output = output.refused()?;
    let lines =
        output.stderr.lines().filter(|line| !line.contains("warning") && !line.trim().is_empty()).count();
    check!(lines <= 3, "{} lines of error: {}", lines, output.text());
    check!(output.stderr.len() < 3000, "an error of {} bytes", output.stderr.len());
    Ok(())
}

/// The configuration with one change is refused.
fn refuses(t: &Test, path: &str, value: impl Into<Value>) -> Outcome {
    let mut config = t.config();
    config.set(path, value);
    refuses_all_of(t, &config, path)
}

fn refuses_all_of(t: &Test, config: &Config, what: &str) -> Outcome {
    rejected(t, &t.container(config)?).map_err(|stop| match stop {
        Stop::Fail(text) => Stop::Fail(format!("{what}: {text}")),
        skip => skip,
    })
}

/// The text as config.json is refused.
fn refuses_text(t: &Test, text: &str) -> Outcome {
    let c = t.container(&t.config())?;
    fs::write(c.bundle.join("config.json"), text)?;
    rejected(t, &c)
}

fn no_bundle_directory(t: &Test) -> Outcome {
    let mut c = t.container(&t.config())?;
    c.bundle = t.dir.join("no-such-bundle");
    rejected(t, &c)
}

fn no_config_json(t: &Test) -> Outcome {
    let c = t.container(&t.config())?;
    fs::remove_file(c.bundle.join("config.json"))?;
    rejected(t, &c)
}

fn empty_config_json(t: &Test) -> Outcome {
    refuses_text(t, "")
}

fn broken_json(t: &Test) -> Outcome {
    let whole = t.config().0.to_string();
    refuses_text(t, &whole[..whole.len() / 2])?;
    refuses_text(t, &whole.replace("\"process\":", "\"process\""))?;
    refuses_text(t, "\u{0}\u{1}\u{2}")
}

fn json_that_is_no_object(t: &Test) -> Outcome {
    for text in ["[]", "null", "7", "\"config\"", "true"] {
        refuses_text(t, text)?;
    }
    Ok(())
}

fn json_after_the_end(t: &Test) -> Outcome {
    refuses_text(t, &format!("{} {{}}", t.config().0))
}

fn config_json_that_is_a_directory(t: &Test) -> Outcome {
    let c = t.container(&t.config())?;
    fs::remove_file(c.bundle.join("config.json"))?;
    fs::create_dir(c.bundle.join("config.json"))?;
    rejected(t, &c)
}

fn json_that_is_nested_too_deeply(t: &Test) -> Outcome {
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    refuses_text(t, &format!("{{\"ociVersion\":\"1.0.2\",\"x\":{deep}}}"))
}

fn no_process_at_start(t: &Test) -> Outcome {
    let mut config = t.config();
    config.remove("process");
    refuses_all_of(t, &config, "process")
}

fn no_root(t: &Test) -> Outcome {
    let mut config = t.config();
    config.remove("root");
    refuses_all_of(t, &config, "root")
}

fn no_linux_section_runs_or_is_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.remove("linux").remove("hostname").set("mounts", json!([]));
    let output = t.run(&config)?;
    if output.code != 0 { clear(output) } else { Ok(()) }
}

fn no_args(t: &Test) -> Outcome {
    let mut config = t.config();
    config.remove("process.args");
    refuses_all_of(t, &config, "process.args")
}

fn empty_args(t: &Test) -> Outcome {
    refuses(t, "process.args", json!([]))
}

fn an_empty_program_name(t: &Test) -> Outcome {
    refuses(t, "process.args", json!([""]))
}

fn an_argument_with_a_nul_byte(t: &Test) -> Outcome {
    refuses(t, "process.args", json!(["/bin/echo", "a\u{0}b"]))
}

fn an_environment_entry_with_a_nul_byte(t: &Test) -> Outcome {
    refuses(t, "process.env", json!(["PATH=/bin", "A=a\u{0}B=b"]))
}

fn an_environment_entry_without_equal_sign_runs_or_is_refused(t: &Test) -> Outcome {
    let mut config = t.config();
    config.set("process.env", json!(["PATH=/bin", "NOTHING", "", "=x"]));
    let output = t.run(&config)?;
    if output.code != 0 { clear(output) } else { Ok(()) }
}

fn a_cwd_with_a_nul_byte(t: &Test) -> Outcome {
    refuses(t, "process.cwd", "/tmp\u{0}/x")
}

fn no_cwd(t: &Test) -> Outcome {
    let mut config = t.config();
    config.remove("process.cwd");
    refuses_all_of(t, &config, "process.cwd")
}

fn a_type_that_is_wrong_anywhere(t: &Test) -> Outcome {
    for (path, value) in [
        ("process", json!([])),
        ("process.args", json!("/bin/true")),
        ("process.args", json!([1, 2])),
        ("process.user.uid", json!("0")),
        ("process.terminal", json!("no")),
        ("process.capabilities.bounding", json!("CAP_KILL")),
        ("root", json!("rootfs")),
        ("root.path", json!(7)),
        ("mounts", json!({})),
        ("mounts.0", json!("proc")),
        ("mounts.0.options", json!("ro")),
        ("linux.namespaces", json!({})),
        ("linux.namespaces.0", json!("pid")),
        ("linux.maskedPaths", json!("/proc/kcore")),
        ("hooks", json!([])),
        ("annotations", json!({ "key": 7 })),
    ] {
        refuses(t, path, value)?;
    }
    Ok(())
}

fn numbers_out_of_range(t: &Test) -> Outcome {
    for (path, value) in [
        ("process.user.uid", json!(1u64 << 32)),
        ("process.user.gid", json!(1u64 << 40)),
        ("process.user.uid", json!(1.5)),
        ("process.oomScoreAdj", json!(1u64 << 50)),
        ("process.user.additionalGids", json!([1u64 << 33])),
    ] {
        refuses(t, path, value)?;
    }
    Ok(())
}

fn a_negative_uid(t: &Test) -> Outcome {
    refuses(t, "process.user.uid", -1)
}

fn oci_version_that_is_not_known(t: &Test) -> Outcome {
    for version in ["2.0.0", "0.1.0", "latest", ""] {
        refuses(t, "ociVersion", version)?;
    }
    Ok(())
}

fn no_oci_version(t: &Test) -> Outcome {
    let mut config = t.config();
    config.remove("ociVersion");
    refuses_all_of(t, &config, "ociVersion")
}

fn oci_version_of_a_newer_minor_works(t: &Test) -> Outcome {
    for version in ["1.0.0", "1.0.2-dev", "1.3.0", "1.9.9"] {
        let mut config = t.config();
        config.set("ociVersion", version);
        t.run(&config)?.ok()?;
    }
    Ok(())
}

fn unknown_properties_are_ignored(t: &Test) -> Outcome {
    // "Runtimes MUST NOT generate an error if they encounter an unknown property."
    let mut config = t.config();
    for path in
        ["ofTomorrow", "process.ofTomorrow", "linux.ofTomorrow", "root.ofTomorrow", "mounts.0.ofTomorrow"]
    {
        config.set(path, json!({ "a": [1, 2, 3] }));
    }
    t.run(&config)?.ok()?;
    Ok(())
}

fn missing_rootfs(t: &Test) -> Outcome {
    refuses(t, "root.path", "no-such-rootfs")
}

fn rootfs_that_is_a_file(t: &Test) -> Outcome {
    refuses(t, "root.path", "config.json")
}

fn duplicate_rlimits(t: &Test) -> Outcome {
    // "If rlimits contains duplicated entries with same type, the runtime MUST generate an error."
    let limit = json!({ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 });
    refuses(t, "process.rlimits", json!([limit.clone(), limit]))
}

fn an_unknown_rlimit(t: &Test) -> Outcome {
    refuses(t, "process.rlimits", json!([{ "type": "RLIMIT_PATIENCE", "soft": 1, "hard": 1 }]))
}

fn an_rlimit_with_soft_above_hard(t: &Test) -> Outcome {
    refuses(t, "process.rlimits", json!([{ "type": "RLIMIT_CORE", "soft": 9, "hard": 1 }]))
}

fn an_unknown_rootfs_propagation(t: &Test) -> Outcome {
    refuses(t, "linux.rootfsPropagation", "sideways")
}

fn a_mount_without_destination(t: &Test) -> Outcome {
    let mut config = t.config();
    config.push("mounts", json!({ "type": "tmpfs", "source": "tmpfs" }));
    refuses_all_of(t, &config, "mounts")
}

fn a_mount_destination_with_a_nul_byte(t: &Test) -> Outcome {
    let mut config = t.config();
    config.mount("/tmp\u{0}x", "tmpfs", "tmpfs", &[]);
    refuses_all_of(t, &config, "mounts")
}

fn a_bind_mount_without_source(t: &Test) -> Outcome {
    let mut config = t.config();
    config.push("mounts", json!({ "destination": "/data", "type": "bind", "options": ["bind"] }));
    let output = t.run(&config)?;
    check!(output.code != 0, "taken: {}", output.text());
    clear(output)
}

fn a_hostname_that_is_too_long(t: &Test) -> Outcome {
    refuses(t, "hostname", "h".repeat(65))
}

fn id_maps_that_overlap(t: &Test) -> Outcome {
    let mut config = t.config();
    config.user_namespace(100_000, 1000);
    config.push("linux.uidMappings", json!({ "containerID": 500, "hostID": 200_000, "size": 1000 }));
    refuses_all_of(t, &config, "uidMappings")
}

fn id_maps_that_are_too_many(t: &Test) -> Outcome {
    let mut config = t.config();
    config.user_namespace(100_000, 1);
    for n in 1..10_000 {
        config.push("linux.uidMappings", json!({ "containerID": n, "hostID": 200_000 + n, "size": 1 }));
    }
    // CVE-2021-43784: so many lines do not fit into what carries them. The kernel takes 340.
    refuses_all_of(t, &config, "uidMappings")
}

fn oom_score_adj_out_of_range(t: &Test) -> Outcome {
    refuses(t, "process.oomScoreAdj", 1001)?;
    refuses(t, "process.oomScoreAdj", -1001)
}

fn an_executable_of_garbage(t: &Test) -> Outcome {
    let mut config = t.config();
    config.args(&["/garbage"]);
    let c = t.container(&config)?;
    fs::write(c.path("/garbage"), b"\x7fELF\x02\x01\x01garbage")?;
    fs::set_permissions(c.path("/garbage"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    rejected(t, &c)
}

fn a_script_whose_interpreter_is_missing(t: &Test) -> Outcome {
    let mut config = t.config();
    config.args(&["/script"]);
    let c = t.container(&config)?;
    fs::write(c.path("/script"), "#!/no/such/interpreter\n")?;
    fs::set_permissions(c.path("/script"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    rejected(t, &c)
}

fn ten_thousand_arguments_work(t: &Test) -> Outcome {
    let mut config = t.config();
    let mut args = vec!["/bin/sh".to_owned(), "-c".to_owned(), "echo $#".to_owned()];
    args.extend((0..10_000).map(|n| format!("argument-{n}")));
    config.set("process.args", json!(args));
    crate::case::same("number", t.run(&config)?.ok()?.stdout.trim(), "9999")
}

fn arguments_beyond_the_limit_are_refused(t: &Test) -> Outcome {
    refuses(t, "process.args", json!(["/bin/true", "x".repeat(4 << 20)]))
}

fn a_hundred_thousand_mounts_after_a_bad_one(t: &Test) -> Outcome {
    let mut config = t.config();
    config.bind(&t.dir.join("not-there"), "/data", &[]);
    for n in 0..100_000 {
        config.mount(&format!("/tmp/m{}", n % 10), "tmpfs", "tmpfs", &[]);
    }
    let c = t.container(&config)?;
    let begin = Instant::now();
    let started = crate::process::start(&mut c.bundle_command("create", &[]), &t.dir)?;
    clear(started.finish(std::time::Duration::from_secs(30))?)?;
    let seconds = begin.elapsed().as_secs();
    check!(seconds < 15 * u64::from(crate::process::slowness()), "{seconds} s");
    Ok(())
}

fn two_hundred_megabytes_of_config_end_in_bounded_time(t: &Test) -> Outcome {
    let c = t.container(&t.config())?;
    let mut text = t.config().0.to_string();
    text.pop();
    text.push_str(",\"annotations\":{\"big\":\"");
    text.push_str(&"x".repeat(200 << 20));
    text.push_str("\"}}");
    fs::write(c.bundle.join("config.json"), text)?;
    let started = crate::process::start(&mut c.bundle_command("create", &[]), &t.dir)?;
    let output = started.finish(std::time::Duration::from_secs(60))?;
    let _ = c.delete_force()?;
    if output.code != 0 { clear(output) } else { Ok(()) }
}

/// A call that names an input: with a limit on memory, so that a runtime that reads on does not harm others.
fn with_input(t: &Test, c: &Container, words: &[&str], file: &str) -> Outcome<Output> {
    let script = "ulimit -v 4000000; exec \"$RT\" --root \"$ST\" \"$@\"";
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", script, "sh"]).args(words.iter().map(|word| word.replace("FILE", file)));
    command.arg(&c.id).env("RT", &t.runtime.program).env("ST", &t.runtime.state).current_dir(&c.bundle);
    crate::process::run(&mut command, &t.dir)
}

const INPUTS: &[&[&str]] =
    &[&["exec", "--process", "FILE"], &["update", "--resources", "FILE"], &["create", "--config", "FILE"]];

fn files_without_end_are_refused(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let fifo = t.dir.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    for words in INPUTS {
        for file in ["/dev/zero", &fifo.display().to_string()] {
            clear(with_input(t, &c, words, file)?)?;
        }
    }
    Ok(())
}

fn files_that_are_nested_too_deeply_are_refused(t: &Test) -> Outcome {
    let c = t.detached(&t.sleeper())?;
    let file = t.dir.join("nested");
    fs::write(&file, "[".repeat(1 << 20))?;
    for words in INPUTS {
        clear(with_input(t, &c, words, &file.display().to_string())?)?;
    }
    Ok(())
}

fn bundle_that_cannot_be_read(t: &Test) -> Outcome {
    let mut c = t.container(&t.config())?;
    c.bundle = t.dir.join("canary/file");
    rejected(t, &c)
}

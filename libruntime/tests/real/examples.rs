//! The examples, as their users run them.

use super::bundle::{Bundle, config, new_id, turn};
use serde_json::{Value, json};
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

/// Where the examples are that were built with this test, or elsewhere by `scripts/package-test`.
fn directory() -> PathBuf {
    match std::env::var_os("LIBRUNTIME_EXAMPLES") {
        Some(directory) => directory.into(),
        None => std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples"),
    }
}

/// The standard output of an example, which has to succeed.
fn run(name: &str, argument: &std::path::Path) -> String {
    let program = directory().join(name);
    assert!(program.exists(), "{}: build it with cargo build -p libruntime --examples", program.display());
    // Not into a pipe: a container that a failed example leaves would hold that open.
    let [out, err] = ["out", "err"].map(|end| std::env::temp_dir().join(format!("{}{end}", new_id())));
    let mut command = Command::new("timeout");
    // The host's own network is not touched.
    command.args(["60", "unshare", "--net"]).arg(program).arg(argument).stdin(std::process::Stdio::null());
    let status = command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap()).status();
    let [out, err] = [out, err].map(|path| {
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        text
    });
    assert!(status.unwrap().success(), "{name}: {out}{err}");
    out
}

fn on(name: &str, config: &Value) -> String {
    let bundle = Bundle::new(config);
    for program in ["cat", "sh", "sleep", "true", "stty"] {
        std::os::unix::fs::symlink("busybox", bundle.rootfs().join("bin").join(program)).unwrap();
    }
    run(name, &bundle.directory)
}

#[test]
#[ignore = "needs root"]
fn every_example_does_what_it_says() {
    let Some(_turn) = turn() else { return };
    assert_eq!(on("hello", &config("echo hi; exit 2")), "exit code 2: hi\n");
    assert_eq!(on("streams", &config("read line; echo $line pong; exit 4")), "exit code 4: ping pong\n");
    // It is linked dynamically here.
    let mut own = config("");
    let libraries = ["/lib", "/lib64", "/usr"].into_iter().filter(|path| std::path::Path::new(path).exists());
    own["mounts"].as_array_mut().unwrap().extend(libraries.map(
        |path| json!({"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"]}),
    ));
    assert_eq!(on("own_init", &own), "exit code 12: hello from pid 1\n");
    assert_eq!(on("exec", &config("sleep 1000")), "exit code 3: hello\nsignal 15\n");
    assert_eq!(on("event_loop", &config("exit 5")), "exit code 5\n".repeat(4));
    let threads = on("threads", &config("true"));
    assert!(threads.starts_with("128 containers, at most "), "{threads}");
    let soak = on("soak", &config("sleep 1000"));
    assert!(soak.contains(" cycles on 64 threads, none lost; "), "{soak}");
    assert!(on("timeouts", &config("sleep 1000")).starts_with("interrupted: the end of "));
    let resources = on("resources", &config("sleep 1000"));
    assert!(resources.starts_with("Some(1) processes of Some(100)\nHappened"), "{resources}");
    let mut shell = config("");
    shell["process"]["args"] = json!(["/bin/busybox", "sh"]);
    let terminal = on("terminal", &shell);
    assert!(terminal.contains("50 132") && terminal.ends_with("exit code 3\n"), "{terminal}");
    let jobs: String = (1..=8).map(|job| format!("exit code {job}: job {job} in /bin\n")).collect();
    assert_eq!(on("warm_pool", &config("true")), jobs);
    let times = on("timeline", &config("true"));
    assert!(
        times.contains("  stage    PivotRoot [root.path]") && times.contains("  library  execute"),
        "{times}"
    );
    // Root of the host has an id map to write as well.
    assert_eq!(
        on("rootless", &config("cat /proc/self/uid_map")),
        "exit code 0:          0          0          1\n"
    );
    let explained = on("explain", &config("true"));
    assert!(
        explained.contains("specification up to 1.3.0") && explained.contains(r#""kind":"invalidConfig""#)
    );
    let bundle = Bundle::new(&config(""));
    std::os::unix::fs::symlink("busybox", bundle.rootfs().join("bin/echo")).unwrap();
    assert_eq!(run("spec", &bundle.rootfs()), "exit code 0: from code\n");
}

#[test]
#[ignore = "needs root"]
fn the_example_with_a_network_does_what_it_says() {
    let Some(_turn) = turn() else { return };
    if Command::new("nft").arg("--version").output().is_err() {
        return eprintln!("skipped: nft is not installed");
    }
    let text = on("network", &config("sleep 1000"));
    assert!(text.starts_with("eth0 on example0: [") && text.contains("first: 28526"), "{text}");
}

/// Where it was built: `cargo test --features tokio`.
#[test]
#[ignore = "needs root"]
#[cfg(feature = "tokio")]
fn the_example_with_tokio_does_what_it_says() {
    let Some(_turn) = turn() else { return };
    assert_eq!(on("tokio", &config("exit 6")), "exit code 6\n".repeat(8));
}

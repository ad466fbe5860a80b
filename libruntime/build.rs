//! Builds the stage, a program without libc, and leaves it where `src/stage.rs` embeds it.

use std::path::PathBuf;
use std::process::Command;

/// A static program at a fixed address, with no start-up code and no library of anybody.
const FLAGS: &[&str] = &[
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-static",
    "-Clink-arg=-no-pie",
    "-Clink-self-contained=no",
    "-Crelocation-model=static",
];

fn main() {
    println!("cargo::rerun-if-changed=stage/src");
    println!("cargo::rerun-if-changed=stage/Cargo.toml");
    let var = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let (target, out) = (var("TARGET"), PathBuf::from(var("OUT_DIR")).join("stage"));
    let stage = PathBuf::from(var("CARGO_MANIFEST_DIR")).join("stage");
    let status = Command::new(var("CARGO"))
        .args(["build", "--release", "--bin", "stage", "--features", "program", "--target", &target])
        .arg("--manifest-path")
        .arg(stage.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&out)
        // The workspace's own release profile may differ, above all where this is a dependency.
        .envs(
            [
                ("PANIC", "abort"),
                ("OPT_LEVEL", "s"),
                ("LTO", "fat"),
                ("STRIP", "true"),
                ("CODEGEN_UNITS", "1"),
            ]
            .map(|(key, value)| (format!("CARGO_PROFILE_RELEASE_{key}"), value)),
        )
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"))
        .env_remove("RUSTFLAGS")
        // These would wrap or check the outer build's compiler.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_TARGET_DIR")
        .status();
    assert!(status.is_ok_and(|status| status.success()), "cannot build the stage in {}", stage.display());
    println!("cargo::rustc-env=ONGGI_STAGE={}", out.join(&target).join("release/stage").display());
}

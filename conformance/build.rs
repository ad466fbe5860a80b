//! Compiles the probe as a static program of its own, so that the one `conformance` binary carries all
//! that it puts into a container. It must not need anything but rustc; see src/probe/main.rs next.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=src/probe");
    println!("cargo:rerun-if-changed=build.rs");
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("probe");
    // A glibc target links statically where libc.a is installed; musl needs only its Rust target.
    let musl = format!("{arch}-unknown-linux-musl");
    let mut failures = String::new();
    for candidate in [musl.as_str(), target.as_str()] {
        match compile(candidate, &out) {
            Ok(()) => return,
            Err(text) => failures.push_str(&format!("--target {candidate}:\n{text}\n")),
        }
    }
    panic!("the probe could not be linked statically; `rustup target add {musl}` is enough:\n{failures}");
}

fn compile(target: &str, out: &PathBuf) -> Result<(), String> {
    let rustc = env::var_os("RUSTC").expect("cargo sets RUSTC");
    let done = Command::new(rustc)
        .args(["--edition=2024", "--crate-name=probe", "--crate-type=bin", "--target", target])
        .args(["-Copt-level=s", "-Cpanic=abort", "-Cstrip=symbols", "-Ctarget-feature=+crt-static"])
        .args(["-Crelocation-model=static", "src/probe/main.rs", "-o"])
        .arg(out)
        .output()
        .map_err(|error| error.to_string())?;
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
}

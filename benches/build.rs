//! Compiles `floor/`, the program that measures the kernel's own cost, and leaves it in `OUT_DIR`
//! for `src/work.rs` to embed; tells the program which compiler it is made by.
//!
//! It is compiled on its own, and not as a second binary of this package, because it must be static:
//! loading a shared libc costs about as much as half of the work that it measures, and a package
//! cannot link one of its binaries differently from the others.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=floor");
    let var = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let mut rustc = Command::new(var("RUSTC"));
    rustc.args([
        "--edition=2024",
        "--crate-name=floor",
        "--crate-type=bin",
        "-Copt-level=3",
        "-Cpanic=abort",
    ]);
    rustc.args(["-Ctarget-feature=+crt-static", "-Crelocation-model=static", "-Cstrip=symbols"]);
    rustc.args(["--target", &var("TARGET")]);
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    rustc.arg("-o").arg(Path::new(&var("OUT_DIR")).join("floor")).arg("floor/main.rs");
    let status = rustc.status().unwrap_or_else(|error| panic!("{rustc:?}: {error}"));
    assert!(status.success(), "{rustc:?}: {status}");
    // What is counted depends on the compiler.
    let version = Command::new(var("RUSTC")).arg("--version").output();
    let version = version.ok().and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    let words: Vec<&str> = version.split_whitespace().take(2).collect();
    println!("cargo::rustc-env=BENCH_COMPILER={}", words.join(" "));
}

//! Builds the stage, a program without libc, and leaves it where `src/stage.rs` embeds it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A static program at a fixed address, with no start-up code and no library of anybody.
const FLAGS: &[&str] = &["-Clink-arg=-nostdlib", "-Clink-arg=-static", "-Crelocation-model=static"];

/// How the stage is linked. The toolchain's own lld links for every target, with no C compiler and no
/// `ld` on the host. Where a distribution's toolchain has none, the C compiler does it: its default
/// linker, or the one that the user has chosen for this target.
fn linker(rustc: &str, host: &str, target: &str) -> Vec<String> {
    let sysroot = Command::new(rustc).args(["--print", "sysroot"]).output();
    let sysroot = sysroot.ok().and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    let lld = PathBuf::from(sysroot.trim()).join("lib/rustlib").join(host).join("bin/rust-lld");
    let own = |flags: &[&str]| flags.iter().map(|flag| flag.to_string()).collect();
    if lld.is_file() {
        let mut flags: Vec<String> = own(&["-Clinker-flavor=ld.lld", "-Clink-self-contained=no"]);
        flags.push(format!("-Clinker={}", lld.display()));
        return flags;
    }
    let mut flags: Vec<String> = own(&["-Clink-arg=-nostartfiles", "-Clink-arg=-no-pie"]);
    // Start-up objects come with the targets that bring their own C library. For the others this flag
    // would take a bundled linker away and leave its name on the command line (Rust 1.90 and newer).
    if target.ends_with("-musl") {
        flags.push("-Clink-self-contained=no".to_string());
    }
    if let Ok(linker) = std::env::var("RUSTC_LINKER") {
        flags.push(format!("-Clinker={linker}"));
    }
    flags
}

/// Puts the stage's package together in `dir`: the manifest under the name that Cargo wants, the sources
/// where they are, and the versions of the outer build where its lock file can be found.
fn package(manifest_dir: &Path, out: &Path, dir: &Path) -> std::io::Result<()> {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir)?;
    let manifest = fs::read_to_string(manifest_dir.join("stage/manifest.toml"))?;
    fs::write(dir.join("Cargo.toml"), format!("{manifest}\n[workspace]\n"))?;
    symlink(manifest_dir.join("stage/src"), dir.join("src"))?;
    let mut places = out.ancestors().chain(manifest_dir.parent()).map(|place| place.join("Cargo.lock"));
    match places.find(|lock| lock.is_file()) {
        Some(lock) => fs::copy(lock, dir.join("Cargo.lock")).map(drop),
        None => Ok(()),
    }
}

fn main() {
    println!("cargo::rerun-if-changed=stage");
    // The attribute of the steps' file that only the program's build turns on.
    println!("cargo::rustc-check-cfg=cfg(feature, values(\"program\"))");
    let var = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let (target, out) = (var("TARGET"), PathBuf::from(var("OUT_DIR")));
    let (dir, built) = (out.join("package"), out.join("stage"));
    package(Path::new(&var("CARGO_MANIFEST_DIR")), &out, &dir).expect("the stage's package can be written");
    let mut flags: Vec<String> = FLAGS.iter().map(|flag| flag.to_string()).collect();
    flags.extend(linker(&var("RUSTC"), &var("HOST"), &target));
    let status = Command::new(var("CARGO"))
        .args(["build", "--release", "--bin", "stage", "--features", "program", "--target", &target])
        // Every crate that the stage needs is there already: libruntime depends on it too.
        .arg("--offline")
        .arg("--manifest-path")
        .arg(dir.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&built)
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
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env_remove("RUSTFLAGS")
        // These would wrap or check the outer build's compiler.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_TARGET_DIR")
        .status();
    assert!(status.is_ok_and(|status| status.success()), "cannot build the stage in {}", dir.display());
    println!("cargo::rustc-env=ONGGI_STAGE={}", built.join(&target).join("release/stage").display());
}

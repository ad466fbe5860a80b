//! The image that engines get: the root file system of all cases as an archive, plain for an import, and as
//! `docker save` writes it for containerd. Nothing is fetched.

use crate::bundle;
use crate::case::Outcome;
use crate::process;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `DIR/image.tar`, made once.
pub fn archive(base: &Path, dir: &Path) -> Outcome<PathBuf> {
    let file = dir.join("image.tar");
    if !file.exists() {
        let root = dir.join("image");
        bundle::make_rootfs(base, &root)?;
        pack(&root, &file, dir)?;
    }
    Ok(file)
}

fn pack(from: &Path, to: &Path, dir: &Path) -> Outcome {
    let mut tar = Command::new("tar");
    process::run(tar.arg("-C").arg(from).arg("-cf").arg(to).arg("."), dir)?.ok().map(drop)
}

/// `DIR/NAME.tar`: `localhost/NAME:latest` with one layer and a command, in the form of `docker save`.
pub fn saved(archive: &Path, dir: &Path, name: &str, words: &[&str]) -> Outcome<PathBuf> {
    let file = dir.join(format!("{name}.tar"));
    if file.exists() {
        return Ok(file);
    }
    let work = dir.join(format!("saved-{name}"));
    bundle::make_dir(&work.join("l"))?;
    fs::copy(archive, work.join("l/layer.tar"))?;
    let output = process::run(Command::new("sha256sum").arg(archive), dir)?.ok()?;
    let sum = output.stdout.split_whitespace().next().unwrap_or_default().to_owned();
    let config = serde_json::json!({
        "architecture": architecture(), "os": "linux", "config": { "Cmd": words },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{sum}")] },
    });
    fs::write(work.join("c.json"), config.to_string())?;
    let tag = format!("localhost/{name}:latest");
    let manifest = serde_json::json!([{ "Config": "c.json", "RepoTags": [tag], "Layers": ["l/layer.tar"] }]);
    fs::write(work.join("manifest.json"), manifest.to_string())?;
    pack(&work, &file, dir)?;
    Ok(file)
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

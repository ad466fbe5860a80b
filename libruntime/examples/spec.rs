//! A configuration in code and a root filesystem, without a bundle: `spec ROOTFS`.

use libruntime::{Runtime, Spec};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rootfs = std::env::args().nth(1).ok_or("usage: spec ROOTFS")?;
    let spec: Spec = serde_json::from_value(serde_json::json!({
        "ociVersion": "1.2.0",
        "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"], "args": ["echo", "from code"]},
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "network"}]}
    }))?;
    let runtime = Runtime::new("/run/libruntime-example");
    let output =
        runtime.container(format!("spec-{}", std::process::id())).spec(spec).rootfs(rootfs).output()?;
    print!("{}: {}", output.status, String::from_utf8_lossy(&output.stdout));
    Ok(())
}

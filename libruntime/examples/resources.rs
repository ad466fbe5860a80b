//! Statistics, pausing and new limits: `resources BUNDLE`, whose program runs for a while.

use libruntime::oci_spec::runtime::{LinuxPidsBuilder, LinuxResourcesBuilder};
use libruntime::{Runtime, Status};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::env::args().nth(1).ok_or("usage: resources BUNDLE")?;
    let runtime = Runtime::new("/run/libruntime-example");
    let container = runtime.container(format!("resources-{}", std::process::id())).bundle(bundle).run()?;
    container.pause()?;
    assert_eq!(container.status(), Status::Paused);
    container.resume()?;
    let pids = LinuxPidsBuilder::default().limit(100i64).build()?;
    container.update(&LinuxResourcesBuilder::default().pids(pids).build()?)?;
    let stats: libruntime::stats::Stats = container.stats()?;
    println!("{:?} processes of {:?}", stats.pids.current, stats.pids.limit);
    container.delete_force()?;
    Ok(())
}

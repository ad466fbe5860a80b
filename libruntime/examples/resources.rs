//! Statistics, pausing, new limits, and memory that runs out: `resources BUNDLE`, whose program runs for a while.

use libruntime::oci_spec::runtime::{LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResourcesBuilder};
use libruntime::{ExitStatus, Runtime, Status};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::env::args().nth(1).ok_or("usage: resources BUNDLE")?;
    let runtime = Runtime::new("/run/libruntime-example");
    let container = runtime.container(format!("resources-{}", std::process::id())).bundle(bundle).run()?;
    container.pause()?;
    assert_eq!(container.status(), Status::Paused);
    container.resume()?;

    let pids = LinuxPidsBuilder::default().limit(100i64).build()?;
    let memory = LinuxMemoryBuilder::default().limit(16i64 << 20).build()?;
    container.update(&LinuxResourcesBuilder::default().pids(pids).memory(memory).build()?)?;
    let stats: libruntime::stats::Stats = container.stats()?;
    println!("{:?} processes of {:?}", stats.pids.current, stats.pids.limit);

    let mut events = container.oom_events()?;
    let doubled = container.exec(["sh", "-c", "x=0123456789; while :; do x=$x$x; done"]).output()?;
    assert_eq!(doubled.status, ExitStatus::Signal(9));
    println!("{:?}", events.wait(Some(Duration::from_secs(5)))?);
    container.delete_force()?;
    Ok(())
}

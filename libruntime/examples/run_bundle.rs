//! Runs a bundle to its end: `run_bundle BUNDLE`. All that a program needs to embed a container.

use libruntime::{Create, Exit, create};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::env::args().nth(1).ok_or("usage: run_bundle BUNDLE")?;
    let id = format!("example-{}", std::process::id());
    let container = create(&Create::new(Path::new("/run/libruntime-example"), &id, Path::new(&bundle)))?;
    for warning in container.warnings() {
        eprintln!("warning: {warning}");
    }
    container.start()?;
    let exit = container.wait()?;
    container.delete(false)?;
    match exit {
        Exit::Code(code) => std::process::exit(code),
        Exit::Signal(signal) => Err(format!("killed by signal {signal}").into()),
    }
}

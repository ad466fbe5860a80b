//! Where the time of a start goes: `timeline BUNDLE`. Writes a picture beside the table, into the bundle.

use libruntime::{Runtime, Stdio, Timeline};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::env::args().nth(1).ok_or("usage: timeline BUNDLE")?;
    let runtime = Runtime::new("/run/libruntime-example");
    let timeline = Timeline::new();
    let id = format!("timeline-{}", std::process::id());
    let container = timeline.record(|| runtime.container(id).bundle(&bundle).stdin(Stdio::null()).run())?;
    container.wait()?;
    container.delete()?;
    print!("{}", timeline.to_text());
    std::fs::write(std::path::Path::new(&bundle).join("start.svg"), timeline.to_svg())?;
    Ok(())
}

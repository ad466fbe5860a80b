//! Runs a bundle to its end: `run_bundle BUNDLE`.

use libruntime::Runtime;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::env::args().nth(1).ok_or("usage: run_bundle BUNDLE")?;
    let runtime = Runtime::new("/run/libruntime-example");
    let container = runtime.container(format!("example-{}", std::process::id())).bundle(bundle).run()?;
    container.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
    let exit = container.wait()?;
    container.delete()?;
    std::process::exit(exit.shell_code())
}

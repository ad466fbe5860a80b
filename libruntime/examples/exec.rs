//! More processes in a container: `exec BUNDLE`, whose program runs for a while.

use libruntime::{Runtime, Signal, Stdio};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::env::args().nth(1).ok_or("usage: exec BUNDLE")?;
    let runtime = Runtime::new("/run/libruntime-example");
    let container = runtime.container(format!("exec-{}", std::process::id())).bundle(bundle).run()?;

    let output = container.exec(["sh", "-c", "echo $GREETING; exit 3"]).env("GREETING", "hello").output()?;
    print!("{}: {}", output.status, String::from_utf8_lossy(&output.stdout));

    let sleep = container.exec(["sleep", "1000"]).stdin(Stdio::null()).spawn()?;
    assert_eq!(sleep.wait_timeout(Duration::from_millis(50))?, None);
    sleep.kill(Signal::TERM)?;
    println!("{}", sleep.wait()?);

    container.delete_force()?;
    Ok(())
}

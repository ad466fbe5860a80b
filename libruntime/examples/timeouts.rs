//! Deadlines, cancellation, and handles that are dropped: `timeouts BUNDLE`, whose program runs for a while.

use libruntime::{Cancel, ErrorKind, Runtime, Stdio};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::env::args().nth(1).ok_or("usage: timeouts BUNDLE")?;
    let runtime = Runtime::new("/run/libruntime-example");
    let id = format!("timeouts-{}", std::process::id());
    let container = runtime.container(&id).bundle(bundle).stdin(Stdio::null()).run()?;
    assert_eq!(container.wait_timeout(Duration::from_millis(50))?, None);

    let cancel = Cancel::new()?;
    let waiting = container.with_cancel(cancel.clone());
    let waiter = std::thread::spawn(move || waiting.wait());
    cancel.cancel();
    let error = waiter.join().expect("no panic").expect_err("cancelled");
    assert_eq!(error.kind(), ErrorKind::Interrupted);

    // Nobody waits for this process, and nothing is kept waiting by that.
    drop(container.exec(["true"]).spawn()?);
    drop(container);
    runtime.load(&id)?.with_deadline(Duration::from_secs(5)).delete_force()?;
    println!("{error}");
    Ok(())
}

//! Pipes to a running container: `streams BUNDLE`, whose program reads a line and answers.

use libruntime::{Runtime, Stdio};
use std::io::{Read, Write};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::env::args().nth(1).ok_or("usage: streams BUNDLE")?;
    let container = Runtime::new("/run/libruntime-example")
        .container(format!("streams-{}", std::process::id()))
        .bundle(bundle)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .run()?;
    container.take_stdin().ok_or("no pipe")?.write_all(b"ping\n")?;
    let mut answer = String::new();
    container.take_stdout().ok_or("no pipe")?.read_to_string(&mut answer)?;
    print!("{}: {answer}", container.wait()?);
    container.delete()?;
    Ok(())
}

//! A terminal of the caller's own, and its size: `terminal BUNDLE`, in which there is a shell.

use libruntime::{Runtime, TerminalSize};
use std::io::{Read, Write};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::env::args().nth(1).ok_or("usage: terminal BUNDLE")?;
    let runtime = Runtime::new("/run/libruntime-example");
    let container = runtime
        .container(format!("terminal-{}", std::process::id()))
        .bundle(bundle)
        .terminal(TerminalSize { rows: 24, columns: 80 })
        .run()?;
    let mut terminal = container.take_terminal().ok_or("no terminal")?;
    terminal.resize(TerminalSize { rows: 50, columns: 132 })?;
    terminal.write_all(b"stty size; exit 3\n")?;
    let mut printed = String::new();
    terminal.read_to_string(&mut printed)?;
    println!("{printed}{}", container.wait()?);
    container.delete()?;
    Ok(())
}

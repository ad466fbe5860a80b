//! Several containers in one poll(2) loop, without a thread for each: `event_loop BUNDLE`.

use libruntime::{Container, Runtime, Stdio};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::env::args().nth(1).ok_or("usage: event_loop BUNDLE")?;
    let runtime = Runtime::new("/run/libruntime-example");
    let start = |number: u32| {
        let id = format!("loop-{}-{number}", std::process::id());
        runtime.container(id).bundle(&bundle).stdin(Stdio::null()).run()
    };
    let mut running = (0..4).map(start).collect::<libruntime::Result<Vec<Container>>>()?;
    while !running.is_empty() {
        let mut wanted: Vec<_> =
            running.iter().map(|one| PollFd::new(one.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut wanted, PollTimeout::NONE)?;
        let ended: Vec<bool> = wanted.iter().map(|one| one.any() == Some(true)).collect();
        let mut ended = ended.into_iter();
        let (over, rest) = running.into_iter().partition(|_| ended.next() == Some(true));
        running = rest;
        for container in over {
            println!("{}", container.wait()?);
            container.delete()?;
        }
    }
    Ok(())
}

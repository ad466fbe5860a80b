//! Several containers in one poll(2) loop, without a thread for each: `event_loop BUNDLE`.

use libruntime::{Container, Runtime, Stdio};
use std::os::fd::{AsFd, AsRawFd};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bundle = std::env::args().nth(1).ok_or("usage: event_loop BUNDLE")?;
    let runtime = Runtime::new("/run/libruntime-example");
    let start = |number: u32| {
        let id = format!("loop-{}-{number}", std::process::id());
        runtime.container(id).bundle(&bundle).stdin(Stdio::null()).run()
    };
    let mut running = (0..4).map(start).collect::<libruntime::Result<Vec<Container>>>()?;
    while !running.is_empty() {
        let descriptor =
            |one: &Container| libc::pollfd { fd: one.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut wanted: Vec<_> = running.iter().map(descriptor).collect();
        // SAFETY: the list is as long as it says.
        unsafe { libc::poll(wanted.as_mut_ptr(), wanted.len() as libc::nfds_t, -1) };
        let mut ended = wanted.iter().map(|one| one.revents != 0);
        let (over, rest) = running.into_iter().partition(|_| ended.next() == Some(true));
        running = rest;
        for container in over {
            println!("{}", container.wait()?);
            container.delete()?;
        }
    }
    Ok(())
}

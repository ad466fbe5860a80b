//! Signals to the shim, and children that nobody else waits for: what an exec in the host's pid namespace leaves
//! behind becomes a child of the shim's main thread.

use tokio::signal::unix::{SignalKind, signal};

pub enum Signal {
    Child,
    /// SIGTERM or SIGINT.
    End,
    /// SIGUSR1.
    Dump,
}

pub struct Signals {
    child: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    dump: tokio::signal::unix::Signal,
    /// It would end the shim; nothing is to be done.
    _hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            child: signal(SignalKind::child())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            dump: signal(SignalKind::user_defined1())?,
            _hang_up: signal(SignalKind::hangup())?,
        })
    }

    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.child.recv() => Signal::Child,
            _ = self.terminate.recv() => Signal::End,
            _ = self.interrupt.recv() => Signal::End,
            _ = self.dump.recv() => Signal::Dump,
        }
    }
}

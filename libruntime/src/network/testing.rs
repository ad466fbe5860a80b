//! Network namespaces for tests: a "host" of its own for each test, and containers beside it.
//! Nothing outside is touched. They need root.

use super::netlink::inside;
use nix::sched::{CloneFlags, unshare};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Command;

/// Runs a test on a thread whose network namespace is new and empty.
pub(crate) fn in_new_host(test: impl FnOnce() + Send) {
    assert!(nix::unistd::geteuid().is_root(), "network namespaces take root");
    let host = Namespace::new();
    inside(host.fd(), || {
        ip("link set lo up");
        test();
        Ok(())
    })
    .unwrap();
}

/// A network namespace that nobody is in.
pub(crate) struct Namespace(File);

impl Namespace {
    pub fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        Self(std::thread::spawn(make).join().unwrap())
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// `ip` inside.
    pub fn ip(&self, arguments: &str) -> String {
        self.run(|| ip(arguments))
    }

    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(self.fd(), || Ok(work())).unwrap()
    }
}

/// `ip` of iproute2 with these arguments; it has to succeed.
pub(crate) fn ip(arguments: &str) -> String {
    run(&format!("ip {arguments}"))
}

/// A command that has to succeed, and its output.
pub(crate) fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

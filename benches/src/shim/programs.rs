//! Counts the programs that descendants of this process execute, by the kernel's proc connector (netlink, Linux 2.6.15,
//! CONFIG_PROC_EVENTS; root in the first user namespace): nobody is traced or slowed down by it.

use std::collections::HashSet;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, MsgFlags, NetlinkAddr, setsockopt, sockopt};

/// `CN_IDX_PROC` and `CN_VAL_PROC` of linux/connector.h.
const PROC: u32 = 1;
const LISTEN: u32 = 1;
/// `what` of `struct proc_event` in linux/cn_proc.h.
const FORK: u32 = 1;
const EXEC: u32 = 2;
/// After `struct nlmsghdr` and `struct cn_msg`.
const EVENT: usize = 16 + 20;
/// After what, processor and time.
const DATA: usize = EVENT + 16;
const BUFFER: usize = 8 << 20;

pub struct Programs {
    socket: OwnedFd,
    family: HashSet<u32>,
}

impl Programs {
    pub fn listen() -> Result<Self, String> {
        let failed = |what: &'static str| move |errno: Errno| format!("proc connector: {what}: {errno}");
        let socket = connector().map_err(failed("socket"))?;
        // Everybody's events come, and those that have no room are lost. Less than wanted is no error.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
        socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, PROC)).map_err(failed("bind"))?;
        let mut message = Vec::new();
        message.extend(40u32.to_ne_bytes());
        // NLMSG_DONE, no flags; sequence and port are the kernel's.
        message.extend(3u16.to_ne_bytes());
        message.extend([0; 10]);
        for word in [PROC, PROC, 0, 0] {
            message.extend(word.to_ne_bytes());
        }
        message.extend(4u16.to_ne_bytes());
        message.extend([0; 2]);
        message.extend(LISTEN.to_ne_bytes());
        socket::send(socket.as_raw_fd(), &message, MsgFlags::empty()).map_err(failed("send"))?;
        Ok(Self { socket, family: HashSet::from([std::process::id()]) })
    }

    /// Since the last call. Fails where events were lost.
    pub fn count(&mut self) -> Result<u64, String> {
        let mut buffer = [0; 4096];
        let mut count = 0;
        loop {
            match socket::recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => count += u64::from(self.take(&buffer[..length])),
                Err(Errno::EAGAIN) => return Ok(count),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(format!("proc connector: recv: {errno}")),
            }
        }
    }

    /// Whether the event is of a program of ours.
    fn take(&mut self, message: &[u8]) -> bool {
        let word = |at: usize| {
            message.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
        };
        match word(EVENT) {
            // The process of the parent, and the new one's; a thread is of the same process.
            FORK if self.family.contains(&word(DATA + 4)) => {
                self.family.insert(word(DATA + 12));
                false
            }
            EXEC => self.family.contains(&word(DATA + 4)),
            _ => false,
        }
    }
}

#[allow(unsafe_code)]
fn connector() -> Result<OwnedFd, Errno> {
    // SAFETY: socket(2) takes numbers alone.
    let socket = unsafe {
        libc::socket(libc::AF_NETLINK, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, libc::NETLINK_CONNECTOR)
    };
    Errno::result(socket)?;
    // SAFETY: it is open, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_descendants_are_counted_and_no_others() {
        let Ok(mut programs) = Programs::listen() else { return eprintln!("skipped: needs root") };
        programs.family = HashSet::from([7]);
        let event = |what: u32, data: [u32; 4]| {
            let mut message = vec![0; EVENT];
            message.extend(what.to_ne_bytes());
            message.extend([0; 12]);
            data.iter().for_each(|word| message.extend(word.to_ne_bytes()));
            message
        };
        // A thread of 7 makes process 9, which makes thread 10.
        assert!(!programs.take(&event(FORK, [8, 7, 9, 9])) && !programs.take(&event(FORK, [9, 9, 10, 9])));
        assert!(programs.take(&event(EXEC, [9, 9, 0, 0])));
        assert!(!programs.take(&event(FORK, [3, 3, 4, 4])) && !programs.take(&event(EXEC, [4, 4, 0, 0])));
    }

    #[test]
    fn a_program_that_is_executed_is_seen() {
        let _others_wait = crate::trace::CHILDREN.lock();
        let Ok(mut programs) = Programs::listen() else { return eprintln!("skipped: needs root") };
        programs.count().expect("nothing is lost");
        std::process::Command::new("sh").args(["-c", "true; env true"]).status().expect("sh");
        // sh, env and the true of env; that of sh is no program.
        assert!(programs.count().expect("nothing is lost") >= 3);
    }
}

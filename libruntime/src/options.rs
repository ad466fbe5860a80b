//! What the caller asks for besides the configuration, for a new container and for a process that joins one.

use crate::console::TerminalSize;
use crate::error::{Error, ErrorKind, Result};
use crate::network::Network;
use crate::settings::Settings;
use crate::stdio::{self, Console, Passed, Stdio, Streams, Waiting};
use crate::sys;
use crate::wait::Limits;
use oci_spec::runtime::{Process, Spec};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

/// A new container. `new_container.rs` fills it.
#[derive(Debug)]
pub(crate) struct Options {
    pub settings: Arc<Settings>,
    pub id: String,
    pub bundle: Option<PathBuf>,
    /// In place of the bundle's `config.json`.
    pub spec: Option<Spec>,
    /// In place of `root.path`.
    pub rootfs: Option<PathBuf>,
    pub process: ProcessOptions,
    pub init: Option<Program>,
    pub no_pivot: bool,
    /// The container is started over the channel of its creation, and by nobody else.
    pub start_by_handle: bool,
    pub networks: Vec<Network>,
    pub notify_socket: Option<PathBuf>,
    pub limits: Limits,
}

/// What a container's first process and one that joins it have in common.
#[derive(Debug, Default)]
pub(crate) struct ProcessOptions {
    /// `None` where the caller has set nothing: the caller's own stream.
    pub stdio: [Option<Stdio>; 3],
    pub console: Console,
    /// The caller copies the terminal's output to another terminal.
    pub relayed_console: bool,
    pub passed: Vec<Passed>,
    pub no_new_keyring: bool,
}

/// The size that a terminal has until it is given one.
const UNKNOWN: TerminalSize = TerminalSize { rows: 0, columns: 0 };

/// A program that is given by descriptor.
#[derive(Debug)]
pub(crate) struct Program {
    pub descriptor: Arc<OwnedFd>,
    /// Comes before `process.args`.
    pub first_argument: Option<String>,
}

impl ProcessOptions {
    /// The initial size of the terminal, where the caller takes its master.
    pub fn terminal_size(&self) -> Option<TerminalSize> {
        match self.console {
            Console::Own(size) => Some(size),
            _ => None,
        }
    }

    /// Puts what the caller asks for into the process of the configuration.
    pub fn apply_to(&self, process: &mut Process) {
        if let Some(size) = self.terminal_size() {
            process.set_terminal(Some(true));
            if size != UNKNOWN {
                let size = serde_json::json!({ "height": size.rows, "width": size.columns });
                process.set_console_size(serde_json::from_value(size).ok());
            }
        }
    }

    /// Adds the descriptors 3 to 2 + `count`, up to the first that is not open, which is an error later.
    pub fn inherit(&mut self, count: u32) {
        for number in (3..).take(count as usize) {
            self.passed.push(Passed::Inherited(number));
            if !sys::is_open(number) {
                break;
            }
        }
    }

    /// Sets the streams that the caller has not set: pipes for the output, and no input.
    pub fn capture_output(&mut self) {
        for (stream, usual) in self.stdio.iter_mut().zip([Stdio::null, Stdio::piped, Stdio::piped]) {
            stream.get_or_insert_with(usual);
        }
    }

    /// What the process gets, and what the caller keeps.
    pub fn open(&mut self) -> Result<(Streams, Waiting)> {
        let stdio = std::mem::take(&mut self.stdio).map(Option::unwrap_or_default);
        stdio::open(stdio, std::mem::take(&mut self.console))
    }
}

/// Descriptors with their numbers in the process, sorted by these.
///
/// # Errors
/// A number belongs to a standard stream or is used twice, or an inherited descriptor is not open. This is checked
/// before the library opens anything: a free number would be given to one of the library's descriptors, and the process
/// would get that.
pub(crate) fn passed(all: &[Passed]) -> Result<Vec<(RawFd, u32)>> {
    let refused = |message| Err(Error::new(ErrorKind::InvalidConfig, message));
    let mut numbers = Vec::with_capacity(all.len());
    for one in all {
        match one {
            Passed::To(_, number) if *number < 3 || *number > i32::MAX as u32 - 1 => {
                return refused(format!("a descriptor cannot be passed as number {number}; 3 is the first"));
            }
            Passed::Inherited(number) if !sys::is_open(*number) => {
                return refused(format!("descriptor {number} is to be inherited and is not open"));
            }
            Passed::To(descriptor, number) => numbers.push((descriptor.as_raw_fd(), *number)),
            Passed::Inherited(number) => numbers.push((*number as RawFd, *number)),
        }
    }
    numbers.sort_unstable_by_key(|(_, number)| *number);
    match numbers.windows(2).find(|pair| pair[0].1 == pair[1].1) {
        Some(pair) => refused(format!("two descriptors are to be passed as number {}", pair[0].1)),
        None => Ok(numbers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn what_cannot_be_passed_is_refused() {
        assert_eq!(passed(&[]).unwrap(), []);
        let refused = |all: &[Passed]| passed(all).unwrap_err().to_string();
        assert!(refused(&[Passed::To(null(), 2)]).contains("number 2"));
        assert!(refused(&[Passed::Inherited(1 << 20)]).contains("is not open"));
        assert!(refused(&[Passed::To(null(), 9), Passed::To(null(), 9)]).contains("two descriptors"));
        let both = [Passed::To(null(), 9), Passed::To(null(), 7)];
        let numbers: Vec<u32> = passed(&both).unwrap().iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers, [7, 9]);
    }
}

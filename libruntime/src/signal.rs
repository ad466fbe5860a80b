//! Signals by their numbers and names (signal(7)).

use crate::error::{Error, ErrorKind, Result};
use std::str::FromStr;

/// A signal. Any number can be sent; the kernel refuses those that it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(pub i32);

impl Signal {
    /// Hang-up.
    pub const HUP: Self = Self(libc::SIGHUP);
    /// Interrupt from the keyboard.
    pub const INT: Self = Self(libc::SIGINT);
    /// Quit from the keyboard.
    pub const QUIT: Self = Self(libc::SIGQUIT);
    /// Cannot be caught.
    pub const KILL: Self = Self(libc::SIGKILL);
    /// The program's own.
    pub const USR1: Self = Self(libc::SIGUSR1);
    /// The program's own.
    pub const USR2: Self = Self(libc::SIGUSR2);
    /// Asks the program to end.
    pub const TERM: Self = Self(libc::SIGTERM);
    /// Stops it; cannot be caught.
    pub const STOP: Self = Self(libc::SIGSTOP);
    /// Continues it.
    pub const CONT: Self = Self(libc::SIGCONT);
}

/// The first real-time signal as kill(1) counts: the C library reserves the kernel's first two.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// A name with or without `SIG`, such as `TERM`, `SIGKILL` or `RTMIN+1`, or a number.
impl FromStr for Signal {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::new(ErrorKind::InvalidConfig, format!("unknown signal {text:?}"));
        parse(text).map(Self).ok_or_else(unknown)
    }
}

fn parse(text: &str) -> Option<i32> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|number| *number <= RTMAX);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let realtime = |base: &str, sign: i32| {
        let rest = name.strip_prefix(base)?;
        let offset = if rest.is_empty() { 0 } else { rest.strip_prefix(['+', '-'])?.parse::<i32>().ok()? };
        (0..=RTMAX - RTMIN).contains(&offset).then_some(sign * offset)
    };
    if let Some(offset) = realtime("RTMIN", 1) {
        return Some(RTMIN + offset);
    }
    if let Some(offset) = realtime("RTMAX", -1) {
        return Some(RTMAX + offset);
    }
    let name = match name {
        "CLD" => "CHLD",
        "IOT" => "ABRT",
        "POLL" => "IO",
        name => name,
    };
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().map(|signal| signal as i32).ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("9", 9),
            ("RTMIN+1", 35),
            ("SIGRTMAX", 64),
            ("64", 64),
        ] {
            assert_eq!(super::parse(text), Some(number), "{text}");
        }
        for text in ["NOSUCH", "65", "999", "9x", "-9", "", "SIG", "RTMIN+31", "RTMIN1"] {
            assert_eq!(super::parse(text), None, "{text}");
        }
    }
}

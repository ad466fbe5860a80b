//! flock(2) with a deadline, and an error that names who holds the lock.

use crate::error::{Error, Result};
use crate::wait::{self, DEADLINE};
use nix::errno::Errno;
use std::fs::{self, File, TryLockError};
use std::os::linux::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Takes an exclusive lock on an open file or directory, which ends with the last descriptor. flock(2) has no timeout,
/// so the lock is polled for.
pub(crate) fn exclusive(opened: &File, path: &Path) -> Result<()> {
    within(opened, path, DEADLINE)
}

fn within(file: &File, path: &Path, limit: Duration) -> Result<()> {
    let failed = |error| Error::io(format!("flock {}", path.display()), error);
    let (end, mut pause) = (Instant::now() + limit, Duration::from_micros(100));
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < end => {
                wait::check(|| format!("lock {}", path.display()))?;
                std::thread::sleep(pause);
            }
            Err(TryLockError::WouldBlock) => return Err(held(file, path, limit)),
            Err(TryLockError::Error(error)) if error.raw_os_error() == Some(Errno::EINTR as i32) => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

fn held(file: &File, path: &Path, limit: Duration) -> Error {
    let what = format!("lock {}: not free within {} s", path.display(), limit.as_secs());
    let Some(pid) = holder(file) else { return Error::external(what) };
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Error::external(format!("{what}, process {pid} ({}) holds it", name.trim()))
        .with_hint(format!("is it stopped or stuck? see /proc/{pid}/status"))
}

/// By /proc/locks: `1: FLOCK  ADVISORY  WRITE PID MAJOR:MINOR:INODE 0 EOF`, device numbers in hexadecimal.
fn holder(file: &File) -> Option<i32> {
    let metadata = file.metadata().ok()?;
    let (major, minor) = (nix::sys::stat::major(metadata.st_dev()), nix::sys::stat::minor(metadata.st_dev()));
    let wanted = format!("{major:02x}:{minor:02x}:{}", metadata.st_ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let held = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        // A line with "->" in front of the kind is of a process that waits.
        (words.get(1) == Some(&"FLOCK") && words.get(5) == Some(&wanted.as_str()))
            .then(|| words.get(4)?.parse().ok())?
    };
    locks.lines().find_map(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_held_is_not_waited_for_without_an_end() {
        let path = std::env::temp_dir().join(format!("onggi-lock-{}", std::process::id()));
        let open = || File::options().create(true).append(true).open(&path).unwrap();
        let (one, other) = (open(), open());
        exclusive(&one, &path).unwrap();
        let begin = Instant::now();
        let error = within(&other, &path, Duration::from_millis(50)).unwrap_err().to_string();
        assert!(begin.elapsed() < Duration::from_secs(5));
        drop(one);
        within(&other, &path, Duration::from_millis(50)).unwrap();
        fs::remove_file(&path).unwrap();
        let own = format!("process {} (", std::process::id());
        assert!(error.contains(&own) && error.contains(&path.display().to_string()), "{error}");
    }
}

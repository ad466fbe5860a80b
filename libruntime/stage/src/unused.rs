//! Descriptors that are not used any more and not closed yet: a set of small numbers. Makes no system call.

use core::sync::atomic::{AtomicU64, Ordering};

/// One bit for each number below [`END`].
static ALL: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static COUNT: AtomicU64 = AtomicU64::new(0);

const END: u32 = 128;

/// How many are closed at once. While they are open, they count against RLIMIT_NOFILE.
pub const MOST: u64 = 100;

/// Returns how many there are now; `None` for a number that does not fit.
pub fn add(fd: i32) -> Option<u64> {
    let fd = u32::try_from(fd).ok()?;
    let half = ALL.get(fd as usize / 64)?;
    half.store(half.load(Ordering::Relaxed) | 1 << (fd % 64), Ordering::Relaxed);
    COUNT.store(COUNT.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    Some(COUNT.load(Ordering::Relaxed))
}

/// Empties the set. Returns its ranges of consecutive numbers, each with its last number.
pub fn take() -> impl Iterator<Item = (u32, u32)> {
    COUNT.store(0, Ordering::Relaxed);
    let all = [ALL[0].swap(0, Ordering::Relaxed), ALL[1].swap(0, Ordering::Relaxed)];
    let is_in = move |number: u32| all[number as usize / 64 % 2] >> (number % 64) & 1 == 1;
    let mut numbers = 0..END;
    core::iter::from_fn(move || {
        let first = numbers.find(|number| is_in(*number))?;
        let next = numbers.find(|number| !is_in(*number)).unwrap_or(END);
        Some((first, next - 1))
    })
}

//! Descriptors that are not used any more and not closed yet: a set of small numbers. Makes no system call.

use core::sync::atomic::{AtomicU64, Ordering};

/// One bit for each number below 128.
static ALL: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// How many are closed at once. While they are open, they count against RLIMIT_NOFILE.
pub const MOST: u32 = 100;

/// Returns how many there are now; `None` for a number that does not fit.
pub fn add(fd: i32) -> Option<u32> {
    let all = load() | 1u128.checked_shl(u32::try_from(fd).ok()?)?;
    store(all);
    Some(all.count_ones())
}

/// Empties the set. Returns its ranges of consecutive numbers, each with its last number.
pub fn take() -> impl Iterator<Item = (u32, u32)> {
    let mut rest = load();
    store(0);
    core::iter::from_fn(move || {
        let first = (rest != 0).then(|| rest.trailing_zeros())?;
        let next = first + (rest >> first).trailing_ones();
        rest &= u128::MAX.checked_shl(next).unwrap_or(0);
        Some((first, next - 1))
    })
}

fn load() -> u128 {
    let [low, high] = [0, 1].map(|half| u128::from(ALL[half].load(Ordering::Relaxed)));
    high << 64 | low
}

fn store(all: u128) {
    ALL[0].store(all as u64, Ordering::Relaxed);
    ALL[1].store((all >> 64) as u64, Ordering::Relaxed);
}

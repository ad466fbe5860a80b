//! Descriptors that are not used any more and not closed yet: a set of small numbers. Makes no system call.

use core::sync::atomic::{AtomicU64, Ordering};

/// One bit for each number below 64.
static ALL: AtomicU64 = AtomicU64::new(0);

/// How many are closed at once. While they are open, they count against RLIMIT_NOFILE.
pub const MOST: u32 = 60;

/// Returns how many there are now; `None` for a number that does not fit.
pub fn add(fd: i32) -> Option<u32> {
    let bit = 1u64.checked_shl(u32::try_from(fd).ok()?)?;
    let all = ALL.load(Ordering::Relaxed) | bit;
    ALL.store(all, Ordering::Relaxed);
    Some(all.count_ones())
}

/// Empties the set. Returns its ranges of consecutive numbers, each with its last number.
pub fn take() -> impl Iterator<Item = (u32, u32)> {
    let mut rest = ALL.load(Ordering::Relaxed);
    ALL.store(0, Ordering::Relaxed);
    core::iter::from_fn(move || {
        let first = (rest != 0).then(|| rest.trailing_zeros())?;
        let next = first + (rest >> first).trailing_ones();
        rest &= u64::MAX.checked_shl(next).unwrap_or(0);
        Some((first, next - 1))
    })
}

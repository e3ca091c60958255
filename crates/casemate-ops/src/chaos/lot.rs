//! Chance. Runs are not repeated: what the kernel does in between is not ours to repeat either.

use std::ops::Range;

pub(super) fn index(count: usize) -> usize {
    let lot = getrandom::u32().unwrap_or_default() as usize;
    lot % count.max(1)
}

pub(super) fn between(range: Range<u64>) -> u64 {
    let width = usize::try_from(range.end - range.start).unwrap_or(1);
    range.start + index(width) as u64
}

pub(super) fn word() -> String {
    format!("{:016x}", getrandom::u64().unwrap_or_default())
}

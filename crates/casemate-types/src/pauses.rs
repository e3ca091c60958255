//! Pauses between tries.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// Between half of a pause and all of it, by lot: those that lost the same thing at the same moment
/// do not all come back to it at once.
pub fn drawn(pause: Duration) -> Duration {
    // Each has keys of its own, which are as good as any number drawn.
    let random = RandomState::new().build_hasher().finish();
    let share = u32::try_from(random % 1000).unwrap_or(0);
    pause / 2 + pause / 2 * share / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_differ_and_are_half_as_long_at_least() {
        let whole = Duration::from_secs(2);
        let drawn: Vec<_> = (0..100).map(|_| drawn(whole)).collect();
        for pause in &drawn {
            assert!((whole / 2..=whole).contains(pause), "{pause:?}");
        }
        assert!(drawn.iter().any(|pause| *pause != drawn[0]));
    }
}

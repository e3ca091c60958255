//! Which pieces are surely in the bucket. A name of the current or the last period is deleted by no
//! sweep (`names.rs`), so what was seen once need not be looked for again until its name is old. Who
//! empties a bucket by hand must start again the processes that use it.

use std::collections::HashMap;

use crate::Digest;
use crate::names::{Period, Scope};

/// Pieces that are remembered; some 80 bytes each. When there are more, the half that was seen
/// first is forgotten, which costs a request for each.
const KNOWN_MAX: usize = 200_000;

#[derive(Clone, Copy)]
pub(super) struct Stored {
    pub(super) period: Period,
    pub(super) stored_len: u32,
}

#[derive(Default)]
pub(super) struct Known {
    new: HashMap<(Scope, Digest), Stored>,
    old: HashMap<(Scope, Digest), Stored>,
}

impl Known {
    /// Where the piece is, if a manifest that is written now may name it.
    pub(super) fn find(&self, scope: &Scope, digest: &Digest, now: Period) -> Option<Stored> {
        let key = (scope.clone(), *digest);
        let found = self.new.get(&key).or_else(|| self.old.get(&key))?;
        found.period.is_young(now).then_some(*found)
    }

    /// Of two places of one piece, the younger is kept.
    pub(super) fn insert(&mut self, scope: &Scope, digest: Digest, stored: Stored) {
        if self
            .find(scope, &digest, stored.period)
            .is_some_and(|has| has.period > stored.period)
        {
            return;
        }
        if self.new.len() >= KNOWN_MAX / 2 {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert((scope.clone(), digest), stored);
    }

    /// A piece that was not where it should be.
    pub(super) fn forget(&mut self, scope: &Scope, digest: &Digest) {
        let key = (scope.clone(), *digest);
        self.new.remove(&key);
        self.old.remove(&key);
    }
}

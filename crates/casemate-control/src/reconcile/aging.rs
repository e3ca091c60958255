//! Since when nothing wants what a node keeps, where several servers share a store: what another one
//! is making, and has no row yet, looks the same.
//!
//! A snapshot or a fork is over long before [`GRACE`] is. A build takes longer, and rests on what it
//! found when it began: nothing goes while another server builds anything.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::ReconcileError;
use crate::Control;

const GRACE: Duration = Duration::from_secs(15 * 60);

/// By name.
type Since = HashMap<String, Instant>;
/// What kind of things, at which node.
type Place = (&'static str, String);

#[derive(Default)]
pub(crate) struct Aging(Mutex<HashMap<Place, Since>>);

/// One look at a node.
pub(super) struct Look<'a> {
    of: &'a Aging,
    place: Place,
    before: Since,
    seen: Since,
}

impl Aging {
    pub(super) fn look(&self, kind: &'static str, node: &str) -> Look<'_> {
        let place = (kind, node.to_owned());
        let before = self.lock().get(&place).cloned().unwrap_or_default();
        Look {
            of: self,
            place,
            before,
            seen: Since::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Since>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Look<'_> {
    /// Whether nothing has wanted it for long enough.
    pub(super) fn is_due(&mut self, name: &str) -> bool {
        let since = self.before.get(name).copied().unwrap_or_else(Instant::now);
        self.seen.insert(name.to_owned(), since);
        since.elapsed() >= GRACE
    }

    /// All was looked at: what was not among it is wanted, or gone.
    pub(super) fn done(self) {
        self.of.lock().insert(self.place, self.seen);
    }
}

impl Control {
    /// Whether what nothing wants may go now, as far as other servers are concerned.
    pub(super) async fn may_sweep(
        &self,
        look: &mut Look<'_>,
        name: &str,
    ) -> Result<bool, ReconcileError> {
        if self.shared().is_none() {
            return Ok(true);
        }
        let is_due = look.is_due(name);
        Ok(is_due && self.is_janitor() && !self.store.build_has_others(&self.owner).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_wanted_in_between_begins_anew() {
        let aging = Aging::default();
        let look = |names: &[&str]| {
            let mut look = aging.look("layers", "node");
            let due: Vec<bool> = names.iter().map(|name| look.is_due(name)).collect();
            look.done();
            due
        };
        assert_eq!(look(&["a", "b"]), [false, false]);
        tokio::time::advance(GRACE / 2).await;
        assert_eq!(look(&["a"]), [false]);
        tokio::time::advance(GRACE / 2).await;
        assert_eq!(look(&["a", "b"]), [true, false]);
        let mut other = aging.look("layers", "another node");
        assert!(!other.is_due("a"));
        let mut other = aging.look("files", "node");
        assert!(!other.is_due("a"));
    }
}

//! What the node keeps that lies in the bucket too, and which of it goes first where its room is wanted.
//! Pure: the caller says what time it is and what is needed.
//!
//! ```text
//! came, or used ─▶ known ── the bucket has it ─▶ may go, unless a sandbox needs it or it is held
//! ```
//!
//! Only who knows the rows knows what the bucket has. Its word holds for a while and is said again: a
//! node that nobody speaks with evicts nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use casemate_runtime::Measured;
use casemate_types::{LayerId, Portable, SnapshotId};
use tokio::time::Instant;

/// How long whoever is about to begin with something may take for it. What it lacks comes meanwhile.
const HOLD: Duration = Duration::from_secs(180);
/// How long the word holds that something is in the bucket.
const WORD: Duration = Duration::from_secs(300);
/// How often a use is noted for the next process.
const NOTE_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(crate) struct Cache {
    known: BTreeMap<Portable, Known>,
    /// By whom, what, and until when.
    holds: BTreeMap<String, BTreeMap<Portable, Instant>>,
    evictions: u64,
}

#[derive(Debug, Default)]
struct Known {
    /// `None` until it was measured.
    bytes: Option<u64>,
    /// `None`: longer ago than anything else.
    used_at: Option<Instant>,
    noted_at: Option<Instant>,
    /// It is in the bucket, as we were told.
    word_until: Option<Instant>,
}

impl Known {
    fn is_in_bucket(&self, now: Instant) -> bool {
        self.word_until.is_some_and(|until| now < until)
    }
}

/// What a create names, of those that can be had again: neither the base nor files of a pause.
pub(crate) fn portables(layers: &[String], files: Option<&SnapshotId>) -> Vec<Portable> {
    let layers = layers.iter().filter_map(|name| LayerId::parse(name).ok());
    let files = files.filter(|files| !files.is_of_pause()).cloned();
    let files = files.map(Portable::Snapshot);
    layers.map(Portable::Layer).chain(files).collect()
}

impl Cache {
    /// The bucket has these: those among them that are to be measured.
    pub(crate) fn stored(&mut self, whats: &[Portable], now: Instant) -> Vec<Portable> {
        let mut unmeasured = Vec::new();
        for what in whats {
            // Files of a pause are the sandbox's.
            if matches!(what, Portable::Snapshot(id) if id.is_of_pause()) {
                continue;
            }
            let known = self.known.entry(what.clone()).or_default();
            known.word_until = Some(now + WORD);
            if known.bytes.is_none() {
                unmeasured.push(what.clone());
            }
        }
        unmeasured
    }

    /// `None`: it is not here.
    pub(crate) fn measured(&mut self, what: &Portable, found: Option<Measured>, now: Instant) {
        let Some(found) = found else {
            self.forget(what);
            return;
        };
        // It may be gone meanwhile.
        if let Some(known) = self.known.get_mut(what) {
            known.bytes = Some(found.bytes);
            let used_at = now.checked_sub(found.unused_for);
            known.used_at = known.used_at.max(used_at);
        }
    }

    /// It is here, with so many bytes.
    pub(crate) fn came(&mut self, what: &Portable, bytes: u64, now: Instant) {
        let known = self.known.entry(what.clone()).or_default();
        known.bytes = Some(bytes);
        known.used_at = Some(now);
    }

    /// Notes that these are used now: those among them whose use the next process is to know.
    pub(crate) fn used(&mut self, whats: Vec<Portable>, now: Instant) -> Vec<Portable> {
        let is_due = |what: &Portable| {
            let known = self.known.entry(what.clone()).or_default();
            known.used_at = Some(now);
            let last = known.noted_at;
            let is_due = last.is_none_or(|last| now.duration_since(last) >= NOTE_EVERY);
            if is_due {
                known.noted_at = Some(now);
            }
            is_due
        };
        let mut whats = whats;
        whats.retain(is_due);
        whats
    }

    /// It is not here any more: the bytes that it took.
    pub(crate) fn forget(&mut self, what: &Portable) -> u64 {
        let known = self.known.remove(what);
        known.and_then(|known| known.bytes).unwrap_or(0)
    }

    /// The same, because its room was wanted.
    pub(crate) fn evicted(&mut self, what: &Portable) -> u64 {
        self.evictions += 1;
        self.forget(what)
    }

    pub(crate) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// None of these goes for a while, whether or not it is here yet.
    pub(crate) fn hold(&mut self, by: &str, whats: Vec<Portable>, now: Instant) {
        self.holds.retain(|_, held| {
            held.retain(|_, until| now < *until);
            !held.is_empty()
        });
        if whats.is_empty() {
            return;
        }
        let held = self.holds.entry(by.to_owned()).or_default();
        held.extend(whats.into_iter().map(|what| (what, now + HOLD)));
    }

    /// Whoever held something has begun with it.
    pub(crate) fn release(&mut self, by: &str) {
        self.holds.remove(by);
    }

    /// Of all that the bucket has too.
    pub(crate) fn bytes(&self, now: Instant) -> u64 {
        let kept = self.known.values().filter(|known| known.is_in_bucket(now));
        kept.filter_map(|known| known.bytes)
            .fold(0, u64::saturating_add)
    }

    /// What was not used for longest, of what may go. `needed` names what must stay.
    pub(crate) fn first_to_go(
        &self,
        now: Instant,
        needed: &BTreeSet<Portable>,
        is_wanted: impl Fn(&Portable) -> bool,
    ) -> Option<Portable> {
        let is_held = |what: &Portable| {
            let mut holds = self.holds.values();
            holds.any(|held| held.get(what).is_some_and(|until| now < *until))
        };
        let may_go = |(what, known): &(&Portable, &Known)| {
            known.is_in_bucket(now)
                && known.bytes.is_some()
                && is_wanted(what)
                && !needed.contains(*what)
                && !is_held(what)
        };
        let going = self.known.iter().filter(may_go);
        let first = going.min_by_key(|(_, known)| known.used_at);
        first.map(|(what, _)| what.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn layer(name: &str) -> Portable {
        Portable::Layer(LayerId::parse(&format!("t-{name}")).unwrap())
    }

    /// With these, of 10 bytes each, used one second after the other, and in the bucket.
    fn cache(names: &[&str], begin: Instant) -> Cache {
        let mut cache = Cache::default();
        for (name, at) in names.iter().zip(0..) {
            cache.came(&layer(name), 10, begin + SECOND * at);
            cache.stored(&[layer(name)], begin);
        }
        cache
    }

    #[track_caller]
    fn check(cache: &Cache, now: Instant, needed: &[Portable], expected: Option<&str>) {
        let needed = needed.iter().cloned().collect();
        let first = cache.first_to_go(now, &needed, |_| true);
        assert_eq!(first, expected.map(layer));
    }

    #[test]
    fn who_was_used_last_goes_last_and_what_is_needed_stays() {
        let begin = Instant::now();
        let mut cache = cache(&["a", "b", "c"], begin);
        let now = begin + SECOND * 10;
        assert_eq!(cache.bytes(now), 30);
        check(&cache, now, &[], Some("a"));
        check(&cache, now, &[layer("a")], Some("b"));
        cache.used(vec![layer("a")], now);
        check(&cache, now, &[], Some("b"));
        let none = cache.first_to_go(now, &BTreeSet::new(), |_| false);
        assert_eq!(none, None);
        assert_eq!(cache.evicted(&layer("b")), 10);
        assert_eq!((cache.bytes(now), cache.evictions()), (20, 1));
        check(&cache, now, &[], Some("c"));
    }

    #[test]
    fn nothing_goes_that_the_bucket_may_not_have() {
        let begin = Instant::now();
        let mut cache = cache(&["a"], begin);
        cache.came(&layer("b"), 10, begin);
        let files = Portable::Snapshot(SnapshotId::random_of_pause());
        assert_eq!(cache.stored(&[files], begin), []);
        check(&cache, begin, &[layer("a")], None);
        assert_eq!(cache.bytes(begin), 10);
        check(&cache, begin + WORD, &[], None);
        assert_eq!(cache.bytes(begin + WORD), 0);
        cache.stored(&[layer("a")], begin + WORD);
        check(&cache, begin + WORD, &[], Some("a"));
    }

    #[test]
    fn what_is_held_stays_until_it_is_taken_or_nobody_came() {
        let begin = Instant::now();
        let mut cache = cache(&["a", "b"], begin);
        cache.hold("one", vec![layer("a"), layer("b")], begin);
        cache.hold("two", vec![layer("b")], begin + SECOND);
        check(&cache, begin, &[], None);
        cache.release("one");
        check(&cache, begin, &[], Some("a"));
        check(&cache, begin + SECOND, &[layer("a")], None);
        check(&cache, begin + SECOND + HOLD, &[layer("a")], Some("b"));
        cache.hold("three", Vec::new(), begin + SECOND + HOLD);
        assert!(cache.holds.is_empty(), "nothing is left of them");
    }

    #[test]
    fn a_use_that_is_known_from_before_counts() {
        let begin = Instant::now() + SECOND * 1000;
        let mut cache = Cache::default();
        let (a, b, c) = (layer("a"), layer("b"), layer("c"));
        let all = [a.clone(), b.clone(), c.clone()];
        assert_eq!(cache.stored(&all, begin), all);
        check(&cache, begin, &[], None);
        let found = |seconds| {
            Some(Measured {
                bytes: 1,
                unused_for: SECOND * seconds,
            })
        };
        cache.measured(&a, found(10), begin);
        cache.measured(&b, found(20), begin);
        cache.measured(&c, None, begin);
        check(&cache, begin, &[], Some("b"));
        assert_eq!(cache.stored(&all[..2], begin), []);
        // Noted once a while.
        assert_eq!(cache.used(vec![b.clone()], begin), std::slice::from_ref(&b));
        assert_eq!(cache.used(vec![b.clone()], begin + SECOND), []);
        assert_eq!(cache.used(vec![b.clone()], begin + NOTE_EVERY), [b]);
    }
}

//! Who has how many of what there is for all: connections of strangers, those of members, lines in the
//! log.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use casemate_types::peer::network_of;
use casemate_types::places::{Place, Places};
use tokio_util::sync::CancellationToken;

/// Places for connections of which nobody knows yet whose they are; of IPv6 a network's share is an
/// address's.
#[derive(Clone)]
pub struct Crowd(Places<CancellationToken>);

/// One of them, until it is dropped.
pub struct Standing {
    _place: Place<CancellationToken>,
    /// Its place is needed.
    pub cut: CancellationToken,
}

impl Crowd {
    /// Of so many together.
    pub fn new(max: usize) -> Self {
        Self(Places::new(max))
    }

    /// A place for one more.
    pub fn begin(&self, address: IpAddr) -> Standing {
        let cut = CancellationToken::new();
        let (place, goes) = self.0.begin(Some(network_of(address)), cut.clone());
        if let Some(goes) = goes {
            goes.cancel();
        }
        Standing { _place: place, cut }
    }
}

/// So many for each, whatever there is for all.
pub struct Shares<K> {
    held: Arc<Mutex<HashMap<K, usize>>>,
    max: usize,
}

/// One of them, until it is dropped.
pub struct Share<K: Hash + Eq> {
    held: Arc<Mutex<HashMap<K, usize>>>,
    whose: K,
}

impl<K: Hash + Eq + Clone> Shares<K> {
    pub fn new(max: usize) -> Self {
        let held = Arc::default();
        Self { held, max }
    }

    /// `None`: it has its share.
    pub fn take(&self, whose: &K) -> Option<Share<K>> {
        let mut held = lock(&self.held);
        let has = held.entry(whose.clone()).or_default();
        if *has >= self.max {
            return None;
        }
        *has += 1;
        Some(Share {
            held: Arc::clone(&self.held),
            whose: whose.clone(),
        })
    }
}

impl<K: Hash + Eq> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        if let Some(has) = held.get_mut(&self.whose) {
            *has -= 1;
            if *has == 0 {
                held.remove(&self.whose);
            }
        }
    }
}

/// Something that strangers, or a member, can make happen as often as they like, and that the log should
/// tell.
pub struct Seldom {
    every: Duration,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    last: Option<Instant>,
    untold: u64,
}

/// Between two lines of it.
const TELL_EVERY: Duration = Duration::from_secs(10);

impl Default for Seldom {
    fn default() -> Self {
        Self::every(TELL_EVERY)
    }
}

impl Seldom {
    /// With so much time between two lines.
    pub fn every(every: Duration) -> Self {
        let told = Mutex::default();
        Self { every, told }
    }

    /// It happened. Whether to tell it now, and how often it happened untold before that.
    pub fn happened(&self) -> Option<u64> {
        let mut told = lock(&self.told);
        if told.last.is_some_and(|last| last.elapsed() < self.every) {
            told.untold += 1;
            return None;
        }
        told.last = Some(Instant::now());
        Some(std::mem::take(&mut told.untold))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(crowd: &Crowd, address: &str, count: usize) -> Vec<Standing> {
        let address = address.parse().unwrap();
        (0..count).map(|_| crowd.begin(address)).collect()
    }

    fn left(standing: &[Standing]) -> Vec<bool> {
        standing.iter().map(|one| !one.cut.is_cancelled()).collect()
    }

    #[test]
    fn who_comes_last_always_has_a_place_and_a_flood_takes_none_of_others() {
        let crowd = Crowd::new(4);
        let other = begin(&crowd, "192.0.2.1", 1);
        let flood = begin(&crowd, "2001:db8::1", 2);
        let more = begin(&crowd, "2001:db8::2", 7);
        assert_eq!(left(&other), [true]);
        assert_eq!(left(&flood), [false, false], "of the same network");
        assert_eq!(left(&more)[5..], [true, true]);
        assert_eq!(left(&more).iter().filter(|left| **left).count(), 2);
    }

    #[test]
    fn each_has_its_share_and_gives_it_back() {
        let shares = Shares::new(2);
        let mut held = vec![shares.take(&"a").unwrap(), shares.take(&"a").unwrap()];
        assert!(shares.take(&"a").is_none());
        assert!(shares.take(&"b").is_some());
        held.pop();
        assert!(shares.take(&"a").is_some());
        drop(held);
        assert!(lock(&shares.held).is_empty());
    }

    #[test]
    fn what_happens_often_is_told_once() {
        let seldom = Seldom::default();
        assert_eq!(seldom.happened(), Some(0));
        assert_eq!((seldom.happened(), seldom.happened()), (None, None));
        lock(&seldom.told).last = Some(Instant::now() - TELL_EVERY);
        assert_eq!(seldom.happened(), Some(2));
    }
}

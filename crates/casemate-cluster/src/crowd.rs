//! Who has how many of what there is for all: connections of strangers, those of members, lines in the
//! log.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// Places for connections of which nobody knows yet whose they are. A new one always gets a place: at the
/// bound the oldest goes, which is one that stands still, for an honest one is soon through. An address
/// that has half of all loses its own oldest, so that a flood pushes out others only where they are
/// behind its address.
#[derive(Clone)]
pub struct Crowd {
    open: Arc<Mutex<Open>>,
    max: usize,
}

#[derive(Default)]
struct Open {
    /// By age.
    all: BTreeMap<u64, Begun>,
    next: u64,
}

struct Begun {
    address: IpAddr,
    cut: CancellationToken,
}

/// One of them, until it is dropped.
pub struct Standing {
    crowd: Crowd,
    number: u64,
    /// Its place is needed.
    pub cut: CancellationToken,
}

impl Crowd {
    /// Of so many together.
    pub fn new(max: usize) -> Self {
        Self {
            open: Arc::default(),
            max: max.max(2),
        }
    }

    /// A place for one more.
    pub fn begin(&self, address: IpAddr) -> Standing {
        let (address, cut) = (counted_as(address), CancellationToken::new());
        let mut open = lock(&self.open);
        let of_it = open.all.values().filter(|begun| begun.address == address);
        let has_half = of_it.count() >= self.max / 2;
        if has_half || open.all.len() >= self.max {
            let goes = |begun: &Begun| !has_half || begun.address == address;
            let oldest = open.all.iter().find(|(_, begun)| goes(begun));
            if let Some(number) = oldest.map(|(number, _)| *number)
                && let Some(begun) = open.all.remove(&number)
            {
                begun.cut.cancel();
            }
        }
        let number = open.next;
        open.next += 1;
        let begun = Begun {
            address,
            cut: cut.clone(),
        };
        open.all.insert(number, begun);
        Standing {
            crowd: self.clone(),
            number,
            cut,
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        lock(&self.crowd.open).all.remove(&self.number);
    }
}

/// Of IPv6 the network: one machine has all of it.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address => address,
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
#[derive(Default)]
pub struct Seldom(Mutex<Told>);

#[derive(Default)]
struct Told {
    last: Option<Instant>,
    untold: u64,
}

/// Between two lines of it.
const TELL_EVERY: Duration = Duration::from_secs(10);

impl Seldom {
    /// It happened. Whether to tell it now, and how often it happened untold before that.
    pub fn happened(&self) -> Option<u64> {
        let mut told = lock(&self.0);
        if told.last.is_some_and(|last| last.elapsed() < TELL_EVERY) {
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
        drop((other, flood, more));
        assert!(lock(&crowd.open).all.is_empty());
    }

    #[test]
    fn of_many_addresses_the_oldest_goes() {
        let crowd = Crowd::new(4);
        let addresses = (0..6).map(|n| IpAddr::from([10, 0, 0, n]));
        let all: Vec<_> = addresses.map(|address| crowd.begin(address)).collect();
        assert_eq!(left(&all), [false, false, true, true, true, true]);
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
        lock(&seldom.0).last = Some(Instant::now() - TELL_EVERY);
        assert_eq!(seldom.happened(), Some(2));
    }
}

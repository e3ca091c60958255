//! How many clients may shake hands at once, and who goes for whom.
//!
//! A handshake costs memory and a signature before anybody showed a key. A new one always gets a
//! place: at the bound the oldest one ends, which is one that stands still, for an honest one takes
//! a few round trips.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use casemate_types::peer;
use tokio_util::sync::CancellationToken;

/// All handshakes of a listener.
pub(crate) struct Handshakes {
    open: Mutex<Open>,
    max: usize,
}

#[derive(Default)]
struct Open {
    /// By age.
    all: BTreeMap<u64, Begun>,
    next: u64,
}

struct Begun {
    peer: Option<IpAddr>,
    cut: CancellationToken,
}

/// One handshake's place, given back on drop.
pub(crate) struct Place {
    number: u64,
    handshakes: Arc<Handshakes>,
    /// Its place is needed.
    pub(crate) cut: CancellationToken,
}

impl Handshakes {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            open: Mutex::default(),
            max: max.max(2),
        }
    }

    /// A place; where none is free the oldest one ends, of the same address if that has half.
    pub(crate) fn begin(self: &Arc<Self>, ip: IpAddr) -> Place {
        let peer = peer::counted_as(ip);
        let cut = CancellationToken::new();
        let mut open = self.open();
        let of_peer = |begun: &&Begun| peer.is_some() && begun.peer == peer;
        let crowded = open.all.values().filter(of_peer).count() >= self.max / 2;
        if crowded || open.all.len() >= self.max {
            let goes = |begun: &Begun| !crowded || begun.peer == peer;
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
            peer,
            cut: cut.clone(),
        };
        open.all.insert(number, begun);
        Place {
            number,
            handshakes: Arc::clone(self),
            cut,
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.handshakes.open().all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(handshakes: &Arc<Handshakes>, peer: &str, count: usize) -> Vec<Place> {
        let peer = peer.parse().unwrap();
        (0..count).map(|_| handshakes.begin(peer)).collect()
    }

    fn cut(places: &[Place]) -> Vec<bool> {
        places.iter().map(|p| p.cut.is_cancelled()).collect()
    }

    #[test]
    fn at_the_bound_the_oldest_goes() {
        let all = Arc::new(Handshakes::new(4));
        let local = places(&all, "127.0.0.1", 5);
        assert_eq!(cut(&local), [true, false, false, false, false]);
        drop(local);
        assert!(all.open().all.is_empty());
        assert_eq!(cut(&places(&all, "127.0.0.1", 4)), [false; 4]);
    }

    #[test]
    fn one_address_has_half_and_pushes_out_none_but_its_own() {
        let all = Arc::new(Handshakes::new(4));
        let other = places(&all, "192.0.2.1", 1);
        let flood = places(&all, "2001:db8::1", 1);
        let more = places(&all, "2001:db8::2", 9);
        assert_eq!(cut(&other), [false]);
        assert_eq!(cut(&flood), [true]);
        assert_eq!(cut(&more).iter().filter(|cut| !**cut).count(), 2);
    }
}

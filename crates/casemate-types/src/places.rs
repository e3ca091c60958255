//! Who goes when there are too many at once of what anybody may begin.
//!
//! A new one always gets a place: at the bound the oldest goes, which is one that stands still, for an
//! honest one is soon through. An address that has half of all loses its own oldest, so that a flood
//! pushes out others only where they are behind its address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Places for so many together. `T` is how one of them is told to go.
pub struct Places<T> {
    open: Arc<Mutex<Open<T>>>,
    max: usize,
}

struct Open<T> {
    /// By age: under which address each is counted, if under any.
    all: BTreeMap<u64, (Option<IpAddr>, T)>,
    next: u64,
}

/// One of them, until it is dropped.
pub struct Place<T> {
    open: Arc<Mutex<Open<T>>>,
    number: u64,
}

impl<T> Places<T> {
    /// At least two.
    pub fn new(max: usize) -> Self {
        let (all, next) = (BTreeMap::new(), 0);
        Self {
            open: Arc::new(Mutex::new(Open { all, next })),
            max: max.max(2),
        }
    }

    /// A place for one more, and who has to go for it.
    pub fn begin(&self, counted_as: Option<IpAddr>, told_by: T) -> (Place<T>, Option<T>) {
        let mut open = lock(&self.open);
        let is_its = |counted: &Option<IpAddr>| counted.is_some() && *counted == counted_as;
        let of_it = open.all.values().filter(|(counted, _)| is_its(counted));
        let has_half = of_it.count() >= self.max / 2;
        let mut goes = None;
        if has_half || open.all.len() >= self.max {
            let mut by_age = open.all.iter();
            let oldest = by_age.find(|(_, (counted, _))| !has_half || is_its(counted));
            let number = oldest.map(|(number, _)| *number);
            goes = number.and_then(|number| open.all.remove(&number));
        }
        let number = open.next;
        open.next += 1;
        open.all.insert(number, (counted_as, told_by));
        let place = Place {
            open: Arc::clone(&self.open),
            number,
        };
        (place, goes.map(|(_, told_by)| told_by))
    }
}

impl<T> Clone for Places<T> {
    fn clone(&self) -> Self {
        Self {
            open: Arc::clone(&self.open),
            max: self.max,
        }
    }
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        lock(&self.open).all.remove(&self.number);
    }
}

fn lock<T>(open: &Mutex<Open<T>>) -> MutexGuard<'_, Open<T>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who begins, and who is left, by number.
    fn left(max: usize, addresses: &[Option<&str>]) -> Vec<usize> {
        let places = Places::new(max);
        let mut left = Vec::new();
        let mut held = Vec::new();
        for (number, address) in addresses.iter().enumerate() {
            let counted_as = address.map(|address| address.parse().unwrap());
            let (place, goes) = places.begin(counted_as, number);
            held.push(place);
            left.retain(|other| Some(*other) != goes);
            left.push(number);
        }
        assert_eq!(lock(&places.open).all.len(), left.len());
        drop(held);
        assert!(lock(&places.open).all.is_empty());
        left
    }

    #[test]
    fn who_comes_last_always_has_a_place_and_a_flood_takes_none_of_others() {
        let mut addresses = vec![Some("192.0.2.1")];
        addresses.extend([Some("192.0.2.2"); 9]);
        assert_eq!(left(4, &addresses), [0, 8, 9]);
    }

    #[test]
    fn of_many_addresses_the_oldest_goes() {
        let addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"];
        assert_eq!(left(4, &addresses.map(Some)), [1, 2, 3, 4]);
    }

    #[test]
    fn who_is_counted_under_no_address_may_have_all() {
        assert_eq!(left(4, &[None; 4]), [0, 1, 2, 3]);
        assert_eq!(left(4, &[None; 5]), [1, 2, 3, 4]);
    }
}

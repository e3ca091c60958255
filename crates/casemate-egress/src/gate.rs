//! Bounds on what runs at once, for each slot and for all together.
//!
//! All places together are a few slots' shares: most slots want few places at a time, and those that
//! want many may have them. So that a few cannot take all, a slot's share is smaller where others
//! have much: with the square of what they leave. Eight that take what they can leave half of all
//! places, sixty-four a tenth, and who comes then finds some. A slot keeps what it has when its share
//! shrinks; it gets no more until it is below.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::rc::Rc;

/// Counts who is inside. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    per_slot_max: usize,
    all_max: usize,
    inside: Rc<RefCell<HashMap<Ipv4Addr, usize>>>,
}

/// Why somebody must stay outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// The slot has all that a slot may ever have.
    Slot,
    /// The places that others left are not enough for one more.
    All,
}

/// A place inside, given back when dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Gate,
    slot: Ipv4Addr,
}

impl Gate {
    pub(crate) fn new(per_slot_max: usize, all_max: usize) -> Self {
        Self {
            per_slot_max,
            all_max,
            inside: Rc::default(),
        }
    }

    pub(crate) fn enter(&self, slot: Ipv4Addr) -> Result<Pass, Full> {
        let mut inside = self.inside.borrow_mut();
        let its = inside.get(&slot).copied().unwrap_or_default();
        // A few hundred slots at most.
        let others = inside.values().sum::<usize>() - its;
        if its >= self.per_slot_max {
            return Err(Full::Slot);
        }
        if others + its >= self.all_max || its >= self.share(others) {
            return Err(Full::All);
        }
        inside.insert(slot, its + 1);
        drop(inside);
        Ok(Pass {
            gate: self.clone(),
            slot,
        })
    }

    /// How many places a slot may have beside so many of others; one at least.
    fn share(&self, others: usize) -> usize {
        let left = self.all_max.saturating_sub(others);
        let square = self.all_max.pow(2).max(1);
        (self.per_slot_max * left.pow(2) / square).max(1)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut inside = self.gate.inside.borrow_mut();
        if let Some(count) = inside.get_mut(&self.slot) {
            *count -= 1;
            if *count == 0 {
                inside.remove(&self.slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_places_come_back() {
        let (a, b, c) = (
            [10, 0, 0, 1].into(),
            [10, 0, 0, 2].into(),
            [10, 0, 0, 3].into(),
        );
        let gate = Gate::new(2, 3);
        let first = gate.enter(a).unwrap();
        let _second = gate.enter(a).unwrap();
        assert_eq!(gate.enter(a).unwrap_err(), Full::Slot);
        let _third = gate.enter(b).unwrap();
        assert_eq!(gate.enter(c).unwrap_err(), Full::All);
        drop(first);
        let _fourth = gate.enter(c).unwrap();
        assert_eq!(gate.inside.borrow().len(), 3);
    }

    fn slot(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, number)
    }

    /// All the places that a slot gets.
    fn enter_greedily(gate: &Gate, number: u8) -> Vec<Pass> {
        std::iter::from_fn(|| gate.enter(slot(number)).ok()).collect()
    }

    /// The bounds of the resolver, of its connections and of the proxy.
    const BOUNDS: [(usize, usize); 3] = [(64, 512), (8, 128), (256, 2048)];

    #[test]
    fn one_slot_alone_gets_its_whole_share() {
        for (share, all) in BOUNDS {
            let gate = Gate::new(share, all);
            let _places = enter_greedily(&gate, 1);
            assert_eq!(gate.enter(slot(1)).unwrap_err(), Full::Slot);
            assert_eq!(gate.inside.borrow()[&slot(1)], share);
        }
    }

    #[test]
    fn a_few_greedy_slots_leave_places_for_others() {
        for (share, all) in BOUNDS {
            let gate = Gate::new(share, all);
            let taken: Vec<_> = (1..=8).flat_map(|n| enter_greedily(&gate, n)).collect();
            assert!(taken.len() <= all * 6 / 10, "{} of {all}", taken.len());
            let ninth = enter_greedily(&gate, 9);
            assert!(ninth.len() >= share / 5, "{} of {share}", ninth.len());
            assert_eq!(gate.enter(slot(9)).unwrap_err(), Full::All);
        }
    }

    #[test]
    fn many_greedy_slots_leave_a_place_for_another() {
        for (share, all) in BOUNDS {
            let gate = Gate::new(share, all);
            let _taken: Vec<_> = (1..=64).map(|n| enter_greedily(&gate, n)).collect();
            assert!(gate.enter(slot(65)).is_ok(), "of {all}");
        }
    }

    #[test]
    fn a_share_grows_again_when_others_leave() {
        let gate = Gate::new(64, 512);
        let mut mine = enter_greedily(&gate, 1);
        let theirs: Vec<_> = (2..=9).map(|n| enter_greedily(&gate, n)).collect();
        // What it has above its share it keeps, and does not get again.
        drop(mine.pop());
        assert_eq!(gate.enter(slot(1)).unwrap_err(), Full::All);
        drop(theirs);
        mine.extend(enter_greedily(&gate, 1));
        assert_eq!(mine.len(), 64);
        drop(mine);
        assert!(gate.inside.borrow().is_empty());
    }

    #[test]
    fn modest_slots_do_not_notice() {
        let gate = Gate::new(256, 2048);
        let places: Vec<_> = (0..200)
            .flat_map(|n| [n; 4])
            .map(|n| gate.enter(slot(n)).unwrap())
            .collect();
        assert_eq!(places.len(), 800);
    }
}

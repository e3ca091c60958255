//! Bounds on what runs at once, for each slot and for all together.

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
    Slot,
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
        if inside.get(&slot).is_some_and(|n| *n >= self.per_slot_max) {
            return Err(Full::Slot);
        }
        // A few hundred at most.
        if inside.values().sum::<usize>() >= self.all_max {
            return Err(Full::All);
        }
        *inside.entry(slot).or_default() += 1;
        drop(inside);
        Ok(Pass {
            gate: self.clone(),
            slot,
        })
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
        assert!(gate.enter(a).is_ok());
        assert_eq!(gate.inside.borrow().len(), 2);
    }
}

//! What is on its way to the node: several that want the same wait for one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use casemate_types::Portable;

type Flight = tokio::sync::Mutex<()>;

#[derive(Default)]
pub(crate) struct Flights(Mutex<HashMap<Portable, Weak<Flight>>>);

impl Flights {
    /// Held locked by whoever fetches it.
    pub(crate) fn of(&self, what: &Portable) -> Arc<Flight> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = all.get(what).and_then(Weak::upgrade) {
            return flight;
        }
        all.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::new(Flight::default());
        all.insert(what.clone(), Arc::downgrade(&flight));
        flight
    }
}

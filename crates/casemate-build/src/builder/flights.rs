//! One build at a time makes a layer: whoever wants the same one waits and then finds it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use casemate_store::CacheKey;
use casemate_types::TeamId;
use tokio::sync::OwnedMutexGuard;

type Key = (TeamId, CacheKey);

/// Which layers are being made.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Key, Weak<tokio::sync::Mutex<()>>>>);

/// The right to make a layer, until it is dropped.
pub(super) struct Turn {
    _guard: OwnedMutexGuard<()>,
}

impl Flights {
    /// Waits until nobody else makes the layer; whether anybody did.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn turn(&self, team: &TeamId, key: &CacheKey) -> (Turn, bool) {
        let one = self.of((team.clone(), key.clone()));
        match Arc::clone(&one).try_lock_owned() {
            Ok(guard) => (Turn { _guard: guard }, false),
            Err(_) => {
                let guard = one.lock_owned().await;
                (Turn { _guard: guard }, true)
            }
        }
    }

    fn of(&self, key: Key) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.lock();
        if let Some(one) = all.get(&key).and_then(Weak::upgrade) {
            return one;
        }
        // Those that nobody makes any more go when another one comes.
        all.retain(|_, one| one.strong_count() > 0);
        let one = Arc::default();
        all.insert(key, Arc::downgrade(&one));
        one
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Weak<tokio::sync::Mutex<()>>>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_waits_and_is_told_so_and_another_layer_does_not() {
        let flights = Arc::new(Flights::default());
        let team = TeamId::parse("0fe0c5b4-4a2e-4b0c-9d0e-6c5b8f2d7a11").unwrap();
        let key = |digit: &str| CacheKey::parse(&digit.repeat(64)).unwrap();
        let (turn, waited) = flights.turn(&team, &key("a")).await;
        assert!(!waited);
        assert!(!flights.turn(&team, &key("b")).await.1);
        let (waiting, theirs) = (Arc::clone(&flights), team.clone());
        let second = tokio::spawn(async move { waiting.turn(&theirs, &key("a")).await.1 });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(turn);
        assert!(second.await.unwrap());
        drop(flights.turn(&team, &key("c")).await);
        assert_eq!(flights.lock().len(), 1);
    }

    #[tokio::test]
    async fn who_is_cancelled_hands_the_turn_on_and_takes_none() {
        let flights = Arc::new(Flights::default());
        let team = TeamId::parse("0fe0c5b4-4a2e-4b0c-9d0e-6c5b8f2d7a11").unwrap();
        let key = CacheKey::parse(&"a".repeat(64)).unwrap();
        let build = |flights: &Arc<Flights>| {
            let (flights, team, key) = (Arc::clone(flights), team.clone(), key.clone());
            tokio::spawn(async move {
                let (_turn, waited) = flights.turn(&team, &key).await;
                match waited {
                    // The first makes it for ever.
                    false => std::future::pending().await,
                    true => waited,
                }
            })
        };
        let first = build(&flights);
        tokio::task::yield_now().await;
        let (second, third) = (build(&flights), build(&flights));
        tokio::task::yield_now().await;
        second.abort();
        assert!(second.await.unwrap_err().is_cancelled());
        tokio::task::yield_now().await;
        assert!(!third.is_finished());
        first.abort();
        assert!(third.await.unwrap());
    }
}

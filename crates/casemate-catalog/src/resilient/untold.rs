//! What Redis has not been told of yet: the last word about each sandbox.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use casemate_types::SandboxId;
use tokio::sync::watch;

use crate::Route;

/// What was said of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    Put(Route),
    Remove { node: String, generation: u64 },
}

impl Word {
    fn generation(&self) -> u64 {
        match self {
            Self::Put(route) => route.generation,
            Self::Remove { generation, .. } => *generation,
        }
    }

    /// What counts where Redis says `there`.
    pub(super) fn over(self, there: Option<Route>) -> Option<Route> {
        match self {
            Self::Put(route) => match there {
                Some(there) if there.generation > route.generation => Some(there),
                Some(_) | None => Some(route),
            },
            Self::Remove { node, generation } => there.filter(|there| {
                there.generation > generation
                    || (there.generation == generation && there.node != node)
            }),
        }
    }
}

pub(super) struct Untold {
    max: usize,
    /// Mostly there is none, and then `is_some` spares a lock that others wait for.
    words: Mutex<HashMap<SandboxId, Word>>,
    is_some: watch::Sender<bool>,
}

impl Untold {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            words: Mutex::default(),
            is_some: watch::Sender::new(false),
        }
    }

    /// `false`: there are too many, and this one is not remembered.
    pub(super) fn add(&self, sandbox: &SandboxId, word: Word) -> bool {
        let mut words = self.lock();
        let has_room = words.len() < self.max;
        match words.get_mut(sandbox) {
            Some(known) if known.generation() > word.generation() => {}
            Some(known) => *known = word,
            None if !has_room => return false,
            None => {
                words.insert(sandbox.clone(), word);
            }
        }
        self.is_some.send_replace(true);
        true
    }

    /// Puts `word` in the place of one that waits, if one does.
    pub(super) fn replace(&self, sandbox: &SandboxId, word: Word) -> bool {
        if !*self.is_some.borrow() {
            return false;
        }
        let mut words = self.lock();
        let Some(known) = words.get_mut(sandbox) else {
            return false;
        };
        if known.generation() <= word.generation() {
            *known = word;
        }
        true
    }

    pub(super) fn get(&self, sandbox: &SandboxId) -> Option<Word> {
        if !*self.is_some.borrow() {
            return None;
        }
        self.lock().get(sandbox).cloned()
    }

    /// Any one.
    pub(super) fn first(&self) -> Option<(SandboxId, Word)> {
        let words = self.lock();
        words
            .iter()
            .next()
            .map(|(sandbox, word)| (sandbox.clone(), word.clone()))
    }

    /// Forgets `word`, unless another took its place.
    pub(super) fn told(&self, sandbox: &SandboxId, word: &Word) {
        let mut words = self.lock();
        if words.get(sandbox) == Some(word) {
            words.remove(sandbox);
        }
        if words.is_empty() {
            self.is_some.send_replace(false);
        }
    }

    /// Returns when there is one.
    pub(super) async fn is_some(&self) {
        // An error would say that the sender is gone, which `self` holds.
        let _ = self.is_some.subscribe().wait_for(|is_some| *is_some).await;
    }

    // Each statement leaves the map whole, so a poisoned lock guards nothing that is broken.
    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Word>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! What was done, and what was found wrong.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::platform::Victim;

/// Sentences that are kept; more are counted.
const SENTENCES_MAX: usize = 100;

#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Sandboxes whose create was acknowledged.
    pub(super) created: AtomicU64,
    /// Creates that got no answer, or one that says to try again.
    pub(super) unanswered: AtomicU64,
    pub(super) paused: AtomicU64,
    /// Of them with their files alone.
    pub(super) paused_files: AtomicU64,
    /// Paused by their deadline.
    pub(super) fell_asleep: AtomicU64,
    pub(super) resumed: AtomicU64,
    pub(super) woken: AtomicU64,
    /// Snapshots that were acknowledged.
    pub(super) snapshots: AtomicU64,
    pub(super) snapshots_deleted: AtomicU64,
    /// Sandboxes that began with one.
    pub(super) from_snapshots: AtomicU64,
    pub(super) forked: AtomicU64,
    /// Templates whose build was told to be ready.
    pub(super) built: AtomicU64,
    /// Builds that a death ended.
    pub(super) builds_failed: AtomicU64,
    /// Sandboxes that began with one.
    pub(super) from_templates: AtomicU64,
    /// Looks at files and memory of a sandbox.
    pub(super) looks: AtomicU64,
    pub(super) lists: AtomicU64,
    pub(super) killed: AtomicU64,
    pub(super) expired: AtomicU64,
    /// Calls that failed while nobody was there to answer, and were made again.
    pub(super) retries: AtomicU64,
    murders: Mutex<BTreeMap<Victim, u64>>,
    wrong: Mutex<Wrong>,
}

/// Acknowledged sandboxes that are not there, and answers that are not true.
#[derive(Debug, Default, Clone)]
pub(super) struct Wrong {
    pub(super) lost: u64,
    pub(super) answers: u64,
    pub(super) sentences: Vec<String>,
}

pub(super) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Ledger {
    pub(super) fn murder(&self, victim: Victim) {
        *lock(&self.murders).entry(victim).or_default() += 1;
    }

    pub(super) fn murders(&self) -> u64 {
        lock(&self.murders).values().sum()
    }

    pub(super) fn murders_by_victim(&self) -> BTreeMap<Victim, u64> {
        lock(&self.murders).clone()
    }

    pub(super) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    pub(super) fn lost(&self, sentence: String) {
        let mut wrong = lock(&self.wrong);
        wrong.lost += 1;
        wrong.say(sentence);
    }

    pub(super) fn wrong(&self, sentence: String) {
        let mut wrong = lock(&self.wrong);
        wrong.answers += 1;
        wrong.say(sentence);
    }

    pub(super) fn all_wrong(&self) -> Wrong {
        lock(&self.wrong).clone()
    }
}

impl Wrong {
    fn say(&mut self, sentence: String) {
        if self.sentences.len() < SENTENCES_MAX {
            self.sentences.push(sentence);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

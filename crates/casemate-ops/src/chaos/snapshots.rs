//! Snapshots and forks of the load's sandboxes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use casemate_client::ApiError;
use casemate_client::api::{ForkResult, NewSandbox, Sandbox};
use casemate_types::chain;
use futures_util::future::join_all;

use super::asking::{
    ANSWER, Changed, Means, PATIENCE, RETRY, is_conflict, is_nobody_there, of_the_node,
};
use super::error::ChaosError;
use super::ledger::add;
use super::life::{End, Life};
use super::lot;
use super::memory::{Files, Memory};
use super::world::{LONG, Standing, World, lock};

/// Snapshots that are kept at the same time; then one is deleted before another is taken.
const KEPT_MAX: usize = 12;
/// So few are not deleted: there is something to begin with.
const KEPT_MIN: usize = 3;
/// One snapshot in so many has a name.
const NAMED_ONE_IN: usize = 3;
const FORKS: std::ops::Range<u64> = 1..4;
/// How long forks live, in seconds: those of a call without an answer go by themselves.
const FORK_SECONDS: std::ops::Range<u64> = 6..12;

/// One that was acknowledged.
pub(super) struct Snapshot {
    pub(super) id: String,
    /// What it holds.
    files: Files,
    /// Somebody may have begun with it of whom nothing is known: then it cannot be deleted.
    doubtful: AtomicBool,
}

impl Snapshot {
    /// Something began with it, or did not.
    pub(super) fn doubt(&self) {
        self.doubtful.store(true, Ordering::Relaxed);
    }

    fn is_doubtful(&self) -> bool {
        self.doubtful.load(Ordering::Relaxed)
    }

    pub(super) fn memory(&self) -> Memory {
        Memory::of(self.files.clone())
    }
}

/// What is known of all.
#[derive(Default)]
pub(super) struct Snapshots {
    /// Those that must be there, each with what begins with it as further owners.
    there: HashMap<String, Arc<Snapshot>>,
    /// Those that must not, and since when.
    deleted: HashMap<String, Instant>,
}

impl Life<'_> {
    /// Takes a snapshot. Whether it can be gone on with.
    pub(super) async fn keep(&mut self) -> bool {
        if lock(&self.world.snapshots).there.len() >= KEPT_MAX {
            self.world.delete_snapshot().await;
            return true;
        }
        let name = (lot::index(NAMED_ONE_IN) == 0).then(|| format!("chaos-{}", lot::word()));
        let (api, id) = (&self.world.server.api, &self.id);
        // One without a name that had no answer is another snapshot, which the end finds.
        let take = || api.snapshot_take(id, name.as_deref());
        let busy = |error: &ApiError| match is_conflict(error) {
            true => Means::Wait,
            false => Means::Wrong,
        };
        let taken = self.world.change((id, "take a snapshot of it"), take, busy);
        let taken = match taken.await {
            Changed::Now(taken) | Changed::Before(Some(taken)) => taken,
            Changed::Before(None) | Changed::No => return false,
        };
        add(&self.world.ledger.snapshots);
        let snapshot = Snapshot {
            id: taken.snapshot_id.clone(),
            files: self.memory.files().clone(),
            doubtful: AtomicBool::new(false),
        };
        let mut known = lock(&self.world.snapshots);
        known.there.insert(taken.snapshot_id, Arc::new(snapshot));
        true
    }

    /// Forks it and sees that each fork has what it had. Whether it can be gone on with.
    pub(super) async fn fork(&mut self) -> bool {
        let (world, id) = (self.world, &self.id);
        let count = u32::try_from(lot::between(FORKS)).unwrap_or(1);
        let life = Duration::from_secs(lot::between(FORK_SECONDS));
        let begun = Instant::now();
        let asked = world.server.api.sandbox_fork(id, count, Some(life));
        let forks = match tokio::time::timeout(ANSWER, asked).await {
            Ok(Ok(forks)) => forks,
            Ok(Err(error)) if is_nobody_there(&error) => {
                add(&world.ledger.unanswered);
                self.snapshot.iter().for_each(|from| from.doubt());
                return true;
            }
            Ok(Err(error)) => {
                let sentence = format!("{id}: could not fork it: {}", chain(&error));
                match error.is_not_found() {
                    true => world.ledger.lost(sentence),
                    false => world.ledger.wrong(sentence),
                }
                return false;
            }
            Err(_) => {
                let sentence = format!("{id}: could not fork it within {ANSWER:?}");
                world.ledger.wrong(sentence);
                return false;
            }
        };
        if forks.len() != count as usize {
            let many = forks.len();
            let sentence = format!("{id}: {count} forks were asked for, {many} answered");
            world.ledger.wrong(sentence);
        }
        let end = begun + life;
        let made = forks.into_iter().filter_map(|fork| self.forked(fork, end));
        let made: Vec<_> = made.collect();
        join_all(made.into_iter().map(Life::be_short)).await;
        true
    }

    fn forked(&self, fork: ForkResult, end: Instant) -> Option<Self> {
        let made = match fork {
            ForkResult::Sandbox(made) => made,
            ForkResult::Error(error) => {
                self.snapshot.iter().for_each(|from| from.doubt());
                match of_the_node(error.code, &error.message) {
                    true => add(&self.world.ledger.unanswered),
                    false => {
                        let sentence = format!("{}: a fork failed: {}", self.id, error.message);
                        self.world.ledger.wrong(sentence);
                    }
                }
                return None;
            }
        };
        add(&self.world.ledger.forked);
        self.world
            .stand(&made.sandbox_id, Standing::Runs(Some(end)));
        let memory = Memory::of(self.memory.files().clone());
        let from = self.snapshot.clone();
        Life::new(self.world, &made, End::Expires(end), memory, from)
    }
}

impl World {
    /// One to begin with, if there is any.
    pub(super) fn some_snapshot(&self) -> Option<Arc<Snapshot>> {
        let known = lock(&self.snapshots);
        let at = lot::index(known.there.len());
        known.there.values().nth(at).cloned()
    }

    /// Deletes one that nobody uses, if there are enough, and sees that it is gone.
    pub(super) async fn delete_snapshot(&self) {
        let chosen = {
            let mut known = lock(&self.snapshots);
            let unused = |one: &&Arc<Snapshot>| Arc::strong_count(one) == 1;
            let unused: Vec<_> = known.there.values().filter(unused).collect();
            let enough = known.there.len() > KEPT_MIN && !unused.is_empty();
            let id = enough.then(|| unused[lot::index(unused.len())].id.clone());
            id.and_then(|id| known.there.remove(&id))
        };
        if let Some(snapshot) = chosen {
            self.delete(snapshot).await;
        }
    }

    /// It is in no list of ours. One in doubt goes back there where it is in use.
    async fn delete(&self, snapshot: Arc<Snapshot>) {
        let id = &snapshot.id;
        // An end that was seen by the clock is written down a moment later.
        let in_use = |error: &ApiError| match is_in_use(error) {
            true => Means::Wait,
            false => Means::Wrong,
        };
        let delete = || async {
            match self.server.api.snapshot_delete(id).await {
                Err(error) if is_in_use(&error) && snapshot.is_doubtful() => Ok(None),
                other => other.map(Some),
            }
        };
        match self.change((id, "delete it"), delete, in_use).await {
            Changed::Now(Some(true)) | Changed::Before(Some(Some(_))) => {}
            Changed::Now(Some(false)) => {
                let sentence = format!("{id} was not there to be deleted");
                return self.ledger.lost(sentence);
            }
            Changed::Now(None) | Changed::Before(Some(None)) => {
                lock(&self.snapshots).there.insert(id.clone(), snapshot);
                return;
            }
            Changed::Before(None) | Changed::No => return,
        }
        add(&self.ledger.snapshots_deleted);
        let at = Instant::now();
        lock(&self.snapshots).deleted.insert(id.clone(), at);
        self.must_not_begin(id).await;
    }

    async fn must_not_begin(&self, id: &str) {
        let new = NewSandbox {
            template: id.to_owned(),
            timeout: Some(Duration::from_secs(1)),
            ..NewSandbox::default()
        };
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            match self.server.api.sandbox_create(&new).await {
                Err(error) if error.is_not_found() => return,
                Err(error) if is_nobody_there(&error) => tokio::time::sleep(RETRY).await,
                Err(error) => {
                    let said = chain(&error);
                    return self
                        .ledger
                        .wrong(format!("a create from deleted {id}: {said}"));
                }
                Ok(_) => {
                    let sentence = format!("{id} was deleted, and a sandbox began with it");
                    return self.ledger.wrong(sentence);
                }
            }
        }
    }

    pub(super) async fn compare_snapshots(&self) {
        let before: Vec<_> = lock(&self.snapshots).there.keys().cloned().collect();
        let begun = Instant::now();
        let asked = self.server.api.snapshot_list(None);
        let listed = match tokio::time::timeout(ANSWER, asked).await {
            Ok(Ok(listed)) => listed,
            Ok(Err(error)) if is_nobody_there(&error) => return add(&self.ledger.retries),
            Ok(Err(error)) => {
                let said = chain(&error);
                return self
                    .ledger
                    .wrong(format!("the list of snapshots was refused: {said}"));
            }
            Err(_) => {
                let sentence = format!("the list of snapshots had no answer within {ANSWER:?}");
                return self.ledger.wrong(sentence);
            }
        };
        let listed: Vec<_> = listed.into_iter().map(|one| one.snapshot_id).collect();
        let known = lock(&self.snapshots);
        for id in before {
            // The same before and after the call; none comes back under its id.
            if known.there.contains_key(&id) && !listed.contains(&id) {
                self.ledger.lost(format!("{id} is kept and not listed"));
            }
        }
        for id in listed {
            if known.deleted.get(&id).is_some_and(|at| *at < begun) {
                self.ledger.wrong(format!("{id} was deleted and is listed"));
            }
        }
    }

    /// After the load: begins with every snapshot once, also with those of calls that had no answer,
    /// and deletes it. What was deleted must not be there.
    pub(super) async fn last_snapshots(&self) -> Result<(), ChaosError> {
        self.compare_snapshots().await;
        let api = &self.server.api;
        let listed = api.snapshot_list(None).await;
        for left in listed.map_err(ChaosError::LastLook)? {
            let id = left.snapshot_id;
            let known = lock(&self.snapshots).there.remove(&id);
            match self.begin_with(&id).await {
                Ok(made) => {
                    // Of one whose taking had no answer nobody knows what is in it.
                    let memory = known.as_deref().map(Snapshot::memory);
                    self.stand(&made.sandbox_id, Standing::Runs(None));
                    if let Some(life) =
                        Life::new(self, &made, End::Asked, memory.unwrap_or_default(), None)
                    {
                        match known {
                            Some(_) => life.be_short().await,
                            None => life.kill().await,
                        }
                    }
                }
                Err(error) => {
                    let sentence = format!("{id} is listed and nothing begins with it: {error}");
                    self.ledger.wrong(sentence);
                }
            }
            let deleted = api.snapshot_delete(&id).await;
            if !deleted.map_err(ChaosError::LastLook)? {
                self.ledger
                    .lost(format!("{id} was not there to be deleted"));
            }
        }
        Ok(())
    }

    async fn begin_with(&self, id: &str) -> Result<Sandbox, String> {
        let new = NewSandbox {
            template: id.to_owned(),
            timeout: Some(LONG),
            ..NewSandbox::default()
        };
        let made = self.server.api.sandbox_create(&new).await;
        made.map_err(|error| chain(&error))
    }
}

fn is_in_use(error: &ApiError) -> bool {
    matches!(
        error,
        ApiError::Refused { status, message, .. }
            if status.as_u16() == 400 && message.contains("sandboxes using it")
    )
}

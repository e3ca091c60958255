//! What is known of all sandboxes, beside what the platform lists.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use casemate_client::api::{AutoResume, NewSandbox, SandboxFilter, State};
use casemate_types::chain;

use super::asking::{ANSWER, PATIENCE, RETRY, is_nobody_there};
use super::error::ChaosError;
use super::ledger::{Ledger, add};
use super::life::{End, Life};
use super::lot;
use super::memory::Memory;
use super::platform::{Held, Platform, Server};
use super::snapshots::{Snapshot, Snapshots};
use super::templates::Templates;

/// Of sandboxes that their client ends.
pub(super) const LONG: Duration = Duration::from_secs(3600);
/// Of those that end by their deadline or are paused by it, in seconds.
const SHORT_SECONDS: std::ops::Range<u64> = 3..7;
/// How many of ten end by their deadline, and how many are paused by it.
const EXPIRES_OF_TEN: usize = 3;
const FALLS_ASLEEP_OF_TEN: usize = 2;
/// One in so many begins with a snapshot.
const KEPT_ONE_IN: usize = 3;
/// How often it is looked whether all is cleared away.
const LOOK: Duration = Duration::from_secs(1);
/// So close to its deadline nobody can say whether a sandbox runs.
pub(super) const DOUBT: Duration = Duration::from_millis(1500);

pub(super) struct World {
    pub(super) server: Server,
    pub(super) ledger: Arc<Ledger>,
    pub(super) snapshots: Mutex<Snapshots>,
    pub(super) templates: Mutex<Templates>,
    over: AtomicBool,
    /// With a number that is another one after each change.
    known: Mutex<HashMap<String, (u64, Standing)>>,
}

/// What the list must say of an acknowledged sandbox.
#[derive(Debug, Clone, Copy)]
pub(super) enum Standing {
    /// It must run until then, where it has a deadline.
    Runs(Option<Instant>),
    Paused,
    /// It must be there, running or paused.
    Stands,
    /// Its end was asked for.
    Ending,
    /// It must not be there.
    Ended(Instant),
}

impl World {
    pub(super) fn new(server: Server, ledger: Arc<Ledger>) -> Self {
        Self {
            server,
            ledger,
            snapshots: Mutex::default(),
            templates: Mutex::default(),
            over: AtomicBool::new(false),
            known: Mutex::default(),
        }
    }

    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, (u64, Standing)>> {
        lock(&self.known)
    }

    pub(super) fn stand(&self, id: &str, standing: Standing) {
        let mut known = self.known();
        let number = known.get(id).map_or(0, |(number, _)| number + 1);
        known.insert(id.to_owned(), (number, standing));
    }

    /// Makes one. A create is not made again on its own account: it may have happened.
    pub(super) async fn create(&self) -> Option<Life<'_>> {
        let short = Duration::from_secs(lot::between(SHORT_SECONDS));
        let fate = lot::index(10);
        let expires = fate < EXPIRES_OF_TEN;
        let falls_asleep = !expires && fate < EXPIRES_OF_TEN + FALLS_ASLEEP_OF_TEN;
        let timeout = match expires || falls_asleep {
            true => short,
            false => LONG,
        };
        let from = (lot::index(KEPT_ONE_IN) == 0).then(|| self.some_snapshot());
        let from = from.flatten();
        let template = from.as_ref().map_or("base", |snapshot| &snapshot.id);
        let new = NewSandbox {
            template: template.to_owned(),
            timeout: Some(timeout),
            auto_pause: Some(falls_asleep),
            auto_resume: Some(AutoResume { enabled: true }),
            ..NewSandbox::default()
        };
        let begun = Instant::now();
        match tokio::time::timeout(ANSWER, self.server.api.sandbox_create(&new)).await {
            Ok(Ok(made)) => {
                add(&self.ledger.created);
                // It may have begun to count at any moment of the call.
                let deadline = begun + timeout;
                let (end, standing) = match (expires, falls_asleep) {
                    (true, _) => (End::Expires(deadline), Standing::Runs(Some(deadline))),
                    (_, true) => (End::FallsAsleep(deadline), Standing::Stands),
                    (false, false) => (End::Asked, Standing::Runs(None)),
                };
                self.stand(&made.sandbox_id, standing);
                let memory = match &from {
                    Some(snapshot) => {
                        add(&self.ledger.from_snapshots);
                        snapshot.memory()
                    }
                    None => Memory::default(),
                };
                Life::new(self, &made, end, memory, from)
            }
            Ok(Err(error)) if is_nobody_there(&error) => {
                add(&self.ledger.unanswered);
                from.iter()
                    .for_each(|snapshot: &Arc<Snapshot>| snapshot.doubt());
                None
            }
            Ok(Err(error)) => {
                let said = chain(&error);
                self.ledger
                    .wrong(format!("a create from {template} was refused: {said}"));
                None
            }
            Err(_) => {
                self.ledger
                    .wrong(format!("a create had no answer within {ANSWER:?}"));
                None
            }
        }
    }

    pub(super) async fn compare_list(&self) {
        let before = self.known().clone();
        let begun = Instant::now();
        let filter = SandboxFilter::default();
        let answered = tokio::time::timeout(ANSWER, self.server.api.sandbox_list(&filter)).await;
        let listed = match answered {
            Ok(Ok(listed)) => listed,
            Ok(Err(error)) if is_nobody_there(&error) => return add(&self.ledger.retries),
            Ok(Err(error)) => {
                let said = chain(&error);
                return self.ledger.wrong(format!("the list was refused: {said}"));
            }
            Err(_) => {
                return self
                    .ledger
                    .wrong(format!("the list had no answer within {ANSWER:?}"));
            }
        };
        add(&self.ledger.lists);
        let listed: HashMap<_, _> = listed
            .into_iter()
            .map(|one| (one.sandbox_id, one.state))
            .collect();
        let after = self.known().clone();
        for (id, (number, standing)) in &before {
            // The same before and after the call, so also during it.
            let is_same = after.get(id).is_some_and(|(then, _)| then == number);
            let state = listed.get(id);
            match standing {
                Standing::Ended(at) if state.is_some() && *at < begun => {
                    self.ledger.wrong(format!("{id} has ended and is listed"));
                }
                Standing::Runs(deadline)
                    if is_same && deadline.is_none_or(|at| Instant::now() + DOUBT < at) =>
                {
                    self.must_be(id, state, Some(State::Running));
                }
                Standing::Paused if is_same => self.must_be(id, state, Some(State::Paused)),
                Standing::Stands if is_same => self.must_be(id, state, None),
                Standing::Runs(_)
                | Standing::Paused
                | Standing::Stands
                | Standing::Ending
                | Standing::Ended(_) => {}
            }
        }
    }

    /// Listed, and in this state.
    fn must_be(&self, id: &str, listed: Option<&State>, state: Option<State>) {
        match (listed, state) {
            (None, _) => self.ledger.lost(format!("{id} is there and not listed")),
            (Some(said), Some(state)) if *said != state => {
                let sentence = format!("{id} is {state:?} and listed as {said:?}");
                self.ledger.wrong(sentence);
            }
            (Some(_), _) => {}
        }
    }

    /// After the load: only sandboxes may be there whose create was never answered. They are ended,
    /// and then nothing is, and no more is held than `fresh`.
    pub(super) async fn last_look(
        &self,
        platform: &Platform,
        fresh: &Held,
    ) -> Result<(), ChaosError> {
        let filter = SandboxFilter::default();
        let api = &self.server.api;
        for left in api
            .sandbox_list(&filter)
            .await
            .map_err(ChaosError::LastLook)?
        {
            let id = left.sandbox_id;
            if self.known().contains_key(&id) {
                self.ledger
                    .wrong(format!("{id} has ended and is listed at the end"));
            }
            api.sandbox_kill(&id).await.map_err(ChaosError::LastLook)?;
        }
        self.last_snapshots().await?;
        self.last_templates().await?;
        // Those of creates that were cut off go by themselves, soon.
        let deadline = Instant::now() + PATIENCE;
        while platform.journalled()? > 0 {
            if Instant::now() > deadline {
                let left = platform.journalled()?;
                self.ledger
                    .wrong(format!("{left} sandboxes run at the end that nobody lists"));
                return Ok(());
            }
            tokio::time::sleep(RETRY).await;
        }
        loop {
            let held = platform.held().await?;
            let Some(more) = held.beyond(fresh) else {
                return Ok(());
            };
            if Instant::now() > deadline {
                self.ledger.wrong(format!("left at the end: {more}"));
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

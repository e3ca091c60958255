//! What is known of all sandboxes, beside what the platform lists.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use casemate_client::api::{NewSandbox, SandboxFilter};
use casemate_types::chain;

use super::asking::{ANSWER, PATIENCE, RETRY, is_nobody_there};
use super::error::ChaosError;
use super::ledger::{Ledger, add};
use super::life::Life;
use super::lot;
use super::platform::{Platform, Server};

/// Of sandboxes that their client ends.
const LONG: Duration = Duration::from_secs(3600);
/// Of those that end by their deadline, in seconds.
const SHORT_SECONDS: std::ops::Range<u64> = 3..7;
/// One in so many ends by its deadline.
const SHORT_ONE_IN: usize = 3;
/// So close to its deadline nobody can say whether a sandbox runs.
pub(super) const DOUBT: Duration = Duration::from_millis(1500);

pub(super) struct World {
    pub(super) server: Server,
    pub(super) ledger: Arc<Ledger>,
    over: AtomicBool,
    known: Mutex<HashMap<String, Standing>>,
}

/// What the list must say of an acknowledged sandbox.
#[derive(Debug, Clone, Copy)]
pub(super) enum Standing {
    /// It must be there until then, where it has a deadline.
    Runs(Option<Instant>),
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

    fn known(&self) -> MutexGuard<'_, HashMap<String, Standing>> {
        lock(&self.known)
    }

    pub(super) fn stand(&self, id: &str, standing: Standing) {
        self.known().insert(id.to_owned(), standing);
    }

    /// Makes one. A create is not made again on its own account: it may have happened.
    pub(super) async fn create(&self) -> Option<Life<'_>> {
        let short = lot::index(SHORT_ONE_IN) == 0;
        let timeout = match short {
            true => Duration::from_secs(lot::between(SHORT_SECONDS)),
            false => LONG,
        };
        let new = NewSandbox {
            template: "base".into(),
            timeout: Some(timeout),
            ..NewSandbox::default()
        };
        let begun = Instant::now();
        match tokio::time::timeout(ANSWER, self.server.api.sandbox_create(&new)).await {
            Ok(Ok(made)) => {
                add(&self.ledger.created);
                // It may have begun to count at any moment of the call.
                let deadline = short.then(|| begun + timeout);
                self.stand(&made.sandbox_id, Standing::Runs(deadline));
                Life::new(self, &made, deadline)
            }
            Ok(Err(error)) if is_nobody_there(&error) => {
                add(&self.ledger.unanswered);
                None
            }
            Ok(Err(error)) => {
                self.ledger
                    .wrong(format!("a create was refused: {}", chain(&error)));
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
        let listed: Vec<_> = listed.into_iter().map(|one| one.sandbox_id).collect();
        let after = self.known().clone();
        for (id, standing) in &before {
            let is_listed = listed.contains(id);
            match (standing, after.get(id)) {
                // The same before and after the call, so also during it.
                (Standing::Runs(deadline), Some(Standing::Runs(_)))
                    if !is_listed && deadline.is_none_or(|at| Instant::now() + DOUBT < at) =>
                {
                    self.ledger.lost(format!("{id} runs and is not listed"));
                }
                (Standing::Ended(at), _) if is_listed && *at < begun => {
                    self.ledger.wrong(format!("{id} has ended and is listed"));
                }
                _ => {}
            }
        }
    }

    /// After the load: only sandboxes may be there whose create was never answered. They are ended,
    /// and then nothing is.
    pub(super) async fn last_look(&self, platform: &Platform) -> Result<(), ChaosError> {
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
        Ok(())
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Asking while processes are being killed: again and again until somebody answers, but not for ever.
//!
//! Knows which failures mean that nobody was there, and that all others are wrong answers.

use std::future::Future;
use std::time::{Duration, Instant};

use casemate_client::{ApiError, EnvdError, RpcCode};
use casemate_types::chain;

use super::ledger::add;
use super::life::Life;
use super::world::World;

/// A call that fails is made again for this long: a start of the platform takes less.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);
pub(super) const RETRY: Duration = Duration::from_millis(100);
/// One try. Longer is a hang.
pub(super) const ANSWER: Duration = Duration::from_secs(20);
const OF_THE_NODE: [&str; 6] = [
    "Failed to place sandbox",
    "Error killing sandbox",
    "Error pausing sandbox",
    "Error connecting to sandbox",
    "Error creating snapshot",
    "Error forking sandbox",
];
const ROUTING_ERROR: &str = "Unexpected error when routing request";

impl Life<'_> {
    /// Asks the agent until there is an answer. `None`: there was none, or a wrong one, which is
    /// noted.
    pub(super) async fn ask<T, F>(&self, what: &str, call: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, EnvdError>>,
    {
        let begun = Instant::now();
        loop {
            let failed = match tokio::time::timeout(ANSWER, call()).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => error,
                Err(_) => {
                    let id = &self.id;
                    let sentence = format!("{id}: could not {what} within {ANSWER:?}");
                    self.world.ledger.wrong(sentence);
                    return None;
                }
            };
            if self.is_in_doubt() {
                // It may have ended in time. What is known of it then comes from the list.
                return None;
            }
            let id = &self.id;
            match &failed {
                // Nobody was there to wake it, and the edge has one word for both.
                EnvdError::NotRunning { .. } if self.is_waking && begun.elapsed() < PATIENCE => {
                    add(&self.world.ledger.retries);
                    tokio::time::sleep(RETRY).await;
                }
                EnvdError::NotRunning { message } => {
                    let sentence = format!("{id}: could not {what}: {message}");
                    self.world.ledger.lost(sentence);
                    return None;
                }
                error if is_cut_off(error) && begun.elapsed() < PATIENCE => {
                    add(&self.world.ledger.retries);
                    tokio::time::sleep(RETRY).await;
                }
                error => {
                    let sentence = format!("{id}: could not {what}: {}", chain(error));
                    self.world.ledger.wrong(sentence);
                    return None;
                }
            }
        }
    }

    pub(super) async fn ask_api<T, F>(&self, what: &str, call: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let begun = Instant::now();
        loop {
            match tokio::time::timeout(ANSWER, call()).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) if is_nobody_there(&error) && begun.elapsed() < PATIENCE => {
                    add(&self.world.ledger.retries);
                    tokio::time::sleep(RETRY).await;
                }
                failed => {
                    let said = failed.map(|other| other.map(drop).map_err(|e| chain(&e)));
                    let id = &self.id;
                    self.world
                        .ledger
                        .wrong(format!("{id}: could not {what}: {said:?}"));
                    return None;
                }
            }
        }
    }
}

/// What became of a change that was asked for.
pub(super) enum Changed<T> {
    Now(T),
    /// A try before, whose answer was lost, may have made it, or has: then there is no answer.
    Before(Option<T>),
    /// It is gone, or the answer was wrong; noted.
    No,
}

/// What a refusal means after a try whose answer was lost.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Means {
    /// That try has made the change.
    Made,
    /// It is still at it.
    Wait,
    Wrong,
}

impl World {
    /// Asks for a change of `id` until it is acknowledged. Not found is lost.
    pub(super) async fn change<T, F>(
        &self,
        (id, what): (&str, &str),
        call: impl Fn() -> F,
        means: impl Fn(&ApiError) -> Means,
    ) -> Changed<T>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let begun = Instant::now();
        let mut lost_answers = 0;
        loop {
            let error = match tokio::time::timeout(ANSWER, call()).await {
                Ok(Ok(answer)) if lost_answers > 0 => return Changed::Before(Some(answer)),
                Ok(Ok(answer)) => return Changed::Now(answer),
                Ok(Err(error)) => error,
                Err(_) => {
                    let sentence = format!("{id}: could not {what} within {ANSWER:?}");
                    self.ledger.wrong(sentence);
                    return Changed::No;
                }
            };
            let again = match means(&error) {
                Means::Made if lost_answers > 0 => return Changed::Before(None),
                Means::Wait => true,
                Means::Made | Means::Wrong => is_nobody_there(&error),
            };
            if !again || begun.elapsed() > PATIENCE {
                let sentence = format!("{id}: could not {what}: {}", chain(&error));
                match error.is_not_found() {
                    true => self.ledger.lost(sentence),
                    false => self.ledger.wrong(sentence),
                }
                return Changed::No;
            }
            add(&self.ledger.retries);
            lost_answers += 1;
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Whether the state that it is in forbids what was asked.
pub(super) fn is_conflict(error: &ApiError) -> bool {
    matches!(error, ApiError::Refused { status, .. } if status.as_u16() == 409)
}

/// No answer, one that broke off, or one that says to come again: no word was broken.
pub(super) fn is_nobody_there(error: &ApiError) -> bool {
    match error {
        ApiError::Http(_) => true,
        ApiError::Refused {
            status, message, ..
        } => of_the_node(status.as_u16(), message),
        ApiError::Unreadable { .. } | ApiError::TooManyPages { .. } => false,
    }
}

/// Whether a refusal says that the node failed, or was not there.
pub(super) fn of_the_node(status: u16, message: &str) -> bool {
    match status {
        429 | 502 | 503 | 504 => true,
        // E2B's own answers where a node fails. Any other 500 is a fault, whoever was killed.
        500 => OF_THE_NODE.iter().any(|words| message.starts_with(words)),
        _ => false,
    }
}

/// The same of an agent behind the edge.
fn is_cut_off(error: &EnvdError) -> bool {
    match error {
        EnvdError::Http(_) | EnvdError::Stream { .. } => true,
        // The edge's word while the node is gone.
        EnvdError::Refused { message, .. } if message.starts_with(ROUTING_ERROR) => true,
        EnvdError::Refused { code, .. } => {
            matches!(
                code,
                RpcCode::Unavailable | RpcCode::Unknown | RpcCode::Aborted
            )
        }
        EnvdError::NotRunning { .. }
        | EnvdError::PortClosed { .. }
        | EnvdError::Unreadable { .. }
        | EnvdError::UnreadableAnswer { .. }
        | EnvdError::Unwritable { .. }
        | EnvdError::CommandTimeout { .. } => false,
    }
}

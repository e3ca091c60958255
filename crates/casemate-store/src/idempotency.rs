//! Idempotency keys: a create that is sent twice makes one sandbox (`api.md` 3.0).
//!
//! ```text
//!            ┌─finish──▶ Done ──────┐
//! InProgress ┼─orphan──▶ Unknown ───┼─purge──▶ nothing
//!            └─abandon─▶ nothing    ┘
//! ```

use std::time::Duration;

use async_trait::async_trait;
use casemate_types::{TeamId, Timestamp};

use crate::StoreError;

/// Largest kept answer, bytes; beyond it [`StoreError::TooLarge`].
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A digest of the request's body, by which another request under the same key is told.
pub type RequestHash = [u8; 32];

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// Nothing was: it is the caller's now, who owes a finish or an abandon.
    New,
    /// The first call still runs.
    InProgress,
    /// The first call succeeded with this answer.
    Done { answer: String },
    /// Another request came under this key.
    Mismatch,
    /// The first call died before its result was known.
    Unknown,
}

#[async_trait]
pub trait Idempotency {
    /// Takes the key for the caller, or says what became of it. `owner` names the running process
    /// (another one after each start), so that its keys can be told from those of the dead.
    async fn idempotency_begin(
        &self,
        team: &TeamId,
        key: &str,
        request: &RequestHash,
        owner: &str,
        now: Timestamp,
    ) -> Result<Begun, StoreError>;

    /// Keeps the answer for whoever asks again. Secrets that can be derived do not belong in it.
    /// [`StoreError::Conflict`] when the key is not in progress.
    async fn idempotency_finish(
        &self,
        team: &TeamId,
        key: &str,
        answer: &str,
    ) -> Result<(), StoreError>;

    /// Frees a key whose call failed and left nothing; a key that is not in progress stays.
    async fn idempotency_abandon(&self, team: &TeamId, key: &str) -> Result<(), StoreError>;

    /// Keys in progress whose owner is dead become unknown; how many. Alive are the caller and the
    /// servers that were heard of within this time, which say so before they take their first key.
    async fn idempotency_orphan(
        &self,
        caller: &str,
        seen_within: Duration,
    ) -> Result<u64, StoreError>;

    /// Removes keys that began before `before`, except those in progress; how many.
    async fn idempotency_purge(&self, before: Timestamp) -> Result<u64, StoreError>;
}

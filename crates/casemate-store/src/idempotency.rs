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
    /// Nothing was: it is the caller's now, who owes a finish or an abandon, as it does after an error in
    /// doubt.
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

/// What one call takes a key by: a word of it that comes late changes nothing of another call that has
/// the key by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyClaim {
    pub team: TeamId,
    pub key: String,
    /// Names the running process (another one after each start), so that its keys can be told from those
    /// of the dead.
    pub owner: String,
    pub at: Timestamp,
}

#[async_trait]
pub trait Idempotency {
    /// Takes the key for the caller, or says what became of it.
    async fn idempotency_begin(
        &self,
        claim: &KeyClaim,
        request: &RequestHash,
    ) -> Result<Begun, StoreError>;

    /// Keeps the answer for whoever asks again. Secrets that can be derived do not belong in it.
    /// [`StoreError::Conflict`] when the key is not in progress by this claim.
    async fn idempotency_finish(&self, claim: &KeyClaim, answer: &str) -> Result<(), StoreError>;

    /// Frees a key whose call failed and left nothing; one that is not in progress by this claim stays.
    async fn idempotency_abandon(&self, claim: &KeyClaim) -> Result<(), StoreError>;

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

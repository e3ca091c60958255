//! Tokens with which machines join. Of the token itself only its hash is kept; its id is no secret.

use std::time::Duration;

use async_trait::async_trait;
use casemate_types::Timestamp;

use crate::StoreError;

/// SHA-256 of a token.
pub type JoinTokenHash = [u8; 32];

/// The longest that a token lasts; one that is to last longer lasts this long.
pub const JOIN_TOKEN_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// As what a machine joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinRole {
    Node,
    Edge,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJoinToken {
    pub id: String,
    pub hash: JoinTokenHash,
    pub role: JoinRole,
    /// By the database's clock.
    pub lasts: Duration,
    /// How often it may be used; `None` for as often as one likes.
    pub uses_left: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub id: String,
    pub hash: JoinTokenHash,
    pub role: JoinRole,
    pub expires_at: Timestamp,
    pub uses_left: Option<u32>,
}

#[async_trait]
pub trait JoinTokens {
    /// As it is kept. [`StoreError::Exists`] when there is one with this id.
    async fn join_token_put(&self, token: &NewJoinToken) -> Result<JoinToken, StoreError>;

    /// Uses the token once to join as this, if it has this hash, is not expired and not used up: as
    /// what its bearer may join, which is another role where none of its uses was taken. The hash is
    /// compared here, so that who knows only an id cannot use a token up.
    async fn join_token_use(
        &self,
        id: &str,
        hash: &JoinTokenHash,
        role: JoinRole,
    ) -> Result<Option<JoinRole>, StoreError>;

    /// All of them, by id.
    async fn join_token_list(&self) -> Result<Vec<JoinToken>, StoreError>;

    /// Whether there was such a token.
    async fn join_token_revoke(&self, id: &str) -> Result<bool, StoreError>;

    /// Removes those that are expired; how many.
    async fn join_token_forget_expired(&self) -> Result<u64, StoreError>;
}

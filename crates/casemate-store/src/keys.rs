//! API keys of teams and access tokens of users. Only hashes are kept (`api.md` 2.2).

use std::fmt;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use casemate_types::{TeamId, Timestamp, UserId};
use sha2::{Digest, Sha256};

use crate::{KeyId, StoreError, Team};

/// How much older the kept `last_used` of a key may be than its last use: a use within this time
/// of the kept one is not written.
pub const LAST_USED_LAG_SECONDS: i64 = 60;

const HASH_PREFIX: &str = "$sha256$";

/// SHA-256 of a secret's decoded bytes, as kept: `$sha256$` and unpadded base64.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyHash(Box<str>);

impl KeyHash {
    /// Of the bytes that the hexadecimal digits of a key stand for.
    pub fn of(decoded: &[u8]) -> Self {
        let digest = STANDARD_NO_PAD.encode(Sha256::digest(decoded));
        Self(format!("{HASH_PREFIX}{digest}").into())
    }

    /// The kept form; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let digest = STANDARD_NO_PAD
            .decode(text.strip_prefix(HASH_PREFIX)?)
            .ok()?;
        (digest.len() == 32).then(|| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for KeyHash {
    /// A hash of a secret is nobody's business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash")
    }
}

/// What is shown of a secret after its creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyMask {
    /// `e2b_` or `sk_e2b_`.
    pub prefix: String,
    /// Digits after the prefix.
    pub value_len: u32,
    pub masked_prefix: String,
    pub masked_suffix: String,
}

impl KeyMask {
    /// Of a secret of `value` after `prefix`: the first two and the last four characters stay,
    /// of a value too short for that none.
    pub fn of(prefix: &str, value: &str) -> Self {
        let long = value.is_ascii() && value.len() > 6;
        let (head, tail) = if long {
            (&value[..2], &value[value.len() - 4..])
        } else {
            ("", "")
        };
        Self {
            prefix: prefix.into(),
            value_len: u32::try_from(value.len()).unwrap_or(u32::MAX),
            masked_prefix: head.into(),
            masked_suffix: tail.into(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: KeyId,
    pub team: TeamId,
    pub name: String,
    pub hash: KeyHash,
    pub mask: KeyMask,
    pub created_at: Timestamp,
    /// `None` when an administrator or the command line made it.
    pub created_by: Option<UserId>,
    /// Not younger than the last use, and at most [`LAST_USED_LAG_SECONDS`] older.
    pub last_used: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessToken {
    pub id: KeyId,
    pub user: UserId,
    pub name: String,
    pub hash: KeyHash,
    pub mask: KeyMask,
    pub created_at: Timestamp,
}

#[async_trait]
pub trait Keys {
    /// [`StoreError::Exists`] when id or hash are taken, [`StoreError::Dangling`] when the team
    /// or the creator do not exist.
    async fn key_insert(&self, key: &ApiKey) -> Result<(), StoreError>;

    /// The key and its team.
    async fn key_by_hash(&self, hash: &KeyHash) -> Result<Option<(ApiKey, Team)>, StoreError>;

    /// The team's keys, oldest first.
    async fn key_list(&self, team: &TeamId) -> Result<Vec<ApiKey>, StoreError>;

    /// Whether the team has such a key.
    async fn key_rename(&self, team: &TeamId, id: &KeyId, name: &str) -> Result<bool, StoreError>;

    /// The key as it was, so that a caller can drop it from its cache; `None` when the team has
    /// no such key.
    async fn key_delete(&self, team: &TeamId, id: &KeyId) -> Result<Option<ApiKey>, StoreError>;

    /// Moves `last_used` forward; a key that is gone, and a use that the lag allows not to
    /// write, are success.
    async fn key_touch(&self, id: &KeyId, at: Timestamp) -> Result<(), StoreError>;

    /// [`StoreError::Exists`] when id or hash are taken, [`StoreError::Dangling`] when the user
    /// does not exist.
    async fn token_insert(&self, token: &AccessToken) -> Result<(), StoreError>;

    async fn token_by_hash(&self, hash: &KeyHash) -> Result<Option<AccessToken>, StoreError>;

    /// The token as it was; `None` when the user has no such token.
    async fn token_delete(
        &self,
        user: &UserId,
        id: &KeyId,
    ) -> Result<Option<AccessToken>, StoreError>;
}

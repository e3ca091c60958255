//! API keys and access tokens.

use casemate_types::{TeamId, UserId};

use super::{Misread, Named, TeamRow, small, timestamp};
use crate::{AccessToken, ApiKey, KeyHash, KeyId, KeyMask, StoreError, Team};

#[derive(sqlx::FromRow)]
pub(crate) struct ApiKeyRow {
    id: String,
    owner_id: String,
    name: String,
    #[sqlx(flatten)]
    secret: SecretColumns,
    created_at: i64,
    created_by: Option<String>,
    last_used: Option<i64>,
}

/// A key together with its team.
#[derive(sqlx::FromRow)]
pub(crate) struct OwnedKeyRow {
    #[sqlx(flatten)]
    key: ApiKeyRow,
    #[sqlx(flatten)]
    team: TeamRow,
}

#[derive(sqlx::FromRow)]
pub(crate) struct TokenRow {
    id: String,
    user_id: String,
    name: String,
    #[sqlx(flatten)]
    secret: SecretColumns,
    created_at: i64,
}

#[derive(sqlx::FromRow)]
struct SecretColumns {
    hash: String,
    mask_prefix: String,
    mask_value_len: i64,
    mask_value_prefix: String,
    mask_value_suffix: String,
}

impl SecretColumns {
    fn read(self) -> Result<(KeyHash, KeyMask), Misread> {
        let hash = KeyHash::parse(&self.hash).ok_or("a hash of another form")?;
        let mask = KeyMask {
            prefix: self.mask_prefix,
            value_len: small(self.mask_value_len)?,
            masked_prefix: self.mask_value_prefix,
            masked_suffix: self.mask_value_suffix,
        };
        Ok((hash, mask))
    }
}

impl TryFrom<ApiKeyRow> for ApiKey {
    type Error = StoreError;

    fn try_from(row: ApiKeyRow) -> Result<Self, StoreError> {
        let id = row.id.clone();
        read_key(row).named("api key", &id)
    }
}

impl TryFrom<OwnedKeyRow> for (ApiKey, Team) {
    type Error = StoreError;

    fn try_from(row: OwnedKeyRow) -> Result<Self, StoreError> {
        Ok((row.key.try_into()?, row.team.try_into()?))
    }
}

impl TryFrom<TokenRow> for AccessToken {
    type Error = StoreError;

    fn try_from(row: TokenRow) -> Result<Self, StoreError> {
        let id = row.id.clone();
        read_token(row).named("access token", &id)
    }
}

fn read_key(row: ApiKeyRow) -> Result<ApiKey, Misread> {
    let (hash, mask) = row.secret.read()?;
    let created_by = row.created_by.as_deref().map(UserId::parse).transpose()?;
    Ok(ApiKey {
        id: KeyId::parse(&row.id)?,
        team: TeamId::parse(&row.owner_id)?,
        name: row.name,
        hash,
        mask,
        created_at: timestamp(row.created_at)?,
        created_by,
        last_used: row.last_used.map(timestamp).transpose()?,
    })
}

fn read_token(row: TokenRow) -> Result<AccessToken, Misread> {
    let (hash, mask) = row.secret.read()?;
    Ok(AccessToken {
        id: KeyId::parse(&row.id)?,
        user: UserId::parse(&row.user_id)?,
        name: row.name,
        hash,
        mask,
        created_at: timestamp(row.created_at)?,
    })
}

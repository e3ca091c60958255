//! [`Keys`].

use async_trait::async_trait;
use casemate_sql::{query, query_as};
use casemate_types::{TeamId, Timestamp, UserId};

use super::teams::team_columns;
use super::{SqlStore, failed};
use crate::keys::LAST_USED_LAG_SECONDS;
use crate::rows::{ApiKeyRow, OwnedKeyRow, TokenRow, micros};
use crate::{AccessToken, ApiKey, KeyHash, KeyId, Keys, StoreError, Team};

/// Of [`ApiKeyRow`].
macro_rules! key_columns {
    () => {
        "id, team_id AS owner_id, name, hash, mask_prefix, mask_value_len, mask_value_prefix, \
         mask_value_suffix, created_at, created_by, last_used"
    };
}

/// Of [`TokenRow`].
macro_rules! token_columns {
    () => {
        "id, user_id, name, hash, mask_prefix, mask_value_len, mask_value_prefix, \
         mask_value_suffix, created_at"
    };
}

#[async_trait]
impl Keys for SqlStore {
    async fn key_insert(&self, key: &ApiKey) -> Result<(), StoreError> {
        query(
            "INSERT INTO api_keys (id, team_id, name, hash, mask_prefix, mask_value_len, \
             mask_value_prefix, mask_value_suffix, created_at, created_by, last_used) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(key.id.to_string())
        .bind(key.team.as_str())
        .bind(&key.name)
        .bind(key.hash.as_str())
        .bind(&key.mask.prefix)
        .bind(i64::from(key.mask.value_len))
        .bind(&key.mask.masked_prefix)
        .bind(&key.mask.masked_suffix)
        .bind(micros(key.created_at))
        .bind(key.created_by.as_ref().map(UserId::as_str))
        .bind(key.last_used.map(micros))
        .execute(&self.durable)
        .await
        .map_err(|error| failed("api key", key.id, error))?;
        Ok(())
    }

    async fn key_by_hash(&self, hash: &KeyHash) -> Result<Option<(ApiKey, Team)>, StoreError> {
        let sql = concat!(
            "SELECT k.id, k.team_id AS owner_id, k.name, k.hash, k.mask_prefix, \
             k.mask_value_len, k.mask_value_prefix, k.mask_value_suffix, k.created_at, \
             k.created_by, k.last_used, ",
            team_columns!(),
            " FROM api_keys k JOIN teams t ON t.id = k.team_id WHERE k.hash = $1"
        );
        let row: Option<OwnedKeyRow> = query_as(sql)
            .bind(hash.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(|error| failed("api key", "of a hash", error))?;
        row.map(TryInto::try_into).transpose()
    }

    async fn key_list(&self, team: &TeamId) -> Result<Vec<ApiKey>, StoreError> {
        let sql = concat!(
            "SELECT ",
            key_columns!(),
            " FROM api_keys WHERE team_id = $1 ORDER BY created_at, id"
        );
        let rows: Vec<ApiKeyRow> = query_as(sql)
            .bind(team.as_str())
            .fetch_all(&self.readers)
            .await
            .map_err(|error| failed("keys of team", team, error))?;
        rows.into_iter().map(ApiKey::try_from).collect()
    }

    async fn key_rename(&self, team: &TeamId, id: &KeyId, name: &str) -> Result<bool, StoreError> {
        let done = query("UPDATE api_keys SET name = $3 WHERE id = $2 AND team_id = $1")
            .bind(team.as_str())
            .bind(id.to_string())
            .bind(name)
            .execute(&self.durable)
            .await
            .map_err(|error| failed("api key", id, error))?;
        Ok(done > 0)
    }

    async fn key_delete(&self, team: &TeamId, id: &KeyId) -> Result<Option<ApiKey>, StoreError> {
        let sql = concat!(
            "DELETE FROM api_keys WHERE id = $2 AND team_id = $1 RETURNING ",
            key_columns!()
        );
        // All rows are fetched: the statement is committed when it has run to its end, and a
        // single row could be answered before.
        let rows: Vec<ApiKeyRow> = query_as(sql)
            .bind(team.as_str())
            .bind(id.to_string())
            .fetch_all(&self.durable)
            .await
            .map_err(|error| failed("api key", id, error))?;
        rows.into_iter().next().map(ApiKey::try_from).transpose()
    }

    async fn key_touch(&self, id: &KeyId, at: Timestamp) -> Result<(), StoreError> {
        let at = micros(at);
        query(
            "UPDATE api_keys SET last_used = $2 \
             WHERE id = $1 AND (last_used IS NULL OR last_used <= $3)",
        )
        .bind(id.to_string())
        .bind(at)
        .bind(at.saturating_sub(LAST_USED_LAG_SECONDS * 1_000_000))
        .execute(self.notes())
        .await
        .map_err(|error| failed("api key", id, error))?;
        Ok(())
    }

    async fn token_insert(&self, token: &AccessToken) -> Result<(), StoreError> {
        query(
            "INSERT INTO access_tokens (id, user_id, name, hash, mask_prefix, mask_value_len, \
             mask_value_prefix, mask_value_suffix, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(token.id.to_string())
        .bind(token.user.as_str())
        .bind(&token.name)
        .bind(token.hash.as_str())
        .bind(&token.mask.prefix)
        .bind(i64::from(token.mask.value_len))
        .bind(&token.mask.masked_prefix)
        .bind(&token.mask.masked_suffix)
        .bind(micros(token.created_at))
        .execute(&self.durable)
        .await
        .map_err(|error| failed("access token", token.id, error))?;
        Ok(())
    }

    async fn token_by_hash(&self, hash: &KeyHash) -> Result<Option<AccessToken>, StoreError> {
        let sql = concat!(
            "SELECT ",
            token_columns!(),
            " FROM access_tokens WHERE hash = $1"
        );
        let row: Option<TokenRow> = query_as(sql)
            .bind(hash.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(|error| failed("access token", "of a hash", error))?;
        row.map(AccessToken::try_from).transpose()
    }

    async fn token_delete(
        &self,
        user: &UserId,
        id: &KeyId,
    ) -> Result<Option<AccessToken>, StoreError> {
        let sql = concat!(
            "DELETE FROM access_tokens WHERE id = $2 AND user_id = $1 RETURNING ",
            token_columns!()
        );
        let rows: Vec<TokenRow> = query_as(sql)
            .bind(user.as_str())
            .bind(id.to_string())
            .fetch_all(&self.durable)
            .await
            .map_err(|error| failed("access token", id, error))?;
        rows.into_iter()
            .next()
            .map(AccessToken::try_from)
            .transpose()
    }
}

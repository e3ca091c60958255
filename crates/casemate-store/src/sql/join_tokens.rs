//! [`JoinTokens`].

use async_trait::async_trait;
use casemate_sql::{Sql, query, query_as, query_scalar, sql};

use super::{SqlStore, failed};
use crate::join_tokens::JOIN_TOKEN_MAX;
use crate::rows::{JoinTokenRow, Named, join_role, join_role_word, length};
use crate::{JoinRole, JoinToken, JoinTokenHash, JoinTokens, NewJoinToken, StoreError};

const WHAT: &str = "join token";

/// Of [`JoinTokenRow`].
macro_rules! columns {
    () => {
        "id, hash, role, expires_at, uses_left"
    };
}

const PUT: Sql = sql!(
    "INSERT INTO join_tokens (",
    columns!(),
    ") VALUES ($1, $2, $3, ",
    now(),
    " + $4, $5) RETURNING ",
    columns!()
);

#[async_trait]
impl JoinTokens for SqlStore {
    async fn join_token_put(&self, token: &NewJoinToken) -> Result<JoinToken, StoreError> {
        let refused = |error| failed(WHAT, &token.id, error);
        let rows: Vec<JoinTokenRow> = query_as(PUT)
            .bind(&token.id)
            .bind(token.hash.as_slice())
            .bind(join_role_word(token.role))
            .bind(length(token.lasts.min(JOIN_TOKEN_MAX)))
            .bind(token.uses_left.map(i64::from))
            .fetch_all(&self.durable)
            .await
            .map_err(refused)?;
        match rows.into_iter().next() {
            Some(row) => row.try_into(),
            None => Err(refused(sqlx::Error::RowNotFound.into())),
        }
    }

    async fn join_token_use(
        &self,
        id: &str,
        hash: &JoinTokenHash,
        role: JoinRole,
    ) -> Result<Option<JoinRole>, StoreError> {
        let roles: Vec<String> = query_scalar(sql!(
            "UPDATE join_tokens SET \
             uses_left = CASE WHEN role = $3 THEN uses_left - 1 ELSE uses_left END \
             WHERE id = $1 AND hash = $2 AND (uses_left IS NULL OR uses_left > 0) \
             AND expires_at > ",
            now(),
            " RETURNING role"
        ))
        .bind(id)
        .bind(hash.as_slice())
        .bind(join_role_word(role))
        .fetch_all(&self.durable)
        .await
        .map_err(|error| failed(WHAT, id, error))?;
        let role = roles.first().map(|word| join_role(word).named(WHAT, id));
        role.transpose()
    }

    async fn join_token_list(&self) -> Result<Vec<JoinToken>, StoreError> {
        let sql = concat!("SELECT ", columns!(), " FROM join_tokens ORDER BY id");
        let rows: Vec<JoinTokenRow> = query_as(sql)
            .fetch_all(&self.readers)
            .await
            .map_err(|error| failed("table", "join_tokens", error))?;
        rows.into_iter().map(JoinToken::try_from).collect()
    }

    async fn join_token_revoke(&self, id: &str) -> Result<bool, StoreError> {
        let gone = query("DELETE FROM join_tokens WHERE id = $1")
            .bind(id)
            .execute(&self.durable)
            .await
            .map_err(|error| failed(WHAT, id, error))?;
        Ok(gone > 0)
    }

    async fn join_token_forget_expired(&self) -> Result<u64, StoreError> {
        query(sql!("DELETE FROM join_tokens WHERE expires_at <= ", now()))
            .execute(&self.durable)
            .await
            .map_err(|error| failed("table", "join_tokens", error))
    }
}

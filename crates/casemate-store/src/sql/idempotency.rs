//! [`Idempotency`].

use std::time::Duration;

use async_trait::async_trait;
use casemate_sql::{query, query_as, sql, transaction};
use casemate_types::Timestamp;

use super::{SqlStore, failed};
use crate::idempotency::ANSWER_BYTES_MAX;
use crate::rows::{Misread, Named, length, micros, unknown_word};
use crate::{Begun, Idempotency, KeyClaim, RequestHash, StoreError};

const WHAT: &str = "idempotency key";

/// State, digest of the request, answer.
type KeyRow = (String, Vec<u8>, Option<String>);

#[async_trait]
impl Idempotency for SqlStore {
    async fn idempotency_begin(
        &self,
        claim: &KeyClaim,
        request: &RequestHash,
    ) -> Result<Begun, StoreError> {
        let (team, key) = (&claim.team, claim.key.as_str());
        let refused = |error| failed(WHAT, key, error);
        transaction!(self.fast(), refused, async |tx| {
            let done = query(
                "INSERT INTO idempotency_keys (team_id, key, request, owner, state, began_at) \
                 VALUES ($1, $2, $3, $4, 'in_progress', $5) ON CONFLICT (team_id, key) DO NOTHING",
            )
            .bind(team.as_str())
            .bind(key)
            .bind(request.as_slice())
            .bind(claim.owner.as_str())
            .bind(micros(claim.at))
            .execute(&mut *tx)
            .await
            .map_err(refused)?;
            if done > 0 {
                return Ok(Begun::New);
            }
            let row: KeyRow = query_as(
            "SELECT state, request, answer FROM idempotency_keys WHERE team_id = $1 AND key = $2",
        )
        .bind(team.as_str())
        .bind(key)
        .fetch_one(&mut *tx)
        .await
        .map_err(refused)?;
            read(row, request).named(WHAT, key)
        })
    }

    async fn idempotency_finish(&self, claim: &KeyClaim, answer: &str) -> Result<(), StoreError> {
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(StoreError::TooLarge {
                what: "kept answer",
                size: answer.len(),
                max: ANSWER_BYTES_MAX,
            });
        }
        let done = query(
            "UPDATE idempotency_keys SET state = 'done', answer = $5 \
             WHERE team_id = $1 AND key = $2 AND owner = $3 AND began_at = $4 \
             AND state = 'in_progress'",
        )
        .bind(claim.team.as_str())
        .bind(claim.key.as_str())
        .bind(claim.owner.as_str())
        .bind(micros(claim.at))
        .bind(answer)
        .execute(self.fast())
        .await
        .map_err(|error| failed(WHAT, &claim.key, error))?;
        if done == 0 {
            return Err(StoreError::Conflict {
                what: WHAT,
                id: claim.key.clone(),
            });
        }
        Ok(())
    }

    async fn idempotency_abandon(&self, claim: &KeyClaim) -> Result<(), StoreError> {
        query(
            "DELETE FROM idempotency_keys \
             WHERE team_id = $1 AND key = $2 AND owner = $3 AND began_at = $4 \
             AND state = 'in_progress'",
        )
        .bind(claim.team.as_str())
        .bind(claim.key.as_str())
        .bind(claim.owner.as_str())
        .bind(micros(claim.at))
        .execute(self.fast())
        .await
        .map_err(|error| failed(WHAT, &claim.key, error))?;
        Ok(())
    }

    async fn idempotency_orphan(
        &self,
        caller: &str,
        seen_within: Duration,
    ) -> Result<u64, StoreError> {
        let done = query(sql!(
            "UPDATE idempotency_keys SET state = 'unknown' \
             WHERE state = 'in_progress' AND owner <> $1 \
             AND NOT EXISTS (SELECT 1 FROM servers s \
                 WHERE s.id = idempotency_keys.owner AND s.seen_at >= ",
            now(),
            " - $2)"
        ))
        .bind(caller)
        .bind(length(seen_within))
        .execute(self.fast())
        .await
        .map_err(|error| failed(WHAT, "of the dead", error))?;
        Ok(done)
    }

    async fn idempotency_purge(&self, before: Timestamp) -> Result<u64, StoreError> {
        let done =
            query("DELETE FROM idempotency_keys WHERE began_at < $1 AND state <> 'in_progress'")
                .bind(micros(before))
                .execute(self.fast())
                .await
                .map_err(|error| failed(WHAT, "of old", error))?;
        Ok(done)
    }
}

fn read((state, kept, answer): KeyRow, request: &RequestHash) -> Result<Begun, Misread> {
    if kept != request {
        return Ok(Begun::Mismatch);
    }
    match state.as_str() {
        "in_progress" => Ok(Begun::InProgress),
        "done" => Ok(Begun::Done {
            answer: answer.ok_or("done without an answer")?,
        }),
        "unknown" => Ok(Begun::Unknown),
        other => Err(unknown_word("state", other)),
    }
}

//! [`Servers`].

use std::time::Duration;

use async_trait::async_trait;
use casemate_sql::{query, query_as, query_scalar, sql};
use casemate_types::Timestamp;

use super::{SqlStore, failed};
use crate::rows::{Named, length, timestamp};
use crate::{Server, ServerBeat, Servers, StoreError};

const WHAT: &str = "server";

/// Id, address, version, first and last seen.
type ServerRow = (String, Option<String>, String, i64, i64);

#[async_trait]
impl Servers for SqlStore {
    async fn server_beat(&self, beat: &ServerBeat) -> Result<Timestamp, StoreError> {
        let seen_at: i64 = query_scalar(sql!(
            "INSERT INTO servers (id, address, version, since, seen_at) VALUES ($1, $2, $3, ",
            now(),
            ", ",
            now(),
            ") ON CONFLICT (id) DO UPDATE SET address = excluded.address, \
             version = excluded.version, seen_at = excluded.seen_at RETURNING seen_at"
        ))
        .bind(&beat.id)
        .bind(beat.address.as_deref())
        .bind(&beat.version)
        .fetch_one(self.notes())
        .await
        .map_err(|error| failed(WHAT, &beat.id, error))?;
        timestamp(seen_at).named(WHAT, &beat.id)
    }

    async fn server_leave(&self, id: &str) -> Result<(), StoreError> {
        query("DELETE FROM servers WHERE id = $1")
            .bind(id)
            .execute(self.fast())
            .await
            .map_err(|error| failed(WHAT, id, error))?;
        Ok(())
    }

    async fn server_list(&self, seen_within: Duration) -> Result<Vec<Server>, StoreError> {
        let rows: Vec<ServerRow> = query_as(sql!(
            "SELECT id, address, version, since, seen_at FROM servers WHERE seen_at >= ",
            now(),
            " - $1 ORDER BY id"
        ))
        .bind(length(seen_within))
        .fetch_all(&self.readers)
        .await
        .map_err(|error| failed("table", "servers", error))?;
        rows.into_iter().map(read).collect()
    }

    async fn server_clock(&self) -> Result<Timestamp, StoreError> {
        let said: i64 = query_scalar(sql!("SELECT ", now()))
            .fetch_one(&self.readers)
            .await
            .map_err(|error| failed("table", "servers", error))?;
        timestamp(said).named("clock", "database")
    }

    async fn server_forget(&self, unseen_for: Duration) -> Result<u64, StoreError> {
        query(sql!("DELETE FROM servers WHERE seen_at < ", now(), " - $1"))
            .bind(length(unseen_for))
            .execute(self.fast())
            .await
            .map_err(|error| failed("table", "servers", error))
    }
}

fn read((id, address, version, since, seen_at): ServerRow) -> Result<Server, StoreError> {
    Ok(Server {
        since: timestamp(since).named(WHAT, &id)?,
        seen_at: timestamp(seen_at).named(WHAT, &id)?,
        id,
        address,
        version,
    })
}

//! [`Leases`].

use std::time::Duration;

use async_trait::async_trait;
use casemate_sql::{Sql, query, query_as, query_scalar, sql, transaction};

use super::{SqlStore, failed};
use crate::leases::LEASE_MAX;
use crate::rows::{Misread, Named, length};
use crate::{Lease, LeaseTaken, Leases, StoreError};

const WHAT: &str = "lease";

/// A row stays when its lease ends: its generation goes on.
const TAKE: Sql = sql!(
    "INSERT INTO leases (name, holder, generation, ends_at) VALUES ($1, $2, 1, ",
    now(),
    " + $3) ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, ends_at = excluded.ends_at, \
     generation = leases.generation + CASE WHEN leases.ends_at > ",
    now(),
    " THEN 0 ELSE 1 END WHERE leases.holder = excluded.holder OR leases.ends_at <= ",
    now(),
    " RETURNING generation"
);
const LOOK: Sql = sql!(
    "SELECT holder, ends_at - ",
    now(),
    " FROM leases WHERE name = $1"
);

const LIST: Sql = sql!(
    "SELECT name, ",
    now(),
    " - ends_at FROM leases WHERE substr(name, 1, length($1)) = $1 ORDER BY name"
);

#[async_trait]
impl Leases for SqlStore {
    async fn lease_take(
        &self,
        name: &str,
        holder: &str,
        lasts: Duration,
    ) -> Result<LeaseTaken, StoreError> {
        let refused = |error| failed(WHAT, name, error);
        transaction!(self.fast(), refused, async |tx| {
            let taken: Vec<i64> = query_scalar(TAKE)
                .bind(name)
                .bind(holder)
                .bind(length(lasts.min(LEASE_MAX)))
                .fetch_all(&mut *tx)
                .await
                .map_err(refused)?;
            if let Some(generation) = taken.first() {
                let generation = u64::try_from(*generation).map_err(Misread::from);
                let generation = generation.named(WHAT, name)?;
                return Ok(LeaseTaken::Held { generation });
            }
            let (holder, left): (String, i64) = query_as(LOOK)
                .bind(name)
                .fetch_one(&mut *tx)
                .await
                .map_err(refused)?;
            // It may have run out this moment.
            let left = Duration::from_micros(u64::try_from(left).unwrap_or(0));
            Ok(LeaseTaken::HeldBy { holder, left })
        })
    }

    async fn lease_give(&self, name: &str, holder: &str) -> Result<bool, StoreError> {
        let given = query(sql!(
            "UPDATE leases SET ends_at = ",
            now(),
            " WHERE name = $1 AND holder = $2 AND ends_at > ",
            now()
        ))
        .bind(name)
        .bind(holder)
        .execute(self.fast())
        .await
        .map_err(|error| failed(WHAT, name, error))?;
        Ok(given > 0)
    }

    async fn lease_list(&self, prefix: &str) -> Result<Vec<Lease>, StoreError> {
        let rows: Vec<(String, i64)> = query_as(LIST)
            .bind(prefix)
            .fetch_all(&self.readers)
            .await
            .map_err(|error| failed("table", "leases", error))?;
        let listed = rows.into_iter().map(|(name, micros)| Lease {
            name,
            // Before its end it is somebody's.
            free_for: u64::try_from(micros).ok().map(Duration::from_micros),
        });
        Ok(listed.collect())
    }
}

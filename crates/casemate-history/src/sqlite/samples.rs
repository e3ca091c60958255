//! [`Samples`].

use std::time::Duration;

use async_trait::async_trait;
use casemate_types::{Sample, SandboxId, TeamId};
use sqlx::SqliteConnection;

use super::codec::{decode, encode};
use super::tail::{Row, ordered, pieces, row, usage_at};
use super::{SqliteHistory, corrupt, failed, millis, time};
use crate::samples::aggregate;
use crate::{HistoryError, Range, Samples, UsageAt};

const WHAT: &str = "samples";

/// A number, then a [`Row`].
const BATCH_COLUMNS: usize = 9;

#[async_trait]
impl Samples for SqliteHistory {
    async fn samples_append(&self, samples: &[Sample]) -> Result<(), HistoryError> {
        if samples.is_empty() {
            return Ok(());
        }
        let _writing = self.writing.lock().await;
        let mut batch = Vec::with_capacity(samples.len());
        for sample in samples {
            let at = millis(sample.at);
            let number = self.number(&sample.team, &sample.sandbox, at).await?;
            batch.push((number, row(sample.at, &sample.usage)));
        }
        let packed: Vec<[i64; BATCH_COLUMNS]> = batch.iter().map(pack).collect();
        sqlx::query("INSERT INTO sample_batches (samples) VALUES ($1)")
            .bind(encode(&packed))
            .execute(&self.writer)
            .await
            .map_err(failed(WHAT))?;
        let full = {
            let mut tail = self.tail();
            for (number, row) in batch {
                tail.push(number, row);
            }
            tail.is_full()
        };
        if full {
            self.compact().await?;
        }
        Ok(())
    }

    async fn samples_read(
        &self,
        team: &TeamId,
        sandbox: &SandboxId,
        range: Range,
        step: Duration,
    ) -> Result<Vec<UsageAt>, HistoryError> {
        let Some(number) = self.find(team, sandbox).await? else {
            return Ok(Vec::new());
        };
        // The tail first: what leaves it meanwhile is then in a chunk, and seen twice at worst.
        let young = self.tail().of(number);
        let chunks: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT samples FROM sample_chunks \
             WHERE subject = $1 AND from_at <= $3 AND to_at >= $2 ORDER BY from_at",
        )
        .bind(number)
        .bind(millis(range.from))
        .bind(millis(range.to))
        .fetch_all(&self.readers)
        .await
        .map_err(failed(WHAT))?;
        let mut rows: Vec<Row> = Vec::new();
        for chunk in chunks {
            rows.extend(decode(&chunk).map_err(|error| corrupt(WHAT, error))?);
        }
        rows.extend(young);
        let within = millis(range.from)..=millis(range.to);
        let rows = ordered(rows);
        let rows = rows.iter().filter(|row| within.contains(&row[0]));
        Ok(aggregate(rows.map(usage_at), step))
    }

    async fn samples_range(
        &self,
        team: &TeamId,
        sandbox: &SandboxId,
    ) -> Result<Option<Range>, HistoryError> {
        let Some(number) = self.find(team, sandbox).await? else {
            return Ok(None);
        };
        let young = self.tail().of(number);
        let (from, to): (Option<i64>, Option<i64>) =
            sqlx::query_as("SELECT MIN(from_at), MAX(to_at) FROM sample_chunks WHERE subject = $1")
                .bind(number)
                .fetch_one(&self.readers)
                .await
                .map_err(failed(WHAT))?;
        let times = || young.iter().map(|row| row[0]);
        let from = times().chain(from).min();
        let to = times().chain(to).max();
        Ok(from.zip(to).map(|(from, to)| Range {
            from: time(from),
            to: time(to),
        }))
    }

    async fn samples_latest(
        &self,
        team: &TeamId,
        sandboxes: &[SandboxId],
    ) -> Result<Vec<Sample>, HistoryError> {
        let mut latest = Vec::new();
        for sandbox in sandboxes {
            let Some(number) = self.find(team, sandbox).await? else {
                continue;
            };
            if let Some(row) = self.latest(number).await? {
                let UsageAt { at, usage } = usage_at(&row);
                latest.push(Sample {
                    sandbox: sandbox.clone(),
                    team: team.clone(),
                    at,
                    usage,
                });
            }
        }
        Ok(latest)
    }
}

impl SqliteHistory {
    async fn latest(&self, number: i64) -> Result<Option<Row>, HistoryError> {
        let last = |rows: Vec<Row>| ordered(rows).last().copied();
        if let Some(row) = last(self.tail().of(number)) {
            return Ok(Some(row));
        }
        let chunk: Option<Vec<u8>> = sqlx::query_scalar(
            "SELECT samples FROM sample_chunks WHERE subject = $1 ORDER BY from_at DESC LIMIT 1",
        )
        .bind(number)
        .fetch_optional(&self.readers)
        .await
        .map_err(failed(WHAT))?;
        match chunk {
            None => Ok(None),
            Some(chunk) => {
                let rows = decode(&chunk).map_err(|error| corrupt(WHAT, error))?;
                Ok(last(rows))
            }
        }
    }

    /// Makes chunks of all batches. The caller holds `writing`.
    pub(super) async fn compact(&self) -> Result<(), HistoryError> {
        let series = self.tail().all();
        let mut change = self.writer.begin().await.map_err(failed(WHAT))?;
        for (number, rows) in series {
            let rows = ordered(rows);
            for piece in pieces(&rows) {
                put_chunk(&mut change, number, piece).await?;
            }
        }
        sqlx::query("DELETE FROM sample_batches")
            .execute(&mut *change)
            .await
            .map_err(failed(WHAT))?;
        change.commit().await.map_err(failed(WHAT))?;
        self.tail().clear();
        Ok(())
    }

    /// Takes up what batches an earlier process left.
    pub(super) async fn load_tail(&self) -> Result<(), HistoryError> {
        let batches: Vec<Vec<u8>> =
            sqlx::query_scalar("SELECT samples FROM sample_batches ORDER BY id")
                .fetch_all(&self.writer)
                .await
                .map_err(failed(WHAT))?;
        for batch in batches {
            let rows: Vec<[i64; BATCH_COLUMNS]> =
                decode(&batch).map_err(|error| corrupt(WHAT, error))?;
            let mut tail = self.tail();
            for packed in rows {
                let (number, row) = unpack(&packed);
                tail.push(number, row);
            }
        }
        Ok(())
    }
}

/// `rows` are in order of time, and not none.
async fn put_chunk(
    change: &mut SqliteConnection,
    number: i64,
    rows: &[Row],
) -> Result<(), HistoryError> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
        return Ok(());
    };
    sqlx::query(
        "INSERT INTO sample_chunks (subject, from_at, to_at, samples) \
         VALUES ($1, $2, $3, $4) ON CONFLICT (subject, from_at, to_at) DO UPDATE \
         SET samples = excluded.samples",
    )
    .bind(number)
    .bind(first[0])
    .bind(last[0])
    .bind(encode(rows))
    .execute(&mut *change)
    .await
    .map_err(failed(WHAT))?;
    sqlx::query("UPDATE subjects SET last_at = max(last_at, $2) WHERE number = $1")
        .bind(number)
        .bind(last[0])
        .execute(&mut *change)
        .await
        .map_err(failed(WHAT))?;
    Ok(())
}

fn pack((number, row): &(i64, Row)) -> [i64; BATCH_COLUMNS] {
    let mut packed = [*number; BATCH_COLUMNS];
    packed[1..].copy_from_slice(row);
    packed
}

fn unpack(packed: &[i64; BATCH_COLUMNS]) -> (i64, Row) {
    let mut row = Row::default();
    row.copy_from_slice(&packed[1..]);
    (packed[0], row)
}

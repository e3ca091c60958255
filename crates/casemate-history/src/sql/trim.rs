//! Retention: first by age, then by size. Logs of builds have no age.

use std::time::Duration;

use casemate_sql::{Pool, query, query_scalar};
use casemate_types::Timestamp;

use super::sizes::{Kind, SPAN_MS};
use super::{SqlHistory, failed, millis};
use crate::{HistoryError, Retention, Trimmed};

const WHAT: &str = "retention";

/// Numbers of sandboxes outlive their rows by this much, so that one that is written of again
/// within minutes never loses its.
const SUBJECT_GRACE: Duration = Duration::from_secs(3600);
/// Cuts by size in one trim; each takes a tenth of the time that is kept.
const CUTS_MAX: u32 = 12;
/// Pages given back to the file system in one trim (4 KiB each).
const VACUUM: &str = "PRAGMA incremental_vacuum(4096)";

/// Rows of one statement, and statements of each kind in one trim; the rest waits for the next.
const BATCH: i64 = 5000;
const BATCHES_MAX: u32 = 40;

const FORGET_SUBJECTS: &str = "DELETE FROM subjects WHERE number IN \
     (SELECT number FROM subjects WHERE last_at < $1 ORDER BY last_at LIMIT $2)";
const FORGET_CHUNKS: &str = "DELETE FROM sample_chunks WHERE (subject, from_at, to_at) IN \
     (SELECT subject, from_at, to_at FROM sample_chunks WHERE to_at < $1 ORDER BY to_at LIMIT $2)";
const FORGET_POINTS: &str = "DELETE FROM team_points WHERE (team, at) IN \
     (SELECT team, at FROM team_points WHERE at < $1 ORDER BY at LIMIT $2)";
const FORGET_EVENTS: &str = "DELETE FROM events WHERE number IN \
     (SELECT number FROM events WHERE at < $1 ORDER BY at LIMIT $2)";
const FORGET_LOGS: &str = "DELETE FROM logs WHERE number IN \
     (SELECT number FROM logs WHERE at < $1 ORDER BY at LIMIT $2)";

/// What a kind of row lost.
#[derive(Default)]
struct Gone {
    rows: u64,
    /// Nothing is left that was to go.
    all: bool,
}

/// Until when each kind of row is forgotten, in milliseconds.
#[derive(Clone, Copy)]
struct Cut {
    metrics: i64,
    events: i64,
    logs: i64,
}

impl SqlHistory {
    pub(super) async fn trim_all(
        &self,
        now: Timestamp,
        keep: &Retention,
    ) -> Result<Trimmed, HistoryError> {
        let before = |age: Duration| {
            let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            millis(now).saturating_sub(age)
        };
        let cut = Cut {
            metrics: before(keep.metrics),
            events: before(keep.events),
            logs: before(keep.logs),
        };
        let mut done = Trimmed {
            rows: self.cut(cut).await?,
            ..Trimmed::default()
        };
        let unused = before(keep.metrics.max(keep.logs).saturating_add(SUBJECT_GRACE));
        done.rows += self.forget(FORGET_SUBJECTS, unused).await?.rows;
        done.bytes = self.used_bytes().await?;
        if done.bytes > keep.bytes_max {
            let excess = self.build_bytes().await?.saturating_sub(keep.bytes_max / 2);
            let rows = self.cut_builds(excess).await?;
            done.cut |= rows > 0;
            done.rows += rows;
        }
        for _ in 0..CUTS_MAX {
            done.bytes = self.used_bytes().await?;
            if done.bytes <= keep.bytes_max {
                break;
            }
            let Some(oldest) = self.oldest().await? else {
                let excess = done.bytes - keep.bytes_max;
                let rows = self.cut_builds(excess).await?;
                done.cut |= rows > 0;
                done.rows += rows;
                done.bytes = self.used_bytes().await?;
                break;
            };
            let tenth = (millis(now) - oldest).max(0) / 10 + 1;
            // As a whole number of spans, whose sums are gone then.
            let all = (oldest + tenth).div_euclid(SPAN_MS) * SPAN_MS + SPAN_MS;
            done.cut = true;
            done.rows += self
                .cut(Cut {
                    metrics: all,
                    events: all,
                    logs: all,
                })
                .await?;
        }
        if done.rows > 0 && matches!(self.writer, Pool::Sqlite(_)) {
            query(VACUUM)
                .execute(&self.writer)
                .await
                .map_err(failed(WHAT))?;
        }
        Ok(done)
    }

    async fn cut(&self, cut: Cut) -> Result<u64, HistoryError> {
        // The youngest samples are forgotten as chunks too.
        self.compact(cut.metrics).await?;
        let mut rows = 0;
        for (kind, sql, at) in [
            (Kind::Samples, FORGET_CHUNKS, cut.metrics),
            (Kind::Activity, FORGET_POINTS, cut.metrics),
            (Kind::Events, FORGET_EVENTS, cut.events),
            (Kind::Logs, FORGET_LOGS, cut.logs),
        ] {
            let gone = self.forget(sql, at).await?;
            rows += gone.rows;
            if gone.all && matches!(self.writer, Pool::Postgres(_)) {
                query("DELETE FROM sizes WHERE kind = $1 AND span < $2")
                    .bind(kind.word())
                    .bind(at.div_euclid(SPAN_MS))
                    .execute(&self.writer)
                    .await
                    .map_err(failed(WHAT))?;
            }
        }
        Ok(rows)
    }

    /// In batches: others write in between.
    async fn forget(&self, sql: &'static str, at: i64) -> Result<Gone, HistoryError> {
        let mut gone = Gone::default();
        for _ in 0..BATCHES_MAX {
            let batch = query(sql).bind(at).bind(BATCH).execute(&self.writer).await;
            let rows = batch.map_err(failed(WHAT))?;
            gone.rows += rows;
            gone.all = rows < BATCH.unsigned_abs();
            if gone.all {
                break;
            }
        }
        Ok(gone)
    }

    async fn oldest(&self) -> Result<Option<i64>, HistoryError> {
        query_scalar(
            "SELECT MIN(at) FROM (SELECT MIN(to_at) AS at FROM sample_chunks \
             UNION ALL SELECT MIN(at) FROM team_points \
             UNION ALL SELECT MIN(at) FROM events UNION ALL SELECT MIN(at) FROM logs) AS o",
        )
        .fetch_one(&self.writer)
        .await
        .map_err(failed(WHAT))
    }
}

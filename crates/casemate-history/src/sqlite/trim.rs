//! Retention: first by age, then by size. Logs of builds have no age.

use std::time::Duration;

use casemate_types::Timestamp;

use super::{SqliteHistory, failed, millis};
use crate::{HistoryError, Retention, Trimmed};

const WHAT: &str = "retention";

/// Numbers of sandboxes outlive their rows by this much, so that one that is written of again
/// within minutes never loses its.
const SUBJECT_GRACE: Duration = Duration::from_secs(3600);
/// Cuts by size in one trim; each takes a tenth of the time that is kept.
const CUTS_MAX: u32 = 12;
/// Pages given back to the file system in one trim (4 KiB each).
const VACUUM: &str = "PRAGMA incremental_vacuum(4096)";

/// Until when each kind of row is forgotten, in milliseconds.
#[derive(Clone, Copy)]
struct Cut {
    metrics: i64,
    events: i64,
    logs: i64,
}

impl SqliteHistory {
    pub(super) async fn trim_all(
        &self,
        now: Timestamp,
        keep: &Retention,
    ) -> Result<Trimmed, HistoryError> {
        let _writing = self.writing.lock().await;
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
        done.rows += self
            .forget("DELETE FROM subjects WHERE last_at < $1", unused)
            .await?;
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
            let all = oldest + tenth;
            done.cut = true;
            done.rows += self
                .cut(Cut {
                    metrics: all,
                    events: all,
                    logs: all,
                })
                .await?;
        }
        if done.rows > 0 {
            sqlx::query(VACUUM)
                .execute(&self.writer)
                .await
                .map_err(failed(WHAT))?;
        }
        Ok(done)
    }

    async fn cut(&self, cut: Cut) -> Result<u64, HistoryError> {
        let mut rows = 0;
        // The youngest samples are forgotten as chunks too.
        let old = self.tail().has_before(cut.metrics);
        if old {
            self.compact().await?;
        }
        for (sql, at) in [
            ("DELETE FROM sample_chunks WHERE to_at < $1", cut.metrics),
            ("DELETE FROM team_points WHERE at < $1", cut.metrics),
            ("DELETE FROM events WHERE at < $1", cut.events),
            ("DELETE FROM logs WHERE at < $1", cut.logs),
        ] {
            rows += self.forget(sql, at).await?;
        }
        Ok(rows)
    }

    async fn forget(&self, sql: &'static str, at: i64) -> Result<u64, HistoryError> {
        let gone = sqlx::query(sql).bind(at).execute(&self.writer).await;
        Ok(gone.map_err(failed(WHAT))?.rows_affected())
    }

    async fn used_bytes(&self) -> Result<u64, HistoryError> {
        let mut numbers = [0_i64; 3];
        let asked = [
            "PRAGMA page_count",
            "PRAGMA freelist_count",
            "PRAGMA page_size",
        ];
        for (number, sql) in numbers.iter_mut().zip(asked) {
            let answer = sqlx::query_scalar(sql).fetch_one(&self.writer).await;
            *number = answer.map_err(failed(WHAT))?;
        }
        let [pages, free, size] = numbers;
        Ok(u64::try_from((pages - free).saturating_mul(size)).unwrap_or(0))
    }

    async fn oldest(&self) -> Result<Option<i64>, HistoryError> {
        sqlx::query_scalar(
            "SELECT MIN(at) FROM (SELECT MIN(to_at) AS at FROM sample_chunks \
             UNION ALL SELECT MIN(at) FROM team_points \
             UNION ALL SELECT MIN(at) FROM events UNION ALL SELECT MIN(at) FROM logs)",
        )
        .fetch_one(&self.writer)
        .await
        .map_err(failed(WHAT))
    }
}

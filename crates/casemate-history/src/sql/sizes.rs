//! What rows take, for a bound on it.
//!
//! SQLite counts its own pages. PostgreSQL's files do not shrink when rows are deleted, and counting
//! rows means reading them; so each batch adds what it takes to a sum for its kind and ten minutes, in
//! the same statement, and what forgets rows removes the sums of the times that are gone. What rows
//! take is their bytes and [`ROW`]; what the server keeps beside them until it vacuums is not in it.

use std::collections::BTreeMap;

use casemate_sql::{Sql, Value, query_scalar, sql};
use serde_json::json;

use super::{SqlHistory, failed};
use crate::HistoryError;

/// Milliseconds of one sum.
pub(super) const SPAN_MS: i64 = 10 * 60 * 1000;
/// About what a row takes beside its texts and bytes: its head, numbers, and entries of indexes.
pub(super) const ROW: usize = 120;

/// What is counted, in order; builds have sums of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Activity,
    Events,
    Logs,
    Samples,
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Activity => "activity",
            Self::Events => "events",
            Self::Logs => "logs",
            Self::Samples => "samples",
        }
    }
}

/// A statement that writes rows (`$1`) and, on PostgreSQL, counts what they take (`$2`, of [`sizes`]).
macro_rules! counted {
    ($($parts:tt)+) => {
        casemate_sql::sql!(
            either(
                "",
                "WITH counted AS (INSERT INTO sizes (kind, span, bytes) \
                 SELECT c.value ->> 0, CAST(c.value ->> 1 AS BIGINT), CAST(c.value ->> 2 AS BIGINT) \
                 FROM jsonb_array_elements(CAST($2 AS JSONB)) AS c (value) \
                 ON CONFLICT (kind, span) DO UPDATE SET bytes = sizes.bytes + excluded.bytes) "
            ),
            $($parts)+
        )
    };
}
pub(super) use counted;

/// Times of rows, in milliseconds, and what texts and bytes each has.
pub(super) fn sizes(kind: Kind, rows: impl Iterator<Item = (i64, usize)>) -> Value {
    let mut spans = BTreeMap::<i64, usize>::new();
    for (at, bytes) in rows {
        *spans.entry(at.div_euclid(SPAN_MS)).or_default() += bytes + ROW;
    }
    let sum = |(span, bytes)| json!([kind.word(), span, bytes]);
    Value::rows(spans.into_iter().map(sum).collect())
}

/// Young samples are few, and counted.
const USED: Sql = sql!(either(
    "SELECT (p.page_count - f.freelist_count) * s.page_size \
     FROM pragma_page_count p, pragma_freelist_count f, pragma_page_size s",
    "SELECT CAST((SELECT COALESCE(SUM(bytes), 0) FROM sizes) \
     + (SELECT COALESCE(SUM(bytes), 0) FROM build_subjects) \
     + (SELECT COALESCE(SUM(length(samples) + 120), 0) FROM young_samples) AS BIGINT)"
));

impl SqlHistory {
    pub(super) async fn used_bytes(&self) -> Result<u64, HistoryError> {
        let used: i64 = query_scalar(USED)
            .fetch_one(&self.writer)
            .await
            .map_err(failed("its size"))?;
        Ok(u64::try_from(used).unwrap_or(0))
    }
}

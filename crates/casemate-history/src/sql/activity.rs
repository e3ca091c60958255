//! [`Activity`].

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use casemate_sql::{Sql, Value, query, query_as};
use casemate_types::TeamId;
use serde_json::json;

use super::sizes::{Kind, counted, sizes};
use super::{SqlHistory, failed, millis, time};
use crate::activity::aggregate;
use crate::{Activity, HistoryError, Range, TeamPoint};

const WHAT: &str = "team activity";

const PUT: Sql = counted!(
    "INSERT INTO team_points (team, at, span_ms, concurrent, started) \
     SELECT v.value ->> 0, CAST(v.value ->> 1 AS BIGINT), CAST(v.value ->> 2 AS BIGINT), \
      CAST(v.value ->> 3 AS BIGINT), CAST(v.value ->> 4 AS BIGINT) FROM ",
    rows("$1", "v"),
    " ORDER BY v.key ON CONFLICT (team, at) DO UPDATE SET span_ms = excluded.span_ms, \
     concurrent = excluded.concurrent, started = excluded.started"
);

#[async_trait]
impl Activity for SqlHistory {
    async fn activity_append(&self, points: &[TeamPoint]) -> Result<(), HistoryError> {
        // A statement writes each row once.
        let last: BTreeMap<(&TeamId, i64), &TeamPoint> = points
            .iter()
            .map(|point| ((&point.team, millis(point.at)), point))
            .collect();
        let row = |((team, at), point): (&(&TeamId, i64), &&TeamPoint)| {
            let span = i64::try_from(point.span.as_millis()).unwrap_or(i64::MAX);
            json!([team.as_str(), at, span, point.concurrent, point.started])
        };
        let taken = last.keys().map(|(team, at)| (*at, team.as_str().len()));
        query(PUT)
            .bind(Value::rows(last.iter().map(row).collect()))
            .bind_on_postgres(sizes(Kind::Activity, taken))
            .execute(&self.writer)
            .await
            .map_err(failed(WHAT))?;
        Ok(())
    }

    async fn activity_read(
        &self,
        team: &TeamId,
        range: Range,
        step: Duration,
    ) -> Result<Vec<TeamPoint>, HistoryError> {
        let rows: Vec<(i64, i64, i64, i64)> = query_as(
            "SELECT at, span_ms, concurrent, started FROM team_points \
             WHERE team = $1 AND at BETWEEN $2 AND $3 ORDER BY at",
        )
        .bind(team.as_str())
        .bind(millis(range.from))
        .bind(millis(range.to))
        .fetch_all(&self.readers)
        .await
        .map_err(failed(WHAT))?;
        let points = rows
            .into_iter()
            .map(|(at, span, concurrent, started)| TeamPoint {
                team: team.clone(),
                at: time(at),
                span: Duration::from_millis(u64::try_from(span).unwrap_or(0)),
                concurrent: u32::try_from(concurrent).unwrap_or(u32::MAX),
                started: u32::try_from(started).unwrap_or(u32::MAX),
            });
        Ok(aggregate(points, step))
    }
}

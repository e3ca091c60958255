//! [`Activity`].

use std::time::Duration;

use async_trait::async_trait;
use casemate_types::TeamId;
use sqlx::QueryBuilder;

use super::{ROWS_AT_ONCE, SqliteHistory, failed, millis, time};
use crate::activity::aggregate;
use crate::{Activity, HistoryError, Range, TeamPoint};

const WHAT: &str = "team activity";

#[async_trait]
impl Activity for SqliteHistory {
    async fn activity_append(&self, points: &[TeamPoint]) -> Result<(), HistoryError> {
        let _writing = self.writing.lock().await;
        let mut change = self.writer.begin().await.map_err(failed(WHAT))?;
        for some in points.chunks(ROWS_AT_ONCE) {
            let mut insert = QueryBuilder::new(
                "INSERT OR REPLACE INTO team_points (team, at, span_ms, concurrent, started) ",
            );
            insert.push_values(some, |mut row, point| {
                row.push_bind(point.team.as_str())
                    .push_bind(millis(point.at))
                    .push_bind(i64::try_from(point.span.as_millis()).unwrap_or(i64::MAX))
                    .push_bind(i64::from(point.concurrent))
                    .push_bind(i64::from(point.started));
            });
            let inserted = insert.build().execute(&mut *change).await;
            inserted.map_err(failed(WHAT))?;
        }
        change.commit().await.map_err(failed(WHAT))
    }

    async fn activity_read(
        &self,
        team: &TeamId,
        range: Range,
        step: Duration,
    ) -> Result<Vec<TeamPoint>, HistoryError> {
        let rows: Vec<(i64, i64, i64, i64)> = sqlx::query_as(
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

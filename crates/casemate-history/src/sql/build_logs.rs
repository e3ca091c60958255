//! [`BuildLogs`].

use std::collections::{BTreeMap, VecDeque};

use async_trait::async_trait;
use casemate_sql::{Sql, Value, query, query_as, query_scalar, sql, transaction};
use casemate_types::TeamId;
use serde_json::json;

use super::logs::{level_of, number_of};
use super::{SqlHistory, corrupt, failed, millis, text, time};
use crate::{
    BuildLogEntry, BuildLogPage, BuildLogRange, BuildLogs, HistoryError, LogDirection, LogLevel,
};

const WHAT: &str = "logs of builds";

/// About what a line takes beside its message.
const LINE_BYTES: usize = 64;

/// Time, level, step, message.
type LineRow = (i64, i64, Option<String>, String);

/// No level is left out: a line's number is its place.
const ALL: &str = "SELECT at, level, step, message FROM build_logs \
     WHERE subject = $1 AND number >= $3 AND level >= $2 ORDER BY number LIMIT $4";
const FILTERED: &str = "SELECT at, level, step, message FROM build_logs \
     WHERE subject = $1 AND level >= $2 ORDER BY number LIMIT $4 OFFSET $3";

macro_rules! range {
    ($until:literal, $order:literal) => {
        concat!(
            "SELECT at, level, step, message FROM build_logs \
             WHERE subject = $1 AND level >= $2 AND at ",
            $until,
            " $3 ORDER BY at ",
            $order,
            ", number ",
            $order,
            " LIMIT $4"
        )
    };
}

const SUBJECT: Sql = sql!(
    "INSERT INTO build_subjects (build, team, next, bytes, last_at) \
     VALUES ($1, $2, $3, $4, $5) \
     ON CONFLICT (build, team) DO UPDATE SET next = build_subjects.next + excluded.next, \
     bytes = build_subjects.bytes + excluded.bytes, last_at = ",
    either("max", "GREATEST"),
    "(build_subjects.last_at, excluded.last_at) RETURNING number, next"
);

const PUT: Sql = sql!(
    "INSERT INTO build_logs (subject, number, at, level, step, message) \
     SELECT $1, $2 + v.key - ",
    // One counts from 0, the other from 1.
    either("0", "1"),
    ", CAST(v.value ->> 0 AS BIGINT), CAST(v.value ->> 1 AS BIGINT), v.value ->> 2, v.value ->> 3 \
     FROM ",
    rows("$3", "v"),
);

const FORGET: Sql = sql!(
    "DELETE FROM build_logs WHERE subject IN (SELECT number FROM build_subjects WHERE build",
    is_in("$1"),
    ")"
);
const FORGET_SUBJECTS: Sql = sql!("DELETE FROM build_subjects WHERE build", is_in("$1"));

#[async_trait]
impl BuildLogs for SqlHistory {
    async fn build_logs_append(
        &self,
        team: &TeamId,
        build: &str,
        lines: &[BuildLogEntry],
    ) -> Result<(), HistoryError> {
        let Some(last) = lines.iter().map(|line| millis(line.at)).max() else {
            return Ok(());
        };
        let count = i64::try_from(lines.len()).unwrap_or(i64::MAX);
        let bytes: usize = lines
            .iter()
            .map(|line| line.message.len() + LINE_BYTES)
            .sum();
        let row = |line: &BuildLogEntry| {
            json!([
                millis(line.at),
                number_of(line.level),
                line.step.as_deref().map(text),
                text(&line.message),
            ])
        };
        let rows = Value::rows(lines.iter().map(row).collect());
        transaction!(self.writer, failed(WHAT), async |tx| {
            let (subject, next): (i64, i64) = query_as(SUBJECT)
                .bind(build)
                .bind(team.as_str())
                .bind(count)
                .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
                .bind(last)
                .fetch_all(&mut *tx)
                .await
                .map_err(failed(WHAT))?
                .pop()
                .ok_or_else(|| corrupt(WHAT, "a build was given no number"))?;
            query(PUT)
                .bind(subject)
                .bind(next - count)
                .bind(&rows)
                .execute(&mut *tx)
                .await
                .map_err(failed(WHAT))?;
            Ok(())
        })
    }

    async fn build_logs_page(
        &self,
        page: &BuildLogPage,
    ) -> Result<Vec<BuildLogEntry>, HistoryError> {
        let sql = match page.level_min {
            LogLevel::Debug => ALL,
            LogLevel::Info | LogLevel::Warn | LogLevel::Error => FILTERED,
        };
        let offset = i64::try_from(page.offset).unwrap_or(i64::MAX);
        let (build, level) = (&page.build, page.level_min);
        self.lines(sql, &page.team, build, level, offset, page.rows_max)
            .await
    }

    async fn build_logs_range(
        &self,
        range: &BuildLogRange,
    ) -> Result<Vec<BuildLogEntry>, HistoryError> {
        let sql = match range.direction {
            LogDirection::Forward => range!(">=", "ASC"),
            LogDirection::Backward => range!("<=", "DESC"),
        };
        let (build, level, cursor) = (&range.build, range.level_min, millis(range.cursor));
        self.lines(sql, &range.team, build, level, cursor, range.rows_max)
            .await
    }

    async fn build_logs_list(
        &self,
        after: Option<&str>,
        rows_max: u32,
    ) -> Result<Vec<String>, HistoryError> {
        query_scalar(
            "SELECT DISTINCT build FROM build_subjects WHERE build > $1 ORDER BY build LIMIT $2",
        )
        .bind(after.unwrap_or_default())
        .bind(i64::from(rows_max))
        .fetch_all(&self.readers)
        .await
        .map_err(failed(WHAT))
    }

    async fn build_logs_remove(&self, builds: &[String]) -> Result<(), HistoryError> {
        let gone = Value::texts(builds);
        transaction!(self.writer, failed(WHAT), async |tx| {
            for sql in [FORGET, FORGET_SUBJECTS] {
                let removed = query(sql).bind(&gone).execute(&mut *tx).await;
                removed.map_err(failed(WHAT))?;
            }
            Ok(())
        })
    }
}

impl SqlHistory {
    /// `sql` takes the build's number, the level, where to begin, and how many.
    async fn lines(
        &self,
        sql: &'static str,
        team: &TeamId,
        build: &str,
        level_min: LogLevel,
        begin: i64,
        rows_max: u32,
    ) -> Result<Vec<BuildLogEntry>, HistoryError> {
        let subject: Option<i64> =
            query_scalar("SELECT number FROM build_subjects WHERE build = $1 AND team = $2")
                .bind(build)
                .bind(team.as_str())
                .fetch_optional(&self.readers)
                .await
                .map_err(failed(WHAT))?;
        let Some(subject) = subject else {
            return Ok(Vec::new());
        };
        let rows: Vec<LineRow> = query_as(sql)
            .bind(subject)
            .bind(number_of(level_min))
            .bind(begin)
            .bind(i64::from(rows_max))
            .fetch_all(&self.readers)
            .await
            .map_err(failed(WHAT))?;
        let read = |(at, level, step, message): LineRow| BuildLogEntry {
            at: time(at),
            level: level_of(level),
            step,
            message,
        };
        Ok(rows.into_iter().map(read).collect())
    }

    /// About the bytes that lines of all builds take.
    pub(super) async fn build_bytes(&self) -> Result<u64, HistoryError> {
        let bytes: i64 =
            query_scalar("SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM build_subjects")
                .fetch_one(&self.writer)
                .await
                .map_err(failed(WHAT))?;
        Ok(u64::try_from(bytes).unwrap_or(0))
    }

    /// Forgets whole builds until about `excess` bytes are gone, each time of the team whose builds
    /// take most the one whose last line is the oldest: who logs much forgets its own. How many
    /// lines. What is appended to one later keeps its place.
    pub(super) async fn cut_builds(&self, excess: u64) -> Result<u64, HistoryError> {
        let oldest: Vec<(i64, i64, String)> = query_as(
            "SELECT number, bytes, team FROM build_subjects WHERE bytes > 0 \
             ORDER BY last_at, number",
        )
        .fetch_all(&self.writer)
        .await
        .map_err(failed(WHAT))?;
        let mut lines = 0;
        for subject in beyond(oldest, excess) {
            lines += transaction!(self.writer, failed(WHAT), async |tx| {
                let removed = query("DELETE FROM build_logs WHERE subject = $1")
                    .bind(subject)
                    .execute(&mut *tx)
                    .await
                    .map_err(failed(WHAT))?;
                query("UPDATE build_subjects SET bytes = 0 WHERE number = $1")
                    .bind(subject)
                    .execute(&mut *tx)
                    .await
                    .map_err(failed(WHAT))?;
                Ok(removed)
            })?;
        }
        Ok(lines)
    }
}

/// What the builds of one team take, the oldest first.
#[derive(Default)]
struct OfTeam {
    bytes: u64,
    builds: VecDeque<(i64, u64)>,
}

/// Which of these go, of which the first are the oldest.
fn beyond(oldest: Vec<(i64, i64, String)>, excess: u64) -> Vec<i64> {
    let mut teams: BTreeMap<String, OfTeam> = BTreeMap::new();
    for (subject, bytes, team) in oldest {
        let (of_team, bytes) = (teams.entry(team).or_default(), bytes.unsigned_abs());
        of_team.bytes = of_team.bytes.saturating_add(bytes);
        of_team.builds.push_back((subject, bytes));
    }
    let (mut gone, mut freed) = (Vec::new(), 0_u64);
    while freed < excess {
        let most = teams.values_mut().max_by_key(|of_team| of_team.bytes);
        let Some((most, (subject, bytes))) = most.and_then(|most| {
            let first = most.builds.pop_front()?;
            Some((most, first))
        }) else {
            break;
        };
        most.bytes = most.bytes.saturating_sub(bytes);
        freed = freed.saturating_add(bytes);
        gone.push(subject);
    }
    gone
}

//! [`Logs`].

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::QueryBuilder;

use super::{ROWS_AT_ONCE, SqliteHistory, corrupt, failed, millis, time};
use crate::{HistoryError, LogDirection, LogEntry, LogLevel, LogLine, LogQuery, Logs};

const WHAT: &str = "logs";

macro_rules! page {
    ($order:literal) => {
        concat!(
            "SELECT at, level, message, fields FROM logs \
             WHERE subject = $1 AND at >= $2 AND at < $3 AND level >= $4 \
             AND ($5 IS NULL OR instr(message, $5) > 0) ORDER BY at ",
            $order,
            ", number ",
            $order,
            " LIMIT $6"
        )
    };
}

#[async_trait]
impl Logs for SqliteHistory {
    async fn logs_append(&self, lines: &[LogLine]) -> Result<(), HistoryError> {
        let _writing = self.writing.lock().await;
        let mut rows = Vec::with_capacity(lines.len());
        // The last moment of each sandbox among them.
        let mut touched = BTreeMap::<i64, i64>::new();
        for line in lines {
            let at = millis(line.entry.at);
            let number = self.number(&line.team, &line.sandbox, at).await?;
            let last = touched.entry(number).or_insert(at);
            *last = at.max(*last);
            rows.push((number, at, &line.entry));
        }
        let mut change = self.writer.begin().await.map_err(failed(WHAT))?;
        for some in rows.chunks(ROWS_AT_ONCE) {
            let mut insert =
                QueryBuilder::new("INSERT INTO logs (subject, at, level, message, fields) ");
            insert.push_values(some, |mut row, (number, at, entry)| {
                let fields = serde_json::to_string(&entry.fields).unwrap_or_default();
                row.push_bind(*number)
                    .push_bind(*at)
                    .push_bind(number_of(entry.level))
                    .push_bind(entry.message.as_str())
                    .push_bind(fields);
            });
            let inserted = insert.build().execute(&mut *change).await;
            inserted.map_err(failed(WHAT))?;
        }
        for (number, at) in touched {
            sqlx::query("UPDATE subjects SET last_at = max(last_at, $2) WHERE number = $1")
                .bind(number)
                .bind(at)
                .execute(&mut *change)
                .await
                .map_err(failed(WHAT))?;
        }
        change.commit().await.map_err(failed(WHAT))
    }

    async fn logs_read(&self, query: &LogQuery) -> Result<Vec<LogEntry>, HistoryError> {
        let Some(number) = self.find(&query.team, &query.sandbox).await? else {
            return Ok(Vec::new());
        };
        let sql = match query.direction {
            LogDirection::Forward => page!("ASC"),
            LogDirection::Backward => page!("DESC"),
        };
        let rows: Vec<(i64, i64, String, String)> = sqlx::query_as(sql)
            .bind(number)
            .bind(millis(query.from))
            .bind(millis(query.before))
            .bind(number_of(query.level_min))
            .bind(query.search.as_deref())
            .bind(i64::from(query.rows_max))
            .fetch_all(&self.readers)
            .await
            .map_err(failed(WHAT))?;
        let read = |(at, level, message, fields): (i64, i64, String, String)| {
            Ok(LogEntry {
                at: time(at),
                level: level_of(level),
                message,
                fields: serde_json::from_str(&fields).map_err(|error| corrupt(WHAT, error))?,
            })
        };
        rows.into_iter().map(read).collect()
    }
}

pub(super) fn number_of(level: LogLevel) -> i64 {
    match level {
        LogLevel::Debug => 0,
        LogLevel::Info => 1,
        LogLevel::Warn => 2,
        LogLevel::Error => 3,
    }
}

pub(super) fn level_of(number: i64) -> LogLevel {
    match number {
        ..=0 => LogLevel::Debug,
        1 => LogLevel::Info,
        2 => LogLevel::Warn,
        3.. => LogLevel::Error,
    }
}

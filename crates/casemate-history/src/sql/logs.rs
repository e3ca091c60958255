//! [`Logs`].

use async_trait::async_trait;
use casemate_sql::{Sql, Value, query, query_as, sql};
use serde_json::json;

use super::sizes::{Kind, counted, sizes};
use super::{SqlHistory, corrupt, failed, millis, text, time};
use crate::{HistoryError, LogDirection, LogEntry, LogLevel, LogLine, LogQuery, Logs};

const WHAT: &str = "logs";

const PUT: Sql = counted!(
    "INSERT INTO logs (subject, at, level, message, fields) \
     SELECT CAST(v.value ->> 0 AS BIGINT), CAST(v.value ->> 1 AS BIGINT), \
      CAST(v.value ->> 2 AS BIGINT), v.value ->> 3, v.value ->> 4 FROM ",
    rows("$1", "v"),
    " ORDER BY v.key"
);

macro_rules! page {
    ($order:literal) => {
        sql!(
            "SELECT at, level, message, fields FROM logs \
             WHERE subject = $1 AND at >= $2 AND at < $3 AND level >= $4 \
             AND ($5 IS NULL OR ",
            either("instr", "strpos"),
            "(message, $5) > 0) ORDER BY at ",
            $order,
            ", number ",
            $order,
            " LIMIT $6"
        )
    };
}

#[async_trait]
impl Logs for SqlHistory {
    async fn logs_append(&self, lines: &[LogLine]) -> Result<(), HistoryError> {
        let heard = lines
            .iter()
            .map(|line| (&line.sandbox, &line.team, line.entry.at));
        let numbers = self.numbers(heard).await?;
        let (mut rows, mut taken) = (Vec::new(), Vec::new());
        for line in lines {
            // Each was asked for just now.
            let Some(number) = numbers.get(&line.sandbox) else {
                continue;
            };
            let at = millis(line.entry.at);
            let fields = serde_json::to_string(&line.entry.fields).unwrap_or_default();
            let message = text(&line.entry.message);
            taken.push((at, message.len() + fields.len()));
            rows.push(json!([
                number,
                at,
                number_of(line.entry.level),
                message,
                fields
            ]));
        }
        query(PUT)
            .bind(Value::rows(rows))
            .bind_on_postgres(sizes(Kind::Logs, taken.into_iter()))
            .execute(&self.writer)
            .await
            .map_err(failed(WHAT))?;
        Ok(())
    }

    async fn logs_read(&self, query: &LogQuery) -> Result<Vec<LogEntry>, HistoryError> {
        let Some(number) = self.find(&query.team, &query.sandbox).await? else {
            return Ok(Vec::new());
        };
        let page = match query.direction {
            LogDirection::Forward => page!("ASC"),
            LogDirection::Backward => page!("DESC"),
        };
        let search = query.search.as_deref().map(text);
        let rows: Vec<(i64, i64, String, String)> = query_as(page)
            .bind(number)
            .bind(millis(query.from))
            .bind(millis(query.before))
            .bind(number_of(query.level_min))
            .bind(search.as_deref())
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

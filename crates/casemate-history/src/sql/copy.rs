//! A whole history from a file to PostgreSQL, for a machine that has grown.
//!
//! All or nothing, in batches of bounded size: SQLite makes the rows of values that the statements here
//! take, and a batch is what is in memory of them.

use std::collections::BTreeMap;

use casemate_sql::Pool;
use casemate_sql::postgres::{self, PostgresOptions, SchemaError};
use serde_json::Value as Json;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqlitePool};

use super::connect::{self, MIGRATIONS};
use super::sizes::{ROW, SPAN_MS};
use super::{SqlHistory, text};
use crate::error::Cause;

/// Rows of one statement: some MiB where each is a line of the largest.
const BATCH: i64 = 500;

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("the rows to copy are not in a file")]
    NoFile,
    #[error("connect to the database to copy to")]
    Connect(#[source] Cause),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("the history to copy to is in use: its table {0} has rows")]
    NotEmpty(&'static str),
    #[error("read {table}")]
    Read {
        table: &'static str,
        #[source]
        source: Cause,
    },
    #[error("write {table}")]
    Write {
        table: &'static str,
        #[source]
        source: sqlx::Error,
    },
    #[error("end the copy")]
    End(#[source] sqlx::Error),
}

/// What a column holds.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Bytes,
}
use Kind::{Bytes, Number, Text};

struct Table {
    name: &'static str,
    /// How many columns, from the first on, are its key.
    keys: usize,
    columns: &'static [(&'static str, Kind)],
    /// The kind, the time and the bytes of its rows, for the table `sizes`; see `sizes.rs`.
    sizes: Option<(&'static str, &'static str, &'static str)>,
}

const TABLES: [Table; 8] = [
    Table {
        name: "subjects",
        keys: 1,
        columns: &[
            ("number", Number),
            ("sandbox", Text),
            ("team", Text),
            ("last_at", Number),
        ],
        sizes: None,
    },
    Table {
        name: "young_samples",
        keys: 1,
        columns: &[
            ("number", Number),
            ("lane", Number),
            ("from_at", Number),
            ("to_at", Number),
            ("samples", Bytes),
        ],
        sizes: None,
    },
    Table {
        name: "sample_chunks",
        keys: 3,
        columns: &[
            ("subject", Number),
            ("from_at", Number),
            ("to_at", Number),
            ("samples", Bytes),
        ],
        sizes: Some(("samples", "to_at", "length(samples)")),
    },
    Table {
        name: "team_points",
        keys: 2,
        columns: &[
            ("team", Text),
            ("at", Number),
            ("span_ms", Number),
            ("concurrent", Number),
            ("started", Number),
        ],
        sizes: Some(("activity", "at", "octet_length(team)")),
    },
    Table {
        name: "events",
        keys: 1,
        columns: &[
            ("number", Number),
            ("id", Text),
            ("kind", Text),
            ("at", Number),
            ("team", Text),
            ("sandbox", Text),
            ("execution", Text),
            ("template", Text),
            ("build", Text),
            ("data", Text),
        ],
        sizes: Some(("events", "at", "octet_length(data) + 300")),
    },
    Table {
        name: "logs",
        keys: 1,
        columns: &[
            ("number", Number),
            ("subject", Number),
            ("at", Number),
            ("level", Number),
            ("message", Text),
            ("fields", Text),
        ],
        sizes: Some(("logs", "at", "octet_length(message) + octet_length(fields)")),
    },
    Table {
        name: "build_subjects",
        keys: 1,
        columns: &[
            ("number", Number),
            ("build", Text),
            ("team", Text),
            ("next", Number),
            ("bytes", Number),
            ("last_at", Number),
        ],
        sizes: None,
    },
    Table {
        name: "build_logs",
        keys: 2,
        columns: &[
            ("subject", Number),
            ("number", Number),
            ("at", Number),
            ("level", Number),
            ("step", Text),
            ("message", Text),
        ],
        sizes: None,
    },
];

/// Copies all rows of `from`, a file, to the empty history in the store's database `to`; how many of each
/// table. Nobody may write to either meanwhile.
pub async fn copy(
    from: &SqlHistory,
    to: &PostgresOptions,
) -> Result<BTreeMap<&'static str, u64>, CopyError> {
    let Pool::Sqlite(source) = &from.readers else {
        return Err(CopyError::NoFile);
    };
    let to = connect::own(to);
    postgres::check_schema(&to, &MIGRATIONS).await?;
    let target = postgres::connect_alone(&to).await;
    let mut target = target.map_err(|error| CopyError::Connect(error.into()))?;
    let mut tx = target.begin().await.map_err(writing(TABLES[0].name))?;
    let mut copied = BTreeMap::new();
    for table in &TABLES {
        let lock = format!("LOCK TABLE {} IN EXCLUSIVE MODE", table.name);
        let locked = tx.execute(AssertSqlSafe(lock)).await;
        locked.map_err(writing(table.name))?;
        copied.insert(table.name, table.copy(source, &mut tx).await?);
    }
    tx.commit().await.map_err(CopyError::End)?;
    target.close().await.map_err(CopyError::End)?;
    Ok(copied)
}

impl Table {
    async fn copy(&self, source: &SqlitePool, target: &mut PgConnection) -> Result<u64, CopyError> {
        let name = self.name;
        let some = format!("SELECT EXISTS (SELECT 1 FROM {name})");
        let some: bool = sqlx::query_scalar(AssertSqlSafe(some))
            .fetch_one(&mut *target)
            .await
            .map_err(writing(name))?;
        if some {
            return Err(CopyError::NotEmpty(name));
        }
        let (read, write) = (self.read(), self.write());
        // Before all of them.
        let first = |(_, kind): &(&str, Kind)| match kind {
            Text | Bytes => Json::from(""),
            Number => Json::from(-(1_i64 << 53)),
        };
        let mut after: Json = self.columns[..self.keys].iter().map(first).collect();
        let mut copied = 0;
        loop {
            let batch: String = sqlx::query_scalar(AssertSqlSafe(read.clone()))
                .bind(after.to_string())
                .bind(BATCH)
                .fetch_one(source)
                .await
                .map_err(reading(name))?;
            let mut rows: Vec<Vec<Json>> = serde_json::from_str(&batch).map_err(reading(name))?;
            let Some(last) = rows.last() else {
                break;
            };
            after = last[..self.keys].into();
            copied += u64::try_from(rows.len()).unwrap_or(u64::MAX);
            for value in rows.iter_mut().flatten() {
                if let Json::String(kept) = value {
                    *value = text(kept).into();
                }
            }
            let rows = rows.into_iter().map(Json::from);
            sqlx::query(AssertSqlSafe(write.clone()))
                .bind(rows.collect::<Json>().to_string())
                .execute(&mut *target)
                .await
                .map_err(writing(name))?;
        }
        self.finish(target).await?;
        Ok(copied)
    }

    /// Up to `$2` rows after the one with the key `$1`, as one JSON text.
    fn read(&self) -> String {
        let value = |(column, kind): &(&str, Kind)| match kind {
            Text | Number => (*column).to_owned(),
            Bytes => format!("hex({column})"),
        };
        let values = joined(self.columns.iter().map(value));
        let key = joined(self.key());
        let after = joined((0..self.keys).map(|at| format!("$1 ->> {at}")));
        format!(
            "SELECT json_group_array(json_array({values})) FROM \
             (SELECT * FROM {} WHERE ({key}) > ({after}) ORDER BY {key} LIMIT $2)",
            self.name
        )
    }

    /// `$1` are such rows.
    fn write(&self) -> String {
        let value = |(at, (_, kind)): (usize, &(&str, Kind))| match kind {
            Text => format!("v.value ->> {at}"),
            Number => format!("CAST(v.value ->> {at} AS BIGINT)"),
            Bytes => format!("decode(v.value ->> {at}, 'hex')"),
        };
        let values = joined(self.columns.iter().enumerate().map(value));
        let columns = joined(self.columns.iter().map(|(column, _)| (*column).to_owned()));
        format!(
            "INSERT INTO {} ({columns}) SELECT {values} \
             FROM jsonb_array_elements(CAST($1 AS JSONB)) AS v (value)",
            self.name
        )
    }

    fn key(&self) -> impl Iterator<Item = String> {
        let key = self.columns[..self.keys].iter();
        key.map(|(column, _)| (*column).to_owned())
    }

    /// Numbers go on where they were, and what the rows take is counted.
    async fn finish(&self, target: &mut PgConnection) -> Result<(), CopyError> {
        let name = self.name;
        if self.keys == 1 {
            let go_on = format!(
                "SELECT setval(pg_get_serial_sequence('{name}', 'number'), MAX(number)) \
                 FROM {name} HAVING MAX(number) IS NOT NULL"
            );
            let set = target.execute(AssertSqlSafe(go_on)).await;
            set.map_err(writing(name))?;
        }
        if let Some((kind, at, bytes)) = self.sizes {
            let count = format!(
                "INSERT INTO sizes (kind, span, bytes) SELECT '{kind}', {at} / {SPAN_MS}, \
                 SUM({bytes} + {ROW}) FROM {name} GROUP BY 2"
            );
            let counted = target.execute(AssertSqlSafe(count)).await;
            counted.map_err(writing(name))?;
        }
        Ok(())
    }
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

fn reading<E: Into<Cause>>(table: &'static str) -> impl Fn(E) -> CopyError {
    move |source| CopyError::Read {
        table,
        source: source.into(),
    }
}

fn writing(table: &'static str) -> impl Fn(sqlx::Error) -> CopyError {
    move |source| CopyError::Write { table, source }
}

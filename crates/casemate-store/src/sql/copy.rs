//! A whole store from a file to PostgreSQL, for a machine that has grown.
//!
//! All or nothing: rows are read as of one moment and written in one transaction, whose tables
//! nobody else writes meanwhile. Columns are what the two schemas say; that they say the same is
//! checked before anything is written.

use std::collections::BTreeMap;

use casemate_sql::Pool;
use casemate_sql::postgres::{self, PostgresOptions, SchemaError};
use sqlx::sqlite::SqliteRow;
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, Postgres, QueryBuilder, Row,
    SqliteConnection,
};

use super::connect::MIGRATIONS;
use super::sandboxes::pair_texts;
use super::{ConnectError, SqlStore};
use crate::error::Cause;

/// All tables, each after those that it refers to.
pub const TABLES: [&str; 22] = [
    "teams",
    "users",
    "members",
    "api_keys",
    "access_tokens",
    "templates",
    "spent_template_ids",
    "template_aliases",
    "builds",
    "template_tags",
    "snapshots",
    "sandboxes",
    "idempotency_keys",
    "settings",
    "cached_layers",
    "uploads",
    "built_bytes",
    "servers",
    "leases",
    "nodes",
    "join_tokens",
    "artifacts",
];

/// Rows of one statement. PostgreSQL takes 65 535 values; the widest table has 28 columns.
const BATCH: i64 = 500;

/// PostgreSQL's alone: [`pair_texts`] of the metadata.
const PAIRS: &str = "metadata_pairs";

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("the rows to copy are not in a file")]
    NoFile,
    #[error("connect to the database to copy to")]
    Connect(#[source] Cause),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("the database to copy to is in use: its table {0} has rows")]
    NotEmpty(&'static str),
    #[error("column {column} of {table} is not the same in both databases")]
    Differs { table: &'static str, column: String },
    #[error("of {read} rows of {table} {written} were written")]
    Count {
        table: &'static str,
        read: u64,
        written: i64,
    },
    #[error("read {table}")]
    Read {
        table: &'static str,
        #[source]
        source: sqlx::Error,
    },
    #[error("write {table}")]
    Write {
        table: &'static str,
        #[source]
        source: sqlx::Error,
    },
    #[error("row {row} of {table} cannot be read")]
    Corrupt {
        table: &'static str,
        row: i64,
        #[source]
        source: Cause,
    },
    #[error("end the copy")]
    End(#[source] sqlx::Error),
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    /// SQLite has it as a number.
    Bool,
    Bytes,
}

struct Table {
    name: &'static str,
    columns: Vec<(String, Kind)>,
}

/// Copies all rows of `from`, a file, to an empty database of this version's schema; how many of each
/// table. Nobody may write to `from` meanwhile: what they wrote after the beginning is not copied.
pub async fn copy(
    from: &SqlStore,
    to: &PostgresOptions,
) -> Result<BTreeMap<&'static str, u64>, CopyError> {
    let Pool::Sqlite(pool) = &from.readers else {
        return Err(CopyError::NoFile);
    };
    to.check()
        .map_err(|error| CopyError::Connect(ConnectError::from(error).into()))?;
    postgres::check_schema(to, &MIGRATIONS).await?;
    let target = postgres::connect_alone(to).await;
    let mut target = target.map_err(|error| CopyError::Connect(error.into()))?;
    let mut source = pool.begin().await.map_err(reading(TABLES[0]))?;
    let mut tx = target.begin().await.map_err(writing(TABLES[0]))?;
    let tables = TABLES.join(", ");
    tx.execute(AssertSqlSafe(format!(
        "LOCK TABLE {tables} IN EXCLUSIVE MODE"
    )))
    .await
    .map_err(writing(TABLES[0]))?;
    let mut copied = BTreeMap::new();
    for name in TABLES {
        if count(&mut tx, name).await? != 0 {
            return Err(CopyError::NotEmpty(name));
        }
        let table = columns(&mut source, &mut tx, name).await?;
        let read = rows(&mut source, &mut tx, &table).await?;
        let written = count(&mut tx, name).await?;
        if i64::try_from(read) != Ok(written) {
            let table = name;
            return Err(CopyError::Count {
                table,
                read,
                written,
            });
        }
        copied.insert(name, read);
    }
    tx.commit().await.map_err(CopyError::End)?;
    source.rollback().await.map_err(CopyError::End)?;
    target.close().await.map_err(CopyError::End)?;
    Ok(copied)
}

fn reading(table: &'static str) -> impl Fn(sqlx::Error) -> CopyError {
    move |source| CopyError::Read { table, source }
}

fn writing(table: &'static str) -> impl Fn(sqlx::Error) -> CopyError {
    move |source| CopyError::Write { table, source }
}

async fn count(target: &mut PgConnection, table: &'static str) -> Result<i64, CopyError> {
    let sql = format!("SELECT COUNT(*) FROM {table}");
    let count = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(target);
    count.await.map_err(writing(table))
}

/// What both have, and nothing that only one has.
async fn columns(
    source: &mut SqliteConnection,
    target: &mut PgConnection,
    name: &'static str,
) -> Result<Table, CopyError> {
    let ours: Vec<(String, String)> =
        sqlx::query_as("SELECT name, type FROM pragma_table_info($1) ORDER BY cid")
            .bind(name)
            .fetch_all(source)
            .await
            .map_err(reading(name))?;
    let theirs: Vec<(String, String)> = sqlx::query_as(
        "SELECT CAST(column_name AS TEXT), CAST(data_type AS TEXT) \
         FROM information_schema.columns \
         WHERE table_schema = current_schema() AND table_name = $1",
    )
    .bind(name)
    .fetch_all(target)
    .await
    .map_err(writing(name))?;
    let mut theirs: BTreeMap<String, String> = theirs.into_iter().collect();
    theirs.remove(PAIRS);
    let differs = |column: &str| CopyError::Differs {
        table: name,
        column: column.into(),
    };
    let mut columns = Vec::new();
    for (column, word) in ours {
        let kind = match (&*word, theirs.remove(&column).as_deref()) {
            ("TEXT", Some("text")) => Kind::Text,
            ("INTEGER", Some("bigint" | "smallint")) => Kind::Integer,
            ("INTEGER", Some("boolean")) => Kind::Bool,
            ("BLOB", Some("bytea")) => Kind::Bytes,
            _ => return Err(differs(&column)),
        };
        columns.push((column, kind));
    }
    match theirs.keys().next() {
        Some(column) => Err(differs(column)),
        None if columns.is_empty() => Err(differs("any")),
        None => Ok(Table { name, columns }),
    }
}

/// How many were read.
async fn rows(
    source: &mut SqliteConnection,
    target: &mut PgConnection,
    table: &Table,
) -> Result<u64, CopyError> {
    let names: Vec<&str> = table.columns.iter().map(|(name, _)| &**name).collect();
    let names = names.join(", ");
    let name = table.name;
    let select =
        format!("SELECT {names}, rowid FROM {name} WHERE rowid > $1 ORDER BY rowid LIMIT $2");
    let pairs = if name == "sandboxes" {
        ", metadata_pairs"
    } else {
        ""
    };
    let insert = format!("INSERT INTO {name} ({names}{pairs}) ");
    let (mut read, mut last) = (0, i64::MIN);
    loop {
        let rows = sqlx::query(AssertSqlSafe(select.clone()))
            .bind(last)
            .bind(BATCH)
            .fetch_all(&mut *source)
            .await
            .map_err(reading(name))?;
        let Some(row) = rows.last() else {
            return Ok(read);
        };
        last = row.try_get("rowid").map_err(reading(name))?;
        read += u64::try_from(rows.len()).unwrap_or(u64::MAX);
        let values = rows.iter().map(|row| values(table, row));
        let values: Vec<Vec<Bound>> = values.collect::<Result<_, _>>()?;
        let mut insert = QueryBuilder::<Postgres>::new(&insert);
        insert.push_values(values, |mut row, values| {
            for value in values {
                match value {
                    Bound::Text(text) => row.push_bind(text),
                    Bound::Integer(number) => row.push_bind(number),
                    Bound::Bool(truth) => row.push_bind(truth),
                    Bound::Bytes(bytes) => row.push_bind(bytes),
                    Bound::Texts(texts) => row.push_bind(texts),
                };
            }
        });
        let insert = insert.build().persistent(false);
        insert.execute(&mut *target).await.map_err(writing(name))?;
    }
}

enum Bound {
    Text(Option<String>),
    Integer(Option<i64>),
    Bool(Option<bool>),
    Bytes(Option<Vec<u8>>),
    Texts(Vec<String>),
}

fn values(table: &Table, row: &SqliteRow) -> Result<Vec<Bound>, CopyError> {
    let refused = reading(table.name);
    let mut values = Vec::new();
    for (at, (_, kind)) in table.columns.iter().enumerate() {
        let value = match kind {
            Kind::Text => row.try_get(at).map(Bound::Text),
            Kind::Integer => row.try_get(at).map(Bound::Integer),
            Kind::Bool => row.try_get(at).map(Bound::Bool),
            Kind::Bytes => row.try_get(at).map(Bound::Bytes),
        };
        values.push(value.map_err(&refused)?);
    }
    if table.name == "sandboxes" {
        let metadata: String = row.try_get("metadata").map_err(&refused)?;
        let number: i64 = row.try_get("rowid").map_err(&refused)?;
        let metadata: BTreeMap<String, String> =
            serde_json::from_str(&metadata).map_err(|error| CopyError::Corrupt {
                table: table.name,
                row: number,
                source: error.into(),
            })?;
        values.push(Bound::Texts(pair_texts(&metadata)));
    }
    Ok(values)
}

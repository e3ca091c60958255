//! Statements with their values, and what comes of them. Named as sqlx names them.

use std::time::Duration;

use sqlx::error::BoxDynError;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Postgres, SqliteExecutor};

use crate::postgres::bounded;
use crate::transaction::Open;
use crate::{Error, On, Pool, Sql, Value, value};

/// What a row of both databases becomes: derive [`sqlx::FromRow`], or take a tuple.
pub trait Row: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

impl<T> Row for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{}

/// A statement of which only the number of rows is asked.
pub struct Query {
    sql: Sql,
    values: Vec<Bound>,
}

/// Which value stands for a `$` where.
pub(crate) enum Bound {
    Both(Value),
    Each { sqlite: Value, postgres: Value },
    Postgres(Value),
}

/// A statement that gives rows, read as `R` and given as `T`.
pub struct Select<R, T> {
    query: Query,
    read: fn(R) -> T,
}

pub fn query(sql: impl Into<Sql>) -> Query {
    Query {
        sql: sql.into(),
        values: Vec::new(),
    }
}

/// Its rows become `T`.
pub fn query_as<T: Row>(sql: impl Into<Sql>) -> Select<T, T> {
    Select {
        query: query(sql),
        read: |row| row,
    }
}

/// Its rows have one column.
pub fn query_scalar<T>(sql: impl Into<Sql>) -> Select<(T,), T>
where
    (T,): Row,
{
    Select {
        query: query(sql),
        read: |(value,)| value,
    }
}

impl Query {
    /// The next `$` of the statement.
    #[must_use]
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(Bound::Both(value.into()));
        self
    }

    /// The next `$` of PostgreSQL's text; SQLite's has none here.
    #[must_use]
    pub fn bind_on_postgres(mut self, value: impl Into<Value>) -> Self {
        self.values.push(Bound::Postgres(value.into()));
        self
    }

    /// How many rows it touched.
    pub async fn execute(self, on: impl Into<On<'_>>) -> Result<u64, Error> {
        match on.into() {
            On::Pool(Pool::Sqlite(pool)) => sqlite_execute(self, pool).await,
            On::Pool(Pool::Postgres(pool)) => {
                let mut connection = pool.connections.acquire().await?;
                postgres_execute(self, &mut connection, pool.call_timeout).await
            }
            On::Tx(tx) => {
                let done = match &mut tx.open {
                    Open::Sqlite(open) => sqlite_execute(self, &mut **open).await,
                    Open::Postgres(open) => {
                        let left = open.left();
                        postgres_execute(self, &mut open.connection, left).await
                    }
                };
                tx.noted(done)
            }
        }
    }
}

async fn sqlite_execute(query: Query, on: impl SqliteExecutor<'_>) -> Result<u64, Error> {
    let arguments = value::sqlite(query.values).map_err(unfit)?;
    let done = sqlx::query_with(query.sql.sqlite, arguments).execute(on);
    Ok(done.await?.rows_affected())
}

async fn postgres_execute(
    query: Query,
    connection: &mut PoolConnection<Postgres>,
    limit: Duration,
) -> Result<u64, Error> {
    let arguments = value::postgres(query.values).map_err(unfit)?;
    let query = sqlx::query_with(query.sql.postgres, arguments);
    let done = bounded!(connection, limit, |c| query.execute(&mut **c))?;
    Ok(done.rows_affected())
}

fn unfit(error: BoxDynError) -> Error {
    sqlx::Error::Encode(error).into()
}

impl<R: Row, T> Select<R, T> {
    /// The next `$` of the statement.
    #[must_use]
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.query.values.push(Bound::Both(value.into()));
        self
    }

    /// The next `$`, where each database gets a value of its own.
    #[must_use]
    pub fn bind_either(mut self, sqlite: impl Into<Value>, postgres: impl Into<Value>) -> Self {
        self.query.values.push(Bound::Each {
            sqlite: sqlite.into(),
            postgres: postgres.into(),
        });
        self
    }

    /// All rows. The statement has run to its end then, which one that writes must.
    pub async fn fetch_all(self, on: impl Into<On<'_>>) -> Result<Vec<T>, Error> {
        let rows = rows(self.query, on.into(), Wanted::All).await?;
        Ok(rows.into_iter().map(self.read).collect())
    }

    /// The first row, if there is one. For statements that give one at most, and only read.
    pub async fn fetch_optional(self, on: impl Into<On<'_>>) -> Result<Option<T>, Error> {
        let rows = rows(self.query, on.into(), Wanted::First).await?;
        Ok(rows.into_iter().next().map(self.read))
    }

    /// The first row; none is an error.
    pub async fn fetch_one(self, on: impl Into<On<'_>>) -> Result<T, Error> {
        let first = self.fetch_optional(on).await?;
        first.ok_or_else(|| sqlx::Error::RowNotFound.into())
    }
}

#[derive(Clone, Copy)]
enum Wanted {
    All,
    /// SQLite makes no more rows than are asked for.
    First,
}

async fn rows<R: Row>(query: Query, on: On<'_>, wanted: Wanted) -> Result<Vec<R>, Error> {
    match on {
        On::Pool(Pool::Sqlite(pool)) => sqlite_rows(query, pool, wanted).await,
        On::Pool(Pool::Postgres(pool)) => {
            let mut connection = pool.connections.acquire().await?;
            postgres_rows(query, &mut connection, pool.call_timeout).await
        }
        On::Tx(tx) => {
            let rows = match &mut tx.open {
                Open::Sqlite(open) => sqlite_rows(query, &mut **open, wanted).await,
                Open::Postgres(open) => {
                    let left = open.left();
                    postgres_rows(query, &mut open.connection, left).await
                }
            };
            tx.noted(rows)
        }
    }
}

async fn sqlite_rows<R: Row>(
    query: Query,
    on: impl SqliteExecutor<'_>,
    wanted: Wanted,
) -> Result<Vec<R>, Error> {
    let arguments = value::sqlite(query.values).map_err(unfit)?;
    let select = sqlx::query_as_with(query.sql.sqlite, arguments);
    Ok(match wanted {
        Wanted::All => select.fetch_all(on).await?,
        Wanted::First => select.fetch_optional(on).await?.into_iter().collect(),
    })
}

async fn postgres_rows<R: Row>(
    query: Query,
    connection: &mut PoolConnection<Postgres>,
    limit: Duration,
) -> Result<Vec<R>, Error> {
    let arguments = value::postgres(query.values).map_err(unfit)?;
    let select = sqlx::query_as_with(query.sql.postgres, arguments);
    bounded!(connection, limit, |c| select.fetch_all(&mut **c))
}

//! Statements with their values, and what comes of them. Named as sqlx names them.

use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{FromRow, Postgres, Sqlite};

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

enum Rows {
    Sqlite(Vec<SqliteRow>),
    Postgres(Vec<PgRow>),
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

    /// The next `$`, where each database gets a value of its own.
    #[must_use]
    pub fn bind_either(mut self, sqlite: impl Into<Value>, postgres: impl Into<Value>) -> Self {
        self.values.push(Bound::Each {
            sqlite: sqlite.into(),
            postgres: postgres.into(),
        });
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
            On::Pool(Pool::Sqlite(pool)) => {
                let done = self.sqlite()?.execute(pool).await?;
                Ok(done.rows_affected())
            }
            On::Pool(Pool::Postgres(pool)) => {
                let query = self.postgres()?;
                let mut connection = pool.connections.acquire().await?;
                let done = bounded!(connection, pool.call_timeout, |c| query.execute(c))?;
                Ok(done.rows_affected())
            }
            On::Tx(tx) => {
                let done = match &mut tx.open {
                    Open::Sqlite(open) => match self.sqlite() {
                        Ok(query) => {
                            let done = query.execute(&mut **open).await;
                            done.map(|done| done.rows_affected()).map_err(Error::from)
                        }
                        Err(error) => Err(error),
                    },
                    Open::Postgres(open) => match self.postgres() {
                        Ok(query) => {
                            let left = open.left();
                            let done = bounded!(open.connection, left, |c| query.execute(c));
                            done.map(|done| done.rows_affected())
                        }
                        Err(error) => Err(error),
                    },
                };
                tx.noted(done)
            }
        }
    }

    /// One place for all kinds of rows: what is compiled for each is the reading alone.
    async fn rows(self, on: On<'_>) -> Result<Rows, Error> {
        match on {
            On::Pool(Pool::Sqlite(pool)) => {
                let rows = self.sqlite()?.fetch_all(pool).await?;
                Ok(Rows::Sqlite(rows))
            }
            On::Pool(Pool::Postgres(pool)) => {
                let query = self.postgres()?;
                let mut connection = pool.connections.acquire().await?;
                let rows = bounded!(connection, pool.call_timeout, |c| query.fetch_all(c))?;
                Ok(Rows::Postgres(rows))
            }
            On::Tx(tx) => {
                let rows = match &mut tx.open {
                    Open::Sqlite(open) => match self.sqlite() {
                        Ok(query) => {
                            let rows = query.fetch_all(&mut **open).await;
                            rows.map(Rows::Sqlite).map_err(Error::from)
                        }
                        Err(error) => Err(error),
                    },
                    Open::Postgres(open) => match self.postgres() {
                        Ok(query) => {
                            let left = open.left();
                            bounded!(open.connection, left, |c| query.fetch_all(c))
                                .map(Rows::Postgres)
                        }
                        Err(error) => Err(error),
                    },
                };
                tx.noted(rows)
            }
        }
    }

    fn sqlite(self) -> Result<sqlx::query::Query<'static, Sqlite, SqliteArguments>, Error> {
        let arguments = value::sqlite(self.values).map_err(unfit)?;
        Ok(sqlx::query_with(self.sql.sqlite, arguments))
    }

    fn postgres(self) -> Result<sqlx::query::Query<'static, Postgres, PgArguments>, Error> {
        let arguments = value::postgres(self.values).map_err(unfit)?;
        Ok(sqlx::query_with(self.sql.postgres, arguments))
    }
}

fn unfit(error: BoxDynError) -> Error {
    Error::Refused(sqlx::Error::Encode(error))
}

fn read_all<R, DbRow>(rows: &[DbRow]) -> Result<Vec<R>, Error>
where
    R: for<'r> FromRow<'r, DbRow>,
    DbRow: sqlx::Row,
{
    let rows = rows.iter().map(|row| R::from_row(row));
    Ok(rows.collect::<Result<_, _>>()?)
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
        let rows: Vec<R> = match self.query.rows(on.into()).await? {
            Rows::Sqlite(rows) => read_all(&rows)?,
            Rows::Postgres(rows) => read_all(&rows)?,
        };
        Ok(rows.into_iter().map(self.read).collect())
    }

    /// The first row, if there is one.
    pub async fn fetch_optional(self, on: impl Into<On<'_>>) -> Result<Option<T>, Error> {
        Ok(self.fetch_all(on).await?.into_iter().next())
    }

    /// The first row; none is an error.
    pub async fn fetch_one(self, on: impl Into<On<'_>>) -> Result<T, Error> {
        let first = self.fetch_optional(on).await?;
        first.ok_or(Error::Unavailable(sqlx::Error::RowNotFound))
    }
}

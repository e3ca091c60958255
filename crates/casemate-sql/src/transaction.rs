//! Statements that count together.
//!
//! On SQLite a transaction that writes has the database to itself (`BEGIN IMMEDIATE`). On
//! PostgreSQL others write beside it; there it is serializable, and is done again when the database
//! cannot find an order in which it and the others would have come to the same. So what is right on
//! the one is right on the other, and a block of work may be done more than once.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Executor, Postgres, Sqlite};
use tokio::time::Instant;

use crate::postgres::{PostgresPool, bounded};
use crate::{Error, Pool};

/// How long a transaction that meets others is done anew before it fails as busy.
pub const RETRIED_FOR: Duration = Duration::from_secs(5);
/// The pause before it is done again grows to this, and is drawn anew each time, so that those that
/// met once do not meet again.
const PAUSE_MAX: Duration = Duration::from_millis(100);
const PAUSE_FIRST: Duration = Duration::from_millis(2);

/// A transaction that is under way. Dropped before its end, nothing of it was written.
pub struct Tx {
    pub(crate) open: Open,
    discarded: bool,
    /// A statement of it failed.
    broken: bool,
    /// … because of others, and it may be done again.
    conflicted: bool,
    /// … by a key that others may have written meanwhile: what the transaction looked at before may
    /// not have shown it yet.
    collided: bool,
}

pub(crate) enum Open {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(PostgresTx),
}

pub(crate) struct PostgresTx {
    pub(crate) connection: PoolConnection<Postgres>,
    ends_by: Instant,
    is_open: bool,
}

impl PostgresTx {
    /// A transaction as a whole takes no longer than one call.
    pub(crate) fn left(&self) -> Duration {
        self.ends_by.saturating_duration_since(Instant::now())
    }

    async fn end(&mut self, word: &'static str) -> Result<(), Error> {
        let left = self.left();
        bounded!(self.connection, left, |c| c.execute(word))?;
        self.is_open = false;
        Ok(())
    }
}

impl Drop for PostgresTx {
    fn drop(&mut self) {
        // The server rolls back what a connection leaves; the pool must not see it again.
        if self.is_open {
            self.connection.close_on_drop();
        }
    }
}

impl Tx {
    /// The end of one that only read.
    pub async fn done(self) -> Result<(), Error> {
        self.rollback().await
    }

    /// Whatever becomes of it, nothing of it is written.
    pub fn discard(&mut self) {
        self.discarded = true;
    }

    pub(crate) fn noted<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &result {
            self.broken = true;
            self.conflicted |= matches!(error, Error::Conflict(_));
            self.collided |= matches!(error, Error::Unique(_) | Error::ForeignKey(_));
        }
        result
    }

    fn is_beside_others(&self) -> bool {
        matches!(self.open, Open::Postgres(_))
    }

    async fn commit(self) -> Result<(), Error> {
        match self.open {
            Open::Sqlite(open) => Ok(open.commit().await?),
            // The server would roll it back and call that a success.
            Open::Postgres(_) if self.broken => {
                let failed = "commit of a transaction that had failed";
                Err(sqlx::Error::Protocol(failed.into()).into())
            }
            Open::Postgres(mut open) => open.end("COMMIT").await,
        }
    }

    async fn rollback(self) -> Result<(), Error> {
        match self.open {
            Open::Sqlite(open) => Ok(open.rollback().await?),
            Open::Postgres(mut open) => open.end("ROLLBACK").await,
        }
    }
}

/// Does a block of work in a transaction and commits it, unless it fails or discards it. Others may
/// make it fail ([`Error::Conflict`]); then it is done again, for up to [`RETRIED_FOR`].
///
/// `transaction!(pool, refused, async |tx| { … })`: `tx` is a `&mut Tx`, and `refused` makes an error
/// of what begin and commit say. The block gives a `Result`; `return` and `?` leave the block only.
/// (A macro, because a function cannot say that the future of a closure that it is given is `Send`.)
#[macro_export]
macro_rules! transaction {
    ($pool:expr, $refused:expr, async |$tx:ident| $work:block) => {{
        let mut attempts = $pool.attempts();
        loop {
            let mut begun = match attempts.begin().await {
                Ok(begun) => begun,
                Err(error) => break Err($refused(error)),
            };
            let done = {
                let $tx = &mut begun;
                async { $work }.await
            };
            if let Some(end) = attempts.end(begun, done, $refused).await {
                break end;
            }
        }
    }};
}

/// How often a transaction was tried.
pub struct Attempts<'a> {
    pool: &'a Pool,
    begun: Instant,
    pause: Duration,
    /// One that met a key of others was done again, and sees that key now if it is there to stay.
    has_collided: bool,
}

impl Attempts<'_> {
    pub async fn begin(&mut self) -> Result<Tx, Error> {
        self.pool.begin().await
    }

    /// Commits or goes back. `None`: others were in the way, and it is to be done again.
    pub async fn end<T, E>(
        &mut self,
        tx: Tx,
        done: Result<T, E>,
        refused: impl Fn(Error) -> E,
    ) -> Option<Result<T, E>> {
        let error = match done {
            Ok(done) if tx.discarded => {
                let ended = tx.rollback().await.map_err(refused);
                return Some(ended.map(|()| done));
            }
            Ok(done) => match tx.commit().await {
                Ok(()) => return Some(Ok(done)),
                Err(error @ Error::Conflict(_)) => refused(error),
                Err(error) => return Some(Err(refused(error))),
            },
            Err(error) => {
                let collided = tx.collided && !self.has_collided && tx.is_beside_others();
                self.has_collided |= collided;
                let conflicted = tx.conflicted || collided;
                // What the work says is more than what going back says; the connection is closed
                // after that.
                let _ = tx.rollback().await;
                if !conflicted {
                    return Some(Err(error));
                }
                error
            }
        };
        if self.begun.elapsed() > RETRIED_FOR {
            return Some(Err(error));
        }
        tokio::time::sleep(drawn(self.pause)).await;
        self.pause = PAUSE_MAX.min(self.pause * 2);
        None
    }
}

impl Pool {
    /// For [`transaction!`](crate::transaction).
    pub fn attempts(&self) -> Attempts<'_> {
        Attempts {
            pool: self,
            begun: Instant::now(),
            pause: PAUSE_FIRST,
            has_collided: false,
        }
    }

    /// For reads of one moment. [`Tx::done`] ends it.
    pub async fn snapshot(&self) -> Result<Tx, Error> {
        let open = match self {
            Self::Sqlite(pool) => Open::Sqlite(pool.begin().await?),
            Self::Postgres(pool) => Open::Postgres(pool.begin(SNAPSHOT).await?),
        };
        Ok(Tx::new(open))
    }

    async fn begin(&self) -> Result<Tx, Error> {
        let open = match self {
            Self::Sqlite(pool) => Open::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?),
            Self::Postgres(pool) => Open::Postgres(pool.begin(SERIALIZABLE).await?),
        };
        Ok(Tx::new(open))
    }
}

const SERIALIZABLE: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE";
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";

impl PostgresPool {
    async fn begin(&self, word: &'static str) -> Result<PostgresTx, Error> {
        let mut open = PostgresTx {
            connection: self.connections.acquire().await?,
            ends_by: Instant::now() + self.call_timeout,
            is_open: true,
        };
        let left = open.left();
        bounded!(open.connection, left, |c| c.execute(word))?;
        Ok(open)
    }
}

impl Tx {
    fn new(open: Open) -> Self {
        Self {
            open,
            discarded: false,
            broken: false,
            conflicted: false,
            collided: false,
        }
    }
}

/// Between half of it and all.
fn drawn(pause: Duration) -> Duration {
    // Each has keys of its own, which are as good as any number drawn.
    let random = RandomState::new().build_hasher().finish();
    let share = u32::try_from(random % 1000).unwrap_or(0);
    pause / 2 + pause / 2 * share / 1000
}

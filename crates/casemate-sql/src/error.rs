//! What an error of a database means, whichever it is.

use std::time::Duration;

use sqlx::error::{DatabaseError, ErrorKind};

use crate::Cause;

/// Why a statement failed. Nothing of it was written, except for [`Error::Unavailable`] and
/// [`Error::TimedOut`], after which either is possible.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a row with this key is there already")]
    Unique(#[source] Cause),
    #[error("it refers to a row that does not exist")]
    ForeignKey(#[source] Cause),
    /// Others wrote what this one read or wanted to write.
    #[error("others write the same")]
    Conflict(#[source] Cause),
    /// Locks were not to be had in time, or the statement took too long.
    #[error("the database is busy")]
    Busy(#[source] Cause),
    /// The pool gave none in time. It does not say whether there is nobody to connect to.
    #[error(
        "no connection to the database was to be had in time: it is away, or all connections are in use"
    )]
    NoConnection,
    #[error("the disk of the database is full")]
    DiskFull(#[source] Cause),
    /// A value that this database cannot keep, such as a NUL in a text.
    #[error("the database cannot keep such a value")]
    Refused(#[source] Cause),
    #[error("a row is not as expected")]
    Undecodable(#[source] Cause),
    #[error(transparent)]
    Unavailable(Cause),
    #[error("the database did not answer within {0:?}")]
    TimedOut(Duration),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(cause) => {
                let class = classify(cause.as_ref());
                class(error.into())
            }
            sqlx::Error::PoolTimedOut => Self::NoConnection,
            sqlx::Error::Encode(_) => Self::Refused(error.into()),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                Self::Undecodable(error.into())
            }
            _ => Self::Unavailable(error.into()),
        }
    }
}

impl Error {
    /// Whether the same attempt may succeed while nobody changes a setting or the database, as it does
    /// not with a wrong password.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Conflict(_)
            | Self::Busy(_)
            | Self::NoConnection
            | Self::DiskFull(_)
            | Self::TimedOut(_) => true,
            Self::Unavailable(cause) => cause.is_passing(),
            Self::Unique(_) | Self::ForeignKey(_) | Self::Refused(_) | Self::Undecodable(_) => {
                false
            }
        }
    }
}

const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;
const SQLITE_FULL: i32 = 13;

/// By <https://www.sqlite.org/rescode.html> and
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>: the one has numbers, the other
/// five characters.
fn classify(cause: &dyn DatabaseError) -> fn(Cause) -> Error {
    match cause.kind() {
        ErrorKind::UniqueViolation => return Error::Unique,
        ErrorKind::ForeignKeyViolation => return Error::ForeignKey,
        _ => {}
    }
    let code = cause.code().unwrap_or_default();
    if code.len() == SQLSTATE_LEN {
        return match &*code {
            // Serialization failure, deadlock.
            "40001" | "40P01" => Error::Conflict,
            // Lock not available, statement timeout, too many connections.
            "55P03" | "57014" | "53300" => Error::Busy,
            "53100" => Error::DiskFull,
            // Not a character of UTF-8 or none that a text may have; numbers that do not fit.
            "22021" | "22P05" | "22003" => Error::Refused,
            // Among them connections that ended (08xxx, 57P01 to 57P03), and a standby (25006).
            _ => Error::Unavailable,
        };
    }
    // Its extension is in the upper bits.
    match code.parse::<i32>().map(|code| code & 0xff) {
        Ok(SQLITE_BUSY | SQLITE_LOCKED) => Error::Busy,
        Ok(SQLITE_FULL) => Error::DiskFull,
        _ => Error::Unavailable,
    }
}

/// Of PostgreSQL. SQLite's largest has four digits.
pub(crate) const SQLSTATE_LEN: usize = 5;

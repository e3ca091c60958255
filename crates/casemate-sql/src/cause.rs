//! What a driver says of a failure: once, and without what only the server's makers can use.

use std::fmt;
use std::io;

use sqlx::error::DatabaseError;

/// A driver's error. It says all that it knows by itself: nothing is below it.
#[derive(Debug)]
pub struct Cause(sqlx::Error);

impl Cause {
    /// Whether the same attempt may succeed while nobody changes a setting or the database.
    pub(crate) fn is_passing(&self) -> bool {
        is_passing(&self.0)
    }
}

impl From<sqlx::Error> for Cause {
    fn from(error: sqlx::Error) -> Self {
        Self(error)
    }
}

impl std::error::Error for Cause {}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            sqlx::Error::Io(error) => write!(f, "{error}"),
            // Its own words end with a line of the server's source.
            sqlx::Error::Database(error) => f.write_str(error.message()),
            sqlx::Error::Tls(error) if error.to_string() == WITHOUT_TLS => f.write_str(
                "it has no TLS, and sslmode asks for that (unless it is set, wherever the address is \
                 not loopback): give the server a certificate, or let everything travel in clear by \
                 ?sslmode=disable in its address",
            ),
            sqlx::Error::Tls(error) => write!(f, "TLS: {error}"),
            error => write!(f, "{error}"),
        }
    }
}

/// As sqlx says it, which has no type for it.
const WITHOUT_TLS: &str = "server does not support TLS";

/// See [`Cause::is_passing`].
pub(crate) fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => !needs_somebody(error.as_ref()),
        // A connection that breaks is no word about certificates.
        sqlx::Error::Tls(error) => error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() != io::ErrorKind::InvalidData),
        sqlx::Error::Configuration(_) => false,
        _ => true,
    }
}

/// Of PostgreSQL: who we are (28), which database (3D) or schema (3F), and what a statement may do or
/// names (42).
fn needs_somebody(error: &dyn DatabaseError) -> bool {
    let code = error.code().unwrap_or_default();
    code.len() == super::error::SQLSTATE_LEN
        && ["28", "3D", "3F", "42"]
            .iter()
            .any(|class| code.starts_with(class))
}

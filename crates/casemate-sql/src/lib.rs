//! One way to two databases: SQLite for one machine, PostgreSQL for several.
//!
//! Owns statements in both dialects ([`sql!`]), values, rows, transactions and their repetition,
//! what an error means ([`Error`]), connections to PostgreSQL with their limits ([`postgres`]), and
//! what is the same for all files of SQLite ([`sqlite`]). It must not know tables: what is kept is
//! its users' own.
//!
//! A statement is written once. Where the dialects differ, a part of it says so in its place:
//! lists ([`Value::texts`]) and the parts of a JSON text. All else keeps to what both understand:
//! `$1`, `ON CONFLICT`, `RETURNING`, `IS NOT DISTINCT FROM`, `CAST (… AS BIGINT)` around a `SUM`.

mod cause;
mod error;
mod pool;
pub mod postgres;
mod query;
pub mod sqlite;
mod statement;
#[cfg(feature = "testing")]
pub mod testing;
mod transaction;
mod value;

pub use cause::Cause;
pub use error::Error;
pub use pool::{On, Pool};
pub use query::{Query, Row, Select, query, query_as, query_scalar};
pub use statement::Sql;
pub use transaction::{Attempts, RETRIED_FOR, Tx};
pub use value::Value;

//! The layer against a real PostgreSQL server: `CASEMATE_TEST_POSTGRES=1`. What both databases must do
//! alike is in the suites of those that keep rows.

mod failures;
mod schema;
mod tls;
mod transactions;

use casemate_sql::Pool;
use casemate_sql::postgres::{Commits, PostgresOptions, connect};
use casemate_sql::query;

/// With a table `numbers`.
async fn numbers(options: &PostgresOptions) -> Pool {
    let pool = connect(options, Commits::Synced).await.unwrap();
    query("CREATE TABLE numbers (number BIGINT PRIMARY KEY)")
        .execute(&pool)
        .await
        .unwrap();
    pool
}

async fn put(pool: &Pool, number: i64) -> Result<u64, casemate_sql::Error> {
    query("INSERT INTO numbers (number) VALUES ($1)")
        .bind(number)
        .execute(pool)
        .await
}

/// With all that lies below it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = format!("{error:?}: {error}");
    let mut next = error.source();
    while let Some(cause) = next {
        words.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    words
}

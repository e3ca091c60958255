//! Files of SQLite as all of ours are opened.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

/// How long a call waits for a connection. Longer than a writer waits for another process, so that
/// this one fails before those that wait for it.
const CONNECTION_WAIT: Duration = Duration::from_secs(10);
/// Each connection's page cache, in KiB (negative is SQLite's way to say so). Usually 2 MiB, and
/// there are as many as readers; what is not in it is in the kernel's.
const CACHE: &str = "-512";

/// Makes the file if it is missing. Nobody else reads it: it holds hashes of keys, and what people did.
pub fn create(path: &Path) -> io::Result<()> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map(drop)
}

pub fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .pragma("cache_size", CACHE)
}

/// Connections live as long as the pool: reopening one would cost a create its milliseconds.
pub fn pool(connections_max: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(CONNECTION_WAIT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

//! Room for the databases on a disk that is full.
//!
//! Kills, deadlines and keys are written while others leave no block free, because the blocks are
//! held before they are needed. It is this process that holds them and not the one that writes:
//! there, closing a file would give up SQLite's locks on it.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, open};

const DATABASES: [&str; 2] = ["store.sqlite", "history.sqlite"];
const MIB: u64 = 1 << 20;
/// Beyond the end of a database.
const DATABASE_BYTES: u64 = 2 * MIB;
/// Of its log, which is begun anew when it was written back: see `casemate-store`'s checkpoints.
const LOG_BYTES: u64 = 16 * MIB;
/// Of the log's index.
const INDEX_BYTES: u64 = MIB / 4;
/// How often: less is written in between.
const ROUND: Duration = Duration::from_secs(20);
/// The same until all files are there.
const FIRST_ROUND: Duration = Duration::from_millis(500);

/// For ever.
pub(super) async fn hold(control_dir: std::path::PathBuf) {
    loop {
        let mut are_there = true;
        for database in DATABASES {
            let path = control_dir.join(database);
            for (end, bytes) in [("-wal", LOG_BYTES), ("-shm", INDEX_BYTES), ("", 0)] {
                let held = hold_one(&path.with_file_name(format!("{database}{end}")), bytes);
                // Not there yet, or no room: what is written may fail, and says so.
                if let Err(error) = held {
                    are_there &= error.kind() != io::ErrorKind::NotFound;
                    tracing::debug!(%error, "no room is held for {database}{end}");
                }
            }
        }
        tokio::time::sleep(if are_there { ROUND } else { FIRST_ROUND }).await;
    }
}

/// So many bytes from the start, or those of a database.
fn hold_one(path: &Path, bytes: u64) -> io::Result<()> {
    // The folder is another user's: no link of theirs is followed.
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, Mode::empty())?);
    let told = file.metadata()?;
    if !told.is_file() {
        return Ok(());
    }
    let bytes = match bytes {
        0 => told.len() + DATABASE_BYTES,
        bytes => bytes,
    };
    Ok(fallocate(&file, FallocateFlags::KEEP_SIZE, 0, bytes)?)
}

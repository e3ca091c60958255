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

/// So many bytes from the start, or of a database some behind its end.
///
/// No length is believed: one that a crash, a copy or its owner made far too long must not take the
/// disk from everybody. What lies before the end was written and has its blocks. Nothing changes
/// a length or what is written, so one that moves meanwhile costs nothing: a shorter file frees what
/// was held behind it, and the next round holds it anew.
fn hold_one(path: &Path, bytes: u64) -> io::Result<()> {
    // The folder is another user's: no link of theirs is followed.
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, Mode::empty())?);
    let told = file.metadata()?;
    if !told.is_file() {
        return Ok(());
    }
    let (from, bytes) = match bytes {
        0 => (told.len(), DATABASE_BYTES),
        bytes => (0, bytes),
    };
    Ok(fallocate(&file, FallocateFlags::KEEP_SIZE, from, bytes)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    /// What the file takes of the disk.
    fn taken(path: &Path) -> u64 {
        std::fs::metadata(path).unwrap().blocks() * 512
    }

    #[test]
    fn the_same_is_held_behind_a_database_of_whatever_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.sqlite");
        // Cut off in a page, emptied, and made far longer than what was written.
        for (length, written) in [(8192, 8192), (5000, 5000), (0, 0), (64 << 20, 4096)] {
            std::fs::write(&path, vec![7; written]).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len(length).unwrap();
            for _ in 0..2 {
                hold_one(&path, 0).unwrap();
            }
            let taken = taken(&path);
            assert!(taken >= DATABASE_BYTES, "{length}: {taken}");
            assert!(taken < DATABASE_BYTES + MIB, "{length}: {taken}");
            assert_eq!(file.metadata().unwrap().len(), length);
            let read = std::fs::read(&path).unwrap();
            assert!(read[..written].iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn a_log_has_its_room_whatever_its_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.sqlite-wal");
        for length in [0, 5000, 1 << 30] {
            let file = File::create(&path).unwrap();
            file.set_len(length).unwrap();
            hold_one(&path, LOG_BYTES).unwrap();
            assert!((LOG_BYTES..LOG_BYTES + MIB).contains(&taken(&path)));
            assert_eq!(file.metadata().unwrap().len(), length);
        }
    }

    #[test]
    fn what_is_no_file_of_a_database_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (other, link) = (dir.path().join("other"), dir.path().join("store.sqlite"));
        std::fs::write(&other, "").unwrap();
        symlink(&other, &link).unwrap();
        assert!(hold_one(&link, 0).is_err());
        assert_eq!(taken(&other), 0);
    }
}

//! A folder as a bucket: what is not the same as in clouds.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use object_store::local::LocalFileSystem;

use super::failure::Failure;
use crate::error::Cause;

/// Folders below each other that are looked through.
const DEPTH_MAX: usize = 6;

/// Makes the folder. What is written there is synced, renamed, and its folder synced.
pub(super) fn open(path: &Path) -> Result<LocalFileSystem, io::ErrorKind> {
    std::fs::create_dir_all(path).map_err(|error| error.kind())?;
    let store = LocalFileSystem::new_with_prefix(path).map_err(|_| io::ErrorKind::Other)?;
    Ok(store.with_fsync(true).with_automatic_cleanup(true))
}

/// A file in one go: the library would ask another thread for every 8 KiB.
pub(super) async fn read(file: File, bytes_max: u64) -> Result<Option<Bytes>, Failure> {
    let read = move || {
        let mut bytes = Vec::new();
        let read = file.take(bytes_max + 1).read_to_end(&mut bytes)?;
        Ok((read as u64 <= bytes_max).then_some(bytes))
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(bytes)) => Ok(bytes.map(Bytes::from)),
        Ok(Err(error)) => Err(Failure::of_disk(&error)),
        Err(_) => Err(Failure::Later(Cause::Unexpected(
            "the reader was ended".into(),
        ))),
    }
}

/// Removes files that are being written (`NAME#N`, which no listing shows) since longer than `age`.
pub(super) async fn sweep_partial(below: PathBuf, age: Duration) {
    let sweep = move || sweep_below(&below, age, DEPTH_MAX);
    // What does not go now goes with the next sweep.
    let _ = tokio::task::spawn_blocking(sweep).await;
}

fn sweep_below(folder: &Path, age: Duration, depth: usize) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() && depth > 0 {
            sweep_below(&entry.path(), age, depth - 1);
        }
        let name = entry.file_name();
        let partial = name.to_str().and_then(|name| name.rsplit_once('#'));
        let partial = partial.is_some_and(|(_, number)| number.parse::<u32>().is_ok());
        if kind.is_file() && partial && is_older(&entry, age) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn is_older(entry: &std::fs::DirEntry, age: Duration) -> bool {
    let modified = entry.metadata().and_then(|meta| meta.modified());
    let since = modified.map(|modified| SystemTime::now().duration_since(modified));
    matches!(since, Ok(Ok(since)) if since >= age)
}

//! What a process before left in the folder.

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::Known;
use crate::Digest;

/// Removes what was being written.
pub(super) fn sweep(partial: &Path) -> io::Result<()> {
    for entry in fs::read_dir(partial)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}

/// All pieces, by their last use. What has another name is nobody's, and goes.
pub(super) fn scan(pieces: &Path) -> io::Result<Known> {
    let mut found = Vec::new();
    for folder in fs::read_dir(pieces)? {
        let folder = folder?;
        if !folder.file_type()?.is_dir() {
            fs::remove_file(folder.path())?;
            continue;
        }
        for entry in fs::read_dir(folder.path())? {
            let entry = entry?;
            let name = entry.file_name();
            let digest = name.to_str().and_then(|name| name.parse::<Digest>().ok());
            let home = digest.is_some_and(|digest| {
                folder.file_name().to_str() == Some(&digest.to_string()[..2])
            });
            let meta = entry.metadata()?;
            match digest.filter(|_| home && meta.is_file()) {
                Some(digest) => {
                    let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    found.push((used, digest, meta.len()));
                }
                None if meta.is_dir() => fs::remove_dir_all(entry.path())?,
                None => fs::remove_file(entry.path())?,
            }
        }
    }
    found.sort_unstable();
    let mut known = Known::default();
    for (used, digest, bytes) in found {
        known.begin(digest, bytes, used);
        known.finish(&digest);
    }
    Ok(known)
}

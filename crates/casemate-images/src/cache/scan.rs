//! What a cache's folders hold when it is opened, and what is swept.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, File};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Entry, Key, Known, Scope};
use crate::Digest;

/// Older partial files are not gone on with.
const PARTIAL_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

struct Seen {
    key: Key,
    bytes: u64,
    used: SystemTime,
    is_partial: bool,
}

pub(super) fn scan(blobs: &Path, partials: &Path) -> io::Result<Known> {
    let mut seen = Vec::new();
    for dir in fs::read_dir(blobs)? {
        let dir = dir?;
        match hex_name(&dir.file_name()) {
            Some(scope) if dir.file_type()?.is_dir() => {
                scan_scope(&dir.path(), Scope(scope), &mut seen)?;
            }
            _ => sweep(&dir)?,
        }
    }
    for entry in fs::read_dir(partials)? {
        scan_partial(&entry?, &mut seen)?;
    }
    seen.sort_by_key(|seen| seen.used);
    let mut known = Known::default();
    for Seen {
        key,
        bytes,
        is_partial,
        ..
    } in seen
    {
        let used = known.tick();
        known.bytes = known.bytes.saturating_add(bytes);
        let map = match is_partial {
            true => &mut known.partials,
            false => &mut known.blobs,
        };
        map.insert(
            key,
            Entry {
                bytes,
                used,
                readers: 0,
            },
        );
    }
    Ok(known)
}

fn scan_scope(dir: &Path, scope: Scope, seen: &mut Vec<Seen>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        match hex_name(&entry.file_name()) {
            Some(digest) if metadata.is_file() => seen.push(Seen {
                key: Key { scope, digest },
                bytes: metadata.len(),
                used: metadata.modified()?,
                is_partial: false,
            }),
            _ => sweep(&entry)?,
        }
    }
    Ok(())
}

fn scan_partial(entry: &DirEntry, seen: &mut Vec<Seen>) -> io::Result<()> {
    // Another process may finish it while we look.
    let metadata = match entry.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if metadata.is_file() && is_locked(&entry.path()) {
        return Ok(());
    }
    let used = metadata.modified()?;
    let age = SystemTime::now().duration_since(used).unwrap_or_default();
    match partial_name(&entry.file_name()) {
        Some(key) if metadata.is_file() && age <= PARTIAL_AGE_MAX => seen.push(Seen {
            key,
            bytes: metadata.len(),
            used,
            is_partial: true,
        }),
        _ => sweep(entry)?,
    }
    Ok(())
}

/// Whether someone writes to it. What cannot be opened is nobody's.
fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock))
}

/// Removes what is none of ours from a folder of ours.
fn sweep(entry: &DirEntry) -> io::Result<()> {
    let path = entry.path();
    tracing::info!(path = %path.display(), "sweeping a file out of the cache of images");
    let gone = match entry.file_type()?.is_dir() {
        true => fs::remove_dir_all(&path),
        false => fs::remove_file(&path),
    };
    match gone {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        gone => gone,
    }
}

fn hex_name(name: &OsStr) -> Option<Digest> {
    Digest::from_hex(name.to_str()?)
}

fn partial_name(name: &OsStr) -> Option<Key> {
    let (scope, digest) = name.to_str()?.split_once('-')?;
    Some(Key {
        scope: Scope(Digest::from_hex(scope)?),
        digest: Digest::from_hex(digest)?,
    })
}

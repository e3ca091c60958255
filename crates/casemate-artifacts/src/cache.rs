//! Pieces that were read, in a folder of this machine, as they came from the bucket.
//!
//! ```text
//! lock                  held by the process that owns the folder
//! pieces/<xx>/<sha256>  put there by a rename
//! partial/<n>           being written; removed at start
//! ```
//!
//! Nothing is synced and nothing believed: a piece is checked by its digest each time it is read, so
//! one that a crash tore is fetched again. Scopes share it: who asks for a piece has its digest from
//! a manifest of his own, and so had its content.
//!
//! A piece is read into memory in one go; one that is evicted meanwhile stays readable until then,
//! because its file is open.

mod scan;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::Digest;
use crate::config::CacheConfig;

/// A file's time of last use, by which the next process sorts, is not written more often.
const TOUCH_AFTER: Duration = Duration::from_secs(60);

/// Why a folder cannot be the cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error("another process has the cache {path}", path = .path.display())]
    Taken { path: PathBuf },
    #[error("the cache cannot use {path}", path = .path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

pub(crate) struct Cache {
    pieces: PathBuf,
    partial: PathBuf,
    bytes_max: u64,
    known: Mutex<Known>,
    /// Names of partial files.
    count: AtomicU64,
    /// Whether the last piece could not be written: said once, not for each.
    failing: AtomicBool,
    _lock: File,
}

/// What is in the folder. All its times are numbers of uses.
#[derive(Default)]
struct Known {
    entries: HashMap<Digest, Entry>,
    by_use: BTreeMap<u64, Digest>,
    bytes: u64,
    uses: u64,
}

struct Entry {
    bytes: u64,
    /// The number of its last use; `None` while it is being written, when it can neither be read nor
    /// go.
    used: Option<u64>,
    touched: SystemTime,
}

impl Cache {
    /// Takes the folder, sweeps it and learns what is in it. Blocks on the disk.
    pub(crate) fn open(config: &CacheConfig) -> Result<Self, CacheError> {
        let folder = |path: &Path| {
            let path = path.to_owned();
            |source| CacheError::Folder { path, source }
        };
        let (pieces, partial) = (config.folder.join("pieces"), config.folder.join("partial"));
        for path in [&pieces, &partial] {
            fs::create_dir_all(path).map_err(folder(path))?;
        }
        let path = config.folder.join("lock");
        let lock = File::create(&path).map_err(folder(&path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => CacheError::Taken {
                path: config.folder.clone(),
            },
            TryLockError::Error(source) => folder(&path)(source),
        })?;
        scan::sweep(&partial).map_err(folder(&partial))?;
        let known = scan::scan(&pieces).map_err(folder(&pieces))?;
        let cache = Self {
            pieces,
            partial,
            bytes_max: config.bytes_max,
            known: Mutex::new(known),
            count: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            _lock: lock,
        };
        let room = cache.make_room(&mut cache.lock(), 0);
        debug_assert!(room);
        Ok(cache)
    }

    /// A piece as it was stored, unchecked, if it is here. Blocks on the disk.
    pub(crate) fn find(&self, digest: &Digest, len_max: usize) -> Option<Bytes> {
        let touch = self.lock().note_use(digest)?;
        let read = self.read(digest, len_max, touch);
        if read.is_none() {
            self.remove(digest);
        }
        read
    }

    fn read(&self, digest: &Digest, len_max: usize, touch: bool) -> Option<Bytes> {
        let file = File::open(self.path(digest)).ok()?;
        if touch {
            // For who opens the cache next.
            let _ = file.set_modified(SystemTime::now());
        }
        let mut bytes = Vec::with_capacity(len_max);
        let read = file.take(len_max as u64 + 1).read_to_end(&mut bytes);
        (read.ok()? <= len_max).then(|| bytes.into())
    }

    /// Keeps a piece, if there is room for it; others go for it. A disk that is full or broken costs
    /// the cache, not the piece. Blocks on the disk.
    pub(crate) fn insert(&self, digest: &Digest, stored: &Bytes) {
        match self.write(digest, stored) {
            Ok(()) => self.failing.store(false, Ordering::Relaxed),
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        error = %error,
                        "pieces are not cached in {}", self.pieces.display()
                    );
                }
            }
        }
    }

    fn write(&self, digest: &Digest, stored: &Bytes) -> io::Result<()> {
        let bytes = stored.len() as u64;
        {
            let mut known = self.lock();
            if known.entries.contains_key(digest) || !self.make_room(&mut known, bytes) {
                return Ok(());
            }
            // Counted before it is written, so that no writers together exceed the bound.
            known.begin(*digest, bytes, SystemTime::now());
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let partial = self.partial.join(number.to_string());
        let written = self.write_file(digest, stored, &partial);
        let mut known = self.lock();
        match &written {
            Ok(()) => known.finish(digest),
            Err(_) => {
                let _ = fs::remove_file(&partial);
                known.forget(digest);
            }
        }
        written
    }

    fn write_file(&self, digest: &Digest, stored: &Bytes, partial: &Path) -> io::Result<()> {
        File::create(partial)?.write_all(stored)?;
        let path = self.path(digest);
        match fs::rename(partial, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(path.parent().unwrap_or(&self.pieces))?;
                fs::rename(partial, &path)
            }
            renamed => renamed,
        }
    }

    /// Drops a piece that is not what it should be.
    pub(crate) fn remove(&self, digest: &Digest) {
        let mut known = self.lock();
        if known.is_whole(digest) {
            known.forget(digest);
            let _ = fs::remove_file(self.path(digest));
        }
    }

    /// Bytes, and pieces.
    pub(crate) fn size(&self) -> (u64, usize) {
        let known = self.lock();
        (known.bytes, known.entries.len())
    }

    /// Removes what was used least lately until so many bytes more fit; answers whether they do.
    fn make_room(&self, known: &mut Known, bytes: u64) -> bool {
        if bytes > self.bytes_max {
            return false;
        }
        while known.bytes + bytes > self.bytes_max {
            let Some((_, digest)) = known.by_use.pop_first() else {
                return false;
            };
            known.forget(&digest);
            let _ = fs::remove_file(self.path(&digest));
        }
        true
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_string();
        self.pieces.join(&hex[..2]).join(hex)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Counts a piece that is about to be written.
    fn begin(&mut self, digest: Digest, bytes: u64, touched: SystemTime) {
        self.bytes += bytes;
        let used = None;
        self.entries.insert(
            digest,
            Entry {
                bytes,
                used,
                touched,
            },
        );
    }

    /// The piece is there, and newer than all else.
    fn finish(&mut self, digest: &Digest) {
        let Some(entry) = self.entries.get_mut(digest) else {
            return;
        };
        self.uses += 1;
        if let Some(used) = entry.used.replace(self.uses) {
            self.by_use.remove(&used);
        }
        self.by_use.insert(self.uses, *digest);
    }

    fn is_whole(&self, digest: &Digest) -> bool {
        self.entries
            .get(digest)
            .is_some_and(|entry| entry.used.is_some())
    }

    /// `None` if it is not here, else whether its file should say when it was used.
    fn note_use(&mut self, digest: &Digest) -> Option<bool> {
        if !self.is_whole(digest) {
            return None;
        }
        self.finish(digest);
        let entry = self.entries.get_mut(digest)?;
        let touch = entry
            .touched
            .elapsed()
            .is_ok_and(|since| since >= TOUCH_AFTER);
        if touch {
            entry.touched = SystemTime::now();
        }
        Some(touch)
    }

    fn forget(&mut self, digest: &Digest) {
        let Some(entry) = self.entries.remove(digest) else {
            return;
        };
        self.bytes -= entry.bytes;
        if let Some(used) = entry.used {
            self.by_use.remove(&used);
        }
    }
}

#[cfg(test)]
mod tests;

//! Layers as they came from registries, in files that are named by whose they are and what is in them.
//!
//! ```text
//! blobs/<scope>/<digest>     whole and verified; put there by a rename
//! partial/<scope>-<digest>   what was fetched of one; locked while it is written to
//! ```
//!
//! Two processes may share the folder for a while, as when a new binary takes over from one that
//! runs: each then bounds what it knows of, and a file that the other removed is fetched again.

mod partial;
mod scan;

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

pub(crate) use partial::{BeginError, CommitError, Partial};

use crate::Digest;

/// Whose layers: of everyone who may ask a registry, or of those who gave credentials for it. A
/// registry is believed about its own layers only, and one with credentials about those that these
/// credentials open: else who names the digest of another's layer would be given it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Scope(Digest);

impl Scope {
    pub(crate) fn public(host: &str) -> Self {
        Self(Digest::of(host.as_bytes()))
    }

    pub(crate) fn private(host: &str, scope: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(host);
        // In no host: so no two pairs are one text.
        hasher.update([0]);
        hasher.update(scope);
        Self(Digest::of_hasher(hasher))
    }
}

/// A layer of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) scope: Scope,
    pub(crate) digest: Digest,
}

/// That all room is taken by layers that are being read or fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

pub(crate) struct Cache {
    blobs: PathBuf,
    partials: PathBuf,
    bytes_max: u64,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    blobs: HashMap<Key, Entry>,
    /// What nobody writes to.
    partials: HashMap<Key, Entry>,
    /// Of all these, and of what is being fetched, with what is still to come.
    bytes: u64,
    /// Grows by one with each use.
    clock: u64,
}

struct Entry {
    bytes: u64,
    used: u64,
    readers: usize,
}

/// Keeps a layer in the cache while it is read.
pub(crate) struct Lease {
    cache: Arc<Cache>,
    key: Key,
}

impl Cache {
    /// Makes the folders, sweeps them, and learns what is in them.
    pub(crate) fn open(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        let (blobs, partials) = (dir.join("blobs"), dir.join("partial"));
        for dir in [&blobs, &partials] {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let cache = Self {
            known: Mutex::new(scan::scan(&blobs, &partials)?),
            blobs,
            partials,
            bytes_max,
        };
        // What does not go here goes with the next layer.
        let _ = cache.make_room(&mut cache.lock(), 0);
        Ok(cache)
    }

    /// A layer for reading, if it is here. Blocks on the disk.
    pub(crate) fn find(self: &Arc<Self>, key: Key) -> io::Result<Option<(File, Lease)>> {
        let mut known = self.lock();
        let file = match File::open(self.blob_path(&key)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                known.forget(&key);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let bytes = file.metadata()?.len();
        // For who opens the cache next; in this process the clock counts.
        let _ = file.set_modified(SystemTime::now());
        known.use_blob(key, bytes);
        let cache = Arc::clone(self);
        Ok(Some((file, Lease { cache, key })))
    }

    /// Removes what was used least lately until `bytes` more fit.
    fn make_room(&self, known: &mut Known, bytes: u64) -> Result<(), Full> {
        while known.bytes.saturating_add(bytes) > self.bytes_max {
            let blobs = known.blobs.iter().map(|(key, entry)| (key, entry, false));
            let partials = known.partials.iter().map(|(key, entry)| (key, entry, true));
            let idle = blobs
                .chain(partials)
                .filter(|(_, entry, _)| entry.readers == 0);
            let oldest = idle.min_by_key(|(_, entry, _)| entry.used);
            let Some((&key, _, is_partial)) = oldest else {
                return Err(Full);
            };
            let path = match is_partial {
                true => self.partial_path(&key),
                false => self.blob_path(&key),
            };
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "a layer stays in the cache");
                return Err(Full);
            }
            let map = match is_partial {
                true => &mut known.partials,
                false => &mut known.blobs,
            };
            let gone = map.remove(&key).map_or(0, |entry| entry.bytes);
            known.bytes = known.bytes.saturating_sub(gone);
        }
        Ok(())
    }

    fn blob_path(&self, key: &Key) -> PathBuf {
        self.blobs.join(key.scope.0.hex()).join(key.digest.hex())
    }

    fn partial_path(&self, key: &Key) -> PathBuf {
        let name = format!("{}-{}", key.scope.0.hex(), key.digest.hex());
        self.partials.join(name)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Of what a panic left undone only sums can be off, and the files say what is there.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn use_blob(&mut self, key: Key, bytes: u64) {
        let used = self.tick();
        let entry = self.blobs.entry(key).or_insert_with(|| {
            self.bytes = self.bytes.saturating_add(bytes);
            Entry {
                bytes,
                used,
                readers: 0,
            }
        });
        entry.used = used;
        entry.readers += 1;
    }

    /// A file that is gone.
    fn forget(&mut self, key: &Key) {
        if let Some(entry) = self.blobs.remove(key) {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
    }

    fn release(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut known = self.cache.lock();
        if let Some(entry) = known.blobs.get_mut(&self.key) {
            entry.readers = entry.readers.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests;

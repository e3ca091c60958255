//! A layer on its way into the cache.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{Cache, Entry, Full, Key};
use crate::Digest;

/// A file that grows to a whole layer. Room for all of it is kept from the beginning. Dropped before
/// [`Partial::commit`] it stays, to be gone on with, until the room is wanted.
pub(crate) struct Partial {
    cache: Arc<Cache>,
    key: Key,
    path: PathBuf,
    file: File,
    hasher: Sha256,
    length: u64,
    size: u64,
    /// Whether another may go on with it: nobody else has the usual name meanwhile.
    resumable: bool,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    Growing,
    /// Of no use to anyone.
    Spoiled,
    Committed,
}

/// Why what was fetched did not become a layer.
#[derive(Debug)]
pub(crate) enum CommitError {
    WrongDigest,
    Io(io::Error),
}

/// Why a layer cannot be begun.
#[derive(Debug)]
pub(crate) enum BeginError {
    Full,
    Io(io::Error),
}

impl From<io::Error> for BeginError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Cache {
    /// Begins a layer of `size` bytes, or goes on with one. Blocks on the disk, as all of this does.
    pub(crate) fn begin(self: &Arc<Self>, key: Key, size: u64) -> Result<Partial, BeginError> {
        let path = self.partial_path(&key);
        let (file, path, resumable) = {
            let mut known = self.lock();
            let left = known.partials.remove(&key);
            known.release(left.as_ref().map_or(0, |entry| entry.bytes));
            if let Err(Full) = self.make_room(&mut known, size) {
                if let Some(left) = left {
                    known.bytes = known.bytes.saturating_add(left.bytes);
                    known.partials.insert(key, left);
                }
                return Err(BeginError::Full);
            }
            // Opened under the lock: else it could be removed for room in between.
            let opened = open(path)?;
            known.bytes = known.bytes.saturating_add(size);
            opened
        };
        let mut partial = Partial {
            cache: Arc::clone(self),
            key,
            path,
            file,
            hasher: Sha256::new(),
            length: 0,
            size,
            resumable,
            state: State::Growing,
        };
        partial.take_in()?;
        Ok(partial)
    }
}

/// The usual file, or one of its own where another process writes to that.
fn open(path: PathBuf) -> io::Result<(File, PathBuf, bool)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    let file = options.open(&path)?;
    match file.try_lock() {
        Ok(()) => return Ok((file, path, true)),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let mut name = path.into_os_string();
    name.push(format!("-{}", hex::encode(random)));
    let path = PathBuf::from(name);
    let file = options.create_new(true).open(&path)?;
    file.try_lock().map_err(io::Error::from)?;
    Ok((file, path, false))
}

impl Partial {
    /// Bytes that are here.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Hashes what another left. What is longer than the whole is of no use.
    fn take_in(&mut self) -> io::Result<()> {
        if self.file.metadata()?.len() > self.size {
            return self.reset();
        }
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => {
                    self.hasher.update(&buffer[..n]);
                    self.length += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Begins from nothing.
    pub(crate) fn reset(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        (self.hasher, self.length, self.state) = (Sha256::new(), 0, State::Growing);
        Ok(())
    }

    /// Adds what came next; the caller sees to it that it is not more than the whole.
    pub(crate) fn append(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        for chunk in chunks {
            if let Err(error) = self.file.write_all(chunk) {
                // How much of it was written is not known.
                self.state = State::Spoiled;
                return Err(error);
            }
            self.hasher.update(chunk);
            self.length += chunk.len() as u64;
        }
        Ok(())
    }

    /// Makes a layer of it, if its digest is right. It is on the disk before it has its name: a loss
    /// of power leaves no layer that only looks whole.
    pub(crate) fn commit(&mut self) -> Result<(), CommitError> {
        if Digest::of_hasher(self.hasher.clone()) != self.key.digest {
            self.state = State::Spoiled;
            return Err(CommitError::WrongDigest);
        }
        let blob = self.cache.blob_path(&self.key);
        self.publish(&blob).map_err(CommitError::Io)
    }

    fn publish(&mut self, blob: &std::path::Path) -> io::Result<()> {
        self.file.sync_all()?;
        if let Some(dir) = blob.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let mut known = self.cache.lock();
        fs::rename(&self.path, blob)?;
        self.state = State::Committed;
        known.release(self.size);
        // Two processes, or two files, may have had it at once.
        let before = known.blobs.remove(&self.key);
        known.release(before.as_ref().map_or(0, |entry| entry.bytes));
        known.bytes = known.bytes.saturating_add(self.length);
        let entry = Entry {
            bytes: self.length,
            used: known.tick(),
            readers: before.map_or(0, |entry| entry.readers),
        };
        known.blobs.insert(self.key, entry);
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.state == State::Committed {
            return;
        }
        let mut known = self.cache.lock();
        known.release(self.size);
        if self.resumable && self.state == State::Growing && self.length > 0 {
            let used = known.tick();
            known.bytes = known.bytes.saturating_add(self.length);
            let entry = Entry {
                bytes: self.length,
                used,
                readers: 0,
            };
            known.partials.insert(self.key, entry);
        } else if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a partial layer stays");
        }
    }
}

//! The artifacts of one bucket, as one process uses them.

mod get;
mod known;
mod list;
mod put;
mod reader;
mod sweep;

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::bucket::{Bucket, BucketError};
use crate::cache::{Cache, CacheError};
use crate::clock::Clock;
use crate::config::{ArtifactsConfig, BucketConfig};
use crate::error::{ArtifactError, What};
use crate::names::{self, FORMAT, FORMAT_TEXT, Scope};
use crate::{ARTIFACT_BYTES_MAX, Digest};

pub use get::Artifact;
use get::Flights;
use known::Known;
pub use list::ManifestEntry;
pub use put::{Put, PutRequest};
pub use reader::ArtifactReader;
pub use sweep::{SweepLimits, Swept};

/// What a row keeps of an artifact: all else is found and checked by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ArtifactRef {
    pub manifest: Digest,
    /// Length of the whole.
    pub bytes: u64,
}

/// That a text is not `DIGEST-BYTES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a reference is a digest, a hyphen and a length of at most 1 TiB")]
pub struct NotARef;

impl fmt::Display for ArtifactRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.manifest, self.bytes)
    }
}

impl FromStr for ArtifactRef {
    type Err = NotARef;

    fn from_str(text: &str) -> Result<Self, NotARef> {
        let (manifest, bytes) = text.split_once('-').ok_or(NotARef)?;
        let manifest = manifest.parse().map_err(|_| NotARef)?;
        let bytes: u64 = bytes.parse().map_err(|_| NotARef)?;
        let parsed = Self { manifest, bytes };
        // One text for each: no leading zeros or signs.
        match bytes <= ARTIFACT_BYTES_MAX && parsed.to_string() == text {
            true => Ok(parsed),
            false => Err(NotARef),
        }
    }
}

/// Why the artifacts of a bucket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// A bucket's artifacts. Cheap to clone; clones share cache, bounds and what is on its way.
#[derive(Clone)]
pub struct Artifacts {
    shared: Arc<Shared>,
}

struct Shared {
    bucket: Bucket,
    clock: Clock,
    cache: Option<Arc<Cache>>,
    /// One for each piece that is on its way.
    slots: Arc<Semaphore>,
    ahead: usize,
    /// Pieces that are surely in the bucket.
    known: Mutex<Known>,
    flights: Flights,
    /// Whether the bucket's layout was checked.
    layout: AtomicBool,
}

impl Artifacts {
    /// Sets up client and cache; asks nothing of the bucket yet, which may be down. Blocks on the
    /// disk: the cache's folder is read through.
    pub fn open(bucket: &BucketConfig, config: &ArtifactsConfig) -> Result<Self, OpenError> {
        let clock = Clock::system();
        let bucket = Bucket::open(bucket, clock.clone())?;
        Self::of(bucket, clock, config)
    }

    /// [`Self::open`] with a clock of its own, in seconds since 1970: for tests of what happens in
    /// days.
    pub fn open_with_clock(
        bucket: &BucketConfig,
        config: &ArtifactsConfig,
        seconds: Arc<AtomicU64>,
    ) -> Result<Self, OpenError> {
        let clock = Clock::set_by(seconds);
        let bucket = Bucket::open(bucket, clock.clone())?;
        Self::of(bucket, clock, config)
    }

    /// A bucket that is gone with the process: for tests, and for the caller's own.
    pub fn in_memory(config: &ArtifactsConfig) -> Result<Self, OpenError> {
        Self::of(Bucket::in_memory(), Clock::system(), config)
    }

    fn of(bucket: Bucket, clock: Clock, config: &ArtifactsConfig) -> Result<Self, OpenError> {
        let cache = config.cache.as_ref().map(Cache::open).transpose()?;
        let shared = Shared {
            bucket,
            clock,
            cache: cache.map(Arc::new),
            slots: Arc::new(Semaphore::new(config.pieces_at_once.max(1))),
            ahead: config.ahead.max(1),
            known: Mutex::default(),
            flights: Flights::default(),
            layout: AtomicBool::new(false),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Whether the bucket lets us read and is laid out as ours, or not at all yet. Writes nothing.
    pub async fn look(&self) -> Result<(), ArtifactError> {
        match self.shared.read_layout().await {
            Ok(found) if found == FORMAT_TEXT => Ok(()),
            Ok(found) => Err(other_layout(&found)),
            // It is empty; the first who stores makes one.
            Err(ArtifactError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes an artifact: nobody can open it any more, and its pieces go with a later sweep unless
    /// others have them too. Gone already is done. Who has it open may find pieces missing days later.
    pub async fn remove(&self, scope: &Scope, artifact: &ArtifactRef) -> Result<(), ArtifactError> {
        let name = names::manifest(scope, &artifact.manifest);
        let what = What::Manifest(artifact.manifest);
        self.shared.bucket.delete(&[name], what).await
    }

    /// Bytes in the local cache, and how many pieces they are; nothing without one.
    pub fn cached(&self) -> (u64, usize) {
        self.shared
            .cache
            .as_ref()
            .map(|cache| cache.size())
            .unwrap_or_default()
    }
}

impl Shared {
    /// Checks which layout the bucket has, once; makes it in an empty one. It is also how the
    /// bucket's clock is heard before anything depends on it.
    async fn check_layout(&self) -> Result<(), ArtifactError> {
        if self.layout.load(Ordering::Relaxed) {
            return Ok(());
        }
        let found = match self.bucket.read(FORMAT, 4096, What::Layout).await {
            Ok(found) => found.unwrap_or_default(),
            Err(ArtifactError::NotFound { .. }) => {
                let text = Bytes::from_static(FORMAT_TEXT);
                match self
                    .bucket
                    .create(FORMAT, text.clone(), What::Layout)
                    .await?
                {
                    true => text,
                    false => self.read_layout().await?,
                }
            }
            Err(error) => return Err(error),
        };
        if found != FORMAT_TEXT {
            return Err(other_layout(&found));
        }
        self.layout.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn read_layout(&self) -> Result<Bytes, ArtifactError> {
        let found = self.bucket.read(FORMAT, 4096, What::Layout).await?;
        Ok(found.unwrap_or_default())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn other_layout(found: &[u8]) -> ArtifactError {
    let text = String::from_utf8_lossy(found);
    ArtifactError::Layout {
        found: text.chars().take(40).collect(),
    }
}

impl fmt::Debug for Artifacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Artifacts").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_has_one_text() {
        let artifact = ArtifactRef {
            manifest: Digest::of(b""),
            bytes: 7,
        };
        let text = artifact.to_string();
        assert_eq!(text.parse(), Ok(artifact));
        for wrong in [
            "",
            "-7",
            &text[1..],
            &text.replace("-7", "-07"),
            &text.replace("-7", "-+7"),
        ] {
            assert_eq!(wrong.parse::<ArtifactRef>(), Err(NotARef), "{wrong}");
        }
    }
}

//! Artifacts out of the bucket: the manifest first, then the pieces that are wanted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::future::{BoxFuture, Shared as SharedFuture, WeakShared};
use futures_util::{FutureExt, StreamExt};
use tokio_util::task::AbortOnDropHandle;

use super::known::Stored;
use super::put::blocking;
use super::reader::ArtifactReader;
use super::{ArtifactRef, Artifacts, Shared};
use crate::error::{ArtifactError, Corruption, What};
use crate::manifest::{self, Kind, Manifest, NotAManifest, Piece};
use crate::names::{self, Scope};
use crate::piece::{self, OVERHEAD, Wrong};
use crate::{ARTIFACT_BYTES_MAX, Digest};

/// A piece on its way, for all who want it. It is given up when nobody wants it any more.
pub(super) type Flight = SharedFuture<BoxFuture<'static, Result<Bytes, ArtifactError>>>;
type WeakFlight = WeakShared<BoxFuture<'static, Result<Bytes, ArtifactError>>>;

/// Pieces that are on their way, by their names.
#[derive(Default)]
pub(super) struct Flights(Mutex<HashMap<String, WeakFlight>>);

/// An artifact whose manifest was checked. Cheap to clone.
#[derive(Clone)]
pub struct Artifact {
    pub(super) shared: Arc<Shared>,
    scope: Scope,
    manifest: Arc<Manifest>,
    /// Where each piece begins.
    starts: Arc<Vec<u64>>,
}

impl Artifacts {
    /// Fetches and checks an artifact's manifest.
    pub async fn open_artifact(
        &self,
        scope: &Scope,
        artifact: &ArtifactRef,
    ) -> Result<Artifact, ArtifactError> {
        let what = What::Manifest(artifact.manifest);
        let corrupt = |why| ArtifactError::Corrupt {
            what,
            why: Corruption::Manifest(why),
        };
        let bytes = artifact.bytes;
        if bytes > ARTIFACT_BYTES_MAX {
            return Err(ArtifactError::TooLarge {
                bytes_max: ARTIFACT_BYTES_MAX,
            });
        }
        let len_max = manifest::len_max(bytes);
        let manifest = self
            .shared
            .read_manifest(scope, &artifact.manifest, len_max)
            .await?;
        if manifest.bytes != bytes {
            return Err(corrupt(NotAManifest::Sum));
        }
        let mut starts = Vec::with_capacity(manifest.pieces.len());
        let mut start = 0;
        let mut known = self.shared.known();
        for piece in &manifest.pieces {
            starts.push(start);
            start += u64::from(piece.plain_len);
            let Piece {
                digest,
                period,
                stored_len,
                ..
            } = *piece;
            known.insert(scope, digest, Stored { period, stored_len });
        }
        drop(known);
        Ok(Artifact {
            shared: Arc::clone(&self.shared),
            scope: scope.clone(),
            manifest: Arc::new(manifest),
            starts: Arc::new(starts),
        })
    }
}

impl Artifact {
    pub fn bytes(&self) -> u64 {
        self.manifest.bytes
    }

    pub fn kind(&self) -> Kind {
        self.manifest.kind
    }

    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// SHA-256 of the whole, as it was put.
    pub fn whole(&self) -> Digest {
        self.manifest.whole
    }

    /// `len` bytes from `offset`, all of them in the artifact. Only the pieces that they lie in are
    /// fetched. Takes `len` and some pieces of memory.
    pub async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, ArtifactError> {
        let end = self.end_of(offset, len as u64)?;
        let (first, last) = self.pieces_of(offset, end);
        let flights = (first..last).map(|number| self.piece(number));
        let mut pieces = futures_util::stream::iter(flights)
            .buffered(self.shared.ahead)
            .enumerate();
        let mut read = BytesMut::with_capacity(len);
        while let Some((at, piece)) = pieces.next().await {
            read.extend_from_slice(&self.part(first + at, &piece?, offset, end));
        }
        Ok(read.freeze())
    }

    /// Reads the whole.
    pub fn reader(&self) -> ArtifactReader {
        ArtifactReader::new(self.clone(), 0, self.bytes())
    }

    /// Reads `len` bytes from `offset`, all of them in the artifact.
    pub fn reader_at(&self, offset: u64, len: u64) -> Result<ArtifactReader, ArtifactError> {
        let end = self.end_of(offset, len)?;
        Ok(ArtifactReader::new(self.clone(), offset, end))
    }

    fn end_of(&self, offset: u64, len: u64) -> Result<u64, ArtifactError> {
        let (end, bytes) = (offset.saturating_add(len), self.bytes());
        match end <= bytes {
            true => Ok(end),
            false => Err(ArtifactError::Range { offset, end, bytes }),
        }
    }

    /// The numbers of the pieces that these bytes lie in: the first, and the one after the last.
    pub(super) fn pieces_of(&self, offset: u64, end: u64) -> (usize, usize) {
        if offset == end {
            return (0, 0);
        }
        let first = self.starts.partition_point(|start| *start <= offset) - 1;
        (first, self.starts.partition_point(|start| *start < end))
    }

    /// What of this piece lies between the two.
    pub(super) fn part(&self, number: usize, piece: &Bytes, offset: u64, end: u64) -> Bytes {
        let start = self.starts[number];
        let within = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
        piece.slice(within(offset).min(piece.len())..within(end).min(piece.len()))
    }

    /// Fetches a piece, together with whoever fetches it too.
    pub(super) fn piece(&self, number: usize) -> Flight {
        self.shared.fly(&self.scope, self.manifest.pieces[number])
    }
}

impl Shared {
    /// A manifest of at most `len_max` bytes, checked; read twice if it is wrong.
    pub(super) async fn read_manifest(
        &self,
        scope: &Scope,
        digest: &Digest,
        len_max: u64,
    ) -> Result<Manifest, ArtifactError> {
        let name = names::manifest(scope, digest);
        let what = What::Manifest(*digest);
        let mut wrong = NotAManifest::TooLong;
        for _ in 0..2 {
            wrong = match self.bucket.read(&name, len_max, what).await? {
                None => NotAManifest::TooLong,
                Some(bytes) => {
                    let digest = *digest;
                    match blocking(move || Manifest::decode(&bytes, &digest)).await? {
                        Ok(manifest) => return Ok(manifest),
                        Err(wrong) => wrong,
                    }
                }
            };
        }
        Err(ArtifactError::Corrupt {
            what,
            why: wrong.into(),
        })
    }

    fn fly(self: &Arc<Self>, scope: &Scope, piece: Piece) -> Flight {
        let name = names::piece(scope, piece.period, &piece.digest);
        let mut flights = self
            .flights
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&name).and_then(WeakShared::upgrade) {
            return flight;
        }
        let (scope, landing) = (
            scope.clone(),
            Landing {
                shared: Arc::clone(self),
                name: name.clone(),
            },
        );
        // Goes on while who asked does something else, and ends when all who asked are gone.
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            landing.shared.fetch(&scope, piece, &landing.name).await
        }));
        let flight = async { task.await.unwrap_or(Err(ArtifactError::Ended)) }
            .boxed()
            .shared();
        if let Some(weak) = flight.downgrade() {
            flights.insert(name, weak);
        }
        flight
    }

    /// From the cache or the bucket, checked; what is wrong in the bucket is read once more.
    async fn fetch(
        self: &Arc<Self>,
        scope: &Scope,
        piece: Piece,
        name: &str,
    ) -> Result<Bytes, ArtifactError> {
        let _slot = self
            .slots
            .acquire()
            .await
            .map_err(|_| ArtifactError::Ended)?;
        let Piece {
            digest, plain_len, ..
        } = piece;
        if let Some(plain) = self.cached_piece(piece).await? {
            return Ok(plain);
        }
        let what = What::Piece(digest);
        let len_max = u64::from(plain_len) + OVERHEAD as u64;
        let mut wrong = Wrong::TooLong;
        for _ in 0..2 {
            let stored = match self.bucket.read(name, len_max, what).await {
                Ok(stored) => stored,
                Err(error) => {
                    self.known().forget(scope, &digest);
                    return Err(error);
                }
            };
            let Some(stored) = stored else { continue };
            let cache = self.cache.clone();
            let decoded = blocking(move || {
                let plain = piece::decode(&stored, &digest, plain_len as usize)?;
                if let Some(cache) = cache {
                    cache.insert(&digest, &stored);
                }
                Ok(plain)
            });
            match decoded.await? {
                Ok(plain) => return Ok(plain),
                Err(found) => wrong = found,
            }
        }
        self.known().forget(scope, &digest);
        Err(ArtifactError::Corrupt {
            what,
            why: wrong.into(),
        })
    }

    async fn cached_piece(&self, piece: Piece) -> Result<Option<Bytes>, ArtifactError> {
        let Some(cache) = self.cache.clone() else {
            return Ok(None);
        };
        let Piece {
            digest, plain_len, ..
        } = piece;
        let len_max = plain_len as usize + OVERHEAD;
        blocking(move || {
            let stored = cache.find(&digest, len_max)?;
            let plain = piece::decode(&stored, &digest, plain_len as usize);
            // Torn by a crash, or changed on the disk.
            if plain.is_err() {
                cache.remove(&digest);
            }
            plain.ok()
        })
        .await
    }
}

/// Takes a flight off the list, however it ends. Should another of the same name have begun by
/// then, its piece may be fetched once more than it had to.
struct Landing {
    shared: Arc<Shared>,
    name: String,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let flights = self.shared.flights.0.lock();
        flights
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.name);
    }
}

impl std::fmt::Debug for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Artifact")
            .field("scope", &self.scope)
            .field("name", &self.manifest.name)
            .field("bytes", &self.manifest.bytes)
            .finish_non_exhaustive()
    }
}

//! Artifacts into the bucket: pieces side by side, the manifest last.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinSet;

use super::known::Stored;
use super::{ArtifactRef, Artifacts, Shared};
use crate::cut::{PIECE_MAX, cut};
use crate::error::{ArtifactError, What};
use crate::manifest::{Kind, Manifest, NAME_LEN_MAX, Piece};
use crate::names::{self, Period, Scope};
use crate::{ARTIFACT_BYTES_MAX, Digest, piece};

/// What is to be put, beside its content.
#[derive(Debug, Clone)]
pub struct PutRequest<'a> {
    pub scope: &'a Scope,
    pub kind: Kind,
    /// For people who look at the bucket; cut after [`NAME_LEN_MAX`] bytes.
    pub name: &'a str,
    /// More than this is refused; never more than [`ARTIFACT_BYTES_MAX`].
    pub bytes_max: u64,
    /// An artifact of the scope that this one is much like, as the last snapshot of the same sandbox:
    /// its pieces are then not looked for one by one. One that is gone does no harm.
    pub like: Option<ArtifactRef>,
}

/// What was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Put {
    pub artifact: ArtifactRef,
    /// SHA-256 of the whole.
    pub whole: Digest,
    pub pieces: usize,
    /// Pieces that were not there before.
    pub pieces_new: usize,
    /// Bytes of these, as they were sent.
    pub bytes_sent: u64,
}

impl Artifacts {
    /// Stores a stream to its end. Nothing refers to what was uploaded before the manifest is, so a
    /// put that fails or is dropped leaves pieces for the sweep at most, which a second one of the
    /// same content finds and does not upload again.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends all its requests.
    pub async fn put(
        &self,
        request: PutRequest<'_>,
        source: impl AsyncRead + Unpin + Send,
    ) -> Result<Put, ArtifactError> {
        self.shared.check_layout().await?;
        if let Some(like) = &request.like {
            // It saves requests and nothing else.
            let _ = self.open_artifact(request.scope, like).await;
        }
        let stored = self.put_pieces(&request, source).await?;
        self.put_manifest(&request, stored).await
    }

    async fn put_pieces(
        &self,
        request: &PutRequest<'_>,
        mut source: impl AsyncRead + Unpin + Send,
    ) -> Result<StoredPieces, ArtifactError> {
        let bytes_max = request.bytes_max.min(ARTIFACT_BYTES_MAX);
        let mut stored = StoredPieces::default();
        let mut uploads = JoinSet::new();
        let mut buffer = BytesMut::new();
        let mut whole = Sha256::new();
        let mut count = 0;
        loop {
            fill(&mut buffer, &mut source).await?;
            if buffer.is_empty() {
                break;
            }
            let piece;
            (buffer, piece, whole) = blocking(move || {
                let piece = buffer.split_to(cut(&buffer)).freeze();
                whole.update(&piece);
                (buffer, piece, whole)
            })
            .await?;
            stored.bytes += piece.len() as u64;
            if stored.bytes > bytes_max {
                return Err(ArtifactError::TooLarge { bytes_max });
            }
            let slot = Arc::clone(&self.shared.slots).acquire_owned();
            let slot = slot.await.map_err(|_| ArtifactError::Ended)?;
            let (shared, scope) = (Arc::clone(&self.shared), request.scope.clone());
            // Ends with the set, which ends with this future.
            uploads.spawn(async move {
                let uploaded = shared.put_piece(&scope, piece).await;
                drop(slot);
                (count, uploaded)
            });
            count += 1;
            while let Some(ended) = uploads.try_join_next() {
                stored.take(ended)?;
            }
        }
        while let Some(ended) = uploads.join_next().await {
            stored.take(ended)?;
        }
        stored.pieces.sort_unstable_by_key(|(number, _)| *number);
        stored.whole = Some(Digest::of_hasher(whole));
        Ok(stored)
    }

    async fn put_manifest(
        &self,
        request: &PutRequest<'_>,
        stored: StoredPieces,
    ) -> Result<Put, ArtifactError> {
        let whole = stored.whole.unwrap_or_else(|| Digest::of(b""));
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|_| ArtifactError::Ended)?;
        let manifest = Manifest {
            kind: request.kind,
            name: shortened(request.name).to_owned(),
            nonce,
            bytes: stored.bytes,
            whole,
            pieces: stored.pieces.into_iter().map(|(_, piece)| piece).collect(),
        };
        // Those that were named first may have grown old since.
        let now = Period::at(self.shared.clock.now());
        if !manifest
            .pieces
            .iter()
            .all(|piece| piece.period.is_young(now))
        {
            return Err(ArtifactError::Outlived);
        }
        let bytes = Bytes::from(manifest.encode());
        let digest = Digest::of(&bytes);
        let name = names::manifest(request.scope, &digest);
        let what = What::Manifest(digest);
        // A first try whose answer was lost may have made it.
        self.shared.bucket.create(&name, bytes, what).await?;
        Ok(Put {
            artifact: ArtifactRef {
                manifest: digest,
                bytes: manifest.bytes,
            },
            whole,
            pieces: manifest.pieces.len(),
            pieces_new: stored.new,
            bytes_sent: stored.sent,
        })
    }
}

#[derive(Default)]
struct StoredPieces {
    pieces: Vec<(usize, Piece)>,
    new: usize,
    bytes: u64,
    sent: u64,
    whole: Option<Digest>,
}

type Uploaded = (usize, Result<(Piece, bool), ArtifactError>);

impl StoredPieces {
    fn take(
        &mut self,
        ended: Result<Uploaded, tokio::task::JoinError>,
    ) -> Result<(), ArtifactError> {
        let (number, uploaded) = ended.map_err(|_| ArtifactError::Ended)?;
        let (piece, new) = uploaded?;
        if new {
            self.new += 1;
            self.sent += u64::from(piece.stored_len);
        }
        self.pieces.push((number, piece));
        Ok(())
    }
}

impl Shared {
    /// Sees to it that a piece is in the bucket under a young name; answers with whether it was not.
    async fn put_piece(&self, scope: &Scope, plain: Bytes) -> Result<(Piece, bool), ArtifactError> {
        let plain_len = u32::try_from(plain.len()).expect("a piece has at most 4 MiB");
        let (plain, digest) = blocking(move || {
            let digest = Digest::of(&plain);
            (plain, digest)
        })
        .await?;
        let now = Period::at(self.clock.now());
        let known = self.known().find(scope, &digest, now);
        let found = match known {
            Some(stored) => Some(stored),
            None => self.find_piece(scope, &digest, now, plain_len).await?,
        };
        let (stored, new) = match found {
            Some(stored) => (stored, false),
            None => self.upload_piece(scope, digest, now, plain).await?,
        };
        self.known().insert(scope, digest, stored);
        let Stored { period, stored_len } = stored;
        Ok((
            Piece {
                digest,
                plain_len,
                stored_len,
                period,
            },
            new,
        ))
    }

    async fn find_piece(
        &self,
        scope: &Scope,
        digest: &Digest,
        now: Period,
        plain_len: u32,
    ) -> Result<Option<Stored>, ArtifactError> {
        for period in [now, now.before()] {
            let name = names::piece(scope, period, digest);
            let found = self.bucket.find(&name, What::Piece(*digest)).await?;
            // One that cannot be right is no piece: it is not relied on.
            let fits = |len: &u64| (1..=u64::from(plain_len) + 1).contains(len);
            if let Some(stored_len) = found.filter(fits).and_then(|len| u32::try_from(len).ok()) {
                return Ok(Some(Stored { period, stored_len }));
            }
        }
        Ok(None)
    }

    async fn upload_piece(
        &self,
        scope: &Scope,
        digest: Digest,
        period: Period,
        plain: Bytes,
    ) -> Result<(Stored, bool), ArtifactError> {
        let stored = Bytes::from(blocking(move || piece::encode(&plain)).await?);
        let stored_len = u32::try_from(stored.len()).expect("a stored piece has a byte more");
        let (name, what) = (names::piece(scope, period, &digest), What::Piece(digest));
        // Where another was faster, or a try whose answer was lost, it is as long as this, or nearly.
        let new = self.bucket.create(&name, stored, what).await?;
        Ok((Stored { period, stored_len }, new))
    }
}

/// Reads until a whole piece is there, or the end.
async fn fill(
    buffer: &mut BytesMut,
    source: &mut (impl AsyncRead + Unpin + Send),
) -> Result<(), ArtifactError> {
    buffer.reserve(PIECE_MAX - buffer.len());
    while buffer.len() < PIECE_MAX {
        let room = (PIECE_MAX - buffer.len()) as u64;
        match (&mut *source).take(room).read_buf(buffer).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ArtifactError::Source(Arc::new(error))),
        }
    }
    Ok(())
}

/// Work that takes a core for a while.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ArtifactError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| ArtifactError::Ended)
}

fn shortened(name: &str) -> &str {
    let mut end = name.len().min(NAME_LEN_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

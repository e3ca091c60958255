//! What an artifact consists of. Stored under its own digest, in this form (numbers little-endian):
//!
//! ```text
//! 7 bytes   `cmartif`
//! 1         version, 1
//! 1         kind: 1 layer, 2 files, 3 upload
//! 1 + n     length of the name, the name (UTF-8, at most 255 bytes)
//! 16        random, so that no two puts have one manifest: who removes his own removes no other's
//! 8         length of the whole
//! 32        SHA-256 of the whole
//! 4         number of pieces
//! 44 each   SHA-256, length, stored length, period
//! ```
//!
//! Old and new: there is one version; a reader refuses others.

use crate::Digest;
use crate::cut::{PIECE_MAX, PIECE_MIN};
use crate::names::Period;
use crate::piece::OVERHEAD;

const MAGIC: &[u8; 7] = b"cmartif";
const VERSION: u8 = 1;
/// Longest name in bytes.
pub const NAME_LEN_MAX: usize = u8::MAX as usize;
const PIECE_LEN: usize = 44;
/// Everything but pieces, with the longest name.
const HEAD_LEN_MAX: usize = 7 + 1 + 1 + 1 + NAME_LEN_MAX + 16 + 8 + 32 + 4;
/// Longest artifact: 1 TiB, of which the manifest is at most 185 MB.
pub const ARTIFACT_BYTES_MAX: u64 = 1 << 40;

/// What an artifact is to its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A layer of a template.
    Layer,
    /// Files that a pause or snapshot kept.
    Files,
    /// What a client uploaded for a build.
    Upload,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) digest: Digest,
    pub(crate) plain_len: u32,
    /// As it was found or uploaded; what is read is bounded by `plain_len`.
    pub(crate) stored_len: u32,
    pub(crate) period: Period,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) nonce: [u8; 16],
    pub(crate) bytes: u64,
    pub(crate) whole: Digest,
    pub(crate) pieces: Vec<Piece>,
}

/// Why bytes are no manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAManifest {
    #[error("its digest is another")]
    Digest,
    #[error("it is longer than a manifest of its artifact can be")]
    TooLong,
    #[error("it ends too early, or goes on after its end")]
    Length,
    #[error("it begins otherwise")]
    Magic,
    #[error("it is of version {0}")]
    Version(u8),
    #[error("it is of no known kind")]
    Kind,
    #[error("its name is not UTF-8")]
    Name,
    #[error("the length of a piece is out of bounds")]
    Piece,
    #[error("its pieces are not as long as the whole")]
    Sum,
}

/// Most bytes that the manifest of an artifact of this length has: pieces have a least length.
pub(crate) fn len_max(bytes: u64) -> u64 {
    let pieces = bytes / PIECE_MIN as u64 + 1;
    HEAD_LEN_MAX as u64 + pieces.saturating_mul(PIECE_LEN as u64)
}

impl Manifest {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_LEN_MAX + self.pieces.len() * PIECE_LEN);
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        out.push(match self.kind {
            Kind::Layer => 1,
            Kind::Files => 2,
            Kind::Upload => 3,
        });
        let name = &self.name.as_bytes()[..self.name.len().min(NAME_LEN_MAX)];
        out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(name);
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(self.whole.as_bytes());
        let count = u32::try_from(self.pieces.len()).expect("1 TiB has at most 2^22 pieces");
        out.extend_from_slice(&count.to_le_bytes());
        for piece in &self.pieces {
            out.extend_from_slice(piece.digest.as_bytes());
            for number in [piece.plain_len, piece.stored_len, piece.period.0] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        out
    }

    /// What these bytes say, if they have this digest and hold together.
    pub(crate) fn decode(bytes: &[u8], digest: &Digest) -> Result<Self, NotAManifest> {
        if Digest::of(bytes) != *digest {
            return Err(NotAManifest::Digest);
        }
        let mut left = Left(bytes);
        if left.take::<7>()? != MAGIC {
            return Err(NotAManifest::Magic);
        }
        match left.byte()? {
            VERSION => {}
            other => return Err(NotAManifest::Version(other)),
        }
        let kind = match left.byte()? {
            1 => Kind::Layer,
            2 => Kind::Files,
            3 => Kind::Upload,
            _ => return Err(NotAManifest::Kind),
        };
        let name_len = usize::from(left.byte()?);
        let name = left.slice(name_len)?;
        let name = str::from_utf8(name).map_err(|_| NotAManifest::Name)?;
        let nonce = *left.take()?;
        let bytes = u64::from_le_bytes(*left.take()?);
        let whole = Digest::from_bytes(*left.take()?);
        let count = left.number()? as usize;
        if left.0.len() != count.checked_mul(PIECE_LEN).ok_or(NotAManifest::Length)? {
            return Err(NotAManifest::Length);
        }
        let mut pieces = Vec::with_capacity(count);
        for _ in 0..count {
            pieces.push(left.piece()?);
        }
        let sum: u64 = pieces.iter().map(|piece| u64::from(piece.plain_len)).sum();
        if sum != bytes || bytes > ARTIFACT_BYTES_MAX {
            return Err(NotAManifest::Sum);
        }
        let name = name.to_owned();
        Ok(Self {
            kind,
            name,
            nonce,
            bytes,
            whole,
            pieces,
        })
    }
}

/// What is not read yet.
struct Left<'a>(&'a [u8]);

impl<'a> Left<'a> {
    fn slice(&mut self, len: usize) -> Result<&'a [u8], NotAManifest> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(NotAManifest::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], NotAManifest> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(NotAManifest::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, NotAManifest> {
        Ok(self.take::<1>()?[0])
    }

    fn number(&mut self) -> Result<u32, NotAManifest> {
        Ok(u32::from_le_bytes(*self.take()?))
    }

    fn piece(&mut self) -> Result<Piece, NotAManifest> {
        let digest = Digest::from_bytes(*self.take()?);
        let (plain_len, stored_len) = (self.number()?, self.number()?);
        let period = Period(self.number()?);
        let fits = (1..=PIECE_MAX).contains(&(plain_len as usize))
            && (1..=plain_len as usize + OVERHEAD).contains(&(stored_len as usize));
        match fits {
            true => Ok(Piece {
                digest,
                plain_len,
                stored_len,
                period,
            }),
            false => Err(NotAManifest::Piece),
        }
    }
}

#[cfg(test)]
mod tests;

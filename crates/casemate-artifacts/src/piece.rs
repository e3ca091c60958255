//! A piece as it is stored: one byte that says how, then the content. Hostile until its digest is
//! checked.

use bytes::Bytes;

use crate::Digest;

/// What follows is the content itself.
const RAW: u8 = 0;
/// What follows is one zstd frame.
const ZSTD: u8 = 1;
/// Level 1: the stream is as fast as the slowest of bucket, digest and this.
const LEVEL: i32 = 1;

/// How much longer than its content a stored piece may be.
pub(crate) const OVERHEAD: usize = 1;

/// Why what is stored is not the piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    #[error("it is longer than it may be")]
    TooLong,
    #[error("it is cut short or has another length")]
    Length,
    #[error("it is of no known form")]
    Form,
    #[error("it cannot be decompressed")]
    Compressed,
    #[error("its digest is another")]
    Digest,
}

/// Compresses where that makes it at least a sixteenth shorter. Takes a core for milliseconds.
pub(crate) fn encode(plain: &[u8]) -> Vec<u8> {
    let mut stored = vec![ZSTD; zstd::zstd_safe::compress_bound(plain.len()) + OVERHEAD];
    let worth = plain.len() - plain.len() / 16;
    match zstd::bulk::compress_to_buffer(plain, &mut stored[OVERHEAD..], LEVEL) {
        Ok(len) if len < worth => stored.truncate(OVERHEAD + len),
        // Refused only for lack of memory: as good as incompressible.
        Ok(_) | Err(_) => {
            stored.clear();
            stored.push(RAW);
            stored.extend_from_slice(plain);
        }
    }
    stored
}

/// The content of a stored piece, if it has this length and digest. Takes a core for milliseconds,
/// and of memory at most `plain_len` beside what it was given.
pub(crate) fn decode(stored: &Bytes, digest: &Digest, plain_len: usize) -> Result<Bytes, Wrong> {
    if stored.len() > plain_len + OVERHEAD {
        return Err(Wrong::TooLong);
    }
    let plain = match stored.first() {
        Some(&RAW) => stored.slice(1..),
        Some(&ZSTD) => {
            let plain = zstd::bulk::decompress(&stored[1..], plain_len);
            Bytes::from(plain.map_err(|_| Wrong::Compressed)?)
        }
        Some(_) => return Err(Wrong::Form),
        None => return Err(Wrong::Length),
    };
    if plain.len() != plain_len {
        return Err(Wrong::Length);
    }
    match Digest::of(&plain) == *digest {
        true => Ok(plain),
        false => Err(Wrong::Digest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stored: Vec<u8>, plain: &[u8], expected: Result<(), Wrong>) {
        let decoded = decode(&stored.into(), &Digest::of(plain), plain.len());
        assert_eq!(
            decoded.as_deref().map_err(|wrong| *wrong),
            expected.map(|()| plain)
        );
    }

    #[test]
    fn what_is_stored_is_read_and_nothing_else() {
        let plain = b"one and one and one and one and one and one and one and one".repeat(9);
        let stored = encode(&plain);
        assert!(stored.len() < plain.len() && stored[0] == ZSTD);
        check(stored.clone(), &plain, Ok(()));
        check([&[RAW], &plain[..]].concat(), &plain, Ok(()));
        check(vec![], &plain, Err(Wrong::Length));
        check(vec![9, 1], &plain, Err(Wrong::Form));
        check(
            stored[..stored.len() - 1].to_vec(),
            &plain,
            Err(Wrong::Compressed),
        );
        check([&[RAW], &plain[1..]].concat(), &plain, Err(Wrong::Length));
        check(vec![RAW; plain.len() + 2], &plain, Err(Wrong::TooLong));
        let mut flipped = [&[RAW], &plain[..]].concat();
        flipped[20] ^= 1;
        check(flipped, &plain, Err(Wrong::Digest));
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let bomb = encode(&vec![0; 1 << 26]);
        assert!(bomb.len() < 1 << 14);
        let plain = vec![1; 1 << 14];
        check(bomb, &plain, Err(Wrong::Compressed));
    }

    #[test]
    fn what_does_not_shrink_is_stored_as_it_is() {
        let plain: Vec<u8> = (0..64u8)
            .flat_map(|n| *Digest::of(&[n]).as_bytes())
            .collect();
        let stored = encode(&plain);
        assert_eq!((stored[0], stored.len()), (RAW, plain.len() + OVERHEAD));
        check(stored, &plain, Ok(()));
    }
}

//! Where a stream is cut into pieces: by what is in it, so that what was inserted or removed moves
//! only the cuts beside it.
//!
//! A hash rolls over the last 64 bytes; a cut is where its highest bits are zero. More bits are
//! asked for before the wanted length than after it, which keeps lengths close together (Xia et
//! al., FastCDC, 2016). `examples/measure.rs` prints what two trees that differ little share so,
//! and with pieces of a fixed length.

/// Shortest piece, except the last of an artifact.
pub(crate) const PIECE_MIN: usize = 256 << 10;
/// Longest piece, and what each piece that is in flight takes of memory, twice.
pub(crate) const PIECE_MAX: usize = 4 << 20;
/// Length from which on a cut is easier.
const PIECE_WANTED: usize = 1 << 20;

/// As many bytes as the hash knows of.
const WINDOW: usize = 64;
const HARD: u64 = high_bits(21);
const EASY: u64 = high_bits(19);

/// Any random numbers will do; others would only share nothing with what is stored already.
const GEAR: [u64; 256] = gear();

/// Length of the first piece of `data`, which is all that is left or has [`PIECE_MAX`] bytes.
pub(crate) fn cut(data: &[u8]) -> usize {
    let end = data.len().min(PIECE_MAX);
    if end <= PIECE_MIN {
        return end;
    }
    let mut hash = 0u64;
    for &byte in &data[PIECE_MIN - WINDOW..PIECE_MIN] {
        hash = (hash << 1).wrapping_add(GEAR[usize::from(byte)]);
    }
    let easy = end.min(PIECE_WANTED);
    for (range, mask) in [(PIECE_MIN..easy, HARD), (easy..end, EASY)] {
        let start = range.start;
        for (at, &byte) in data[range].iter().enumerate() {
            hash = (hash << 1).wrapping_add(GEAR[usize::from(byte)]);
            if hash & mask == 0 {
                return start + at + 1;
            }
        }
    }
    end
}

const fn high_bits(count: u32) -> u64 {
    u64::MAX << (64 - count)
}

/// Splitmix64 from a fixed seed.
const fn gear() -> [u64; 256] {
    let mut table = [0; 256];
    let mut state = 0x6361_7365_6d61_7465_u64;
    let mut at = 0;
    while at < table.len() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[at] = mixed ^ (mixed >> 31);
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::Digest;

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(99);
            bytes.extend_from_slice(&(state ^ (state >> 29)).to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    fn pieces(mut data: &[u8]) -> Vec<&[u8]> {
        let mut pieces = Vec::new();
        while !data.is_empty() {
            let (piece, rest) = data.split_at(cut(data));
            pieces.push(piece);
            data = rest;
        }
        pieces
    }

    #[test]
    fn pieces_are_the_stream_and_keep_their_bounds() {
        for (len, seed) in [
            (0, 1),
            (1, 2),
            (PIECE_MIN, 3),
            (PIECE_MIN + 1, 4),
            (40 << 20, 5),
        ] {
            let data = noise(len, seed);
            let pieces = pieces(&data);
            assert_eq!(pieces.concat(), data);
            for (at, piece) in pieces.iter().enumerate() {
                let last = at + 1 == pieces.len();
                assert!(piece.len() <= PIECE_MAX && (last || piece.len() >= PIECE_MIN));
            }
        }
        assert!(
            pieces(&vec![0; 9 << 20])
                .iter()
                .take(2)
                .all(|p| p.len() == PIECE_MAX)
        );
    }

    #[test]
    fn lengths_are_around_a_mebibyte() {
        let data = noise(64 << 20, 9);
        let mean = data.len() / pieces(&data).len();
        assert!((700 << 10..1600 << 10).contains(&mean), "{mean}");
    }

    #[test]
    fn an_inserted_byte_changes_the_pieces_beside_it_only() {
        let old = noise(32 << 20, 7);
        let mut new = old.clone();
        new.insert(11 << 20, 1);
        let known: HashSet<Digest> = pieces(&old).into_iter().map(Digest::of).collect();
        let strange = pieces(&new)
            .into_iter()
            .filter(|p| !known.contains(&Digest::of(p)));
        assert!(strange.count() <= 3);
    }
}

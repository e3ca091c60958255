use super::*;

fn sample() -> Manifest {
    let piece = |len: u32| Piece {
        digest: Digest::of(&len.to_le_bytes()),
        plain_len: len,
        stored_len: len / 2,
        period: Period(7),
    };
    Manifest {
        kind: Kind::Files,
        name: "files of a sandbox".into(),
        nonce: [3; 16],
        bytes: 300_007,
        whole: Digest::of(b"whole"),
        pieces: vec![piece(300_000), piece(7)],
    }
}

/// Where the list of pieces begins in the sample.
fn pieces_at() -> usize {
    sample().encode().len() - 2 * PIECE_LEN
}

/// The digest is right each time: what a hostile writer of the bucket can do only with a row.
#[track_caller]
fn check(change: impl FnOnce(&mut Vec<u8>), expected: NotAManifest) {
    let mut bytes = sample().encode();
    change(&mut bytes);
    assert_eq!(Manifest::decode(&bytes, &Digest::of(&bytes)), Err(expected));
}

#[test]
fn what_is_written_is_read() {
    let bytes = sample().encode();
    assert_eq!(Manifest::decode(&bytes, &Digest::of(&bytes)), Ok(sample()));
    assert!(bytes.len() as u64 <= len_max(sample().bytes));
}

#[test]
fn nothing_is_believed_before_its_digest() {
    let bytes = sample().encode();
    let wrong = Digest::of(b"");
    assert_eq!(Manifest::decode(&bytes, &wrong), Err(NotAManifest::Digest));
}

#[test]
fn hostile_manifests_are_refused() {
    check(|b| b.clear(), NotAManifest::Length);
    check(|b| b[0] = b'C', NotAManifest::Magic);
    check(|b| b[7] = 2, NotAManifest::Version(2));
    check(|b| b[8] = 0, NotAManifest::Kind);
    check(|b| b[10] = 0xff, NotAManifest::Name);
    check(|b| b.push(0), NotAManifest::Length);
    check(|b| b.truncate(b.len() - 1), NotAManifest::Length);
    // A number of pieces that nobody could hold.
    let at = pieces_at();
    check(|b| b[at - 4..at].fill(0xff), NotAManifest::Length);
    // Of length nothing, longer than a piece, and stored longer than it is.
    check(|b| b[at + 32..at + 36].fill(0), NotAManifest::Piece);
    check(|b| b[at + 32..at + 36].fill(0xff), NotAManifest::Piece);
    check(|b| b[at + 36..at + 40].fill(0xff), NotAManifest::Piece);
    check(|b| b[at + 36..at + 40].fill(0), NotAManifest::Piece);
    check(|b| b[at + 32] ^= 1, NotAManifest::Sum);
}

#[test]
fn any_cut_and_any_flipped_bit_is_refused_or_another_manifest() {
    let whole = sample().encode();
    for len in 0..whole.len() {
        let cut = &whole[..len];
        assert!(Manifest::decode(cut, &Digest::of(cut)).is_err(), "{len}");
    }
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(read) = Manifest::decode(&bytes, &Digest::of(&bytes)) {
            assert_eq!(read.encode(), bytes);
        }
    }
}

/// Version 1 as it was first written: what readers of later versions must go on reading.
#[test]
fn version_1_stays_what_it_is() {
    let digest = Digest::of(&sample().encode()).to_string();
    assert_eq!(
        digest,
        "0a834f79416a4a627bec686b5b3ae2cee5b97c8e192a1c419b02cdf1232cd819"
    );
}

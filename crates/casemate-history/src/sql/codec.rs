//! Rows of numbers that differ little from one to the next, small.
//!
//! A version byte; then of each row each column's difference from the row before, as a zigzag
//! number of 7 bits a byte, low ones first.

const VERSION: u8 = 1;

/// Bytes that are not what [`encode`] makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum CodecError {
    #[error("version {0} is not known")]
    Version(u8),
    #[error("a row ends early")]
    Short,
}

pub(super) fn encode<const COLUMNS: usize>(rows: &[[i64; COLUMNS]]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    let mut before = [0; COLUMNS];
    for row in rows {
        for (column, value) in row.iter().enumerate() {
            let step = value.wrapping_sub(before[column]);
            put(&mut bytes, ((step << 1) ^ (step >> 63)).cast_unsigned());
        }
        before = *row;
    }
    bytes
}

pub(super) fn decode<const COLUMNS: usize>(
    bytes: &[u8],
) -> Result<Vec<[i64; COLUMNS]>, CodecError> {
    let (version, mut rest) = bytes.split_first().ok_or(CodecError::Short)?;
    if *version != VERSION {
        return Err(CodecError::Version(*version));
    }
    let mut rows = Vec::new();
    let mut row = [0_i64; COLUMNS];
    while !rest.is_empty() {
        for column in &mut row {
            let zigzag = take(&mut rest)?;
            let step = (zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed());
            *column = column.wrapping_add(step);
        }
        rows.push(row);
    }
    Ok(rows)
}

fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take(rest: &mut &[u8]) -> Result<u64, CodecError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().ok_or(CodecError::Short)?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(CodecError::Short)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check<const COLUMNS: usize>(rows: &[[i64; COLUMNS]]) {
        assert_eq!(decode::<COLUMNS>(&encode(rows)).as_deref(), Ok(rows));
    }

    #[test]
    fn rows_come_back_as_they_went_in() {
        check::<2>(&[]);
        check(&[[0, 0, 0]]);
        check(&[[i64::MAX, i64::MIN], [i64::MIN, i64::MAX], [-1, 1], [0, 0]]);
        check(&[[1_800_000_000_000, 42], [1_800_000_005_000, 42]]);
    }

    #[test]
    fn what_changes_little_takes_little() {
        let rows: Vec<_> = (0..100)
            .map(|n| [1_800_000_000_000 + n * 5000, 2, 7])
            .collect();
        assert!(encode(&rows).len() < 500);
    }

    #[test]
    fn bytes_that_are_cut_or_strange_are_refused() {
        let bytes = encode(&[[1_000_000, 1]]);
        let cut = decode::<2>(&bytes[..bytes.len() - 1]);
        assert_eq!(cut, Err(CodecError::Short));
        assert_eq!(decode::<2>(&[]), Err(CodecError::Short));
        assert_eq!(decode::<2>(&[9, 1, 1]), Err(CodecError::Version(9)));
        assert_eq!(decode::<1>(&[1; 1]), Ok(vec![]));
        assert_eq!(
            decode::<1>(&[[1].as_slice(), &[0xff; 12]].concat()),
            Err(CodecError::Short)
        );
    }
}

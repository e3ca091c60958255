//! Files with holes: which pieces of them an archive has. GNU tar's own header, and the three forms
//! of PAX records that it wrote over time (0.0, 0.1 and 1.0).

use std::io::Read;

use super::header::{Block, positive};
use super::pax::parse;
use super::{BLOCK, TarError};
use crate::limits::SPARSE_PIECES;

/// The map of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sparse {
    /// Length of the file with its holes, in bytes.
    pub length: u64,
    /// Offset and length of what the archive has, one after the other.
    pub pieces: Vec<(u64, u64)>,
}

impl Sparse {
    /// Of a header of GNU tar and the blocks behind it.
    pub fn of_headers(header: &Block, more: &[Block]) -> Result<Self, TarError> {
        let length = header.sparse_length()?;
        let mut pieces = Vec::new();
        let first = header.0[386..482].chunks_exact(24);
        let others = more
            .iter()
            .flat_map(|block| block.0[..504].chunks_exact(24));
        for pair in first.chain(others) {
            if pair[0] == 0 {
                continue;
            }
            pieces.push((
                positive(&pair[..12], "size")?,
                positive(&pair[12..], "size")?,
            ));
        }
        Ok(Self { length, pieces })
    }

    /// Pieces in order, within the file, and together as long as the content of the entry.
    pub fn check(&self, content: u64) -> Result<(), TarError> {
        let mut end = 0;
        let mut sum: u64 = 0;
        for (offset, length) in &self.pieces {
            if *offset < end {
                return Err(TarError::Sparse);
            }
            end = offset.checked_add(*length).ok_or(TarError::Sparse)?;
            sum = sum.saturating_add(*length);
        }
        let fits = end <= self.length && self.length <= i64::MAX.unsigned_abs() && sum == content;
        if fits { Ok(()) } else { Err(TarError::Sparse) }
    }
}

/// Whether so many blocks behind a header may be kept.
pub fn check_count(blocks: usize) -> Result<(), TarError> {
    if blocks * (BLOCK / 24) > SPARSE_PIECES {
        return Err(TarError::Sparse);
    }
    Ok(())
}

/// PAX records whose key begins with `GNU.sparse.`.
#[derive(Debug, Clone, Default)]
pub struct Records {
    major: u32,
    /// The file's own name; that of the entry is made up.
    pub name: Option<Vec<u8>>,
    length: Option<u64>,
    /// Offsets and lengths in turn.
    numbers: Vec<u64>,
}

impl Records {
    pub fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        let number = || parse(value).ok_or(TarError::Sparse);
        match key {
            b"major" => self.major = parse(value).ok_or(TarError::Sparse)?,
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.length = Some(number()?),
            b"offset" | b"numbytes" => self.numbers.push(number()?),
            b"map" => {
                let numbers = value.split(|byte| *byte == b',');
                self.numbers = numbers
                    .filter(|text| !text.is_empty())
                    .map(|text| parse(text).ok_or(TarError::Sparse))
                    .collect::<Result<_, _>>()?;
            }
            // The minor version, and how many pieces there are.
            _ => {}
        }
        Ok(())
    }

    pub fn is_used(&self) -> bool {
        self.length.is_some()
    }

    /// The map, which version 1 has at the front of the content.
    pub fn map(&self, content: &mut impl Read) -> Result<Sparse, TarError> {
        let length = self.length.ok_or(TarError::Sparse)?;
        let front;
        let numbers = if self.major == 1 {
            front = read_front(content)?;
            &front
        } else {
            &self.numbers
        };
        if numbers.len() % 2 != 0 || numbers.len() / 2 > SPARSE_PIECES {
            return Err(TarError::Sparse);
        }
        let pieces = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        Ok(Sparse {
            length,
            pieces: pieces.collect(),
        })
    }
}

/// Lines of one number each, the first of them how many pairs there are; filled up to whole blocks.
fn read_front(content: &mut impl Read) -> Result<Vec<u64>, TarError> {
    let mut numbers: Vec<u64> = Vec::new();
    let mut wanted: Option<usize> = None;
    let mut line = Vec::new();
    loop {
        let mut block = [0; BLOCK];
        content
            .read_exact(&mut block)
            .map_err(|_| TarError::Sparse)?;
        for byte in block {
            if byte != b'\n' {
                line.push(byte);
                if line.len() > 20 {
                    return Err(TarError::Sparse);
                }
                continue;
            }
            match wanted {
                None => {
                    let pairs: Option<usize> = parse(&line);
                    let pairs = pairs.filter(|pairs| *pairs <= SPARSE_PIECES);
                    wanted = Some(pairs.ok_or(TarError::Sparse)? * 2);
                }
                Some(_) => numbers.push(parse(&line).ok_or(TarError::Sparse)?),
            }
            line.clear();
            if wanted == Some(numbers.len()) {
                return Ok(numbers);
            }
        }
    }
}

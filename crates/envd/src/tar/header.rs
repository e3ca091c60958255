//! One header block: fixed fields, octal or binary numbers.

use super::{BLOCK, TarError, Time};

pub struct Block(pub [u8; BLOCK]);

/// Which family a header is of; the fields behind the magic differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Magic {
    Posix,
    Gnu,
    None,
}

impl Block {
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// The sum over all bytes, with spaces in place of itself. Some old programs added signed bytes.
    pub fn check(&self) -> Result<(), TarError> {
        let told = number(&self.0[148..156]).ok_or(TarError::Checksum)?;
        let bytes = || {
            let is_sum = |at: &usize| (148..156).contains(at);
            self.0
                .iter()
                .enumerate()
                .map(move |(at, byte)| if is_sum(&at) { b' ' } else { *byte })
        };
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        if told == unsigned || told == signed {
            Ok(())
        } else {
            Err(TarError::Checksum)
        }
    }

    pub fn kind(&self) -> u8 {
        self.0[156]
    }

    pub fn magic(&self) -> Magic {
        match &self.0[257..263] {
            b"ustar\0" => Magic::Posix,
            b"ustar " => Magic::Gnu,
            _ => Magic::None,
        }
    }

    /// With the prefix that POSIX has for long ones.
    pub fn path(&self) -> Vec<u8> {
        let mut path = Vec::new();
        if self.magic() == Magic::Posix {
            // Joerg Schilling's star keeps times in the last bytes of the prefix, and says so.
            let end = if &self.0[508..512] == b"tar\0" {
                476
            } else {
                500
            };
            path.extend_from_slice(text(&self.0[345..end]));
            if !path.is_empty() {
                path.push(b'/');
            }
        }
        path.extend_from_slice(text(&self.0[..100]));
        path
    }

    pub fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub fn mode(&self) -> Result<u32, TarError> {
        let mode = positive(&self.0[100..108], "mode")?;
        // Some programs put the type of the file above the twelve bits.
        Ok(u32::try_from(mode & 0o7777).unwrap_or_default())
    }

    pub fn uid(&self) -> Result<u64, TarError> {
        positive(&self.0[108..116], "owner")
    }

    pub fn gid(&self) -> Result<u64, TarError> {
        positive(&self.0[116..124], "group")
    }

    pub fn size(&self) -> Result<u64, TarError> {
        positive(&self.0[124..136], "size")
    }

    pub fn modified(&self) -> Result<Time, TarError> {
        let seconds = number(&self.0[136..148]).ok_or(TarError::Field("time"))?;
        Ok(Time { seconds, nanos: 0 })
    }

    /// Whether blocks with more of a sparse map follow a header of GNU tar.
    pub fn sparse_goes_on(&self) -> bool {
        self.0[482] != 0
    }

    /// The same for such a block.
    pub fn sparse_block_goes_on(&self) -> bool {
        self.0[504] != 0
    }

    /// Length of a sparse file with its holes.
    pub fn sparse_length(&self) -> Result<u64, TarError> {
        positive(&self.0[483..495], "size")
    }
}

/// A number that cannot be below zero.
pub fn positive(field: &[u8], what: &'static str) -> Result<u64, TarError> {
    number(field)
        .and_then(|number| u64::try_from(number).ok())
        .ok_or(TarError::Field(what))
}

/// Octal digits between spaces and NULs, or two's complement behind a set first bit. An empty field
/// is zero.
fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        // The first bit marks the form, the second is the sign.
        let negative = first & 0x40 != 0;
        let mut value = i128::from(first & 0x3f) - if negative { 0x40 } else { 0 };
        for byte in &field[1..] {
            value = value.checked_mul(256)? + i128::from(*byte);
        }
        return i64::try_from(value).ok();
    }
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let digits = field.iter().skip_while(|byte| is_blank(byte));
    let mut value: i64 = 0;
    for byte in digits.take_while(|byte| !is_blank(byte)) {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 8)?;
        value = value.checked_mul(8)?.checked_add(i64::from(digit))?;
    }
    Some(value)
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"\x80\0\0\x02\0\0\0\0", Some(0x2_0000_0000)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"0000689\0", None),
            (b"-000001\0", None),
            (b"\x80\x01\0\0\0\0\0\0\0\0\0\0", None),
        ] {
            assert_eq!(number(field), expected, "{field:?}");
        }
        assert!(positive(b"\xff\xff\xff\xff\xff\xff\xff\xfe", "x").is_err());
    }
}

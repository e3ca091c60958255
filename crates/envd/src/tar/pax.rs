//! Extended headers: records `length key=value\n` that override fields of the header behind them.

use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode;

use super::sparse::Records;
use super::{TarError, Time};
use crate::limits::TAR_EXTENSION_BYTES;

/// What the records of one header, or of several, say.
#[derive(Debug, Clone, Default)]
pub struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub modified: Option<Time>,
    /// Of Schilling's form, and of libarchive's, which archives have beside it for the same.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: Records,
    /// Of all records read so far, as one entry may have many headers.
    bytes: u64,
}

/// Of one file; no more than kernels list.
const ATTRIBUTES_MAX: usize = 256;

/// libarchive leaves the padding out.
const UNPADDED: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Pax {
    /// Takes over all records; later ones win.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<(), TarError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > TAR_EXTENSION_BYTES {
            return Err(TarError::LongExtension);
        }
        // Some writers fill up with NULs.
        while bytes.first().is_some_and(|byte| *byte != 0) {
            let (record, rest) = split(bytes).ok_or(TarError::Extension)?;
            let at = record
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or(TarError::Extension)?;
            self.take(&record[..at], &record[at + 1..])?;
            bytes = rest;
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        match key {
            b"path" => self.path = some(value),
            b"linkpath" => self.link = some(value),
            b"size" => self.size = decimal(value)?,
            b"uid" => self.uid = decimal(value)?,
            b"gid" => self.gid = decimal(value)?,
            b"mtime" => self.modified = time(value)?,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.attribute(name.to_vec(), value.to_vec())?;
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let value = UNPADDED.decode(value).map_err(|_| TarError::Extension)?;
                    self.attribute(percent_decode(name).collect(), value)?;
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.take(key, value)?;
                }
            }
        }
        Ok(())
    }

    fn attribute(&mut self, name: Vec<u8>, value: Vec<u8>) -> Result<(), TarError> {
        let is_full = self.attributes.len() >= ATTRIBUTES_MAX;
        match self.attributes.iter_mut().find(|(own, _)| *own == name) {
            Some((_, old)) => *old = value,
            None if is_full => return Err(TarError::LongExtension),
            None => self.attributes.push((name, value)),
        }
        Ok(())
    }
}

/// The first record without its length and newline, and what follows it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().take(8).position(|byte| *byte == b' ')?;
    let length: usize = parse(&bytes[..space])?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    Some((record, rest))
}

/// An empty value takes back what was said before.
fn some(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

fn decimal(value: &[u8]) -> Result<Option<u64>, TarError> {
    if value.is_empty() {
        return Ok(None);
    }
    let number = parse(value).ok_or(TarError::Extension)?;
    Ok(Some(number))
}

/// Of digits alone.
pub fn parse<T: FromStr>(digits: &[u8]) -> Option<T> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| plain)?;
    text.parse().ok()
}

/// Seconds with an optional fraction; what is finer than nanoseconds is cut off.
fn time(value: &[u8]) -> Result<Option<Time>, TarError> {
    if value.is_empty() {
        return Ok(None);
    }
    parse_time(value).map(Some).ok_or(TarError::Extension)
}

fn parse_time(value: &[u8]) -> Option<Time> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = value.splitn(2, |byte| *byte == b'.');
    let seconds: i64 = parse(parts.next()?)?;
    let mut nanos: u32 = 0;
    if let Some(fraction) = parts.next().filter(|fraction| !fraction.is_empty()) {
        let mut digits = [b'0'; 9];
        for (digit, given) in digits.iter_mut().zip(fraction) {
            *digit = *given;
        }
        if !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        nanos = parse(&digits)?;
    }
    Some(match (negative, nanos) {
        (false, nanos) => Time { seconds, nanos },
        (true, 0) => Time {
            seconds: -seconds,
            nanos,
        },
        // The fraction counts upwards from the second before.
        (true, nanos) => Time {
            seconds: -seconds - 1,
            nanos: 1_000_000_000 - nanos,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, seconds, nanos) in [
            ("0", 0, 0),
            ("1700000000.25", 1_700_000_000, 250_000_000),
            ("1.1234567899", 1, 123_456_789),
            ("-1", -1, 0),
            ("-1.25", -2, 750_000_000),
            ("7.", 7, 0),
        ] {
            assert_eq!(
                parse_time(text.as_bytes()),
                Some(Time { seconds, nanos }),
                "{text}"
            );
        }
        for wrong in ["", ".", "x", "1.x", "--1", "1e9", "99999999999999999999"] {
            assert_eq!(parse_time(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn records() {
        let mut pax = Pax::default();
        pax.read(b"9 path=a\n9 size=7\n27 SCHILY.xattr.user.a=x=\n\n\0\0")
            .unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a"[..]));
        assert_eq!(pax.size, Some(7));
        assert_eq!(pax.attributes, [(b"user.a".to_vec(), b"x=\n".to_vec())]);
        pax.read(b"32 LIBARCHIVE.xattr.user%2Ea=eQ\n8 path=\n")
            .unwrap();
        assert_eq!(pax.attributes, [(b"user.a".to_vec(), b"y".to_vec())]);
        assert_eq!(pax.path, None);
        for wrong in [
            &b"path=a\n"[..],
            b"99 path=a\n",
            b"9 path=ab",
            b"6 path\n",
            b"11 size=-1\n",
        ] {
            assert!(
                matches!(pax.read(wrong), Err(TarError::Extension)),
                "{wrong:?}"
            );
        }
    }
}

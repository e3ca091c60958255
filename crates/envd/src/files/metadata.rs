//! `X-Metadata-*`: what is attached to an uploaded file.

use std::collections::BTreeMap;

use http::HeaderMap;

use crate::limits::{METADATA_BYTES, METADATA_KEY_BYTES};

const HEADER: &str = "x-metadata-";
/// Length of the attribute prefix on disk, which counts for every key.
const PREFIX_BYTES: usize = 9;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    #[error("metadata key '{0}' is longer than {METADATA_KEY_BYTES} bytes")]
    LongKey(String),
    #[error("metadata value of key '{0}' contains characters outside printable US-ASCII")]
    Value(String),
    #[error("total metadata size exceeds {METADATA_BYTES} bytes")]
    TooMuch,
}

/// All pairs of a request; keys in lower case, as HTTP has them. Of a repeated header the first
/// value counts, an empty key none.
pub fn read(headers: &HeaderMap) -> Result<BTreeMap<String, String>, MetadataError> {
    let mut pairs = BTreeMap::new();
    let mut total = 0;
    for name in headers.keys() {
        let Some(key) = name
            .as_str()
            .strip_prefix(HEADER)
            .filter(|key| !key.is_empty())
        else {
            continue;
        };
        let key = key.to_owned();
        let Some(value) = headers.get(name) else {
            continue;
        };
        if key.len() > METADATA_KEY_BYTES {
            return Err(MetadataError::LongKey(key));
        }
        if !value
            .as_bytes()
            .iter()
            .all(|byte| (0x20..=0x7e).contains(byte))
        {
            return Err(MetadataError::Value(key));
        }
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        total += PREFIX_BYTES + key.len() + value.len();
        if total > METADATA_BYTES {
            return Err(MetadataError::TooMuch);
        }
        pairs.insert(key, value);
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value).unwrap(),
            );
        }
        headers
    }

    #[test]
    fn pairs() {
        let all = read(&headers(&[
            ("X-Metadata-Author", b"me"),
            ("x-metadata-author", b"other"),
            ("x-metadata-empty", b""),
            ("x-metadata-", b"dropped"),
            ("x-other", b"1"),
        ]))
        .unwrap();
        let expected = [("author", "me"), ("empty", "")].map(|(k, v)| (k.into(), v.into()));
        assert_eq!(all, BTreeMap::from(expected));
    }

    #[test]
    fn limits() {
        let key = |length: usize| format!("x-metadata-{}", "k".repeat(length));
        assert!(read(&headers(&[(&key(246), b"v")])).is_ok());
        assert!(matches!(
            read(&headers(&[(&key(247), b"v")])),
            Err(MetadataError::LongKey(_))
        ));
        let fits = vec![b'v'; METADATA_BYTES - PREFIX_BYTES - 1];
        assert!(read(&headers(&[("x-metadata-k", &fits)])).is_ok());
        let over = vec![b'v'; fits.len() + 1];
        assert_eq!(
            read(&headers(&[("x-metadata-k", &over)])),
            Err(MetadataError::TooMuch)
        );
        assert!(matches!(
            read(&headers(&[("x-metadata-k", "ü".as_bytes())])),
            Err(MetadataError::Value(_))
        ));
        assert!(matches!(
            read(&headers(&[("x-metadata-k", b"a\tb")])),
            Err(MetadataError::Value(_))
        ));
    }
}

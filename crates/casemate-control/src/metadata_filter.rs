//! The metadata filter of the lists, which clients encode three times (`api.md` 3.5).

use std::collections::BTreeMap;

use percent_encoding::percent_decode;

/// Not `key=value` pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the metadata filter does not parse")]
pub struct InvalidMetadataFilter;

/// Undoes the second and the third encoding; the first is the query's own.
pub fn decode(value: &str) -> Result<BTreeMap<String, String>, InvalidMetadataFilter> {
    let pairs = unescape(value)?;
    pairs
        .split('&')
        .map(|piece| {
            let mut sides = piece.split('=');
            match (sides.next(), sides.next(), sides.next()) {
                (Some(key), Some(value), None) => Ok((unescape(key)?, unescape(value)?)),
                _ => Err(InvalidMetadataFilter),
            }
        })
        .collect()
}

/// Percent-decoding with `+` for a space; a `%` without two digits is an error.
fn unescape(text: &str) -> Result<String, InvalidMetadataFilter> {
    let bytes = text.as_bytes();
    let whole = |at: usize| {
        let digit = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_hexdigit);
        bytes[at] != b'%' || (digit(at + 1) && digit(at + 2))
    };
    if !(0..bytes.len()).all(whole) {
        return Err(InvalidMetadataFilter);
    }
    let spaced = text.replace('+', " ");
    percent_decode(spaced.as_bytes())
        .decode_utf8()
        .map(|text| text.into_owned())
        .map_err(|_| InvalidMetadataFilter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expected: Option<&[(&str, &str)]>) {
        let expected = expected.map(|pairs| {
            let owned = |(k, v): &(&str, &str)| ((*k).to_string(), (*v).to_string());
            pairs.iter().map(owned).collect::<BTreeMap<_, _>>()
        });
        assert_eq!(decode(value).ok(), expected, "{value:?}");
    }

    #[test]
    fn the_filter_decodes_as_clients_encode_it() {
        // As the query's own decoding leaves it.
        check("user=a%2520b", Some(&[("user", "a b")]));
        check("user%2520id=a%2520b%2526c", Some(&[("user id", "a b&c")]));
        check("a=1&b=2", Some(&[("a", "1"), ("b", "2")]));
        check("a%3D1", Some(&[("a", "1")]));
        check("a=x+y", Some(&[("a", "x y")]));
        check("a=", Some(&[("a", "")]));
    }

    #[test]
    fn what_is_no_pair_is_refused() {
        for wrong in [
            "", "a", "a=b=c", "a=1&", "a=%", "a=%2", "%25=%25", "a=%25zz", "a=%FF",
        ] {
            check(wrong, None);
        }
    }
}

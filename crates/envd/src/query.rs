//! Query strings, decoded as forms are: `+` is a space.

use percent_encoding::percent_decode_str;

/// The first value of `name`. Bytes that are not UTF-8 are replaced.
pub fn value(query: Option<&str>, name: &str) -> Option<String> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key) == name).then(|| decode(value))
    })
}

fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let query = Some("path=a%20b+c.txt&empty=&bare&path=second&s=v1_%2Fb%2B");
        assert_eq!(value(query, "path").as_deref(), Some("a b c.txt"));
        assert_eq!(value(query, "empty").as_deref(), Some(""));
        assert_eq!(value(query, "bare").as_deref(), Some(""));
        assert_eq!(value(query, "s").as_deref(), Some("v1_/b+"));
        assert_eq!(value(query, "none"), None);
        assert_eq!(value(None, "path"), None);
    }
}

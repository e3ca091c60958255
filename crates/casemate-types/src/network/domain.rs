//! Domains of a policy, and names as they are seen on the wire.
//!
//! One form for both: ASCII in lower case, labels of letters, digits, `-` and `_`, no trailing dot.
//! Punycode (`xn--…`) is such a name; a name in another script is refused and not converted, because
//! what a browser shows and what is looked up would then be two decisions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest name, characters; DNS knows no longer one.
pub const DOMAIN_CHARS_MAX: usize = 253;
const LABEL_CHARS_MAX: usize = 63;

/// A name of a host. Its last label has a letter, so that it is never an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(String);

impl DomainName {
    /// `None` for what is no name. Case and one trailing dot make no difference.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            (1..=LABEL_CHARS_MAX).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let last = text.rsplit('.').next()?;
        let fits = text.len() <= DOMAIN_CHARS_MAX
            && text.split('.').all(is_label)
            && last.bytes().any(|b| b.is_ascii_alphabetic());
        fits.then(|| Self(text.to_ascii_lowercase()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which names a policy opens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DomainPattern {
    /// `*`
    All,
    /// `*.example.com`: whatever is below it, not `example.com` itself.
    Below(DomainName),
    /// `example.com`
    Exact(DomainName),
}

impl DomainPattern {
    /// `None` for what is no pattern: a `*` stands alone or is the whole first label.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        match text.strip_prefix("*.") {
            Some(rest) => DomainName::parse(rest).map(Self::Below),
            None => DomainName::parse(text).map(Self::Exact),
        }
    }

    pub fn matches(&self, name: &DomainName) -> bool {
        match self {
            Self::All => true,
            Self::Below(top) => name
                .0
                .strip_suffix(&top.0)
                .is_some_and(|below| below.ends_with('.')),
            Self::Exact(only) => name == only,
        }
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Below(top) => write!(f, "*.{top}"),
            Self::Exact(only) => only.fmt(f),
        }
    }
}

impl From<DomainPattern> for String {
    fn from(pattern: DomainPattern) -> Self {
        pattern.to_string()
    }
}

impl TryFrom<String> for DomainPattern {
    type Error = NotADomain;

    fn try_from(text: String) -> Result<Self, NotADomain> {
        Self::parse(&text).ok_or(NotADomain(text))
    }
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a domain: {0}")]
pub struct NotADomain(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, matching: &[&str], others: &[&str]) {
        let parsed = DomainPattern::parse(pattern).unwrap();
        let matches = |text: &&str| parsed.matches(&DomainName::parse(text).unwrap());
        assert_eq!(matching.iter().find(|t| !matches(t)), None, "{pattern}");
        assert_eq!(others.iter().find(|t| matches(t)), None, "{pattern}");
    }

    #[test]
    fn patterns_match_whole_labels_whatever_their_case() {
        check(
            "Example.com.",
            &["example.com", "EXAMPLE.COM", "example.com."],
            &[
                "www.example.com",
                "xample.com",
                "example.com.evil.net",
                "com",
            ],
        );
        check(
            "*.example.com",
            &["www.example.com", "a.b.EXAMPLE.com", "-._.example.com"],
            &["example.com", "badexample.com", "www.example.com.evil.net"],
        );
        check("*", &["example.com", "localhost"], &[]);
        check("xn--bcher-kva.example", &["XN--BCHER-KVA.example"], &[]);
    }

    #[test]
    fn what_is_no_domain_is_refused() {
        let long_label = format!("{}.com", "a".repeat(64));
        let long_name = format!("{}com", "a.".repeat(126));
        for text in [
            "",
            ".",
            "*.",
            "**",
            "*example.com",
            "a.*.com",
            "*.*.com",
            "a..com",
            ".example.com",
            "example.com..",
            "1.2.3.4",
            "1.2.3.4/8",
            "::1",
            "a b.com",
            "bücher.example",
            "http://example.com",
            "example.com:443",
            "a/b",
            "a\0.com",
            &long_label,
            &long_name,
        ] {
            assert_eq!(DomainPattern::parse(text), None, "{text:?}");
        }
        assert!(DomainPattern::parse(&"a.".repeat(126)[..251]).is_some());
    }

    #[test]
    fn patterns_are_written_as_they_are_read() {
        for text in ["*", "*.example.com", "example.com"] {
            let pattern: DomainPattern = serde_json::from_value(text.into()).unwrap();
            assert_eq!(serde_json::to_value(&pattern).unwrap(), text);
        }
        assert!(serde_json::from_value::<DomainPattern>("1.2.3.4".into()).is_err());
    }
}

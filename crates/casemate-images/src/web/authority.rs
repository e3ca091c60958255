//! Hosts with ports, and the URLs that we take from others.

use std::fmt;
use std::net::Ipv6Addr;

use http::Uri;

/// Longest name of a host (RFC 1035), in bytes.
const HOST_LEN_MAX: usize = 253;
const LABEL_LEN_MAX: usize = 63;
/// Longest URL that is taken from a registry, in bytes; signed ones of clouds have some 2,000.
const URL_LEN_MAX: usize = 16 * 1024;

/// A host, in lower case and an IPv6 address without its brackets, and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Authority {
    host: String,
    port: u16,
}

impl Authority {
    /// `HOST`, `HOST:PORT` or `[IPV6]:PORT`; `None` for everything else.
    pub(crate) fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']')?;
                let address: Ipv6Addr = host.parse().ok()?;
                let port = match rest {
                    "" => None,
                    _ => Some(rest.strip_prefix(':')?),
                };
                (address.to_string(), port)
            }
            None => {
                let (host, port) = match text.split_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (text, None),
                };
                let host = host.to_ascii_lowercase();
                if host.len() > HOST_LEN_MAX || !host.split('.').all(is_label) {
                    return None;
                }
                (host, port)
            }
        };
        let port = match port {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
            None => default_port,
        };
        (port != 0).then_some(Self { host, port })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// As the `Host` header has it: without the port that the scheme implies.
    pub(crate) fn for_header(&self, secure: bool) -> String {
        let implied = if secure { 443 } else { 80 };
        match (self.port == implied, self.host.contains(':')) {
            (true, true) => format!("[{}]", self.host),
            (true, false) => self.host.clone(),
            (false, _) => self.to_string(),
        }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn is_label(label: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !label.is_empty() && label.len() <= LABEL_LEN_MAX && label.bytes().all(allowed)
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// https, or else http.
    pub(crate) secure: bool,
    pub(crate) at: Authority,
    /// Path and query.
    pub(crate) path: String,
}

impl Url {
    /// An absolute URL with http or https; user names and fragments are none of ours.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() > URL_LEN_MAX {
            return None;
        }
        let uri: Uri = text.parse().ok()?;
        let (secure, port) = match uri.scheme_str()? {
            "https" => (true, 443),
            "http" => (false, 80),
            _ => return None,
        };
        // Refuses user names: '@' is in no host.
        let at = Authority::parse(uri.authority()?.as_str(), port)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Some(Self {
            secure,
            at,
            path: path.into(),
        })
    }

    /// A `Location` of an answer to this: absolute, without a scheme, or an absolute path.
    pub(super) fn join(&self, location: &str) -> Option<Self> {
        let scheme = if self.secure { "https:" } else { "http:" };
        if location.starts_with("//") {
            return Self::parse(&format!("{scheme}{location}"));
        }
        if location.starts_with('/') {
            return Self::parse(&format!("{scheme}//{}{location}", self.at));
        }
        Self::parse(location)
    }

    /// With one more parameter of the query, escaped.
    pub(crate) fn with_query(mut self, name: &str, value: &str) -> Self {
        let escaped =
            percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
        let mark = if self.path.contains('?') { '&' } else { '?' };
        self.path.push_str(&format!("{mark}{name}={escaped}"));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_form() {
        let shown = |text: &str| Authority::parse(text, 443).map(|at| at.to_string());
        assert_eq!(shown("A.b:5000").as_deref(), Some("a.b:5000"));
        assert_eq!(shown("a_b").as_deref(), Some("a_b:443"));
        assert_eq!(shown("[0:0::1]:80").as_deref(), Some("[::1]:80"));
        for wrong in [
            "", ":80", "a:", "a:0", "a:+1", "a:65536", "u@a", "a/b", "a.", ".a", "::1", "[::1",
            "[a]:1", "[::1]80", "a b", "a%00", "a\r\n",
        ] {
            assert_eq!(shown(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn locations_are_joined() {
        let base = Url::parse("https://r.example/v2/x").unwrap();
        let joined = |location: &str| {
            let url = base.join(location)?;
            Some((url.secure, url.at.to_string(), url.path))
        };
        let url = |secure, at: &str, path: &str| Some((secure, at.to_string(), path.to_string()));
        assert_eq!(joined("/a?b=c"), url(true, "r.example:443", "/a?b=c"));
        assert_eq!(joined("//cdn.example:1"), url(true, "cdn.example:1", "/"));
        assert_eq!(joined("http://a.b/c#d"), url(false, "a.b:80", "/c"));
        assert_eq!(joined("ftp://a.b/c"), None);
        assert_eq!(joined("https://user@a.b/c"), None);
        assert_eq!(joined("elsewhere"), None);
    }

    #[test]
    fn queries_are_escaped() {
        let url = Url::parse("https://a/t?x=1").unwrap();
        assert_eq!(
            url.with_query("s", "a b&c=d").path,
            "/t?x=1&s=a%20b%26c%3Dd"
        );
    }
}

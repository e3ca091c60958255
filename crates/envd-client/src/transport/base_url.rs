//! Where a server is: `https://host:port` or `http://host:port`, parsed once.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use http::uri::{Authority, Scheme};

use crate::error::HttpError;

/// Scheme, host and port of a server, without a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    scheme: Scheme,
    authority: Authority,
}

impl BaseUrl {
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// The address of one path on this server. The path begins with a slash and is already encoded.
    ///
    /// # Errors
    /// [`HttpError::Path`]: it is not encoded.
    pub fn join(&self, path_and_query: &str) -> Result<Uri, HttpError> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path_and_query)
            .build()
            .map_err(|source| HttpError::Path {
                path: path_and_query.to_owned(),
                source,
            })
    }
}

impl FromStr for BaseUrl {
    type Err = HttpError;

    fn from_str(text: &str) -> Result<Self, HttpError> {
        let refused = |reason| HttpError::BaseUrl {
            url: text.to_owned(),
            reason,
        };
        let uri: Uri = text.parse().map_err(|_| refused("it is not a URL"))?;
        let scheme = match uri.scheme() {
            Some(scheme) if [Scheme::HTTP, Scheme::HTTPS].contains(scheme) => scheme.clone(),
            _ => return Err(refused("it must begin with https:// or http://")),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(refused("it must have no path"));
        }
        let authority = uri
            .into_parts()
            .authority
            .ok_or_else(|| refused("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(refused("it must hold no user"));
        }
        Ok(Self { scheme, authority })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(
            text.parse::<BaseUrl>()
                .ok()
                .map(|url| url.to_string())
                .as_deref(),
            expected
        );
    }

    #[test]
    fn only_a_scheme_and_a_host_are_a_base_url() {
        check("http://127.0.0.1:8080", Some("http://127.0.0.1:8080"));
        check("http://localhost:8080/", Some("http://localhost:8080"));
        check("http://[::1]:8080", Some("http://[::1]:8080"));
        check("https://api.example.com", Some("https://api.example.com"));
        check("ftp://api.example.com", None);
        check("http://host/path", None);
        check("http://host?x=1", None);
        check("http://me:secret@host", None);
        check("localhost:8080", None);
        check("", None);
    }

    #[test]
    fn a_path_is_appended() {
        let base: BaseUrl = "http://localhost:8080/".parse().unwrap();
        let uri = base.join("/v2/sandboxes?limit=1").unwrap();
        assert_eq!(
            uri.to_string(),
            "http://localhost:8080/v2/sandboxes?limit=1"
        );
        assert!(base.join("/a b").is_err());
    }
}

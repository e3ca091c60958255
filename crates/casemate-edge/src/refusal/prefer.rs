//! Whether a client that is refused is a program (JSON) or a person (HTML), `api.md` 4.5.

use http::header::{ACCEPT, USER_AGENT};
use http::{HeaderMap, HeaderName};

const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// How a refusal is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Html,
}

const BROWSERS: [&str; 7] = [
    "mozilla", "chrome", "safari", "firefox", "edge", "opera", "msie",
];

impl Format {
    /// Reads the request's headers, first rule that speaks.
    pub(crate) fn preferred(headers: &HeaderMap) -> Self {
        let text = |name: HeaderName| {
            let value = headers.get(name)?.to_str().ok()?;
            Some(value.to_ascii_lowercase())
        };
        let accept = text(ACCEPT).unwrap_or_default();
        if accept.contains("application/json") && !accept.contains("text/html") {
            return Self::Json;
        }
        match text(FETCH_MODE).as_deref() {
            Some("cors" | "no-cors" | "same-origin" | "websocket") => return Self::Json,
            // A person follows a link: what a script would have added says nothing.
            Some("navigate") => {}
            _ if headers.contains_key(REQUESTED_WITH) => return Self::Json,
            _ => {}
        }
        let agent = text(USER_AGENT).unwrap_or_default();
        if BROWSERS.iter().any(|browser| agent.contains(browser)) {
            Self::Html
        } else {
            Self::Json
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(headers: &[(&str, &str)], expected: Format) {
        let map = headers
            .iter()
            .map(|(name, value)| {
                let name: HeaderName = name.parse().unwrap();
                (name, value.parse().unwrap())
            })
            .collect();
        assert_eq!(Format::preferred(&map), expected, "{headers:?}");
    }

    const FIREFOX: (&str, &str) = ("user-agent", "Mozilla/5.0 (X11) Gecko Firefox/140.0");

    #[test]
    fn programs_get_json() {
        check(&[], Format::Json);
        check(&[("user-agent", "curl/8.0")], Format::Json);
        check(&[("user-agent", "e2b-python-sdk/2.63.0")], Format::Json);
        check(&[FIREFOX, ("accept", "application/json")], Format::Json);
        for mode in ["cors", "no-cors", "same-origin", "websocket"] {
            check(&[FIREFOX, ("sec-fetch-mode", mode)], Format::Json);
        }
        check(
            &[FIREFOX, ("x-requested-with", "XMLHttpRequest")],
            Format::Json,
        );
    }

    #[test]
    fn people_get_a_page() {
        check(&[FIREFOX], Format::Html);
        check(&[FIREFOX, ("accept", "text/html,*/*")], Format::Html);
        check(
            &[FIREFOX, ("accept", "text/html, application/json")],
            Format::Html,
        );
        check(&[("user-agent", "OPERA/9")], Format::Html);
        let navigate = ("sec-fetch-mode", "navigate");
        check(&[FIREFOX, navigate], Format::Html);
        check(
            &[FIREFOX, navigate, ("x-requested-with", "x")],
            Format::Html,
        );
        check(&[("user-agent", "curl/8.0"), navigate], Format::Json);
    }
}

//! An answer, read to its end.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

use crate::error::HttpError;

/// The most of a foreign body that is put into a message.
const SHOWN_BYTES_MAX: usize = 512;

/// An answer read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// Reads at most `bytes_max`; what is longer is [`HttpError::TooLong`].
    pub(crate) async fn read(
        response: Response<Incoming>,
        target: &str,
        bytes_max: usize,
    ) -> Result<Self, HttpError> {
        let (head, body) = response.into_parts();
        let body = match Limited::new(body, bytes_max).collect().await {
            Ok(body) => body.to_bytes(),
            Err(source) if source.is::<LengthLimitError>() => {
                return Err(HttpError::TooLong {
                    target: target.to_owned(),
                    bytes_max,
                });
            }
            Err(source) => {
                return Err(HttpError::Read {
                    target: target.to_owned(),
                    source,
                });
            }
        };
        Ok(Self {
            status: head.status,
            headers: head.headers,
            body,
        })
    }

    /// What to tell of an answer in no known shape: the beginning of its body, or its status.
    #[must_use]
    pub fn shown(&self) -> String {
        let body = &self.body[..self.body.len().min(SHOWN_BYTES_MAX)];
        let text = String::from_utf8_lossy(body);
        let text = text.trim();
        if text.is_empty() {
            self.status
                .canonical_reason()
                .unwrap_or("no reason given")
                .to_owned()
        } else {
            // The server's text goes to a terminal: it must not move the cursor there.
            text.chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expected: &str) {
        let answer = Answer {
            status: StatusCode::BAD_GATEWAY,
            headers: HeaderMap::new(),
            body: body.to_owned().into(),
        };
        assert_eq!(answer.shown(), expected);
    }

    #[test]
    fn a_foreign_body_is_cut_and_cleaned() {
        check(" id not found\n", "id not found");
        check("\n", "Bad Gateway");
        check("\u{1b}[2Jred", " [2Jred");
        check(&"x".repeat(5000), &"x".repeat(512));
    }
}

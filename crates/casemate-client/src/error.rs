//! Faults of the REST API.

use envd_client::{Answer, HttpError};
use http::StatusCode;
use serde::Deserialize;

/// A call of the REST API that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The server understood and refused.
    #[error("{message} (status {status})")]
    Refused {
        status: StatusCode,
        /// The server's word for the reason, where it has one.
        error_code: Option<String>,
        message: String,
        /// What the server said about trying again, if it said anything.
        should_retry: Option<bool>,
    },
    #[error("{operation} answered something that this client cannot read")]
    Unreadable {
        operation: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("the list of {operation} has more than {pages_max} pages")]
    TooManyPages {
        operation: &'static str,
        pages_max: usize,
    },
}

impl ApiError {
    /// The same call may succeed later, and sending it again does no harm.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused {
                should_retry: Some(retry),
                ..
            } => *retry,
            Self::Refused {
                status,
                should_retry: None,
                ..
            } => {
                matches!(status.as_u16(), 429 | 502 | 503 | 504)
            }
            Self::Http(error) => error.is_connect(),
            Self::Unreadable { .. } | Self::TooManyPages { .. } => false,
        }
    }

    /// What was named does not exist, or not for this caller.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                status: StatusCode::NOT_FOUND,
                ..
            }
        )
    }

    /// Reads a refusal. A body that is not the API's error shape is shown as it is, shortened.
    pub(crate) fn refused(answer: &Answer) -> Self {
        let (error_code, message) = match serde_json::from_slice::<ErrorBody>(&answer.body) {
            Ok(body) => (body.error_code, body.message),
            Err(_) => (None, answer.shown()),
        };
        let should_retry = answer
            .headers
            .get("should-retry")
            .map(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
        Self::Refused {
            status: answer.status,
            error_code,
            message,
            should_retry,
        }
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    message: String,
    #[serde(default)]
    error_code: Option<String>,
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[track_caller]
    fn check(status: u16, retry: Option<&'static str>, body: &str, text: &str, retryable: bool) {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry {
            headers.insert("should-retry", value.parse().unwrap());
        }
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: body.to_owned().into(),
        };
        let error = ApiError::refused(&answer);
        assert_eq!(error.to_string(), text);
        assert_eq!(error.is_retryable(), retryable);
    }

    #[test]
    fn refusals_carry_the_servers_words() {
        let known = r#"{"code":404,"message":"Sandbox \"i\" doesn't exist"}"#;
        check(
            404,
            None,
            known,
            "Sandbox \"i\" doesn't exist (status 404 Not Found)",
            false,
        );
        check(
            404,
            None,
            "id not found\n",
            "id not found (status 404 Not Found)",
            false,
        );
        check(
            503,
            None,
            "",
            "Service Unavailable (status 503 Service Unavailable)",
            true,
        );
    }

    #[test]
    fn the_server_decides_about_trying_again() {
        let full = r#"{"code":503,"message":"full","error_code":"sandbox_capacity_unavailable"}"#;
        check(
            503,
            Some("false"),
            full,
            "full (status 503 Service Unavailable)",
            false,
        );
        check(
            500,
            Some("true"),
            full,
            "full (status 500 Internal Server Error)",
            true,
        );
    }
}

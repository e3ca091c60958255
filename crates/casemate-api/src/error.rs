//! From what went wrong to what a client reads. The only place that knows status codes.
//!
//! Public texts are E2B's where E2B has one; causes stay inside and are logged here, once.

mod control;
mod templates;

pub use control::quota_text;

use std::fmt;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use casemate_types::chain;
use casemate_wire::ErrorBody;

const SHOULD_RETRY: &str = "should-retry";
/// What is away for a moment mostly is back by then, and the Python SDK, which would ask three times
/// within a second otherwise, waits so long each time.
const RETRY_AFTER_SECONDS: u64 = 1;

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
    error_code: Option<&'static str>,
    never_retry: bool,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            error_code: None,
            never_retry: false,
        }
    }

    /// The request does not fit the document: `validation error: …`, first line only.
    pub(crate) fn validation(what: impl fmt::Display) -> Self {
        let what = what.to_string();
        let first = what.lines().next().unwrap_or_default();
        Self::new(
            StatusCode::BAD_REQUEST,
            format!("validation error: {first}"),
        )
    }

    pub(crate) fn bad_request(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message.to_string())
    }

    pub(crate) fn not_found(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, message.to_string())
    }

    pub(crate) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message)
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    pub(crate) fn conflict(message: impl fmt::Display) -> Self {
        Self::new(StatusCode::CONFLICT, message.to_string())
    }

    pub(crate) fn gone(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, message)
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
    }

    pub(crate) fn body_too_large() -> Self {
        let max = casemate_types::limits::API_BODY_BYTES_MAX;
        let message = format!("request body is larger than {max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    pub(crate) fn body_too_slow() -> Self {
        let message = "the request body did not arrive in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, message)
    }

    pub(crate) fn deadline() -> Self {
        let message = "the request was not done in time; it may still take effect";
        Self::new(StatusCode::GATEWAY_TIMEOUT, message).never_retry()
    }

    /// Decision 12: an operation, or a field, that is not built yet.
    pub(crate) fn not_available(what: impl fmt::Display) -> Self {
        let message = format!("{what} is not available in this version of Casemate");
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    /// Our fault; the cause is logged and kept from the client.
    pub(crate) fn internal(message: &'static str, cause: &dyn std::error::Error) -> Self {
        tracing::error!(error = chain(cause), "{message}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    pub(crate) fn lost() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")
    }

    pub(crate) fn unavailable(message: &'static str, cause: &dyn std::error::Error) -> Self {
        tracing::error!(error = chain(cause), "{message}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    pub(crate) fn code(mut self, error_code: &'static str) -> Self {
        self.error_code = Some(error_code);
        self
    }

    /// The Python SDK repeats a POST on 429, 503 and 504 unless it is told not to.
    pub(crate) fn never_retry(mut self) -> Self {
        self.never_retry = true;
        self
    }

    /// For what must not be made twice: never retry, whatever the SDK would repeat.
    pub(crate) fn made_once(self) -> Self {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => self.never_retry(),
            _ => self,
        }
    }

    /// For what a key keeps from being made twice: asking again is right, unless the answer would be
    /// the same, as at a team's limit.
    pub(crate) fn made_once_by_key(self) -> Self {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => self.never_retry(),
            _ => self,
        }
    }

    /// Whether the same request may do better in a moment.
    fn passes(&self) -> bool {
        match self.status {
            StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => !self.never_retry,
            _ => false,
        }
    }
}

impl ApiError {
    /// For an answer that has others beside it.
    pub(crate) fn into_body(self) -> ErrorBody {
        ErrorBody {
            code: self.status.as_u16(),
            message: self.message,
            error_code: self.error_code.map(Into::into),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, never_retry, passes) = (self.status, self.never_retry, self.passes());
        let mut response = (status, Json(self.into_body())).into_response();
        let headers = response.headers_mut();
        if never_retry {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if passes {
            let seconds = HeaderValue::from(RETRY_AFTER_SECONDS);
            headers.insert(header::RETRY_AFTER, seconds);
        }
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 asks for one; clients of E2B read nothing of it.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

//! Codes and the two places where they show: the status of a unary answer, the end of a stream.

use http::StatusCode;
use serde::Serialize;

/// The codes of the Connect protocol that this agent answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    ResourceExhausted,
    FailedPrecondition,
    Unimplemented,
    Internal,
    Unauthenticated,
}

impl Code {
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::InvalidArgument => "invalid_argument",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::ResourceExhausted => "resource_exhausted",
            Self::FailedPrecondition => "failed_precondition",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
            Self::Unauthenticated => "unauthenticated",
        }
    }

    pub fn status(self) -> StatusCode {
        match self {
            Self::Unknown | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::InvalidArgument | Self::FailedPrecondition => StatusCode::BAD_REQUEST,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists => StatusCode::CONFLICT,
            Self::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
        }
    }
}

/// How a call fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", .code.name())]
pub struct RpcError {
    pub code: Code,
    pub message: String,
}

/// As it is written.
#[derive(Serialize)]
struct Written<'a> {
    code: &'a str,
    message: &'a str,
}

#[derive(Serialize)]
struct Ended<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Written<'a>>,
}

impl RpcError {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    fn written(&self) -> Written<'_> {
        Written {
            code: self.code.name(),
            message: &self.message,
        }
    }

    /// The body of a failed unary call.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.written()).unwrap_or_default()
    }
}

/// The last message of a stream.
pub fn end_of_stream(result: Result<(), &RpcError>) -> String {
    let error = result.err().map(RpcError::written);
    serde_json::to_string(&Ended { error }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes() {
        let error = RpcError::not_found("no \"x\"");
        assert_eq!(
            error.to_json(),
            r#"{"code":"not_found","message":"no \"x\""}"#
        );
        assert_eq!(
            end_of_stream(Err(&error)),
            r#"{"error":{"code":"not_found","message":"no \"x\""}}"#
        );
        assert_eq!(end_of_stream(Ok(())), "{}");
    }
}

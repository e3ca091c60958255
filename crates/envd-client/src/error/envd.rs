//! Faults of the sandbox's agent and of the edge in front of it.

use std::time::Duration;

use envd_wire::CodecError;
use http::StatusCode;
use serde::Deserialize;

use super::HttpError;
use crate::transport::Answer;

/// A call to a sandbox that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum EnvdError {
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The edge knows no such running sandbox.
    #[error("{message}")]
    NotRunning { message: String },
    /// The sandbox runs, but nothing listens on its agent's port.
    #[error("{message}")]
    PortClosed { message: String },
    /// The agent understood and refused.
    #[error("{message} ({code})")]
    Refused { code: RpcCode, message: String },
    #[error("{method} answered something that this client cannot read")]
    Unreadable {
        method: &'static str,
        #[source]
        source: CodecError,
    },
    #[error("{target} answered something that this client cannot read")]
    UnreadableAnswer {
        target: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("a request of {method} cannot be written")]
    Unwritable {
        method: &'static str,
        #[source]
        source: CodecError,
    },
    /// A command took longer than its caller allowed, and is being killed.
    #[error("the command took longer than {after:?}")]
    CommandTimeout { after: Duration },
    #[error("{method} broke the rules of its stream: {fault}")]
    Stream {
        method: &'static str,
        fault: &'static str,
    },
}

impl EnvdError {
    /// What was named (a process, a file) does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                code: RpcCode::NotFound,
                ..
            }
        )
    }

    /// Reads the error of a unary call, of a plain HTTP route, or of the edge.
    #[must_use]
    pub fn refused(answer: &Answer) -> Self {
        let status = answer.status;
        let Ok(error) = serde_json::from_slice::<ErrorBody>(&answer.body) else {
            return Self::Refused {
                code: RpcCode::of_status(status),
                message: answer.shown(),
            };
        };
        let message = error.message;
        match (status, error.sandbox_id) {
            // The edge's two answers for a sandbox that cannot be reached; only one names a port.
            (StatusCode::BAD_GATEWAY, Some(_)) if error.port.is_some() => {
                Self::PortClosed { message }
            }
            (StatusCode::BAD_GATEWAY, Some(_)) => Self::NotRunning { message },
            _ => {
                let code = match error.code {
                    Some(Code::Name(name)) => RpcCode::parse(&name),
                    Some(Code::Status) | None => RpcCode::of_status(status),
                };
                Self::Refused { code, message }
            }
        }
    }

    /// Reads the last message of a stream: the error in it, if there is one.
    pub(crate) fn end_of_stream(method: &'static str, payload: &[u8]) -> Result<(), Self> {
        let end: EndOfStream =
            serde_json::from_slice(payload).map_err(|source| Self::Unreadable {
                method,
                source: CodecError::Json(source),
            })?;
        match end.error {
            None => Ok(()),
            Some(StreamError { code, message }) => Err(Self::Refused {
                code: RpcCode::parse(&code),
                message,
            }),
        }
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    #[serde(default)]
    message: String,
    code: Option<Code>,
    #[serde(rename = "sandboxId")]
    sandbox_id: Option<String>,
    port: Option<u32>,
}

/// `code` is a word in Connect's errors. In those of plain HTTP it repeats the status.
enum Code {
    Name(String),
    Status,
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl serde::de::Visitor<'_> for Either {
            type Value = Code;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a code's name or a status")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Code, E> {
                Ok(Code::Name(name.to_owned()))
            }

            fn visit_u64<E: serde::de::Error>(self, _status: u64) -> Result<Code, E> {
                Ok(Code::Status)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[derive(Deserialize)]
struct EndOfStream {
    error: Option<StreamError>,
}

#[derive(Deserialize)]
struct StreamError {
    code: String,
    #[serde(default)]
    message: String,
}

/// The codes of the Connect protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RpcCode {
    Canceled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
    /// A word that the protocol does not have.
    Other(String),
}

impl RpcCode {
    const NAMES: [(Self, &'static str); 16] = [
        (Self::Canceled, "canceled"),
        (Self::Unknown, "unknown"),
        (Self::InvalidArgument, "invalid_argument"),
        (Self::DeadlineExceeded, "deadline_exceeded"),
        (Self::NotFound, "not_found"),
        (Self::AlreadyExists, "already_exists"),
        (Self::PermissionDenied, "permission_denied"),
        (Self::ResourceExhausted, "resource_exhausted"),
        (Self::FailedPrecondition, "failed_precondition"),
        (Self::Aborted, "aborted"),
        (Self::OutOfRange, "out_of_range"),
        (Self::Unimplemented, "unimplemented"),
        (Self::Internal, "internal"),
        (Self::Unavailable, "unavailable"),
        (Self::DataLoss, "data_loss"),
        (Self::Unauthenticated, "unauthenticated"),
    ];

    fn parse(name: &str) -> Self {
        Self::NAMES
            .into_iter()
            .find_map(|(code, known)| (known == name).then_some(code))
            .unwrap_or_else(|| Self::Other(name.to_owned()))
    }

    /// What a plain HTTP status means where a code was expected.
    fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            400 => Self::InvalidArgument,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::NotFound,
            409 => Self::AlreadyExists,
            413 | 429 => Self::ResourceExhausted,
            499 => Self::Canceled,
            500 => Self::Internal,
            501 | 505 => Self::Unimplemented,
            502 | 503 => Self::Unavailable,
            504 => Self::DeadlineExceeded,
            _ => Self::Unknown,
        }
    }
}

impl std::fmt::Display for RpcCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::Other(name) => name,
            known => Self::NAMES
                .iter()
                .find_map(|(code, name)| (code == known).then_some(*name))
                .expect("every code but Other is in the table"),
        };
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, body: &str, expected: &str) {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: http::HeaderMap::new(),
            body: body.to_owned().into(),
        };
        assert_eq!(format!("{:?}", EnvdError::refused(&answer)), expected);
    }

    #[test]
    fn the_edges_two_answers_are_told_apart() {
        check(
            502,
            r#"{"sandboxId":"i1","message":"The sandbox was not found","code":502}"#,
            r#"NotRunning { message: "The sandbox was not found" }"#,
        );
        check(
            502,
            r#"{"sandboxId":"i1","message":"port is not open","port":49983,"code":502}"#,
            r#"PortClosed { message: "port is not open" }"#,
        );
    }

    #[test]
    fn codes_are_words_or_come_from_the_status() {
        check(
            404,
            r#"{"code":"not_found","message":"process with pid 7 not found"}"#,
            r#"Refused { code: NotFound, message: "process with pid 7 not found" }"#,
        );
        check(
            401,
            r#"{"code":401,"message":"unauthorized access"}"#,
            r#"Refused { code: Unauthenticated, message: "unauthorized access" }"#,
        );
        check(
            500,
            r#"{"code":"odd","message":"m"}"#,
            r#"Refused { code: Other("odd"), message: "m" }"#,
        );
        check(
            404,
            "404 page not found\n",
            r#"Refused { code: NotFound, message: "404 page not found" }"#,
        );
    }

    #[test]
    fn the_end_of_a_stream_is_success_only_without_an_error() {
        assert!(EnvdError::end_of_stream("m", b"{}").is_ok());
        let failed = br#"{"error":{"code":"deadline_exceeded","message":"late"}}"#;
        let error = EnvdError::end_of_stream("m", failed).unwrap_err();
        assert_eq!(error.to_string(), "late (deadline_exceeded)");
        assert!(EnvdError::end_of_stream("m", b"oops").is_err());
    }

    #[test]
    fn every_code_is_read_as_it_is_written() {
        for (code, name) in RpcCode::NAMES {
            assert_eq!(RpcCode::parse(name), code);
            assert_eq!(code.to_string(), name);
        }
    }
}

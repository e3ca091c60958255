//! The answers that the edge gives itself, byte for byte as clients know them (`api.md` 4.5).
//!
//! SDKs match on these texts (`was not found`, `port is not open`): they are wire format.

mod page;
mod prefer;

use bytes::Bytes;
use casemate_types::SandboxId;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

pub(crate) use prefer::Format;

use crate::target::TargetError;

/// As the API's.
const RETRY_AFTER_SECONDS: u64 = 1;

/// Why the edge does not carry a request on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No such sandbox runs; also one that is paused and not to be woken.
    NotFound(SandboxId),
    /// It runs, but the service does not answer on this port.
    PortClosed {
        sandbox: SandboxId,
        port: u64,
    },
    Transitioning(SandboxId),
    /// It was sent into a run of the sandbox that ended before an answer came: by a pause, as a
    /// rule. Whether its service carried it out, nobody knows.
    Interrupted {
        sandbox: SandboxId,
        /// Doing it twice does no more than doing it once.
        repeatable: bool,
    },
    TooManyRequests {
        sandbox: SandboxId,
        limit: u32,
    },
    TrafficTokenMissing(SandboxId),
    TrafficTokenInvalid(SandboxId),
    /// It is paused, and the request may not wake it.
    ResumeDenied(SandboxId),
    /// It is paused, and its team runs as many as it may.
    TeamLimit {
        sandbox: SandboxId,
        message: String,
    },
    Reserved {
        path: &'static str,
    },
    /// The routing itself failed, which says nothing about the sandbox; the cause is logged, not
    /// shown. E2B answers 500; but the next try may find a node that is back, and not 502, which
    /// `is_running` of the SDKs takes for an end.
    Unexpected {
        what: &'static str,
    },
    Target(TargetError),
    HeadTooLarge {
        limit: usize,
    },
    MethodNotAllowed,
    /// What its client sent as a body is none, or ended early.
    BodyBroken,
}

/// The JSON form; absent fields are left out, the order is upstream's.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox_id: Option<&'a SandboxId>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_limit: Option<u32>,
    code: u16,
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NotFound(_) | Self::PortClosed { .. } => StatusCode::BAD_GATEWAY,
            Self::Transitioning(_) => StatusCode::CONFLICT,
            Self::TooManyRequests { .. } | Self::TeamLimit { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::TrafficTokenMissing(_) | Self::TrafficTokenInvalid(_) | Self::ResumeDenied(_) => {
                StatusCode::FORBIDDEN
            }
            Self::Reserved { .. } => StatusCode::NOT_FOUND,
            Self::Interrupted { .. } | Self::Unexpected { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Target(_) | Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    /// Whether the same request may do better in a moment. Of [`Refusal::TeamLimit`] nobody knows,
    /// and a 409 says it in its text, as upstream's does.
    fn passes(&self) -> bool {
        match self {
            Self::TooManyRequests { .. } | Self::Unexpected { .. } => true,
            Self::Interrupted { repeatable, .. } => *repeatable,
            Self::NotFound(_)
            | Self::PortClosed { .. }
            | Self::Transitioning(_)
            | Self::TrafficTokenMissing(_)
            | Self::TrafficTokenInvalid(_)
            | Self::ResumeDenied(_)
            | Self::TeamLimit { .. }
            | Self::Reserved { .. }
            | Self::Target(_)
            | Self::HeadTooLarge { .. }
            | Self::MethodNotAllowed
            | Self::BodyBroken => false,
        }
    }

    pub(crate) fn message(&self) -> String {
        const SECURED: &str = "Sandbox is secured with traffic access token.";
        const HEADER: &str = "'e2b-traffic-access-token'";
        match self {
            Self::NotFound(_) => "The sandbox was not found".to_owned(),
            Self::PortClosed { .. } => "The sandbox is running but port is not open".to_owned(),
            Self::Transitioning(_) => {
                "The sandbox is still transitioning. Try again in a moment.".to_owned()
            }
            Self::Interrupted { .. } => {
                "The connection into the sandbox ended before it answered, as when it is paused. \
                 The request may have been carried out."
                    .to_owned()
            }
            Self::TooManyRequests { limit, .. } => {
                format!("The sandbox has too many concurrent incoming connections (limit: {limit})")
            }
            Self::TrafficTokenMissing(_) => {
                format!("{SECURED} Token header {HEADER} is missing")
            }
            Self::TrafficTokenInvalid(_) => {
                format!("{SECURED} Provided token in header {HEADER} is invalid")
            }
            Self::ResumeDenied(_) => {
                "This sandbox can't be resumed with the credentials provided. \
                                      Check your access token and try again."
                    .to_owned()
            }
            Self::TeamLimit { message, .. } => message.clone(),
            Self::Reserved { path } => format!(
                "The path '{path}' is reserved for the Casemate control plane and is not \
                 reachable through the sandbox URL"
            ),
            Self::Unexpected { what } => {
                format!("Unexpected error when routing request: {what}")
            }
            Self::Target(error) => error.to_string(),
            Self::HeadTooLarge { limit } => {
                format!("The request's line and headers are larger than {limit} bytes")
            }
            Self::MethodNotAllowed => "Method not allowed".to_owned(),
            Self::BodyBroken => "The request's body is malformed or ended early".to_owned(),
        }
    }

    /// The whole answer. `host` is what the client asked for, shown on pages for people.
    pub(crate) fn response(&self, format: Format, host: &str) -> Response<Bytes> {
        let (content_type, body) = match self {
            Self::Unexpected { .. } | Self::Target(_) | Self::MethodNotAllowed => {
                ("text/plain; charset=utf-8", self.message())
            }
            Self::HeadTooLarge { .. } | Self::BodyBroken => {
                ("application/json; charset=utf-8", self.json())
            }
            Self::NotFound(_)
            | Self::PortClosed { .. }
            | Self::Transitioning(_)
            | Self::Interrupted { .. }
            | Self::TooManyRequests { .. }
            | Self::TrafficTokenMissing(_)
            | Self::TrafficTokenInvalid(_)
            | Self::ResumeDenied(_)
            | Self::TeamLimit { .. }
            | Self::Reserved { .. } => match format {
                Format::Json => ("application/json; charset=utf-8", self.json()),
                Format::Html => ("text/html; charset=utf-8", page::render(self, host)),
            },
        };
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if self.passes() {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        response
    }

    /// The answer as bytes of HTTP/1.1, for a connection that is past its HTTP machinery.
    pub(crate) fn raw_http1(&self) -> Vec<u8> {
        let response = self.response(Format::Json, "");
        let (status, body) = (response.status(), response.body());
        let mut out = format!("HTTP/1.1 {status}\r\n{CONNECTION}: close\r\n");
        for (name, value) in response.headers() {
            // Ours alone, so they are text.
            out.push_str(&format!(
                "{name}: {}\r\n",
                value.to_str().unwrap_or_default()
            ));
        }
        out.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        let mut out = out.into_bytes();
        out.extend_from_slice(body);
        out
    }

    pub(crate) fn sandbox(&self) -> Option<&SandboxId> {
        match self {
            Self::NotFound(id)
            | Self::Transitioning(id)
            | Self::TrafficTokenMissing(id)
            | Self::TrafficTokenInvalid(id)
            | Self::ResumeDenied(id)
            | Self::TeamLimit { sandbox: id, .. }
            | Self::PortClosed { sandbox: id, .. }
            | Self::Interrupted { sandbox: id, .. }
            | Self::TooManyRequests { sandbox: id, .. } => Some(id),
            Self::Reserved { .. }
            | Self::Unexpected { .. }
            | Self::Target(_)
            | Self::HeadTooLarge { .. }
            | Self::MethodNotAllowed
            | Self::BodyBroken => None,
        }
    }

    fn json(&self) -> String {
        let json = Json {
            sandbox_id: self.sandbox(),
            message: self.message(),
            port: match self {
                Self::PortClosed { port, .. } => Some(*port),
                _ => None,
            },
            path: match self {
                Self::Reserved { path } => Some(path),
                _ => None,
            },
            connection_limit: match self {
                Self::TooManyRequests { limit, .. } => Some(*limit),
                _ => None,
            },
            code: self.status().as_u16(),
        };
        serde_json::to_string(&json).expect("strings and numbers always serialize")
    }
}

#[cfg(test)]
mod tests;

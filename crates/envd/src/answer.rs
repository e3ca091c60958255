//! Answers outside the RPC layer: plain statuses, texts and the agent's own JSON errors.

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};

use crate::body::Body;

pub type Answer = Response<Body>;

pub const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

pub fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Body::Empty);
    *answer.status_mut() = status;
    answer
}

/// 204, not to be kept by anybody in between.
pub fn done() -> Answer {
    not_stored(empty(StatusCode::NO_CONTENT))
}

pub fn not_stored(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    answer
}

/// Plain text with a newline, as Go's HTTP library writes its errors.
pub fn text(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Body::text(format!("{text}\n")));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// `{"code":<status>,"message":…}`: every error of the plain HTTP routes.
pub fn error(status: StatusCode, message: &str) -> Answer {
    let body = serde_json::json!({"code": status.as_u16(), "message": message});
    let mut answer = Response::new(Body::text(format!("{body}\n")));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// An error of the plain HTTP routes before it is an answer: small, and threads may make it.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    status: StatusCode,
    message: String,
    is_text: bool,
}

pub fn refuse(status: StatusCode, message: &str) -> Refusal {
    Refusal {
        status,
        message: message.to_owned(),
        is_text: false,
    }
}

/// One of the few errors that are plain text.
pub fn refuse_in_text(status: StatusCode, message: &str) -> Refusal {
    Refusal {
        is_text: true,
        ..refuse(status, message)
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        if refusal.is_text {
            text(refusal.status, &refusal.message)
        } else {
            error(refusal.status, &refusal.message)
        }
    }
}

pub fn json(body: String) -> Answer {
    let mut answer = Response::new(Body::text(body));
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer
}

pub fn not_found() -> Answer {
    text(StatusCode::NOT_FOUND, "404 page not found")
}

pub fn wrong_method(allowed: &'static str) -> Answer {
    let mut answer = empty(StatusCode::METHOD_NOT_ALLOWED);
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

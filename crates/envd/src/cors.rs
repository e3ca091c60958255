//! Cross-origin requests: everything is allowed, nothing is authenticated by the browser.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use http::{Method, StatusCode};

use crate::answer::{Answer, empty};

const ANY: HeaderValue = HeaderValue::from_static("*");
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Grpc-Status, Grpc-Message, Grpc-Status-Details-Bin, Location, Cache-Control, \
     X-Content-Type-Options",
);
const METHODS: [&str; 6] = ["HEAD", "GET", "POST", "PUT", "PATCH", "DELETE"];

/// The answer to a preflight, if the request is one.
pub fn preflight(method: &Method, headers: &HeaderMap) -> Option<Answer> {
    let wanted = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    if method != Method::OPTIONS {
        return None;
    }
    let mut answer = empty(StatusCode::NO_CONTENT);
    let out = answer.headers_mut();
    out.insert(
        VARY,
        HeaderValue::from_static(
            "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        ),
    );
    let known = METHODS
        .iter()
        .any(|method| method.as_bytes() == wanted.as_bytes());
    if headers.contains_key(ORIGIN) && known {
        out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
        out.insert(ACCESS_CONTROL_ALLOW_METHODS, wanted.clone());
        if let Some(names) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            out.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        out.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
    }
    Some(answer)
}

/// Marks an ordinary answer as readable by pages of any origin.
pub fn mark(has_origin: bool, answer: &mut Answer) {
    let headers = answer.headers_mut();
    headers.append(VARY, HeaderValue::from_static("Origin"));
    if has_origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
}

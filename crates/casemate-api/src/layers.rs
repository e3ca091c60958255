//! What holds for every request, whatever its operation.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    CACHE_CONTROL, ORIGIN,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;

use crate::error::ApiError;

/// A request that takes longer is answered 504; what it changes goes on (it runs detached).
const REQUEST_TIME_MAX: Duration = Duration::from_secs(70);

const CORS_METHODS: &str = "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS";
const CORS_REQUEST_HEADERS: &str = "Origin, Content-Length, Content-Type, User-Agent, \
    Authorization, X-API-Key, X-Team-ID, browser, lang, lang_version, machine, os, \
    package_version, processor, publisher, release, sdk_runtime, system";
const CORS_RESPONSE_HEADERS: &str = "X-Next-Token, X-Total-Running, RateLimit-Limit, \
    RateLimit-Remaining, RateLimit-Reset, Retry-After";
/// Twelve hours.
const CORS_AGE_SECONDS: &str = "43200";

pub(crate) async fn deadline(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIME_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::deadline().into_response(),
    }
}

/// A fault of ours must not look like a broken network to the client.
pub(crate) async fn panics(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!(path, "a handler panicked");
            ApiError::lost().into_response()
        }
    }
}

/// Browsers of any origin may call; credentials are headers, never cookies.
pub(crate) async fn cors(request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !headers.contains_key(ORIGIN) {
        return next.run(request).await;
    }
    let preflight =
        request.method() == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight {
        let mut response = StatusCode::NO_CONTENT.into_response();
        let headers = response.headers_mut();
        let value = HeaderValue::from_static;
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, value(CORS_METHODS));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, value(CORS_REQUEST_HEADERS));
        headers.insert(ACCESS_CONTROL_MAX_AGE, value(CORS_AGE_SECONDS));
        response
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    let value = HeaderValue::from_static;
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, value("*"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, value(CORS_RESPONSE_HEADERS));
    response
}

/// Answers about secrets are never stored, and their errors have fixed texts.
pub(crate) async fn secrets(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path != "/secrets" && !path.starts_with("/secrets/") {
        return next.run(request).await;
    }
    let mut response = next.run(request).await;
    let fixed = match response.status() {
        StatusCode::BAD_REQUEST => Some("Invalid secrets request"),
        StatusCode::UNAUTHORIZED => Some("You are not authenticated"),
        StatusCode::NOT_FOUND => Some("Secret not found"),
        _ => None,
    };
    if let Some(message) = fixed {
        response = ApiError::new(response.status(), message).into_response();
    }
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}

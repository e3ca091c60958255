//! How often a team, or a user, may ask: behind authentication, before anything else is read.
//!
//! A bucket of tokens for each caller and group of operations. Where nobody counts, as the catalog
//! is away, requests pass. Administrators, and operations that need no credential, are not limited.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use casemate_catalog::{Rate, RateTake, Rates};
use casemate_control::auth::Caller;
use casemate_types::chain;

use crate::error::ApiError;
use crate::operation::Operation;
use crate::router::ApiState;

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Operations that start a sandbox or a build.
const STARTS: [&str; 4] = [
    "/sandboxes",
    "/v2/sandboxes",
    "/sandboxes/{sandboxID}/fork",
    "/v2/templates/{templateID}/builds/{buildID}",
];

/// What each caller may do in each group. `None`: as much as it likes.
#[derive(Debug, Clone, Copy, Default)]
pub struct RateLimits {
    /// Creates and forks of sandboxes, and starts of builds.
    pub creates: Option<Rate>,
    /// Everything else that changes something.
    pub changes: Option<Rate>,
    pub reads: Option<Rate>,
}

impl RateLimits {
    fn of(&self, group: Group) -> Option<Rate> {
        match group {
            Group::Creates => self.creates,
            Group::Changes => self.changes,
            Group::Reads => self.reads,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Creates,
    Changes,
    Reads,
}

impl Group {
    fn of(operation: &Operation) -> Self {
        match operation.method {
            Method::GET | Method::HEAD => Self::Reads,
            Method::POST if STARTS.contains(&operation.path) => Self::Creates,
            _ => Self::Changes,
        }
    }

    /// In the names of buckets.
    fn as_str(self) -> &'static str {
        match self {
            Self::Creates => "creates",
            Self::Changes => "changes",
            Self::Reads => "reads",
        }
    }
}

/// The limits, and who counts.
#[derive(Clone)]
pub(crate) struct Limiter {
    pub(crate) limits: RateLimits,
    pub(crate) rates: Arc<dyn Rates>,
}

impl Limiter {
    /// What holds for an operation, if anything does.
    pub(crate) fn of(&self, operation: &Operation) -> Option<Limited> {
        let group = Group::of(operation);
        let rate = self.limits.of(group)?;
        let rates = Arc::clone(&self.rates);
        Some(Limited { group, rate, rates })
    }
}

/// What holds for one operation.
#[derive(Clone)]
pub(crate) struct Limited {
    group: Group,
    rate: Rate,
    rates: Arc<dyn Rates>,
}

/// Lets a request through that its caller has a token for. [`crate::auth::guard`] comes first.
pub(crate) async fn limit(
    State((state, limited)): State<(ApiState, Limited)>,
    request: Request,
    next: Next,
) -> Response {
    let group = limited.group.as_str();
    let bucket = match request.extensions().get::<Caller>() {
        Some(Caller::Team(caller)) => format!("api:{group}:team:{}", caller.team.id),
        Some(Caller::User(user)) => format!("api:{group}:user:{user}"),
        Some(Caller::Anybody | Caller::Admin) | None => return next.run(request).await,
    };
    match limited.rates.rate_take(&bucket, limited.rate).await {
        Ok(RateTake::Taken {
            limit,
            remaining,
            reset,
        }) => {
            let mut response = next.run(request).await;
            tell(response.headers_mut(), limit, remaining, reset);
            response
        }
        Ok(RateTake::Refused {
            limit,
            retry_after,
            reset,
        }) => {
            let refusal = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "Rate limit exceeded");
            let mut response = refusal.into_response();
            let headers = response.headers_mut();
            tell(headers, limit, 0, reset);
            let retry_after = seconds(retry_after).max(1);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
            response
        }
        Ok(RateTake::Uncounted) => {
            state.metrics.note_uncounted();
            next.run(request).await
        }
        Err(error) => {
            state.metrics.note_uncounted();
            tracing::warn!(error = chain(&error), "a request is not counted");
            next.run(request).await
        }
    }
}

fn tell(headers: &mut HeaderMap, limit: u32, remaining: u32, reset: Duration) {
    headers.insert(LIMIT, HeaderValue::from(limit));
    headers.insert(REMAINING, HeaderValue::from(remaining));
    headers.insert(RESET, HeaderValue::from(seconds(reset)));
}

/// Rounded up.
fn seconds(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_add(u64::from(duration.subsec_nanos() > 0))
}

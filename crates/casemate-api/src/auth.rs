//! Authentication before anything else of a request is looked at.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use casemate_control::auth::{Access, Caller, Credentials, TeamCaller, WhenBlocked};
use casemate_types::UserId;

use crate::error::ApiError;
use crate::operation::Operation;
use crate::router::ApiState;

/// What an operation demands of its callers.
#[derive(Clone, Copy)]
pub(crate) struct Demand {
    access: Access,
    when_blocked: WhenBlocked,
}

impl Demand {
    pub(crate) fn of(operation: &Operation) -> Self {
        Self {
            access: operation.access,
            when_blocked: operation.when_blocked,
        }
    }
}

/// Lets a request through with its [`Caller`] in the extensions.
pub(crate) async fn guard(
    State((state, demand)): State<(ApiState, Demand)>,
    mut request: Request,
    next: Next,
) -> Response {
    let credentials = credentials(request.headers());
    let caller = state
        .control
        .authenticate(demand.access, demand.when_blocked, &credentials)
        .await;
    match caller {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => ApiError::from(error).into_response(),
    }
}

/// A header that is no text counts as one that fits nothing.
fn credentials(headers: &HeaderMap) -> Credentials {
    let text = |name: &str| {
        let value = headers.get(name)?;
        let text = value.to_str().unwrap_or("\u{fffd}");
        (!text.is_empty()).then(|| text.to_owned())
    };
    Credentials {
        api_key: text("x-api-key"),
        authorization: text("authorization"),
        team: text("x-team-id"),
        admin_token: text("x-admin-token"),
    }
}

/// The team that a T operation acts for.
pub(crate) struct Team(pub(crate) TeamCaller);

/// The user of a U operation.
pub(crate) struct User(pub(crate) UserId);

/// Who a T+A operation acts for.
pub(crate) enum TeamOrUser {
    Team(TeamCaller),
    User(UserId),
}

impl<S: Sync> FromRequestParts<S> for TeamOrUser {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match caller(parts) {
            Some(Caller::Team(team)) => Ok(Self::Team(team)),
            Some(Caller::User(user)) => Ok(Self::User(user)),
            _ => Err(wrong_row("a team or a user")),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Team {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match caller(parts) {
            Some(Caller::Team(team)) => Ok(Self(team)),
            _ => Err(wrong_row("a team")),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for User {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match caller(parts) {
            Some(Caller::User(user)) => Ok(Self(user)),
            _ => Err(wrong_row("a user")),
        }
    }
}

fn caller(parts: &Parts) -> Option<Caller> {
    parts.extensions.get::<Caller>().cloned()
}

/// The table's access rule and the handler disagree: a fault of ours that must not let anybody in.
fn wrong_row(wanted: &str) -> ApiError {
    tracing::error!("an operation for {wanted} is registered with another access rule");
    ApiError::lost()
}

/// All headers, for a handler that judges its callers itself.
pub(crate) struct Headers(pub(crate) HeaderMap);

impl<S: Sync> FromRequestParts<S> for Headers {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.headers.clone()))
    }
}

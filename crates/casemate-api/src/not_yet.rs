//! Operations of the contract that this version does not have (decision 12).
//!
//! Each answers after authentication, so that it behaves like the real one to a stranger. Where
//! E2B has an answer for "this feature is off", that is the answer.

use axum::http::Method;
use casemate_control::auth::Access;

use crate::error::ApiError;
use crate::operation::{Kind, Operation};

/// What a place holder answers.
#[derive(Clone, Copy)]
enum Answer {
    /// 501, naming the operation.
    Missing(&'static str),
    /// 410, naming the new way.
    Gone(&'static str),
    Volumes,
    Secrets,
}

impl Answer {
    fn error(self) -> ApiError {
        match self {
            Self::Missing(what) => ApiError::not_available(what),
            Self::Gone(message) => ApiError::gone(message),
            Self::Volumes => ApiError::forbidden("use of volumes is not enabled"),
            Self::Secrets => ApiError::forbidden("Secrets are not available for this team"),
        }
    }
}

const NEW_BUILDS: &str = "This way of building templates is gone; update your SDK or command line: \
    POST /v3/templates, then POST /v2/templates/{templateID}/builds/{buildID}";

type Row = (Method, &'static str, Access, Answer);

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    use Access::{Anybody, Provider, ProviderTeam, Team, UserOrProviderTeam};
    use Answer::{Gone, Missing, Secrets, Volumes};
    let (get, post) = (Method::GET, Method::POST);
    let (put, patch, delete) = (Method::PUT, Method::PATCH, Method::DELETE);
    vec![
        (post.clone(), "/access-tokens", Provider, Missing("Creating access tokens")),
        (delete.clone(), "/access-tokens/{accessTokenID}", Provider, Missing("Deleting access tokens")),
        (post.clone(), "/api-keys", ProviderTeam, Missing("Creating API keys without an administrator")),
        (post.clone(), "/v2/templates", Team, Gone(NEW_BUILDS)),
        (post.clone(), "/templates", UserOrProviderTeam, Gone(NEW_BUILDS)),
        (post.clone(), "/templates/{templateID}", UserOrProviderTeam, Gone(NEW_BUILDS)),
        (post.clone(), "/templates/{templateID}/builds/{buildID}", UserOrProviderTeam, Gone(NEW_BUILDS)),
        (get.clone(), "/volumes", Team, Volumes),
        (post.clone(), "/volumes", Team, Volumes),
        (get.clone(), "/volumes/{volumeID}", Team, Volumes),
        (delete.clone(), "/volumes/{volumeID}", Team, Volumes),
        // Their tokens come from the volumes, of which there are none: nobody can hold one.
        (get.clone(), "/volumecontent/{volumeID}/path", Anybody, Missing("Volume content")),
        (patch.clone(), "/volumecontent/{volumeID}/path", Anybody, Missing("Volume content")),
        (delete.clone(), "/volumecontent/{volumeID}/path", Anybody, Missing("Volume content")),
        (get.clone(), "/volumecontent/{volumeID}/dir", Anybody, Missing("Volume content")),
        (post.clone(), "/volumecontent/{volumeID}/dir", Anybody, Missing("Volume content")),
        (get.clone(), "/volumecontent/{volumeID}/file", Anybody, Missing("Volume content")),
        (put.clone(), "/volumecontent/{volumeID}/file", Anybody, Missing("Volume content")),
        (get.clone(), "/secrets", Team, Secrets),
        (post.clone(), "/secrets", Team, Secrets),
        (get.clone(), "/secrets/{secretID}", Team, Secrets),
        (post.clone(), "/secrets/{secretID}", Team, Secrets),
        (delete.clone(), "/secrets/{secretID}", Team, Secrets),
    ]
}

pub(crate) fn operations() -> impl Iterator<Item = Operation> {
    rows().into_iter().map(|(method, path, access, answer)| {
        let reading = method == Method::GET;
        let handler = move || async move { answer.error() };
        let operation = Operation::new(method, path, access, Kind::NotYet, handler);
        if reading {
            operation.also_when_blocked()
        } else {
            operation
        }
    })
}

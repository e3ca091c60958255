//! The public REST API, as a team and as the administrator.
//!
//! Owns who is asked with which credentials and how an answer is judged; `sandboxes`, `snapshots`,
//! `templates`, `history` and `keys` are what can be asked. Nothing is sent twice on its own account: a create that failed may have made
//! a sandbox, and whether to try again is the caller's to decide.

mod cluster;
mod history;
mod keys;
mod sandboxes;
mod snapshots;
mod templates;

use bytes::Bytes;
use envd_client::{ANSWER_TIMEOUT, Answer, BaseUrl, Envd, HttpError, Transport};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use casemate_wire::{
    AssignedTags, AutoResume, BuildLogEntry, BuildStatusReason, ClusterNode, CollectBuilds,
    CollectedBuilds, CreatedJoinToken, CreatedTeamApiKey, DrainedNode, ErrorBody, ForkResult,
    ImageArchive, ListedSandbox, NewJoinToken, NewTemplateBuild, NodeLeft, PauseMode,
    RequestedTemplateBuild, Sandbox, SandboxDetail, SandboxLogEntry, SandboxMetric, SnapshotInfo,
    StartTemplateBuild, State, TeamApiKey, Template, TemplateAlias, TemplateBuildInfo,
    TemplateFilesUpload, TemplateStep, TemplateTag, TemplateWithBuilds,
};
pub use sandboxes::{Connected, Egress, Kept, NewSandbox, Page, SandboxFilter};
pub use templates::TemplateDownload;

use crate::error::ApiError;

/// The most that is read of an answer. A full page of sandboxes with metadata fits.
const ANSWER_BYTES_MAX: usize = 32 << 20;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const ADMIN_TOKEN: HeaderName = HeaderName::from_static("x-admin-token");
const TEAM_ID: HeaderName = HeaderName::from_static("x-team-id");

/// One piece of a path or of a query: only what needs no escape anywhere stays.
const PIECE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The API as a team sees it.
#[derive(Clone)]
pub struct Api {
    server: Server,
}

impl Api {
    pub fn new(transport: Transport, base: BaseUrl, api_key: &str) -> Result<Self, HttpError> {
        let mut credentials = HeaderMap::new();
        credentials.insert(API_KEY, secret("x-api-key", api_key)?);
        Ok(Self {
            server: Server {
                transport,
                base,
                credentials,
            },
        })
    }

    /// The agent of a sandbox, through this edge, on the same connections where that can be. The
    /// token is the one that create, connect and get answer.
    pub fn envd(
        &self,
        edge: &BaseUrl,
        sandbox_id: &str,
        access_token: Option<&str>,
    ) -> Result<Envd, HttpError> {
        let transport = self.server.transport.clone();
        Envd::new(transport, edge.clone(), sandbox_id, access_token)
    }
}

/// The API as the administrator sees it, acting for one team.
#[derive(Clone)]
pub struct Admin {
    server: Server,
    team_id: String,
}

impl Admin {
    pub fn new(
        transport: Transport,
        base: BaseUrl,
        admin_token: &str,
        team_id: &str,
    ) -> Result<Self, HttpError> {
        let mut credentials = HeaderMap::new();
        credentials.insert(ADMIN_TOKEN, secret("x-admin-token", admin_token)?);
        credentials.insert(TEAM_ID, secret("x-team-id", team_id)?);
        let server = Server {
            transport,
            base,
            credentials,
        };
        Ok(Self {
            server,
            team_id: team_id.to_owned(),
        })
    }
}

fn secret(name: &'static str, text: &str) -> Result<HeaderValue, HttpError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| HttpError::Header { name })?;
    value.set_sensitive(true);
    Ok(value)
}

/// One server and the credentials that every call to it carries.
#[derive(Clone)]
struct Server {
    transport: Transport,
    base: BaseUrl,
    credentials: HeaderMap,
}

impl Server {
    async fn get(&self, path: &str) -> Result<Answer, ApiError> {
        self.send(Method::GET, path, None, Bytes::new()).await
    }

    async fn delete(&self, path: &str) -> Result<Answer, ApiError> {
        self.send(Method::DELETE, path, None, Bytes::new()).await
    }

    async fn delete_with(&self, path: &str, body: &impl Serialize) -> Result<Answer, ApiError> {
        self.send(Method::DELETE, path, Some(JSON), json(body))
            .await
    }

    async fn patch(&self, path: &str, body: &impl Serialize) -> Result<Answer, ApiError> {
        self.send(Method::PATCH, path, Some(JSON), json(body)).await
    }

    async fn put(&self, path: &str, body: &impl Serialize) -> Result<Answer, ApiError> {
        self.send(Method::PUT, path, Some(JSON), json(body)).await
    }

    async fn post(&self, path: &str, body: &impl Serialize) -> Result<Answer, ApiError> {
        self.send(Method::POST, path, Some(JSON), json(body)).await
    }

    /// With the credentials.
    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Bytes>, ApiError> {
        let request = Request::builder()
            .method(method)
            .uri(self.base.join(path)?)
            .body(body);
        let mut request = request.map_err(|source| HttpError::Path {
            path: path.to_owned(),
            source,
        })?;
        request.headers_mut().extend(self.credentials.clone());
        Ok(request)
    }

    /// Answers what succeeded; everything else is a refusal.
    async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: Option<HeaderValue>,
        body: Bytes,
    ) -> Result<Answer, ApiError> {
        let mut request = self.request(method, path, body)?;
        if let Some(content_type) = content_type {
            request.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        let answer = self
            .transport
            .call(request, ANSWER_BYTES_MAX, ANSWER_TIMEOUT)
            .await?;
        if answer.status.is_success() {
            Ok(answer)
        } else {
            Err(ApiError::refused(&answer))
        }
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

fn json(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body)
        .expect("our own bodies have string keys and no failing parts")
        .into()
}

fn read<T: DeserializeOwned>(operation: &'static str, answer: &Answer) -> Result<T, ApiError> {
    serde_json::from_slice(&answer.body)
        .map_err(|source| ApiError::Unreadable { operation, source })
}

/// What asks for the page after this one.
fn next_token(answer: &Answer) -> Option<String> {
    let token = answer.headers.get("x-next-token")?.to_str().ok()?;
    (!token.is_empty()).then(|| token.to_owned())
}

/// Whether what was to be ended was there. Only "not found" is told apart from other refusals.
fn ended(result: Result<Answer, ApiError>) -> Result<bool, ApiError> {
    match result {
        Ok(_) => Ok(true),
        Err(ApiError::Refused {
            status: StatusCode::NOT_FOUND,
            ..
        }) => Ok(false),
        Err(error) => Err(error),
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api")
            .field("base", &self.server.base)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin")
            .field("base", &self.server.base)
            .finish_non_exhaustive()
    }
}

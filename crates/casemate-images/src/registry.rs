//! One repository of one registry, asked for manifests and blobs (OCI distribution specification 1.1).

mod aws;
mod challenge;
mod manifest;

use std::sync::{Mutex, PoisonError};

use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use tokio::time::{sleep, timeout};

pub(crate) use aws::{AwsKeys, ecr_login};
pub use manifest::ProcessConfig;
pub(crate) use manifest::{
    Config, Manifest, NotAnImage, Packed, check_layers, read_config, read_manifest,
};

use crate::credentials::Login;
use crate::web::{Ask, Authority, FetchError, Reply, Url, Web};
use challenge::Challenge;

/// Largest manifest or config in bytes: what registries themselves take.
const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest answer with a token, or with an error that is looked into.
const NOTE_BYTES_MAX: usize = 64 * 1024;
const MANIFEST_KINDS: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// A repository where an image may be had.
pub(crate) struct Source {
    at: Authority,
    insecure: bool,
    repository: String,
    login: Option<Login>,
    /// What the registry took last; asked for anew when it stops taking it.
    authorization: Mutex<Option<HeaderValue>>,
}

/// Why a source did not give what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum PullError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the registry answered {status}")]
    Refused {
        status: StatusCode,
        code: Option<RegistryCode>,
    },
    #[error("the token service's answer holds no token")]
    Token,
}

/// Codes of the specification that mean something to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RegistryCode {
    ManifestUnknown,
    NameUnknown,
    Unauthorized,
    Denied,
}

impl PullError {
    /// Whether the same request may fare better in a moment.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Fetch(error) => error.is_retryable(),
            Self::Refused { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Token => false,
        }
    }

    fn unauthorized() -> Self {
        Self::Refused {
            status: StatusCode::UNAUTHORIZED,
            code: Some(RegistryCode::Unauthorized),
        }
    }
}

impl Source {
    pub(crate) fn new(
        at: Authority,
        insecure: bool,
        repository: String,
        login: Option<Login>,
    ) -> Self {
        Self {
            at,
            insecure,
            repository,
            login,
            authorization: Mutex::new(None),
        }
    }

    /// A manifest; `name` is a tag or a digest.
    pub(crate) async fn manifest(
        &self,
        web: &Web,
        name: &str,
        tries: u32,
    ) -> Result<Vec<u8>, PullError> {
        let ask = Ask::get().accept(MANIFEST_KINDS);
        self.document(web, &format!("manifests/{name}"), ask, tries)
            .await
    }

    /// A small blob, whole.
    pub(crate) async fn small_blob(
        &self,
        web: &Web,
        digest: &str,
        tries: u32,
    ) -> Result<Vec<u8>, PullError> {
        let path = format!("blobs/{digest}");
        self.document(web, &path, Ask::get(), tries).await
    }

    /// The content of a blob from a byte on, if the registry can; else from its beginning.
    pub(crate) async fn blob(
        &self,
        web: &Web,
        digest: &str,
        from: u64,
    ) -> Result<Reply, PullError> {
        let mut ask = Ask::get();
        if from > 0 {
            ask = ask.starting_at(from);
        }
        let reply = self.send(web, &format!("blobs/{digest}"), ask).await?;
        match reply.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(reply),
            _ => Err(refused(web, reply).await),
        }
    }

    async fn document(
        &self,
        web: &Web,
        path: &str,
        ask: Ask,
        tries: u32,
    ) -> Result<Vec<u8>, PullError> {
        let (mut tried, mut wait) = (1, web.patience().retry_wait);
        loop {
            let whole = self.document_once(web, path, ask.clone());
            let document = match timeout(web.patience().document, whole).await {
                Ok(document) => document,
                Err(_) => Err(FetchError::Slow.into()),
            };
            match document {
                Err(error) if error.is_retryable() && tried < tries => {
                    tracing::debug!(registry = %self.at, %error, "asking a registry again");
                    sleep(wait).await;
                    (tried, wait) = (tried + 1, wait * 2);
                }
                document => return document,
            }
        }
    }

    async fn document_once(&self, web: &Web, path: &str, ask: Ask) -> Result<Vec<u8>, PullError> {
        let reply = self.send(web, path, ask).await?;
        if reply.status() != StatusCode::OK {
            return Err(refused(web, reply).await);
        }
        Ok(reply.read(DOCUMENT_BYTES_MAX).await?)
    }

    /// Asks with what was taken last, and once more with what the registry then wants.
    async fn send(&self, web: &Web, path: &str, ask: Ask) -> Result<Reply, PullError> {
        let url = Url {
            secure: !self.insecure,
            at: self.at.clone(),
            path: format!("/v2/{}/{path}", self.repository),
        };
        let known = self.known_authorization();
        let reply = web.send(url.clone(), ask.clone().authorized(known)).await?;
        // Where it was sent on to has no claim to what is for the registry.
        if reply.status() != StatusCode::UNAUTHORIZED || *reply.at() != self.at {
            return Ok(reply);
        }
        let Some(challenge) = Challenge::choose(reply.headers(WWW_AUTHENTICATE)) else {
            return Ok(reply);
        };
        let wanted = self.answer(web, &challenge).await?;
        *self.lock() = Some(wanted.clone());
        Ok(web.send(url, ask.authorized(Some(wanted))).await?)
    }

    async fn answer(&self, web: &Web, challenge: &Challenge) -> Result<HeaderValue, PullError> {
        match (challenge, &self.login) {
            (Challenge::Basic, Some(login)) => Ok(login.header()),
            (Challenge::Basic, None) => Err(PullError::unauthorized()),
            (Challenge::Bearer { realm, service }, login) => {
                let mut url = realm.clone();
                if let Some(service) = service {
                    url = url.with_query("service", service);
                }
                let scope = format!("repository:{}:pull", self.repository);
                let url = url.with_query("scope", &scope);
                let header = login.as_ref().map(Login::header);
                let reply = web.send(url, Ask::get().authorized(header)).await?;
                if reply.status() != StatusCode::OK {
                    return Err(refused(web, reply).await);
                }
                token(&reply.read(NOTE_BYTES_MAX).await?).ok_or(PullError::Token)
            }
        }
    }

    fn known_authorization(&self) -> Option<HeaderValue> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<HeaderValue>> {
        // The value is replaced whole: what a panic left is whole too.
        self.authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = self.at.for_header(!self.insecure);
        write!(f, "{host}/{}", self.repository)
    }
}

/// `token`, or as OAuth has it `access_token`.
fn token(body: &[u8]) -> Option<HeaderValue> {
    #[derive(Deserialize)]
    struct Tokens {
        token: Option<String>,
        access_token: Option<String>,
    }
    let Tokens {
        token,
        access_token,
    } = serde_json::from_slice(body).ok()?;
    let token = token.filter(|t| !t.is_empty()).or(access_token)?;
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Looks into an answer that is no success, as far as it is short.
async fn refused(web: &Web, reply: Reply) -> PullError {
    let status = reply.status();
    let body = timeout(web.patience().document, reply.read(NOTE_BYTES_MAX)).await;
    let code = match body {
        Ok(Ok(body)) => registry_code(&body),
        Ok(Err(_)) | Err(_) => None,
    };
    // Not every registry says it in the body.
    let implied = match status {
        StatusCode::UNAUTHORIZED => Some(RegistryCode::Unauthorized),
        StatusCode::FORBIDDEN => Some(RegistryCode::Denied),
        _ => None,
    };
    PullError::Refused {
        status,
        code: code.or(implied),
    }
}

/// The first code in an error of the specification that we know.
fn registry_code(body: &[u8]) -> Option<RegistryCode> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        code: String,
    }
    let Errors { errors } = serde_json::from_slice(body).ok()?;
    errors.iter().find_map(|entry| match entry.code.as_str() {
        "MANIFEST_UNKNOWN" => Some(RegistryCode::ManifestUnknown),
        "NAME_UNKNOWN" => Some(RegistryCode::NameUnknown),
        "UNAUTHORIZED" => Some(RegistryCode::Unauthorized),
        "DENIED" => Some(RegistryCode::Denied),
        _ => None,
    })
}

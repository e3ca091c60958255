//! The agent inside a sandbox, reached through the edge by routing headers.
//!
//! Owns who is asked as whom and in which codec; `process`, `filesystem` and `files` are what can be
//! asked. An [`Envd`] is cheap to clone and to change for one call (`envd.clone().as_user("root")`).

mod connect;
mod envelope;
pub mod files;
pub mod filesystem;
pub mod process;
mod stream;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
pub use envd_wire::Codec;
use http::request::Builder;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};

pub use stream::MessageStream;

use crate::error::{EnvdError, HttpError};
use crate::transport::{self, BaseUrl, Transport};

/// The port of the agent inside every sandbox.
const ENVD_PORT: HeaderValue = HeaderValue::from_static("49983");

/// The most that is read of an answer that is no stream: a listing of a large folder fits.
const ANSWER_BYTES_MAX: usize = 64 << 20;

const SANDBOX_ID: HeaderName = HeaderName::from_static("e2b-sandbox-id");
const SANDBOX_PORT: HeaderName = HeaderName::from_static("e2b-sandbox-port");
const ACCESS_TOKEN: HeaderName = HeaderName::from_static("x-access-token");

/// One sandbox's agent.
#[derive(Clone)]
pub struct Envd {
    transport: Transport,
    base: BaseUrl,
    sandbox_id: HeaderValue,
    access_token: Option<HeaderValue>,
    /// The Linux user to act as; none leaves it to the agent's default.
    user: Option<String>,
    codec: Codec,
}

impl Envd {
    /// `base` is the edge. Opens nothing yet.
    pub fn new(
        transport: Transport,
        base: BaseUrl,
        sandbox_id: &str,
        access_token: Option<&str>,
    ) -> Result<Self, HttpError> {
        let value =
            |name, text| HeaderValue::from_str(text).map_err(|_| HttpError::Header { name });
        let access_token = match access_token {
            Some(token) => {
                let mut token = value("x-access-token", token)?;
                token.set_sensitive(true);
                Some(token)
            }
            None => None,
        };
        Ok(Self {
            transport,
            base,
            sandbox_id: value("e2b-sandbox-id", sandbox_id)?,
            access_token,
            user: None,
            codec: Codec::Binary,
        })
    }

    /// The same agent, asked as this Linux user.
    #[must_use]
    pub fn as_user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// The same agent, asked in another codec. Binary is the default; the SDKs speak JSON.
    #[must_use]
    pub fn with_codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Whether the agent answers. A sandbox that is gone is an error of its own kind.
    pub async fn health(&self) -> Result<(), EnvdError> {
        let request = self.get("/health")?;
        let answer = self.transport.call(request, ANSWER_BYTES_MAX).await?;
        match answer.status {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(()),
            status => Err(EnvdError::refused(status, &answer.body)),
        }
    }

    fn get(&self, path: &str) -> Result<Request<transport::Body>, HttpError> {
        self.finish(self.request(Method::GET, path)?, path, transport::bytes(""))
    }

    /// A request with everything that routes and authorizes it.
    fn request(&self, method: Method, path_and_query: &str) -> Result<Builder, HttpError> {
        let mut builder = Request::builder()
            .method(method)
            .uri(self.base.join(path_and_query)?)
            .header(SANDBOX_ID, &self.sandbox_id)
            .header(SANDBOX_PORT, ENVD_PORT);
        if let Some(token) = &self.access_token {
            builder = builder.header(ACCESS_TOKEN, token);
        }
        Ok(builder)
    }

    fn finish(
        &self,
        builder: Builder,
        path: &str,
        body: transport::Body,
    ) -> Result<Request<transport::Body>, HttpError> {
        builder.body(body).map_err(|source| HttpError::Path {
            path: path.to_owned(),
            source,
        })
    }

    /// The header that names the user of a call, where one was asked for.
    fn authorization(&self) -> Option<String> {
        let user = self.user.as_ref()?;
        Some(format!("Basic {}", STANDARD.encode(format!("{user}:"))))
    }
}

impl std::fmt::Debug for Envd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is a secret: it is not shown.
        f.debug_struct("Envd")
            .field("base", &self.base)
            .field("sandbox_id", &self.sandbox_id)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

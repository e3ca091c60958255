//! The agent inside a sandbox, reached through the edge by routing headers, or directly.
//!
//! Owns who is asked as whom and in which codec; `process`, `filesystem`, `files` and `routes` are
//! what can be asked. An [`Envd`] is cheap to clone and to change for one call (`envd.clone().as_user("root")`).

mod connect;
mod envelope;
pub mod files;
pub mod filesystem;
pub mod process;
mod routes;
mod stream;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
pub use envd_wire::Codec;
use http::request::Builder;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};

pub use stream::MessageStream;

use crate::error::{EnvdError, HttpError};
use crate::transport::{ANSWER_TIMEOUT, BaseUrl, Dial, Transport};

/// The port of the agent inside every sandbox.
const ENVD_PORT: HeaderValue = HeaderValue::from_static("49983");

/// The most that is read of an answer that is no stream: a listing of a large folder fits.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The most that is read of an answer that only says how it went.
const REPORT_BYTES_MAX: usize = 64 << 10;

/// What stands for a host where connections are dialled: it is shown, and told to the agent, which
/// does not mind.
const DIALLED_BASE: &str = "http://sandbox";

const SANDBOX_ID: HeaderName = HeaderName::from_static("e2b-sandbox-id");
const SANDBOX_PORT: HeaderName = HeaderName::from_static("e2b-sandbox-port");
const ACCESS_TOKEN: HeaderName = HeaderName::from_static("x-access-token");

/// One sandbox's agent.
#[derive(Clone)]
pub struct Envd {
    transport: Transport,
    base: BaseUrl,
    /// None: the connections lead to the agent by themselves.
    sandbox_id: Option<HeaderValue>,
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
        let sandbox_id = header("e2b-sandbox-id", sandbox_id)?;
        Self::reached(transport, base, Some(sandbox_id), access_token)
    }

    /// One whose connections `dial` makes, straight to its port. Opens nothing yet.
    pub fn dialled(dial: Arc<dyn Dial>, access_token: Option<&str>) -> Result<Self, HttpError> {
        let base = DIALLED_BASE.parse()?;
        Self::reached(Transport::dialled(dial), base, None, access_token)
    }

    fn reached(
        transport: Transport,
        base: BaseUrl,
        sandbox_id: Option<HeaderValue>,
        access_token: Option<&str>,
    ) -> Result<Self, HttpError> {
        let access_token = match access_token {
            Some(token) => {
                let mut token = header("x-access-token", token)?;
                token.set_sensitive(true);
                Some(token)
            }
            None => None,
        };
        Ok(Self {
            transport,
            base,
            sandbox_id,
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
        let answer = self
            .transport
            .call(request, REPORT_BYTES_MAX, ANSWER_TIMEOUT)
            .await?;
        match answer.status {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(()),
            _ => Err(EnvdError::refused(&answer)),
        }
    }

    fn get(&self, path: &str) -> Result<Request<Bytes>, HttpError> {
        self.finish(self.request(Method::GET, path)?, path, Bytes::new())
    }

    /// A request with everything that routes and authorizes it.
    fn request(&self, method: Method, path_and_query: &str) -> Result<Builder, HttpError> {
        let mut builder = Request::builder()
            .method(method)
            .uri(self.base.join(path_and_query)?);
        if let Some(sandbox_id) = &self.sandbox_id {
            builder = builder
                .header(SANDBOX_ID, sandbox_id)
                .header(SANDBOX_PORT, ENVD_PORT);
        }
        if let Some(token) = &self.access_token {
            builder = builder.header(ACCESS_TOKEN, token);
        }
        Ok(builder)
    }

    fn finish<B>(&self, builder: Builder, path: &str, body: B) -> Result<Request<B>, HttpError> {
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

fn header(name: &'static str, text: &str) -> Result<HeaderValue, HttpError> {
    HeaderValue::from_str(text).map_err(|_| HttpError::Header { name })
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

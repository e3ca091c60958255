//! Faults of the way, before an answer could be judged.

use std::error::Error;
use std::time::Duration;

/// A request that got no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("the address '{url}' cannot be used: {reason}")]
    BaseUrl { url: String, reason: &'static str },
    #[error("no certificate authority is known; SSL_CERT_FILE can name a file of them")]
    Trust {
        #[source]
        source: std::io::Error,
    },
    #[error("the path '{path}' cannot be sent")]
    Path {
        path: String,
        #[source]
        source: http::Error,
    },
    #[error("the value for header {name} cannot be sent")]
    Header { name: &'static str },
    #[error("no answer from {target}")]
    Send {
        target: String,
        #[source]
        source: hyper_util::client::legacy::Error,
    },
    /// What was to be sent could not be read here; its receiver got a request that is cut off.
    #[error("the content for {target} cannot be read")]
    Content {
        target: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the answer of {target} broke off")]
    Read {
        target: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("the answer of {target} is longer than {bytes_max} bytes")]
    TooLong { target: String, bytes_max: usize },
    #[error("no whole answer from {target} after {} s", after.as_secs())]
    Timeout { target: String, after: Duration },
}

impl HttpError {
    /// No connection was made. Nobody listens at the address: the platform is not up, or is
    /// somewhere else.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Send { source, .. } if source.is_connect())
    }
}

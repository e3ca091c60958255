//! Why a request got no answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::Authority;

/// What went wrong between a request and the whole of its answer. Any answer with a status is none of
/// these.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("{0} is at no address that may be connected to for others")]
    Closed(Authority),
    #[error("{0} may not be asked by plain http")]
    Plain(Authority),
    #[error("look up {at}")]
    Lookup {
        at: Authority,
        #[source]
        source: Arc<io::Error>,
    },
    #[error("connect to {at}")]
    Connect {
        at: Authority,
        #[source]
        source: Arc<io::Error>,
    },
    #[error("{0} was not connected to in time")]
    ConnectSlow(Authority),
    #[error("the handshake with {at} failed")]
    Tls {
        at: Authority,
        #[source]
        source: Arc<io::Error>,
    },
    #[error("the proxy answered {0}")]
    Proxy(u16),
    #[error("the connection broke")]
    Cut(#[source] Arc<hyper::Error>),
    #[error("no byte came for {} s", .0.as_secs_f64())]
    Stalled(Duration),
    #[error("the whole did not come in time")]
    Slow,
    #[error("more came than {0} bytes")]
    TooLong(u64),
    #[error("less came than the whole")]
    Short,
    #[error("the answer points to no URL that is followed")]
    Redirect,
    #[error("more than {0} redirects")]
    Redirects(usize),
    #[error("a URL that cannot be asked for")]
    Url,
}

impl FetchError {
    pub(super) fn cut(error: hyper::Error) -> Self {
        Self::Cut(Arc::new(error))
    }

    /// Whether the same request may fare better in a moment.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Lookup { .. }
            | Self::Connect { .. }
            | Self::ConnectSlow(_)
            | Self::Cut(_)
            | Self::Short => true,
            Self::Closed(_)
            | Self::Plain(_)
            | Self::Tls { .. }
            | Self::Proxy(_)
            | Self::Stalled(_)
            | Self::Slow
            | Self::TooLong(_)
            | Self::Redirect
            | Self::Redirects(_)
            | Self::Url => false,
        }
    }
}

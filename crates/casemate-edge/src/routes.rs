//! The two questions that the edge asks others: does this sandbox run, and give me a connection.

use std::fmt;
use std::io;

use async_trait::async_trait;
use casemate_types::SandboxId;
use subtle::ConstantTimeEq;
use tokio::net::TcpStream;

/// Says where a sandbox stands. Asked once for each request, so it must be quick.
#[async_trait]
pub trait Routes: Send + Sync + 'static {
    /// `None` for a sandbox that does not run and will not be woken: unknown, ended, ending,
    /// paused. Whoever ends a sandbox first makes this answer `None`, then calls
    /// [`Edge::forget`](crate::Edge::forget); the other order loses a request between the two.
    async fn lookup(&self, sandbox: &SandboxId) -> Result<Option<RouteTarget>, LookupFailure>;
}

/// What the edge must know of a sandbox that it can reach.
#[derive(Debug, Clone)]
pub enum RouteTarget {
    /// It runs; requests go on.
    Running {
        /// What `e2b-traffic-access-token` must carry on ports other than envd's, when the
        /// sandbox was made with `allowPublicTraffic: false`.
        traffic_token: Option<TrafficToken>,
    },
    /// It is being paused or snapshotted and did not settle in time; the client tries again.
    Transitioning,
}

/// The secret of a sandbox whose ports are not public.
#[derive(Clone)]
pub struct TrafficToken(Box<[u8]>);

impl TrafficToken {
    pub fn new(token: &str) -> Self {
        Self(token.as_bytes().into())
    }

    /// Compares in a time that does not depend on where the first difference is.
    pub(crate) fn matches(&self, given: &[u8]) -> bool {
        self.0.ct_eq(given).into()
    }
}

impl fmt::Debug for TrafficToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrafficToken(…)")
    }
}

/// The lookup could not be made; it says nothing about the sandbox.
#[derive(Debug, thiserror::Error)]
#[error("look up the route of a sandbox")]
pub struct LookupFailure(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Makes connections to services in sandboxes.
#[async_trait]
pub trait Dialer: Send + Sync + 'static {
    /// Connects to a port inside; also to one that listens on 127.0.0.1 only.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    async fn dial(&self, sandbox: &SandboxId, port: u16) -> Result<TcpStream, DialFailure>;
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialFailure {
    #[error("the sandbox does not run")]
    NotFound,
    #[error("nothing listens on the port")]
    PortClosed,
    /// The node did not answer, or failed; it says nothing about the sandbox.
    #[error("dial through the node")]
    Node(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<io::Error> for DialFailure {
    /// Reads a connect's error as the sandbox's kernel gave it.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut => Self::PortClosed,
            _ => Self::Node(Box::new(error)),
        }
    }
}

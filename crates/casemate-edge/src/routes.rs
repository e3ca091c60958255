//! What the edge asks others: does this sandbox run, wake it, and give me a connection.

use std::fmt;
use std::io;

use async_trait::async_trait;
use casemate_types::{SandboxId, TokenHash};
use http::HeaderValue;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Says where a sandbox stands. Asked once for each request, so it must be quick.
#[async_trait]
pub trait Routes: Send + Sync + 'static {
    /// `None` for a sandbox that is not there: unknown, ended, ending. Whoever ends or pauses a
    /// sandbox first makes this answer so, then calls [`Edge::forget`](crate::Edge::forget); the
    /// other order loses a request between the two.
    async fn lookup(&self, sandbox: &SandboxId) -> Result<Option<RouteTarget>, LookupFailure>;

    /// A request has come for a sandbox that is [`RouteTarget::Asleep`]: it runs on return, if the
    /// request may wake it.
    ///
    /// # Cancel safety
    /// A wake that began goes on.
    async fn wake(&self, sandbox: &SandboxId, knock: Knock) -> Result<(), WakeFailure>;

    /// Whether a look-up after a dial that found the sandbox paused knows of that, and so says how it
    /// stands now. Else it is told a moment later, by [`Edge::forget`](crate::Edge::forget).
    fn knows_of_dials(&self) -> bool {
        false
    }

    /// A connection into the sandbox broke under a request. Who answers from what it knew some time
    /// ago finds out now whether the sandbox still runs, and if not, calls
    /// [`Edge::forget`](crate::Edge::forget). Who is told of every end has nothing to do.
    async fn broke(&self, sandbox: &SandboxId) {
        let _ = sandbox;
    }

    /// A request is about to be refused for its token, which a paused sandbox would not ask for. Who
    /// answers from what it knew some time ago finds out whether that still holds; `true` if not, and
    /// a look-up says what does. Who is told of every pause has nothing to do.
    async fn outdated(&self, sandbox: &SandboxId) -> bool {
        let _ = sandbox;
        false
    }
}

/// What a request for a paused sandbox has with it.
#[derive(Clone)]
pub struct Knock {
    /// It is for envd.
    pub for_agent: bool,
    /// Of `X-Access-Token`.
    pub access_token: Option<HeaderValue>,
    /// Of `e2b-traffic-access-token`.
    pub traffic_token: Option<HeaderValue>,
}

/// Why a request does not wake its sandbox.
#[derive(Debug, thiserror::Error)]
pub enum WakeFailure {
    /// Traffic does not wake it, or it is gone, or it did not come up.
    #[error("the sandbox was not woken")]
    NotFound,
    #[error("the request may not wake the sandbox")]
    Denied,
    /// Its team runs as many as it may; the text is for the client.
    #[error("{0}")]
    TeamLimit(String),
    /// Something else is being done to it, for too long.
    #[error("the sandbox did not settle in time")]
    Transitioning,
    /// It says nothing about the sandbox.
    #[error("wake a sandbox")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What the edge must know of a sandbox that it can reach.
#[derive(Debug, Clone)]
pub enum RouteTarget {
    /// It runs; requests go on.
    Running {
        /// What `e2b-traffic-access-token` must carry on ports other than envd's, when the
        /// sandbox was made with `allowPublicTraffic: false`.
        traffic_token: Option<TrafficToken>,
        /// What services see as `Host`, with `${PORT}` for the port; not for envd.
        mask_host: Option<String>,
        /// Ports whose services speak TLS.
        https_ports: Vec<u16>,
    },
    /// It is paused.
    Asleep,
    /// It is being paused or snapshotted and did not settle in time; the client tries again.
    Transitioning,
}

impl RouteTarget {
    /// It runs, and nothing is special about it.
    pub const RUNNING: Self = Self::Running {
        traffic_token: None,
        mask_host: None,
        https_ports: Vec::new(),
    };
}

/// The secret of a sandbox whose ports are not public, of which its hash is enough to know.
#[derive(Clone)]
pub struct TrafficToken(TokenHash);

impl TrafficToken {
    pub fn new(token: &str) -> Self {
        Self(TokenHash(Sha256::digest(token).into()))
    }

    /// Compares in a time that does not depend on where the first difference is.
    pub(crate) fn matches(&self, given: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(given).into();
        self.0.0.ct_eq(&given).into()
    }
}

impl From<TokenHash> for TrafficToken {
    fn from(hash: TokenHash) -> Self {
        Self(hash)
    }
}

impl fmt::Debug for TrafficToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrafficToken(…)")
    }
}

/// The lookup could not be made; it says nothing about the sandbox.
#[derive(Debug, thiserror::Error)]
pub enum LookupFailure {
    #[error("look up the route of a sandbox")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// So much is asked for that is not known that no more of it is looked for now. Nobody's log
    /// needs a line of each.
    #[error("too many sandboxes are looked for")]
    Busy,
}

/// Makes connections to services in sandboxes.
#[async_trait]
pub trait Dialer: Send + Sync + 'static {
    /// Connects to a port inside; also to one that listens on 127.0.0.1 only.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    async fn dial(&self, sandbox: &SandboxId, port: u16) -> Result<Dialled, DialFailure>;

    /// Speaks TLS with a service over a connection to it. Whose certificate it shows does not
    /// matter: that the connection ends in the sandbox is known. `host` is what the request's `Host`
    /// says there, without a port; it need not be a name.
    async fn speak_tls(&self, stream: Box<dyn Wire>, host: &str) -> io::Result<Box<dyn Wire>>;
}

/// A connection to a service in a sandbox.
pub enum Dialled {
    /// The socket itself, whose options are the edge's to set.
    Socket(TcpStream),
    /// Through another machine.
    Bytes(Box<dyn Wire>),
}

/// Bytes both ways.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialFailure {
    #[error("the sandbox does not run")]
    NotFound,
    /// It has just been paused.
    #[error("the sandbox is paused")]
    Paused,
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

//! The edge as a value: its parts, and the way of one request through them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use casemate_types::peer::OverTls;
use casemate_types::{PeerAddr, SandboxId};
use http::header::{CONNECTION, HOST, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower::Service;
use tracing::debug;

use crate::api::Api;
use crate::body::{BoxError, EdgeBody, RequestBody};
use crate::config::{EdgeConfig, EdgeLimits};
use crate::connection::{Busy, ClientConn, DRAIN_FIRST_REQUEST, head_too_large};
use crate::forward::{Asked, Forward};
use crate::header_rules::{Upgrade, asks_to_close, head_bytes};
use crate::link::Links;
use crate::refusal::{Format, Refusal};
use crate::routes::{Dialer, Routes};
use crate::seats::{Seat, Seats};
use crate::target::{ENVD_PORT, OwnHosts, Target, TargetError};
use crate::upstream::{Reuse, Upstream};

/// A request ends without an answer, and its connection or stream with it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cut {
    #[error("the connection was closed to make room")]
    NoSeat,
}

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// One edge; clones are the same edge.
#[derive(Clone)]
pub struct Edge {
    parts: Arc<EdgeParts>,
}

pub(crate) struct EdgeParts {
    limits: EdgeLimits,
    hosts: OwnHosts,
    api: Api,
    pub(crate) routes: Arc<dyn Routes>,
    pub(crate) dialer: Arc<dyn Dialer>,
    pub(crate) links: Arc<Links>,
    /// What drives connections into sandboxes; ends with them.
    pub(crate) upstreams: TaskTracker,
    seats: Arc<Seats>,
    warmed: LastTime,
    head_too_large: Arc<[u8]>,
    /// No HTTP/1.1 connection takes a further request.
    ending: AtomicBool,
    /// Listeners that take connections, and connections that have not begun their first request.
    arriving: TaskTracker,
    /// Requests that still ask the API, or for a connection into their sandbox.
    asking: TaskTracker,
}

/// Held by a request for as long as it needs more than its connections.
pub(crate) type Asks = TaskTrackerToken;

/// Sandboxes that come faster than this one after the other are not dialled ahead.
const WARM_EVERY: Duration = Duration::from_millis(4);

#[derive(Default)]
struct LastTime(Mutex<Option<Instant>>);

impl LastTime {
    /// Whether the last time that this was asked is so long ago.
    fn is_due(&self, after: Duration) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let before = last.replace(now);
        before.is_none_or(|before| now.duration_since(before) >= after)
    }
}

impl Edge {
    /// An edge in front of `api`: an axum `Router`, or [`InvalidHost`](crate::InvalidHost). Each
    /// request to it carries its client's [`PeerAddr`] as an extension, and [`OverTls`] where it came so.
    pub fn new<A, B>(
        config: EdgeConfig,
        routes: Arc<dyn Routes>,
        dialer: Arc<dyn Dialer>,
        api: A,
    ) -> Self
    where
        A: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible>,
        A: Clone + Send + Sync + 'static,
        A::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let EdgeConfig {
            domain,
            hosts,
            limits,
        } = config;
        Self {
            parts: Arc::new(EdgeParts {
                hosts: OwnHosts::new(&domain, &hosts),
                api: Api::new(api),
                routes,
                dialer,
                links: Arc::new(Links::new(limits.envd_idle_max, limits.envd_idle_timeout)),
                upstreams: TaskTracker::new(),
                seats: Arc::new(Seats::new(&limits)),
                warmed: LastTime::default(),
                ending: AtomicBool::new(false),
                arriving: TaskTracker::new(),
                asking: TaskTracker::new(),
                head_too_large: head_too_large(limits.head_bytes_max),
                limits,
            }),
        }
    }

    /// A sandbox ended, or was paused: cuts its open requests and closes idle connections, so that
    /// none crosses into another run. Make [`Routes::lookup`] answer `None` first.
    pub fn forget(&self, sandbox: &SandboxId) {
        self.parts.links.forget(sandbox);
    }

    /// Dials a sandbox's agent ahead of its first request, which nearly always follows at once; of
    /// many sandboxes at once only the first, so that it holds up nobody's create. A failure is
    /// left to that request to find. Make [`Routes::lookup`] answer first.
    pub fn warm(&self, sandbox: &SandboxId) {
        if !self.parts.warmed.is_due(WARM_EVERY) {
            return;
        }
        let parts = Arc::clone(&self.parts);
        let lease = parts.links.lease_uncounted(sandbox);
        self.parts.upstreams.spawn(async move {
            let _warming = lease.warming().await;
            let opening = Upstream::open(
                &*parts.dialer,
                &parts.upstreams,
                &parts.limits,
                lease.sandbox(),
                ENVD_PORT,
                Reuse::WithinSandbox,
                None,
            );
            tokio::select! {
                () = lease.ended().cancelled() => {}
                opened = opening => if let Ok(mut upstream) = opened
                    && upstream.ready().await
                {
                    lease.keep(upstream);
                }
            }
        });
    }

    /// From now on every answer over HTTP/1.1 closes its connection and says so: a client that
    /// kept it open would send its next request into a connection that is about to end. (HTTP/2
    /// says it by itself.) Some time later, shut down the listeners.
    pub fn announce_end(&self) {
        self.parts.ending.store(true, Ordering::Relaxed);
    }

    /// Waits until no request asks the API, or for a connection into a sandbox; from then on open
    /// requests need this edge alone. To be used once the listeners are shut down: they, and the
    /// first requests of connections that were accepted until then, are waited for, up to 1 s.
    pub async fn asked(&self) {
        self.parts.arriving.close();
        // Then they are closed.
        let _ = tokio::time::timeout(DRAIN_FIRST_REQUEST, self.parts.arriving.wait()).await;
        self.parts.asking.close();
        self.parts.asking.wait().await;
    }

    /// How many sandboxes the edge holds something for, and how many connections to envd idle.
    pub fn held(&self) -> (usize, usize) {
        self.parts.links.count()
    }

    /// Client connections open now, upgraded ones included.
    pub fn connections(&self) -> usize {
        self.parts.seats.count()
    }

    /// A seat for a new connection that `cut` ends; `None` when there is no room.
    pub(crate) fn seat(&self, peer: SocketAddr, cut: CancellationToken) -> Option<Seat> {
        let seat = self.parts.seats.take(peer, cut);
        if seat.is_none() {
            debug!("too many connections: one from {peer} is refused");
        }
        seat
    }

    /// What a connection holds until its first request begins.
    pub(crate) fn arrives(&self) -> TaskTrackerToken {
        self.parts.arriving.token()
    }

    pub(crate) fn asks(&self) -> Asks {
        self.parts.asking.token()
    }

    pub(crate) fn parts(&self) -> &EdgeParts {
        &self.parts
    }

    pub(crate) fn limits(&self) -> &EdgeLimits {
        &self.parts.limits
    }

    pub(crate) fn head_too_large(&self) -> Arc<[u8]> {
        Arc::clone(&self.parts.head_too_large)
    }

    /// Answers one request. An error cuts the connection (HTTP/1.1) or the stream (HTTP/2).
    pub(crate) async fn answer(
        &self,
        conn: &Arc<ClientConn>,
        request: Request<Incoming>,
        busy: Busy,
        asks: Asks,
    ) -> Result<Response<EdgeBody>, Cut> {
        let (head, body) = request.into_parts();
        let body = RequestBody::new(body, busy.clone());
        let (version, rest) = (head.version, body.rest());
        let lasts = version == Version::HTTP_11 && !asks_to_close(&head.headers);
        let decided = self.decide(&head);
        let mut asked = Asked {
            format: Format::preferred(&head.headers),
            request: Some((head, body)),
            busy,
            asks: Some(asks),
        };
        let mut response = match decided {
            Ok((Target::Api, _)) => self.ask_api(conn, &mut asked).await,
            Ok((Target::Sandbox(target), host)) => {
                let forward = Forward {
                    edge: self,
                    conn,
                    target,
                    host,
                };
                forward.run(&mut asked).await
            }
            Err(refusal) => {
                let host = host(asked.head()).unwrap_or_default();
                asked.refuse(&refusal, &host)
            }
        };
        // hyper closes a connection whose request nobody reads to its end. The client must hear of
        // it, or its next request goes into a connection that is about to end. A sandbox's answer
        // often comes before the last bytes of its request, and keeps the connection.
        if lasts && !response.body().is_ours() {
            rest.read_away();
        } else if rest.give_up() && version < Version::HTTP_2 && response.body().is_ours() {
            response.headers_mut().insert(CONNECTION, CLOSE);
        }
        if self.parts.ending.load(Ordering::Relaxed)
            && version < Version::HTTP_2
            && response.status() != StatusCode::SWITCHING_PROTOCOLS
        {
            response.headers_mut().insert(CONNECTION, CLOSE);
        }
        Ok(response)
    }

    async fn ask_api(&self, conn: &ClientConn, asked: &mut Asked) -> Response<EdgeBody> {
        let extensions = &mut asked.head().extensions;
        extensions.insert(PeerAddr(conn.peer));
        if conn.is_tls() {
            extensions.insert(OverTls);
        }
        let (head, body) = asked.request.take().expect("it was not sent on");
        let request = Request::from_parts(head, body);
        let response = self.parts.api.call(request, asked.busy.clone()).await;
        asked.asks = None;
        response
    }

    fn decide(&self, head: &Parts) -> Result<(Target, String), Refusal> {
        let limit = self.parts.limits.head_bytes_max;
        if head_bytes(head) > limit {
            return Err(Refusal::HeadTooLarge { limit });
        }
        if head.method == Method::CONNECT && Upgrade::asked(head).is_none() {
            return Err(Refusal::MethodNotAllowed);
        }
        let host = host(head).map_err(Refusal::Target)?;
        let target = self.parts.hosts.target(&host, &head.headers);
        Ok((target.map_err(Refusal::Target)?, host))
    }
}

/// The host that a request is for: its target's authority where it has one, else its `Host`.
fn host(head: &Parts) -> Result<String, TargetError> {
    if let Some(authority) = head.uri.authority() {
        // Without user information.
        let whole = authority.as_str();
        let host = whole.rsplit_once('@').map_or(whole, |(_, host)| host);
        return Ok(host.to_owned());
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            let host = host.to_str().map_err(|_| TargetError::InvalidHost)?;
            Ok(host.to_owned())
        }
        (None, _) if head.version == Version::HTTP_11 => Err(TargetError::InvalidHost),
        (None, _) => Ok(String::new()),
        (Some(_), Some(_)) => Err(TargetError::InvalidHost),
    }
}

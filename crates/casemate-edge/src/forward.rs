//! The way of one request to a service in a sandbox and of its answer back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use casemate_types::chain;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tracing::{debug, error};

use crate::body::{EdgeBody, RequestBody};
use crate::connection::{Busy, ClientConn};
use crate::edge::{Asks, Edge};
use crate::header_rules::{self, Outgoing, Upgrade};
use crate::link::Lease;
use crate::refusal::{Format, Refusal};
use crate::reserved::reserved_path;
use crate::routes::{DialFailure, Knock, LookupFailure, RouteTarget, TrafficToken, WakeFailure};
use crate::target::{ENVD_PORT, SandboxTarget};
use crate::tunnel::{self, Tunnel};
use crate::upstream::{Reuse, SendFailure, Unanswered, Upstream, UpstreamBody};

/// Beginnings of the content types of answers that go on for as long as something happens.
const STREAMS: &[&[u8]] = &[
    b"application/connect+",
    b"application/grpc",
    b"text/event-stream",
];

fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| STREAMS.iter().any(|stream| kind.starts_with(stream)))
}

const TRAFFIC_TOKEN: &str = "e2b-traffic-access-token";
const ACCESS_TOKEN: &str = "x-access-token";
/// Changes of a sandbox that a request waits for.
const TRANSITIONS_MAX: u32 = 3;
/// How long a request whose agent broke off waits for the news that its sandbox ended. A sandbox's
/// processes end before that is known here, on a busy machine by a second and more; an agent alone
/// ends only by a fault.
const NEWS_OF_END: Duration = Duration::from_secs(3);

/// A request under way.
///
/// It lies in one place and is borrowed by each step: handed on by value, every step would keep room
/// for it again, and hyper copies all of that room when the request begins.
pub(crate) struct Asked {
    /// Until it is sent on.
    pub(crate) request: Option<(Parts, RequestBody)>,
    /// How a refusal is written.
    pub(crate) format: Format,
    pub(crate) busy: Busy,
    /// Until it needs nothing but its connections.
    pub(crate) asks: Option<Asks>,
}

impl Asked {
    pub(crate) fn head(&mut self) -> &mut Parts {
        let (head, _) = self.request.as_mut().expect("it was not sent on");
        head
    }

    pub(crate) fn refuse(&self, refusal: &Refusal, host: &str) -> Response<EdgeBody> {
        let response = refusal.response(self.format, host);
        response.map(|body| EdgeBody::whole(body, self.busy.clone()))
    }
}

/// What a request that its sandbox takes is sent on with.
struct Admitted {
    /// As a number that can be dialled.
    port: u16,
    mask_host: Option<String>,
    /// Its service speaks TLS.
    tls: bool,
}

/// A request of which something reached its service.
#[derive(Clone, Copy)]
struct Sent {
    /// Its method's, by RFC 9110 9.2.2.
    repeatable: bool,
}

/// The connection that a request goes over.
#[derive(Clone, Copy)]
struct Way<'a> {
    port: u16,
    reuse: Reuse,
    /// With TLS, for the host that the service is sent.
    tls_host: Option<&'a str>,
}

/// Where a request goes.
pub(crate) struct Forward<'a> {
    pub(crate) edge: &'a Edge,
    pub(crate) conn: &'a Arc<ClientConn>,
    pub(crate) target: SandboxTarget,
    pub(crate) host: String,
}

impl Forward<'_> {
    pub(crate) async fn run(&self, asked: &mut Asked) -> Response<EdgeBody> {
        let head = asked.head();
        // Before anything is asked about the sandbox: the answer must not tell whether it exists.
        if self.is_envd()
            && let Some(path) = reserved_path(head.uri.path())
        {
            return asked.refuse(&Refusal::Reserved { path }, &self.host);
        }
        let repeatable = head.method.is_idempotent();
        for _ in 0..TRANSITIONS_MAX {
            let lease = self.edge.parts().links.lease(&self.target.sandbox);
            let ended = lease.ended().clone();
            if asked.head().version <= http::Version::HTTP_11 {
                self.conn.reset_with(ended.clone());
            }
            tokio::select! {
                biased;
                response = self.admitted(asked, lease) => match response {
                    Some(response) => return response,
                    None => continue,
                },
                () = ended.cancelled() => {}
            }
            if asked.request.is_none() {
                break;
            }
            // Nothing of it was sent: it may have waited for a pause to end, and can wake what is
            // paused now.
        }
        // Nothing was answered yet, so what happened can be said. A connection that breaks instead
        // counts against this edge at the load balancer before it.
        let sandbox = || self.target.sandbox.clone();
        let routes = &self.edge.parts().routes;
        let refusal = match routes.lookup(&self.target.sandbox).await {
            Ok(None) => Refusal::NotFound(sandbox()),
            Ok(Some(_)) | Err(_) if asked.request.is_some() => Refusal::Transitioning(sandbox()),
            Ok(Some(_)) | Err(_) => Refusal::Interrupted {
                sandbox: sandbox(),
                repeatable,
            },
        };
        asked.refuse(&refusal, &self.host)
    }

    /// `None`: while this waited for its sandbox, or dialled it, the run that the lease is of ended.
    async fn admitted(&self, asked: &mut Asked, lease: Lease) -> Option<Response<EdgeBody>> {
        match self.admit(asked, &lease).await {
            Ok(_) if lease.ended().is_cancelled() => None,
            Ok(admitted) => self.exchange(asked, lease, admitted).await,
            Err(refusal) => Some(asked.refuse(&refusal, &self.host)),
        }
    }

    /// Whether the sandbox takes this request, woken for it if need be.
    async fn admit(&self, asked: &mut Asked, lease: &Lease) -> Result<Admitted, Refusal> {
        let sandbox = || self.target.sandbox.clone();
        let mut rounds = 0;
        let (mask_host, https_ports) = loop {
            match self.route().await? {
                None => return Err(Refusal::NotFound(sandbox())),
                Some(RouteTarget::Running {
                    traffic_token,
                    mask_host,
                    https_ports,
                }) => match self.refused_by(traffic_token.as_ref(), asked) {
                    None => break (mask_host, https_ports),
                    Some(_)
                        if rounds < TRANSITIONS_MAX
                            && self.edge.parts().routes.outdated(&sandbox()).await => {}
                    Some(refusal) => return Err(refusal),
                },
                Some(RouteTarget::Asleep) if rounds < TRANSITIONS_MAX => self.wake(asked).await?,
                Some(RouteTarget::Asleep | RouteTarget::Transitioning) => {
                    return Err(Refusal::Transitioning(sandbox()));
                }
            }
            rounds += 1;
        };
        if let Some(limit) = self.edge.limits().sandbox_requests_max
            && lease.open() > limit.get()
        {
            let limit = limit.get();
            return Err(Refusal::TooManyRequests {
                sandbox: sandbox(),
                limit,
            });
        }
        let port = u16::try_from(self.target.port).map_err(|_| self.port_closed())?;
        Ok(Admitted {
            port,
            mask_host: mask_host.filter(|_| !self.is_envd()),
            tls: !self.is_envd() && https_ports.contains(&port),
        })
    }

    /// Why the services of a private sandbox do not get this request.
    fn refused_by(&self, token: Option<&TrafficToken>, asked: &mut Asked) -> Option<Refusal> {
        let token = token.filter(|_| !self.is_envd())?;
        let sandbox = || self.target.sandbox.clone();
        match asked.head().headers.get(TRAFFIC_TOKEN) {
            None => Some(Refusal::TrafficTokenMissing(sandbox())),
            Some(given) if !token.matches(given.as_bytes()) => {
                Some(Refusal::TrafficTokenInvalid(sandbox()))
            }
            Some(_) => None,
        }
    }

    async fn route(&self) -> Result<Option<RouteTarget>, Refusal> {
        const WHAT: &str = "the sandbox could not be looked up";
        let route = self.edge.parts().routes.lookup(&self.target.sandbox).await;
        route.map_err(|failure| match failure {
            LookupFailure::Busy => Refusal::Unexpected { what: WHAT },
            LookupFailure::Failed(_) => self.failed(&failure, WHAT),
        })
    }

    /// What a failure is by now that its sandbox ended or paused since it was looked up: its
    /// connections break before that is known here. `None`: it runs, as far as anybody knows.
    async fn refused_since(&self, sent: Option<Sent>) -> Option<Refusal> {
        let sandbox = || self.target.sandbox.clone();
        let route = self.edge.parts().routes.lookup(&self.target.sandbox).await;
        match (route, sent) {
            (Ok(None), _) => Some(Refusal::NotFound(sandbox())),
            (Ok(Some(RouteTarget::Running { .. })) | Err(_), _) => None,
            (Ok(Some(_)), None) => Some(Refusal::Transitioning(sandbox())),
            (Ok(Some(_)), Some(Sent { repeatable })) => Some(Refusal::Interrupted {
                sandbox: sandbox(),
                repeatable,
            }),
        }
    }

    async fn wake(&self, asked: &mut Asked) -> Result<(), Refusal> {
        let headers = &asked.head().headers;
        let knock = Knock {
            for_agent: self.is_envd(),
            access_token: headers.get(ACCESS_TOKEN).cloned(),
            traffic_token: headers.get(TRAFFIC_TOKEN).cloned(),
        };
        let sandbox = || self.target.sandbox.clone();
        let woken = self.edge.parts().routes.wake(&self.target.sandbox, knock);
        woken.await.map_err(|failure| match failure {
            WakeFailure::NotFound => Refusal::NotFound(sandbox()),
            WakeFailure::Denied => Refusal::ResumeDenied(sandbox()),
            WakeFailure::TeamLimit(message) => Refusal::TeamLimit {
                sandbox: sandbox(),
                message,
            },
            WakeFailure::Transitioning => Refusal::Transitioning(sandbox()),
            WakeFailure::Failed(_) => self.failed(&failure, "the sandbox could not be woken"),
        })
    }

    fn failed(&self, failure: &dyn std::error::Error, what: &'static str) -> Refusal {
        let sandbox = &self.target.sandbox;
        error!(sandbox.id = %sandbox, error = %chain(failure), "sandbox {sandbox}: {what}");
        Refusal::Unexpected { what }
    }

    async fn exchange(
        &self,
        asked: &mut Asked,
        lease: Lease,
        admitted: Admitted,
    ) -> Option<Response<EdgeBody>> {
        let Admitted {
            port,
            mask_host,
            tls,
        } = admitted;
        let (mut head, body) = asked.request.take().expect("it was not sent on");
        let (version, upgrade) = (head.version, Upgrade::asked(&head));
        let repeatable = head.method.is_idempotent();
        let reuse = if self.is_envd() && upgrade.is_none() {
            Reuse::WithinSandbox
        } else {
            Reuse::Never
        };
        header_rules::to_service(
            &mut head,
            &Outgoing {
                host: &self.host,
                target: &self.target,
                mask_host: mask_host.as_deref(),
                upgrade: upgrade.as_ref(),
                close: reuse == Reuse::Never,
                unbounded_body: !body.is_end_stream() && body.size_hint().exact().is_none(),
            },
        );
        let rest = body.rest();
        let mut request = Request::from_parts(head, body);
        let client = upgrade.as_ref().map(|_| hyper::upgrade::on(&mut request));
        let tls_host = tls.then(|| header_rules::host_name(request.headers()).to_owned());
        let way = Way {
            port,
            reuse,
            tls_host: tls_host.as_deref(),
        };
        let sent = self.send(request, &lease, way, &mut asked.asks);
        let (response, upstream) = match sent.await {
            Ok(answered) => answered,
            Err((failure, unsent)) => {
                let refusal = if rest.is_broken() {
                    Refusal::BodyBroken
                } else {
                    let is_paused = matches!(failure, SendFailure::Dial(DialFailure::Paused));
                    if is_paused
                        && upgrade.is_none()
                        && let Some(unsent) = unsent
                    {
                        // It may wake it, once its pause is known here.
                        let (mut head, body) = unsent.into_parts();
                        head.version = version;
                        asked.request = Some((head, body));
                        if self.edge.parts().routes.knows_of_dials() {
                            return None;
                        }
                    }
                    if failure.is_break() {
                        self.edge.parts().routes.broke(&self.target.sandbox).await;
                    }
                    if is_paused || (self.is_envd() && failure.may_be_the_end()) {
                        // Cut short by the news: `run` answers then.
                        tokio::time::sleep(NEWS_OF_END).await;
                        self.edge.parts().routes.broke(&self.target.sandbox).await;
                    }
                    let since = if failure.may_be_the_end() {
                        let sent = matches!(failure, SendFailure::Sent(_));
                        self.refused_since(sent.then_some(Sent { repeatable }))
                            .await
                    } else {
                        None
                    };
                    since.unwrap_or_else(|| self.refusal_of(failure))
                };
                return Some(asked.refuse(&refusal, &self.host));
            }
        };
        let busy = asked.busy.clone();
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (mut head, body) = response.into_parts();
            header_rules::to_client(&mut head);
            let tasks = self.edge.parts().upstreams.clone();
            let cut = is_stream(&head.headers).then(|| self.conn.cuts.streams.clone());
            let body = UpstreamBody::new(body, upstream, lease, tasks, cut);
            return Some(Response::from_parts(head, EdgeBody::sandbox(body, busy)));
        }
        Some(match upgrade.zip(client) {
            Some((upgrade, client)) => {
                self.switch(response, upgrade, client, upstream, lease, busy)
            }
            // It switched without being asked.
            None => asked.refuse(&self.port_closed(), &self.host),
        })
    }

    /// Sends the request, over a kept connection if there is one. A request goes out once: on
    /// another connection only when nothing of it was sent on the first. It comes back where there
    /// was no connection.
    async fn send(
        &self,
        mut request: Request<RequestBody>,
        lease: &Lease,
        way: Way<'_>,
        asks: &mut Option<Asks>,
    ) -> Result<(Response<Incoming>, Upstream), (SendFailure, Option<Request<RequestBody>>)> {
        let Way {
            port,
            reuse,
            tls_host,
        } = way;
        while reuse == Reuse::WithinSandbox
            && let Some(mut upstream) = lease.take_idle_or_warm().await
        {
            // One that closed as it was taken is rare; then the end of the edge may overtake us.
            *asks = None;
            match upstream.send(request).await {
                Ok(response) => return Ok((response, upstream)),
                Err(Unanswered::NotSent(unsent, _)) => request = *unsent,
                Err(Unanswered::Sent(failure)) => return Err((failure, None)),
            }
        }
        let parts = self.edge.parts();
        let opened = Upstream::open(
            &*parts.dialer,
            &parts.upstreams,
            self.edge.limits(),
            lease.sandbox(),
            port,
            reuse,
            tls_host,
        );
        let mut upstream = match opened.await {
            Ok(upstream) => upstream,
            Err(failure) => return Err((failure, Some(request))),
        };
        *asks = None;
        match upstream.send(request).await {
            Ok(response) => Ok((response, upstream)),
            Err(Unanswered::NotSent(_, error)) => Err((SendFailure::Sent(error), None)),
            Err(Unanswered::Sent(failure)) => Err((failure, None)),
        }
    }

    fn switch(
        &self,
        mut response: Response<Incoming>,
        upgrade: Upgrade,
        client: OnUpgrade,
        upstream: Upstream,
        lease: Lease,
        busy: Busy,
    ) -> Response<EdgeBody> {
        let service = hyper::upgrade::on(&mut response);
        let (mut head, _) = response.into_parts();
        header_rules::switched(&mut head, &upgrade);
        let tunnel = Tunnel {
            client,
            service,
            lease,
            upstream,
            busy: busy.clone(),
        };
        tunnel::start(self.conn, tunnel);
        Response::from_parts(head, EdgeBody::whole(Bytes::new(), busy))
    }

    fn refusal_of(&self, failure: SendFailure) -> Refusal {
        let sandbox = &self.target.sandbox;
        match failure {
            SendFailure::Dial(DialFailure::NotFound) => Refusal::NotFound(sandbox.clone()),
            SendFailure::Dial(DialFailure::Paused) => Refusal::Transitioning(sandbox.clone()),
            SendFailure::Dial(DialFailure::PortClosed) => self.port_closed(),
            SendFailure::Dial(DialFailure::Node(_)) => {
                error!(
                    sandbox.id = %sandbox,
                    error = %chain(&failure),
                    "sandbox {sandbox} could not be dialled"
                );
                Refusal::Unexpected {
                    what: "the sandbox could not be reached",
                }
            }
            SendFailure::Tls(_)
            | SendFailure::Prepare(_)
            | SendFailure::Sent(_)
            | SendFailure::Informational => {
                debug!(
                    sandbox.id = %sandbox,
                    port = self.target.port,
                    error = %chain(&failure),
                    "a service in sandbox {sandbox} gave no answer"
                );
                self.port_closed()
            }
        }
    }

    fn port_closed(&self) -> Refusal {
        Refusal::PortClosed {
            sandbox: self.target.sandbox.clone(),
            port: self.target.port,
        }
    }

    fn is_envd(&self) -> bool {
        self.target.port == u64::from(ENVD_PORT)
    }
}

//! HTTP: each request is read by hyper, judged by its own `Host`, and written anew to a connection of
//! its own. So nothing that a client sends reaches a server as anything but the one request that was
//! judged: a second one on the same connection is judged like the first, and bytes that a server
//! might take for another request are part of a body whose length both ends agree on.
//!
//! The one way past that is an upgrade to WebSocket, which the server has to accept first; any other
//! upgrade is taken out of the request.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use casemate_types::network::DomainName;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::watched::{Activity, Watched};
use super::{COPY_BYTES, Caller, Refused};
use crate::SlotPolicy;

const PORT: u16 = 80;
/// Largest head of a request, bytes; beyond it 431.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Largest head of an answer, bytes; beyond it 502.
const ANSWER_HEAD_BYTES_MAX: usize = 32 * 1024;
/// Most fields of either; beyond it 431 or 502.
const FIELDS_MAX: usize = 100;
/// Informational answers (1xx) that a server may send before its answer, each with a head of at most
/// that size; beyond it 502. They go no further than here, and servers send one or two.
const INFORMATIONAL_MAX: u32 = 100;
/// Fields that are about one connection only, and those that ask for another protocol.
const HOP_FIELDS: [&str; 6] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "upgrade",
];
const WEBSOCKET: &str = "websocket";

type Answer = Response<Either<Incoming, Full<Bytes>>>;

/// What one connection of a client leads to. Dropped with it, and so are all connections to servers.
struct Exchange {
    caller: Caller,
    /// Of the latest request.
    name: RefCell<Option<DomainName>>,
    servers: RefCell<JoinSet<()>>,
    upgraded: Cell<Option<(OnUpgrade, OnUpgrade)>>,
}

/// Carries one connection to its end.
pub(crate) async fn serve(stream: TcpStream, caller: Caller) {
    let (slot, resolver) = (Rc::clone(&caller.slot), Rc::clone(&caller.resolver));
    let config = resolver.config();
    let activity = Activity::new();
    let client = TokioIo::new(Watched::new(stream, activity.clone()));
    let exchange = Rc::new(Exchange {
        caller,
        name: RefCell::default(),
        servers: RefCell::default(),
        upgraded: Cell::default(),
    });
    let answering = Rc::clone(&exchange);
    let service = service_fn(move |request| {
        let exchange = Rc::clone(&answering);
        async move { Ok::<_, Infallible>(exchange.answer(request).await) }
    });
    let serving = server::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(FIELDS_MAX)
        .preserve_header_case(true)
        .half_close(true)
        .serve_connection(client, service)
        .with_upgrades();
    let carried = async {
        // What goes wrong with a client is its own affair, and what it was told.
        let _ = serving.await;
        exchange.carry_upgraded().await;
    };
    let still = |policy: &SlotPolicy| match &*exchange.name.borrow() {
        Some(name) => policy.opens(name),
        None => !policy.domains.is_empty(),
    };
    tokio::select! {
        () = carried => {}
        () = activity.idle(config.proxied_idle_timeout) => {}
        () = slot.forbids(still) => {}
    }
}

impl Exchange {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let name = match named(&request) {
            Ok(name) => name,
            Err(wrong) => return said(StatusCode::BAD_REQUEST, wrong),
        };
        match self.pass_on(&name, request).await {
            Ok(answer) => answer,
            Err(refused) => {
                tracing::debug!(slot.ip = %self.caller.ip, %name, ?refused, "refused a request");
                let status = match refused {
                    Refused::NotAllowed | Refused::Closed => StatusCode::FORBIDDEN,
                    Refused::Unknown | Refused::Unreachable => StatusCode::BAD_GATEWAY,
                };
                said(status, &format!("'{name}' {}", refused.words()))
            }
        }
    }

    async fn pass_on(
        &self,
        name: &DomainName,
        mut request: Request<Incoming>,
    ) -> Result<Answer, Refused> {
        let policy = self.caller.policy_for(name)?;
        self.name.replace(Some(name.clone()));
        let server = self.caller.dial(&policy, name, PORT).await?;
        let client = prepare(&mut request).then(|| hyper::upgrade::on(&mut request));
        let sent = self.send(server, request).await.map_err(|error| {
            tracing::debug!(%name, %error, "a server did not answer");
            Refused::Unreachable
        })?;
        let mut answer = sent.ok_or_else(|| {
            tracing::debug!(%name, "a server sent too many informational answers");
            Refused::Unreachable
        })?;
        strip(answer.headers_mut());
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            // A server that switches unasked speaks no HTTP.
            let client = client.ok_or(Refused::Unreachable)?;
            let server = hyper::upgrade::on(&mut answer);
            self.upgraded.set(Some((client, server)));
            switch(answer.headers_mut());
        }
        Ok(answer.map(Either::Left))
    }

    /// Sends one request over a connection of its own, which ends with the answer. `None`: too many
    /// informational answers came. hyper reads them away for as long as they come, and a server that
    /// never ends them would keep the thread of all slots busy.
    async fn send(
        &self,
        server: TcpStream,
        mut request: Request<Incoming>,
    ) -> hyper::Result<Option<Response<Incoming>>> {
        let (mut sender, connection) = client::Builder::new()
            .max_buf_size(ANSWER_HEAD_BYTES_MAX)
            .max_headers(FIELDS_MAX)
            .preserve_header_case(true)
            .handshake(TokioIo::new(server))
            .await?;
        let driver = {
            let mut servers = self.servers.borrow_mut();
            while servers.try_join_next().is_some() {}
            servers.spawn_local(async move {
                // The request that it carries says what went wrong.
                let _ = connection.with_upgrades().await;
            })
        };
        let informational = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&informational);
        hyper::ext::on_informational(&mut request, move |_| {
            if count.fetch_add(1, Ordering::Relaxed) >= INFORMATIONAL_MAX {
                driver.abort();
            }
        });
        let sent = sender.send_request(request).await;
        // Also when the answer came behind them: its connection is being cut.
        if informational.load(Ordering::Relaxed) > INFORMATIONAL_MAX {
            return Ok(None);
        }
        sent.map(Some)
    }

    /// After an accepted upgrade the bytes go through as they are.
    async fn carry_upgraded(&self) {
        let Some((client, server)) = self.upgraded.take() else {
            return;
        };
        if let (Ok(client), Ok(server)) = tokio::join!(client, server) {
            let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
            let _ = copy_bidirectional_with_sizes(&mut client, &mut server, COPY_BYTES, COPY_BYTES)
                .await;
        }
    }
}

/// The host that a request names, or what is wrong with it. Whatever a server might understand in
/// another way is wrong.
fn named<B>(request: &Request<B>) -> Result<DomainName, &'static str> {
    let (uri, headers) = (request.uri(), request.headers());
    if request.method() == Method::CONNECT {
        return Err("tunnels are not allowed");
    }
    let host = only(headers, &HOST).ok_or("a request has one Host")?;
    if let Some(authority) = uri.authority()
        && (uri.scheme_str() != Some("http") || !authority.as_str().eq_ignore_ascii_case(host))
    {
        return Err("the request's address and its Host differ");
    }
    let lengths = headers.get_all(CONTENT_LENGTH).iter().count();
    let coding = headers.contains_key(TRANSFER_ENCODING);
    let is_chunked =
        || only(headers, &TRANSFER_ENCODING).is_some_and(|c| c.eq_ignore_ascii_case("chunked"));
    if lengths > 1
        || (coding && (lengths > 0 || request.version() < Version::HTTP_11 || !is_chunked()))
    {
        return Err("the length of the request's body has two meanings");
    }
    let (name, port) = host.split_once(':').unwrap_or((host, "80"));
    let is_port = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let name = is_port.then(|| DomainName::parse(name)).flatten();
    name.ok_or("the Host names no host")
}

/// The value of a field that is there once, as text.
fn only<'a>(headers: &'a HeaderMap, field: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(field).iter();
    let first = values.next()?;
    values.next().is_none().then(|| first.to_str().ok())?
}

/// Makes a request ready for a server of its own; says whether it asks for a WebSocket.
fn prepare<B>(request: &mut Request<B>) -> bool {
    let headers = request.headers();
    let wants = |field, what: &str| {
        let is_it = |word: &str| word.trim().eq_ignore_ascii_case(what);
        only(headers, field).is_some_and(|value| value.split(',').any(is_it))
    };
    let websocket = only(headers, &UPGRADE).is_some_and(|u| u.eq_ignore_ascii_case(WEBSOCKET))
        && wants(&CONNECTION, "upgrade");
    strip(request.headers_mut());
    // It was answered here.
    request.headers_mut().remove(EXPECT);
    if websocket {
        switch(request.headers_mut());
    } else {
        let close = HeaderValue::from_static("close");
        request.headers_mut().insert(CONNECTION, close);
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    *request.version_mut() = Version::HTTP_11;
    websocket
}

fn strip(headers: &mut HeaderMap) {
    for field in HOP_FIELDS {
        headers.remove(field);
    }
}

fn switch(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
}

/// An answer of our own, after which the connection ends.
fn said(status: StatusCode, words: &str) -> Answer {
    let body = Full::from(format!("casemate: {words}\n"));
    let mut answer = Response::new(Either::Right(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

#[cfg(test)]
mod tests;

//! The plain listener beside TLS: answers ACME's challenges, and sends everybody else to https.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, LOCATION};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::acme::Challenges;
use crate::handshakes::{Handshakes, Place};

/// Connections at once, half of them from one address but loopback; for one more the oldest ends, so
/// that an authority that looks for its challenge is always answered.
const CONNECTIONS_MAX: usize = 256;
/// Life of one connection; it carries one request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Of a host name.
const HOST_BYTES_MAX: usize = 255;

/// What the listener answers.
#[derive(Debug, Clone)]
pub struct Redirect {
    pub challenges: Challenges,
    /// The port of https as clients see it.
    pub port: u16,
}

impl Redirect {
    /// Serves until `shutdown`; what is open then is cut, for a redirection can be asked again.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let places = Handshakes::new(CONNECTIONS_MAX);
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let served = self.clone().serve_one(stream, places.begin(peer.ip()));
                    let shutdown = shutdown.clone();
                    tokio::spawn(async move { shutdown.run_until_cancelled(served).await });
                }
                Err(error) => {
                    warn!(%error, "connections cannot be accepted at the moment");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve_one(self, stream: TcpStream, place: Place) {
        let answer = |request| {
            let answer = self.answer(&request);
            async { Ok::<_, Infallible>(answer) }
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(false)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(stream), service_fn(answer));
        let served = tokio::select! {
            served = tokio::time::timeout(CONNECTION_TIMEOUT, connection) => served,
            () = place.cut.cancelled() => {
                debug!("too many connections to the plain listener: the oldest ends");
                return;
            }
        };
        match served {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "a connection to the plain listener failed"),
            Err(_) => debug!("a connection to the plain listener took too long"),
        }
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if let Some(answer) = self.challenges.answer(request.uri().path()) {
            return text(StatusCode::OK, answer);
        }
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let to = host(request).and_then(|host| self.location(host, path));
        let Some(to) = to else {
            return text(StatusCode::BAD_REQUEST, "A request needs a host.\n".into());
        };
        let mut answer = text(StatusCode::PERMANENT_REDIRECT, "Use https.\n".into());
        answer.headers_mut().insert(LOCATION, to);
        answer
    }

    fn location(&self, host: &str, path: &str) -> Option<HeaderValue> {
        let to = match self.port {
            443 => format!("https://{host}{path}"),
            port => format!("https://{host}:{port}{path}"),
        };
        HeaderValue::try_from(to).ok()
    }
}

/// The host that was asked for, without its port; none that is more than a name or an address.
fn host<B>(request: &Request<B>) -> Option<&str> {
    let host = request.headers().get(HOST)?.to_str().ok()?;
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let inner = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let fits = |byte: u8| match inner {
        Some(_) => byte.is_ascii_hexdigit() || byte == b':' || byte == b'.',
        None => byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.',
    };
    let is_name = !name.is_empty() && inner.unwrap_or(name).bytes().all(fits);
    (is_name && name.len() <= HOST_BYTES_MAX).then_some(name)
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, plain);
    answer
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[track_caller]
    fn check(host: &str, path: &str, port: u16, expected: Option<&str>) {
        let redirect = Redirect {
            challenges: Challenges::default(),
            port,
        };
        let request = Request::builder().uri(path).header(HOST, host).body(());
        let answer = redirect.answer(&request.unwrap());
        let location = answer.headers().get(LOCATION);
        assert_eq!(location.map(|to| to.to_str().unwrap()), expected, "{host}");
    }

    #[test]
    fn everybody_is_sent_to_the_same_host_over_https() {
        check("a.example", "/x?y=1", 443, Some("https://a.example/x?y=1"));
        check("a.example:80", "/", 8443, Some("https://a.example:8443/"));
        check("[::1]:80", "/", 443, Some("https://[::1]/"));
        for no_host in [
            "",
            "a.example/@b.example",
            "user@b.example",
            "[a.example]",
            "a b",
        ] {
            check(no_host, "/", 443, None);
        }
    }

    #[tokio::test]
    async fn idle_connections_keep_nobody_from_the_challenges() {
        let challenges = Challenges::default();
        challenges.open("token".into(), "proof".into());
        let redirect = Redirect {
            challenges,
            port: 443,
        };
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(redirect.serve(listener, CancellationToken::new()));
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS_MAX + 10 {
            idle.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
        }
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let to = ([127, 0, 0, 1], port).into();
        let mut other = socket.connect(to).await.unwrap();
        let ask = b"GET /.well-known/acme-challenge/token HTTP/1.1\r\nhost: a.example\r\n\r\n";
        other.write_all(ask).await.unwrap();
        let mut answer = String::new();
        let read = tokio::time::timeout(CONNECTION_TIMEOUT / 4, other.read_to_string(&mut answer));
        read.await.expect("at once").unwrap();
        assert!(answer.ends_with("proof"), "{answer}");
    }
}
